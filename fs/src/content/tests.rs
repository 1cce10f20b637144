//! Content as a whole: dirty maps, plans and trees together, against a plain array of bytes.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use vellum_store::{
    chunker::{ChunkSizes, Chunker, GearTable},
    id::BlobId,
};

use super::{
    plan::Neighbours,
    testing::{Random, seeds},
    *,
};
use crate::{
    error::{Error, Result},
    format::inode::WriteClass,
    ino::Ino,
    tree::{NodeCache, NodeStore, Tree},
};

const INO: Ino = Ino(7);

#[derive(Default)]
struct Nodes(Mutex<HashMap<BlobId, Arc<[u8]>>>);

impl NodeStore for Nodes {
    fn get(&self, id: &BlobId) -> Result<Arc<[u8]>> {
        Ok(self.0.lock().unwrap()[id].clone())
    }

    fn put(&self, bytes: Vec<u8>, _interior: bool) -> Result<BlobId> {
        let id = BlobId(*blake3::hash(&bytes).as_bytes());
        self.0.lock().unwrap().insert(id, bytes.into());
        Ok(id)
    }
}

/// Blobs in memory; counts reads and new blobs.
#[derive(Default)]
struct Blobs {
    stored: HashMap<BlobId, Arc<[u8]>>,
    reads: usize,
    damaged: BTreeSet<BlobId>,
}

impl Blobs {
    fn put(&mut self, bytes: Vec<u8>) -> BlobId {
        let id = BlobId(*blake3::hash(&bytes).as_bytes());
        self.stored.insert(id, bytes.into());
        id
    }

    fn get(&mut self, id: &BlobId) -> Result<Arc<[u8]>> {
        self.reads += 1;
        if self.damaged.contains(id) {
            return Err(Error::damaged(format!("blob {id}"), "made so"));
        }
        Ok(self.stored[id].clone())
    }
}

/// A planned flush whose result is not yet in the tree.
struct Pending {
    capture: Capture,
    changes: Vec<Change>,
    planned: Planned,
}

struct File {
    planner: Planner<'static>,
    tree: Tree,
    live: DirtyMap,
    size: u64,
    class: WriteClass,
    allocated: i64,
}

fn table() -> &'static GearTable {
    static TABLE: std::sync::OnceLock<GearTable> = std::sync::OnceLock::new();
    TABLE.get_or_init(|| GearTable::new(&[9; 32]))
}

fn small_sizes() -> ChunkSizes {
    ChunkSizes::new(1024, 4096, 16384).unwrap()
}

impl File {
    fn new(sizes: ChunkSizes) -> Self {
        Self {
            planner: Planner::new(Chunker::new(table(), sizes)),
            tree: Tree::empty(Arc::new(Nodes::default()), NodeCache::new(1 << 20)),
            live: DirtyMap::new(),
            size: 0,
            class: WriteClass::Stream,
            allocated: 0,
        }
    }

    /// A file of class Stream with one flushed write.
    fn with_content(sizes: ChunkSizes, content: &[u8], blobs: &mut Blobs) -> Self {
        let mut file = Self::new(sizes);
        file.write(0, content);
        file.flush(Tail::Flush, blobs);
        file
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.live.write(offset, data);
        self.size = self.size.max(offset + data.len() as u64);
    }

    fn truncate(&mut self, size: u64) {
        if size < self.size {
            self.live.zero(size, self.size - size);
        }
        self.size = size;
    }

    fn plan(
        &self,
        capture: &Capture,
        size: u64,
        tail: Tail,
        neighbours: Neighbours,
        blobs: &mut Blobs,
    ) -> Result<Pending> {
        self.plan_layers(&[capture], size, tail, neighbours, blobs)
    }

    fn plan_layers(
        &self,
        layers: &[&Capture],
        size: u64,
        tail: Tail,
        neighbours: Neighbours,
        blobs: &mut Blobs,
    ) -> Result<Pending> {
        let mut changes = Vec::new();
        let mut fresh = Vec::new();
        let mut read = |id: &BlobId, _length: u32| blobs.get(id);
        let mut base = TreeBase::new(&self.tree, INO, &mut read);
        let input = PlanInput { layers, size, class: self.class, tail, neighbours };
        let planned = self.planner.plan(&input, &mut base, &mut |output| {
            changes.push(match output.into_change() {
                Ok(change) => change,
                Err((offset, bytes)) => {
                    assert!(bytes.len() <= self.planner.sizes().max() as usize, "a chunk is bounded");
                    let (id, length) = (BlobId(*blake3::hash(&bytes).as_bytes()), bytes.len() as u32);
                    fresh.push(bytes);
                    Change::chunk(offset, length, id)
                }
            });
            Ok(())
        })?;
        fresh.into_iter().for_each(|bytes| {
            blobs.put(bytes);
        });
        Ok(Pending { capture: layers[0].clone(), changes, planned })
    }

    fn apply(&mut self, pending: &Pending) {
        self.allocated += extents::apply(&mut self.tree, INO, &pending.changes).unwrap();
    }

    /// Captures, plans, applies; returns how many chunks were put out.
    fn flush(&mut self, tail: Tail, blobs: &mut Blobs) -> usize {
        let capture = self.live.capture();
        let pending = self.plan(&capture, self.size, tail, Neighbours::Read, blobs).unwrap();
        self.apply(&pending);
        self.live.remove_captured(&pending.capture, pending.planned.kept_from);
        pending.changes.iter().filter(|change| matches!(change, Change::Extent(_))).count()
    }

    fn extents(&self) -> Vec<(u64, u64, BlobId)> {
        let list = extents::list(&self.tree, INO, 0..u64::MAX, usize::MAX).unwrap();
        list.iter().map(|extent| (extent.offset, extent.length, extent.blob)).collect()
    }

    fn blob_ids(&self) -> BTreeSet<BlobId> {
        self.extents().into_iter().map(|(_, _, id)| id).collect()
    }

    fn read(&self, range: std::ops::Range<u64>, layers: &[&dyn Layer], blobs: &mut Blobs) -> Vec<u8> {
        let pieces = resolve(range, layers);
        let mut read = |id: &BlobId, _length: u32| blobs.get(id);
        let mut base = TreeBase::new(&self.tree, INO, &mut read);
        let mut out = Vec::new();
        read_pieces(&pieces, &mut base, &mut out).unwrap();
        out
    }

    fn seek(&self, what: Seek, offset: u64, layers: &[&dyn Layer]) -> Option<u64> {
        let mut none = |id: &BlobId, _length: u32| -> Result<Arc<[u8]>> { panic!("seeking read {id}") };
        let mut base = TreeBase::new(&self.tree, INO, &mut none);
        seek(what, offset, self.size, layers, &mut base).unwrap()
    }

    /// Checks the records of the file against each other and the running sum.
    fn check_records(&self) {
        let list = self.extents();
        assert!(list.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "extents overlap: {list:?}");
        let body = extents::body(&self.tree, INO).unwrap();
        assert!(body.is_none() || list.is_empty(), "body and extents");
        let sum = list.iter().map(|extent| extent.1 as i64).sum::<i64>() + body.map_or(0, |body| body.len() as i64);
        assert_eq!(self.allocated, sum, "allocated bytes");
    }
}

/// A checkpoint on its way: what it froze, and what the file was then.
struct Checkpoint {
    frozen: DirtyMap,
    tree: Tree,
    size: u64,
    content: Vec<u8>,
}

fn check_seek(file: &File, layers: &[&dyn Layer], content: &[u8], at: u64) {
    let size = content.len() as u64;
    let data = file.seek(Seek::Data, at, layers);
    let hole = file.seek(Seek::Hole, at, layers);
    if at >= size {
        assert_eq!((data, hole), (None, None));
        return;
    }
    let skipped = &content[at as usize..data.unwrap_or(size) as usize];
    assert!(skipped.iter().all(|&byte| byte == 0), "data before what seek found");
    let hole = hole.unwrap();
    assert!(at <= hole && hole <= size);
    assert!(data == Some(at) || hole == at, "an offset is in data or in a hole");
}

/// One random history of a file: whatever interleaves, its content is that of a plain array, and a checkpoint's content is
/// that of the array when it froze.
fn random_history(seed: u64, class: WriteClass, steps: usize, reach: u64) {
    let mut random = Random::new(seed);
    let mut blobs = Blobs::default();
    let mut file = File::new(small_sizes());
    file.class = class;
    let mut model: Vec<u8> = Vec::new();
    let mut pending: Option<Pending> = None;
    let mut checkpoint: Option<Checkpoint> = None;
    for step in 0..steps {
        let context = format!("seed {seed} class {class:?} step {step}");
        match random.below(14) {
            0..5 => {
                let offset = if random.below(3) == 0 { file.size } else { random.below(reach) };
                let longest = if random.below(8) == 0 { 60_000 } else { 6000 };
                let mut data = {
                    let length = 1 + random.below(longest);
                    random.bytes(length as usize)
                };
                if random.below(10) == 0 {
                    data.fill(0);
                }
                file.write(offset, &data);
                model.resize(model.len().max(offset as usize + data.len()), 0);
                model[offset as usize..][..data.len()].copy_from_slice(&data);
            }
            5 => {
                let size = if random.below(4) == 0 { random.below(4000) } else { random.below(reach) };
                file.truncate(size);
                model.resize(size as usize, 0);
            }
            6 => {
                let offset = random.below(file.size);
                let length = random.below(file.size - offset).min(random.below(40_000));
                file.live.zero(offset, length);
                model[offset as usize..][..length as usize].fill(0);
            }
            7..9 if pending.is_none() && checkpoint.is_none() => {
                let tail = if random.below(2) == 0 { Tail::Keep } else { Tail::Flush };
                let neighbours = if random.below(5) == 0 { Neighbours::Avoid } else { Neighbours::Read };
                let capture = file.live.capture();
                pending = Some(file.plan(&capture, file.size, tail, neighbours, &mut blobs).unwrap());
            }
            9..11 => {
                if let Some(done) = pending.take() {
                    file.apply(&done);
                    file.live.remove_captured(&done.capture, done.planned.kept_from);
                }
            }
            11 if pending.is_none() && checkpoint.is_none() => {
                let frozen = file.live.freeze();
                checkpoint =
                    Some(Checkpoint { frozen, tree: file.tree.clone(), size: file.size, content: model.clone() });
            }
            12 => {
                if let Some(mut done) = checkpoint.take() {
                    if random.below(4) == 0 {
                        file.live.restore(done.frozen);
                    } else {
                        let capture = done.frozen.capture();
                        let flush = file.plan(&capture, done.size, Tail::Flush, Neighbours::Read, &mut blobs).unwrap();
                        file.apply(&flush);
                        extents::apply(&mut done.tree, INO, &flush.changes).unwrap();
                        std::mem::swap(&mut file.tree, &mut done.tree);
                        assert_eq!(file.read(0..done.size, &[], &mut blobs), done.content, "{context}: checkpoint");
                        std::mem::swap(&mut file.tree, &mut done.tree);
                    }
                }
            }
            _ => {
                let capture = file.live.capture_unjournaled();
                file.live.mark_journaled(&capture);
            }
        }
        file.check_records();
        let mut layers: Vec<&dyn Layer> = vec![&file.live];
        layers.extend(checkpoint.as_ref().map(|checkpoint| &checkpoint.frozen as &dyn Layer));
        assert_eq!(file.size, model.len() as u64);
        assert!(file.read(0..file.size, &layers, &mut blobs) == model, "{context}: content");
        let start = random.below(file.size);
        let end = start + random.below(file.size - start);
        assert!(file.read(start..end, &layers, &mut blobs) == model[start as usize..end as usize], "{context}: range");
        check_seek(&file, &layers, &model, random.below(file.size + 10));
    }
    if let Some(done) = pending {
        file.apply(&done);
        file.live.remove_captured(&done.capture, done.planned.kept_from);
    }
    if let Some(checkpoint) = checkpoint {
        file.live.restore(checkpoint.frozen);
    }
    file.flush(Tail::Flush, &mut blobs);
    assert!(file.live.is_empty(), "seed {seed}: a final flush leaves nothing dirty");
    assert!(file.read(0..file.size, &[], &mut blobs) == model, "seed {seed}: flushed content");
    assert!(
        file.extents().last().is_none_or(|last| last.0 + last.1 <= file.size),
        "seed {seed}: extents end with the file"
    );
    file.check_records();
}

#[test]
fn any_interleaving_of_writes_and_flushes_of_streams_keeps_the_content() {
    for seed in seeds(40) {
        random_history(seed, WriteClass::Stream, 120, 200_000);
    }
}

#[test]
fn any_interleaving_of_writes_and_flushes_of_blocks_keeps_the_content() {
    for seed in seeds(25) {
        random_history(seed + 1000, WriteClass::Random, 120, 200_000);
    }
}

#[test]
fn any_interleaving_of_writes_and_flushes_of_small_files_keeps_the_content() {
    for seed in seeds(40) {
        random_history(seed + 2000, WriteClass::Stream, 80, 5000);
    }
}

#[test]
fn overwriting_one_byte_rewrites_few_chunks_and_a_fresh_copy_shares_all() {
    for seed in seeds(8) {
        let mut random = Random::new(seed);
        let mut blobs = Blobs::default();
        let mut content = random.bytes(2 << 20);
        let mut file = File::with_content(small_sizes(), &content, &mut blobs);
        for _ in 0..20 {
            let at = random.below(content.len() as u64);
            content[at as usize] ^= 0x55;
            file.write(at, &content[at as usize..=at as usize]);
            let chunks = file.flush(Tail::Flush, &mut blobs);
            assert!((1..=12).contains(&chunks), "seed {seed}: {chunks} chunks for one byte");
        }
        let copy = File::with_content(small_sizes(), &content, &mut blobs);
        assert_eq!(file.extents(), copy.extents(), "seed {seed}");
    }
}

#[test]
fn inserting_at_the_front_shares_nearly_all_chunks() {
    let mut blobs = Blobs::default();
    let content = Random::new(3).bytes(2 << 20);
    let old = File::with_content(small_sizes(), &content, &mut blobs).blob_ids();
    let longer = [&b"some bytes in front"[..], &content].concat();
    let new = File::with_content(small_sizes(), &longer, &mut blobs).blob_ids();
    assert!(new.difference(&old).count() <= 4, "{} new chunks", new.difference(&old).count());
}

#[test]
fn appending_in_small_steps_makes_the_chunks_of_one_big_write() {
    let mut blobs = Blobs::default();
    let content = Random::new(5).bytes(300_000);
    let whole = File::with_content(small_sizes(), &content, &mut blobs);
    for tail in [Tail::Keep, Tail::Flush] {
        for every in [1, 7, 1000] {
            let mut file = File::new(small_sizes());
            for (i, part) in content.chunks(4096).enumerate() {
                file.write(i as u64 * 4096, part);
                if i % every == every - 1 {
                    file.flush(tail, &mut blobs);
                }
            }
            file.flush(Tail::Flush, &mut blobs);
            assert_eq!(file.extents(), whole.extents(), "{tail:?}, flushed every {every} writes");
        }
    }
}

#[test]
fn a_stream_that_keeps_its_tail_reads_nothing_back() {
    let mut blobs = Blobs::default();
    let content = Random::new(6).bytes(1 << 20);
    let mut file = File::new(ChunkSizes::DEFAULT);
    for (i, part) in content.chunks(64 << 10).enumerate() {
        file.write(i as u64 * (64 << 10), part);
        file.flush(Tail::Keep, &mut blobs);
        assert!(file.live.bytes() <= 256 << 10, "the tail is at most one largest chunk");
    }
    file.flush(Tail::Flush, &mut blobs);
    assert_eq!(blobs.reads, 0);
    assert!(file.read(0..1 << 20, &[], &mut blobs) == content);
}

#[test]
fn a_rewrite_in_place_with_one_byte_in_front_shares_nearly_all_chunks() {
    let mut blobs = Blobs::default();
    let content = Random::new(7).bytes(2 << 20);
    let mut file = File::with_content(small_sizes(), &content, &mut blobs);
    let old = file.blob_ids();
    let longer = [&b"+"[..], &content].concat();
    for (i, part) in longer.chunks(64 << 10).enumerate() {
        file.write(i as u64 * (64 << 10), part);
        file.flush(Tail::Keep, &mut blobs);
        assert!(file.live.bytes() <= 16 << 10, "what is kept is at most one largest chunk");
    }
    file.flush(Tail::Flush, &mut blobs);
    assert!(file.read(0..longer.len() as u64, &[], &mut blobs) == longer);
    let stored = blobs.stored.len() - old.len();
    assert!(stored <= 4, "{stored} new chunks in 33 flushes");
}

#[test]
fn one_byte_in_content_that_repeats_itself_does_not_rewrite_the_file() {
    let mut blobs = Blobs::default();
    let mut content = vec![b'a'; 4 << 20];
    let mut file = File::with_content(small_sizes(), &content, &mut blobs);
    content[1_000_001] = b'b';
    file.write(1_000_001, b"b");
    blobs.reads = 0;
    let chunks = file.flush(Tail::Flush, &mut blobs);
    assert!(chunks <= 40, "{chunks} chunks");
    assert!(blobs.reads <= 40, "{} reads", blobs.reads);
    assert!(file.read(0..4 << 20, &[], &mut blobs) == content);
}

#[test]
fn a_sparse_file_of_100_gb_costs_what_was_written_to_it() {
    let mut blobs = Blobs::default();
    let mut file = File::new(ChunkSizes::DEFAULT);
    file.truncate(100 << 30);
    for i in 0..50u64 {
        file.write(i << 31, b"here");
    }
    assert_eq!(file.flush(Tail::Flush, &mut blobs), 50);
    assert_eq!(file.allocated, 200);
    file.live.zero(5, (100 << 30) - 5);
    file.write(77 << 30, b"there");
    assert_eq!(file.flush(Tail::Flush, &mut blobs), 1);
    assert_eq!(file.seek(Seek::Data, 1 << 30, &[&file.live]), Some(77 << 30));
    assert_eq!(file.seek(Seek::Data, 78 << 30, &[&file.live]), None);
    file.truncate(999 << 40);
    file.truncate(3);
    file.flush(Tail::Flush, &mut blobs);
    assert_eq!(file.read(0..3, &[], &mut blobs), b"her");
    assert_eq!(file.extents(), [], "it is inline");
}

#[test]
fn zeros_written_become_a_hole_and_data_around_it_stays() {
    let mut blobs = Blobs::default();
    let mut content = Random::new(8).bytes(400_000);
    let mut file = File::with_content(small_sizes(), &content, &mut blobs);
    content[100_000..300_000].fill(0);
    file.write(100_000, &content[100_000..300_000]);
    file.flush(Tail::Flush, &mut blobs);
    assert!(file.allocated < 400_000 - 150_000);
    assert!(file.read(0..400_000, &[], &mut blobs) == content);
    let hole = file.seek(Seek::Hole, 0, &[]).unwrap();
    let data = file.seek(Seek::Data, hole, &[]).unwrap();
    assert!((100_000..120_000).contains(&hole) && (280_000..=300_000).contains(&data), "{hole} {data}");
}

#[test]
fn a_punched_hole_leaves_chunks_that_a_sparse_copy_shares() {
    let mut blobs = Blobs::default();
    let content = Random::new(9).bytes(400_000);
    let mut file = File::with_content(small_sizes(), &content, &mut blobs);
    file.live.zero(100_001, 200_000);
    file.flush(Tail::Flush, &mut blobs);
    let mut copy = File::new(small_sizes());
    copy.write(0, &content[..100_001]);
    copy.write(300_001, &content[300_001..]);
    copy.flush(Tail::Flush, &mut blobs);
    assert_eq!(file.extents(), copy.extents());
}

#[test]
fn small_content_is_inline_and_becomes_part_of_the_first_chunk_when_it_grows() {
    let mut blobs = Blobs::default();
    let content = Random::new(10).bytes(10_000);
    let mut file = File::with_content(small_sizes(), &content[..2048], &mut blobs);
    assert_eq!(extents::body(&file.tree, INO).unwrap().as_deref(), Some(&content[..2048]));
    assert_eq!(file.seek(Seek::Hole, 0, &[]), Some(2048));
    file.write(2048, &content[2048..]);
    file.flush(Tail::Flush, &mut blobs);
    assert_eq!(file.extents(), File::with_content(small_sizes(), &content, &mut blobs).extents());
    file.check_records();
    file.truncate(100);
    file.flush(Tail::Flush, &mut blobs);
    assert_eq!(extents::body(&file.tree, INO).unwrap().as_deref(), Some(&content[..100]));
    file.truncate(0);
    file.flush(Tail::Flush, &mut blobs);
    assert_eq!(extents::body(&file.tree, INO).unwrap(), None);
    file.check_records();
}

#[test]
fn truncation_cuts_the_last_chunk_anew_and_nothing_returns_when_the_file_grows_again() {
    let mut blobs = Blobs::default();
    let content = Random::new(11).bytes(100_000);
    let mut file = File::with_content(small_sizes(), &content, &mut blobs);
    file.truncate(50_001);
    file.flush(Tail::Flush, &mut blobs);
    assert_eq!(file.extents(), File::with_content(small_sizes(), &content[..50_001], &mut blobs).extents());
    file.truncate(80_000);
    assert_eq!(file.read(50_001..80_000, &[&file.live], &mut blobs), vec![0; 29_999]);
}

#[test]
fn a_random_file_rewrites_only_the_aligned_blocks_that_were_touched() {
    let mut blobs = Blobs::default();
    let mut content = Random::new(12).bytes(1 << 20);
    let mut file = File::with_content(ChunkSizes::DEFAULT, &content, &mut blobs);
    file.class = WriteClass::Random;
    for at in [5 * 4096u64, 40 * 4096, 41 * 4096, 1 << 19] {
        content[at as usize..][..4096].fill(3);
        file.write(at, &[3; 4096]);
    }
    assert_eq!(file.flush(Tail::Flush, &mut blobs), 3);
    assert!(file.extents().iter().any(|extent| (extent.0, extent.1) == (40 * 4096, 16384)));
    assert!(file.read(0..1 << 20, &[], &mut blobs) == content);
    assert_eq!(file.allocated, 1 << 20);
}

#[test]
fn data_reaches_the_store_although_its_neighbour_is_damaged() {
    let mut blobs = Blobs::default();
    let content = Random::new(13).bytes(100_000);
    let mut file = File::with_content(small_sizes(), &content, &mut blobs);
    blobs.damaged = file.blob_ids();
    file.write(50_000, &[1; 100]);
    let capture = file.live.capture();
    let refused = file.plan(&capture, file.size, Tail::Flush, Neighbours::Read, &mut blobs);
    assert!(refused.err().unwrap().is_damage());
    let pending = file.plan(&capture, file.size, Tail::Flush, Neighbours::Avoid, &mut blobs).unwrap();
    file.apply(&pending);
    file.live.remove_captured(&capture, None);
    blobs.damaged.clear();
    let mut expected = content;
    expected[50_000..50_100].fill(1);
    assert!(file.read(0..100_000, &[], &mut blobs) == expected);
    file.check_records();
}

#[test]
fn a_blob_shorter_than_its_extent_says_is_damage_not_a_panic() {
    let mut blobs = Blobs::default();
    let file = File::with_content(small_sizes(), &Random::new(14).bytes(10_000), &mut blobs);
    let short: Arc<[u8]> = vec![1; 10].into();
    let mut read = |_: &BlobId, _: u32| Ok(short.clone());
    let mut base = TreeBase::new(&file.tree, INO, &mut read);
    let error = read_pieces(&resolve(0..10_000, &[]), &mut base, &mut Vec::new()).unwrap_err();
    assert!(error.is_damage());
}

#[test]
fn eight_scattered_overwrites_make_a_file_random_and_a_rewrite_does_not() {
    let mut tracker = ClassTracker::default();
    for i in 0..100 {
        assert!(!tracker.note_write(i * 4096, 4096, 1 << 20, true), "a rewrite from start to end");
    }
    let mut tracker = ClassTracker::default();
    for i in 0..100 {
        assert!(!tracker.note_write((i * 7 % 100) * 4096, 4096, 1 << 20, false), "what is still dirty does not count");
    }
    let noted: Vec<bool> = (0..8).map(|i| tracker.note_write(i * 8192 + 50, 10, 1 << 20, true)).collect();
    assert_eq!(noted, [false, false, false, false, false, false, false, true]);
    assert_eq!(tracker.note_truncate(5, WriteClass::Random), WriteClass::Random);
    assert_eq!(tracker.note_truncate(0, WriteClass::Random), WriteClass::Stream);
    assert!(!tracker.note_write(0, 1, 1 << 20, true));
}

#[test]
fn a_plan_sees_newer_layers_above_older_ones_and_both_above_the_base() {
    let mut blobs = Blobs::default();
    let mut content = Random::new(16).bytes(50_000);
    let mut file = File::with_content(small_sizes(), &content, &mut blobs);
    file.write(10_000, &[1; 2000]);
    let mut frozen = file.live.freeze();
    file.write(11_000, &[2; 2000]);
    file.live.zero(9000, 1500);
    content[10_000..12_000].fill(1);
    content[11_000..13_000].fill(2);
    content[9000..10_500].fill(0);
    let (above, below) = (file.live.capture(), frozen.capture());
    let pending = file.plan_layers(&[&above, &below], file.size, Tail::Flush, Neighbours::Read, &mut blobs).unwrap();
    file.apply(&pending);
    frozen.remove_captured(&below, None);
    file.live.remove_captured(&above, None);
    assert!(frozen.is_empty() && file.live.is_empty());
    assert!(file.read(0..50_000, &[], &mut blobs) == content);
    assert_eq!(file.extents(), File::with_content(small_sizes(), &content, &mut blobs).extents());
}

#[test]
fn replacing_a_range_trims_and_splits_what_it_meets() {
    let mut blobs = Blobs::default();
    let content = Random::new(15).bytes(16_384);
    let mut file = File::new(small_sizes());
    let old = blobs.put(content.clone());
    file.allocated += extents::apply(&mut file.tree, INO, &[Change::chunk(0, 16_384, old)]).unwrap();
    let new = blobs.put(vec![9; 100]);
    file.allocated += extents::apply(&mut file.tree, INO, &[Change::chunk(1000, 100, new)]).unwrap();
    assert_eq!(file.extents(), [(0, 1000, old), (1000, 100, new), (1100, 15_284, old)]);
    file.allocated += extents::replace(&mut file.tree, INO, 900..1200, &[]).unwrap();
    assert_eq!(file.extents(), [(0, 900, old), (1200, 15_184, old)]);
    file.check_records();
    let mut expected = content;
    expected[900..1200].fill(0);
    assert!(file.read(0..16_384, &[], &mut blobs) == expected);
}
