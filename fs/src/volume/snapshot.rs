//! Snapshots: kept, named, immutable roots.
//!
//! *Ordering*: a snapshot is there when the head that lists it is durable; so is its deletion and its renaming. All three are
//! one checkpoint, whatever the volume holds (P3).
//!
//! *Invariants*: ids grow and are never used again; names are unique among the snapshots that are not deleted.

use std::sync::atomic::Ordering;

use vellum_store::id::BlobId;

use super::{Volume, records};
use crate::{
    error::{Error, Result},
    format::volume::{COMMENT_BYTES_MAX, SnapshotRecord},
    time::Time,
};

/// Longest name of a snapshot, in bytes.
pub const SNAPSHOT_NAME_MAX: usize = 200;

/// What to call a snapshot, and what to remember about it.
#[derive(Clone, Debug, Default)]
pub struct SnapshotRequest {
    /// Its name; the time of taking, if none is given.
    pub name: Option<Vec<u8>>,
    /// A comment.
    pub comment: String,
}

impl Volume {
    /// Takes a snapshot of everything that was answered before this call; returns when it is durable.
    pub fn take_snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotRecord> {
        self.check_writable()?;
        if request.comment.len() > COMMENT_BYTES_MAX {
            let what = format!("a comment of {} bytes, {COMMENT_BYTES_MAX} at most", request.comment.len());
            return Err(Error::InvalidArgument(what.into()));
        }
        let _turn = self.checkpoint_turn.lock();
        let tree = self.tree();
        let name = match &request.name {
            Some(name) => {
                self.check_snapshot_name(name)?;
                if records::find_snapshot(&tree, name)?.is_some() {
                    return Err(Error::Exists(format!("snapshot {}", name.escape_ascii()).into()));
                }
                name.clone()
            }
            None => free_time_name(|name| Ok(records::find_snapshot(&tree, name)?.is_some()), self.now())?,
        };
        let id = {
            let mut meta = self.meta.write();
            meta.next_snapshot += 1;
            meta.next_snapshot - 1
        };
        let record = SnapshotRecord {
            id,
            name,
            root: BlobId([0; 32]),
            time: self.now(),
            op_sequence: self.meta.read().op_sequence,
            comment: request.comment.clone(),
            held: false,
            deleted: None,
        };
        let record = self.run_checkpoint(Some(record))?;
        Ok(record.expect("a checkpoint that was given a snapshot returns it"))
    }

    /// All snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotRecord>> {
        records::snapshots(&self.tree())
    }

    /// The snapshot called `name`.
    pub fn snapshot(&self, name: &[u8]) -> Result<SnapshotRecord> {
        records::find_snapshot(&self.tree(), name)?
            .ok_or_else(|| Error::NotFound(format!("snapshot {}", name.escape_ascii()).into()))
    }

    /// Removes the snapshot from the list. Its space is freed by gc.
    pub fn delete_snapshot(&self, name: &[u8]) -> Result<SnapshotRecord> {
        self.check_writable()?;
        let _turn = self.checkpoint_turn.lock();
        let record = self.snapshot(name)?;
        self.replace_snapshot(&record, None)?;
        Ok(record)
    }

    /// Gives a snapshot another name.
    pub fn rename_snapshot(&self, name: &[u8], new_name: &[u8]) -> Result<SnapshotRecord> {
        self.check_snapshot_name(new_name)?;
        self.check_writable()?;
        let _turn = self.checkpoint_turn.lock();
        let record = self.snapshot(name)?;
        if records::find_snapshot(&self.tree(), new_name)?.is_some() {
            return Err(Error::Exists(format!("snapshot {}", new_name.escape_ascii()).into()));
        }
        let renamed = SnapshotRecord { name: new_name.to_vec(), ..record.clone() };
        self.replace_snapshot(&record, Some(&renamed))?;
        Ok(renamed)
    }

    /// Changes the list and makes that durable; what fails is taken back. The caller holds the checkpoint turn.
    fn replace_snapshot(&self, old: &SnapshotRecord, new: Option<&SnapshotRecord>) -> Result<()> {
        let replace = |old: Option<&SnapshotRecord>, new: Option<&SnapshotRecord>| {
            let mut meta = self.meta.write();
            meta.next_sequence();
            meta.change(|tree| {
                old.map_or(Ok(()), |old| records::remove_snapshot(tree, old))?;
                new.map_or(Ok(()), |new| records::put_snapshot(tree, new))
            })
        };
        replace(Some(old), new)?;
        self.last_change_ns.store(self.now().as_nanos(), Ordering::Relaxed);
        match self.run_checkpoint(None) {
            Ok(_) => Ok(()),
            Err(error) => {
                replace(new, Some(old))?;
                Err(error)
            }
        }
    }

    fn check_snapshot_name(&self, name: &[u8]) -> Result<()> {
        if name.len() > SNAPSHOT_NAME_MAX {
            return Err(Error::NameTooLong(format!("{} bytes, {SNAPSHOT_NAME_MAX} at most", name.len()).into()));
        }
        let reserved = name.is_empty()
            || name.starts_with(b".")
            || name.starts_with(b"@")
            || name == b"latest"
            || name.contains(&b'/')
            || name.contains(&b':')
            || name.contains(&0);
        if reserved {
            let what = format!(
                "snapshot name {:?}: use any bytes but / : NUL, not starting with . or @, and not \"latest\"",
                name.escape_ascii().to_string()
            );
            return Err(Error::InvalidArgument(what.into()));
        }
        Ok(())
    }
}

/// `2026-11-21T20-17-26Z`, with a counter behind it if that second already has a snapshot.
fn free_time_name(mut taken: impl FnMut(&[u8]) -> Result<bool>, now: Time) -> Result<Vec<u8>> {
    let base = now.to_name();
    let mut name = base.clone().into_bytes();
    for counter in 2..10_000u32 {
        if !taken(&name)? {
            return Ok(name);
        }
        name = format!("{base}.{counter}").into_bytes();
    }
    Err(Error::Exists(format!("snapshot {base}").into()))
}
