//! Flags of inodes: what they forbid, and setting them.
//!
//! *Invariants*
//! 1. What the flags forbid is asked before a change is made and recorded, and not when it is replayed: the record of a change of
//!    content may follow that of flags which were set after it.
//!
//! *Not here*: who may set them (`volume`).

use super::{Namespace, NamespaceView};
use crate::{
    error::{Error, Result},
    format::inode::{FLAG_APPEND_ONLY, FLAG_IMMUTABLE, FLAG_NO_ATIME, FLAG_NO_DUMP, Inode},
    ino::Ino,
    time::Time,
};

/// Flags that a new inode takes from its directory.
pub(super) const FLAGS_INHERITED: u32 = FLAG_NO_DUMP | FLAG_NO_ATIME;

/// Flags that protect the inode itself: its attributes, and its names.
const PROTECTED: u32 = FLAG_IMMUTABLE | FLAG_APPEND_ONLY;

impl Inode {
    /// Refuses a change of attributes, and a further name.
    pub fn check_attributes(&self, ino: Ino) -> Result<()> {
        self.refuse(ino, PROTECTED)
    }

    /// Refuses whatever an immutable inode forbids and an append-only one allows.
    pub fn check_touch(&self, ino: Ino) -> Result<()> {
        self.refuse(ino, FLAG_IMMUTABLE)
    }

    /// Refuses a change of the content from `offset` on.
    pub fn check_content(&self, ino: Ino, offset: u64) -> Result<()> {
        let overwrites = offset < self.size;
        self.refuse(ino, if overwrites { PROTECTED } else { FLAG_IMMUTABLE })
    }

    fn refuse(&self, ino: Ino, flags: u32) -> Result<()> {
        if self.flags & flags != 0 { Err(Error::NotPermitted(ino.into())) } else { Ok(()) }
    }
}

impl NamespaceView<'_> {
    /// Refuses a new name in an immutable directory. A name that exists is for the operation itself to answer.
    pub fn check_addable(&self, parent: Ino, name: &[u8]) -> Result<()> {
        match self.inode(parent) {
            Ok(directory) if self.lookup(parent, name).is_err() => directory.check_touch(parent),
            _ => Ok(()),
        }
    }

    /// Refuses to take a name away that its directory or its inode protects. A name that does not exist is for the operation
    /// itself to answer.
    pub fn check_removable(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let Ok((ino, _)) = self.lookup(parent, name) else { return Ok(()) };
        self.inode(parent)?.check_attributes(parent)?;
        self.inode(ino)?.check_attributes(ino)
    }

    /// Refuses a rename that takes a protected name away, or puts one where it must not be.
    pub fn check_renamable(&self, from: (Ino, &[u8]), to: (Ino, &[u8])) -> Result<()> {
        match (self.lookup(from.0, from.1), self.lookup(to.0, to.1)) {
            // Two names of one inode: nothing happens.
            (Ok(from), Ok(to)) if from == to => Ok(()),
            (Ok(_), Ok(_)) => self.check_removable(from.0, from.1).and_then(|()| self.check_removable(to.0, to.1)),
            (Ok(_), Err(_)) => self.check_removable(from.0, from.1).and_then(|()| self.check_addable(to.0, to.1)),
            (Err(_), _) => Ok(()),
        }
    }
}

impl Namespace<'_> {
    /// Gives an inode other flags.
    pub fn set_flags(&mut self, ino: Ino, flags: u32, time: Time) -> Result<Inode> {
        let inode = Inode { flags, ctime: time, ..self.inode(ino)? };
        self.put_inode(ino, &inode)?;
        Ok(inode)
    }
}
