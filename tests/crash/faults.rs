//! A disk that fails once, or is full for a while: what was acknowledged stays, nothing panics, and what is answered is an error.

use std::sync::Arc;

use vellum_store::{
    disk::{
        Disk, FaultDisk,
        fault::{Fault, Op, Rule},
    },
    spawn::Seed,
};
use vellum_tests::{
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
    if player.volume.poisoned().is_none() {
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
