//! An open object in a directory: a preallocated file that is appended to, synced in place and renamed when it is complete.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::spawn::turns::Mutex;

use super::{Shared, parent};
use crate::{
    backend::{ObjectName, OpenName, OpenObject, Put},
    disk::DiskFile,
    error::{Error, Result},
};

/// The directory of open objects.
const OPEN_DIR: &str = "packs/open";

/// When a reservation is given up, room for the trailer stays, so that what is in the file can be completed: this much, ..
const RESERVE_KEPT: u64 = 64 << 10;
/// .. and this part of what was appended, for the padding.
const RESERVE_KEPT_PART: u64 = 16;

/// How often something is tried again with what reservations and the reserve held; each time there was more.
const ROOM_RETRIES_MAX: u32 = 64;

#[derive(Debug)]
pub(super) struct LocalOpen {
    shared: Arc<Shared>,
    name: OpenName,
    path: PathBuf,
    body: Arc<Body>,
}

/// The file of an open object.
#[derive(Debug)]
struct Body {
    file: Box<dyn DiskFile>,
    /// Bytes appended; written under the lock, read without it.
    length: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Length of the file, reserved bytes included.
    file_length: u64,
    name_durable: bool,
    /// Why nothing can be appended, synced or published any more.
    closed: Option<Error>,
    /// It has its name for good, and all of it is durable.
    published: bool,
}

/// The open objects of a backend. What they have reserved and not yet filled is space that nobody uses: it is given back before
/// anybody is told that the disk is full (P6).
#[derive(Debug, Default)]
pub(super) struct Reserves {
    bodies: Mutex<Vec<Weak<Body>>>,
    /// How often space was given back.
    given_up: AtomicU64,
    /// Held while that is done: who comes second waits for the first, and finds its room.
    giving_up: Mutex<()>,
}

impl Reserves {
    fn add(&self, body: &Arc<Body>) {
        let mut bodies = self.bodies.lock();
        bodies.retain(|body| body.strong_count() > 0);
        bodies.push(Arc::downgrade(body));
    }

    /// What tells whether space was given back since.
    pub(super) fn seen(&self) -> u64 {
        self.given_up.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Tries again with what reservations held, then with the reserve, if there was no space. The caller holds no lock of an object.
    pub(super) fn with_room<T>(&self, f: impl FnMut() -> Result<T>) -> Result<T> {
        self.with_room_or_reserve(true, f)
    }

    pub(super) fn with_room_or_reserve<T>(&self, use_reserve: bool, mut f: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 0..ROOM_RETRIES_MAX {
            let seen = self.reserves.seen();
            match f() {
                Err(Error::NoSpace { .. }) if self.make_room(seen, use_reserve) => {}
                result => return result,
            }
        }
        f()
    }

    /// Cuts all open objects to what is in them, and room for their trailers; if that gives nothing, the reserve by a slice. Returns whether space
    /// was given back, by this call or by another since `seen`.
    pub(super) fn make_room(&self, seen: u64, use_reserve: bool) -> bool {
        let _giving_up = self.reserves.giving_up.lock();
        let bodies: Vec<_> = self.reserves.bodies.lock().iter().filter_map(Weak::upgrade).collect();
        let mut gained = bodies.iter().filter(|body| body.give_up_reserve()).count() as u64;
        if gained == 0 && self.reserves.seen() == seen && use_reserve {
            gained = u64::from(self.give_up_slice());
        }
        self.reserves.given_up.fetch_add(gained, Ordering::AcqRel) + gained != seen
    }
}

impl Body {
    fn len(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    fn give_up_reserve(&self) -> bool {
        let mut state = self.state.lock();
        let length = self.len();
        // Of one that takes nothing more, nothing is kept: its content has to go elsewhere.
        let room = if state.closed.is_some() { 0 } else { RESERVE_KEPT + length / RESERVE_KEPT_PART };
        // A short write has left a length that nobody noted.
        let on_disk = match state.file_length {
            u64::MAX => self.file.len().unwrap_or(length),
            known => known,
        };
        let kept = on_disk.min(length + room);
        if kept == on_disk || self.file.set_len(kept).is_err() {
            return false;
        }
        state.file_length = kept;
        true
    }
}

impl LocalOpen {
    pub(super) fn create(shared: Arc<Shared>, size_hint: u64) -> Result<Self> {
        shared.ensure_dir(OPEN_DIR)?;
        let name = OpenName::random();
        let path = shared.path(&name.to_string());
        let file = shared.disk.create_new(&path).map_err(|e| shared.error("create", &path, e))?;
        if size_hint > 0
            && let Err(e) = file.allocate(0, size_hint)
        {
            shared.remove_quietly(&path);
            return Err(shared.error("reserve space for", &path, e));
        }
        let state = Mutex::new(State { file_length: size_hint, name_durable: false, closed: None, published: false });
        let body = Arc::new(Body { file, length: AtomicU64::new(0), state });
        shared.reserves.add(&body);
        Ok(Self { shared, name, path, body })
    }

    fn closed(&self, state: &State) -> Result<()> {
        state.closed.clone().map_or(Ok(()), Err)
    }

    /// Notes the first failure; nothing that would need a sync of this file is tried again.
    fn poison(&self, state: &mut State, verb: &str, e: io::Error) -> Error {
        let error = self.shared.error(verb, &self.path, e);
        state.closed = Some(error.clone());
        error
    }

    /// As [`Self::poison`], but leaves the object as it was if there was no space: cutting and renaming can be tried again.
    fn refuse(&self, state: &mut State, verb: &str, e: io::Error) -> Error {
        match self.shared.error(verb, &self.path, e) {
            error @ Error::NoSpace { .. } => error,
            error => state.closed.insert(error).clone(),
        }
    }

    /// Notes a failed sync, after which this file is never synced again.
    fn fail_sync(&self, state: &mut State, e: io::Error) -> Error {
        state.closed.insert(Error::sync(format!("sync {}", self.path.display()), e)).clone()
    }

    fn append_once(&self, bytes: &[u8]) -> Result<u64> {
        let mut state = self.body.state.lock();
        self.closed(&state)?;
        let offset = self.len();
        if let Err(e) = self.body.file.write_all_at(bytes, offset) {
            // The disk is full: the bytes are not part of the object, which can still be completed within its reserve.
            if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                // A part may have been written behind the end. It is cut off at once: given up later, it would look like room for others.
                let before = if state.file_length == u64::MAX { offset } else { state.file_length.max(offset) };
                state.file_length = match self.body.file.set_len(before) {
                    Ok(()) => before,
                    Err(_) => u64::MAX,
                };
                return Err(self.shared.error("append to", &self.path, e));
            }
            return Err(self.poison(&mut state, "append to", e));
        }
        let end = offset + bytes.len() as u64;
        state.file_length = state.file_length.max(end);
        self.body.length.store(end, Ordering::Release);
        Ok(offset)
    }

    fn publish_once(&self, name: &ObjectName) -> Result<Put> {
        let dir = parent(name.as_str());
        self.shared.ensure_dir(dir)?;
        let mut state = self.body.state.lock();
        self.closed(&state)?;
        let put = self.publish_as(&mut state, name)?;
        state.closed = Some(Error::Invalid { what: format!("{} was published as {name} already", self.name) });
        // F1, F3: the name counts once its directory is durable. The directory it left is synced as well, because not every filesystem moves a name
        // between directories in one step.
        let synced = self.shared.sync_dir(dir).and_then(|()| self.shared.sync_dir(OPEN_DIR));
        synced.inspect_err(|e| state.closed = Some(e.clone()))?;
        state.published = true;
        Ok(put)
    }

    /// The steps of publication, up to the name.
    fn publish_as(&self, state: &mut State, name: &ObjectName) -> Result<Put> {
        let length = self.len();
        if state.file_length != length {
            self.body.file.set_len(length).map_err(|e| self.refuse(state, "cut", e))?;
            state.file_length = length;
        }
        // F1: durable bytes before the name by which an index can refer to them.
        self.body.file.sync_data().map_err(|e| self.fail_sync(state, e))?;
        match self.shared.disk.rename_new(&self.path, &self.shared.path(name.as_str())) {
            Ok(()) => Ok(Put::Stored),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.shared.remove_quietly(&self.path);
                Ok(Put::Exists)
            }
            Err(e) => Err(self.refuse(state, "publish", e)),
        }
    }
}

impl OpenObject for LocalOpen {
    fn name(&self) -> &OpenName {
        &self.name
    }

    fn append(&self, bytes: &[u8]) -> Result<u64> {
        self.shared.with_room(|| self.append_once(bytes))
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let object = self.name.to_string();
        if offset.checked_add(u64::from(length)).is_none_or(|end| end > self.len()) {
            return Err(Error::corrupt(object, format!("truncated: {length} bytes at {offset} were not appended")));
        }
        self.shared.read(&*self.body.file, &object, offset, length as usize)
    }

    fn len(&self) -> u64 {
        self.body.len()
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.body.state.lock();
        if state.published {
            return Ok(());
        }
        self.closed(&state)?;
        self.body.file.sync_data().map_err(|e| self.fail_sync(&mut state, e))?;
        if !state.name_durable {
            // F6: replay finds the object by its name.
            self.shared.sync_dir(OPEN_DIR).inspect_err(|e| state.closed = Some(e.clone()))?;
            state.name_durable = true;
        }
        Ok(())
    }

    fn publish(&self, name: &ObjectName) -> Result<Put> {
        self.shared.with_room(|| self.publish_once(name))
    }

    fn discard(&self) {
        let mut state = self.body.state.lock();
        if state.closed.is_none() {
            state.closed = Some(Error::Invalid { what: format!("{} was discarded", self.name) });
        }
        // After publication the open name is gone, and the removal finds nothing.
        self.shared.remove_quietly(&self.path);
    }
}
