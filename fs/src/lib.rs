//! Volumes of vellum: a versioned, journalled filesystem over `vellum-store`, and its FUSE front end.
//!
//! *Invariants*
//! 1. Outside [`fuse`] nothing names a kernel interface, an errno or a status code; it compiles on every platform.
//! 2. This package knows no cipher, pack or backend layout: content and tree nodes are blobs that the store keeps.

pub mod attr;
pub mod content;
pub mod error;
pub mod format;
#[cfg(unix)]
pub mod fuse;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod ino;
pub mod name;
pub mod namespace;
pub mod time;
pub mod tree;
pub mod volume;

pub use error::{Error, Result};
