//! XATTR records: extended attributes, long values in several parts.
//!
//! *Bounds*: a name has 1 to [`XATTR_NAME_MAX`] bytes without 0, a value up to [`XATTR_VALUE_MAX`] bytes.
//!
//! *Format*: the subkey is the name, a 0 byte and the part's number. Part 0 is the value's length (uvar) and its first
//! [`PART_BYTES`] bytes; each later part is the next [`PART_BYTES`] bytes, the last what is left.

use vellum_store::codec::{Reader, Writer};

use crate::error::{Error, Result};

const OBJECT: &str = "extended attribute record";

/// Longest name of an extended attribute.
pub const XATTR_NAME_MAX: usize = 255;
/// Longest value of an extended attribute.
pub const XATTR_VALUE_MAX: usize = 65_536;
/// Bytes of the value in each part.
pub const PART_BYTES: usize = 8000;

/// The values of all records of one attribute, in the order of their parts.
pub fn split(value: &[u8]) -> Vec<Vec<u8>> {
    assert!(value.len() <= XATTR_VALUE_MAX, "lengths are checked before values are stored");
    let mut parts = Vec::with_capacity(value.len() / PART_BYTES + 1);
    let (first, rest) = value.split_at(value.len().min(PART_BYTES));
    let mut writer = Writer(Vec::with_capacity(first.len() + 3));
    writer.uvar(value.len() as u64);
    writer.bytes(first);
    parts.push(writer.0);
    parts.extend(rest.chunks(PART_BYTES).map(<[u8]>::to_vec));
    parts
}

/// Puts a value together again, part by part.
#[derive(Debug)]
pub struct Joiner {
    value: Vec<u8>,
    length: usize,
}

impl Joiner {
    /// Starts with the record of part 0.
    pub fn new(part: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(part, OBJECT);
        let length = reader.uvar()?;
        if length > XATTR_VALUE_MAX as u64 {
            return Err(Error::damaged(OBJECT, "value too long"));
        }
        let mut joiner = Self { value: Vec::with_capacity(length as usize), length: length as usize };
        joiner.push(reader.bytes(reader.remaining())?)?;
        Ok(joiner)
    }

    /// Length of the whole value.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether all parts are there.
    pub fn is_complete(&self) -> bool {
        self.value.len() == self.length
    }

    /// Takes the next part.
    pub fn push(&mut self, part: &[u8]) -> Result<()> {
        if part.len() != (self.length - self.value.len()).min(PART_BYTES) {
            return Err(Error::damaged(OBJECT, "a part has the wrong length"));
        }
        self.value.extend_from_slice(part);
        Ok(())
    }

    /// The value, once complete.
    pub fn finish(self) -> Result<Vec<u8>> {
        if !self.is_complete() {
            return Err(Error::damaged(OBJECT, "a part is missing"));
        }
        Ok(self.value)
    }
}
