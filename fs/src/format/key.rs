//! Keys of the metadata tree.
//!
//! *Format*
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | inode number, big-endian; 0 for records of the volume itself |
//! | 8 | 1 | kind |
//! | 9 | - | subkey, as in the table of [`crate::format`] |
//!
//! *Invariants*
//! 1. Comparing keys as bytes orders them by inode, then kind, then subkey, so all records of one inode are neighbours.
//! 2. No key is a prefix of another key of the same kind, but for XATTR names, whose terminating 0 keeps them apart.

use std::ops::Deref;

use crate::ino::Ino;

/// Attributes of an inode.
pub const INODE: u8 = 1;
/// Inline content or link target.
pub const BODY: u8 = 2;
/// Entry of a directory.
pub const DIRENT: u8 = 3;
/// A further name of an inode.
pub const PARENT: u8 = 4;
/// Part of an extended attribute.
pub const XATTR: u8 = 5;
/// Part of a file's content.
pub const EXTENT: u8 = 6;
/// History of an inode.
pub const CHANGE: u8 = 7;
/// Inode without a name that was open.
pub const ORPHAN: u8 = 8;
/// Record of the volume itself.
pub const VOLUME: u8 = 9;

/// Subkind of [`VOLUME`]: counters and settings of the volume.
pub const VOLUME_STATE: u8 = 1;
/// Subkind of [`VOLUME`]: hash of the head with a sequence.
pub const VOLUME_HEAD: u8 = 2;
/// Subkind of [`VOLUME`]: a snapshot by id.
pub const VOLUME_SNAPSHOT: u8 = 3;
/// Subkind of [`VOLUME`]: id of the snapshot with a name.
pub const VOLUME_SNAPSHOT_NAME: u8 = 4;

const PREFIX: usize = 9;
const INLINE: usize = 30;

/// Key of one record; short ones, which are nearly all, need no allocation.
#[derive(Clone, Debug)]
pub struct Key(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Inline(u8, [u8; INLINE]),
    Heap(Vec<u8>),
}

impl Key {
    fn new(ino: Ino, kind: u8, subkeys: &[&[u8]]) -> Self {
        let length = PREFIX + subkeys.iter().map(|part| part.len()).sum::<usize>();
        if length > INLINE {
            let mut bytes = Vec::with_capacity(length);
            bytes.extend_from_slice(&ino.0.to_be_bytes());
            bytes.push(kind);
            subkeys.iter().for_each(|part| bytes.extend_from_slice(part));
            return Self(Repr::Heap(bytes));
        }
        let mut bytes = [0; INLINE];
        bytes[..8].copy_from_slice(&ino.0.to_be_bytes());
        bytes[8] = kind;
        let mut at = PREFIX;
        for part in subkeys {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self(Repr::Inline(length as u8, bytes))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(length, bytes) => &bytes[..*length as usize],
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The inode's attributes.
pub fn inode(ino: Ino) -> Key {
    Key::new(ino, INODE, &[])
}

/// The inode's inline content or link target.
pub fn body(ino: Ino) -> Key {
    Key::new(ino, BODY, &[])
}

/// The directory entry with this cookie.
pub fn dirent(dir: Ino, cookie: u64) -> Key {
    Key::new(dir, DIRENT, &[&cookie.to_be_bytes()])
}

/// A further name of an inode: the entry with this cookie in `parent`.
pub fn parent(ino: Ino, parent: Ino, cookie: u64) -> Key {
    Key::new(ino, PARENT, &[&parent.0.to_be_bytes(), &cookie.to_be_bytes()])
}

/// Part of the value of the extended attribute `name`.
pub fn xattr(ino: Ino, name: &[u8], part: u8) -> Key {
    Key::new(ino, XATTR, &[name, &[0, part]])
}

/// The extent that starts at a file offset.
pub fn extent(ino: Ino, offset: u64) -> Key {
    Key::new(ino, EXTENT, &[&offset.to_be_bytes()])
}

/// The `n`th record of the inode's history at a version.
pub fn change(ino: Ino, version: u64, n: u16) -> Key {
    Key::new(ino, CHANGE, &[&version.to_be_bytes(), &n.to_be_bytes()])
}

/// Mark of an open inode without a name.
pub fn orphan(ino: Ino) -> Key {
    Key::new(Ino::VOLUME, ORPHAN, &[&ino.0.to_be_bytes()])
}

/// The volume's state.
pub fn volume_state() -> Key {
    Key::new(Ino::VOLUME, VOLUME, &[&[VOLUME_STATE]])
}

/// Hash of the head with a sequence.
pub fn volume_head(sequence: u64) -> Key {
    Key::new(Ino::VOLUME, VOLUME, &[&[VOLUME_HEAD], &sequence.to_be_bytes()])
}

/// A snapshot by id.
pub fn snapshot(id: u64) -> Key {
    Key::new(Ino::VOLUME, VOLUME, &[&[VOLUME_SNAPSHOT], &id.to_be_bytes()])
}

/// A snapshot's id by name.
pub fn snapshot_name(name: &[u8]) -> Key {
    Key::new(Ino::VOLUME, VOLUME, &[&[VOLUME_SNAPSHOT_NAME], name])
}

/// The first possible key of a kind of an inode; with `kind + 1` the end of that kind.
pub fn kind_start(ino: Ino, kind: u8) -> Key {
    Key::new(ino, kind, &[])
}

/// The first possible key of a subkind of [`VOLUME`]; with `subkind + 1` the end of that subkind.
pub fn volume_start(subkind: u8) -> Key {
    Key::new(Ino::VOLUME, VOLUME, &[&[subkind]])
}

/// A key taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyParts<'a> {
    /// Inode that the record belongs to.
    pub ino: Ino,
    /// Kind of the record.
    pub kind: u8,
    /// The rest.
    pub subkey: &'a [u8],
}

impl<'a> KeyParts<'a> {
    /// Takes a key apart; `None` if it is shorter than inode and kind.
    pub fn parse(key: &'a [u8]) -> Option<Self> {
        let (ino, rest) = key.split_first_chunk::<8>()?;
        let (&kind, subkey) = rest.split_first()?;
        Some(Self { ino: Ino(u64::from_be_bytes(*ino)), kind, subkey })
    }

    /// The subkey as one number: a cookie, a file offset, an orphan's inode number.
    pub fn number(&self) -> Option<u64> {
        self.subkey.try_into().ok().map(u64::from_be_bytes)
    }

    /// The subkey of PARENT: parent and cookie.
    pub fn parent(&self) -> Option<(Ino, u64)> {
        let (parent, cookie) = self.subkey.split_first_chunk::<8>()?;
        Some((Ino(u64::from_be_bytes(*parent)), u64::from_be_bytes(cookie.try_into().ok()?)))
    }

    /// The subkey of XATTR: name and part.
    pub fn xattr(&self) -> Option<(&'a [u8], u8)> {
        match self.subkey {
            [name @ .., 0, part] => Some((name, *part)),
            _ => None,
        }
    }

    /// The subkey of VOLUME: subkind and rest.
    pub fn volume(&self) -> Option<(u8, &'a [u8])> {
        self.subkey.split_first().map(|(&subkind, rest)| (subkind, rest))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::format::KEY_BYTES_MAX;

    #[test]
    fn keys_sort_by_inode_then_kind_then_subkey() {
        let sorted = [
            volume_state(),
            volume_head(9),
            snapshot(1),
            snapshot_name(b"a"),
            inode(Ino(1)),
            body(Ino(1)),
            dirent(Ino(1), 65536),
            dirent(Ino(1), 1 << 40),
            parent(Ino(1), Ino(7), 3),
            xattr(Ino(1), b"user.a", 0),
            xattr(Ino(1), b"user.a", 1),
            xattr(Ino(1), b"user.ab", 0),
            extent(Ino(1), 0),
            extent(Ino(1), 255),
            extent(Ino(1), 256),
            change(Ino(1), 1, 0),
            inode(Ino(256)),
        ];
        assert!(sorted.windows(2).all(|pair| pair[0].as_bytes() < pair[1].as_bytes()));
    }

    #[test]
    fn keys_come_apart_as_they_were_built() {
        let key = parent(Ino(5), Ino(6), 7);
        let parts = KeyParts::parse(&key).unwrap();
        assert_eq!((parts.ino, parts.kind, parts.parent()), (Ino(5), PARENT, Some((Ino(6), 7))));
        let key = xattr(Ino(5), b"user.x", 2);
        assert_eq!(KeyParts::parse(&key).unwrap().xattr(), Some((&b"user.x"[..], 2)));
        assert_eq!(KeyParts::parse(&extent(Ino(5), 99)).unwrap().number(), Some(99));
        assert_eq!(KeyParts::parse(&volume_head(4)).unwrap().volume().unwrap().0, VOLUME_HEAD);
        assert_eq!(KeyParts::parse(&[0; 8]), None);
    }

    #[test]
    fn the_longest_names_fit_a_key() {
        assert!(xattr(Ino::MAX, &[b'x'; 255], 9).len() <= KEY_BYTES_MAX);
        assert!(snapshot_name(&[b'x'; 255]).len() <= KEY_BYTES_MAX);
    }
}
