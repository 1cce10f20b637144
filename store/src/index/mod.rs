//! The index: where each blob lies, in sorted segments on disk and a small table of recent entries in memory.
//!
//! *Invariants*
//! 1. Truth is the trailers of the packs: everything here can be [rebuilt](Index::rebuild) from them.
//! 2. A lookup answers with every place that the index knows of (at most [`LOCATIONS_MAX`]), newest first; entries of packs
//!    that were removed are never among them.
//! 3. A lookup of an id that was never inserted reads nothing, but for one page for each false answer of a filter.
//! 4. A damaged segment hides no place that another one knows; if no place is found, the damage is the answer, never "absent".
//!
//! *Ordering*: F1: [`Index::insert_pack`] is called once the pack is durable, so a flushed segment lists only such blobs. F5: a
//! pack is deleted after the segment with its tombstone is durable and named by a head.
//!
//! *Threads*: all methods may be called from any thread. Lock order: `flushing` or `merging`, then `state`, which is held for
//! memory only, never across I/O. One flush and one merge may run beside each other and beside lookups and insertions.
//!
//! *Bounds*: in memory: filters (9 bits an entry in large segments), fences (0.8 bits an entry), 40 bytes a pack, the page cache
//! (a setting) and the table (75 bytes an entry; the owner flushes when [`Index::flush_due`] says so).
//!
//! *Format*: in `format/segment.rs`.
//!
//! *Not here*: which segments are live (the manifest), and the deletion of segments that were merged ([`Index::take_superseded`]
//! says which can go once a head no longer names them).

mod filter;
mod location;
mod marks;
mod merge;
mod pages;
mod rebuild;
mod recent;
mod segment;
mod writer;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Weak},
};

use crate::spawn::turns::{Mutex, RwLock};

pub use self::{
    location::{LOCATIONS_MAX, Location, Locations},
    marks::{Marked, Marks, PackUse},
    writer::SegmentWriter,
};
use self::{
    merge::Cursor,
    pages::PageCache,
    recent::Recent,
    segment::{Segment, Source},
};
use crate::{
    backend::Backend,
    crypto::Keyring,
    error::{Error, Result},
    id::{BlobId, BlobKind, PackId, SegmentId},
    pack::PackEntry,
};

/// Settings of an index.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// Memory for unsealed pages.
    pub page_cache_bytes: usize,
    /// Entries of the table at which [`Index::flush_due`] asks for a segment.
    pub table_entries_max: usize,
    /// Whether [`Index::open`] leaves the filters to [`Index::load_filters`], which another thread may then call; until
    /// they are loaded every lookup reads a page of each segment.
    pub load_filters_later: bool,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self { page_cache_bytes: 16 << 20, table_entries_max: 1 << 18, load_filters_later: false }
    }
}

/// What the index knows of one pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackStats {
    /// Kind of its blobs.
    pub kind: BlobKind,
    /// Number of its blobs.
    pub entry_count: u64,
    /// Sum of their sealed lengths.
    pub sealed_bytes: u64,
}

/// The index of a repository.
pub struct Index {
    source: Source,
    options: IndexOptions,
    cache: PageCache,
    flushing: Mutex<()>,
    merging: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// Shared with those who list entries; copied only if it changes meanwhile.
    recent: Arc<Recent>,
    /// The table that is being written to a segment; older than `recent`, newer than all segments.
    frozen: Option<Arc<Recent>>,
    /// Oldest first.
    segments: Vec<Arc<Segment>>,
    /// Packs whose entries are void, in whatever segment they are.
    deleted: Arc<HashSet<PackId>>,
    /// Packs that are about to be deleted: what they hold is read there, and stored again if it is written again.
    condemned: Arc<HashSet<PackId>>,
    /// Merged into others; a lookup that began before may still read them.
    superseded: Vec<(SegmentId, Weak<Segment>)>,
    /// All that were ever merged into others here.
    merged: HashSet<SegmentId>,
}

/// All that the index holds at one moment, for a reader that takes its time.
struct Contents {
    tables: Vec<Arc<Recent>>,
    segments: Vec<Arc<Segment>>,
    deleted: Arc<HashSet<PackId>>,
}

impl Index {
    /// Opens the segments that a manifest names, oldest first.
    ///
    /// A segment that is damaged is [`Error::Corrupt`], one that is missing [`Error::NotFound`], each naming it: the index
    /// must then be rebuilt.
    pub fn open(
        backend: Arc<dyn Backend>,
        keyring: Arc<Keyring>,
        segments: &[SegmentId],
        options: IndexOptions,
    ) -> Result<Self> {
        let (source, cache) = (Source { backend, keyring }, PageCache::new(options.page_cache_bytes));
        let mut state = State::default();
        let (mut ids, mut salts) = (HashSet::new(), HashSet::new());
        for id in segments {
            if !ids.insert(*id) {
                continue;
            }
            let segment = Segment::open(&source, *id, &cache)?;
            // The name is not proven by opening; a store that answers with one segment for two names is found here.
            if !salts.insert(segment.salt()) {
                return Err(Error::corrupt(format!("index/{id}"), "it is another segment under this name"));
            }
            state.segments.push(Arc::new(segment));
        }
        state.refresh_deleted();
        let (flushing, merging) = (Mutex::new(()), Mutex::new(()));
        let index = Self { source, options, cache, flushing, merging, state: RwLock::new(state) };
        if !index.options.load_filters_later {
            index.load_filters()?;
        }
        Ok(index)
    }

    /// Loads the filters that are not loaded yet.
    pub fn load_filters(&self) -> Result<()> {
        let segments = self.state.read().segments.clone();
        segments.iter().try_for_each(|segment| segment.load_filter(&self.source))
    }

    /// Every place of a blob, newest first; empty if the index does not know it.
    pub fn lookup(&self, id: &BlobId) -> Result<Locations> {
        let mut found = Locations::default();
        self.find(id, &mut |location| {
            found.push(location);
            false
        })?;
        Ok(found)
    }

    /// How many places of a blob will last, of those that [`Self::lookup`] answers with: the ones that deduplication may rely on.
    pub fn lasting_copies(&self, id: &BlobId) -> Result<usize> {
        let condemned = self.state.read().condemned.clone();
        Ok(self.lookup(id)?.iter().filter(|location| !condemned.contains(&location.pack)).count())
    }

    /// Has [`Self::lasting_copies`] leave out these packs from here on, and no others.
    pub fn condemn(&self, packs: HashSet<PackId>) {
        self.state.write().condemned = Arc::new(packs);
    }

    /// Whether the index knows a place of a blob.
    pub fn contains(&self, id: &BlobId) -> Result<bool> {
        let mut contained = false;
        self.find(id, &mut |_| {
            contained = true;
            true
        })?;
        Ok(contained)
    }

    /// Hands places to `found` until it answers that it is done.
    fn find(&self, id: &BlobId, found: &mut dyn FnMut(Location) -> bool) -> Result<()> {
        let (mut any, mut done) = (false, false);
        let (deleted, segments) = {
            let state = self.state.read();
            let mut take = |location: Location| {
                any = true;
                done |= found(location);
            };
            // Entries of removed packs left the tables when those were removed.
            state.recent.find(id, &mut take);
            if let Some(frozen) = &state.frozen {
                frozen.find(id, &mut |location| {
                    if !state.deleted.contains(&location.pack) {
                        take(location);
                    }
                });
            }
            if done {
                return Ok(());
            }
            (state.deleted.clone(), state.segments.clone())
        };
        let mut failure = None;
        for segment in segments.iter().rev() {
            let searched = segment.find(&self.source, &self.cache, id, &mut |location| {
                if !deleted.contains(&location.pack) {
                    any = true;
                    done |= found(location);
                }
            });
            if done {
                return Ok(());
            }
            failure = failure.or(searched.err());
        }
        failure.filter(|_| !any).map_or(Ok(()), Err)
    }

    /// Takes the entries of a pack that is durable (F1). Taking a pack twice changes nothing.
    pub fn insert_pack(&self, pack: PackId, entries: &[PackEntry]) {
        let mut state = self.state.write();
        if !state.deleted.contains(&pack) {
            Arc::make_mut(&mut state.recent).insert_pack(pack, entries);
        }
    }

    /// As [`Self::insert_pack`], for one that may be in a segment by now: listed twice, it would be counted twice.
    pub fn insert_stored_pack(&self, pack: PackId, entries: &[PackEntry]) {
        let mut state = self.state.write();
        let in_segments = state.segments.iter().flat_map(|segment| segment.packs());
        let in_table = state.frozen.iter().flat_map(|frozen| frozen.packs());
        let known = in_segments.chain(in_table).any(|row| row.pack == pack);
        if !known && !state.deleted.contains(&pack) {
            Arc::make_mut(&mut state.recent).insert_pack(pack, entries);
        }
    }

    /// Makes the entries of these packs void for good, with the next flush also for others; an id is never given to another pack.
    pub fn remove_packs(&self, packs: &[PackId]) {
        let packs: HashSet<_> = packs.iter().copied().collect();
        let mut state = self.state.write();
        Arc::make_mut(&mut state.recent).remove_packs(&packs);
        Arc::make_mut(&mut state.deleted).extend(packs);
    }

    /// Which of these packs the index neither lists nor has removed: nobody has told it of them.
    pub fn unknown_packs(&self, packs: &[PackId]) -> Vec<PackId> {
        let Contents { tables, segments, deleted } = self.contents();
        let mut known: HashSet<PackId> =
            segments.iter().flat_map(|segment| segment.packs()).map(|row| row.pack).collect();
        known.extend(tables.iter().flat_map(|table| table.packs()).map(|row| row.pack));
        packs.iter().filter(|pack| !known.contains(pack) && !deleted.contains(pack)).copied().collect()
    }

    /// Whether the entries of a pack are void.
    pub fn is_removed(&self, pack: &PackId) -> bool {
        self.state.read().deleted.contains(pack)
    }

    /// Entries that are in no segment yet.
    pub fn table_len(&self) -> usize {
        let state = self.state.read();
        state.recent.len() + state.frozen.as_ref().map_or(0, |frozen| frozen.len())
    }

    /// Whether the table has grown to where its owner should flush it.
    pub fn flush_due(&self) -> bool {
        self.state.read().recent.len() >= self.options.table_entries_max
    }

    /// Writes the table into a segment, durable on return, and serves it from there; `None` if there was nothing to write.
    pub fn flush(&self) -> Result<Option<SegmentId>> {
        let _flushing = self.flushing.lock();
        let frozen = {
            let mut state = self.state.write();
            if state.recent.is_empty() {
                return Ok(None);
            }
            let frozen = std::mem::take(&mut state.recent);
            state.frozen = Some(frozen.clone());
            frozen
        };
        let written = self.write_segment(&frozen);
        drop(frozen);
        let mut state = self.state.write();
        let frozen = state.frozen.take();
        match written {
            Ok(segment) => {
                let id = segment.id();
                state.segments.push(Arc::new(segment));
                Ok(Some(id))
            }
            Err(error) => {
                if let Some(frozen) = frozen {
                    let mut frozen = Arc::unwrap_or_clone(frozen);
                    frozen.forget_packs(&state.deleted);
                    Arc::make_mut(&mut state.recent).absorb_older(frozen);
                }
                Err(error)
            }
        }
    }

    fn write_segment(&self, recent: &Recent) -> Result<Segment> {
        let packs = recent.packs().iter().map(|row| (row.pack, row.epoch, row.kind));
        let Source { backend, keyring } = self.source.clone();
        let entry_count = recent.len() as u64;
        let mut writer = SegmentWriter::create(backend, keyring, entry_count, packs, recent.deleted().to_vec())?;
        recent.iter().try_for_each(|entry| writer.push(&entry))?;
        // Reads back what was just written: tail, tables and filter.
        let segment = Segment::open(&self.source, writer.finish()?, &self.cache)?;
        segment.load_filter(&self.source)?;
        Ok(segment)
    }

    /// Whether there are enough segments of one size to merge.
    pub fn merge_due(&self) -> bool {
        merge::due(&self.state.read().segments).is_some()
    }

    /// Merges the smallest tier that is due into one segment, durable on return; nothing if none is due.
    ///
    /// If only the filter of the merged segment could not be read back, the merge holds in spite of the error.
    /// The merged segments are to be kept until no head names them: see [`Self::take_superseded`].
    pub fn merge(&self) -> Result<()> {
        let _merging = self.merging.lock();
        let (inputs, deleted, kept) = {
            let state = self.state.read();
            let Some(inputs) = merge::due(&state.segments) else { return Ok(()) };
            let kept = state.tombstones_to_keep(&inputs);
            (inputs, state.deleted.clone(), kept)
        };
        let merged = merge::merge(&self.source, &inputs, &deleted, kept)?;
        let merged = merged.map(|id| Segment::open(&self.source, id, &self.cache)).transpose()?.map(Arc::new);
        self.state.write().replace(&inputs, merged.clone());
        // The filters of the inputs go before that of the merged segment comes: both at a time would be twice the memory
        // that the index is planned for. Until it is loaded, a lookup reads one page of the merged segment.
        drop(inputs);
        merged.map_or(Ok(()), |merged| merged.load_filter(&self.source))
    }

    /// Takes in segments that another process wrote, if they are not known. [`Error::Corrupt`] or [`Error::NotFound`] if one cannot be
    /// opened: its packs must then be listed.
    pub fn adopt(&self, segments: &[SegmentId]) -> Result<()> {
        let _still = self.hold_still();
        let mut known: HashSet<SegmentId> = self.segments_in_use().into_iter().collect();
        known.extend(self.state.read().merged.iter());
        for id in segments.iter().filter(|id| !known.contains(id)) {
            let segment = Segment::open(&self.source, *id, &self.cache)?;
            segment.load_filter(&self.source)?;
            let mut state = self.state.write();
            state.segments.push(Arc::new(segment));
            state.refresh_deleted();
        }
        Ok(())
    }

    /// The live segments, oldest first: what the next manifest names.
    pub fn segments(&self) -> Vec<SegmentId> {
        self.state.read().segments.iter().map(|segment| segment.id()).collect()
    }

    /// The live segments, and merged ones that somebody in this process may be reading.
    pub fn segments_in_use(&self) -> Vec<SegmentId> {
        let state = self.state.read();
        let superseded = state.superseded.iter().map(|(id, _)| *id);
        state.segments.iter().map(|segment| segment.id()).chain(superseded).collect()
    }

    /// No segment is written as long as this lives.
    pub fn hold_still(&self) -> impl Sized + '_ {
        (self.flushing.lock(), self.merging.lock())
    }

    /// Segments that were merged into others and are no longer read by this process, each given once: they are to be
    /// deleted after a head was published whose manifest does not name them.
    pub fn take_superseded(&self) -> Vec<SegmentId> {
        let mut state = self.state.write();
        let mut free = Vec::new();
        state.superseded.retain(|(id, segment)| {
            let in_use = segment.strong_count() > 0;
            if !in_use {
                free.push(*id);
            }
            in_use
        });
        free
    }

    /// Every pack that is not removed, with what the index knows of it, sorted by id.
    pub fn packs(&self, f: &mut dyn FnMut(PackId, PackStats) -> Result<()>) -> Result<()> {
        let Contents { tables, segments, deleted } = self.contents();
        let mut packs = BTreeMap::<PackId, PackStats>::new();
        let mut count = |pack, kind, entry_count, sealed_bytes| {
            if entry_count > 0 && !deleted.contains(&pack) {
                let stats = packs.entry(pack).or_insert(PackStats { kind, entry_count: 0, sealed_bytes: 0 });
                stats.entry_count += entry_count;
                stats.sealed_bytes += sealed_bytes;
            }
        };
        for segment in &segments {
            segment.for_each_pack(&self.source, &mut |row| {
                count(row.pack, row.kind, u64::from(row.entry_count), row.sealed_bytes);
                Ok(())
            })?;
        }
        for table in &tables {
            for entry in table.iter() {
                let (kind, location) = table.locate(&entry);
                count(location.pack, kind, 1, u64::from(location.length));
            }
        }
        packs.into_iter().try_for_each(|(pack, stats)| f(pack, stats))
    }

    /// Every entry whose pack is not removed, table by table and segment by segment, each in the order of ids.
    pub fn for_each_entry(&self, f: &mut dyn FnMut(PackId, &PackEntry) -> Result<()>) -> Result<()> {
        let Contents { tables, segments, deleted } = self.contents();
        let mut give = |id: BlobId, kind: BlobKind, location: Location| {
            let Location { pack, offset, length, plain_length, epoch } = location;
            match deleted.contains(&pack) {
                true => Ok(()),
                false => f(pack, &PackEntry { id, kind, offset, length, plain_length, epoch }),
            }
        };
        for table in &tables {
            for entry in table.iter() {
                let (kind, location) = table.locate(&entry);
                give(entry.id, kind, location)?;
            }
        }
        for segment in segments {
            let mut cursor = Cursor::new(segment.clone());
            while let Some(entry) = cursor.next(&self.source)? {
                let (kind, location) = segment.locate(&entry)?;
                give(entry.id, kind, location)?;
            }
        }
        Ok(())
    }

    /// Entries in all tables and segments, those of removed packs and repeats included.
    pub fn entry_count(&self) -> u64 {
        let state = self.state.read();
        let tables = state.recent.len() + state.frozen.as_ref().map_or(0, |frozen| frozen.len());
        tables as u64 + state.segments.iter().map(|segment| segment.entry_count()).sum::<u64>()
    }

    /// Memory that the segments hold for good; page cache and table come on top.
    pub fn segment_memory_bytes(&self) -> usize {
        self.state.read().segments.iter().map(|segment| segment.memory_bytes()).sum()
    }

    /// Reads every byte of every segment and names the damaged ones.
    pub fn verify(&self, damaged: &mut dyn FnMut(SegmentId, Error)) -> Result<()> {
        let segments = self.state.read().segments.clone();
        for segment in segments {
            match segment.verify(&self.source) {
                Err(error) if error.is_damage() || matches!(error, Error::NotFound { .. }) => {
                    damaged(segment.id(), error);
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn contents(&self) -> Contents {
        let state = self.state.read();
        let tables = [state.recent.clone()].into_iter().chain(state.frozen.clone()).collect();
        Contents { tables, segments: state.segments.clone(), deleted: state.deleted.clone() }
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (segments, table_len) = (self.segments(), self.table_len());
        f.debug_struct("Index").field("segments", &segments).field("table_len", &table_len).finish_non_exhaustive()
    }
}

impl State {
    /// The tombstones of `inputs` that something else than `inputs` may still need.
    fn tombstones_to_keep(&self, inputs: &[Arc<Segment>]) -> Vec<PackId> {
        let is_input = |segment: &Arc<Segment>| inputs.iter().any(|input| Arc::ptr_eq(input, segment));
        let mut tombstones: HashSet<PackId> = inputs.iter().flat_map(|segment| segment.deleted()).copied().collect();
        let others = self.segments.iter().filter(|segment| !is_input(segment)).flat_map(|segment| segment.packs());
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.packs());
        let needed: HashSet<_> =
            others.chain(frozen).map(|row| row.pack).filter(|pack| tombstones.contains(pack)).collect();
        tombstones.retain(|pack| needed.contains(pack));
        let mut sorted: Vec<PackId> = tombstones.into_iter().collect();
        sorted.sort_unstable();
        sorted
    }

    /// Serves `merged` in place of `inputs`, where the newest of them was.
    fn replace(&mut self, inputs: &[Arc<Segment>], merged: Option<Arc<Segment>>) {
        let is_input = |segment: &Arc<Segment>| inputs.iter().any(|input| Arc::ptr_eq(input, segment));
        let newest = self.segments.iter().rposition(is_input).map_or(0, |at| at + 1);
        if let Some(merged) = merged {
            self.segments.insert(newest, merged);
        }
        self.segments.retain(|segment| !is_input(segment));
        self.merged.extend(inputs.iter().map(|segment| segment.id()));
        self.superseded.extend(inputs.iter().map(|segment| (segment.id(), Arc::downgrade(segment))));
        self.refresh_deleted();
    }

    /// Drops tables and segments; the latter count as merged, so that nobody takes them in again.
    fn forget_all(&mut self) {
        let segments = std::mem::take(&mut self.segments);
        self.merged.extend(segments.iter().map(|segment| segment.id()));
        (self.recent, self.frozen) = (Arc::default(), None);
        self.refresh_deleted();
    }

    fn refresh_deleted(&mut self) {
        let tables = self.frozen.iter().map(|frozen| frozen.as_ref()).chain([self.recent.as_ref()]);
        let in_tables = tables.flat_map(|table| table.deleted());
        let in_segments = self.segments.iter().flat_map(|segment| segment.deleted());
        self.deleted = Arc::new(in_tables.chain(in_segments).copied().collect());
    }
}

#[cfg(test)]
mod tests;
