//! Module attr.
