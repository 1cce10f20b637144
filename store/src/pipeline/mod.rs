//! The write path: blobs go in on any thread, are hashed, deduplicated, compressed, sealed and packed by workers.
//!
//! *Invariants*
//! 1. Hash before probe, probe before compress: a blob that is known costs neither compressing nor sealing.
//! 2. From the moment that a submitter knows a blob's id, readers find it: in the in-flight table, then in the index.
//! 3. A blob is a lasting dedup target only once its pack is stored (F1); after a failure nothing is taken any more.
//! 4. After a failure that is not want of space, the pipeline takes nothing more: it is poisoned.
//!
//! *Ordering*: append -> in-flight place -> answer; and in the closer: pack durable -> index -> table.
//!
//! *Threads*: `pipeline-N` workers and `pack-closer`; submitters that wait run jobs themselves ([`ticket`]). All locks are
//! leaves but [`open_pack::OpenPack`]'s sync lock. A wake-up across cores costs about 100 us on a virtual machine, so
//! workers drain the queue, sleepers are woken per batch of bytes, and the stream's leader works for the others.
//!
//! *Bounds*: `pipeline_bytes` of plaintext, and a quarter more of what waits for space; each worker holds one sealed blob more, each stream 2 MiB of them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::spawn::turns::Mutex;

use crate::{
    backend::{Backend, OpenName, OpenObject},
    compress::Scratch,
    crypto::{BlobSealer, Keyring},
    error::{Error, Result},
    id::{BlobId, BlobKind},
    index::Index,
    spawn::{JoinHandle, Spawner},
};

mod budget;
mod closer;
pub(crate) mod gate;
pub(crate) mod inflight;
pub(crate) mod open_pack;
mod queue;
pub(crate) mod stream;
mod suspects;
mod sync;
mod ticket;
mod work;

use budget::Budget;
use closer::Closer;
use inflight::{Claim, Place};
pub(crate) use inflight::{Found, InFlight};
use open_pack::OpenPack;
use queue::{JOB_CHARGE, Job, Queue, Work};
use stream::{Sealed, Stream, StreamKind};
pub(crate) use suspects::Suspects;
use ticket::Answer;
pub use ticket::Ticket;

/// How many copies of a blob are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// One.
    One = 1,
    /// Two, in different packs: for interior nodes and roots, whose loss would take much with it.
    Two = 2,
}

/// What the pipeline works with.
pub(crate) struct PipelineParts {
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) sealer: Arc<BlobSealer>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) index: Arc<Index>,
    pub(crate) suspects: Arc<Suspects>,
    pub(crate) inflight: Arc<InFlight>,
    pub(crate) pack_bytes: u32,
    pub(crate) pipeline_bytes: usize,
    pub(crate) workers: usize,
}

/// What went through a pipeline since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounters {
    /// Blobs that were there already, or in flight.
    pub shared_blobs: u64,
    /// Their plaintext bytes.
    pub shared_bytes: u64,
    /// Blobs that were compressed and sealed; second copies count.
    pub sealed_blobs: u64,
    /// Their sealed bytes.
    pub sealed_bytes: u64,
    /// Most bytes of plaintext that were inside at once.
    pub peak_bytes: u64,
    /// Packs that were stored.
    pub stored: StoredPacks,
}

/// Packs that were stored, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredPacks {
    /// Packs.
    pub packs: u64,
    /// Their bytes as they lie in the storage, padding and trailers included.
    pub pack_bytes: u64,
    /// Blobs in them; second copies count.
    pub blobs: u64,
    /// Sealed bytes of chunks.
    pub data_bytes: u64,
    /// Sealed bytes of tree nodes.
    pub node_bytes: u64,
}

impl StoredPacks {
    /// Counts blobs of one kind, of a pack or of several.
    pub(crate) fn count_blobs(&mut self, kind: BlobKind, blobs: u64, sealed_bytes: u64) {
        self.blobs += blobs;
        match kind {
            BlobKind::Data => self.data_bytes += sealed_bytes,
            BlobKind::Node => self.node_bytes += sealed_bytes,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    shared_blobs: AtomicU64,
    shared_bytes: AtomicU64,
    sealed_blobs: AtomicU64,
    sealed_bytes: AtomicU64,
    stored: Mutex<StoredPacks>,
}

#[derive(Debug, Default)]
struct Failure {
    /// The first failure after which nothing more is taken.
    poison: Option<Error>,
    /// A failure of a blob whose submitter went on with the id alone; told by the next flush.
    untold: Option<Error>,
    /// Blobs that wait for space, with why.
    parked: Vec<(BlobKind, BlobId)>,
    parked_bytes: usize,
    no_space: Option<Error>,
}

impl Failure {
    fn park(&mut self, kind: BlobKind, id: &BlobId, plain_length: u32, error: &Error) {
        self.parked.push((kind, *id));
        self.parked_bytes += plain_length as usize + JOB_CHARGE;
        self.no_space = Some(error.clone());
    }

    fn take_parked(&mut self) -> Vec<(BlobKind, BlobId)> {
        if !self.parked.is_empty() {
            (self.parked_bytes, self.untold, self.no_space) = (0, None, None);
        }
        std::mem::take(&mut self.parked)
    }
}

/// What all threads of a pipeline share.
pub(crate) struct Shared {
    spawner: Arc<dyn Spawner>,
    keyring: Arc<Keyring>,
    sealer: Arc<BlobSealer>,
    backend: Arc<dyn Backend>,
    index: Arc<Index>,
    suspects: Arc<Suspects>,
    pack_bytes: u32,
    budget: Budget,
    queue: Queue,
    inflight: Arc<InFlight>,
    streams: [Stream; 3],
    closer: Closer,
    /// For helpers; workers have their own.
    scratches: Mutex<Vec<Scratch>>,
    failure: Mutex<Failure>,
    flush_turn: Mutex<()>,
    parked_bytes_max: usize,
    counters: Counters,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// A running pipeline; dropping it ends its threads and leaves open packs as they are, for the journal may name them.
#[derive(Debug)]
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle>,
}

impl Pipeline {
    /// Starts the threads.
    pub(crate) fn start(parts: PipelineParts) -> Result<Self> {
        let workers = parts.workers.max(1);
        let shared = Arc::new(Shared {
            spawner: parts.spawner,
            keyring: parts.keyring,
            sealer: parts.sealer,
            backend: parts.backend,
            index: parts.index,
            suspects: parts.suspects,
            pack_bytes: parts.pack_bytes,
            parked_bytes_max: parts.pipeline_bytes / 4,
            budget: Budget::new(parts.pipeline_bytes),
            queue: Queue::new(workers),
            inflight: parts.inflight,
            streams: StreamKind::ALL.map(Stream::new),
            closer: Closer::default(),
            scratches: Mutex::default(),
            failure: Mutex::default(),
            flush_turn: Mutex::new(()),
            counters: Counters::default(),
        });
        let mut pipeline = Self { shared, threads: Vec::with_capacity(workers + 1) };
        for number in 0..workers {
            pipeline.spawn(&format!("pipeline-{number}"), Shared::work)?;
        }
        pipeline.spawn("pack-closer", |shared| shared.closer.run(shared))?;
        Ok(pipeline)
    }

    fn spawn(&mut self, name: &str, life: fn(&Shared)) -> Result<()> {
        let shared = self.shared.clone();
        let thread = self.shared.spawner.spawn(name, Box::new(move || life(&shared)));
        self.threads.push(thread.map_err(|e| Error::io(format!("start thread {name}"), e))?);
        Ok(())
    }

    /// Submits a chunk; a worker hashes it. Waits while the budget is full.
    pub(crate) fn submit_data(&self, plain: Vec<u8>) -> Result<Ticket> {
        let shared = &self.shared;
        shared.check(&plain)?;
        let charge = plain.len() + JOB_CHARGE;
        shared.enter(charge);
        let answer = Arc::new(Answer::default());
        shared.queue.push(|sequence| Job {
            kind: BlobKind::Data,
            work: Work::Hash(plain),
            answer: Some(answer.clone()),
            charge,
            sequence,
        });
        Ok(Ticket::waiting(shared.clone(), answer))
    }

    /// Hashes a blob in the caller's thread and submits it. It can be read by its id from here on.
    pub(crate) fn put(&self, kind: BlobKind, plain: Vec<u8>, copies: Copies) -> Result<(BlobId, Ticket)> {
        assert!(kind == BlobKind::Node || copies == Copies::One, "only nodes are stored twice");
        let shared = &self.shared;
        shared.check(&plain)?;
        let id = shared.keyring.blob_id(kind, &plain);
        let charge = plain.len() + JOB_CHARGE;
        shared.enter(charge);
        let length = plain.len();
        match shared.inflight.claim(&id, copies as u8, Arc::new(plain), None) {
            Claim::New(answer) => {
                shared.queue.push(|sequence| Job { kind, work: Work::Claimed(id), answer: None, charge, sequence });
                Ok((id, Ticket::waiting(shared.clone(), answer)))
            }
            joined_or_held => {
                shared.budget.give(charge);
                shared.note_hit(length);
                let ticket = match joined_or_held {
                    Claim::Joined(answer) => Ticket::waiting(shared.clone(), answer),
                    _ => Ticket::done(id),
                };
                Ok((id, ticket))
            }
        }
    }

    /// Puts a blob that is sealed already into a pack, after the caller verified it; returns once it is there.
    pub(crate) fn put_sealed(
        &self,
        kind: BlobKind,
        id: &BlobId,
        plain: Vec<u8>,
        epoch: u32,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let shared = &self.shared;
        shared.check(&plain)?;
        let plain_length = plain.len() as u32;
        match shared.inflight.claim(id, 1, Arc::new(plain), None) {
            Claim::New(answer) => {
                let stream = if kind == BlobKind::Data { StreamKind::Data } else { StreamKind::Node };
                shared.streams[stream as usize].append(shared, Sealed { id: *id, plain_length, epoch, bytes });
                shared.help_until(&answer).map(drop)
            }
            Claim::Joined(answer) => shared.help_until(&answer).map(drop),
            Claim::Held => Ok(()),
        }
    }

    /// Has a blob stored again when it is put the next time, whatever the index says.
    pub(crate) fn suspect(&self, id: &BlobId) {
        self.shared.suspects.add(id);
    }

    /// Waits until everything submitted before is in an open or stored pack, and tries again what waits for space; tells why a
    /// blob of [`Self::put`] could not be stored.
    pub(crate) fn flush(&self) -> Result<()> {
        // One at a time: a second one would take the parked blobs and their failure away from under the first, which would
        // then call stored what is not.
        let _turn = self.shared.flush_turn.lock();
        self.shared.retry_parked();
        self.shared.help_until_idle();
        let mut failure = self.shared.failure.lock();
        match failure.untold.take().or_else(|| failure.poison.clone()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Waits until everything submitted before is in a pack or has failed.
    pub(crate) fn settle(&self) {
        self.shared.help_until_idle();
    }

    /// Closes the packs that are being filled, and waits until all closed ones are stored (F1).
    pub(crate) fn store_packs(&self) -> Result<()> {
        for stream in &self.shared.streams {
            stream.close(&self.shared);
        }
        self.shared.closer.drain(&self.shared)?;
        match &self.shared.failure.lock().poison {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Makes everything that is in open packs durable where it lies (F6).
    pub(crate) fn sync_open_packs(&self) -> Result<()> {
        for pack in self.unstored_packs() {
            if let Err(error) = pack.sync() {
                return self.sync_failed(&pack, error);
            }
        }
        Ok(())
    }

    /// A pack that failed to sync is never synced again: its blobs move to a new file, which is stored at once.
    fn sync_failed(&self, pack: &Arc<OpenPack>, error: Error) -> Result<()> {
        log::warn!("pack {:?} could not be synced, its content moves to another file: {error}", pack.name());
        self.store_packs()
    }

    fn unstored_packs(&self) -> Vec<Arc<OpenPack>> {
        // Streams first: a pack that leaves one meanwhile is in the closer's list by then.
        let mut packs: Vec<_> = self.shared.streams.iter().filter_map(Stream::open_pack).collect();
        packs.extend(self.shared.closer.unstored());
        packs
    }

    /// A place of a blob in a pack that is open.
    pub(crate) fn open_place(&self, id: &BlobId) -> Option<Place> {
        match self.shared.inflight.find(id)? {
            Found::Places(places) => places.into_iter().next(),
            Found::Plain(_) => None,
        }
    }

    /// Whether an open pack of this name is in this pipeline's hands.
    pub(crate) fn owns(&self, name: &crate::backend::OpenName) -> bool {
        self.unstored_packs().iter().any(|pack| pack.name() == name)
    }

    /// What went through so far.
    pub(crate) fn counters(&self) -> PipelineCounters {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PipelineCounters {
            shared_blobs: read(&counters.shared_blobs),
            shared_bytes: read(&counters.shared_bytes),
            sealed_blobs: read(&counters.sealed_blobs),
            sealed_bytes: read(&counters.sealed_bytes),
            peak_bytes: self.shared.budget.peak() as u64,
            stored: *counters.stored.lock(),
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.queue.close();
        let closer_at = self.threads.len().saturating_sub(1);
        for (number, thread) in self.threads.drain(..).enumerate() {
            if number == closer_at {
                // Last, since workers may still hand it packs.
                self.shared.closer.close();
            }
            thread.join();
        }
    }
}

impl Shared {
    fn check(&self, plain: &[u8]) -> Result<()> {
        if plain.len() > crate::crypto::BLOB_PLAIN_MAX as usize {
            return Err(Error::Invalid { what: format!("a blob of {} bytes is too long", plain.len()) });
        }
        let failure = self.failure.lock();
        match (&failure.poison, &failure.no_space) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(error)) if failure.parked_bytes > self.parked_bytes_max => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn note_failure(&self, error: &Error) {
        self.failure.lock().untold.get_or_insert_with(|| error.clone());
    }

    fn poison(&self, error: Error) {
        let mut failure = self.failure.lock();
        if failure.poison.is_none() {
            log::error!("no more blobs are taken: {error}");
            failure.poison = Some(error);
        }
    }

    /// Writes the index's table out when it has outgrown its bound.
    fn bound_index_table(&self) -> Result<()> {
        if self.index.flush_due() {
            self.index.flush()?;
        }
        Ok(())
    }
}
