//! Removing names, and inodes that have none.

use std::ops::ControlFlow;

use super::{DirectoryChange, Found, Link, Namespace, NamespaceView};
use crate::{
    error::{Error, Result},
    format::{
        inode::FileKind,
        key::{self, KeyParts},
    },
    ino::Ino,
    time::Time,
};

/// An inode that lost a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Links that remain; with 0 it is an orphan, to be dropped when nobody holds it.
    pub nlink: u32,
}

impl NamespaceView<'_> {
    /// Whether a directory has no entries.
    pub fn is_empty(&self, dir: Ino) -> Result<bool> {
        let next = self.tree.first_at_or_after(&key::kind_start(dir, key::DIRENT))?;
        let ours = |key: &[u8]| KeyParts::parse(key).is_some_and(|p| p.ino == dir && p.kind == key::DIRENT);
        Ok(!next.is_some_and(|(key, _)| ours(&key)))
    }

    /// Calls `f` for every inode without a name, in order of number.
    pub fn orphans(&self, f: &mut dyn FnMut(Ino) -> Result<ControlFlow<()>>) -> Result<()> {
        let from = key::kind_start(Ino::VOLUME, key::ORPHAN);
        let to = key::kind_start(Ino::VOLUME, key::ORPHAN + 1);
        self.tree.scan(&from, &to, &mut |key, _| match KeyParts::parse(key).and_then(|parts| parts.number()) {
            Some(ino) => f(Ino(ino)),
            None => Err(Error::damaged("an orphan record", "its key is malformed")),
        })
    }
}

impl Namespace<'_> {
    /// Removes a name of anything but a directory.
    pub fn unlink(&mut self, parent: Ino, name: &[u8], time: Time) -> Result<Removed> {
        let found = self.view().find(parent, name)?;
        if found.kind.is_directory() {
            return Err(Error::IsDirectory((parent, name).into()));
        }
        self.remove_entry(parent, found, time)
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, parent: Ino, name: &[u8], time: Time) -> Result<Removed> {
        let found = self.view().find(parent, name)?;
        if !found.kind.is_directory() {
            return Err(Error::NotDirectory((parent, name).into()));
        }
        if !self.view().is_empty(found.ino)? {
            return Err(Error::NotEmpty((parent, name).into()));
        }
        self.remove_entry(parent, found, time)
    }

    /// Removes all records of an inode that has no name: attributes, content, xattrs. To drop what is not there is no
    /// error; to drop what has a name is [`Error::Busy`].
    pub fn drop_inode(&mut self, ino: Ino) -> Result<()> {
        match self.inode(ino) {
            Ok(inode) if inode.nlink > 0 => return Err(Error::Busy(ino.into())),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        self.tree.remove_range(&key::kind_start(ino, 0), &key::kind_start(Ino(ino.0 + 1), 0))?;
        self.tree.remove(&key::orphan(ino))?;
        Ok(())
    }

    fn remove_entry(&mut self, parent: Ino, found: Found, time: Time) -> Result<Removed> {
        let directory = self.view().live_directory(parent)?;
        let link = Link { parent, cookie: found.cookie };
        let removed = self.take_link(found, link, time)?;
        self.tree.remove(&key::dirent(parent, found.cookie))?;
        self.touch_directory(parent, directory, DirectoryChange::one_less(found.kind), time)?;
        Ok(removed)
    }

    /// Takes a name from an inode; entry and directory are left to the caller.
    pub(super) fn take_link(&mut self, found: Found, link: Link, time: Time) -> Result<Removed> {
        let ino = found.ino;
        let mut inode = self.linked_inode(found)?;
        inode.ctime = time;
        if inode.kind.is_directory() || inode.nlink <= 1 {
            inode.nlink = 0;
            (inode.parent, inode.parent_cookie) = (Ino::VOLUME, 0);
            self.tree.insert(&key::orphan(ino), &[])?;
        } else {
            inode.nlink -= 1;
            self.forget_link(ino, &mut inode, link)?;
        }
        self.put_inode(ino, &inode)?;
        Ok(Removed { ino, kind: inode.kind, nlink: inode.nlink })
    }
}
