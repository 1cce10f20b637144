//! The index and the local tables are lost or damaged: they are built again, and show the same.

use std::{fs, path::Path, sync::Arc};

use vellum_fs::{ino::Ino, volume::Volume};
use vellum_store::{
    backend::ObjectName,
    disk::{Disk, MemoryDisk},
    repository::{Access, OpenOptions, Repository},
    spawn::Seed,
};
use vellum_tests::{
    dump,
    player::Player,
    rig::{self, Announce, Settings},
};

fn try_open(disk: &MemoryDisk, tables: &Path, rebuild_index: bool) -> vellum_fs::error::Result<Arc<Volume>> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let usual = rig::repository_options(&shared, Access::ReadWrite);
    let repository = Repository::open(OpenOptions { table_dir: Some(tables.into()), rebuild_index, ..usual })?;
    Ok(Volume::open(repository, rig::volume_options(rig::main_volume(), &Settings::default()))?.0)
}

fn open(disk: &MemoryDisk, tables: &Path, rebuild_index: bool) -> Arc<Volume> {
    try_open(disk, tables, rebuild_index).expect("the volume opens")
}

fn segments(volume: &Volume) -> Vec<(ObjectName, u64)> {
    let mut found = Vec::new();
    let list = &mut |name, length| {
        found.push((name, length));
        Ok(())
    };
    volume.repository().backend().list("index/", list).expect("the disk is well");
    found
}

/// Takes the file away, cuts it, or changes bytes of it.
fn harm_table(path: &Path, choices: &mut Seed) {
    for entry in fs::read_dir(path).expect("it is listed").map(|entry| entry.expect("it is listed").path()) {
        if entry.is_dir() {
            harm_table(&entry, choices);
            continue;
        }
        let mut bytes = fs::read(&entry).expect("it is read");
        match choices.below(4) {
            0 => fs::remove_file(&entry).expect("it is there"),
            1 => {
                bytes.truncate(bytes.len() / 2);
                fs::write(&entry, bytes).expect("there is room");
            }
            2 if !bytes.is_empty() => {
                for _ in 0..16 {
                    let at = choices.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 0x55;
                }
                fs::write(&entry, bytes).expect("there is room");
            }
            _ => {}
        }
    }
}

pub(crate) fn unit(seed: u64) -> u64 {
    let _announce = Announce(seed);
    let mut choices = Seed::new(seed ^ 0x1d3);
    let tables = tempfile::tempdir().expect("there is room");
    let disk = rig::new_disk();
    let mut player = Player::new(open(&disk, tables.path(), false), seed);
    (0..150).for_each(|_| player.step());
    player.close_all();
    player.volume.checkpoint().expect("the disk is well");
    let before = dump::of_volume(&player.volume, Ino::ROOT).expect("it is read");
    let segments = segments(&player.volume);
    player.close_volume();
    let history = player.history.clone();
    drop(player);
    let (mut harmed, mut flipped) = (0, false);
    for (name, length) in &segments {
        let path = Path::new(rig::REPOSITORY).join(name.as_str());
        match choices.below(4) {
            0 => disk.remove(&path).expect("it is there"),
            1 => {
                disk.rot(&path, choices.below(*length), 0x40).expect("it is there");
                flipped = true;
            }
            2 => {
                let file = disk.open_write(&path).expect("it is there");
                file.set_len(choices.below(*length)).expect("there is room");
            }
            _ => continue,
        }
        harmed += 1;
    }
    harm_table(tables.path(), &mut choices);
    // A damaged page shows when it is read, as what it is; then, as a repair does, the packs are asked.
    if flipped && let Err(error) = try_open(&disk.kill(), tables.path(), false) {
        assert!(error.is_damage() && error.to_string().contains("index/"), "seed {seed}: {error}");
    }
    let volume = open(&disk, tables.path(), flipped);
    history.verify(&volume);
    assert!(dump::of_volume(&volume, Ino::ROOT).expect("it is read") == before, "seed {seed}: another tree");
    let mut damage = Vec::new();
    volume.check_trees(&mut |found| damage.push(found)).expect("the disk is well");
    assert_eq!(damage, [], "seed {seed}, {harmed} segments");
    volume.close().expect("the disk is well");
    1
}
