//! Content-defined cutting of file bytes into chunks, with boundaries that depend on the key.
//!
//! *Invariants*
//! 1. Where a chunk ends depends on its own bytes and the key only: not on what precedes it, nor on how the bytes arrive.
//! 2. A chunk has between `min` and `max` bytes; only the last of a file may have fewer than `min`.
//! 3. The table is drawn from the key as a whole. The `seed` of the `fastcdc` crate is one 64-bit value laid over a public
//!    table, and a dozen observed chunk lengths give it away; it is not used.
//!
//! *Bounds*: `cut` looks at no more than `max` bytes and allocates nothing.
//!
//! *Format*: entry `g[i]` of the table is the little-endian `u64` at byte `8 i` of the extended output of keyed BLAKE3 of the
//! empty message under the subkey `gear-table` (epoch 0). Cutting is FastCDC 2020 with normalisation 1: the hash is 0 at byte
//! `min` of a chunk, each byte `b` from there makes it `(hash << 1) + g[b]` modulo 2^64, and the chunk ends before the first
//! byte whose hash has no bit of the mask, at `max`, or where the data ends; bytes are taken in pairs, so an odd last byte is
//! not tested. The mask is the strict one for bytes before `avg` and the loose one from there on. By average size:
//!
//! | avg | strict | loose |
//! |---|---|---|
//! | 64 KiB | `0x0000d90703537000` | `0x0000d90f03530000` |
//! | 256 KiB | `0x0000d91707537000` | `0x0000d90703537000` |
//!
//! and for other averages of 2^n bytes, entries n + 1 and n - 1 of the crate's list. Where chunks end is the writer's choice:
//! a reader needs none of this, and two writers that differ here only share less.
//!
//! *Not here*: which bytes of a file are cut (`vellum-fs`), holes (only [`is_zero`], which finds them).

use std::fmt;

use fastcdc::v2020::{self, Normalization};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use crate::config::ChunkSizes;

/// Entries of a gear table: one per byte value.
const GEAR_ENTRIES: usize = 256;

/// The keyed table of the rolling hash, and the same shifted left by one for the first byte of each step.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct GearTable {
    gear: [u64; GEAR_ENTRIES],
    gear_ls: [u64; GEAR_ENTRIES],
}

impl GearTable {
    /// Draws the table from the `gear-table` subkey.
    pub fn new(key: &[u8; 32]) -> Self {
        let mut bytes = [0u8; GEAR_ENTRIES * 8];
        blake3::Hasher::new_keyed(key).finalize_xof().fill(&mut bytes);
        let mut table = Self { gear: [0; GEAR_ENTRIES], gear_ls: [0; GEAR_ENTRIES] };
        for (entry, chunk) in table.gear.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *entry = u64::from_le_bytes(*chunk);
        }
        for (shifted, entry) in table.gear_ls.iter_mut().zip(&table.gear) {
            *shifted = entry << 1;
        }
        bytes.zeroize();
        table
    }
}

impl fmt::Debug for GearTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GearTable(..)")
    }
}

/// Cuts with one table and one set of sizes.
#[derive(Clone, Debug)]
pub struct Chunker<'k> {
    table: &'k GearTable,
    sizes: ChunkSizes,
    mask_strict: u64,
    mask_loose: u64,
}

impl<'k> Chunker<'k> {
    /// A chunker over the repository's table and sizes.
    pub fn new(table: &'k GearTable, sizes: ChunkSizes) -> Self {
        let (mask_strict, mask_loose) = v2020::select_masks(sizes.avg() as usize, Normalization::Level1);
        Self { table, sizes, mask_strict, mask_loose }
    }

    /// The sizes it cuts to.
    pub fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// Length of the first chunk of `data`; 0 only for no data.
    ///
    /// Fewer than `max` bytes mean that this is all there is: the caller passes at least `max` bytes unless the data ends.
    pub fn cut(&self, data: &[u8]) -> usize {
        let (_, length) = v2020::cut_gear(
            data,
            self.sizes.min() as usize,
            self.sizes.avg() as usize,
            self.sizes.max() as usize,
            self.mask_strict,
            self.mask_loose,
            self.mask_strict << 1,
            self.mask_loose << 1,
            &self.table.gear,
            &self.table.gear_ls,
        );
        length
    }
}

/// Whether all bytes are zero; such a chunk becomes a hole.
pub fn is_zero(data: &[u8]) -> bool {
    // All bytes equal their neighbour and the first is zero: one memcmp, which is vectorised in every build.
    match data.split_first() {
        None => true,
        Some((first, rest)) => *first == 0 && rest == &data[..rest.len()],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::*;

    fn bytes(seed: &str, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn small() -> ChunkSizes {
        ChunkSizes::new(1024, 4096, 16384).unwrap()
    }

    /// Ends of all chunks.
    fn ends(chunker: &Chunker<'_>, data: &[u8]) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut end = 0;
        while end < data.len() {
            let length = chunker.cut(&data[end..]);
            assert!(length > 0);
            end += length;
            ends.push(end);
        }
        ends
    }

    #[test]
    fn chunks_keep_their_bounds_and_cover_the_data() {
        let table = GearTable::new(&[1; 32]);
        for sizes in [small(), ChunkSizes::DEFAULT, ChunkSizes::LARGE] {
            let chunker = Chunker::new(&table, sizes);
            let data = bytes("bounds", sizes.avg() as usize * 100 + 1);
            let ends = ends(&chunker, &data);
            assert_eq!(*ends.last().unwrap(), data.len());
            let lengths: Vec<_> = std::iter::once(&0).chain(&ends).zip(&ends).map(|(from, to)| to - from).collect();
            assert!(
                lengths[..lengths.len() - 1]
                    .iter()
                    .all(|&l| (sizes.min() as usize..=sizes.max() as usize).contains(&l))
            );
            let average = data.len() / lengths.len();
            assert!(
                (sizes.avg() as usize / 2..sizes.avg() as usize * 2).contains(&average),
                "average {average} of {sizes:?}"
            );
        }
    }

    #[test]
    fn short_and_empty_data_is_one_chunk_or_none() {
        let table = GearTable::new(&[1; 32]);
        let chunker = Chunker::new(&table, small());
        assert_eq!(chunker.cut(&[]), 0);
        for length in [1, 2, 1023, 1024] {
            assert_eq!(chunker.cut(&bytes("short", length)), length);
        }
        assert_eq!(chunker.cut(&[0; 100_000]), 16384, "data without any boundary is cut at the largest size");
    }

    #[test]
    fn streamed_bytes_are_cut_where_the_whole_is() {
        let table = GearTable::new(&[2; 32]);
        let chunker = Chunker::new(&table, small());
        let data = bytes("stream", 500_000);
        let whole = ends(&chunker, &data);
        for step in [1, 777, 4096, 65_536] {
            // The window holds at least `max` bytes before each cut, unless the data ends; and grows by `step`.
            let (mut start, mut end, mut streamed) = (0, 0, Vec::new());
            while start < data.len() {
                while end - start < 16384 && end < data.len() {
                    end = (end + step).min(data.len());
                }
                start += chunker.cut(&data[start..end]);
                streamed.push(start);
            }
            assert_eq!(streamed, whole, "step {step}");
        }
    }

    #[test]
    fn boundaries_follow_the_content_after_an_insertion() {
        let table = GearTable::new(&[3; 32]);
        let chunker = Chunker::new(&table, small());
        let data = bytes("insertion", 400_000);
        for inserted in [1usize, 2, 3, 100, 5000] {
            let longer = [&data[..1000], &vec![b'x'; inserted], &data[1000..]].concat();
            let before: HashSet<_> = ends(&chunker, &data).into_iter().collect();
            let after = ends(&chunker, &longer);
            let kept = after.iter().filter(|&&end| end > inserted && before.contains(&(end - inserted))).count();
            assert!(kept * 10 >= after.len() * 8, "{kept} of {} after {inserted} bytes", after.len());
        }
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let tables = [GearTable::new(&[4; 32]), GearTable::new(&[5; 32])];
        let data = bytes("keyed", 1_000_000);
        let [one, two] = tables.each_ref().map(|table| ends(&Chunker::new(table, small()), &data));
        let one: HashSet<_> = one.into_iter().collect();
        let common = two.iter().filter(|end| one.contains(end)).count();
        // The end of the data is common, and chance adds about one in 4096 a boundary.
        assert!(common <= 3, "{common} of {} boundaries are common", two.len());
    }

    #[test]
    fn no_single_value_turns_the_public_table_into_ours() {
        // The attack on seeded tables: one value laid over all entries, recovered bit by bit from chunk lengths.
        let (public, _) = v2020::get_gear_with_seed(0);
        let ours = GearTable::new(&[6; 32]);
        let xors: HashSet<_> = ours.gear.iter().zip(public.iter()).map(|(a, b)| a ^ b).collect();
        let sums: HashSet<_> = ours.gear.iter().zip(public.iter()).map(|(a, b)| a.wrapping_sub(*b)).collect();
        assert_eq!((xors.len(), sums.len()), (256, 256));
        assert!(ours.gear.iter().zip(&ours.gear_ls).all(|(entry, shifted)| *shifted == entry << 1));
    }

    #[test]
    fn the_masks_are_those_that_the_format_names() {
        let table = GearTable::new(&[7; 32]);
        let masks = |sizes| {
            let chunker = Chunker::new(&table, sizes);
            (chunker.mask_strict, chunker.mask_loose)
        };
        assert_eq!(masks(ChunkSizes::DEFAULT), (0x0000_d907_0353_7000, 0x0000_d90f_0353_0000));
        assert_eq!(masks(ChunkSizes::LARGE), (0x0000_d917_0753_7000, 0x0000_d907_0353_7000));
    }

    #[test]
    fn only_zeros_are_zero() {
        assert!(is_zero(&[]) && is_zero(&[0]) && is_zero(&[0; 100_000]));
        for length in [1usize, 2, 7, 64, 1000] {
            for at in 0..length {
                let mut data = vec![0; length];
                data[at] = 1;
                assert!(!is_zero(&data), "{at} of {length}");
            }
        }
        assert!(!is_zero(&[9; 64]));
    }
}
