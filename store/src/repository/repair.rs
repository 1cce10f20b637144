//! Mending a repository: finds what is damaged, builds anew what follows from the packs, saves what damaged packs still hold, and
//! moves what is damaged out of the way.
//!
//! The caller opens the volumes, commits and walks the trees; the steps of [`Repair`] are taken in the order in which they are
//! listed, with commits of all volumes before the last.
//!
//! *Invariants*
//! 1. Nothing is overwritten or deleted: damaged objects are set aside whole, as they were found.
//! 2. A pack is set aside only when what can be read of it is stored again, and both newest heads of every volume name its
//!    tombstone (F5). So what is lost counts as absent, and heals when it is written again.
//! 3. Only damage is acted upon. A failure to read ends the run: what a failing disk does not give today may be read tomorrow.
//!
//! *Ordering*: every step finds its work in what is stored. A run that was cut off anywhere is followed by another one that goes on.
//!
//! *Threads*: the caller's, alone: a lock keeps other processes from writing.
//!
//! *Bounds*: two maps of pack ids, as for a check; 52 bytes for every blob of damaged packs; one pack's step of verification.
//!
//! *Not here*: which heads and trees are whole, journals, and which files are harmed (`fs`).

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Damage, Progress, Repository};
use crate::{
    backend::ObjectName,
    error::{Error, Result},
    format::head::Head,
    heads::{HEADS_KEPT, newest_heads, read_manifest},
    id::{BlobId, BlobKind, ManifestId, PackId, SegmentId, VolumeName},
    index::{Index, IndexOptions, PackStats},
    lock::{Holder, LockState, ReaderLock, WriterLock, read_holder},
    pack::{PackEntry, read_trailer, verify_pack},
    pipeline::Copies,
    state::{Remembered, StateDirectory},
};

/// What a run found and did, as far as the store knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairSummary {
    /// Stored packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Packs with damage.
    pub damaged_packs: u64,
    /// Packs that the index names and that are not there.
    pub gone_packs: u64,
    /// Packs that the index did not count, and that are there.
    pub returned_packs: u64,
    /// Whether the index is built anew.
    pub index_rebuilt: bool,
    /// Blobs of damaged packs that are stored again.
    pub saved_blobs: u64,
    /// Blobs of damaged packs of which no good copy is left; those of packs whose list is lost as well are not among them.
    pub lost_blobs: u64,
    /// Objects that were set aside.
    pub set_aside: u64,
    /// Objects that could not be set aside, because another process reads; a later run does it.
    pub delayed: u64,
}

/// What became of the heads of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MendedHeads {
    /// The newest intact head.
    pub newest: Option<u64>,
    /// A head that was written again from what this machine remembers.
    pub restored: Option<u64>,
    /// Damaged heads above the newest intact one: what only they named is lost.
    pub lost: Vec<u64>,
    /// Damaged heads below it, which nothing needs.
    pub old: Vec<u64>,
}

/// A stored pack that is not as it was written.
#[derive(Debug)]
struct DamagedPack {
    pack: PackId,
    /// Whether the entries are those of its trailer.
    has_trailer: bool,
    entries: Vec<PackEntry>,
}

/// A run that mends a repository.
pub struct Repair<'r> {
    repository: &'r Repository,
    dry_run: bool,
    damaged: Vec<DamagedPack>,
    gone: Vec<PackId>,
    /// Segments and manifests that are damaged.
    objects: Vec<ObjectName>,
    /// Blobs without a good copy.
    lost: HashSet<BlobId>,
    /// Whether the index had any segment when the run began.
    counts_packs: bool,
    /// What it came to so far.
    pub summary: RepairSummary,
}

impl std::fmt::Debug for Repair<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repair").field("repository", &self.repository.path).finish_non_exhaustive()
    }
}

impl Repository {
    /// Begins a run, which in a repository that is open read-only is a dry one. [`Error::Locked`] names who else writes.
    pub fn begin_repair(&self) -> Result<Repair<'_>> {
        let dry_run = self.is_read_only();
        self.check_unheld(&|_| true)?;
        if !dry_run {
            let mut writers = self.writers.lock();
            // Its own share would be in the way.
            *writers = None;
            *writers = WriterLock::exclude(&*self.disk, &self.path)?;
            if writers.is_none() {
                *writers = WriterLock::share(&*self.disk, &self.path)?;
                let holder = "another process that writes to it".to_string();
                return Err(Error::Locked { volume: self.path.display().to_string(), holder });
            }
        }
        Ok(Repair {
            repository: self,
            dry_run,
            damaged: Vec::new(),
            gone: Vec::new(),
            objects: Vec::new(),
            lost: HashSet::new(),
            counts_packs: !self.index.segments().is_empty(),
            summary: RepairSummary::default(),
        })
    }

    /// Volumes that have heads, or that a manifest or this machine says there were.
    pub fn known_volumes(&self) -> Result<BTreeSet<VolumeName>> {
        let mut volumes = self.stored_volumes()?;
        volumes.extend(self.missing_volumes.iter().cloned());
        if !self.adopt_copy {
            volumes.extend(StateDirectory::new(&*self.disk, &self.state_dir, &self.keyring).volumes()?);
        }
        Ok(volumes)
    }

    /// [`Error::Locked`] if anybody of whom `counts` is true has a volume open for writing, or somebody who does not say who he is.
    pub(super) fn check_unheld(&self, counts: &dyn Fn(&Holder) -> bool) -> Result<()> {
        for volume in self.known_volumes()? {
            let LockState::Held(holder) = read_holder(&*self.disk, &self.path, &volume)? else { continue };
            if holder.as_ref().is_none_or(counts) {
                let holder = holder.map_or_else(|| "another process".to_string(), |holder| holder.to_string());
                return Err(Error::Locked { volume: volume.to_string(), holder });
            }
        }
        Ok(())
    }

    /// How many places of a blob the index knows.
    pub fn copies(&self, id: &BlobId) -> Result<usize> {
        Ok(self.index.lookup(id)?.len())
    }
}

impl Repair<'_> {
    /// Whether nothing is changed.
    pub fn is_dry(&self) -> bool {
        self.dry_run
    }

    /// Looks at packs, index and manifests, and has the index tell what the packs hold. Packs of nodes are read whole, packs of
    /// content with `read_data`.
    pub fn survey(
        &mut self,
        read_data: bool,
        progress: &mut dyn FnMut(Progress),
        found: &mut dyn FnMut(Damage),
    ) -> Result<()> {
        let repository = self.repository;
        let mut relist = false;
        for error in repository.index_damage.lock().iter() {
            found(damage_of(error));
            self.summary.index_rebuilt = true;
        }
        let mut listed: HashMap<PackId, PackStats> = HashMap::new();
        let listing = repository.index.packs(&mut |pack, stats| {
            listed.insert(pack, stats);
            Ok(())
        });
        relist |= self.segments(found)?;
        match listing {
            Err(error) if error.is_damage() => relist = true,
            other => other?,
        }
        self.manifests(found)?;
        relist |= self.packs(read_data, &mut listed, progress, found)?;
        // Without its index a pack that is gone is not known to have been there.
        for (pack, stats) in listed {
            let what = format!("the pack is gone, and with it {} blobs", stats.entry_count);
            found(Damage { object: ObjectName::pack(&pack).to_string(), what });
            self.gone.push(pack);
        }
        self.summary.gone_packs = self.gone.len() as u64;
        self.find_entries()?;
        if relist {
            self.summary.index_rebuilt = true;
            repository.index.relist(self.dry_run, &mut |_, _| {})?;
        }
        Ok(())
    }

    /// Verifies the index segments; whether one that counts is damaged.
    fn segments(&mut self, found: &mut dyn FnMut(Damage)) -> Result<bool> {
        let mut live_damaged = false;
        let live: HashSet<SegmentId> = self.repository.index.segments().into_iter().collect();
        for segment in self.stored_segments()? {
            let mut damaged = Ok(());
            let verified = self
                .open_segment(segment)
                .and_then(|index| index.verify(&mut |_, error| damaged = Err(error)))
                .and_then(|()| std::mem::replace(&mut damaged, Ok(())));
            match verified {
                Err(error) if error.is_damage() => {
                    let name = ObjectName::segment(&segment);
                    found(Damage { object: name.to_string(), what: error.to_string() });
                    self.objects.push(name);
                    live_damaged |= live.contains(&segment);
                }
                other => other?,
            }
        }
        Ok(live_damaged)
    }

    fn stored_segments(&self) -> Result<Vec<SegmentId>> {
        let mut segments = Vec::new();
        self.repository.backend.list("index/", &mut |name, _| {
            segments.extend(name.as_segment());
            Ok(())
        })?;
        Ok(segments)
    }

    fn open_segment(&self, segment: SegmentId) -> Result<Index> {
        let options = IndexOptions { load_filters_later: true, ..IndexOptions::default() };
        Index::open(self.repository.backend.clone(), self.repository.keyring.clone(), &[segment], options)
    }

    fn manifests(&mut self, found: &mut dyn FnMut(Damage)) -> Result<()> {
        let repository = self.repository;
        let mut manifests = Vec::new();
        repository.backend.list("manifests/", &mut |name, _| {
            manifests.extend(ManifestId::from_hex(name.file_name()));
            Ok(())
        })?;
        for manifest in manifests {
            match read_manifest(&*repository.backend, &repository.keyring, manifest) {
                Err(error @ Error::Corrupt { .. }) => {
                    let name = ObjectName::manifest(&manifest);
                    if !repository.index_damage.lock().iter().any(|known| damage_of(known) == damage_of(&error)) {
                        found(damage_of(&error));
                    }
                    self.objects.push(name);
                }
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Looks at every stored pack and takes it out of `listed`; whether the index tells something else than the trailers.
    fn packs(
        &mut self,
        read_data: bool,
        listed: &mut HashMap<PackId, PackStats>,
        progress: &mut dyn FnMut(Progress),
        found: &mut dyn FnMut(Damage),
    ) -> Result<bool> {
        let mut stored: Vec<(PackId, u64)> = Vec::new();
        self.repository.backend.list("packs/", &mut |name, length| {
            stored.extend(name.as_pack().map(|pack| (pack, length)));
            Ok(())
        })?;
        let bytes_total = stored.iter().map(|(_, length)| length).sum();
        let (packs_total, mut differs) = (stored.len() as u64, false);
        for (pack, length) in stored {
            let stats = listed.remove(&pack);
            differs |= self.pack(pack, length, stats, read_data, found)?;
            self.summary.packs += 1;
            self.summary.pack_bytes += length;
            let (packs, bytes) = (self.summary.packs, self.summary.pack_bytes);
            progress(Progress { packs, packs_total, bytes, bytes_total });
        }
        Ok(differs)
    }

    fn pack(
        &mut self,
        pack: PackId,
        length: u64,
        stats: Option<PackStats>,
        read_data: bool,
        found: &mut dyn FnMut(Damage),
    ) -> Result<bool> {
        let Repository { backend, keyring, sealer, index, .. } = self.repository;
        let name = ObjectName::pack(&pack);
        let mut read = |offset, length| backend.get_range(&name, offset, length);
        let entries = match read_trailer(keyring, pack, length, &mut read) {
            Err(error) if error.is_damage() => {
                found(damage_of(&error));
                self.note_pack(DamagedPack { pack, has_trailer: false, entries: Vec::new() });
                return Ok(false);
            }
            other => other?,
        };
        let sealed_bytes: u64 = entries.iter().map(|entry| u64::from(entry.length)).sum();
        let counts = (entries.len() as u64, sealed_bytes);
        let differs = stats.is_some_and(|stats| (stats.entry_count, stats.sealed_bytes) != counts);
        if differs {
            let what = format!("it holds {} blobs, and the index lists others of it", entries.len());
            found(Damage { object: name.to_string(), what });
        }
        if read_data || entries.first().is_some_and(|first| first.kind == BlobKind::Node) {
            let mut first_bad = None;
            let mut blob = |entry: &PackEntry, sealed: &[u8]| {
                let unsealed = sealer.unseal(entry.kind, entry.epoch, &entry.id, sealed, entry.plain_length);
                if let Err(error) = unsealed {
                    first_bad.get_or_insert(error);
                }
                Ok(())
            };
            match verify_pack(keyring, pack, length, &mut read, &mut blob) {
                Err(error) if error.is_damage() => {
                    let what = first_bad.map_or_else(|| damage_of(&error).what, |bad| bad.to_string());
                    found(Damage { object: name.to_string(), what });
                    self.note_pack(DamagedPack { pack, has_trailer: true, entries });
                    return Ok(differs);
                }
                other => drop(other?),
            }
        }
        if stats.is_none() && index.is_removed(&pack) {
            return self.buried(pack, length, entries, found);
        }
        if stats.is_none() {
            // Of a process that ended before its commit; a head that is older than its journal may need it. Or it was gone for a
            // while, and its tombstone with it.
            index.insert_stored_pack(pack, &entries);
            // Without any segment, those of a head that is written again will tell of it.
            self.summary.returned_packs += u64::from(self.counts_packs);
        }
        Ok(differs)
    }

    /// Looks at a pack that has a tombstone and is there; whether it is to be listed again. It was gone when an earlier run looked
    /// for it, and came back; or it is unused, and a gc will find that once more. Or an earlier run was cut off before it could set
    /// the pack aside.
    fn buried(
        &mut self,
        pack: PackId,
        length: u64,
        entries: Vec<PackEntry>,
        found: &mut dyn FnMut(Damage),
    ) -> Result<bool> {
        let Repository { backend, keyring, .. } = self.repository;
        let name = ObjectName::pack(&pack);
        let mut read = |offset, length| backend.get_range(&name, offset, length);
        match verify_pack(keyring, pack, length, &mut read, &mut |_, _| Ok(())) {
            Err(error) if error.is_damage() => {
                found(damage_of(&error));
                self.note_pack(DamagedPack { pack, has_trailer: true, entries });
                Ok(false)
            }
            other => {
                other?;
                self.summary.returned_packs += 1;
                Ok(true)
            }
        }
    }

    fn note_pack(&mut self, pack: DamagedPack) {
        self.summary.damaged_packs += 1;
        self.damaged.push(pack);
    }

    /// Asks all segments, whether they count or not, what lies in the packs that have lost their own list: an entry is believed
    /// only as far as the blob unseals.
    fn find_entries(&mut self) -> Result<()> {
        let mut wanted: HashMap<PackId, Vec<PackEntry>> = self
            .damaged
            .iter()
            .filter(|damaged| !damaged.has_trailer)
            .map(|damaged| (damaged.pack, Vec::new()))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut take = |pack: PackId, entry: &PackEntry| {
            if let Some(entries) = wanted.get_mut(&pack) {
                entries.push(*entry);
            }
            Ok(())
        };
        for segment in self.stored_segments()? {
            match self.open_segment(segment).and_then(|index| index.for_each_entry(&mut take)) {
                // What came before the damaged page was taken.
                Err(error) if error.is_damage() => {}
                other => other?,
            }
        }
        for damaged in &mut self.damaged {
            if let Some(mut entries) = wanted.remove(&damaged.pack) {
                entries.sort_by_key(|entry| (entry.offset, entry.id));
                entries.dedup_by_key(|entry| (entry.offset, entry.id));
                damaged.entries = entries;
            }
        }
        Ok(())
    }

    /// Stores again what damaged packs still hold, and what other packs hold of what they have lost; then the damaged packs, and
    /// those that are gone, count for nothing. A dry run only finds out what would be lost.
    pub fn salvage(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let damaged = std::mem::take(&mut self.damaged);
        let packs: Vec<PackId> = damaged.iter().map(|damaged| damaged.pack).chain(self.gone.iter().copied()).collect();
        let index = &self.repository.index;
        if !self.dry_run {
            // Nothing that is put relies on them from here on.
            index.condemn(packs.iter().copied().collect());
        }
        let total = damaged.len() as u64;
        for (done, pack) in damaged.iter().enumerate() {
            progress(done as u64, total);
            self.salvage_pack(pack)?;
        }
        self.damaged = damaged;
        self.summary.lost_blobs = self.lost.len() as u64;
        match self.dry_run {
            // What would be saved is read where it is.
            true => index.remove_packs(&self.gone),
            false => {
                self.repository.flush_pipeline()?;
                index.remove_packs(&packs);
                index.condemn(HashSet::new());
            }
        }
        Ok(())
    }

    fn salvage_pack(&mut self, damaged: &DamagedPack) -> Result<()> {
        let Repository { backend, sealer, index, reader, .. } = self.repository;
        if index.is_removed(&damaged.pack) {
            // An earlier run was cut off before it could set it aside.
            return Ok(());
        }
        let name = ObjectName::pack(&damaged.pack);
        let mut good = Vec::new();
        for entry in &damaged.entries {
            let PackEntry { id, kind, epoch, plain_length, .. } = *entry;
            let sealed = backend.get_range(&name, u64::from(entry.offset), entry.length);
            let unsealed = sealed.and_then(|sealed| sealer.unseal(kind, epoch, &id, &sealed, plain_length));
            let places = index.lookup(&id)?;
            let elsewhere = places.iter().any(|place| place.pack != damaged.pack);
            let plain = match unsealed {
                Err(error) if error.is_damage() => match reader.read(kind, &id, plain_length) {
                    Err(error) if error.is_damage() => {
                        self.lost.insert(id);
                        continue;
                    }
                    other => other?.to_vec(),
                },
                other => other?,
            };
            self.lost.remove(&id);
            self.summary.saved_blobs += 1;
            good.push(*entry);
            if !self.dry_run {
                // Content is stored once, however often it is there by chance.
                let copies = if kind == BlobKind::Node && elsewhere { Copies::Two } else { Copies::One };
                self.repository.put(kind, plain, copies)?;
            }
        }
        if self.dry_run && !damaged.has_trailer {
            index.insert_stored_pack(damaged.pack, &good);
        }
        Ok(())
    }

    /// Whether no good copy of a blob is left.
    pub fn is_lost(&self, id: &BlobId) -> Result<bool> {
        Ok(self.lost.contains(id) || !self.repository.holds(id)?)
    }

    /// Whether something was found that a commit of every volume makes good.
    pub fn needs_commit(&self) -> bool {
        let Self { summary, damaged, gone, .. } = self;
        summary.index_rebuilt || summary.returned_packs > 0 || !damaged.is_empty() || !gone.is_empty()
    }

    /// Looks at a volume's heads, and changes nothing. The newest that this machine remembers counts as one that can be written
    /// again if its name is still there; if not, only if `can_open` finds its tree: otherwise the whole repository is an older one.
    pub fn look_at_heads(
        &self,
        volume: &VolumeName,
        can_open: &mut dyn FnMut(&Head) -> Result<bool>,
    ) -> Result<MendedHeads> {
        let found = self.repository.heads(volume)?;
        let mut mended =
            MendedHeads { newest: found.newest().map(|newest| newest.head.sequence), ..Default::default() };
        if let Some(remembered) = self.remembered(volume)?
            && mended.newest.is_none_or(|newest| remembered.sequence > newest)
        {
            let head = Head::decode(&self.repository.keyring, volume, remembered.sequence, &remembered.head)?;
            let is_damaged = found.damaged.iter().any(|damaged| damaged.sequence == remembered.sequence);
            if is_damaged || can_open(&head)? {
                (mended.newest, mended.restored) = (Some(remembered.sequence), Some(remembered.sequence));
            }
        }
        for damaged in found.damaged.iter().filter(|damaged| mended.restored != Some(damaged.sequence)) {
            let is_old = mended.newest.is_some_and(|newest| damaged.sequence < newest);
            let list = if is_old { &mut mended.old } else { &mut mended.lost };
            list.push(damaged.sequence);
        }
        Ok(mended)
    }

    /// Sees to it that the newest name of a volume's heads is that of an intact one, as [`Self::look_at_heads`] found it: the
    /// remembered one is written again, and damaged ones are set aside.
    pub fn mend_heads(&mut self, volume: &VolumeName, heads: &MendedHeads) -> Result<()> {
        if self.dry_run || heads.newest.is_none() {
            return Ok(());
        }
        if heads.restored.is_some()
            && let Some(remembered) = self.remembered(volume)?
        {
            let name = ObjectName::head(volume, remembered.sequence);
            self.put_aside(&name)?;
            self.repository.backend.put_new(&name, &remembered.head)?;
            self.repository.volumes.lock().insert(volume.clone());
        }
        heads
            .lost
            .iter()
            .chain(&heads.old)
            .try_for_each(|&sequence| self.put_aside(&ObjectName::head(volume, sequence)))
    }

    fn remembered(&self, volume: &VolumeName) -> Result<Option<Remembered>> {
        let Repository { keyring, disk, state_dir, adopt_copy, .. } = self.repository;
        if *adopt_copy {
            return Ok(None);
        }
        StateDirectory::new(&**disk, state_dir, keyring).load(volume)
    }

    fn put_aside(&mut self, name: &ObjectName) -> Result<()> {
        self.summary.set_aside += u64::from(self.repository.backend.set_aside(name)?);
        Ok(())
    }

    /// Keeps open packs that earlier processes left, and that a journal may name of which a part is lost.
    pub fn keep_leftovers(&mut self) -> Result<()> {
        let names = self.repository.take_leftovers();
        for name in names {
            self.put_aside(&ObjectName::new(&name.to_string())?)?;
        }
        Ok(())
    }

    /// Sets aside what is damaged. Every volume has committed twice since [`Self::salvage`], so that both newest heads of each
    /// name neither the damaged segments nor, without their tombstones, the damaged packs (F5).
    pub fn set_aside(&mut self) -> Result<()> {
        let packs = self.damaged.iter().map(|damaged| ObjectName::pack(&damaged.pack));
        let objects: Vec<ObjectName> = packs.chain(self.objects.iter().cloned()).collect();
        if objects.is_empty() {
            return self.set_aside_old_heads();
        }
        let Some(_readers) = ReaderLock::exclude(&*self.repository.disk, &self.repository.path)? else {
            self.summary.delayed = objects.len() as u64;
            return Ok(());
        };
        objects.iter().try_for_each(|name| self.put_aside(name))?;
        self.set_aside_old_heads()
    }

    /// Heads below the newest two whose manifests are gone could open nothing.
    fn set_aside_old_heads(&mut self) -> Result<()> {
        let Repository { backend, keyring, .. } = self.repository;
        for volume in self.repository.volumes() {
            let heads = newest_heads(&**backend, keyring, &volume, HEADS_KEPT as usize)?.heads;
            for old in heads.iter().skip(2) {
                match read_manifest(&**backend, keyring, old.head.manifest) {
                    Err(Error::NotFound { .. }) => self.put_aside(&ObjectName::head(&volume, old.head.sequence))?,
                    other => drop(other?),
                }
            }
        }
        Ok(())
    }
}

/// An error as a finding.
fn damage_of(error: &Error) -> Damage {
    match error {
        Error::Corrupt { object, what } => Damage { object: object.clone(), what: what.clone() },
        Error::NotFound { object } => Damage { object: object.clone(), what: "it is gone".to_string() },
        other => Damage { object: "repository".to_string(), what: other.to_string() },
    }
}
