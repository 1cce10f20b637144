//! Bytes of a manifest: the sealed list of what every listing of the repository must hold at least.
//!
//! *Invariants*
//! 1. A manifest is named by the BLAKE3 of its sealed bytes, and a head names it: a store can withhold it, not change it.
//! 2. Its length is a multiple of 4096, so only the rounded number of entries shows.
//!
//! *Bounds*: at most [`SEGMENTS_MAX`] segments and [`VOLUMES_MAX`] volumes, checked before anything is allocated.
//!
//! *Format*: object `manifests/<id>`: nonce (24), sealed body, tag (16). Purpose `Manifest`, no associated data beyond what
//! every seal carries. The body, little-endian:
//!
//! | offset | size | field | meaning and check |
//! |---|---|---|---|
//! | 0 | 4 | magic | `VLMM` |
//! | 4 | 4 | version | 0 |
//! | 8 | 8 | gc generation | generation of `condemned/` that the segments take into account |
//! | 16 | 4 | segment count n | at most 65,536 |
//! | 20 | 4 | volume count m | at most 4,096 |
//! | 24 | 32 n | segments | ids of the live index segments, oldest first as the index keeps them |
//! | 24 + 32 n | - | volumes | m times: length (u32), name |
//! | - | - | padding | zero, checked; the sealed length becomes a multiple of 4096 |

use super::sealed;
use crate::codec::{Reader, Writer};
use crate::crypto::{Keyring, Purpose, SEAL_OVERHEAD};
use crate::error::{Error, Result};
use crate::id::{ManifestId, SegmentId, VolumeName};

/// Most segments that a manifest can hold.
pub const SEGMENTS_MAX: usize = 65_536;
/// Most volumes that a manifest can hold.
pub const VOLUMES_MAX: usize = 4_096;
/// Longest sealed manifest: a reader asks for no more.
pub const MANIFEST_BYTES_MAX: u64 = (24 + 32 * SEGMENTS_MAX + 68 * VOLUMES_MAX + SEAL_OVERHEAD + PADDED_TO) as u64;

const PADDED_TO: usize = 4096;
const MAGIC: [u8; 4] = *b"VLMM";
const VERSION: u32 = 0;

/// The index segments and volumes that a repository holds at the least.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Live index segments, in the order of the index.
    pub segments: Vec<SegmentId>,
    /// Volumes that exist.
    pub volumes: Vec<VolumeName>,
    /// Newest gc generation that the segments take into account.
    pub gc_generation: u64,
}

impl ManifestId {
    /// Id of a manifest's sealed bytes.
    pub fn of(sealed: &[u8]) -> Self {
        Self(*blake3::hash(sealed).as_bytes())
    }
}

impl Manifest {
    /// Seals the manifest; [`Error::Invalid`] when it holds more than the bounds allow.
    pub fn encode(&self, keyring: &Keyring) -> Result<(ManifestId, Vec<u8>)> {
        let (segments, volumes) = (self.segments.len(), self.volumes.len());
        if segments > SEGMENTS_MAX || volumes > VOLUMES_MAX {
            return Err(Error::Invalid {
                what: format!("a manifest of {segments} segments and {volumes} volumes is beyond its bounds"),
            });
        }
        let mut body = Writer(Vec::with_capacity(24 + 32 * segments + 16 * volumes + PADDED_TO));
        body.bytes(&MAGIC);
        body.u32(VERSION);
        body.u64(self.gc_generation);
        body.u32(segments as u32);
        body.u32(volumes as u32);
        self.segments.iter().for_each(|id| body.bytes(id.as_bytes()));
        self.volumes.iter().for_each(|name| body.var_bytes(name.as_str().as_bytes()));
        let padded = (body.0.len() + SEAL_OVERHEAD).next_multiple_of(PADDED_TO);
        body.0.resize(padded - SEAL_OVERHEAD, 0);
        let bytes = keyring.seal(Purpose::Manifest, &[], &body.0);
        Ok((ManifestId::of(&bytes), bytes))
    }

    /// Checks that `bytes` are the manifest `id`, unseals and reads them.
    pub fn decode(keyring: &Keyring, id: ManifestId, bytes: &[u8]) -> Result<Self> {
        let object = format!("manifests/{id}");
        if ManifestId::of(bytes) != id {
            return Err(Error::corrupt(object, "its bytes have another hash"));
        }
        let (body, _) = sealed::unseal_any_epoch(keyring, Purpose::Manifest, &[], bytes, &object)?;
        let mut reader = Reader::new(&body, &object);
        sealed::magic_and_version(&mut reader, &object, MAGIC, VERSION)?;
        let gc_generation = reader.u64()?;
        let (segment_count, volume_count) = (reader.u32()? as usize, reader.u32()? as usize);
        if segment_count > SEGMENTS_MAX || volume_count > VOLUMES_MAX {
            return Err(Error::corrupt(object, "more entries than a manifest can hold"));
        }
        let ids = reader.bytes(segment_count * SegmentId::LENGTH)?;
        let segments = ids.chunks_exact(SegmentId::LENGTH).filter_map(SegmentId::from_slice).collect();
        let mut volumes = Vec::new();
        for _ in 0..volume_count {
            volumes.push(read_volume(&mut reader, &object)?);
        }
        sealed::zeros_to_end(reader)?;
        Ok(Self { segments, volumes, gc_generation })
    }
}

fn read_volume(reader: &mut Reader<'_>, object: &str) -> Result<VolumeName> {
    let name = std::str::from_utf8(reader.var_bytes(64)?).unwrap_or("");
    VolumeName::new(name).map_err(|_| Error::corrupt(object, "a volume name that breaks the rules"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::format::sealed::tests::keyring;

    fn sample(segments: usize) -> Manifest {
        let name = |n: &str| VolumeName::new(n).unwrap();
        Manifest {
            segments: (0..segments).map(|i| SegmentId([i as u8; 32])).collect(),
            volumes: vec![name("main"), name("Other_one.2")],
            gc_generation: 17,
        }
    }

    #[test]
    fn a_manifest_comes_back_as_written_with_a_rounded_length() {
        let keyring = keyring();
        for count in [0, 1, 100, 125, 126, 127, 128, 1000] {
            let manifest = sample(count);
            let (id, bytes) = manifest.encode(&keyring).unwrap();
            assert_eq!(bytes.len() % PADDED_TO, 0);
            assert!(bytes.len() as u64 <= MANIFEST_BYTES_MAX);
            assert_eq!(Manifest::decode(&keyring, id, &bytes).unwrap(), manifest);
        }
        let empty = Manifest::default();
        let (id, bytes) = empty.encode(&keyring).unwrap();
        assert_eq!(Manifest::decode(&keyring, id, &bytes).unwrap(), empty);
    }

    #[test]
    fn the_largest_manifest_fits_its_bound_and_a_larger_one_is_refused() {
        let keyring = keyring();
        let mut manifest = sample(SEGMENTS_MAX);
        manifest.volumes = (0..VOLUMES_MAX).map(|i| VolumeName::new(&format!("{i:064}")).unwrap()).collect();
        let (id, bytes) = manifest.encode(&keyring).unwrap();
        assert!(bytes.len() as u64 <= MANIFEST_BYTES_MAX);
        assert_eq!(Manifest::decode(&keyring, id, &bytes).unwrap(), manifest);
        manifest.segments.push(SegmentId([0; 32]));
        assert!(matches!(manifest.encode(&keyring), Err(Error::Invalid { .. })));
    }

    #[test]
    fn flipped_bytes_and_truncations_are_damage_even_under_a_recomputed_name() {
        let keyring = keyring();
        let (id, bytes) = sample(3).encode(&keyring).unwrap();
        for at in (0..bytes.len()).step_by(7) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Manifest::decode(&keyring, id, &bad).unwrap_err().is_damage());
            assert!(Manifest::decode(&keyring, ManifestId::of(&bad), &bad).unwrap_err().is_damage());
            let short = &bytes[..at];
            assert!(Manifest::decode(&keyring, ManifestId::of(short), short).unwrap_err().is_damage());
        }
    }

    #[test]
    fn sealed_nonsense_is_refused_without_a_large_allocation() {
        let keyring = keyring();
        let (_, bytes) = sample(3).encode(&keyring).unwrap();
        let good = keyring.unseal(Purpose::Manifest, 0, &[], &bytes, "manifest").unwrap();
        let volumes_at = 24 + 3 * 32;
        for (at, value) in
            [(16, 0xffff_ffffu32), (20, 0xffff_ffff), (16, 65_536), (volumes_at, 65), (volumes_at + 4, 0)]
        {
            let mut body = good.clone();
            body[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let bad = keyring.seal(Purpose::Manifest, &[], &body);
            assert!(Manifest::decode(&keyring, ManifestId::of(&bad), &bad).unwrap_err().is_damage(), "offset {at}");
        }
    }
}
