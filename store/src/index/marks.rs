//! What is reachable: a bit for every entry of the segments, set by whoever walks the trees.
//!
//! *Invariants*
//! 1. The segments do not change while marks live: no merge runs, and what is flushed meanwhile is not among them.
//! 2. All entries of a marked blob are marked, in whatever segments they are.
//!
//! *Threads*: one.
//!
//! *Bounds*: an eighth of a byte an entry, and 100 bytes a pack while packs are counted.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use parking_lot::MutexGuard;

use super::{Index, merge::Cursor, segment::Segment};
use crate::{
    error::Result,
    id::{BlobId, BlobKind, PackId},
};

/// What a mark met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// It was not marked before.
    First,
    /// It was.
    Again,
    /// The segments do not list it: it is damage, or newer than they are.
    Unlisted,
}

/// How much of a pack is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackUse {
    /// Kind of its blobs.
    pub kind: BlobKind,
    /// Number of its blobs.
    pub blobs: u64,
    /// Sum of their sealed lengths.
    pub bytes: u64,
    /// How many of them are marked.
    pub live_blobs: u64,
    /// Sealed lengths of those.
    pub live_bytes: u64,
}

/// Marks on the entries of an index.
pub struct Marks<'i> {
    index: &'i Index,
    _no_merge: MutexGuard<'i, ()>,
    segments: Vec<Arc<Segment>>,
    deleted: Arc<HashSet<PackId>>,
    /// For each segment, a bit an entry.
    bits: Vec<Vec<u64>>,
}

impl Index {
    /// Begins to mark; waits for a merge that runs. Entries that no segment has yet are not markable: flush before.
    pub fn marks(&self) -> Marks<'_> {
        let no_merge = self.merging.lock();
        let state = self.state.read();
        let segments = state.segments.clone();
        let bits = segments.iter().map(|segment| vec![0; segment.entry_count().div_ceil(64) as usize]).collect();
        Marks { index: self, _no_merge: no_merge, segments, deleted: state.deleted.clone(), bits }
    }
}

impl Marks<'_> {
    /// Marks a blob.
    pub fn mark(&mut self, id: &BlobId) -> Result<Marked> {
        let (mut listed, mut first) = (false, false);
        for (segment, bits) in self.segments.iter().zip(&mut self.bits) {
            segment.find_numbered(&self.index.source, &self.index.cache, id, &mut |number, location| {
                if !self.deleted.contains(&location.pack) {
                    let (word, bit) = (&mut bits[(number / 64) as usize], 1 << (number % 64));
                    listed = true;
                    first |= *word & bit == 0;
                    *word |= bit;
                }
            })?;
        }
        Ok(match (listed, first) {
            (false, _) => Marked::Unlisted,
            (true, true) => Marked::First,
            (true, false) => Marked::Again,
        })
    }

    /// Whether a blob is marked.
    pub fn is_marked(&self, id: &BlobId) -> Result<bool> {
        let mut marked = false;
        for (segment, bits) in self.segments.iter().zip(&self.bits) {
            segment.find_numbered(&self.index.source, &self.index.cache, id, &mut |number, _| {
                marked |= bits[(number / 64) as usize] & (1 << (number % 64)) != 0;
            })?;
        }
        Ok(marked)
    }

    /// Every pack that the segments list, with how much of it is marked.
    pub fn packs(&self) -> Result<BTreeMap<PackId, PackUse>> {
        let mut packs = BTreeMap::new();
        for (segment, bits) in self.segments.iter().zip(&self.bits) {
            let mut cursor = Cursor::new(segment.clone());
            let mut number = 0;
            while let Some(entry) = cursor.next(&self.index.source)? {
                let (kind, location) = segment.locate(&entry)?;
                let live = bits[(number / 64) as usize] & (1 << (number % 64)) != 0;
                number += 1;
                if self.deleted.contains(&location.pack) {
                    continue;
                }
                let nothing = PackUse { kind, blobs: 0, bytes: 0, live_blobs: 0, live_bytes: 0 };
                let pack = packs.entry(location.pack).or_insert(nothing);
                (pack.blobs, pack.bytes) = (pack.blobs + 1, pack.bytes + u64::from(location.length));
                if live {
                    (pack.live_blobs, pack.live_bytes) =
                        (pack.live_blobs + 1, pack.live_bytes + u64::from(location.length));
                }
            }
        }
        Ok(packs)
    }
}

impl std::fmt::Debug for Marks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Marks").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}
