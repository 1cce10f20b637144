//! Crashes at random moments of random histories, between operations and in the middle of them, and inside recovery.

use vellum_tests::{
    crashes,
    rig::{self, Settings},
};

#[test]
fn after_a_crash_between_operations_the_state_is_one_that_was_promised() {
    for seed in rig::seeds(12) {
        crashes::between(seed, 300, 25, None, &Settings::default());
    }
}

#[test]
fn after_a_crash_under_pressure_the_state_is_one_that_was_promised() {
    for seed in rig::seeds(12) {
        let settings = Settings { dirty_bytes: 50_000, journal_segment: 64 << 10, ..Settings::default() };
        crashes::between(seed, 300, 25, None, &settings);
    }
}

/// A checkpoint publishes what it froze while newer writes over it are synced: those were lost once, because the journal was told
/// of the older content after the newer.
#[test]
fn after_a_crash_beside_checkpoints_the_state_is_one_that_was_promised() {
    for seed in rig::seeds(8) {
        crashes::beside(seed, true);
    }
}

#[test]
fn after_a_crash_in_the_middle_of_anything_the_state_is_one_that_was_promised() {
    for seed in rig::seeds(6) {
        crashes::beside(seed, false);
    }
}
