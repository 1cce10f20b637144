//! What the bytes of a repository tell somebody without its key: nothing.
//!
//! Plain by the format, and left out where said: `config`; of `keys/*` the header (kind, label, cost, salt); the text of `locks/*`,
//! which describes a running process; and preallocated space that was never written.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use vellum_fs::volume::gc;
use vellum_store::repository::{Access, GcOptions};
use vellum_tests::bench::{Bench, close, noise, text};

use crate::{
    flips::{kind, used_files},
    story::{STORY, Story},
};

/// Length of a run that would betray equal data.
const RUN: usize = 16;
/// Half of it: any run holds one of these at a multiple of its length.
const PIECE: usize = 8;

/// The written bytes of every file whose kind may hold nothing in plain.
fn sealed_files(bench: &Bench) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for (object, length) in used_files(bench) {
        if !matches!(kind(&object), "config" | "keys") {
            let mut bytes = bench.bytes(&object);
            // A commit fills its last block with sealed zeros, so that used space ends where the last seal does.
            bytes.truncate(length as usize);
            files.push((object, bytes));
        }
    }
    files
}

/// Where files of `other` hold a run of bytes that files of `one` hold.
fn common_runs(one: &[(String, Vec<u8>)], other: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut pieces = HashSet::new();
    for (_, bytes) in one {
        pieces.extend(bytes.as_chunks::<PIECE>().0.iter().map(|piece| u64::from_le_bytes(*piece)));
    }
    let mut common = Vec::new();
    for (object, bytes) in other {
        for (at, window) in bytes.windows(PIECE).enumerate() {
            let piece = u64::from_le_bytes(window.try_into().unwrap());
            if pieces.contains(&piece) && is_common_run(one, bytes, at) {
                common.push(format!("{object} at {at}"));
            }
        }
    }
    common
}

#[test]
fn two_repositories_of_the_same_data_have_no_run_of_bytes_in_common() {
    let (one, other) = (sealed_files(&STORY.bench), sealed_files(&Story::tell(8).bench));
    let common = common_runs(&one, &other);
    assert!(common.is_empty(), "{} runs, first {:?}", common.len(), common.first());
    let total: usize = one.iter().chain(&other).map(|(_, bytes)| bytes.len()).sum();
    println!("{} and {} files, {total} bytes, no run of {RUN} bytes in common", one.len(), other.len());
}

/// Who keeps what gc deletes, and compares it with what it wrote instead, sees no blob again, and so not where one ends.
#[test]
fn packs_that_gc_writes_have_no_run_of_bytes_in_common_with_those_that_it_deletes() {
    let is_pack = |(object, _): &(String, Vec<u8>)| kind(object) == "packs";
    let before: Vec<_> = sealed_files(&STORY.bench).into_iter().filter(is_pack).collect();
    let bench = STORY.bench.kill();
    let volume = bench.open(Access::ReadWrite).unwrap().volume;
    let options = GcOptions { max_unused_percent: Some(0) };
    let repository = Arc::clone(volume.repository());
    let report = gc::collect(&repository, &[Arc::clone(&volume)], &options, false, &mut |_| {}).unwrap();
    assert!(report.space.moved_bytes > 1_000_000, "{report:?}");
    close(&volume);
    let mut after: Vec<_> = sealed_files(&bench).into_iter().filter(is_pack).collect();
    let gone = before.iter().filter(|(object, _)| after.iter().all(|(other, _)| other != object)).count();
    after.retain(|(object, _)| before.iter().all(|(other, _)| other != object));
    assert!(gone > 0 && !after.is_empty(), "{gone} packs are gone, {} are new", after.len());
    let common = common_runs(&before, &after);
    assert!(common.is_empty(), "{} runs, first {:?}", common.len(), common.first());
    println!("{gone} packs are gone, {} are new, no run of {RUN} bytes in common", after.len());
}

/// Whether the piece at `at` belongs to a run of [`RUN`] bytes that the other repository has too.
fn is_common_run(files: &[(String, Vec<u8>)], bytes: &[u8], at: usize) -> bool {
    let starts = at.saturating_sub(RUN - PIECE)..=at;
    let runs: Vec<&[u8]> = starts.filter_map(|start| bytes.get(start..start + RUN)).collect();
    files.iter().any(|(_, other)| other.windows(RUN).any(|window| runs.contains(&window)))
}

/// The same object written twice into one repository shares nothing either: every seal has a nonce of its own.
#[test]
fn one_repository_repeats_no_run_of_bytes() {
    let mut seen = HashSet::new();
    for (object, bytes) in sealed_files(&STORY.bench) {
        for run in bytes.as_chunks::<RUN>().0 {
            assert!(seen.insert(*run), "{object} repeats {run:02x?}");
        }
    }
}

#[test]
fn no_name_and_no_content_is_found_in_any_file() {
    let mut secrets: Vec<Vec<u8>> = [
        "documents",
        "deeper",
        "text-file-",
        "sparse",
        "linked",
        "other name of linked",
        "user.short",
        "user.long",
        "symlink",
        "socket",
        "a rather long name",
        "number 7",
        "moved again",
        "new in two",
        "synced small",
        "synced into the open pack",
        "made late",
        "this is line",
        "in plain words",
        "changed between the snapshots",
        ".snapshots",
        "comment",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec();
    // Content that does not compress would lie there as it is, were it not sealed.
    for (seed, length) in [(1, 400_000), (2, 20_000), (3, 20_000), (4, 60_000), (9, 50_000), (20, 3_000), (21, 700_000)]
    {
        let content = noise(seed, length);
        for at in (0..length - RUN).step_by(length / 20) {
            secrets.push(content[at..at + RUN].to_vec());
        }
    }
    secrets.push(text("linked", 60));
    let mut bytes_seen = 0;
    for (object, _) in STORY.bench.files() {
        let bytes = STORY.bench.bytes(&object);
        bytes_seen += bytes.len();
        let text = object.as_bytes();
        for secret in &secrets {
            assert!(!holds(&bytes, secret), "{object} holds {:?}", secret.escape_ascii().to_string());
            assert!(!holds(text, secret), "{object} is named after {:?}", secret.escape_ascii().to_string());
        }
    }
    println!("{} secrets in {bytes_seen} bytes", secrets.len());
}

fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == secret[0]) {
        if rest[at..].starts_with(secret) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Chi-square against uniform bytes, over whole files, tails and padding included.
#[test]
fn every_sealed_file_looks_random() {
    let mut by_kind: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (object, bytes) in sealed_files(&STORY.bench) {
        // Five expected counts for each value, as the test needs; smaller ones count in their kind's sum.
        if bytes.len() >= 5 * 256 {
            assert_uniform(&object, &bytes);
        }
        by_kind.entry(kind(&object).to_string()).or_default().extend(bytes);
    }
    for (kind, bytes) in by_kind {
        println!("{kind}: chi-square {:.1} over {} bytes", assert_uniform(&kind, &bytes), bytes.len());
    }
}

/// With 255 degrees of freedom the mean is 255 and the deviation 22.6: seven of them are one in 10^11.
fn assert_uniform(what: &str, bytes: &[u8]) -> f64 {
    let mut counts = [0u64; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let expected = bytes.len() as f64 / 256.0;
    let chi_square: f64 = counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    assert!((97.0..=413.0).contains(&chi_square), "{what}: chi-square {chi_square} over {} bytes", bytes.len());
    chi_square
}
