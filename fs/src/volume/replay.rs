//! Brings a volume from its newest head to the last state that the journal proves.
//!
//! *Ordering*: nothing durable changes during replay. What it builds lives in memory, as if the operations had just been
//! asked for; the checkpoint that follows makes it durable and only then lets the journal go. A crash inside replay, or
//! between both, begins it anew from the same head.
//!
//! *Invariants*: records whose sequence number the head covers are skipped; all others apply in journal order.
//!
//! *Bounds*: one commit's payload in memory at a time; content goes through the byte budget like any write.

use std::ops::ControlFlow;

use vellum_store::repository::BlobPlace;

use super::{
    Volume,
    cells::{CellState, Unjournaled},
    state::{Meta, inode_in, put_inode_in},
};
use crate::{
    content::{
        dirty::DirtyMap,
        extents::{self, Change},
    },
    error::Result,
    format::{
        extent::Extent,
        inode::Inode,
        op::{self, Op, Part},
    },
    ino::Ino,
    namespace::{Namespace, NamespaceView},
};

/// What replay did.
#[derive(Clone, Debug, Default)]
pub struct ReplaySummary {
    /// Journal commits read.
    pub commits: u64,
    /// Operations applied.
    pub operations: u64,
    /// Nameless inodes collected afterwards.
    pub orphans: u64,
    /// Damage that ended the journal early, for `status`; the volume is read-only then.
    pub damage: Option<String>,
}

impl Volume {
    /// Applies the payload of one journal commit; returns how many operations it held that the head does not cover. `lost` tells of
    /// synced content that is damaged where it lies: it reads as damage, and nothing else is lost with it.
    pub(crate) fn replay_payload(&self, covered: u64, payload: &[u8], lost: &mut Option<String>) -> Result<u64> {
        let mut applied = 0;
        op::for_each(payload, &mut |sequence, op| {
            if sequence > covered {
                self.replay_op(sequence, &op, lost)?;
                applied += 1;
            }
            Ok(())
        })?;
        Ok(applied)
    }

    fn replay_op(&self, sequence: u64, op: &Op, lost: &mut Option<String>) -> Result<()> {
        if let Op::Data { ino, .. } = op {
            self.replay_content(*ino, op, lost)?;
        } else {
            let mut meta = self.meta.write();
            if let Op::Create { ino, .. } | Op::Rename { whiteout: Some(ino), .. } = op {
                meta.runs.lift_past(*ino);
            }
            // A node that cannot be read leaves the operation undone: what is left before it may be published by a repair.
            meta.change(|tree| Namespace::new(tree, &self.names).apply(op))?;
        }
        let mut meta = self.meta.write();
        meta.op_sequence = meta.op_sequence.max(sequence);
        Ok(())
    }

    fn replay_content(&self, ino: Ino, op: &Op, lost: &mut Option<String>) -> Result<()> {
        let Op::Data { size, atime, mtime, ctime, parts, .. } = op else {
            return Ok(());
        };
        let cell = self.cells.get(ino);
        let mut state = cell.lock();
        let mut meta = self.meta.write();
        let Some(mut inode) = inode_in(&meta.tree, ino)? else {
            // The inode went away before the commit that holds this record was written.
            return Ok(());
        };
        if *size < inode.size {
            state.live.zero(*size, inode.size - *size);
        }
        for part in parts {
            match part {
                Part::Bytes { offset, data } => state.live.write(*offset, data),
                Part::Zero { offset, length } => state.live.zero(*offset, *length),
                Part::Extent { extent, place } => {
                    match self.repository.adopt(&extent.blob, &BlobPlace::decode(place)?) {
                        // F2: the volume stays read-only, so no head will name a blob that is not there.
                        Err(error) if error.is_damage() => {
                            lost.get_or_insert_with(|| format!("synced content of inode {ino} is lost: {error}"));
                        }
                        adopted => adopted?,
                    }
                    self.replay_extent(ino, extent, &mut state, &mut meta, &mut inode)?;
                }
            }
        }
        // An extent or body of this record may have been cut off by a truncation that became an inline body, which tells of zeros
        // only up to the size: a later growth must not find what lies behind it.
        let last = extents::before(&meta.tree, ino, u64::MAX)?.map_or(0, |extent| extent.end());
        let end = last.max(state.live.end());
        if end > *size {
            state.live.zero(*size, end - *size);
        }
        inode.size = *size;
        (inode.atime, inode.mtime, inode.ctime) = (*atime, *mtime, *ctime);
        put_inode_in(&mut meta.tree, ino, &inode)?;
        meta.changed.insert(ino);
        state.live_generation = meta.generation;
        state.attributes_changed = Some(meta.generation);
        state.dirty_since_ns = 1;
        self.settle_budget(&cell, &state, 0);
        Ok(())
    }

    /// Puts an extent over everything that earlier records said about its range.
    fn replay_extent(
        &self,
        ino: Ino,
        extent: &Extent,
        state: &mut CellState,
        meta: &mut Meta,
        inode: &mut Inode,
    ) -> Result<()> {
        let body = extents::body(&meta.tree, ino)?;
        let change = Change::Extent(*extent);
        // All of it or nothing: extents that went without the new one would leave a hole, and so zeros.
        let delta = meta.change(|tree| extents::apply(tree, ino, std::slice::from_ref(&change)))?;
        inode.allocated = inode.allocated.saturating_add_signed(delta);
        state.live.discard(extent.offset..extent.end());
        if let Some(body) = body {
            // An extent ends the inline body; what the extent does not cover of it stays content, but only where no earlier
            // record said otherwise: the body is older than all of them.
            let mut below = DirtyMap::new();
            below.write(0, &body);
            below.discard(extent.offset..extent.end());
            state.live.restore(below);
        }
        let generation = meta.generation;
        state.unjournaled.push(Unjournaled { generation, change });
        Ok(())
    }

    /// Collects inodes that had lost their last name while they were open.
    pub(crate) fn collect_orphans(&self) -> Result<u64> {
        let mut orphans = Vec::new();
        NamespaceView::new(&self.tree(), &self.names).orphans(&mut |ino| {
            orphans.push(ino);
            Ok(ControlFlow::Continue(()))
        })?;
        for &ino in &orphans {
            self.drop_inode(ino)?;
        }
        Ok(orphans.len() as u64)
    }
}
