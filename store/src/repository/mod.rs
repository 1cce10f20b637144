//! Module repository.
