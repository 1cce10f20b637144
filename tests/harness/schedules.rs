//! Histories beside checkpoints, flushes, gc, readers and power losses, all of whose threads a seed steps through: a seed that fails fails again.
//!
//! What follows from the seed: which thread goes on at each change of the disk, each lock that is held for long, and each hand-over of the write path;
//! nonces and names; where power is lost, and which unsynced bytes survive.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use vellum_fs::{ino::Ino, time::Time, volume::Volume};
use vellum_store::{
    disk::{Disk, FaultDisk, MemoryDisk},
    repository::{Access, OpenOptions, Repository},
    spawn::{JoinHandle, Seed, Spawner, Stepped},
};

use crate::{
    crashes::{self, lose},
    dump,
    history::Acknowledged,
    player::Player,
    rig::{self, Announce, Settings},
};

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Turns that were given to threads.
    pub steps: u64,
    /// States after a loss of power that were looked at.
    pub states: u64,
    /// Hash of each of them, as it was found.
    pub hashes: Vec<blake3::Hash>,
}

/// Images of one run, at the most.
const IMAGES_MAX: usize = 12;
/// Operations of one run.
const OPERATIONS: u64 = 60;

/// What a thread beside the history does, over and over.
type Other = fn(&Arc<Volume>, &dyn Spawner, &mut Seed);
const OTHERS: [Other; 3] = [checkpoints, reclaim, read];

/// Lets others go on so many times.
fn pause(spawner: &dyn Spawner, times: u64) {
    (0..times).for_each(|_| spawner.step("pause"));
}

/// Runs `work` in a thread of the simulation until `stop`.
fn beside(
    spawner: &Arc<dyn Spawner>,
    stop: &Arc<AtomicBool>,
    mut work: impl FnMut(&dyn Spawner) + Send + 'static,
) -> JoinHandle {
    let (stepped, stop) = (Arc::clone(spawner), Arc::clone(stop));
    let body = move || {
        while !stop.load(Ordering::Relaxed) {
            work(&*stepped);
        }
    };
    spawner.spawn("beside", Box::new(body)).expect("the system starts threads")
}

fn checkpoints(volume: &Arc<Volume>, spawner: &dyn Spawner, seed: &mut Seed) {
    match seed.below(3) {
        0 => volume.flush_dirty().expect("a flush succeeds"),
        _ => volume.checkpoint().expect("a checkpoint succeeds"),
    }
    pause(spawner, seed.below(300));
}

fn reclaim(volume: &Arc<Volume>, spawner: &dyn Spawner, seed: &mut Seed) {
    crashes::reclaim(volume, seed).expect("gc runs");
    pause(spawner, seed.below(600));
}

/// Reads everything there is, which is not damaged, whatever happens meanwhile.
fn read(volume: &Arc<Volume>, spawner: &dyn Spawner, seed: &mut Seed) {
    dump::read_all(volume, Ino::ROOT).expect("the disk is well");
    pause(spawner, seed.below(200));
}

/// The hash of all names and bytes of a disk.
fn hash(disk: &MemoryDisk) -> blake3::Hash {
    let (mut hasher, mut paths) = (blake3::Hasher::new(), vec![PathBuf::from("/")]);
    while let Some(path) = paths.pop() {
        hasher.update(path.as_os_str().as_encoded_bytes());
        let mut below = Vec::new();
        let listed = disk.list_dir(&path, &mut |name, _| {
            below.push(path.join(name));
            ControlFlow::Continue(())
        });
        if listed.is_ok() {
            below.sort();
            paths.extend(below);
            continue;
        }
        let file = disk.open_read(&path).expect("what is no directory is a file");
        let mut bytes = vec![0; file.len().expect("a file has a length") as usize];
        file.read_exact_at(&mut bytes, 0).expect("all of it can be read");
        hasher.update(&bytes);
    }
    hasher.finalize()
}

/// A history of which images are taken at any turn of any thread.
pub fn run(seed: u64) -> Outcome {
    let _announce = Announce(seed);
    rig::set_clock(Time::EPOCH);
    let mut choices = Seed::new(seed ^ 0x7e55e1);
    let dirty_bytes = [30_000, 100_000, 8 << 20][choices.below(3) as usize];
    let settings = Settings { dirty_bytes, journal_segment: 64 << 10, ..Settings::default() };
    let images: Arc<Mutex<Vec<(Acknowledged, MemoryDisk)>>> = Arc::default();
    let (history, steps) = {
        let stepped = Arc::new(Stepped::new(seed));
        // The repository's keys follow from the seed as well.
        let disk = rig::new_disk();
        let spawner: Arc<dyn Spawner> = stepped.clone();
        let faults = FaultDisk::with_steps(Arc::new(disk.clone()), Arc::clone(&spawner));
        let base = rig::repository_options(&(Arc::new(faults) as Arc<dyn Disk>), Access::ReadWrite);
        let options = OpenOptions { spawner: Arc::clone(&spawner), ..base };
        let repository = Repository::open(options).expect("a new repository opens");
        let volume = Volume::open(repository, rig::volume_options(rig::main_volume(), &settings));
        let mut player = Player::new(volume.expect("a new volume opens").0, seed);
        let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for other in OTHERS {
            if choices.coin() {
                let (volume, mut seed) = (Arc::clone(&player.volume), Seed::new(choices.number()));
                threads.push(beside(&spawner, &stop, move |spawner| other(&volume, spawner, &mut seed)));
            }
        }
        let (images, sure, mut seed) = (Arc::clone(&images), Arc::clone(&acknowledged), Seed::new(choices.number()));
        threads.push(beside(&spawner, &stop, move |spawner| {
            pause(spawner, seed.below(400));
            let sure = sure.lock().clone();
            let mut images = images.lock();
            if images.len() < IMAGES_MAX {
                images.push((sure, lose(&disk, &mut seed)));
            }
        }));
        for _ in 0..OPERATIONS {
            player.step();
            *acknowledged.lock() = player.history.acknowledged.clone();
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(JoinHandle::join);
        player.verify();
        player.close_volume();
        (player.history, stepped.steps())
    };
    // From here on nobody is stepped: the threads have ended.
    let images = std::mem::take(&mut *images.lock());
    let hashes = images.iter().map(|(_, image)| hash(image)).collect();
    for (sure, image) in &images {
        let disk: Arc<dyn Disk> = Arc::new(image.clone());
        let (volume, _) = rig::open(&disk, &settings).expect("a volume opens after a crash, without repair");
        history.explain(&volume, sure);
        volume.close().expect("what was recovered is closed");
    }
    Outcome { steps, states: images.len() as u64, hashes }
}
