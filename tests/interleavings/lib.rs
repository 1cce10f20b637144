//! Those files of the packages that count or wait without a lock around all of it, compiled with the primitives of loom, which runs them in all
//! orders that the memory model of Rust allows.
//!
//! Each lies in a module that has what its own has: the same types from the packages, and primitives of the same names ([`primitives`]).

// The tests that those files bring along are for the packages, where the primitives are real.
#![cfg(not(test))]
#![allow(dead_code, reason = "what no test here calls")]

pub mod orders;
pub mod primitives;

/// Files of `fs/src/volume`.
#[path = "../.."]
pub mod volume {
    #[path = "fs/src/volume/budget.rs"]
    pub mod budget;
    use crate::primitives as sync;
    use vellum_fs::error::{Error, Result};
}

/// Files of `fs/src/fuse`.
#[path = "../.."]
pub mod fuse {
    #[path = "fs/src/fuse/places.rs"]
    pub mod places;
    use crate::primitives as sync;
}

/// Files of `store/src/pipeline`.
#[path = "../.."]
pub mod pipeline {
    #[path = "store/src/pipeline/open_pack.rs"]
    pub mod open_pack;
    #[path = "store/src/pipeline/suspects.rs"]
    pub mod suspects;
    use crate::primitives as sync;
    use vellum_store::{
        backend::{OpenName, OpenObject},
        error::Result,
        id::BlobId,
    };
}
