//! Crashes at random moments of random histories, between operations and in the middle of them, and inside recovery.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use vellum_store::{
    disk::{Disk, FaultDisk, MemoryDisk, fault::Rule},
    spawn::Seed,
};
use vellum_tests::{
    history::Acknowledged,
    player::Player,
    rig::{self, Announce, Settings},
};

fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn crash(disk: &MemoryDisk, seed: &mut Seed) -> MemoryDisk {
    match seed.below(4) {
        0 => disk.crash(),
        1 => disk.kill(),
        _ => disk.crash_seeded(seed.number()),
    }
}

/// Loses power again and again while the volume is being opened, each time later; returns what is left then.
fn crash_recovery(image: MemoryDisk, settings: &Settings, seed: &mut Seed) -> MemoryDisk {
    let mut image = image;
    for _ in 0..seed.below(3) {
        let faults = FaultDisk::new(shared(&image));
        faults.add(Rule::power_off_after(seed.below(40)));
        drop(rig::open(&(Arc::new(faults) as Arc<dyn Disk>), settings));
        image = crash(&image, seed);
    }
    image
}

fn check(volume: &vellum_fs::volume::Volume) {
    volume
        .repository()
        .check(true, &mut |_| {}, &mut |damage| panic!("a check after a crash finds {damage:?}"))
        .expect("a check succeeds");
}

fn play_and_crash(seed: u64, steps: u64, settings: &Settings) {
    let _announce = Announce(seed);
    let mut choices = Seed::new(seed ^ 0x5eed);
    let mut disk = rig::new_disk();
    let (volume, _) = rig::open(&shared(&disk), settings).expect("a new volume opens");
    let mut player = Player::new(volume, seed);
    for _ in 0..steps {
        player.step();
        if choices.below(25) > 0 {
            continue;
        }
        let image = crash_recovery(crash(&disk, &mut choices), settings, &mut choices);
        let (volume, _) = rig::open(&shared(&image), settings).expect("a volume opens after a crash, without repair");
        let explained = player.history.explain(&volume, &player.history.acknowledged);
        if choices.below(4) == 0 {
            check(&volume);
        }
        // Either the crash was only looked at, or life goes on from it.
        if choices.coin() {
            player.resume(volume, explained);
            player.verify();
            disk = image;
        } else {
            // Its threads end, which hold it for a moment otherwise.
            volume.close().expect("what was recovered is closed");
        }
    }
}

#[test]
fn after_a_crash_between_operations_the_state_is_one_that_was_promised() {
    for seed in rig::seeds(12) {
        play_and_crash(seed, 300, &Settings::default());
    }
}

#[test]
fn after_a_crash_under_pressure_the_state_is_one_that_was_promised() {
    for seed in rig::seeds(12) {
        let settings = Settings { dirty_bytes: 50_000, journal_segment: 64 << 10, ..Settings::default() };
        play_and_crash(seed, 300, &settings);
    }
}

/// Takes images of the disk while the history goes on, each with what had been acknowledged before.
fn take_images(
    disk: &MemoryDisk,
    acknowledged: &Mutex<Acknowledged>,
    stop: &AtomicBool,
    seed: u64,
) -> Vec<(Acknowledged, MemoryDisk)> {
    let mut seed = Seed::new(seed);
    let mut images = Vec::new();
    while !stop.load(Ordering::Relaxed) && images.len() < 60 {
        for _ in 0..seed.below(300_000) {
            std::hint::spin_loop();
        }
        let sure = acknowledged.lock().clone();
        images.push((sure, crash(disk, &mut seed)));
    }
    images
}

/// Checkpoints and flushes beside a history, as fast as they go.
fn checkpoint_beside(volume: &vellum_fs::volume::Volume, stop: &AtomicBool, seed: u64) {
    let mut seed = Seed::new(seed);
    while !stop.load(Ordering::Relaxed) {
        match seed.below(3) {
            0 => volume.flush_dirty().expect("a flush succeeds"),
            _ => volume.checkpoint().expect("a checkpoint succeeds"),
        }
        for _ in 0..seed.below(50_000) {
            std::hint::spin_loop();
        }
    }
}

/// A checkpoint publishes what it froze while newer writes over it are synced: those were lost once, because the journal was told
/// of the older content after the newer.
#[test]
fn after_a_crash_beside_checkpoints_the_state_is_one_that_was_promised() {
    for seed in rig::seeds(8) {
        crash_beside(seed, true);
    }
}

#[test]
fn after_a_crash_in_the_middle_of_anything_the_state_is_one_that_was_promised() {
    for seed in rig::seeds(6) {
        crash_beside(seed, false);
    }
}

/// Tells other threads to stop when it goes.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn crash_beside(seed: u64, checkpoints: bool) {
    let _announce = Announce(seed);
    let settings = Settings { dirty_bytes: 100_000, journal_segment: 128 << 10, ..Settings::default() };
    let disk = rig::new_disk();
    let (volume, _) = rig::open(&shared(&disk), &settings).expect("a new volume opens");
    let mut player = Player::new(volume, seed);
    let acknowledged = Mutex::new(Acknowledged::default());
    let stop = AtomicBool::new(false);
    let images = std::thread::scope(|scope| {
        let taker = scope.spawn(|| take_images(&disk, &acknowledged, &stop, seed));
        let volume = Arc::clone(&player.volume);
        let stopping = &stop;
        let other = checkpoints.then(|| scope.spawn(move || checkpoint_beside(&volume, stopping, seed)));
        {
            // Also if a step panics: the scope waits for its threads.
            let _stop = StopAtEnd(&stop);
            for _ in 0..250 {
                player.step();
                *acknowledged.lock() = player.history.acknowledged.clone();
            }
        }
        other.into_iter().for_each(|other| other.join().expect("the other thread ends"));
        taker.join().expect("the taker ends")
    });
    player.verify();
    let mut choices = Seed::new(seed);
    for (sure, image) in images {
        let image = crash_recovery(image, &settings, &mut choices);
        let (volume, _) = rig::open(&shared(&image), &settings).expect("a volume opens after a crash");
        // Deleted later than the image was taken is no coming back: `sure` is older than the image.
        player.history.explain(&volume, &sure);
        volume.close().expect("what was recovered is closed");
    }
}
