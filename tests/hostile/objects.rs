//! Whole objects harmed: cut, emptied, lengthened, taken away, exchanged, replaced by directories.
//!
//! What a store may do unseen is what DESIGN grants it: cut a journal back to the newest head, by taking whole segments away.

use vellum_store::{disk::Disk, repository::Access};
use vellum_tests::{
    bench::{Bench, noise},
    seed::{Seed, number_from_environment},
};

use crate::{
    flips::{Harm, Hit, check_harm, kind, used_files},
    story::{STORY, Story},
    watch::Watch,
};

/// Lengths that a file of `length` used bytes is cut to.
fn lengths(length: u64, seed: &mut Seed) -> Vec<u64> {
    let mut lengths = vec![0, 1, 15, 16, 1023, 4095, 4096, 8192, length / 2, length.saturating_sub(1)];
    lengths.extend((0..3).map(|_| seed.below(length)));
    lengths.retain(|&at| at < length);
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// What the loss of everything from `from` on of a file means.
fn hit_of_cut(story: &Story, object: &str, from: u64) -> Hit {
    match kind(object) {
        // The file is shorter than its commits say, whatever was in the part that is gone.
        "journal" => Hit::Acknowledged,
        "packs/open" => match story.live.iter().any(|range| range.object == object && range.end > from) {
            true => Hit::Acknowledged,
            false => Hit::Dead,
        },
        _ => Hit::Published,
    }
}

fn truncate(bench: &Bench, object: &str, length: u64) {
    bench.disk.open_write(&bench.path(object)).unwrap().set_len(length).unwrap();
}

#[test]
fn a_truncated_object_is_damage_and_is_named() {
    let mut seed = Seed::of_test("a truncated object", 2);
    let (story, watch) = (&*STORY, Watch::start());
    let mut count = 0;
    for (object, length) in used_files(&story.bench) {
        let mut lengths = lengths(length, &mut seed);
        if number_from_environment("VELLUM_FLIPS", 0) == 0 {
            // Three of each file in the usual run; which ones, the seed decides.
            while lengths.len() > 3 {
                lengths.remove(seed.below(lengths.len() as u64) as usize);
            }
        }
        for length in lengths {
            let what = format!("{object} cut to {length}");
            watch.step(&what);
            let harmed = story.bench.kill();
            truncate(&harmed, &object, length);
            check_harm(story, &harmed, &Harm::new(&object, what, hit_of_cut(story, &object, length)), count % 4 == 0);
            count += 1;
        }
    }
    println!("{count} truncations");
}

#[test]
fn a_missing_object_is_damage_and_is_named() {
    let (story, watch) = (&*STORY, Watch::start());
    for (number, (object, _)) in used_files(&story.bench).into_iter().enumerate() {
        let what = format!("{object} is gone");
        watch.step(&what);
        let harmed = story.bench.kill();
        harmed.remove(&object);
        let hit = match kind(&object) {
            "journal" => Hit::Cut,
            // Nothing names what only older heads need, once it is gone.
            "index" | "manifests" => Hit::PerhapsOld,
            _ => hit_of_cut(story, &object, 0),
        };
        check_harm(story, &harmed, &Harm::new(&object, what, hit), number % 3 == 0);
    }
}

#[test]
fn bytes_behind_the_end_of_an_object_are_damage_or_mean_nothing() {
    let (story, watch) = (&*STORY, Watch::start());
    for (number, (object, _)) in used_files(&story.bench).into_iter().enumerate() {
        for length in [1, 4096, 100_000] {
            let what = format!("{length} bytes behind {object}");
            watch.step(&what);
            let harmed = story.bench.kill();
            let file = harmed.disk.open_write(&harmed.path(&object)).unwrap();
            file.write_all_at(&noise(length as u64, length), file.len().unwrap()).unwrap();
            let hit = match kind(&object) {
                "journal" | "packs/open" => Hit::Dead,
                _ => Hit::Published,
            };
            check_harm(story, &harmed, &Harm::new(&object, what, hit), number % 3 == 0 && length == 1);
        }
    }
}

#[test]
fn a_directory_in_the_place_of_an_object_is_an_error() {
    let (story, watch) = (&*STORY, Watch::start());
    for (object, _) in used_files(&story.bench) {
        let what = format!("{object} is a directory");
        watch.step(&what);
        let harmed = story.bench.kill();
        harmed.remove(&object);
        harmed.disk.create_dir(&harmed.path(&object)).unwrap();
        let hit = match kind(&object) {
            "journal" => Hit::Cut,
            "index" | "manifests" => Hit::PerhapsOld,
            _ => hit_of_cut(story, &object, 0),
        };
        check_harm(story, &harmed, &Harm::new(&object, what, hit), false);
    }
}

#[test]
fn exchanged_objects_are_damage_and_one_of_both_is_named() {
    let mut seed = Seed::of_test("exchanged objects", 3);
    let (story, watch) = (&*STORY, Watch::start());
    let files = used_files(&story.bench);
    let mut pairs = Vec::new();
    for (number, (one, _)) in files.iter().enumerate() {
        let alike: Vec<_> = files[number + 1..].iter().filter(|(other, _)| kind(other) == kind(one)).collect();
        if !alike.is_empty() {
            pairs.push((one.clone(), seed.pick(&alike).0.clone()));
        }
        // And one of another kind.
        pairs.push((one.clone(), seed.pick(&files).0.clone()));
    }
    for (number, (one, other)) in pairs.into_iter().enumerate() {
        let harmed = story.bench.kill();
        let (first, second) = (harmed.bytes(&one), harmed.bytes(&other));
        if first == second {
            continue;
        }
        let what = format!("{one} and {other} exchanged");
        watch.step(&what);
        harmed.put(&one, &second);
        harmed.put(&other, &first);
        let worst = hit_of_cut(story, &one, 0).max(hit_of_cut(story, &other, 0));
        // A journal of foreign bytes is one without commits, if the file is no shorter than any segment.
        let hit = if worst == Hit::Acknowledged { Hit::Cut } else { worst };
        let named = if hit_of_cut(story, &one, 0) == Hit::Published { &one } else { &other };
        check_harm(story, &harmed, &Harm::new(named, what, hit), number % 4 == 0);
    }
}

/// Files that nobody knows, wherever one can lie, change nothing.
#[test]
fn foreign_files_between_the_objects_mean_nothing() {
    let (story, watch) = (&*STORY, Watch::start());
    let harmed = story.bench.kill();
    for object in [
        "packs/readme",
        "packs/zz/00",
        "packs/open/notes.txt",
        "packs/open/zzzzzzzzzzzzzzzz",
        "index/.directory",
        "heads/main/lost+found",
        "heads/main/00000000000000zz",
        "manifests/x",
        "journal/main/notes",
        "journal/main/00000000000000ff.new",
        "keys/readme.txt",
        "tmp/left",
        "other/deep/down/file",
        "locks/nobody",
    ] {
        watch.step(object);
        harmed.put(object, b"not one of ours");
    }
    check_harm(story, &harmed, &Harm::new("nothing", "foreign files".into(), Hit::Dead), true);
    assert_eq!(harmed.repository(Access::ReadOnly).unwrap().volumes().len(), 1);
}
