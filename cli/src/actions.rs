//! The work of commands on an open volume: the same for a command that opened it and for the process of a mount.

use std::{cell::RefCell, sync::Arc};

use vellum_fs::{
    time::Time,
    volume::{
        Volume,
        check::TreeSummary,
        gc::{self, GcStep},
        snapshot::SnapshotRequest,
    },
};
use vellum_store::{
    id::VolumeName,
    repository::{Damage, GcOptions, Progress, Repository},
};

use crate::{
    context::{Writer, open_volume, reader_options, state_dir},
    control::Answer,
    error::{Exit, Result},
    reports::{CheckReport, DamageReport, GcReport, Name, ProgressReport, SnapshotReport, StatsReport, StatusReport},
};

/// Damage beyond this is counted, and told while the check runs, but not repeated in its report.
const DAMAGE_KEPT_MAX: usize = 10_000;
/// Bytes that a check reads between two notes of how far it is: seconds of work, and a file of a hundred bytes.
const CHECK_NOTED_BYTES: u64 = 256 << 20;

/// Takes a snapshot.
pub fn snapshot(volume: &Volume, name: Option<&Name>, comment: &str) -> Result<SnapshotReport> {
    let request = SnapshotRequest { name: name.map(|name| name.0.clone()), comment: comment.to_string() };
    let record = volume.take_snapshot(&request)?;
    Ok((&record).into())
}

/// Lists snapshots, oldest first.
pub fn snapshots(volume: &Volume) -> Result<Vec<SnapshotReport>> {
    let records = volume.snapshots()?;
    Ok(records.iter().filter(|record| record.deleted.is_none()).map(Into::into).collect())
}

/// Deletes a snapshot.
pub fn delete(volume: &Volume, name: &Name) -> Result<SnapshotReport> {
    let record = volume.delete_snapshot(&name.0)?;
    Ok((&record).into())
}

/// Gives a snapshot another name.
pub fn rename(volume: &Volume, name: &Name, new_name: &Name) -> Result<SnapshotReport> {
    let record = volume.rename_snapshot(&name.0, &new_name.0)?;
    Ok((&record).into())
}

/// Counts what a repository holds.
pub fn stats(repository: &Repository) -> Result<StatsReport> {
    Ok((&repository.stats()?).into())
}

/// Completes a status with what changes.
pub fn fill_status(volume: &Volume, mut status: StatusReport) -> Result<StatusReport> {
    let statistics = volume.statistics()?;
    let health = volume.health();
    status.health = health.state.word().to_owned();
    status.trouble = health.trouble;
    (status.dirty_bytes, status.changes, status.head) = (health.dirty_bytes, health.changes, health.head);
    status.checkpoint = health.head_time.map(|time| time.sec);
    (status.free_bytes, status.total_bytes) = (statistics.writable_bytes, statistics.total_bytes);
    Ok(status)
}

/// Checks a repository and the trees of all its volumes. `mounted` is the one that this process has open. `tell` is given
/// progress and damage as they come. With `resume`, packs that the last check found right before it was cut off are not read again.
pub fn check(
    repository: &Arc<Repository>,
    mounted: Option<&Volume>,
    read_data: bool,
    resume: bool,
    tell: &mut dyn FnMut(Answer),
) -> Result<CheckReport> {
    let _packs = repository.keep_packs();
    let tell = RefCell::new(tell);
    let mut damage: Vec<DamageReport> = Vec::new();
    let mut found = |found: Damage| {
        let found = DamageReport::from(found);
        tell.borrow_mut()(Answer::Found(found.clone()));
        if damage.len() < DAMAGE_KEPT_MAX {
            damage.push(found);
        }
    };
    let mut progress = |progress: Progress| tell.borrow_mut()(Answer::Progress(progress.into()));
    let now_ns = Time::now().as_nanos();
    let mut notes = match (read_data, resume) {
        (false, _) => None,
        (true, false) => Some(repository.note_check(CHECK_NOTED_BYTES, now_ns)),
        (true, true) => Some(repository.resume_check(CHECK_NOTED_BYTES, now_ns)?),
    };
    let summary = match &mut notes {
        Some(notes) => repository.check_noting(notes, &mut progress, &mut found)?,
        None => repository.check(false, &mut progress, &mut found)?,
    };
    let mut report = CheckReport::new(&summary, read_data);
    for name in repository.volumes() {
        let trees = match mounted.filter(|volume| volume.options().name == name) {
            Some(volume) => Ok(volume.check_trees(&mut found)?),
            None => check_closed(repository, &name, &mut found),
        };
        match trees {
            Ok(trees) => {
                report.trees += trees.trees;
                report.nodes += trees.nodes;
                report.damaged += trees.damaged;
            }
            // It is so damaged that it cannot be opened.
            Err(error) if error.exit() == Exit::Damage => {
                report.damaged += 1;
                found(Damage { object: format!("volume {name}"), what: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(notes) = notes {
        notes.end();
    }
    report.damage = damage;
    Ok(report)
}

/// Frees what nothing reaches. Every volume takes part: those that are not `mounted` by this process are opened for it.
pub fn gc(
    repository: &Arc<Repository>,
    mounted: Option<&Arc<Volume>>,
    max_unused: Option<u8>,
    dry_run: bool,
    tell: &mut dyn FnMut(Answer),
) -> Result<GcReport> {
    let mut opened = Vec::new();
    let names = repository.stored_volumes()?;
    let mut open_others = || -> Result<()> {
        for name in names.iter().filter(|name| mounted.is_none_or(|mounted| mounted.options().name != **name)) {
            opened.push(Writer::open(&state_dir()?, repository, name)?);
        }
        Ok(())
    };
    let done = open_others().and_then(|()| {
        let volumes: Vec<_> = mounted.into_iter().chain(opened.iter().map(Writer::volume)).cloned().collect();
        let options = GcOptions { max_unused_percent: max_unused };
        let mut step = |step| tell(Answer::Progress(gc_progress(step)));
        Ok(gc::collect(repository, &volumes, &options, dry_run, &mut step)?)
    });
    let mut closed = Ok(());
    for writer in opened {
        // All of them, whatever the first says.
        closed = closed.and(writer.close());
    }
    let report = done?;
    closed?;
    Ok(GcReport::new(&report, dry_run))
}

fn gc_progress(step: GcStep) -> ProgressReport {
    let (bytes, bytes_total) = match step {
        GcStep::Moving(done, total) => (done, total),
        GcStep::Walking(_) | GcStep::Waiting | GcStep::Deleting => (0, 0),
    };
    let packs = if let GcStep::Walking(nodes) = step { nodes } else { 0 };
    ProgressReport { packs, packs_total: 0, bytes, bytes_total }
}

/// Checks the trees of a volume that is opened for it.
fn check_closed(repository: &Arc<Repository>, name: &VolumeName, found: &mut dyn FnMut(Damage)) -> Result<TreeSummary> {
    let volume = open_volume(Arc::clone(repository), reader_options(name.clone()))?;
    let checked = volume.check_trees(found);
    // It was only read: there is nothing to lose.
    let _ = volume.close();
    Ok(checked?)
}
