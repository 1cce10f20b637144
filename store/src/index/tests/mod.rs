//! Tests of the index, against a map, with damaged and missing segments.

#![allow(clippy::unwrap_used)]

mod model;
mod shelf;

use std::{collections::HashSet, sync::LazyLock};

use self::shelf::Shelf;
use super::*;
use crate::{
    backend::ObjectName,
    crypto::MasterKey,
    format::segment::{IndexEntry, PAGE_LENGTH, SEGMENT_TAIL_LENGTH, Section},
    id::RepositoryId,
    pack::PackBuilder,
};

fn keyring() -> Arc<Keyring> {
    static KEYRING: LazyLock<Arc<Keyring>> =
        LazyLock::new(|| Arc::new(Keyring::new(&MasterKey::from_bytes(&[1; 32]), RepositoryId([2; 16]), 1)));
    KEYRING.clone()
}

fn options() -> IndexOptions {
    IndexOptions { page_cache_bytes: 1 << 16, table_entries_max: 100, load_filters_later: false }
}

fn open(shelf: &Shelf, segments: &[SegmentId]) -> Result<Index> {
    Index::open(Arc::new(shelf.clone()), keyring(), segments, options())
}

fn id(n: u64) -> BlobId {
    BlobId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn pack(n: u64) -> PackId {
    PackId(*blake3::hash(&[b"pack", &n.to_le_bytes()[..]].concat()).as_bytes())
}

/// The entries of a pack that holds these blobs.
fn entries(ids: impl IntoIterator<Item = u64>) -> Vec<PackEntry> {
    let mut offset = 0;
    ids.into_iter()
        .map(|n| {
            let length = 100 + (n % 50) as u32;
            let entry = PackEntry { id: id(n), kind: BlobKind::Data, offset, length, plain_length: 7, epoch: 1 };
            offset += length;
            entry
        })
        .collect()
}

/// A shelf with one segment of `count` blobs in packs of 40.
fn one_segment(count: u64) -> (Shelf, SegmentId) {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    for first in (0..count).step_by(40) {
        index.insert_pack(pack(first), &entries(first..count.min(first + 40)));
    }
    let segment = index.flush().unwrap().unwrap();
    (shelf, segment)
}

fn is_damage_of(error: &Error, segment: SegmentId) -> bool {
    error.is_damage() && error.to_string().contains(&format!("index/{segment}"))
}

#[test]
fn entries_are_found_in_the_table_after_a_flush_and_after_reopening() {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    let list = entries(0..500);
    index.insert_pack(pack(0), &list);
    assert!(index.flush_due());
    let check = |index: &Index| {
        for entry in &list {
            let found = index.lookup(&entry.id).unwrap();
            let expected = Location {
                pack: pack(0),
                offset: entry.offset,
                length: entry.length,
                plain_length: entry.plain_length,
                epoch: entry.epoch,
            };
            assert_eq!(*found, [expected]);
        }
        assert!((500..2000).all(|n| !index.contains(&id(n)).unwrap()));
        assert_eq!(index.entry_count(), 500);
    };
    check(&index);
    let segment = index.flush().unwrap().unwrap();
    assert_eq!((index.table_len(), index.flush_due(), index.flush().unwrap()), (0, false, None));
    check(&index);
    let reopened = open(&shelf, &[segment]).unwrap();
    check(&reopened);
    reopened.verify(&mut |segment, error| panic!("{segment}: {error}")).unwrap();
    assert_eq!(shelf.open_count(), 0);
}

#[test]
fn ids_never_seen_are_answered_without_reading() {
    let (shelf, segment) = one_segment(3000);
    let index = open(&shelf, &[segment]).unwrap();
    let before = shelf.range_reads();
    assert!((3000..13_000).all(|n| index.lookup(&id(n)).unwrap().is_empty()));
    let reads = shelf.range_reads() - before;
    // 16 bits an entry give 0.12 % false answers: 12 of 10,000 on average.
    assert!(reads < 60, "{reads} reads for 10,000 unknown ids");
    let later = IndexOptions { load_filters_later: true, ..options() };
    let index = Index::open(Arc::new(shelf.clone()), keyring(), &[segment], later).unwrap();
    assert!(index.contains(&id(1)).unwrap() && !index.contains(&id(5000)).unwrap());
    index.load_filters().unwrap();
    assert!(index.contains(&id(1)).unwrap() && !index.contains(&id(5000)).unwrap());
}

#[test]
fn pages_read_once_are_cached() {
    let (shelf, segment) = one_segment(500);
    let index = open(&shelf, &[segment]).unwrap();
    let lookup_all = || (0..500).for_each(|n| assert_eq!(index.lookup(&id(n)).unwrap().len(), 1));
    let before = shelf.range_reads();
    lookup_all();
    assert_eq!(shelf.range_reads() - before, 500u64.div_ceil(Section::Entries.page_units() as u64));
    lookup_all();
    assert_eq!(shelf.range_reads() - before, 6);
}

#[test]
fn a_blob_with_two_places_keeps_both_through_flush_and_merge() {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    for n in 0..8 {
        index.insert_pack(pack(2 * n), &entries([n, 100 + n]));
        index.insert_pack(pack(2 * n + 1), &entries([200 + n, n]));
        let newest_first = [pack(2 * n + 1), pack(2 * n)];
        let packs = |index: &Index| index.lookup(&id(n)).unwrap().iter().map(|at| at.pack).collect::<Vec<_>>();
        assert_eq!(packs(&index), newest_first);
        index.flush().unwrap();
        assert_eq!(packs(&index), newest_first);
    }
    assert!(index.merge_due());
    index.merge().unwrap();
    assert_eq!((index.segments().len(), index.entry_count()), (1, 32));
    for n in 0..8 {
        let places: Vec<_> = index.lookup(&id(n)).unwrap().iter().map(|at| (at.pack, at.offset)).collect();
        let second = entries([200 + n, n])[1].offset;
        assert_eq!(places, [(pack(2 * n + 1), second), (pack(2 * n), 0)]);
    }
}

#[test]
fn merging_frees_the_old_segments_and_loses_nothing() {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    let mut flushed = Vec::new();
    for n in 0..8 {
        index.insert_pack(pack(n), &entries(n * 100..n * 100 + 150));
        flushed.push(index.flush().unwrap().unwrap());
        assert_eq!(index.merge_due(), n == 7);
    }
    index.insert_pack(pack(8), &entries(5000..5010));
    index.merge().unwrap();
    let mut superseded = index.take_superseded();
    flushed.sort();
    superseded.sort();
    assert_eq!(superseded, flushed);
    assert!(index.take_superseded().is_empty());
    for segment in superseded {
        shelf.delete(&ObjectName::segment(&segment)).unwrap();
    }
    for n in 0..850u64 {
        let places = if (100..800).contains(&n) && n % 100 < 50 { 2 } else { 1 };
        assert_eq!(index.lookup(&id(n)).unwrap().len(), places, "blob {n}");
    }
    assert!(index.contains(&id(5003)).unwrap());
    index.verify(&mut |segment, error| panic!("{segment}: {error}")).unwrap();
    let mut packs = Vec::new();
    index
        .packs(&mut |pack, stats| {
            packs.push((pack, stats));
            Ok(())
        })
        .unwrap();
    assert_eq!(packs.len(), 9);
    assert!(packs.is_sorted_by_key(|(pack, _)| *pack));
    for (at, stats) in packs {
        let n = (0..9).find(|n| pack(*n) == at).unwrap();
        let list = if n == 8 { entries(5000..5010) } else { entries(n * 100..n * 100 + 150) };
        let sealed_bytes = list.iter().map(|entry| u64::from(entry.length)).sum();
        assert_eq!(stats, PackStats { kind: BlobKind::Data, entry_count: list.len() as u64, sealed_bytes });
    }
}

#[test]
fn a_segment_of_many_pages_with_a_filter_put_aside_is_whole() {
    let shelf = Shelf::default();
    let (count, backend) = (30_000u64, Arc::new(shelf.clone()));
    // Announcing far more than comes makes the filter large, as for a merge whose inputs repeat each other.
    let rows = [(pack(1), 0, BlobKind::Node)];
    let mut writer = SegmentWriter::create(backend, keyring(), 3_000_000, rows, vec![pack(2)]).unwrap();
    let mut ids: Vec<_> = (0..count).map(id).collect();
    ids.sort();
    for (n, id) in ids.iter().enumerate() {
        let entry = IndexEntry { id: *id, pack_number: 0, offset: n as u32, length: 50, plain_length: 1 };
        writer.push(&entry).unwrap();
    }
    let segment = writer.finish().unwrap();
    assert_eq!(shelf.open_count(), 0);
    let index = open(&shelf, &[segment]).unwrap();
    index.verify(&mut |segment, error| panic!("{segment}: {error}")).unwrap();
    assert!((0..count).step_by(7).all(|n| index.contains(&id(n)).unwrap()));
    assert_eq!(
        index.segment_memory_bytes(),
        (3_000_000 * 9usize).div_ceil(512) * 64 + 40 + 32 + 30_000usize.div_ceil(84) * 8
    );
}

#[test]
fn equal_keys_across_a_page_boundary_are_all_found() {
    // Ids that share their first 16 bytes: fence and filter cannot tell them apart.
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    let near = |n: u32| {
        let mut id = [9; 32];
        id[28..].copy_from_slice(&n.to_be_bytes());
        BlobId(id)
    };
    for copy in 0..3 {
        let list: Vec<_> = (0..300).map(|n| PackEntry { id: near(n), ..entries([1])[0] }).collect();
        index.insert_pack(pack(copy), &list);
    }
    index.flush().unwrap();
    for n in 0..300 {
        let packs: Vec<_> = index.lookup(&near(n)).unwrap().iter().map(|at| at.pack).collect();
        assert_eq!(packs, [pack(2), pack(1), pack(0)]);
    }
    assert!(!index.contains(&near(300)).unwrap() && !index.contains(&BlobId([8; 32])).unwrap());
}

#[test]
fn a_failed_flush_keeps_the_table_and_leaves_nothing_behind() {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    index.insert_pack(pack(1), &entries(0..200));
    index.remove_packs(&[pack(9)]);
    shelf.refuse_publish(true);
    assert!(matches!(index.flush(), Err(Error::NoSpace { .. })));
    assert_eq!((index.table_len(), shelf.open_count(), index.segments().len()), (200, 0, 0));
    assert!((0..200).all(|n| index.contains(&id(n)).unwrap()));
    index.insert_pack(pack(2), &entries([0]));
    assert_eq!(index.lookup(&id(0)).unwrap()[0].pack, pack(2));
    shelf.refuse_publish(false);
    let segment = index.flush().unwrap().unwrap();
    let reopened = open(&shelf, &[segment]).unwrap();
    assert_eq!(reopened.lookup(&id(0)).unwrap().len(), 2);
    reopened.insert_pack(pack(9), &entries([900]));
    assert!(!reopened.contains(&id(900)).unwrap(), "the tombstone was written");
}

#[test]
fn removed_packs_are_gone_everywhere_and_their_tombstones_go_last() {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    for n in 0..7 {
        index.insert_pack(pack(n), &entries(n * 10..n * 10 + 10));
        index.flush().unwrap();
    }
    index.insert_pack(pack(7), &entries(70..80));
    index.remove_packs(&[pack(3), pack(7)]);
    let gone = |index: &Index| {
        for n in 0..80u64 {
            assert_eq!(index.contains(&id(n)).unwrap(), n / 10 != 3 && n / 10 != 7, "blob {n}");
        }
        let (mut listed, mut packs) = (0, HashSet::new());
        index
            .for_each_entry(&mut |pack, _| {
                listed += 1;
                packs.insert(pack);
                Ok(())
            })
            .unwrap();
        assert_eq!((listed, packs.len(), packs.contains(&pack(3))), (60, 6, false));
        index
            .packs(&mut |at, _| {
                assert!(at != pack(3) && at != pack(7));
                Ok(())
            })
            .unwrap();
    };
    gone(&index);
    index.flush().unwrap();
    gone(&index);
    gone(&open(&shelf, &index.segments()).unwrap());
    assert!(index.merge_due());
    index.merge().unwrap();
    gone(&index);
    let reopened = open(&shelf, &index.segments()).unwrap();
    gone(&reopened);
    assert_eq!(reopened.entry_count(), 60, "the entries went with the merge");
    assert!(reopened.state.read().deleted.is_empty(), "and no tombstone is needed any more");
}

#[test]
fn a_tombstone_stays_while_a_segment_that_is_not_merged_names_its_pack() {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    let large = entries(10_000..15_000);
    index.insert_pack(pack(99), &large);
    index.flush().unwrap();
    index.remove_packs(&[pack(99)]);
    for n in 0..8 {
        index.insert_pack(pack(n), &entries([n]));
        index.flush().unwrap();
    }
    index.merge().unwrap();
    let reopened = open(&shelf, &index.segments()).unwrap();
    assert_eq!(reopened.segments().len(), 2);
    assert!(!reopened.contains(&id(10_000)).unwrap() && reopened.contains(&id(3)).unwrap());
}

#[test]
fn merging_nothing_but_removed_packs_leaves_no_segment() {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    for n in 0..8 {
        index.insert_pack(pack(n), &entries([n]));
        index.flush().unwrap();
        index.remove_packs(&[pack(n)]);
    }
    index.merge().unwrap();
    assert_eq!((index.segments(), index.entry_count()), (vec![], 0));
    let tombstones = index.flush().unwrap().unwrap();
    let deleted = open(&shelf, &[tombstones]).unwrap().state.read().deleted.clone();
    assert_eq!(*deleted, HashSet::from([pack(7)]), "the others were written and dropped with their entries");
}

#[test]
fn a_flipped_byte_anywhere_in_a_segment_is_found_and_named() {
    let (shelf, segment) = one_segment(100);
    let name = ObjectName::segment(&segment);
    let good = shelf.bytes(&name);
    let tail_at = good.len() - SEGMENT_TAIL_LENGTH;
    let pages = 2 + 1 + 1 + 1;
    assert!(good.len() > pages * PAGE_LENGTH + SEGMENT_TAIL_LENGTH, "there is padding to flip");
    let healthy = open(&shelf, &[segment]).unwrap();
    let mut sorted: Vec<_> = (0..100).map(id).collect();
    sorted.sort();
    // Every byte of the tail, and of nonces, tags and page edges; of the rest every seventh, which hits all residues.
    let is_edge = |at: usize| at % PAGE_LENGTH < 26 || at % PAGE_LENGTH >= PAGE_LENGTH - 18 || at >= tail_at;
    for at in (0..good.len()).filter(|at| is_edge(*at) || at % 7 == 0) {
        shelf.change(&name, |bytes| bytes[at] ^= 1 << (at % 8));
        let in_entries = at < 2 * PAGE_LENGTH;
        let in_padding = (pages * PAGE_LENGTH..tail_at).contains(&at);
        match open(&shelf, &[segment]) {
            Err(error) => assert!(is_damage_of(&error, segment) && !in_entries && !in_padding, "byte {at}: {error}"),
            Ok(index) => {
                assert!(in_entries || in_padding, "byte {at}");
                let failed: Vec<_> = [0, 99].iter().filter_map(|n| index.lookup(&sorted[*n]).err()).collect();
                assert!(failed.iter().all(|error| is_damage_of(error, segment)), "byte {at}");
                assert_eq!(failed.is_empty(), in_padding, "byte {at}");
            }
        }
        if at % 61 == 0 {
            let mut damage = Vec::new();
            healthy.verify(&mut |segment, error| damage.push((segment, error))).unwrap();
            assert!(damage.len() == 1 && is_damage_of(&damage[0].1, segment), "byte {at}");
        }
        shelf.change(&name, |bytes| bytes[at] ^= 1 << (at % 8));
    }
}

#[test]
fn a_cut_lengthened_or_missing_segment_is_refused() {
    let (shelf, segment) = one_segment(100);
    let name = ObjectName::segment(&segment);
    let good = shelf.bytes(&name);
    for length in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        shelf.change(&name, |bytes| bytes.truncate(length));
        let error = open(&shelf, &[segment]).err().unwrap();
        assert!(is_damage_of(&error, segment), "{length}: {error}");
        shelf.change(&name, |bytes| *bytes = good.clone());
    }
    shelf.change(&name, |bytes| bytes.push(0));
    assert!(is_damage_of(&open(&shelf, &[segment]).err().unwrap(), segment));
    shelf.delete(&name).unwrap();
    assert!(matches!(open(&shelf, &[segment]), Err(Error::NotFound { .. })));
}

#[test]
fn pages_cannot_be_moved_or_taken_from_another_segment() {
    let (shelf, segment) = one_segment(300);
    let name = ObjectName::segment(&segment);
    let (other_shelf, other) = one_segment(300);
    let (good, foreign) = (shelf.bytes(&name), other_shelf.bytes(&ObjectName::segment(&other)));
    let all_found =
        |shelf: &Shelf| open(shelf, &[segment]).and_then(|i| (0..300).try_for_each(|n| i.lookup(&id(n)).map(|_| ())));
    all_found(&shelf).unwrap();
    shelf.change(&name, |bytes| {
        let (first, second) = bytes.split_at_mut(PAGE_LENGTH);
        first.swap_with_slice(&mut second[..PAGE_LENGTH]);
    });
    assert!(is_damage_of(&all_found(&shelf).unwrap_err(), segment), "two pages changed places");
    shelf.change(&name, |bytes| *bytes = good.clone());
    shelf.change(&name, |bytes| bytes[..PAGE_LENGTH].copy_from_slice(&foreign[..PAGE_LENGTH]));
    assert!(is_damage_of(&all_found(&shelf).unwrap_err(), segment), "the same page of another segment");
}

#[test]
fn one_segment_under_two_names_is_refused() {
    let (shelf, segment) = one_segment(50);
    let second = SegmentId([7; 32]);
    shelf.put_new(&ObjectName::segment(&second), &shelf.bytes(&ObjectName::segment(&segment))).unwrap();
    assert!(is_damage_of(&open(&shelf, &[segment, second]).err().unwrap(), second));
    assert_eq!(open(&shelf, &[segment, segment]).unwrap().segments(), [segment]);
}

#[test]
fn damage_of_one_segment_hides_no_place_in_another_and_is_never_absence() {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    index.insert_pack(pack(1), &entries(0..50));
    let healthy = index.flush().unwrap().unwrap();
    index.insert_pack(pack(2), &entries(25..75));
    let damaged = index.flush().unwrap().unwrap();
    shelf.change(&ObjectName::segment(&damaged), |bytes| bytes[10] ^= 1);
    let index = open(&shelf, &[healthy, damaged]).unwrap();
    assert!((0..50).all(|n| index.lookup(&id(n)).unwrap().len() == 1 && index.contains(&id(n)).unwrap()));
    for n in 50..75 {
        assert!(is_damage_of(&index.lookup(&id(n)).unwrap_err(), damaged));
        assert!(is_damage_of(&index.contains(&id(n)).unwrap_err(), damaged));
    }
    shelf.delete(&ObjectName::segment(&damaged)).unwrap();
    assert!(matches!(index.contains(&id(60)), Err(Error::NotFound { .. })));
}

#[test]
fn an_index_is_rebuilt_from_the_packs_and_names_the_damaged_one() {
    let (shelf, keyring) = (Shelf::default(), keyring());
    let mut packs = Vec::new();
    for n in 0..20u64 {
        let mut builder = PackBuilder::new(keyring.clone(), BlobKind::Node);
        let mut bytes = Vec::new();
        for blob in n * 30..n * 30 + 30 {
            builder.push(id(blob), 9, 0, &[blob as u8; 60]);
            bytes.extend([blob as u8; 60]);
        }
        let finished = builder.finish();
        bytes.extend(&finished.suffix);
        shelf.put_new(&ObjectName::pack(&finished.id), &bytes).unwrap();
        packs.push(finished);
    }
    shelf.change(&ObjectName::pack(&packs[4].id), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let mut damaged = Vec::new();
    let backend = Arc::new(shelf.clone());
    let index = Index::rebuild(backend, keyring, options(), &mut |pack, _| damaged.push(pack)).unwrap();
    assert_eq!(damaged, [packs[4].id]);
    assert!(index.table_len() < 130 && !index.segments().is_empty());
    for (n, pack) in packs.iter().enumerate().filter(|(n, _)| *n != 4) {
        let found = index.lookup(&id(n as u64 * 30 + 1)).unwrap();
        assert_eq!((found.len(), found[0].pack, found[0].offset), (1, pack.id, 60));
    }
    assert!(!index.contains(&id(4 * 30)).unwrap());
}
