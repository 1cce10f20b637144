//! Bytes of a head: the one small sealed record that makes a tree root the state of a volume.
//!
//! *Invariants*
//! 1. A head has the same length whatever it says, so a store learns nothing from its size.
//! 2. Volume and sequence are in the associated data: a head under another name, or of another volume, does not unseal.
//! 3. A head is known by the BLAKE3 of its sealed bytes; each head holds that of the one before.
//!
//! *Format*: object `heads/<volume>/<sequence>`, 1024 bytes: nonce (24), sealed body (984), tag (16). The sequence is
//! 16 lower-case hexadecimal digits. Purpose `Head`; associated data: volume (u32 length, bytes), sequence (u64).
//! The body, little-endian:
//!
//! | offset | size | field | meaning and check |
//! |---|---|---|---|
//! | 0 | 4 | magic | `VLMH` |
//! | 4 | 4 | version | 0 |
//! | 8 | 4 | epoch | writer epoch; a takeover adds one |
//! | 12 | 4 | key epoch | equal to the epoch of the key that sealed the head |
//! | 16 | 8 | sequence | from 1; equal to the one in the name |
//! | 24 | 32 | previous | hash of the head before; zero exactly when sequence is 1 |
//! | 56 | 32 | tree root | blob id of the root node |
//! | 88 | 8 | operation sequence | newest operation that the tree holds |
//! | 96 | 8 | journal commit | newest journal commit that the tree holds |
//! | 104 | 8 | gc generation | newest generation of `condemned/` that the writer obeyed |
//! | 112 | 32 | manifest | id of the manifest published with the head |
//! | 144 | 16 | writer | random identity of the writing process |
//! | 160 | 8 | time | nanoseconds since 1970, signed; for people only |
//! | 168 | 816 | reserved | zero, checked |
//!
//! *Not here*: publishing and reading heads (`heads`).

use super::sealed;
use crate::codec::{Reader, Writer};
use crate::crypto::{Keyring, Purpose, SEAL_OVERHEAD};
use crate::error::{Error, Result};
use crate::id::{BlobId, HeadHash, ManifestId, VolumeName};

/// Length of every sealed head in bytes.
pub const HEAD_BYTES: usize = 1024;

const BODY_BYTES: usize = HEAD_BYTES - SEAL_OVERHEAD;
const MAGIC: [u8; 4] = *b"VLMH";
const VERSION: u32 = 0;

/// One committed state of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Writer epoch: grows by one with each takeover.
    pub epoch: u32,
    /// Epoch of the key that seals this head; the newest one when it was written.
    pub key_epoch: u32,
    /// Number of this head, from 1.
    pub sequence: u64,
    /// Hash of the head before; zero for the first.
    pub previous: HeadHash,
    /// Root of the tree.
    pub tree_root: BlobId,
    /// Newest operation that the tree holds.
    pub op_sequence: u64,
    /// Newest journal commit that the tree holds.
    pub journal_commit: u64,
    /// Newest gc generation that the writer obeyed.
    pub gc_generation: u64,
    /// Manifest of segments and volumes.
    pub manifest: ManifestId,
    /// Random identity of the writing process.
    pub writer: [u8; 16],
    /// When it was written, for people.
    pub time_ns: i64,
}

/// Hash that stands where there is no head before.
pub const NO_HEAD: HeadHash = HeadHash([0; 32]);

impl HeadHash {
    /// Hash of a head's sealed bytes.
    pub fn of(sealed: &[u8]) -> Self {
        Self(*blake3::hash(sealed).as_bytes())
    }
}

impl Head {
    /// Seals the head for `volume`. The result has [`HEAD_BYTES`] bytes and differs at every call.
    ///
    /// `key_epoch` must be the keyring's, and `previous` must be [`NO_HEAD`] exactly for sequence 1.
    pub fn encode(&self, keyring: &Keyring, volume: &VolumeName) -> Vec<u8> {
        assert_eq!(self.key_epoch, keyring.epoch(), "a head is sealed under the newest key");
        assert!(self.sequence > 0, "heads are numbered from 1");
        assert_eq!(self.sequence == 1, self.previous == NO_HEAD, "only the first head follows none");
        let mut body = Writer(Vec::with_capacity(BODY_BYTES));
        body.bytes(&MAGIC);
        body.u32(VERSION);
        body.u32(self.epoch);
        body.u32(self.key_epoch);
        body.u64(self.sequence);
        body.bytes(self.previous.as_bytes());
        body.bytes(self.tree_root.as_bytes());
        body.u64(self.op_sequence);
        body.u64(self.journal_commit);
        body.u64(self.gc_generation);
        body.bytes(self.manifest.as_bytes());
        body.bytes(&self.writer);
        body.i64(self.time_ns);
        body.0.resize(BODY_BYTES, 0);
        let bytes = keyring.seal(Purpose::Head, &associated(volume, self.sequence), &body.0);
        debug_assert_eq!(bytes.len(), HEAD_BYTES);
        bytes
    }

    /// Unseals and checks the head that lies under `sequence` of `volume`; every failure is [`Error::Corrupt`], but for
    /// a version from the future.
    pub fn decode(keyring: &Keyring, volume: &VolumeName, sequence: u64, bytes: &[u8]) -> Result<Self> {
        let object = format!("heads/{volume}/{sequence:016x}");
        if bytes.len() != HEAD_BYTES {
            return Err(Error::corrupt(object, format!("{} bytes instead of {HEAD_BYTES}", bytes.len())));
        }
        let (body, key_epoch) =
            sealed::unseal_any_epoch(keyring, Purpose::Head, &associated(volume, sequence), bytes, &object)?;
        let mut reader = Reader::new(&body, &object);
        sealed::magic_and_version(&mut reader, &object, MAGIC, VERSION)?;
        let head = Self {
            epoch: reader.u32()?,
            key_epoch: reader.u32()?,
            sequence: reader.u64()?,
            previous: HeadHash(reader.array()?),
            tree_root: BlobId(reader.array()?),
            op_sequence: reader.u64()?,
            journal_commit: reader.u64()?,
            gc_generation: reader.u64()?,
            manifest: ManifestId(reader.array()?),
            writer: reader.array()?,
            time_ns: reader.i64()?,
        };
        sealed::zeros_to_end(reader)?;
        if head.sequence != sequence || head.key_epoch != key_epoch {
            return Err(Error::corrupt(object, "sequence or key epoch differ from those it is sealed under"));
        }
        if sequence == 0 || (sequence == 1) != (head.previous == NO_HEAD) {
            return Err(Error::corrupt(object, "only the first head follows none"));
        }
        Ok(head)
    }
}

/// What a head is bound to.
pub(crate) fn associated(volume: &VolumeName, sequence: u64) -> Vec<u8> {
    let mut aad = Writer(Vec::with_capacity(80));
    aad.var_bytes(volume.as_str().as_bytes());
    aad.u64(sequence);
    aad.0
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::format::sealed::tests::{keyring, keyring_of};

    pub(crate) fn sample(sequence: u64, previous: HeadHash) -> Head {
        Head {
            epoch: 3,
            key_epoch: 0,
            sequence,
            previous,
            tree_root: BlobId([7; 32]),
            op_sequence: 99,
            journal_commit: 12,
            gc_generation: 2,
            manifest: ManifestId([9; 32]),
            writer: [5; 16],
            time_ns: -1,
        }
    }

    fn main() -> VolumeName {
        VolumeName::new("main").unwrap()
    }

    #[test]
    fn a_head_comes_back_as_written_and_has_a_fixed_length() {
        let (keyring, head) = (keyring(), sample(4, HeadHash([1; 32])));
        let bytes = head.encode(&keyring, &main());
        assert_eq!(bytes.len(), HEAD_BYTES);
        assert_eq!(Head::decode(&keyring, &main(), 4, &bytes).unwrap(), head);
        assert_ne!(bytes, head.encode(&keyring, &main()), "each sealing draws its own nonce");
    }

    #[test]
    fn a_head_does_not_unseal_under_another_name_volume_or_key() {
        let (ring, head) = (keyring(), sample(4, HeadHash([1; 32])));
        let bytes = head.encode(&ring, &main());
        assert!(Head::decode(&ring, &main(), 5, &bytes).unwrap_err().is_damage());
        assert!(Head::decode(&ring, &VolumeName::new("other").unwrap(), 4, &bytes).unwrap_err().is_damage());
        assert!(Head::decode(&keyring_of(8, 0), &main(), 4, &bytes).unwrap_err().is_damage());
    }

    #[test]
    fn a_head_of_an_earlier_key_epoch_stays_readable() {
        let head = sample(4, HeadHash([1; 32]));
        let bytes = head.encode(&keyring_of(1, 0), &main());
        assert_eq!(Head::decode(&keyring_of(1, 3), &main(), 4, &bytes).unwrap(), head);
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_of_a_head_is_damage() {
        let keyring = keyring();
        let bytes = sample(1, NO_HEAD).encode(&keyring, &main());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(Head::decode(&keyring, &main(), 1, &bad).unwrap_err().is_damage(), "byte {at}");
            assert!(Head::decode(&keyring, &main(), 1, &bytes[..at]).unwrap_err().is_damage(), "length {at}");
        }
    }

    #[test]
    fn sealed_nonsense_is_refused_without_a_panic() {
        let keyring = keyring();
        let good = {
            let bytes = sample(4, HeadHash([1; 32])).encode(&keyring, &main());
            keyring.unseal(Purpose::Head, 0, &associated(&main(), 4), &bytes, "head").unwrap()
        };
        for (at, value) in [(0, b'X'), (4, 1), (12, 9), (16, 5), (BODY_BYTES - 1, 1)] {
            let mut body = good.clone();
            body[at] = value;
            let bytes = keyring.seal(Purpose::Head, &associated(&main(), 4), &body);
            assert!(Head::decode(&keyring, &main(), 4, &bytes).is_err(), "byte {at}");
        }
        let mut orphan = good.clone();
        orphan[24..56].fill(0);
        let bytes = keyring.seal(Purpose::Head, &associated(&main(), 4), &orphan);
        assert!(Head::decode(&keyring, &main(), 4, &bytes).unwrap_err().is_damage());
    }
}
