//! Long random sequences of all operations through the library, in one thread and in several on directories apart.
//!
//! `VELLUM_TEST_OPS` sets how many operations each of the tests does; the first failure prints the seed.

use std::{sync::Arc, time::Instant};

use vellum_fs::{ino::Ino, volume::Volume};
use vellum_store::disk::{Disk, MemoryDisk};
use vellum_tests::{
    face::VolumeFace,
    marathon::Marathon,
    rig::{self, Announce, ME, Settings},
    seed::number_from_environment,
};

/// After so many operations of all threads the volume is closed and opened again.
const REMOUNT_EVERY: u64 = 30_000;
/// After so many the repository is made anew: nothing is deleted from it but by its end.
const FRESH_EVERY: u64 = 400_000;
const THREADS: u64 = 4;

fn ops(default: u64) -> u64 {
    number_from_environment("VELLUM_TEST_OPS", default)
}

/// A volume with one directory for each lane, and who runs there.
struct Course {
    disk: Arc<dyn Disk>,
    settings: Settings,
    volume: Arc<Volume>,
    runners: Vec<Marathon<VolumeFace>>,
}

impl Course {
    fn new(seed: u64, lanes: u64, settings: Settings) -> Self {
        let disk = MemoryDisk::with_capacity(4 << 30);
        let disk: Arc<dyn Disk> = Arc::new(disk);
        rig::init(&disk);
        let (volume, _) = rig::open(&disk, &settings).expect("a new volume opens");
        let runner = |lane: u64| {
            let name = format!("lane{lane}");
            let root = match lanes {
                1 => Ino::ROOT,
                _ => volume.mkdir(Ino::ROOT, name.as_bytes(), 0o755, 0, &ME).expect("the name is free").attr.ino,
            };
            Marathon::new(VolumeFace::new(Arc::clone(&volume), root, lane), seed * 31 + lane, &name)
        };
        let runners = (0..lanes).map(runner).collect();
        Self { disk, settings, volume, runners }
    }

    /// Runs in as many threads as there are lanes, then closes the volume and opens it again.
    fn round(&mut self, ops: u64) {
        let lanes = self.runners.len() as u64;
        std::thread::scope(|scope| {
            for runner in &mut self.runners {
                scope.spawn(move || {
                    (0..ops / lanes).for_each(|_| runner.step());
                    runner.verify();
                    runner.close_all();
                });
            }
        });
        self.volume.close().expect("the disk is well");
        assert_eq!(self.volume.dirty_bytes(), 0, "nothing is dirty after a close, nor counted as dirty");
        let (volume, summary) = rig::open(&self.disk, &self.settings).expect("the volume opens again");
        assert!(summary.damage.is_none(), "{summary:?}");
        self.volume = volume;
        for runner in &mut self.runners {
            runner.face.volume = Arc::clone(&self.volume);
            runner.verify();
        }
    }
}

fn run(test: &str, seed: u64, ops: u64, lanes: u64, settings: &Settings) {
    let _announce = Announce(seed);
    let began = Instant::now();
    let mut done = 0;
    while done < ops {
        let mut course = Course::new(seed.wrapping_add(done), lanes, *settings);
        let end = ops.min(done + FRESH_EVERY);
        while done < end {
            let round = REMOUNT_EVERY.min(end - done);
            course.round(round);
            done += round;
        }
        let mut damage = Vec::new();
        course.volume.check_trees(&mut |found| damage.push(found)).expect("the trees are read");
        assert!(damage.is_empty(), "{damage:?}");
        course.volume.close().expect("the disk is well");
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{test}: seed {seed}: {done} operations, {:.0} a second", done as f64 / seconds);
}

#[test]
fn all_operations_give_what_the_model_gives() {
    for seed in rig::seeds(1) {
        run("one thread", seed, ops(30_000), 1, &Settings::default());
    }
}

#[test]
fn all_operations_give_what_the_model_gives_in_threads_on_directories_apart() {
    let settings = Settings { dirty_bytes: 400_000, journal_segment: 128 << 10, ..Settings::default() };
    for seed in rig::seeds(1) {
        run("threads", seed, ops(30_000), THREADS, &settings);
    }
}
