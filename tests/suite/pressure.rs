//! Changes that come faster than they are stored.

use std::sync::Arc;

use vellum_fs::{
    format::inode::FileKind,
    ino::Ino,
    volume::{
        Volume, VolumeOptions,
        handles::{HandleId, OpenMode},
        ops::names::NewInode,
    },
};
use vellum_store::{disk::Disk, repository::Access};
use vellum_tests::rig::{self, Settings};

/// In a large directory the places of names are as good as random: nearly every new one changes another node. Five million
/// files made one after the other took a mount beyond half a gigabyte, because nothing held them up while a checkpoint ran.
#[test]
fn names_that_come_faster_than_checkpoints_wait_for_them() {
    const NODES_MAX: usize = 512 << 10;
    let disk: Arc<dyn Disk> = Arc::new(rig::new_disk());
    let repository = rig::open_repository(&disk, Access::ReadWrite).expect("the disk has a repository");
    let options = rig::volume_options(rig::main_volume(), &Settings::default());
    let (volume, _) =
        Volume::open(repository, VolumeOptions { dirty_nodes_max: NODES_MAX, ..options }).expect("it opens");
    let (mut most, mut made) = (0, 0);
    for number in 0..20_000 {
        let name = format!("a name of some length that ends in {number}");
        let entry = volume.mkdir(Ino::ROOT, name.as_bytes(), 0o755, 0, &rig::ME).expect("the name is free");
        volume.forget(entry.attr.ino, 1);
        most = most.max(volume.dirty_node_bytes());
        made += 1;
    }
    // One change touches a path and splits nodes on it.
    assert!(most <= 2 * NODES_MAX + (256 << 10), "{most} bytes of nodes were changed and not stored");
    assert!(most > NODES_MAX, "{made} names change as many nodes as may wait");
    volume.close().expect("the disk is well");
}

/// A file that is being written when memory runs short is not cut where its writer happened to be: its last chunk would be
/// stored, and no copy of the file would ever share it.
#[test]
fn a_copy_that_is_flushed_half_way_adds_no_content() {
    const PIECES: u64 = 80;
    let disk: Arc<dyn Disk> = Arc::new(rig::new_disk());
    // A budget of 8 MiB: above half of it the flusher begins.
    let (volume, _) = rig::open(&disk, &Settings::default()).expect("the disk has a repository");
    let copy_pieces = |to: &str| {
        for piece in 0..PIECES {
            rig::store_file(&volume, &format!("{to} {piece}"), piece, 64 << 10).expect("there is room");
        }
    };
    let content = rig::store_file(&volume, "first", 1000, 40_000).expect("there is room");
    copy_pieces("first");
    volume.checkpoint().expect("the disk is well");
    let stored = || volume.repository().stats().expect("they can be told").data_bytes;
    let before = stored();

    let second = create(&volume, "second");
    volume.write(second, 0, &content[..17_000]).expect("there is room");
    copy_pieces("second");
    while volume.health().dirty_bytes > 4 << 20 {
        std::thread::yield_now();
    }
    volume.write(second, 17_000, &content[17_000..]).expect("there is room");
    volume.release(second).expect("it is open");
    volume.checkpoint().expect("the disk is well");
    assert_eq!(stored(), before, "content was added");
    volume.close().expect("the disk is well");
}

/// The ends of files that are being written wait for more, but not when nothing else can be flushed: whoever has a thousand files
/// open and appends to each would wait for himself.
#[test]
fn a_thousand_files_that_are_being_written_use_no_more_than_the_budget() {
    let disk: Arc<dyn Disk> = Arc::new(rig::new_disk());
    let (volume, _) = rig::open(&disk, &Settings::default()).expect("the disk has a repository");
    let handles: Vec<_> = (0..1200).map(|number| create(&volume, &format!("file {number}"))).collect();
    // 14 MiB in ends of chunks, with a budget of 8 MiB.
    for (number, &handle) in (0..250u8).cycle().zip(&handles) {
        volume.write(handle, 0, &[number; 12_000]).expect("there is room");
        assert!(volume.health().dirty_bytes <= (8 << 20) + 12_000);
    }
    for handle in handles {
        volume.release(handle).expect("it is open");
    }
    volume.close().expect("the disk is well");
}

fn create(volume: &Volume, name: &str) -> HandleId {
    let (parent, name, kind) = (Ino::ROOT, name.as_bytes(), FileKind::Regular);
    let new = NewInode { parent, name, kind, mode: 0o644, umask: 0, rdev: 0, target: b"" };
    let mode = OpenMode { write: true, ..OpenMode::default() };
    let (_, opened) = volume.create(&new, mode, &rig::ME).expect("the name is free");
    opened.handle
}
