//! A repository in process: on a disk in memory that can crash, rot and fill up.
#![allow(clippy::unwrap_used)]

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use zeroize::Zeroizing;

use super::*;
use crate::{
    config::ChunkSizes,
    crypto::{Credential, KdfParams},
    disk::{Disk, EntryKind, MemoryDisk},
    lock::Holder,
};

mod basic;
mod crash;
mod damage;
mod failure;
mod figures;
mod fsync;
mod history;
mod reading;
mod slots;

pub(super) fn passphrase() -> Credential {
    Credential::Passphrase(Zeroizing::new("correct horse".to_string()))
}

pub(super) fn main_volume() -> VolumeName {
    VolumeName::new("main").unwrap()
}

/// A disk with an empty repository of small packs.
pub(super) fn new_repository() -> MemoryDisk {
    let disk = MemoryDisk::new();
    init_on(Arc::new(disk.clone()));
    disk
}

pub(super) fn init_on(disk: Arc<dyn Disk>) {
    let options = InitOptions {
        kdf: KdfParams::testing(),
        chunk_sizes: ChunkSizes::DEFAULT,
        pack_bytes: 64 << 10,
        disk,
        ..InitOptions::new("/repository", passphrase(), 0).unwrap()
    };
    Repository::init(&options).unwrap();
}

pub(super) fn options(disk: Arc<dyn Disk>) -> OpenOptions {
    OpenOptions {
        table_dir: None,
        workers: 2,
        pipeline_bytes: 4 << 20,
        cache_bytes: 4 << 20,
        disk,
        ..OpenOptions::new("/repository", passphrase(), PathBuf::from("/state"))
    }
}

pub(super) fn open(disk: &MemoryDisk) -> Arc<Repository> {
    Repository::open(options(Arc::new(disk.clone()))).unwrap()
}

pub(super) fn open_volume(repository: &Repository) -> VolumeHandle {
    repository.open_volume(&main_volume(), true, false, &Holder::this_process(0)).unwrap()
}

/// Bytes that neither compress nor repeat, the same for the same seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Stores chunks, lets a root node name them, and commits.
pub(super) fn commit_chunks(repository: &Repository, volume: &VolumeHandle, chunks: &[Vec<u8>]) -> Result<BlobId> {
    let tickets: Vec<Ticket> =
        chunks.iter().map(|chunk| repository.submit_data(chunk.clone())).collect::<Result<_>>()?;
    let mut root = Vec::new();
    for ticket in tickets {
        root.extend_from_slice(ticket.wait()?.as_bytes());
    }
    let tree_root = repository.put(BlobKind::Node, root, Copies::Two)?;
    repository.commit(volume, &HeadDraft { tree_root, op_sequence: 1, journal_commit: 0, time_ns: 0 })?;
    Ok(tree_root)
}

/// Reads what [`commit_chunks`] stored.
pub(super) fn read_chunks(repository: &Repository, root: &BlobId) -> Result<Vec<Vec<u8>>> {
    let root = repository.read_node(root)?;
    root.chunks(32)
        .map(|id| {
            let id = BlobId::from_slice(id).unwrap();
            repository.read(BlobKind::Data, &id, BLOB_PLAIN_MAX).map(|bytes| bytes.to_vec())
        })
        .collect()
}

pub(super) fn chunks(seed: u64, count: usize) -> Vec<Vec<u8>> {
    (0..count as u64).map(|n| noise(seed << 32 | n, 20_000 + (n as usize * 977) % 30_000)).collect()
}

pub(super) fn count_packs(repository: &Repository) -> u64 {
    repository.stats().unwrap().packs
}

/// All files below the repository, with their lengths.
pub(super) fn files(disk: &dyn Disk) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    let mut dirs = vec![PathBuf::from("/repository")];
    while let Some(dir) = dirs.pop() {
        disk.list_dir(&dir, &mut |name, kind| {
            let path = dir.join(name);
            match kind {
                EntryKind::Dir => dirs.push(path),
                _ => files.push((path, 0)),
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    for (path, length) in &mut files {
        *length = disk.metadata(path).unwrap().unwrap().len;
    }
    files.sort();
    files
}

/// What a check tells, with every byte read.
pub(super) fn damage_of(repository: &Repository) -> Vec<Damage> {
    let mut found = Vec::new();
    repository.check(true, &mut |_| {}, &mut |damage| found.push(damage)).unwrap();
    found
}
