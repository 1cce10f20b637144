//! Every call to the disk of a script of 200 operations fails, one at a time, in every way that calls fail.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

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

const STEPS: usize = 200;
const FAULTS: [Fault; 6] =
    [Fault::Io, Fault::IoAfter, Fault::NoSpace, Fault::ShortNoSpace, Fault::Short, Fault::Interrupted];
const OPS: [Op; 14] = [
    Op::Open,
    Op::Create,
    Op::Rename,
    Op::Remove,
    Op::CreateDir,
    Op::SyncDir,
    Op::List,
    Op::Metadata,
    Op::Lock,
    Op::Space,
    Op::Read,
    Op::Write,
    Op::Allocate,
    Op::SetLen,
];

/// Calls that failed so far, for people.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// How many calls failed.
pub(crate) fn note() -> String {
    format!(", {} calls", FAILED.load(Ordering::Relaxed))
}

/// One seed is one script and one way to fail, at each of its calls.
pub(crate) fn unit(seed: u64) -> u64 {
    let (script, fault) = (seed / FAULTS.len() as u64, FAULTS[(seed % FAULTS.len() as u64) as usize]);
    let mut at = 0;
    while play(script, fault, at) > at {
        at += 1;
    }
    FAILED.fetch_add(at, Ordering::Relaxed);
    1
}

/// Plays the script with a fault at its call number `at`; returns how many calls there were.
fn play(script: u64, fault: Fault, at: u64) -> u64 {
    let _announce = Announce(script);
    let settings = Settings { dirty_bytes: 200_000, journal_segment: 128 << 10, ..Settings::default() };
    let disk = rig::new_disk();
    let faults = FaultDisk::new(Arc::new(disk.clone()));
    let shared: Arc<dyn Disk> = Arc::new(faults.clone());
    let (volume, _) = rig::open(&shared, &settings).expect("a new volume opens");
    let count = || OPS.iter().chain(&[Op::Sync]).map(|op| faults.count(*op)).sum::<u64>();
    let before = count();
    let mut player = Player::new(volume, script);
    player.faulty = true;
    let ops = OPS.iter().chain(&[Op::Sync]).copied().collect();
    faults.add(Rule { ops, path_contains: String::new(), skip: at, times: 1, fault });
    let what = || format!("script {script}, {fault:?} at call {at}");
    for _ in 0..STEPS {
        player.step();
        if let Some(failed) = player.failed.take() {
            // Half of the bytes are an answer like another, and whoever asked goes on with the other half.
            assert!(fault != Fault::Short, "{}: {failed}", what());
        }
        if player.volume.poisoned().is_some() {
            break;
        }
    }
    let calls = count() - before;
    faults.heal();
    player.verify();
    let mut choices = Seed::new(script ^ at);
    for image in [disk.crash(), disk.kill(), disk.crash_seeded(choices.number())] {
        let image: Arc<dyn Disk> = Arc::new(image);
        let (volume, _) = rig::open(&image, &settings).unwrap_or_else(|error| panic!("{}: {error}", what()));
        player.history.explain(&volume, &player.history.acknowledged);
        volume.close().expect("what was recovered is closed");
    }
    // The store may meet its failure in the background, and the volume learn of it here.
    if player.volume.close().is_ok() {
        let (volume, _) = rig::open(&shared, &settings).unwrap_or_else(|error| panic!("{}: {error}", what()));
        player.history.verify(&volume);
        volume.close().expect("the disk is well again");
    }
    calls
}
