//! The one door to durable local storage: files, names, directory syncs and locks, as a trait that can be simulated.
//!
//! All durable I/O except sled's passes here, so that a test can cut the power between any two calls ([`memory`]) or make any of them
//! fail ([`fault`]).
//!
//! *Invariants*
//! 1. Paths are bytes; nothing here turns one into text but for a message.
//! 2. A missing file is `ErrorKind::NotFound` (or `None` of [`Disk::metadata`]) and nothing else is.
//!
//! *Ordering* (what a caller may rely on after power loss)
//! 1. Bytes and length of a file: what [`DiskFile::sync_data`] covered. Later writes survive in part or not at all, torn at 512 bytes.
//! 2. Names in a directory (creation, rename, removal): what [`Disk::sync_dir`] of that directory covered. A rename inside one directory
//!    is atomic; after one between two directories both are synced.
//! 3. After a failed sync nothing is known of that file, and a later successful sync of it proves nothing: it is never synced again.
//!
//! *Threads*: every method may be called from any thread at any time; files and locks are independent of the disk that opened them.
//!
//! *Not here*: whole objects and their publication ([`crate::backend`]), retry after EIO (the owners of the data).

use std::{ffi::OsStr, fmt, io, ops::ControlFlow, path::Path};

pub mod fault;
pub mod local;
pub mod memory;

pub use fault::FaultDisk;
pub use local::LocalDisk;
pub use memory::MemoryDisk;

/// Files, names and locks of one machine.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens an existing file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Creates a file for reading and writing; `AlreadyExists` if the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file, replacing what has the target's name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file; `AlreadyExists`, and nothing changed, if the target's name is taken.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory below an existing one; an existing directory is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Calls `f` with each name in a directory, in no order, until it breaks.
    fn list_dir(&self, path: &Path, f: &mut dyn FnMut(&OsStr, EntryKind) -> ControlFlow<()>) -> io::Result<()>;

    /// Length and kind of what has this name, `None` if nothing has; symbolic links are followed.
    fn metadata(&self, path: &Path) -> io::Result<Option<FileInfo>>;

    /// Takes the lock of a file, created if missing, without waiting; `None` if another holder, in this process or elsewhere, prevents it.
    fn lock(&self, path: &Path, exclusive: bool) -> io::Result<Option<Box<dyn DiskLock>>>;

    /// Whether anyone holds the lock of this file, found out without taking it.
    fn is_locked(&self, path: &Path) -> io::Result<bool>;

    /// Space on the filesystem that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// One open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads at an offset; fewer bytes than asked for, or 0 at the end, are fine.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at an offset; fewer bytes than given are fine.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize>;

    /// Reserves space for a range and makes the file at least that long; new bytes read as zeros.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<Allocation>;

    /// Cuts or extends the file.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// The file's length.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes bytes and length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes bytes, length and times durable (`fsync`).
    fn sync_all(&self) -> io::Result<()>;

    /// Fills the buffer from an offset; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buffer = &mut buffer[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes the whole buffer at an offset.
    fn write_all_at(&self, mut buffer: &[u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.write_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    buffer = &buffer[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A held lock; dropping it releases it, and so does the end of the process.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// Anything else: a link, a device, a socket.
    Other,
}

/// What [`Disk::metadata`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Length in bytes; of no meaning for a directory.
    pub len: u64,
    /// Bytes that it takes on the disk, without its holes; of no meaning for a directory.
    pub occupied_bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Which file it is; `None` where the system does not tell.
    pub identity: Option<FileIdentity>,
}

/// What tells a file from any other, and from itself after its bytes were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The filesystem. A later one, a block copy of it for example, may have the number.
    pub device: u64,
    /// The file's number there.
    pub file: u64,
    /// When anything of it changed last, in nanoseconds since 1970; no program can set it where the filesystem is local.
    pub changed_ns: i64,
}

/// What [`DiskFile::allocate`] achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Writes into the range will find space, as far as the filesystem honours its reservations.
    Reserved,
    /// The filesystem reserves nothing; only the length was set.
    LengthOnly,
}

/// Space on a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still fill.
    pub free_bytes: u64,
    /// Bytes altogether.
    pub total_bytes: u64,
    /// Files that can still be created; `u64::MAX` where they are not counted.
    pub free_inodes: u64,
}
