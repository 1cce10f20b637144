//! Figures of a repository.
//!
//! *Bounds*: counting takes a walk over index and listing, about 100 bytes of memory a pack. What was counted is remembered in a local
//! table and kept up to date by what this process stores, so a walk is rare. What another process stored and never committed is
//! missing from the figures until then.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use super::Repository;
use crate::{
    codec::{Reader, Writer},
    error::Result,
    heads::newest_heads,
    id::{HeadHash, VolumeName},
    pipeline::{PipelineCounters, StoredPacks},
    table::{Stamp, Table},
};

const TOTALS_KEY: &[u8] = b"totals";

/// What a repository holds and what went through this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryStats {
    /// Volumes with a head.
    pub volumes: u64,
    /// Stored packs.
    pub packs: u64,
    /// Their bytes as they lie in the storage, padding and trailers included.
    pub pack_bytes: u64,
    /// Blobs in them; second copies count.
    pub blobs: u64,
    /// Sealed bytes of chunks.
    pub data_bytes: u64,
    /// Sealed bytes of tree nodes.
    pub node_bytes: u64,
    /// Index segments.
    pub segments: u64,
    /// Entries of the index.
    pub index_entries: u64,
    /// Memory that the index holds for good.
    pub index_memory_bytes: u64,
    /// Bytes of plaintext in the cache.
    pub cached_bytes: u64,
    /// What went through the write path since the repository was opened.
    pub pipeline: PipelineCounters,
}

/// The newest heads of all volumes.
type Heads = BTreeMap<VolumeName, (u64, HeadHash)>;

/// Stored packs, counted at one moment.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    /// The heads at that moment, and those that this process committed since: what the figures describe.
    heads: Heads,
    counted: StoredPacks,
    /// What this process had stored by then.
    stored_before: StoredPacks,
}

impl Totals {
    /// The totals by now: what was counted and what this process has stored since.
    fn at(&self, stored: &StoredPacks) -> StoredPacks {
        let Self { counted, stored_before, .. } = self;
        StoredPacks {
            packs: counted.packs + stored.packs - stored_before.packs,
            pack_bytes: counted.pack_bytes + stored.pack_bytes - stored_before.pack_bytes,
            blobs: counted.blobs + stored.blobs - stored_before.blobs,
            data_bytes: counted.data_bytes + stored.data_bytes - stored_before.data_bytes,
            node_bytes: counted.node_bytes + stored.node_bytes - stored_before.node_bytes,
        }
    }
}

impl Repository {
    /// Counts what the repository holds.
    pub fn stats(&self) -> Result<RepositoryStats> {
        let known = self.totals.lock().clone();
        let totals = match known {
            Some(totals) => totals,
            None => {
                let heads = self.newest_of_all()?;
                let loaded = self.load_totals(&heads);
                loaded.map_or_else(|| self.count_totals(heads), Ok)?
            }
        };
        *self.totals.lock() = Some(totals.clone());
        let pipeline = self.pipeline_counters();
        let StoredPacks { packs, pack_bytes, blobs, data_bytes, node_bytes } = totals.at(&pipeline.stored);
        Ok(RepositoryStats {
            volumes: self.volumes.lock().len() as u64,
            packs,
            pack_bytes,
            blobs,
            data_bytes,
            node_bytes,
            segments: self.index.segments().len() as u64,
            index_entries: self.index.entry_count(),
            index_memory_bytes: self.index.segment_memory_bytes() as u64,
            cached_bytes: self.cached_bytes() as u64,
            pipeline,
        })
    }

    fn count_totals(&self, heads: Heads) -> Result<Totals> {
        // A pack that is stored meanwhile may be counted twice; the figures are for people.
        let stored_before = self.pipeline_counters().stored;
        let mut counted = StoredPacks::default();
        self.index.packs(&mut |_, pack| {
            counted.count_blobs(pack.kind, pack.entry_count, pack.sealed_bytes);
            Ok(())
        })?;
        self.backend.list("packs/", &mut |name, length| {
            if name.as_pack().is_some() {
                counted.packs += 1;
                counted.pack_bytes += length;
            }
            Ok(())
        })?;
        Ok(Totals { heads, counted, stored_before })
    }

    fn load_totals(&self, heads: &Heads) -> Option<Totals> {
        let stored_before = self.pipeline_counters().stored;
        let rows = self.table()?.load(&self.stamp(heads))?;
        let (_, value) = rows.iter().find(|(key, _)| key == TOTALS_KEY)?;
        decode_totals(value).ok().map(|counted| Totals { heads: heads.clone(), counted, stored_before })
    }

    /// Takes a commit of this process into what the totals describe.
    pub(super) fn note_commit(&self, volume: &VolumeName, sequence: u64, hash: HeadHash) {
        if let Some(totals) = &mut *self.totals.lock() {
            totals.heads.insert(volume.clone(), (sequence, hash));
        }
    }

    /// Remembers the totals for the next process. If another one has committed meanwhile, the heads are others, and they are dropped.
    pub(super) fn store_totals(&self) {
        let (Some(totals), Some(table)) = (&*self.totals.lock(), self.table()) else { return };
        let counted = totals.at(&self.pipeline_counters().stored);
        table.store(&self.stamp(&totals.heads), &[(TOTALS_KEY.to_vec(), encode_totals(&counted))]);
    }

    fn table(&self) -> Option<Table> {
        let dir = self.table_dir.as_ref()?;
        Some(Table::new(dir, self.config.repository, self.keyring.clone()))
    }

    fn newest_of_all(&self) -> Result<Heads> {
        let mut heads = Heads::new();
        for volume in self.volumes() {
            let found = newest_heads(&*self.backend, &self.keyring, &volume, 1)?;
            heads.extend(found.newest().map(|newest| (volume, (newest.head.sequence, newest.hash))));
        }
        Ok(heads)
    }

    /// The newest heads and the gc generation: what a table has to describe to be believed.
    fn stamp(&self, heads: &Heads) -> Stamp {
        let mut state = Writer::with_capacity(256);
        state.u64(self.gc_generation.load(Ordering::Acquire));
        for (volume, (sequence, hash)) in heads {
            state.var_bytes(volume.as_str().as_bytes());
            state.u64(*sequence);
            state.bytes(hash.as_bytes());
        }
        Stamp::of(&state.0)
    }
}

fn encode_totals(totals: &StoredPacks) -> Vec<u8> {
    let mut out = Writer::with_capacity(40);
    for figure in [totals.packs, totals.pack_bytes, totals.blobs, totals.data_bytes, totals.node_bytes] {
        out.u64(figure);
    }
    out.0
}

fn decode_totals(bytes: &[u8]) -> Result<StoredPacks> {
    let mut reader = Reader::new(bytes, "totals");
    let mut next = || reader.u64();
    let (packs, pack_bytes, blobs) = (next()?, next()?, next()?);
    let totals = StoredPacks { packs, pack_bytes, blobs, data_bytes: next()?, node_bytes: next()? };
    reader.finish()?;
    Ok(totals)
}
