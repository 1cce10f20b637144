//! Reading a range, and seeking for data and holes.

use super::{
    base::{Base, Run, View},
    overlay::{Layer, Piece, Source},
};
use crate::error::Result;

/// Appends the bytes of `pieces` to `out`. Each byte is copied once, from its buffer or blob. The caller bounds the length.
pub fn read_pieces(pieces: &[Piece], base: &mut dyn Base, out: &mut Vec<u8>) -> Result<()> {
    out.reserve(pieces.iter().map(|piece| piece.length as usize).sum());
    let mut view = View::new(&[], base);
    for piece in pieces {
        match &piece.source {
            Source::Dirty(slice) => out.extend_from_slice(slice),
            Source::Zero => out.resize(out.len() + piece.length as usize, 0),
            Source::Below => view.append(piece.offset..piece.offset + piece.length, out)?,
        }
    }
    Ok(())
}

/// What to seek for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is not in a hole.
    Data,
    /// The next byte in a hole; every file ends with one.
    Hole,
}

/// The first offset of what is sought, from `offset` on, in a file of `size` bytes. `None` if `offset` is not before the
/// end, or no data follows; lseek(2) answers ENXIO then. Layers are given topmost first.
pub fn seek(what: Seek, offset: u64, size: u64, layers: &[&dyn Layer], base: &mut dyn Base) -> Result<Option<u64>> {
    if offset >= size {
        return Ok(None);
    }
    let mut view = View::new(layers, base);
    let mut at = offset;
    while at < size {
        let run = view.run(at, size)?;
        let hole = matches!(run, Run::Zero(_));
        if hole == (what == Seek::Hole) {
            return Ok(Some(at));
        }
        at += run.length();
    }
    Ok((what == Seek::Hole).then_some(size))
}
