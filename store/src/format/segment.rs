//! Layout of an index segment: a sorted run of entries in sealed pages, with its filter, fence and pack tables.
//!
//! *Format*. Name: `index/<id>`, the id being the BLAKE3 of all bytes of the file. The file is `P` sealed pages of 4096
//! bytes (page `n` of the file at `n` × 4096), random padding, and a sealed tail in the last 104 bytes; the whole has a
//! Padmé length. Sealed means nonce (24), ciphertext, tag (16). All of it has one key epoch, which is not written: a
//! reader tries its epochs on the tail, the newest first.
//!
//! A page has 4056 bytes of plaintext: units of one section, then zeros. Sections follow one another, each starting a
//! page; how many pages each has follows from the counts in the tail.
//!
//! | section | number | unit | units a page | count | meaning |
//! |---|---|---|---|---|---|
//! | entries | 1 | 48 | 84 | `entry_count` | sorted by blob id |
//! | filter | 2 | 64 | 63 | `filter_block_count` | blocked Bloom filter (see below) |
//! | fence | 3 | 8 | 507 | pages of entries | first eight bytes of the page's first id, as a big-endian number, stored little-endian |
//! | packs | 4 | 56 | 72 | `pack_count` | the packs that entries name |
//! | deleted | 5 | 32 | 126 | `deleted_count` | tombstones: packs whose entries in any segment are void |
//!
//! Associated data of a page: salt (16), section number (u8), number of the page within its section (u32).
//!
//! Entry:
//!
//! | offset | size | field | check |
//! |---|---|---|---|
//! | 0 | 32 | blob id | not below the one before |
//! | 32 | 4 | pack number | below `pack_count` |
//! | 36 | 4 | offset in the pack | - |
//! | 40 | 4 | sealed length | - |
//! | 44 | 4 | plaintext length | - |
//!
//! Pack (a pack that holds blobs of several key epochs has one row for each):
//!
//! | offset | size | field | check |
//! |---|---|---|---|
//! | 0 | 32 | pack id | - |
//! | 32 | 4 | key epoch of the blobs | known where a blob is unsealed |
//! | 36 | 1 | blob kind | known |
//! | 37 | 3 | reserved | zero |
//! | 40 | 4 | entries of this segment that name the row | - |
//! | 44 | 4 | reserved | zero |
//! | 48 | 8 | sum of their sealed lengths | - |
//!
//! Tail, 64 bytes of plaintext. Associated data: length of the whole file (u64).
//!
//! | offset | size | field | check |
//! |---|---|---|---|
//! | 0 | 4 | magic `VSEG` | equal |
//! | 4 | 2 | format version, 0 | known |
//! | 6 | 2 | reserved | zero |
//! | 8 | 16 | salt, random for every segment | - |
//! | 24 | 8 | `entry_count` | at most 2^32 |
//! | 32 | 4 | `filter_block_count` | 0 exactly if there are no entries |
//! | 36 | 4 | `pack_count` | 0 exactly if there are no entries |
//! | 40 | 4 | `deleted_count` | the padded length of pages and tail is the length of the file |
//! | 44 | 20 | reserved | zero |
//!
//! Filter: let `x` be the first eight bytes of an id as a big-endian number. Its block is the high 64 bits of `x` ×
//! `filter_block_count`; in that block of 512 bits, six are set: for `i` in 0..6, bit `(y >> 9 i) mod 512`, where `y` is
//! the next eight bytes of the id, little-endian. Bit `b` is bit `b mod 8` of byte `b / 8`. Because blocks follow the
//! order of the ids, a filter is built while the run is written, one block at a time.
//!
//! *Bounds*: 2^32 entries; no count is believed before the length of the file agrees with it.

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::format::pack::SEALED_LENGTH_MIN;
use crate::format::padding::padded_length;
use crate::id::{BlobId, BlobKind, PackId};

/// Version of the segment format that this program writes, and the newest that it reads.
pub const SEGMENT_FORMAT_VERSION: u16 = 0;
/// Length of a sealed page.
pub const PAGE_LENGTH: usize = 4096;
/// Length of an unsealed page.
pub const PAGE_PLAIN_LENGTH: usize = PAGE_LENGTH - SEALED_LENGTH_MIN as usize;
/// Length of an unsealed tail.
pub const SEGMENT_TAIL_PLAIN_LENGTH: usize = 64;
/// Length of a sealed tail.
pub const SEGMENT_TAIL_LENGTH: usize = SEGMENT_TAIL_PLAIN_LENGTH + SEALED_LENGTH_MIN as usize;
/// Most entries that one segment may have.
pub const SEGMENT_ENTRY_COUNT_MAX: u64 = 1 << 32;
/// Bytes of a filter block.
pub const FILTER_BLOCK_LENGTH: usize = 64;
/// Bits that an entry sets in its block.
pub const FILTER_PROBE_COUNT: u32 = 6;

const MAGIC: [u8; 4] = *b"VSEG";
const RESERVED_LENGTH: usize = 20;

/// A part of a segment, in the order of the file. The number is part of a page's associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Section {
    /// Sorted entries. On disk: 1.
    Entries = 1,
    /// Blocks of the filter. On disk: 2.
    Filter = 2,
    /// First key of every page of entries. On disk: 3.
    Fence = 3,
    /// Packs that entries name by number. On disk: 4.
    Packs = 4,
    /// Tombstones. On disk: 5.
    Deleted = 5,
}

impl Section {
    /// All sections, in the order of the file.
    pub const ALL: [Self; 5] = [Self::Entries, Self::Filter, Self::Fence, Self::Packs, Self::Deleted];

    /// Length of one unit.
    pub const fn unit_length(self) -> usize {
        match self {
            Self::Entries => IndexEntry::LENGTH,
            Self::Filter => FILTER_BLOCK_LENGTH,
            Self::Fence => 8,
            Self::Packs => PackRow::LENGTH,
            Self::Deleted => PackId::LENGTH,
        }
    }

    /// Units that a full page holds.
    pub const fn page_units(self) -> usize {
        PAGE_PLAIN_LENGTH / self.unit_length()
    }

    /// The word used in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Filter => "filter",
            Self::Fence => "fence",
            Self::Packs => "packs",
            Self::Deleted => "deleted packs",
        }
    }
}

/// Where one blob lies, the pack given by its number in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The blob.
    pub id: BlobId,
    /// Row of the segment's pack table.
    pub pack_number: u32,
    /// Where its sealed bytes start in the pack.
    pub offset: u32,
    /// Length of its sealed bytes.
    pub length: u32,
    /// Length of its plaintext.
    pub plain_length: u32,
}

impl IndexEntry {
    /// Length on disk.
    pub const LENGTH: usize = 48;

    /// The 48 bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut out = [0; Self::LENGTH];
        out[..32].copy_from_slice(self.id.as_bytes());
        out[32..36].copy_from_slice(&self.pack_number.to_le_bytes());
        out[36..40].copy_from_slice(&self.offset.to_le_bytes());
        out[40..44].copy_from_slice(&self.length.to_le_bytes());
        out[44..].copy_from_slice(&self.plain_length.to_le_bytes());
        out
    }

    /// Reads the 48 bytes. The pack number is not checked.
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Self {
        let mut id = [0; BlobId::LENGTH];
        id.copy_from_slice(&bytes[..BlobId::LENGTH]);
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            id: BlobId(id),
            pack_number: number(32),
            offset: number(36),
            length: number(40),
            plain_length: number(44),
        }
    }
}

/// A pack that entries of a segment name, and what the segment holds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRow {
    /// The pack.
    pub pack: PackId,
    /// Key epoch of the blobs counted here.
    pub epoch: u32,
    /// Their kind.
    pub kind: BlobKind,
    /// How many entries name this row.
    pub entry_count: u32,
    /// Sum of their sealed lengths.
    pub sealed_bytes: u64,
}

impl PackRow {
    /// Length on disk.
    pub const LENGTH: usize = 56;

    /// The 56 bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut out = [0; Self::LENGTH];
        out[..32].copy_from_slice(self.pack.as_bytes());
        out[32..36].copy_from_slice(&self.epoch.to_le_bytes());
        out[36] = self.kind as u8;
        out[40..44].copy_from_slice(&self.entry_count.to_le_bytes());
        out[48..].copy_from_slice(&self.sealed_bytes.to_le_bytes());
        out
    }

    /// Reads and checks the 56 bytes.
    pub fn decode(bytes: &[u8], object: &str) -> Result<Self> {
        let mut input = Reader::new(bytes, object);
        let (pack, epoch, kind) = (PackId(input.array()?), input.u32()?, input.u8()?);
        let kind = BlobKind::from_u8(kind).ok_or_else(|| Error::corrupt(object, "unknown blob kind of a pack"))?;
        let reserved = input.array::<3>()?;
        let entry_count = input.u32()?;
        if reserved != [0; 3] || input.u32()? != 0 {
            return Err(Error::corrupt(object, "reserved bytes of a pack row are not zero"));
        }
        let sealed_bytes = input.u64()?;
        input.finish()?;
        Ok(Self { pack, epoch, kind, entry_count, sealed_bytes })
    }
}

/// The unsealed tail of a segment: its counts, from which every position follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentTail {
    /// Random; ties every page to this segment.
    pub salt: [u8; 16],
    /// Number of entries.
    pub entry_count: u64,
    /// Number of filter blocks.
    pub filter_block_count: u32,
    /// Number of rows of the pack table.
    pub pack_count: u32,
    /// Number of tombstones.
    pub deleted_count: u32,
}

impl SegmentTail {
    /// The 64 bytes that are sealed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(SEGMENT_TAIL_PLAIN_LENGTH));
        out.bytes(&MAGIC);
        out.u16(SEGMENT_FORMAT_VERSION);
        out.u16(0);
        out.bytes(&self.salt);
        out.u64(self.entry_count);
        out.u32(self.filter_block_count);
        out.u32(self.pack_count);
        out.u32(self.deleted_count);
        out.bytes(&[0; RESERVED_LENGTH]);
        debug_assert_eq!(out.0.len(), SEGMENT_TAIL_PLAIN_LENGTH);
        out.0
    }

    /// Reads and checks an unsealed tail of a segment of `segment_length` bytes.
    pub fn decode(plain: &[u8], segment_length: u64, object: &str) -> Result<Self> {
        let mut input = Reader::new(plain, object);
        if input.array::<4>()? != MAGIC {
            return Err(Error::corrupt(object, "its tail has the wrong magic"));
        }
        let version = input.u16()?;
        if version > SEGMENT_FORMAT_VERSION {
            let (found, known) = (u32::from(version), u32::from(SEGMENT_FORMAT_VERSION));
            return Err(Error::UnsupportedFormat { object: object.to_string(), found, known });
        }
        let reserved = input.u16()?;
        let tail = Self {
            salt: input.array()?,
            entry_count: input.u64()?,
            filter_block_count: input.u32()?,
            pack_count: input.u32()?,
            deleted_count: input.u32()?,
        };
        if reserved != 0 || input.array::<RESERVED_LENGTH>()? != [0; RESERVED_LENGTH] {
            return Err(Error::corrupt(object, "reserved bytes of its tail are not zero"));
        }
        input.finish()?;
        if tail.entry_count > SEGMENT_ENTRY_COUNT_MAX || tail.segment_length() != segment_length {
            return Err(Error::corrupt(object, "its length is not what its tail names"));
        }
        let empty = tail.entry_count == 0;
        if (tail.filter_block_count == 0) != empty || (tail.pack_count == 0) != empty {
            return Err(Error::corrupt(object, "the counts of its tail contradict each other"));
        }
        Ok(tail)
    }

    /// Number of units of a section.
    pub fn unit_count(&self, section: Section) -> u64 {
        match section {
            Section::Entries => self.entry_count,
            Section::Filter => u64::from(self.filter_block_count),
            Section::Fence => self.page_count(Section::Entries),
            Section::Packs => u64::from(self.pack_count),
            Section::Deleted => u64::from(self.deleted_count),
        }
    }

    /// Number of pages of a section.
    pub fn page_count(&self, section: Section) -> u64 {
        self.unit_count(section).div_ceil(section.page_units() as u64)
    }

    /// Number, in the file, of the first page of a section.
    pub fn first_page(&self, section: Section) -> u64 {
        Section::ALL.iter().take_while(|before| **before != section).map(|before| self.page_count(*before)).sum()
    }

    /// Units on one page of a section: all that fit, but for the last page.
    pub fn units_on_page(&self, section: Section, page: u64) -> usize {
        let before = page * section.page_units() as u64;
        (self.unit_count(section).saturating_sub(before) as usize).min(section.page_units())
    }

    /// Length of all pages.
    pub fn pages_length(&self) -> u64 {
        Section::ALL.iter().map(|section| self.page_count(*section)).sum::<u64>() * PAGE_LENGTH as u64
    }

    /// Length of the whole file.
    pub fn segment_length(&self) -> u64 {
        padded_length(self.pages_length() + SEGMENT_TAIL_LENGTH as u64)
    }
}

/// What binds a tail to the length of its file.
pub fn tail_binding(segment_length: u64) -> [u8; 8] {
    segment_length.to_le_bytes()
}

/// What binds a page to its segment and its place.
pub fn page_binding(salt: &[u8; 16], section: Section, page: u32) -> [u8; 21] {
    let mut out = [0; 21];
    out[..16].copy_from_slice(salt);
    out[16] = section as u8;
    out[17..].copy_from_slice(&page.to_le_bytes());
    out
}

/// The first eight bytes of an id as a number that sorts like the id: key of fence and filter.
pub fn sort_key(id: &BlobId) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&id.as_bytes()[..8]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tail() -> SegmentTail {
        SegmentTail { salt: [5; 16], entry_count: 169, filter_block_count: 6, pack_count: 73, deleted_count: 1 }
    }

    #[test]
    fn positions_follow_from_the_counts() {
        let tail = tail();
        let pages: Vec<u64> = Section::ALL.iter().map(|section| tail.page_count(*section)).collect();
        assert_eq!(pages, [3, 1, 1, 2, 1]);
        assert_eq!(tail.first_page(Section::Entries), 0);
        assert_eq!(tail.first_page(Section::Deleted), 7);
        assert_eq!(tail.units_on_page(Section::Entries, 1), 84);
        assert_eq!(tail.units_on_page(Section::Entries, 2), 1);
        assert_eq!(tail.units_on_page(Section::Entries, 3), 0);
        assert_eq!(tail.units_on_page(Section::Fence, 0), 3);
        assert_eq!(tail.pages_length(), 8 * 4096);
        assert_eq!(tail.segment_length(), padded_length(8 * 4096 + 104));
    }

    #[test]
    fn the_header_names_the_units_that_the_code_uses() {
        let units: Vec<_> = Section::ALL.iter().map(|section| (section.unit_length(), section.page_units())).collect();
        assert_eq!(units, [(48, 84), (64, 63), (8, 507), (56, 72), (32, 126)]);
        assert_eq!((PAGE_PLAIN_LENGTH, SEGMENT_TAIL_LENGTH), (4056, 104));
    }

    #[test]
    fn tail_round_trips_and_every_fixed_byte_is_checked() {
        let (plain, length) = (tail().encode(), tail().segment_length());
        assert_eq!(SegmentTail::decode(&plain, length, "s").unwrap(), tail());
        for at in (0..8).chain(24..SEGMENT_TAIL_PLAIN_LENGTH) {
            let mut bad = plain.clone();
            bad[at] ^= 0x80;
            assert!(SegmentTail::decode(&bad, length, "s").is_err(), "byte {at}");
        }
        for other in [0, length - 1, length + 1, u64::MAX] {
            assert!(SegmentTail::decode(&plain, other, "s").is_err(), "length {other}");
        }
        assert!(SegmentTail::decode(&plain[..63], length, "s").is_err());
    }

    #[test]
    fn counts_at_their_limits_do_not_overflow() {
        let huge = SegmentTail {
            entry_count: u64::MAX,
            filter_block_count: u32::MAX,
            pack_count: u32::MAX,
            deleted_count: u32::MAX,
            ..tail()
        };
        assert!(SegmentTail::decode(&huge.encode(), 1 << 20, "s").is_err());
    }

    #[test]
    fn entries_and_rows_round_trip() {
        let id = BlobId(std::array::from_fn(|i| i as u8));
        let entry = IndexEntry { id, pack_number: 1, offset: 2, length: u32::MAX, plain_length: 4 };
        assert_eq!(IndexEntry::decode(&entry.encode()), entry);
        let pack = PackId([9; 32]);
        let row = PackRow { pack, epoch: 7, kind: BlobKind::Data, entry_count: 3, sealed_bytes: 1 << 40 };
        assert_eq!(PackRow::decode(&row.encode(), "s").unwrap(), row);
        for at in (36..40).chain(44..48) {
            let mut bad = row.encode();
            bad[at] ^= 0x40;
            assert!(PackRow::decode(&bad, "s").is_err(), "byte {at}");
        }
    }

    #[test]
    fn sort_keys_order_like_ids() {
        let (mut low, mut high) = ([0; 32], [0; 32]);
        (low[7], high[0]) = (255, 1);
        assert!(sort_key(&BlobId(low)) < sort_key(&BlobId(high)));
    }
}
