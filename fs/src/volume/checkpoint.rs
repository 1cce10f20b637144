//! A checkpoint: the exact state at one moment, made durable while writers go on.
//!
//! *Ordering*
//! 1. Freeze: under `meta`, clone the tree, end the generation, take the list of changed inodes. O(1) but for the list.
//! 2. Flush the frozen content of those inodes; extents go to the frozen tree and to the live one.
//! 3. Encode and put the frozen tree's nodes, children first. F2: a node names only blobs that were put before it.
//! 4. Commit: the store makes packs, index and head durable in this order (F1, F3).
//! 5. Only then are journal commits, pending records and unjournalled extents of that prefix forgotten.
//!
//! *Threads*: the checkpointer, and whoever needs one now (a snapshot, a full journal, closing); one at a time, under the
//! checkpoint turn. No writer waits for it: the locks are held for the clone and for each batch of published extents.
//!
//! A failure before step 4 ends leaves the volume as it was, with everything still dirty; the next checkpoint begins anew.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use vellum_store::{
    id::HeadHash,
    repository::{CommittedHead, HeadDraft},
};

use super::{Volume, cells::Queued, health::Work, records, state::Frozen};
use crate::{
    error::Result,
    format::volume::{SnapshotRecord, VolumeState},
    ino::Ino,
    tree::Tree,
};

/// Heads that each checkpoint makes sure are in the log.
const HEADS_LOGGED: usize = 4;

/// What a freeze took.
struct Freeze {
    sequence: u64,
    generation: u64,
    changed: BTreeSet<Ino>,
    journal_commit: u64,
    /// An earlier commit failed: nodes that count as stored may be in no pack.
    store_again: bool,
    state: VolumeState,
}

/// Records about the volume itself that a checkpoint adds to its tree: what the next open needs, the log of heads that
/// proves ancestry, and the snapshot if one is taken.
struct Entries {
    state: VolumeState,
    /// The newest heads, newest first: a commit that published its head but could not remember it leaves one unlogged.
    heads: Vec<(u64, HeadHash)>,
    snapshot: Option<SnapshotRecord>,
}

impl Entries {
    fn put(&self, tree: &mut Tree) -> Result<()> {
        records::put_state(tree, &self.state)?;
        for (sequence, hash) in &self.heads {
            if records::head(tree, *sequence)?.is_none() {
                records::put_head(tree, *sequence, hash)?;
            }
        }
        if let Some(snapshot) = &self.snapshot {
            records::put_snapshot(tree, snapshot)?;
        }
        Ok(())
    }
}

/// A checkpoint that is durable.
struct Stored {
    tree: Tree,
    head: CommittedHead,
    entries: Entries,
    snapshot: Option<SnapshotRecord>,
}

/// A head that is durable although its checkpoint failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    head: HeadHash,
    journal_commit: u64,
}

impl Volume {
    /// Makes the present state durable, unless nothing changed since the last checkpoint.
    pub fn checkpoint(&self) -> Result<()> {
        self.check_healthy()?;
        let _turn = self.checkpoint_turn.lock();
        if !self.has_changes() {
            return Ok(());
        }
        self.run_checkpoint(None).map(|_| ())
    }

    /// Whether anything changed since the last durable head.
    pub(crate) fn has_changes(&self) -> bool {
        let meta = self.meta.read();
        meta.op_sequence > meta.durable_sequence
    }

    /// A checkpoint whose root enters the list of snapshots. The caller holds the checkpoint turn.
    pub(crate) fn run_checkpoint(&self, snapshot: Option<SnapshotRecord>) -> Result<Option<SnapshotRecord>> {
        if let Err(error) = self.settle_published() {
            self.troubles.note(Work::Checkpoint, &Err::<(), _>(error.clone()));
            if !error.is_no_space() {
                self.poison(&error);
            }
            return Err(error);
        }
        let before = self.handle.newest();
        let freeze = self.freeze();
        let done = self.store_frozen(&freeze, snapshot);
        self.troubles.note(Work::Checkpoint, &done);
        match done {
            Ok(stored) => {
                let snapshot = stored.snapshot.clone();
                // The head is out. Without its entry in the live tree the next one would lack the snapshot and the log.
                self.finish_checkpoint(&freeze, stored).inspect_err(|error| self.poison(error))?;
                Ok(snapshot)
            }
            Err(error) => {
                if let Some((_, head)) = self.handle.newest().filter(|newest| Some(*newest) != before) {
                    *self.published.lock() = Some(Published { head, journal_commit: freeze.journal_commit });
                }
                match error.is_no_space() {
                    // A full disk lost nothing, and space can come back. What is under way may still fail of that cause; the next
                    // attempt would share its failure.
                    true => self.repository.settle_pipeline(),
                    false => self.poison(&error),
                }
                self.undo_freeze(&freeze);
                Err(error)
            }
        }
    }

    /// Has the journal follow the head of a checkpoint that failed after it was published. Recovery takes commits that follow the newest
    /// head or the one before it: a further head may be published only after this.
    fn settle_published(&self) -> Result<()> {
        let mut published = self.published.lock();
        let Some(Published { head, journal_commit }) = *published else { return Ok(()) };
        // P5: space that the journal needs for a rollback to be noticed is used again only once the head is remembered.
        self.repository.remember_newest(&self.handle)?;
        if let Some(journal) = &self.journal {
            journal.store().trim(journal_commit, head)?;
        }
        *published = None;
        Ok(())
    }

    fn newest_heads(&self) -> Vec<(u64, HeadHash)> {
        let newest = self.handle.newest().map_or(0, |(sequence, _)| sequence);
        let hashes = self.handle.recent_hashes();
        // Sequence 0 is no head: the oldest hash may stand for what head 1 follows.
        (0..newest).rev().zip(hashes).take(HEADS_LOGGED).map(|(below, hash)| (below + 1, hash)).collect()
    }

    fn freeze(&self) -> Freeze {
        // Commits up to this one hold only records of changes that the clone below contains.
        let journal_commit = self.journal.as_ref().map_or(self.journal_floor, |journal| journal.last_commit());
        let mut meta = self.meta.write();
        let generation = meta.generation;
        meta.generation += 1;
        meta.atime_moved = false;
        meta.frozen = Some(Frozen { tree: meta.tree.clone(), generation });
        Freeze {
            sequence: meta.op_sequence,
            generation,
            changed: std::mem::take(&mut meta.changed),
            journal_commit,
            store_again: std::mem::take(&mut meta.store_again),
            state: VolumeState {
                next_ino: Ino(meta.runs.next()),
                op_sequence: meta.op_sequence,
                next_snapshot: meta.next_snapshot,
                created: meta.created,
            },
        }
    }

    fn store_frozen(&self, freeze: &Freeze, snapshot: Option<SnapshotRecord>) -> Result<Stored> {
        self.flush_frozen(&freeze.changed)?;
        // Every inode of the list has published its frozen content; later flushes hold newer generations only.
        let frozen = self.meta.write().frozen.take();
        let mut tree = frozen.expect("the freeze put it there and only this thread takes it").tree;
        let now = self.now();
        let mut snapshot = snapshot;
        if freeze.store_again {
            tree.store_again()?;
        }
        if let Some(record) = &mut snapshot {
            record.root = tree.store()?;
            record.time = now;
            record.op_sequence = freeze.sequence;
        }
        let entries = Entries { state: freeze.state.clone(), heads: self.newest_heads(), snapshot: snapshot.clone() };
        entries.put(&mut tree)?;
        let draft = HeadDraft {
            tree_root: tree.store()?,
            op_sequence: freeze.sequence,
            journal_commit: freeze.journal_commit,
            time_ns: now.as_nanos(),
        };
        // F3: commit returns only after every blob put above is in a durable pack and index, and the head after them.
        let head = self.repository.commit(&self.handle, &draft)?;
        Ok(Stored { tree, head, entries, snapshot })
    }

    fn finish_checkpoint(&self, freeze: &Freeze, stored: Stored) -> Result<()> {
        {
            let mut meta = self.meta.write();
            if meta.op_sequence == freeze.sequence && !meta.atime_moved {
                meta.tree = stored.tree;
            } else {
                stored.entries.put(&mut meta.tree)?;
            }
            meta.durable_sequence = freeze.sequence;
            meta.drop_pending_through(freeze.sequence);
            meta.tree.release_stored();
        }
        for &ino in &freeze.changed {
            let Some(cell) = self.cells.find(ino) else {
                continue;
            };
            let mut state = cell.lock();
            state.unjournaled.retain(|item| item.generation > freeze.generation);
            if state.attributes_changed.is_some_and(|generation| generation <= freeze.generation) {
                state.attributes_changed = None;
            }
            if state.frozen.as_ref().is_some_and(|frozen| frozen.is_empty()) {
                state.frozen = None;
            }
            drop(state);
            self.cells.put(cell);
        }
        if let Some(journal) = &self.journal {
            journal.note_durable(freeze.sequence);
            journal.store().trim(freeze.journal_commit, stored.head.hash)?;
        }
        self.checkpoint_count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn undo_freeze(&self, freeze: &Freeze) {
        let generation = {
            let mut meta = self.meta.write();
            meta.frozen = None;
            meta.store_again = true;
            meta.changed.extend(&freeze.changed);
            meta.generation
        };
        self.repository.spawner().step("checkpoint: given up");
        for &ino in &freeze.changed {
            let Some(cell) = self.cells.find(ino) else {
                continue;
            };
            let mut state = cell.lock();
            if let Some(older) = state.frozen.take() {
                state.live.restore(older);
            }
            state.live_generation = generation;
            if state.dropped {
                state.live = Default::default();
            }
            // The flusher may have met it while all of it was frozen, and let it go.
            if !state.live.is_empty() && state.queued == Queued::No {
                state.queued = Queued::Aging;
                self.meta.write().aging.push_back(ino);
            }
            self.settle_budget(&cell, &state, 0);
            drop(state);
            self.cells.put(cell);
        }
    }
}
