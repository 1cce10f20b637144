//! The decoders of the filesystem under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vellum_fs::fuzz::TARGETS;
use vellum_fuzz::Target;

fuzz_target!(
    init: vellum_fuzz::choose(TARGETS.iter().map(|of| Target { name: of.name, run: of.run, seeds: of.seeds })),
    |data: &[u8]| vellum_fuzz::run(data)
);
