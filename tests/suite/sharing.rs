//! Copies by reference against plain arrays of bytes, beside checkpoints, through crashes and out of snapshots.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use vellum_fs::{
    attr::SetAttr,
    error::Error,
    format::inode::{FileKind, SIZE_MAX},
    ino::Ino,
    volume::{
        Volume,
        handles::{HandleId, OpenMode},
        ops::{copy::COPY_BYTES_MAX, files::Allocate, names::NewInode},
        snapshot::SnapshotRequest,
    },
};
use vellum_store::{
    disk::{Disk, MemoryDisk},
    spawn::Seed,
};
use vellum_tests::{
    dump::{read_file, read_handle},
    rig::{self, Announce, ME, Settings},
};

const FILES: usize = 3;
const FILE_BYTES_MAX: u64 = 160_000;
/// Versions of a file that are kept for a look after a crash.
const VERSIONS_MAX: usize = 400;

fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn open(disk: &MemoryDisk, settings: &Settings) -> Arc<Volume> {
    rig::open(&shared(disk), settings).expect("the volume opens").0
}

fn read_write() -> OpenMode {
    OpenMode { read: true, write: true, ..OpenMode::default() }
}

fn create(volume: &Volume, name: &str) -> (Ino, HandleId) {
    let name = name.as_bytes();
    let new =
        NewInode { parent: Ino::ROOT, name, kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: b"" };
    let (entry, opened) = volume.create(&new, read_write(), &ME).expect("the name is free");
    (entry.attr.ino, opened.handle)
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn resize(volume: &Volume, ino: Ino, size: u64) {
    volume.set_attr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }).expect("a file takes a size");
}

fn blocks(volume: &Volume, ino: Ino) -> u64 {
    volume.get_attr(ino).expect("the file is there").blocks
}

/// One file: what it holds, and what it held at each moment since it was synced.
struct Copied {
    ino: Ino,
    handle: HandleId,
    content: Vec<u8>,
    versions: VecDeque<Vec<u8>>,
}

impl Copied {
    fn changed(&mut self) {
        self.versions.push_back(self.content.clone());
        if self.versions.len() > VERSIONS_MAX {
            self.versions.pop_front();
        }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.content.resize(self.content.len().max(end), 0);
        self.content[offset..end].copy_from_slice(bytes);
        self.changed();
    }
}

/// A history of writes and copies on a few files.
struct Copier {
    volume: Arc<Volume>,
    files: Vec<Copied>,
    /// Snapshots, and what the files held then.
    snapshots: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    seed: Seed,
}

impl Copier {
    fn new(volume: Arc<Volume>, seed: u64) -> Self {
        let file = |number| {
            let (ino, handle) = create(&volume, &format!("file{number}"));
            Copied { ino, handle, content: Vec::new(), versions: VecDeque::from([Vec::new()]) }
        };
        let files = (0..FILES).map(file).collect();
        volume.sync_names().expect("the disk is well");
        Self { volume, files, snapshots: Vec::new(), seed: Seed::new(seed) }
    }

    fn step(&mut self) {
        let at = self.seed.below(FILES as u64) as usize;
        let (offset, number) = (self.seed.below(FILE_BYTES_MAX / 2), self.seed.number());
        let length = match self.seed.below(3) {
            0 => 1 + self.seed.below(3000),
            1 => 1 + self.seed.below(20_000),
            _ => 1 + self.seed.below(FILE_BYTES_MAX / 2),
        };
        let Copied { ino, handle, .. } = self.files[at];
        match self.seed.below(24) {
            0..=5 => {
                let bytes = noise(number, length as usize);
                self.volume.write(handle, offset, &bytes).expect("there is room");
                self.files[at].put(offset as usize, &bytes);
            }
            6 => {
                let bytes = vec![0; length as usize];
                self.volume.write(handle, offset, &bytes).expect("there is room");
                self.files[at].put(offset as usize, &bytes);
            }
            7 => {
                resize(&self.volume, ino, offset);
                self.files[at].content.resize(offset as usize, 0);
                self.files[at].changed();
            }
            8 => {
                self.volume.allocate(handle, offset, length, Allocate::Punch).expect("a hole can be made");
                let size = self.files[at].content.len();
                let (from, to) = (size.min(offset as usize), size.min((offset + length) as usize));
                self.files[at].content[from..to].fill(0);
                self.files[at].changed();
            }
            9 => self.volume.flush_dirty().expect("a flush succeeds"),
            10 => self.volume.checkpoint().expect("a checkpoint succeeds"),
            11 => self.sync(at),
            12 if self.snapshots.len() < 4 => self.snap(),
            13 | 14 if !self.snapshots.is_empty() => self.copy_from_snapshot(at, offset, length),
            15 => self.verify(),
            _ => self.copy(at, offset, length),
        }
    }

    fn sync(&mut self, at: usize) {
        self.volume.fsync(self.files[at].handle).expect("the disk is well");
        let content = self.files[at].content.clone();
        self.files[at].versions = VecDeque::from([content]);
    }

    fn copy(&mut self, at: usize, offset: u64, length: u64) {
        let from = self.seed.below(FILES as u64) as usize;
        let source_offset = self.seed.below(FILE_BYTES_MAX / 2);
        let (source, target) = (self.files[from].handle, self.files[at].handle);
        let copied = self.volume.copy_range((source, source_offset), (target, offset), length);
        let content = &self.files[from].content;
        let end = content.len().min((source_offset + length) as usize);
        let bytes = content.get(source_offset as usize..end).unwrap_or_default().to_vec();
        let overlap = from == at && offset.abs_diff(source_offset) < bytes.len() as u64;
        if overlap {
            assert!(matches!(copied, Err(Error::InvalidArgument(_))), "overlapping ranges are refused: {copied:?}");
            return;
        }
        assert_eq!(copied.expect("there is room"), bytes.len() as u64);
        if !bytes.is_empty() {
            self.files[at].put(offset as usize, &bytes);
        }
    }

    fn snap(&mut self) {
        let name = format!("s{}", self.snapshots.len()).into_bytes();
        let request = SnapshotRequest { name: Some(name.clone()), ..SnapshotRequest::default() };
        self.volume.take_snapshot(&request).expect("a snapshot is taken");
        self.snapshots.push((name, self.files.iter().map(|file| file.content.clone()).collect()));
    }

    fn copy_from_snapshot(&mut self, at: usize, offset: u64, length: u64) {
        let number = self.seed.below(self.snapshots.len() as u64) as usize;
        let from = self.seed.below(FILES as u64) as usize;
        let source_offset = self.seed.below(FILE_BYTES_MAX / 4);
        let (name, contents) = &self.snapshots[number];
        let mut ino = Ino::ROOT;
        let mut held = Vec::new();
        for name in [b".snapshots".as_slice(), name, format!("file{from}").as_bytes()] {
            ino = self.volume.lookup(ino, name).expect("the snapshot has the file").attr.ino;
            held.push(ino);
        }
        let source = self.volume.open_file(ino, OpenMode { read: true, ..OpenMode::default() }).expect("it opens");
        let target = self.files[at].handle;
        let copied = self.volume.copy_range((source.handle, source_offset), (target, offset), length);
        let end = contents[from].len().min((source_offset + length) as usize);
        let bytes = contents[from].get(source_offset as usize..end).unwrap_or_default().to_vec();
        assert_eq!(copied.expect("there is room"), bytes.len() as u64);
        self.volume.release(source.handle).expect("it closes");
        held.into_iter().for_each(|ino| self.volume.forget(ino, 1));
        if !bytes.is_empty() {
            self.files[at].put(offset as usize, &bytes);
        }
    }

    fn verify(&self) {
        for (number, file) in self.files.iter().enumerate() {
            let found = read_handle(&self.volume, file.handle).expect("the file is read");
            assert_same(&found, &file.content, &format!("file {number}"));
        }
    }

    /// After a crash each file is what it was at some moment since it was synced.
    fn verify_after_crash(&self, volume: &Volume) {
        for (number, file) in self.files.iter().enumerate() {
            let found = read_file(volume, file.ino).expect("the file is read");
            let newest = &file.content;
            if !file.versions.iter().any(|version| *version == found) {
                assert_same(&found, newest, &format!("file {number}, which is none of its versions,"));
            }
        }
    }
}

fn assert_same(found: &[u8], wanted: &[u8], what: &str) {
    let differs = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
    assert!(found == wanted, "{what}: {} bytes, wanted {}, first differ at {differs:?}", found.len(), wanted.len());
}

fn check(volume: &Volume) {
    volume
        .repository()
        .check(true, &mut |_| {}, &mut |damage| panic!("a check finds {damage:?}"))
        .expect("a check succeeds");
}

fn play(seed: u64, settings: &Settings) {
    let _announce = Announce(seed);
    let mut choices = Seed::new(seed ^ 0xc0);
    let mut disk = rig::new_disk();
    let mut copier = Copier::new(open(&disk, settings), seed);
    for _ in 0..400 {
        copier.step();
        if choices.below(40) > 0 {
            continue;
        }
        let image = if choices.below(2) == 0 { disk.crash() } else { disk.crash_seeded(choices.number()) };
        let recovered = open(&image, settings);
        copier.verify_after_crash(&recovered);
        recovered.close().expect("what was recovered is closed");
        check(&recovered);
        if choices.below(3) == 0 {
            // Go on from a clean close.
            copier.verify();
            copier.volume.close().expect("the disk is well");
            check(&copier.volume);
            disk = disk.crash();
            copier.volume = open(&disk, settings);
            for file in &mut copier.files {
                file.handle = copier.volume.open_file(file.ino, read_write()).expect("the file is there").handle;
                file.versions = VecDeque::from([file.content.clone()]);
            }
        }
    }
    copier.verify();
}

#[test]
fn random_copies_agree_with_arrays_of_bytes_and_survive_crashes() {
    for seed in rig::seeds(12) {
        play(seed, &Settings::default());
    }
}

#[test]
fn random_copies_under_pressure_agree_with_arrays_of_bytes_and_survive_crashes() {
    for seed in rig::seeds(12) {
        play(seed, &Settings { dirty_bytes: 120_000, journal_segment: 64 << 10, ..Settings::default() });
    }
}

/// A target whose older content a checkpoint is about to publish must not get it over the copy.
#[test]
fn random_copies_beside_checkpoints_agree_with_arrays_of_bytes() {
    for seed in rig::seeds(10) {
        let _announce = Announce(seed);
        let settings = Settings { dirty_bytes: 300_000, journal_segment: 128 << 10, ..Settings::default() };
        let disk = rig::new_disk();
        let mut copier = Copier::new(open(&disk, &settings), seed);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (volume, stopping) = (Arc::clone(&copier.volume), &stop);
            scope.spawn(move || {
                while !stopping.load(Ordering::Relaxed) {
                    volume.checkpoint().expect("a checkpoint succeeds");
                    volume.flush_dirty().expect("a flush succeeds");
                }
            });
            let played =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (0..500).for_each(|_| copier.step())));
            stop.store(true, Ordering::Relaxed);
            played.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        copier.verify();
        copier.verify_after_crash(&open(&disk.crash(), &settings));
    }
}

/// Copies that cross each other, within one file too, end.
#[test]
fn copies_that_cross_each_other_end_and_never_mix_bytes() {
    let disk = rig::new_disk();
    let volume = open(&disk, &Settings { dirty_bytes: 300_000, ..Settings::default() });
    let files: Vec<_> = (0..2u8)
        .map(|number| {
            let (_, handle) = create(&volume, &format!("file{number}"));
            // Each byte tells the unit it belongs to, and the halves hold the same.
            let content: Vec<u8> = (0..200_000u64).map(|at| (at % 100_000 / 1000) as u8 + 1).collect();
            volume.write(handle, 0, &content).expect("there is room");
            handle
        })
        .collect();
    std::thread::scope(|scope| {
        for (from, to) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
            let (volume, files) = (&volume, &files);
            scope.spawn(move || {
                for round in 0..60 {
                    let (source, target) = if round % 2 == 0 { (0, 100_000) } else { (100_000, 0) };
                    let done = volume.copy_range((files[from], source), (files[to], target), 100_000);
                    assert_eq!(done.expect("there is room"), 100_000);
                }
            });
        }
        scope.spawn(|| (0..40).for_each(|_| volume.checkpoint().expect("a checkpoint succeeds")));
    });
    for handle in files {
        let found = read_handle(&volume, handle).expect("the file is read");
        assert!(found.iter().zip(0u64..).all(|(&byte, at)| byte == (at % 100_000 / 1000) as u8 + 1));
    }
}

#[test]
fn a_copy_takes_extents_holes_class_and_blocks_and_adds_no_data() {
    let disk = rig::new_disk();
    let volume = open(&disk, &Settings::default());
    let (source, handle) = create(&volume, "source");
    volume.write(handle, 0, &noise(1, 500_000)).expect("there is room");
    resize(&volume, source, 3 << 20);
    volume.write(handle, 2 << 20, &noise(2, 300_000)).expect("there is room");
    volume.flush_dirty().expect("a flush succeeds");
    volume.checkpoint().expect("a checkpoint succeeds");
    let stored = || volume.repository().stats().expect("they can be told").data_bytes;
    let before = stored();
    let (target, copy) = create(&volume, "target");
    assert_eq!(volume.copy_range((handle, 0), (copy, 0), u64::MAX).expect("there is room"), 3 << 20);
    volume.checkpoint().expect("a checkpoint succeeds");
    assert_eq!(stored(), before, "a copy stores no content");
    assert_eq!(blocks(&volume, target), blocks(&volume, source));
    assert!(read_handle(&volume, copy).expect("it is read") == read_handle(&volume, handle).expect("it is read"));
    // The copy is its own: a write to either leaves the other alone.
    volume.write(copy, 10, b"changed").expect("there is room");
    assert!(read_handle(&volume, handle).expect("it is read")[..500_000] == noise(1, 500_000));
}

#[test]
fn a_copy_that_was_synced_survives_a_crash_with_content_that_never_left_open_packs() {
    for length in [20_000, 700_000] {
        let disk = rig::new_disk();
        let volume = open(&disk, &Settings::default());
        let (_, source) = create(&volume, "source");
        let (target, copy) = create(&volume, "target");
        volume.write(source, 0, &noise(3, length)).expect("there is room");
        volume.write(copy, 0, b"inline").expect("there is room");
        volume.flush_dirty().expect("a flush succeeds");
        let copied = volume.copy_range((source, 1), (copy, 3), length as u64).expect("there is room");
        assert_eq!(copied, length as u64 - 1);
        volume.fsync(copy).expect("the disk is well");
        let recovered = open(&disk.crash(), &Settings::default());
        let mut wanted = b"inl".to_vec();
        wanted.extend_from_slice(&noise(3, length)[1..]);
        assert!(read_file(&recovered, target).expect("the file is read") == wanted, "{length} bytes");
    }
}

#[test]
fn a_copy_that_cannot_be_is_refused_and_changes_nothing() {
    let disk = rig::new_disk();
    let volume = open(&disk, &Settings::default());
    let (ino, handle) = create(&volume, "file");
    volume.write(handle, 0, &noise(4, 50_000)).expect("there is room");
    let before = volume.get_attr(ino).expect("the file is there");
    let copy = |from: u64, to: u64, length: u64| volume.copy_range((handle, from), (handle, to), length);
    assert!(matches!(copy(0, 20_000, 30_000), Err(Error::InvalidArgument(_))));
    assert!(matches!(copy(20_000, 0, 30_000), Err(Error::InvalidArgument(_))));
    assert!(matches!(copy(0, SIZE_MAX - 20_000, 30_000), Err(Error::TooBig(_))));
    assert!(matches!(copy(0, u64::MAX, 30_000), Err(Error::TooBig(_))));
    assert_eq!(copy(50_000, 0, 30_000).expect("there is nothing to copy"), 0);
    assert_eq!(copy(u64::MAX, 0, COPY_BYTES_MAX).expect("there is nothing to copy"), 0);
    let after = volume.get_attr(ino).expect("the file is there");
    assert_eq!(before, after);
    assert_eq!(copy(0, 50_000, u64::MAX).expect("it only touches"), 50_000);
}
