//! A volume without any front end: what was written is read, now, in snapshots, after closing, and after a kill.

#![allow(clippy::unwrap_used)]

use std::{ops::ControlFlow, path::Path, sync::Arc};

use vellum_fs::{
    attr::Caller,
    format::inode::FileKind,
    ino::Ino,
    namespace::RenameFlags,
    volume::{
        Volume, VolumeOptions,
        handles::{HandleId, OpenMode},
        ops::names::NewInode,
        snapshot::SnapshotRequest,
    },
};
use vellum_store::{
    crypto::{Credential, KdfParams},
    id::VolumeName,
    repository::{InitOptions, OpenOptions, Repository},
};

const ME: Caller = Caller { uid: 0, gid: 0, pid: 1 };
const RDWR: OpenMode = OpenMode { read: true, write: true, append: false, sync: false };

fn credential() -> Credential {
    Credential::KeyFile(vec![7; 32].into())
}

fn init(path: &Path) {
    let mut options = InitOptions::new(path.join("repo"), credential(), 1).unwrap();
    options.kdf = KdfParams::testing();
    Repository::init(&options).unwrap();
}

fn open(path: &Path) -> Arc<Volume> {
    let options = OpenOptions::new(path.join("repo"), credential(), path.join("state"));
    let repository = Repository::open(options).unwrap();
    let options = VolumeOptions { create: true, ..VolumeOptions::new(VolumeName::new("main").unwrap()) };
    Volume::open(repository, options).unwrap().0
}

fn create(volume: &Volume, parent: Ino, name: &str) -> (Ino, HandleId) {
    let new = NewInode {
        parent,
        name: name.as_bytes(),
        kind: FileKind::Regular,
        mode: 0o644,
        umask: 0o22,
        rdev: 0,
        target: b"",
    };
    let (entry, opened) = volume.create(&new, RDWR, &ME).unwrap();
    (entry.attr.ino, opened.handle)
}

fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let key = blake3::hash(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn read_path(volume: &Volume, names: &[&str]) -> Vec<u8> {
    let mut ino = Ino::ROOT;
    for name in names {
        let entry = volume.lookup(ino, name.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        ino = entry.attr.ino;
    }
    let opened = volume.open_file(ino, OpenMode { read: true, ..OpenMode::default() }).unwrap();
    let mut all = Vec::new();
    loop {
        let part = volume.read(opened.handle, all.len() as u64, 1 << 20).unwrap();
        if part.is_empty() {
            break;
        }
        all.extend_from_slice(&part);
    }
    volume.release(opened.handle).unwrap();
    all
}

#[test]
fn content_survives_closing_and_snapshots_survive_changes() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let volume = open(dir.path());
    let small = content(1, 700);
    let large = content(2, 3_000_000);
    for (name, bytes) in [("small", &small), ("large", &large)] {
        let (_, handle) = create(&volume, Ino::ROOT, name);
        for (number, part) in bytes.chunks(100_000).enumerate() {
            volume.write(handle, number as u64 * 100_000, part).unwrap();
        }
        volume.release(handle).unwrap();
        assert_eq!(read_path(&volume, &[name]), *bytes);
    }
    volume.take_snapshot(&SnapshotRequest { name: Some(b"one".to_vec()), comment: String::new() }).unwrap();
    let opened = volume.open_file(volume.lookup(Ino::ROOT, b"large").unwrap().attr.ino, RDWR).unwrap();
    volume.write(opened.handle, 1_000_000, b"changed").unwrap();
    volume.release(opened.handle).unwrap();
    volume.unlink(Ino::ROOT, b"small").unwrap();
    assert_eq!(read_path(&volume, &[".snapshots", "one", "small"]), small);
    assert_eq!(read_path(&volume, &[".snapshots", "one", "large"]), large);
    volume.close().unwrap();
    drop(volume);

    let volume = open(dir.path());
    let mut changed = large.clone();
    changed[1_000_000..1_000_007].copy_from_slice(b"changed");
    assert_eq!(read_path(&volume, &["large"]), changed);
    assert!(volume.lookup(Ino::ROOT, b"small").is_err());
    assert_eq!(read_path(&volume, &[".snapshots", "one", "small"]), small);
    assert_eq!(read_path(&volume, &[".snapshots", "one", "large"]), large);
    volume.close().unwrap();
}

/// Copies a repository as a kill would leave it: the process goes on, but nobody asks it any more.
fn killed_copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            killed_copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_was_synced_survives_a_kill() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    init(dir.path());
    let volume = open(dir.path());
    let sizes = [0, 1, 700, 2048, 5_000, 70_000, 600_000, 3_000_000];
    for (number, &size) in sizes.iter().enumerate() {
        let (_, handle) = create(&volume, Ino::ROOT, &format!("file{number}"));
        volume.write(handle, 0, &content(number as u64, size)).unwrap();
        volume.fsync(handle).unwrap();
        volume.release(handle).unwrap();
    }
    let (_, replaced) = create(&volume, Ino::ROOT, "new");
    volume.write(replaced, 0, &content(99, 90_000)).unwrap();
    volume.rename((Ino::ROOT, b"new"), (Ino::ROOT, b"file5"), RenameFlags::default(), &ME).unwrap();
    volume.sync_names().unwrap();
    killed_copy(dir.path(), copy.path());
    drop(volume);

    let volume = open(copy.path());
    for (number, &size) in sizes.iter().enumerate() {
        let expected = if number == 5 { content(99, 90_000) } else { content(number as u64, size) };
        assert_eq!(read_path(&volume, &[&format!("file{number}")]), expected, "file{number}");
    }
    let mut names = 0;
    volume
        .read_dir(Ino::ROOT, 0, &mut |_| {
            names += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(names, sizes.len() + 2, "with . and ..");
    volume.close().unwrap();
}
