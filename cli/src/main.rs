//! The `vellum` program; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vellum_cli::run()
}
