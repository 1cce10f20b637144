//! Locks of a repository: one writer a volume, and readers that only the delete step of gc waits for.
//!
//! The operating system's lock is the truth and ends with its process. A file beside it only says who holds it, for messages; what a dead
//! process left there is recognised and ignored.
//!
//! *Invariants*
//! 1. Looking at a lock never takes it, so asking who mounted a volume cannot make a mount fail.
//! 2. A description is written only while the lock is held, and removed before it is released.
//!
//! *Format*: `locks/<volume>`, `locks/.readers` and `locks/.writers` are empty (no volume has a name with a leading dot). The description has a file of its own,
//! `locks/<volume>~` (nor one with a tilde), because Windows lets nobody read a locked file. It is plain lines `key=value`, ended by `end`; bytes
//! outside printable ASCII, and `%`, as `%xx`. Unknown keys are skipped. Rebuildable, so neither synced nor versioned.
//!
//! *Bounds*: at most [`BODY_BYTES_MAX`] bytes of a description are read.
//!
//! *Not here*: the lock that counts between machines, which is the exclusive creation of the next head.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    disk::{Disk, DiskLock},
    error::{Error, Result},
    id::VolumeName,
};

#[cfg(not(unix))]
#[path = "lock/other.rs"]
mod system;
#[cfg(unix)]
#[path = "lock/unix.rs"]
mod system;

/// Most that is read of a description.
pub const BODY_BYTES_MAX: u64 = 16 << 10;

/// Who holds a lock, as far as it said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Process id on its host.
    pub pid: u32,
    /// Host name.
    pub host: String,
    /// Identity of the host's present run, which tells a process from one of the same id before a restart; empty where there is none.
    pub boot_id: String,
    /// When the lock was taken, in seconds since 1970.
    pub started: u64,
    /// Where the volume is mounted.
    pub mountpoint: Option<PathBuf>,
    /// Where the holder answers requests.
    pub control_socket: Option<PathBuf>,
}

impl Holder {
    /// This process, not mounted anywhere yet.
    pub fn this_process(started: u64) -> Self {
        let host = system::host_name();
        Self {
            pid: std::process::id(),
            host,
            boot_id: system::boot_id(),
            started,
            mountpoint: None,
            control_socket: None,
        }
    }

    /// Whether this is known to be a process that has ended. `here` describes the asking process; of another host nothing is known.
    fn has_ended(&self, here: &Self) -> bool {
        self.host == here.host && (self.boot_id != here.boot_id || !system::is_alive(self.pid))
    }

    /// The text of a description.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut line = |key: &str, value: &[u8]| {
            body.extend_from_slice(key.as_bytes());
            body.push(b'=');
            escape(value, &mut body);
            body.push(b'\n');
        };
        line("pid", self.pid.to_string().as_bytes());
        line("host", self.host.as_bytes());
        line("boot", self.boot_id.as_bytes());
        line("started", self.started.to_string().as_bytes());
        for (key, path) in [("mountpoint", &self.mountpoint), ("socket", &self.control_socket)] {
            if let Some(path) = path {
                line(key, path.as_os_str().as_encoded_bytes());
            }
        }
        body.extend_from_slice(b"end\n");
        body
    }

    /// Reads a description; `None` if there is none or it is incomplete, as while it is being written.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut holder = Self::default();
        for line in body.split(|&b| b == b'\n') {
            if line == b"end" {
                return (holder.pid != 0).then_some(holder);
            }
            let (key, value) = line.split_at(line.iter().position(|&b| b == b'=')?);
            let value = unescape(&value[1..])?;
            let text = || String::from_utf8_lossy(&value).into_owned();
            match key {
                b"pid" => holder.pid = text().parse().ok()?,
                b"host" => holder.host = text(),
                b"boot" => holder.boot_id = text(),
                b"started" => holder.started = text().parse().ok()?,
                b"mountpoint" => holder.mountpoint = Some(system::path(value).into()),
                b"socket" => holder.control_socket = Some(system::path(value).into()),
                _ => {}
            }
        }
        None
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)?;
        match &self.mountpoint {
            Some(path) => write!(f, ", mounted at {}", path.display()),
            None => Ok(()),
        }
    }
}

/// What looking at a lock showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockState {
    /// Nobody holds it.
    Free,
    /// Somebody does, and described itself unless it is just starting or ending.
    Held(Option<Holder>),
}

/// The right to write one volume, as long as this value lives.
#[derive(Debug)]
pub struct VolumeLock {
    disk: Arc<dyn Disk>,
    /// Where the holder describes itself.
    description: PathBuf,
    _lock: Box<dyn DiskLock>,
}

impl VolumeLock {
    /// Takes the lock without waiting; [`Error::Locked`] names who holds it.
    pub fn acquire(disk: Arc<dyn Disk>, repository: &Path, volume: &VolumeName, holder: &Holder) -> Result<Self> {
        let path = lock_path(&*disk, repository, volume.as_str())?;
        let description = description_path(repository, volume);
        let Some(lock) = disk.lock(&path, true).map_err(|e| lock_error(&path, e))? else {
            let holder = match read_body(&*disk, &description)?.filter(|found| !found.has_ended(holder)) {
                Some(found) => found.to_string(),
                None => "another process".to_string(),
            };
            return Err(Error::Locked { volume: volume.to_string(), holder });
        };
        let held = Self { disk, description, _lock: lock };
        held.update(holder)?;
        Ok(held)
    }

    /// Rewrites the description, as when the mountpoint is known.
    pub fn update(&self, holder: &Holder) -> Result<()> {
        let body = holder.encode();
        let write = || {
            let file = match self.disk.open_write(&self.description) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.create_new(&self.description)?,
                other => other?,
            };
            file.write_all_at(&body, 0)?;
            file.set_len(body.len() as u64)
        };
        write().map_err(|e| lock_error(&self.description, e))
    }
}

impl Drop for VolumeLock {
    fn drop(&mut self) {
        if let Err(e) = self.disk.remove(&self.description) {
            // Only a message depends on it: the description outlives the lock.
            log::debug!("cannot remove {}: {e}", self.description.display());
        }
    }
}

/// Looks who holds the lock of a volume, without taking it.
pub fn read_holder(disk: &dyn Disk, repository: &Path, volume: &VolumeName) -> Result<LockState> {
    let path = repository.join("locks").join(volume.as_str());
    if !disk.is_locked(&path).map_err(|e| lock_error(&path, e))? {
        return Ok(LockState::Free);
    }
    let here = Holder::this_process(0);
    let description = description_path(repository, volume);
    Ok(LockState::Held(read_body(disk, &description)?.filter(|found| !found.has_ended(&here))))
}

/// The lock that readers share and the delete step of gc takes alone.
#[derive(Debug)]
pub struct ReaderLock {
    _lock: Option<Box<dyn DiskLock>>,
}

impl ReaderLock {
    /// Keeps packs from being deleted as long as this value lives; `None` while a delete step runs. In a repository that cannot be written, and that
    /// no writer has locked yet, there is nothing to lock, and reading goes on without.
    pub fn share(disk: &dyn Disk, repository: &Path) -> Result<Option<Self>> {
        let path = match lock_path(disk, repository, ".readers") {
            Ok(path) => path,
            Err(Error::Io { source, .. }) if cannot_write(&source) => return Ok(Some(Self { _lock: None })),
            Err(e) => return Err(e),
        };
        match disk.lock(&path, false) {
            Ok(lock) => Ok(lock.map(|lock| Self { _lock: Some(lock) })),
            Err(e) if cannot_write(&e) => Ok(Some(Self { _lock: None })),
            Err(e) => Err(lock_error(&path, e)),
        }
    }

    /// Keeps readers out as long as this value lives; `None` while there are any.
    pub fn exclude(disk: &dyn Disk, repository: &Path) -> Result<Option<Self>> {
        let path = lock_path(disk, repository, ".readers")?;
        let lock = disk.lock(&path, true).map_err(|e| lock_error(&path, e))?;
        Ok(lock.map(|lock| Self { _lock: Some(lock) }))
    }
}

/// The lock that every process shares which can write to a repository, and that a run of gc takes alone: others would rely on
/// packs that are about to go.
#[derive(Debug)]
pub struct WriterLock {
    _lock: Box<dyn DiskLock>,
}

impl WriterLock {
    /// Keeps a gc of another process away as long as this value lives; `None` while one runs.
    pub fn share(disk: &dyn Disk, repository: &Path) -> Result<Option<Self>> {
        Self::take(disk, repository, false)
    }

    /// Keeps other writers away as long as this value lives; `None` while there are any.
    pub fn exclude(disk: &dyn Disk, repository: &Path) -> Result<Option<Self>> {
        Self::take(disk, repository, true)
    }

    fn take(disk: &dyn Disk, repository: &Path, exclusive: bool) -> Result<Option<Self>> {
        let path = lock_path(disk, repository, ".writers")?;
        let lock = disk.lock(&path, exclusive).map_err(|e| lock_error(&path, e))?;
        Ok(lock.map(|lock| Self { _lock: lock }))
    }
}

fn cannot_write(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

fn lock_error(path: &Path, e: io::Error) -> Error {
    Error::io(format!("lock {}", path.display()), e)
}

fn lock_path(disk: &dyn Disk, repository: &Path, name: &str) -> Result<PathBuf> {
    let dir = repository.join("locks");
    if disk.metadata(&dir).map_err(|e| lock_error(&dir, e))?.is_none() {
        disk.create_dir(&dir).map_err(|e| lock_error(&dir, e))?;
    }
    Ok(dir.join(name))
}

fn description_path(repository: &Path, volume: &VolumeName) -> PathBuf {
    repository.join("locks").join(format!("{volume}~"))
}

fn read_body(disk: &dyn Disk, path: &Path) -> Result<Option<Holder>> {
    let read = || {
        let file = disk.open_read(path)?;
        let mut body = vec![0; file.len()?.min(BODY_BYTES_MAX) as usize];
        file.read_exact_at(&mut body, 0).map(|()| body)
    };
    match read() {
        Ok(body) => Ok(Holder::decode(&body)),
        // It got shorter or vanished while it was read: the holder is ending.
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) => Ok(None),
        Err(e) => Err(lock_error(path, e)),
    }
}

fn escape(value: &[u8], out: &mut Vec<u8>) {
    for &b in value {
        if (b' '..=b'~').contains(&b) && b != b'%' {
            out.push(b);
        } else {
            out.push(b'%');
            out.extend_from_slice(crate::id::hex(&[b]).as_bytes());
        }
    }
}

fn unescape(mut value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    while let Some((&b, rest)) = value.split_first() {
        value = rest;
        if b == b'%' {
            let (digits, rest) = value.split_at_checked(2)?;
            out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            value = rest;
        } else {
            out.push(b);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::disk::LocalDisk;

    fn setup() -> (tempfile::TempDir, Arc<dyn Disk>, VolumeName, Holder) {
        let dir = tempfile::tempdir().unwrap();
        (dir, Arc::new(LocalDisk), VolumeName::new("main").unwrap(), Holder::this_process(1_700_000_000))
    }

    #[test]
    fn second_writer_is_told_who_holds_the_volume() {
        let (dir, disk, volume, mut holder) = setup();
        let lock = VolumeLock::acquire(disk.clone(), dir.path(), &volume, &holder).unwrap();
        holder.mountpoint = Some("/mnt/a place".into());
        lock.update(&holder).unwrap();
        let error = VolumeLock::acquire(disk.clone(), dir.path(), &volume, &holder).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Locked { .. }), "{text}");
        assert!(text.contains(&format!("process {}", std::process::id())) && text.contains("/mnt/a place"), "{text}");
        drop(lock);
        VolumeLock::acquire(disk, dir.path(), &volume, &holder).unwrap();
    }

    #[test]
    fn looking_at_a_lock_neither_takes_nor_hides_it() {
        let (dir, disk, volume, holder) = setup();
        assert_eq!(read_holder(&*disk, dir.path(), &volume).unwrap(), LockState::Free);
        let lock = VolumeLock::acquire(disk.clone(), dir.path(), &volume, &holder).unwrap();
        for _ in 0..2 {
            assert_eq!(read_holder(&*disk, dir.path(), &volume).unwrap(), LockState::Held(Some(holder.clone())));
        }
        drop(lock);
        assert_eq!(read_holder(&*disk, dir.path(), &volume).unwrap(), LockState::Free);
    }

    #[test]
    fn volumes_are_locked_apart_and_one_may_be_called_readers() {
        let (dir, disk, main, holder) = setup();
        let readers = VolumeName::new("readers").unwrap();
        let _main = VolumeLock::acquire(disk.clone(), dir.path(), &main, &holder).unwrap();
        let _readers = VolumeLock::acquire(disk.clone(), dir.path(), &readers, &holder).unwrap();
        assert!(ReaderLock::share(&*disk, dir.path()).unwrap().is_some());
    }

    #[test]
    fn description_of_a_dead_process_is_ignored() {
        let (dir, disk, volume, holder) = setup();
        let path = dir.path().join("locks/main");
        std::fs::create_dir(dir.path().join("locks")).unwrap();
        // Ids beyond the largest that Linux hands out belong to nobody.
        let dead = Holder { pid: 0x7fff_fff0, ..holder.clone() };
        let before_restart = Holder { boot_id: "of an earlier run".into(), ..holder.clone() };
        for stale in [dead, before_restart] {
            std::fs::write(dir.path().join("locks/main~"), stale.encode()).unwrap();
            assert_eq!(read_holder(&*disk, dir.path(), &volume).unwrap(), LockState::Free);
            // Somebody holds the lock who has not described itself yet.
            let raw = disk.lock(&path, true).unwrap().unwrap();
            assert_eq!(read_holder(&*disk, dir.path(), &volume).unwrap(), LockState::Held(None));
            let error = VolumeLock::acquire(disk.clone(), dir.path(), &volume, &holder).unwrap_err();
            assert!(error.to_string().ends_with("another process"), "{error}");
            drop(raw);
            drop(VolumeLock::acquire(disk.clone(), dir.path(), &volume, &holder).unwrap());
        }
    }

    #[test]
    fn holder_of_another_host_is_believed() {
        let (dir, disk, volume, holder) = setup();
        let other = Holder { pid: 0x7fff_fff0, host: "elsewhere.example".into(), ..holder };
        let _lock = VolumeLock::acquire(disk.clone(), dir.path(), &volume, &other).unwrap();
        assert_eq!(read_holder(&*disk, dir.path(), &volume).unwrap(), LockState::Held(Some(other)));
    }

    #[test]
    fn readers_share_and_the_delete_step_waits_for_all_of_them() {
        let (dir, disk, ..) = setup();
        let first = ReaderLock::share(&*disk, dir.path()).unwrap().unwrap();
        let second = ReaderLock::share(&*disk, dir.path()).unwrap().unwrap();
        assert!(ReaderLock::exclude(&*disk, dir.path()).unwrap().is_none());
        drop(first);
        assert!(ReaderLock::exclude(&*disk, dir.path()).unwrap().is_none());
        drop(second);
        let delete = ReaderLock::exclude(&*disk, dir.path()).unwrap().unwrap();
        assert!(ReaderLock::share(&*disk, dir.path()).unwrap().is_none());
        drop(delete);
        assert!(ReaderLock::share(&*disk, dir.path()).unwrap().is_some());
    }

    #[test]
    fn descriptions_round_trip_with_odd_paths_and_hosts() {
        let odd = Holder {
            mountpoint: Some(system::path(b"/a=b%\n\xff end\nend".to_vec()).into()),
            control_socket: Some("/run/user/0/s".into()),
            host: "h=\n".into(),
            ..Holder::this_process(7)
        };
        assert_eq!(Holder::decode(&odd.encode()), Some(odd));
    }

    #[test]
    fn cut_or_odd_descriptions_are_none() {
        let whole = Holder::this_process(7).encode();
        for length in 0..whole.len() - 1 {
            assert_eq!(Holder::decode(&whole[..length]), None, "{length}");
        }
        for body in [
            &b"end\n"[..],
            b"pid=x\nend\n",
            b"pid=1\nhost=%f\nend\n",
            b"pid=99999999999\nend\n",
            b"\xff\xfe",
            b"pid=\xc3\x28\nend",
        ] {
            assert_eq!(Holder::decode(body), None);
        }
        assert!(Holder::decode(b"pid=1\nsomething=new\nend\nleftover of a longer one").is_some());
    }
}
