//! How a repository is made and opened.
//!
//! *Not here*: where these values come from (`cli`); this package reads no environment and no home directory.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    thread::available_parallelism,
};

use crate::{
    config::{ChunkSizes, Compression, PACK_BYTES_DEFAULT},
    crypto::{Credential, KdfParams, SlotName},
    disk::{Disk, LocalDisk},
    error::Result,
    index::IndexOptions,
    spawn::{Spawner, Threads},
};

/// Plaintext that may be inside the write path at once, by default.
pub const PIPELINE_BYTES_DEFAULT: usize = 64 << 20;
/// Plaintext that is kept for readers, by default.
pub const CACHE_BYTES_DEFAULT: usize = 96 << 20;

/// Whether a repository is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing in the repository is touched.
    ReadOnly,
    /// Volumes can be opened for writing.
    ReadWrite,
}

/// How a repository is opened.
pub struct OpenOptions {
    /// Its directory.
    pub path: PathBuf,
    /// The secret that opens one of its slots.
    pub credential: Credential,
    /// Where this machine remembers the newest heads, outside of any repository.
    pub state_dir: PathBuf,
    /// Where the local tables lie, which can be lost at any time; `None` goes without.
    pub table_dir: Option<PathBuf>,
    /// Reading, or writing as well.
    pub access: Access,
    /// Forget what is remembered of this repository: it was copied or restored on purpose.
    pub adopt_copy: bool,
    /// Read the trailers of all packs instead of the index segments, as after a check that found them damaged.
    pub rebuild_index: bool,
    /// Bytes of plaintext kept for readers.
    pub cache_bytes: usize,
    /// Bytes of plaintext inside the write path.
    pub pipeline_bytes: usize,
    /// Threads that hash, compress and seal.
    pub workers: usize,
    /// Settings of the index.
    pub index: IndexOptions,
    /// Files, names and locks.
    pub disk: Arc<dyn Disk>,
    /// Where threads come from.
    pub spawner: Arc<dyn Spawner>,
}

impl OpenOptions {
    /// The defaults: read and write, real disk and threads, a worker per core.
    pub fn new(path: impl Into<PathBuf>, credential: Credential, state_dir: impl Into<PathBuf>) -> Self {
        let state_dir = state_dir.into();
        Self {
            path: path.into(),
            credential,
            table_dir: Some(state_dir.join("tables")),
            state_dir,
            access: Access::ReadWrite,
            adopt_copy: false,
            rebuild_index: false,
            cache_bytes: CACHE_BYTES_DEFAULT,
            pipeline_bytes: PIPELINE_BYTES_DEFAULT,
            workers: available_parallelism().map_or(1, |count| count.get()),
            index: IndexOptions::default(),
            disk: Arc::new(LocalDisk),
            spawner: Arc::new(Threads),
        }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions").field("path", &self.path).field("access", &self.access).finish_non_exhaustive()
    }
}

/// How a repository is made.
pub struct InitOptions {
    /// Its directory: missing or empty, in a directory that exists.
    pub path: PathBuf,
    /// The secret of its first slot.
    pub credential: Credential,
    /// Name of that slot.
    pub slot: SlotName,
    /// What the slot is called for people.
    pub label: String,
    /// Cost of guessing a passphrase.
    pub kdf: KdfParams,
    /// How files are cut.
    pub chunk_sizes: ChunkSizes,
    /// How blobs are compressed.
    pub compression: Compression,
    /// Size at which a pack is closed.
    pub pack_bytes: u32,
    /// The time, in nanoseconds since 1970.
    pub created_ns: i64,
    /// Files and names.
    pub disk: Arc<dyn Disk>,
}

impl InitOptions {
    /// The defaults, with a slot named `default`.
    pub fn new(path: impl Into<PathBuf>, credential: Credential, created_ns: i64) -> Result<Self> {
        Ok(Self {
            path: path.into(),
            credential,
            slot: SlotName::new("default")?,
            label: String::new(),
            kdf: KdfParams::default(),
            chunk_sizes: ChunkSizes::default(),
            compression: Compression::default(),
            pack_bytes: PACK_BYTES_DEFAULT,
            created_ns,
            disk: Arc::new(LocalDisk),
        })
    }
}

impl fmt::Debug for InitOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitOptions").field("path", &self.path).field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// Creates a directory and those above it, as far as they are missing.
pub(super) fn create_dirs(disk: &dyn Disk, path: &Path) -> std::io::Result<()> {
    if path.as_os_str().is_empty() || disk.metadata(path)?.is_some_and(|info| info.is_dir) {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        create_dirs(disk, above)?;
    }
    disk.create_dir(path)?;
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => disk.sync_dir(above),
        _ => Ok(()),
    }
}
