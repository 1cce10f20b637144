//! Attributes as front ends see them, and what front ends ask to change.

use crate::{
    format::inode::{FileKind, Inode},
    ino::Ino,
    time::Time,
};

/// Unit of [`Attr::blocks`], as in stat(2).
pub const BLOCK_BYTES: u64 = 512;
/// Preferred size of reads and writes.
pub const PREFERRED_IO_BYTES: u32 = 128 * 1024;

/// Space that a directory is said to take comes in this unit.
const DIRECTORY_UNIT_BYTES: u64 = 4096;

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process; 0 if unknown.
    pub pid: u32,
}

/// What `stat` tells about an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Number.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub perm: u32,
    /// Names of a file; two and the subdirectories of a directory; 0 once unlinked.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device: major in the upper half, minor in the lower.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// Space taken by data before deduplication and compression, in units of [`BLOCK_BYTES`]; holes take none.
    pub blocks: u64,
    /// Preferred size of reads and writes.
    pub blksize: u32,
    /// Last read, as far as kept.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
    /// Generation of the number.
    pub generation: u32,
}

impl Attr {
    /// The attributes in an inode's record. Content that is still dirty is for the caller to add.
    pub fn new(ino: Ino, inode: &Inode) -> Self {
        let taken = match inode.kind {
            FileKind::Directory => inode.size.next_multiple_of(DIRECTORY_UNIT_BYTES),
            _ => inode.allocated,
        };
        Self {
            ino,
            kind: inode.kind,
            perm: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            size: inode.size,
            blocks: taken.div_ceil(BLOCK_BYTES),
            blksize: PREFERRED_IO_BYTES,
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            btime: inode.btime,
            generation: inode.generation,
        }
    }
}

/// A time to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the request.
    Now,
    /// This time.
    At(Time),
}

impl SetTime {
    /// The time meant, in a request made at `now`.
    pub fn resolve(self, now: Time) -> Time {
        match self {
            Self::Now => now,
            Self::At(time) => time,
        }
    }
}

/// A request to change attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length: cuts, or extends by a hole.
    pub size: Option<u64>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_allocated_bytes_and_round_up() {
        let mut inode = Inode::new(FileKind::Regular, 0o644, 0, 0, Time::EPOCH);
        (inode.size, inode.allocated) = (1 << 40, 1);
        assert_eq!(Attr::new(Ino(2), &inode).blocks, 1, "any data shows, holes do not");
        inode.allocated = 0;
        assert_eq!(Attr::new(Ino(2), &inode).blocks, 0);
    }

    #[test]
    fn a_directory_takes_space_once_it_has_entries() {
        let mut inode = Inode::new(FileKind::Directory, 0o755, 0, 0, Time::EPOCH);
        assert_eq!(Attr::new(Ino(2), &inode).blocks, 0);
        inode.size = 32;
        assert_eq!(Attr::new(Ino(2), &inode).blocks, 8);
    }

    #[test]
    fn a_request_for_now_means_the_time_of_the_request() {
        let (now, then) = (Time { sec: 9, nsec: 1 }, Time { sec: -9, nsec: 2 });
        assert_eq!((SetTime::Now.resolve(now), SetTime::At(then).resolve(now)), (now, then));
    }
}
