//! The inputs that are kept for the fuzz targets of whole volumes, without a fuzzer.

use vellum_tests::fuzz::TARGETS;

#[test]
fn what_is_kept_for_whole_volumes_passes() {
    vellum_fuzzing::check_kept(TARGETS);
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
