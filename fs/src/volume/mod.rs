//! Module volume.
