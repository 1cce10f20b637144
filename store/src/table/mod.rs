//! Module table.
