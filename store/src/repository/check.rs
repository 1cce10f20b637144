//! Checking a repository: every object, and that they agree.
//!
//! *Invariants*
//! 1. Damage is told by the name of the object, and the check goes on; only a failure to read ends it.
//! 2. Nothing in the repository is written. What a check has read it notes in the state directory of this machine, if it is asked to.
//! 3. A pack that an earlier check has read is not read again only if that check was cut off, found it right, and it is the same file still.
//!
//! *Bounds*: two maps of pack ids are held in memory, about 100 bytes a pack; blobs are verified one after the other.
//!
//! *Not here*: whether the trees are whole (`fs`, which walks them), repair.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use super::{Repository, open::read_slots};
use crate::{
    backend::ObjectName,
    config::CONFIG_COPIES,
    crypto::{SlotName, describe_slot, seal_config},
    error::{Error, Result},
    format::slot::SLOT_LENGTH,
    heads::{HEADS_KEPT, HeadsFound, newest_heads, read_manifest},
    id::{ManifestId, PackId, SegmentId, VolumeName},
    index::{Index, IndexOptions, PackStats},
    lock::Holder,
    pack::{PackEntry, read_trailer, verify_pack},
    state::{CheckedList, Mark, StateDirectory},
};

/// What was read by an earlier check, that was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlierCheck {
    /// When it began, in nanoseconds since 1970.
    pub began_ns: i64,
    /// Packs that it found right and that are the same files still.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Packs done.
    pub packs: u64,
    /// All packs.
    pub packs_total: u64,
    /// Bytes of packs done.
    pub bytes: u64,
    /// Bytes of all packs.
    pub bytes_total: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Damage {
    /// The object, as in the repository's layout.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Volumes with a head.
    pub volumes: u64,
    /// Intact heads.
    pub heads: u64,
    /// Index segments.
    pub segments: u64,
    /// Stored packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Blobs in them.
    pub blobs: u64,
    /// Packs that no index segment lists: of a process that runs, or that ended before its commit.
    pub unlisted_packs: u64,
    /// How much damage was told.
    pub damaged: u64,
    /// The check that this one went on from. Its packs are counted above, too.
    pub earlier: Option<EarlierCheck>,
}

/// A check under way.
struct Check<'a> {
    repository: &'a Repository,
    read_data: bool,
    found: &'a mut dyn FnMut(Damage),
    summary: CheckSummary,
    /// Objects and faults that were told, since several steps may meet the same.
    told: HashSet<Damage>,
}

impl Repository {
    /// No pack is deleted as long as this lives; a gc leaves that to its next run. For who looks at several trees and packs one
    /// after the other, and would take for damage what went in between.
    pub fn keep_packs(&self) -> impl Sized + '_ {
        // Taken by a check and, within it, by its parts: nobody waits for the other side of this lock, which is only tried.
        self.packs_in_use.read()
    }

    /// Checks everything but the trees. With `read_data` every byte of every pack is read and every blob unsealed; without, packs are
    /// compared with the index by their trailers.
    pub fn check(
        &self,
        read_data: bool,
        progress: &mut dyn FnMut(Progress),
        found: &mut dyn FnMut(Damage),
    ) -> Result<CheckSummary> {
        self.run_check(read_data, &mut CheckNotes::none(), progress, found)
    }

    /// As [`Self::check`] of every byte, but for the packs that the notes say were found right. What this one finds right is noted.
    pub fn check_noting(
        &self,
        notes: &mut CheckNotes<'_>,
        progress: &mut dyn FnMut(Progress),
        found: &mut dyn FnMut(Damage),
    ) -> Result<CheckSummary> {
        self.run_check(true, notes, progress, found)
    }

    /// Begins notes of which packs a check has read, in the place of those of an earlier one, at `now_ns` since 1970. Every `every_bytes`
    /// of packs they are written.
    pub fn note_check(&self, every_bytes: u64, now_ns: i64) -> CheckNotes<'_> {
        let list = match CheckedList::begin(self.states(), now_ns) {
            Ok(Some(list)) => Some(list),
            Ok(None) => {
                log::warn!(
                    "another check runs: this one takes no notes, and if it is cut off, nothing can go on from it"
                );
                None
            }
            Err(error) => {
                log::warn!("if this check is cut off, nothing can go on from it: {error}");
                None
            }
        };
        CheckNotes { list, every_bytes, ..CheckNotes::none() }
    }

    /// Goes on with the notes of the last check, if it was cut off and is not too old. An error if it runs still.
    pub fn resume_check(&self, every_bytes: u64, now_ns: i64) -> Result<CheckNotes<'_>> {
        let new = CheckNotes { every_bytes, ..CheckNotes::none() };
        match CheckedList::resume(self.states(), now_ns) {
            Ok(Some((list, checked))) => {
                Ok(CheckNotes { list: Some(list), earlier: checked.packs, began_ns: checked.began_ns, ..new })
            }
            Ok(None) => {
                let busy = io::Error::new(io::ErrorKind::ResourceBusy, "another check of it runs on this machine");
                Err(Error::io("go on with the check of this repository", busy))
            }
            Err(error) => {
                log::warn!("this check reads everything, and notes nothing: {error}");
                Ok(new)
            }
        }
    }

    fn states(&self) -> StateDirectory<'_> {
        StateDirectory::new(&*self.disk, &self.state_dir, &self.keyring)
    }

    fn run_check(
        &self,
        read_data: bool,
        notes: &mut CheckNotes<'_>,
        progress: &mut dyn FnMut(Progress),
        found: &mut dyn FnMut(Damage),
    ) -> Result<CheckSummary> {
        let _packs = self.keep_packs();
        let mut check =
            Check { repository: self, read_data, found, summary: CheckSummary::default(), told: HashSet::new() };
        check.config_and_slots()?;
        check.heads()?;
        check.index()?;
        check.packs(notes, progress)?;
        Ok(check.summary)
    }
}

impl Check<'_> {
    fn damage(&mut self, object: impl Into<String>, what: impl Into<String>) {
        let damage = Damage { object: object.into(), what: what.into() };
        if self.told.insert(damage.clone()) {
            self.summary.damaged += 1;
            (self.found)(damage);
        }
    }

    /// Tells damage and goes on; a failure to read is returned.
    fn tell(&mut self, error: Error) -> Result<()> {
        match error {
            Error::Corrupt { object, what } => self.damage(object, what),
            Error::NotFound { object } => self.damage(object, "it is gone"),
            Error::BlobMissing { id } => self.damage(format!("blob {id}"), "it is in no known pack"),
            Error::UnsupportedFormat { object, found, known } => {
                self.damage(object, format!("it has format version {found}; this program knows up to {known}"));
            }
            error => return Err(error),
        }
        Ok(())
    }

    fn config_and_slots(&mut self) -> Result<()> {
        let repository = self.repository;
        let good = seal_config(&repository.keyring, &repository.config);
        for object in CONFIG_COPIES {
            match repository.backend.get(&ObjectName::new(object)?, good.len() as u64) {
                Ok(bytes) if bytes == good => {}
                Ok(_) => self.damage(object, "it differs from the authentic configuration"),
                Err(error) => self.tell(error)?,
            }
        }
        let mut names: Vec<SlotName> = read_slots(&*repository.backend)?.into_iter().map(|(name, _)| name).collect();
        names.dedup();
        for name in names {
            self.slot(&name)?;
        }
        Ok(())
    }

    /// Checks the copies of one slot. Which of two intact ones is right only its secret could tell.
    fn slot(&mut self, name: &SlotName) -> Result<()> {
        let mut first: Option<Vec<u8>> = None;
        for object in name.objects() {
            let read = self.repository.backend.get(&ObjectName::new(&object)?, SLOT_LENGTH as u64);
            let bytes = match read.and_then(|bytes| describe_slot(name, &bytes).map(|_| bytes)) {
                Ok(bytes) => bytes,
                Err(Error::Corrupt { what, .. }) => {
                    self.damage(object, what);
                    continue;
                }
                // What was decoded knows the slot, not which of its copies it is.
                Err(Error::UnsupportedFormat { found, known, .. }) => {
                    self.tell(Error::UnsupportedFormat { object, found, known })?;
                    continue;
                }
                Err(error) => {
                    self.tell(error)?;
                    continue;
                }
            };
            if first.get_or_insert_with(|| bytes.clone()) != &bytes {
                self.damage(object, "it differs from another intact copy");
            }
        }
        Ok(())
    }

    fn heads(&mut self) -> Result<()> {
        let (backend, keyring) = (&*self.repository.backend, &*self.repository.keyring);
        for volume in &self.repository.missing_volumes {
            self.damage(format!("heads/{volume}"), "the volume's heads are gone");
        }
        for volume in self.repository.volumes() {
            self.summary.volumes += 1;
            let heads = newest_heads(backend, keyring, &volume, HEADS_KEPT as usize)?;
            let present = |sequence| {
                heads.heads.iter().any(|found| found.head.sequence == sequence)
                    || heads.damaged.iter().any(|damaged| damaged.sequence == sequence)
            };
            self.remembered_head(&volume, &heads)?;
            let newest = heads.newest().map_or(0, |newest| newest.head.sequence);
            let is_aside = |sequence| {
                // A repair has put it out of the way, and told of it.
                backend.length(&ObjectName::head(&volume, sequence).aside()).map(|length| length.is_some())
            };
            let mut missing = Vec::new();
            for sequence in (1..=newest).rev().take(HEADS_KEPT as usize).filter(|&sequence| !present(sequence)) {
                if !is_aside(sequence)? {
                    missing.push(sequence);
                }
            }
            // A writer that committed meanwhile has trimmed the oldest.
            let is_still_newest = || backend.length(&ObjectName::head(&volume, newest + 1)).map(|next| next.is_none());
            if !missing.is_empty() && is_still_newest()? {
                missing.iter().for_each(|&gone| self.damage(ObjectName::head(&volume, gone).to_string(), "it is gone"));
            }
            for damaged in heads.damaged {
                self.tell(damaged.error)?;
            }
            let mut told = Vec::new();
            for found in heads.heads {
                self.summary.heads += 1;
                let manifest = found.head.manifest;
                if told.contains(&manifest) {
                    continue;
                }
                told.push(manifest);
                if let Err(error) = read_manifest(backend, keyring, manifest) {
                    self.tell(error)?;
                }
            }
        }
        Ok(())
    }

    /// The newest head is at least the one that this machine remembers.
    fn remembered_head(&mut self, volume: &VolumeName, heads: &HeadsFound) -> Result<()> {
        let repository = self.repository;
        let remembered = match repository.states().load(volume) {
            Ok(Some(remembered)) if !repository.adopt_copy => remembered,
            Ok(_) => return Ok(()),
            Err(error @ Error::Rollback { .. }) => {
                self.damage(format!("heads/{volume}"), error.to_string());
                return Ok(());
            }
            Err(error) => return self.tell(error),
        };
        let newest = heads.newest().map(|newest| (newest.head.sequence, newest.hash));
        let told = heads.damaged.iter().any(|damaged| damaged.sequence == remembered.sequence);
        let what = match newest {
            Some((sequence, hash)) if sequence == remembered.sequence && hash != remembered.hash => {
                "it is another one than this machine remembers"
            }
            Some((sequence, _)) if sequence >= remembered.sequence => return Ok(()),
            _ if told => return Ok(()),
            _ => "it is gone, and this machine remembers it",
        };
        self.damage(ObjectName::head(volume, remembered.sequence).to_string(), what);
        Ok(())
    }

    fn index(&mut self) -> Result<()> {
        let damaged_at_open = self.repository.index_damage.lock().clone();
        damaged_at_open.into_iter().try_for_each(|error| self.tell(error))?;
        let index = &self.repository.index;
        self.summary.segments = index.segments().len() as u64;
        let mut damaged = Vec::new();
        index.verify(&mut |segment, error| damaged.push((segment, error)))?;
        for (segment, error) in damaged {
            self.damage(ObjectName::segment(&segment).to_string(), error.to_string());
        }
        self.unnamed_objects()
    }

    /// Segments and manifests that the newest heads do not name, but earlier ones may.
    fn unnamed_objects(&mut self) -> Result<()> {
        let (backend, keyring) = (&self.repository.backend, &self.repository.keyring);
        let live: HashSet<SegmentId> = self.repository.index.segments().into_iter().collect();
        let (mut segments, mut manifests) = (Vec::new(), Vec::new());
        backend.list("index/", &mut |name, _| {
            segments.extend(name.as_segment().filter(|segment| !live.contains(segment)));
            Ok(())
        })?;
        backend.list("manifests/", &mut |name, _| {
            manifests.extend(ManifestId::from_hex(name.file_name()));
            Ok(())
        })?;
        for segment in segments {
            let mut found = Ok(());
            let options = IndexOptions { load_filters_later: true, ..IndexOptions::default() };
            let verified = Index::open(backend.clone(), keyring.clone(), &[segment], options)
                .and_then(|index| index.verify(&mut |_, error| found = Err(error)));
            self.tell_unless_gone(verified.and(found))?;
        }
        for manifest in manifests {
            self.tell_unless_gone(read_manifest(&**backend, keyring, manifest).map(drop))?;
        }
        Ok(())
    }

    /// As [`Self::tell`], for objects that a writer may delete at any moment.
    fn tell_unless_gone(&mut self, checked: Result<()>) -> Result<()> {
        match checked {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => self.tell(error),
        }
    }

    fn packs(&mut self, notes: &mut CheckNotes<'_>, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let repository = self.repository;
        let mut listed: HashMap<PackId, PackStats> = HashMap::new();
        let listing = repository.index.packs(&mut |pack, stats| {
            listed.insert(pack, stats);
            Ok(())
        });
        if let Err(error) = listing {
            self.tell(error)?;
        }
        let mut stored: Vec<(PackId, u64)> = Vec::new();
        repository.backend.list("packs/", &mut |name, length| {
            stored.extend(name.as_pack().map(|pack| (pack, length)));
            Ok(())
        })?;
        let bytes_total = stored.iter().map(|(_, length)| length).sum();
        let packs_total = stored.len() as u64;
        self.summary.earlier = notes.began_ns.map(|began_ns| EarlierCheck { began_ns, packs: 0, bytes: 0 });
        for (pack, length) in stored {
            let stats = listed.remove(&pack);
            self.summary.unlisted_packs += u64::from(stats.is_none());
            // Before it is read: what takes its place meanwhile is another file.
            let mark = notes.mark(repository, &pack, length)?;
            if mark.is_some_and(|mark| notes.earlier.contains(&mark)) {
                self.pack(pack, length, stats, false)?;
                if let Some(earlier) = &mut self.summary.earlier {
                    earlier.packs += 1;
                    earlier.bytes += length;
                }
            } else if self.pack(pack, length, stats, self.read_data)? {
                notes.add(mark, length);
            }
            self.summary.packs += 1;
            self.summary.pack_bytes += length;
            let (packs, bytes) = (self.summary.packs, self.summary.pack_bytes);
            progress(Progress { packs, packs_total, bytes, bytes_total });
        }
        notes.write();
        for (pack, stats) in listed {
            let what = format!("the pack is gone, and with it {} blobs", stats.entry_count);
            self.damage(ObjectName::pack(&pack).to_string(), what);
        }
        Ok(())
    }

    /// Checks one pack, each blob of it if `read_data` is set. Returns whether it is there and right.
    fn pack(&mut self, pack: PackId, length: u64, stats: Option<PackStats>, read_data: bool) -> Result<bool> {
        let repository = self.repository;
        let name = ObjectName::pack(&pack);
        let mut read = |offset, length| repository.backend.get_range(&name, offset, length);
        let mut bad_blobs = Vec::new();
        let entries = if read_data {
            let mut blob = |entry: &PackEntry, sealed: &[u8]| {
                let unsealed = repository.sealer.unseal(entry.kind, entry.epoch, &entry.id, sealed, entry.plain_length);
                bad_blobs.extend(unsealed.err());
                Ok(())
            };
            verify_pack(&repository.keyring, pack, length, &mut read, &mut blob)
        } else {
            read_trailer(&repository.keyring, pack, length, &mut read)
        };
        let mut right = bad_blobs.is_empty();
        for error in bad_blobs {
            self.damage(name.to_string(), error.to_string());
        }
        let entries = match entries {
            Ok(entries) => entries,
            // Deleted between listing and reading.
            Err(Error::NotFound { .. }) if repository.backend.length(&name)?.is_none() && stats.is_none() => {
                return Ok(false);
            }
            Err(error) => return self.tell(error).map(|()| false),
        };
        self.summary.blobs += entries.len() as u64;
        let sealed_bytes: u64 = entries.iter().map(|entry| u64::from(entry.length)).sum();
        if let Some(stats) = stats
            && (stats.entry_count, stats.sealed_bytes) != (entries.len() as u64, sealed_bytes)
        {
            let what = format!("it holds {} blobs, and the index lists {} of it", entries.len(), stats.entry_count);
            self.damage(name.to_string(), what);
            right = false;
        }
        Ok(right)
    }
}

/// Which packs a check and the one that it goes on from have read. Notes only save work: if they cannot be written, the check goes on without.
#[derive(Debug)]
pub struct CheckNotes<'a> {
    list: Option<CheckedList<'a>>,
    earlier: HashSet<Mark>,
    /// When the earlier check began.
    began_ns: Option<i64>,
    /// Bytes of packs since the last note, and how many there may be.
    unwritten: u64,
    every_bytes: u64,
    /// The machine's present run, to which the notes belong.
    boot_id: String,
}

impl CheckNotes<'_> {
    fn none() -> Self {
        let boot_id = Holder::this_process(0).boot_id;
        Self { list: None, earlier: HashSet::new(), began_ns: None, unwritten: 0, every_bytes: 0, boot_id }
    }

    /// The check has ended, and nothing is left to go on with.
    pub fn end(self) {
        if let Some(Err(error)) = self.list.map(CheckedList::end) {
            log::warn!("a later check may go on from this one, which has ended: {error}");
        }
    }

    /// What stands for a pack in the notes; `None` if there are none.
    fn mark(&self, repository: &Repository, pack: &PackId, length: u64) -> Result<Option<Mark>> {
        if self.list.is_none() {
            return Ok(None);
        }
        let identity = repository.backend.identity(&ObjectName::pack(pack))?;
        Ok(identity.map(|identity| Mark::new(pack, length, &identity, &self.boot_id)))
    }

    fn add(&mut self, mark: Option<Mark>, length: u64) {
        let (Some(list), Some(mark)) = (&mut self.list, mark) else { return };
        let added = list.add(mark, length);
        self.keep(added);
        self.unwritten += length;
        if self.unwritten >= self.every_bytes {
            self.write();
        }
    }

    fn write(&mut self) {
        self.unwritten = 0;
        let written = self.list.as_mut().map_or(Ok(()), |list| list.write());
        self.keep(written);
    }

    fn keep(&mut self, noted: Result<()>) {
        if let Err(error) = noted {
            log::warn!("if this check is cut off, what it reads from here on is read again: {error}");
            self.list = None;
        }
    }
}
