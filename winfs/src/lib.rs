//! WinFsp front end of vellum: a `fs::Volume` as a drive. It compiles to nothing on any other system.
//!
//! *Invariants*
//! 1. A request is translated, answered by one method of the volume, and translated back; nothing is decided here.
//! 2. Every error of the volume has one status code: `status` is a total match.
//! 3. Names that Windows cannot show are told apart from names that it can; the volume keeps any 255 bytes.
//!
//! *Not here*: what files, directories and snapshots are (`vellum-fs`); options and secrets (`vellum-cli`).
//!
//! This front end has never run: `status` is written, the session that WinFsp calls is not, and the README says so.
#![cfg(windows)]

pub mod status;
