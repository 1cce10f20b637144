//! The disk of this machine.
//!
//! *Invariants*
//! 1. What vellum creates is for its owner alone: files 0600, directories 0700, less the umask.
//! 2. No descriptor is inherited by a program that is started later.
//!
//! *Not here*: the calls that differ between systems (`system`, next to this file).

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    ops::ControlFlow,
    path::Path,
};

use super::{Allocation, Disk, DiskFile, DiskLock, EntryKind, FileInfo, Space};

#[cfg(not(unix))]
#[path = "local/other.rs"]
mod system;
#[cfg(unix)]
#[path = "local/unix.rs"]
mod system;

/// The filesystems of this machine, through the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LocalFile(File::open(path)?)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LocalFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        system::owner_only(&mut options);
        Ok(Box::new(LocalFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match system::rename_new(from, to) {
            Err(e) if system::is_unsupported(&e) => system::link_and_unlink(from, to),
            other => other,
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match system::create_dir(path) {
            // A file of that name must not pass for a directory.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match system::sync_dir(path) {
            // Some network filesystems have no such operation; their servers order names themselves.
            Err(e) if system::is_unsupported(&e) => Ok(()),
            other => other,
        }
    }

    fn list_dir(&self, path: &Path, f: &mut dyn FnMut(&OsStr, EntryKind) -> ControlFlow<()>) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => EntryKind::File,
                Ok(kind) if kind.is_dir() => EntryKind::Dir,
                Ok(_) => EntryKind::Other,
                // Removed since the directory was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if f(&entry.file_name(), kind).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        match fs::metadata(path) {
            Ok(info) => Ok(Some(FileInfo { len: info.len(), is_dir: info.is_dir() })),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn lock(&self, path: &Path, exclusive: bool) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        system::owner_only(&mut options);
        let file = match options.open(path) {
            Ok(file) => file,
            // A reader of a repository that it may not write shares a lock that a writer has made.
            Err(e) if !exclusive => File::open(path).map_err(|_| e)?,
            Err(e) => return Err(e),
        };
        let locked = system::try_lock(&file, exclusive)?;
        Ok(locked.then(|| Box::new(LocalLock { _file: file }) as Box<dyn DiskLock>))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        match File::open(path) {
            Ok(file) => system::is_locked(&file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        system::space(path)
    }
}

#[derive(Debug)]
struct LocalFile(File);

impl DiskFile for LocalFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        system::read_at(&self.0, buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        system::write_at(&self.0, buffer, offset)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        match system::allocate(&self.0, offset, length) {
            Ok(()) => Ok(Allocation::Reserved),
            Err(e) if system::is_unsupported(&e) => {
                if self.0.metadata()?.len() < offset + length {
                    self.0.set_len(offset + length)?;
                }
                Ok(Allocation::LengthOnly)
            }
            Err(e) => Err(e),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// The lock belongs to the open file description and ends with it.
#[derive(Debug)]
struct LocalLock {
    _file: File,
}

impl DiskLock for LocalLock {}
