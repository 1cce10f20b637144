//! Listing a directory while it changes: what stays is listed once, whatever comes and goes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use vellum_tests::{rig::Announce, seed::Seed};

use crate::site::Site;

/// Enough for several requests of the kernel for one listing.
const STAYING: u64 = 4000;
const LISTINGS: u64 = 12;

/// Makes, removes and renames other names, and replaces files under names that stay, until it is told to stop.
fn disturb(dir: &Path, seed: u64, stop: &AtomicBool) -> u64 {
    let mut seed = Seed::new(seed);
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        rounds += 1;
        let (some, other) = (seed.below(500), seed.below(500));
        let (from, to) = (dir.join(format!("comes-{some}")), dir.join(format!("comes-{other}")));
        // Another thread may have been there first: whether each of these succeeds is no matter.
        let _ = match seed.below(5) {
            0 | 1 => File::create(&from).map(drop),
            2 => fs::remove_file(&from),
            3 => fs::rename(&from, &to),
            _ => fs::rename(&from, dir.join(format!("stays-{}", seed.below(STAYING)))),
        };
    }
    rounds
}

#[test]
fn what_stays_is_listed_once_while_other_names_come_and_go() {
    let Some(site) = Site::new() else { return };
    let seed = Seed::of_test("what_stays_is_listed_once", 7).draw();
    let _announce = Announce(seed);
    let mounted = site.mount();
    let dir = mounted.path("dir");
    fs::create_dir(&dir).unwrap();
    for number in 0..STAYING {
        File::create(dir.join(format!("stays-{number}"))).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (dir, stop) = (&dir, &stop);
        let disturbers: Vec<_> = (0..2).map(|number| scope.spawn(move || disturb(dir, seed + number, stop))).collect();
        for listing in 0..LISTINGS {
            let mut times: BTreeMap<String, u32> = BTreeMap::new();
            for entry in fs::read_dir(dir).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                *times.entry(name).or_default() += 1;
            }
            let wrong: Vec<_> = (0..STAYING)
                .map(|number| format!("stays-{number}"))
                .filter_map(|name| {
                    Some((times.get(&name).copied().unwrap_or(0), name)).filter(|(times, _)| *times != 1)
                })
                .collect();
            if !wrong.is_empty() {
                stop.store(true, Ordering::Relaxed);
                panic!("listing {listing}: {wrong:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        for disturber in disturbers {
            assert!(disturber.join().unwrap() > 0, "something came and went meanwhile");
        }
    });
    mounted.umount();
}
