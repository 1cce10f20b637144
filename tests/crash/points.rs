//! A short history, stopped before every single change of the disk.

use std::sync::Arc;

use vellum_store::disk::{Disk, FaultDisk, MemoryDisk, fault::Rule};
use vellum_tests::{
    player::Player,
    rig::{self, Announce, Settings},
};

/// Plays until the power fails; `None` if the history came to its end.
fn play_until(disk: &MemoryDisk, seed: u64, calls: u64, settings: &Settings) -> Option<Player> {
    let faults = FaultDisk::new(Arc::new(disk.clone()));
    let shared: Arc<dyn Disk> = Arc::new(faults.clone());
    let (volume, _) = rig::open(&shared, settings).expect("a new volume opens");
    let mut player = Player::new(volume, seed);
    player.faulty = true;
    faults.add(Rule::power_off_after(calls));
    for _ in 0..60 {
        player.step();
        if player.failed.is_some() || faults.is_off() {
            return Some(player);
        }
    }
    player.close_volume();
    (player.failed.is_some() || faults.is_off()).then_some(player)
}

#[test]
fn power_may_fail_before_any_change_of_the_disk() {
    for seed in rig::seeds(2) {
        let _announce = Announce(seed);
        let settings = Settings { dirty_bytes: 400_000, journal_segment: 64 << 10, ..Settings::default() };
        for calls in 0.. {
            let disk = rig::new_disk();
            let Some(player) = play_until(&disk, seed, calls, &settings) else { break };
            for image in [disk.crash(), disk.kill(), disk.crash_seeded(calls)] {
                let image: Arc<dyn Disk> = Arc::new(image);
                let (volume, _) = rig::open(&image, &settings)
                    .unwrap_or_else(|error| panic!("no opening after {calls} changes: {error}"));
                player.history.explain(&volume, &player.history.acknowledged);
                volume.close().expect("what was recovered is closed");
            }
        }
    }
}
