//! Histories that lose power: between operations, within them, beside other threads, and within the recovery from such a loss. What is
//! found after each must be a state that P1 allows, without repair. Each function panics if one is not, and otherwise returns how many
//! states it looked at.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use vellum_fs::volume::{Volume, gc::collect};
use vellum_store::{
    disk::{Disk, FaultDisk, MemoryDisk, fault::Rule},
    repository::GcOptions,
    spawn::Seed,
};

use crate::{
    history::Acknowledged,
    player::Player,
    rig::{self, Announce, Settings},
};

/// Power losses within one recovery, at the most.
pub const NESTED_MAX: u64 = 3;
/// Images that are taken of one moment: what is durable, all that was written, and random parts of what was not synced.
const IMAGES: u64 = 8;

fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// What a power loss, or the death of the process, leaves of a disk.
pub fn lose(disk: &MemoryDisk, seed: &mut Seed) -> MemoryDisk {
    match seed.below(4) {
        0 => disk.crash(),
        1 => disk.kill(),
        _ => disk.crash_seeded(seed.number()),
    }
}

/// Loses power `times` times while the volume is being opened, each time at another call; returns what is left then.
fn lose_in_recovery(image: MemoryDisk, times: u64, settings: &Settings, seed: &mut Seed) -> MemoryDisk {
    let mut image = image;
    for _ in 0..times {
        let faults = FaultDisk::new(shared(&image));
        faults.add(Rule::power_off_after(seed.below(40)));
        drop(rig::open(&(Arc::new(faults) as Arc<dyn Disk>), settings));
        image = lose(&image, seed);
    }
    image
}

fn check(volume: &Volume) {
    volume
        .repository()
        .check(true, &mut |_| {}, &mut |damage| panic!("a check after a crash finds {damage:?}"))
        .expect("a check succeeds");
}

/// A run of gc, which the seed tells how much it may leave unused.
pub fn reclaim(volume: &Arc<Volume>, choices: &mut Seed) -> vellum_fs::error::Result<()> {
    let max_unused_percent = [None, Some(0), Some(10)][choices.below(3) as usize];
    let options = GcOptions { max_unused_percent };
    collect(volume.repository(), std::slice::from_ref(volume), &options, false, &mut |_| {}).map(drop)
}

/// A history of `steps` operations that loses power after one in `each` of them, and in `nested` recoveries in a row after that, or
/// in a random number of them.
pub fn between(seed: u64, steps: u64, each: u64, nested: Option<u64>, settings: &Settings) -> u64 {
    let _announce = Announce(seed);
    let mut choices = Seed::new(seed ^ 0x5eed);
    let mut disk = rig::new_disk();
    let (volume, _) = rig::open(&shared(&disk), settings).expect("a new volume opens");
    let mut player = Player::new(volume, seed);
    let mut states = 0;
    for _ in 0..steps {
        player.step();
        if choices.below(each) > 0 {
            continue;
        }
        let times = nested.unwrap_or_else(|| choices.below(NESTED_MAX));
        let image = lose_in_recovery(lose(&disk, &mut choices), times, settings, &mut choices);
        let (volume, _) = rig::open(&shared(&image), settings).expect("a volume opens after a crash, without repair");
        let explained = player.history.explain(&volume, &player.history.acknowledged);
        states += 1;
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
    states
}

/// A history that loses power after `calls` changes of the disk; `None` if it came to its end before.
pub fn play_until(disk: &MemoryDisk, seed: u64, calls: u64, settings: &Settings) -> Option<Player> {
    let faults = FaultDisk::new(shared(disk));
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

/// Looks at what a loss has left of a history.
pub fn look(player: &Player, image: MemoryDisk, settings: &Settings, what: &str) {
    let (volume, _) = rig::open(&shared(&image), settings).unwrap_or_else(|error| panic!("no opening {what}: {error}"));
    player.history.explain(&volume, &player.history.acknowledged);
    volume.close().expect("what was recovered is closed");
}

/// A short history that loses power before a change of the disk which the seed chooses, in several ways.
pub fn within(seed: u64, settings: &Settings) -> u64 {
    let _announce = Announce(seed);
    let mut choices = Seed::new(seed ^ 0x317);
    let disk = rig::new_disk();
    let calls = choices.below(500);
    let Some(player) = play_until(&disk, seed, calls, settings) else { return 0 };
    let what = format!("after {calls} changes");
    look(&player, disk.crash(), settings, &what);
    look(&player, disk.kill(), settings, &what);
    for _ in 2..IMAGES {
        look(&player, disk.crash_seeded(choices.number()), settings, &what);
    }
    IMAGES
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
        images.push((sure, lose(disk, &mut seed)));
    }
    images
}

/// Checkpoints and flushes beside a history, as fast as they go.
fn checkpoint_beside(volume: &Volume, stop: &AtomicBool, seed: u64) {
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

/// Tells other threads to stop when it goes.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A history of which images are taken at any moment, in the middle of operations too; with `checkpoints`, another thread makes them.
pub fn beside(seed: u64, checkpoints: bool) -> u64 {
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
    let states = images.len() as u64;
    for (sure, image) in images {
        let times = choices.below(NESTED_MAX);
        let image = lose_in_recovery(image, times, &settings, &mut choices);
        let (volume, _) = rig::open(&shared(&image), &settings).expect("a volume opens after a crash");
        // Deleted later than the image was taken is no coming back: `sure` is older than the image.
        player.history.explain(&volume, &sure);
        volume.close().expect("what was recovered is closed");
    }
    states
}
