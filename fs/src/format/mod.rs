//! Module format.
