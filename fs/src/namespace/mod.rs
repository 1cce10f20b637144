//! Module namespace.
