//! Random histories on a volume and on the model: every few steps both are the same, and every snapshot is for ever what it was.

use std::sync::Arc;

use vellum_store::disk::Disk;
use vellum_tests::{
    player::Player,
    rig::{self, Announce, Settings},
};

fn play(seed: u64, steps: u64, settings: &Settings) {
    let _announce = Announce(seed);
    let disk: Arc<dyn Disk> = Arc::new(rig::new_disk());
    let (volume, _) = rig::open(&disk, settings).expect("a new volume opens");
    let mut player = Player::new(volume, seed);
    for step in 0..steps {
        player.step();
        if step % 16 == 15 {
            player.verify();
        }
        if player.below(150) == 0 {
            player.close_volume();
            player.verify();
            drop(std::mem::replace(&mut player.volume, rig::open(&disk, settings).expect("it opens again").0));
            player.verify();
        }
    }
    player.close_all();
    player.volume.checkpoint().expect("a checkpoint succeeds");
    player.verify();
    assert_eq!(player.volume.dirty_bytes(), 0, "nothing is dirty after a checkpoint, nor counted as dirty");
    player.close_volume();
}

#[test]
fn random_histories_agree_with_the_model_by_hand() {
    for seed in rig::seeds(6) {
        play(seed, 500, &Settings::default());
    }
}

#[test]
fn random_histories_agree_with_the_model_under_pressure() {
    for seed in rig::seeds(6) {
        let settings = Settings { dirty_bytes: 60_000, journal_segment: 128 << 10, ..Settings::default() };
        play(seed, 500, &settings);
    }
}
