//! System calls that no crate in use wraps: extended attributes, and a setting of the C library.
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

/// Has all threads share as many heaps as there are cores, to be called before any is started. Of its own accord glibc makes up to eight
/// for each core, and what a thread has freed stays with the heap of that thread: copying /usr in and reading it back left 656 MiB with the
/// process, and 415 MiB with two heaps on two cores. `MALLOC_ARENA_MAX` decides if it is set.
#[cfg(target_env = "gnu")]
pub fn share_heaps() {
    if std::env::var_os("MALLOC_ARENA_MAX").is_some() {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 64));
    // SAFETY: mallopt takes two numbers by value and changes settings of the allocator alone; M_ARENA_MAX takes any positive number.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, cores as libc::c_int) } == 0 {
        log::debug!("the number of heaps cannot be set");
    }
}

/// Other C libraries have one heap.
#[cfg(not(target_env = "gnu"))]
pub fn share_heaps() {}

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
