//! gc beside a writer and a reader, over and over, until the power fails somewhere in it, or not.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use vellum_fs::{ino::Ino, volume::Volume};
use vellum_store::{
    disk::{Disk, FaultDisk, MemoryDisk, fault::Rule},
    spawn::Seed,
};
use vellum_tests::{
    crashes, dump,
    player::Player,
    rig::{self, Announce, Settings},
};

/// Histories with a run beside them that one seed plays.
const ROUNDS: u64 = 8;

fn sound(volume: &Volume, what: &str) {
    let mut damage = Vec::new();
    volume.repository().check(true, &mut |_| {}, &mut |found| damage.push(found)).expect("the disk is well");
    volume.check_trees(&mut |found| damage.push(found)).expect("the disk is well");
    assert_eq!(damage, [], "{what}");
}

pub(crate) fn unit(seed: u64) -> u64 {
    let _announce = Announce(seed);
    let mut choices = Seed::new(seed ^ 0x6c);
    let settings = Settings { dirty_bytes: 100_000, journal_segment: 128 << 10, ..Settings::default() };
    let mut disk = rig::new_disk();
    let open = |disk: &MemoryDisk| {
        let faults = FaultDisk::new(Arc::new(disk.clone()));
        let shared: Arc<dyn Disk> = Arc::new(faults.clone());
        let (volume, summary) = rig::open(&shared, &settings).expect("the volume opens, without repair");
        assert_eq!(summary.damage, None, "seed {seed}");
        (volume, faults)
    };
    let (volume, mut faults) = open(&disk);
    let mut player = Player::new(volume, seed);
    for round in 0..ROUNDS {
        let what = format!("seed {seed}, round {round}");
        player.faulty = false;
        (0..40).for_each(|_| player.step());
        player.faulty = true;
        faults.add(Rule::power_off_after(choices.below(400)));
        let (volume, mut of_gc) = (Arc::clone(&player.volume), choices.clone());
        let stop = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            let gc = scope.spawn(|| crashes::reclaim(&volume, &mut of_gc));
            let reader = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && !faults.is_off() {
                    if let Err(error) = dump::read_all(&volume, Ino::ROOT) {
                        assert!(!error.is_damage(), "{what}: {error}");
                    }
                }
            });
            while !gc.is_finished() && !faults.is_off() {
                player.step();
                if player.failed.is_some() {
                    break;
                }
            }
            let done = gc.join().expect("gc ends");
            stop.store(true, Ordering::Relaxed);
            reader.join().expect("the reader ends");
            done
        });
        if !faults.is_off() {
            done.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(player.failed, None, "{what}");
        }
        drop(volume);
        let image = crashes::lose(&disk, &mut choices);
        let (volume, again) = open(&image);
        let explained = player.history.explain(&volume, &player.history.acknowledged);
        sound(&volume, &what);
        player.failed = None;
        player.resume(volume, explained);
        player.verify();
        (disk, faults) = (image, again);
        crashes::reclaim(&player.volume, &mut choices)
            .unwrap_or_else(|error| panic!("{what}, after the loss: {error}"));
        player.verify();
        sound(&player.volume, &what);
    }
    player.close_volume();
    ROUNDS
}
