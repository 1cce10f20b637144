//! Module spawn.
