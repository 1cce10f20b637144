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
//! *Format*: entry `i` of the table is the little-endian `u64` at byte `8 i` of the extended output of keyed BLAKE3 of the
//! empty message under the subkey `gear-table` (epoch 0). Cutting is FastCDC 2020, two bytes a step, normalisation 1, with
//! that crate's masks for the average size.
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
