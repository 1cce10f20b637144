//! What [`super::budget`] waits and counts with. `tests/interleavings` compiles that file with primitives of a model checker in the place of these.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use vellum_store::spawn::turns::{Condvar, Mutex};
