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

/// Opens what must be a regular file. A pipe in its place, put there by whoever can write the directory, would make the caller
/// wait for ever, and a device would answer with bytes without end.
fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    system::never_wait(options);
    let file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(file),
        (_, true) => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("it is no regular file")),
    }
}

impl Disk for LocalDisk {
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LocalFile(open_regular(OpenOptions::new().read(true), path)?)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LocalFile(open_regular(OpenOptions::new().read(true).write(true), path)?)))
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
            Ok(info) => {
                let occupied_bytes = system::occupied_bytes(&info);
                let identity = system::identity(&info);
                Ok(Some(FileInfo { len: info.len(), occupied_bytes, is_dir: info.is_dir(), identity }))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn lock(&self, path: &Path, exclusive: bool) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        system::owner_only(&mut options);
        let file = match open_regular(&mut options, path) {
            Ok(file) => file,
            // A reader of a repository that it may not write shares a lock that a writer has made.
            Err(e) if !exclusive => open_regular(OpenOptions::new().read(true), path).map_err(|_| e)?,
            Err(e) => return Err(e),
        };
        let locked = system::try_lock(&file, exclusive)?;
        Ok(locked.then(|| Box::new(LocalLock { _file: file }) as Box<dyn DiskLock>))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        match open_regular(OpenOptions::new().read(true), path) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exclusive_rename_never_replaces_in_either_way() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for rename in [
            &(|from: &Path, to: &Path| LocalDisk.rename_new(from, to)) as &dyn Fn(&Path, &Path) -> _,
            &system::link_and_unlink,
        ] {
            fs::write(&a, b"a").unwrap();
            rename(&a, &b).unwrap();
            assert!(!a.exists());
            fs::write(&a, b"other").unwrap();
            assert_eq!(rename(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"other".to_vec(), b"a".to_vec()));
            fs::remove_file(&a).unwrap();
            assert_eq!(rename(&a, &dir.path().join("c")).unwrap_err().kind(), io::ErrorKind::NotFound);
            fs::remove_file(&b).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn link_that_exists_because_the_answer_was_lost_counts_as_done() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, b"a").unwrap();
        fs::hard_link(&a, &b).unwrap();
        system::link_and_unlink(&a, &b).unwrap();
        assert!(!a.exists() && b.exists());
    }

    #[test]
    fn locks_exclude_each_other_also_inside_a_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!LocalDisk.is_locked(&path).unwrap());
        let first = LocalDisk.lock(&path, false).unwrap().unwrap();
        let second = LocalDisk.lock(&path, false).unwrap().unwrap();
        assert!(LocalDisk.lock(&path, true).unwrap().is_none());
        drop(first);
        // Opening and closing the file does not lose the lock of another descriptor.
        drop(LocalDisk.open_write(&path).unwrap());
        assert!(LocalDisk.is_locked(&path).unwrap() && LocalDisk.lock(&path, true).unwrap().is_none());
        drop(second);
        let alone = LocalDisk.lock(&path, true).unwrap().unwrap();
        assert!(LocalDisk.lock(&path, false).unwrap().is_none() && LocalDisk.is_locked(&path).unwrap());
        drop(alone);
        assert!(!LocalDisk.is_locked(&path).unwrap());
    }

    #[test]
    fn reserved_range_extends_the_file_with_zeros_and_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let file = LocalDisk.create_new(&dir.path().join("a")).unwrap();
        file.write_all_at(b"bytes", 0).unwrap();
        file.allocate(0, 10_000).unwrap();
        file.allocate(0, 0).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        let mut bytes = [1; 10];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"bytes\0\0\0\0\0");
        file.set_len(3).unwrap();
        assert_eq!(file.read_exact_at(&mut bytes, 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.sync_data().unwrap();
        file.sync_all().unwrap();
    }

    #[test]
    fn absurd_reservation_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = LocalDisk.create_new(&dir.path().join("a")).unwrap();
        assert!(file.allocate(0, u64::MAX).is_err());
        assert!(file.allocate(u64::MAX, 1).is_err());
    }

    #[test]
    fn missing_is_not_found_and_a_file_is_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (file, missing) = (dir.path().join("file"), dir.path().join("missing"));
        LocalDisk.create_new(&file).unwrap();
        assert_eq!(LocalDisk.open_read(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(LocalDisk.create_new(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(LocalDisk.metadata(&missing).unwrap(), None);
        assert_eq!(LocalDisk.metadata(&file.join("below")).unwrap(), None);
        let info = LocalDisk.metadata(&file).unwrap().unwrap();
        assert_eq!((info.len, info.occupied_bytes, info.is_dir), (0, 0, false));
        assert!(LocalDisk.create_dir(&file).is_err());
        LocalDisk.create_dir(dir.path()).unwrap();
        LocalDisk.sync_dir(dir.path()).unwrap();
        assert!(LocalDisk.sync_dir(&missing).is_err());
        let space = LocalDisk.space(dir.path()).unwrap();
        assert!(space.total_bytes >= space.free_bytes && space.free_bytes > 0);
    }

    #[test]
    fn listing_shows_names_as_bytes_with_their_kinds_and_stops_when_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        let mut found = Vec::new();
        let mut list = |stop: bool| {
            found.clear();
            let result = LocalDisk.list_dir(dir.path(), &mut |name, kind| {
                found.push((name.to_os_string(), kind));
                if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            result.map(|()| found.len()).unwrap()
        };
        assert_eq!((list(true), list(false)), (1, 2));
        assert!(found.contains(&("file".into(), EntryKind::File)) && found.contains(&("dir".into(), EntryKind::Dir)));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_told_from_its_copy_and_from_what_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (file, copy) = (dir.path().join("file"), dir.path().join("copy"));
        let identity = |path: &Path| LocalDisk.metadata(path).unwrap().unwrap().identity.unwrap();
        fs::write(&file, b"bytes").unwrap();
        let first = identity(&file);
        fs::read(&file).unwrap();
        assert_eq!(identity(&file), first);
        fs::copy(&file, &copy).unwrap();
        assert_ne!(identity(&copy), first);
        fs::rename(&copy, &file).unwrap();
        assert_ne!(identity(&file), first);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_created_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (file, lock, below) = (dir.path().join("file"), dir.path().join("lock"), dir.path().join("dir"));
        LocalDisk.create_new(&file).unwrap();
        LocalDisk.lock(&lock, true).unwrap();
        LocalDisk.create_dir(&below).unwrap();
        for path in [file, lock, below] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }
}
