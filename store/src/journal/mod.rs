//! Module journal.
