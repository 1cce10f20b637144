//! The few verbs that keep a repository's objects, whatever the storage behind them.
//!
//! *Invariants*
//! 1. A stored object is whole: no name ever shows a part of an object, also after a crash.
//! 2. A stored object is never overwritten (F4). [`Backend::replace`] serves `config` and key slots alone, which are small, kept three times and
//!    replaced as a whole.
//! 3. [`Error::NotFound`] says that the object is not there; a read that failed is [`Error::Io`], and too few bytes are
//!    [`Error::Corrupt`].
//!
//! *Ordering*: when [`Backend::put_new`], [`Backend::replace`] and [`OpenObject::publish`] return, bytes and name survive power loss; this is
//! what F1, F2 and F3 are built on. [`Put::Exists`] promises the same of the object that was there before. A deletion may be undone by power loss, but for
//! that of a key slot.
//!
//! *Threads*: all methods may be called from any thread at any time.
//!
//! *Bounds*: an object name has at most [`NAME_BYTES_MAX`] bytes; every read says how much it is ready to take.
//!
//! *Not here*: what is inside an object, and any secret; what goes in is sealed already (F8).

use std::fmt;

use crate::{
    crypto::random,
    disk::FileIdentity,
    error::{Error, Result},
    id::{ManifestId, PackId, SegmentId, VolumeName, hex},
};

pub mod conformance;
pub mod local;
pub mod memory;

pub use local::LocalBackend;
pub use memory::MemoryBackend;

/// Longest object name.
pub const NAME_BYTES_MAX: usize = 200;

/// Damaged objects of one name that are kept; more would be a disk that damages whatever is written to it.
pub(crate) const ASIDE_MAX: u32 = 1000;

/// Whether a put stored its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is stored.
    Stored,
    /// The name was taken, and what was stored there is unchanged.
    Exists,
}

/// Durable storage for the objects of one repository.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Stores an object unless its name is taken; durable on return, whichever the answer.
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put>;

    /// Stores `config`, a key slot or a copy of one, whether or not the name is taken; durable on return. Other names are refused.
    fn replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<()>;

    /// Reads a whole object; one longer than `length_max` is [`Error::Corrupt`].
    fn get(&self, name: &ObjectName, length_max: u64) -> Result<Vec<u8>>;

    /// Reads a range; an object that ends before it does is [`Error::Corrupt`].
    fn get_range(&self, name: &ObjectName, offset: u64, length: u32) -> Result<Vec<u8>>;

    /// The length of an object, `None` if there is none.
    fn length(&self, name: &ObjectName) -> Result<Option<u64>>;

    /// What tells a stored object from a copy of it and from one that took its place; `None` where the storage cannot tell. What is read after
    /// the call is that object or a later one.
    fn identity(&self, _name: &ObjectName) -> Result<Option<FileIdentity>> {
        Ok(None)
    }

    /// Calls `f` with each object whose name starts with `prefix` and its length, in no order. An error of `f` ends the listing and is returned.
    /// What is stored or deleted meanwhile may or may not be seen.
    fn list(&self, prefix: &str, f: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()>;

    /// Deletes an object; one that is not there is fine, since not every storage can tell.
    fn delete(&self, name: &ObjectName) -> Result<()>;

    /// Moves a damaged object out of the way and keeps its bytes, under [`ObjectName::aside`] and what tells it from others of that name; durable
    /// on return. `false` if there is no such object.
    fn set_aside(&self, name: &ObjectName) -> Result<bool>;

    /// Creates an open object, with space for `size_hint` bytes reserved where that is possible.
    fn create_open(&self, size_hint: u64) -> Result<Box<dyn OpenObject>>;

    /// The open objects, whoever left or still fills them.
    fn list_open(&self) -> Result<Vec<OpenName>>;

    /// Reads a range of an open object; one that ends before the range does is [`Error::Corrupt`]. Reserved bytes that were never written read as zeros.
    fn read_open(&self, name: &OpenName, offset: u64, length: u32) -> Result<Vec<u8>>;

    /// Deletes an open object; one that is not there is fine.
    fn delete_open(&self, name: &OpenName) -> Result<()>;

    /// Space for further objects.
    fn space(&self) -> Result<Space>;

    /// Sets space aside for the day the disk is full, as far as there is some and the storage can do that; what is stored then takes it when
    /// there is no other.
    fn hold_reserve(&self) {}

    /// Makes room on the storage for something that is not stored here, where no space was found: gives up what is reserved and not
    /// filled, then a part of what is set aside. Returns whether there is more room than before.
    fn make_room(&self) -> bool {
        false
    }
}

/// Space for the objects of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that can still be filled.
    pub free_bytes: u64,
    /// Bytes altogether.
    pub total_bytes: u64,
    /// Bytes that are set aside for the day the disk is full; not among the free ones.
    pub reserve_bytes: u64,
    /// Bytes that are to be set aside and are not.
    pub unreserved_bytes: u64,
}

/// One object that is being filled: invisible to [`Backend::list`] until it is published.
///
/// After a failed append, sync or publish (a full disk during an append excepted, which leaves the object as it was) the object is poisoned: appending,
/// syncing and publishing give that first error again, because a later sync that succeeds proves nothing about bytes that an earlier one lost.
/// What was appended can still be read, and must be verified. Dropping an object leaves it in the storage, where replay looks for it.
pub trait OpenObject: Send + Sync + fmt::Debug {
    /// The name it has while open.
    fn name(&self) -> &OpenName;

    /// Appends bytes and returns the offset where they begin.
    fn append(&self, bytes: &[u8]) -> Result<u64>;

    /// Reads what was appended, also after publication.
    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>>;

    /// Bytes appended so far.
    fn len(&self) -> u64;

    /// Whether nothing was appended yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes durable what was appended before the call, and the open object's name. After publication, which may overtake who
    /// syncs, there is nothing left to do.
    fn sync(&self) -> Result<()>;

    /// Cuts off what is reserved beyond the end, makes the bytes durable and gives them their name for good; durable on return. If the name is taken the
    /// open object is removed. Nothing can be appended after either.
    fn publish(&self, name: &ObjectName) -> Result<Put>;

    /// Removes the object from the storage.
    fn discard(&self);
}

/// Name of a stored object, relative to the repository: parts joined by `/`, each of `a-z A-Z 0-9 . _ -` and not starting with a dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks and takes a name; [`Error::InvalidName`] says which rule it breaks.
    pub fn new(name: &str) -> Result<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let part_is_valid = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed);
        if name.len() > NAME_BYTES_MAX || !name.split('/').all(part_is_valid) {
            return Err(Error::InvalidName {
                what: "object",
                name: name.to_string(),
                rule: "at most 200 of a-z A-Z 0-9 . _ - in parts joined by /, none starting with a dot",
            });
        }
        Ok(Self(name.to_string()))
    }

    /// `packs/<aa>/<pack>`: two digits fan out, since some filesystems are slow with very large directories.
    pub fn pack(id: &PackId) -> Self {
        let text = id.to_hex();
        Self(format!("packs/{}/{text}", &text[..2]))
    }

    /// `index/<segment>`.
    pub fn segment(id: &SegmentId) -> Self {
        Self(format!("index/{id}"))
    }

    /// `manifests/<manifest>`.
    pub fn manifest(id: &ManifestId) -> Self {
        Self(format!("manifests/{id}"))
    }

    /// `heads/<volume>/<sequence>`, the sequence as 16 hexadecimal digits.
    pub fn head(volume: &VolumeName, sequence: u64) -> Self {
        Self(format!("heads/{volume}/{sequence:016x}"))
    }

    /// The pack that this names, if it names one.
    pub fn as_pack(&self) -> Option<PackId> {
        let (fan_out, text) = self.0.strip_prefix("packs/")?.split_once('/')?;
        text.starts_with(fan_out).then(|| PackId::from_hex(text)).flatten().filter(|id| Self::pack(id) == *self)
    }

    /// The index segment that this names, if it names one.
    pub fn as_segment(&self) -> Option<SegmentId> {
        SegmentId::from_hex(self.0.strip_prefix("index/")?)
    }

    /// The head of `volume` that this names, if it names one.
    pub fn as_head(&self, volume: &VolumeName) -> Option<u64> {
        let digits = self.0.strip_prefix("heads/")?.strip_prefix(volume.as_str())?.strip_prefix('/')?;
        u64::from_str_radix(digits, 16).ok().filter(|&sequence| Self::head(volume, sequence) == *self)
    }

    /// `damaged/<name>`, with dots for the slashes of the name: what a repair put out of the way.
    pub fn aside(&self) -> Self {
        Self(format!("damaged/{}", self.0.replace('/', ".")))
    }

    /// The same for the second object of this name and for later ones.
    pub(crate) fn aside_again(&self, count: u32) -> Self {
        Self(format!("{}.{count}", self.aside()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Whether [`Backend::replace`] takes it.
    pub fn is_replaceable(&self) -> bool {
        self.is_key() || self.0 == "config" || self.0.starts_with("config.")
    }

    fn is_key(&self) -> bool {
        self.0.starts_with("keys/")
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of an open object: 16 random hexadecimal digits, never used again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpenName(String);

impl OpenName {
    /// Length of the text form.
    pub const LENGTH: usize = 16;

    /// Checks and takes a name; anything but 16 lower-case hexadecimal digits is `None`.
    pub fn new(name: &str) -> Option<Self> {
        let valid = name.len() == Self::LENGTH && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(name.to_string()))
    }

    /// Draws a name.
    pub fn random() -> Self {
        Self(random_name())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OpenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packs/open/{}", self.0)
    }
}

impl fmt::Debug for OpenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Sixteen random hexadecimal digits.
fn random_name() -> String {
    hex(&random::<8>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn object_names_cannot_leave_the_repository_or_hide_in_it() {
        for good in ["config", "packs/ab/x", "heads/Main_1/0000000000000001", "keys/s-1.2", "a..b", &"x".repeat(200)] {
            assert_eq!(ObjectName::new(good).unwrap().as_str(), good);
        }
        for bad in
            ["", "/x", "x/", "a//b", "..", "a/../b", ".x", "a/.x", "a b", "a\\b", "a\0", "ü", "a:b", &"x".repeat(201)]
        {
            assert!(matches!(ObjectName::new(bad), Err(Error::InvalidName { .. })), "{bad:?}");
        }
    }

    #[test]
    fn names_of_ids_and_heads_read_back_in_their_one_form_only() {
        let pack = PackId([0xab; 32]);
        let name = ObjectName::pack(&pack);
        assert_eq!(name.as_str(), format!("packs/ab/{pack}"));
        assert_eq!((name.as_pack(), name.file_name()), (Some(pack), pack.to_hex().as_str()));
        assert_eq!(ObjectName::new(&format!("packs/aa/{pack}")).unwrap().as_pack(), None);
        assert_eq!(ObjectName::new(&format!("packs/a/{pack}")).unwrap().as_pack(), None);
        let segment = SegmentId([7; 32]);
        assert_eq!(ObjectName::segment(&segment).as_segment(), Some(segment));
        assert_eq!(ObjectName::manifest(&ManifestId([7; 32])).as_segment(), None);
        let (main, main2) = (VolumeName::new("main").unwrap(), VolumeName::new("main2").unwrap());
        let head = ObjectName::head(&main, 0x1f);
        assert_eq!(head.as_str(), "heads/main/000000000000001f");
        assert_eq!((head.as_head(&main), head.as_head(&main2)), (Some(0x1f), None));
        for odd in ["heads/main/1f", "heads/main/000000000000001F", "heads/main/00000000000000001f"] {
            assert_eq!(ObjectName::new(odd).unwrap().as_head(&main), None, "{odd}");
        }
    }

    #[test]
    fn open_names_are_sixteen_digits_and_differ() {
        let (first, second) = (OpenName::random(), OpenName::random());
        assert_ne!(first, second);
        assert_eq!(OpenName::new(first.as_str()), Some(first));
        for bad in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", "../../../../etc0"] {
            assert_eq!(OpenName::new(bad), None, "{bad}");
        }
    }
}
