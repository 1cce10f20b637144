//! A volume: the live writable tree of a repository, its snapshots, and every operation a front end may ask for.
//!
//! Each operation is one method here or in [`ops`]; front ends translate and call.
//!
//! *Invariants*
//! 1. Whatever `meta` holds is the newest state: tree records tell names, attributes and flushed content, cells tell
//!    content that no tree has yet.
//! 2. Every change takes one sequence number under `meta`, so that the operations of a volume are totally ordered, and a
//!    freeze (a clone of the tree and a new generation, under the same lock) is an exact prefix of them (P1).
//! 3. A change of names, owners, modes, links or xattrs leaves a record in `pending`, in order. Content, sizes and times
//!    leave one when their inode is synced, or when a rename over another file ties them (P1).
//!
//! *Threads*: any number of callers; one flusher and one checkpointer per volume ([`background`]).
//! Lock order: `sharing`, journal turn, checkpoint turn, an inode's flush turn, its cell, `meta`, then the small tables (`handles`,
//! `references`), which are leaves. No I/O happens under a cell or `meta` for reading what is cached; a tree node that is
//! not resident is loaded under `meta` by the change that needs it, and by nobody else: readers walk a clone.
//!
//! *Bounds*: dirty content by `dirty_bytes_max`; dirty nodes and pending records trigger a checkpoint or journal commit.
//!
//! *Not here*: FUSE (`fuse`), rules of names and links (`namespace`), maps of dirty bytes and chunk planning (`content`).

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use vellum_store::spawn::turns::{Mutex, RwLock};
use vellum_store::{
    id::VolumeName,
    repository::{Repository, VolumeHandle},
    spawn::JoinHandle,
};

use crate::{
    error::{Error, Result},
    ino::Ino,
    namespace::Names,
    time::Time,
    tree::Tree,
};

pub mod background;
pub mod budget;
pub mod cells;
pub mod check;
pub mod checkpoint;
pub mod flush;
pub mod gc;
pub mod handles;
pub mod harm;
pub mod health;
pub mod instant;
pub mod journal;
pub mod nodes;
pub mod open;
pub mod ops;
pub mod read;
pub mod records;
pub mod repair;
pub mod replay;
pub mod runs;
pub mod snapdir;
pub mod snapshot;
pub mod space;
pub mod state;
mod sync;

use budget::Budget;
use cells::{CellTable, References};
use handles::Handles;
use state::Meta;

/// How a volume is opened.
#[derive(Clone, Debug)]
pub struct VolumeOptions {
    /// Its name.
    pub name: VolumeName,
    /// Open without writing anything.
    pub read_only: bool,
    /// Create it if the repository has none of that name.
    pub create: bool,
    /// Owner of the root directory of a volume that is created.
    pub root_owner: (u32, u32),
    /// The hidden directory's name; `.snapshots` by default.
    pub snapdir_name: Vec<u8>,
    /// Whether readdir of the root shows it.
    pub snapdir_visible: bool,
    /// Who may take, rename and delete snapshots through the hidden directory, beside root.
    pub snapshot_admin: u32,
    /// Move atime as Linux's relatime does; otherwise never.
    pub relatime: bool,
    /// Bytes of unflushed content.
    pub dirty_bytes_max: u64,
    /// Bytes of changed tree nodes that start a checkpoint; at twice as many, changes of names wait.
    pub dirty_nodes_max: usize,
    /// Bytes of decoded tree nodes kept in memory.
    pub node_cache_bytes: usize,
    /// A checkpoint follows this long after the last change.
    pub checkpoint_quiet: Duration,
    /// A checkpoint follows at the latest this long after the first change.
    pub checkpoint_max_wait: Duration,
    /// Names reach the journal on disk this often.
    pub journal_interval: Duration,
    /// Files up to this size live in the tree.
    pub inline_max: u32,
    /// Where the journal lies, if not in the repository.
    pub journal_dir: Option<PathBuf>,
    /// Look at what was checkpointed only, as for reading snapshots while somebody else writes; for read-only volumes.
    pub skip_journal: bool,
    /// Length of a journal segment, a multiple of 4096; by the size of the disk, if not given.
    pub journal_segment_bytes: Option<u64>,
    /// What the lock tells others about this process.
    pub holder: vellum_store::lock::Holder,
    /// The zone in which instants without a zone are read.
    pub zone: jiff::tz::TimeZone,
    /// Where times come from; `None` is the system clock.
    pub clock: Option<fn() -> Time>,
}

impl VolumeOptions {
    /// The defaults for volume `name`.
    pub fn new(name: VolumeName) -> Self {
        Self {
            name,
            read_only: false,
            create: false,
            root_owner: (0, 0),
            snapdir_name: b".snapshots".to_vec(),
            snapdir_visible: false,
            snapshot_admin: 0,
            relatime: false,
            dirty_bytes_max: 64 << 20,
            dirty_nodes_max: 24 << 20,
            node_cache_bytes: 48 << 20,
            checkpoint_quiet: Duration::from_secs(5),
            checkpoint_max_wait: Duration::from_secs(60),
            journal_interval: Duration::from_secs(5),
            inline_max: 2048,
            journal_dir: None,
            skip_journal: false,
            journal_segment_bytes: None,
            holder: vellum_store::lock::Holder::default(),
            zone: jiff::tz::TimeZone::UTC,
            clock: None,
        }
    }
}

/// The live tree of a repository, open.
pub struct Volume {
    pub(crate) repository: Arc<Repository>,
    pub(crate) options: VolumeOptions,
    pub(crate) handle: VolumeHandle,
    pub(crate) names: Names,
    pub(crate) meta: RwLock<Meta>,
    pub(crate) cells: CellTable,
    pub(crate) references: References,
    pub(crate) handles: Handles,
    pub(crate) budget: Budget,
    pub(crate) space: space::SpaceGauge,
    pub(crate) journal: Option<journal::VolumeJournal>,
    /// Newest commit of a journal that is damaged and not open: what heads cover where there is no journal.
    pub(crate) journal_floor: u64,
    pub(crate) checkpoint_turn: Mutex<()>,
    /// A head that was published, but could not be remembered by this machine; see `settle_published`.
    pub(crate) published: Mutex<Option<checkpoint::Published>>,
    /// Held by copies of references between files.
    pub(crate) sharing: RwLock<()>,
    pub(crate) snapdir: snapdir::Views,
    pub(crate) background: Arc<background::Signals>,
    pub(crate) threads: Mutex<Vec<JoinHandle>>,
    pub(crate) poisoned: Mutex<Option<Error>>,
    pub(crate) troubles: health::Troubles,
    pub(crate) is_poisoned: AtomicBool,
    pub(crate) is_closing: AtomicBool,
    pub(crate) last_change_ns: AtomicI64,
    pub(crate) checkpoint_count: AtomicU64,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("name", &self.options.name).finish_non_exhaustive()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Its threads hold it only while they work, and wait for nothing longer than this.
        self.background.stop();
    }
}

impl Volume {
    /// The options it was opened with.
    pub fn options(&self) -> &VolumeOptions {
        &self.options
    }

    /// The repository it lives in.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// The time that an operation which begins at this moment records.
    pub fn now(&self) -> Time {
        self.options.clock.map_or_else(Time::now, |clock| clock())
    }

    /// A clone of the live tree to walk without a lock.
    pub(crate) fn tree(&self) -> Tree {
        self.meta.read().tree.clone()
    }

    /// Bytes of content that are held in memory and not in the store.
    pub fn dirty_bytes(&self) -> u64 {
        self.budget.used()
    }

    /// Bytes that were accepted and are in no pack yet: content, and the tree's changed nodes with their second copies.
    pub(crate) fn accepted_bytes(&self) -> u64 {
        self.budget.used() + 2 * self.meta.read().tree.dirty_bytes() as u64
    }

    /// Refuses changes of a volume that is read-only, poisoned, or being closed.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.is_closing.load(Ordering::Acquire) {
            return Err(Error::ReadOnly(format!("volume {}, which is being unmounted,", self.options.name).into()));
        }
        self.check_healthy()
    }

    /// Refuses to make anything durable in a volume that is read-only or poisoned.
    pub(crate) fn check_healthy(&self) -> Result<()> {
        if self.options.read_only {
            return Err(Error::ReadOnly(format!("volume {}", self.options.name).into()));
        }
        if self.is_poisoned.load(Ordering::Relaxed)
            && let Some(why) = self.poisoned.lock().as_ref()
        {
            return Err(Error::Poisoned { why: why.to_string() });
        }
        Ok(())
    }

    /// Stops all further changes: something durable failed, and going on could acknowledge what is lost.
    pub(crate) fn poison(&self, why: &Error) {
        let mut poisoned = self.poisoned.lock();
        if poisoned.is_none() {
            log::error!("volume {} accepts no more writes: {why}", self.options.name);
            *poisoned = Some(why.clone());
            self.is_poisoned.store(true, Ordering::Relaxed);
            self.budget.open_gates();
        }
    }

    /// The first failure that poisoned the volume, if any.
    pub fn poisoned(&self) -> Option<Error> {
        self.poisoned.lock().clone()
    }

    /// Whether `ino` belongs to the view of snapshots and not to the live tree.
    pub fn is_view(ino: Ino) -> bool {
        ino.0 >> 63 == 1
    }
}
