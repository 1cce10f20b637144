//! The `vellum` program.

fn main() {}
