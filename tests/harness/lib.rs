//! Shared parts of the tests that span packages.

#![allow(clippy::expect_used)]

pub mod bench;
pub mod dump;
pub mod history;
pub mod model;
pub mod player;
pub mod portrait;
pub mod rig;
pub mod seed;
pub mod surroundings;
