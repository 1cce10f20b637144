//! Plaintext of blobs that were read, bounded in bytes and safe from scans.
//!
//! What is read passes through a queue of newcomers and leaves, however often it was asked for meanwhile: a program that
//! reads a file in order asks for the same chunk many times within a moment. Only what is asked for again soon after it
//! left gets into the main queue, where use counts (the 2Q rule of Johnson and Shasha, VLDB 1994, with a CLOCK as its main
//! queue). So a restore, which reads everything once, does not push out what is used again and again.
//!
//! *Invariants*: the bytes held never exceed the bound, whatever the sizes.
//!
//! *Threads*: any; one leaf lock per shard, held for moves of pointers only. What is evicted is freed outside of it.
//!
//! *Bounds*: `bytes_max` of plaintext, [`ENTRY_CHARGE`] for each entry, and per shard as many remembered ids as entries.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::id::BlobId;

/// What an entry costs beside its bytes.
pub const ENTRY_CHARGE: usize = 160;
/// Shards; few, so that the largest blob fits into one of a small cache.
const SHARDS: usize = 8;
/// Part of a shard that the queue of newcomers may fill, in tenths.
///
/// Room for what is read ahead and not asked for yet: four streams of 8 MiB in a cache of 96 MiB.
const SMALL_TENTHS: usize = 3;
/// How often a hit is counted; each count is one more round in the main queue.
const HITS_MAX: u8 = 3;

/// The cache of one repository.
#[derive(Debug)]
pub struct BlobCache {
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    bytes_max: usize,
    bytes: usize,
    small_bytes: usize,
    entries: HashMap<BlobId, Entry>,
    small: VecDeque<BlobId>,
    main: VecDeque<BlobId>,
    ghosts: HashSet<BlobId>,
    ghost_order: VecDeque<BlobId>,
}

#[derive(Debug)]
struct Entry {
    bytes: Arc<[u8]>,
    hits: u8,
}

impl Entry {
    fn charge(&self) -> usize {
        self.bytes.len() + ENTRY_CHARGE
    }
}

impl BlobCache {
    /// An empty cache that holds at most `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        let shard = || Mutex::new(Shard { bytes_max: bytes_max / SHARDS, ..Shard::default() });
        Self { shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    fn shard(&self, id: &BlobId) -> &Mutex<Shard> {
        // The first byte chooses the shard of the in-flight table; another one keeps the two apart.
        &self.shards[id.0[1] as usize % SHARDS]
    }

    /// The plaintext, if it is here.
    pub fn get(&self, id: &BlobId) -> Option<Arc<[u8]>> {
        let mut shard = self.shard(id).lock();
        let entry = shard.entries.get_mut(id)?;
        entry.hits = (entry.hits + 1).min(HITS_MAX);
        Some(entry.bytes.clone())
    }

    /// Whether it is here; no use of it.
    pub fn contains(&self, id: &BlobId) -> bool {
        self.shard(id).lock().entries.contains_key(id)
    }

    /// Keeps a plaintext, unless it is more than half of what a shard may hold.
    pub fn insert(&self, id: &BlobId, bytes: Arc<[u8]>) {
        let mut evicted = Vec::new();
        self.shard(id).lock().insert(id, bytes, &mut evicted);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }
}

impl Shard {
    fn insert(&mut self, id: &BlobId, bytes: Arc<[u8]>, evicted: &mut Vec<Arc<[u8]>>) {
        let entry = Entry { bytes, hits: 0 };
        let charge = entry.charge();
        if charge > self.bytes_max / 2 || self.entries.contains_key(id) {
            return;
        }
        while self.bytes + charge > self.bytes_max {
            self.evict_one(evicted);
        }
        if self.ghosts.remove(id) {
            self.main.push_back(*id);
        } else {
            self.small.push_back(*id);
            self.small_bytes += charge;
        }
        self.bytes += charge;
        self.entries.insert(*id, entry);
    }

    /// Takes one entry out; the caller has made sure that there is one.
    fn evict_one(&mut self, evicted: &mut Vec<Arc<[u8]>>) {
        loop {
            let small_is_over = self.small_bytes > self.bytes_max / 10 * SMALL_TENTHS;
            let in_small = !self.small.is_empty() && (small_is_over || self.main.is_empty());
            let queue = if in_small { &mut self.small } else { &mut self.main };
            let Some(id) = queue.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if in_small {
                self.small_bytes -= entry.charge();
            } else if entry.hits > 0 {
                entry.hits -= 1;
                self.main.push_back(id);
                continue;
            }
            let Some(entry) = self.entries.remove(&id) else { continue };
            self.bytes -= entry.charge();
            evicted.push(entry.bytes);
            if in_small {
                self.remember(id);
            }
            return;
        }
    }

    fn remember(&mut self, id: BlobId) {
        if self.ghosts.insert(id) {
            self.ghost_order.push_back(id);
        }
        while self.ghost_order.len() > self.entries.len().max(16) {
            if let Some(oldest) = self.ghost_order.pop_front() {
                self.ghosts.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> BlobId {
        // The second byte stays the same, so that all ids share one shard.
        let mut bytes = [0; 32];
        bytes[4..8].copy_from_slice(&n.to_le_bytes());
        BlobId(bytes)
    }

    fn blob(length: usize) -> Arc<[u8]> {
        vec![7u8; length].into()
    }

    #[test]
    fn bytes_never_exceed_the_bound() {
        let cache = BlobCache::new(SHARDS * 10_000);
        for n in 0..1000 {
            cache.insert(&id(n), blob((n as usize * 37) % 5000));
            cache.get(&id(n / 2));
            assert!(cache.bytes() <= 10_000, "{n}");
        }
    }

    #[test]
    fn a_scan_that_asks_for_each_chunk_many_times_leaves_what_is_used_again() {
        let cache = BlobCache::new(SHARDS * 100_000);
        let used = 0..10;
        let scan = |ids: std::ops::Range<u32>| {
            for n in ids {
                cache.insert(&id(n), blob(1000));
                for _ in 0..5 {
                    cache.get(&id(n));
                }
            }
        };
        used.clone().for_each(|n| cache.insert(&id(n), blob(1000)));
        scan(100..220);
        used.clone().for_each(|n| cache.insert(&id(n), blob(1000)));
        scan(1000..2000);
        assert!(used.clone().all(|n| cache.contains(&id(n))));
    }

    #[test]
    fn what_comes_back_soon_after_it_left_is_kept() {
        let cache = BlobCache::new(SHARDS * 20_000);
        cache.insert(&id(0), blob(1000));
        let mut n = 1;
        while cache.contains(&id(0)) {
            cache.insert(&id(n), blob(1000));
            n += 1;
        }
        cache.insert(&id(0), blob(1000));
        for n in 1000..1100 {
            cache.insert(&id(n), blob(1000));
        }
        assert!(cache.contains(&id(0)));
    }

    #[test]
    fn a_blob_too_large_for_the_cache_is_not_kept() {
        let cache = BlobCache::new(SHARDS * 1000);
        cache.insert(&id(1), blob(900));
        assert!(!cache.contains(&id(1)) && cache.bytes() == 0);
    }
}
