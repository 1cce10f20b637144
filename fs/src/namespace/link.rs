//! Further names of a file, and the records by which an inode knows its names.

use std::ops::ControlFlow;

use super::{DirectoryChange, LINKS_MAX, Link, Namespace, NamespaceView};
use crate::{
    error::{Error, Result},
    format::{
        inode::Inode,
        key::{self, KeyParts},
    },
    ino::Ino,
    name,
    time::Time,
};

/// A further name for a file.
#[derive(Clone, Copy, Debug)]
pub struct LinkArgs<'a> {
    /// The file.
    pub ino: Ino,
    /// Directory of the further name.
    pub parent: Ino,
    /// The further name.
    pub name: &'a [u8],
    /// The file's ctime, and the directory's mtime and ctime.
    pub time: Time,
}

impl NamespaceView<'_> {
    /// All names of an inode, the first one first; none if it was unlinked. The root has none.
    pub fn links_of(&self, ino: Ino) -> Result<Vec<Link>> {
        let inode = self.inode(ino)?;
        if inode.nlink == 0 || ino == Ino::ROOT {
            return Ok(Vec::new());
        }
        let mut links = vec![first_link(&inode)];
        let (from, to) = (key::kind_start(ino, key::PARENT), key::kind_start(ino, key::PARENT + 1));
        self.tree.scan(&from, &to, &mut |key, _| {
            links.push(further_link(ino, key)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(links)
    }
}

impl Namespace<'_> {
    /// Gives a file a further name. Directories are refused with [`Error::NotPermitted`], what has no name any more
    /// with [`Error::NotFound`].
    pub fn link(&mut self, args: &LinkArgs<'_>) -> Result<Inode> {
        name::check(args.name)?;
        let mut inode = self.inode(args.ino)?;
        if inode.kind.is_directory() {
            return Err(Error::NotPermitted(args.ino.into()));
        }
        if inode.nlink == 0 {
            return Err(Error::not_found(args.ino));
        }
        let directory = self.view().live_directory(args.parent)?;
        let cookie = self.vacant(args.parent, args.name)?;
        if inode.nlink >= LINKS_MAX {
            return Err(Error::TooManyLinks(args.ino.into()));
        }
        inode.nlink += 1;
        inode.ctime = args.time;
        self.put_inode(args.ino, &inode)?;
        self.tree.insert(&key::parent(args.ino, args.parent, cookie), &[])?;
        self.put_dirent(Link { parent: args.parent, cookie }, args.ino, inode.kind, args.name)?;
        self.touch_directory(args.parent, directory, DirectoryChange::one_more(inode.kind), args.time)?;
        Ok(inode)
    }

    /// Records that an inode's name moved. The inode itself is changed in place and stored by the caller.
    pub(super) fn move_link(&mut self, ino: Ino, inode: &mut Inode, from: Link, to: Link) -> Result<()> {
        if first_link(inode) == from {
            (inode.parent, inode.parent_cookie) = (to.parent, to.cookie);
            return Ok(());
        }
        self.remove_parent(ino, from)?;
        self.tree.insert(&key::parent(ino, to.parent, to.cookie), &[])?;
        Ok(())
    }

    /// Records that an inode lost one of several names; if it was the first, another takes that place.
    pub(super) fn forget_link(&mut self, ino: Ino, inode: &mut Inode, link: Link) -> Result<()> {
        if first_link(inode) != link {
            return self.remove_parent(ino, link);
        }
        let start = key::kind_start(ino, key::PARENT);
        let next = self.tree.first_at_or_after(&start)?.map(|(key, _)| key);
        let ours = |key: &&Vec<u8>| KeyParts::parse(key).is_some_and(|p| p.ino == ino && p.kind == key::PARENT);
        let Some(key) = next.as_ref().filter(ours) else {
            return Err(Error::damaged(ino, "it has more links than names"));
        };
        let next = further_link(ino, key)?;
        (inode.parent, inode.parent_cookie) = (next.parent, next.cookie);
        self.remove_parent(ino, next)
    }

    fn remove_parent(&mut self, ino: Ino, link: Link) -> Result<()> {
        if self.tree.remove(&key::parent(ino, link.parent, link.cookie))? {
            return Ok(());
        }
        Err(Error::damaged(ino, "it does not know one of its names"))
    }
}

/// The name that is kept in the inode itself.
pub(super) fn first_link(inode: &Inode) -> Link {
    Link { parent: inode.parent, cookie: inode.parent_cookie }
}

fn further_link(ino: Ino, key: &[u8]) -> Result<Link> {
    let parts = KeyParts::parse(key).and_then(|parts| parts.parent());
    let (parent, cookie) = parts.ok_or_else(|| Error::damaged(ino, "the key of a further name is malformed"))?;
    Ok(Link { parent, cookie })
}
