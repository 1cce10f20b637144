//! What the fuzz targets of tests/fuzz call: each decoder of the filesystem with what must hold for any bytes.
//!
//! *Invariants*
//! 1. An input that is accepted gives the same bytes when it is encoded again: every value has one form.
//! 2. The seeds are what the encoders write, and every seed is accepted.
//!
//! *Not here*: running them (`tests/fuzz`, `scripts/fuzz`); operations on whole volumes (`tests/harness`).

mod records;
mod trees;

use vellum_fuzzing::{Input, Target};

/// All targets of this package.
pub const TARGETS: &[Target] = &[
    Target { name: "record", run: records::record, seeds: records::record_seeds },
    Target { name: "op", run: records::op, seeds: records::op_seeds },
    Target { name: "instant", run: records::instant, seeds: records::instant_seeds },
    Target { name: "node", run: trees::node, seeds: trees::node_seeds },
    Target { name: "tree", run: trees::tree, seeds: trees::tree_seeds },
];

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
