//! A disk that records each change, lets a test look before it happens, and fails it on demand.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Allocation, Disk, DiskFile, DiskLock, EntryKind, FileInfo, MemoryDisk, Space};

/// A call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Create,
    Rename,
    Remove,
    CreateDir,
    SyncDir,
    Write,
    Allocate,
    SetLen,
    SyncData,
    SyncAll,
}

type Before = dyn FnMut(&MemoryDisk, Call) -> io::Result<()> + Send;

#[derive(Clone)]
pub(super) struct ProbeDisk {
    pub(super) memory: MemoryDisk,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    before: Mutex<Option<Box<Before>>>,
    /// Files on which a write or sync failed; touching one again is a bug.
    failed: Mutex<HashSet<PathBuf>>,
    unreadable: Mutex<Option<(PathBuf, u64)>>,
}

impl std::fmt::Debug for ProbeDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProbeDisk")
    }
}

impl ProbeDisk {
    pub(super) fn new(memory: MemoryDisk) -> Self {
        Self { memory, shared: Arc::default() }
    }

    /// Calls `f` before each change; an error is what the change answers.
    pub(super) fn before(&self, f: impl FnMut(&MemoryDisk, Call) -> io::Result<()> + Send + 'static) {
        *self.shared.before.lock() = Some(Box::new(f));
    }

    /// The changes since the last call.
    pub(super) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.shared.calls.lock())
    }

    /// Makes one byte of a file unreadable.
    pub(super) fn make_unreadable(&self, path: &Path, offset: u64) {
        *self.shared.unreadable.lock() = Some((path.to_path_buf(), offset));
    }

    fn note(&self, call: Call, path: &Path) -> io::Result<()> {
        let changes_bytes = matches!(call, Call::Write | Call::SyncData | Call::SyncAll);
        let already_failed = changes_bytes && self.shared.failed.lock().contains(path);
        assert!(!already_failed, "{call:?} of {} after it failed", path.display());
        self.shared.calls.lock().push(call);
        let result = match self.shared.before.lock().as_mut() {
            Some(before) => before(&self.memory, call),
            None => Ok(()),
        };
        if changes_bytes && result.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::StorageFull) {
            self.shared.failed.lock().insert(path.to_path_buf());
        }
        result
    }

    fn file(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(ProbeFile { disk: self.clone(), path: path.to_path_buf(), file })
    }
}

impl Disk for ProbeDisk {
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(path, self.memory.open_read(path)?))
    }
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(path, self.memory.open_write(path)?))
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.note(Call::Create, path)?;
        self.shared.failed.lock().remove(path);
        Ok(self.file(path, self.memory.create_new(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Call::Rename, from)?;
        self.memory.rename(from, to)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Call::Rename, from)?;
        self.memory.rename_new(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note(Call::Remove, path)?;
        self.memory.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.note(Call::CreateDir, path)?;
        self.memory.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.note(Call::SyncDir, path)?;
        self.memory.sync_dir(path)
    }
    fn list_dir(&self, path: &Path, f: &mut dyn FnMut(&OsStr, EntryKind) -> ControlFlow<()>) -> io::Result<()> {
        self.memory.list_dir(path, f)
    }
    fn metadata(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        self.memory.metadata(path)
    }
    fn lock(&self, path: &Path, exclusive: bool) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.memory.lock(path, exclusive)
    }
    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.memory.is_locked(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.memory.space(path)
    }
}

#[derive(Debug)]
struct ProbeFile {
    disk: ProbeDisk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl DiskFile for ProbeFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let range = offset..offset + buffer.len() as u64;
        match &*self.disk.shared.unreadable.lock() {
            Some((path, bad)) if *path == self.path && range.contains(bad) => Err(io::Error::from_raw_os_error(5)),
            _ => self.file.read_at(buffer, offset),
        }
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.note(Call::Write, &self.path)?;
        self.file.write_at(buffer, offset)
    }
    fn allocate(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        self.disk.note(Call::Allocate, &self.path)?;
        self.file.allocate(offset, length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.note(Call::SetLen, &self.path)?;
        self.file.set_len(length)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.note(Call::SyncData, &self.path)?;
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.disk.note(Call::SyncAll, &self.path)?;
        self.file.sync_all()
    }
}
