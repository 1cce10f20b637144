//! Access control lists, kept as the extended attributes in which programs read and write them.
//!
//! *Invariants*
//! 1. An access ACL is stored only if it says more than the mode, and its owner, mask and other entries are the mode's
//!    nine bits: a change of one changes the other.
//! 2. Only directories have a default ACL.
//!
//! *Format*: `u32` version 2, then entries of `u16` tag, `u16` permissions, `u32` id, all little-endian, in the order of
//! their tags (acl(5)).

use super::{Namespace, NamespaceView, create::MODE_MASK};
use crate::{
    error::{Error, Result},
    format::{
        inode::{FileKind, Inode},
        xattr::XATTR_VALUE_MAX,
    },
    ino::Ino,
};

/// Attribute that holds an inode's own list.
pub(super) const ACCESS_NAME: &[u8] = b"system.posix_acl_access";
/// Attribute that holds what a directory hands on.
pub(super) const DEFAULT_NAME: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A checked list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads and checks a list; one without entries is `Ok(None)`, a malformed one `Err(())`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>, ()> {
        let (version, body) = bytes.split_first_chunk::<4>().ok_or(())?;
        if u32::from_le_bytes(*version) != VERSION || body.len() % ENTRY != 0 || bytes.len() > XATTR_VALUE_MAX {
            return Err(());
        }
        let entry = |e: &[u8]| Entry {
            tag: u16::from_le_bytes([e[0], e[1]]),
            permissions: u16::from_le_bytes([e[2], e[3]]),
            id: u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
        };
        let acl = Self(body.chunks_exact(ENTRY).map(entry).collect());
        match acl.0.is_empty() {
            true => Ok(None),
            false if acl.is_valid() => Ok(Some(acl)),
            false => Err(()),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend_from_slice(&entry.tag.to_le_bytes());
            bytes.extend_from_slice(&entry.permissions.to_le_bytes());
            bytes.extend_from_slice(&entry.id.to_le_bytes());
        }
        bytes
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let named = count(USER) + count(GROUP);
        let known = |entry: &Entry| matches!(entry.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER);
        self.0.iter().all(|entry| known(entry) && entry.permissions <= 7)
            && self.0.is_sorted_by_key(|entry| entry.tag)
            && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
            && count(MASK) <= 1
            && (named == 0 || count(MASK) == 1)
    }

    /// Whether the nine bits of a mode say the same.
    pub(super) fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    /// The nine bits of the mode.
    pub(super) fn mode(&self) -> u32 {
        let of = |tag| self.0.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.permissions));
        let group = of(MASK).or(of(GROUP_OBJ)).unwrap_or(0);
        of(USER_OBJ).unwrap_or(0) << 6 | group << 3 | of(OTHER).unwrap_or(0)
    }

    /// This list with the nine bits of `mode`.
    pub(super) fn with_mode(&self, mode: u32) -> Self {
        let group = if self.0.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OBJ };
        let mut acl = self.clone();
        for entry in &mut acl.0 {
            let shift = match entry.tag {
                USER_OBJ => 6,
                OTHER => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            entry.permissions = (mode >> shift & 7) as u16;
        }
        acl
    }

    /// What an inode gets that is created with `mode` in a directory with this default list: its access list and its
    /// mode. To ask again with that mode gives the same.
    pub(super) fn inherited(&self, mode: u32) -> (Self, u32) {
        let mode = mode & (self.mode() | !0o777) & MODE_MASK;
        (self.with_mode(mode), mode)
    }
}

impl NamespaceView<'_> {
    /// What a directory hands on to what is created in it.
    pub(super) fn default_acl(&self, dir: Ino) -> Result<Option<Acl>> {
        self.stored_acl(dir, DEFAULT_NAME)
    }

    fn stored_acl(&self, ino: Ino, name: &[u8]) -> Result<Option<Acl>> {
        match self.find_xattr(ino, name)? {
            Some(value) => {
                Acl::decode(&value).map_err(|()| Error::damaged(ino, "its access control list is malformed"))
            }
            None => Ok(None),
        }
    }
}

impl Namespace<'_> {
    /// Brings an access ACL in line with a mode.
    pub(super) fn change_acl_mode(&mut self, ino: Ino, mode: u32) -> Result<()> {
        match self.view().stored_acl(ino, ACCESS_NAME)? {
            Some(acl) => self.put_xattr(ino, ACCESS_NAME, &acl.with_mode(mode).encode()),
            None => Ok(()),
        }
    }

    /// Stores, or with no entries removes, a list. The mode follows an access list; the inode is stored by the caller.
    pub(super) fn set_acl(&mut self, ino: Ino, inode: &mut Inode, name: &[u8], value: &[u8]) -> Result<()> {
        let acl = Acl::decode(value).map_err(|()| Error::invalid("a malformed access control list"))?;
        match inode.kind {
            FileKind::Symlink => return Err(Error::Unsupported("access control lists of symbolic links".into())),
            kind if name == DEFAULT_NAME && !kind.is_directory() && acl.is_some() => {
                return Err(Error::Access(ino.into()));
            }
            _ => {}
        }
        if let (Some(acl), true) = (&acl, name == ACCESS_NAME) {
            inode.mode = inode.mode & !0o777 | acl.mode();
        }
        match acl {
            Some(acl) if name == DEFAULT_NAME || !acl.is_minimal() => self.put_xattr(ino, name, &acl.encode()),
            _ => self.take_xattr(ino, name).map(|_| ()),
        }
    }
}
