//! Opening and closing a volume.
//!
//! *Ordering* of opening: lock, newest head, proof that it continues what this machine remembers, tree, journal replay, a
//! checkpoint of what was replayed, then the background threads. Of closing: threads end, a last checkpoint, the lock goes.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use vellum_store::spawn::turns::{Mutex, RwLock};
use vellum_store::{
    crypto::SubkeyUse,
    format::head::Head,
    id::HeadHash,
    journal::{Journal, JournalOptions, Recovery},
    repository::{Repository, VolumeHandle},
};

use super::{
    Volume, VolumeOptions, background, budget::Budget, handles::Handles, journal::VolumeJournal,
    nodes::RepositoryNodes, records, replay::ReplaySummary, runs::InodeRuns, snapdir::Views, space::SpaceGauge,
    state::Meta,
};
use crate::{
    error::{Error, Result},
    ino::Ino,
    namespace::{Names, Namespace, RootArgs},
    tree::{NodeCache, Tree},
};

/// Journal segments take this part of the disk each, within bounds.
const JOURNAL_DISK_PART: u64 = 128;
const JOURNAL_SEGMENT_MIN: u64 = 2 << 20;
const JOURNAL_SEGMENT_MAX: u64 = 32 << 20;
const JOURNAL_SEGMENTS_MAX: u32 = 4;

/// What replay of a journal came to.
pub(super) struct Replayed {
    /// The journal, if it was opened for writing.
    pub(super) journal: Option<VolumeJournal>,
    /// Commits that were read.
    pub(super) commits: u64,
    /// Operations that were applied.
    pub(super) operations: u64,
    /// Why it ends early, or lacks something.
    pub(super) damage: Option<String>,
    /// A part of the journal could not be read.
    pub(super) unreadable: bool,
}

impl Volume {
    /// Opens a volume of `repository` and replays its journal.
    pub fn open(repository: Arc<Repository>, options: VolumeOptions) -> Result<(Arc<Self>, ReplaySummary)> {
        let handle = repository.open_volume(&options.name, options.create, options.read_only, &options.holder)?;
        let head = handle.head();
        let nodes = Arc::new(RepositoryNodes::new(Arc::clone(&repository)));
        let cache = NodeCache::new(options.node_cache_bytes);
        let tree = match &head {
            Some(head) => Tree::load(nodes, cache, &head.tree_root)?,
            None => Tree::empty(nodes, cache),
        };
        // P5: what this machine remembers must be an ancestor of what the repository shows.
        handle.prove_ancestry(&mut |sequence| records::head(&tree, sequence).map_err(into_store))?;
        if !options.read_only
            && let Err(error) = repository.remember_newest(&handle)
        {
            // The next commit tries again, and is not made before.
            log::warn!("the newest head of volume {} could not be remembered: {error}", options.name);
        }
        let mut volume = Self::assemble(repository, options, handle, tree, head.as_ref())?;
        let summary = volume.recover(head.as_ref())?;
        let volume = Arc::new(volume);
        if !volume.options.read_only {
            volume.collect_and_settle(head.is_none(), &summary)?;
            background::start(&volume)?;
        }
        Ok((volume, summary))
    }

    pub(super) fn assemble(
        repository: Arc<Repository>,
        options: VolumeOptions,
        handle: VolumeHandle,
        tree: Tree,
        head: Option<&Head>,
    ) -> Result<Self> {
        let keyring = repository.keyring();
        let names = Names::new(keyring.subkey(SubkeyUse::DirentName));
        let views = Views::new(keyring.subkey(SubkeyUse::SnapshotIno));
        let state = records::state(&tree)?;
        if head.is_some() && state.is_none() {
            return Err(Error::damaged("volume state", "the tree of the newest head has none"));
        }
        let sequence = state.as_ref().map_or(0, |state| state.op_sequence);
        let next_ino = state.as_ref().map_or(Ino::ROOT.0 + 1, |state| state.next_ino.0);
        let now = options.clock.map_or_else(crate::time::Time::now, |clock| clock());
        let created = state.as_ref().map_or(now, |state| state.created);
        let next_snapshot = state.as_ref().map_or(1, |state| state.next_snapshot);
        let meta = Meta {
            tree,
            op_sequence: sequence,
            generation: 1,
            pending: Vec::new(),
            pending_bytes: 0,
            ties: Vec::new(),
            inseparable: false,
            changed: Default::default(),
            aging: Default::default(),
            streams: Default::default(),
            runs: InodeRuns::new(next_ino),
            frozen: None,
            durable_sequence: sequence,
            store_again: false,
            atime_moved: false,
            next_snapshot,
            created,
        };
        Ok(Self {
            budget: Budget::new(options.dirty_bytes_max),
            names,
            meta: RwLock::new(meta),
            cells: Default::default(),
            references: Default::default(),
            handles: Handles::default(),
            space: SpaceGauge::default(),
            journal: None,
            journal_floor: 0,
            checkpoint_turn: Mutex::new(()),
            published: Mutex::new(None),
            sharing: Default::default(),
            snapdir: views,
            background: Default::default(),
            threads: Mutex::default(),
            poisoned: Mutex::default(),
            is_poisoned: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            last_change_ns: AtomicI64::new(0),
            checkpoint_count: AtomicU64::new(0),
            troubles: Default::default(),
            repository,
            options,
            handle,
        })
    }

    /// Replays the journal, if there is one.
    fn recover(&mut self, head: Option<&Head>) -> Result<ReplaySummary> {
        if head.is_none() {
            let (uid, gid) = self.options.root_owner;
            let args = RootArgs { uid, gid, mode: 0o755, time: self.now() };
            let mut meta = self.meta.write();
            Namespace::new(&mut meta.tree, &self.names).make_root(&args)?;
            meta.next_sequence();
        }
        let mut summary = ReplaySummary::default();
        if self.options.read_only && self.options.skip_journal {
            return Ok(summary);
        }
        // Commits follow the newest head, or, if they were made while it was, the one before. Older ones left the journal with it:
        // only a store that kept a copy could show them again.
        let mut heads: Vec<HeadHash> = self.handle.recent_hashes();
        heads.truncate(2);
        let after = head.map_or(0, |head| head.journal_commit);
        let replayed = self.replay_journal(after, &heads, !self.options.read_only)?;
        (summary.commits, summary.operations, summary.damage) =
            (replayed.commits, replayed.operations, replayed.damage);
        if let Some(damage) = summary.damage.as_ref().filter(|_| !self.options.read_only) {
            log::error!("the journal of volume {} is damaged; the volume is read-only: {damage}", self.options.name);
            self.options.read_only = true;
        }
        if !self.options.read_only {
            self.journal = replayed.journal;
        }
        Ok(summary)
    }

    /// Where the journal lies.
    pub(super) fn journal_dir(&self) -> PathBuf {
        let dir = self.options.journal_dir.clone();
        dir.unwrap_or_else(|| self.repository.journal_dir(&self.options.name))
    }

    /// Applies the journal commits after `after` that follow one of `heads`. With `open` the journal is opened for writing;
    /// otherwise somebody else may be writing it, and it is only looked at.
    pub(super) fn replay_journal(&self, after: u64, heads: &[HeadHash], open: bool) -> Result<Replayed> {
        let covered = self.meta.read().durable_sequence;
        let dir = self.journal_dir();
        let options =
            JournalOptions { segment_bytes: self.journal_segment_bytes()?, segments_max: JOURNAL_SEGMENTS_MAX };
        let (mut commits, mut operations) = (0, 0);
        let mut lost = None;
        let mut failed = None;
        let mut replay = |_, payload: &[u8]| match self.replay_payload(covered, payload, &mut lost) {
            Ok(count) => {
                commits += 1;
                operations += count;
                Ok(())
            }
            Err(error) => {
                let stop = into_store(error.clone());
                failed = Some(error);
                Err(stop)
            }
        };
        let disk = Arc::clone(self.repository.disk());
        let keyring = Arc::clone(self.repository.keyring());
        let name = &self.options.name;
        let replayed = match open {
            true => Journal::open(disk, &dir, keyring, name, options, after, heads, &mut replay)
                .map(|(journal, recovery)| (Some(journal), recovery)),
            false => {
                Journal::read(&*disk, &dir, keyring, name, after, heads, &mut replay).map(|recovery| (None, recovery))
            }
        };
        let (journal, recovery) = match failed {
            // What was replayed before it is the last good point.
            Some(error) if error.is_damage() => {
                (None, Recovery { commits, damage: Some(error.to_string()), ..Recovery::default() })
            }
            Some(error) => return Err(error),
            None => replayed?,
        };
        let journal = journal.map(VolumeJournal::new);
        let Recovery { commits, damage, unreadable, .. } = recovery;
        Ok(Replayed { journal, commits, operations, damage: damage.or(lost), unreadable })
    }

    fn collect_and_settle(&self, fresh: bool, summary: &ReplaySummary) -> Result<()> {
        let orphans = self.collect_orphans()?;
        if fresh || summary.operations > 0 || orphans > 0 {
            match self.checkpoint() {
                Ok(()) => {}
                // The journal still holds everything, and without opening nothing could be deleted.
                Err(error) if error.is_no_space() && !fresh => {
                    log::warn!("volume {} was opened on a full disk: {error}", self.options.name);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        // What open packs of the last process still hold is in packs of this checkpoint, or was never acknowledged.
        self.repository.discard_leftovers(&self.options.name)?;
        Ok(())
    }

    fn journal_segment_bytes(&self) -> Result<u64> {
        if let Some(bytes) = self.options.journal_segment_bytes {
            return Ok(bytes);
        }
        let total = self.repository.space()?.total_bytes;
        Ok((total / JOURNAL_DISK_PART).clamp(JOURNAL_SEGMENT_MIN, JOURNAL_SEGMENT_MAX) & !0xfff)
    }

    /// Ends the volume: refuses further changes, makes everything durable, stops the threads, gives the lock back.
    ///
    /// On a full disk, what no checkpoint could store goes to the journal as far as that has room, and the error says so.
    pub fn close(&self) -> Result<()> {
        self.is_closing.store(true, Ordering::Release);
        self.background.stop();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            thread.join();
        }
        if !self.options.read_only {
            let mut meta = self.meta.write();
            if meta.atime_moved {
                // A clean end is the time to keep what never makes a checkpoint by itself.
                meta.next_sequence();
            }
        }
        let closed = match self.options.read_only {
            true => Ok(()),
            false => self.checkpoint().inspect_err(|error| {
                if error.is_no_space() {
                    self.journal_what_fits();
                }
            }),
        };
        // Whoever still syncs ends before the lock goes: afterwards the journal may be another process's.
        let _journal = self.journal.as_ref().map(VolumeJournal::take_turn);
        let _checkpoint = self.checkpoint_turn.lock();
        self.is_poisoned.store(true, Ordering::Release);
        self.poisoned.lock().get_or_insert(Error::ReadOnly("a closed volume".into()));
        self.handle.release();
        closed
    }

    /// The last resort of closing on a full disk: small content fits the journal, which lies on preallocated space.
    fn journal_what_fits(&self) {
        let changed: Vec<Ino> = self.meta.read().changed.iter().copied().collect();
        let lost = changed.into_iter().filter(|&ino| self.sync_inode(ino).is_err()).count();
        if lost > 0 {
            log::error!("volume {}: the disk is full, and {lost} files lose what was not synced", self.options.name);
        }
    }
}

/// The store's error for a failure of ours inside one of its callbacks.
pub(super) fn into_store(error: Error) -> vellum_store::Error {
    match error {
        Error::Store(error) => error,
        other => vellum_store::Error::corrupt("tree", other.to_string()),
    }
}
