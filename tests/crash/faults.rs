//! A disk that fails once, or is full for a while: what was acknowledged stays, nothing panics, and what is answered is an error.

use std::sync::Arc;

use vellum_fs::{ino::Ino, volume::health::HealthState};
use vellum_store::{
    disk::{
        Disk, FaultDisk,
        fault::{Fault, Op, Rule},
    },
    spawn::Seed,
};
use vellum_tests::{
    dump::read_file,
    player::Player,
    rig::{self, Announce, Settings},
};

const OPS: [Op; 8] = [Op::Create, Op::Rename, Op::Write, Op::Allocate, Op::SetLen, Op::Remove, Op::SyncDir, Op::Sync];

fn play_with_fault(seed: u64, fault: Fault, settings: &Settings) {
    let _announce = Announce(seed);
    let mut choices = Seed::new(seed ^ 0xfa017);
    let disk = rig::new_disk();
    let faults = FaultDisk::new(Arc::new(disk.clone()));
    let shared: Arc<dyn Disk> = Arc::new(faults.clone());
    let (volume, _) = rig::open(&shared, settings).expect("a new volume opens");
    let mut player = Player::new(volume, seed);
    player.faulty = true;
    for _ in 0..80 {
        player.step();
    }
    // Want of space shows where space is taken; a sync that fails for it fails like any other.
    let ops = if matches!(fault, Fault::NoSpace | Fault::ShortNoSpace) { &OPS[..5] } else { &OPS[..] };
    let op = ops[choices.below(ops.len() as u64) as usize];
    faults.add(Rule::once(op, fault).after(choices.below(12)).times(1 + choices.below(3)));
    let mut refused = 0;
    for _ in 0..120 {
        player.step();
        // An operation that failed changed nothing, so the history goes on; a volume that is poisoned refuses changes for good.
        if player.failed.take().is_some() {
            refused += 1;
        }
        if player.volume.poisoned().is_some() || refused > 30 {
            break;
        }
    }
    // Reads go on whatever happened.
    player.verify();
    for image in [disk.crash(), disk.kill(), disk.crash_seeded(seed)] {
        let image: Arc<dyn Disk> = Arc::new(image);
        let (volume, _) = rig::open(&image, settings).expect("a volume opens after a failure of its disk");
        player.history.explain(&volume, &player.history.acknowledged);
        volume.close().expect("what was recovered is closed");
    }
    let poisoned = player.volume.poisoned().is_some();
    assert_eq!(player.volume.health().state == HealthState::Poisoned, poisoned, "what is told is what holds");
    if !poisoned {
        faults.heal();
        player.faulty = false;
        match player.volume.checkpoint() {
            Ok(()) => {
                player.verify();
                player.close_volume();
            }
            // The store met its second failure in the background; the volume learns of it here.
            Err(error) => {
                assert!(!matches!(fault, Fault::NoSpace | Fault::ShortNoSpace), "there is room again, but {error}");
                assert!(player.volume.poisoned().is_some(), "{error}");
            }
        }
    }
}

#[test]
fn a_failing_disk_takes_nothing_that_was_acknowledged() {
    for seed in rig::seeds(40) {
        let fault = if seed % 2 == 0 { Fault::Io } else { Fault::IoAfter };
        play_with_fault(seed, fault, &Settings { dirty_bytes: 300_000, ..Settings::default() });
    }
}

#[test]
fn a_full_disk_takes_nothing_that_was_accepted() {
    for seed in rig::seeds(40) {
        let fault = if seed % 2 == 0 { Fault::NoSpace } else { Fault::ShortNoSpace };
        play_with_fault(seed, fault, &Settings { dirty_bytes: 300_000, ..Settings::default() });
    }
}

/// P6: want of space is answered at the write, and never later for what was accepted.
#[test]
fn a_disk_that_fills_up_keeps_all_that_it_accepted() {
    for seed in rig::seeds(6) {
        let _announce = Announce(seed);
        let mut choices = Seed::new(seed);
        let disk = rig::new_disk();
        disk.set_capacity((20 << 20) + choices.below(20 << 20));
        let shared: Arc<dyn Disk> = Arc::new(disk);
        let settings = Settings { dirty_bytes: 1 << 20, ..Settings::default() };
        let (volume, _) = rig::open(&shared, &settings).expect("a new volume opens");
        let mut accepted = Vec::new();
        loop {
            let most = [500, 20_000, 400_000][choices.below(3) as usize];
            let length = 1 + choices.below(most) as usize;
            match rig::store_file(&volume, &format!("file{}", accepted.len()), choices.number(), length) {
                Ok(content) => accepted.push(content),
                Err(error) => {
                    assert!(error.is_no_space(), "{error}");
                    break;
                }
            }
            if choices.below(20) == 0 {
                volume.checkpoint().expect("what was accepted has room");
            }
        }
        volume.close().expect("what was accepted has room");
        let (volume, _) = rig::open(&shared, &settings).expect("a volume opens on a full disk");
        for (number, content) in accepted.iter().enumerate() {
            let name = format!("file{number}");
            let ino = volume.lookup(Ino::ROOT, name.as_bytes()).expect("the name is there").attr.ino;
            assert!(read_file(&volume, ino).expect("the file is read") == *content, "{name}");
        }
        volume.unlink(Ino::ROOT, b"file0").expect("deleting works on a full disk");
        volume.close().expect("and so does closing");
    }
}
