//! Taking a mount out of the tree: by the system call as root, by the helper otherwise.

use std::{io, path::Path, process::Stdio, thread, time::Duration};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};

use crate::secret::clean_command;

/// How often, and how long apart, a mount that is in use is tried again: 400 ms in all.
const BUSY_RETRIES: u32 = 8;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// Why a mount is still there.
#[derive(Debug)]
pub enum UnmountError {
    /// Somebody works in it, or has a file of it open.
    Busy,
    /// There is nothing mounted.
    NotMounted,
    /// The helper is missing.
    NoHelper,
    /// The system or the helper refused.
    Failed(io::Error),
}

/// Unmounts. With `lazy`, those who use it keep it until they are done; otherwise one that is in use is tried again for a moment,
/// because a program that is just being started holds what its parent has open.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), UnmountError> {
    for _ in 0..BUSY_RETRIES {
        match try_unmount(mountpoint, lazy) {
            Err(UnmountError::Busy) => thread::park_timeout(BUSY_PAUSE),
            other => return other,
        }
    }
    try_unmount(mountpoint, lazy)
}

fn try_unmount(mountpoint: &Path, lazy: bool) -> Result<(), UnmountError> {
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    if lazy {
        flags |= MntFlags::MNT_DETACH;
    }
    match umount2(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(UnmountError::Busy),
        Err(Errno::EINVAL | Errno::ENOENT) => Err(UnmountError::NotMounted),
        Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => by_helper(mountpoint, lazy),
        Err(error) => Err(UnmountError::Failed(error.into())),
    }
}

fn by_helper(mountpoint: &Path, lazy: bool) -> Result<(), UnmountError> {
    for helper in HELPERS {
        let mut command = clean_command(helper);
        // Its messages are read below, so they must not come in the user's language.
        command.env("LC_ALL", "C").arg("-u");
        if lazy {
            command.arg("-z");
        }
        let output = match command.arg("--").arg(mountpoint).stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(UnmountError::Failed(error)),
        };
        if output.status.success() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(match () {
            () if told.contains("busy") => UnmountError::Busy,
            () if told.contains("not found in") || told.contains("not mounted") => UnmountError::NotMounted,
            () => UnmountError::Failed(io::Error::other(format!("{helper}: {told}"))),
        });
    }
    Err(UnmountError::NoHelper)
}
