//! Module name.
