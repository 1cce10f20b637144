//! What [`super::open_pack`] and [`super::suspects`] wait and count with. `tests/interleavings` compiles these files with primitives of a model
//! checker in the place of these.

pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(super) use crate::spawn::turns::Mutex;
