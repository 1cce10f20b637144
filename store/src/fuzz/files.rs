//! Targets for what is read in parts: packs, index segments, journals. Each makes a file out of its input, sealed part by
//! part, and reads it as the store does.

use std::{path::Path, sync::Arc};

use super::{Input, KEYRING, volume};
use crate::{
    backend::{Backend, MemoryBackend, ObjectName},
    crypto::{Purpose, SEAL_OVERHEAD},
    disk::{Disk, MemoryDisk},
    error::{Error, Result},
    format::{
        journal::{BLOCK_BYTES, CommitHeader, CommitId, HEADER_BYTES, Place, blocks_for, body_aad, header_aad},
        pack::{PACK_TAIL_LENGTH, PACK_TAIL_PLAIN_LENGTH, PackTail, decode_trailer, encode_trailer, tail_binding},
        segment::{
            IndexEntry, PAGE_PLAIN_LENGTH, PackRow, SEGMENT_TAIL_PLAIN_LENGTH, Section, SegmentTail, page_binding,
            sort_key,
        },
    },
    id::{BlobId, BlobKind, HeadHash, PackId, SegmentId},
    index::{Index, IndexOptions},
    journal::{Journal, JournalOptions},
    pack::{PackBuilder, PackEntry, read_trailer, verify_pack},
};

/// Packs whose blobs take more than this have nothing but an end.
const BLOBS_BYTES_MAX: u32 = 64 << 10;

/// Length of the padding (one byte), tail, trailer.
pub(super) fn pack(data: &[u8]) -> bool {
    let mut input = Input(data);
    let padding = usize::from(input.u8());
    let (tail_plain, trailer_plain) = (input.array::<PACK_TAIL_PLAIN_LENGTH>(), input.0);
    let number = |at: usize| u32::from_le_bytes(Input(&tail_plain[at..]).array());
    let (blobs_length, entry_count) = (number(24), number(28));
    let end_length = padding + trailer_plain.len() + SEAL_OVERHEAD + PACK_TAIL_LENGTH;
    let length = u64::from(blobs_length) + end_length as u64;
    let salt = Input(&tail_plain[8..]).array();
    // The binding of the trailer as a writer of this tail would make it.
    let binding = PackTail { kind: BlobKind::Data, salt, blobs_length, entry_count }.trailer_binding(length);
    let mut end = vec![0x55; padding];
    end.extend(KEYRING.seal(Purpose::PackTrailer, &binding, trailer_plain));
    end.extend(KEYRING.seal(Purpose::PackTail, &tail_binding(length), &tail_plain));
    let mut read = |offset: u64, length: u32| Ok(read_pack(&end, blobs_length.into(), offset, length));
    let tail = PackTail::decode(&tail_plain, length, "pack");
    if let Ok(tail) = &tail {
        assert_eq!(tail.encode(), tail_plain);
    }
    let found = read_trailer(&KEYRING, PackId([0; 32]), length, &mut read);
    let wanted = tail.and_then(|tail| decode_trailer(trailer_plain, &tail, "pack"));
    let Ok(entries) = found else { return false };
    assert_eq!(wanted.ok().as_ref(), Some(&entries));
    assert_eq!(encode_trailer(&entries), trailer_plain);
    assert!(entries.iter().all(|entry| entry.end() <= u64::from(blobs_length)));
    if blobs_length <= BLOBS_BYTES_MAX {
        let whole = read_pack(&end, blobs_length.into(), 0, length as u32);
        let id = PackId(*blake3::hash(&whole).as_bytes());
        let mut seen = Vec::new();
        let mut blob = |entry: &PackEntry, bytes: &[u8]| {
            assert_eq!(bytes.len(), entry.length as usize);
            seen.push(*entry);
            Ok(())
        };
        verify_pack(&KEYRING, id, length, &mut read, &mut blob).expect("the name is the hash of the bytes");
        assert_eq!(seen, entries);
    }
    true
}

/// A part of a file that has zeros before its end.
fn read_pack(end: &[u8], zeros: u64, offset: u64, length: u32) -> Vec<u8> {
    let (from, to) = (offset, offset + u64::from(length));
    assert!(to <= zeros + end.len() as u64, "nothing beyond the file is asked for");
    let mut bytes = vec![0; (to.min(zeros).saturating_sub(from)) as usize];
    let within = |at: u64| at.saturating_sub(zeros) as usize;
    bytes.extend_from_slice(&end[within(from)..within(to)]);
    bytes
}

pub(super) fn pack_seeds() -> Vec<Vec<u8>> {
    let seed = |lengths: &[usize], kind| {
        let mut builder = PackBuilder::new(KEYRING.clone(), kind);
        for (number, length) in lengths.iter().enumerate() {
            builder.push(BlobId([number as u8; 32]), 9, 0, &vec![7; *length]);
        }
        let blobs_length: usize = lengths.iter().sum();
        let tail =
            PackTail { kind, salt: [8; 16], blobs_length: blobs_length as u32, entry_count: lengths.len() as u32 };
        [&[3][..], &tail.encode(), &encode_trailer(&builder.finish().entries)].concat()
    };
    vec![seed(&[], BlobKind::Data), seed(&[41], BlobKind::Node), seed(&[100, 5000, 60_000], BlobKind::Data)]
}

/// Bits of the first byte of a segment.
const SORTED: u8 = 1;
const RIGHT_FENCE: u8 = 2;
const FULL_FILTER: u8 = 4;
const RAW_TAIL: u8 = 8;
const MERGED: u8 = 16;
const COUNTED: u8 = 32;

/// What a segment is made of.
struct SegmentParts {
    tail: SegmentTail,
    /// The plaintext of the tail.
    tail_plain: Vec<u8>,
    entries: Vec<IndexEntry>,
    /// The plaintext of each page, section by section.
    pages: Vec<(Section, u32, Vec<u8>)>,
}

/// Bits, number of entries (two bytes), filter blocks, packs and tombstones, a whole tail if a bit says so; then the units
/// of each section.
fn segment_parts(data: &[u8]) -> SegmentParts {
    let mut input = Input(data);
    let flags = input.u8();
    let mut tail = SegmentTail {
        salt: [6; 16],
        entry_count: u64::from(input.u16() % 400),
        filter_block_count: u32::from(input.u8()),
        pack_count: u32::from(input.u8()),
        deleted_count: u32::from(input.u8()),
    };
    let mut tail_plain = tail.encode();
    if flags & RAW_TAIL != 0 {
        tail_plain = input.array::<SEGMENT_TAIL_PLAIN_LENGTH>().to_vec();
        tail.salt = Input(&tail_plain[8..]).array();
    }
    let mut entries: Vec<IndexEntry> = (0..tail.entry_count).map(|_| IndexEntry::decode(&input.array())).collect();
    if flags & SORTED != 0 {
        entries.sort_by_key(|entry| entry.id);
    }
    let mut pages = Vec::new();
    for section in Section::ALL {
        let mut units: Vec<u8> = match section {
            Section::Entries => entries.iter().flat_map(IndexEntry::encode).collect(),
            Section::Filter if flags & FULL_FILTER != 0 => vec![0xff; 64 * tail.filter_block_count as usize],
            Section::Fence if flags & RIGHT_FENCE != 0 => {
                let firsts = entries.chunks(Section::Entries.page_units()).map(|page| sort_key(&page[0].id));
                firsts.flat_map(u64::to_le_bytes).collect()
            }
            _ => {
                let mut units = input.take(tail.unit_count(section) as usize * section.unit_length()).to_vec();
                units.resize(tail.unit_count(section) as usize * section.unit_length(), 0);
                units
            }
        };
        if section == Section::Packs && flags & COUNTED != 0 {
            count_packs(&mut units, &entries);
        }
        let page_bytes = section.page_units() * section.unit_length();
        pages.extend((0..).zip(units.chunks(page_bytes)).map(|(number, page)| (section, number, page.to_vec())));
    }
    SegmentParts { tail, tail_plain, entries, pages }
}

/// Makes the rows say what the entries do.
fn count_packs(rows: &mut [u8], entries: &[IndexEntry]) {
    for (number, row) in (0..).zip(rows.as_chunks_mut::<{ PackRow::LENGTH }>().0) {
        let of_row = || entries.iter().filter(|entry| entry.pack_number == number);
        row[36] = row[36] % 2 + 1;
        row[37..40].fill(0);
        row[40..44].copy_from_slice(&(of_row().count() as u32).to_le_bytes());
        row[44..48].fill(0);
        row[48..].copy_from_slice(&of_row().map(|entry| u64::from(entry.length)).sum::<u64>().to_le_bytes());
    }
}

impl SegmentParts {
    /// The file, under another salt for each number.
    fn seal(&self, number: u8) -> Vec<u8> {
        let (mut salt, mut tail_plain) = (self.tail.salt, self.tail_plain.clone());
        salt[15] ^= number;
        tail_plain[23] ^= number;
        let mut bytes = Vec::new();
        for (section, page, plain) in &self.pages {
            let mut plain = plain.clone();
            plain.resize(PAGE_PLAIN_LENGTH, 0);
            bytes.extend(KEYRING.seal(Purpose::Segment, &page_binding(&salt, *section, *page), &plain));
        }
        let length = self.tail.segment_length();
        bytes.resize(length as usize - SEGMENT_TAIL_PLAIN_LENGTH - SEAL_OVERHEAD, 0x55);
        let binding = crate::format::segment::tail_binding(length);
        bytes.extend(KEYRING.seal(Purpose::Segment, &binding, &tail_plain));
        bytes
    }
}

pub(super) fn segment(data: &[u8]) -> bool {
    let parts = segment_parts(data);
    let backend = MemoryBackend::new();
    let copies = if data.first().is_some_and(|flags| flags & MERGED != 0) { 8 } else { 1 };
    let store = |number| {
        let bytes = parts.seal(number);
        let id = SegmentId(*blake3::hash(&bytes).as_bytes());
        backend.put_new(&ObjectName::segment(&id), &bytes).expect("memory takes everything");
        id
    };
    let ids: Vec<SegmentId> = (0..copies).map(store).collect();
    let options = IndexOptions { page_cache_bytes: 64 << 10, ..IndexOptions::default() };
    let open = || Index::open(Arc::new(backend.clone()), KEYRING.clone(), &ids, options.clone());
    let Ok(index) = open() else { return false };
    assert_eq!(index.entry_count(), copies as u64 * parts.tail.entry_count);
    let mut damage = 0;
    index.verify(&mut |_, _| damage += 1).expect("memory fails no read");
    let some = || parts.entries.iter().step_by(37).map(|entry| entry.id).chain([BlobId([0x80; 32])]);
    let counted = some().filter(|id| index.lookup(id).is_ok_and(|found| !found.is_empty())).count();
    let listed = index.for_each_entry(&mut |_, _| Ok(())).is_ok() && index.packs(&mut |_, _| Ok(())).is_ok();
    let deleted = parts.tail.deleted_count > 0;
    if damage == 0 {
        assert!(listed, "what is verified can be listed");
        assert!(deleted || counted == some().filter(|id| known_to(&parts, id)).count(), "what is verified is found");
    }
    if copies > 1 && index.merge().is_ok() && damage == 0 && !deleted {
        assert!(some().all(|id| index.lookup(&id).is_ok_and(|found| found.is_empty() != known_to(&parts, &id))));
        index.verify(&mut |_, error| panic!("a merged segment is damaged: {error}")).expect("memory fails no read");
    }
    true
}

fn known_to(parts: &SegmentParts, id: &BlobId) -> bool {
    parts.entries.iter().any(|entry| entry.id == *id)
}

pub(super) fn segment_seeds() -> Vec<Vec<u8>> {
    let entry = |number: u32| IndexEntry {
        id: BlobId(*blake3::hash(&(number % 97).to_le_bytes()).as_bytes()),
        pack_number: number % 2,
        offset: 100 * number,
        length: 90 + number,
        plain_length: 200,
    };
    let (kind, row) = (BlobKind::Data, |number| PackId([number; 32]));
    let row = |number| PackRow { pack: row(number), epoch: 0, kind, entry_count: 0, sealed_bytes: 0 }.encode();
    let seed = |flags: u8, entry_count: u16, deleted: u8| {
        let filled = u8::from(entry_count > 0);
        let counts = [&[flags][..], &entry_count.to_le_bytes(), &[5 * filled, 2 * filled, deleted]].concat();
        let entries = (0..u32::from(entry_count)).flat_map(|number| entry(number).encode());
        let rows = [row(1), row(2)].concat();
        let tombstones = vec![9; 32 * usize::from(deleted)];
        counts.into_iter().chain(entries).chain(rows).chain(tombstones).collect()
    };
    let right = SORTED | RIGHT_FENCE | FULL_FILTER | COUNTED;
    vec![seed(right, 3, 1), seed(right, 0, 2), seed(right, 90, 0), seed(right | MERGED, 5, 0)]
}

/// Heads that commits may follow, the newest first, and one that is unknown.
const HEADS: [HeadHash; 3] = [HeadHash([4; 32]), HeadHash([5; 32]), HeadHash([6; 32])];
const SEGMENT_BYTES: usize = 8 * BLOCK_BYTES;
/// The head of the volume covers the commits up to this one.
const COVERED: u64 = 3;

/// Bits of the first byte of a commit.
const RAW_HEADER: u8 = 1;
const TORN: u8 = 2;
const WRONG_LENGTH: u8 = 4;

/// Commits, each one: bits, place (segment in bits 6 and 7, block), then the header in short or in full, and a payload.
pub(super) fn journal(data: &[u8]) -> bool {
    let mut segments = [vec![0; SEGMENT_BYTES], vec![0; SEGMENT_BYTES], vec![0; SEGMENT_BYTES / 2]];
    let mut input = Input(data);
    let mut forged = false;
    while !input.0.is_empty() {
        forged |= input.0[0] & RAW_HEADER != 0;
        put_commit(&mut input, &mut segments);
    }
    let (disk, dir) = (MemoryDisk::new(), Path::new("/journal/main"));
    for path in ["/journal", "/journal/main"] {
        disk.create_dir(Path::new(path)).expect("the disk is new");
    }
    for (number, bytes) in (1..).zip(&segments) {
        let file = disk.create_new(&dir.join(format!("{number:016x}"))).expect("the disk is new");
        file.write_all_at(bytes, 0).expect("the disk is new");
    }
    let mut read = Vec::new();
    let mut replay = |number: u64, payload: &[u8]| {
        read.push((number, payload.to_vec()));
        Ok(())
    };
    let recovery = Journal::read(&disk, dir, KEYRING.clone(), &volume(), COVERED, &HEADS[..2], &mut replay);
    let recovery = recovery.expect("only replay can fail");
    assert_eq!(recovery.commits, read.len() as u64);
    assert!((COVERED + 1..).zip(&read).all(|(wanted, (number, _))| wanted == *number));
    assert_eq!(recovery.last_commit, COVERED + recovery.commits);
    assert!(recovery.newest_seen >= recovery.last_commit);
    go_on(&disk, dir, &read, recovery.damage.is_some(), forged);
    recovery.commits > 0
}

/// Opens the journal for writing: what was read is read again, and what is appended to it comes back as well, unless headers
/// were forged, which may name any session and any commit before.
fn go_on(disk: &MemoryDisk, dir: &Path, before: &[(u64, Vec<u8>)], damaged: bool, forged: bool) {
    let options = JournalOptions { segment_bytes: SEGMENT_BYTES as u64, segments_max: 4 };
    let open = |found: &mut Vec<(u64, Vec<u8>)>| {
        let mut replay = |number: u64, payload: &[u8]| {
            found.push((number, payload.to_vec()));
            Ok(())
        };
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        Journal::open(disk, dir, KEYRING.clone(), &volume(), options, COVERED, &HEADS[..2], &mut replay)
    };
    let mut found = Vec::new();
    // A journal that cannot grow is refused with an error.
    let Ok((journal, recovery)) = open(&mut found) else { return };
    assert_eq!((found.as_slice(), recovery.damage.is_some()), (before, damaged));
    let _ = journal.free_bytes();
    let appended: Result<u64> = journal.append(b"appended");
    match appended {
        Ok(number) => found.push((number, b"appended".to_vec())),
        Err(Error::JournalFull { .. }) => {}
        Err(error) => return assert!(damaged || !matches!(error, Error::Poisoned { .. }), "{error}"),
    }
    assert!(!damaged, "nothing is written to a damaged journal");
    let mut again = Vec::new();
    open(&mut again).expect("it opened before");
    assert!(forged || again.starts_with(&found));
}

fn put_commit(input: &mut Input<'_>, segments: &mut [Vec<u8>; 3]) {
    let (flags, place) = (input.u8(), input.u8());
    let at = usize::from(place >> 6) % segments.len();
    let blocks = segments[at].len() / BLOCK_BYTES;
    let block = u32::from(place & 63) % blocks as u32;
    let place = Place { segment: at as u64 + 1, block };
    let header = match flags & RAW_HEADER {
        0 => short_header(input, blocks as u32),
        _ => input.array::<{ HEADER_BYTES - SEAL_OVERHEAD }>().to_vec(),
    };
    let told = u32::from_le_bytes(Input(&header[96..]).array()) as usize;
    let length = if flags & WRONG_LENGTH == 0 { told } else { usize::from(input.u16()) };
    let length = length.min(SEGMENT_BYTES);
    let given = input.take(length.min(64));
    let mut body = given.to_vec();
    body.resize(blocks_for(length) as usize * BLOCK_BYTES - HEADER_BYTES - SEAL_OVERHEAD, 0);
    let header = KEYRING.seal(Purpose::Journal, &header_aad(&volume(), place), &header);
    let body = KEYRING.seal(Purpose::Journal, &body_aad(&header), &body);
    let mut bytes = [header, body].concat();
    if flags & TORN != 0 {
        bytes.truncate(BLOCK_BYTES);
        bytes[HEADER_BYTES] ^= 1;
    }
    let start = block as usize * BLOCK_BYTES;
    let room = segments[at].len() - start;
    bytes.truncate(room);
    segments[at][start..start + bytes.len()].copy_from_slice(&bytes);
}

/// Number, session, durable, head, identity, identity of the one before, length (two bytes), blocks that the segment lacks.
fn short_header(input: &mut Input<'_>, blocks: u32) -> Vec<u8> {
    let [number, session, durable, head, id, previous] = input.array();
    let identity = |byte: u8| if byte == 0 { CommitId::NONE } else { CommitId([byte; 16]) };
    let payload_length = u32::from(input.u16() % 9000);
    let missing = input.u8();
    let mut header = b"VLMJ\0\0\0\0".to_vec();
    for value in [number, session, durable].map(u64::from) {
        header.extend(value.to_le_bytes());
    }
    header.extend(HEADS[usize::from(head) % HEADS.len()].as_bytes());
    header.extend(identity(id).0);
    header.extend(identity(previous).0);
    header.extend(payload_length.to_le_bytes());
    header.extend((blocks + u32::from(missing / 128)).to_le_bytes());
    header
}

pub(super) fn journal_seeds() -> Vec<Vec<u8>> {
    // In short: number, session, durable, head, identity, the one before; length, blocks; payload.
    let commit = |place: u8, number: u8, length: u16| {
        let header = [number, 1, number - 1, 0, number, number - 1];
        [&[0, place][..], &header, &length.to_le_bytes(), &[0], &vec![number; usize::from(length.min(64))]].concat()
    };
    let whole = CommitHeader {
        number: 4,
        session: 1,
        durable: 3,
        head: HEADS[0],
        id: CommitId([4; 16]),
        previous: CommitId::NONE,
        payload_length: 10,
        segment_blocks: 8,
    };
    let sealed = whole.seal(&KEYRING, &volume(), Place { segment: 1, block: 0 }, &[1; 10]);
    let aad = header_aad(&volume(), Place { segment: 1, block: 0 });
    let header = KEYRING.unseal(Purpose::Journal, 0, &aad, &sealed[..HEADER_BYTES], "header");
    let header = header.expect("it was sealed right here");
    vec![
        [&[RAW_HEADER, 0][..], &header, &[1; 10]].concat(),
        [commit(0, 4, 10), commit(1, 5, 5000), commit(3, 6, 0)].concat(),
        [commit(0, 4, 64), commit(64, 5, 100), vec![TORN], commit(65, 6, 100)[1..].to_vec()].concat(),
    ]
}
