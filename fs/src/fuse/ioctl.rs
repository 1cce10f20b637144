//! The ioctls that a kernel passes on: flags of inodes, their generation, and a polite no to what a disk would do.
//!
//! *Format*: FS_IOC_GETFLAGS and FS_IOC_SETFLAGS move 32 bits, although their numbers say `long`. FS_IOC_FSGETXATTR and
//! FS_IOC_FSSETXATTR move a `struct fsxattr`: five u32 (flags, extent size hint, extents, project, hint for copies) and 8 bytes of
//! padding.

use fuser::Errno;
use nix::{request_code_read, request_code_readwrite, request_code_write};

use super::errno::errno;
use crate::{
    attr::Caller,
    error::Error,
    format::inode::{FLAG_APPEND_ONLY, FLAG_IMMUTABLE, FLAG_NO_ATIME, FLAG_NO_DUMP},
    ino::Ino,
    volume::Volume,
};

const LONG: usize = size_of::<libc::c_long>();
const FSXATTR_BYTES: usize = 28;

const GET_FLAGS: u32 = request_code_read!(b'f', 1, LONG) as u32;
const SET_FLAGS: u32 = request_code_write!(b'f', 2, LONG) as u32;
/// As programs of 32 bits ask on a kernel of 64.
const GET_FLAGS_32: u32 = request_code_read!(b'f', 1, 4) as u32;
const SET_FLAGS_32: u32 = request_code_write!(b'f', 2, 4) as u32;
const GET_FSXATTR: u32 = request_code_read!(b'X', 31, FSXATTR_BYTES) as u32;
const SET_FSXATTR: u32 = request_code_write!(b'X', 32, FSXATTR_BYTES) as u32;
const GET_VERSION: u32 = request_code_read!(b'v', 1, LONG) as u32;
const TRIM: u32 = request_code_readwrite!(b'X', 121, 24) as u32;

/// Each flag as the volume has it, as `chattr` knows it, and as `struct fsxattr` does.
const FLAGS: [[u32; 3]; 4] = [
    [FLAG_IMMUTABLE, 0x10, 0x08],
    [FLAG_APPEND_ONLY, 0x20, 0x10],
    [FLAG_NO_DUMP, 0x40, 0x80],
    [FLAG_NO_ATIME, 0x80, 0x40],
];
const OURS: usize = 0;
const CHATTR: usize = 1;
const FSXATTR: usize = 2;
/// Says that an inode has extended attributes; told, and never set.
const FSX_HAS_XATTRS: u32 = 1 << 31;

/// What an ioctl answers.
pub struct Answer {
    /// Bytes for the caller.
    pub output: Vec<u8>,
    /// Attributes changed behind the kernel's back.
    pub changed: bool,
}

impl Answer {
    fn told(output: &[u8]) -> Self {
        Self { output: output.to_vec(), changed: false }
    }

    fn changed() -> Self {
        Self { output: Vec::new(), changed: true }
    }
}

/// Does what `command` asks of an inode.
pub fn answer(volume: &Volume, ino: Ino, caller: &Caller, command: u32, input: &[u8]) -> Result<Answer, Errno> {
    let failed = |error: Error| errno(&error);
    match command {
        GET_FLAGS | GET_FLAGS_32 => {
            let flags = volume.get_flags(ino).map_err(failed)?;
            Ok(Answer::told(&translate(flags, OURS, CHATTR).0.to_ne_bytes()))
        }
        SET_FLAGS | SET_FLAGS_32 => {
            let (flags, unknown) = translate(word(input, 0)?, CHATTR, OURS);
            set(volume, ino, flags, unknown, caller)
        }
        GET_FSXATTR => {
            let flags = volume.get_flags(ino).map_err(failed)?;
            let mut output = [0; FSXATTR_BYTES];
            output[..4].copy_from_slice(&translate(flags, OURS, FSXATTR).0.to_ne_bytes());
            Ok(Answer::told(&output))
        }
        SET_FSXATTR => {
            let (flags, unknown) = translate(word(input, 0)? & !FSX_HAS_XATTRS, FSXATTR, OURS);
            // Size hints and projects; the count of extents is told only.
            let hints = word(input, 1)? | word(input, 3)? | word(input, 4)?;
            set(volume, ino, flags, unknown | hints, caller)
        }
        GET_VERSION => {
            let attr = volume.get_attr(ino).map_err(failed)?;
            Ok(Answer::told(&attr.generation.to_ne_bytes()))
        }
        TRIM if caller.uid != 0 => Err(Errno::EPERM),
        // As ext4 says it on a disk that cannot discard.
        TRIM => Err(Errno::EOPNOTSUPP),
        // Programs ask in this way whether they write to a terminal.
        _ => Err(Errno::ENOTTY),
    }
}

fn set(volume: &Volume, ino: Ino, flags: u32, unknown: u32, caller: &Caller) -> Result<Answer, Errno> {
    if unknown != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    volume.set_flags(ino, flags, caller).map(|()| Answer::changed()).map_err(|error| errno(&error))
}

/// The 32 bits at a place of the input.
fn word(input: &[u8], index: usize) -> Result<u32, Errno> {
    let bytes = input.get(4 * index..).and_then(|rest| rest.first_chunk()).ok_or(Errno::EINVAL)?;
    Ok(u32::from_ne_bytes(*bytes))
}

/// Flags of one column as those of another, and those that have no counterpart.
fn translate(flags: u32, from: usize, to: usize) -> (u32, u32) {
    let set = || FLAGS.iter().filter(|flag| flags & flag[from] != 0);
    (set().map(|flag| flag[to]).sum(), flags & !set().map(|flag| flag[from]).sum::<u32>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn flags_survive_both_translations_and_unknown_ones_are_told() {
        for flags in 0..16 {
            let (linux, none) = translate(flags, OURS, CHATTR);
            assert_eq!((translate(linux, CHATTR, OURS), none), ((flags, 0), 0));
            let (extended, none) = translate(flags, OURS, FSXATTR);
            assert_eq!((translate(extended, FSXATTR, OURS), none), ((flags, 0), 0));
        }
        assert_eq!(translate(0x8_0010, CHATTR, OURS), (FLAG_IMMUTABLE, 0x8_0000));
    }

    #[test]
    fn a_short_input_is_refused() {
        assert!(word(&[1, 2, 3], 0).is_err() && word(&[0; 27], 6).is_err() && word(&[0; 28], 6).is_ok());
        assert!(word(&[], 0).is_err());
    }
}
