//! Listing directories.
//!
//! *Invariants*
//! 1. The cookie of an entry does not change while the entry stays; a listing that resumes at any cookie, also one whose
//!    entry is gone, meets every entry that was there all the time exactly once.

use std::ops::ControlFlow;

use super::{COOKIE_PARENT, COOKIE_SELF, NamespaceView};
use crate::{
    error::{Error, Result},
    format::{
        dirent::DirentRef,
        inode::FileKind,
        key::{self, KeyParts},
    },
    ino::Ino,
};

/// One line of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Where a listing resumes after this entry.
    pub cookie: u64,
    /// The inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// The name, any bytes but `/` and 0.
    pub name: &'a [u8],
}

impl NamespaceView<'_> {
    /// Calls `f` for the entries of a directory after a cookie (0 for all), `.` and `..` first, until it breaks. A
    /// directory that was removed lists nothing.
    pub fn read_dir(&self, dir: Ino, after: u64, f: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>) -> Result<()> {
        let inode = self.directory(dir)?;
        if inode.nlink == 0 {
            return Ok(());
        }
        for (cookie, ino, name) in [(COOKIE_SELF, dir, &b"."[..]), (COOKIE_PARENT, inode.parent, b"..")] {
            if after < cookie && f(DirEntry { cookie, ino, kind: FileKind::Directory, name }).is_break() {
                return Ok(());
            }
        }
        let from = key::dirent(dir, after.max(COOKIE_PARENT).saturating_add(1));
        self.tree.scan(&from, &key::kind_start(dir, key::DIRENT + 1), &mut |key, value| {
            let dirent = DirentRef::decode(value)?;
            Ok(f(DirEntry { cookie: cookie_of(key)?, ino: dirent.ino, kind: dirent.kind, name: dirent.name }))
        })
    }
}

/// The cookie in the key of a directory entry.
pub(super) fn cookie_of(key: &[u8]) -> Result<u64> {
    let cookie = KeyParts::parse(key).and_then(|parts| parts.number());
    cookie.ok_or_else(|| Error::damaged("a directory entry", "its key is malformed"))
}
