//! `vellum status`: what is mounted, and how it is doing.

use std::{
    ffi::OsStr,
    io::{self, Write},
};

use vellum_fs::time::Time;
use vellum_store::lock::LockState;

use crate::{
    args::StatusArgs,
    context::{Context, require_repository},
    control::{client::Client, place},
    error::Result,
    output::{bytes, local_time},
    reports::{Name, StatusReport, TargetStatus},
    target::{Source, mounted_at},
};

/// `vellum status`
pub fn run(context: &Context, args: &StatusArgs) -> Result<()> {
    match &args.target {
        Some(target) => {
            let status = of_target(target)?;
            context.output.print(&status, |out| write_target(out, &status))
        }
        None => {
            let mounts = of_user()?;
            context.output.print(&mounts, |out| match mounts.is_empty() {
                true => writeln!(out, "nothing is mounted"),
                false => mounts.iter().try_for_each(|status| write_mount(out, status)),
            })
        }
    }
}

fn of_target(target: &OsStr) -> Result<TargetStatus> {
    if let Some(mut client) = mounted_at(target.as_ref())? {
        return Ok(TargetStatus::Mounted(client.status()?));
    }
    let source = Source::parse(target)?;
    require_repository(&source.path)?;
    let (repository, volume) = (Name::of(&source.path), source.volume.to_string());
    match source.lock_state()? {
        LockState::Free => Ok(TargetStatus::NotMounted { repository, volume }),
        LockState::Held(holder) => {
            let socket = holder.as_ref().and_then(|holder| holder.control_socket.as_deref());
            // A process that does not answer is told with what it said about itself.
            let asked =
                socket.and_then(|socket| Client::connect(socket).ok()).and_then(|mut client| client.status().ok());
            Ok(match asked {
                Some(status) => TargetStatus::Mounted(status),
                None => TargetStatus::Locked { repository, volume, holder: holder.map(|holder| holder.to_string()) },
            })
        }
    }
}

fn of_user() -> Result<Vec<StatusReport>> {
    let mut mounts = Vec::new();
    for socket in place::sockets()? {
        match Client::connect(&socket) {
            // One that is just ending has no status.
            Ok(mut client) => mounts.extend(client.status().ok()),
            Err(error) => log::debug!("{}: {error:?}", socket.display()),
        }
    }
    Ok(mounts)
}

fn write_target(out: &mut dyn Write, status: &TargetStatus) -> io::Result<()> {
    match status {
        TargetStatus::Mounted(status) => write_mount(out, status),
        TargetStatus::Locked { repository, volume, holder } => {
            let holder = holder.as_deref().unwrap_or("another process");
            writeln!(out, "volume {volume} of {repository} is in use by {holder}")
        }
        TargetStatus::NotMounted { repository, volume } => {
            writeln!(out, "volume {volume} of {repository} is not mounted")
        }
    }
}

fn write_mount(out: &mut dyn Write, status: &StatusReport) -> io::Result<()> {
    let how = if status.read_only { ", read-only" } else { "" };
    writeln!(out, "volume {} of {} is mounted at {}{how}", status.volume, status.repository, status.mountpoint)?;
    let started = Time { sec: i64::try_from(status.started).unwrap_or(i64::MAX), nsec: 0 };
    writeln!(out, "  process {} since {}", status.pid, local_time(started))?;
    writeln!(out, "  {} of {} can still be written", bytes(status.free_bytes), bytes(status.total_bytes))?;
    let unsaved = match status.changes {
        0 => "nothing changed since".to_owned(),
        changes => format!("{changes} changes and {} of content wait for the next", bytes(status.dirty_bytes)),
    };
    match status.checkpoint {
        Some(sec) => writeln!(out, "  checkpoint {} at {}; {unsaved}", status.head, local_time(Time { sec, nsec: 0 }))?,
        None => writeln!(out, "  no checkpoint yet; {unsaved}")?,
    }
    match &status.trouble {
        Some(why) if status.health == "poisoned" => writeln!(out, "  accepts no more writes: {why}")?,
        Some(why) => writeln!(out, "  in trouble, and trying again: {why}")?,
        None => {}
    }
    status.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
}
