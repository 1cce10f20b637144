//! What the system gives only through pointers: mappings of files, handles of files, flags.

#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs::File,
    io,
    num::NonZeroUsize,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr::NonNull,
};

use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};

/// A mapped file.
pub struct Mapping {
    start: NonNull<libc::c_void>,
    length: usize,
}

impl Mapping {
    /// Maps the first `length` bytes for reading and writing; what is written to a shared one reaches the file.
    pub fn new(file: &File, length: usize, shared: bool) -> Self {
        let size = NonZeroUsize::new(length).unwrap();
        let flags = if shared { MapFlags::MAP_SHARED } else { MapFlags::MAP_PRIVATE };
        // SAFETY: the kernel chooses the address, so no memory of this process is replaced.
        let start = unsafe { mmap(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, file, 0) }.unwrap();
        Self { start, length }
    }

    /// A copy of a range.
    pub fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length);
        let mut bytes = vec![0; length];
        // SAFETY: the range lies in the mapping, and the vector is apart from it.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.as_ptr().cast::<u8>().add(offset), bytes.as_mut_ptr(), length)
        };
        bytes
    }

    /// Stores bytes.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        // SAFETY: the range lies in the mapping, and the slice is apart from it.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().cast::<u8>().add(offset), bytes.len())
        };
    }

    /// Hands what was stored to the file.
    pub fn sync(&self) {
        // SAFETY: the range is the mapping.
        unsafe { msync(self.start, self.length, MsFlags::MS_SYNC) }.unwrap();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping, and no reference into it is handed out.
        unsafe { munmap(self.start, self.length) }.unwrap();
    }
}

/// What a server of a network filesystem remembers of a file instead of its path.
pub struct FileHandle {
    /// `struct file_handle`: length of the rest as u32, type as i32, and so many bytes.
    words: Vec<u32>,
}

/// Longest rest of a handle.
const HANDLE_BYTES_MAX: u32 = 128;

impl FileHandle {
    /// The handle of what is at a path.
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let mut words = vec![0u32; 2 + HANDLE_BYTES_MAX as usize / 4];
        words[0] = HANDLE_BYTES_MAX;
        let mut mount: libc::c_int = 0;
        let handle = words.as_mut_ptr().cast::<libc::c_void>();
        // SAFETY: the buffer is as long as its first word says, and all pointers are good for the call.
        let result = unsafe {
            libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, name.as_ptr(), handle, &raw mut mount, 0)
        };
        if result == 0 { Ok(Self { words }) } else { Err(io::Error::last_os_error()) }
    }

    /// Opens it below any file of the same mount.
    pub fn open(&self, mount: &File, flags: i32) -> io::Result<File> {
        let mut words = self.words.clone();
        let handle = words.as_mut_ptr().cast::<libc::c_void>();
        // SAFETY: the buffer is as long as its first word says, and good for the call.
        let result =
            unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), handle, flags | libc::O_CLOEXEC) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(unsafe { File::from_raw_fd(result as i32) })
    }
}

/// `struct fsxattr`: flags, extent size hint, extents, project, hint for copies, padding.
pub type FsXattr = [u32; 7];

nix::ioctl_read!(fs_ioc_fsgetxattr, b'X', 31, FsXattr);
nix::ioctl_write_ptr!(fs_ioc_fssetxattr, b'X', 32, FsXattr);

/// The extended flags of a file.
pub fn get_fsxattr(file: &File) -> io::Result<FsXattr> {
    let mut found = [0; 7];
    // SAFETY: the array is what the kernel fills.
    unsafe { fs_ioc_fsgetxattr(file.as_raw_fd(), &raw mut found) }?;
    Ok(found)
}

/// Sets the extended flags of a file.
pub fn set_fsxattr(file: &File, flags: FsXattr) -> io::Result<()> {
    // SAFETY: the array is what the kernel reads.
    unsafe { fs_ioc_fssetxattr(file.as_raw_fd(), &raw const flags) }?;
    Ok(())
}
