//! Creating inodes: files, directories, symbolic links, devices, pipes and sockets, and the root.

use super::{DirectoryChange, Link, Namespace, NamespaceView, acl, flags::FLAGS_INHERITED};
use crate::{
    error::{Error, Result},
    format::{
        TARGET_BYTES_MAX,
        inode::{FileKind, Inode},
        key,
    },
    ino::Ino,
    name,
    time::Time,
};

/// Permission bits of an inode, with set-uid, set-gid and sticky.
pub(super) const MODE_MASK: u32 = 0o7777;
pub(super) const SET_GID: u32 = 0o2000;

/// What a new inode is to be.
#[derive(Clone, Debug)]
pub struct CreateArgs<'a> {
    /// Directory that it appears in.
    pub parent: Ino,
    /// Its name there.
    pub name: &'a [u8],
    /// Its number, never used before.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits as [`NamespaceView::create_mode`] gave them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group, unless a set-gid directory gives its own.
    pub gid: u32,
    /// Device number of a device; else 0.
    pub rdev: u64,
    /// Target of a symbolic link; else empty.
    pub target: &'a [u8],
    /// All its times, and the directory's mtime and ctime.
    pub time: Time,
}

/// What the root directory of a new volume is to be.
#[derive(Clone, Copy, Debug)]
pub struct RootArgs {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// All its times.
    pub time: Time,
}

impl NamespaceView<'_> {
    /// The permission bits that a new inode gets when its creator asks for `mode` under `umask`: a default ACL of the
    /// directory stands in for the umask.
    pub fn create_mode(&self, parent: Ino, kind: FileKind, mode: u32, umask: u32) -> Result<u32> {
        let mode = mode & MODE_MASK;
        if kind == FileKind::Symlink {
            return Ok(0o777);
        }
        Ok(match self.default_acl(parent)? {
            Some(acl) => acl.inherited(mode).1,
            None => mode & !umask,
        })
    }
}

impl Namespace<'_> {
    /// Makes the root directory of an empty tree.
    pub fn make_root(&mut self, args: &RootArgs) -> Result<Inode> {
        let mut inode = Inode::new(FileKind::Directory, args.mode & MODE_MASK, args.uid, args.gid, args.time);
        (inode.nlink, inode.parent) = (2, Ino::ROOT);
        self.put_inode(Ino::ROOT, &inode)?;
        Ok(inode)
    }

    /// Makes an inode and its first name. A set-gid directory hands on its group, and to directories the bit; a
    /// default ACL is inherited.
    pub fn create(&mut self, args: &CreateArgs<'_>) -> Result<Inode> {
        check(args)?;
        let directory = self.view().live_directory(args.parent)?;
        let cookie = self.vacant(args.parent, args.name)?;
        let link = Link { parent: args.parent, cookie };
        let inode = self.create_at(args, &directory, link)?;
        self.touch_directory(args.parent, directory, DirectoryChange::one_more(args.kind), args.time)?;
        Ok(inode)
    }

    /// Stores a new inode with its name; the directory's own record is left to the caller.
    pub(super) fn create_at(&mut self, args: &CreateArgs<'_>, directory: &Inode, link: Link) -> Result<Inode> {
        let mut inode = Inode::new(args.kind, args.mode & MODE_MASK, args.uid, args.gid, args.time);
        inode.nlink = if args.kind.is_directory() { 2 } else { 1 };
        inode.rdev = args.rdev;
        inode.flags = directory.flags & FLAGS_INHERITED;
        (inode.parent, inode.parent_cookie) = (link.parent, link.cookie);
        if directory.mode & SET_GID != 0 {
            inode.gid = directory.gid;
            if args.kind.is_directory() {
                inode.mode |= SET_GID;
            }
        }
        if args.kind == FileKind::Symlink {
            inode.size = args.target.len() as u64;
            self.tree.insert(&key::body(args.ino), args.target)?;
        } else if let Some(default) = self.view().default_acl(args.parent)? {
            inode.mode = self.inherit_acl(args.ino, &inode, &default)?;
        }
        if !self.tree.insert(&key::inode(args.ino), &inode.encode())? {
            return Err(Error::damaged(args.ino, "the number was given out twice"));
        }
        self.put_dirent(link, args.ino, args.kind, args.name)?;
        Ok(inode)
    }

    fn inherit_acl(&mut self, ino: Ino, inode: &Inode, default: &acl::Acl) -> Result<u32> {
        let (access, mode) = default.inherited(inode.mode);
        if !access.is_minimal() {
            self.put_xattr(ino, acl::ACCESS_NAME, &access.encode())?;
        }
        if inode.kind.is_directory() {
            self.put_xattr(ino, acl::DEFAULT_NAME, &default.encode())?;
        }
        Ok(mode)
    }

    /// A free cookie for a name that must not be there yet.
    pub(super) fn vacant(&self, parent: Ino, name: &[u8]) -> Result<u64> {
        let slot = self.view().slot(parent, name)?;
        if slot.found.is_some() {
            return Err(Error::Exists((parent, name).into()));
        }
        slot.free.ok_or_else(|| full(parent, name))
    }
}

/// The error of a name for which all counters are taken.
pub(super) fn full(parent: Ino, name: &[u8]) -> Error {
    Error::NoSpace((parent, name).into())
}

/// Whether a number can be that of an inode with a name.
pub(super) fn is_ordinary(ino: Ino) -> bool {
    ino > Ino::ROOT && !ino.is_view()
}

fn check(args: &CreateArgs<'_>) -> Result<()> {
    name::check(args.name)?;
    if !is_ordinary(args.ino) {
        return Err(Error::invalid(args.ino));
    }
    if args.kind == FileKind::Symlink {
        if args.target.is_empty() {
            return Err(Error::not_found("an empty link target"));
        }
        if args.target.len() > TARGET_BYTES_MAX {
            return Err(Error::NameTooLong("a link target".into()));
        }
        if args.target.contains(&0) {
            return Err(Error::invalid("a link target with a zero byte"));
        }
    }
    Ok(())
}
