//! Shared parts of the tests that span packages.

#![allow(clippy::expect_used)]

pub mod bench;
pub mod choice;
pub mod crashes;
pub mod dump;
pub mod face;
pub mod fuzz;
pub mod history;
#[cfg(target_os = "linux")]
pub mod kernel;
pub mod linear;
pub mod marathon;
pub mod model;
pub mod player;
pub mod portrait;
pub mod rig;
pub mod schedules;
pub mod seed;
pub mod surroundings;
