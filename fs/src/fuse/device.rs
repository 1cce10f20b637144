//! The connection to the kernel: a descriptor of `/dev/fuse` that is mounted somewhere.
//!
//! *Invariants*
//! 1. A mountpoint is only ever unmounted while this very connection lives. After somebody else has unmounted it, perhaps
//!    long ago and lazily, the path may show another filesystem, which is none of our business. (The FUSE crate's own mount
//!    does not keep this: it looks for the end of the connection and takes the answer the wrong way round.)
//!
//! *Threads*: whoever mounts, and whoever serves.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::Path,
    process::{Command, Output, Stdio},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{getgid, getuid},
};

use super::{MountError, MountOptions, sys};

const DEVICE: &str = "/dev/fuse";
/// `/proc/mounts` shows it, and umount(8) looks for `umount.fuse.vellum` because of it.
const TYPE: &str = "fuse.vellum";
const SUBTYPE: &str = "vellum";
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];
/// Tells the helper over which descriptor it shall send the connection.
const HELPER_SOCKET: &str = "_FUSE_COMMFD";

/// Mounts, and gives the connection: directly where that is allowed, through the helper otherwise.
pub fn attach(options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(MountError::NoDevice)?;
    match mount_directly(&device, options) {
        Ok(()) => Ok(device.into()),
        Err(Errno::EPERM) => mount_by_helper(options),
        Err(error) => Err(refused(options, error.into())),
    }
}

/// Whether the connection lives, which it does until the last mount of it is gone.
pub fn is_attached(device: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(device.as_fd(), PollFlags::empty())];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(_) => !polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)),
        Err(_) => false,
    }
}

/// Unmounts what `device` is connected to, if it still is; those who use it keep it until the process ends.
pub fn detach(device: &impl AsFd, mountpoint: &Path) {
    if !is_attached(device) {
        return;
    }
    let done = match umount2(mountpoint, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EPERM) => {
            run_helper(&mut |command| command.args(["-u", "-z", "--"]).arg(mountpoint).stdin(Stdio::null())).map(|_| ())
        }
        done => done.map_err(io::Error::from),
    };
    if let Err(error) = done {
        log::warn!("unmount {}: {error}", mountpoint.display());
    }
}

fn refused(options: &MountOptions, source: io::Error) -> MountError {
    MountError::Refused { mountpoint: options.mountpoint.display().to_string(), source }
}

fn mount_directly(device: &File, options: &MountOptions) -> nix::Result<()> {
    let root_mode = options.mountpoint.metadata().map_or(libc::S_IFDIR, |data| data.mode());
    let mut data = format!(
        "fd={},rootmode={root_mode:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        getuid(),
        getgid()
    );
    if options.allow_other || options.allow_root {
        data.push_str(",allow_other");
    }
    let mut flags = MsFlags::MS_NOATIME;
    flags.set(MsFlags::MS_NOSUID, !options.suid);
    flags.set(MsFlags::MS_NODEV, !options.dev);
    flags.set(MsFlags::MS_NOEXEC, options.noexec);
    flags.set(MsFlags::MS_RDONLY, options.read_only);
    mount(Some(options.source.as_str()), &options.mountpoint, Some(TYPE), flags, Some(data.as_str()))
}

fn mount_by_helper(options: &MountOptions) -> Result<OwnedFd, MountError> {
    let io_refused = |error| refused(options, error);
    let (ours, theirs) = UnixStream::pair().map_err(io_refused)?;
    let text = helper_options(options);
    let output = run_helper(&mut |command| {
        // As its standard input, which is descriptor 0; a copy, since a second helper may have to be tried.
        let stdin = theirs.try_clone().map_or_else(|_| Stdio::null(), |socket| Stdio::from(OwnedFd::from(socket)));
        command.args(["-o", &text, "--"]).arg(&options.mountpoint).stdin(stdin).env(HELPER_SOCKET, "0")
    });
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MountError::NoHelper),
        other => other.map_err(io_refused)?,
    };
    drop(theirs);
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).trim().to_string();
        let kind =
            if told.contains("user_allow_other") { io::ErrorKind::PermissionDenied } else { io::ErrorKind::Other };
        return Err(refused(options, io::Error::new(kind, told)));
    }
    sys::receive_descriptor(&ours).map_err(io_refused)
}

fn helper_options(options: &MountOptions) -> String {
    let pick = |choice, yes, no| if choice { yes } else { no };
    let mut list = vec![
        format!("fsname={}", options.source),
        format!("subtype={SUBTYPE}"),
        "default_permissions".to_string(),
        "noatime".to_string(),
        pick(options.suid, "suid", "nosuid").to_string(),
        pick(options.dev, "dev", "nodev").to_string(),
        pick(options.read_only, "ro", "rw").to_string(),
    ];
    if options.noexec {
        list.push("noexec".to_string());
    }
    if options.allow_other || options.allow_root {
        list.push("allow_other".to_string());
    }
    list.join(",")
}

/// Runs the first helper that there is.
fn run_helper(prepare: &mut dyn FnMut(&mut Command) -> &mut Command) -> io::Result<Output> {
    for helper in HELPERS {
        let mut command = Command::new(helper);
        match prepare(command.env("LC_ALL", "C")).output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
