//! A disk that fails on demand, counts what is asked of it, and lets other threads in at each call.
//!
//! *Invariants*
//! 1. A rule acts on the calls it matches, in their order: it lets `skip` of them pass, then acts `times` times. The first rule that acts decides.
//! 2. After a failed sync, later syncs of that file (under any name) or directory succeed and make nothing durable, as Linux filesystems do once the error
//!    was reported: code that syncs again is caught by the crash that follows.
//! 3. After [`Fault::PowerOff`] every call fails, until [`FaultDisk::heal`].
//!
//! *Threads*: one lock around rules and counts, not held while the disk below works.
//!
//! *Bounds*: at most [`TRACE_CALLS_MAX`] calls are traced; more panic, as a test that traces so many wants to clear in between.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Allocation, Disk, DiskFile, DiskLock, EntryKind, FileInfo, Space};
use crate::spawn::Spawner;

/// Most calls that a trace holds.
pub const TRACE_CALLS_MAX: usize = 4 << 20;

/// Kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Opening a file, to read or to write.
    Open,
    /// Creating a file.
    Create,
    /// Renaming, replacing or not.
    Rename,
    /// Removing a file.
    Remove,
    /// Creating a directory.
    CreateDir,
    /// Syncing a directory.
    SyncDir,
    /// Listing a directory.
    List,
    /// Asking for metadata or a file's length.
    Metadata,
    /// Taking or looking at a lock.
    Lock,
    /// Asking for free space.
    Space,
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Reserving space for a file.
    Allocate,
    /// Setting a file's length.
    SetLen,
    /// Syncing a file, with or without its times.
    Sync,
}

impl Op {
    /// Whether the call changes what a crash could leave.
    pub fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::List | Self::Metadata | Self::Lock | Self::Space | Self::Read)
    }
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The medium fails: nothing is done.
    Io,
    /// The medium fails after the call was carried out (a sync is not).
    IoAfter,
    /// The disk is full: nothing is done.
    NoSpace,
    /// The filesystem turned read-only: nothing is done.
    ReadOnly,
    /// A signal came: nothing is done.
    Interrupted,
    /// Half of the bytes are read or written, and that is the answer; other calls are carried out.
    Short,
    /// Half of the bytes are written, then the disk is full; other calls do nothing.
    ShortNoSpace,
    /// The power fails before this call.
    PowerOff,
}

/// Which calls fail, and how.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Kinds of calls; none stands for all that change something.
    pub ops: Vec<Op>,
    /// Part of the path; empty for all. Of a rename, either path counts.
    pub path_contains: String,
    /// Matching calls that pass first.
    pub skip: u64,
    /// Matching calls that fail then.
    pub times: u64,
    /// What happens to them.
    pub fault: Fault,
}

impl Rule {
    /// The next call of this kind fails.
    pub fn once(op: Op, fault: Fault) -> Self {
        Self { ops: vec![op], path_contains: String::new(), skip: 0, times: 1, fault }
    }

    /// The power fails after `calls` further calls that change something.
    pub fn power_off_after(calls: u64) -> Self {
        Self { ops: Vec::new(), path_contains: String::new(), skip: calls, times: 1, fault: Fault::PowerOff }
    }

    /// The same for paths that contain a text.
    pub fn at(mut self, path_contains: &str) -> Self {
        self.path_contains = path_contains.to_string();
        self
    }

    /// The same after some matching calls have passed.
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// The same for a number of calls, `u64::MAX` for all.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    fn matches(&self, op: Op, paths: &[&Path]) -> bool {
        let kind = if self.ops.is_empty() { op.changes() } else { self.ops.contains(&op) };
        kind && paths.iter().any(|path| path.to_string_lossy().contains(&self.path_contains))
    }
}

/// Another disk, seen through faults; clones share rules and counts.
#[derive(Clone, Debug)]
pub struct FaultDisk {
    inner: Arc<dyn Disk>,
    spawner: Option<Arc<dyn Spawner>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    counts: HashMap<Op, u64>,
    trace: Option<Vec<(Op, PathBuf)>>,
    power_off: bool,
    /// Files and directories of which a sync failed.
    broken: HashSet<PathBuf>,
}

impl FaultDisk {
    /// The disk below, without faults yet.
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, spawner: None, state: Arc::default() }
    }

    /// The same, with a step of the spawner before each call that changes something.
    pub fn with_steps(inner: Arc<dyn Disk>, spawner: Arc<dyn Spawner>) -> Self {
        Self { inner, spawner: Some(spawner), state: Arc::default() }
    }

    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) {
        self.state.lock().rules.push(rule);
    }

    /// Drops all rules and switches the power on. What failed to sync stays broken.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.rules.clear();
        state.power_off = false;
    }

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        self.state.lock().power_off
    }

    /// Calls of a kind so far, failed ones included.
    pub fn count(&self, op: Op) -> u64 {
        self.state.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// Calls so far that change something, failed ones included.
    pub fn changes(&self) -> u64 {
        self.state.lock().counts.iter().filter(|(op, _)| op.changes()).map(|(_, count)| count).sum()
    }

    /// Starts a trace, dropping one that runs.
    pub fn start_trace(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    /// Traced calls of a kind on paths that contain a text; of a rename the target's path is traced.
    pub fn traced(&self, op: Op, path_contains: &str) -> usize {
        let state = self.state.lock();
        let calls = state.trace.iter().flatten();
        calls.filter(|(kind, path)| *kind == op && path.to_string_lossy().contains(path_contains)).count()
    }

    /// Counts a call and finds what happens to it. `paths` ends with the one to trace.
    fn call(&self, op: Op, paths: &[&Path]) -> io::Result<Option<Fault>> {
        if let Some(spawner) = self.spawner.as_ref().filter(|_| op.changes()) {
            spawner.step("disk");
        }
        let mut state = self.state.lock();
        *state.counts.entry(op).or_default() += 1;
        if let (Some(trace), Some(path)) = (&mut state.trace, paths.last()) {
            assert!(trace.len() < TRACE_CALLS_MAX, "a trace of {TRACE_CALLS_MAX} calls is not cleared");
            trace.push((op, path.to_path_buf()));
        }
        if state.power_off {
            return Err(io::Error::other("the power is off"));
        }
        let mut acting = None;
        for rule in state.rules.iter_mut().filter(|rule| rule.matches(op, paths)) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 && acting.is_none() {
                rule.times -= 1;
                acting = Some(rule.fault);
            }
        }
        match acting {
            Some(Fault::Io) => Err(medium_error()),
            Some(Fault::NoSpace) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::ReadOnly) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Some(Fault::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::PowerOff) => {
                state.power_off = true;
                Err(io::Error::other("the power is off"))
            }
            Some(Fault::ShortNoSpace) if op != Op::Write => Err(io::ErrorKind::StorageFull.into()),
            other => Ok(other),
        }
    }

    /// A call that fails as a whole or not at all.
    fn whole<R>(&self, op: Op, paths: &[&Path], f: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let fault = self.call(op, paths)?;
        let done = f()?;
        if fault == Some(Fault::IoAfter) { Err(medium_error()) } else { Ok(done) }
    }

    /// A sync, which after a failed one only pretends.
    fn sync(&self, op: Op, path: &Path, f: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let called = match self.call(op, &[path]) {
            Ok(Some(Fault::IoAfter)) => Err(medium_error()),
            other => other,
        };
        let mut state = self.state.lock();
        if let Err(e) = called {
            if e.kind() != io::ErrorKind::Interrupted {
                state.broken.insert(path.to_path_buf());
            }
            return Err(e);
        }
        let broken = state.broken.contains(path);
        drop(state);
        if broken { Ok(()) } else { f() }
    }

    fn wrap(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FaultFile { disk: self.clone(), path: path.to_path_buf(), file })
    }

    fn renamed(&self, from: &Path, to: &Path) {
        let mut state = self.state.lock();
        // Whoever has the file open knows it by its old name.
        if state.broken.contains(from) {
            state.broken.insert(to.to_path_buf());
        } else {
            state.broken.remove(to);
        }
    }
}

fn medium_error() -> io::Error {
    if cfg!(unix) { io::Error::from_raw_os_error(5) } else { io::Error::other("input/output error") }
}

impl Disk for FaultDisk {
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.whole(Op::Open, &[path], || self.inner.open_read(path)).map(|file| self.wrap(path, file))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.whole(Op::Open, &[path], || self.inner.open_write(path)).map(|file| self.wrap(path, file))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.whole(Op::Create, &[path], || self.inner.create_new(path))?;
        self.state.lock().broken.remove(path);
        Ok(self.wrap(path, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole(Op::Rename, &[from, to], || self.inner.rename(from, to).inspect(|()| self.renamed(from, to)))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole(Op::Rename, &[from, to], || self.inner.rename_new(from, to).inspect(|()| self.renamed(from, to)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.whole(Op::Remove, &[path], || self.inner.remove(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.whole(Op::CreateDir, &[path], || self.inner.create_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync(Op::SyncDir, path, || self.inner.sync_dir(path))
    }

    fn list_dir(&self, path: &Path, f: &mut dyn FnMut(&OsStr, EntryKind) -> ControlFlow<()>) -> io::Result<()> {
        self.whole(Op::List, &[path], || self.inner.list_dir(path, f))
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        self.whole(Op::Metadata, &[path], || self.inner.metadata(path))
    }

    fn lock(&self, path: &Path, exclusive: bool) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.whole(Op::Lock, &[path], || self.inner.lock(path, exclusive))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.whole(Op::Lock, &[path], || self.inner.is_locked(path))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.whole(Op::Space, &[path], || self.inner.space(path))
    }
}

#[derive(Debug)]
struct FaultFile {
    disk: FaultDisk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl FaultFile {
    fn whole<R>(&self, op: Op, f: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.disk.whole(op, &[&self.path], f)
    }
}

impl DiskFile for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.disk.call(Op::Read, &[&self.path])? {
            Some(Fault::Short) => {
                let half = buffer.len().div_ceil(2);
                self.file.read_at(&mut buffer[..half], offset)
            }
            Some(Fault::IoAfter) => Err(medium_error()),
            _ => self.file.read_at(buffer, offset),
        }
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        let fault = self.disk.call(Op::Write, &[&self.path])?;
        let half = &buffer[..buffer.len().div_ceil(2)];
        match fault {
            Some(Fault::Short) => self.file.write_at(half, offset),
            Some(Fault::ShortNoSpace) => {
                self.file.write_all_at(half, offset)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Fault::IoAfter) => {
                self.file.write_all_at(buffer, offset)?;
                Err(medium_error())
            }
            _ => self.file.write_at(buffer, offset),
        }
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        self.whole(Op::Allocate, || self.file.allocate(offset, length))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.whole(Op::SetLen, || self.file.set_len(length))
    }

    fn len(&self) -> io::Result<u64> {
        self.whole(Op::Metadata, || self.file.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(Op::Sync, &self.path, || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.sync(Op::Sync, &self.path, || self.file.sync_all())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{disk::MemoryDisk, spawn::Stepped};

    fn setup() -> (MemoryDisk, FaultDisk) {
        let memory = MemoryDisk::new();
        (memory.clone(), FaultDisk::new(Arc::new(memory)))
    }

    fn read(disk: &dyn Disk, path: &str) -> Vec<u8> {
        let file = disk.open_read(Path::new(path)).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn rules_act_on_the_calls_they_name_and_no_others() {
        let (_, disk) = setup();
        disk.add(Rule::once(Op::Create, Fault::Io).at("b").after(1).times(2));
        for (path, works) in [("/a", true), ("/b1", true), ("/b2", false), ("/c", true), ("/b3", false), ("/b4", true)]
        {
            assert_eq!(disk.create_new(Path::new(path)).is_ok(), works, "{path}");
        }
        assert_eq!(disk.count(Op::Create), 6);
    }

    #[test]
    fn interrupted_and_short_calls_are_carried_through() {
        let (_, disk) = setup();
        let file = disk.create_new(Path::new("/a")).unwrap();
        for (op, fault) in [
            (Op::Write, Fault::Short),
            (Op::Write, Fault::Interrupted),
            (Op::Read, Fault::Short),
            (Op::Read, Fault::Interrupted),
        ] {
            disk.add(Rule::once(op, fault).times(3));
        }
        file.write_all_at(b"some bytes to write", 0).unwrap();
        assert_eq!(read(&disk, "/a"), b"some bytes to write");
        assert!(disk.count(Op::Write) > 6 && disk.count(Op::Read) > 6);
    }

    #[test]
    fn sync_after_a_failed_sync_answers_success_for_lost_bytes() {
        let (memory, disk) = setup();
        let file = disk.create_new(Path::new("/a")).unwrap();
        file.write_all_at(b"bytes", 0).unwrap();
        disk.add(Rule::once(Op::Sync, Fault::Io));
        assert!(file.sync_data().is_err());
        disk.rename_new(Path::new("/a"), Path::new("/b")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.sync_data().unwrap();
        disk.open_write(Path::new("/b")).unwrap().sync_all().unwrap();
        assert_eq!(read(&memory.crash(), "/b"), b"");
        // A new file is a new chance.
        let file = disk.create_new(Path::new("/a")).unwrap();
        file.write_all_at(b"bytes", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        assert_eq!(read(&memory.crash(), "/a"), b"bytes");
    }

    #[test]
    fn nothing_works_after_the_power_failed() {
        let (memory, disk) = setup();
        let file = disk.create_new(Path::new("/a")).unwrap();
        disk.add(Rule::power_off_after(1));
        file.write_all_at(b"x", 0).unwrap();
        assert!(!disk.is_off());
        assert!(file.sync_data().is_err());
        assert!(disk.is_off());
        assert!(file.write_all_at(b"y", 0).is_err() && disk.metadata(Path::new("/a")).is_err());
        assert_eq!(read(&memory, "/a"), b"x");
        disk.heal();
        assert_eq!(read(&disk, "/a"), b"x");
    }

    #[test]
    fn full_disk_in_the_middle_of_a_write_leaves_the_half() {
        let (memory, disk) = setup();
        let file = disk.create_new(Path::new("/a")).unwrap();
        disk.add(Rule::once(Op::Write, Fault::ShortNoSpace));
        assert_eq!(file.write_all_at(b"1234", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(&memory, "/a"), b"12");
    }

    #[test]
    fn call_can_be_carried_out_and_fail_all_the_same() {
        let (memory, disk) = setup();
        disk.create_new(Path::new("/a")).unwrap();
        disk.add(Rule::once(Op::Rename, Fault::IoAfter));
        assert!(disk.rename_new(Path::new("/a"), Path::new("/b")).is_err());
        assert!(memory.metadata(Path::new("/b")).unwrap().is_some());
    }

    #[test]
    fn trace_tells_what_was_touched_since_it_was_started() {
        let (_, disk) = setup();
        disk.create_new(Path::new("/packs")).unwrap();
        disk.start_trace();
        disk.create_new(Path::new("/tmp")).unwrap();
        disk.rename(Path::new("/tmp"), Path::new("/heads")).unwrap();
        assert_eq!(disk.traced(Op::Create, "packs"), 0);
        assert_eq!((disk.traced(Op::Create, "tmp"), disk.traced(Op::Rename, "heads")), (1, 1));
        assert_eq!((disk.count(Op::Create), disk.changes()), (2, 3));
    }

    #[test]
    fn each_change_is_a_step_where_other_threads_may_come_in() {
        let spawner = Stepped::new(1);
        let disk = FaultDisk::with_steps(Arc::new(MemoryDisk::new()), Arc::new(spawner.clone()));
        let before = spawner.steps();
        disk.create_new(Path::new("/a")).unwrap().sync_data().unwrap();
        assert_eq!(spawner.steps() - before, 2);
    }
}
