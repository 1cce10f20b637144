//! The `vellum` program: reads the command line, runs one command, tells errors and ends with the code that scripts act on.
//!
//! It is a library so that fuzz targets reach its parsers; nobody else uses it as one.
//!
//! *Invariants*: this package is the only one that prints, reads the environment and knows of exit codes; errors are told
//! once, here.

mod actions;
mod args;
mod commands;
mod context;
mod control;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod journal_place;
mod logging;
mod mount;
mod output;
mod past;
mod progress;
mod reports;
mod restore;
mod secret;
mod sys;
mod target;

use std::{env, ffi::OsString, process::ExitCode};

use clap::Parser;

use crate::{
    args::Cli,
    error::{Error, Exit},
    mount::helper::{Called, called},
};

/// The whole program.
pub fn run() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    let read = called(&args).and_then(|called| match called {
        Called::Vellum => Cli::try_parse_from(&args).map(Some),
        Called::Helper(cli) => Ok(Some(*cli)),
        Called::Fake => Ok(None),
    });
    let cli = match read {
        Ok(Some(cli)) => cli,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            // Where it cannot be printed there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { 0 });
        }
    };
    logging::start(cli.global.verbose);
    // Any command may come to hold keys.
    if let Err(error) = vellum_store::crypto::harden_process() {
        log::warn!("cannot forbid core dumps: {error}");
    }
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::OutputClosed | Error::AlreadyTold(_)) {
                eprintln!("{}", error.report());
            }
            ExitCode::from(error.exit() as u8)
        }
    }
}
