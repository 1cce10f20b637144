//! What [`super::LocalDisk`] asks of a system that is no Unix, through the standard library alone.
//!
//! *Bounds*: free space cannot be asked for there and counts as endless, so a full disk shows at the write.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

use crate::disk::{FileIdentity, Space};

pub(super) fn owner_only(_options: &mut OpenOptions) {}

pub(super) fn never_wait(_options: &mut OpenOptions) {}

pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    fs::create_dir(path)
}

pub(super) fn occupied_bytes(info: &fs::Metadata) -> u64 {
    info.len()
}

pub(super) fn identity(_: &fs::Metadata) -> Option<FileIdentity> {
    None
}

#[cfg(windows)]
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

#[cfg(windows)]
pub(super) fn write_at(file: &File, buffer: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, buffer, offset)
}

pub(super) fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

pub(super) fn allocate(_file: &File, _offset: u64, _length: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn rename_new(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Exclusive rename out of two calls; a crash between them leaves both names, of which the old one is swept later.
pub(super) fn link_and_unlink(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

/// NTFS journals names in order, and directories cannot be synced through the standard library.
pub(super) fn sync_dir(_path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn try_lock(file: &File, exclusive: bool) -> io::Result<bool> {
    let answer = if exclusive { file.try_lock() } else { file.try_lock_shared() };
    match answer {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    let free = try_lock(file, false)?;
    if free {
        file.unlock()?;
    }
    Ok(!free)
}

pub(super) fn space(_path: &Path) -> io::Result<Space> {
    Ok(Space { free_bytes: u64::MAX, total_bytes: u64::MAX, free_inodes: u64::MAX })
}
