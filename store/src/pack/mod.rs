//! Module pack.
