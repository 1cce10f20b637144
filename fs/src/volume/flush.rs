//! Moves dirty content into the store: capture, plan, submit, publish.
//!
//! *Ordering*
//! 1. Extents of one inode are published in the order of their writes: the flush turn is held from capture to publication,
//!    and a frozen layer goes before the live one.
//! 2. An extent enters a tree only when its blob has been accepted by a pack stream; F1 and F2 are kept by the commit that
//!    later names the tree.
//! 3. Content of a generation that a running checkpoint froze is published in the frozen tree as well.
//!
//! *Threads*: the flusher, the checkpointer, and whoever syncs a large file. No lock is held while cutting, hashing or waiting;
//! the cell and `meta` are held to publish one inode's changes.
//!
//! *Bounds*: a batch holds [`BATCH_BYTES`] of dirty content or [`BATCH_INODES`] inodes, so that waiting for the store is
//! shared by many small files; the planner bounds its own window.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use vellum_store::{chunker::Chunker, id::BlobKind, pipeline::Ticket};

use super::{
    Volume,
    cells::{Cell, CellState, Queued, Turn, Unjournaled},
    state::{Meta, inode_in, put_inode_in},
};
use crate::{
    content::{
        base::{Base, EmptyBase, TreeBase},
        dirty::Capture,
        extents::{self, Change},
        plan::{Neighbours, PlanInput, Planner, Tail},
    },
    error::{Error, Result},
    format::inode::Inode,
    ino::Ino,
    tree::Tree,
};

/// Dirty bytes that are flushed together.
const BATCH_BYTES: u64 = 16 << 20;
/// Inodes that are flushed together.
const BATCH_INODES: usize = 256;
/// An open file that was written to within this time is likely to be written on.
const WRITING: Duration = Duration::from_millis(200);
/// A flush under pressure that freed this part of where pressure begins did well enough.
const ENOUGH_PART: u64 = 4;
/// A file with this much dirty content is flushed while it is written.
pub(crate) const STREAM_BYTES: u64 = 8 << 20;

/// Of which files the last chunk stays dirty, because they are likely to be written on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Of none.
    Flush,
    /// Of those with much that is dirty.
    KeepOfStreams,
    /// Of those, and of those that are being written just now.
    Keep,
}

/// How one flush goes about it.
struct Manner {
    ends: Ends,
    /// What was not written to for this long is flushed with its end; zero if that does not count.
    age: Duration,
    /// Bytes that are dirty no more because of this flush.
    freed: AtomicU64,
}

impl Manner {
    fn new(ends: Ends, age: Duration) -> Self {
        Self { ends, age, freed: AtomicU64::new(0) }
    }
}

/// Content captured for one inode.
struct Captured {
    capture: Capture,
    generation: u64,
    inode: Inode,
    /// Somebody has it open, to read or to write.
    is_open: bool,
    /// Where planning finds what was flushed before; `None` if nothing was, as in a new file. As long as it lives, whoever
    /// changes the live tree copies the nodes on the way, so it goes when the plan is made.
    base: Option<Tree>,
}

/// A change that is complete, or waits for its blob.
enum Step {
    Ready(Change),
    Waits { offset: u64, length: u32, ticket: Ticket },
}

/// One inode on its way through a batch.
struct Job<'t> {
    turn: &'t Turn,
    captured: Captured,
    steps: Vec<Step>,
    kept_from: Option<u64>,
}

impl Volume {
    /// Moves all dirty content into the store, but for what another flush has in hand. Makes nothing durable.
    pub fn flush_dirty(&self) -> Result<()> {
        self.flush_since(i64::MAX, &Manner::new(Ends::KeepOfStreams, Duration::ZERO), &|| true)
    }

    /// Flushes files that are being streamed, and what has been dirty for `age`; under pressure the oldest, until it is over.
    pub(crate) fn flush_old(&self, age: Duration, pressed: bool) -> Result<()> {
        let keeping = Manner::new(Ends::Keep, age);
        if !pressed {
            let limit = self.now().as_nanos().saturating_sub(age.as_nanos() as i64);
            return self.flush_since(limit, &keeping, &|| true);
        }
        // Whatever the clock says: it may have been set back.
        let flushed = self.flush_since(i64::MAX, &keeping, &|| self.budget.is_pressed());
        let freed = keeping.freed.into_inner();
        if freed >= self.budget.soft() / ENOUGH_PART || !self.budget.is_pressed() {
            return flushed;
        }
        // So many files are being written that most of the budget is in their ends.
        let cutting = Manner::new(Ends::KeepOfStreams, age);
        flushed.and(self.flush_since(i64::MAX, &cutting, &|| self.budget.is_pressed()))
    }

    fn flush_since(&self, limit: i64, manner: &Manner, goes_on: &dyn Fn() -> bool) -> Result<()> {
        let streams = std::mem::take(&mut self.meta.write().streams);
        let mut flushed = self.flush_inodes(&Vec::from_iter(streams.iter().copied()), manner);
        streams.into_iter().for_each(|ino| self.end_stream(ino));
        // Each inode is looked at once a call: what cannot be flushed at this moment goes to the end of the queue.
        let mut left = self.meta.read().aging.len();
        loop {
            let batch: Vec<Ino> = {
                let mut meta = self.meta.write();
                let count = meta.aging.len().min(BATCH_INODES).min(left);
                left -= count;
                meta.aging.drain(..count).collect()
            };
            // The queue is in the order of becoming dirty: behind one that is young there are younger ones.
            let young = batch.iter().position(|&ino| !self.is_old(ino, limit)).unwrap_or(batch.len());
            let (due, rest) = batch.split_at(young);
            {
                let mut meta = self.meta.write();
                rest.iter().rev().for_each(|&ino| meta.aging.push_front(ino));
            }
            flushed = flushed.and(self.flush_inodes(due, manner));
            due.iter().for_each(|&ino| self.age_again(ino));
            if flushed.is_err() || due.is_empty() || !rest.is_empty() || !goes_on() {
                return flushed;
            }
        }
    }

    fn is_old(&self, ino: Ino, limit: i64) -> bool {
        self.cells.find(ino).is_none_or(|cell| cell.lock().dirty_since_ns <= limit)
    }

    /// Flushes the live layers of `inodes` in batches.
    fn flush_inodes(&self, inodes: &[Ino], manner: &Manner) -> Result<()> {
        let mut flushed = Ok(());
        let mut turns = Vec::new();
        let mut bytes = 0;
        for &ino in inodes {
            let Some(cell) = self.cells.find(ino) else { continue };
            let dirty = {
                let state = cell.lock();
                // A frozen layer belongs to the checkpoint that runs, and goes first.
                if state.frozen.is_some() { 0 } else { state.live.held_bytes() }
            };
            // Only a turn that is free: this thread holds several, and waiting with turns in hand could wait for ever.
            if dirty > 0
                && let Some(turn) = cell.try_turn()
            {
                turns.push(turn);
                bytes += dirty;
            }
            if bytes >= BATCH_BYTES {
                flushed = flushed.and(self.flush_batch(&turns, manner));
                self.let_go(&mut turns);
                bytes = 0;
            }
        }
        flushed = flushed.and(self.flush_batch(&turns, manner));
        self.let_go(&mut turns);
        flushed
    }

    /// After an inode was taken out of `aging`: back to its end if it is still dirty.
    fn age_again(&self, ino: Ino) {
        let Some(cell) = self.cells.find(ino) else { return };
        {
            let mut state = cell.lock();
            if state.live.is_empty() {
                state.queued = Queued::No;
            } else {
                state.queued = state.queued.max(Queued::Aging);
                self.meta.write().aging.push_back(ino);
            }
        }
        self.cells.put(cell);
    }

    /// After an inode was taken out of `streams`: it still stands in `aging`, if it is dirty.
    fn end_stream(&self, ino: Ino) {
        let Some(cell) = self.cells.find(ino) else { return };
        {
            let mut state = cell.lock();
            state.queued = state.queued.min(Queued::Aging);
        }
        self.cells.put(cell);
    }

    fn let_go(&self, turns: &mut Vec<Turn>) {
        for turn in turns.drain(..) {
            let cell = Arc::clone(turn.cell());
            drop(turn);
            self.cells.put(cell);
        }
    }

    /// Flushes everything that a freeze captured of `inodes`.
    pub(crate) fn flush_frozen(&self, inodes: &BTreeSet<Ino>) -> Result<()> {
        let mut turns = Vec::new();
        let mut bytes = 0;
        for &ino in inodes {
            let Some(cell) = self.cells.find(ino) else { continue };
            // In ascending order, and only this thread waits for turns while it holds others.
            let turn = cell.take_turn();
            let dirty = self.rotate_frozen(&cell);
            if dirty == 0 {
                drop(turn);
                self.cells.put(cell);
                continue;
            }
            bytes += dirty;
            turns.push(turn);
            if bytes >= BATCH_BYTES || turns.len() >= BATCH_INODES {
                self.flush_batch(&turns, &Manner::new(Ends::Flush, Duration::ZERO))?;
                self.let_go(&mut turns);
                bytes = 0;
            }
        }
        let flushed = self.flush_batch(&turns, &Manner::new(Ends::Flush, Duration::ZERO));
        self.let_go(&mut turns);
        flushed
    }

    /// Separates what belongs to the running checkpoint; returns how much that is.
    pub(crate) fn rotate_frozen(&self, cell: &Cell) -> u64 {
        let mut state = cell.lock();
        if let Some(frozen) = &self.meta.read().frozen
            && state.live_generation <= frozen.generation
        {
            state.rotate(frozen.generation + 1);
        }
        state.frozen.as_ref().map_or(0, |frozen| frozen.held_bytes().max(1))
    }

    /// Flushes both layers of one inode, whose turn the caller holds.
    pub(crate) fn flush_with_turn(&self, turn: &Turn) -> Result<()> {
        if self.rotate_frozen(turn.cell()) > 0 {
            self.flush_one_layer(turn)?;
        }
        self.flush_one_layer(turn)
    }

    /// Flushes the frozen layer of an inode whose turn the caller holds, or the live one if there is none.
    pub(crate) fn flush_one_layer(&self, turn: &Turn) -> Result<()> {
        self.flush_batch(std::slice::from_ref(turn), &Manner::new(Ends::Flush, Duration::ZERO))
    }

    /// Flushes one layer of each inode: the frozen one if there is one.
    fn flush_batch(&self, turns: &[Turn], manner: &Manner) -> Result<()> {
        let mut jobs = Vec::with_capacity(turns.len());
        let mut first_error = None;
        for turn in turns {
            match self.begin_job(turn, manner) {
                Ok(job) => jobs.extend(job),
                Err(error) => {
                    turn.cell().lock().error.get_or_insert(error.clone());
                    first_error.get_or_insert(error);
                }
            }
        }
        for job in jobs {
            let cell = Arc::clone(job.turn.cell());
            if let Err(error) = self.finish_job(job, manner) {
                cell.lock().error.get_or_insert(error.clone());
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn begin_job<'t>(&self, turn: &'t Turn, manner: &Manner) -> Result<Option<Job<'t>>> {
        let cell = turn.cell();
        let Some(mut captured) = self.capture(cell)? else {
            return Ok(None);
        };
        // Only the last bytes of a stream, and of a file that is being written, wait for the end of their chunk: what is small or
        // old will hardly be appended to, and many small remainders would use up the budget. A file cut where its writer
        // happened to be leaves a chunk that no copy of the file shares.
        let idle = self.now().as_nanos().saturating_sub(captured.inode.mtime.as_nanos());
        let old = manner.age > Duration::ZERO && idle >= manner.age.as_nanos() as i64;
        let writing = captured.is_open && (0..WRITING.as_nanos() as i64).contains(&idle);
        let stream = captured.capture.bytes() >= STREAM_BYTES / 2;
        // Tiny pieces cost more memory than they hold bytes, and a chunk has room for very many of them.
        let crowded = captured.capture.overhead() > captured.capture.bytes();
        let keeps = match manner.ends {
            Ends::Flush => false,
            Ends::KeepOfStreams => stream && !old && !crowded,
            Ends::Keep => (stream || writing) && !old && !crowded,
        };
        let tail = if keeps { Tail::Keep } else { Tail::Flush };
        let mut steps = Vec::new();
        let planned = self.plan(cell.ino, &captured, tail, Neighbours::Read, &mut steps);
        let planned = match planned {
            Err(error) if !error.is_no_space() => {
                // New content must not be lost because an old blob beside it is.
                log::warn!("flush of {} beside damage: {error}", cell.ino);
                steps.clear();
                self.plan(cell.ino, &captured, tail, Neighbours::Avoid, &mut steps)?
            }
            planned => planned?,
        };
        captured.base = None;
        Ok(Some(Job { turn, captured, steps, kept_from: planned.kept_from }))
    }

    /// Takes cheap copies of what is dirty, and the tree below it.
    fn capture(&self, cell: &Cell) -> Result<Option<Captured>> {
        let mut state = cell.lock();
        let meta = self.meta.read();
        if let Some(frozen) = &meta.frozen
            && state.live_generation <= frozen.generation
        {
            state.rotate(frozen.generation + 1);
        }
        let (layer, generation, tree) = match (&state.frozen, &meta.frozen) {
            (Some(layer), Some(frozen)) => (layer, frozen.generation, &frozen.tree),
            (Some(_), None) => return Ok(None),
            (None, _) => (&state.live, state.live_generation, &meta.tree),
        };
        if layer.is_empty() {
            return Ok(None);
        }
        let Some(inode) = inode_in(tree, cell.ino)? else {
            return Ok(None);
        };
        // What cannot be read is for the planner to go around: it is told of damage, and does without neighbours.
        let is_new = matches!(extents::is_empty(tree, cell.ino), Ok(true));
        let base = (!is_new).then(|| tree.clone());
        Ok(Some(Captured { capture: layer.capture(), generation, inode, is_open: state.opens > 0, base }))
    }

    fn plan(
        &self,
        ino: Ino,
        captured: &Captured,
        tail: Tail,
        neighbours: Neighbours,
        steps: &mut Vec<Step>,
    ) -> Result<crate::content::plan::Planned> {
        let planner =
            Planner::new(Chunker::new(self.repository.keyring().gear(), self.repository.config().chunk_sizes));
        let input = PlanInput {
            layers: &[&captured.capture],
            size: captured.inode.size,
            class: captured.inode.class,
            tail,
            neighbours,
        };
        let mut blobs = |id: &_, length| Ok(self.repository.read(BlobKind::Data, id, length)?);
        let mut base: Box<dyn Base> = match &captured.base {
            Some(tree) => Box::new(TreeBase::new(tree, ino, &mut blobs)),
            None => Box::new(EmptyBase),
        };
        planner.plan(&input, base.as_mut(), &mut |output| {
            steps.push(match output.into_change() {
                Ok(change) => Step::Ready(change),
                Err((offset, bytes)) => {
                    let length = bytes.len() as u32;
                    Step::Waits { offset, length, ticket: self.repository.submit_data(bytes)? }
                }
            });
            Ok(())
        })
    }

    /// Waits for the blobs, then publishes.
    fn finish_job(&self, job: Job<'_>, manner: &Manner) -> Result<()> {
        let Job { turn, captured, steps, kept_from } = job;
        let mut changes = Vec::with_capacity(steps.len());
        for step in steps {
            changes.push(match step {
                Step::Ready(change) => change,
                Step::Waits { offset, length, ticket } => Change::chunk(offset, length, ticket.wait()?),
            });
        }
        if changes.is_empty() && kept_from.is_some() {
            // All of it was kept.
            return Ok(());
        }
        let freed = self.publish(turn.cell(), &captured, changes, kept_from)?;
        manner.freed.fetch_add(freed, Ordering::Relaxed);
        Ok(())
    }

    /// Brings changes into the trees, and forgets what was captured for them; returns how much less is dirty.
    fn publish(&self, cell: &Cell, captured: &Captured, changes: Vec<Change>, kept_from: Option<u64>) -> Result<u64> {
        let mut state = cell.lock();
        let before = state.dirty_bytes();
        let mut meta = self.meta.write();
        let Meta { tree, frozen, .. } = &mut *meta;
        let frozen = frozen.as_mut().filter(|frozen| captured.generation <= frozen.generation);
        // Both trees or none: half of the changes in a tree would be stored as if they were the content.
        tree.atomically(|tree| {
            apply_to(tree, cell.ino, &changes)?;
            frozen.map_or(Ok(()), |frozen| frozen.tree.atomically(|tree| apply_to(tree, cell.ino, &changes)))
        })?;
        drop(meta);
        state.live.remove_captured(&captured.capture, kept_from);
        if let Some(frozen) = &mut state.frozen {
            frozen.remove_captured(&captured.capture, kept_from);
            if frozen.is_empty() {
                state.frozen = None;
            }
        }
        if state.live.is_empty() && state.frozen.is_none() {
            state.dirty_since_ns = 0;
        } else {
            state.dirty_since_ns = self.last_change_ns.load(Ordering::Relaxed).max(1);
        }
        // What the journal holds already, it need not be told again.
        if !captured.capture.is_journaled() && !state.dropped {
            note_unjournaled(&mut state, captured.generation, changes);
        }
        self.settle_budget(cell, &state, 0);
        Ok(before.saturating_sub(state.dirty_bytes()))
    }
}

/// Notes changes that the journal is to be told at the next sync.
///
/// What is dirty above them is newer. If the journal holds it already, replay would put these changes over it: so it counts as
/// not journalled from here on, and follows them.
pub(crate) fn note_unjournaled(state: &mut CellState, generation: u64, changes: Vec<Change>) {
    let CellState { live, frozen, unjournaled, .. } = state;
    for change in changes {
        for layer in frozen.iter_mut().chain(std::iter::once(&mut *live)) {
            layer.mark_unjournaled(change.range());
        }
        unjournaled.push(Unjournaled { generation, change });
    }
}

/// Brings changes into a tree that still has the inode.
fn apply_to(tree: &mut Tree, ino: Ino, changes: &[Change]) -> Result<()> {
    let Some(mut inode) = inode_in(tree, ino)? else {
        return Ok(());
    };
    let delta = extents::apply(tree, ino, changes)?;
    inode.allocated = inode
        .allocated
        .checked_add_signed(delta)
        .ok_or_else(|| Error::damaged(ino, "more is freed than was allocated"))?;
    put_inode_in(tree, ino, &inode)
}
