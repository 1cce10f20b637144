//! Merging segments in tiers: which ones, and how several become one in bounded memory.
//!
//! A segment's tier is the power of eight that its entries reach; eight segments of a tier become one, which mostly is of
//! the next tier. So an entry is rewritten at most once a tier (six times up to 10^9 entries), and there are at most seven
//! segments a tier for long.
//!
//! *Invariants*: a merge keeps, for every id, all places, newest first; only entries of deleted packs and repeats go.
//!
//! *Bounds*: [`MERGE_INPUTS_MAX`] segments at a time, 128 KiB for each, a row of the pack tables twice, and what
//! [`SegmentWriter`] takes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    segment::{PackRef, PageReader, Segment, Source},
    writer::SegmentWriter,
};
use crate::{
    error::{Error, Result},
    format::segment::{IndexEntry, SEGMENT_ENTRY_COUNT_MAX, Section},
    id::{BlobId, PackId, SegmentId},
};

/// Segments of one tier that are due for merging.
pub(super) const MERGE_INPUTS_MIN: usize = 8;
/// Most segments merged at a time.
pub(super) const MERGE_INPUTS_MAX: usize = 16;
/// Places of one id that are compared with each other, so that a repeat is left out.
const PLACES_COMPARED_MAX: usize = 256;
/// Entries below which all segments are of tier 0.
const TIER_ENTRIES: u64 = 4096;

/// The segments of the smallest tier that is due, in the order given.
pub(super) fn due(segments: &[Arc<Segment>]) -> Option<Vec<Arc<Segment>>> {
    let mut tiers = BTreeMap::<u32, Vec<Arc<Segment>>>::new();
    for segment in segments {
        tiers.entry(tier(segment.entry_count())).or_default().push(segment.clone());
    }
    tiers.into_values().find_map(|mut tier| {
        let (mut taken, mut entry_count) = (0, 0u64);
        for segment in tier.iter().take(MERGE_INPUTS_MAX) {
            entry_count += segment.entry_count();
            if entry_count > SEGMENT_ENTRY_COUNT_MAX {
                break;
            }
            taken += 1;
        }
        tier.truncate(taken);
        (taken >= MERGE_INPUTS_MIN).then_some(tier)
    })
}

fn tier(entry_count: u64) -> u32 {
    (entry_count / TIER_ENTRIES).checked_ilog2().map_or(0, |bits| bits / 3 + 1)
}

/// Writes one segment that holds what `inputs` (oldest first) hold, without the entries of packs in `deleted`, and with
/// the tombstones `kept`. `None` if nothing is left to write.
pub(super) fn merge(
    source: &Source,
    inputs: &[Arc<Segment>],
    deleted: &HashSet<PackId>,
    kept: Vec<PackId>,
) -> Result<Option<SegmentId>> {
    let mut packs = Vec::new();
    let numbers = number_packs(inputs, deleted, &mut packs);
    if packs.is_empty() && kept.is_empty() {
        return Ok(None);
    }
    let entry_count_max = inputs.iter().map(|segment| segment.entry_count()).sum();
    let rows = packs.iter().map(|row| (row.pack, row.epoch, row.kind));
    let (backend, keyring) = (source.backend.clone(), source.keyring.clone());
    let mut writer = SegmentWriter::create(backend, keyring, entry_count_max, rows, kept)?;

    let mut cursors: Vec<_> = inputs.iter().map(|segment| Cursor::new(segment.clone())).collect();
    // Smallest id first; of equal ids the newest, which is the last input.
    let mut heap = BinaryHeap::new();
    for (number, cursor) in cursors.iter_mut().enumerate() {
        if let Some(entry) = cursor.next(source)? {
            heap.push(Reverse((entry.id, Reverse(number), Head(entry))));
        }
    }
    let mut written = Written::default();
    while let Some(Reverse((_, Reverse(number), Head(mut entry)))) = heap.pop() {
        if let Some(next) = cursors[number].next(source)? {
            heap.push(Reverse((next.id, Reverse(number), Head(next))));
        }
        inputs[number].locate(&entry)?;
        let Some(pack_number) = numbers[number][entry.pack_number as usize] else { continue };
        entry.pack_number = pack_number;
        if written.is_new(&entry, packs[pack_number as usize].pack) {
            writer.push(&entry)?;
        }
    }
    Ok(Some(writer.finish()?))
}

/// For every input, the new number of each of its rows; `None` for rows of deleted packs.
fn number_packs(inputs: &[Arc<Segment>], deleted: &HashSet<PackId>, packs: &mut Vec<PackRef>) -> Vec<Vec<Option<u32>>> {
    let mut known = HashMap::new();
    let mut number = |row: &PackRef| {
        (!deleted.contains(&row.pack)).then(|| {
            *known.entry(*row).or_insert_with(|| {
                packs.push(*row);
                packs.len() as u32 - 1
            })
        })
    };
    inputs.iter().map(|segment| segment.packs().iter().map(&mut number).collect()).collect()
}

/// An entry at the head of its input; the heap orders by what stands before it.
struct Head(IndexEntry);

impl PartialEq for Head {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// The places written for the id that is being merged. All are kept, also those that a lookup would not answer with: what is left out
/// would not be there any more when the others' packs have gone, and gc would not know what its pack holds.
#[derive(Default)]
struct Written {
    id: Option<BlobId>,
    places: Vec<(PackId, u32)>,
}

impl Written {
    fn is_new(&mut self, entry: &IndexEntry, pack: PackId) -> bool {
        if self.id != Some(entry.id) {
            self.id = Some(entry.id);
            self.places.clear();
        }
        let place = (pack, entry.offset);
        let new = !self.places.contains(&place);
        if new && self.places.len() < PLACES_COMPARED_MAX {
            self.places.push(place);
        }
        new
    }
}

/// The entries of a segment, one after another.
pub(super) struct Cursor {
    segment: Arc<Segment>,
    pages: PageReader,
    page: std::vec::IntoIter<IndexEntry>,
    last: Option<BlobId>,
}

impl Cursor {
    /// Starts at the first.
    pub(super) fn new(segment: Arc<Segment>) -> Self {
        Self { segment, pages: PageReader::new(Section::Entries), page: Vec::new().into_iter(), last: None }
    }

    /// The next entry, `None` after the last.
    pub(super) fn next(&mut self, source: &Source) -> Result<Option<IndexEntry>> {
        if self.page.len() == 0 {
            let Some(page) = self.pages.next(&self.segment, source)? else { return Ok(None) };
            let entries: Vec<_> = page.as_chunks().0.iter().map(IndexEntry::decode).collect();
            self.page = entries.into_iter();
        }
        let entry = self.page.next();
        let id = entry.map(|entry| entry.id);
        if id < self.last {
            return Err(Error::corrupt(format!("index/{}", self.segment.id()), "its entries are not in order"));
        }
        self.last = id;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::tier;

    #[test]
    fn eight_segments_of_a_tier_reach_the_next() {
        assert_eq!([0, 1, 4095, 4096, 4096 * 8 - 1, 4096 * 8, 1 << 32].map(tier), [0, 0, 0, 1, 1, 2, 7]);
        for entry_count in [4096u64, 40_000, 1_000_000] {
            assert_eq!(tier(entry_count * 8), tier(entry_count) + 1);
        }
    }
}
