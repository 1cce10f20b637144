//! Hands out inode numbers in per-directory runs, so that the files of one directory are neighbours in the tree.
//!
//! *Invariants*
//! 1. A number is handed out once in the life of a volume: `next` only grows, is stored with every checkpoint, and replay
//!    lifts it past every number that the journal names.
//! 2. What is left of a run when the volume closes, or when its directory falls out of the table, is never used.
//!
//! *Bounds*: at most [`DIRECTORIES_MAX`] directories hold a run. Numbers stay below 2^63, which would take 292 years at
//! a billion a second.

use std::collections::HashMap;

use crate::ino::Ino;

/// First run of a directory; most directories hold fewer entries.
const RUN_FIRST: u64 = 32;
/// Later runs of the same directory.
const RUN_NEXT: u64 = 256;
/// Directories that hold a run at the same time; the table is emptied when it is full.
const DIRECTORIES_MAX: usize = 4096;

/// The allocator of inode numbers.
#[derive(Debug)]
pub struct InodeRuns {
    next: u64,
    runs: HashMap<Ino, (u64, u64)>,
}

impl InodeRuns {
    /// An allocator whose first fresh number is `next`.
    pub fn new(next: u64) -> Self {
        Self { next, runs: HashMap::new() }
    }

    /// The first number that was never part of a run; what a checkpoint stores.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// A number for a child of `directory`.
    pub fn allocate(&mut self, directory: Ino) -> Ino {
        if let Some((at, end)) = self.runs.get_mut(&directory)
            && at < end
        {
            let ino = Ino(*at);
            *at += 1;
            return ino;
        }
        let length = if self.runs.contains_key(&directory) { RUN_NEXT } else { RUN_FIRST };
        if self.runs.len() >= DIRECTORIES_MAX {
            self.runs.clear();
        }
        let ino = Ino(self.next);
        self.runs.insert(directory, (self.next + 1, self.next + length));
        self.next += length;
        ino
    }

    /// Makes sure that `ino`, met during replay, is never handed out again.
    pub fn lift_past(&mut self, ino: Ino) {
        if ino.0 >= self.next {
            self.next = ino.0 + RUN_NEXT;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn files_of_one_directory_are_neighbours_and_no_number_repeats() {
        let mut runs = InodeRuns::new(2);
        let mut seen = HashSet::new();
        let mut jumps = 0;
        let mut last = 0;
        for i in 0..1000u64 {
            let a = runs.allocate(Ino(1));
            if i > 0 && a.0 != last + 1 {
                jumps += 1;
            }
            last = a.0;
            assert!(seen.insert(a));
            assert!(seen.insert(runs.allocate(Ino(7 + i % 3))));
        }
        assert!(jumps <= 5, "{jumps} jumps");
    }

    #[test]
    fn replayed_numbers_are_never_handed_out_again() {
        let mut runs = InodeRuns::new(2);
        runs.lift_past(Ino(500));
        for _ in 0..600 {
            assert!(runs.allocate(Ino(1)).0 > 500);
        }
    }

    #[test]
    fn a_full_table_forgets_runs_but_repeats_nothing() {
        let mut runs = InodeRuns::new(2);
        let mut seen = HashSet::new();
        for round in 0..2 {
            for d in 0..(DIRECTORIES_MAX as u64 + 10) {
                assert!(seen.insert(runs.allocate(Ino(1_000_000 + d))), "round {round}");
            }
        }
    }
}
