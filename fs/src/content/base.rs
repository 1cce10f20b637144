//! What lies below a file's dirty layers, and the view of both together.
//!
//! *Invariants*
//! 1. Bytes of a blob are used only after its length was compared with what the extent says.

use std::{ops::Range, sync::Arc};

use vellum_store::id::BlobId;

use super::{
    dirty::Slice,
    extents,
    overlay::{self, Layer, Source},
};
use crate::{
    error::{Error, Result},
    format::extent::Extent,
    ino::Ino,
    tree::Tree,
};

/// The flushed content of one file: extents, or an inline body.
pub trait Base {
    /// The first extent that ends after `offset`.
    fn extent_after(&mut self, offset: u64) -> Result<Option<Extent>>;

    /// The last extent that begins before `offset`.
    fn extent_before(&mut self, offset: u64) -> Result<Option<Extent>>;

    /// The inline body; `None` for a file that has extents or is empty.
    fn body(&mut self) -> Result<Option<Vec<u8>>>;

    /// The plaintext of the blob that an extent names.
    fn blob(&mut self, extent: &Extent) -> Result<Arc<[u8]>>;
}

/// Reads blobs by id and plaintext length.
pub type ReadBlob<'a> = dyn FnMut(&BlobId, u32) -> Result<Arc<[u8]>> + 'a;

/// The base of an inode in a tree. A clone of the tree can be given, so that no lock is held meanwhile.
pub struct TreeBase<'a> {
    tree: &'a Tree,
    ino: Ino,
    blobs: &'a mut ReadBlob<'a>,
    /// The answer to the last question, and the offset asked for: good for every offset from there to the extent's end.
    memo: Option<(u64, Option<Extent>)>,
}

impl<'a> TreeBase<'a> {
    /// The base of `ino`, whose blobs `blobs` reads.
    pub fn new(tree: &'a Tree, ino: Ino, blobs: &'a mut ReadBlob<'a>) -> Self {
        Self { tree, ino, blobs, memo: None }
    }
}

impl Base for TreeBase<'_> {
    fn extent_after(&mut self, offset: u64) -> Result<Option<Extent>> {
        if let Some((asked, answer)) = self.memo
            && asked <= offset
            && answer.is_none_or(|extent| offset < extent.end())
        {
            return Ok(answer);
        }
        let answer = extents::after(self.tree, self.ino, offset)?;
        self.memo = Some((offset, answer));
        Ok(answer)
    }

    fn extent_before(&mut self, offset: u64) -> Result<Option<Extent>> {
        extents::before(self.tree, self.ino, offset)
    }

    fn body(&mut self) -> Result<Option<Vec<u8>>> {
        extents::body(self.tree, self.ino)
    }

    fn blob(&mut self, extent: &Extent) -> Result<Arc<[u8]>> {
        (self.blobs)(&extent.blob, extent.blob_length)
    }
}

/// The base of a file of which nothing was flushed yet.
pub struct EmptyBase;

impl Base for EmptyBase {
    fn extent_after(&mut self, _offset: u64) -> Result<Option<Extent>> {
        Ok(None)
    }

    fn extent_before(&mut self, _offset: u64) -> Result<Option<Extent>> {
        Ok(None)
    }

    fn body(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn blob(&mut self, extent: &Extent) -> Result<Arc<[u8]>> {
        Err(Error::damaged(format!("blob {}", extent.blob), "asked for by a file without extents"))
    }
}

/// Appends the bytes that an extent holds for a range of the file, which lies within the extent.
pub(super) fn append_extent(base: &mut dyn Base, extent: &Extent, range: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
    let blob = base.blob(extent)?;
    let from = u64::from(extent.blob_offset) + (range.start - extent.offset);
    let to = from + (range.end - range.start);
    if blob.len() as u64 != u64::from(extent.blob_length) || to > blob.len() as u64 {
        let what = format!("holds {} bytes where its extent says {}", blob.len(), extent.blob_length);
        return Err(Error::damaged(format!("blob {}", extent.blob), what));
    }
    out.extend_from_slice(&blob[from as usize..to as usize]);
    Ok(())
}

/// A stretch of a file's content with one origin.
pub(super) enum Run {
    /// Bytes in memory: dirty, or of the inline body.
    Bytes(Slice),
    /// This many bytes of this extent.
    Extent(Extent, u64),
    /// This many zeros, written or never written.
    Zero(u64),
}

impl Run {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Bytes(slice) => slice.len() as u64,
            Self::Extent(_, length) | Self::Zero(length) => *length,
        }
    }
}

/// What of the inline body a view knows.
enum BodyState {
    Unknown,
    Absent,
    Known(Slice),
}

/// Layers and base of one file, seen as one content.
pub(super) struct View<'a> {
    layers: Vec<&'a dyn Layer>,
    base: &'a mut dyn Base,
    body: BodyState,
}

impl<'a> View<'a> {
    /// Layers topmost first. The base is asked for a body only where there is neither layer nor extent.
    pub(super) fn new(layers: &[&'a dyn Layer], base: &'a mut dyn Base) -> Self {
        Self { layers: layers.to_vec(), base, body: BodyState::Unknown }
    }

    /// Layers that include the body, if there is one.
    pub(super) fn with_body_as_layer(layers: Vec<&'a dyn Layer>, base: &'a mut dyn Base) -> Self {
        Self { layers, base, body: BodyState::Absent }
    }

    pub(super) fn base(&mut self) -> &mut dyn Base {
        self.base
    }

    /// The run at `offset`, at most to `end`; the caller has `offset < end`.
    pub(super) fn run(&mut self, offset: u64, end: u64) -> Result<Run> {
        let piece = overlay::piece_at(&self.layers, offset, end);
        match piece.source {
            Source::Dirty(slice) => Ok(Run::Bytes(slice)),
            Source::Zero => Ok(Run::Zero(piece.length)),
            Source::Below => self.run_below(offset, offset + piece.length),
        }
    }

    fn run_below(&mut self, offset: u64, end: u64) -> Result<Run> {
        match self.base.extent_after(offset)? {
            Some(extent) if extent.offset <= offset => Ok(Run::Extent(extent, extent.end().min(end) - offset)),
            Some(extent) => Ok(Run::Zero(extent.offset.min(end) - offset)),
            None => {
                let body = self.body()?.filter(|body| offset < body.len() as u64);
                Ok(match body {
                    Some(body) => {
                        let length = (body.len() as u64).min(end) - offset;
                        Run::Bytes(body.part(offset as usize, length as usize))
                    }
                    None => Run::Zero(end - offset),
                })
            }
        }
    }

    fn body(&mut self) -> Result<Option<&Slice>> {
        if let BodyState::Unknown = self.body {
            self.body = self.base.body()?.map_or(BodyState::Absent, |bytes| BodyState::Known(Slice::new(bytes)));
        }
        Ok(match &self.body {
            BodyState::Known(slice) => Some(slice),
            BodyState::Unknown | BodyState::Absent => None,
        })
    }

    /// How many zeros follow `offset`, at most to `end`.
    pub(super) fn zero_run(&mut self, offset: u64, end: u64) -> Result<u64> {
        let mut at = offset;
        while at < end {
            match self.run(at, end)? {
                Run::Zero(length) => at += length,
                Run::Bytes(_) | Run::Extent(..) => break,
            }
        }
        Ok(at - offset)
    }

    /// Appends the bytes of a range.
    pub(super) fn append(&mut self, range: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let run = self.run(at, range.end)?;
            let next = at + run.length();
            match run {
                Run::Bytes(slice) => out.extend_from_slice(&slice),
                Run::Extent(extent, _) => append_extent(self.base, &extent, at..next, out)?,
                Run::Zero(length) => out.resize(out.len() + length as usize, 0),
            }
            at = next;
        }
        Ok(())
    }

    /// The first dirty offset at or after `offset`.
    pub(super) fn next_dirty(&self, offset: u64) -> Option<u64> {
        overlay::next_dirty(&self.layers, offset)
    }

    /// Whether no layer covers anything of a range.
    pub(super) fn is_clean(&self, range: Range<u64>) -> bool {
        self.next_dirty(range.start).is_none_or(|dirty| dirty >= range.end)
    }

    /// Where the dirty piece at `offset` ends.
    pub(super) fn dirty_end(&self, offset: u64) -> u64 {
        offset + overlay::piece_at(&self.layers, offset, u64::MAX).length
    }
}
