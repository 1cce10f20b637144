//! The formats on disk: bytes to structs and back, without I/O.
//!
//! *Invariants*
//! 1. Integers are little-endian and fixed in width; reserved bytes are zero and checked.
//! 2. Every length is bounded before anything is allocated; damage is [`crate::Error::Corrupt`], never a panic.

pub mod blob;
pub mod config;
pub mod head;
pub mod journal;
pub mod manifest;
pub mod pack;
pub mod padding;
pub(crate) mod sealed;
pub mod segment;
pub mod slot;

pub use config::FORMAT_VERSION;
