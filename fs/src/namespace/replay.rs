//! Doing a journalled operation again.
//!
//! *Invariants*
//! 1. The operations of a journal, applied in order to the tree of the checkpoint that they follow, give the tree that
//!    the live calls gave. An operation that was accepted then and is refused now is damage, and the caller says so.

use super::{
    AttributeChange, CreateArgs, LinkArgs, Namespace, Removed, RenameArgs, RenameFlags, Renamed, SetXattrArgs,
    XattrMode,
};
use crate::{
    error::{Error, Result},
    format::{inode::Inode, op::Op},
    ino::Ino,
};

/// What an operation did, as far as its caller must act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// This inode was made.
    Created(Ino, Inode),
    /// This inode has other attributes or one more name.
    Changed(Ino),
    /// An inode lost a name.
    Removed(Removed),
    /// Names moved.
    Renamed(Renamed),
}

impl Namespace<'_> {
    /// Applies any operation but [`Op::Data`], which is refused with [`Error::InvalidArgument`].
    pub fn apply(&mut self, op: &Op) -> Result<Applied> {
        match op {
            Op::Create { parent, name, ino, kind, mode, uid, gid, rdev, target, time } => {
                let (parent, ino, kind, mode, uid, gid) = (*parent, *ino, *kind, *mode, *uid, *gid);
                let args = CreateArgs { parent, name, ino, kind, mode, uid, gid, rdev: *rdev, target, time: *time };
                self.create(&args).map(|inode| Applied::Created(ino, inode))
            }
            Op::Link { ino, parent, name, time } => {
                self.link(&LinkArgs { ino: *ino, parent: *parent, name, time: *time })?;
                Ok(Applied::Changed(*ino))
            }
            Op::Unlink { parent, name, time } => self.unlink(*parent, name, *time).map(Applied::Removed),
            Op::Rmdir { parent, name, time } => self.rmdir(*parent, name, *time).map(Applied::Removed),
            Op::Rename { parent, name, new_parent, new_name, flags, whiteout, time } => {
                let flags = RenameFlags::from_bits(*flags).ok_or_else(|| Error::invalid("unknown rename flags"))?;
                let (parent, new_parent, whiteout, time) = (*parent, *new_parent, *whiteout, *time);
                let args = RenameArgs { parent, name, new_parent, new_name, flags, whiteout, time };
                self.rename(&args).map(Applied::Renamed)
            }
            Op::SetAttr { ino, mode, uid, gid, atime, mtime, ctime } => {
                let (mode, uid, gid, atime, mtime, ctime) = (*mode, *uid, *gid, *atime, *mtime, *ctime);
                self.set_attr(*ino, &AttributeChange { mode, uid, gid, atime, mtime, ctime })?;
                Ok(Applied::Changed(*ino))
            }
            Op::SetXattr { ino, name, value, time } => {
                self.set_xattr(&SetXattrArgs { ino: *ino, name, value, mode: XattrMode::Set, time: *time })?;
                Ok(Applied::Changed(*ino))
            }
            Op::RemoveXattr { ino, name, time } => {
                self.remove_xattr(*ino, name, *time)?;
                Ok(Applied::Changed(*ino))
            }
            Op::SetFlags { ino, flags, time } => {
                self.set_flags(*ino, *flags, *time)?;
                Ok(Applied::Changed(*ino))
            }
            Op::Data { ino, .. } => Err(Error::invalid(*ino)),
        }
    }
}
