//! DIRENT records: names in a directory, found by a keyed hash of the case-folded name.
//!
//! *Invariants*
//! 1. A cookie is from 65,536 to 2^63 - 1, never changes while the name stays, and orders the entries of a directory;
//!    so it is also the position of `readdir`, and 0 to 65,535 are left for a front end's own entries.
//! 2. Names that differ only in case share the hash, so both an exact and a case-blind lookup scan one short run.
//!
//! *Bounds*: at most 65,536 names of a directory share a hash; a directory cannot take one more.
//!
//! *Format*: cookie = hash << 16 | counter, where hash = the first 8 bytes (little-endian) of BLAKE3 of the folded name
//! ([`crate::name::fold`]), keyed with the repository's `DirentName` subkey, modulo 2^47, and 1 where that gives 0. The
//! key makes the order of names mean nothing to who lacks it, and spares the tree hash flooding. The value:
//!
//! | order | type | field | check |
//! |---|---|---|---|
//! | 1 | uvar | child inode | 1 to 2^63 - 1 |
//! | 2 | u8 | kind of the child | [`FileKind`] |
//! | 3 | rest | name | 1 to 255 bytes, no `/`, no 0, not `.` or `..` |

use vellum_store::codec::{Reader, Writer};

use super::{inode::FileKind, read_ino};
use crate::{
    error::{Error, Result},
    ino::Ino,
    name,
};

const OBJECT: &str = "directory entry record";
const COUNTER_BITS: u32 = 16;
const HASH_MASK: u64 = (1 << 47) - 1;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirent {
    /// What the name names.
    pub ino: Ino,
    /// Kind of that inode, so that readdir need not read it.
    pub kind: FileKind,
    /// The name as it was given.
    pub name: Vec<u8>,
}

impl Dirent {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(name::check(&self.name).is_ok(), "names are checked before they are stored");
        let mut writer = Writer(Vec::with_capacity(12 + self.name.len()));
        writer.uvar(self.ino.0);
        writer.u8(self.kind as u8);
        writer.bytes(&self.name);
        writer.0
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let entry = DirentRef::decode(bytes)?;
        Ok(Self { ino: entry.ino, kind: entry.kind, name: entry.name.to_vec() })
    }
}

/// One name in a directory, borrowed from its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirentRef<'a> {
    /// What the name names.
    pub ino: Ino,
    /// Kind of that inode.
    pub kind: FileKind,
    /// The name as it was given.
    pub name: &'a [u8],
}

impl<'a> DirentRef<'a> {
    /// Reads what [`Dirent::encode`] wrote.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, OBJECT);
        let ino = read_ino(&mut reader, OBJECT)?;
        let kind = FileKind::from_u8(reader.u8()?).ok_or_else(|| Error::damaged(OBJECT, "unknown file kind"))?;
        let name = reader.bytes(reader.remaining())?;
        if name::check(name).is_err() {
            return Err(Error::damaged(OBJECT, "not a valid name"));
        }
        Ok(Self { ino, kind, name })
    }
}

/// The lowest cookie that a name can have: the first to look at for an entry of that name.
pub fn first_cookie(key: &[u8; 32], name: &[u8]) -> u64 {
    let hash = blake3::keyed_hash(key, &name::fold(name));
    let (first, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    let hash = u64::from_le_bytes(*first) & HASH_MASK;
    hash.max(1) << COUNTER_BITS
}

/// The highest cookie that a name with this first cookie can have.
pub fn last_cookie(first: u64) -> u64 {
    first | ((1 << COUNTER_BITS) - 1)
}
