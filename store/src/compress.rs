//! Module compress.
