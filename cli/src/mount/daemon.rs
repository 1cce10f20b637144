//! Mounting in the background: another vellum is started, given the secret through a pipe, and waited for until it tells that the
//! mount is there, or why not.
//!
//! A process of its own rather than a fork, because a fork keeps only the thread that called it. Its arguments are those of the mount, without
//! any secret, so that `ps` shows what is mounted where.
//!
//! *Ordering*: in the child, the word goes out first, then the standard streams are given up: the caller never returns before.

use std::{
    fs::File,
    io::{self, BufReader},
    os::unix::process::CommandExt,
    process::{Child, ExitStatus, Stdio},
};

use serde::{Deserialize, Serialize};
use vellum_store::crypto::Credential;

use super::serve::{Job, serve};
use crate::{
    args::MountArgs,
    context::Context,
    control::{read_line, write_line},
    error::{Error, Exit, Report, Result},
    logging, secret,
};

/// This very program, also after a package update replaced its file.
const OURSELVES: &str = "/proc/self/exe";

/// What the child says, once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Ready,
    Failed(Report),
}

/// Starts the process of a mount, and returns when the mount is there.
pub fn start(context: &Context, args: &MountArgs, job: &Job, credential: &Credential) -> Result<()> {
    let mut command = secret::clean_command(OURSELVES);
    command.arg0("vellum").arg("mount").arg("--child");
    command.args((0..context.global.verbose).map(|_| "-v"));
    if context.global.as_copy {
        command.arg("--as-copy");
    }
    if args.sloppy {
        command.arg("--sloppy");
    }
    if job.create {
        command.arg("--create");
    }
    for options in &args.options {
        command.arg("-o").arg(options);
    }
    // The volume goes into the options: in the source, a `#` could belong to the path.
    command.arg("-o").arg(format!("volume={}", job.source.volume));
    command.env("VELLUM_STATE_DIR", &context.state_dir);
    command.arg("--").arg(&job.source.path).arg(&job.mountpoint);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Error::io("start the process of the mount", error))?;
    hand_over(&mut child, credential)?;
    let word = child.stdout.take().map(|pipe| read_line::<Word>(&mut BufReader::new(pipe)));
    match word {
        Some(Ok(Some(Word::Ready))) => Ok(()),
        Some(Ok(Some(Word::Failed(report)))) => {
            // It ends by itself, and its status says the same.
            let _ = child.wait();
            Err(Error::Told(report))
        }
        _ => Err(ended(child.wait())),
    }
}

fn hand_over(child: &mut Child, credential: &Credential) -> Result<()> {
    let Some(mut pipe) = child.stdin.take() else { return Ok(()) };
    match secret::send(credential, &mut pipe) {
        // It has ended already; what it said tells why.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("hand the secret to the process of the mount", error))
        }
        _ => Ok(()),
    }
}

fn ended(status: io::Result<ExitStatus>) -> Error {
    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    let message = format!("the process of the mount ended before it was ready: {how}");
    Error::told(Exit::Failed, message, "run it with --foreground to see more; its log may tell why")
}

/// Is the process of a mount that [`start`] started.
pub fn child(context: &Context, job: &Job) -> Result<()> {
    // Of its own session, so that the end of a terminal or a Ctrl-C meant for the caller does not reach it. It fails only for
    // the leader of a group, which then has what it wants.
    let _ = nix::unistd::setsid();
    let prepared = || {
        let credential = secret::receive(&mut io::stdin().lock())?;
        nix::unistd::chdir("/").map_err(|error| Error::io("change to /", error.into()))?;
        choose_log(context, job)?;
        Ok(credential)
    };
    let credential = prepared().map_err(|error: Error| tell_failure(&error))?;
    let mut ready_told = false;
    let served = serve(context, job, credential, &mut || {
        write_line(&mut io::stdout(), &Word::Ready)
            .map_err(|error| Error::io("tell that the mount is ready", error))?;
        ready_told = true;
        detach()
    });
    match served {
        Err(error) if !ready_told => Err(tell_failure(&error)),
        // Who started it is gone; the log has it.
        Err(error) => Err(Error::AlreadyTold(error.exit())),
        Ok(()) => Ok(()),
    }
}

/// Tells the caller why there is no mount, and gives the error to end with. Who is not there any more does not want to know.
pub fn tell_failure(error: &Error) -> Error {
    let _ = write_line(&mut io::stdout(), &Word::Failed(error.report()));
    Error::AlreadyTold(error.exit())
}

fn choose_log(context: &Context, job: &Job) -> Result<()> {
    logging::at_least_info();
    if let Some(path) = &job.options.log {
        return logging::to_file(path).map_err(|error| Error::io(format!("open the log {}", path.display()), error));
    }
    if !logging::to_syslog() {
        let path = context.state_dir.join("mount.log");
        // Without any log the mount works all the same.
        let _ = std::fs::create_dir_all(&context.state_dir).and_then(|()| logging::to_file(&path));
    }
    Ok(())
}

/// Gives up the standard streams, so that who reads them to the end is not kept waiting for the life of the mount.
fn detach() -> Result<()> {
    let give_up = || {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        nix::unistd::dup2_stdin(&null)?;
        nix::unistd::dup2_stdout(&null)?;
        nix::unistd::dup2_stderr(&null)?;
        io::Result::Ok(())
    };
    give_up().map_err(|error| Error::io("give up the standard streams", error))
}
