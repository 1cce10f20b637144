//! Reclaiming space: which packs hold what nothing reaches, moving what is reached out of them, and deleting them.
//!
//! The caller walks the trees and marks what they name; everything else is here. A run goes through the steps of [`Gc`] in the
//! order in which they are listed, with commits of all volumes in between.
//!
//! *Invariants*
//! 1. A pack is deleted only when nothing marked is in it alone, and no head of the newest two of any volume needs it (F5).
//! 2. From [`Gc::condemn`] on nothing new relies on a condemned pack; what relied on one before is marked by the walk after it.
//! 3. A listing that lacks a pack which the index names ends the run before anything is changed.
//!
//! *Ordering*: condemn, barrier (every volume commits), mark, move, commit, tombstones, two commits, delete. A crash before the
//! tombstones leaves blobs stored twice; a crash after them leaves packs that nothing names. The next run meets both.
//!
//! *Threads*: one run at a time; writers and readers go on beside it. A lock keeps other processes from writing: they would
//! deduplicate against packs that they do not know to be condemned.
//!
//! *Bounds*: the marks (an eighth of a byte an entry), 150 bytes a pack, and what verifying one pack takes.
//!
//! *Not here*: which trees there are (`fs`).

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::atomic::Ordering,
};

use parking_lot::RwLockWriteGuard;

use super::Repository;
use crate::{
    backend::ObjectName,
    error::{Error, Result},
    heads::{HEADS_KEPT, newest_heads, read_manifest},
    id::{BlobKind, PackId, SegmentId, VolumeName},
    index::{Location, Marks, PackUse},
    lock::{Holder, ReaderLock, WriterLock},
    pack::{PackEntry, verify_pack},
    pipeline::Copies,
};

/// Packs that nothing reaches are much if they are this part of the room to move what others hold.
const DEAD_PART: u64 = 16;
/// Part of all stored bytes that one run moves, unless it is told how much may stay unused: one in ten.
const MOVED_PART: u64 = 10;
/// Packs below this part of the usual size are small.
const SMALL_PART: u64 = 8;
/// Small packs of a kind that are worth putting together.
const SMALL_MIN: usize = 8;

/// What a run may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// Move as much as it takes until at most this percentage of the stored bytes is unused; if not given, only what is
    /// mostly unused, and a tenth of all bytes at most.
    pub max_unused_percent: Option<u8>,
}

/// What a run found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcSummary {
    /// Stored packs before.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of blobs that something reaches.
    pub live_bytes: u64,
    /// Packs in which nothing is reached.
    pub dead_packs: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// Packs out of which what is reached is moved.
    pub moved_packs: u64,
    /// Bytes of those packs.
    pub moved_from_bytes: u64,
    /// Bytes of the blobs that are moved.
    pub moved_bytes: u64,
    /// Bytes of packs that were deleted.
    pub deleted_bytes: u64,
    /// Packs that cannot be deleted yet, because another process reads; a later run deletes them.
    pub delayed_packs: u64,
    /// Packs that stay because something in them is damaged.
    pub damaged_packs: u64,
    /// Unused bytes in packs that stay.
    pub unused_bytes: u64,
}

/// Packs that a run will do without.
#[derive(Debug, Default)]
pub struct GcPlan {
    packs: BTreeMap<PackId, PackUse>,
    /// What it comes to.
    pub summary: GcSummary,
}

impl GcPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// Packs that are to go.
    pub fn pack_count(&self) -> u64 {
        self.packs.len() as u64
    }
}

/// A run that reclaims space.
pub struct Gc<'r> {
    repository: &'r Repository,
    /// Stored packs and their lengths, when the run began.
    stored: BTreeMap<PackId, u64>,
    /// Those of them that an earlier run buried and could not delete. A merge may drop their tombstones meanwhile.
    buried: HashSet<PackId>,
    alone: Option<WriterLock>,
    /// From the burial on: nobody reads packs by their names.
    idle: Option<RwLockWriteGuard<'r, ()>>,
}

impl std::fmt::Debug for Gc<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gc").field("repository", &self.repository.path).finish_non_exhaustive()
    }
}

impl Repository {
    /// Begins a run. [`Error::Locked`] while another process can write to the repository.
    pub fn begin_gc(&self) -> Result<Gc<'_>> {
        self.writing()?;
        if let Some(volume) = self.missing_volumes.first() {
            // What only that volume reaches would go, and the volume can come back until then.
            return Err(Error::corrupt(format!("heads/{volume}"), "the volume's heads are gone, and gc would follow"));
        }
        let mut share = self.writers.lock();
        // Its own share would be in the way.
        *share = None;
        let Some(alone) = WriterLock::exclude(&*self.disk, &self.path)? else {
            *share = WriterLock::share(&*self.disk, &self.path)?;
            let own = Holder::this_process(0);
            self.check_unheld(&|holder| (holder.pid, &holder.host) != (own.pid, &own.host))?;
            let holder = "another process that writes to it".to_string();
            return Err(Error::Locked { volume: self.path.display().to_string(), holder });
        };
        Ok(Gc { repository: self, stored: BTreeMap::new(), buried: HashSet::new(), alone: Some(alone), idle: None })
    }

    /// Volumes that have a directory of heads, whoever made them.
    pub fn stored_volumes(&self) -> Result<BTreeSet<VolumeName>> {
        let mut volumes = self.volumes.lock().clone();
        self.backend.list("heads/", &mut |name, _| {
            volumes.extend(name.as_str().split('/').nth(1).and_then(|text| VolumeName::new(text).ok()));
            Ok(())
        })?;
        Ok(volumes)
    }
}

impl Drop for Gc<'_> {
    fn drop(&mut self) {
        self.repository.index.condemn(HashSet::new());
        let mut share = self.repository.writers.lock();
        self.alone = None;
        // Another run may begin between the two; it then finds that the volumes of this process are locked, and ends.
        let path = &self.repository.path;
        match WriterLock::share(&*self.repository.disk, path) {
            Ok(shared) => *share = shared,
            Err(error) => log::warn!("the lock of writers of {}: {error}", path.display()),
        }
    }
}

impl Gc<'_> {
    /// Lists what is stored, and takes packs into the index that nobody has told it of: of processes that ended before their
    /// commit, or that wrote other volumes. Ends with an error if a pack is missing that the index names.
    pub fn survey(&mut self) -> Result<()> {
        let repository = self.repository;
        repository.backend.list("packs/", &mut |name, length| {
            self.stored.extend(name.as_pack().map(|pack| (pack, length)));
            Ok(())
        })?;
        self.buried = self.stored.keys().filter(|pack| repository.index.is_removed(pack)).copied().collect();
        repository.list_packs()?;
        repository.index.packs(&mut |pack, _| {
            let name = ObjectName::pack(&pack);
            if !self.stored.contains_key(&pack) && repository.backend.length(&name)?.is_none() {
                return Err(Error::corrupt(name.to_string(), "the index names it and it is gone"));
            }
            Ok(())
        })
    }

    /// Begins to mark what is reached. All volumes have committed since the survey, so that the index segments list all that
    /// their newest heads name.
    pub fn marks(&self) -> Result<Marks<'_>> {
        self.repository.index.flush()?;
        Ok(self.repository.index.marks())
    }

    /// Chooses the packs to do without. `accepted` bytes of the disk are promised to what was written and is not stored yet.
    pub fn plan(&self, marks: &Marks<'_>, options: &GcOptions, accepted: u64) -> Result<GcPlan> {
        let mut plan = GcPlan::default();
        let summary = &mut plan.summary;
        (summary.packs, summary.bytes) = (self.stored.len() as u64, self.stored.values().sum());
        let mut uses: BTreeMap<PackId, PackUse> = marks.packs()?;
        // What was stored since the survey is of no interest: it is new.
        uses.retain(|pack, _| self.stored.contains_key(pack));
        summary.live_bytes = uses.values().map(|used| used.live_bytes).sum();
        let dead: Vec<PackId> = uses.iter().filter(|(_, used)| used.live_blobs == 0).map(|(pack, _)| *pack).collect();
        for pack in dead {
            summary.dead_packs += 1;
            summary.dead_bytes += self.stored[&pack];
            plan.packs.extend(uses.remove_entry(&pack));
        }
        let mut unused: u64 = uses.iter().map(|(pack, used)| self.stored[pack].saturating_sub(used.live_bytes)).sum();
        let space = self.repository.backend.space()?;
        let free = space.free_bytes.saturating_sub(accepted);
        // What is moved is there twice until the old packs go, and the checkpoints of the run want space as well. What is set aside
        // is for that too, unless much goes without being moved: the next run has its space.
        let with_reserve = free.saturating_add(space.reserve_bytes) / 4 * 3;
        let room = if plan.summary.dead_bytes > with_reserve / DEAD_PART { free / 2 } else { with_reserve };
        let chosen = self.choose(&uses, unused, options, plan.summary.bytes, room)?;
        for pack in chosen {
            let used = uses[&pack];
            plan.summary.moved_packs += 1;
            plan.summary.moved_bytes += used.live_bytes;
            plan.summary.moved_from_bytes += self.stored[&pack];
            unused -= self.stored[&pack].saturating_sub(used.live_bytes);
            plan.packs.insert(pack, used);
        }
        plan.summary.unused_bytes = unused;
        Ok(plan)
    }

    /// Packs that are worth moving out of, the least used first, within what may be moved.
    fn choose(
        &self,
        uses: &BTreeMap<PackId, PackUse>,
        unused: u64,
        options: &GcOptions,
        bytes: u64,
        room: u64,
    ) -> Result<Vec<PackId>> {
        let length = |pack: &PackId| self.stored[pack];
        let small = u64::from(self.repository.config.pack_bytes) / SMALL_PART;
        let mut worth: BTreeSet<PackId> = BTreeSet::new();
        for kind in [BlobKind::Data, BlobKind::Node] {
            let of_kind = uses.iter().filter(|(pack, used)| used.kind == kind && length(pack) < small);
            let of_kind: Vec<PackId> = of_kind.map(|(pack, _)| *pack).collect();
            if of_kind.len() >= SMALL_MIN {
                worth.extend(of_kind);
            }
        }
        let wanted = options.max_unused_percent.map(|percent| bytes / 100 * u64::from(percent.min(100)));
        worth.extend(uses.iter().filter(|(pack, used)| used.live_bytes * 2 < length(pack)).map(|(pack, _)| *pack));
        if wanted.is_some() {
            worth.extend(uses.keys());
        }
        let mut order: Vec<PackId> = worth.into_iter().collect();
        order.sort_by_key(|pack| (uses[pack].live_bytes * 1000 / length(pack).max(1), *pack));
        let movable = match wanted {
            Some(_) => room,
            None => room.min((bytes / MOVED_PART).max(u64::from(self.repository.config.pack_bytes))),
        };
        let (mut moved, mut left, mut chosen) = (0, unused, Vec::new());
        for pack in order {
            let is_small = length(&pack) < small;
            if moved + uses[&pack].live_bytes > movable {
                continue;
            }
            if wanted.is_some_and(|wanted| left <= wanted) && !is_small {
                continue;
            }
            moved += uses[&pack].live_bytes;
            left -= length(&pack).saturating_sub(uses[&pack].live_bytes);
            chosen.push(pack);
        }
        Ok(chosen)
    }

    /// From here on nothing that is written relies on the packs of the plan. Every volume commits before it is marked again.
    pub fn condemn(&self, plan: &GcPlan) -> Result<()> {
        self.repository.index.condemn(plan.packs.keys().copied().collect());
        // Who asked the index before has taken its blob for stored by the end of this.
        self.repository.flush_pipeline()
    }

    /// Stores again, under fresh nonces, what is marked in condemned packs. A pack with damage stays. `progress` is told the
    /// bytes of packs done and of all.
    pub fn rescue(&self, plan: &mut GcPlan, marks: &Marks<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let total = plan.packs.keys().map(|pack| self.stored[pack]).sum();
        let (mut done, mut kept) = (0, Vec::new());
        let uses = marks.packs()?;
        for pack in plan.packs.keys() {
            if uses.get(pack).is_some_and(|used| used.live_blobs > 0) {
                match self.rescue_pack(*pack, plan, marks) {
                    Err(error) if error.is_damage() => {
                        log::warn!("pack {pack} stays, because what it holds cannot be moved: {error}");
                        kept.push(*pack);
                    }
                    other => other?,
                }
            }
            done += self.stored[pack];
            progress(done, total);
        }
        plan.summary.damaged_packs = kept.len() as u64;
        plan.packs.retain(|pack, _| !kept.contains(pack));
        self.repository.flush_pipeline()
    }

    fn rescue_pack(&self, pack: PackId, plan: &GcPlan, marks: &Marks<'_>) -> Result<()> {
        let Repository { backend, keyring, sealer, index, .. } = self.repository;
        let name = ObjectName::pack(&pack);
        let mut read = |offset, length| backend.get_range(&name, offset, length);
        let mut move_blob = |entry: &PackEntry, sealed: &[u8]| {
            if !marks.is_marked(&entry.id)? {
                return Ok(());
            }
            let plain = sealer.unseal(entry.kind, entry.epoch, &entry.id, sealed, entry.plain_length)?;
            let places = index.lookup(&entry.id)?;
            // A place that stays may be the damaged one that writing the blob again has healed.
            for place in places.iter().filter(|place| !plan.packs.contains_key(&place.pack)) {
                if let Err(error) = self.verify_blob(entry, place) {
                    log::warn!("blob {} is damaged in pack {}: {error}", entry.id, place.pack);
                    self.repository.writing()?.suspect(&entry.id);
                }
            }
            // Content is stored once, however often it is there by chance.
            let twice = entry.kind == BlobKind::Node && places.len() > 1;
            let copies = if twice { Copies::Two } else { Copies::One };
            self.repository.put(entry.kind, plain, copies).map(drop)
        };
        verify_pack(keyring, pack, self.stored[&pack], &mut read, &mut move_blob).map(drop)
    }

    fn verify_blob(&self, entry: &PackEntry, place: &Location) -> Result<()> {
        let Repository { backend, sealer, .. } = self.repository;
        let sealed = backend.get_range(&ObjectName::pack(&place.pack), u64::from(place.offset), place.length)?;
        sealer.unseal(entry.kind, place.epoch, &entry.id, &sealed, place.plain_length).map(drop)
    }

    /// Makes the entries of the condemned packs void, with the next commit also for others. All volumes have committed since the
    /// rescue, so what was in them is durable elsewhere; every volume commits twice before [`Self::delete`]. `false`, and nothing done,
    /// while a check reads packs by their names, who would take what is void for lost.
    pub fn bury(&mut self, plan: &GcPlan) -> bool {
        self.idle = self.repository.packs_in_use.try_write();
        if self.idle.is_none() {
            return false;
        }
        let packs: Vec<PackId> = plan.packs.keys().copied().collect();
        self.repository.index.remove_packs(&packs);
        self.repository.gc_generation.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Deletes the packs of the plan, and what earlier runs left. F5: tombstones cover them, and the two newest heads of every volume
    /// name those.
    pub fn delete(&mut self, plan: &mut GcPlan) -> Result<()> {
        let repository = self.repository;
        // One that was taken in again, its tombstone being gone, is a pack like others.
        let buried: Vec<PackId> = self.buried.iter().copied().collect();
        let unlisted: HashSet<PackId> = repository.index.unknown_packs(&buried).into_iter().collect();
        let is_buried = |pack: &&PackId| {
            plan.packs.contains_key(pack) || repository.index.is_removed(pack) || unlisted.contains(pack)
        };
        let packs: Vec<PackId> = self.stored.keys().filter(is_buried).copied().collect();
        let idle = self.idle.take().or_else(|| repository.packs_in_use.try_write());
        let readers = ReaderLock::exclude(&*repository.disk, &repository.path)?;
        let (Some(_idle), Some(_readers)) = (idle, readers) else {
            plan.summary.delayed_packs = packs.len() as u64;
            return Ok(());
        };
        for pack in packs {
            repository.spawner.step("gc: delete pack");
            repository.backend.delete(&ObjectName::pack(&pack))?;
            plan.summary.deleted_bytes += self.stored[&pack];
        }
        repository.backend.hold_reserve();
        self.delete_unnamed_segments()
    }

    /// Deletes index segments that no kept head names: of merges by processes that ended before they could.
    fn delete_unnamed_segments(&self) -> Result<()> {
        let Repository { backend, keyring, index, .. } = self.repository;
        // A segment that is being written is listed before it is named.
        let _still = index.hold_still();
        let mut named: HashSet<SegmentId> = index.segments_in_use().into_iter().collect();
        for volume in self.repository.stored_volumes()? {
            for found in newest_heads(&**backend, keyring, &volume, HEADS_KEPT as usize)?.heads {
                match read_manifest(&**backend, keyring, found.head.manifest) {
                    Ok(manifest) => named.extend(manifest.segments),
                    // Nothing is deleted on the word of what cannot be read.
                    Err(_) => return Ok(()),
                }
            }
        }
        let mut unnamed = Vec::new();
        backend.list("index/", &mut |name, _| {
            unnamed.extend(name.as_segment().filter(|segment| !named.contains(segment)));
            Ok(())
        })?;
        unnamed.iter().try_for_each(|segment| backend.delete(&ObjectName::segment(segment)))
    }
}
