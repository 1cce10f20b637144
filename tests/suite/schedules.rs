//! Histories whose threads follow a seed.

use vellum_tests::{rig, schedules};

#[test]
fn whatever_the_order_of_threads_what_was_promised_survives() {
    let states: u64 = rig::seeds(20).map(|seed| schedules::run(seed).states).sum();
    assert!(states > 0);
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in rig::seeds(6) {
        let runs = [schedules::run(seed), schedules::run(seed)];
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}
