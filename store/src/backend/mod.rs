//! Module backend.
