//! How a volume is mounted.

use std::path::PathBuf;

/// Options of the mount itself; those of the volume are [`VolumeOptions`](crate::volume::VolumeOptions).
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Where.
    pub mountpoint: PathBuf,
    /// What `/proc/mounts` shows as the source.
    pub source: String,
    /// Let all users in; the kernel checks permissions.
    pub allow_other: bool,
    /// Let root in beside the owner.
    pub allow_root: bool,
    /// Honour set-user-id bits.
    pub suid: bool,
    /// Honour device nodes.
    pub dev: bool,
    /// Forbid execution.
    pub noexec: bool,
    /// Mounted read-only.
    pub read_only: bool,
    /// Let the kernel collect writes (it then owns sizes and times until it hands them over).
    pub writeback_cache: bool,
    /// Threads that receive requests; 0 chooses.
    pub threads: usize,
    /// Path of the control socket, which the virtual attribute [`CONTROL_XATTR`] tells.
    pub control: Option<PathBuf>,
}

/// Virtual extended attribute, readable on every inode and never listed: where the mount's process can be asked.
pub const CONTROL_XATTR: &[u8] = b"user.vellum.control";
/// Extended attribute of every inode that tells how the volume is: [`crate::volume::health::Health`] as text.
pub const STATUS_XATTR: &[u8] = b"user.vellum.status";

impl MountOptions {
    /// The defaults for a mountpoint.
    pub fn new(mountpoint: PathBuf, source: String) -> Self {
        Self {
            mountpoint,
            source,
            allow_other: false,
            allow_root: false,
            suid: false,
            dev: false,
            noexec: false,
            read_only: false,
            writeback_cache: false,
            threads: 0,
            control: None,
        }
    }
}
