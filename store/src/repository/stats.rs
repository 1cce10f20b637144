//! Figures of a repository.

use super::Repository;
use crate::{error::Result, id::BlobKind, pipeline::PipelineCounters};

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

impl Repository {
    /// Counts what the repository holds; takes as long as listing its packs.
    pub fn stats(&self) -> Result<RepositoryStats> {
        let mut stats = RepositoryStats {
            volumes: self.volumes.lock().len() as u64,
            segments: self.index.segments().len() as u64,
            index_entries: self.index.entry_count(),
            index_memory_bytes: self.index.segment_memory_bytes() as u64,
            cached_bytes: self.cached_bytes() as u64,
            pipeline: self.pipeline_counters(),
            ..RepositoryStats::default()
        };
        self.index.packs(&mut |_, pack| {
            stats.blobs += pack.entry_count;
            match pack.kind {
                BlobKind::Data => stats.data_bytes += pack.sealed_bytes,
                BlobKind::Node => stats.node_bytes += pack.sealed_bytes,
            }
            Ok(())
        })?;
        self.backend.list("packs/", &mut |name, length| {
            if name.as_pack().is_some() {
                stats.packs += 1;
                stats.pack_bytes += length;
            }
            Ok(())
        })?;
        Ok(stats)
    }
}
