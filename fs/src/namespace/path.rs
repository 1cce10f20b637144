//! The way from an inode back to the root.

use super::{DEPTH_MAX, Link, NamespaceView};
use crate::{
    error::{Error, Result},
    format::{dirent::Dirent, inode::FileKind, key},
    ino::Ino,
};

impl NamespaceView<'_> {
    /// The directory that `..` leads to; the root is its own. [`Error::NotFound`] once the directory was removed.
    pub fn parent_of(&self, dir: Ino) -> Result<Ino> {
        Ok(self.live_directory(dir)?.parent)
    }

    /// The names from the root to an inode, by its first name; none for the root itself. [`Error::NotFound`] if it
    /// has no name, or if one of its directories has none.
    pub fn path_of(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let inode = self.inode(at)?;
            if inode.nlink == 0 {
                return Err(Error::not_found(ino));
            }
            if names.len() == DEPTH_MAX {
                return Err(Error::damaged(ino, "its parents form a cycle"));
            }
            let link = super::link::first_link(&inode);
            names.push(self.name_at(at, link)?);
            at = link.parent;
        }
        names.reverse();
        Ok(names)
    }

    /// The target of a symbolic link; [`Error::InvalidArgument`] of anything else.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        if self.inode(ino)?.kind != FileKind::Symlink {
            return Err(Error::invalid(ino));
        }
        let target = self.tree.get(&key::body(ino))?;
        target.ok_or_else(|| Error::damaged(ino, "a symbolic link without target"))
    }

    /// The name that an inode has at one of its links.
    pub fn name_at(&self, ino: Ino, link: Link) -> Result<Vec<u8>> {
        let dirent = self.tree.get_with(&key::dirent(link.parent, link.cookie), Dirent::decode)?.transpose()?;
        match dirent.filter(|dirent| dirent.ino == ino) {
            Some(dirent) => Ok(dirent.name),
            None => Err(Error::damaged(ino, "one of its names does not lead to it")),
        }
    }

    /// Where a path leads, without following symbolic links; `.` and `..` are not understood.
    pub fn resolve(&self, names: &[impl AsRef<[u8]>]) -> Result<(Ino, FileKind)> {
        let mut at = (Ino::ROOT, FileKind::Directory);
        for name in names {
            at = self.lookup(at.0, name.as_ref())?;
        }
        Ok(at)
    }
}
