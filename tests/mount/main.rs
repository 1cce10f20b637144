//! The real program on real mounts: everything that a user's programs would notice.
//!
//! Each test makes a repository of its own and mounts it with the program of this build; without `/dev/fuse` or without root it
//! says so and passes. Settings of the environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `VELLUM_TEST_PROGRAM` | the program to test, instead of the one of this build |
//! | `VELLUM_SEED` | the seed of the random tests, which they print |
//! | `VELLUM_TEST_ENTRIES` | entries of the large directory; 50,000 otherwise |
//! | `VELLUM_TEST_KILLS` | rounds of the test that kills the process; 8 otherwise |
//! | `VELLUM_TEST_LARGE_MIB` | size of the large file; 64 otherwise |
//! | `VELLUM_TEST_MOUNT_OPS` | system calls of each of the long random sequences; 4,000 otherwise |
//!
//! *Threads*: tests run in parallel and share nothing but the program. Each ends only the process that it started.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod attributes;
mod copies;
mod crash;
mod facts;
mod files;
mod life;
mod linear;
mod listing;
mod marathon;
mod programs;
mod rules;
mod site;
mod snapshots;
mod space;
mod sys;
