//! The decoders of the filesystem under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vellum_fs::fuzz::TARGETS;

fuzz_target!(
    init: vellum_fuzz::choose(TARGETS),
    |data: &[u8]| vellum_fuzz::run(data)
);
