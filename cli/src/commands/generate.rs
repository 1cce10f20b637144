//! `vellum completions` and `vellum man`: made from the definition of the command line.

use std::{fs, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{
    args::Cli,
    error::{Error, Result},
    output::Output,
};

/// Prints a completion script.
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vellum", &mut script);
    Output { json: false }.write(|out| out.write_all(&script))
}

/// Writes a manual page for the program and one for each command.
pub fn manual(dir: &Path) -> Result<()> {
    let doing = |error| Error::io(format!("write manual pages to {}", dir.display()), error);
    fs::create_dir_all(dir).map_err(doing)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(doing)
}
