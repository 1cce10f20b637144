//! The work of commands on an open volume: the same for a command that opened it and for the process of a mount.

use std::sync::Arc;

use vellum_fs::volume::{Volume, snapshot::SnapshotRequest};
use vellum_store::repository::Repository;

use crate::{
    control::Answer,
    error::Result,
    reports::{CheckReport, DamageReport, Name, SnapshotReport, StatsReport, StatusReport},
};

/// Damage beyond this is counted, and told while the check runs, but not repeated in its report.
const DAMAGE_KEPT_MAX: usize = 10_000;

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
    status.poisoned = volume.poisoned().map(|why| why.to_string());
    (status.free_bytes, status.total_bytes) = (statistics.free_bytes, statistics.total_bytes);
    Ok(status)
}

/// Checks a repository and the trees of an open volume. `tell` is given progress and damage as they come.
pub fn check(volume: &Arc<Volume>, read_data: bool, tell: &mut dyn FnMut(Answer)) -> Result<CheckReport> {
    let mut damage: Vec<DamageReport> = Vec::new();
    let summary = {
        let tell = std::cell::RefCell::new(&mut *tell);
        let mut progress =
            |progress: vellum_store::repository::Progress| tell.borrow_mut()(Answer::Progress(progress.into()));
        let mut found = |found| {
            let found = DamageReport::from(found);
            tell.borrow_mut()(Answer::Found(found.clone()));
            if damage.len() < DAMAGE_KEPT_MAX {
                damage.push(found);
            }
        };
        volume.repository().check(read_data, &mut progress, &mut found)?
    };
    let mut report = CheckReport::new(&summary, read_data);
    report.damage = damage;
    Ok(report)
}
