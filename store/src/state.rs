//! Module state.
