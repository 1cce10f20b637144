//! An open directory of the target, and the entries that are made in it.
//!
//! *Invariants*
//! 1. Names are single components, relative to an open directory, and never followed if they are links.
//! 2. A [`Temporary`] that is not published is removed when it is dropped.

use std::{
    cell::Cell,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2},
    sys::stat::{Mode, SFlag, fstatat, makedev, mkdirat, mknodat},
    unistd::{UnlinkatFlags, linkat, mkfifoat, symlinkat, unlinkat},
};
use vellum_fs::format::inode::FileKind;
use vellum_store::crypto::random;

use super::NO_FOLLOW;
use crate::{
    error::{Error, Result},
    output::escaped,
    target::os_str,
};

/// An open directory, or a file that is being restored.
#[derive(Debug)]
pub struct Place {
    fd: OwnedFd,
}

/// An entry that has no name of its own yet.
#[derive(Debug)]
pub struct Temporary<'p> {
    parent: &'p Place,
    name: Vec<u8>,
    made: Cell<bool>,
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Place {
    /// Takes over a descriptor.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// A second descriptor of the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// Whether there is an entry of that name, of whatever kind.
    pub fn exists(&self, name: &[u8]) -> Result<bool> {
        match fstatat(&self.fd, name, NO_FOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(Error::io("look whether it exists", error.into())),
        }
    }

    /// Opens a directory in it, made if it is missing; whether it was.
    pub fn make_directory(&self, name: &[u8]) -> Result<(Self, bool)> {
        let made = match mkdirat(&self.fd, name, Mode::S_IRWXU) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(error) => return Err(Error::io("create the directory", error.into())),
        };
        match self.open_directory(name) {
            Ok(place) => Ok((place, made)),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                Err(Error::refused("something that is no directory is in its place", "move it away"))
            }
            Err(error) => Err(Error::io("open the directory", error.into())),
        }
    }

    fn open_directory(&self, name: &[u8]) -> nix::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.fd, name, flags, Mode::empty()).map(Self::new)
    }

    /// An entry that is to be made in it.
    pub fn temporary(&self) -> Temporary<'_> {
        let number = u64::from_le_bytes(random());
        Temporary { parent: self, name: format!(".vellum-restore-{number:016x}").into_bytes(), made: Cell::new(false) }
    }
}

impl Temporary<'_> {
    /// The directory it is in.
    pub fn parent(&self) -> &Place {
        self.parent
    }

    /// Its name until it gets the one it is meant for.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// A path by which the system finds it as long as its directory is open. Its last component is a name that only this
    /// process has used.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.parent.fd.as_raw_fd())).join(os_str(&self.name))
    }

    fn make(&self, doing: &str, made: nix::Result<()>) -> Result<()> {
        made.map_err(|error| Error::io(doing, error.into()))?;
        self.made.set(true);
        Ok(())
    }

    /// Makes it an empty file, open for writing.
    pub fn create_file(&self) -> Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let created = openat(&self.parent.fd, &self.name[..], flags, mode);
        let fd = created.map_err(|error| Error::io("create the file", error.into()))?;
        self.made.set(true);
        Ok(fd.into())
    }

    /// Makes it a symbolic link.
    pub fn create_symlink(&self, target: &[u8]) -> Result<()> {
        self.make("create the symbolic link", symlinkat(target, &self.parent.fd, &self.name[..]))
    }

    /// Makes it a pipe or a device.
    pub fn create_special(&self, kind: FileKind, rdev: u64) -> Result<()> {
        let (fd, name, mode) = (&self.parent.fd, &self.name[..], Mode::S_IRUSR | Mode::S_IWUSR);
        let device = makedev(rdev >> 32, rdev & 0xffff_ffff);
        match kind {
            FileKind::CharDevice => self.make("create the device", mknodat(fd, name, SFlag::S_IFCHR, mode, device)),
            FileKind::BlockDevice => self.make("create the device", mknodat(fd, name, SFlag::S_IFBLK, mode, device)),
            _ => self.make("create the pipe", mkfifoat(fd, name, mode)),
        }
    }

    /// Makes it a further name of a file that was restored before, at a path below `root`.
    pub fn create_link(&self, root: &Place, path: &[u8]) -> Result<()> {
        let mut names = path.split(|&byte| byte == b'/').peekable();
        let mut dir: Option<Place> = None;
        while let Some(name) = names.next() {
            let at = dir.as_ref().unwrap_or(root);
            if names.peek().is_none() {
                let linked = linkat(&at.fd, name, &self.parent.fd, &self.name[..], AtFlags::empty());
                return self.make("link", linked);
            }
            let below = at.open_directory(name);
            dir = Some(below.map_err(|error| Error::io(format!("open {}", escaped(name)), error.into()))?);
        }
        Ok(())
    }

    /// Gives it its name. Without `force`, something of that name makes it fail.
    pub fn publish(self, name: &[u8], force: bool) -> Result<()> {
        let (from, fd) = (&self.name[..], &self.parent.fd);
        let renamed = match force {
            true => renameat(fd, from, fd, name),
            false => match renameat2(fd, from, fd, name, RenameFlags::RENAME_NOREPLACE) {
                // Some filesystems do not know the flag; `exists` was asked just before.
                Err(Errno::EINVAL | Errno::ENOSYS) => renameat(fd, from, fd, name),
                renamed => renamed,
            },
        };
        match renamed {
            Ok(()) => Ok(()),
            Err(Errno::EISDIR) => Err(Error::refused("a directory is in its place", "move it away")),
            Err(error) => Err(Error::io("give it its name", error.into())),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.made.get() {
            // After a rename it is not there any more; but a rename over another name of the same file does nothing.
            let _ = unlinkat(&self.parent.fd, &self.name[..], UnlinkatFlags::NoRemoveDir);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, io::Write, path::Path};

    use super::*;

    fn place(path: &Path) -> Place {
        Place::new(fs::File::open(path).unwrap().into())
    }

    #[test]
    fn what_is_not_published_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = place(dir.path());
        let temporary = at.temporary();
        temporary.create_file().unwrap().write_all(b"half").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(temporary);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_the_target_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("trap")).unwrap();
        let at = place(dir.path());
        assert!(at.make_directory(b"trap").is_err());
        let temporary = at.temporary();
        assert!(temporary.create_link(&at, b"trap/file").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn publishing_replaces_only_with_force() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("name"), "old").unwrap();
        let at = place(dir.path());
        for (force, content) in [(false, "old"), (true, "new")] {
            let temporary = at.temporary();
            temporary.create_file().unwrap().write_all(b"new").unwrap();
            assert_eq!(temporary.publish(b"name", force).is_ok(), force);
            assert_eq!(fs::read_to_string(dir.path().join("name")).unwrap(), content);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_further_name_is_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/first"), "x").unwrap();
        let at = place(dir.path());
        for force in [false, true] {
            let temporary = at.temporary();
            temporary.create_link(&at, b"sub/first").unwrap();
            temporary.publish(b"second", force).unwrap();
        }
        let inode = |name| std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir.path().join(name)).unwrap());
        assert_eq!(inode("sub/first"), inode("second"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary name stays");
    }
}
