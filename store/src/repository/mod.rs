//! A repository: the front of the store, behind which blobs become packs, packs an index, and an index a head.
//!
//! *Invariants*
//! 1. Nothing is published before what it names is durable: packs, index, manifest, head (F1, F2, F3).
//! 2. What a reader gets was unsealed and its id recomputed (P2).
//! 3. The index can be missing: it is rebuilt from the packs at open. Tables can be missing: they are dropped on any doubt.
//!
//! *Ordering*: see `commit`.
//!
//! *Threads*: any number of callers. Threads of its own: `pipeline-N` and `pack-closer` (write path), `read-ahead-N`,
//! `index-merge` while a merge runs. Lock order: a volume's own (`fs`), the commit turn, a volume handle's state, then leaves. The
//! commit turn is held across I/O: commits of one repository follow each other, because they share packs and index.
//!
//! *Bounds*: `pipeline_bytes`, `cache_bytes` and the settings of the index; see the modules.
//!
//! *Not here*: names, files, trees (`vellum-fs`); secrets and options (`vellum-cli`); the journal, which `fs` opens itself.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize},
    },
};

use crate::spawn::turns::{Mutex, RwLock};

use crate::{
    backend::{Backend, Space},
    config::RepositoryConfig,
    crypto::{BLOB_PLAIN_MAX, BlobSealer, Keyring, MasterKey},
    disk::Disk,
    error::{Error, Result},
    id::{BlobId, BlobKind, VolumeName},
    index::Index,
    lock::{ReaderLock, WriterLock},
    pipeline::{InFlight, Pipeline},
    reader::BlobReader,
    spawn::{JoinHandle, Spawner},
};

mod check;
mod commit;
mod gc;
mod init;
mod keys;
mod open;
mod options;
mod places;
mod repair;
mod stats;
mod volumes;

pub use self::{
    check::{CheckNotes, CheckSummary, Damage, EarlierCheck, Progress},
    commit::{CommittedHead, HeadDraft},
    gc::{Gc, GcOptions, GcPlan, GcSummary},
    options::{Access, CACHE_BYTES_DEFAULT, InitOptions, OpenOptions, PIPELINE_BYTES_DEFAULT},
    places::BlobPlace,
    repair::{MendedHeads, Repair, RepairSummary},
    stats::RepositoryStats,
    volumes::VolumeHandle,
};
pub use crate::pipeline::{Copies, PipelineCounters, StoredPacks, Ticket};
use commit::CommitTurn;
use places::Leftovers;
use stats::Totals;

/// An open repository.
pub struct Repository {
    // Dropped in this order: threads end before what they use.
    pipeline: Option<Pipeline>,
    reader: BlobReader,
    maintenance: Mutex<Option<JoinHandle>>,
    index: Arc<Index>,
    inflight: Arc<InFlight>,
    sealer: Arc<BlobSealer>,
    keyring: Arc<Keyring>,
    master: MasterKey,
    config: RepositoryConfig,
    backend: Arc<dyn Backend>,
    disk: Arc<dyn Disk>,
    spawner: Arc<dyn Spawner>,
    path: PathBuf,
    state_dir: PathBuf,
    adopt_copy: bool,
    /// Volumes with at least one head, as seen at open and committed since.
    volumes: Mutex<BTreeSet<VolumeName>>,
    gc_generation: AtomicU64,
    /// Shared with other writers, but for the time of a gc.
    writers: Mutex<Option<WriterLock>>,
    /// Held by what reads packs by their names and would take a deleted one for damage.
    packs_in_use: RwLock<()>,
    writer: [u8; 16],
    commit_turn: Mutex<CommitTurn>,
    leftovers: Mutex<Leftovers>,
    /// Volume locks of this process.
    locks_held: Arc<AtomicUsize>,
    table_dir: Option<PathBuf>,
    totals: Mutex<Option<Totals>>,
    notes: Vec<String>,
    /// Why the index was rebuilt at open, until a commit has stored it anew: what was built in its place does not show it.
    index_damage: Mutex<Vec<Error>>,
    /// Whether the packs told what is stored, and not the index segments.
    index_rebuilt: bool,
    /// Volumes that a manifest names and that have no head.
    missing_volumes: BTreeSet<VolumeName>,
    _readers: Option<ReaderLock>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("path", &self.path)
            .field("id", &self.config.repository)
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its keys.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Its configuration.
    pub fn config(&self) -> &RepositoryConfig {
        &self.config
    }

    /// Files, names and locks of the machine it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Where threads come from.
    pub fn spawner(&self) -> &Arc<dyn Spawner> {
        &self.spawner
    }

    /// Where its objects are kept.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Where the journal of a volume lies, unless the volume is told another place.
    pub fn journal_dir(&self, volume: &VolumeName) -> PathBuf {
        self.path.join("journal").join(volume.as_str())
    }

    /// Space for what is still to be stored.
    pub fn space(&self) -> Result<Space> {
        self.backend.space()
    }

    /// Makes room on the disk for something that is not stored in the repository, where no space was found: what packs have reserved
    /// and not filled, then a part of what is set aside for a full disk. Returns whether there is more room than before.
    pub fn make_room(&self) -> bool {
        self.backend.make_room()
    }

    /// What was noticed and mended, or could not be, at open: for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether nothing can be written.
    pub fn is_read_only(&self) -> bool {
        self.pipeline.is_none()
    }

    /// The write path, or [`Error::ReadOnly`].
    fn writing(&self) -> Result<&Pipeline> {
        self.pipeline.as_ref().ok_or_else(|| Error::ReadOnly { what: format!("repository {}", self.path.display()) })
    }

    /// Waits until everything that was submitted before is in a pack or has failed, and tells nothing of it.
    pub fn settle_pipeline(&self) {
        if let Some(pipeline) = &self.pipeline {
            pipeline.settle();
        }
    }

    /// Stores a blob and gives its id at once; the work is done in the background, and the blob can be read from here on.
    ///
    /// A failure is told by [`Self::flush_pipeline`], and makes every commit fail until the blob is stored after all. Waits while
    /// the pipeline's byte budget is full.
    pub fn put(&self, kind: BlobKind, plaintext: Vec<u8>, copies: Copies) -> Result<BlobId> {
        self.writing()?.put(kind, plaintext, copies).map(|(id, _)| id)
    }

    /// As [`Self::put`], with a ticket that tells when the blob is in a pack.
    pub fn put_with_ticket(&self, kind: BlobKind, plaintext: Vec<u8>, copies: Copies) -> Result<(BlobId, Ticket)> {
        self.writing()?.put(kind, plaintext, copies)
    }

    /// Stores a chunk, of which a worker computes the id too; the ticket tells it, or why the chunk could not be stored.
    pub fn submit_data(&self, plaintext: Vec<u8>) -> Result<Ticket> {
        self.writing()?.submit_data(plaintext)
    }

    /// Waits until all blobs that were submitted before are in an open or stored pack; not necessarily durable.
    ///
    /// Tells why a blob of [`Self::put`] could not be stored. After want of space it is tried again by the next call.
    pub fn flush_pipeline(&self) -> Result<()> {
        self.pipeline.as_ref().map_or(Ok(()), Pipeline::flush)
    }

    /// What went through the write path since the repository was opened.
    pub fn pipeline_counters(&self) -> PipelineCounters {
        self.pipeline.as_ref().map(Pipeline::counters).unwrap_or_default()
    }

    /// Reads a blob of at most `plain_length` bytes, from wherever it is by now.
    pub fn read(&self, kind: BlobKind, id: &BlobId, plain_length: u32) -> Result<Arc<[u8]>> {
        self.reader.read(kind, id, plain_length)
    }

    /// A blob's plaintext if it is in memory; never waits for the disk.
    pub fn read_cached(&self, id: &BlobId) -> Option<Arc<[u8]>> {
        self.reader.read_cached(id)
    }

    /// Reads a node, whose length nobody recorded.
    pub fn read_node(&self, id: &BlobId) -> Result<Arc<[u8]>> {
        self.reader.read(BlobKind::Node, id, BLOB_PLAIN_MAX)
    }

    /// Whether a blob is in a pack that the index knows, or on its way into one.
    pub fn holds(&self, id: &BlobId) -> Result<bool> {
        Ok(self.inflight.find(id).is_some() || self.index.contains(id)?)
    }

    /// Asks for chunks, with their plaintext lengths, to be read into the cache in the background. What does not fit into the
    /// queue is forgotten: reading it later works as without asking.
    pub fn read_ahead(&self, chunks: &[(BlobId, u32)]) {
        self.reader.ask_ahead(chunks);
    }

    /// Bytes of plaintext in the cache.
    pub fn cached_bytes(&self) -> usize {
        self.reader.cached_bytes()
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        if let Some(thread) = self.maintenance.get_mut().take() {
            thread.join();
        }
        self.store_totals();
    }
}

#[cfg(test)]
mod tests;
