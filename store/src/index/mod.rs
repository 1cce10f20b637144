//! Module index.
