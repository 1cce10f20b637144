//! Blocked Bloom filter of a segment: answers "certainly not here" with one cache line of memory and no I/O.
//!
//! *Invariants*
//! 1. An id that was inserted is always answered with "maybe".
//! 2. Blocks are built in ascending order from sorted ids, so building needs one block of memory.
//!
//! *Bounds*: 9 bits an entry in large segments, which make up the memory (1.5 % false answers, each of which costs one page
//! read); 12 and 16 bits in small ones, of which a lookup asks many (0.4 % and 0.12 %).
//!
//! *Format*: in `format/segment.rs`.

use crate::{
    error::Result,
    format::segment::{FILTER_BLOCK_LENGTH, FILTER_PROBE_COUNT, sort_key},
    id::BlobId,
};

const BLOCK_BITS: u64 = FILTER_BLOCK_LENGTH as u64 * 8;

/// One block, as in the file.
pub(super) type Block = [u8; FILTER_BLOCK_LENGTH];

/// Number of blocks for a segment of up to `entry_count` entries.
pub(super) fn block_count(entry_count: u64) -> u32 {
    let bits_per_entry = match entry_count {
        0..=262_144 => 16,
        262_145..=2_097_152 => 12,
        _ => 9,
    };
    u32::try_from((entry_count * bits_per_entry).div_ceil(BLOCK_BITS)).unwrap_or(u32::MAX)
}

/// A filter in memory.
pub(super) struct Filter {
    blocks: Vec<Block>,
}

impl Filter {
    /// An empty filter that will hold so many blocks.
    pub(super) fn with_capacity(block_count: usize) -> Self {
        Self { blocks: Vec::with_capacity(block_count) }
    }

    /// Appends the blocks of one page.
    pub(super) fn extend(&mut self, page: &[u8]) {
        self.blocks.extend(page.as_chunks::<FILTER_BLOCK_LENGTH>().0);
    }

    /// False only if the id was never inserted.
    pub(super) fn may_contain(&self, id: &BlobId) -> bool {
        let Some(block) = self.blocks.get(block_of(id, self.blocks.len() as u32)) else { return false };
        probes(id).all(|(byte, bit)| block[byte] & bit != 0)
    }

    /// Bytes of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.blocks.capacity() * FILTER_BLOCK_LENGTH
    }
}

/// A filter being built from ids in ascending order.
pub(super) struct FilterBuilder {
    block_count: u32,
    number: u32,
    block: Block,
}

impl FilterBuilder {
    /// A filter of so many blocks.
    pub(super) fn new(block_count: u32) -> Self {
        Self { block_count, number: 0, block: [0; FILTER_BLOCK_LENGTH] }
    }

    /// Blocks that it will have.
    pub(super) fn block_count(&self) -> u32 {
        self.block_count
    }

    /// Inserts an id, which is not below the one before; blocks that are complete by that go to `emit`, in order.
    pub(super) fn insert(&mut self, id: &BlobId, emit: &mut dyn FnMut(&Block) -> Result<()>) -> Result<()> {
        let number = block_of(id, self.block_count) as u32;
        self.advance(number, emit)?;
        probes(id).for_each(|(byte, bit)| self.block[byte] |= bit);
        Ok(())
    }

    /// Emits what remains.
    pub(super) fn finish(mut self, emit: &mut dyn FnMut(&Block) -> Result<()>) -> Result<()> {
        self.advance(self.block_count, emit)
    }

    fn advance(&mut self, number: u32, emit: &mut dyn FnMut(&Block) -> Result<()>) -> Result<()> {
        debug_assert!(number >= self.number, "ids come in ascending order");
        while self.number < number {
            emit(&self.block)?;
            self.block = [0; FILTER_BLOCK_LENGTH];
            self.number += 1;
        }
        Ok(())
    }
}

/// The block of an id: blocks follow the order of ids.
fn block_of(id: &BlobId, block_count: u32) -> usize {
    ((u128::from(sort_key(id)) * u128::from(block_count)) >> 64) as usize
}

/// The bits that an id sets in its block, as byte and mask.
fn probes(id: &BlobId) -> impl Iterator<Item = (usize, u8)> {
    let mut word = [0; 8];
    word.copy_from_slice(&id.as_bytes()[8..16]);
    let word = u64::from_le_bytes(word);
    (0..FILTER_PROBE_COUNT).map(move |i| {
        let bit = (word >> (9 * i)) as usize % BLOCK_BITS as usize;
        (bit / 8, 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(n: u64) -> BlobId {
        BlobId(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    fn build(ids: &mut [BlobId], blocks: u32) -> Filter {
        ids.sort();
        let mut filter = Filter::with_capacity(blocks as usize);
        let mut builder = FilterBuilder::new(blocks);
        let mut emit = |block: &Block| {
            filter.extend(block);
            Ok(())
        };
        ids.iter().for_each(|id| builder.insert(id, &mut emit).unwrap());
        builder.finish(&mut emit).unwrap();
        assert_eq!(filter.blocks.len(), blocks as usize);
        filter
    }

    #[test]
    fn everything_inserted_is_found_and_few_others_are() {
        for (bits, false_max) in [(16, 0.003), (12, 0.008), (9, 0.025)] {
            let count = 40_000u64;
            let mut ids: Vec<_> = (0..count).map(id).collect();
            let filter = build(&mut ids, (count * bits).div_ceil(512) as u32);
            assert!(ids.iter().all(|id| filter.may_contain(id)));
            let wrong = (count..count * 3).filter(|n| filter.may_contain(&id(*n))).count();
            let rate = wrong as f64 / (count * 2) as f64;
            assert!(rate < false_max, "{bits} bits an entry: {rate}");
        }
    }

    #[test]
    fn ids_that_share_a_prefix_are_found_too() {
        let mut ids: Vec<_> = (0..=255).map(|n| BlobId([n / 128 * 255; 32])).collect();
        ids.iter_mut().enumerate().for_each(|(n, id)| id.0[31] = n as u8);
        let filter = build(&mut ids, 3);
        assert!(ids.iter().all(|id| filter.may_contain(id)));
        assert!(!filter.may_contain(&id(1)));
    }

    #[test]
    fn an_empty_filter_knows_nothing_and_sizes_follow_the_count() {
        assert!(!build(&mut [], 0).may_contain(&id(1)));
        assert!(!build(&mut [], 2).may_contain(&id(1)));
        assert_eq!([0, 1, 32, 33].map(block_count), [0, 1, 1, 2]);
        assert_eq!(block_count(20_000_000), 351_563);
        assert_eq!(u64::from(block_count(1 << 32)), (1u64 << 32) * 9 / 512);
    }
}
