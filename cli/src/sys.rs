//! System calls that no crate in use wraps: extended attributes; and the allocator.
//!
//! *Not here*: anything else. This is the only module of the package that may use `unsafe`.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// The allocator of the program. In a mount that runs for months with buffers of all sizes, glibc's heaps fragment: after 500,000
/// files a snapshot spent half a millisecond in searching them for room, and what threads had freed stayed with the process. See
/// ARCHITECTURE.md for the figures. Fuzz targets go without it.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How it is set: heaps for a few threads at a time, however many cores there are, and freed pages go back to the system within a
/// second. `_RJEM_MALLOC_CONF` in the environment goes before this.
// SAFETY: the allocator reads the symbol as a pointer to a string that ends in NUL, which a reference to this array is.
#[cfg(feature = "jemalloc")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 47] = b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// Reads an extended attribute of at most `length_max` bytes, following symbolic links; `None` if it is not set, or the
/// filesystem has none.
pub fn get_xattr(path: &Path, name: &[u8], length_max: usize) -> io::Result<Option<Vec<u8>>> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name)?);
    let mut value = vec![0u8; length_max];
    // SAFETY: both strings end in NUL and live through the call; the buffer has the length that is told.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match usize::try_from(length) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(_) => {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENODATA | libc::ENOTSUP) => Ok(None),
                _ => Err(error),
            }
        }
    }
}

/// Sets an extended attribute of an open file.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the descriptor is open and the string ends in NUL, both through the call; the buffer has the length that is told.
    let result = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an extended attribute of what `path` names itself, a symbolic link included.
pub fn set_xattr_no_follow(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name)?);
    // SAFETY: both strings end in NUL and live through the call; the buffer has the length that is told.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Removes an extended attribute of an open file; one that is not set is as good.
pub fn remove_xattr(fd: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: the descriptor is open and the string ends in NUL, both through the call.
    removed(unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) })
}

/// Removes an extended attribute of what `path` names itself; one that is not set is as good.
pub fn remove_xattr_no_follow(path: &Path, name: &[u8]) -> io::Result<()> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name)?);
    // SAFETY: both strings end in NUL and live through the call.
    removed(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) })
}

fn removed(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::ENOTSUP) => Ok(()),
        _ => Err(error),
    }
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_attribute_that_is_not_set_is_none_and_a_missing_file_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(get_xattr(dir.path(), b"user.vellum.test", 10).unwrap(), None);
        assert!(get_xattr(&dir.path().join("none"), b"user.vellum.test", 10).is_err());
        remove_xattr_no_follow(dir.path(), b"user.vellum.test").unwrap();
    }

    #[test]
    fn attributes_come_back_where_the_filesystem_has_them() {
        let dir = tempfile::tempdir().unwrap();
        match set_xattr_no_follow(dir.path(), b"user.vellum.test", b"value") {
            Ok(()) => assert_eq!(get_xattr(dir.path(), b"user.vellum.test", 10).unwrap(), Some(b"value".to_vec())),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}
