//! Changing permission bits, owners and times.

use super::{Namespace, create::MODE_MASK};
use crate::{error::Result, format::inode::Inode, ino::Ino, time::Time};

/// A change of attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChange {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last read.
    pub atime: Option<Time>,
    /// Last change of the content.
    pub mtime: Option<Time>,
    /// When the change happens.
    pub ctime: Time,
}

impl Namespace<'_> {
    /// Changes attributes of an inode, with or without a name. A new mode changes the access ACL with it. That a
    /// change of owner takes the set-id bits is for the caller to ask for, in the same change.
    pub fn set_attr(&mut self, ino: Ino, change: &AttributeChange) -> Result<Inode> {
        let mut inode = self.inode(ino)?;
        if let Some(mode) = change.mode {
            inode.mode = mode & MODE_MASK;
            self.change_acl_mode(ino, inode.mode)?;
        }
        inode.uid = change.uid.unwrap_or(inode.uid);
        inode.gid = change.gid.unwrap_or(inode.gid);
        inode.atime = change.atime.unwrap_or(inode.atime);
        inode.mtime = change.mtime.unwrap_or(inode.mtime);
        inode.ctime = change.ctime;
        self.put_inode(ino, &inode)?;
        Ok(inode)
    }
}
