//! Journal operations: what was done to a volume since its last checkpoint, complete enough to do it again.
//!
//! *Invariants*
//! 1. A record holds every input of the operation (inode number and time included), so replay gives the same tree.
//! 2. Decoding allocates no more than the record is long.
//!
//! *Bounds*: a record is at most [`RECORD_BYTES_MAX`] bytes long; a journal commit may hold many.
//!
//! *Format*: the payload of a commit is records back to back, each a u32 length and so many bytes:
//!
//! | order | type | field |
//! |---|---|---|
//! | 1 | u8 | operation |
//! | 2 | u64 | sequence number of the operation |
//! | 3 | - | fields below |
//!
//! | number | operation | fields |
//! |---|---|---|
//! | 1 | Create | parent, name, ino, kind u8, mode, uid, gid, rdev, target bytes, time |
//! | 2 | Link | ino, parent, name, time |
//! | 3 | Unlink | parent, name, time |
//! | 4 | Rmdir | parent, name, time |
//! | 5 | Rename | parent, name, new parent, new name, flags, inode of the whiteout or 0, time |
//! | 6 | SetAttr | ino, presence u8 (mode 1, uid 2, gid 4, atime 8, mtime 16), those present, ctime |
//! | 7 | SetXattr | ino, name, value bytes, time |
//! | 8 | RemoveXattr | ino, name, time |
//! | 9 | Data | ino, size, atime, mtime, ctime, part count, parts |
//! | 10 | SetFlags | ino, flags, time |
//!
//! Numbers are uvar unless said otherwise, names and bytes a u32 length and the bytes, times ivar seconds and u32
//! nanoseconds. A part is: 1 = bytes (offset, bytes), 2 = zero (offset, length), 3 = extent (offset, record as bytes
//! as in [`super::extent`], place as bytes).

use vellum_store::codec::{Reader, Writer};

use super::{
    NAME_BYTES_MAX, TARGET_BYTES_MAX,
    extent::Extent,
    inode::{FileKind, SIZE_MAX, read_flags},
    read_ino, read_time, read_uvar32, write_time,
    xattr::{XATTR_NAME_MAX, XATTR_VALUE_MAX},
};
use crate::{
    error::{Error, Result},
    ino::Ino,
    time::Time,
};

const OBJECT: &str = "journal record";
const EXTENT_BYTES_MAX: usize = 64;
const PLACE_BYTES_MAX: usize = 512;

/// Longest record.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// Flag of [`Op::Rename`]: the new name must be free.
pub const RENAME_NO_REPLACE: u32 = 1;
/// Flag of [`Op::Rename`]: both names exist and change places.
pub const RENAME_EXCHANGE: u32 = 2;
/// Flag of [`Op::Rename`]: a whiteout takes the old name.
pub const RENAME_WHITEOUT: u32 = 4;

/// One change of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new inode under a new name.
    Create {
        /// Directory of the name.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
        /// Number of the inode.
        ino: Ino,
        /// What it is.
        kind: FileKind,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Device number, for device files.
        rdev: u64,
        /// Target, for symbolic links; else empty.
        target: Vec<u8>,
        /// When.
        time: Time,
    },
    /// A further name of an inode.
    Link {
        /// The inode.
        ino: Ino,
        /// Directory of the name.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
        /// When.
        time: Time,
    },
    /// A name of something that is not a directory goes.
    Unlink {
        /// Directory of the name.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
        /// When.
        time: Time,
    },
    /// An empty directory goes.
    Rmdir {
        /// Directory of the name.
        parent: Ino,
        /// The name.
        name: Vec<u8>,
        /// When.
        time: Time,
    },
    /// A name moves.
    Rename {
        /// Directory of the old name.
        parent: Ino,
        /// The old name.
        name: Vec<u8>,
        /// Directory of the new name.
        new_parent: Ino,
        /// The new name.
        new_name: Vec<u8>,
        /// `RENAME_*` flags.
        flags: u32,
        /// Inode that [`RENAME_WHITEOUT`] makes.
        whiteout: Option<Ino>,
        /// When.
        time: Time,
    },
    /// Attributes change; `None` stays.
    SetAttr {
        /// The inode.
        ino: Ino,
        /// Permission bits.
        mode: Option<u32>,
        /// Owner.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
        /// Last read.
        atime: Option<Time>,
        /// Last change of the content.
        mtime: Option<Time>,
        /// Last change of the attributes.
        ctime: Time,
    },
    /// An extended attribute gets a value.
    SetXattr {
        /// The inode.
        ino: Ino,
        /// Name of the attribute.
        name: Vec<u8>,
        /// The value.
        value: Vec<u8>,
        /// When.
        time: Time,
    },
    /// An extended attribute goes.
    RemoveXattr {
        /// The inode.
        ino: Ino,
        /// Name of the attribute.
        name: Vec<u8>,
        /// When.
        time: Time,
    },
    /// Flags change.
    SetFlags {
        /// The inode.
        ino: Ino,
        /// All its flags.
        flags: u32,
        /// When.
        time: Time,
    },
    /// Content, size and times of a file; content past `size` goes.
    Data {
        /// The inode.
        ino: Ino,
        /// Its size.
        size: u64,
        /// Last read.
        atime: Time,
        /// Last change of the content.
        mtime: Time,
        /// Last change of the attributes.
        ctime: Time,
        /// What changed, to be applied in order.
        parts: Vec<Part>,
    },
}

/// A range of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Bytes {
        /// File offset.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Zeros.
    Zero {
        /// File offset.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// A part of a blob.
    Extent {
        /// Range and blob.
        extent: Extent,
        /// Where the store finds the blob, in its own encoding.
        place: Vec<u8>,
    },
}

impl Op {
    /// Bytes of the record of this operation.
    pub fn encode(&self, sequence: u64) -> Vec<u8> {
        let mut writer = Writer(Vec::with_capacity(64));
        writer.u8(self.number());
        writer.u64(sequence);
        self.encode_fields(&mut writer);
        assert!(writer.0.len() <= RECORD_BYTES_MAX, "callers split content into records");
        writer.0
    }

    fn number(&self) -> u8 {
        match self {
            Self::Create { .. } => 1,
            Self::Link { .. } => 2,
            Self::Unlink { .. } => 3,
            Self::Rmdir { .. } => 4,
            Self::Rename { .. } => 5,
            Self::SetAttr { .. } => 6,
            Self::SetXattr { .. } => 7,
            Self::RemoveXattr { .. } => 8,
            Self::Data { .. } => 9,
            Self::SetFlags { .. } => 10,
        }
    }

    fn encode_fields(&self, w: &mut Writer) {
        match self {
            Self::Create { parent, name, ino, kind, mode, uid, gid, rdev, target, time } => {
                write_entry(w, *parent, name);
                w.uvar(ino.0);
                w.u8(*kind as u8);
                for number in [(*mode).into(), (*uid).into(), (*gid).into(), *rdev] {
                    w.uvar(number);
                }
                w.var_bytes(target);
                write_time(w, *time);
            }
            Self::Link { ino, parent, name, time } => {
                w.uvar(ino.0);
                write_entry(w, *parent, name);
                write_time(w, *time);
            }
            Self::Unlink { parent, name, time } | Self::Rmdir { parent, name, time } => {
                write_entry(w, *parent, name);
                write_time(w, *time);
            }
            Self::Rename { parent, name, new_parent, new_name, flags, whiteout, time } => {
                write_entry(w, *parent, name);
                write_entry(w, *new_parent, new_name);
                w.uvar((*flags).into());
                w.uvar(whiteout.map_or(0, |ino| ino.0));
                write_time(w, *time);
            }
            Self::SetAttr { ino, mode, uid, gid, atime, mtime, ctime } => {
                w.uvar(ino.0);
                let numbers = [*mode, *uid, *gid];
                let times = [*atime, *mtime];
                let present = numbers.iter().map(Option::is_some).chain(times.iter().map(Option::is_some));
                w.u8(present.enumerate().map(|(bit, set)| u8::from(set) << bit).sum());
                numbers.into_iter().flatten().for_each(|number| w.uvar(number.into()));
                times.into_iter().flatten().for_each(|time| write_time(w, time));
                write_time(w, *ctime);
            }
            Self::SetXattr { ino, name, value, time } => {
                write_entry(w, *ino, name);
                w.var_bytes(value);
                write_time(w, *time);
            }
            Self::RemoveXattr { ino, name, time } => {
                write_entry(w, *ino, name);
                write_time(w, *time);
            }
            Self::SetFlags { ino, flags, time } => {
                w.uvar(ino.0);
                w.uvar((*flags).into());
                write_time(w, *time);
            }
            Self::Data { ino, size, atime, mtime, ctime, parts } => {
                w.uvar(ino.0);
                w.uvar(*size);
                [atime, mtime, ctime].into_iter().for_each(|time| write_time(w, *time));
                w.uvar(parts.len() as u64);
                parts.iter().for_each(|part| part.encode(w));
            }
        }
    }

    /// Reads what [`Self::encode`] wrote: the sequence number and the operation.
    pub fn decode(bytes: &[u8]) -> Result<(u64, Self)> {
        let mut reader = Reader::new(bytes, OBJECT);
        let number = reader.u8()?;
        let sequence = reader.u64()?;
        let op = Self::decode_fields(number, &mut reader)?;
        reader.finish()?;
        Ok((sequence, op))
    }

    fn decode_fields(number: u8, r: &mut Reader<'_>) -> Result<Self> {
        Ok(match number {
            1 => {
                let (parent, name) = read_entry(r)?;
                Self::Create {
                    parent,
                    name,
                    ino: read_ino(r, OBJECT)?,
                    kind: FileKind::from_u8(r.u8()?).ok_or_else(|| Error::damaged(OBJECT, "unknown file kind"))?,
                    mode: read_mode(r)?,
                    uid: read_uvar32(r, OBJECT)?,
                    gid: read_uvar32(r, OBJECT)?,
                    rdev: r.uvar()?,
                    target: r.var_bytes(TARGET_BYTES_MAX)?.to_vec(),
                    time: read_time(r, OBJECT)?,
                }
            }
            2 => {
                let ino = read_ino(r, OBJECT)?;
                let (parent, name) = read_entry(r)?;
                Self::Link { ino, parent, name, time: read_time(r, OBJECT)? }
            }
            3 => {
                let (parent, name) = read_entry(r)?;
                Self::Unlink { parent, name, time: read_time(r, OBJECT)? }
            }
            4 => {
                let (parent, name) = read_entry(r)?;
                Self::Rmdir { parent, name, time: read_time(r, OBJECT)? }
            }
            5 => Self::decode_rename(r)?,
            6 => Self::decode_set_attr(r)?,
            7 => {
                let (ino, name) = read_xattr(r)?;
                let value = r.var_bytes(XATTR_VALUE_MAX)?.to_vec();
                Self::SetXattr { ino, name, value, time: read_time(r, OBJECT)? }
            }
            8 => {
                let (ino, name) = read_xattr(r)?;
                Self::RemoveXattr { ino, name, time: read_time(r, OBJECT)? }
            }
            9 => Self::decode_data(r)?,
            10 => {
                let ino = read_ino(r, OBJECT)?;
                Self::SetFlags { ino, flags: read_flags(r, OBJECT)?, time: read_time(r, OBJECT)? }
            }
            _ => return Err(Error::damaged(OBJECT, format!("unknown operation {number}"))),
        })
    }

    fn decode_rename(r: &mut Reader<'_>) -> Result<Self> {
        let (parent, name) = read_entry(r)?;
        let (new_parent, new_name) = read_entry(r)?;
        let flags = read_uvar32(r, OBJECT)?;
        let whiteout = Ino(r.uvar()?);
        if flags & !(RENAME_NO_REPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0 || whiteout.is_view() {
            return Err(Error::damaged(OBJECT, "unknown flags of a rename"));
        }
        let whiteout = (whiteout != Ino::VOLUME).then_some(whiteout);
        Ok(Self::Rename { parent, name, new_parent, new_name, flags, whiteout, time: read_time(r, OBJECT)? })
    }

    fn decode_set_attr(r: &mut Reader<'_>) -> Result<Self> {
        let ino = read_ino(r, OBJECT)?;
        let present = r.u8()?;
        if present > 31 {
            return Err(Error::damaged(OBJECT, "reserved bits are set"));
        }
        let has = |bit: u8| present & bit != 0;
        Ok(Self::SetAttr {
            ino,
            mode: has(1).then(|| read_mode(r)).transpose()?,
            uid: has(2).then(|| read_uvar32(r, OBJECT)).transpose()?,
            gid: has(4).then(|| read_uvar32(r, OBJECT)).transpose()?,
            atime: has(8).then(|| read_time(r, OBJECT)).transpose()?,
            mtime: has(16).then(|| read_time(r, OBJECT)).transpose()?,
            ctime: read_time(r, OBJECT)?,
        })
    }

    fn decode_data(r: &mut Reader<'_>) -> Result<Self> {
        let ino = read_ino(r, OBJECT)?;
        let size = r.uvar()?;
        if size > SIZE_MAX {
            return Err(Error::damaged(OBJECT, "size out of range"));
        }
        let (atime, mtime, ctime) = (read_time(r, OBJECT)?, read_time(r, OBJECT)?, read_time(r, OBJECT)?);
        let count = r.uvar()?;
        let mut parts = Vec::new();
        for _ in 0..count {
            // Every part consumes bytes or fails, so the count cannot make this grow beyond the record.
            parts.push(Part::decode(r)?);
        }
        Ok(Self::Data { ino, size, atime, mtime, ctime, parts })
    }
}

impl Part {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Bytes { offset, data } => {
                w.u8(1);
                w.uvar(*offset);
                w.var_bytes(data);
            }
            Self::Zero { offset, length } => {
                w.u8(2);
                w.uvar(*offset);
                w.uvar(*length);
            }
            Self::Extent { extent, place } => {
                assert!(place.len() <= PLACE_BYTES_MAX, "places are short");
                w.u8(3);
                w.uvar(extent.offset);
                w.var_bytes(&extent.encode());
                w.var_bytes(place);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let number = r.u8()?;
        let offset = r.uvar()?;
        let (part, length) = match number {
            1 => {
                let data = r.var_bytes(RECORD_BYTES_MAX)?.to_vec();
                let length = data.len() as u64;
                (Self::Bytes { offset, data }, length)
            }
            2 => {
                let length = r.uvar()?;
                (Self::Zero { offset, length }, length)
            }
            3 => {
                let extent = Extent::decode(offset, r.var_bytes(EXTENT_BYTES_MAX)?)?;
                (Self::Extent { extent, place: r.var_bytes(PLACE_BYTES_MAX)?.to_vec() }, extent.length)
            }
            _ => return Err(Error::damaged(OBJECT, format!("unknown kind of content {number}"))),
        };
        match offset.checked_add(length) {
            Some(end) if end <= SIZE_MAX => Ok(part),
            _ => Err(Error::damaged(OBJECT, "content out of range")),
        }
    }
}

/// Appends a record to the payload of a commit.
pub fn frame(payload: &mut Vec<u8>, record: &[u8]) {
    payload.extend_from_slice(&(record.len() as u32).to_le_bytes());
    payload.extend_from_slice(record);
}

/// Calls `f` with every operation of a commit's payload and its sequence number, in order.
pub fn for_each(payload: &[u8], f: &mut dyn FnMut(u64, Op) -> Result<()>) -> Result<()> {
    let mut reader = Reader::new(payload, OBJECT);
    while reader.remaining() > 0 {
        let (sequence, op) = Op::decode(reader.var_bytes(RECORD_BYTES_MAX)?)?;
        f(sequence, op)?;
    }
    Ok(())
}

fn write_entry(w: &mut Writer, parent: Ino, name: &[u8]) {
    w.uvar(parent.0);
    w.var_bytes(name);
}

fn read_entry(r: &mut Reader<'_>) -> Result<(Ino, Vec<u8>)> {
    let parent = read_ino(r, OBJECT)?;
    let name = r.var_bytes(NAME_BYTES_MAX)?;
    if crate::name::check(name).is_err() {
        return Err(Error::damaged(OBJECT, "not a valid name"));
    }
    Ok((parent, name.to_vec()))
}

fn read_xattr(r: &mut Reader<'_>) -> Result<(Ino, Vec<u8>)> {
    let ino = read_ino(r, OBJECT)?;
    let name = r.var_bytes(XATTR_NAME_MAX)?;
    if name.is_empty() || name.contains(&0) {
        return Err(Error::damaged(OBJECT, "not a valid attribute name"));
    }
    Ok((ino, name.to_vec()))
}

fn read_mode(r: &mut Reader<'_>) -> Result<u32> {
    match read_uvar32(r, OBJECT)? {
        mode @ 0..=0o7777 => Ok(mode),
        _ => Err(Error::damaged(OBJECT, "more than permission bits")),
    }
}
