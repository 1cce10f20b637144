//! Several threads on one volume, with checkpoints and snapshots beside them.
//!
//! Each file is rewritten as a whole, one version after the other, so its content tells its version. A pair of files is written in
//! order: whoever sees the second ahead of the first sees what never was.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use vellum_fs::{
    attr::SetAttr,
    error::Error,
    format::inode::FileKind,
    ino::Ino,
    namespace::RenameFlags,
    volume::{Volume, handles::HandleId, handles::OpenMode, ops::names::NewInode, snapshot::SnapshotRequest},
};
use vellum_store::{disk::Disk, spawn::Seed};
use vellum_tests::{
    dump::{self, read_file, read_handle},
    rig::{self, Announce, ME, Settings},
};

const RDWR: OpenMode = OpenMode { read: true, write: true, append: false, sync: false };
const WRITERS: u64 = 3;

fn create(volume: &Volume, parent: Ino, name: &str) -> (Ino, HandleId) {
    let name = name.as_bytes();
    let new = NewInode { parent, name, kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: b"" };
    let (entry, opened) = volume.create(&new, RDWR, &ME).expect("the name is free");
    volume.forget(entry.attr.ino, 1);
    (entry.attr.ino, opened.handle)
}

/// Content of one version: its number, and bytes that follow from it.
fn version(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(length.max(8), 0);
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes[8..]);
    bytes
}

/// The version that some content is, all of it; 0 for none yet.
fn version_of(content: &[u8], what: &str) -> u64 {
    let Some(first) = content.first_chunk() else { return 0 };
    let number = u64::from_le_bytes(*first);
    assert!(content == version(number, content.len()), "{what} mixes versions");
    number
}

/// Owns a directory of files, changes them in all ways and always knows what they hold.
fn work(volume: &Volume, number: u64, seed: u64, rounds: u64) {
    let mut seed = Seed::new(seed * 31 + number);
    let name = format!("worker{number}");
    let directory = volume.mkdir(Ino::ROOT, name.as_bytes(), 0o755, 0, &ME).expect("the name is free").attr.ino;
    let (mut ino, mut handle) = create(volume, directory, "file");
    let mut content: Vec<u8> = Vec::new();
    for round in 1..=rounds {
        match seed.below(10) {
            0..5 => {
                content = version(round, [40, 1_500, 30_000, 90_000][seed.below(4) as usize]);
                volume.set_attr(ino, &SetAttr { size: Some(0), ..SetAttr::default() }).expect("a file has a size");
                volume.write(handle, 0, &content).expect("there is room");
            }
            5 => volume.fsync(handle).expect("the disk is well"),
            6 => {
                let (other, other_handle) = create(volume, directory, "new");
                content = version(round, 20_000);
                volume.write(other_handle, 0, &content).expect("there is room");
                let over = (directory, &b"file"[..]);
                volume.rename((directory, b"new"), over, RenameFlags::default(), &ME).expect("both exist");
                volume.release(handle).expect("it is open");
                (ino, handle) = (other, other_handle);
            }
            7 => {
                volume.release(handle).expect("it is open");
                handle = volume.open_file(ino, RDWR).expect("the file is there").handle;
            }
            _ => {}
        }
        let found = read_handle(volume, handle).expect("the file is read");
        assert!(found == content, "worker {number}, round {round}: {} for {} bytes", found.len(), content.len());
    }
    volume.release(handle).expect("it is open");
}

/// Writes `a`, then `b`, over and over; each is one write of the same length.
fn count(volume: &Volume, rounds: u64, stop: &AtomicBool) {
    let (_, a) = create(volume, Ino::ROOT, "a");
    let (_, b) = create(volume, Ino::ROOT, "b");
    for round in 1..=rounds {
        for handle in [a, b] {
            volume.write(handle, 0, &version(round, 5_000)).expect("there is room");
        }
        if round % 16 == 0 {
            volume.fsync(if round % 32 == 0 { a } else { b }).expect("the disk is well");
        }
    }
    stop.store(true, Ordering::Relaxed);
}

/// Takes snapshots and looks into each at once; returns what each showed of the pair.
fn snap(volume: &Volume, stop: &AtomicBool) -> Vec<(Vec<u8>, u64, u64)> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) && seen.len() < 60 {
        let name = format!("s{}", seen.len()).into_bytes();
        let request = SnapshotRequest { name: Some(name.clone()), comment: String::new() };
        volume.take_snapshot(&request).expect("the disk is well");
        let (a, b) = pair(volume, &name);
        seen.push((name, a, b));
    }
    seen
}

fn pair(volume: &Volume, snapshot: &[u8]) -> (u64, u64) {
    let shown = dump::of_snapshot(volume, snapshot).expect("the snapshot is read");
    for (path, item) in shown.iter().filter(|(path, _)| path.ends_with(b"/file")) {
        version_of(&item.content, &format!("{} in {}", path.escape_ascii(), snapshot.escape_ascii()));
    }
    let at = |name: &[u8]| shown.get(name).map_or(0, |item| version_of(&item.content, "one of the pair"));
    let (a, b) = (at(b"/a"), at(b"/b"));
    assert!(a == b || a == b + 1, "snapshot {}: a is at {a}, b at {b}", snapshot.escape_ascii());
    (a, b)
}

fn run(seed: u64, settings: &Settings) {
    let _announce = Announce(seed);
    let disk = rig::new_disk();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (volume, _) = rig::open(&shared, settings).expect("a new volume opens");
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let snapper = scope.spawn(|| snap(&volume, &stop));
        for number in 0..WRITERS {
            let volume = &volume;
            scope.spawn(move || work(volume, number, seed, 150));
        }
        scope.spawn(|| count(&volume, 250, &stop));
        snapper.join().expect("the snapper ends")
    });
    // Reading moves atimes, which alone never make a version.
    let dump_all = |volume: &Volume| {
        let mut dump = dump::of_volume(volume, Ino::ROOT).expect("the tree is read");
        dump.values_mut().for_each(|item| item.times[0] = (0, 0));
        dump
    };
    let live = dump_all(&volume);
    volume.close().expect("the disk is well");
    assert_eq!(volume.dirty_bytes(), 0, "nothing is counted as dirty in the end");
    drop(volume);
    let (volume, _) = rig::open(&shared, settings).expect("the volume opens again");
    let again = dump_all(&volume);
    assert!(live == again, "{}", dump::difference(&again, &live));
    for (name, a, b) in seen {
        assert_eq!(pair(&volume, &name), (a, b), "snapshot {} is what it was", name.escape_ascii());
    }
    let a = volume.lookup(Ino::ROOT, b"a").expect("the name is there").attr.ino;
    assert_eq!(version_of(&read_file(&volume, a).expect("the file is read"), "a"), 250);
}

#[test]
fn threads_keep_their_files_and_snapshots_keep_the_order_of_writes() {
    for seed in rig::seeds(2) {
        let interval = Duration::from_millis(20);
        run(seed, &Settings { own_clock: false, interval, ..Settings::default() });
    }
}

#[test]
fn threads_under_pressure_keep_their_files_and_the_order_of_writes() {
    for seed in rig::seeds(2) {
        let interval = Duration::from_millis(20);
        let (dirty_bytes, journal_segment) = (150_000, 128 << 10);
        run(seed, &Settings { dirty_bytes, journal_segment, own_clock: false, interval, relatime: true });
    }
}

/// Who gives the last reference to a file back looks whether it still has a name and is open; meanwhile another opens it and removes the
/// name. It must not go from under him.
#[test]
fn an_open_file_outlives_its_last_name_whoever_lets_go_of_it() {
    let disk: Arc<dyn Disk> = Arc::new(rig::new_disk());
    let volume = rig::open(&disk, &Settings::default()).expect("a new volume opens").0;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(entry) = volume.lookup(Ino::ROOT, b"file") {
                        volume.forget(entry.attr.ino, 1);
                    }
                }
            });
        }
        for round in 0..20_000 {
            let (_, handle) = create(&volume, Ino::ROOT, "file");
            volume.unlink(Ino::ROOT, b"file").expect("the name is there");
            let written = volume.write(handle, 0, b"kept");
            if let Err(error) = written {
                stop.store(true, Ordering::Relaxed);
                panic!("round {round}: {error}");
            }
            volume.release(handle).expect("it is open");
        }
        stop.store(true, Ordering::Relaxed);
    });
    volume.close().expect("the disk is well");
}

/// A snapshot that is deleted while it is looked for is not there; that is no reason to fail for who lists the others, or asks for an
/// instant.
#[test]
fn snapshots_are_listed_beside_their_deletion() {
    let disk: Arc<dyn Disk> = Arc::new(rig::new_disk());
    let volume = rig::open(&disk, &Settings::default()).expect("a new volume opens").0;
    let take = |name: &[u8]| {
        let request = SnapshotRequest { name: Some(name.to_vec()), comment: String::new() };
        volume.take_snapshot(&request).expect("the disk is well");
    };
    take(b"kept");
    let stop = AtomicBool::new(false);
    let lists = std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let dir = volume.lookup(Ino::ROOT, b".snapshots").expect("it is in every directory").attr.ino;
            let (mut lists, mut failed) = (0_u64, None);
            while !stop.load(Ordering::Relaxed) && failed.is_none() {
                let mut names = Vec::new();
                let listed = volume.read_dir(dir, 0, &mut |entry| {
                    names.push(entry.name.to_vec());
                    ControlFlow::Continue(())
                });
                let found: Result<(), Error> = listed.and_then(|()| {
                    assert!([b"kept".as_slice(), b"latest"].iter().all(|name| names.iter().any(|n| n == name)));
                    for name in [b"latest".as_slice(), b"@now", b"gone"] {
                        match volume.lookup(dir, name) {
                            Ok(entry) => volume.forget(entry.attr.ino, 1),
                            Err(error) if error.is_not_found() && name == b"gone" => {}
                            Err(error) => return Err(error),
                        }
                    }
                    Ok(())
                });
                failed = found.err();
                lists += 1;
            }
            (lists, failed)
        });
        for _ in 0..400 {
            take(b"gone");
            volume.delete_snapshot(b"gone").expect("it is there");
        }
        stop.store(true, Ordering::Relaxed);
        looker.join().expect("the looker ends")
    });
    assert!(lists.1.is_none() && lists.0 > 0, "after {} lists: {:?}", lists.0, lists.1);
    volume.close().expect("the disk is well");
}
