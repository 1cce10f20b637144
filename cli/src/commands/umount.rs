//! `vellum umount`: returns when the volume is closed, everything is durable and the process has ended.
//!
//! *Ordering*: the process is asked to tell of its end before the mount is taken away, so that no end can be missed.

use std::path::Path;

use crate::{
    args::UmountArgs,
    context::Context,
    control::{
        Answer, Request,
        client::{Client, ConnectError},
    },
    error::{Error, Exit, Result},
    mount::unmount::{UnmountError, unmount},
    output,
    target::{control_socket, os_str},
};

/// `vellum umount`
pub fn run(_context: &Context, args: &UmountArgs) -> Result<()> {
    let path = &args.mountpoint;
    let socket = match control_socket(path) {
        Ok(Some(socket)) => socket,
        Ok(None) => return Err(not_mounted(path)),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => return take_away_dead(path),
        Err(error) => return Err(Error::io(format!("look at {}", path.display()), error)),
    };
    let client = match Client::connect(&socket) {
        Ok(client) => client,
        Err(ConnectError::Gone) => return take_away_mute(path),
        Err(error) => return Err(error.into_error(&socket)),
    };
    match args.lazy {
        true => detach(client),
        false => unmount_and_wait(client),
    }
}

fn unmount_and_wait(mut client: Client) -> Result<()> {
    let status = client.status()?;
    client.send(&Request::UmountWait)?;
    match client.next()? {
        Answer::Waiting => {}
        other => return Err(unexpected(&other)),
    }
    take_away(Path::new(&os_str(&status.mountpoint.0)), false)?;
    match client.next()? {
        Answer::Done(_) => {}
        Answer::Failed(report) => return Err(Error::Told(report)),
        other => return Err(unexpected(&other)),
    }
    client.wait_for_end();
    Ok(())
}

fn detach(mut client: Client) -> Result<()> {
    let status = client.status()?;
    // What was written so far is safe whenever the last user lets go.
    if !status.read_only {
        client.get::<serde_json::Value>(&Request::Sync)?;
    }
    take_away(Path::new(&os_str(&status.mountpoint.0)), true)?;
    output::note(&format!(
        "what is open in {} stays usable; process {} ends with the last of it",
        status.mountpoint, status.pid
    ));
    Ok(())
}

fn take_away(mountpoint: &Path, lazy: bool) -> Result<()> {
    let shown = mountpoint.display();
    match unmount(mountpoint, lazy) {
        Ok(()) => Ok(()),
        Err(UnmountError::Busy) => Err(Error::refused(
            format!("{shown} is in use"),
            format!(
                "`fuser -vm {shown}` shows by whom; close it there, or detach it with `vellum umount --lazy {shown}`"
            ),
        )),
        Err(UnmountError::NotMounted) => Err(not_mounted(mountpoint)),
        Err(UnmountError::NoHelper) => {
            Err(Error::refused("fusermount3 was not found", "install the package fuse3, or unmount as root"))
        }
        Err(UnmountError::Failed(error)) => Err(Error::io(format!("unmount {shown}"), error)),
    }
}

fn take_away_dead(path: &Path) -> Result<()> {
    // Somebody may still stand in it; there is nothing to wait for.
    take_away(path, true)?;
    Err(Error::refused(
        format!("the process that had mounted {} was gone, with what was not synced", path.display()),
        "the mountpoint is free; what was synced is in the journal, and the next mount brings it back",
    ))
}

/// The mount answers, so its process lives; but its socket is gone, as when the directory of a session is cleared.
fn take_away_mute(path: &Path) -> Result<()> {
    take_away(path, true)?;
    Err(Error::refused(
        format!(
            "the process that had mounted {} cannot be asked any more whether everything is durable",
            path.display()
        ),
        "the mountpoint is free, and the process ends by itself once it is; until then a mount of the repository is refused",
    ))
}

fn not_mounted(path: &Path) -> Error {
    let message = format!("no vellum volume is mounted at {}", path.display());
    Error::told(Exit::NotFound, message, "`vellum status` lists the mounts of this user")
}

fn unexpected(answer: &Answer) -> Error {
    let message = format!("the process of the mount gave an unexpected answer: {answer:?}");
    Error::refused(message, "it may be of another version of vellum: unmount with `umount` and wait for it to end")
}
