//! Module ino.
