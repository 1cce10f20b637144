//! Called by mount(8) and umount(8), under the names they look for: `mount.fuse.vellum` and `umount.fuse.vellum`.
//!
//! *Format*: `mount.fuse.vellum REPO DIR [-sfnv] [-N NAMESPACE] [-o OPTS] [-t TYPE]`, `umount.fuse.vellum DIR [-flnrv] [-N NAMESPACE]
//! [-t TYPE]`, as mount(8) and umount(8) describe for external helpers.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use clap::{ArgAction, Parser};

use crate::args::{Cli, Command, GlobalArgs, MountArgs, UmountArgs};

/// Names under which this program is mount(8)'s helper.
const MOUNT_NAMES: [&str; 2] = ["mount.fuse.vellum", "mount.vellum"];
/// Names under which this program is umount(8)'s helper.
const UMOUNT_NAMES: [&str; 2] = ["umount.fuse.vellum", "umount.vellum"];

/// What was called.
#[derive(Debug)]
pub enum Called {
    /// The program itself.
    Vellum,
    /// mount(8) or umount(8) called: the same as a command line.
    Helper(Box<Cli>),
    /// mount(8) called, and nothing is to be done.
    Fake,
}

#[derive(Debug, Parser)]
#[command(name = "mount.fuse.vellum", disable_version_flag = true)]
struct MountHelper {
    /// The repository, or REPO#VOLUME
    #[arg(value_name = "REPO")]
    source: OsString,
    /// The mountpoint
    #[arg(value_name = "DIR")]
    mountpoint: PathBuf,
    /// Pass over unknown options
    #[arg(short = 's')]
    sloppy: bool,
    /// Do everything but mount
    #[arg(short = 'f')]
    fake: bool,
    /// Accepted for mount(8)'s sake
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Say more
    #[arg(short = 'v', action = ArgAction::Count)]
    verbose: u8,
    /// Accepted for mount(8)'s sake: it enters the namespace itself
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
    /// Options
    #[arg(short = 'o', value_name = "OPTS", action = ArgAction::Append)]
    options: Vec<OsString>,
    /// Accepted for mount(8)'s sake
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<OsString>,
}

#[derive(Debug, Parser)]
#[command(name = "umount.fuse.vellum", disable_version_flag = true)]
struct UmountHelper {
    /// The mountpoint
    #[arg(value_name = "DIR")]
    mountpoint: PathBuf,
    /// Accepted for umount(8)'s sake: a mount whose process died is always taken away
    #[arg(short = 'f')]
    force: bool,
    /// Take it out of the tree even while it is in use
    #[arg(short = 'l')]
    lazy: bool,
    /// Accepted for umount(8)'s sake
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Accepted for umount(8)'s sake
    #[arg(short = 'r')]
    read_only: bool,
    /// Say more
    #[arg(short = 'v', action = ArgAction::Count)]
    verbose: u8,
    /// Accepted for umount(8)'s sake: it enters the namespace itself
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,
    /// Accepted for umount(8)'s sake
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<OsString>,
}

/// Finds out by which name the program was called, and reads the arguments that belong to it.
pub fn called(args: &[OsString]) -> Result<Called, clap::Error> {
    let name = args.first().and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str).unwrap_or_default();
    if MOUNT_NAMES.contains(&name) {
        let helper = MountHelper::try_parse_from(args)?;
        return Ok(if helper.fake { Called::Fake } else { Called::Helper(Box::new(helper.into_cli())) });
    }
    if UMOUNT_NAMES.contains(&name) {
        return Ok(Called::Helper(Box::new(UmountHelper::try_parse_from(args)?.into_cli())));
    }
    Ok(Called::Vellum)
}

impl MountHelper {
    fn into_cli(self) -> Cli {
        let global = GlobalArgs { verbose: self.verbose, ..GlobalArgs::default() };
        let Self { source, mountpoint, options, sloppy, .. } = self;
        let command = MountArgs { source, mountpoint, options, sloppy, create: false, foreground: false, child: false };
        Cli { global, command: Command::Mount(command) }
    }
}

impl UmountHelper {
    fn into_cli(self) -> Cli {
        let global = GlobalArgs { verbose: self.verbose, ..GlobalArgs::default() };
        Cli { global, command: Command::Umount(UmountArgs { mountpoint: self.mountpoint, lazy: self.lazy }) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn call(words: &[&str]) -> Result<Called, clap::Error> {
        called(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn mount_is_understood_as_mount_calls_it() {
        let called =
            call(&["/sbin/mount.fuse.vellum", "/repo#work", "/mnt", "-sn", "-o", "rw,noauto", "-t", "fuse.vellum"])
                .unwrap();
        let Called::Helper(cli) = called else { panic!("{called:?}") };
        let Command::Mount(mount) = cli.command else { panic!("another command") };
        assert!(mount.sloppy);
        assert_eq!((mount.source, mount.mountpoint), ("/repo#work".into(), "/mnt".into()));
        assert_eq!(mount.options, ["rw,noauto"]);
    }

    #[test]
    fn umount_is_understood_as_umount_calls_it() {
        let called = call(&["umount.fuse.vellum", "/mnt", "-l", "-t", "fuse.vellum"]).unwrap();
        let Called::Helper(cli) = called else { panic!("{called:?}") };
        let Command::Umount(umount) = cli.command else { panic!("another command") };
        assert!(umount.lazy);
    }

    #[test]
    fn a_fake_mount_does_nothing() {
        assert!(matches!(call(&["mount.vellum", "/r", "/m", "-f"]).unwrap(), Called::Fake));
    }

    #[test]
    fn under_any_other_name_it_is_vellum() {
        assert!(matches!(call(&["/usr/bin/vellum", "ls"]).unwrap(), Called::Vellum));
        assert!(call(&["mount.fuse.vellum", "/r"]).is_err());
    }
}
