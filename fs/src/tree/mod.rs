//! Module tree.
