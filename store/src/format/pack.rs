//! Layout of a pack: blobs back to back, padding, a trailer that lists them, and a tail that finds the trailer.
//!
//! *Format*. Name: `packs/<first two hex digits of the id>/<id>`, where the id is the BLAKE3 of all bytes of the file.
//! Every byte is ciphertext or random; nothing in it tells a pack from noise, or one part of a pack from the next.
//!
//! | offset | size | part |
//! |---|---|---|
//! | 0 | `blobs_length` | sealed blobs, in trailer order, without gaps (see `format/blob.rs`) |
//! | `blobs_length` | up to the trailer | random padding, so that the whole has a Padmé length |
//! | length - 96 - T | T = 44 × `entry_count` + 40 | trailer, sealed for `PackTrailer` |
//! | length - 96 | 96 | tail, sealed for `PackTail` |
//!
//! Sealed means nonce (24), ciphertext, tag (16). Trailer and tail of one pack have the same key epoch, which is not
//! written: a reader tries its epochs, the newest first. The trailer lies beside the tail, so that one read of the end
//! of the file gives both for most packs.
//!
//! Tail, 56 bytes of plaintext. Associated data: length of the whole file (u64). A cut or lengthened file has no tail.
//!
//! | offset | size | field | check |
//! |---|---|---|---|
//! | 0 | 4 | magic `VPAK` | equal |
//! | 4 | 2 | format version, 0 | known |
//! | 6 | 1 | blob kind of all entries | known |
//! | 7 | 1 | reserved | zero |
//! | 8 | 16 | salt, random for every pack | - |
//! | 24 | 4 | `blobs_length` | ends at or before the trailer; is the sum of the entries' lengths |
//! | 28 | 4 | `entry_count` | at most 2^20; the trailer fits into the file |
//! | 32 | 24 | reserved | zero |
//!
//! Trailer, 44 bytes of plaintext for each entry. Associated data: salt (16), length of the whole file (u64),
//! `blobs_length` (u32), `entry_count` (u32).
//!
//! | offset | size | field | check |
//! |---|---|---|---|
//! | 0 | 32 | blob id | - |
//! | 32 | 4 | sealed length; the offset is the sum of those before | 41 to 16 MiB + 45; the sum stays within `blobs_length` |
//! | 36 | 4 | plaintext length | at most 16 MiB where the blob is unsealed |
//! | 40 | 4 | key epoch of the blob | known where the blob is unsealed |
//!
//! *Bounds*: a pack is at most 1 GiB and has at most 2^20 entries. Both are checked before anything is allocated, and a
//! trailer is never larger than the file that holds it.
//!
//! *Not here*: that a file's bytes belong under its name is known only from hashing them all (`pack::verify_pack`).
//! Reading does not depend on it, because a blob proves its own id.

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::format::blob::{BLOB_HEADER_LENGTH, BLOB_PLAIN_MAX};
use crate::id::{BlobId, BlobKind};

/// Version of the pack format that this program writes, and the newest that it reads.
pub const PACK_FORMAT_VERSION: u16 = 0;
/// Longest pack that is written or read.
pub const PACK_LENGTH_MAX: u64 = 1 << 30;
/// Most entries that one pack may have.
pub const PACK_ENTRY_COUNT_MAX: u32 = 1 << 20;
/// Length of an unsealed tail.
pub const PACK_TAIL_PLAIN_LENGTH: usize = 56;
/// Length of a sealed tail.
pub const PACK_TAIL_LENGTH: usize = PACK_TAIL_PLAIN_LENGTH + SEALED_LENGTH_MIN as usize;
/// Length of one trailer entry.
pub const PACK_ENTRY_LENGTH: usize = 44;
/// What sealing adds to a blob, a trailer or a tail: nonce and tag. No sealed blob is this short.
pub const SEALED_LENGTH_MIN: u32 = 40;
/// Longest sealed blob: the largest plaintext, stored raw.
pub const SEALED_LENGTH_MAX: u32 = BLOB_PLAIN_MAX + BLOB_HEADER_LENGTH as u32 + SEALED_LENGTH_MIN;

const MAGIC: [u8; 4] = *b"VPAK";
const RESERVED_LENGTH: usize = 24;

/// One blob of a pack: what it is, where it lies and how to unseal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// The blob.
    pub id: BlobId,
    /// What it holds; the same for all entries of a pack.
    pub kind: BlobKind,
    /// Where its sealed bytes start in the pack.
    pub offset: u32,
    /// Length of its sealed bytes.
    pub length: u32,
    /// Length of its plaintext.
    pub plain_length: u32,
    /// Key epoch under which it is sealed.
    pub epoch: u32,
}

impl PackEntry {
    /// Offset of the first byte after the blob.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}

/// The unsealed tail of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackTail {
    /// Kind of all blobs of the pack.
    pub kind: BlobKind,
    /// Random; ties the trailer to this tail.
    pub salt: [u8; 16],
    /// Where the blobs end and the padding starts.
    pub blobs_length: u32,
    /// Number of blobs.
    pub entry_count: u32,
}

impl PackTail {
    /// The 56 bytes that are sealed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(PACK_TAIL_PLAIN_LENGTH));
        out.bytes(&MAGIC);
        out.u16(PACK_FORMAT_VERSION);
        out.u8(self.kind as u8);
        out.u8(0);
        out.bytes(&self.salt);
        out.u32(self.blobs_length);
        out.u32(self.entry_count);
        out.bytes(&[0; RESERVED_LENGTH]);
        debug_assert_eq!(out.0.len(), PACK_TAIL_PLAIN_LENGTH);
        out.0
    }

    /// Reads and checks an unsealed tail of a pack of `pack_length` bytes, `object` being its name in messages.
    pub fn decode(plain: &[u8], pack_length: u64, object: &str) -> Result<Self> {
        let mut input = Reader::new(plain, object);
        if input.array::<4>()? != MAGIC {
            return Err(Error::corrupt(object, "its tail has the wrong magic"));
        }
        let version = input.u16()?;
        if version > PACK_FORMAT_VERSION {
            let (found, known) = (u32::from(version), u32::from(PACK_FORMAT_VERSION));
            return Err(Error::UnsupportedFormat { object: object.to_string(), found, known });
        }
        let kind = BlobKind::from_u8(input.u8()?).ok_or_else(|| Error::corrupt(object, "unknown blob kind"))?;
        let reserved = input.u8()?;
        let tail = Self { kind, salt: input.array()?, blobs_length: input.u32()?, entry_count: input.u32()? };
        if reserved != 0 || input.array::<RESERVED_LENGTH>()? != [0; RESERVED_LENGTH] {
            return Err(Error::corrupt(object, "reserved bytes of its tail are not zero"));
        }
        input.finish()?;
        let after_blobs = u64::from(tail.blobs_length) + tail.trailer_length() + PACK_TAIL_LENGTH as u64;
        if tail.entry_count > PACK_ENTRY_COUNT_MAX || after_blobs > pack_length {
            return Err(Error::corrupt(object, "its tail names more than the file holds"));
        }
        Ok(tail)
    }

    /// Length of the sealed trailer.
    pub fn trailer_length(&self) -> u64 {
        u64::from(self.entry_count) * PACK_ENTRY_LENGTH as u64 + u64::from(SEALED_LENGTH_MIN)
    }

    /// What binds the trailer to this tail and this file.
    pub fn trailer_binding(&self, pack_length: u64) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(32));
        out.bytes(&self.salt);
        out.u64(pack_length);
        out.u32(self.blobs_length);
        out.u32(self.entry_count);
        out.0
    }
}

/// What binds a tail to the length of its file.
pub fn tail_binding(pack_length: u64) -> [u8; 8] {
    pack_length.to_le_bytes()
}

/// The plaintext of a trailer. The entries must lie back to back from offset 0.
pub fn encode_trailer(entries: &[PackEntry]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(entries.len() * PACK_ENTRY_LENGTH));
    let mut end = 0u64;
    for entry in entries {
        assert_eq!(u64::from(entry.offset), end, "entries of a pack lie back to back");
        end = entry.end();
        out.bytes(entry.id.as_bytes());
        out.u32(entry.length);
        out.u32(entry.plain_length);
        out.u32(entry.epoch);
    }
    out.0
}

/// Reads and checks the plaintext of the trailer that `tail` found.
pub fn decode_trailer(plain: &[u8], tail: &PackTail, object: &str) -> Result<Vec<PackEntry>> {
    let mut input = Reader::new(plain, object);
    let mut entries = Vec::with_capacity(plain.len() / PACK_ENTRY_LENGTH);
    let mut offset = 0u32;
    for _ in 0..tail.entry_count {
        let id = BlobId(input.array()?);
        let (length, plain_length, epoch) = (input.u32()?, input.u32()?, input.u32()?);
        if length <= SEALED_LENGTH_MIN || length > SEALED_LENGTH_MAX {
            return Err(Error::corrupt(object, format!("blob {id} cannot be {length} bytes long")));
        }
        entries.push(PackEntry { id, kind: tail.kind, offset, length, plain_length, epoch });
        let end = offset.checked_add(length).filter(|end| *end <= tail.blobs_length);
        offset = end.ok_or_else(|| Error::corrupt(object, format!("blob {id} ends after the last")))?;
    }
    if offset != tail.blobs_length {
        return Err(Error::corrupt(object, "its entries do not cover its blobs"));
    }
    input.finish()?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tail() -> PackTail {
        PackTail { kind: BlobKind::Node, salt: [7; 16], blobs_length: 300, entry_count: 2 }
    }

    fn entries() -> Vec<PackEntry> {
        let entry = |n: u8, offset, length| PackEntry {
            id: BlobId([n; 32]),
            kind: BlobKind::Node,
            offset,
            length,
            plain_length: 9,
            epoch: 3,
        };
        vec![entry(1, 0, 100), entry(2, 100, 200)]
    }

    #[test]
    fn tail_and_trailer_round_trip() {
        let plain = tail().encode();
        assert_eq!(plain.len(), PACK_TAIL_PLAIN_LENGTH);
        assert_eq!(PackTail::decode(&plain, 1000, "p").unwrap(), tail());
        let trailer = encode_trailer(&entries());
        assert_eq!(trailer.len() as u64 + 40, tail().trailer_length());
        assert_eq!(decode_trailer(&trailer, &tail(), "p").unwrap(), entries());
    }

    #[test]
    fn a_tail_that_names_more_than_the_file_holds_is_refused() {
        let need = 300 + tail().trailer_length() + 96;
        assert!(PackTail::decode(&tail().encode(), need, "p").is_ok());
        assert!(PackTail::decode(&tail().encode(), need - 1, "p").is_err());
        let many = PackTail { entry_count: u32::MAX, ..tail() };
        assert!(PackTail::decode(&many.encode(), u64::MAX, "p").is_err());
    }

    #[test]
    fn every_fixed_byte_of_a_tail_is_checked() {
        let plain = tail().encode();
        for at in (0..8).chain(32..PACK_TAIL_PLAIN_LENGTH) {
            let mut bad = plain.clone();
            bad[at] ^= 0x80;
            assert!(PackTail::decode(&bad, 1000, "p").is_err(), "byte {at}");
        }
        let newer = PackTail::decode(
            &{
                let mut b = plain.clone();
                b[4] = 1;
                b
            },
            1000,
            "p",
        );
        assert!(matches!(newer, Err(Error::UnsupportedFormat { found: 1, known: 0, .. })));
        assert!(PackTail::decode(&plain[..55], 1000, "p").is_err());
    }

    #[test]
    fn a_trailer_must_cover_the_blobs_exactly() {
        let good = encode_trailer(&entries());
        for blobs_length in [0, 99, 299, 301, u32::MAX] {
            let other = PackTail { blobs_length, ..tail() };
            assert!(decode_trailer(&good, &other, "p").is_err(), "{blobs_length}");
        }
        for entry_count in [0, 1, 3] {
            let other = PackTail { entry_count, ..tail() };
            assert!(decode_trailer(&good, &other, "p").is_err(), "{entry_count}");
        }
        for length in [0u32, 40, SEALED_LENGTH_MAX + 1, u32::MAX] {
            let mut bad = good.clone();
            bad[32..36].copy_from_slice(&length.to_le_bytes());
            assert!(decode_trailer(&bad, &tail(), "p").is_err(), "{length}");
        }
    }
}
