//! Copying a range between files: what the store holds is shared by reference, and nothing of it is read or stored again.
//!
//! The source is looked at once, as a read would: what is dirty, and a clone of the tree below it. Then the target takes over one
//! batch after the other. Each batch is a change of its own, as if it had been written; so others may see a part of the copy.
//!
//! *Ordering*
//! - Extents enter the target's tree beneath what is dirty there. Older content of the target, which a checkpoint froze, is
//!   published before them; it would replace them otherwise.
//! - F2: a blob that the source's tree names was accepted by a pack stream, and commits make all of these durable before the tree.
//! - F6: what was taken over is listed as not journalled, so a sync of the target names the blobs where they lie durably.
//!
//! *Threads*: any. While references are on their way from one file to the other, perhaps in no tree, `sharing` is held: gc
//! waits for it where it needs every reference in a tree. The source's flush turn is let go before the target's is taken, so a file can be copied within itself, and
//! crossing copies cannot wait for each other. Memory is reserved before the turn: the flusher may need it to free some.
//!
//! *Bounds*: one batch in hand; dirty bytes of the source beyond [`FLUSH_FIRST_BYTES`] are flushed first.

use std::sync::Arc;

use super::super::{
    Volume,
    cells::{Cell, CellState, Turn},
    flush::{STREAM_BYTES, note_unjournaled},
    handles::{Handle, HandleId, Target},
    state::{Meta, inode_in, put_inode_in},
};
use crate::{
    content::{
        dirty::DirtyMap,
        extents,
        overlay::{self, Layer, Piece, Source},
        share::{Batch, Sharer},
    },
    error::{Error, Result},
    format::inode::{Inode, SIZE_MAX, WriteClass},
    ino::Ino,
    tree::Tree,
};

/// Bytes that one call copies at most: what the answer to a kernel can tell, in whole pages.
pub const COPY_BYTES_MAX: u64 = 0xffff_f000;
/// Less than this is read and written: a reference takes more from the tree than it saves in the packs.
const SHARE_BYTES_MIN: u64 = 16 << 10;
/// A source with more dirty bytes in the range is flushed first; less is copied in memory.
const FLUSH_FIRST_BYTES: u64 = 256 << 10;
/// What a reference may cost in the tree, its second copies and the journal before it is compressed.
const REFERENCE_BYTES: u64 = 256;
/// Changed nodes beyond this are stored before more are made.
const DIRTY_NODES_MAX: usize = 96 << 20;

/// What is copied, as it was when the copy began.
struct Original {
    tree: Tree,
    ino: Ino,
    class: WriteClass,
    pieces: Vec<Piece>,
}

impl Volume {
    /// Copies a range of an open file, live or of a snapshot, to an open file of the live tree. Returns the bytes copied: fewer at
    /// the end of the source and beyond [`COPY_BYTES_MAX`]. Ranges of one file must not overlap.
    pub fn copy_range(
        &self,
        (source, offset): (HandleId, u64),
        (target, target_offset): (HandleId, u64),
        length: u64,
    ) -> Result<u64> {
        let (from, to) = (self.handles.get(source)?, self.handles.get(target)?);
        let Target::Live(cell) = &to.target else {
            return Err(Error::ReadOnly("a snapshot".into()));
        };
        self.check_writable()?;
        let size = self.size_of(&from)?;
        let length = length.min(COPY_BYTES_MAX).min(size.saturating_sub(offset));
        if length == 0 {
            return Ok(0);
        }
        let end = target_offset.checked_add(length).filter(|&end| end <= SIZE_MAX);
        let end = end.ok_or(Error::TooBig(cell.ino.into()))?;
        if from.ino == to.ino && offset < end && target_offset < offset + length {
            return Err(Error::invalid("ranges of a copy within one file overlap"));
        }
        if length < SHARE_BYTES_MIN {
            let data = self.read(source, offset, length as usize)?;
            return self.write(target, target_offset, &data).map(|written| written as u64);
        }
        if self.meta.read().tree.dirty_bytes() > DIRTY_NODES_MAX {
            self.checkpoint()?;
        }
        let sharing = self.sharing.read();
        let original = self.original(&from, offset, length)?;
        let copied = self.share(&original, cell, target_offset)?;
        drop(sharing);
        if to.mode.sync {
            self.sync_inode(cell.ino)?;
        }
        Ok(copied)
    }

    fn size_of(&self, handle: &Handle) -> Result<u64> {
        let size = |tree: &Tree, ino: Ino| Ok(inode_in(tree, ino)?.ok_or(Error::Stale(ino.into()))?.size);
        match &handle.target {
            Target::Live(cell) => size(&self.tree(), cell.ino),
            Target::Frozen(view, ino) => size(&view.tree, *ino),
            Target::Directory(ino) => Err(Error::IsDirectory((*ino).into())),
        }
    }

    /// What a range of a file holds at this moment, cut off at its end.
    fn original(&self, handle: &Handle, offset: u64, length: u64) -> Result<Original> {
        let of = |tree: Tree, ino: Ino, layers: &[&dyn Layer]| {
            let inode = inode_in(&tree, ino)?.ok_or(Error::Stale(ino.into()))?;
            let pieces = overlay::resolve(offset..(offset + length).min(inode.size), layers);
            Ok(Original { tree, ino, class: inode.class, pieces })
        };
        match &handle.target {
            Target::Live(cell) => {
                self.flush_source(cell, offset, length)?;
                let mut state = cell.lock();
                self.note_read(cell, handle, &mut state)?;
                let tree = self.tree();
                of(tree, cell.ino, &state.layers_for_reading())
            }
            Target::Frozen(view, ino) => of(view.tree.clone(), *ino, &[]),
            Target::Directory(ino) => Err(Error::IsDirectory((*ino).into())),
        }
    }

    /// Moves dirty content of the source into the store if there is much of it in the range.
    fn flush_source(&self, cell: &Arc<Cell>, offset: u64, length: u64) -> Result<()> {
        let dirty: u64 = {
            let state = cell.lock();
            let pieces = overlay::resolve(offset..offset + length, &state.layers_for_reading());
            pieces.iter().filter(|piece| matches!(piece.source, Source::Dirty(_))).map(|piece| piece.length).sum()
        };
        if dirty > FLUSH_FIRST_BYTES { self.flush_with_turn(&cell.take_turn()) } else { Ok(()) }
    }

    /// Copies batch by batch. What was copied before a failure is told as a short copy.
    fn share(&self, original: &Original, target: &Arc<Cell>, target_offset: u64) -> Result<u64> {
        let mut sharer = Sharer::new(&original.tree, original.ino, original.pieces.clone(), target_offset);
        let mut copied = 0;
        loop {
            let done = sharer.next_batch().and_then(|batch| match batch {
                Some(batch) => self.put_batch(target, &batch, original.class).map(|()| Some(batch.range)),
                None => Ok(None),
            });
            match done {
                Ok(Some(range)) => copied += range.end - range.start,
                Err(error) if copied == 0 => return Err(error),
                Ok(None) | Err(_) => return Ok(copied),
            }
        }
    }

    fn put_batch(&self, cell: &Arc<Cell>, batch: &Batch, class: WriteClass) -> Result<()> {
        let worst = batch.bytes + batch.changes.len() as u64 * REFERENCE_BYTES;
        self.space.accept(&self.repository, worst, || self.accepted_bytes())?;
        self.budget.reserve(batch.bytes, || self.background.want_flush())?;
        let put = self.put_with_turn(cell, batch, class);
        if put.is_err() {
            self.budget.release(batch.bytes);
        }
        let flush = put?;
        if flush || self.budget.is_pressed() {
            self.background.want_flush();
        }
        if self.has_piled_up() {
            self.background.want_checkpoint();
        }
        Ok(())
    }

    /// Puts a batch into the target once no older content of it is on its way into the tree; returns whether to flush.
    fn put_with_turn(&self, cell: &Arc<Cell>, batch: &Batch, class: WriteClass) -> Result<bool> {
        let mut turn = cell.take_turn();
        loop {
            let mut state = cell.lock();
            let mut meta = self.meta.write();
            // Also where no checkpoint runs any more: one that failed gives back file by file what it froze, and may not have come to
            // this one yet. What is dirty here would come back over the copy.
            state.rotate(meta.generation);
            if state.frozen.as_ref().is_none_or(DirtyMap::is_empty) {
                self.put_in(cell, &mut state, &mut meta, batch, class)?;
                drop(meta);
                self.settle_budget(cell, &state, batch.bytes);
                return Ok(state.live.held_bytes() > STREAM_BYTES);
            }
            let running = meta.frozen.is_some();
            drop(meta);
            drop(state);
            if running {
                self.flush_frozen_layer(&turn)?;
            } else {
                // The checkpoint that froze it failed, and is about to give it back.
                drop(turn);
                drop(self.checkpoint_turn.lock());
                turn = cell.take_turn();
            }
        }
    }

    fn put_in(
        &self,
        cell: &Cell,
        state: &mut CellState,
        meta: &mut Meta,
        batch: &Batch,
        class: WriteClass,
    ) -> Result<()> {
        let (ino, time) = (cell.ino, self.now());
        let before = meta.inode(ino)?.ok_or(Error::Stale(ino.into()))?;
        before.check_content(ino, batch.range.start)?;
        let body = if batch.changes.is_empty() { None } else { extents::body(&meta.tree, ino)? };
        meta.change(|tree| {
            let delta = extents::apply(tree, ino, &batch.changes)?;
            let allocated = before.allocated.checked_add_signed(delta);
            let inode = Inode {
                allocated: allocated.ok_or_else(|| Error::damaged(ino, "more is freed than was allocated"))?,
                size: before.size.max(batch.range.end),
                // A copy of a database or disk image will be used like it.
                class: if before.size == 0 { class } else { before.class },
                mtime: time,
                ctime: time,
                ..before
            };
            put_inode_in(tree, ino, &inode)
        })?;
        self.begin_change(state, meta, ino, time);
        state.live.discard(batch.range.clone());
        if let Some(body) = body {
            // Extents end the inline body; what they do not cover of it stays content, below what was written since.
            let mut below = DirtyMap::new();
            below.write(0, &body);
            below.discard(batch.range.clone());
            state.live.restore(below);
        }
        for (offset, bytes) in &batch.writes {
            state.live.write(*offset, bytes);
        }
        let generation = state.live_generation;
        note_unjournaled(state, generation, batch.changes.clone());
        Ok(())
    }

    /// Publishes what a running checkpoint froze of the inode whose turn the caller holds.
    fn flush_frozen_layer(&self, turn: &Turn) -> Result<()> {
        if self.rotate_frozen(turn.cell()) > 0 { self.flush_one_layer(turn) } else { Ok(()) }
    }
}
