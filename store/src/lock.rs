//! Module lock.
