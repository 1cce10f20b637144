//! What [`super::LocalDisk`] asks of a Unix: positioned I/O, preallocation, exclusive rename, directory sync, locks, free space.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use nix::sys::statvfs::statvfs;

use crate::disk::{FileIdentity, Space};

pub(super) fn owner_only(options: &mut OpenOptions) {
    options.mode(0o600);
}

/// Has opening a pipe return at once; regular files are read and written as ever.
pub(super) fn never_wait(options: &mut OpenOptions) {
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
}

pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

pub(super) fn occupied_bytes(info: &fs::Metadata) -> u64 {
    info.blocks().saturating_mul(512)
}

pub(super) fn identity(info: &fs::Metadata) -> Option<FileIdentity> {
    let changed_ns = info.ctime().saturating_mul(1_000_000_000).saturating_add(info.ctime_nsec());
    Some(FileIdentity { device: info.dev(), file: info.ino(), changed_ns })
}

pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buffer, offset)
}

pub(super) fn write_at(file: &File, buffer: &[u8], offset: u64) -> io::Result<usize> {
    file.write_at(buffer, offset)
}

/// Whether the filesystem or kernel lacks the operation, as opposed to having failed at it.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::ENOTTY))
}

#[cfg(target_os = "linux")]
pub(super) fn allocate(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let convert = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    if length == 0 {
        return Ok(());
    }
    let (offset, length) = (convert(offset)?, convert(length)?);
    loop {
        match nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), offset, length) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allocate(_file: &File, _offset: u64, _length: u64) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn rename_new(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

/// Exclusive rename out of two calls; a crash between them leaves both names, of which the old one is swept later.
pub(super) fn link_and_unlink(from: &Path, to: &Path) -> io::Result<()> {
    if let Err(e) = fs::hard_link(from, to) {
        // NFS: the answer to the first request can be lost, and the repeated one then finds the link that the first one made.
        let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let linked = e.kind() == io::ErrorKind::AlreadyExists
            && matches!((&fs::symlink_metadata(from), &fs::symlink_metadata(to)), (Ok(a), Ok(b)) if same(a, b));
        if !linked {
            return Err(e);
        }
    }
    fs::remove_file(from)
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?.sync_all()
}

#[cfg(target_os = "linux")]
fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes an open file description lock; unlike a POSIX lock, closing another descriptor of the file does not lose it.
#[cfg(target_os = "linux")]
pub(super) fn try_lock(file: &File, exclusive: bool) -> io::Result<bool> {
    use nix::{errno::Errno, fcntl};
    let lock = whole_file(if exclusive { libc::F_WRLCK } else { libc::F_RDLCK });
    match fcntl::fcntl(file, fcntl::FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(target_os = "linux")]
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    use nix::fcntl;
    let mut lock = whole_file(libc::F_WRLCK);
    fcntl::fcntl(file, fcntl::FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn try_lock(file: &File, exclusive: bool) -> io::Result<bool> {
    let answer = if exclusive { file.try_lock() } else { file.try_lock_shared() };
    match answer {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

/// Takes and returns a shared lock: there is no way to look without touching here.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_locked(file: &File) -> io::Result<bool> {
    let free = try_lock(file, false)?;
    if free {
        file.unlock()?;
    }
    Ok(!free)
}

#[allow(clippy::unnecessary_cast, reason = "the fields have other widths on other systems")]
pub(super) fn space(path: &Path) -> io::Result<Space> {
    let info = statvfs(path)?;
    let unit = info.fragment_size() as u64;
    Ok(Space {
        free_bytes: (info.blocks_available() as u64).saturating_mul(unit),
        total_bytes: (info.blocks() as u64).saturating_mul(unit),
        free_inodes: if info.files() == 0 { u64::MAX } else { info.files_available() as u64 },
    })
}
