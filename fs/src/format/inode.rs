//! INODE records: what `stat` tells about an inode, and where its first name is.
//!
//! *Format*
//!
//! | order | type | field | check |
//! |---|---|---|---|
//! | 1 | u8 | kind in bits 0-3, write class in bit 4 | bits 5-7 zero |
//! | 2 | u16 | permission bits | below 0o10000 |
//! | 3 | u8 | how the times follow: ctime bits 0-1, mtime bits 2-3, atime bits 4-5 | bits 6-7 zero |
//! | 4 | uvar | uid | 32 bits |
//! | 5 | uvar | gid | 32 bits |
//! | 6 | uvar | nlink | 32 bits |
//! | 7 | uvar | size | at most 2^63 - 1 |
//! | 8 | uvar | allocated bytes | |
//! | 9 | uvar | device number | |
//! | 10 | uvar | flags: 1 immutable, 2 append only, 4 not dumped, 8 atime kept | below 16 |
//! | 11 | uvar | generation | 32 bits |
//! | 12 | uvar | parent of the first name; 0 without a name | below 2^63 |
//! | 13 | u64 big-endian | cookie of the first name in that parent | |
//! | 14 | time | btime: ivar seconds, u32 nanoseconds | nanoseconds below a second |
//! | 15 | as coded | ctime, mtime, atime | as above |
//!
//! A time's two bits: 0 = seconds and nanoseconds follow; 1 = equal to btime; 2 = equal to ctime (mtime's bits) or to
//! mtime (atime's bits), invalid for ctime; 3 = an ivar follows, nanoseconds after btime, within 2^47. The first of
//! 1, 2, 3, 0 that expresses the time is the only valid one. The cookie is big-endian so that it repeats the bytes of
//! the entry's key, which compression then finds.

use vellum_store::codec::{Reader, Writer};

use super::{read_ivar, read_time, read_uvar32, write_ivar, write_time};
use crate::{
    error::{Error, Result},
    ino::Ino,
    time::Time,
};

const OBJECT: &str = "inode record";
const MODE_MAX: u16 = 0o7777;

/// Largest size of a file.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// Flag: nothing about the inode can be changed. On disk: 1.
pub const FLAG_IMMUTABLE: u32 = 1;
/// Flag: content is only appended, entries are only added. On disk: 2.
pub const FLAG_APPEND_ONLY: u32 = 2;
/// Flag: programs that make dumps leave it out. On disk: 4.
pub const FLAG_NO_DUMP: u32 = 4;
/// Flag: reading does not move the access time. On disk: 8.
pub const FLAG_NO_ATIME: u32 = 8;
/// All flags.
pub const FLAGS_KNOWN: u32 = FLAG_IMMUTABLE | FLAG_APPEND_ONLY | FLAG_NO_DUMP | FLAG_NO_ATIME;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FileKind {
    /// Regular file. On disk: 1.
    Regular = 1,
    /// Directory. On disk: 2.
    Directory = 2,
    /// Symbolic link. On disk: 3.
    Symlink = 3,
    /// Named pipe. On disk: 4.
    Fifo = 4,
    /// Character device. On disk: 5.
    CharDevice = 5,
    /// Block device. On disk: 6.
    BlockDevice = 6,
    /// Socket. On disk: 7.
    Socket = 7,
}

impl FileKind {
    /// Reads the number used on disk.
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Regular,
            2 => Self::Directory,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::CharDevice,
            6 => Self::BlockDevice,
            7 => Self::Socket,
            _ => return None,
        })
    }

    /// Whether this is a directory.
    pub fn is_directory(self) -> bool {
        self == Self::Directory
    }
}

/// How a file's content is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum WriteClass {
    /// By content. On disk: 0.
    #[default]
    Stream = 0,
    /// In fixed blocks, because it is overwritten in place again and again. On disk: 1.
    Random = 1,
}

/// Attributes of one inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, set-id and sticky bits included; no type bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of it; for a directory two, and one more for each directory in it.
    pub nlink: u32,
    /// Length of the content in bytes.
    pub size: u64,
    /// Bytes of the content that are not holes.
    pub allocated: u64,
    /// Device number of a device file: major in the upper half, minor in the lower.
    pub rdev: u64,
    /// `FLAG_*` flags.
    pub flags: u32,
    /// Counter for front ends that hand out file handles; inode numbers are never reused, so it stays 0.
    pub generation: u32,
    /// How the content is cut.
    pub class: WriteClass,
    /// Last read, as far as kept.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
    /// Directory of the first name; [`Ino::VOLUME`] when it has no name.
    pub parent: Ino,
    /// Cookie of the first name in that directory.
    pub parent_cookie: u64,
}

impl Inode {
    /// An inode without content, name or links, all of whose times are `time`.
    pub fn new(kind: FileKind, mode: u32, uid: u32, gid: u32, time: Time) -> Self {
        Self {
            kind,
            mode,
            uid,
            gid,
            nlink: 0,
            size: 0,
            allocated: 0,
            rdev: 0,
            flags: 0,
            generation: 0,
            class: WriteClass::Stream,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            parent: Ino::VOLUME,
            parent_cookie: 0,
        }
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.mode <= MODE_MAX.into(), "permission bits only");
        assert!(self.flags <= FLAGS_KNOWN, "known flags only");
        assert!(self.size <= SIZE_MAX && !self.parent.is_view(), "within the bounds of the format");
        let ctime = TimeCode::of(self.ctime, self.btime, None);
        let mtime = TimeCode::of(self.mtime, self.btime, Some(self.ctime));
        let atime = TimeCode::of(self.atime, self.btime, Some(self.mtime));
        let mut writer = Writer(Vec::with_capacity(64));
        writer.u8(self.kind as u8 | (self.class as u8) << 4);
        writer.u16(self.mode as u16);
        writer.u8(ctime.bits() | mtime.bits() << 2 | atime.bits() << 4);
        let numbers = [
            self.uid.into(),
            self.gid.into(),
            self.nlink.into(),
            self.size,
            self.allocated,
            self.rdev,
            self.flags.into(),
            self.generation.into(),
            self.parent.0,
        ];
        for number in numbers {
            writer.uvar(number);
        }
        writer.bytes(&self.parent_cookie.to_be_bytes());
        write_time(&mut writer, self.btime);
        for code in [ctime, mtime, atime] {
            code.write(&mut writer);
        }
        writer.0
    }

    /// Reads what [`Self::encode`] wrote for `ino`, which a refusal names.
    pub fn decode(ino: Ino, bytes: &[u8]) -> Result<Self> {
        Self::read(bytes).map_err(|error| Error::damaged(ino, error.to_string()))
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, OBJECT);
        let first = reader.u8()?;
        let kind = FileKind::from_u8(first & 15).ok_or_else(|| Error::damaged(OBJECT, "unknown file kind"))?;
        let class = match first >> 4 {
            0 => WriteClass::Stream,
            1 => WriteClass::Random,
            _ => return Err(Error::damaged(OBJECT, "reserved bits are set")),
        };
        let mode = reader.u16()?;
        let codes = reader.u8()?;
        if mode > MODE_MAX || codes > 63 {
            return Err(Error::damaged(OBJECT, "reserved bits are set"));
        }
        let uid = read_uvar32(&mut reader, OBJECT)?;
        let gid = read_uvar32(&mut reader, OBJECT)?;
        let nlink = read_uvar32(&mut reader, OBJECT)?;
        let size = reader.uvar()?;
        let allocated = reader.uvar()?;
        let rdev = reader.uvar()?;
        let flags = read_flags(&mut reader, OBJECT)?;
        let generation = read_uvar32(&mut reader, OBJECT)?;
        let parent = Ino(reader.uvar()?);
        if size > SIZE_MAX || parent.is_view() {
            return Err(Error::damaged(OBJECT, "size or parent out of range"));
        }
        let parent_cookie = u64::from_be_bytes(reader.array::<8>()?);
        let btime = read_time(&mut reader, OBJECT)?;
        let ctime = TimeCode::read(&mut reader, codes & 3, btime, None)?;
        let mtime = TimeCode::read(&mut reader, codes >> 2 & 3, btime, Some(ctime))?;
        let atime = TimeCode::read(&mut reader, codes >> 4, btime, Some(mtime))?;
        reader.finish()?;
        Ok(Self {
            kind,
            mode: mode.into(),
            uid,
            gid,
            nlink,
            size,
            allocated,
            rdev,
            flags,
            generation,
            class,
            atime,
            mtime,
            ctime,
            btime,
            parent,
            parent_cookie,
        })
    }
}

/// Reads flags of an inode.
pub(super) fn read_flags(reader: &mut Reader<'_>, object: &'static str) -> Result<u32> {
    match read_uvar32(reader, object)? {
        flags @ 0..=FLAGS_KNOWN => Ok(flags),
        _ => Err(Error::damaged(object, "unknown flags of an inode")),
    }
}

/// How one time is written.
#[derive(Clone, Copy)]
enum TimeCode {
    Absolute(Time),
    SameAsBirth,
    SameAsOther,
    AfterBirth(i64),
}

impl TimeCode {
    fn of(time: Time, btime: Time, other: Option<Time>) -> Self {
        if time == btime {
            return Self::SameAsBirth;
        }
        if Some(time) == other {
            return Self::SameAsOther;
        }
        let nanos = i128::from(time.sec) * 1_000_000_000 + i128::from(time.nsec);
        let birth = i128::from(btime.sec) * 1_000_000_000 + i128::from(btime.nsec);
        match i64::try_from(nanos - birth) {
            // From seven bytes on the absolute form is as short, and compresses better.
            Ok(after) if after.unsigned_abs() < 1 << 47 => Self::AfterBirth(after),
            _ => Self::Absolute(time),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Absolute(_) => 0,
            Self::SameAsBirth => 1,
            Self::SameAsOther => 2,
            Self::AfterBirth(_) => 3,
        }
    }

    fn write(self, writer: &mut Writer) {
        match self {
            Self::Absolute(time) => write_time(writer, time),
            Self::AfterBirth(nanos) => write_ivar(writer, nanos),
            Self::SameAsBirth | Self::SameAsOther => {}
        }
    }

    fn read(reader: &mut Reader<'_>, bits: u8, btime: Time, other: Option<Time>) -> Result<Time> {
        let time = match (bits, other) {
            (0, _) => read_time(reader, OBJECT)?,
            (1, _) => btime,
            (2, Some(other)) => other,
            (3, _) => {
                let nanos = i128::from(btime.sec) * 1_000_000_000 + i128::from(btime.nsec);
                let nanos = nanos + i128::from(read_ivar(reader)?);
                let sec = i64::try_from(nanos.div_euclid(1_000_000_000))
                    .map_err(|_| Error::damaged(OBJECT, "time out of range"))?;
                Time { sec, nsec: nanos.rem_euclid(1_000_000_000) as u32 }
            }
            _ => return Err(Error::damaged(OBJECT, "unknown form of a time")),
        };
        match Self::of(time, btime, other).bits() == bits {
            true => Ok(time),
            false => Err(Error::damaged(OBJECT, "a time is not in its shortest form")),
        }
    }
}
