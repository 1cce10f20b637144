//! Module reader.
