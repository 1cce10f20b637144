//! EXTENT records: which part of which blob holds a range of a file.
//!
//! *Invariants*
//! 1. Extents of a file do not overlap; what none covers is a hole.
//! 2. The blob's plaintext length is here, so open, stat and seek never ask the index.
//!
//! *Format* (the file offset is the subkey)
//!
//! | order | type | field | check |
//! |---|---|---|---|
//! | 1 | 32 bytes | blob id | |
//! | 2 | uvar | length of the extent | from 1; offset + length at most 2^63 - 1 |
//! | 3 | uvar | offset in the blob; absent if the extent is the whole blob | |
//! | 4 | uvar | plaintext length of the blob; absent likewise | at least offset in the blob + length; at most 16 MiB |

use vellum_store::{
    codec::{Reader, Writer},
    id::BlobId,
};

use super::{inode::SIZE_MAX, read_uvar32};
use crate::error::{Error, Result};

const OBJECT: &str = "extent record";

/// Longest plaintext of a blob that an extent may name.
pub const BLOB_BYTES_MAX: u32 = 16 << 20;

/// A range of a file and the part of a blob that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the range starts in the file.
    pub offset: u64,
    /// Length of the range.
    pub length: u64,
    /// The blob.
    pub blob: BlobId,
    /// Where the range starts in the blob's plaintext.
    pub blob_offset: u32,
    /// Length of the blob's whole plaintext.
    pub blob_length: u32,
}

impl Extent {
    /// File offset after the range.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// The record's bytes, without the offset, which is in the key.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer(Vec::with_capacity(48));
        self.encode_into(&mut writer);
        writer.0
    }

    /// Appends the record's bytes.
    pub fn encode_into(&self, writer: &mut Writer) {
        assert!(self.is_valid(), "within the bounds of the format");
        writer.bytes(self.blob.as_bytes());
        writer.uvar(self.length);
        if !self.is_whole() {
            writer.uvar(self.blob_offset.into());
            writer.uvar(self.blob_length.into());
        }
    }

    /// Reads what [`Self::encode`] wrote for the extent at a file offset.
    pub fn decode(offset: u64, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, OBJECT);
        let blob = BlobId(reader.array::<32>()?);
        let length = reader.uvar()?;
        let mut extent = Self { offset, length, blob, blob_offset: 0, blob_length: length.min(u32::MAX.into()) as u32 };
        if reader.remaining() > 0 {
            extent.blob_offset = read_uvar32(&mut reader, OBJECT)?;
            extent.blob_length = read_uvar32(&mut reader, OBJECT)?;
            if extent.is_whole() {
                return Err(Error::damaged(OBJECT, "not in its shortest form"));
            }
        }
        reader.finish()?;
        if !extent.is_valid() {
            return Err(Error::damaged(OBJECT, "range out of bounds"));
        }
        Ok(extent)
    }

    fn is_whole(&self) -> bool {
        self.blob_offset == 0 && self.length == u64::from(self.blob_length)
    }

    fn is_valid(&self) -> bool {
        self.length > 0
            && self.blob_length <= BLOB_BYTES_MAX
            && self.length <= u64::from(self.blob_length)
            && u64::from(self.blob_offset) + self.length <= u64::from(self.blob_length)
            && self.offset.checked_add(self.length).is_some_and(|end| end <= SIZE_MAX)
    }
}
