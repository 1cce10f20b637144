//! Cutting dirty ranges by content, from the old boundary before each until a cut falls on an old boundary behind it.
//!
//! The result is what a fresh copy of the file would be cut into, so both share their chunks; the cost is a chunk or two beside
//! each dirty range.
//!
//! - A range of zeros as long as an average chunk, or that reaches the end of the file, ends a stream of chunks and stays a
//!   hole; shorter ones are bytes like others.
//! - The last chunk of an old stream ended for want of data. Data that continues it is cut together with it.
//! - If no cut meets an old boundary for [`RESYNC_CHUNKS`] largest chunks (content that repeats itself, whose cuts never
//!   depend on it), the stream is ended at an old boundary, lest one byte rewrite a whole file.
//!
//! *Bounds*: the window holds at most three largest chunks, two of them content yet to be cut.

use vellum_store::chunker::Chunker;

use super::{
    base::{Run, View, append_extent},
    extents,
    plan::{Emitter, Neighbours, PlanInput, Planned, Tail},
};
use crate::error::Result;

/// How far behind a dirty range cuts are left to find an old boundary by themselves, in largest chunks.
const RESYNC_CHUNKS: u64 = 8;

/// Plans all dirty ranges of a file. `body_length` bytes of inline content are among the layers.
pub(super) fn plan_chunks<'p>(
    chunker: &'p Chunker<'_>,
    input: &PlanInput<'_>,
    body_length: u64,
    view: View<'p>,
    emitter: &'p mut Emitter<'_>,
) -> Result<Planned> {
    let sizes = chunker.sizes();
    let mut rechunk = Rechunk {
        chunker,
        view,
        emitter,
        size: input.size,
        avoid: input.neighbours == Neighbours::Avoid,
        keep_from_min: (input.tail == Tail::Keep).then_some(body_length),
        certain_end: input.layers.iter().find_map(|layer| layer.certain_end()),
        min: sizes.min().into(),
        max: sizes.max().into(),
        hole_min: sizes.avg().into(),
        window: Window::default(),
    };
    rechunk.plan()
}

/// Content from `offset` on that is yet to be cut.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    head: usize,
    offset: u64,
    /// Nothing follows: the stream ends where the window ends.
    ended: bool,
}

impl Window {
    fn content(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    fn end(&self) -> u64 {
        self.offset + self.content().len() as u64
    }

    fn restart(&mut self, offset: u64) {
        self.bytes.clear();
        self.head = 0;
        self.offset = offset;
        self.ended = false;
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let taken = self.content()[..length].to_vec();
        self.head += length;
        self.offset += length as u64;
        taken
    }

    /// Drops what was taken once it is worth moving the rest.
    fn make_room(&mut self, max: u64) {
        if self.head as u64 >= max || self.head == self.bytes.len() {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }
}

/// How a stream of chunks ended.
enum StreamEnd {
    /// Everything before this offset is planned.
    At(u64),
    /// The rest, from this offset on, stays dirty.
    Kept(u64),
}

struct Rechunk<'p, 'k, 's> {
    chunker: &'p Chunker<'k>,
    view: View<'p>,
    emitter: &'p mut Emitter<'s>,
    size: u64,
    avoid: bool,
    /// Whether an unfinished tail stays dirty, and the first offset where it may begin.
    keep_from_min: Option<u64>,
    certain_end: Option<u64>,
    min: u64,
    max: u64,
    hole_min: u64,
    window: Window,
}

impl Rechunk<'_, '_, '_> {
    fn plan(&mut self) -> Result<Planned> {
        let mut planned = 0;
        while let Some(dirty) = self.view.next_dirty(planned) {
            if dirty >= self.size {
                self.cut_end(planned)?;
                planned = self.view.dirty_end(dirty);
                self.emitter.hole(dirty, planned - dirty)?;
                continue;
            }
            let zeros = self.view.zero_run(dirty, self.size)?;
            let start = self.stream_start(dirty, planned, zeros)?;
            if start == dirty && zeros > 0 && (self.is_hole(dirty, zeros) || self.follows_hole(dirty, planned)?) {
                planned = dirty + zeros;
                self.emitter.hole(dirty, zeros)?;
                if self.avoid || !self.is_inside(planned)? {
                    continue;
                }
                // The hole took the head of an old chunk; what is left of it is cut anew.
                match self.stream(planned)? {
                    StreamEnd::At(end) => planned = end,
                    StreamEnd::Kept(from) => return Ok(Planned { kept_from: Some(from) }),
                }
                continue;
            }
            match self.stream(start)? {
                StreamEnd::At(end) => {
                    assert!(end > planned, "a stream of chunks moves on");
                    planned = end;
                }
                StreamEnd::Kept(from) => return Ok(Planned { kept_from: Some(from) }),
            }
        }
        Ok(Planned::default())
    }

    /// Cuts anew what a truncation left of the last chunk.
    fn cut_end(&mut self, planned: u64) -> Result<()> {
        if self.avoid || planned >= self.size {
            return Ok(());
        }
        match self.view.base().extent_after(self.size)? {
            // All of it is clean, so nothing is kept dirty.
            Some(extent) if extent.offset < self.size => self.stream(extent.offset.max(planned)).map(drop),
            _ => Ok(()),
        }
    }

    /// Whether `zeros` from `offset` on end a stream of chunks.
    fn is_hole(&self, offset: u64, zeros: u64) -> bool {
        zeros >= self.hole_min || offset + zeros == self.size
    }

    /// Whether the byte before `offset`, up to which all is planned or clean, is in an old hole.
    fn follows_hole(&mut self, offset: u64, planned: u64) -> Result<bool> {
        let before = self.view.base().extent_before(offset)?;
        Ok(offset > planned && before.is_none_or(|extent| extent.end() < offset))
    }

    /// Whether an old extent goes on across `offset`.
    fn is_inside(&mut self, offset: u64) -> Result<bool> {
        let extent = self.view.base().extent_after(offset)?;
        Ok(extent.is_some_and(|extent| extent.offset < offset) && offset < self.size)
    }

    /// Where to start cutting for what is dirty at `dirty`, where `zeros` zeros follow. Not before `planned`.
    fn stream_start(&mut self, dirty: u64, planned: u64, zeros: u64) -> Result<u64> {
        if self.avoid {
            return Ok(dirty);
        }
        match self.view.base().extent_after(dirty)? {
            Some(extent) if extent.offset < dirty => return Ok(extent.offset.max(planned)),
            Some(extent) if extent.offset == dirty => return Ok(dirty),
            _ if self.is_hole(dirty, zeros) => return Ok(dirty),
            _ => {}
        }
        let Some(last) = self.view.base().extent_before(dirty)? else { return Ok(dirty) };
        let certain = self.certain_end == Some(dirty) || last.length >= self.max;
        if last.end() == dirty {
            return Ok(if certain { dirty } else { last.offset.max(planned) });
        }
        let gap = last.end().max(planned);
        let zeros = self.view.zero_run(gap, self.size.min(gap + self.hole_min))?;
        Ok(if self.is_hole(gap, zeros) { dirty } else { last.offset.max(planned) })
    }

    /// Cuts from `start` to a hole, the end of the file, or an old boundary behind which nothing near is dirty.
    fn stream(&mut self, start: u64) -> Result<StreamEnd> {
        self.window.restart(start);
        let mut dirty_end = start;
        loop {
            let offset = self.window.offset;
            let lost = offset >= dirty_end + RESYNC_CHUNKS * self.max;
            let pinned = if lost { self.old_boundary_after(offset)? } else { None };
            let Some(bytes) = self.next_chunk(pinned)? else { return Ok(StreamEnd::At(offset)) };
            let end = self.window.offset;
            let clean = self.view.is_clean(offset..end);
            let last = self.window.ended && self.window.content().is_empty();
            if !clean {
                dirty_end = end;
                if self.keeps_tail(offset, end, last)? {
                    return Ok(StreamEnd::Kept(offset));
                }
            }
            if !(clean && self.is_old_chunk(offset, end)?) {
                self.emitter.chunk(offset, bytes)?;
            }
            if last || self.is_resynced(end)? {
                return Ok(StreamEnd::At(end));
            }
        }
    }

    /// Whether the dirty chunk `offset..end`, and what follows, stays dirty: because it ends where the file ends, which may
    /// be written on, or because it mixes the last of what is dirty with old content that a rewrite from front to back is about to
    /// replace. Stored now, either would be a blob that nothing else shares, one for each flush.
    fn keeps_tail(&mut self, offset: u64, end: u64, last: bool) -> Result<bool> {
        let Some(from_min) = self.keep_from_min else { return Ok(false) };
        // Content of the body must not be left behind by a plan that puts out anything.
        if offset != 0 && offset < from_min {
            return Ok(false);
        }
        if last && end + self.view.zero_run(end, self.size)? >= self.size {
            return Ok(true);
        }
        let mixed = self.view.is_clean(end - 1..end) && self.view.next_dirty(end).is_none();
        Ok(mixed && !self.avoid)
    }

    /// Whether the base already has just this clean range as one whole blob.
    fn is_old_chunk(&mut self, offset: u64, end: u64) -> Result<bool> {
        let extent = self.view.base().extent_after(offset)?;
        Ok(extent.is_some_and(|old| old.offset == offset && old.end() == end && extents::is_whole(&old)))
    }

    /// Whether cutting can stop at `offset`: no old extent crosses it, and nothing dirty is near enough to need what follows.
    fn is_resynced(&mut self, offset: u64) -> Result<bool> {
        let near = offset + self.hole_min;
        let horizon = match self.view.base().extent_after(offset)? {
            Some(extent) if extent.offset < offset => return Ok(false),
            Some(extent) if extent.offset == offset => extent.end(),
            Some(extent) => extent.offset.min(near),
            None => near,
        };
        Ok(self.view.is_clean(offset..horizon))
    }

    /// The first old boundary that makes a chunk of allowed length from `offset`, or the last before if there is none.
    fn old_boundary_after(&mut self, offset: u64) -> Result<Option<u64>> {
        let mut found = None;
        let mut at = offset;
        while let Some(extent) = self.view.base().extent_after(at)? {
            let boundary = if extent.offset > at { extent.offset } else { extent.end() };
            if boundary > offset + self.max {
                break;
            }
            found = Some(boundary);
            if boundary >= offset + self.min {
                break;
            }
            at = boundary;
        }
        Ok(found)
    }

    /// The next chunk; `None` where the stream ends. A pinned chunk ends at the given boundary, or with the stream.
    fn next_chunk(&mut self, pinned: Option<u64>) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.cut_directly(pinned)? {
            return Ok(Some(bytes));
        }
        self.fill()?;
        let content = self.window.content();
        if content.is_empty() {
            return Ok(None);
        }
        let length = match pinned {
            Some(boundary) => content.len().min((boundary - self.window.offset) as usize),
            None => self.chunker.cut(content),
        };
        Ok(Some(self.window.take(length)))
    }

    /// Cuts straight from a dirty buffer where it is long enough, which saves a copy of all that is appended.
    fn cut_directly(&mut self, pinned: Option<u64>) -> Result<Option<Vec<u8>>> {
        let offset = self.window.offset;
        if !self.window.content().is_empty() || self.window.ended || pinned.is_some() || offset >= self.size {
            return Ok(None);
        }
        let Run::Bytes(slice) = self.view.run(offset, self.size)? else { return Ok(None) };
        if (slice.len() as u64) < self.max {
            return Ok(None);
        }
        let length = self.chunker.cut(&slice);
        self.window.restart(offset + length as u64);
        Ok(Some(slice[..length].to_vec()))
    }

    /// Fills the window until the chunker can decide.
    fn fill(&mut self) -> Result<()> {
        self.window.make_room(self.max);
        while !self.window.ended && (self.window.content().len() as u64) < self.max {
            let at = self.window.end();
            if at >= self.size {
                self.window.ended = true;
                break;
            }
            let limit = self.size.min(at + self.max);
            let run = self.view.run(at, limit)?;
            let next = at + run.length();
            match run {
                Run::Bytes(slice) => self.window.bytes.extend_from_slice(&slice),
                Run::Extent(..) if self.avoid => self.window.ended = true,
                Run::Extent(extent, _) => {
                    append_extent(self.view.base(), &extent, at..next, &mut self.window.bytes)?;
                }
                Run::Zero(_) => {
                    let zeros = self.view.zero_run(at, self.size.min(at + self.hole_min))?;
                    if self.is_hole(at, zeros) {
                        self.window.ended = true;
                    } else {
                        self.window.bytes.resize(self.window.bytes.len() + zeros as usize, 0);
                    }
                }
            }
        }
        debug_assert!(self.window.bytes.len() as u64 <= 3 * self.max, "the window is bounded");
        Ok(())
    }
}
