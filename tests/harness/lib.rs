//! Shared parts of the tests that span packages.

pub mod model;
pub mod surroundings;
