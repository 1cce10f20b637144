//! One index segment, open for lookups: its fence, pack table and filter in memory, its entries on disk.
//!
//! *Invariants*
//! 1. What is returned was unsealed as that page of that segment of this repository, under the segment's own salt.
//! 2. Damage is [`Error::Corrupt`] naming `index/<id>`, the section and the page.
//!
//! *Threads*: immutable after opening, but for the filter, which may be loaded later by any thread; until it is, every
//! lookup reads its page.
//!
//! *Bounds*: in memory 8 bytes a page of 84 entries, 40 bytes a pack, and the filter. Reading in order takes
//! [`READ_PAGES`] pages at a time.
//!
//! *Not here*: that the bytes have the hash which is the segment's name is known only from reading all of them
//! ([`Segment::verify`]); looking up does not depend on it.

use std::sync::{Arc, OnceLock};

use blake3::Hasher;

use super::{
    filter::Filter,
    location::Location,
    pages::{Owner, PageCache},
};
use crate::{
    backend::{Backend, ObjectName},
    crypto::{Keyring, Purpose},
    error::{Error, Result},
    format::segment::{
        IndexEntry, PAGE_LENGTH, PAGE_PLAIN_LENGTH, PackRow, SEGMENT_TAIL_LENGTH, Section, SegmentTail, page_binding,
        sort_key, tail_binding,
    },
    id::{BlobId, BlobKind, PackId, SegmentId},
    pack::unseal_any_epoch,
};

/// Pages read at a time where a section is read in order.
const READ_PAGES: u64 = 32;

/// Where segments are kept and what unseals them.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) keyring: Arc<Keyring>,
}

/// What entries of a segment share by naming the same row of its pack table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PackRef {
    pub(super) pack: PackId,
    pub(super) epoch: u32,
    pub(super) kind: BlobKind,
}

/// An open segment.
pub(super) struct Segment {
    id: SegmentId,
    name: ObjectName,
    length: u64,
    epoch: u32,
    tail: SegmentTail,
    packs: Vec<PackRef>,
    deleted: Vec<PackId>,
    fence: Vec<u64>,
    filter: OnceLock<Filter>,
    owner: Owner,
}

impl Segment {
    /// Reads the tail, the pack tables and the fence; not the filter.
    pub(super) fn open(source: &Source, id: SegmentId, cache: &PageCache) -> Result<Self> {
        let name = ObjectName::segment(&id);
        let object = name.as_str();
        let length = source.backend.length(&name)?;
        let length = length.ok_or_else(|| Error::NotFound { object: object.to_string() })?;
        let Some(tail_at) = length.checked_sub(SEGMENT_TAIL_LENGTH as u64) else {
            return Err(Error::corrupt(object, format!("no segment is {length} bytes long")));
        };
        let sealed = source.backend.get_range(&name, tail_at, SEGMENT_TAIL_LENGTH as u32)?;
        let binding = tail_binding(length);
        let (epoch, plain) = unseal_any_epoch(&source.keyring, Purpose::Segment, &binding, &sealed, object)?;
        let tail = SegmentTail::decode(&plain, length, object)?;
        let mut segment = Self {
            packs: Vec::with_capacity(tail.pack_count as usize),
            deleted: Vec::with_capacity(tail.deleted_count as usize),
            fence: Vec::with_capacity(tail.unit_count(Section::Fence) as usize),
            filter: OnceLock::new(),
            owner: cache.new_owner(),
            id,
            name,
            length,
            epoch,
            tail,
        };
        segment.load_tables(source)?;
        Ok(segment)
    }

    fn load_tables(&mut self, source: &Source) -> Result<()> {
        let (mut packs, mut deleted) = (std::mem::take(&mut self.packs), std::mem::take(&mut self.deleted));
        let mut fence = std::mem::take(&mut self.fence);
        self.for_each_pack(source, &mut |row| {
            packs.push(PackRef { pack: row.pack, epoch: row.epoch, kind: row.kind });
            Ok(())
        })?;
        let mut pages = PageReader::new(Section::Deleted);
        while let Some(page) = pages.next(self, source)? {
            deleted.extend(page.as_chunks().0.iter().map(|bytes| PackId(*bytes)));
        }
        let mut pages = PageReader::new(Section::Fence);
        while let Some(page) = pages.next(self, source)? {
            fence.extend(page.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)));
        }
        if !fence.is_sorted() {
            return Err(Error::corrupt(self.name.as_str(), "its fence is not in order"));
        }
        (self.packs, self.deleted, self.fence) = (packs, deleted, fence);
        Ok(())
    }

    /// Reads the filter, unless that was done.
    pub(super) fn load_filter(&self, source: &Source) -> Result<()> {
        if self.filter.get().is_some() {
            return Ok(());
        }
        let mut filter = Filter::with_capacity(self.tail.filter_block_count as usize);
        let mut pages = PageReader::new(Section::Filter);
        while let Some(page) = pages.next(self, source)? {
            filter.extend(page);
        }
        // Another thread may have been faster; both read the same blocks.
        let _ = self.filter.set(filter);
        Ok(())
    }

    /// Its name.
    pub(super) fn id(&self) -> SegmentId {
        self.id
    }

    /// Number of entries.
    pub(super) fn entry_count(&self) -> u64 {
        self.tail.entry_count
    }

    /// Tells segments apart that were written apart, whatever their names.
    pub(super) fn salt(&self) -> [u8; 16] {
        self.tail.salt
    }

    /// The packs that its entries name.
    pub(super) fn packs(&self) -> &[PackRef] {
        &self.packs
    }

    /// Its tombstones.
    pub(super) fn deleted(&self) -> &[PackId] {
        &self.deleted
    }

    /// Memory that it holds for good.
    pub(super) fn memory_bytes(&self) -> usize {
        self.filter.get().map_or(0, Filter::memory_bytes)
            + self.packs.capacity() * size_of::<PackRef>()
            + self.deleted.capacity() * size_of::<PackId>()
            + self.fence.capacity() * size_of::<u64>()
    }

    /// Hands every place of `id` in this segment to `found`; reads nothing if the filter rules the id out.
    pub(super) fn find(
        &self,
        source: &Source,
        cache: &PageCache,
        id: &BlobId,
        found: &mut dyn FnMut(Location),
    ) -> Result<()> {
        self.find_numbered(source, cache, id, &mut |_, location| found(location))
    }

    /// As [`Self::find`], with the number of each entry, in the order of the segment.
    pub(super) fn find_numbered(
        &self,
        source: &Source,
        cache: &PageCache,
        id: &BlobId,
        found: &mut dyn FnMut(u64, Location),
    ) -> Result<()> {
        if self.filter.get().is_some_and(|filter| !filter.may_contain(id)) {
            return Ok(());
        }
        let key = sort_key(id);
        // A page may end with the key that the next one starts with.
        let first = self.fence.partition_point(|start| *start < key).saturating_sub(1);
        let end = self.fence.partition_point(|start| *start <= key);
        for number in first..end {
            let page = match cache.get(self.owner, number as u32) {
                Some(page) => page,
                None => {
                    let page = Arc::new(self.read_page(source, Section::Entries, number as u64)?);
                    cache.put(self.owner, number as u32, page.clone());
                    page
                }
            };
            let entries = page.as_chunks::<{ IndexEntry::LENGTH }>().0;
            let from = entries.partition_point(|entry| entry[..BlobId::LENGTH] < id.0[..]);
            let same = entries[from..].iter().take_while(|entry| entry[..BlobId::LENGTH] == id.0[..]);
            for (at, entry) in ((number * Section::Entries.page_units() + from) as u64..).zip(same) {
                found(at, self.locate(&IndexEntry::decode(entry))?.1);
            }
        }
        Ok(())
    }

    /// The kind and place of an entry of this segment.
    pub(super) fn locate(&self, entry: &IndexEntry) -> Result<(BlobKind, Location)> {
        let IndexEntry { offset, length, plain_length, .. } = *entry;
        let row = self.packs.get(entry.pack_number as usize);
        let row = row.ok_or_else(|| Error::corrupt(self.name.as_str(), "an entry names no row of the pack table"))?;
        Ok((row.kind, Location { pack: row.pack, offset, length, plain_length, epoch: row.epoch }))
    }

    /// Reads the pack table with its counts.
    pub(super) fn for_each_pack(&self, source: &Source, f: &mut dyn FnMut(PackRow) -> Result<()>) -> Result<()> {
        let mut pages = PageReader::new(Section::Packs);
        while let Some(page) = pages.next(self, source)? {
            for row in page.as_chunks::<{ PackRow::LENGTH }>().0 {
                f(PackRow::decode(row, self.name.as_str())?)?;
            }
        }
        Ok(())
    }

    /// Reads every byte: proves the name, unseals every page, and compares fence, filter and counts with the entries.
    pub(super) fn verify(&self, source: &Source) -> Result<()> {
        self.verify_hash(source)?;
        self.load_filter(source)?;
        let damage = |what: &str| Err(Error::corrupt(self.name.as_str(), what));
        let mut counts = vec![(0u32, 0u64); self.packs.len()];
        let (mut pages, mut before, mut number) = (PageReader::new(Section::Entries), None, 0);
        while let Some(page) = pages.next(self, source)? {
            let entries = page.as_chunks::<{ IndexEntry::LENGTH }>().0;
            for (at, entry) in entries.iter().map(IndexEntry::decode).enumerate() {
                self.locate(&entry)?;
                if before.is_some_and(|before| before > entry.id) {
                    return damage("its entries are not in order");
                }
                if at == 0 && self.fence[number] != sort_key(&entry.id) {
                    return damage("its fence does not match its entries");
                }
                if self.filter.get().is_some_and(|filter| !filter.may_contain(&entry.id)) {
                    return damage("its filter lacks an entry");
                }
                let count = &mut counts[entry.pack_number as usize];
                (count.0, count.1) = (count.0.wrapping_add(1), count.1 + u64::from(entry.length));
                before = Some(entry.id);
            }
            number += 1;
        }
        let mut counts = counts.into_iter();
        self.for_each_pack(source, &mut |row| match counts.next() {
            Some(count) if count == (row.entry_count, row.sealed_bytes) => Ok(()),
            _ => damage("its pack table does not match its entries"),
        })
    }

    fn verify_hash(&self, source: &Source) -> Result<()> {
        let (mut hasher, mut at) = (Hasher::new(), 0);
        while at < self.length {
            let length = (self.length - at).min(READ_PAGES * PAGE_LENGTH as u64);
            hasher.update(&self.read_range(source, at, length as u32)?);
            at += length;
        }
        if *hasher.finalize().as_bytes() != self.id.0 {
            return Err(Error::corrupt(self.name.as_str(), "its bytes do not have the hash that is its name"));
        }
        Ok(())
    }

    /// The units of one page.
    fn read_page(&self, source: &Source, section: Section, number: u64) -> Result<Vec<u8>> {
        let at = (self.tail.first_page(section) + number) * PAGE_LENGTH as u64;
        let mut sealed = self.read_range(source, at, PAGE_LENGTH as u32)?;
        let units_length = self.unseal_page(source, section, number, &mut sealed)?.len();
        sealed.copy_within(PLAIN_AT..PLAIN_AT + units_length, 0);
        sealed.truncate(units_length);
        Ok(sealed)
    }

    fn unseal_page<'a>(
        &self,
        source: &Source,
        section: Section,
        number: u64,
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8]> {
        let binding = page_binding(&self.tail.salt, section, number as u32);
        let plain = source
            .keyring
            .unseal_slice(Purpose::Segment, self.epoch, &binding, sealed, self.name.as_str())
            .map_err(|error| match error {
                Error::Corrupt { object, what } => {
                    Error::corrupt(object, format!("page {number} of its {}: {what}", section.name()))
                }
                other => other,
            })?;
        Ok(&plain[..self.tail.units_on_page(section, number) * section.unit_length()])
    }

    fn read_range(&self, source: &Source, at: u64, length: u32) -> Result<Vec<u8>> {
        let bytes = source.backend.get_range(&self.name, at, length)?;
        if bytes.len() != length as usize {
            return Err(Error::corrupt(self.name.as_str(), format!("{} of {length} bytes at {at}", bytes.len())));
        }
        Ok(bytes)
    }
}

/// Where the plaintext lies in an unsealed page.
const PLAIN_AT: usize = crate::crypto::NONCE_LENGTH;
const _: () = assert!(PAGE_PLAIN_LENGTH + crate::crypto::SEAL_OVERHEAD == PAGE_LENGTH);

/// Reads the pages of a section in order, several at a time.
pub(super) struct PageReader {
    section: Section,
    next: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl PageReader {
    /// Starts at the first page.
    pub(super) fn new(section: Section) -> Self {
        Self { section, next: 0, buffer: Vec::new(), taken: 0 }
    }

    /// The units of the next page, `None` after the last.
    pub(super) fn next(&mut self, segment: &Segment, source: &Source) -> Result<Option<&[u8]>> {
        let left = segment.tail.page_count(self.section) - self.next;
        if left == 0 {
            return Ok(None);
        }
        if self.taken == self.buffer.len() {
            let at = (segment.tail.first_page(self.section) + self.next) * PAGE_LENGTH as u64;
            self.buffer = segment.read_range(source, at, (left.min(READ_PAGES) * PAGE_LENGTH as u64) as u32)?;
            self.taken = 0;
        }
        let sealed = &mut self.buffer[self.taken..self.taken + PAGE_LENGTH];
        let units = segment.unseal_page(source, self.section, self.next, sealed)?;
        self.taken += PAGE_LENGTH;
        self.next += 1;
        Ok(Some(units))
    }
}
