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

use vellum_fuzzing::{Input, Target};

use crate::{
    crypto::{Keyring, MasterKey},
    id::{RepositoryId, VolumeName},
};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_encoders_write_is_accepted_by_every_target() {
        vellum_fuzzing::check_seeds(TARGETS);
    }

    #[test]
    fn every_input_that_is_kept_for_a_target_passes() {
        vellum_fuzzing::check_kept(TARGETS);
    }
}
