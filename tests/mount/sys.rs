//! Mappings of files, for tests that read and write through memory.

#![allow(unsafe_code)]

use std::{fs::File, num::NonZeroUsize, ptr::NonNull};

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
