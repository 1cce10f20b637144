//! A disk in memory that knows what would survive power loss.
//!
//! Each file keeps two contents and each directory two lists of names: what programs see, and what is durable. A sync copies from the first
//! to the second; [`MemoryDisk::crash`] starts a disk from the second alone, and [`MemoryDisk::crash_seeded`] from the second and a random part
//! of what was under way.
//!
//! *Invariants*
//! 1. A file that was synced under a name that was not, is lost; a name that was synced for a file that was not, shows an empty or torn file.
//! 2. A rename inside one directory survives as a whole or not at all. After one between two directories, a sync of the target
//!    alone may leave both names; a sync of the source alone makes both sides durable, as no known filesystem loses the file then.
//! 3. A seeded crash keeps or loses each unsynced sector of 512 bytes, each length and each change of a directory by itself, so any order
//!    of writing back is covered. Of a sector that was written twice since the last sync, only the last write is modelled.
//!
//! *Threads*: one lock around everything, never held across anything that waits.
//!
//! *Bounds*: space is counted up to the end of each file, holes included. Memory is taken for the pages that were
//! written: 4 KiB each, shared between both contents, and between a disk and what survives its crash.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    io,
    ops::ControlFlow,
    path::{Component, Path},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Allocation, Disk, DiskFile, DiskLock, EntryKind, FileIdentity, FileInfo, Space};
use crate::spawn::Seed;

mod content;

use content::{Content, SECTOR};

/// Number of a file or directory on one disk; never used again.
type Node = u64;

/// The root directory, which is always there.
const ROOT: Node = 0;

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    files: HashMap<Node, File>,
    dirs: HashMap<Node, Dir>,
    next_node: Node,
    /// Changes of names since the directories were synced, oldest first.
    changes: Vec<Change>,
    /// Holders of locks: 0 shared by `n`, or one exclusively.
    locks: HashMap<Node, Held>,
    capacity: u64,
    used: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    seen: Content,
    durable: Content,
    /// Sectors in which the two differ.
    dirty: BTreeSet<u64>,
    /// Bytes that this file occupies of the capacity.
    charged: u64,
}

#[derive(Clone, Debug, Default)]
struct Dir {
    seen: BTreeMap<OsString, Entry>,
    durable: BTreeMap<OsString, Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    node: Node,
    is_dir: bool,
}

/// One change of names that is not durable yet.
#[derive(Clone, Debug)]
struct Change {
    add: Option<Part>,
    remove: Option<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    dir: Node,
    name: OsString,
    entry: Entry,
}

impl Part {
    fn new(dir: Node, name: &OsStr, entry: Entry) -> Option<Self> {
        Some(Self { dir, name: name.to_os_string(), entry })
    }
}

#[derive(Clone, Copy, Debug)]
enum Held {
    Shared(u32),
    Exclusive,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    /// An empty disk without end.
    pub fn new() -> Self {
        Self::with_capacity(1 << 40)
    }

    /// An empty disk for this many bytes of files; beyond, writes answer `StorageFull`.
    pub fn with_capacity(capacity: u64) -> Self {
        let dirs = HashMap::from([(ROOT, Dir::default())]);
        Self::from_state(State {
            files: HashMap::new(),
            dirs,
            next_node: ROOT + 1,
            changes: Vec::new(),
            locks: HashMap::new(),
            capacity,
            used: 0,
        })
    }

    /// Changes the capacity, also to less than is in use.
    pub fn set_capacity(&self, capacity: u64) {
        self.state.lock().capacity = capacity;
    }

    /// The disk after power loss: what was synced, and nothing else. This disk goes on as if nothing had happened; its open files are not those of the
    /// disk returned.
    pub fn crash(&self) -> Self {
        self.state.lock().survivors(&mut || false)
    }

    /// The disk after power loss in the middle of writing back: what was synced, and a random part of the rest.
    pub fn crash_seeded(&self, seed: u64) -> Self {
        let mut seed = Seed::new(seed);
        // Some crashes lose little and some lose much.
        let lost_of_8 = 1 + seed.below(7);
        self.state.lock().survivors(&mut || seed.below(8) >= lost_of_8)
    }

    /// The disk after the death of its program: everything is there, synced or not, and locks are free.
    pub fn kill(&self) -> Self {
        let state = self.state.lock();
        Self::from_state(State {
            files: state.files.clone(),
            dirs: state.dirs.clone(),
            next_node: state.next_node,
            changes: state.changes.clone(),
            locks: HashMap::new(),
            capacity: state.capacity,
            used: state.used,
        })
    }

    /// Flips bits of one byte, in what is seen and what is durable, as a failing medium does. The file must be longer than `offset`.
    pub fn rot(&self, path: &Path, offset: u64, bits: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let node = state.file_at(path)?;
        let file = state.files.get_mut(&node).ok_or(io::ErrorKind::NotFound)?;
        for content in [&mut file.seen, &mut file.durable] {
            let mut byte = [0];
            if content.read(&mut byte, offset) == 1 {
                content.write(&[byte[0] ^ bits], offset);
            }
        }
        Ok(())
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl State {
    /// What a crash leaves, where `keep` decides for each unsynced piece.
    fn survivors(&self, keep: &mut dyn FnMut() -> bool) -> MemoryDisk {
        let mut dirs: HashMap<Node, Dir> = self
            .dirs
            .iter()
            .map(|(&node, dir)| (node, Dir { seen: dir.durable.clone(), durable: BTreeMap::new() }))
            .collect();
        for change in &self.changes {
            if keep() {
                change.apply(&mut dirs);
            }
        }
        for dir in dirs.values_mut() {
            dir.durable = dir.seen.clone();
        }
        // In the order of their numbers, so that a seed decides alike each time.
        let named: BTreeSet<Node> = dirs
            .values()
            .flat_map(|dir| dir.seen.values())
            .filter(|entry| !entry.is_dir)
            .map(|entry| entry.node)
            .collect();
        let files: HashMap<Node, File> = named.iter().map(|node| (*node, self.files[node].survivor(keep))).collect();
        let used = files.values().map(|file| file.charged).sum();
        MemoryDisk::from_state(State {
            files,
            dirs,
            next_node: self.next_node,
            changes: Vec::new(),
            locks: HashMap::new(),
            capacity: self.capacity,
            used,
        })
    }

    fn dir(&self, path: &Path) -> io::Result<Node> {
        let mut node = ROOT;
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    let entry = self.dirs[&node].seen.get(name).ok_or(io::ErrorKind::NotFound)?;
                    if !entry.is_dir {
                        return Err(io::ErrorKind::NotADirectory.into());
                    }
                    node = entry.node;
                }
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        Ok(node)
    }

    fn parent<'p>(&self, path: &'p Path) -> io::Result<(Node, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        if path.file_name().is_none() {
            return Ok(Some(Entry { node: self.dir(path)?, is_dir: true }));
        }
        let (dir, name) = self.parent(path)?;
        Ok(self.dirs[&dir].seen.get(name).copied())
    }

    fn file_at(&self, path: &Path) -> io::Result<Node> {
        match self.entry(path)? {
            Some(Entry { node, is_dir: false }) => Ok(node),
            Some(_) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.dirs);
        self.changes.push(change);
    }

    fn create(&mut self, path: &Path, is_dir: bool) -> io::Result<Node> {
        let (dir, name) = self.parent(path)?;
        if self.dirs[&dir].seen.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.next_node;
        self.next_node += 1;
        if is_dir {
            self.dirs.insert(node, Dir::default());
        } else {
            self.files.insert(node, File::default());
        }
        self.change(Change { add: Part::new(dir, name, Entry { node, is_dir }), remove: None });
        Ok(node)
    }

    fn rename(&mut self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let entry = *self.dirs[&from_dir].seen.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        match self.dirs[&to_dir].seen.get(to_name) {
            Some(_) if !replace => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(target) if target.is_dir => return Err(io::ErrorKind::IsADirectory.into()),
            Some(target) if target.node == entry.node => return Ok(()),
            _ => {}
        }
        let add = Part::new(to_dir, to_name, entry);
        self.change(Change { add, remove: Part::new(from_dir, from_name, entry) });
        Ok(())
    }

    fn sync_dir(&mut self, synced: Node) {
        for i in 0..self.changes.len() {
            // What left this directory arrives in the other one with it.
            if self.changes[i].remove.as_ref().is_some_and(|part| part.dir == synced)
                && let Some(arrival) = self.changes[i].add.take()
            {
                for earlier in &mut self.changes[..i] {
                    earlier.forget(|part| part.dir == arrival.dir && part.name == arrival.name);
                }
                if let Some(dir) = self.dirs.get_mut(&arrival.dir) {
                    dir.durable.insert(arrival.name, arrival.entry);
                }
            }
        }
        if let Some(dir) = self.dirs.get_mut(&synced) {
            dir.durable = dir.seen.clone();
        }
        self.changes.retain_mut(|change| {
            change.forget(|part| part.dir == synced);
            change.add.is_some() || change.remove.is_some()
        });
    }

    /// Makes a file occupy at least `end` bytes.
    fn charge(&mut self, node: Node, end: u64) -> io::Result<()> {
        let Some(file) = self.files.get_mut(&node) else { return Ok(()) };
        let more = end.saturating_sub(file.charged);
        if more > self.capacity.saturating_sub(self.used) && more > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.charged += more;
        self.used += more;
        Ok(())
    }

    /// Bytes that fit into a file from an offset on.
    fn room(&self, node: Node, offset: u64) -> u64 {
        let charged = self.files.get(&node).map_or(0, |file| file.charged);
        charged.saturating_add(self.capacity.saturating_sub(self.used)).saturating_sub(offset)
    }

    fn uncharge(&mut self, node: Node, end: u64) {
        if let Some(file) = self.files.get_mut(&node) {
            let less = file.charged.saturating_sub(end);
            file.charged -= less;
            self.used -= less;
        }
    }

    /// Gives back the space of a file without a name. Its bytes stay for those who have it open.
    fn release_if_nameless(&mut self, node: Node) {
        let named = self.dirs.values().any(|dir| dir.seen.values().any(|entry| entry.node == node));
        if !named {
            self.uncharge(node, 0);
        }
    }
}

impl Change {
    /// Makes the change in what is seen.
    fn apply(&self, dirs: &mut HashMap<Node, Dir>) {
        if let Some(part) = &self.add
            && let Some(dir) = dirs.get_mut(&part.dir)
        {
            dir.seen.insert(part.name.clone(), part.entry);
        }
        if let Some(part) = &self.remove
            && let Some(dir) = dirs.get_mut(&part.dir)
            // Another change that was kept may have given the name to another file.
            && dir.seen.get(&part.name) == Some(&part.entry)
        {
            dir.seen.remove(&part.name);
        }
    }

    fn forget(&mut self, is_settled: impl Fn(&Part) -> bool) {
        for part in [&mut self.add, &mut self.remove] {
            if part.as_ref().is_some_and(&is_settled) {
                *part = None;
            }
        }
    }
}

impl File {
    fn survivor(&self, keep: &mut dyn FnMut() -> bool) -> Self {
        let mut content = self.durable.clone();
        if self.durable.len() != self.seen.len() && keep() {
            content.set_len(self.seen.len());
        }
        for &sector in &self.dirty {
            if keep() {
                content.copy_sector(&self.seen, sector);
            }
        }
        Self {
            charged: self.charged.min(content.len()),
            seen: content.clone(),
            durable: content,
            dirty: BTreeSet::new(),
        }
    }

    fn set_len(&mut self, length: u64) {
        // Bytes that are cut off and written again are zeros in between, on the medium too.
        let first = length.min(self.seen.len()) / SECTOR;
        let last = length.max(self.seen.len()).div_ceil(SECTOR);
        let touched: Vec<u64> = self.seen.sectors(first..last).chain(self.durable.sectors(first..last)).collect();
        self.seen.set_len(length);
        self.dirty.extend(touched);
    }

    fn sync(&mut self) {
        self.durable.set_len(self.seen.len());
        for sector in std::mem::take(&mut self.dirty) {
            self.durable.copy_sector(&self.seen, sector);
        }
    }
}

impl Disk for MemoryDisk {
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.state.lock().file_at(path)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), node, writable: false }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.state.lock().file_at(path)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), node, writable: true }))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.state.lock().create(path, false)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), node, writable: true }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let replaced = state.entry(to)?;
        state.rename(from, to, true)?;
        if let Some(entry) = replaced {
            state.release_if_nameless(entry.node);
        }
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.lock().rename(from, to, false)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let node = state.file_at(path)?;
        let (dir, name) = state.parent(path)?;
        let remove = Part::new(dir, name, Entry { node, is_dir: false });
        state.change(Change { add: None, remove });
        state.release_if_nameless(node);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.entry(path)? {
            Some(entry) if entry.is_dir => Ok(()),
            _ => state.create(path, true).map(|_| ()),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let dir = state.dir(path)?;
        state.sync_dir(dir);
        Ok(())
    }

    fn list_dir(&self, path: &Path, f: &mut dyn FnMut(&OsStr, EntryKind) -> ControlFlow<()>) -> io::Result<()> {
        let names: Vec<_> = {
            let state = self.state.lock();
            let dir = state.dir(path)?;
            state.dirs[&dir].seen.iter().map(|(name, entry)| (name.clone(), entry.is_dir)).collect()
        };
        for (name, is_dir) in names {
            if f(&name, if is_dir { EntryKind::Dir } else { EntryKind::File }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        let state = self.state.lock();
        match state.entry(path) {
            Ok(Some(entry)) => {
                let (len, occupied_bytes) =
                    state.files.get(&entry.node).map_or((0, 0), |file| (file.seen.len(), file.charged));
                let identity = Some(FileIdentity { device: 0, file: entry.node, changed_ns: 0 });
                Ok(Some(FileInfo { len, occupied_bytes, is_dir: entry.is_dir, identity }))
            }
            Ok(None) => Ok(None),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn lock(&self, path: &Path, exclusive: bool) -> io::Result<Option<Box<dyn DiskLock>>> {
        let mut state = self.state.lock();
        let node = match state.entry(path)? {
            Some(_) => state.file_at(path)?,
            None => state.create(path, false)?,
        };
        let held = match (state.locks.get(&node), exclusive) {
            (None, true) => Held::Exclusive,
            (None, false) => Held::Shared(1),
            (Some(Held::Shared(n)), false) => Held::Shared(n + 1),
            _ => return Ok(None),
        };
        state.locks.insert(node, held);
        Ok(Some(Box::new(MemoryLock { disk: self.clone(), node })))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let state = self.state.lock();
        match state.file_at(path) {
            Ok(node) => Ok(state.locks.contains_key(&node)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.state.lock();
        let free_bytes = state.capacity.saturating_sub(state.used);
        Ok(Space { free_bytes, total_bytes: state.capacity, free_inodes: u64::MAX })
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    node: Node,
    writable: bool,
}

impl MemoryFile {
    fn with<R>(&self, f: impl FnOnce(&mut File) -> R) -> io::Result<R> {
        self.disk.state.lock().files.get_mut(&self.node).map(f).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// As above, after the file was made to occupy at least `end` bytes.
    fn with_space<R>(&self, end: Option<u64>, f: impl FnOnce(&mut File) -> R) -> io::Result<R> {
        if !self.writable {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
        let mut state = self.disk.state.lock();
        state.charge(self.node, end)?;
        state.files.get_mut(&self.node).map(f).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|file| file.seen.read(buffer, offset))
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // Of what does not fit, the beginning is written, as on every disk.
        let room = self.disk.state.lock().room(self.node, offset);
        let buffer = &buffer[..buffer.len().min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)];
        self.with_space(offset.checked_add(buffer.len() as u64), |file| {
            file.seen.write(buffer, offset);
            file.dirty.extend(offset / SECTOR..(offset + buffer.len() as u64).div_ceil(SECTOR));
            buffer.len()
        })
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        let end = offset.checked_add(length);
        self.with_space(end, |file| {
            if let Some(end) = end.filter(|&end| end > file.seen.len()) {
                file.set_len(end);
            }
            Allocation::Reserved
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with_space(Some(0), |file| file.set_len(length))?;
        self.disk.state.lock().uncharge(self.node, length);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.seen.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(File::sync)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    node: Node,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        match state.locks.get(&self.node) {
            Some(Held::Shared(n)) if *n > 1 => {
                let left = Held::Shared(n - 1);
                state.locks.insert(self.node, left);
            }
            _ => {
                state.locks.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests;
