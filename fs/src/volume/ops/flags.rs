//! Flags of inodes, as `chattr` knows them: told, and changed by those who may.

use super::super::Volume;
use crate::{
    attr::Caller,
    error::{Error, Result},
    format::{
        inode::{FLAG_APPEND_ONLY, FLAG_IMMUTABLE, FLAGS_KNOWN, FileKind},
        op::Op,
    },
    ino::Ino,
    namespace::Namespace,
};

/// Flags that only root sets or takes away.
const FLAGS_OF_ROOT: u32 = FLAG_IMMUTABLE | FLAG_APPEND_ONLY;

impl Volume {
    /// The flags of an inode.
    pub fn get_flags(&self, ino: Ino) -> Result<u32> {
        if Self::is_view(ino) {
            return self.view_flags(ino);
        }
        Ok(self.meta.read().inode(ino)?.ok_or(Error::Stale(ino.into()))?.flags)
    }

    /// Makes `flags` the flags of a file or directory. The owner and root may; to protect something, or to end that, root alone.
    pub fn set_flags(&self, ino: Ino, flags: u32, caller: &Caller) -> Result<()> {
        if Self::is_view(ino) {
            return Err(Error::ReadOnly("a snapshot".into()));
        }
        if flags & !FLAGS_KNOWN != 0 {
            return Err(Error::Unsupported(format!("inode flags {flags:#x}").into()));
        }
        self.check_writable()?;
        let time = self.now();
        let mut meta = self.meta.write();
        let inode = meta.inode(ino)?.ok_or(Error::Stale(ino.into()))?;
        if !matches!(inode.kind, FileKind::Regular | FileKind::Directory) {
            return Err(Error::Unsupported(format!("flags of inode {ino}, which is special").into()));
        }
        let protects = (inode.flags ^ flags) & FLAGS_OF_ROOT != 0;
        if caller.uid != 0 && (protects || caller.uid != inode.uid) {
            return Err(Error::NotPermitted(ino.into()));
        }
        meta.change(|tree| Namespace::new(tree, &self.names).set_flags(ino, flags, time))?;
        self.finish_change(meta, &Op::SetFlags { ino, flags, time }, time);
        Ok(())
    }
}
