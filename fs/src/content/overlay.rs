//! Layers of dirty segments over a file's base, looked through from the top.
//!
//! *Invariants*
//! 1. Layers are given topmost first: live map, then the map that a checkpoint froze, then inline content.
//! 2. Pieces returned for a range are in order, do not overlap and cover it without gaps.

use std::ops::Range;

use super::dirty::{Body, Capture, DirtyMap, Slice};

/// Segments by offset; a map in use or a capture of one.
pub trait Layer {
    /// The first segment that ends after `offset`, and where it begins.
    fn segment_after(&self, offset: u64) -> Option<(u64, &Body)>;
}

impl Layer for DirtyMap {
    fn segment_after(&self, offset: u64) -> Option<(u64, &Body)> {
        self.after(offset).map(|(start, segment)| (start, segment.body()))
    }
}

impl Layer for Capture {
    fn segment_after(&self, offset: u64) -> Option<(u64, &Body)> {
        let index = self.segments().partition_point(|segment| segment.end() <= offset);
        self.segments().get(index).map(|segment| (segment.offset, &segment.body))
    }
}

/// Where the bytes of a piece come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// From these bytes, shared with the dirty map.
    Dirty(Slice),
    /// They are zeros.
    Zero,
    /// From the base: extents, inline content, or a hole.
    Below,
}

/// A part of a file with one source.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// Where its bytes come from.
    pub source: Source,
}

/// The piece at `offset`, at most to `end`; the caller has `offset < end`.
pub fn piece_at(layers: &[&dyn Layer], offset: u64, end: u64) -> Piece {
    let mut end = end;
    for layer in layers {
        let Some((start, body)) = layer.segment_after(offset) else { continue };
        if start > offset {
            end = end.min(start);
            continue;
        }
        let length = (start + body.length()).min(end) - offset;
        let source = match body {
            Body::Data(slice) => Source::Dirty(slice.part((offset - start) as usize, length as usize)),
            Body::Zero(_) => Source::Zero,
        };
        return Piece { offset, length, source };
    }
    Piece { offset, length: end - offset, source: Source::Below }
}

/// All pieces of a range. They share the maps' buffers, so the lock of the maps can be let go before they are read.
pub fn resolve(range: Range<u64>, layers: &[&dyn Layer]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let piece = piece_at(layers, at, range.end);
        at += piece.length;
        pieces.push(piece);
    }
    pieces
}

/// The first dirty offset at or after `offset`, in any layer.
pub fn next_dirty(layers: &[&dyn Layer], offset: u64) -> Option<u64> {
    layers.iter().filter_map(|layer| layer.segment_after(offset)).map(|(start, _)| start.max(offset)).min()
}
