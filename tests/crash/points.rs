//! A short history, stopped before every single change of the disk.

use vellum_tests::{
    crashes::{look, play_until},
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
                look(&player, image, &settings, &format!("after {calls} changes"));
            }
        }
    }
}
