//! A repository and a volume on any disk, set so small that a short test meets what a large store meets: many chunks per file,
//! many packs, a journal that fills up, a byte budget that is used up.
//!
//! *Threads*: the clock of a volume opened here is the calling thread's own ([`set_clock`]); background threads see the epoch, so
//! they act when they are asked to or pressed, and never because time went by.

use std::{cell::Cell, sync::Arc, time::Duration};

use vellum_fs::{
    attr::Caller,
    error::Result,
    format::inode::FileKind,
    ino::Ino,
    time::Time,
    volume::{Volume, VolumeOptions, handles::OpenMode, ops::names::NewInode, replay::ReplaySummary},
};
use vellum_store::{
    config::ChunkSizes,
    crypto::{Credential, KdfParams},
    disk::{Disk, MemoryDisk},
    id::VolumeName,
    repository::{Access, InitOptions, OpenOptions, Repository},
};

use crate::seed::number_from_environment;

/// Who asks in all tests.
pub const ME: Caller = Caller { uid: 0, gid: 0, pid: 1 };

/// Opened to read and write.
pub const RDWR: OpenMode = OpenMode { read: true, write: true, append: false, sync: false };

/// Where the repository lies on its disk.
pub const REPOSITORY: &str = "/repository";

thread_local! {
    static NOW: Cell<Time> = const { Cell::new(Time::EPOCH) };
}

/// Sets the time that operations of this thread record.
pub fn set_clock(time: Time) {
    NOW.set(time);
}

fn clock() -> Time {
    NOW.get()
}

/// How small things are.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of unflushed content.
    pub dirty_bytes: u64,
    /// Length of a journal segment; there are four.
    pub journal_segment: u64,
    /// Move atimes.
    pub relatime: bool,
    /// Times from the thread's clock, or from the system.
    pub own_clock: bool,
    /// How soon the background threads act by themselves.
    pub interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dirty_bytes: 8 << 20,
            journal_segment: 256 << 10,
            relatime: false,
            own_clock: true,
            interval: Duration::from_secs(3600),
        }
    }
}

fn credential() -> Credential {
    Credential::KeyFile(vec![7; 32].into())
}

/// The name of the volume that tests use.
pub fn main_volume() -> VolumeName {
    VolumeName::new("main").expect("the name is short and plain")
}

/// Makes an empty repository on `disk`.
pub fn init(disk: &Arc<dyn Disk>) {
    let options = InitOptions {
        kdf: KdfParams::testing(),
        chunk_sizes: ChunkSizes::new(1 << 10, 4 << 10, 16 << 10).expect("the sizes are allowed"),
        pack_bytes: 64 << 10,
        disk: Arc::clone(disk),
        ..InitOptions::new(REPOSITORY, credential(), 0).expect("the slot has a name")
    };
    Repository::init(&options).expect("an empty disk takes a repository");
}

/// A fresh disk with a repository.
pub fn new_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    init(&(Arc::new(disk.clone()) as Arc<dyn Disk>));
    disk
}

/// How the repository on `disk` is opened.
pub fn repository_options(disk: &Arc<dyn Disk>, access: Access) -> OpenOptions {
    OpenOptions {
        table_dir: None,
        workers: 2,
        pipeline_bytes: 1 << 20,
        cache_bytes: 256 << 10,
        access,
        disk: Arc::clone(disk),
        ..OpenOptions::new(REPOSITORY, credential(), "/state")
    }
}

/// Opens the repository on `disk`.
pub fn open_repository(disk: &Arc<dyn Disk>, access: Access) -> vellum_store::error::Result<Arc<Repository>> {
    Repository::open(repository_options(disk, access))
}

/// Options of volume `name`.
pub fn volume_options(name: VolumeName, settings: &Settings) -> VolumeOptions {
    VolumeOptions {
        create: true,
        relatime: settings.relatime,
        dirty_bytes_max: settings.dirty_bytes,
        node_cache_bytes: 256 << 10,
        checkpoint_quiet: settings.interval,
        checkpoint_max_wait: settings.interval,
        journal_interval: settings.interval,
        journal_segment_bytes: Some(settings.journal_segment),
        clock: settings.own_clock.then_some(clock as fn() -> Time),
        ..VolumeOptions::new(name)
    }
}

/// Opens the repository on `disk`, and its main volume.
pub fn open(disk: &Arc<dyn Disk>, settings: &Settings) -> Result<(Arc<Volume>, ReplaySummary)> {
    let repository = open_repository(disk, Access::ReadWrite)?;
    Volume::open(repository, volume_options(main_volume(), settings))
}

/// Writes a file of incompressible bytes into the root directory; returns them.
pub fn store_file(volume: &Volume, name: &str, seed: u64, length: usize) -> Result<Vec<u8>> {
    let (parent, name, kind) = (Ino::ROOT, name.as_bytes(), FileKind::Regular);
    let new = NewInode { parent, name, kind, mode: 0o644, umask: 0, rdev: 0, target: b"" };
    let mode = OpenMode { write: true, ..OpenMode::default() };
    let (_, opened) = volume.create(&new, mode, &ME)?;
    let mut content = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    let written = volume.write(opened.handle, 0, &content);
    volume.release(opened.handle)?;
    written.map(|_| content)
}

/// The seeds of a test: `default` many from `VELLUM_SEED` on, or `VELLUM_TEST_RUNS` times as many for a long run.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let first = number_from_environment("VELLUM_SEED", 1);
    let runs = number_from_environment("VELLUM_TEST_RUNS", 1);
    first..first.saturating_add(default.saturating_mul(runs))
}

/// Tells the seed of a run that panics.
#[derive(Debug)]
pub struct Announce(pub u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("VELLUM_SEED={} repeats it as the first run", self.0);
        }
    }
}
