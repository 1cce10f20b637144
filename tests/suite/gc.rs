//! Reclaiming space: what nothing reaches goes, all else stays, whatever happens beside it or to it.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use vellum_fs::{
    ino::Ino,
    volume::{
        Volume,
        gc::{GcReport, GcStep, collect},
        handles::OpenMode,
        snapshot::SnapshotRequest,
    },
};
use vellum_store::{
    backend::ObjectName,
    disk::{Disk, FaultDisk, MemoryDisk, fault::Rule},
    id::VolumeName,
    repository::{Access, GcOptions},
};
use vellum_tests::{
    dump::{self, read_file},
    player::Player,
    rig::{self, Announce, Settings, store_file},
};

fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn open(disk: &MemoryDisk) -> Arc<Volume> {
    rig::open(&shared(disk), &Settings::default()).expect("the volume opens").0
}

fn read(volume: &Volume, name: &str) -> Vec<u8> {
    let entry = volume.lookup(Ino::ROOT, name.as_bytes()).expect("the name is there");
    read_file(volume, entry.attr.ino).expect("the file is read")
}

fn unlink(volume: &Volume, name: &str) {
    let ino = volume.lookup(Ino::ROOT, name.as_bytes()).expect("the name is there").attr.ino;
    volume.unlink(Ino::ROOT, name.as_bytes()).expect("the name is there");
    // One reference of this lookup, one of the creation.
    volume.forget(ino, 2);
}

fn run(volume: &Arc<Volume>) -> GcReport {
    run_with(volume, &mut |_| {})
}

fn run_with(volume: &Arc<Volume>, tell: &mut dyn FnMut(GcStep)) -> GcReport {
    collect(volume.repository(), std::slice::from_ref(volume), &GcOptions::default(), false, tell).expect("gc runs")
}

fn stored(volume: &Volume) -> u64 {
    let mut bytes = 0;
    let count = &mut |_, length| {
        bytes += length;
        Ok(())
    };
    volume.repository().backend().list("packs/", count).expect("the disk is well");
    bytes
}

fn assert_sound(volume: &Volume) {
    let mut damage = Vec::new();
    volume.repository().check(true, &mut |_| {}, &mut |found| damage.push(found)).expect("the disk is well");
    volume.check_trees(&mut |found| damage.push(found)).expect("the disk is well");
    assert_eq!(damage, []);
}

fn snapshot(volume: &Volume, name: &str) {
    let request = SnapshotRequest { name: Some(name.as_bytes().to_vec()), ..SnapshotRequest::default() };
    volume.take_snapshot(&request).expect("the name is free");
}

#[test]
fn what_was_deleted_is_freed_and_what_was_not_is_there() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    let kept = store_file(&volume, "kept", 1, 500_000).expect("there is room");
    store_file(&volume, "gone", 2, 800_000).expect("there is room");
    volume.checkpoint().expect("the disk is well");
    let before = stored(&volume);
    unlink(&volume, "gone");
    let report = run(&volume);
    assert!(report.space.deleted_bytes > 700_000 && stored(&volume) + 700_000 < before, "{report:?}");
    assert!(read(&volume, "kept") == kept);
    assert_sound(&volume);
    let after = open(&disk.crash());
    assert!(read(&after, "kept") == kept);
    assert_sound(&after);
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    store_file(&volume, "gone", 2, 800_000).expect("there is room");
    volume.checkpoint().expect("the disk is well");
    unlink(&volume, "gone");
    volume.checkpoint().expect("the disk is well");
    let names = || {
        let mut names = Vec::new();
        let list = &mut |name, _| {
            names.push(name);
            Ok(())
        };
        volume.repository().backend().list("packs/", list).expect("the disk is well");
        names
    };
    let before = names();
    let report = collect(volume.repository(), &[Arc::clone(&volume)], &GcOptions::default(), true, &mut |_| {});
    let report = report.expect("gc runs").space;
    assert!(report.dead_bytes > 0 && report.deleted_bytes == 0, "{report:?}");
    let after = names();
    assert!(before.iter().all(|pack| after.contains(pack)), "a pack is gone");
}

#[test]
fn a_snapshot_holds_what_it_shows_until_it_is_deleted() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    let content = store_file(&volume, "file", 3, 600_000).expect("there is room");
    snapshot(&volume, "then");
    unlink(&volume, "file");
    let held = run(&volume).space;
    assert!(held.live_bytes > 600_000 && held.deleted_bytes < 100_000, "{held:?}");
    let dump = dump::of_snapshot(&volume, b"then").expect("the snapshot is there");
    assert_eq!(dump, dump::of_snapshot(&open(&disk.crash()), b"then").expect("the snapshot is there"));
    volume.delete_snapshot(b"then").expect("the snapshot is there");
    let freed = run(&volume).space;
    assert!(freed.deleted_bytes > 500_000, "{freed:?}");
    // The same content again is new content.
    assert!(store_file(&volume, "file", 3, 600_000).expect("there is room") == content);
    volume.checkpoint().expect("the disk is well");
    assert!(read(&open(&disk.crash()), "file") == content);
    assert_sound(&volume);
}

/// What is written while packs are condemned must not be taken for stored there.
#[test]
fn content_that_comes_back_while_its_packs_are_condemned_is_stored_again() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    store_file(&volume, "used", 7, 200_000).expect("there is room");
    let content = store_file(&volume, "gone", 4, 600_000).expect("there is room");
    volume.checkpoint().expect("the disk is well");
    unlink(&volume, "gone");
    let mut number = 0;
    run_with(&volume, &mut |step| {
        // Before and after the packs are condemned, while what is used is moved, and right before they are deleted.
        let name = format!("again-{number}");
        number += 1;
        store_file(&volume, &name, 4, 600_000).expect("there is room");
        if matches!(step, GcStep::Moving(..)) {
            volume.flush_dirty().expect("the disk is well");
        }
    });
    assert!(number > 1);
    volume.checkpoint().expect("the disk is well");
    let after = open(&disk.crash());
    for number in 0..number {
        assert!(read(&after, &format!("again-{number}")) == content, "{number}");
    }
    assert_sound(&after);
}

/// Closes the last hold on a volume, and so on its repository.
fn close(volume: Arc<Volume>) {
    volume.close().expect("the disk is well");
}

fn packs(volume: &Volume) -> Vec<(String, u64)> {
    let mut packs = Vec::new();
    let list = &mut |name: ObjectName, length| {
        packs.push((name.to_string(), length));
        Ok(())
    };
    volume.repository().backend().list("packs/", list).expect("the disk is well");
    packs
}

/// A chunk was damaged and written again. The good copy lay in a small pack that was given up, and the bad one counted as stored.
#[test]
fn the_good_copy_of_a_damaged_chunk_is_the_one_that_stays() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    let content = store_file(&volume, "file", 1, 4000).expect("there is room");
    store_file(&volume, "beside", 2, 50_000).expect("there is room");
    volume.checkpoint().expect("the disk is well");
    let largest = packs(&volume).into_iter().max_by_key(|(_, length)| *length).expect("there are packs");
    close(volume);
    for offset in (0..54_000).step_by(900) {
        disk.rot(&Path::new(rig::REPOSITORY).join(&largest.0), offset, 1).expect("the pack is there");
    }
    let volume = open(&disk);
    let ino = volume.lookup(Ino::ROOT, b"file").expect("the name is there").attr.ino;
    let handle = volume.open_file(ino, OpenMode { read: true, ..OpenMode::default() }).expect("it is there").handle;
    // What was read and found damaged is stored again.
    let damaged = (0..4000).step_by(500).filter(|&offset| volume.read(handle, offset, 500).is_err()).count();
    assert!(damaged > 4, "{damaged}");
    volume.release(handle).expect("it is open");
    let before = packs(&volume);
    store_file(&volume, "again", 1, 4000).expect("there is room");
    volume.checkpoint().expect("the disk is well");
    let new = packs(&volume).into_iter().filter(|pack| !before.contains(pack));
    let good = new.max_by_key(|(_, length)| *length).map(|(name, _)| name);
    for number in 0..10 {
        store_file(&volume, &format!("small-{number}"), 50 + number, 2100).expect("there is room");
        volume.checkpoint().expect("the disk is well");
    }
    close(volume);
    let volume = open(&disk);
    let good = good.expect("it was stored again");
    assert!(packs(&volume).iter().any(|(name, _)| *name == good));
    run(&volume);
    assert!(packs(&volume).iter().all(|(name, _)| *name != good), "the small pack was given up");
    close(volume);
    let volume = open(&disk.crash());
    assert!(read(&volume, "again") == content);
    assert!(read(&volume, "file") == content);
}

/// Many small packs, as checkpoints leave them, become few.
#[test]
fn small_packs_are_put_together() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    let mut contents = BTreeMap::new();
    for number in 0..40 {
        let name = format!("file-{number}");
        contents.insert(name.clone(), store_file(&volume, &name, number, 3000).expect("there is room"));
        volume.checkpoint().expect("the disk is well");
    }
    let report = run(&volume).space;
    assert!(report.packs > 80 && report.deleted_bytes > 0, "{report:?}");
    let mut packs = 0;
    volume
        .repository()
        .backend()
        .list("packs/", &mut |_, _| {
            packs += 1;
            Ok(())
        })
        .expect("the disk is well");
    assert!(packs < 30, "{packs} packs are left of {}", report.packs);
    let after = open(&disk.crash());
    for (name, content) in &contents {
        assert!(read(&after, name) == *content, "{name}");
    }
    assert_sound(&after);
}

#[test]
fn a_reader_elsewhere_delays_the_deletion_until_the_next_run() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    store_file(&volume, "gone", 2, 400_000).expect("there is room");
    volume.checkpoint().expect("the disk is well");
    unlink(&volume, "gone");
    let reader = rig::open_repository(&shared(&disk), Access::ReadOnly).expect("the repository opens");
    let delayed = run(&volume).space;
    assert!(delayed.delayed_packs > 0 && delayed.deleted_bytes == 0, "{delayed:?}");
    drop(reader);
    assert!(run(&volume).space.deleted_bytes > 400_000);
    assert_sound(&volume);
}

/// Who has begun to read a state of the tree finds all of it, whatever is deleted meanwhile.
#[test]
fn a_reader_that_began_before_a_run_is_waited_for() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    // More than the cache of nodes holds.
    for number in 0..6000 {
        store_file(&volume, &format!("a name that is long enough to fill a node {number}"), 1, 10)
            .expect("there is room");
    }
    volume.checkpoint().expect("the disk is well");
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (deleting, is_deleting) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let volume = &volume;
        let reader = scope.spawn(move || {
            let mut count = 0;
            let listed = volume.read_dir(Ino::ROOT, 0, &mut |_| {
                count += 1;
                if count == 10 {
                    begun.send(()).expect("somebody waits");
                    may_go_on.recv().expect("gc gets to where it waits");
                    // It must not get further; one that did would have buried what is read next.
                    let _ = is_deleting.recv_timeout(Duration::from_millis(200));
                }
                ControlFlow::Continue(())
            });
            listed.map(|_| count)
        });
        has_begun.recv().expect("the reader begins");
        for number in (0..6000).step_by(20) {
            unlink(volume, &format!("a name that is long enough to fill a node {number}"));
        }
        let tell = &mut |step| match step {
            GcStep::Waiting => go_on.send(()).expect("the reader waits"),
            GcStep::Deleting => drop(deleting.send(())),
            _ => {}
        };
        let report = run_with(volume, tell).space;
        assert!(report.deleted_bytes > 100_000 && report.delayed_packs == 0, "{report:?}");
        let count = reader.join().expect("the reader ends").expect("all is there");
        assert!((5700..=6002).contains(&count), "{count} names");
    });
    assert_sound(&volume);
}

#[test]
fn a_writer_elsewhere_keeps_gc_away_and_gc_keeps_writers_away() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    let other = rig::open_repository(&shared(&disk), Access::ReadWrite).expect("the repository opens");
    let refused = collect(volume.repository(), &[Arc::clone(&volume)], &GcOptions::default(), false, &mut |_| {});
    assert!(matches!(&refused, Err(error) if error.to_string().contains("in use")), "{refused:?}");
    drop(other);
    let mut refused = 0;
    run_with(&volume, &mut |_| {
        refused += usize::from(rig::open_repository(&shared(&disk), Access::ReadWrite).is_err());
    });
    assert!(refused > 0);
    rig::open_repository(&shared(&disk), Access::ReadWrite).expect("the run is over");
}

/// A volume that another process wrote has packs and segments of which this one was never told.
#[test]
fn what_another_volume_reaches_stays() {
    let disk = rig::new_disk();
    let main = open(&disk);
    let other = VolumeName::new("other").expect("the name is plain");
    let content = {
        let repository = rig::open_repository(&shared(&disk), Access::ReadWrite).expect("the repository opens");
        let options = rig::volume_options(other.clone(), &Settings::default());
        let (volume, _) = Volume::open(repository, options.clone()).expect("the volume opens");
        let content = store_file(&volume, "file", 9, 300_000).expect("there is room");
        volume.close().expect("the disk is well");
        content
    };
    let refused = collect(main.repository(), &[Arc::clone(&main)], &GcOptions::default(), false, &mut |_| {});
    assert!(refused.expect_err("a volume is missing").to_string().contains("volume other"));
    let options = rig::volume_options(other.clone(), &Settings::default());
    store_file(&main, "gone", 2, 400_000).expect("there is room");
    main.checkpoint().expect("the disk is well");
    unlink(&main, "gone");
    let (volume, _) = Volume::open(Arc::clone(main.repository()), options.clone()).expect("the volume opens");
    let volumes = [Arc::clone(&main), Arc::clone(&volume)];
    let report = collect(main.repository(), &volumes, &GcOptions::default(), false, &mut |_| {}).expect("gc runs");
    assert!(report.space.deleted_bytes > 300_000, "{report:?}");
    assert!(read(&volume, "file") == content);
    let image = disk.crash();
    let repository = rig::open_repository(&shared(&image), Access::ReadWrite).expect("the repository opens");
    let (volume, _) = Volume::open(repository, options).expect("the volume opens");
    assert!(read(&volume, "file") == content);
    assert_sound(&volume);
}

/// Power goes before each change of the disk in turn.
#[test]
fn a_run_can_be_cut_off_anywhere() {
    let mut calls = 0;
    loop {
        let disk = rig::new_disk();
        let faults = FaultDisk::new(shared(&disk));
        let (volume, _) =
            rig::open(&(Arc::new(faults.clone()) as Arc<dyn Disk>), &Settings::default()).expect("it opens");
        let kept = store_file(&volume, "kept", 1, 60_000).expect("there is room");
        for number in 0..6 {
            // Packs of both: some must be moved.
            store_file(&volume, &format!("gone-{number}"), 10 + number, 30_000).expect("there is room");
            store_file(&volume, &format!("stays-{number}"), 20 + number, 5_000).expect("there is room");
            volume.checkpoint().expect("the disk is well");
        }
        let stays = read(&volume, "stays-3");
        (0..6).for_each(|number| unlink(&volume, &format!("gone-{number}")));
        volume.checkpoint().expect("the disk is well");
        faults.add(Rule::power_off_after(calls));
        let done = collect(volume.repository(), &[Arc::clone(&volume)], &GcOptions::default(), false, &mut |_| {});
        let after = open(&disk.crash_seeded(calls));
        assert!(read(&after, "kept") == kept && read(&after, "stays-3") == stays, "power off after {calls} calls");
        assert_sound(&after);
        run(&after);
        assert!(read(&after, "kept") == kept && read(&after, "stays-3") == stays, "power off after {calls} calls");
        assert_sound(&after);
        if done.is_ok() {
            assert!(calls > 20, "a run takes more than {calls} changes of the disk");
            return;
        }
        calls += 7;
    }
}

/// Histories of everything that a volume can do, with runs in between.
#[test]
fn histories_with_runs_in_between_give_what_the_model_gives() {
    for seed in rig::seeds(12) {
        let _announce = Announce(seed);
        let disk = rig::new_disk();
        let volume = open(&disk);
        let mut player = Player::new(Arc::clone(&volume), seed);
        for _ in 0..6 {
            (0..60).for_each(|_| player.step());
            let volume = Arc::clone(&player.volume);
            run(&volume);
            player.verify();
            assert_sound(&volume);
        }
        drop(volume);
        player.close_volume();
    }
}
