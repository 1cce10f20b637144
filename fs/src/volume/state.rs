//! The newest state of a volume's names and attributes, and the records that describe how it came about.
//!
//! *Invariants*
//! 1. `op_sequence` counts every change; `pending` holds the records of changes above the last journal commit, in the order
//!    in which replay must apply them.
//! 2. `changed` names every inode whose content, size or times may be in no durable tree.
//! 3. While `frozen` is set, a checkpoint is flushing: content of its generation or older is published there as well.
//! 4. An inode with dirty content stands in `aging` once, and `queued` of its cell says so.
//!
//! *Bounds*: `pending_bytes` above [`PENDING_BYTES_SOFT`] wakes the journal; `changed` is bounded by the checkpoint's triggers.

use std::collections::{BTreeSet, VecDeque};

use super::runs::InodeRuns;
use crate::{
    error::Result,
    format::{inode::Inode, key, op::Op},
    ino::Ino,
    time::Time,
    tree::Tree,
};

/// Pending records beyond this size are written to the journal at once.
pub const PENDING_BYTES_SOFT: usize = 4 << 20;

/// One encoded operation.
#[derive(Clone, Debug)]
pub struct PendingRecord {
    /// Its sequence number; not monotonic: a record tied to a rename is put before it.
    pub sequence: u64,
    /// Encoded [`Op`] with its sequence number.
    pub bytes: Box<[u8]>,
}

/// A rename over another file that must not survive without the content of the file that it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    /// Sequence number of the rename.
    pub sequence: u64,
    /// The renamed inode.
    pub ino: Ino,
}

/// The tree that a running checkpoint will store.
#[derive(Debug)]
pub struct Frozen {
    /// State at the freeze; flushed content is added to it.
    pub tree: Tree,
    /// Generation that the freeze ended.
    pub generation: u64,
}

/// What the `meta` lock guards.
#[derive(Debug)]
pub struct Meta {
    /// The live tree.
    pub tree: Tree,
    /// Number of the newest change.
    pub op_sequence: u64,
    /// Grows at every freeze; dirty content remembers under which generation it was written.
    pub generation: u64,
    /// Records that no journal commit holds.
    pub pending: Vec<PendingRecord>,
    /// Bytes of `pending`.
    pub pending_bytes: usize,
    /// Renames in `pending` that need content.
    pub ties: Vec<Tie>,
    /// What a rename in `pending` brought was removed by a later record, and its content is gone: both reach the disk together
    /// or not at all.
    pub inseparable: bool,
    /// Inodes with content, size or times beyond the last checkpoint.
    pub changed: BTreeSet<Ino>,
    /// Inodes with dirty content, in the order in which they became dirty.
    pub aging: VecDeque<Ino>,
    /// Inodes that are written faster than they age.
    pub streams: VecDeque<Ino>,
    /// The allocator of inode numbers.
    pub runs: InodeRuns,
    /// Set while a checkpoint runs.
    pub frozen: Option<Frozen>,
    /// Sequence number that the newest durable head covers.
    pub durable_sequence: u64,
    /// A commit failed after nodes had been handed to the store: all of them must be handed over again.
    pub store_again: bool,
    /// An atime moved since the last freeze: the only change of the tree that takes no sequence number.
    pub atime_moved: bool,
    /// Id of the next snapshot.
    pub next_snapshot: u64,
    /// When the volume was made.
    pub created: Time,
}

impl Meta {
    /// The next sequence number, taken.
    pub fn next_sequence(&mut self) -> u64 {
        self.op_sequence += 1;
        self.op_sequence
    }

    /// Appends the record of `op`; returns its sequence number.
    pub fn record(&mut self, op: &Op) -> u64 {
        let sequence = self.next_sequence();
        let bytes = op.encode(sequence).into_boxed_slice();
        self.pending_bytes += bytes.len();
        self.pending.push(PendingRecord { sequence, bytes });
        sequence
    }

    /// Puts the record of an inode's content where replay must find it: at the end, or before the first rename that needs it
    /// (P1). All records of one inode's content stay in order that way, whoever asks for them.
    pub fn record_content(&mut self, ino: Ino, op: Op) {
        let tied = self.ties.iter().filter(|tie| tie.ino == ino).map(|tie| tie.sequence).min();
        let at = tied.and_then(|tied| self.pending.iter().position(|record| record.sequence == tied));
        let Some(at) = at else {
            self.record(&op);
            return;
        };
        let sequence = self.next_sequence();
        let bytes = op.encode(sequence).into_boxed_slice();
        self.pending_bytes += bytes.len();
        self.pending.insert(at, PendingRecord { sequence, bytes });
        // Records that follow may set times to what they were before the newest write. Not so the size, which would cut what
        // further content brings before the rename.
        if let Op::Data { ino, atime, mtime, ctime, .. } = op {
            let (atime, mtime) = (Some(atime), Some(mtime));
            self.record(&Op::SetAttr { ino, mode: None, uid: None, gid: None, atime, mtime, ctime });
        }
    }

    /// Takes all pending records, leaving none.
    pub fn take_pending(&mut self) -> Vec<PendingRecord> {
        self.pending_bytes = 0;
        std::mem::take(&mut self.pending)
    }

    /// Puts records back that could not be written, before those that came since.
    pub fn put_back_pending(&mut self, mut records: Vec<PendingRecord>) {
        self.pending_bytes += records.iter().map(|record| record.bytes.len()).sum::<usize>();
        records.append(&mut self.pending);
        self.pending = records;
    }

    /// Forgets pending records that a durable head covers.
    pub fn drop_pending_through(&mut self, sequence: u64) {
        self.pending.retain(|record| record.sequence > sequence);
        self.pending_bytes = self.pending.iter().map(|record| record.bytes.len()).sum();
        self.ties.retain(|tie| tie.sequence > sequence);
    }

    /// Changes the live tree by several records, or not at all: what fails half-way (a node that cannot be read) must not be
    /// stored by the next checkpoint.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Tree) -> Result<T>) -> Result<T> {
        self.tree.atomically(change)
    }

    /// The inode record, if the live tree has one.
    pub fn inode(&self, ino: Ino) -> Result<Option<Inode>> {
        inode_in(&self.tree, ino)
    }
}

/// The record of `ino` in `tree`.
pub fn inode_in(tree: &Tree, ino: Ino) -> Result<Option<Inode>> {
    match tree.get(&key::inode(ino))? {
        Some(value) => Ok(Some(Inode::decode(ino, &value)?)),
        None => Ok(None),
    }
}

/// Writes the record of `ino` to `tree`.
pub fn put_inode_in(tree: &mut Tree, ino: Ino, inode: &Inode) -> Result<()> {
    tree.insert(&key::inode(ino), &inode.encode())?;
    Ok(())
}
