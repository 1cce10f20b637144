//! WinFsp front end of vellum; empty on every other platform.
#![cfg(windows)]
