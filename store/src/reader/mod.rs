//! The read path: a blob's plaintext from the cache, from what is in flight, or from a pack.
//!
//! *Invariants*
//! 1. Every blob read from a file is unsealed, which proves its tag, and its id is recomputed (P2); nothing else gets into the cache.
//! 2. One thread at a time loads a blob; others that want it wait for the same answer.
//! 3. A damaged or missing copy is tried once per read and noted as suspect; another location answers if there is one.
//! 4. A pack that is gone is damage, never "not found": callers trust that difference.
//!
//! *Threads*: any reader loads in its own thread; two threads named `read-ahead-N` load what is likely to be asked for next. The
//! locks are leaves; none is held while reading or unsealing.
//!
//! *Bounds*: the cache's bytes; [`QUEUE_BYTES_MAX`] of requests wait to be read ahead, and what is more is dropped, since it is a hint.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    backend::{Backend, ObjectName, OpenName},
    cache::BlobCache,
    crypto::BlobSealer,
    error::{Error, Result},
    id::{BlobId, BlobKind},
    index::{Index, LOCATIONS_MAX, Location},
    pack::PackEntry,
    pipeline::{Found, InFlight, Suspects, gate::Gate},
    spawn::{JoinHandle, Spawner},
};

mod ahead;

/// Places of a blob that one read tries: all that the index has, and those of a gc that moves it meanwhile.
const PLACES_TRIED_MAX: usize = 2 * LOCATIONS_MAX;
const FLIGHT_SHARDS: usize = 16;
const READ_AHEAD_THREADS: usize = 2;
/// Plaintext bytes that may wait to be read ahead.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;

type Loaded = Result<Arc<[u8]>>;

/// One load that is under way.
type Flight = Gate<Option<Loaded>>;

/// Reads the blobs of one repository.
pub(crate) struct BlobReader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle>,
}

/// What a reader works with.
pub(crate) struct ReaderParts {
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) index: Arc<Index>,
    pub(crate) sealer: Arc<BlobSealer>,
    pub(crate) inflight: Arc<InFlight>,
    pub(crate) suspects: Arc<Suspects>,
    pub(crate) cache_bytes: usize,
}

struct Shared {
    parts: ReaderParts,
    cache: BlobCache,
    flights: Vec<Mutex<HashMap<BlobId, Arc<Flight>>>>,
    /// Blobs in leftover open packs, where nothing may be written.
    adopted: Mutex<HashMap<BlobId, (OpenName, PackEntry)>>,
    ahead: Gate<Ahead>,
}

/// What waits to be read ahead.
#[derive(Debug, Default)]
struct Ahead {
    requests: VecDeque<(BlobId, u32)>,
    bytes: usize,
    closed: bool,
}

impl BlobReader {
    /// Starts the threads that read ahead.
    pub(crate) fn start(parts: ReaderParts) -> Result<Self> {
        let spawner = parts.spawner.clone();
        let shared = Arc::new(Shared {
            cache: BlobCache::new(parts.cache_bytes),
            flights: (0..FLIGHT_SHARDS).map(|_| Mutex::default()).collect(),
            adopted: Mutex::default(),
            ahead: Gate::default(),
            parts,
        });
        let mut reader = Self { shared, threads: Vec::with_capacity(READ_AHEAD_THREADS) };
        for number in 0..READ_AHEAD_THREADS {
            let name = format!("read-ahead-{number}");
            let shared = reader.shared.clone();
            let thread = spawner.spawn(&name, Box::new(move || shared.read_ahead()));
            reader.threads.push(thread.map_err(|e| Error::io(format!("start thread {name}"), e))?);
        }
        Ok(reader)
    }

    /// Reads a blob of at most `plain_length` bytes.
    pub(crate) fn read(&self, kind: BlobKind, id: &BlobId, plain_length: u32) -> Loaded {
        let bytes = match self.shared.cache.get(id) {
            Some(bytes) => bytes,
            None => self.shared.load_once(kind, id, plain_length)?,
        };
        if bytes.len() > plain_length as usize {
            let what = format!("{} bytes, where {plain_length} are expected", bytes.len());
            return Err(Error::corrupt(format!("blob {id}"), what));
        }
        Ok(bytes)
    }

    /// A blob's plaintext, if it is in memory.
    pub(crate) fn read_cached(&self, id: &BlobId) -> Option<Arc<[u8]>> {
        self.shared.cache.get(id).or_else(|| match self.shared.parts.inflight.find(id)? {
            Found::Plain(plain) => Some(Arc::from(&plain[..])),
            Found::Places(_) => None,
        })
    }

    /// Asks for chunks to be read into the cache in the background; adjacent ones of a pack with one read.
    pub(crate) fn ask_ahead(&self, chunks: &[(BlobId, u32)]) {
        let queued = self.shared.ahead.with(|ahead| {
            let before = ahead.requests.len();
            for &(id, plain_length) in chunks {
                if ahead.bytes + plain_length as usize > QUEUE_BYTES_MAX {
                    break;
                }
                if !self.shared.cache.contains(&id) {
                    ahead.bytes += plain_length as usize;
                    ahead.requests.push_back((id, plain_length));
                }
            }
            ahead.requests.len() > before
        });
        if queued {
            self.shared.ahead.notify_one();
        }
    }

    /// Reads a blob from a leftover open pack from here on, if the index does not know it.
    pub(crate) fn adopt(&self, open: &OpenName, entry: &PackEntry) {
        self.shared.adopted.lock().insert(entry.id, (open.clone(), *entry));
    }

    /// Whether a blob was adopted.
    pub(crate) fn has_adopted(&self, id: &BlobId) -> bool {
        self.shared.adopted.lock().contains_key(id)
    }

    /// Bytes of plaintext in the cache.
    pub(crate) fn cached_bytes(&self) -> usize {
        self.shared.cache.bytes()
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.shared.ahead.with(|ahead| {
            ahead.closed = true;
            ahead.requests.clear();
        });
        self.shared.ahead.notify_all();
        self.threads.drain(..).for_each(JoinHandle::join);
    }
}

impl Shared {
    fn flights(&self, id: &BlobId) -> &Mutex<HashMap<BlobId, Arc<Flight>>> {
        &self.flights[id.0[2] as usize % FLIGHT_SHARDS]
    }

    /// Becomes the loader of a blob (`Ok`), or finds the load that is under way.
    fn board(&self, id: &BlobId) -> Result<Arc<Flight>, Arc<Flight>> {
        match self.flights(id).lock().entry(*id) {
            hash_map::Entry::Occupied(occupied) => Err(occupied.get().clone()),
            hash_map::Entry::Vacant(vacant) => Ok(vacant.insert(Arc::new(Flight::default())).clone()),
        }
    }

    /// Gives the answer of a load to all who wait, and to the cache.
    fn land(&self, id: &BlobId, flight: &Flight, loaded: &Loaded) {
        if let Ok(bytes) = loaded {
            self.cache.insert(id, bytes.clone());
        }
        self.flights(id).lock().remove(id);
        flight.with(|slot| *slot = Some(loaded.clone()));
        flight.notify_all();
    }

    fn load_once(&self, kind: BlobKind, id: &BlobId, plain_length: u32) -> Loaded {
        match self.board(id) {
            Err(flight) => flight.wait(&*self.parts.spawner, |slot| slot.clone()),
            Ok(flight) => {
                // Between the look into the cache and boarding, another load may have landed.
                let loaded = match self.cache.get(id) {
                    Some(bytes) => Ok(bytes),
                    None => self.load(kind, id, plain_length),
                };
                self.land(id, &flight, &loaded);
                loaded
            }
        }
    }

    fn load(&self, kind: BlobKind, id: &BlobId, plain_length: u32) -> Loaded {
        // The table of blobs in flight is asked first: what leaves it is in the index by then.
        let mut failure = match self.parts.inflight.find(id) {
            Some(Found::Plain(plain)) => return Ok(Arc::from(&plain[..])),
            Some(Found::Places(places)) => {
                let mut failure = None;
                for place in places {
                    let entry = &place.entry;
                    let sealed = place.pack.object().read_at(u64::from(entry.offset), entry.length);
                    match sealed.and_then(|sealed| self.unseal(kind, id, entry.epoch, &sealed, plain_length)) {
                        Ok(plain) => return Ok(plain.into()),
                        Err(error) => failure = Some(error),
                    }
                }
                failure
            }
            None => None,
        };
        let mut tried: Vec<Location> = Vec::new();
        while tried.len() < PLACES_TRIED_MAX {
            let locations = self.parts.index.lookup(id).map_err(never_not_found)?;
            let Some(location) = locations.iter().find(|location| !tried.contains(location)) else { break };
            match self.load_from(kind, id, location, plain_length) {
                Ok(plain) => return Ok(plain.into()),
                // A gc moved it after its place was looked up.
                Err(_) if self.parts.index.is_removed(&location.pack) => {}
                Err(error) => {
                    // Once: who reads such a file tries again and again.
                    if self.parts.suspects.add(id) {
                        log::warn!("a copy of blob {id} in pack {} cannot be read: {error}", location.pack);
                    }
                    failure.get_or_insert(error);
                }
            }
            tried.push(*location);
        }
        let adopted = self.adopted.lock().get(id).cloned();
        if let Some((open, entry)) = adopted {
            let read = self.parts.backend.read_open(&open, u64::from(entry.offset), entry.length);
            let sealed = read.map_err(never_not_found)?;
            return Ok(self.unseal(kind, id, entry.epoch, &sealed, plain_length)?.into());
        }
        Err(failure.unwrap_or(Error::BlobMissing { id: *id }))
    }

    fn load_from(&self, kind: BlobKind, id: &BlobId, location: &Location, plain_length: u32) -> Result<Vec<u8>> {
        let sealed = self.fetch(location, u64::from(location.offset), location.length)?;
        self.unseal(kind, id, location.epoch, &sealed, plain_length)
    }

    fn fetch(&self, location: &Location, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.parts.spawner.step("read pack");
        self.parts.backend.get_range(&ObjectName::pack(&location.pack), offset, length).map_err(never_not_found)
    }

    fn unseal(&self, kind: BlobKind, id: &BlobId, epoch: u32, sealed: &[u8], plain_length: u32) -> Result<Vec<u8>> {
        // P2: proves the tag and recomputes the id, or fails.
        self.parts.sealer.unseal(kind, epoch, id, sealed, plain_length)
    }
}

/// What the index or the journal names and is not there is damage.
fn never_not_found(error: Error) -> Error {
    match error {
        Error::NotFound { object } => Error::corrupt(object, "it is gone"),
        other => other,
    }
}
