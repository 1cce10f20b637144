//! The namespace of a volume: names, links and attributes as records of a tree.
//!
//! Everything here is a function of the tree and its arguments: inode numbers, times and owners are given by the
//! caller. The same functions therefore serve live calls and the replay of the journal, and both give the same tree.
//!
//! *Invariants*
//! 1. An inode with a name knows all its names: the first in INODE (parent and cookie), the others in PARENT records;
//!    each of them is a DIRENT that names the inode. `nlink` of anything but a directory is their number.
//! 2. A directory has one name; its `nlink` is 2 and its subdirectories, its `size` is [`ENTRY_BYTES`] for each entry.
//! 3. An inode whose `nlink` is 0 has no name and an ORPHAN record, until [`Namespace::drop_inode`]; no other has one.
//! 4. Names are found by the hash of their folded form; names that share it are told apart by the counter in the
//!    cookie, and a gap among the counters hides nothing.
//! 5. An operation that is refused (anything but [`Error::Store`] and [`Error::Damaged`]) has changed nothing. One that
//!    fails with those two may have done a part of its work: the caller goes back to a tree from before it.
//!
//! *Threads*: none; the volume holds its lock around a [`Namespace`], views need no lock.
//!
//! *Bounds*: 65,536 names of one directory may share one folded hash; the next is refused with [`Error::NoSpace`].
//! A file has at most [`LINKS_MAX`] names. A path has at most [`DEPTH_MAX`] components.
//!
//! *Not here*: permission checks (front ends), file content and `size` of files (`content`), the names under which
//! snapshots appear (`volume`).

mod acl;
mod attributes;
mod create;
mod flags;
mod link;
mod list;
mod path;
mod remove;
mod rename;
mod replay;
mod xattr;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

pub use attributes::AttributeChange;
pub use create::{CreateArgs, RootArgs};
pub use link::LinkArgs;
pub use list::DirEntry;
pub use remove::Removed;
pub use rename::{RenameArgs, RenameFlags, Renamed};
pub use replay::Applied;
pub use xattr::{SetXattrArgs, XattrMode};

use crate::{
    error::{Error, Result},
    format::{
        dirent::{self, Dirent, DirentRef},
        inode::{FileKind, Inode},
        key,
    },
    ino::Ino,
    name,
    time::Time,
    tree::Tree,
};

/// Most names of one file; what ext4 allows.
pub const LINKS_MAX: u32 = 65_000;
/// What an entry adds to the `size` of its directory.
pub const ENTRY_BYTES: u64 = 32;
/// Most directories between an inode and the root; a longer chain of parents is taken for a cycle in a damaged tree.
pub const DEPTH_MAX: usize = 1 << 20;
/// Cookie of `.` in a listing.
pub const COOKIE_SELF: u64 = 1;
/// Cookie of `..` in a listing.
pub const COOKIE_PARENT: u64 = 2;

/// The first of the cookies that a name can have, from the key and the name; see [`dirent::first_cookie`].
pub type FirstCookie = fn(&[u8; 32], &[u8]) -> u64;

/// How names become cookies: a hash and its key.
#[derive(Clone)]
pub struct Names {
    key: [u8; 32],
    first_cookie: FirstCookie,
}

impl Names {
    /// The names of a repository, whose key for directory entries is `key`.
    pub fn new(key: [u8; 32]) -> Self {
        Self::with_hash(key, dirent::first_cookie)
    }

    /// Names with another hash than the format's, such as one that collides.
    pub fn with_hash(key: [u8; 32], first_cookie: FirstCookie) -> Self {
        Self { key, first_cookie }
    }

    /// The first and the last cookie that an entry of this name can have.
    fn cookies(&self, name: &[u8]) -> (u64, u64) {
        let first = (self.first_cookie)(&self.key, name);
        (first, dirent::last_cookie(first))
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

/// One name of an inode: the entry with this cookie in `parent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The directory.
    pub parent: Ino,
    /// The entry's cookie there.
    pub cookie: u64,
}

/// An entry that was found.
#[derive(Clone, Copy)]
struct Found {
    cookie: u64,
    ino: Ino,
    kind: FileKind,
}

/// What a directory holds under the cookies of one name.
struct Slot {
    found: Option<Found>,
    free: Option<u64>,
}

/// Reading access to the names of a tree, live or of a snapshot.
#[derive(Clone, Copy)]
pub struct NamespaceView<'t> {
    tree: &'t Tree,
    names: &'t Names,
}

impl<'t> NamespaceView<'t> {
    /// Looks at a tree.
    pub fn new(tree: &'t Tree, names: &'t Names) -> Self {
        Self { tree, names }
    }

    /// The attributes of an inode; [`Error::NotFound`] if there is none of this number.
    pub fn inode(&self, ino: Ino) -> Result<Inode> {
        let inode = self.tree.get_with(&key::inode(ino), |value| Inode::decode(ino, value))?;
        inode.unwrap_or_else(|| Err(Error::not_found(ino)))
    }

    /// The inode that a name leads to. `.` and `..` are not names here: see [`Self::parent_of`].
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<(Ino, FileKind)> {
        self.find(parent, name).map(|found| (found.ino, found.kind))
    }

    /// As [`Self::lookup`], but a name that differs in case only is found too; an exact match wins, then the lowest
    /// cookie. The answer has the name as it is stored.
    pub fn lookup_folded(&self, parent: Ino, name: &[u8]) -> Result<(Ino, FileKind, Vec<u8>)> {
        name::check(name)?;
        let mut best = None;
        self.scan_name(parent, name, |_, dirent| {
            let exact = dirent.name == name;
            if exact || (best.is_none() && name::same_folded(dirent.name, name)) {
                best = Some((dirent.ino, dirent.kind, dirent.name.to_vec()));
            }
            if exact { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        best.ok_or_else(|| self.why_missing(parent, name))
    }

    /// The entry of a name; the error tells a missing name from what is no directory.
    fn find(&self, parent: Ino, name: &[u8]) -> Result<Found> {
        name::check(name)?;
        let mut found = None;
        self.scan_name(parent, name, |cookie, dirent| {
            if dirent.name != name {
                return ControlFlow::Continue(());
            }
            found = Some(Found { cookie, ino: dirent.ino, kind: dirent.kind });
            ControlFlow::Break(())
        })?;
        found.ok_or_else(|| self.why_missing(parent, name))
    }

    /// The entry of a name if it is there, and else the lowest free cookie for it.
    fn slot(&self, parent: Ino, name: &[u8]) -> Result<Slot> {
        let (first, last) = self.names.cookies(name);
        let mut slot = Slot { found: None, free: None };
        let mut next = first;
        self.scan_name(parent, name, |cookie, dirent| {
            if dirent.name == name {
                slot.found = Some(Found { cookie, ino: dirent.ino, kind: dirent.kind });
                return ControlFlow::Break(());
            }
            if slot.free.is_none() && next < cookie {
                slot.free = Some(next);
            }
            next = cookie + 1;
            ControlFlow::Continue(())
        })?;
        if slot.free.is_none() && next <= last {
            slot.free = Some(next);
        }
        Ok(slot)
    }

    fn scan_name(
        &self,
        parent: Ino,
        name: &[u8],
        mut visit: impl FnMut(u64, DirentRef<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (first, last) = self.names.cookies(name);
        self.tree.scan(&key::dirent(parent, first), &key::dirent(parent, last + 1), &mut |key, value| {
            Ok(visit(list::cookie_of(key)?, DirentRef::decode(value)?))
        })
    }

    /// The error of a name that was not found: the directory itself may be what is missing or wrong.
    fn why_missing(&self, parent: Ino, name: &[u8]) -> Error {
        match self.directory(parent) {
            Ok(_) => Error::not_found((parent, name)),
            Err(error) => error,
        }
    }

    /// A directory, with or without a name.
    fn directory(&self, ino: Ino) -> Result<Inode> {
        let inode = self.inode(ino)?;
        if !inode.kind.is_directory() {
            return Err(Error::NotDirectory(ino.into()));
        }
        Ok(inode)
    }

    /// A directory that still has a name, and so can take entries.
    fn live_directory(&self, ino: Ino) -> Result<Inode> {
        let inode = self.directory(ino)?;
        if inode.nlink == 0 { Err(Error::not_found(ino)) } else { Ok(inode) }
    }
}

/// Reading and writing access to the names of a tree.
pub struct Namespace<'t> {
    tree: &'t mut Tree,
    names: &'t Names,
}

impl<'t> Namespace<'t> {
    /// Works on a tree.
    pub fn new(tree: &'t mut Tree, names: &'t Names) -> Self {
        Self { tree, names }
    }

    /// The reading half.
    pub fn view(&self) -> NamespaceView<'_> {
        NamespaceView { tree: self.tree, names: self.names }
    }

    /// As [`NamespaceView::inode`].
    pub fn inode(&self, ino: Ino) -> Result<Inode> {
        self.view().inode(ino)
    }

    /// As [`NamespaceView::lookup`].
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<(Ino, FileKind)> {
        self.view().lookup(parent, name)
    }

    /// Stores the attributes of an inode as they are given.
    pub fn put_inode(&mut self, ino: Ino, inode: &Inode) -> Result<()> {
        self.tree.insert(&key::inode(ino), &inode.encode())?;
        Ok(())
    }

    /// The inode of an entry, which must be what the entry says: rules of directories were applied by that.
    fn linked_inode(&self, found: Found) -> Result<Inode> {
        match self.inode(found.ino) {
            Ok(inode) if inode.kind == found.kind && inode.nlink > 0 => Ok(inode),
            Err(error) if !error.is_not_found() => Err(error),
            _ => Err(Error::damaged(found.ino, "it is not what its name says")),
        }
    }

    fn put_dirent(&mut self, link: Link, ino: Ino, kind: FileKind, name: &[u8]) -> Result<()> {
        let dirent = Dirent { ino, kind, name: name.to_vec() };
        self.tree.insert(&key::dirent(link.parent, link.cookie), &dirent.encode())?;
        Ok(())
    }

    /// Accounts in a directory for entries and subdirectories that came or went, at `time`.
    fn touch_directory(&mut self, ino: Ino, mut inode: Inode, change: DirectoryChange, time: Time) -> Result<()> {
        let size = inode.size.checked_add_signed(change.entries * ENTRY_BYTES as i64);
        let nlink = inode.nlink.checked_add_signed(change.subdirectories).filter(|&nlink| nlink >= 2);
        let (Some(size), Some(nlink)) = (size, nlink) else {
            return Err(Error::damaged(ino, "the counts of a directory do not match its entries"));
        };
        (inode.size, inode.nlink) = (size, nlink);
        (inode.mtime, inode.ctime) = (time, time);
        self.put_inode(ino, &inode)
    }
}

/// What came (positive) or went (negative) in a directory.
#[derive(Clone, Copy, Default)]
struct DirectoryChange {
    entries: i64,
    subdirectories: i32,
}

impl std::ops::Add for DirectoryChange {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { entries: self.entries + other.entries, subdirectories: self.subdirectories + other.subdirectories }
    }
}

impl DirectoryChange {
    fn one_more(kind: FileKind) -> Self {
        Self { entries: 1, subdirectories: i32::from(kind.is_directory()) }
    }

    fn one_less(kind: FileKind) -> Self {
        Self { entries: -1, subdirectories: -i32::from(kind.is_directory()) }
    }
}
