//! Bytes of the journal: segments of 4 KiB blocks, in which sealed commits lie back to back.
//!
//! *Invariants*
//! 1. A commit fills whole blocks and none of its bytes is plaintext. Its length is known only after its first 144 bytes,
//!    a sealed header of fixed size, were unsealed.
//! 2. The header is bound to volume, segment and block: it does not unseal anywhere else. The body is bound to its header.
//! 3. The header holds the commit's number, the head that it follows, the identity of the commit before it, and the newest
//!    commit that was durable when it was written. That last one is what tells damage from a torn end.
//! 4. Copies of one commit (made when a segment failed) have equal headers but for the segment's length, number and identity
//!    included.
//!
//! *Bounds*: a payload has at most [`PAYLOAD_BYTES_MAX`] bytes, a segment at most [`SEGMENT_BYTES_MAX`]; both hold for what
//! is read, before anything is allocated.
//!
//! *Format*: file `journal/<volume>/<segment>`, the segment number as 16 lower-case hexadecimal digits. A segment is filled
//! with zeros once and then overwritten, so behind the newest commit there are zeros or commits of earlier rounds, which
//! have lower numbers. A commit takes `n = ceil((184 + payload length) / 4096)` blocks:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 144 | header: nonce (24), sealed header body (104), tag (16) |
//! | 144 | 4096 n - 144 | body: nonce (24), sealed (payload, then zeros to the end, not checked), tag (16) |
//!
//! Purpose `Journal` for both. Associated data of the header: 1 (u8), volume (u32 length, bytes), segment number (u64),
//! block number in the segment (u32). Associated data of the body: 2 (u8), then the 144 sealed bytes of its header.
//! The header body, little-endian:
//!
//! | offset | size | field | meaning and check |
//! |---|---|---|---|
//! | 0 | 4 | magic | `VLMJ` |
//! | 4 | 4 | version | 0 |
//! | 8 | 8 | number | from 1, consecutive over segments and heads |
//! | 16 | 8 | session | grows with each opening of the journal; decides between two commits of one number |
//! | 24 | 8 | durable | newest commit known durable; less than number |
//! | 32 | 32 | head | hash of the head that the commit follows |
//! | 64 | 16 | identity | random |
//! | 80 | 16 | previous | identity of the commit before; zero if the writer had not seen it; checked where both are known |
//! | 96 | 4 | payload length | at most 8 MiB |
//! | 100 | 4 | segment blocks | length of the segment in blocks; 0 if not told. A shorter file was cut |
//!
//! *Not here*: placing, recovering and recycling (`journal`); what a payload means (`fs::journal`).

use super::sealed;
use crate::codec::{Reader, Writer};
use crate::crypto::{Keyring, NONCE_LENGTH, Purpose, SEAL_OVERHEAD};
use crate::error::{Error, Result};
use crate::id::{HeadHash, VolumeName};

/// Unit of space in a segment; a commit begins and ends at a multiple of it.
pub const BLOCK_BYTES: usize = 4096;
/// Length of a sealed commit header.
pub const HEADER_BYTES: usize = HEADER_BODY_BYTES + SEAL_OVERHEAD;
/// Longest payload of a commit.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;
/// Longest segment; what lies behind is not read.
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// Shortest segment that is made.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// What a commit takes beside its payload and the rounding to whole blocks.
pub const COMMIT_OVERHEAD: usize = HEADER_BYTES + SEAL_OVERHEAD;

const HEADER_BODY_BYTES: usize = 104;
const MAGIC: [u8; 4] = *b"VLMJ";
const VERSION: u32 = 0;

/// Random identity of one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitId(pub [u8; 16]);

/// Where a commit lies; part of what its header is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// First block in it.
    pub block: u32,
}

/// What a commit says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitHeader {
    /// Number, from 1.
    pub number: u64,
    /// The opening of the journal that wrote it.
    pub session: u64,
    /// Newest commit known durable when this one was written; less than `number`.
    pub durable: u64,
    /// Head that the commit follows.
    pub head: HeadHash,
    /// Identity, the same in every copy.
    pub id: CommitId,
    /// Identity of the commit before.
    pub previous: CommitId,
    /// Length of the payload in bytes.
    pub payload_length: u32,
    /// Whole blocks of the segment that it was written to; 0 if not told.
    pub segment_blocks: u32,
}

impl CommitId {
    /// Stands where the commit before is not known.
    pub const NONE: Self = Self([0; 16]);
}

/// How many blocks a commit with a payload of that length takes.
pub fn blocks_for(payload_length: usize) -> u32 {
    (COMMIT_OVERHEAD + payload_length).div_ceil(BLOCK_BYTES) as u32
}

impl CommitHeader {
    /// How many blocks the commit takes.
    pub fn blocks(&self) -> u32 {
        blocks_for(self.payload_length as usize)
    }

    /// Whether this commit can come right after `before`, as far as it knows that one.
    pub fn follows(&self, before: &Self) -> bool {
        self.previous == before.id || self.previous == CommitId::NONE
    }

    /// Seals the whole commit for one place; the result has [`Self::blocks`] times [`BLOCK_BYTES`] bytes.
    ///
    /// `payload` must have the length that the header names, at most [`PAYLOAD_BYTES_MAX`].
    pub fn seal(&self, keyring: &Keyring, volume: &VolumeName, place: Place, payload: &[u8]) -> Vec<u8> {
        assert_eq!(payload.len(), self.payload_length as usize, "the header names the payload's length");
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the caller bounds the payload");
        assert!(self.durable < self.number, "a commit is not durable before it is written");
        let mut bytes = Writer(Vec::with_capacity(self.blocks() as usize * BLOCK_BYTES));
        bytes.bytes(&[0; NONCE_LENGTH]);
        bytes.bytes(&MAGIC);
        bytes.u32(VERSION);
        bytes.u64(self.number);
        bytes.u64(self.session);
        bytes.u64(self.durable);
        bytes.bytes(self.head.as_bytes());
        bytes.bytes(&self.id.0);
        bytes.bytes(&self.previous.0);
        bytes.u32(self.payload_length);
        bytes.u32(self.segment_blocks);
        let mut bytes = bytes.0;
        bytes.resize(HEADER_BYTES + NONCE_LENGTH, 0);
        bytes.extend_from_slice(payload);
        bytes.resize(self.blocks() as usize * BLOCK_BYTES, 0);
        // Both seals work in place: a commit of 8 MiB is copied once.
        let (header, body) = bytes.split_at_mut(HEADER_BYTES);
        keyring.seal_slice(Purpose::Journal, &header_aad(volume, place), header);
        keyring.seal_slice(Purpose::Journal, &body_aad(header), body);
        bytes
    }

    /// Unseals the header at the start of `block`, which holds at least [`HEADER_BYTES`] bytes read from `place`. None
    /// if no commit of this volume begins there.
    pub fn unseal(keyring: &Keyring, volume: &VolumeName, place: Place, block: &[u8]) -> Option<Self> {
        let bytes = block.get(..HEADER_BYTES)?;
        let (body, _) =
            sealed::unseal_any_epoch(keyring, Purpose::Journal, &header_aad(volume, place), bytes, "header").ok()?;
        Self::decode(&body).ok()
    }

    fn decode(body: &[u8]) -> Result<Self> {
        let object = "journal commit header";
        let mut reader = Reader::new(body, object);
        sealed::magic_and_version(&mut reader, object, MAGIC, VERSION)?;
        let header = Self {
            number: reader.u64()?,
            session: reader.u64()?,
            durable: reader.u64()?,
            head: HeadHash(reader.array()?),
            id: CommitId(reader.array()?),
            previous: CommitId(reader.array()?),
            payload_length: reader.u32()?,
            segment_blocks: reader.u32()?,
        };
        reader.finish()?;
        let is_bounded = header.payload_length as usize <= PAYLOAD_BYTES_MAX
            && u64::from(header.segment_blocks) <= SEGMENT_BYTES_MAX / BLOCK_BYTES as u64;
        if header.durable >= header.number || !is_bounded {
            return Err(Error::corrupt(object, "its numbers contradict each other"));
        }
        Ok(header)
    }

    /// Unseals the payload of a commit whose header was read from the first bytes of `commit`.
    pub fn unseal_payload(&self, keyring: &Keyring, commit: &[u8], object: &str) -> Result<Vec<u8>> {
        if commit.len() != self.blocks() as usize * BLOCK_BYTES {
            return Err(Error::corrupt(object, "it ends early"));
        }
        let (header, body) = commit.split_at(HEADER_BYTES);
        let (mut payload, _) = sealed::unseal_any_epoch(keyring, Purpose::Journal, &body_aad(header), body, object)?;
        payload.truncate(self.payload_length as usize);
        Ok(payload)
    }
}

/// What the header of a commit is bound to.
pub(crate) fn header_aad(volume: &VolumeName, place: Place) -> Vec<u8> {
    let mut aad = Writer(Vec::with_capacity(96));
    aad.u8(1);
    aad.var_bytes(volume.as_str().as_bytes());
    aad.u64(place.segment);
    aad.u32(place.block);
    aad.0
}

/// What the body of a commit is bound to.
pub(crate) fn body_aad(header: &[u8]) -> Vec<u8> {
    let mut aad = Writer(Vec::with_capacity(1 + HEADER_BYTES));
    aad.u8(2);
    aad.bytes(header);
    aad.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::format::sealed::tests::{keyring, keyring_of};

    const PLACE: Place = Place { segment: 3, block: 17 };

    fn main() -> VolumeName {
        VolumeName::new("main").unwrap()
    }

    fn header(payload_length: usize) -> CommitHeader {
        CommitHeader {
            number: 9,
            session: 2,
            durable: 8,
            head: HeadHash([4; 32]),
            id: CommitId([5; 16]),
            previous: CommitId([6; 16]),
            payload_length: payload_length as u32,
            segment_blocks: 512,
        }
    }

    #[test]
    fn commits_fill_whole_blocks_and_come_back_as_written() {
        let keyring = keyring();
        for (length, blocks) in [(0, 1), (1, 1), (3912, 1), (3913, 2), (4096, 2), (8008, 2), (8009, 3)] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let bytes = header(length).seal(&keyring, &main(), PLACE, &payload);
            assert_eq!(bytes.len(), blocks * BLOCK_BYTES, "payload of {length}");
            let read = CommitHeader::unseal(&keyring, &main(), PLACE, &bytes).unwrap();
            assert_eq!(read, header(length));
            assert_eq!(read.unseal_payload(&keyring, &bytes, "commit").unwrap(), payload);
        }
    }

    #[test]
    fn a_commit_is_bound_to_its_place_volume_repository_and_header() {
        let ring = keyring();
        let bytes = header(10).seal(&ring, &main(), PLACE, &[1; 10]);
        for place in [Place { segment: 2, ..PLACE }, Place { block: 18, ..PLACE }] {
            assert_eq!(CommitHeader::unseal(&ring, &main(), place, &bytes), None);
        }
        assert_eq!(CommitHeader::unseal(&ring, &VolumeName::new("m").unwrap(), PLACE, &bytes), None);
        assert_eq!(CommitHeader::unseal(&keyring_of(2, 0), &main(), PLACE, &bytes), None);
        let twin = header(10).seal(&ring, &main(), PLACE, &[1; 10]);
        let spliced = [&bytes[..HEADER_BYTES], &twin[HEADER_BYTES..]].concat();
        assert!(header(10).unseal_payload(&ring, &spliced, "commit").unwrap_err().is_damage());
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_of_a_commit_is_noticed() {
        let keyring = keyring();
        let bytes = header(100).seal(&keyring, &main(), PLACE, &[1; 100]);
        let read = |bytes: &[u8]| {
            CommitHeader::unseal(&keyring, &main(), PLACE, bytes)?.unseal_payload(&keyring, bytes, "commit").ok()
        };
        assert!(read(&bytes).is_some());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(read(&bad), None, "byte {at}");
            assert_eq!(read(&bytes[..at]), None, "length {at}");
        }
    }

    #[test]
    fn sealed_nonsense_in_a_header_is_no_header() {
        let keyring = keyring();
        let good = header(10).seal(&keyring, &main(), PLACE, &[1; 10]);
        let aad = header_aad(&main(), PLACE);
        let body = keyring.unseal(Purpose::Journal, 0, &aad, &good[..HEADER_BYTES], "header").unwrap();
        let with = |at: usize, value: &[u8]| {
            let mut bad = body.clone();
            bad[at..at + value.len()].copy_from_slice(value);
            let sealed = keyring.seal(Purpose::Journal, &aad, &bad);
            CommitHeader::unseal(&keyring, &main(), PLACE, &sealed)
        };
        assert!(with(0, b"V").is_some());
        for (at, value) in [(0, &b"X"[..]), (4, &[1]), (24, &[9]), (96, &[0xff; 4]), (103, &[1])] {
            assert_eq!(with(at, value), None, "offset {at}");
        }
    }

    #[test]
    fn written_commits_look_random_and_share_nothing_between_repositories() {
        let payload = vec![0u8; 200_000];
        let sealed: Vec<Vec<u8>> = [keyring_of(1, 0), keyring_of(2, 0)]
            .iter()
            .map(|ring| header(payload.len()).seal(ring, &main(), PLACE, &payload))
            .collect();
        for bytes in &sealed {
            let mut counts = [0f64; 256];
            bytes.iter().for_each(|&b| counts[b as usize] += 1.0);
            let expected = bytes.len() as f64 / 256.0;
            let chi_square: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
            // 255 degrees of freedom: mean 255, deviation 22.6; eight deviations do not happen by chance.
            assert!((75.0..436.0).contains(&chi_square), "chi-square {chi_square}");
        }
        let runs: std::collections::HashSet<&[u8]> = sealed[0].windows(16).collect();
        assert!(!sealed[1].windows(16).any(|run| runs.contains(run)));
    }
}
