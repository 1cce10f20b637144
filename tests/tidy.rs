//! Style and layer rules that a machine can hold.
