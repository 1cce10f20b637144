//! Group commit: pending records, synced content and tied content reach the store's journal.
//!
//! *Ordering*
//! - Content that lies in an open pack is synced there before a journal commit names it (F6).
//! - The content of a file that was renamed over another one precedes the rename's record (P1).
//! - [`VolumeJournal::durable`] moves only after the commit is durable, or a head covers it.
//!
//! *Threads*: whoever needs durability takes the turn, writes everything that is pending, and finds on the way out that it
//! served those who waited behind it: they return at once. No thread is woken for a commit.
//!
//! *Bounds*: one commit holds at most [`PAYLOAD_MAX`] bytes; content above [`CONTENT_INLINE_MAX`] is flushed into packs, and
//! the journal holds its extents.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::MutexGuard;
use vellum_store::journal::Journal;
use vellum_store::spawn::turns::Mutex;

use super::{
    Volume,
    cells::{Cell, CellState, Turn},
    state::{Meta, PendingRecord},
};
use crate::{
    content::{
        dirty::{Body, Capture, DirtyMap},
        extents::Change,
    },
    error::{Error, Result},
    format::op::{self, Op, Part},
    ino::Ino,
};

/// Largest payload of one journal commit.
pub const PAYLOAD_MAX: usize = 4 << 20;
/// Dirty content of one inode up to this size is written to the journal itself when it is synced.
pub const CONTENT_INLINE_MAX: u64 = 512 << 10;

/// Longest record of one inode's content. A sync that has more to tell makes a checkpoint: to record every extent of a file of
/// many gigabytes would cost more than to store the tree.
const RECORD_MAX: usize = 1 << 20;
/// What frames a record in a payload.
const FRAME_BYTES: usize = 4;
/// What a part of a record takes beside its bytes, at most.
const PART_BYTES: usize = 32;
/// What an extent takes in a part, at most.
const EXTENT_BYTES: usize = 64;
/// What a record takes beside its parts, at most.
const HEAD_BYTES: usize = 128;

/// What became of an inode's content that was to be journalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoded {
    /// All of it is in the journal or in a pending record.
    Pending,
    /// It does not fit a record; only a checkpoint makes it durable.
    TooLarge,
}

/// The journal of a volume and what is known durable.
#[derive(Debug)]
pub struct VolumeJournal {
    journal: Journal,
    turn: Mutex<()>,
    /// Every record and change up to this sequence number that needs the journal is in it, or covered by a head.
    durable: AtomicU64,
    commits: AtomicU64,
}

impl VolumeJournal {
    /// Wraps an open journal.
    pub fn new(journal: Journal) -> Self {
        Self { journal, turn: Mutex::new(()), durable: AtomicU64::new(0), commits: AtomicU64::new(0) }
    }

    /// The store's journal.
    pub fn store(&self) -> &Journal {
        &self.journal
    }

    /// Longest payload of one commit.
    fn payload_max(&self) -> usize {
        PAYLOAD_MAX.min(self.journal.payload_max())
    }

    /// Number of the newest commit; waits for one that is being written. The journal alone knows it: a copy that a thread keeps behind it
    /// is late, and a head that takes its number from there would leave out a commit that follows a head which is then too old.
    pub fn last_commit(&self) -> u64 {
        self.journal.last_commit()
    }

    /// Commits made since the volume was opened.
    pub fn commit_count(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Notes that a durable head covers everything through `sequence`.
    pub fn note_durable(&self, sequence: u64) {
        self.durable.fetch_max(sequence, Ordering::AcqRel);
    }
}

impl VolumeJournal {
    /// Waits for the commit that is being written, and lets no further one begin while the guard lives.
    pub(crate) fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }
}

impl Volume {
    /// Makes every record through `sequence` durable.
    pub(crate) fn sync_journal(&self, sequence: u64) -> Result<()> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        if journal.durable.load(Ordering::Acquire) >= sequence {
            return Ok(());
        }
        let _turn = journal.turn.lock();
        if journal.durable.load(Ordering::Acquire) >= sequence {
            return Ok(());
        }
        self.check_healthy()?;
        self.write_pending(journal).inspect_err(|error| {
            // A full disk lost nothing: the records wait for the next attempt.
            if !error.is_no_space() {
                self.poison(error);
            }
        })
    }

    /// Writes all pending records. The caller holds the journal's turn.
    fn write_pending(&self, journal: &VolumeJournal) -> Result<()> {
        let (records, through) = self.take_settled()?;
        let mut appended = 0;
        let length: usize = records.iter().map(|record| record.bytes.len() + FRAME_BYTES).sum();
        let done = if length > journal.payload_max() && self.meta.read().inseparable {
            // P1: a head publishes all of them at once; two commits would show the rename alone between them.
            self.checkpoint()
        } else {
            self.append_records(journal, &records, &mut appended)
        };
        let done = match done {
            // The head that this publishes covers every record that was taken.
            Err(Error::Store(vellum_store::Error::JournalFull { .. })) => self.checkpoint(),
            done => done,
        };
        if let Err(error) = done {
            let mut records = records;
            self.meta.write().put_back_pending(records.split_off(appended));
            return Err(error);
        }
        // Only settling sets it, and the turn is held since.
        self.meta.write().inseparable = false;
        journal.note_durable(through);
        Ok(())
    }

    /// Appends records in as few commits as fit; `appended` tells how many are durable.
    fn append_records(&self, journal: &VolumeJournal, records: &[PendingRecord], appended: &mut usize) -> Result<()> {
        let mut payload = Vec::new();
        for (number, record) in records.iter().enumerate() {
            if !payload.is_empty() && payload.len() + record.bytes.len() + FRAME_BYTES > journal.payload_max() {
                self.append_payload(journal, &payload)?;
                *appended = number;
                payload.clear();
            }
            op::frame(&mut payload, &record.bytes);
        }
        if !payload.is_empty() {
            self.append_payload(journal, &payload)?;
        }
        *appended = records.len();
        Ok(())
    }

    fn append_payload(&self, journal: &VolumeJournal, payload: &[u8]) -> Result<()> {
        journal.journal.append(payload)?;
        journal.commits.fetch_add(1, Ordering::Relaxed);
        if journal.journal.used_fraction() > 0.5 {
            self.background.want_checkpoint();
        }
        Ok(())
    }

    /// Takes all pending records once no rename among them lacks its content; and the sequence number that they reach.
    fn take_settled(&self) -> Result<(Vec<PendingRecord>, u64)> {
        loop {
            let tie = {
                let mut meta = self.meta.write();
                match meta.ties.last() {
                    Some(tie) => *tie,
                    // Under the same lock: a rename that comes in from here on is not taken.
                    None => return Ok((meta.take_pending(), meta.op_sequence)),
                }
            };
            if let Some(cell) = self.cells.find(tie.ino) {
                let encoded = self.encode_content(&cell);
                self.cells.put(cell);
                if encoded? == Encoded::TooLarge {
                    self.checkpoint()?;
                }
            }
            let mut meta = self.meta.write();
            meta.inseparable |= meta.inode(tie.ino)?.is_none();
            // Only here: a tie whose content could not be encoded still binds the next attempt.
            meta.ties.retain(|other| *other != tie);
        }
    }

    /// `fsync` of one inode: its content, size and times, and every change of names before this call.
    pub(crate) fn sync_inode(&self, ino: Ino) -> Result<()> {
        if self.journal.is_none() {
            return Ok(());
        }
        if let Some(cell) = self.cells.find(ino) {
            let error = cell.lock().error.take();
            let encoded = match error {
                Some(error) => Err(error),
                None => self.encode_content(&cell),
            };
            self.cells.put(cell);
            if encoded? == Encoded::TooLarge {
                // The head that this publishes holds the content.
                self.checkpoint()?;
            }
        }
        let through = self.meta.read().op_sequence;
        self.sync_journal(through)
    }

    /// Puts a record of what the journal does not hold of an inode among those that are pending.
    fn encode_content(&self, cell: &Arc<Cell>) -> Result<Encoded> {
        let turn = cell.take_turn();
        cell.lock().sync_waiting = true;
        let prepared = self.prepare_content(&turn);
        let mut state = cell.lock();
        state.sync_waiting = false;
        prepared?;
        if !state.has_unjournaled() {
            return Ok(Encoded::Pending);
        }
        // A copied file can have very many references, each of which would be looked up only to see that they do not fit.
        let extents = state.unjournaled.iter().filter(|item| matches!(item.change, Change::Extent(_))).count();
        if extents * (EXTENT_BYTES + PART_BYTES) > self.record_max() {
            return Ok(Encoded::TooLarge);
        }
        let mut meta = self.meta.write();
        let Some((op, captures)) = self.content_op(cell.ino, &state, &meta)? else {
            return Ok(Encoded::Pending);
        };
        if op_bytes(&op) > self.record_max() {
            return Ok(Encoded::TooLarge);
        }
        meta.record_content(cell.ino, op);
        drop(meta);
        let CellState { live, frozen, .. } = &mut *state;
        for (layer, capture) in frozen.iter_mut().chain(std::iter::once(live)).zip(&captures) {
            layer.mark_journaled(capture);
        }
        state.unjournaled.clear();
        state.attributes_changed = None;
        // Marking joins segments.
        self.settle_budget(cell, &state, 0);
        Ok(Encoded::Pending)
    }

    /// Longest record of one inode's content.
    fn record_max(&self) -> usize {
        self.journal.as_ref().map_or(RECORD_MAX, |journal| RECORD_MAX.min(journal.payload_max() - FRAME_BYTES))
    }

    /// Brings an inode's content to where a journal record can hold or name it. Writers of the inode wait for the turn while
    /// `sync_waiting` is set and too much is dirty, so this ends.
    fn prepare_content(&self, turn: &Turn) -> Result<()> {
        let cost = |layer: &&DirtyMap| layer.unjournaled_bytes() + (layer.unjournaled_count() * PART_BYTES) as u64;
        let unjournaled = |state: &CellState| state.layers().iter().map(cost).sum::<u64>();
        let inline_max = CONTENT_INLINE_MAX.min(self.record_max() as u64 / 2);
        while unjournaled(&turn.cell().lock()) > inline_max {
            self.flush_with_turn(turn)?;
        }
        if !turn.cell().lock().unjournaled.is_empty() {
            // F6: the journal may name these blobs only once the open packs that hold them are durable.
            self.repository.sync_open_packs()?;
        }
        Ok(())
    }

    fn content_op(&self, ino: Ino, state: &CellState, meta: &Meta) -> Result<Option<(Op, Vec<Capture>)>> {
        let Some(inode) = meta.inode(ino)? else {
            return Ok(None);
        };
        let mut parts = Vec::new();
        for item in &state.unjournaled {
            match &item.change {
                Change::Extent(extent) => {
                    let place = self.repository.durable_location(&extent.blob)?;
                    parts.push(Part::Extent { extent: *extent, place: place.encode() });
                }
                Change::Hole { offset, length } => parts.push(Part::Zero { offset: *offset, length: *length }),
                Change::Inline(bytes) => {
                    // The body is all of the content; what it does not reach is zeros.
                    parts.push(Part::Zero { offset: 0, length: inode.size.max(1) });
                    parts.push(Part::Bytes { offset: 0, data: bytes.clone() });
                }
            }
        }
        let captures: Vec<_> = state.layers().iter().map(|layer| layer.capture_unjournaled()).collect();
        for segment in captures.iter().flat_map(Capture::segments) {
            let offset = segment.offset;
            parts.push(match &segment.body {
                Body::Data(data) => Part::Bytes { offset, data: data.to_vec() },
                Body::Zero(length) => Part::Zero { offset, length: *length },
            });
        }
        let (size, atime, mtime, ctime) = (inode.size, inode.atime, inode.mtime, inode.ctime);
        Ok(Some((Op::Data { ino, size, atime, mtime, ctime, parts }, captures)))
    }
}

/// At least the length of the encoded record.
fn op_bytes(op: &Op) -> usize {
    let Op::Data { parts, .. } = op else { return 0 };
    let part_bytes = |part: &Part| match part {
        Part::Bytes { data, .. } => data.len() + PART_BYTES,
        Part::Zero { .. } => PART_BYTES,
        Part::Extent { place, .. } => place.len() + EXTENT_BYTES + PART_BYTES,
    };
    HEAD_BYTES + parts.iter().map(part_bytes).sum::<usize>()
}
