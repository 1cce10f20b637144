//! What is fixed for a repository at `init`: its identity, how chunks are cut, how large packs get, how blobs are compressed.
//!
//! *Invariants*
//! 1. Every value is inside its bounds: the fields that have any are only set through checking constructors.
//! 2. Identity and chunk sizes never change; pack size and compression are defaults for what is written from then on.
//!
//! *Not here*: the bytes (`format/config.rs`), authentication and the three copies (`crypto/config.rs`), mount options (`cli`).

use crate::{
    error::{Error, Result},
    id::RepositoryId,
};

/// Names of the copies, in the order in which they are tried and written.
pub const CONFIG_COPIES: [&str; 3] = ["config", "config.1", "config.2"];

/// Pack size of a repository on a local disk.
pub const PACK_BYTES_DEFAULT: u32 = 16 << 20;
/// Bounds of the pack size: less drowns in files, more than this makes every repair and merge heavy.
pub const PACK_BYTES_MIN: u32 = 64 << 10;
/// See [`PACK_BYTES_MIN`].
pub const PACK_BYTES_MAX: u32 = 256 << 20;

/// Lowest level that may be configured.
pub const LEVEL_MIN: i32 = -7;
/// Highest level that may be configured; more needs windows that blobs never fill.
pub const LEVEL_MAX: i32 = 19;
/// Level that is used when nothing waits. Measured against 1: 18-25 % of ingest speed for 4-5 % of space.
pub const LEVEL_DEFAULT: i32 = 3;

/// Smallest, usual and largest chunk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizes {
    min: u32,
    avg: u32,
    max: u32,
}

impl ChunkSizes {
    /// Below this a chunk costs more in index and tree than it can save.
    pub const MIN_BYTES_MIN: u32 = 1024;
    /// Above this a random read of one byte costs too much memory; well below the bound on a blob.
    pub const MAX_BYTES_MAX: u32 = 8 << 20;

    /// 16, 64 and 256 KiB.
    pub const DEFAULT: Self = Self { min: 16 << 10, avg: 64 << 10, max: 256 << 10 };
    /// 64, 256 and 1024 KiB, for large files that seldom change inside.
    pub const LARGE: Self = Self { min: 64 << 10, avg: 256 << 10, max: 1024 << 10 };

    /// Checks and takes three sizes: even, `1 KiB <= min < avg < max <= 8 MiB`, and the average a power of two.
    pub fn new(min: u32, avg: u32, max: u32) -> Result<Self> {
        let ordered = Self::MIN_BYTES_MIN <= min && min < avg && avg < max && max <= Self::MAX_BYTES_MAX;
        // An odd bound would shift a boundary by one in a loop that takes two bytes a step. Past a minimum of 1 MiB or an
        // average of 4 MiB the cutting has no masks.
        let usable = (min | max).is_multiple_of(2) && avg.is_power_of_two() && min <= 1 << 20 && avg <= 4 << 20;
        if !ordered || !usable {
            return Err(Error::Invalid {
                what: format!("chunk sizes {min}/{avg}/{max} are outside the allowed range"),
            });
        }
        Ok(Self { min, avg, max })
    }

    /// Smallest chunk but for the last of a file.
    pub fn min(&self) -> u32 {
        self.min
    }

    /// Chunk size that cutting aims at.
    pub fn avg(&self) -> u32 {
        self.avg
    }

    /// Largest chunk.
    pub fn max(&self) -> u32 {
        self.max
    }
}

impl Default for ChunkSizes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a repository or directory wants its blobs compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// zstd level when nothing waits; [`LEVEL_MIN`] to [`LEVEL_MAX`], not 0.
    pub level: i32,
    /// Whether anything is compressed at all.
    pub enabled: bool,
}

impl Compression {
    /// Stores every blob raw.
    pub const NONE: Self = Self { level: LEVEL_DEFAULT, enabled: false };

    /// Checks and takes a level.
    pub fn new(level: i32) -> Result<Self> {
        let compression = Self { level, enabled: true };
        compression.check().map(|()| compression)
    }

    fn check(&self) -> Result<()> {
        // zstd reads 0 as its own default, so it would mean something else than its neighbours.
        if !(LEVEL_MIN..=LEVEL_MAX).contains(&self.level) || self.level == 0 {
            let what = format!("compression level {} is not in {LEVEL_MIN}..{LEVEL_MAX} without 0", self.level);
            return Err(Error::Invalid { what });
        }
        Ok(())
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self { level: LEVEL_DEFAULT, enabled: true }
    }
}

/// The configuration of one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Version of everything on disk.
    pub format_version: u32,
    /// Drawn at `init`; part of all associated data.
    pub repository: RepositoryId,
    /// How files are cut.
    pub chunk_sizes: ChunkSizes,
    /// Size at which a pack is closed.
    pub pack_bytes: u32,
    /// How blobs are compressed where no directory says otherwise.
    pub compression: Compression,
    /// When the repository was made, in nanoseconds since 1970; for people to read, nothing depends on it.
    pub created_ns: i64,
}

impl RepositoryConfig {
    /// The configuration of a new repository, with defaults.
    pub fn new(repository: RepositoryId, created_ns: i64) -> Self {
        Self {
            format_version: crate::format::FORMAT_VERSION,
            repository,
            chunk_sizes: ChunkSizes::default(),
            pack_bytes: PACK_BYTES_DEFAULT,
            compression: Compression::default(),
            created_ns,
        }
    }

    /// Checks the bounds of what was set directly; [`Error::Invalid`] says which value is outside.
    pub fn check(&self) -> Result<()> {
        if !(PACK_BYTES_MIN..=PACK_BYTES_MAX).contains(&self.pack_bytes) {
            let what = format!("pack size {} is not in {PACK_BYTES_MIN}..{PACK_BYTES_MAX}", self.pack_bytes);
            return Err(Error::Invalid { what });
        }
        self.compression.check()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_profiles_are_inside_their_own_bounds() {
        for profile in [ChunkSizes::DEFAULT, ChunkSizes::LARGE] {
            assert_eq!(ChunkSizes::new(profile.min, profile.avg, profile.max).unwrap(), profile);
        }
    }

    #[test]
    fn chunk_sizes_that_the_cutting_cannot_keep_are_refused() {
        let bad = [
            (0, 64, 256),
            (1024, 1024, 4096),
            (1025, 4096, 16384),
            (1024, 4096, 16385),
            (1024, 5000, 16384),
            (4096, 2048, 16384),
            (1024, 4096, 4096),
            (1 << 20, 4 << 20, 9 << 20),
            (2 << 20, 4 << 20, 8 << 20),
            (u32::MAX, u32::MAX, u32::MAX),
        ];
        for (min, avg, max) in bad {
            assert!(ChunkSizes::new(min, avg, max).is_err(), "{min}/{avg}/{max}");
        }
        assert!(ChunkSizes::new(1 << 20, 4 << 20, 8 << 20).is_ok(), "the largest that is allowed");
        assert!(ChunkSizes::new(1024, 4096, 16384).is_ok(), "small ones");
    }

    #[test]
    fn levels_and_pack_sizes_outside_their_bounds_are_refused() {
        for level in [LEVEL_MIN - 1, 0, LEVEL_MAX + 1] {
            assert!(Compression::new(level).is_err(), "{level}");
        }
        let mut config = RepositoryConfig::new(RepositoryId([1; 16]), 0);
        config.check().unwrap();
        for pack_bytes in [0, PACK_BYTES_MIN - 1, PACK_BYTES_MAX + 1] {
            config.pack_bytes = pack_bytes;
            assert!(config.check().is_err(), "{pack_bytes}");
        }
    }
}
