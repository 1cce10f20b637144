//! The commit: from blobs in flight to a head that names a complete durable tree.
//!
//! *Ordering*, each step only after the one before is durable:
//! 1. every blob that was submitted is in a pack, and every pack is stored (F1);
//! 2. the index segment that lists them (F1, and with it F2: a node names only blobs that were submitted before it);
//! 3. the manifest of live segments and volumes;
//! 4. the head, by exclusive creation (F3);
//! 5. what this machine remembers, before the commit is reported (P5);
//! 6. only then old heads, manifests and merged segments go. The journal is trimmed by the caller.
//!
//! A crash or failure between two steps leaves the previous head newest, and what was stored unnamed; the next commit begins anew.
//!
//! *Threads*: the commit turn is held throughout, across I/O: packs and index are shared, and one commit may carry another's blobs.

use std::sync::atomic::Ordering;

use super::{Repository, VolumeHandle};
use crate::{
    backend::ObjectName,
    error::{Error, Result},
    format::{head::Head, manifest::Manifest},
    heads::{HEADS_KEPT, PublishedHead, newest_heads, publish_head, publish_manifest, read_manifest, trim_heads},
    id::{BlobId, HeadHash, ManifestId, SegmentId, VolumeName},
    lock::ReaderLock,
    state::{Remembered, StateDirectory},
};

/// Commits that keep a merged segment, so that the tree of the newest head but one stays within reach without a rebuild.
const SUPERSEDED_COMMITS: u64 = 2;

/// What the caller decides about the next head.
#[derive(Clone, Copy, Debug)]
pub struct HeadDraft {
    /// Root of the tree, which was submitted as a blob.
    pub tree_root: BlobId,
    /// Newest operation that the tree holds.
    pub op_sequence: u64,
    /// Newest journal commit that the tree holds.
    pub journal_commit: u64,
    /// The time, in nanoseconds since 1970.
    pub time_ns: i64,
}

/// A head that is durable and remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedHead {
    /// Its sequence.
    pub sequence: u64,
    /// Its hash, which the journal's next commits follow.
    pub hash: HeadHash,
}

/// What commits hand on to each other; the right to commit.
#[derive(Debug, Default)]
pub(super) struct CommitTurn {
    /// Merged segments, with the number of the commit after which they may go.
    superseded: Vec<(SegmentId, u64)>,
    commits: u64,
}

impl Repository {
    /// Makes a tree durable and publishes the head that names it.
    ///
    /// [`Error::NoSpace`] leaves everything as it was, to be tried again. [`Error::Poisoned`] if another writer has published the
    /// next head.
    pub fn commit(&self, volume: &VolumeHandle, draft: &HeadDraft) -> Result<CommittedHead> {
        let pipeline = self.writing()?;
        volume.check_writable()?;
        let mut turn = self.commit_turn.lock();
        let step = |label| self.spawner.step(label);

        if let Some(remembered) = volume.unremembered() {
            // P5: an unremembered head is a head that nobody was told of; another one after it would widen the gap.
            self.remember(volume, remembered)?;
        }
        pipeline.flush()?;
        step("commit: blobs are in packs");
        // F1: the packs are durable under their names before an index segment lists their blobs.
        pipeline.store_packs()?;
        step("commit: packs are stored");
        // F2: all blobs below the root were submitted before it, so this segment, or an earlier one, lists them all.
        self.index.flush()?;
        if self.index.lookup(&draft.tree_root)?.is_empty() {
            return Err(Error::BlobMissing { id: draft.tree_root });
        }
        step("commit: index is stored");
        let (manifest_id, manifest) = self.store_manifest(volume)?;
        step("commit: manifest is stored");
        // F3: everything that the head names, directly or through the tree, is durable by here.
        let head = Head {
            key_epoch: self.keyring.epoch(),
            op_sequence: draft.op_sequence,
            journal_commit: draft.journal_commit,
            gc_generation: self.gc_generation.load(Ordering::Acquire),
            time_ns: draft.time_ns,
            ..volume.next_head(draft.tree_root, manifest_id, self.writer)
        };
        let published = self.publish(volume, &head)?;
        step("commit: head is published");
        // Its manifest names whole segments for all that a rebuild had found.
        self.index_damage.lock().clear();
        let committed = CommittedHead { sequence: head.sequence, hash: published.hash };
        let unnamed = volume.advance(&head, published.hash, manifest);
        self.volumes.lock().insert(volume.name().clone());
        // P5: remembered before the commit is reported, so that a later rollback to before it is seen.
        self.remember(volume, Remembered::new(head.sequence, published.bytes, draft.time_ns))?;
        step("commit: head is remembered");
        self.note_commit(volume.name(), head.sequence, published.hash);
        turn.commits += 1;
        if let Err(error) = self.tidy(volume, head.sequence, &unnamed, &mut turn) {
            // What stays is in nobody's way, and the next commit or gc meets it again.
            log::warn!("leftovers of earlier commits stay: {error}");
        }
        drop(turn);
        self.backend.hold_reserve();
        self.merge_in_background();
        Ok(committed)
    }

    /// Remembers the newest head of a volume that was opened, whose history was proved; nothing if it is remembered already.
    pub fn remember_newest(&self, volume: &VolumeHandle) -> Result<()> {
        volume.check_writable()?;
        volume.unremembered().map_or(Ok(()), |remembered| self.remember(volume, remembered))
    }

    fn remember(&self, volume: &VolumeHandle, remembered: Remembered) -> Result<()> {
        let states = StateDirectory::new(&*self.disk, &self.state_dir, &self.keyring);
        let stored = match states.store(volume.name(), &remembered) {
            // It may be the disk of the repository.
            Err(Error::NoSpace { .. }) if self.backend.make_room() => states.store(volume.name(), &remembered),
            stored => stored,
        };
        volume.set_unremembered(stored.is_err().then_some(remembered));
        stored
    }

    /// Stores the manifest, unless the newest head of this process names the same segments and volumes.
    fn store_manifest(&self, volume: &VolumeHandle) -> Result<(ManifestId, Manifest)> {
        let mut volumes = self.volumes.lock().clone();
        volumes.insert(volume.name().clone());
        let manifest = Manifest {
            segments: self.index.segments(),
            volumes: volumes.into_iter().collect(),
            gc_generation: self.gc_generation.load(Ordering::Acquire),
        };
        if let Some((id, written)) = volume.written_manifest()
            && written == manifest
        {
            return Ok((id, written));
        }
        let id = publish_manifest(&*self.backend, &self.keyring, &manifest)?;
        Ok((id, manifest))
    }

    fn publish(&self, volume: &VolumeHandle, head: &Head) -> Result<PublishedHead> {
        match publish_head(&*self.backend, &self.keyring, volume.name(), head) {
            Ok(Some(published)) => Ok(published),
            Ok(None) => {
                let why = format!("another writer has published head {}", head.sequence);
                let error = Error::Poisoned { volume: volume.name().to_string(), why };
                volume.poison(&error);
                Err(error)
            }
            Err(error @ Error::NoSpace { .. }) => Err(error),
            Err(error) => {
                // Whether the head is durable is not known: going on could publish another one after it.
                volume.poison(&error);
                Err(error)
            }
        }
    }

    /// Removes what no kept head names any more.
    fn tidy(&self, volume: &VolumeHandle, newest: u64, unnamed: &[ManifestId], turn: &mut CommitTurn) -> Result<()> {
        trim_heads(&*self.backend, volume.name(), newest, HEADS_KEPT)?;
        for id in unnamed {
            self.backend.delete(&ObjectName::manifest(id))?;
        }
        let until = turn.commits + SUPERSEDED_COMMITS;
        turn.superseded.extend(self.index.take_superseded().into_iter().map(|segment| (segment, until)));
        if turn.superseded.iter().any(|(_, until)| *until <= turn.commits) {
            self.delete_superseded(volume.name(), turn)?;
        }
        Ok(())
    }

    fn delete_superseded(&self, own: &VolumeName, turn: &mut CommitTurn) -> Result<()> {
        // Other processes may read through the old segments as long as they hold the readers' lock.
        let Some(_readers) = ReaderLock::exclude(&*self.disk, &self.path)? else { return Ok(()) };
        let mut named = Vec::new();
        for volume in self.volumes().iter().filter(|volume| *volume != own) {
            if let Some(newest) = newest_heads(&*self.backend, &self.keyring, volume, 1)?.newest() {
                named.extend(read_manifest(&*self.backend, &self.keyring, newest.head.manifest)?.segments);
            }
        }
        let commits = turn.commits;
        let (gone, kept) =
            turn.superseded.drain(..).partition(|(segment, until)| *until <= commits && !named.contains(segment));
        turn.superseded = kept;
        let gone: Vec<(SegmentId, u64)> = gone;
        for (segment, _) in gone {
            self.backend.delete(&ObjectName::segment(&segment))?;
        }
        Ok(())
    }

    /// Starts a thread that merges index segments, unless one runs or none are due.
    fn merge_in_background(&self) {
        if !self.index.merge_due() {
            return;
        }
        let mut maintenance = self.maintenance.lock();
        match maintenance.take() {
            Some(thread) if !thread.is_finished() => {
                *maintenance = Some(thread);
                return;
            }
            Some(thread) => thread.join(),
            None => {}
        }
        let index = self.index.clone();
        let merge = move || {
            while index.merge_due() {
                if let Err(error) = index.merge() {
                    // Nothing is lost: the segments stay as they are, and the next commit tries again.
                    log::warn!("index segments could not be merged: {error}");
                    return;
                }
            }
        };
        match self.spawner.spawn("index-merge", Box::new(merge)) {
            Ok(thread) => *maintenance = Some(thread),
            Err(error) => log::warn!("thread index-merge could not be started: {error}"),
        }
    }
}
