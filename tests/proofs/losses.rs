//! Power loss between operations, within them, beside other threads, and within recovery.

use vellum_store::spawn::Seed;
use vellum_tests::{crashes, rig::Settings};

fn settings(choices: &mut Seed) -> Settings {
    let dirty_bytes = [50_000, 400_000, 8 << 20][choices.below(3) as usize];
    let journal_segment = [64 << 10, 256 << 10][choices.below(2) as usize];
    Settings { dirty_bytes, journal_segment, ..Settings::default() }
}

pub(crate) fn unit(seed: u64) -> u64 {
    let mut choices = Seed::new(seed ^ 0x10_55e5);
    let settings = settings(&mut choices);
    match choices.below(8) {
        0 => crashes::beside(seed, choices.coin()),
        1..4 => crashes::between(seed, 200, 3, None, &settings),
        _ => crashes::within(seed, &settings),
    }
}

pub(crate) fn nested(seed: u64) -> u64 {
    let mut choices = Seed::new(seed ^ 0x3e57ed);
    crashes::between(seed, 120, 4, Some(crashes::NESTED_MAX), &settings(&mut choices))
}
