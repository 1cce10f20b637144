//! What the fuzz targets of tests/fuzz call: each decoder of the store with what must hold for any bytes.
//!
//! Behind a seal nothing arrives that was not written with the key. So that decoders meet any bytes all the same, inputs are
//! sealed here under a fixed key, and then read as from a store.
//!
//! *Invariants*
//! 1. An input that is accepted gives the same bytes when it is encoded again, where the format has one form of a value;
//!    elsewhere what is encoded gives the same value.
//! 2. The seeds are what the encoders write, and every seed is accepted.
//!
//! *Not here*: running them (`tests/fuzz`, `scripts/fuzz`).

mod files;
mod records;

use std::sync::{Arc, LazyLock};

use crate::{
    crypto::{Keyring, MasterKey},
    id::{RepositoryId, VolumeName},
};

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the program and of the folder with its inputs.
    pub name: &'static str,
    /// Takes any bytes; says whether they were accepted. A panic is a finding.
    pub run: fn(&[u8]) -> bool,
    /// What encoders write.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets of this package.
pub const TARGETS: &[Target] = &[
    Target { name: "config", run: records::config, seeds: records::config_seeds },
    Target { name: "slot", run: records::slot, seeds: records::slot_seeds },
    Target { name: "blob", run: records::blob, seeds: records::blob_seeds },
    Target { name: "head", run: records::head, seeds: records::head_seeds },
    Target { name: "manifest", run: records::manifest, seeds: records::manifest_seeds },
    Target { name: "state", run: records::state, seeds: records::state_seeds },
    Target { name: "place", run: records::place, seeds: records::place_seeds },
    Target { name: "holder", run: records::holder, seeds: records::holder_seeds },
    Target { name: "pack", run: files::pack, seeds: files::pack_seeds },
    Target { name: "segment", run: files::segment, seeds: files::segment_seeds },
    Target { name: "journal", run: files::journal, seeds: files::journal_seeds },
];

/// The keys under which everything is sealed here.
static KEYRING: LazyLock<Arc<Keyring>> =
    LazyLock::new(|| Arc::new(Keyring::new(&MasterKey::from_bytes(&[1; 32]), RepositoryId([2; 16]), 0)));

fn volume() -> VolumeName {
    VolumeName::new("main").expect("the name keeps the rules")
}

/// Takes an input apart; behind its end there are zeros.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// At most the next `length` bytes.
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn what_the_encoders_write_is_accepted_by_every_target() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty());
            for (number, seed) in seeds.iter().enumerate() {
                assert!((target.run)(seed), "seed {number} of {}", target.name);
            }
        }
    }

    /// Findings of the past are among the inputs.
    #[test]
    fn every_input_that_is_kept_for_a_target_passes() {
        for target in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target.name);
            let accepted = fs::read_dir(&folder)
                .unwrap()
                .filter(|entry| (target.run)(&fs::read(entry.as_ref().unwrap().path()).unwrap()))
                .count();
            assert!(accepted > 0, "{} accepts none of its inputs", target.name);
        }
    }
}
