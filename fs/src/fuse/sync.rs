//! What [`super::places`] counts with. `tests/interleavings` compiles that file with primitives of a model checker in the place of these.

pub(super) use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
