//! Mounting by the system call, as root: with the type `fuse.vellum`, by which umount(8) finds its helper.
//!
//! fuser mounts as plain `fuse` when it needs no helper, and then umount(8) would return before the volume is closed.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::MountOptions;

/// What `/proc/mounts` shows as the type.
const TYPE: &str = "fuse.vellum";
/// Bits of a mode that tell the type of a file.
const TYPE_BITS: u32 = 0o170_000;

/// A mount that goes when this value is dropped, unless it was released.
#[derive(Debug)]
pub struct DirectMount(Option<PathBuf>);

impl DirectMount {
    /// Forgets a mount that the kernel has taken away: at its place there may be another one.
    pub fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for DirectMount {
    fn drop(&mut self) {
        if let Some(mountpoint) = &self.0
            && let Err(error) = umount2(mountpoint, MntFlags::MNT_DETACH)
        {
            log::debug!("cannot unmount {}: {error}", mountpoint.display());
        }
    }
}

/// Mounts, and gives the kernel's end; `None` where only the helper may.
pub fn mount_direct(options: &MountOptions) -> io::Result<Option<(OwnedFd, DirectMount)>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let data = kernel_options(options, &device, &options.mountpoint)?;
    match mount(Some(options.source.as_str()), &options.mountpoint, Some(TYPE), flags(options), Some(data.as_str())) {
        Ok(()) => Ok(Some((device.into(), DirectMount(Some(options.mountpoint.clone()))))),
        // Root of a container that may not mount; the helper will say the same, or may.
        Err(Errno::EPERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kernel_options(options: &MountOptions, device: &File, mountpoint: &Path) -> io::Result<String> {
    let root_mode = std::fs::metadata(mountpoint)?.mode() & TYPE_BITS;
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let fd = device.as_raw_fd();
    let mut data = format!("fd={fd},rootmode={root_mode:o},user_id={uid},group_id={gid},default_permissions");
    // fuser tells root and the owner from others where only root is let in.
    if options.allow_other || options.allow_root {
        data.push_str(",allow_other");
    }
    Ok(data)
}

fn flags(options: &MountOptions) -> MsFlags {
    let mut flags = MsFlags::MS_NOATIME;
    flags.set(MsFlags::MS_NOSUID, !options.suid);
    flags.set(MsFlags::MS_NODEV, !options.dev);
    flags.set(MsFlags::MS_NOEXEC, options.noexec);
    flags.set(MsFlags::MS_RDONLY, options.read_only);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_lend_rights_is_off_unless_asked_for() {
        let mut options = MountOptions::new("/m".into(), "r".into());
        assert_eq!(flags(&options), MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        (options.suid, options.dev, options.noexec, options.read_only) = (true, true, true, true);
        assert_eq!(flags(&options), MsFlags::MS_NOATIME | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY);
    }
}
