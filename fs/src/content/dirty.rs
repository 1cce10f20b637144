//! The dirty map of one file: what was written since the content that the tree describes, as non-overlapping segments.
//!
//! *Invariants*
//! 1. Segments do not overlap, and none is empty.
//! 2. A stamp names immutable content: whoever changes the bytes or the reach of a segment to the right draws a new stamp.
//!    Splitting keeps the stamp, so each part is still recognised by a capture taken before.
//! 3. A buffer is changed in place only while the map is its only owner; a capture or a reader shares it, and from
//!    then on it is frozen.
//!
//! *Threads*: none of its own; the volume guards each map with its inode's lock. Captures are immutable and travel freely.
//!
//! *Bounds*: a buffer holds [`BUFFER_MAX`] bytes. A segment keeps at least a quarter of its buffer in use, else it gets a
//! buffer of its own, so [`DirtyMap::held_bytes`] is within a small factor of the memory used. The volume's byte
//! budget bounds the sum.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{Deref, Range},
    sync::Arc,
};

/// Largest buffer that appends fill; also the largest segment that one write makes.
pub const BUFFER_MAX: usize = 1 << 20;

/// Memory that one segment costs beside its bytes: map node, buffer header, allocator rounding.
pub const SEGMENT_OVERHEAD: u64 = 192;

/// Journaled segments up to this length are appended to their left neighbour, so that a log file that is synced after
/// every line does not keep a segment per line.
const COALESCE_MAX: usize = 64 << 10;

/// A part of a shared, immutable buffer.
#[derive(Clone)]
pub struct Slice {
    buffer: Arc<Vec<u8>>,
    start: usize,
    length: usize,
}

impl Slice {
    /// Takes a buffer as a whole.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { start: 0, length: bytes.len(), buffer: Arc::new(bytes) }
    }

    /// The part from `from` for `length` bytes; both lie within this slice.
    pub fn part(&self, from: usize, length: usize) -> Self {
        assert!(from <= self.length && length <= self.length - from, "a part lies within its slice");
        Self { buffer: self.buffer.clone(), start: self.start + from, length }
    }

    /// Gives the bytes a buffer of their own if they use less than a quarter of the shared one.
    fn compact(&mut self) {
        if self.length < self.buffer.capacity() / 4 {
            *self = Self::new(self.to_vec());
        }
    }

    /// Appends in place if nobody shares the buffer and the result fits one.
    fn try_append(&mut self, data: &[u8]) -> bool {
        let needed = self.start + self.length + data.len();
        if needed > BUFFER_MAX {
            return false;
        }
        let Some(buffer) = Arc::get_mut(&mut self.buffer) else { return false };
        buffer.truncate(self.start + self.length);
        if buffer.capacity() < needed {
            let wanted = needed.max(2 * buffer.capacity()).min(BUFFER_MAX);
            buffer.reserve_exact(wanted - buffer.len());
        }
        buffer.extend_from_slice(data);
        self.length += data.len();
        true
    }

    /// Overwrites in place if nobody shares the buffer.
    fn try_overwrite(&mut self, from: usize, data: &[u8]) -> bool {
        let Some(buffer) = Arc::get_mut(&mut self.buffer) else { return false };
        buffer[self.start + from..][..data.len()].copy_from_slice(data);
        true
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.length]
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.length)
    }
}

/// What a segment puts over the range it covers.
#[derive(Clone, Debug)]
pub enum Body {
    /// These bytes.
    Data(Slice),
    /// This many zeros: a punched hole, or what a truncation cut off.
    Zero(u64),
}

impl Body {
    /// Bytes of the file that are covered; never 0 in a map.
    pub fn length(&self) -> u64 {
        match self {
            Self::Data(slice) => slice.len() as u64,
            Self::Zero(length) => *length,
        }
    }

    /// The part from `from` for `length` bytes; both lie within this body.
    pub fn part(&self, from: u64, length: u64) -> Self {
        match self {
            Self::Data(slice) => Self::Data(slice.part(from as usize, length as usize)),
            Self::Zero(own) => {
                assert!(from <= *own && length <= own - from, "a part lies within its body");
                Self::Zero(length)
            }
        }
    }

    fn data_bytes(&self) -> u64 {
        match self {
            Self::Data(slice) => slice.len() as u64,
            Self::Zero(_) => 0,
        }
    }
}

/// One dirty range.
#[derive(Clone, Debug)]
pub struct Segment {
    body: Body,
    stamp: u64,
    journaled: bool,
}

/// A dirty range as it was when captured.
#[derive(Clone, Debug)]
pub struct CapturedSegment {
    /// Where it begins in the file.
    pub offset: u64,
    /// What it holds.
    pub body: Body,
}

impl CapturedSegment {
    /// The first offset after it.
    pub fn end(&self) -> u64 {
        self.offset + self.body.length()
    }
}

/// Segments of a map as they were at one moment, in order of offset. Copies no bytes; later writes do not change it.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    segments: Vec<CapturedSegment>,
    through: u64,
    certain_end: Option<u64>,
    journaled: bool,
}

impl Capture {
    /// The captured segments in order of offset.
    pub fn segments(&self) -> &[CapturedSegment] {
        &self.segments
    }

    /// Whether nothing was dirty.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether the journal held all of it when it was captured.
    pub fn is_journaled(&self) -> bool {
        self.journaled
    }

    /// Bytes of data captured.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.body.data_bytes()).sum()
    }

    /// Memory that it costs to hold these segments apart.
    pub fn overhead(&self) -> u64 {
        self.segments.len() as u64 * SEGMENT_OVERHEAD
    }

    /// Where an earlier flush of a stream stopped at a boundary that content decided.
    pub(super) fn certain_end(&self) -> Option<u64> {
        self.certain_end
    }

    /// A capture of one segment that no map holds: inline content about to become chunks.
    pub(super) fn of_body(bytes: Vec<u8>) -> Self {
        let segment = CapturedSegment { offset: 0, body: Body::Data(Slice::new(bytes)) };
        Self { segments: Vec::from([segment]), through: 0, certain_end: None, journaled: false }
    }
}

/// Dirty segments of one file by offset.
#[derive(Debug, Default)]
pub struct DirtyMap {
    segments: BTreeMap<u64, Segment>,
    unjournaled: BTreeSet<u64>,
    last_stamp: u64,
    data_bytes: u64,
    unjournaled_bytes: u64,
    certain_end: Option<u64>,
}

impl DirtyMap {
    /// A map of a clean file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is dirty.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of written data that are dirty.
    pub fn bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes of written data that the journal does not hold.
    pub fn unjournaled_bytes(&self) -> u64 {
        self.unjournaled_bytes
    }

    /// How many segments the journal does not hold.
    pub fn unjournaled_count(&self) -> usize {
        self.unjournaled.len()
    }

    /// What the map costs in memory: data and [`SEGMENT_OVERHEAD`] for each segment. The figure for budgets, since a byte
    /// written here and there costs far more than a byte.
    pub fn held_bytes(&self) -> u64 {
        self.data_bytes + self.segments.len() as u64 * SEGMENT_OVERHEAD
    }

    /// The segments in order of offset.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Body)> {
        self.segments.iter().map(|(&offset, segment)| (offset, &segment.body))
    }

    /// The first offset behind everything that is dirty.
    pub fn end(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(&offset, segment)| offset + segment.body.length())
    }

    /// Whether all of a range is dirty. A write to such a range overwrites nothing that was flushed.
    pub fn covers(&self, offset: u64, length: u64) -> bool {
        let mut at = offset;
        while at < offset + length {
            match self.after(at) {
                Some((start, segment)) if start <= at => at = start + segment.body.length(),
                _ => return false,
            }
        }
        true
    }

    /// Puts `data` at `offset`. `offset + data.len()` fits a `u64`.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        for part in data.chunks(BUFFER_MAX) {
            self.write_part(at, part);
            at += part.len() as u64;
        }
    }

    fn write_part(&mut self, offset: u64, data: &[u8]) {
        if self.overwrite_in_place(offset, data) {
            return;
        }
        self.carve(offset, offset + data.len() as u64);
        if !self.append_to_neighbour(offset, data) {
            let body = Body::Data(Slice::new(data.to_vec()));
            self.insert_new(offset, body);
        }
    }

    /// Makes `length` bytes from `offset` zeros, whatever lay below: holes and truncation. Costs the same for any length.
    pub fn zero(&mut self, offset: u64, length: u64) {
        if length == 0 {
            return;
        }
        let (mut start, mut end) = (offset, offset + length);
        self.carve(start, end);
        if let Some((left, segment)) = self.ending_at(start)
            && matches!(segment.body, Body::Zero(_))
            && !segment.journaled
        {
            start = left;
            self.remove(left);
        }
        if let Some(segment) = self.segments.get(&end)
            && matches!(segment.body, Body::Zero(_))
            && !segment.journaled
        {
            let right = self.remove(end);
            end += right.body.length();
        }
        self.insert_new(start, Body::Zero(end - start));
    }

    /// Everything dirty, for a flush.
    pub fn capture(&self) -> Capture {
        let segments = self.iter().map(|(offset, body)| CapturedSegment { offset, body: body.clone() }).collect();
        let journaled = self.unjournaled.is_empty();
        Capture { segments, through: self.last_stamp, certain_end: self.certain_end, journaled }
    }

    /// Everything that the journal does not hold. Its cost follows what it returns, not what is dirty.
    pub fn capture_unjournaled(&self) -> Capture {
        let segments = self.unjournaled.iter().map(|&offset| {
            let body = self.segments[&offset].body.clone();
            CapturedSegment { offset, body }
        });
        Capture { segments: segments.collect(), through: self.last_stamp, certain_end: None, journaled: false }
    }

    /// Notes that the journal holds what [`Self::capture_unjournaled`] returned; parts overwritten since stay unjournaled.
    pub fn mark_journaled(&mut self, capture: &Capture) {
        let old: Vec<u64> = (self.unjournaled.iter().copied())
            .filter(|offset| self.segments[offset].stamp <= capture.through)
            .collect();
        for offset in old {
            let mut segment = self.remove(offset);
            segment.journaled = true;
            self.insert(offset, segment);
            self.coalesce_left(offset);
        }
    }

    /// Forgets that the journal holds what is dirty in a range: it is going to be told something older about it.
    pub fn mark_unjournaled(&mut self, range: Range<u64>) {
        let first = self.after(range.start).map_or(range.end, |(start, _)| start);
        let journaled: Vec<u64> = (self.segments.range(first..range.end.max(first)))
            .filter(|(_, segment)| segment.journaled)
            .map(|(&offset, _)| offset)
            .collect();
        for offset in journaled {
            let segment = self.remove(offset);
            self.insert(offset, Segment { journaled: false, ..segment });
        }
    }

    /// Drops what was captured and has reached the store: all of it, or what lies before `kept_from` if the plan kept a
    /// tail. What was written since the capture stays, also where it covers only a part of a captured segment.
    pub fn remove_captured(&mut self, capture: &Capture, kept_from: Option<u64>) {
        if let Some(kept_from) = kept_from {
            self.split(kept_from);
        }
        let limit = kept_from.unwrap_or(u64::MAX);
        let flushed: Vec<u64> = (self.segments.range(..limit))
            .filter(|(_, segment)| segment.stamp <= capture.through)
            .map(|(&offset, _)| offset)
            .collect();
        for offset in flushed {
            self.remove(offset);
        }
        self.certain_end = kept_from;
    }

    /// Takes everything out for a checkpoint and leaves an empty map, whose segments will all be newer.
    pub fn freeze(&mut self) -> Self {
        let last_stamp = self.last_stamp;
        std::mem::replace(self, Self { last_stamp, ..Self::default() })
    }

    /// Puts back what [`Self::freeze`] took, below what was written since: a checkpoint failed.
    pub fn restore(&mut self, frozen: Self) {
        self.last_stamp = self.last_stamp.max(frozen.last_stamp);
        for (offset, segment) in frozen.segments {
            let end = offset + segment.body.length();
            let mut at = offset;
            while at < end {
                let (next, next_end) = match self.after(at) {
                    Some((start, above)) => (start.min(end), start + above.body.length()),
                    None => (end, end),
                };
                if at < next {
                    let body = segment.body.part(at - offset, next - at);
                    self.insert(at, Segment { body, ..segment });
                }
                at = next.max(next_end);
            }
        }
    }

    /// Forgets what is dirty in a range, because what lies below holds something newer.
    pub fn discard(&mut self, range: Range<u64>) {
        if range.start < range.end {
            self.carve(range.start, range.end);
        }
    }

    /// The first segment that ends after `offset`.
    pub(super) fn after(&self, offset: u64) -> Option<(u64, &Segment)> {
        if let Some((&start, segment)) = self.segments.range(..=offset).next_back()
            && start + segment.body.length() > offset
        {
            return Some((start, segment));
        }
        let (&start, segment) = self.segments.range(offset..).next()?;
        Some((start, segment))
    }

    /// The segment that ends exactly at `end`.
    fn ending_at(&self, end: u64) -> Option<(u64, &Segment)> {
        let (&start, segment) = self.segments.range(..end).next_back()?;
        (start + segment.body.length() == end).then_some((start, segment))
    }

    fn next_stamp(&mut self) -> u64 {
        self.last_stamp += 1;
        self.last_stamp
    }

    fn insert_new(&mut self, offset: u64, body: Body) {
        let stamp = self.next_stamp();
        self.insert(offset, Segment { body, stamp, journaled: false });
    }

    fn insert(&mut self, offset: u64, segment: Segment) {
        let bytes = segment.body.data_bytes();
        self.data_bytes += bytes;
        if !segment.journaled {
            self.unjournaled_bytes += bytes;
            self.unjournaled.insert(offset);
        }
        let before = self.segments.insert(offset, segment);
        debug_assert!(before.is_none(), "a segment goes where none is");
    }

    fn remove(&mut self, offset: u64) -> Segment {
        let segment = self.segments.remove(&offset).expect("the caller found a segment here");
        let bytes = segment.body.data_bytes();
        self.data_bytes -= bytes;
        if !segment.journaled {
            self.unjournaled_bytes -= bytes;
            self.unjournaled.remove(&offset);
        }
        segment
    }

    /// Makes `at` a boundary between segments.
    fn split(&mut self, at: u64) {
        let Some((&start, segment)) = self.segments.range(..at).next_back() else { return };
        let length = segment.body.length();
        if start + length <= at {
            return;
        }
        let whole = self.remove(start);
        let left = whole.body.part(0, at - start);
        let right = whole.body.part(at - start, start + length - at);
        self.insert(start, Segment { body: left, ..whole });
        self.insert(at, Segment { body: right, ..whole });
    }

    /// Removes all coverage of a range; what is left at both sides lets go of large buffers.
    fn carve(&mut self, start: u64, end: u64) {
        self.split(start);
        self.split(end);
        let covered: Vec<u64> = self.segments.range(start..end).map(|(&offset, _)| offset).collect();
        if covered.is_empty() {
            return;
        }
        for offset in covered {
            self.remove(offset);
        }
        let left = self.ending_at(start).map(|(offset, _)| offset);
        for offset in left.into_iter().chain([end]) {
            if let Some(Segment { body: Body::Data(slice), .. }) = self.segments.get_mut(&offset) {
                slice.compact();
            }
        }
    }

    fn overwrite_in_place(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some((&start, segment)) = self.segments.range_mut(..=offset).next_back() else { return false };
        let Body::Data(slice) = &mut segment.body else { return false };
        let inside = offset + data.len() as u64 <= start + slice.len() as u64;
        if segment.journaled || !inside || !slice.try_overwrite((offset - start) as usize, data) {
            return false;
        }
        self.last_stamp += 1;
        segment.stamp = self.last_stamp;
        true
    }

    fn append_to_neighbour(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some((&start, segment)) = self.segments.range_mut(..offset).next_back() else { return false };
        let Body::Data(slice) = &mut segment.body else { return false };
        if segment.journaled || start + slice.len() as u64 != offset || !slice.try_append(data) {
            return false;
        }
        self.last_stamp += 1;
        segment.stamp = self.last_stamp;
        self.data_bytes += data.len() as u64;
        self.unjournaled_bytes += data.len() as u64;
        true
    }

    /// Appends a small journaled segment to its journaled left neighbour, if nobody shares that one's buffer.
    fn coalesce_left(&mut self, offset: u64) {
        let Segment { body: Body::Data(right), stamp, journaled: true } = &self.segments[&offset] else { return };
        let (right, stamp) = (right.clone(), *stamp);
        if right.len() > COALESCE_MAX {
            return;
        }
        let Some((&start, left)) = self.segments.range_mut(..offset).next_back() else { return };
        let Body::Data(slice) = &mut left.body else { return };
        if !left.journaled || start + slice.len() as u64 != offset || !slice.try_append(&right) {
            return;
        }
        // The newer stamp: a flush that captured only the left part must not drop the right one.
        left.stamp = left.stamp.max(stamp);
        self.data_bytes += right.len() as u64;
        self.remove(offset);
    }
}

impl Segment {
    /// What the segment holds.
    pub fn body(&self) -> &Body {
        &self.body
    }
}

#[cfg(test)]
mod tests;
