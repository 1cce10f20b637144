//! What the process holds of inodes that are open or changed: dirty content, unpublished history, reference counts.
//!
//! An inode that is neither open, nor changed since the last checkpoint, has no cell: everything about it is in the tree.
//!
//! *Invariants*
//! 1. A cell leaves the table only when [`CellState::is_idle`] and nobody else holds its `Arc`.
//! 2. Content = tree extents < `frozen` < `live`. `frozen` is there only while a checkpoint that froze it has not finished.
//! 3. Extents of one inode are published in order: whoever captures, publishes or journals them holds the flush turn.
//! 4. `unjournaled` lists the extents published since the last checkpoint that no journal commit covers.
//!
//! *Threads*: any. Lock order: flush turn, then cell state, then the volume's `meta` lock. No I/O under the state lock.
//!
//! *Bounds*: dirty bytes by the [`Budget`](super::budget::Budget); cells by open handles plus inodes changed in one
//! checkpoint interval, which the checkpoint's triggers bound.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use vellum_store::spawn::turns::{self, waits_its_turn};

use crate::{
    content::{class::ClassTracker, dirty::DirtyMap, extents::Change},
    error::Error,
    ino::Ino,
};

const SHARDS: usize = 16;

/// A change of the live tree's extents that no durable tree holds, and no journal commit.
#[derive(Clone, Debug)]
pub struct Unjournaled {
    /// Generation of the content it holds.
    pub generation: u64,
    /// What a flush put into the tree.
    pub change: Change,
}

/// Whether an inode waits for the flusher, and in which queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queued {
    /// In none.
    #[default]
    No,
    /// Among those that wait to become old.
    Aging,
    /// Among those with enough for a batch, too.
    Stream,
}

/// The changing part of a cell.
#[derive(Debug, Default)]
pub struct CellState {
    /// Content written since the last freeze that touched this inode.
    pub live: DirtyMap,
    /// Generation of `live`.
    pub live_generation: u64,
    /// Content that a running (or failed) checkpoint captured.
    pub frozen: Option<DirtyMap>,
    /// Extents that only memory and the open packs know.
    pub unjournaled: Vec<Unjournaled>,
    /// Generation of the newest change of size or times that the journal does not hold; `None` when there is none.
    pub attributes_changed: Option<u64>,
    /// A sync holds the turn: writers with much dirty content wait for it, so that it ends.
    pub sync_waiting: bool,
    /// Where the flusher will meet this inode.
    pub queued: Queued,
    /// Open handles.
    pub opens: u32,
    /// Those among them that may be mapped for writing: open for reading and writing.
    pub mappable: u32,
    /// The inode was dropped from the live tree; only `frozen` still matters.
    pub dropped: bool,
    /// Counts overwrites, to find files that are rewritten at random.
    pub overwrites: ClassTracker,
    /// The first write-back error, reported once by `fsync` or `close`.
    pub error: Option<Error>,
    /// Time of the first unflushed write, in nanoseconds of the volume's clock; 0 when clean.
    pub dirty_since_ns: i64,
    flushing: bool,
}

impl CellState {
    /// Whether the tree alone tells everything about this inode.
    pub fn is_idle(&self) -> bool {
        self.opens == 0
            && self.live.is_empty()
            && self.frozen.is_none()
            && self.unjournaled.is_empty()
            && self.attributes_changed.is_none()
            && self.error.is_none()
            && !self.flushing
    }

    /// Whether content or times would be missing after a crash.
    pub fn has_unjournaled(&self) -> bool {
        // Every change of content moves the times as well.
        self.attributes_changed.is_some() || !self.unjournaled.is_empty()
    }

    /// Moves `live` under `frozen` if it belongs to a generation that a freeze has ended.
    pub fn rotate(&mut self, generation: u64) {
        if self.live_generation < generation {
            if !self.live.is_empty() {
                let mut newer = self.live.freeze();
                if let Some(older) = self.frozen.take() {
                    newer.restore(older);
                }
                self.frozen = Some(newer);
            }
            self.live_generation = generation;
        }
    }

    /// The layers from lowest to highest.
    pub fn layers(&self) -> Vec<&DirtyMap> {
        self.frozen.iter().chain(std::iter::once(&self.live)).collect()
    }

    /// Memory held by both layers.
    pub fn dirty_bytes(&self) -> u64 {
        self.live.held_bytes() + self.frozen.as_ref().map_or(0, DirtyMap::held_bytes)
    }
}

/// One open or changed inode.
#[derive(Debug)]
pub struct Cell {
    /// Its number.
    pub ino: Ino,
    state: turns::Mutex<CellState>,
    turn_free: Condvar,
    dirty_bytes: AtomicU64,
}

impl Cell {
    fn new(ino: Ino) -> Self {
        Self { ino, state: turns::Mutex::default(), turn_free: Condvar::new(), dirty_bytes: AtomicU64::new(0) }
    }

    /// Locks the state.
    pub fn lock(&self) -> MutexGuard<'_, CellState> {
        self.state.lock()
    }

    /// Dirty bytes as of the last [`Cell::note_dirty`]; for `st_blocks`, without the lock.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes.load(Ordering::Relaxed)
    }

    /// Records the dirty bytes that `state` holds; returns what was recorded before, and them.
    pub fn note_dirty(&self, state: &CellState) -> (u64, u64) {
        let bytes = state.dirty_bytes();
        (self.dirty_bytes.swap(bytes, Ordering::Relaxed), bytes)
    }

    /// Waits for the right to capture, publish or journal this inode's content.
    pub fn take_turn(self: &Arc<Self>) -> Turn {
        let mut state = self.state.lock();
        while state.flushing {
            if turns::is_simulated() {
                // Others go on while they hold the lock, so it is taken as if anew.
                drop(state);
                waits_its_turn("turn of an inode");
                state = self.state.lock();
            } else {
                self.turn_free.wait(&mut state);
            }
        }
        state.flushing = true;
        Turn { cell: Arc::clone(self) }
    }

    /// Takes the turn only if it is free.
    pub fn try_turn(self: &Arc<Self>) -> Option<Turn> {
        let mut state = self.state.lock();
        if state.flushing {
            return None;
        }
        state.flushing = true;
        Some(Turn { cell: Arc::clone(self) })
    }
}

/// The right to capture, publish and journal one inode's content; given back on drop.
#[derive(Debug)]
pub struct Turn {
    cell: Arc<Cell>,
}

impl Turn {
    /// The cell whose turn this is.
    pub fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.cell.state.lock().flushing = false;
        self.cell.turn_free.notify_one();
    }
}

/// All cells of a volume.
#[derive(Debug)]
pub struct CellTable {
    shards: Vec<Mutex<HashMap<Ino, Arc<Cell>>>>,
}

impl Default for CellTable {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl CellTable {
    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, Arc<Cell>>> {
        &self.shards[ino.0 as usize % SHARDS]
    }

    /// The cell of `ino`, made if there is none.
    pub fn get(&self, ino: Ino) -> Arc<Cell> {
        Arc::clone(self.shard(ino).lock().entry(ino).or_insert_with(|| Arc::new(Cell::new(ino))))
    }

    /// The cell of `ino`, if there is one.
    pub fn find(&self, ino: Ino) -> Option<Arc<Cell>> {
        self.shard(ino).lock().get(&ino).map(Arc::clone)
    }

    /// Lets go of `cell`, and forgets it if it is idle and nobody else holds it.
    pub fn put(&self, cell: Arc<Cell>) {
        let ino = cell.ino;
        let mut shard = self.shard(ino).lock();
        // Let go under the lock: of two who put the same cell at once, the later one finds itself the last.
        drop(cell);
        // The only holder is the table; another one would still use what the removal orphans.
        if shard.get(&ino).is_some_and(|cell| Arc::strong_count(cell) == 1 && cell.state.lock_alone().is_idle()) {
            shard.remove(&ino);
        }
    }

    /// Number of cells; for `status` and tests.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How many references front ends hold on each inode (FUSE's lookup counts).
///
/// A kernel keeps millions of inodes while it has memory, and most of them were looked up once.
#[derive(Debug)]
pub struct References {
    shards: Vec<Mutex<Counts>>,
}

/// Counts that are not zero; each inode stands in one of the two.
#[derive(Debug, Default)]
struct Counts {
    once: HashSet<Ino>,
    more: HashMap<Ino, u64>,
}

impl Default for References {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl References {
    fn shard(&self, ino: Ino) -> &Mutex<Counts> {
        &self.shards[ino.0 as usize % SHARDS]
    }

    /// Adds one reference.
    pub fn add(&self, ino: Ino) {
        let mut shard = self.shard(ino).lock();
        if let Some(held) = shard.more.get_mut(&ino) {
            *held += 1;
        } else if !shard.once.insert(ino) {
            shard.once.remove(&ino);
            shard.more.insert(ino, 2);
        }
    }

    /// Drops `count` references; returns whether none are left.
    pub fn drop_some(&self, ino: Ino, count: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        if let Some(held) = shard.more.get_mut(&ino) {
            if *held > count {
                *held -= count;
                return false;
            }
            shard.more.remove(&ino);
        } else if count > 0 {
            shard.once.remove(&ino);
        }
        !shard.once.contains(&ino)
    }

    /// Whether anyone refers to `ino`.
    pub fn holds(&self, ino: Ino) -> bool {
        let shard = self.shard(ino).lock();
        shard.once.contains(&ino) || shard.more.contains_key(&ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_counted_whether_there_is_one_or_many() {
        let references = References::default();
        let ino = Ino(7);
        assert!(references.drop_some(ino, 1) && !references.holds(ino), "what is not held is free");
        references.add(ino);
        assert!(!references.drop_some(ino, 0) && references.holds(ino));
        assert!(references.drop_some(ino, 1) && !references.holds(ino));
        (0..5).for_each(|_| references.add(ino));
        assert!(!references.drop_some(ino, 3) && references.holds(ino));
        references.add(ino);
        assert!(!references.drop_some(ino, 2), "one is left");
        assert!(references.drop_some(ino, 1) && !references.holds(ino));
        (0..3).for_each(|_| references.add(ino));
        assert!(references.drop_some(ino, 9) && !references.holds(ino), "more than there are");
    }
}
