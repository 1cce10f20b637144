//! Mending the volumes of a repository that nobody has mounted: each one opens for writing again, from the newest state that can be
//! read, and what is lost is told by name.
//!
//! *Invariants*
//! 1. A volume goes on from its newest intact head. If the tree of that cannot be opened, the newest earlier tree that can be takes
//!    its place in a new head; no sequence, operation, inode or snapshot number is used again.
//! 2. What a journal proves before its damage is kept, in a head that covers every number that the journal ever showed; only then is
//!    the journal set aside.
//! 3. Harmed files stay as they are: what cannot be read of them answers with damage, and never with other bytes.
//!
//! *Ordering*: packs and index are mended first, in memory; the first commit makes that durable. The damaged packs are set aside
//! after all volumes have committed twice. A run that was cut off anywhere is taken up by the next.
//!
//! *Threads*: the caller's; the store keeps other writers away.
//!
//! *Bounds*: those of a check of the store, and of [`super::harm`].

use std::{io, path::PathBuf, sync::Arc};

use vellum_store::{
    format::head::Head,
    heads::FoundHead,
    id::{HeadHash, VolumeName},
    journal::Journal,
    repository::{Damage, MendedHeads, Progress, Repair, RepairSummary, Repository},
};

use super::{
    Volume, VolumeOptions,
    harm::{Harm, HarmSearch, HarmSummary},
    nodes::RepositoryNodes,
    open::into_store,
    records,
    state::inode_in,
};
use crate::{
    error::{Error, Result},
    ino::Ino,
    time::Time,
    tree::{NodeCache, Tree},
};

/// Inode numbers that one operation takes at most: a run of its directory.
const INODES_PER_OPERATION: u64 = 256;

/// What a run tells while it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairEvent {
    /// How far it is with the packs.
    Progress(Progress),
    /// Damage that was found.
    Found(Damage),
    /// What was mended, or in a dry run would be.
    Mended(String),
    /// What is lost beyond single files, or cannot be mended.
    Lost(String),
    /// A file, directory or tree that is harmed.
    Harm(Harm),
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What the store did.
    pub store: RepairSummary,
    /// Damage that was found.
    pub found: u64,
    /// Things that were mended.
    pub mended: u64,
    /// Losses beyond single files.
    pub lost: u64,
    /// What the trees suffered.
    pub harm: HarmSummary,
    /// Volumes that can be written.
    pub volumes: u64,
}

/// How one volume is.
struct Look {
    name: VolumeName,
    /// The head whose tree is taken, if it is not that of the newest.
    source: Option<FoundHead>,
    /// Why its journal cannot be replayed to its end.
    journal: Option<String>,
}

impl Look {
    fn is_healthy(&self) -> bool {
        self.source.is_none() && self.journal.is_none()
    }
}

struct Run<'a> {
    repository: &'a Arc<Repository>,
    options: &'a dyn Fn(&VolumeName) -> Result<VolumeOptions>,
    repair: Repair<'a>,
    tell: &'a mut dyn FnMut(RepairEvent),
    report: RepairReport,
}

/// Mends a repository of which no volume is open; if it is open read-only, only tells what would be done. `options` gives those
/// of each volume.
pub fn repair(
    repository: &Arc<Repository>,
    options: &dyn Fn(&VolumeName) -> Result<VolumeOptions>,
    read_data: bool,
    tell: &mut dyn FnMut(RepairEvent),
) -> Result<RepairReport> {
    let repair = repository.begin_repair()?;
    let mut run = Run { repository, options, repair, tell, report: RepairReport::default() };
    run.packs_and_index(read_data)?;
    let mut looks = Vec::new();
    for name in repository.known_volumes()? {
        looks.extend(run.look(name)?);
    }
    let volumes = if run.repair.is_dry() { run.open_dry(&looks)? } else { run.open_mended(&looks)? };
    run.report.volumes = volumes.len() as u64;
    let done = run.finish(&volumes, looks.iter().any(|look| !look.is_healthy()));
    let mut closed = Ok(());
    for volume in &volumes {
        // All of them, whatever the first says.
        closed = closed.and(volume.close());
    }
    done?;
    closed?;
    run.report.store = run.repair.summary;
    Ok(run.report)
}

impl Run<'_> {
    fn mended(&mut self, text: String) {
        self.report.mended += 1;
        (self.tell)(RepairEvent::Mended(text));
    }

    fn lost(&mut self, text: String) {
        self.report.lost += 1;
        (self.tell)(RepairEvent::Lost(text));
    }

    fn packs_and_index(&mut self, read_data: bool) -> Result<()> {
        let (mut found, mut count) = (Vec::new(), 0);
        let tell = &mut self.tell;
        self.repair.survey(read_data, &mut |progress| tell(RepairEvent::Progress(progress)), &mut |damage| {
            count += 1;
            found.push(damage);
        })?;
        self.report.found = count;
        found.into_iter().for_each(|damage| tell(RepairEvent::Found(damage)));
        self.repair.salvage(&mut |_, _| {})?;
        let summary = self.repair.summary;
        if summary.returned_packs > 0 {
            self.mended(format!("packs that were not counted, and are taken in: {}", summary.returned_packs));
        }
        if summary.index_rebuilt {
            self.mended("the index is built anew from the packs".to_string());
        }
        if summary.damaged_packs > 0 {
            self.mended(format!(
                "damaged packs: {}, which are set aside; of their blobs {} were saved, {} lost",
                summary.damaged_packs, summary.saved_blobs, summary.lost_blobs
            ));
        }
        if summary.gone_packs > 0 {
            self.lost(format!(
                "packs that are gone: {}; put them back from a copy of the repository",
                summary.gone_packs
            ));
        }
        Ok(())
    }

    /// Mends the heads of a volume, and finds out from which of them it can go on; `None` if there is none.
    fn look(&mut self, name: VolumeName) -> Result<Option<Look>> {
        let repository = self.repository;
        let mut can_open = |head: &Head| match open_tree(repository, head) {
            Ok(_) => Ok(true),
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(into_store(error)),
        };
        let heads = self.repair.look_at_heads(&name, &mut can_open)?;
        // Told before it is done: once damaged heads are out of the way, nothing shows any more that they were there.
        self.tell_heads(&name, &heads);
        self.repair.mend_heads(&name, &heads)?;
        if heads.newest.is_none() {
            return Ok(None);
        }
        let found = repository.heads(&name)?.heads;
        let Some(source) = choose(repository, &found)? else {
            let sequences = found.iter().map(|found| found.head.sequence.to_string()).collect::<Vec<_>>().join(", ");
            self.lost(format!("volume {name}: no tree of its heads ({sequences}) can be opened"));
            return Ok(None);
        };
        let newest = found.first().map(|newest| newest.head.sequence);
        match records::snapshots(&open_tree(repository, &source.head)?) {
            // A mount does without: going back to an older tree for their sake would lose what is newer.
            Err(error) if error.is_damage() => {
                self.lost(format!("volume {name}: snapshots that its list cannot tell any more: {error}"));
            }
            other => drop(other?),
        }
        let mut look = Look { name, source: None, journal: None };
        if Some(source.head.sequence) != newest {
            let when = Time::from_nanos(source.head.time_ns);
            self.lost(format!(
                "volume {}: the tree of its newest head cannot be opened; it goes on from head {} of {}",
                look.name,
                source.head.sequence,
                when.to_name()
            ));
            look.source = Some(source);
        }
        look.journal = self.look_at_journal(&look)?;
        if let Some(why) = look.journal.clone() {
            self.lost(format!("volume {}: what its journal held behind its damage is lost: {why}", look.name));
        }
        Ok(Some(look))
    }

    fn tell_heads(&mut self, name: &VolumeName, heads: &MendedHeads) {
        let list = |sequences: &[u64]| sequences.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        if let Some(restored) = heads.restored {
            self.mended(format!("volume {name}: head {restored} is written again from what this machine remembers"));
        }
        if !heads.old.is_empty() {
            self.mended(format!("volume {name}: old damaged heads are set aside: {}", list(&heads.old)));
        }
        match heads.newest {
            None => self.lost(format!("volume {name}: it has no head that can be read")),
            Some(newest) if !heads.lost.is_empty() => {
                let lost = list(&heads.lost);
                self.lost(format!(
                    "volume {name}: the newest heads are damaged ({lost}); it goes on from head {newest}"
                ));
            }
            Some(_) => {}
        }
    }

    /// Replays the journal in memory, and says why it ends early, if it does.
    fn look_at_journal(&self, look: &Look) -> Result<Option<String>> {
        let mut options = (self.options)(&look.name)?;
        (options.read_only, options.create) = (true, false);
        let (volume, damage) = Volume::open_from(self.repository, options, look.source.as_ref())?;
        volume.close()?;
        Ok(damage)
    }

    /// Opens the volumes as they would be after a run, for looking only.
    fn open_dry(&self, looks: &[Look]) -> Result<Vec<Arc<Volume>>> {
        let open = |look: &Look| {
            let mut options = (self.options)(&look.name)?;
            (options.read_only, options.create) = (true, false);
            Ok(Arc::new(Volume::open_from(self.repository, options, look.source.as_ref())?.0))
        };
        looks.iter().map(open).collect()
    }

    fn open_mended(&mut self, looks: &[Look]) -> Result<Vec<Arc<Volume>>> {
        let (healthy, harmed): (Vec<&Look>, Vec<&Look>) = looks.iter().partition(|look| look.is_healthy());
        let mut volumes = Vec::new();
        for look in healthy {
            volumes.push(self.open(&look.name)?);
        }
        for look in &harmed {
            self.mend(look)?;
        }
        if harmed.iter().any(|look| look.journal.is_some()) {
            self.repair.keep_leftovers()?;
        }
        for look in &harmed {
            volumes.push(self.open(&look.name)?);
        }
        Ok(volumes)
    }

    fn open(&self, name: &VolumeName) -> Result<Arc<Volume>> {
        let mut options = (self.options)(name)?;
        options.create = false;
        let (volume, summary) = Volume::open(Arc::clone(self.repository), options)?;
        match summary.damage {
            None => Ok(volume),
            Some(what) => Err(Error::damaged(format!("volume {name}"), format!("it could not be mended: {what}"))),
        }
    }

    /// Publishes a head that holds what is left of a volume, and sets its journal aside.
    fn mend(&mut self, look: &Look) -> Result<()> {
        let name = &look.name;
        let mut options = (self.options)(name)?;
        options.create = false;
        let (mut volume, damage) = Volume::open_from(self.repository, options, look.source.as_ref())?;
        let dir = volume.journal_dir();
        volume.cover_journal(&dir)?;
        volume.publish_mended()?;
        if damage.is_some() {
            let disk = self.repository.disk();
            let kept: Vec<PathBuf> = Journal::set_aside(&**disk, &dir)?;
            if let Some(first) = kept.first() {
                let (count, first) = (kept.len(), first.display().to_string());
                self.mended(format!(
                    "volume {name}: a new journal; {count} segments of the old one are kept, as {first}"
                ));
            }
        }
        volume.close()?;
        self.mended(format!("volume {name}: a new head holds what is left, and it can be written again"));
        Ok(())
    }

    /// Tells the harm, makes all durable, and sets aside what is damaged.
    fn finish(&mut self, volumes: &[Arc<Volume>], any_mended: bool) -> Result<()> {
        let dry = self.repair.is_dry();
        let (repair, tell) = (&self.repair, &mut self.tell);
        let mut harm = HarmSummary::default();
        for volume in volumes {
            let mut search = HarmSearch {
                is_lost: &|id| Ok(repair.is_lost(id)?),
                store_copies: !dry,
                tell: &mut |harm| {
                    tell(RepairEvent::Harm(harm));
                    Ok(())
                },
            };
            let of_volume = volume.find_harm(&mut search)?;
            harm.trees += of_volume.trees;
            harm.harmed += of_volume.harmed;
            harm.single_copies += of_volume.single_copies;
        }
        self.report.harm = harm;
        if harm.single_copies > 0 {
            self.mended(format!(
                "nodes of which one copy was left, and that are stored twice again: {}",
                harm.single_copies
            ));
        }
        if dry {
            return Ok(());
        }
        if any_mended || harm.single_copies > 0 || self.repair.needs_commit() {
            // Both newest heads of each volume name the new index, and with it the tombstones (F5).
            for _ in 0..2 {
                volumes.iter().try_for_each(|volume| volume.commit_unchanged())?;
            }
        }
        self.repair.set_aside()?;
        let summary = self.repair.summary;
        if summary.set_aside > 0 {
            self.mended(format!("damaged objects that are kept in damaged/: {}", summary.set_aside));
        }
        if summary.delayed > 0 {
            let count = summary.delayed;
            self.lost(format!(
                "damaged objects that stay in place, since another process reads: {count}; repair again later"
            ));
        }
        Ok(())
    }
}

/// The newest head from whose tree a volume can go on.
fn choose(repository: &Arc<Repository>, heads: &[FoundHead]) -> Result<Option<FoundHead>> {
    for found in heads {
        match open_tree(repository, &found.head) {
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(Some(found.clone())),
        }
    }
    Ok(None)
}

/// Opens the tree of a head, if its root, its counters and its root directory can be read.
fn open_tree(repository: &Arc<Repository>, head: &Head) -> Result<Tree> {
    let nodes = Arc::new(RepositoryNodes::new(Arc::clone(repository)));
    let tree = Tree::load(nodes, NodeCache::new(1 << 20), &head.tree_root)?;
    if records::state(&tree)?.is_none() {
        return Err(Error::damaged("volume state", "the tree of a head has none"));
    }
    match inode_in(&tree, Ino::ROOT)? {
        Some(_) => Ok(tree),
        None => Err(Error::damaged("root directory", "the tree of a head has none")),
    }
}

/// That a part of a journal cannot be read is no damage to be settled: it may be read tomorrow.
fn unreadable_journal(name: &VolumeName, what: &str) -> Error {
    vellum_store::Error::io(format!("read the journal of volume {name}"), io::Error::other(what)).into()
}

impl Volume {
    /// Opens a volume without its threads and without a journal of its own: the tree of `source`, or else of the newest head, and
    /// what the journal adds to it. Tells why the journal ends early, if it does.
    fn open_from(
        repository: &Arc<Repository>,
        options: VolumeOptions,
        source: Option<&FoundHead>,
    ) -> Result<(Self, Option<String>)> {
        let handle = repository.open_volume(&options.name, false, options.read_only, &options.holder)?;
        let newest = handle.head().ok_or_else(|| Error::not_found(format!("volume {}", options.name)))?;
        let head = source.map_or_else(|| newest.clone(), |source| source.head.clone());
        let nodes = Arc::new(RepositoryNodes::new(Arc::clone(repository)));
        let tree = Tree::load(nodes, NodeCache::new(options.node_cache_bytes), &head.tree_root)?;
        handle.prove_ancestry(&mut |sequence| records::head(&tree, sequence).map_err(into_store))?;
        let mut heads: Vec<HeadHash> = handle.recent_hashes();
        heads.drain(..((newest.sequence - head.sequence) as usize).min(heads.len()));
        heads.truncate(2);
        let mut volume = Self::assemble(Arc::clone(repository), options, handle, tree, Some(&head))?;
        let replayed = volume.replay_journal(head.journal_commit, &heads, false)?;
        if let Some(what) = replayed.damage.as_deref().filter(|_| replayed.unreadable) {
            return Err(unreadable_journal(&volume.options.name, what));
        }
        if source.is_some() {
            volume.skip_numbers(&head, &newest);
        }
        Ok((volume, replayed.damage))
    }

    /// No number that the lost trees gave out is given out again.
    fn skip_numbers(&mut self, from: &Head, newest: &Head) {
        let mut meta = self.meta.write();
        let operations = newest.op_sequence.saturating_sub(from.op_sequence);
        let skipped = operations.saturating_add(1).saturating_mul(INODES_PER_OPERATION);
        let next = meta.runs.next().saturating_add(skipped);
        meta.runs.lift_past(Ino(next));
        meta.next_snapshot += newest.sequence - from.sequence;
        meta.op_sequence = meta.op_sequence.max(newest.op_sequence);
    }

    /// Has the next head cover every number that the journal shows, and those of the heads before it.
    fn cover_journal(&mut self, dir: &std::path::Path) -> Result<()> {
        let disk = self.repository.disk();
        let (keyring, name) = (Arc::clone(self.repository.keyring()), &self.options.name);
        let newest = self.handle.head().map_or(0, |head| head.journal_commit);
        let seen = Journal::read(&**disk, dir, keyring, name, newest, &[], &mut |_, _| Ok(()))?;
        if seen.unreadable {
            return Err(unreadable_journal(name, "a block of it, which may hold newer numbers"));
        }
        self.journal_floor = seen.newest_seen.max(newest);
        Ok(())
    }

    /// A head that holds the present state and continues the newest one, whatever tree it came from.
    fn publish_mended(&self) -> Result<()> {
        {
            let mut meta = self.meta.write();
            let newest = self.handle.newest().map_or(0, |(sequence, _)| sequence);
            for (sequence, hash) in (1..=newest).rev().zip(self.handle.recent_hashes()) {
                if records::head(&meta.tree, sequence)?.is_none() {
                    records::put_head(&mut meta.tree, sequence, &hash)?;
                }
            }
            meta.next_sequence();
        }
        self.checkpoint()
    }

    /// A head of the same state.
    fn commit_unchanged(&self) -> Result<()> {
        let _turn = self.checkpoint_turn.lock();
        self.run_checkpoint(None).map(drop)
    }
}
