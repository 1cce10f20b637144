//! Records of the metadata tree: bytes to structs and back, without I/O.
//!
//! *Invariants*
//! 1. `decode` accepts only what `encode` can have written, and refuses everything else with an error.
//! 2. Keys compare as bytes in the order in which the tree is walked; see [`key`].
//!
//! *Bounds*: a key is at most [`KEY_BYTES_MAX`] and a value at most [`VALUE_BYTES_MAX`] bytes long.
//!
//! *Format*: integers in values are little-endian, or `uvar` (LEB128 of a u64, shortest form), or `ivar` (zigzag, then
//! `uvar`). Integers in keys are big-endian.
//!
//! | kind | name | subkey | value |
//! |---|---|---|---|
//! | 1 | INODE | - | [`inode`] |
//! | 2 | BODY | - | inline content, or the target of a symbolic link, as it is |
//! | 3 | DIRENT | cookie u64 | [`dirent`] |
//! | 4 | PARENT | parent u64, cookie u64 | empty; names from the second on |
//! | 5 | XATTR | name, 0, part u8 | [`xattr`] |
//! | 6 | EXTENT | file offset u64 | [`extent`] |
//! | 7 | CHANGE | version u64, n u16 | history of the inode |
//! | 8 | ORPHAN | inode u64 | empty; inode number of the key is 0 |
//! | 9 | VOLUME | subkind u8, more | [`volume`]; inode number of the key is 0 |

pub mod dirent;
pub mod extent;
pub mod inode;
pub mod key;
pub mod op;
pub mod volume;
pub mod xattr;

use vellum_store::codec::{Reader, Writer};

use crate::{
    error::{Error, Result},
    ino::Ino,
    time::Time,
};

pub use crate::name::NAME_BYTES_MAX;

/// Longest key of a record.
pub const KEY_BYTES_MAX: usize = 272;
/// Longest value of a record.
pub const VALUE_BYTES_MAX: usize = 8192;
/// Longest target of a symbolic link.
pub const TARGET_BYTES_MAX: usize = 4095;

/// Appends `value` as `ivar`.
pub(crate) fn write_ivar(writer: &mut Writer, value: i64) {
    writer.uvar(((value << 1) ^ (value >> 63)) as u64);
}

/// Reads an `ivar`.
pub(crate) fn read_ivar(reader: &mut Reader<'_>) -> Result<i64> {
    let value = reader.uvar()?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Reads a `uvar` that must fit 32 bits.
pub(crate) fn read_uvar32(reader: &mut Reader<'_>, object: &'static str) -> Result<u32> {
    u32::try_from(reader.uvar()?).map_err(|_| Error::damaged(object, "a number exceeds 32 bits"))
}

/// Appends a time: seconds as `ivar`, nanoseconds as u32.
pub(crate) fn write_time(writer: &mut Writer, time: Time) {
    write_ivar(writer, time.sec);
    writer.u32(time.nsec);
}

/// Reads a time.
pub(crate) fn read_time(reader: &mut Reader<'_>, object: &'static str) -> Result<Time> {
    let sec = read_ivar(reader)?;
    Time::new(sec, reader.u32()?).ok_or_else(|| Error::damaged(object, "nanoseconds reach a second"))
}

/// Reads the number of an inode; zero and the numbers of views are damage.
pub(crate) fn read_ino(reader: &mut Reader<'_>, object: &'static str) -> Result<Ino> {
    let ino = Ino(reader.uvar()?);
    if ino == Ino::VOLUME || ino.is_view() {
        return Err(Error::damaged(object, "inode number out of range"));
    }
    Ok(ino)
}

#[cfg(test)]
mod tests;
