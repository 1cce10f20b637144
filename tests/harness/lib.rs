//! Shared parts of the tests that span packages.

pub mod dump;
pub mod history;
pub mod model;
pub mod rig;
pub mod surroundings;
