//! Long random sequences of system calls on a mount; every answer is the reference model's.
//!
//! `VELLUM_TEST_MOUNT_OPS` sets how many operations there are: 4,000 otherwise.

use std::{fs, time::Instant};

use vellum_tests::{kernel::KernelFace, marathon::Marathon, rig::Announce, seed::number_from_environment};

use crate::site::Site;

const REMOUNT_EVERY: u64 = 25_000;

/// The seed and the number of operations of a test.
fn numbers() -> (u64, u64) {
    (number_from_environment("VELLUM_SEED", 1), number_from_environment("VELLUM_TEST_MOUNT_OPS", 4000))
}

fn run(lanes: u64) {
    let Some(site) = Site::new() else { return };
    let (seed, ops) = numbers();
    let _announce = Announce(seed);
    let mut mounted = site.mount();
    let runner = |lane: u64| {
        let name = format!("lane{lane}");
        let root = mounted.path(&name);
        fs::create_dir(&root).unwrap();
        Marathon::new(KernelFace::new(root), seed * 37 + lane, &name)
    };
    let mut runners: Vec<_> = (0..lanes).map(runner).collect();
    let (began, mut done) = (Instant::now(), 0);
    while done < ops {
        let round = REMOUNT_EVERY.min(ops - done);
        std::thread::scope(|scope| {
            for runner in &mut runners {
                scope.spawn(move || {
                    (0..round / lanes).for_each(|_| runner.step());
                    runner.verify();
                    runner.close_all();
                });
            }
        });
        mounted.umount();
        mounted = site.mount();
        runners.iter_mut().for_each(Marathon::verify);
        done += round;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{lanes} threads on a mount: seed {seed}: {done} operations, {:.0} a second", done as f64 / seconds);
    mounted.umount();
    site.run(["check", "--read-data"], [site.repository()]);
}

#[test]
fn all_system_calls_give_what_the_model_gives() {
    run(1);
}

#[test]
fn all_system_calls_give_what_the_model_gives_in_threads_on_directories_apart() {
    run(3);
}
