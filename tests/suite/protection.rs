//! Flags of inodes: what they forbid, who may set them, and that they survive a crash; access times; failures told at close; references.

use std::sync::Arc;

use vellum_fs::{
    attr::{Caller, SetAttr, SetTime},
    error::{Error, Result},
    format::inode::{FLAG_APPEND_ONLY, FLAG_IMMUTABLE, FLAG_NO_ATIME, FLAG_NO_DUMP, FileKind},
    ino::Ino,
    namespace::{RenameFlags, XattrMode},
    time::Time,
    volume::{
        Volume,
        handles::{HandleId, OpenIntent, OpenMode},
        ops::{files::Allocate, names::NewInode},
    },
};
use vellum_store::disk::{
    Disk, FaultDisk, MemoryDisk,
    fault::{Fault, Op, Rule},
};
use vellum_tests::{
    dump::read_file,
    rig::{self, ME, Settings},
};

const USER: Caller = Caller { uid: 1000, gid: 1000, pid: 2 };

fn open(disk: &MemoryDisk, settings: &Settings) -> Arc<Volume> {
    rig::open(&(Arc::new(disk.clone()) as Arc<dyn Disk>), settings).expect("the volume opens").0
}

fn read_write() -> OpenMode {
    OpenMode { read: true, write: true, ..OpenMode::default() }
}

fn new<'a>(parent: Ino, name: &'a str, kind: FileKind) -> NewInode<'a> {
    NewInode { parent, name: name.as_bytes(), kind, mode: 0o755, umask: 0, rdev: 0, target: b"" }
}

fn create(volume: &Volume, parent: Ino, name: &str) -> (Ino, HandleId) {
    let (entry, opened) =
        volume.create(&new(parent, name, FileKind::Regular), read_write(), &ME).expect("the name is free");
    (entry.attr.ino, opened.handle)
}

fn mkdir(volume: &Volume, parent: Ino, name: &str) -> Ino {
    volume.mkdir(parent, name.as_bytes(), 0o755, 0, &ME).expect("the name is free").attr.ino
}

#[track_caller]
fn forbidden<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(matches!(answer, Err(Error::NotPermitted(_))), "{answer:?}");
}

fn rename(volume: &Volume, from: (Ino, &str), to: (Ino, &str)) -> Result<()> {
    volume.rename((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()), RenameFlags::default(), &ME).map(drop)
}

#[test]
fn an_immutable_file_takes_no_change_and_loses_no_name() {
    let volume = open(&rig::new_disk(), &Settings::default());
    let (ino, handle) = create(&volume, Ino::ROOT, "file");
    let (_, other) = create(&volume, Ino::ROOT, "other");
    volume.write(handle, 0, &[7; 20_000]).expect("there is room");
    volume.write(other, 0, &[8; 20_000]).expect("there is room");
    volume.set_xattr(ino, b"user.a", b"1", XattrMode::Set).expect("there is room");
    volume.set_flags(ino, FLAG_IMMUTABLE, &ME).expect("root may");
    let before = volume.get_attr(ino).expect("the file is there");
    forbidden(volume.write(handle, 0, b"x"));
    forbidden(volume.write(handle, 20_000, b"x"));
    forbidden(volume.copy_range((other, 0), (handle, 20_000), 20_000));
    forbidden(volume.allocate(handle, 0, 10, Allocate::Reserve { keep_size: true }));
    forbidden(volume.allocate(handle, 0, 10, Allocate::Punch));
    let set = |change: SetAttr| volume.set_attr(ino, &change);
    forbidden(set(SetAttr { size: Some(1), ..SetAttr::default() }));
    forbidden(set(SetAttr { mode: Some(0o600), ..SetAttr::default() }));
    forbidden(set(SetAttr { uid: Some(1), ..SetAttr::default() }));
    forbidden(set(SetAttr { gid: Some(1), ..SetAttr::default() }));
    forbidden(set(SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() }));
    forbidden(volume.set_xattr(ino, b"user.a", b"2", XattrMode::Set));
    forbidden(volume.remove_xattr(ino, b"user.a"));
    forbidden(volume.link(ino, Ino::ROOT, b"second"));
    forbidden(volume.unlink(Ino::ROOT, b"file"));
    forbidden(rename(&volume, (Ino::ROOT, "file"), (Ino::ROOT, "moved")));
    forbidden(rename(&volume, (Ino::ROOT, "other"), (Ino::ROOT, "file")));
    forbidden(volume.open_file(ino, read_write()));
    let appends = OpenIntent { appends: true, ..OpenIntent::default() };
    forbidden(volume.open_file_for(ino, read_write(), appends));
    assert_eq!(volume.get_attr(ino).expect("the file is there"), before, "nothing changed");
    assert!(read_file(&volume, ino).expect("it can be read") == [7; 20_000]);
    volume.set_flags(ino, 0, &ME).expect("root may");
    volume.write(handle, 0, b"x").expect("it is a file like others again");
    volume.unlink(Ino::ROOT, b"file").expect("it is a file like others again");
}

#[test]
fn an_append_only_file_grows_and_nothing_else() {
    let volume = open(&rig::new_disk(), &Settings::default());
    let (ino, handle) = create(&volume, Ino::ROOT, "log");
    let (_, other) = create(&volume, Ino::ROOT, "other");
    volume.write(other, 0, &[8; 20_000]).expect("there is room");
    volume.write(handle, 0, b"one\n").expect("there is room");
    volume.set_flags(ino, FLAG_APPEND_ONLY, &ME).expect("root may");
    forbidden(volume.open_file(ino, read_write()));
    let appends = OpenIntent { appends: true, ..OpenIntent::default() };
    let handle = volume.open_file_for(ino, read_write(), appends).expect("it may be appended to").handle;
    volume.write(handle, 4, b"two\n").expect("it may be appended to");
    volume.copy_range((other, 0), (handle, 8), 20_000).expect("it may be appended to");
    forbidden(volume.write(handle, 3, b"x"));
    forbidden(volume.copy_range((other, 0), (handle, 8), 20_000));
    forbidden(volume.allocate(handle, 0, 4, Allocate::Punch));
    forbidden(volume.allocate(handle, 50_000, 4, Allocate::Zero { keep_size: false }));
    volume.allocate(handle, 0, 4, Allocate::Reserve { keep_size: true }).expect("that changes nothing");
    let set = |change: SetAttr| volume.set_attr(ino, &change);
    forbidden(set(SetAttr { size: Some(1 << 20), ..SetAttr::default() }));
    forbidden(set(SetAttr { mode: Some(0o600), ..SetAttr::default() }));
    forbidden(set(SetAttr { mtime: Some(SetTime::At(Time::EPOCH)), ..SetAttr::default() }));
    set(SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() }).expect("it may be touched");
    forbidden(volume.set_xattr(ino, b"user.a", b"2", XattrMode::Set));
    forbidden(volume.link(ino, Ino::ROOT, b"second"));
    forbidden(volume.unlink(Ino::ROOT, b"log"));
    forbidden(rename(&volume, (Ino::ROOT, "log"), (Ino::ROOT, "log.1")));
    assert_eq!(read_file(&volume, ino).expect("it can be read")[..9], *b"one\ntwo\n\x08");
}

#[test]
fn a_protected_directory_keeps_its_names() {
    let volume = open(&rig::new_disk(), &Settings::default());
    let dir = mkdir(&volume, Ino::ROOT, "dir");
    create(&volume, dir, "file");
    mkdir(&volume, dir, "sub");
    create(&volume, Ino::ROOT, "outside");
    let removals = || {
        forbidden(volume.unlink(dir, b"file"));
        forbidden(volume.rmdir(dir, b"sub", &ME));
        forbidden(rename(&volume, (dir, "file"), (dir, "moved")));
        forbidden(rename(&volume, (dir, "file"), (Ino::ROOT, "moved")));
        forbidden(rename(&volume, (Ino::ROOT, "outside"), (dir, "file")));
        forbidden(volume.rmdir(Ino::ROOT, b"dir", &ME));
        forbidden(rename(&volume, (Ino::ROOT, "dir"), (Ino::ROOT, "moved")));
        forbidden(volume.set_attr(dir, &SetAttr { mode: Some(0o700), ..SetAttr::default() }));
        assert!(matches!(volume.unlink(dir, b"none"), Err(Error::NotFound(_))));
    };
    volume.set_flags(dir, FLAG_IMMUTABLE, &ME).expect("root may");
    removals();
    forbidden(volume.mkdir(dir, b"more", 0o755, 0, &ME));
    forbidden(volume.create(&new(dir, "more", FileKind::Regular), read_write(), &ME));
    forbidden(rename(&volume, (Ino::ROOT, "outside"), (dir, "more")));
    assert!(matches!(volume.mkdir(dir, b"sub", 0o755, 0, &ME), Err(Error::Exists(_))));
    let file = volume.lookup(dir, b"file").expect("it is there").attr.ino;
    forbidden(volume.link(file, dir, b"more"));
    volume.set_flags(dir, FLAG_APPEND_ONLY, &ME).expect("root may");
    removals();
    volume.mkdir(dir, b"more", 0o755, 0, &ME).expect("entries may be added");
    rename(&volume, (Ino::ROOT, "outside"), (dir, "inside")).expect("entries may be added");
    volume.link(file, dir, b"again").expect("entries may be added");
    // What lies in it is not protected by it.
    let handle = volume.open_file(file, read_write()).expect("it opens").handle;
    volume.write(handle, 0, b"x").expect("there is room");
}

#[test]
fn who_may_set_which_flags() {
    let volume = open(&rig::new_disk(), &Settings::default());
    let (ino, _) = create(&volume, Ino::ROOT, "file");
    volume.set_attr(ino, &SetAttr { uid: Some(USER.uid), ..SetAttr::default() }).expect("root may");
    let stranger = Caller { uid: 2000, ..USER };
    volume.set_flags(ino, FLAG_NO_DUMP | FLAG_NO_ATIME, &USER).expect("the owner may");
    forbidden(volume.set_flags(ino, 0, &stranger));
    forbidden(volume.set_flags(ino, FLAG_IMMUTABLE, &USER));
    forbidden(volume.set_flags(ino, FLAG_APPEND_ONLY, &USER));
    volume.set_flags(ino, FLAG_IMMUTABLE | FLAG_NO_DUMP, &ME).expect("root may");
    forbidden(volume.set_flags(ino, FLAG_NO_DUMP, &USER));
    volume.set_flags(ino, FLAG_IMMUTABLE, &USER).expect("the owner may, since it stays immutable");
    assert!(matches!(volume.set_flags(ino, 16, &ME), Err(Error::Unsupported(_))));
    let link = volume.create_inode(&NewInode { target: b"x", ..new(Ino::ROOT, "link", FileKind::Symlink) }, &ME);
    let link = link.expect("the name is free").attr.ino;
    assert!(matches!(volume.set_flags(link, FLAG_NO_DUMP, &ME), Err(Error::Unsupported(_))));
    assert_eq!(volume.get_flags(ino).expect("it is there"), FLAG_IMMUTABLE);
}

#[test]
fn what_is_made_in_a_directory_inherits_the_flags_that_protect_nothing() {
    let volume = open(&rig::new_disk(), &Settings::default());
    let dir = mkdir(&volume, Ino::ROOT, "dir");
    volume.set_flags(dir, FLAG_APPEND_ONLY | FLAG_NO_DUMP | FLAG_NO_ATIME, &ME).expect("root may");
    let (file, _) = create(&volume, dir, "file");
    for ino in [file, mkdir(&volume, dir, "sub")] {
        assert_eq!(volume.get_flags(ino).expect("it is there"), FLAG_NO_DUMP | FLAG_NO_ATIME);
    }
}

/// The journal holds the content of a file behind the record that made it immutable, and behind a record of its times: replay must
/// not ask the flags.
#[test]
fn flags_survive_a_crash_with_what_was_written_before_them() {
    let disk = rig::new_disk();
    let volume = open(&disk, &Settings::default());
    let (old, _) = create(&volume, Ino::ROOT, "file");
    volume.sync_names().expect("the disk is well");
    let (ino, handle) = create(&volume, Ino::ROOT, "new");
    volume.write(handle, 0, &[5; 9_000]).expect("there is room");
    rename(&volume, (Ino::ROOT, "new"), (Ino::ROOT, "file")).expect("nothing forbids it");
    volume.set_xattr(ino, b"user.a", b"1", XattrMode::Set).expect("there is room");
    volume.set_flags(ino, FLAG_IMMUTABLE, &ME).expect("root may");
    volume.set_flags(Ino::ROOT, FLAG_APPEND_ONLY | FLAG_NO_DUMP, &ME).expect("root may");
    volume.fsync(handle).expect("the disk is well");
    assert_ne!(old, ino);
    let image = disk.crash();
    for _ in 0..2 {
        let recovered = open(&image, &Settings::default());
        assert_eq!(recovered.get_flags(ino).expect("it is there"), FLAG_IMMUTABLE);
        assert_eq!(recovered.get_flags(Ino::ROOT).expect("it is there"), FLAG_APPEND_ONLY | FLAG_NO_DUMP);
        assert!(read_file(&recovered, ino).expect("it can be read") == [5; 9_000]);
        forbidden(recovered.unlink(Ino::ROOT, b"file"));
        recovered.close().expect("the disk is well");
    }
}

fn at(sec: i64) -> Time {
    Time { sec, nsec: 5 }
}

/// Does something at a time; returns the access time of an inode afterwards.
fn then(volume: &Volume, sec: i64, ino: Ino, act: impl FnOnce()) -> i64 {
    rig::set_clock(at(sec));
    act();
    volume.get_attr(ino).expect("it is there").atime.sec
}

#[test]
fn a_read_moves_the_access_time_when_relatime_says_so_and_a_write_never_does() {
    let settings = Settings { relatime: true, ..Settings::default() };
    let disk = rig::new_disk();
    let volume = open(&disk, &settings);
    rig::set_clock(at(1000));
    let (ino, handle) = create(&volume, Ino::ROOT, "file");
    let read = || {
        volume.read(handle, 0, 10).expect("it can be read");
    };
    let write = || {
        volume.write(handle, 0, b"x").expect("there is room");
    };
    assert_eq!(then(&volume, 1010, ino, write), 1000, "a write");
    assert_eq!(then(&volume, 1020, ino, read), 1020, "the first read after a write");
    assert_eq!(then(&volume, 1030, ino, read), 1020, "a second read");
    let chmod = || {
        volume.set_attr(ino, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).expect("root may");
    };
    assert_eq!(then(&volume, 1040, ino, chmod), 1020, "a change of mode");
    assert_eq!(then(&volume, 1050, ino, read), 1050, "the first read after a change of attributes");
    assert_eq!(then(&volume, 1050 + 86_399, ino, read), 1050, "a read within a day");
    assert_eq!(then(&volume, 1050 + 86_400, ino, read), 1050 + 86_400, "a read a day later");
    let cut = || {
        volume.set_attr(ino, &SetAttr { size: Some(1), ..SetAttr::default() }).expect("root may");
    };
    assert_eq!(then(&volume, 100_000, ino, cut), 1050 + 86_400, "a truncation");
    let intent = OpenIntent { keeps_atime: true, ..OpenIntent::default() };
    let quiet = volume.open_file_for(ino, read_write(), intent).expect("it opens").handle;
    let read_quietly = || {
        volume.read(quiet, 0, 10).expect("it can be read");
    };
    assert_eq!(then(&volume, 100_010, ino, read_quietly), 1050 + 86_400, "a read with O_NOATIME");
    volume.set_flags(ino, FLAG_NO_ATIME, &ME).expect("root may");
    assert_eq!(then(&volume, 300_000, ino, read), 1050 + 86_400, "a read of a file with the flag");
    let list =
        || volume.read_dir(Ino::ROOT, 0, &mut |_| std::ops::ControlFlow::Continue(())).expect("it can be listed");
    assert_eq!(then(&volume, 300_010, Ino::ROOT, list), 300_010, "a directory is listed");
    assert_eq!(then(&volume, 300_020, Ino::ROOT, list), 300_010, "and once more");
    let link = volume.create_inode(&NewInode { target: b"x", ..new(Ino::ROOT, "link", FileKind::Symlink) }, &ME);
    let link = link.expect("the name is free").attr.ino;
    let follow = || {
        volume.read_link(link).expect("it is a link");
    };
    assert_eq!(then(&volume, 300_030, link, follow), 300_030, "a link is read");
    volume.close().expect("the disk is well");
    let volume = open(&disk, &settings);
    rig::set_clock(at(300_040));
    assert_eq!(volume.get_attr(link).expect("it is there").atime, at(300_030), "after a remount");
    // Nothing but an access time moves, and it is kept by a clean close.
    let moved = then(&volume, 400_000, link, || {
        volume.read_link(link).expect("it is a link");
    });
    assert_eq!(moved, 400_000);
    volume.close().expect("the disk is well");
    assert_eq!(open(&disk, &settings).get_attr(link).expect("it is there").atime, at(400_000));
}

#[test]
fn without_relatime_no_read_moves_an_access_time() {
    let volume = open(&rig::new_disk(), &Settings::default());
    rig::set_clock(at(1000));
    let (ino, handle) = create(&volume, Ino::ROOT, "file");
    let act = || {
        volume.write(handle, 0, b"x").expect("there is room");
        volume.read(handle, 0, 10).expect("it can be read");
        volume.read_dir(Ino::ROOT, 0, &mut |_| std::ops::ControlFlow::Continue(())).expect("it can be listed");
    };
    assert_eq!(then(&volume, 500_000, ino, act), 1000);
    assert_eq!(then(&volume, 500_000, Ino::ROOT, || ()), volume.get_attr(Ino::ROOT).expect("it is there").btime.sec);
}

/// A volume on a disk that can be told to fail, with the disk below.
fn open_faulty() -> (MemoryDisk, FaultDisk, Arc<Volume>) {
    let disk = rig::new_disk();
    let faults = FaultDisk::new(Arc::new(disk.clone()));
    let shared: Arc<dyn Disk> = Arc::new(faults.clone());
    let volume = rig::open(&shared, &Settings::default()).expect("the volume opens").0;
    (disk, faults, volume)
}

/// A head can be published and then not be remembered by this machine, whose disk is another one: the checkpoint fails, and is tried
/// again. However often, what the journal holds must follow a head that recovery looks at.
#[test]
fn heads_that_cannot_be_remembered_cost_nothing_that_was_synced() {
    let (disk, faults, volume) = open_faulty();
    volume.checkpoint().expect("the disk is well");
    let keep = |name: &str| {
        let (_, handle) = create(&volume, Ino::ROOT, name);
        volume.write(handle, 0, b"kept").expect("there is room");
        volume.fsync(handle).expect("the disk is well");
    };
    for round in 0..5 {
        keep(&format!("before {round}"));
        // What was not remembered the last time is remembered first, and that succeeds.
        let fails = Rule::once(Op::Remove, Fault::NoSpace).times(u64::MAX);
        faults.add(fails.at("/state").after(u64::from(round > 0)));
        assert!(volume.checkpoint().expect_err("it cannot be remembered").is_no_space());
        faults.heal();
        keep(&format!("after {round}"));
        for image in [disk.crash(), disk.kill()] {
            let image: Arc<dyn Disk> = Arc::new(image);
            let (again, summary) = rig::open(&image, &Settings::default()).expect("no repair is needed");
            assert!(summary.damage.is_none(), "after round {round}: {:?}", summary.damage);
            for name in (0..=round).flat_map(|kept| [format!("before {kept}"), format!("after {kept}")]) {
                let ino = again.lookup(Ino::ROOT, name.as_bytes()).expect("its name was synced").attr.ino;
                assert_eq!(vellum_tests::dump::read_file(&again, ino).expect("it is read"), b"kept");
            }
            again.close().expect("the disk is well");
        }
    }
    volume.checkpoint().expect("the disk is well again");
    volume.close().expect("the disk is well");
}

/// `close` and `fsync` are where a program learns that what it wrote did not reach the store; each failure is told once, and what
/// was accepted is not lost by being told.
#[test]
fn a_failed_write_back_is_told_once_by_close_or_fsync_and_loses_nothing() {
    let (disk, faults, volume) = open_faulty();
    let (ino, handle) = create(&volume, Ino::ROOT, "file");
    let (_, other) = create(&volume, Ino::ROOT, "other");
    let fill = |byte: u8| {
        volume.write(handle, 0, &[byte; 200_000]).expect("there is room");
        faults.add(Rule::once(Op::Create, Fault::NoSpace).at("packs").times(u64::MAX));
        assert!(volume.flush_dirty().expect_err("the disk is full").is_no_space());
        faults.heal();
    };
    // Bytes that each chunk has for itself, so that they need a pack.
    volume
        .write(handle, 100_000, &(0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .expect("there is room");
    fill(1);
    volume.flush(other).expect("nothing failed for another file");
    assert!(volume.flush(handle).expect_err("close tells it").is_no_space());
    volume.flush(handle).expect("it was told");
    fill(2);
    assert!(volume.fsync(handle).expect_err("fsync tells it").is_no_space());
    volume.fsync(handle).expect("it was told, and there is room again");
    let recovered = open(&disk.crash(), &Settings::default());
    assert!(read_file(&recovered, ino).expect("the file is read")[..200_000] == [2; 200_000]);
}

/// Each answer that carries an inode counts, in whatever way it was given; the inode goes with the last of them.
#[test]
fn an_inode_without_names_goes_with_the_last_reference_to_it() {
    let volume = open(&rig::new_disk(), &Settings::default());
    let (ino, handle) = create(&volume, Ino::ROOT, "file");
    volume.release(handle).expect("it closes");
    volume.lookup(Ino::ROOT, b"file").expect("it is there");
    volume.lookup(ino, b".").expect("it is there");
    volume.link(ino, Ino::ROOT, b"second").expect("the name is free");
    let mut listed = 0;
    let mut count = |entry: &vellum_fs::namespace::DirEntry<'_>, _: &vellum_fs::attr::Attr| {
        listed += u64::from(entry.ino == ino);
        std::ops::ControlFlow::Continue(())
    };
    volume.read_dir_plus(Ino::ROOT, 0, &mut count).expect("it can be listed");
    assert_eq!(listed, 2);
    volume.unlink(Ino::ROOT, b"file").expect("it is there");
    volume.unlink(Ino::ROOT, b"second").expect("it is there");
    let references = 4 + listed;
    volume.forget(ino, 2);
    volume.forget(ino, references - 3);
    let handle = volume.open_file(ino, read_write()).expect("one reference is left").handle;
    volume.forget(ino, 1);
    volume.write(handle, 0, b"x").expect("it is open");
    volume.release(handle).expect("it closes");
    assert!(matches!(volume.get_attr(ino), Err(Error::Stale(_))));
    assert!(matches!(volume.lookup(ino, b"."), Err(Error::Stale(_))));
}
