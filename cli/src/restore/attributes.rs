//! Owners, modes, extended attributes and times of what was restored.
//!
//! *Ordering*: owner, extended attributes, mode, times. A change of owner takes set-id bits and capabilities away, and
//! everything moves the times.

use std::{io, ops::ControlFlow, os::fd::AsFd};

use nix::{
    errno::Errno,
    sys::{
        stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchown, fchownat},
};
use vellum_fs::{
    format::inode::{FileKind, Inode},
    ino::Ino,
    time::Time,
};

use super::{
    NO_FOLLOW,
    place::{Place, Temporary},
};
use crate::{
    error::{Error, Result},
    output::escaped,
    past::Past,
    sys,
};

/// ACLs that a new file may inherit from the directory it is made in.
const INHERITED: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
const SET_ID_BITS: u32 = 0o6000;

/// What gets the attributes.
pub enum Of<'p> {
    /// An open file or directory.
    Open(&'p Place),
    /// What is better not opened: links, pipes, devices.
    Named(&'p Temporary<'p>),
}

/// Gives everything that the snapshot tells of an inode. What this user may not give is told to `note`.
pub fn give(past: &Past, of: &Of<'_>, ino: Ino, inode: &Inode, note: &mut dyn FnMut(String)) -> Result<()> {
    let owned = of.give_owner(inode)?;
    give_xattrs(past, of, ino, inode.kind, note)?;
    let mut mode = inode.mode;
    if !owned && mode & SET_ID_BITS != 0 {
        // With another owner they would lend that one's rights.
        mode &= !SET_ID_BITS;
        note("set-user-id and set-group-id left out, as the owner could not be restored".to_string());
    }
    if inode.kind != FileKind::Symlink {
        of.give_mode(mode)?;
    }
    of.give_times(inode.atime, inode.mtime)
}

fn give_xattrs(past: &Past, of: &Of<'_>, ino: Ino, kind: FileKind, note: &mut dyn FnMut(String)) -> Result<()> {
    let view = past.namespace();
    let mut names: Vec<Vec<u8>> = Vec::new();
    view.list_xattr(ino, &mut |name| {
        names.push(name.to_vec());
        ControlFlow::Continue(())
    })?;
    if kind != FileKind::Symlink {
        for name in INHERITED.into_iter().filter(|name| !names.iter().any(|given| given == name)) {
            of.remove_xattr(name)
                .map_err(|error| Error::io(format!("remove the inherited {}", escaped(name)), error))?;
        }
    }
    for name in names {
        let value = view.get_xattr(ino, &name)?;
        match of.set_xattr(&name, &value) {
            Ok(()) => {}
            Err(error) if is_unsupported(&error) => note(format!("attribute {} left out: {error}", escaped(&name))),
            Err(error) => return Err(Error::io(format!("set attribute {}", escaped(&name)), error)),
        }
    }
    Ok(())
}

/// Refusals that depend on who restores to where, and not on the file.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM | libc::EACCES))
}

impl Of<'_> {
    /// Gives owner and group, as far as this user may; whether both are as they were.
    fn give_owner(&self, inode: &Inode) -> Result<bool> {
        let (uid, gid) = (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid));
        let me = nix::unistd::geteuid();
        let wanted = if me.is_root() { Some(uid) } else { None };
        let changed = match self {
            Self::Open(place) => fchown(place, wanted, Some(gid)),
            Self::Named(at) => fchownat(at.parent(), at.name(), wanted, Some(gid), NO_FOLLOW),
        };
        match changed {
            Ok(()) => Ok(me.is_root() || uid == me),
            Err(Errno::EPERM) if !me.is_root() => Ok(false),
            // Owners that this user namespace does not have.
            Err(Errno::EINVAL) => Ok(false),
            Err(error) => Err(Error::io("give it its owner", error.into())),
        }
    }

    fn give_mode(&self, mode: u32) -> Result<()> {
        let mode = Mode::from_bits_truncate(mode);
        let given = match self {
            Self::Open(place) => fchmod(place, mode),
            // What this name leads to was made here and is no link: there is nothing to follow.
            Self::Named(at) => fchmodat(at.parent(), at.name(), mode, FchmodatFlags::FollowSymlink),
        };
        given.map_err(|error| Error::io("give it its mode", error.into()))
    }

    fn give_times(&self, atime: Time, mtime: Time) -> Result<()> {
        let spec = |time: Time| TimeSpec::new(time.sec, i64::from(time.nsec));
        let given = match self {
            Self::Open(place) => futimens(place, &spec(atime), &spec(mtime)),
            Self::Named(at) => {
                utimensat(at.parent(), at.name(), &spec(atime), &spec(mtime), UtimensatFlags::NoFollowSymlink)
            }
        };
        given.map_err(|error| Error::io("give it its times", error.into()))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        match self {
            Self::Open(place) => sys::set_xattr(place.as_fd(), name, value),
            Self::Named(at) => sys::set_xattr_no_follow(&at.path(), name, value),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> io::Result<()> {
        match self {
            Self::Open(place) => sys::remove_xattr(place.as_fd(), name),
            Self::Named(at) => sys::remove_xattr_no_follow(&at.path(), name),
        }
    }
}
