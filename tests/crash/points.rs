//! A short history, stopped before every single change of the disk.

use std::sync::Arc;

use vellum_store::disk::Disk;
use vellum_tests::{
    crashes::play_until,
    rig::{self, Announce, Settings},
};

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
