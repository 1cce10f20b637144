//! Reclaiming space beside live volumes: walks every tree that counts, and leads a run of the store's gc through its steps.
//!
//! *Invariants*
//! 1. Every volume of the repository takes part, open for writing in this process: what another one holds in memory could not be walked.
//! 2. Walked are the trees of the two newest heads of each volume, those of the snapshots that the newest one lists, and
//!    those of deleted snapshots that somebody still has open.
//! 3. A node that cannot be read ends the run before anything is deleted: what lies below it is unknown.
//!
//! *Ordering*: a checkpoint of every volume after the packs are condemned waits for flushes under way, which may have relied on
//! them (`flush.rs`: a flush holds its inode's turn from capture to publication), and no copy of references is under way then. So the walk after it meets all that
//! relies on a condemned pack, and what comes later relies on none. Before packs are buried, everybody has gone who
//! reads the live tree as it was before the walk.
//!
//! *Threads*: the caller's. Readers and writers go on.
//!
//! *Bounds*: those of the store's marks; a path of nodes of each tree.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use vellum_store::{
    id::BlobId,
    index::{Marked, Marks},
    repository::{GcOptions, GcSummary, Repository},
};

use super::{Volume, records};
use crate::{
    error::{Error, Result},
    format::{
        extent::Extent,
        key::{self, KeyParts},
    },
    tree::{Readers, Visitor},
};

/// How long those who read are waited for; if one takes longer, the next run frees the packs.
const READERS_PATIENCE: Duration = Duration::from_secs(30);

/// How far a run is, for who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcStep {
    /// Trees are walked; so many nodes were.
    Walking(u64),
    /// What is used is moved out of packs: bytes of packs done, and of all.
    Moving(u64, u64),
    /// Those who read are waited for.
    Waiting,
    /// Packs are deleted.
    Deleting,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Packs and bytes.
    pub space: GcSummary,
    /// Trees that were walked.
    pub trees: u64,
    /// Deleted snapshots that somebody has open, which hold what they show.
    pub open_deleted: u64,
    /// Chunks that files name and no pack has: damage that a check tells in full.
    pub missing_chunks: u64,
}

/// Reclaims space of a repository, all of whose volumes are open for writing. With `dry_run` nothing is changed but for a
/// checkpoint, and the report tells what would be done.
pub fn collect(
    repository: &Arc<Repository>,
    volumes: &[Arc<Volume>],
    options: &GcOptions,
    dry_run: bool,
    tell: &mut dyn FnMut(GcStep),
) -> Result<GcReport> {
    let mut run = repository.begin_gc()?;
    for name in repository.stored_volumes()? {
        let volume = volumes.iter().find(|volume| volume.options.name == name);
        let holder = || "nobody here, and gc needs all volumes".to_string();
        let volume =
            volume.ok_or_else(|| vellum_store::Error::Locked { volume: name.to_string(), holder: holder() })?;
        volume.check_healthy()?;
    }
    // Two, since the newest two count: what was deleted before this call is in neither.
    commit(volumes)?;
    commit(volumes)?;
    run.survey()?;
    let mut report = GcReport::default();
    let marks = walk(volumes, run.marks()?, &mut report, tell)?;
    let accepted = volumes.iter().map(|volume| volume.accepted_bytes()).sum();
    let mut plan = run.plan(&marks, options, accepted)?;
    drop(marks);
    if dry_run {
        report.space = plan.summary;
        return Ok(report);
    }
    if !plan.is_empty() {
        run.condemn(&plan)?;
        {
            // A reference that is being copied from a file that goes meanwhile would be in no tree.
            let _still: Vec<_> = volumes.iter().map(|volume| volume.sharing.write()).collect();
            // What relied on the condemned packs before is in the trees of these heads.
            commit(volumes)?;
        }
        let marks = walk(volumes, run.marks()?, &mut report, tell)?;
        run.rescue(&mut plan, &marks, &mut |done, total| tell(GcStep::Moving(done, total)))?;
        drop(marks);
        // F1, F5: what was moved is durable and listed before its old place is given up,
        commit(volumes)?;
        // no reader is on its way to what goes,
        tell(GcStep::Waiting);
        if !readers_have_gone(volumes) || !run.bury(&plan) {
            log::warn!("gc: somebody goes on reading; the next run frees what is unused");
            plan.summary.delayed_packs = plan.pack_count();
            report.space = plan.summary;
            return Ok(report);
        }
        // and the two newest heads both name the tombstones before the packs go.
        commit(volumes)?;
        commit(volumes)?;
    }
    tell(GcStep::Deleting);
    run.delete(&mut plan)?;
    report.space = plan.summary;
    Ok(report)
}

/// Waits until nobody reads a live tree as it was before the walk; `false` if somebody takes too long.
fn readers_have_gone(volumes: &[Arc<Volume>]) -> bool {
    let readers: Vec<Readers> = volumes.iter().map(|volume| volume.renew_lease()).collect();
    let deadline = Instant::now() + READERS_PATIENCE;
    readers.iter().all(|readers| readers.wait(deadline.saturating_duration_since(Instant::now())))
}

impl Volume {
    /// Those who read the live tree as it was.
    fn renew_lease(&self) -> Readers {
        // A checkpoint that ends puts back the tree that it froze.
        let _turn = self.checkpoint_turn.lock();
        self.meta.write().tree.renew_lease()
    }
}

/// Publishes a head of each volume, whether anything changed or not.
fn commit(volumes: &[Arc<Volume>]) -> Result<()> {
    volumes.iter().try_for_each(|volume| {
        volume.check_healthy()?;
        let _turn = volume.checkpoint_turn.lock();
        volume.run_checkpoint(None).map(drop)
    })
}

/// Marks everything that the volumes reach.
fn walk<'m>(
    volumes: &[Arc<Volume>],
    marks: Marks<'m>,
    report: &mut GcReport,
    tell: &mut dyn FnMut(GcStep),
) -> Result<Marks<'m>> {
    (report.trees, report.open_deleted, report.missing_chunks) = (0, 0, 0);
    let mut walk = Walk { volume: None, marks, nodes: 0, missing: 0, tell };
    for volume in volumes {
        let mut roots = BTreeMap::new();
        for root in newest_roots(volume)? {
            roots.insert(root, ());
            for snapshot in records::snapshots(&volume.tree().at_root(&root)?)? {
                roots.insert(snapshot.root, ());
            }
        }
        for root in volume.snapdir.open_roots() {
            report.open_deleted += u64::from(roots.insert(root, ()).is_none());
        }
        walk.volume = Some(volume);
        for root in roots.keys() {
            report.trees += 1;
            volume.tree().at_root(root)?.visit(&mut walk)?;
        }
    }
    report.missing_chunks = walk.missing;
    Ok(walk.marks)
}

/// Roots of the two newest heads. The listing is not believed if it lacks one of them: with an older one in its place, what the
/// missing one names would go.
fn newest_roots(volume: &Volume) -> Result<Vec<BlobId>> {
    let _turn = volume.checkpoint_turn.lock();
    let found = volume.repository.heads(&volume.options.name)?;
    let newest = volume.handle.newest().map(|(sequence, _)| sequence);
    let sequences: Vec<u64> = found.heads.iter().take(2).map(|found| found.head.sequence).collect();
    if sequences.first().copied() != newest || sequences.get(1).map(|below| below + 1) != newest {
        let what = "one of its two newest heads is damaged or gone: run check";
        return Err(Error::damaged(format!("volume {}", volume.options.name), what));
    }
    Ok(found.heads.iter().take(2).map(|found| found.head.tree_root).collect())
}

/// Marks the nodes of trees and the chunks that they name.
struct Walk<'a, 'm> {
    volume: Option<&'a Arc<Volume>>,
    marks: Marks<'m>,
    nodes: u64,
    missing: u64,
    tell: &'a mut dyn FnMut(GcStep),
}

impl Visitor for Walk<'_, '_> {
    fn enter(&mut self, id: &BlobId, _level: u8) -> Result<ControlFlow<()>> {
        match self.marks.mark(id)? {
            // All of it was walked, or is being walked.
            Marked::Again => Ok(ControlFlow::Break(())),
            Marked::First | Marked::Unlisted => {
                self.nodes += 1;
                if self.nodes.is_multiple_of(256) {
                    (self.tell)(GcStep::Walking(self.nodes));
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let parts = KeyParts::parse(key).ok_or_else(|| Error::damaged("a record", "its key is malformed"))?;
        if parts.kind != key::EXTENT {
            return Ok(());
        }
        let offset = parts.number().ok_or_else(|| Error::damaged(parts.ino, "the key of a record is malformed"))?;
        let blob = Extent::decode(offset, value)?.blob;
        if self.marks.mark(&blob)? == Marked::Unlisted
            && let Some(volume) = self.volume
            && !volume.repository.holds(&blob)?
        {
            self.missing += 1;
        }
        Ok(())
    }
}
