//! What the fuzz targets of all packages share: what a target is, how it takes its input apart, and what must hold of it on a
//! stable compiler, without a fuzzer.
//!
//! *Not here*: the targets (`fuzz` of each package), and the programs that run them (`tests/fuzz`).

use std::{fs, path::Path};

/// Something that takes any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of the folder with its inputs.
    pub name: &'static str,
    /// Takes any bytes; says whether they were accepted. A panic is a finding.
    pub run: fn(&[u8]) -> bool,
    /// What encoders write, or what is meant to be understood.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Takes an input apart; behind its end there are zeros.
#[derive(Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// At most the next `length` bytes.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }
}

/// Every target has seeds, and accepts them.
///
/// # Panics
/// If one does not.
pub fn check_seeds(targets: &[Target]) {
    for target in targets {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (number, seed) in seeds.iter().enumerate() {
            assert!((target.run)(seed), "seed {number} of {}", target.name);
        }
    }
}

/// Every input that is kept for a target passes: findings of the past are among them.
///
/// # Panics
/// If one does not, or none is accepted.
pub fn check_kept(targets: &[Target]) {
    for target in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target.name);
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
