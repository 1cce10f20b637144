//! One module for each command: from its arguments to its result.

use crate::{
    args::{Cli, Command},
    context::Context,
    error::Result,
};

mod cat;
mod check;
mod gc;
mod generate;
pub mod init;
mod key;
mod ls;
pub mod mount;
mod repair;
mod restore;
mod snapshots;
mod stats;
mod status;
mod umount;

/// Runs a command.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        // These need no home directory.
        Command::Completions { shell } => return generate::completions(shell),
        Command::Man { dir } => return generate::manual(&dir),
        _ => {}
    }
    let context = Context::new(cli.global)?;
    match cli.command {
        Command::Init(args) => init::run(&context, &args),
        Command::Mount(args) => mount::run(&context, &args),
        Command::Umount(args) => umount::run(&context, &args),
        Command::Status(args) => status::run(&context, &args),
        Command::Snapshot(args) => snapshots::take(&context, &args),
        Command::Snapshots(args) => snapshots::list(&context, &args),
        Command::Delete(args) => snapshots::delete(&context, &args),
        Command::Rename(args) => snapshots::rename(&context, &args),
        Command::Ls(args) => ls::run(&context, &args),
        Command::Cat(args) => cat::run(&context, &args),
        Command::Restore(args) => restore::run(&context, &args),
        Command::Check(args) => check::run(&context, &args),
        Command::Repair(args) => repair::run(&context, &args),
        Command::Gc(args) => gc::run(&context, &args),
        Command::Stats(args) => stats::run(&context, &args),
        Command::Key(command) => key::run(&context, &command),
        Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}
