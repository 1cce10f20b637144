//! What the description of a lock's holder gets from systems that are not Unix: nothing but the path.

use std::ffi::OsString;

pub(super) fn host_name() -> String {
    String::new()
}

pub(super) fn boot_id() -> String {
    String::new()
}

/// Not known without asking the system in its own way, and then the description is believed.
pub(super) fn is_alive(_pid: u32) -> bool {
    true
}

pub(super) fn path(bytes: Vec<u8>) -> OsString {
    String::from_utf8_lossy(&bytes).into_owned().into()
}
