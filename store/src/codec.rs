//! Module codec.
