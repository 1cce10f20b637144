//! Changes that come faster than they are stored.

use std::sync::Arc;

use vellum_fs::{
    ino::Ino,
    volume::{Volume, VolumeOptions},
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
