//! A repository in a directory of this machine (or of a network filesystem that behaves like one).
//!
//! *Ordering*
//! 1. Publication: bytes under a temporary name, `fdatasync`, exclusive rename, sync of the directory. So a name stands for whole, durable
//!    bytes (F1, F3), and two writers of one name cannot both succeed (F4).
//! 2. A directory that this process creates or meets for the first time is made durable in its parent before anything in it counts.
//!    The process that created it may have died in between.
//! 3. [`Put::Exists`] syncs the directory as well: the process that stored the object may have died before it did.
//! 4. A directory of which a sync failed takes no further objects until the repository is opened again.
//! 5. An open object's name is made durable by its first sync, so that one that is never synced costs none.
//!
//! *Threads*: any thread may call any method. One lock guards the set of durable directories, one that of failed ones and one the
//! descriptor cache; none is held across I/O. Each open object has a lock that is held while it writes, syncs and publishes: offsets are handed out in the order
//! of writing, and a full disk leaves the length as it was. Reads do not take it.
//!
//! *Bounds*: at most [`OPEN_FILES_MAX`] descriptors are kept for ranged reads of packs and segments.
//!
//! *Not here*: journal and locks, which share the directory but go to the disk directly.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::{ASIDE_MAX, Backend, ObjectName, OpenName, OpenObject, Put, Space, random_name};
use crate::{
    disk::{Disk, DiskFile, EntryKind, FileIdentity},
    error::{Error, Result},
};

mod open;
mod reserve;

use open::{LocalOpen, Reserves};
use reserve::RESERVE;

/// Descriptors kept for ranged reads.
pub const OPEN_FILES_MAX: usize = 64;

/// How often a put writes its object again after another process has swept the temporary file away.
const SWEPT_RETRIES_MAX: u32 = 3;

/// Reads up to this size are tried without asking for the file's length first.
const UNASKED_BYTES_MAX: usize = 1 << 20;

/// How many directories deep objects lie. A directory that is linked into itself would else be listed over and over, and two
/// such links more often than anybody can wait for.
const DIRS_DEEP_MAX: usize = 2;

/// What holds no stored objects in a repository.
const NOT_LISTED: [&str; 5] = ["tmp", "packs/open", "locks", "journal", RESERVE];

/// Where damaged objects are kept.
const ASIDE: &str = "damaged";

/// The objects of the repository in one directory.
#[derive(Debug)]
pub struct LocalBackend {
    shared: Arc<Shared>,
    read_only: bool,
    swept: AtomicBool,
    open_files: Mutex<OpenFiles>,
}

/// What open objects need of their backend.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Directories, relative to the root, whose own names are known to be durable.
    durable_dirs: Mutex<HashSet<String>>,
    /// Directories of which a sync failed, with its error.
    failed_dirs: Mutex<HashMap<String, Error>>,
    reserves: Reserves,
    /// Whether it was told that the reserve is used.
    reserve_in_use: AtomicBool,
}

impl LocalBackend {
    /// The repository at `root`, which must exist before anything is stored; nothing is touched yet. A read-only backend refuses to write.
    pub fn new(disk: Arc<dyn Disk>, root: PathBuf, read_only: bool) -> Self {
        let shared = Arc::new(Shared {
            disk,
            root,
            durable_dirs: Mutex::default(),
            failed_dirs: Mutex::default(),
            reserves: Reserves::default(),
            reserve_in_use: AtomicBool::new(false),
        });
        Self { shared, read_only, swept: AtomicBool::new(false), open_files: Mutex::default() }
    }

    /// The repository's directory.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    fn begin_write(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::ReadOnly { what: format!("repository {}", self.shared.root.display()) });
        }
        if !self.swept.swap(true, Ordering::Relaxed) {
            self.sweep_temporaries()?;
        }
        Ok(())
    }

    /// Removes what crashed puts have left. A put of another process that loses its file to this writes it again, and so no lock is needed.
    fn sweep_temporaries(&self) -> Result<()> {
        let dir = self.shared.path("tmp");
        let mut names: Vec<OsString> = Vec::new();
        let listed = self.shared.disk.list_dir(&dir, &mut |name, kind| {
            if kind == EntryKind::File {
                names.push(name.to_os_string());
            }
            ControlFlow::Continue(())
        });
        match listed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| self.shared.error("list", &dir, e))?,
        }
        for name in names {
            if let Err(e) = self.shared.disk.remove(&dir.join(&name)) {
                // What stays is in nobody's way; the disk will say at the next write what is wrong with it.
                log::debug!("cannot remove {}: {e}", dir.join(&name).display());
            }
        }
        Ok(())
    }

    /// Writes the bytes under a temporary name and makes them durable.
    fn write_temporary(&self, bytes: &[u8]) -> Result<PathBuf> {
        self.shared.ensure_dir("tmp")?;
        let path = self.shared.path("tmp").join(random_name());
        let file = self.shared.disk.create_new(&path).map_err(|e| self.shared.error("create", &path, e))?;
        let written = file.write_all_at(bytes, 0).and_then(|()| file.sync_data());
        drop(file);
        if let Err(e) = written {
            self.shared.remove_quietly(&path);
            return Err(self.shared.error("write", &path, e));
        }
        Ok(path)
    }

    fn put_once(&self, name: &ObjectName, bytes: &[u8], replace: bool) -> Result<Option<Put>> {
        let dir = parent(name.as_str());
        self.shared.ensure_dir(dir)?;
        let target = self.shared.path(name.as_str());
        if !replace && self.shared.metadata(&target)?.is_some() {
            self.shared.sync_dir(dir)?;
            return Ok(Some(Put::Exists));
        }
        let temporary = self.write_temporary(bytes)?;
        let disk = &self.shared.disk;
        let renamed = if replace { disk.rename(&temporary, &target) } else { disk.rename_new(&temporary, &target) };
        let put = match renamed {
            Ok(()) => Put::Stored,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !replace => {
                self.shared.remove_quietly(&temporary);
                Put::Exists
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                self.shared.remove_quietly(&temporary);
                return Err(self.shared.error("rename to", &target, e));
            }
        };
        // F1, F3: the name counts once its directory is durable.
        self.shared.sync_dir(dir)?;
        Ok(Some(put))
    }

    fn put(&self, name: &ObjectName, bytes: &[u8], replace: bool) -> Result<Put> {
        self.begin_write()?;
        for _ in 0..SWEPT_RETRIES_MAX {
            if let Some(put) = self.shared.with_room(|| self.put_once(name, bytes, replace))? {
                return Ok(put);
            }
        }
        let path = self.shared.path(name.as_str());
        Err(self.shared.error("rename to", &path, io::Error::other("the temporary file vanishes again and again")))
    }

    /// An open file for ranged reads; packs and segments keep theirs, because they are read over and over and never replaced.
    fn open_cached(&self, name: &ObjectName) -> Result<Arc<dyn DiskFile>> {
        let cacheable = name.as_str().starts_with("packs/") || name.as_str().starts_with("index/");
        let deletions = {
            let mut cache = self.open_files.lock();
            if let Some(file) = cache.get(name) {
                return Ok(file);
            }
            cache.deletions
        };
        let file: Arc<dyn DiskFile> = Arc::from(self.shared.open(name.as_str())?);
        if cacheable {
            let evicted = self.open_files.lock().insert(name, &file, deletions);
            drop(evicted);
        }
        Ok(file)
    }

    fn list_below(&self, dir: &str, prefix: &str, f: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        let mut dirs: Vec<String> = Vec::new();
        let mut failed = None;
        let path = self.shared.path(dir);
        let listed = self.shared.disk.list_dir(&path, &mut |name, kind| match self
            .list_entry(dir, prefix, name, kind, &mut dirs, f)
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        });
        match listed {
            // A directory that was never needed; but a repository that is gone must not look like an empty one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return self.shared.check_root(),
            other => other.map_err(|e| self.shared.error("list", &path, e))?,
        }
        dirs.retain(|dir| dir.split('/').count() <= DIRS_DEEP_MAX);
        match failed {
            Some(e) => Err(e),
            None => dirs.into_iter().try_for_each(|dir| self.list_below(&dir, prefix, f)),
        }
    }

    fn list_entry(
        &self,
        dir: &str,
        prefix: &str,
        name: &OsStr,
        kind: EntryKind,
        dirs: &mut Vec<String>,
        f: &mut dyn FnMut(ObjectName, u64) -> Result<()>,
    ) -> Result<()> {
        let Some(text) = name.to_str() else { return Ok(()) };
        let relative = if dir.is_empty() { text.to_string() } else { format!("{dir}/{text}") };
        // Foreign names (of a file manager, of the filesystem itself) are none of ours.
        let Ok(object) = ObjectName::new(&relative) else { return Ok(()) };
        if NOT_LISTED.contains(&relative.as_str()) {
            return Ok(());
        }
        if kind == EntryKind::Dir {
            if prefix.starts_with(&format!("{relative}/")) || relative.starts_with(prefix) {
                dirs.push(relative);
            }
            return Ok(());
        }
        if !relative.starts_with(prefix) {
            return Ok(());
        }
        match self.shared.metadata(&self.shared.path(&relative))? {
            Some(info) if !info.is_dir => f(object, info.len),
            // A linked directory, as of someone who moved a part of the repository to another disk.
            Some(_) => {
                dirs.push(relative);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Backend for LocalBackend {
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.put(name, bytes, false)
    }

    fn replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        if !name.is_replaceable() {
            return Err(Error::Invalid { what: format!("{name} is never replaced") });
        }
        self.put(name, bytes, true).map(|_| ())
    }

    fn get(&self, name: &ObjectName, length_max: u64) -> Result<Vec<u8>> {
        let file = self.shared.open(name.as_str())?;
        let length = file.len().map_err(|e| self.shared.error("read", &self.shared.path(name.as_str()), e))?;
        if length > length_max {
            return Err(Error::corrupt(name.as_str(), format!("{length} bytes, where {length_max} are the most")));
        }
        self.shared.read(&*file, name.as_str(), 0, length as usize)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, length: u32) -> Result<Vec<u8>> {
        let file = self.open_cached(name)?;
        self.shared.read(&*file, name.as_str(), offset, length as usize)
    }

    fn length(&self, name: &ObjectName) -> Result<Option<u64>> {
        match self.shared.metadata(&self.shared.path(name.as_str()))? {
            Some(info) if !info.is_dir => Ok(Some(info.len)),
            _ => self.shared.check_root().map(|()| None),
        }
    }

    fn identity(&self, name: &ObjectName) -> Result<Option<FileIdentity>> {
        let info = self.shared.metadata(&self.shared.path(name.as_str()))?;
        // After that: reading goes on with what has the name from now on, not with a descriptor of what had it.
        let dropped = self.open_files.lock().forget(name);
        drop(dropped);
        Ok(info.and_then(|info| info.identity))
    }

    fn list(&self, prefix: &str, f: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        self.list_below(parent(prefix), prefix, f)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.begin_write()?;
        let dropped = self.open_files.lock().forget(name);
        drop(dropped);
        self.shared.remove(&self.shared.path(name.as_str()))?;
        if name.is_key() {
            // A slot that came back after power loss would open the repository again.
            self.shared.sync_dir(parent(name.as_str()))?;
        }
        Ok(())
    }

    fn set_aside(&self, name: &ObjectName) -> Result<bool> {
        self.begin_write()?;
        self.shared.with_room(|| self.shared.ensure_dir(ASIDE))?;
        let from = self.shared.path(name.as_str());
        for count in 1..=ASIDE_MAX {
            let aside = if count == 1 { name.aside() } else { name.aside_again(count) };
            let path = self.shared.path(aside.as_str());
            let renamed = self.shared.with_room(|| match self.shared.disk.rename_new(&from, &path) {
                Err(e) if e.kind() == io::ErrorKind::StorageFull => Err(self.shared.error("set aside", &from, e)),
                other => Ok(other),
            });
            match renamed? {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return self.shared.check_root().map(|()| false),
                other => other.map_err(|e| self.shared.error("set aside", &from, e))?,
            }
            let dropped = self.open_files.lock().forget(name);
            drop(dropped);
            // The new name first: power loss between the two may leave both, and never none.
            self.shared.sync_dir(ASIDE)?;
            self.shared.sync_dir(parent(name.as_str()))?;
            return Ok(true);
        }
        Err(Error::AlreadyExists { path: name.aside().to_string(), what: "too many damaged objects".to_string() })
    }

    fn create_open(&self, size_hint: u64) -> Result<Box<dyn OpenObject>> {
        self.begin_write()?;
        let create = || LocalOpen::create(self.shared.clone(), size_hint);
        // A large reservation is a convenience: the caller goes on with a smaller one.
        let use_reserve = size_hint == 0;
        Ok(Box::new(self.shared.with_room_or_reserve(use_reserve, create)?))
    }

    fn list_open(&self) -> Result<Vec<OpenName>> {
        let dir = self.shared.path("packs/open");
        let mut names = Vec::new();
        let listed = self.shared.disk.list_dir(&dir, &mut |name, _| {
            names.extend(name.to_str().and_then(OpenName::new));
            ControlFlow::Continue(())
        });
        match listed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.shared.check_root()?,
            other => other.map_err(|e| self.shared.error("list", &dir, e))?,
        }
        Ok(names)
    }

    fn read_open(&self, name: &OpenName, offset: u64, length: u32) -> Result<Vec<u8>> {
        let object = name.to_string();
        let file = self.shared.open(&object)?;
        self.shared.read(&*file, &object, offset, length as usize)
    }

    fn delete_open(&self, name: &OpenName) -> Result<()> {
        self.begin_write()?;
        self.shared.remove(&self.shared.path(&name.to_string()))
    }

    fn space(&self) -> Result<Space> {
        let root = &self.shared.root;
        let told = self.shared.disk.space(root).and_then(|space| Ok((space, self.shared.reserve_held()?)));
        let (space, held) = told.map_err(|e| self.shared.error("ask for the free space of", root, e))?;
        Ok(Space {
            free_bytes: space.free_bytes,
            total_bytes: space.total_bytes,
            reserve_bytes: held,
            unreserved_bytes: reserve::wanted(space.total_bytes).saturating_sub(held),
        })
    }

    fn hold_reserve(&self) {
        if !self.read_only
            && let Err(e) = self.shared.hold_reserve()
        {
            // It is held back without it; but others can fill the disk to its end.
            log::debug!("no space can be set aside on the disk of {}: {e}", self.shared.root.display());
        }
    }

    fn make_room(&self) -> bool {
        !self.read_only && self.shared.make_room(self.shared.reserves.seen(), true)
    }
}

impl Shared {
    fn path(&self, relative: &str) -> PathBuf {
        if relative.is_empty() { self.root.clone() } else { self.root.join(relative) }
    }

    fn error(&self, verb: &str, path: &Path, e: io::Error) -> Error {
        let hint = match e.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied if verb != "read" && verb != "list" => {
                format!(" (the repository {} cannot be written)", self.root.display())
            }
            _ => String::new(),
        };
        Error::io(format!("{verb} {}{hint}", path.display()), e)
    }

    /// A missing object is [`Error::NotFound`] only while the repository itself is there.
    fn check_root(&self) -> Result<()> {
        match self.metadata(&self.root)? {
            Some(info) if info.is_dir => Ok(()),
            _ => Err(self.error("read", &self.root, io::Error::other("the repository's directory is gone"))),
        }
    }

    fn metadata(&self, path: &Path) -> Result<Option<crate::disk::FileInfo>> {
        self.disk.metadata(path).map_err(|e| self.error("read", path, e))
    }

    fn open(&self, object: &str) -> Result<Box<dyn DiskFile>> {
        let path = self.path(object);
        match self.disk.open_read(&path) {
            Ok(file) => Ok(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.check_root()?;
                Err(Error::NotFound { object: object.to_string() })
            }
            Err(e) => Err(self.error("read", &path, e)),
        }
    }

    fn read(&self, file: &dyn DiskFile, object: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let truncated =
            || Error::corrupt(object, format!("truncated: {length} bytes at {offset} reach beyond its end"));
        let failed = |e| self.error("read", &self.path(object), e);
        let end = offset.checked_add(length as u64).filter(|&end| i64::try_from(end).is_ok()).ok_or_else(truncated)?;
        // The length may come from damaged bytes: ask before much is allocated.
        if length > UNASKED_BYTES_MAX && end > file.len().map_err(failed)? {
            return Err(truncated());
        }
        let mut bytes = vec![0; length];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(truncated()),
            Err(e) => Err(failed(e)),
        }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match self.disk.remove(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.check_root(),
            other => other.map_err(|e| self.error("remove", path, e)),
        }
    }

    /// Removes a file that is of no use any more; if that fails, a sweep finds it later.
    fn remove_quietly(&self, path: &Path) {
        if let Err(e) = self.disk.remove(path) {
            log::debug!("cannot remove {}: {e}", path.display());
        }
    }

    /// Makes the names in a directory durable. After one failure it answers that error for ever, since a later success would prove nothing.
    fn sync_dir(&self, relative: &str) -> Result<()> {
        if let Some(error) = self.failed_dirs.lock().get(relative) {
            return Err(error.clone());
        }
        let path = self.path(relative);
        self.disk.sync_dir(&path).map_err(|e| {
            let error = Error::sync(format!("sync {}", path.display()), e);
            self.failed_dirs.lock().entry(relative.to_string()).or_insert(error).clone()
        })
    }

    /// Sees to it that a directory exists and that its name is durable.
    fn ensure_dir(&self, relative: &str) -> Result<()> {
        if relative.is_empty() || self.durable_dirs.lock().contains(relative) {
            return Ok(());
        }
        let above = parent(relative);
        self.ensure_dir(above)?;
        let path = self.path(relative);
        self.disk.create_dir(&path).map_err(|e| self.error("create", &path, e))?;
        // One sync covers all that are there already, which matters for the 256 directories of the packs.
        let mut durable = self.dirs_below(above)?;
        self.sync_dir(above)?;
        durable.push(relative.to_string());
        self.durable_dirs.lock().extend(durable);
        Ok(())
    }

    fn dirs_below(&self, relative: &str) -> Result<Vec<String>> {
        let path = self.path(relative);
        let mut dirs = Vec::new();
        let listed = self.disk.list_dir(&path, &mut |name, kind| {
            if let (EntryKind::Dir, Some(text)) = (kind, name.to_str()) {
                dirs.push(if relative.is_empty() { text.to_string() } else { format!("{relative}/{text}") });
            }
            ControlFlow::Continue(())
        });
        listed.map_err(|e| self.error("list", &path, e))?;
        Ok(dirs)
    }
}

/// The part before the last `/`.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Descriptors of recently read objects, least recently used out first.
#[derive(Debug, Default)]
struct OpenFiles {
    files: HashMap<ObjectName, (Arc<dyn DiskFile>, u64)>,
    uses: u64,
    /// Counts deletions, so that a file that was opened before one is not kept after it.
    deletions: u64,
}

impl OpenFiles {
    fn get(&mut self, name: &ObjectName) -> Option<Arc<dyn DiskFile>> {
        self.uses += 1;
        let (file, used) = self.files.get_mut(name)?;
        *used = self.uses;
        Some(file.clone())
    }

    /// Returns what had to leave, so that the caller closes it outside the lock.
    fn insert(&mut self, name: &ObjectName, file: &Arc<dyn DiskFile>, deletions: u64) -> Option<Arc<dyn DiskFile>> {
        if deletions != self.deletions {
            return None;
        }
        self.uses += 1;
        self.files.insert(name.clone(), (file.clone(), self.uses));
        if self.files.len() <= OPEN_FILES_MAX {
            return None;
        }
        let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone())?;
        self.files.remove(&oldest).map(|(file, _)| file)
    }

    fn forget(&mut self, name: &ObjectName) -> Option<Arc<dyn DiskFile>> {
        self.deletions += 1;
        self.files.remove(name).map(|(file, _)| file)
    }
}

#[cfg(test)]
mod tests;
