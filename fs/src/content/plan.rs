//! What a flush writes: from captured layers and the base to chunks, holes or an inline body.
//!
//! A file of class Stream is cut by content ([`super::rechunk`]); one of class Random in aligned blocks of
//! [`RANDOM_BLOCK`]; what fits [`INLINE_MAX`] stays in the tree.
//!
//! *Invariants*
//! 1. Outputs are in order and do not overlap. They cover every captured byte, but for the tail that the plan keeps dirty.
//! 2. Where outputs cover more than what was captured, they repeat the base.
//!
//! *Threads*: runs without locks, on captures and a clone of the tree.
//!
//! *Bounds*: at most three largest chunks of content are in memory at a time, whatever was captured. Time follows what was
//! captured; neither file size nor holes matter.

use vellum_store::chunker::{ChunkSizes, Chunker, is_zero};

use super::{
    INLINE_MAX, RANDOM_BLOCK,
    base::{Base, View},
    dirty::Capture,
    extents::Change,
    overlay::Layer,
    rechunk,
};
use crate::{error::Result, format::inode::WriteClass};

/// What the flushed file consists of, a piece at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// These bytes become a blob, which is the content from `offset` on.
    Chunk {
        /// Where it begins in the file.
        offset: u64,
        /// Its bytes; never empty.
        bytes: Vec<u8>,
    },
    /// No extent covers this range.
    Hole {
        /// Where it begins.
        offset: u64,
        /// How long it is; it may reach beyond the size.
        length: u64,
    },
    /// All of the file's content, trailing zeros apart; it goes into the tree, and there are no extents. The only output if it occurs.
    Inline(Vec<u8>),
}

/// What to do with the last chunk of the dirty data, if it ends for want of data or goes on in old content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Flush it: everything captured goes out.
    Flush,
    /// Keep it dirty, because the file is likely to be written on from there. A plan may then put out nothing.
    Keep,
}

/// Whether a plan may read the flushed neighbours of dirty data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// Re-chunk with them, so that a fresh copy of the file deduplicates.
    Read,
    /// Leave them alone, because reading them failed: dirty data must reach the store although a blob beside it is damaged.
    Avoid,
}

/// What to plan.
#[derive(Clone, Copy)]
pub struct PlanInput<'a> {
    /// What was captured, topmost first.
    pub layers: &'a [&'a Capture],
    /// The file's size when it was captured.
    pub size: u64,
    /// The file's class.
    pub class: WriteClass,
    /// What to do with the unfinished end.
    pub tail: Tail,
    /// Whether flushed neighbours may be read.
    pub neighbours: Neighbours,
}

/// What a plan left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// From here on everything captured stays dirty; goes to [`super::DirtyMap::remove_captured`].
    pub kept_from: Option<u64>,
}

/// Turns captures into outputs, with one repository's chunker.
pub struct Planner<'k> {
    chunker: Chunker<'k>,
}

impl<'k> Planner<'k> {
    /// A planner that cuts with `chunker`.
    pub fn new(chunker: Chunker<'k>) -> Self {
        Self { chunker }
    }

    /// The sizes it cuts to.
    pub fn sizes(&self) -> ChunkSizes {
        self.chunker.sizes()
    }

    /// Passes the outputs to `sink` in order. An error of base or sink ends the plan; nothing has changed then.
    pub fn plan(
        &self,
        input: &PlanInput<'_>,
        base: &mut dyn Base,
        sink: &mut dyn FnMut(Output) -> Result<()>,
    ) -> Result<Planned> {
        if input.layers.iter().all(|layer| layer.is_empty()) {
            return Ok(Planned::default());
        }
        let body = base.body()?.map(Capture::of_body);
        let body_length = body.as_ref().map_or(0, Capture::bytes);
        let layers: Vec<&dyn Layer> =
            input.layers.iter().copied().chain(&body).map(|layer| layer as &dyn Layer).collect();
        let mut view = View::with_body_as_layer(layers, base);
        if input.size <= INLINE_MAX && input.neighbours == Neighbours::Read {
            return plan_inline(&mut view, input.size, sink);
        }
        let mut emitter = Emitter { sink, hole: None };
        let planned = match (input.class, input.neighbours) {
            (WriteClass::Random, Neighbours::Read) => plan_blocks(&mut view, input.size, &mut emitter)?,
            (WriteClass::Stream, _) | (WriteClass::Random, Neighbours::Avoid) => {
                rechunk::plan_chunks(&self.chunker, input, body_length, view, &mut emitter)?
            }
        };
        emitter.finish()?;
        Ok(planned)
    }
}

fn plan_inline(view: &mut View<'_>, size: u64, sink: &mut dyn FnMut(Output) -> Result<()>) -> Result<Planned> {
    let mut bytes = Vec::with_capacity(size as usize);
    view.append(0..size, &mut bytes)?;
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used);
    sink(Output::Inline(bytes))?;
    Ok(Planned::default())
}

/// Aligned blocks around what is dirty; each is read as a whole.
fn plan_blocks(view: &mut View<'_>, size: u64, emitter: &mut Emitter<'_>) -> Result<Planned> {
    let mut at = 0;
    while let Some(dirty) = view.next_dirty(at) {
        if dirty >= size {
            at = view.dirty_end(dirty);
            emitter.hole(dirty, at - dirty)?;
            continue;
        }
        let zero_end = dirty + view.zero_run(dirty, size)?;
        let hole_end = if zero_end == size { size } else { zero_end - zero_end % RANDOM_BLOCK };
        let block = dirty - dirty % RANDOM_BLOCK;
        if dirty == block && hole_end > block {
            emitter.hole(block, hole_end - block)?;
            at = hole_end;
            continue;
        }
        at = (block + RANDOM_BLOCK).min(size);
        let mut bytes = Vec::with_capacity((at - block) as usize);
        view.append(block..at, &mut bytes)?;
        emitter.chunk(block, bytes)?;
    }
    Ok(Planned::default())
}

/// Passes outputs on, joining neighbouring holes.
pub(super) struct Emitter<'a> {
    sink: &'a mut dyn FnMut(Output) -> Result<()>,
    hole: Option<(u64, u64)>,
}

impl Emitter<'_> {
    /// A chunk, or a hole if it holds nothing but zeros.
    pub(super) fn chunk(&mut self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        if is_zero(&bytes) {
            return self.hole(offset, bytes.len() as u64);
        }
        self.finish()?;
        (self.sink)(Output::Chunk { offset, bytes })
    }

    pub(super) fn hole(&mut self, offset: u64, length: u64) -> Result<()> {
        if let Some((start, joined)) = &mut self.hole
            && *start + *joined == offset
        {
            *joined += length;
            return Ok(());
        }
        self.finish()?;
        if length > 0 {
            self.hole = Some((offset, length));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        match self.hole.take() {
            Some((offset, length)) => (self.sink)(Output::Hole { offset, length }),
            None => Ok(()),
        }
    }
}

impl Output {
    /// The change that follows from an output that is no chunk; a chunk is given back, to be stored first.
    pub fn into_change(self) -> std::result::Result<Change, (u64, Vec<u8>)> {
        match self {
            Self::Chunk { offset, bytes } => Err((offset, bytes)),
            Self::Hole { offset, length } => Ok(Change::Hole { offset, length }),
            Self::Inline(bytes) => Ok(Change::Inline(bytes)),
        }
    }
}
