//! Volumes as the store sees them: a lock, a chain of heads, and what this machine remembers of it.
//!
//! *Invariants*
//! 1. A handle for writing holds the volume's lock until it is released.
//! 2. No commit before the history was proved to continue what this machine remembers (P5).
//! 3. A writer that finds its next sequence taken writes nothing more: another one has taken over.
//!
//! *Threads*: any; the handle's lock is a leaf.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::spawn::turns::Mutex;

use super::Repository;
use crate::{
    crypto::Keyring,
    error::{Error, Result},
    format::{
        head::{Head, NO_HEAD},
        manifest::Manifest,
    },
    heads::{FoundHead, HEADS_KEPT, HeadsFound, newest_heads, read_manifest, restore_head},
    id::{BlobId, HeadHash, ManifestId, VolumeName},
    lock::{Holder, VolumeLock, WriterLock},
    state::{Relation, Remembered, StateDirectory},
};

/// A volume that is open in this process.
#[derive(Debug)]
pub struct VolumeHandle {
    name: VolumeName,
    read_only: bool,
    /// Epoch under which this process writes.
    epoch: u32,
    notes: Vec<String>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lock: Option<HeldLock>,
    newest: Option<(Head, HeadHash)>,
    /// Hashes of the newest heads and of the one before the oldest of them, newest first.
    hashes: Vec<HeadHash>,
    /// Manifests of the heads that are kept, oldest first.
    manifests: VecDeque<(u64, ManifestId)>,
    /// What the newest of them says, if this process wrote it.
    written: Option<(ManifestId, Manifest)>,
    remembered: Option<Remembered>,
    /// A head, published or accepted, that is not remembered yet: before it is, nothing further is published.
    unremembered: Option<Remembered>,
    proved: bool,
    poisoned: Option<Error>,
}

/// A volume's lock, counted.
#[derive(Debug)]
struct HeldLock {
    lock: VolumeLock,
    held: Arc<AtomicUsize>,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Repository {
    /// Opens a volume. For writing, its lock is taken, of which `holder` tells others; [`Error::Locked`] names who has it.
    ///
    /// [`Error::NotFound`] if there is no such volume and it is not to be created. What this machine remembers is compared with
    /// what the repository shows: [`Error::Rollback`] if that is older or another history. If it is newer, the caller proves
    /// the ancestry with [`VolumeHandle::prove_ancestry`].
    pub fn open_volume(
        &self,
        name: &VolumeName,
        create: bool,
        read_only: bool,
        holder: &Holder,
    ) -> Result<VolumeHandle> {
        let lock = match read_only {
            true => None,
            false => {
                self.writing()?;
                self.share_writing()?;
                let lock = VolumeLock::acquire(self.disk.clone(), &self.path, name, holder)?;
                let held = self.locks_held.clone();
                held.fetch_add(1, Ordering::Relaxed);
                Some(HeldLock { lock, held })
            }
        };
        let states = StateDirectory::new(&*self.disk, &self.state_dir, &self.keyring);
        if self.adopt_copy && !read_only {
            states.forget(name)?;
        }
        let remembered = if self.adopt_copy { None } else { states.load(name)? };
        let mut notes = Vec::new();
        let found = self.find_heads(name, read_only, remembered.as_ref(), &mut notes)?;
        let newest = found.newest().cloned();
        if newest.is_none()
            && let Some(damaged) = found.damaged.first()
        {
            // What cannot be read must not look like what is not there.
            return Err(damaged.error.clone());
        }
        if newest.is_none() && remembered.is_none() && !create {
            return Err(Error::NotFound { object: format!("volume {name}") });
        }
        let proved = is_proved(name, remembered.as_ref(), &found)?;
        // P5: a history that is newer than what this machine knew is remembered once it is proved, not only once it is continued.
        let is_known =
            |newest: &FoundHead| remembered.as_ref().is_some_and(|known| known.sequence >= newest.head.sequence);
        let unremembered = newest
            .as_ref()
            .filter(|newest| !read_only && !is_known(newest))
            .map(|newest| Remembered::new(newest.head.sequence, newest.bytes.clone(), newest.head.time_ns));
        if let Some(newest) = &newest {
            self.learn_segments(newest)?;
        }
        let epoch = newest.as_ref().map_or(1, |newest| newest.head.epoch.saturating_add(1));
        let manifests = found.heads.iter().rev().map(|found| (found.head.sequence, found.head.manifest)).collect();
        let state = State {
            lock,
            hashes: found.hashes(),
            newest: newest.map(|FoundHead { head, hash, .. }| (head, hash)),
            manifests,
            written: None,
            remembered,
            unremembered,
            proved,
            poisoned: None,
        };
        Ok(VolumeHandle { name: name.clone(), read_only, epoch, notes, state: Mutex::new(state) })
    }

    /// A gc, here or elsewhere, wants to know all writers.
    fn share_writing(&self) -> Result<()> {
        let mut share = self.writers.lock();
        if share.is_none() {
            *share = WriterLock::share(&*self.disk, &self.path)?;
        }
        let holder = || "a gc, which wants to know all writers".to_string();
        share
            .as_ref()
            .map(drop)
            .ok_or_else(|| Error::Locked { volume: self.path.display().to_string(), holder: holder() })
    }

    /// Takes in what another process wrote of a volume since the repository was opened here.
    fn learn_segments(&self, newest: &FoundHead) -> Result<()> {
        if self.index_rebuilt {
            // Segments that a damaged page may be in are not asked again.
            return self.list_packs();
        }
        let learned = read_manifest(&*self.backend, &self.keyring, newest.head.manifest)
            .and_then(|manifest| self.index.adopt(&manifest.segments));
        match learned {
            // Merged meanwhile, or damaged: the packs themselves tell.
            Err(error) if error.is_damage() || matches!(error, Error::NotFound { .. }) => self.list_packs(),
            other => other,
        }
    }

    /// Finds the newest heads, restoring a damaged newest one from what this machine remembers.
    fn find_heads(
        &self,
        name: &VolumeName,
        read_only: bool,
        remembered: Option<&Remembered>,
        notes: &mut Vec<String>,
    ) -> Result<HeadsFound> {
        let read = || newest_heads(&*self.backend, &self.keyring, name, HEADS_KEPT as usize);
        let found = read()?;
        for damaged in &found.damaged {
            notes.push(format!("a head is damaged: {}", damaged.error));
        }
        if let Some(remembered) = remembered
            && let Some(lost) = lost_head(&self.keyring, name, &found, remembered)
        {
            if read_only {
                notes.push(format!("head {} is read from what this machine remembers", remembered.sequence));
                let mut found = found;
                found.damaged.retain(|damaged| damaged.sequence != remembered.sequence);
                found.heads.insert(0, lost);
                return Ok(found);
            }
            restore_head(&*self.backend, &self.keyring, name, remembered.sequence, &remembered.head)?;
            notes.push(format!("head {} was restored from what this machine remembers", remembered.sequence));
            return read();
        }
        if read_only || !found.newest_is_damaged() {
            return Ok(found);
        }
        // Writing after an older head would fork the history in silence.
        Err(found.damaged.into_iter().next().map_or(Error::WrongKey, |damaged| damaged.error))
    }

    /// The names of all volumes that have a head.
    pub fn volumes(&self) -> Vec<VolumeName> {
        self.volumes.lock().iter().cloned().collect()
    }

    /// The heads of a volume that are kept, newest first, and those that are damaged.
    pub fn heads(&self, name: &VolumeName) -> Result<HeadsFound> {
        newest_heads(&*self.backend, &self.keyring, name, HEADS_KEPT as usize)
    }
}

/// Whether what is remembered is an ancestor of the newest head, as far as the kept heads tell.
fn is_proved(name: &VolumeName, remembered: Option<&Remembered>, found: &HeadsFound) -> Result<bool> {
    let Some(remembered) = remembered else { return Ok(true) };
    let Some(newest) = found.newest() else {
        let what = format!("it has no head, this machine remembers {}", remembered.sequence);
        return Err(Error::Rollback { volume: name.to_string(), what });
    };
    match remembered.compare(name, newest.head.sequence, newest.hash)? {
        Relation::Same => Ok(true),
        Relation::Newer => match found.hash_at(remembered.sequence) {
            Some(hash) => remembered.check_ancestor(name, hash).map(|()| true),
            None => Ok(false),
        },
    }
}

/// The remembered head, if the repository lacks exactly that one: it is damaged there, or was taken away after it had been
/// damaged, by a restoration that did not come to its end.
pub(super) fn lost_head(
    keyring: &Keyring,
    name: &VolumeName,
    found: &HeadsFound,
    remembered: &Remembered,
) -> Option<FoundHead> {
    let below = found.newest();
    let damaged = found.damaged.first().filter(|_| found.newest_is_damaged()).map(|damaged| damaged.sequence);
    let next = below.map_or(1, |below| below.head.sequence + 1);
    if damaged.is_some_and(|damaged| damaged != remembered.sequence)
        || (damaged.is_none() && remembered.sequence != next)
    {
        return None;
    }
    let head = Head::decode(keyring, name, remembered.sequence, &remembered.head).ok()?;
    let follows = below.is_none_or(|below| remembered.sequence != next || head.previous == below.hash);
    follows.then(|| FoundHead { head, hash: remembered.hash, bytes: remembered.head.clone() })
}

impl VolumeHandle {
    /// Its name.
    pub fn name(&self) -> &VolumeName {
        &self.name
    }

    /// Whether it was opened without the right to write.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What was noticed and mended, or could not be, when it was opened: for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The newest head; `None` for a volume that has none yet.
    pub fn head(&self) -> Option<Head> {
        self.state.lock().newest.as_ref().map(|(head, _)| head.clone())
    }

    /// Sequence and hash of the newest head.
    pub fn newest(&self) -> Option<(u64, HeadHash)> {
        self.state.lock().newest.as_ref().map(|(head, hash)| (head.sequence, *hash))
    }

    /// Hashes of the newest heads, newest first, and of the one before the oldest of them.
    pub fn recent_hashes(&self) -> Vec<HeadHash> {
        self.state.lock().hashes.clone()
    }

    /// Proves that what this machine remembers is an ancestor of the newest head, where the kept heads do not tell. `hash_at` looks up
    /// the hash of a sequence in the log of heads that the newest tree holds.
    ///
    /// [`Error::Rollback`] if the history went another way. A commit is refused before this succeeded.
    pub fn prove_ancestry(&self, hash_at: &mut dyn FnMut(u64) -> Result<Option<HeadHash>>) -> Result<()> {
        let remembered = {
            let state = self.state.lock();
            if state.proved {
                return Ok(());
            }
            state.remembered.clone()
        };
        if let Some(remembered) = remembered {
            let found = hash_at(remembered.sequence)?.ok_or_else(|| Error::Rollback {
                volume: self.name.to_string(),
                what: format!("its log of heads lacks head {}, which this machine remembers", remembered.sequence),
            })?;
            remembered.check_ancestor(&self.name, found)?;
        }
        self.state.lock().proved = true;
        Ok(())
    }

    /// Tells others about this holder anew, as when the mountpoint is known.
    pub fn update_holder(&self, holder: &Holder) -> Result<()> {
        self.state.lock().lock.as_ref().map_or(Ok(()), |held| held.lock.update(holder))
    }

    /// Gives the lock back; nothing can be committed any more.
    pub fn release(&self) {
        let lock = self.state.lock().lock.take();
        drop(lock);
    }

    /// Refuses a commit that must not happen.
    pub(super) fn check_writable(&self) -> Result<()> {
        let state = self.state.lock();
        if let Some(error) = &state.poisoned {
            return Err(error.clone());
        }
        if self.read_only || state.lock.is_none() {
            return Err(Error::ReadOnly { what: format!("volume {}", self.name) });
        }
        match state.proved {
            true => Ok(()),
            false => Err(Error::Rollback {
                volume: self.name.to_string(),
                what: "its history was not compared with what this machine remembers".to_string(),
            }),
        }
    }

    /// The head that follows the newest one.
    pub(super) fn next_head(&self, tree_root: BlobId, manifest: ManifestId, writer: [u8; 16]) -> Head {
        let state = self.state.lock();
        let (sequence, previous) = match &state.newest {
            Some((head, hash)) => (head.sequence + 1, *hash),
            None => (1, NO_HEAD),
        };
        Head {
            epoch: self.epoch,
            key_epoch: 0,
            sequence,
            previous,
            tree_root,
            op_sequence: 0,
            journal_commit: 0,
            gc_generation: 0,
            manifest,
            writer,
            time_ns: 0,
        }
    }

    /// The manifest that the newest head names, if this process wrote it.
    pub(super) fn written_manifest(&self) -> Option<(ManifestId, Manifest)> {
        self.state.lock().written.clone()
    }

    /// Takes a published head as the newest; gives the manifests that no kept head names any more.
    pub(super) fn advance(&self, head: &Head, hash: HeadHash, manifest: Manifest) -> Vec<ManifestId> {
        let mut state = self.state.lock();
        state.newest = Some((head.clone(), hash));
        state.hashes.insert(0, hash);
        state.hashes.truncate(HEADS_KEPT as usize + 1);
        state.written = Some((head.manifest, manifest));
        state.manifests.push_back((head.sequence, head.manifest));
        let mut unnamed = Vec::new();
        while let Some(&(sequence, id)) = state.manifests.front()
            && sequence + HEADS_KEPT <= head.sequence
        {
            state.manifests.pop_front();
            if !state.manifests.iter().any(|(_, kept)| *kept == id) {
                unnamed.push(id);
            }
        }
        unnamed
    }

    /// A head that the state directory did not take yet.
    pub(super) fn unremembered(&self) -> Option<Remembered> {
        self.state.lock().unremembered.clone()
    }

    /// Notes whether a published head is remembered.
    pub(super) fn set_unremembered(&self, remembered: Option<Remembered>) {
        self.state.lock().unremembered = remembered;
    }

    /// Another writer has taken over: nothing is written any more.
    pub(super) fn poison(&self, error: &Error) {
        self.state.lock().poisoned.get_or_insert_with(|| error.clone());
    }
}
