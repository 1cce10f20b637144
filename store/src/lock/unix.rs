//! What the description of a lock's holder needs from a Unix system.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

pub(super) fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Drawn by the kernel at each start; where there is none (systems other than Linux), a process id alone tells.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_string()).unwrap_or_default()
}

pub(super) fn is_alive(pid: u32) -> bool {
    let Ok(pid @ 1..) = i32::try_from(pid) else { return false };
    // Signal 0 asks without sending; a process of another user answers EPERM and is there.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
}

pub(super) fn path(bytes: Vec<u8>) -> OsString {
    OsString::from_vec(bytes)
}
