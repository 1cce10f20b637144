//! The counted proofs: each part runs histories with one seed after the other until it has looked at so many cases.
//!
//! `vellum-proofs PART COUNT [SEED]` prints one line: `ok` or `FAILED`, the part, how many cases, the seeds. A failure ends the part and
//! prints the seed that repeats it: `vellum-proofs PART 1 SEED`. With `--hold-up` in front, threads are held up at random moments; a
//! failure may then need many attempts to come again.
//!
//! *Threads*: a worker for each processor; a seed belongs to one worker.

#![allow(clippy::expect_used)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{available_parallelism, scope},
    time::Instant,
};

mod bytes;
mod calls;
mod flips;
mod hold_up;
mod losses;
mod rebuild;
mod reclaim;

use vellum_tests::schedules;

/// One part: its name, what it counts, and what one seed of it does, which returns the cases that it looked at.
struct Part {
    name: &'static str,
    cases: &'static str,
    unit: fn(u64) -> u64,
    /// What else there is to tell in the end.
    note: fn() -> String,
}

const PARTS: [Part; 9] = [
    Part { name: "losses", cases: "states after a power loss", unit: losses::unit, note: String::new },
    Part {
        name: "recoveries",
        cases: "states after three power losses in recovery",
        unit: losses::nested,
        note: String::new,
    },
    Part {
        name: "schedules",
        cases: "states in stepped runs",
        unit: |seed| schedules::run(seed).states,
        note: String::new,
    },
    Part { name: "calls", cases: "scripts and ways to fail", unit: calls::unit, note: calls::note },
    Part { name: "flips", cases: "flipped bytes", unit: flips::unit, note: String::new },
    Part { name: "bytes", cases: "bytes flipped", unit: bytes::flip, note: bytes::note },
    Part { name: "cuts", cases: "lengths of files", unit: bytes::cut, note: bytes::note },
    Part { name: "rebuilds", cases: "rebuilt indexes", unit: rebuild::unit, note: String::new },
    Part { name: "reclaims", cases: "runs of gc beside a writer and a reader", unit: reclaim::unit, note: String::new },
];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let held_up = arguments.first().is_some_and(|argument| argument == "--hold-up");
    if held_up {
        arguments.remove(0);
    }
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let part = arguments.first().and_then(|name| PARTS.iter().find(|part| part.name == name));
    let (Some(part), Ok(count), Ok(seed)) = (part, number(1, 1), number(2, 1)) else {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        eprintln!("usage: vellum-proofs [--hold-up] {} COUNT [SEED]", names.join("|"));
        return ExitCode::from(2);
    };
    if held_up {
        hold_up::start(seed);
    }
    if run(part, count, seed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a part; returns whether nothing failed.
fn run(part: &Part, count: u64, first: u64) -> bool {
    let (next, cases, failed) = (AtomicU64::new(first), AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    let work = || {
        while cases.load(Ordering::Relaxed) < count && !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            match catch_unwind(AssertUnwindSafe(|| (part.unit)(seed))) {
                Ok(found) => drop(cases.fetch_add(found, Ordering::Relaxed)),
                Err(_) => {
                    failed.store(true, Ordering::Relaxed);
                    println!(
                        "FAILED   {} with seed {seed}: `vellum-proofs {} 1 {seed}` repeats it",
                        part.name, part.name
                    );
                }
            }
        }
    };
    scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(work);
        }
    });
    let (last, seconds) = (next.into_inner() - 1, began.elapsed().as_secs());
    if failed.into_inner() {
        return false;
    }
    let cases = cases.into_inner();
    let held_up = match hold_up::count() {
        0 => String::new(),
        count => format!("; threads were held up {count} times"),
    };
    println!(
        "ok       {:11} {cases} {}{}, seeds {first} to {last} ({seconds} s){held_up}",
        part.name,
        part.cases,
        (part.note)()
    );
    true
}
