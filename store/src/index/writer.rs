//! Writing a segment front to back from sorted entries, in bounded memory.
//!
//! *Invariants*
//! 1. Entries are taken in ascending order of ids only.
//! 2. A segment appears under its name whole and durable, or not at all; what was begun and not finished is removed.
//! 3. Nothing is written unsealed, not even what is put aside for a moment (F8).
//!
//! *Ordering*: F1: the caller hands over only entries whose packs are durable; when [`SegmentWriter::finish`] returns, so
//! is the segment.
//!
//! *Bounds*: a page of each kind, [`OUTPUT_BYTES`] of output, 8 bytes a page of entries for the fence, the pack table, and
//! [`FILTER_MEMORY_MAX`] of sealed filter pages. Filter pages lie behind the entries but are complete while those are
//! written, so what is more than that waits in a second open object.

use std::sync::Arc;

use blake3::Hasher;

use super::filter::{Block, FilterBuilder, block_count};
use crate::{
    backend::{Backend, ObjectName, OpenObject},
    crypto::{Keyring, NONCE_LENGTH, Purpose, SEAL_OVERHEAD, fill_random, random},
    error::{Error, Result},
    format::segment::{
        IndexEntry, PAGE_LENGTH, PackRow, SEGMENT_ENTRY_COUNT_MAX, SEGMENT_TAIL_LENGTH, Section, SegmentTail,
        page_binding, sort_key, tail_binding,
    },
    id::{BlobId, BlobKind, PackId, SegmentId},
};

/// Bytes of output that are collected before they are appended.
const OUTPUT_BYTES: usize = 128 << 10;
/// Bytes of sealed filter pages kept in memory; more of them wait on disk.
const FILTER_MEMORY_MAX: usize = 4 << 20;

/// A segment being written.
pub struct SegmentWriter {
    backend: Arc<dyn Backend>,
    sealer: PageSealer,
    output: Output,
    entries: PageBuffer,
    filter: FilterBuilder,
    filter_blocks: PageBuffer,
    filter_pages: Aside,
    fence: Vec<u64>,
    packs: Vec<PackRow>,
    deleted: Vec<PackId>,
    entry_count: u64,
    entry_count_max: u64,
    last: Option<BlobId>,
}

impl SegmentWriter {
    /// Begins a segment of at most `entry_count_max` entries that name `packs` by number, and of tombstones.
    ///
    /// A pack is given with the key epoch and kind of its blobs; one that has blobs of several epochs is given for each.
    pub fn create(
        backend: Arc<dyn Backend>,
        keyring: Arc<Keyring>,
        entry_count_max: u64,
        packs: impl IntoIterator<Item = (PackId, u32, BlobKind)>,
        deleted: Vec<PackId>,
    ) -> Result<Self> {
        assert!(entry_count_max <= SEGMENT_ENTRY_COUNT_MAX, "a merge is planned within the limit of entries");
        let row = |(pack, epoch, kind)| PackRow { pack, epoch, kind, entry_count: 0, sealed_bytes: 0 };
        let size_hint = entry_count_max * IndexEntry::LENGTH as u64;
        let output = match backend.create_open(size_hint) {
            // Without a reservation it can use what is set aside for a full disk (P6).
            Err(Error::NoSpace { .. }) => backend.create_open(0)?,
            created => created?,
        };
        Ok(Self {
            output: Output::new(output),
            sealer: PageSealer { keyring, salt: random() },
            entries: PageBuffer::new(Section::Entries),
            filter: FilterBuilder::new(block_count(entry_count_max)),
            filter_blocks: PageBuffer::new(Section::Filter),
            filter_pages: Aside::default(),
            fence: Vec::new(),
            packs: packs.into_iter().map(row).collect(),
            deleted,
            entry_count: 0,
            entry_count_max,
            last: None,
            backend,
        })
    }

    /// Takes the next entry.
    ///
    /// # Panics
    /// If its id is below the one before, its pack number names none, or it is one too many.
    pub fn push(&mut self, entry: &IndexEntry) -> Result<()> {
        assert!(self.last.is_none_or(|last| last <= entry.id), "entries of a segment are sorted");
        assert!(self.entry_count < self.entry_count_max, "a segment holds at most what was announced");
        let row = &mut self.packs[entry.pack_number as usize];
        row.entry_count += 1;
        row.sealed_bytes += u64::from(entry.length);
        if self.entries.is_empty() {
            self.fence.push(sort_key(&entry.id));
        }
        let Self { sealer, output, entries, filter, filter_blocks, filter_pages, backend, .. } = self;
        entries.push(&entry.encode(), sealer, &mut |page| output.write(page))?;
        filter.insert(&entry.id, &mut |block: &Block| {
            filter_blocks.push(block, sealer, &mut |page| filter_pages.write(backend.as_ref(), page))
        })?;
        self.entry_count += 1;
        self.last = Some(entry.id);
        Ok(())
    }

    /// Ends the segment and publishes it: durable on return.
    pub fn finish(mut self) -> Result<SegmentId> {
        if self.entry_count == 0 {
            self.packs.clear();
            self.filter = FilterBuilder::new(0);
        }
        let tail = SegmentTail {
            salt: self.sealer.salt,
            entry_count: self.entry_count,
            filter_block_count: self.filter.block_count(),
            pack_count: self.packs.len() as u32,
            deleted_count: self.deleted.len() as u32,
        };
        let Self { sealer, mut output, mut entries, filter, mut filter_blocks, mut filter_pages, backend, .. } = self;
        entries.finish(&sealer, &mut |page| output.write(page))?;
        let mut put_aside = |page: &[u8]| filter_pages.write(backend.as_ref(), page);
        filter.finish(&mut |block: &Block| filter_blocks.push(block, &sealer, &mut put_aside))?;
        filter_blocks.finish(&sealer, &mut put_aside)?;
        filter_pages.copy_to(&mut output)?;

        write_section(Section::Fence, self.fence.iter().map(|key| key.to_le_bytes()), &sealer, &mut output)?;
        write_section(Section::Packs, self.packs.iter().map(PackRow::encode), &sealer, &mut output)?;
        write_section(Section::Deleted, self.deleted.iter().map(|pack| pack.0), &sealer, &mut output)?;

        let length = tail.segment_length();
        output.pad_to(length - SEGMENT_TAIL_LENGTH as u64)?;
        output.write(&sealer.keyring.seal(Purpose::Segment, &tail_binding(length), &tail.encode()))?;
        output.publish(length)
    }
}

fn write_section<const N: usize>(
    section: Section,
    units: impl Iterator<Item = [u8; N]>,
    sealer: &PageSealer,
    output: &mut Output,
) -> Result<()> {
    let mut pages = PageBuffer::new(section);
    for unit in units {
        pages.push(&unit, sealer, &mut |page| output.write(page))?;
    }
    pages.finish(sealer, &mut |page| output.write(page))
}

/// Seals pages of one segment.
struct PageSealer {
    keyring: Arc<Keyring>,
    salt: [u8; 16],
}

/// Collects units of one section until they fill a page.
struct PageBuffer {
    section: Section,
    number: u32,
    /// Room for the nonce, then the units.
    bytes: Vec<u8>,
}

impl PageBuffer {
    fn new(section: Section) -> Self {
        let mut bytes = Vec::with_capacity(PAGE_LENGTH);
        bytes.resize(NONCE_LENGTH, 0);
        Self { section, number: 0, bytes }
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() == NONCE_LENGTH
    }

    fn push(&mut self, unit: &[u8], sealer: &PageSealer, sealed: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        debug_assert_eq!(unit.len(), self.section.unit_length());
        self.bytes.extend_from_slice(unit);
        if self.bytes.len() + unit.len() > PAGE_LENGTH - (SEAL_OVERHEAD - NONCE_LENGTH) {
            self.finish(sealer, sealed)?;
        }
        Ok(())
    }

    fn finish(&mut self, sealer: &PageSealer, sealed: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.bytes.resize(PAGE_LENGTH, 0);
        let binding = page_binding(&sealer.salt, self.section, self.number);
        sealer.keyring.seal_slice(Purpose::Segment, &binding, &mut self.bytes);
        sealed(&self.bytes)?;
        self.bytes.clear();
        self.bytes.resize(NONCE_LENGTH, 0);
        self.number += 1;
        Ok(())
    }
}

/// An open object that is removed unless it is published.
#[derive(Default)]
struct Unpublished(Option<Box<dyn OpenObject>>);

impl Drop for Unpublished {
    fn drop(&mut self) {
        if let Some(object) = &self.0 {
            object.discard();
        }
    }
}

/// The segment's bytes on their way: hashed, then appended in large pieces.
struct Output {
    object: Unpublished,
    hasher: Hasher,
    waiting: Vec<u8>,
    length: u64,
}

impl Output {
    fn new(object: Box<dyn OpenObject>) -> Self {
        let object = Unpublished(Some(object));
        Self { object, hasher: Hasher::new(), waiting: Vec::with_capacity(OUTPUT_BYTES), length: 0 }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= OUTPUT_BYTES {
            self.append()?;
        }
        Ok(())
    }

    fn append(&mut self) -> Result<()> {
        self.hasher.update(&self.waiting);
        if let Some(object) = &self.object.0 {
            object.append(&self.waiting)?;
        }
        self.waiting.clear();
        Ok(())
    }

    fn pad_to(&mut self, length: u64) -> Result<()> {
        let mut noise = vec![0; OUTPUT_BYTES];
        while self.length < length {
            let part = &mut noise[..(length - self.length).min(OUTPUT_BYTES as u64) as usize];
            fill_random(part);
            self.write(part)?;
        }
        Ok(())
    }

    fn publish(mut self, length: u64) -> Result<SegmentId> {
        assert_eq!(self.length, length, "a segment has the length that its tail names");
        self.append()?;
        let id = SegmentId(*self.hasher.finalize().as_bytes());
        if let Some(object) = &self.object.0 {
            // A name that is taken holds these very bytes: the name is their hash.
            object.publish(&ObjectName::segment(&id))?;
        }
        self.object.0 = None;
        Ok(id)
    }
}

/// Sealed pages that belong further back: in memory, or in an open object once they are many.
#[derive(Default)]
struct Aside {
    memory: Vec<u8>,
    object: Unpublished,
}

impl Aside {
    fn write(&mut self, backend: &dyn Backend, page: &[u8]) -> Result<()> {
        self.memory.extend_from_slice(page);
        if self.memory.len() < FILTER_MEMORY_MAX {
            return Ok(());
        }
        if self.object.0.is_none() {
            self.object.0 = Some(backend.create_open(0)?);
        }
        if let Some(object) = &self.object.0 {
            object.append(&self.memory)?;
        }
        self.memory.clear();
        Ok(())
    }

    fn copy_to(&mut self, output: &mut Output) -> Result<()> {
        if let Some(object) = &self.object.0 {
            let mut at = 0;
            while at < object.len() {
                let length = (object.len() - at).min(OUTPUT_BYTES as u64) as u32;
                output.write(&object.read_at(at, length)?)?;
                at += u64::from(length);
            }
        }
        output.write(&self.memory)
    }
}
