//! Tests of the simulated disk: what a crash keeps.

#![allow(clippy::unwrap_used)]

use super::*;

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn create(disk: &MemoryDisk, name: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.create_new(path(name)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn read(disk: &MemoryDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open_read(path(name)).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

#[test]
fn crash_keeps_what_was_synced_under_a_synced_name_and_nothing_else() {
    let disk = MemoryDisk::new();
    let file = create(&disk, "/a", b"synced");
    file.sync_data().unwrap();
    assert_eq!(read(&disk.crash(), "/a"), None);
    disk.sync_dir(path("/")).unwrap();
    file.write_all_at(b"unsynced", 6).unwrap();
    create(&disk, "/b", b"no sync of the directory").sync_data().unwrap();
    let after = disk.crash();
    assert_eq!(read(&after, "/a").unwrap(), b"synced");
    assert_eq!(read(&after, "/b"), None);
    assert_eq!(read(&disk, "/a").unwrap(), b"syncedunsynced");
}

#[test]
fn name_that_is_durable_before_its_bytes_shows_an_empty_file() {
    let disk = MemoryDisk::new();
    create(&disk, "/a", b"bytes");
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(read(&disk.crash(), "/a").unwrap(), b"");
}

#[test]
fn killed_program_leaves_everything_and_no_locks() {
    let disk = MemoryDisk::new();
    create(&disk, "/a", b"unsynced");
    let lock = disk.lock(path("/lock"), true).unwrap();
    assert!(lock.is_some() && disk.is_locked(path("/lock")).unwrap());
    let after = disk.kill();
    assert_eq!(read(&after, "/a").unwrap(), b"unsynced");
    assert!(after.lock(path("/lock"), true).unwrap().is_some());
    assert!(disk.lock(path("/lock"), false).unwrap().is_none());
    // What the dead program had not synced can still be lost.
    assert_eq!(read(&after.crash(), "/a"), None);
}

#[test]
fn new_directory_is_lost_with_all_it_holds_unless_its_parent_was_synced() {
    let disk = MemoryDisk::new();
    disk.create_dir(path("/d")).unwrap();
    create(&disk, "/d/a", b"x").sync_data().unwrap();
    disk.sync_dir(path("/d")).unwrap();
    assert_eq!(disk.crash().metadata(path("/d")).unwrap(), None);
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(read(&disk.crash(), "/d/a").unwrap(), b"x");
}

#[test]
fn renames_inside_a_directory_are_atomic_in_any_crash() {
    let disk = MemoryDisk::new();
    create(&disk, "/new", b"new").sync_data().unwrap();
    create(&disk, "/old", b"old").sync_data().unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk.rename(path("/new"), path("/old")).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let after = disk.crash_seeded(seed);
        let names = (read(&after, "/old").unwrap(), read(&after, "/new"));
        assert!(
            names == (b"new".to_vec(), None) || names == (b"old".to_vec(), Some(b"new".to_vec())),
            "seed {seed}: {names:?}"
        );
        seen.insert(names);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn rename_between_directories_never_loses_the_file() {
    for synced in [&["/to"][..], &["/from"], &["/to", "/from"], &["/from", "/to"], &[]] {
        let disk = MemoryDisk::new();
        disk.create_dir(path("/from")).unwrap();
        disk.create_dir(path("/to")).unwrap();
        disk.sync_dir(path("/")).unwrap();
        create(&disk, "/from/a", b"x").sync_data().unwrap();
        disk.sync_dir(path("/from")).unwrap();
        disk.rename_new(path("/from/a"), path("/to/a")).unwrap();
        synced.iter().for_each(|dir| disk.sync_dir(path(dir)).unwrap());
        for seed in 0..20 {
            let after = disk.crash_seeded(seed);
            let (from, to) = (read(&after, "/from/a").is_some(), read(&after, "/to/a").is_some());
            assert!(from || to, "seed {seed}, {synced:?}");
            assert!(synced.is_empty() || to, "seed {seed}, {synced:?}");
            assert!(synced.len() < 2 || !from, "seed {seed}, {synced:?}");
        }
    }
}

#[test]
fn later_sync_of_a_directory_does_not_bring_back_what_a_rename_replaced() {
    let disk = MemoryDisk::new();
    disk.create_dir(path("/from")).unwrap();
    disk.create_dir(path("/to")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    create(&disk, "/to/x", b"first").sync_data().unwrap();
    create(&disk, "/from/t", b"second").sync_data().unwrap();
    disk.rename(path("/from/t"), path("/to/x")).unwrap();
    disk.sync_dir(path("/from")).unwrap();
    (0..20).for_each(|seed| assert_eq!(read(&disk.crash_seeded(seed), "/to/x").unwrap(), b"second", "seed {seed}"));
    disk.sync_dir(path("/to")).unwrap();
    assert_eq!(read(&disk.crash(), "/to/x").unwrap(), b"second");
}

#[test]
fn unsynced_writes_are_torn_at_sectors_and_synced_ones_never() {
    let disk = MemoryDisk::new();
    let file = create(&disk, "/a", &[1; 4096]);
    file.sync_data().unwrap();
    disk.sync_dir(path("/")).unwrap();
    file.write_all_at(&[2; 2048], 1024).unwrap();
    let mut torn = false;
    for seed in 0..50 {
        let bytes = read(&disk.crash_seeded(seed), "/a").unwrap();
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|&b| b == sector[0])), "seed {seed}");
        assert_eq!((&sectors[..2], &sectors[6..]), (&[1, 1][..], &[1, 1][..]), "seed {seed}");
        torn |= sectors[2..6].contains(&1) && sectors[2..6].contains(&2);
        assert_eq!(read(&disk.crash_seeded(seed), "/a").unwrap(), bytes, "seed {seed}");
    }
    assert!(torn);
    file.sync_data().unwrap();
    (0..20).for_each(|seed| {
        assert_eq!(&read(&disk.crash_seeded(seed), "/a").unwrap()[1024..3072], &[2; 2048], "seed {seed}");
    });
}

#[test]
fn bytes_that_were_cut_off_come_back_as_zeros() {
    let disk = MemoryDisk::new();
    let file = create(&disk, "/a", &[7; 10_000]);
    file.sync_data().unwrap();
    disk.sync_dir(path("/")).unwrap();
    file.set_len(100).unwrap();
    file.set_len(9_000).unwrap();
    let expected: Vec<u8> = (0..9_000).map(|i| if i < 100 { 7 } else { 0 }).collect();
    assert_eq!(read(&disk, "/a").unwrap(), expected);
    assert_eq!(read(&disk.crash(), "/a").unwrap(), [7; 10_000]);
    file.sync_data().unwrap();
    assert_eq!(read(&disk.crash(), "/a").unwrap(), expected);
}

#[test]
fn full_disk_refuses_growth_but_not_writes_into_the_reserve() {
    let disk = MemoryDisk::with_capacity(10_000);
    let file = create(&disk, "/a", &[1; 1000]);
    file.allocate(0, 8000).unwrap();
    let other = disk.create_new(path("/b")).unwrap();
    assert_eq!(other.write_all_at(&[1; 3000], 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(other.len().unwrap(), 2000, "what fits is written");
    file.write_all_at(&[2; 7000], 1000).unwrap();
    assert_eq!(disk.space(path("/")).unwrap().free_bytes, 0);
    file.set_len(4000).unwrap();
    other.write_all_at(&[1; 3000], 0).unwrap();
    disk.remove(path("/a")).unwrap();
    assert_eq!(disk.space(path("/")).unwrap().free_bytes, 7000);
    disk.set_capacity(1000);
    assert_eq!(other.write_all_at(&[1], 3000).unwrap_err().kind(), io::ErrorKind::StorageFull);
    other.write_all_at(&[1; 3000], 0).unwrap();
}

#[test]
fn removed_file_stays_readable_where_it_is_open() {
    let disk = MemoryDisk::new();
    let file = create(&disk, "/a", b"bytes");
    disk.remove(path("/a")).unwrap();
    let mut bytes = [0; 5];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"bytes");
    assert_eq!(disk.open_read(path("/a")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn rot_shows_at_once_and_after_a_crash() {
    let disk = MemoryDisk::new();
    create(&disk, "/a", b"aaaa").sync_data().unwrap();
    disk.sync_dir(path("/")).unwrap();
    disk.rot(path("/a"), 2, 1).unwrap();
    assert_eq!(read(&disk, "/a").unwrap(), b"aa`a");
    assert_eq!(read(&disk.crash(), "/a").unwrap(), b"aa`a");
}

/// A plain vector under the same random calls: contents agree at each step, and after a sync with what a crash leaves.
#[test]
fn contents_agree_with_a_plain_vector_under_random_calls() {
    for start in 0..20 {
        let mut seed = Seed::new(start);
        let disk = MemoryDisk::new();
        let file = disk.create_new(path("/a")).unwrap();
        disk.sync_dir(path("/")).unwrap();
        let mut model: Vec<u8> = Vec::new();
        for _ in 0..200 {
            let (offset, length) = (seed.below(20_000) as usize, seed.below(5_000) as usize);
            match seed.below(4) {
                0 | 1 if length > 0 => {
                    let byte = seed.number() as u8;
                    file.write_all_at(&vec![byte; length], offset as u64).unwrap();
                    model.resize(model.len().max(offset + length), 0);
                    model[offset..offset + length].fill(byte);
                }
                2 => {
                    file.set_len(offset as u64).unwrap();
                    model.resize(offset, 0);
                }
                _ => {
                    file.sync_data().unwrap();
                    assert_eq!(read(&disk.crash(), "/a").unwrap(), model, "seed {start}");
                }
            }
            assert_eq!(read(&disk, "/a").unwrap(), model, "seed {start}");
        }
    }
}
