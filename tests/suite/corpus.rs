//! The inputs that are kept for the fuzz targets of whole volumes, without a fuzzer.

use std::{fs, path::Path};

use vellum_tests::fuzz::TARGETS;

#[test]
fn what_is_kept_for_whole_volumes_passes() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut accepted = 0;
        for entry in entries {
            let path = entry.expect("the folder is read").path();
            println!("{}", path.display());
            accepted += usize::from((target.run)(&fs::read(&path).expect("an input is read")));
        }
        assert!(accepted > 0, "{} accepts none of its inputs", target.name);
    }
}

#[test]
fn every_operation_that_a_journal_may_hold_is_among_the_seeds_of_replay() {
    let replay = TARGETS.iter().find(|target| target.name == "replay").expect("there is such a target");
    let mut numbers = std::collections::BTreeSet::new();
    for seed in (replay.seeds)() {
        assert!((replay.run)(&seed));
        vellum_fs::format::op::for_each(&seed, &mut |sequence, op| {
            numbers.insert(op.encode(sequence)[0]);
            Ok(())
        })
        .expect("seeds are well-formed");
    }
    assert_eq!(numbers, (1..=10).collect());
}
