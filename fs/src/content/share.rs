//! A range of one file as changes of another: extents by reference, holes as holes, what is in memory as bytes.
//!
//! *Invariants*
//! 1. The batches of a range follow each other without gaps; within one, changes and writes are in order and do not overlap.
//!
//! *Threads*: none; works on pieces and a clone of the tree that were taken together.
//!
//! *Bounds*: a batch holds about [`BATCH_CHANGES`] changes and writes and [`BATCH_BYTES`] bytes, and what is in memory is shared with the
//! map that it comes from until it is written.

use std::ops::Range;

use super::{
    dirty::Slice,
    extents::{self, Change},
    overlay::{Piece, Source},
};
use crate::{error::Result, format::extent::Extent, ino::Ino, tree::Tree};

/// Changes and writes of one batch; twice as many where holes lie between extents.
pub const BATCH_CHANGES: usize = 1024;
/// Bytes of one batch that are not shared.
pub const BATCH_BYTES: u64 = 1 << 20;

/// A part of the copy.
#[derive(Debug, Default)]
pub struct Batch {
    /// What it covers in the target.
    pub range: Range<u64>,
    /// What goes into the target's tree.
    pub changes: Vec<Change>,
    /// What is written to the target.
    pub writes: Vec<(u64, Slice)>,
    /// Bytes of `writes`.
    pub bytes: u64,
}

impl Batch {
    fn room(&self) -> usize {
        if self.bytes >= BATCH_BYTES { 0 } else { BATCH_CHANGES.saturating_sub(self.changes.len() + self.writes.len()) }
    }

    fn write(&mut self, offset: u64, slice: Slice) {
        self.range.end = offset + slice.len() as u64;
        self.bytes += slice.len() as u64;
        self.writes.push((offset, slice));
    }

    fn change(&mut self, change: Change) {
        self.range.end = change.range().end;
        self.changes.push(change);
    }

    fn hole(&mut self, offset: u64, length: u64) {
        if length > 0 {
            self.change(Change::Hole { offset, length });
        }
    }
}

/// Goes through a range of a file.
pub struct Sharer<'t> {
    tree: &'t Tree,
    ino: Ino,
    pieces: std::vec::IntoIter<Piece>,
    /// The rest of the piece in hand.
    rest: Option<Piece>,
    /// What is added to an offset of the source, to be taken modulo 2^64.
    shift: u64,
    at: u64,
}

impl<'t> Sharer<'t> {
    /// The content that `pieces` and the tree below them give, to be put at `target`.
    pub fn new(tree: &'t Tree, ino: Ino, pieces: Vec<Piece>, target: u64) -> Self {
        let source = pieces.first().map_or(0, |piece| piece.offset);
        Self { tree, ino, pieces: pieces.into_iter(), rest: None, shift: target.wrapping_sub(source), at: target }
    }

    /// The next part; `None` at the end.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        let mut batch = Batch { range: self.at..self.at, ..Batch::default() };
        while batch.room() > 0 {
            let Some(piece) = self.rest.take().or_else(|| self.pieces.next()) else { break };
            let done = self.share(&piece, &mut batch)?;
            if done < piece.length {
                self.rest = Some(remainder(piece, done));
            }
        }
        self.at = batch.range.end;
        Ok((!batch.range.is_empty()).then_some(batch))
    }

    /// Shares the beginning of a piece; returns how much of it. Never nothing.
    fn share(&self, piece: &Piece, batch: &mut Batch) -> Result<u64> {
        let target = piece.offset.wrapping_add(self.shift);
        match &piece.source {
            Source::Dirty(slice) => {
                let length = piece.length.min(BATCH_BYTES - batch.bytes);
                batch.write(target, slice.part(0, length as usize));
                Ok(length)
            }
            Source::Zero => {
                batch.hole(target, piece.length);
                Ok(piece.length)
            }
            Source::Below => self.share_below(piece.offset..piece.offset + piece.length, batch),
        }
    }

    fn share_below(&self, range: Range<u64>, batch: &mut Batch) -> Result<u64> {
        let count_max = batch.room();
        let found = extents::list(self.tree, self.ino, range.clone(), count_max)?;
        if found.is_empty() {
            return self.share_body(range, batch);
        }
        let mut at = range.start;
        for extent in &found {
            let part = extents::part(extent, extent.offset.max(range.start)..extent.end().min(range.end));
            batch.hole(at.wrapping_add(self.shift), part.offset - at);
            at = part.end();
            batch.change(Change::Extent(Extent { offset: part.offset.wrapping_add(self.shift), ..part }));
        }
        if found.len() < count_max {
            batch.hole(at.wrapping_add(self.shift), range.end - at);
            at = range.end;
        }
        Ok(at - range.start)
    }

    /// A range without extents: of the inline body, or a hole.
    fn share_body(&self, range: Range<u64>, batch: &mut Batch) -> Result<u64> {
        let body = extents::body(self.tree, self.ino)?.unwrap_or_default();
        let end = range.end.min(body.len() as u64);
        if range.start < end {
            let slice = Slice::new(body[range.start as usize..end as usize].to_vec());
            batch.write(range.start.wrapping_add(self.shift), slice);
        }
        let hole = range.start.max(end);
        batch.hole(hole.wrapping_add(self.shift), range.end - hole);
        Ok(range.end - range.start)
    }
}

fn remainder(piece: Piece, done: u64) -> Piece {
    let length = piece.length - done;
    let source = match piece.source {
        Source::Dirty(slice) => Source::Dirty(slice.part(done as usize, length as usize)),
        other => other,
    };
    Piece { offset: piece.offset + done, length, source }
}
