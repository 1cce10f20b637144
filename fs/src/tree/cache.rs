//! Cache of decoded tree nodes, shared by all trees of a volume.
//!
//! *Invariants*: holds stored nodes only, which never change, and none that refers to a node in memory, so what it
//! holds is what it counts.
//!
//! *Threads*: a mutex for each of [`SHARD_COUNT`] shards, held for a few instructions and never across I/O.
//!
//! *Bounds*: the memory given at construction, divided evenly over the shards. A node enters unmarked and is marked
//! when it is met again; the clock's hand evicts the first unmarked one, so one long scan evicts mostly itself.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use parking_lot::Mutex;
use vellum_store::id::BlobId;

use super::node::Node;

const SHARD_COUNT: usize = 16;

/// A bounded cache of nodes.
#[derive(Debug)]
pub struct NodeCache {
    shards: [Mutex<Shard>; SHARD_COUNT],
    shard_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<BlobId, usize, BuildHasherDefault<IdHasher>>,
    ring: Vec<Slot>,
    hand: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    id: BlobId,
    node: Arc<Node>,
    bytes: usize,
    marked: bool,
}

/// Ids are hashes already.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some((first, _)) = bytes.split_first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}

impl NodeCache {
    /// A cache that takes at most `bytes_max` of memory.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { shards: Default::default(), shard_bytes_max: bytes_max / SHARD_COUNT })
    }

    /// The node with this id.
    pub(super) fn get(&self, id: &BlobId) -> Option<Arc<Node>> {
        let mut shard = self.shard(id).lock();
        let at = *shard.slots.get(id)?;
        let slot = &mut shard.ring[at];
        slot.marked = true;
        Some(Arc::clone(&slot.node))
    }

    /// Takes a stored node in, and evicts what no longer fits.
    pub(super) fn insert(&self, id: BlobId, node: Arc<Node>) {
        let bytes = node.memory() + size_of::<Slot>();
        let mut shard = self.shard(&id).lock();
        if bytes > self.shard_bytes_max || shard.slots.contains_key(&id) {
            return;
        }
        shard.make_room(self.shard_bytes_max - bytes);
        let at = shard.ring.len();
        shard.slots.insert(id, at);
        shard.ring.push(Slot { id, node, bytes, marked: false });
        shard.bytes += bytes;
    }

    /// Forgets a node that its tree is about to change: what refers to it by now is older, and rarely read.
    pub(super) fn remove(&self, id: &BlobId) {
        let mut shard = self.shard(id).lock();
        if let Some(at) = shard.slots.get(id).copied() {
            shard.take_out(at);
        }
    }

    /// Memory taken.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    /// Forgets all nodes.
    pub fn clear(&self) {
        self.shards.iter().for_each(|shard| *shard.lock() = Shard::default());
    }

    fn shard(&self, id: &BlobId) -> &Mutex<Shard> {
        // The last byte, because the map within the shard uses the first ones.
        &self.shards[usize::from(id.0[BlobId::LENGTH - 1]) % SHARD_COUNT]
    }
}

impl Shard {
    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && !self.ring.is_empty() {
            self.hand %= self.ring.len();
            let slot = &mut self.ring[self.hand];
            if std::mem::take(&mut slot.marked) {
                self.hand += 1;
                continue;
            }
            self.take_out(self.hand);
            // The newest node took the place; passing it by gives it a round to be met again.
            self.hand += 1;
        }
    }

    /// Takes the node out of a place of the ring, which the newest one takes.
    fn take_out(&mut self, at: usize) {
        let gone = self.ring.swap_remove(at);
        self.slots.remove(&gone.id);
        self.bytes -= gone.bytes;
        if let Some(moved) = self.ring.get(at) {
            self.slots.insert(moved.id, at);
        }
    }
}
