//! Types of the volume as types of fuser, and back.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags, Request, TimeOrNow};

use crate::{
    attr::{Attr, Caller, SetTime},
    error::{Error, Result},
    format::inode::FileKind,
    ino::Ino,
    time::Time,
    volume::{
        handles::{OpenIntent, OpenMode},
        ops::{Entry, files::Allocate},
    },
};

/// How long a kernel may keep what it was told: this process is the only one that changes the volume.
pub const TTL: Duration = Duration::from_secs(3600);
/// How long it may keep what never changes.
pub const TTL_IMMUTABLE: Duration = Duration::from_secs(365 * 86_400);

/// Inode number.
pub fn ino(ino: INodeNo) -> Ino {
    Ino(ino.0)
}

/// Times to live of attributes and name.
pub fn ttls(entry: &Entry) -> (Duration, Duration) {
    let attr = match (entry.transient, entry.immutable) {
        (true, _) => Duration::ZERO,
        (false, true) => TTL_IMMUTABLE,
        (false, false) => TTL,
    };
    (attr, if entry.transient || entry.name_may_move { Duration::ZERO } else { TTL })
}

/// Attributes for a reply.
pub fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.kind),
        perm: (attr.perm & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: kernel_device(attr.rdev),
        blksize: attr.blksize,
        flags: 0,
    }
}

/// File type.
pub fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::CharDevice => FileType::CharDevice,
    }
}

/// What `mknod` is to make, from the type bits of its mode.
pub fn kind_of_mode(mode: u32) -> Result<FileKind> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Ok(FileKind::Regular),
        libc::S_IFIFO => Ok(FileKind::Fifo),
        libc::S_IFSOCK => Ok(FileKind::Socket),
        libc::S_IFBLK => Ok(FileKind::BlockDevice),
        libc::S_IFCHR => Ok(FileKind::CharDevice),
        _ => Err(Error::invalid("a file type that mknod does not make")),
    }
}

/// Device number as the volume keeps it (major in the upper half), from the kernel's 32 bits (minor in bits 0-7 and 20-31).
pub fn volume_device(rdev: u32) -> u64 {
    let (major, minor) = ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00));
    u64::from(major) << 32 | u64::from(minor)
}

/// The reverse of [`volume_device`].
pub fn kernel_device(rdev: u64) -> u32 {
    let (major, minor) = ((rdev >> 32) as u32, rdev as u32);
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// Who asks.
pub fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

/// How a file is opened. Never for appending: the kernel knows where the end is and says so with each write, under a lock. A
/// handle that appended by itself would also do so with pages of mappings, which the kernel writes back through any handle,
/// and after `fcntl` has taken O_APPEND away.
pub fn open_mode(flags: OpenFlags) -> OpenMode {
    let access = flags.acc_mode();
    OpenMode {
        read: access != OpenAccMode::O_WRONLY,
        write: access != OpenAccMode::O_RDONLY,
        // The kernel computes the offset of an appending write itself, under its own lock; O_APPEND of the open file would
        // also catch page writeback and descriptors whose flag was cleared since.
        append: false,
        sync: flags.0 & libc::O_DSYNC != 0,
    }
}

/// What else the opener of a file means to do.
pub fn open_intent(flags: OpenFlags) -> OpenIntent {
    OpenIntent { appends: flags.0 & libc::O_APPEND != 0, keeps_atime: flags.0 & libc::O_NOATIME != 0 }
}

/// What `fallocate` is to do.
pub fn allocate(mode: i32) -> Result<Allocate> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Ok(Allocate::Reserve { keep_size: false }),
        KEEP => Ok(Allocate::Reserve { keep_size: true }),
        PUNCH => Ok(Allocate::Punch),
        ZERO => Ok(Allocate::Zero { keep_size: false }),
        ZERO_KEEP => Ok(Allocate::Zero { keep_size: true }),
        _ => Err(Error::Unsupported(format!("fallocate mode {mode:#x}").into())),
    }
}

/// A time to set.
pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(from_system_time(time)),
    }
}

/// The time that a request named. fuser 0.18 puts it together wrongly before 1970, where it counts the nanoseconds backwards
/// from the second instead of forwards; they are both in what it makes, so that can be undone.
fn from_system_time(time: SystemTime) -> Time {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(_) => Time::from(time),
        Err(before) => {
            let before = before.duration();
            Time { sec: -i64::try_from(before.as_secs()).unwrap_or(i64::MAX), nsec: before.subsec_nanos() }
        }
    }
}

/// A time for a reply; one that the platform cannot express becomes the epoch.
fn system_time(time: Time) -> SystemTime {
    time.to_system().unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn device_numbers_survive_the_kernels_encoding() {
        for (major, minor) in [(0u64, 0u64), (1, 3), (8, 255), (259, 65_537), (0xfff, 0xf_ffff)] {
            let rdev = major << 32 | minor;
            assert_eq!(volume_device(kernel_device(rdev)), rdev, "{major}:{minor}");
        }
        assert_eq!(kernel_device(8 << 32 | 1), 0x801);
    }

    #[test]
    fn no_handle_appends_by_itself() {
        let mode = open_mode(OpenFlags(libc::O_WRONLY | libc::O_APPEND | libc::O_SYNC));
        assert!(mode.write && !mode.read && !mode.append && mode.sync);
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        // As fuser hands over second -2 with 300 ms, which is 1.7 s before 1970: as 2.3 s before it.
        let handed = SystemTime::UNIX_EPOCH - Duration::new(2, 300_000_000);
        assert_eq!(from_system_time(handed), Time { sec: -2, nsec: 300_000_000 });
        let answered = SystemTime::UNIX_EPOCH - Duration::new(1, 700_000_000);
        assert_eq!(system_time(Time { sec: -2, nsec: 300_000_000 }), answered);
        for time in [Time { sec: -5, nsec: 0 }, Time { sec: 7, nsec: 999_999_999 }] {
            assert_eq!(from_system_time(system_time(time)), time);
        }
    }

    #[test]
    fn fallocate_modes_that_cannot_be_kept_are_refused() {
        assert_eq!(allocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).unwrap(), Allocate::Punch);
        for mode in [libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE, -1] {
            assert!(allocate(mode).is_err(), "{mode:#x}");
        }
    }
}
