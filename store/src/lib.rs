//! The store of vellum: content-addressed, compressed, encrypted blobs in immutable packs, found through an index and published by numbered heads.
//!
//! *Invariants*
//! 1. Nothing leaves the process unsealed (F8), and nothing published is overwritten (F4).
//! 2. A blob handed to a caller was unsealed under its own kind and its id was recomputed (P2).
//! 3. The store knows blobs, roots and heads; it knows no files, directories or user paths.
//!
//! *Not here*: what a tree node means (`vellum-fs`), where options and secrets come from (`vellum-cli`).

pub mod backend;
pub mod cache;
pub mod chunker;
pub mod codec;
pub mod compress;
pub mod config;
pub mod crypto;
pub mod disk;
pub mod error;
pub mod format;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod heads;
pub mod id;
pub mod index;
pub mod journal;
pub mod lock;
pub mod pack;
pub mod pipeline;
pub mod reader;
pub mod repository;
pub mod spawn;
pub mod state;
pub mod table;

pub use error::{Error, Result};
