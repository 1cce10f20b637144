//! The records that a tree holds about its volume: counters, the log of heads, the list of snapshots.
//!
//! *Bounds*: the snapshot list is read by scanning its records; a lookup by name or id reads O(depth) nodes.

use std::ops::ControlFlow;

use vellum_store::id::HeadHash;

use crate::{
    error::{Error, Result},
    format::{
        key,
        volume::{self, SnapshotRecord, VolumeState},
    },
    tree::Tree,
};

/// The counters, or `None` in a tree that has none yet.
pub fn state(tree: &Tree) -> Result<Option<VolumeState>> {
    tree.get(key::volume_state().as_bytes())?.map(|value| VolumeState::decode(&value)).transpose()
}

/// Writes the counters.
pub fn put_state(tree: &mut Tree, state: &VolumeState) -> Result<()> {
    tree.insert(key::volume_state().as_bytes(), &state.encode()).map(|_| ())
}

/// Notes the hash of an earlier head.
pub fn put_head(tree: &mut Tree, sequence: u64, hash: &HeadHash) -> Result<()> {
    tree.insert(key::volume_head(sequence).as_bytes(), &volume::encode_head(hash)).map(|_| ())
}

/// The hash of an earlier head, if the log has it.
pub fn head(tree: &Tree, sequence: u64) -> Result<Option<HeadHash>> {
    tree.get(key::volume_head(sequence).as_bytes())?.map(|value| volume::decode_head(&value)).transpose()
}

/// Enters a snapshot, or replaces its record.
pub fn put_snapshot(tree: &mut Tree, record: &SnapshotRecord) -> Result<()> {
    tree.insert(key::snapshot(record.id).as_bytes(), &record.encode())?;
    let name = key::snapshot_name(&record.name);
    tree.insert(name.as_bytes(), &volume::encode_snapshot_id(record.id)).map(|_| ())
}

/// Takes a snapshot off the list.
pub fn remove_snapshot(tree: &mut Tree, record: &SnapshotRecord) -> Result<()> {
    tree.remove(key::snapshot(record.id).as_bytes())?;
    tree.remove(key::snapshot_name(&record.name).as_bytes()).map(|_| ())
}

/// The snapshot of that name, if there is one.
pub fn find_snapshot(tree: &Tree, name: &[u8]) -> Result<Option<SnapshotRecord>> {
    if name.is_empty() || name.len() > crate::format::NAME_BYTES_MAX {
        return Ok(None);
    }
    let Some(id) = tree.get(key::snapshot_name(name).as_bytes())? else {
        return Ok(None);
    };
    let id = volume::decode_snapshot_id(&id)?;
    let record = tree.get(key::snapshot(id).as_bytes())?;
    let record = record.ok_or_else(|| Error::damaged("list of snapshots", "a name leads to no snapshot"))?;
    SnapshotRecord::decode(id, &record).map(Some)
}

/// All snapshots in the order in which they were taken.
pub fn snapshots(tree: &Tree) -> Result<Vec<SnapshotRecord>> {
    let mut found = Vec::new();
    let (from, to) = (key::volume_start(key::VOLUME_SNAPSHOT), key::volume_start(key::VOLUME_SNAPSHOT + 1));
    tree.scan(from.as_bytes(), to.as_bytes(), &mut |key, value| {
        let (_, id) = key::KeyParts::parse(key)
            .and_then(|parts| parts.volume())
            .ok_or_else(|| Error::damaged("list of snapshots", "a malformed key"))?;
        let id = <[u8; 8]>::try_from(id).map_err(|_| Error::damaged("list of snapshots", "a malformed key"))?;
        found.push(SnapshotRecord::decode(u64::from_be_bytes(id), value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}
