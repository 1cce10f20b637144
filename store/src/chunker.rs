//! Module chunker.
