//! Opening a repository: from a directory and a secret to keys, index and threads.
//!
//! *Ordering*: config (not yet believed) -> key slots -> keyring -> config verified -> heads -> manifests -> index.
//!
//! *Bounds*: reads the newest heads of each volume and their manifests, and of each index segment its tail and filter.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
};

use crate::spawn::turns::{Mutex, RwLock};

use super::{
    Access, OpenOptions, Repository, commit::CommitTurn, options::create_dirs, places::Leftovers, volumes::lost_head,
};
use crate::{
    backend::{Backend, LocalBackend, ObjectName},
    config::{CONFIG_COPIES, RepositoryConfig},
    crypto::{
        BlobSealer, Credential, Keyring, MasterKey, SLOT_COPIES, SLOTS_MAX, SlotName, StoredConfig, random, unlock,
    },
    error::{Error, Result},
    format::config::CONFIG_LENGTH,
    format::slot::SLOT_LENGTH,
    heads::{HEADS_KEPT, newest_heads, read_manifest},
    id::{SegmentId, VolumeName},
    index::Index,
    lock::{ReaderLock, WriterLock},
    pipeline::{InFlight, Pipeline, PipelineParts, Suspects},
    reader::{BlobReader, ReaderParts},
    state::StateDirectory,
};

/// Most volumes of a repository.
const VOLUMES_MAX: usize = 4096;

/// What the secret opened.
pub(super) struct Unlocked {
    pub(super) config: RepositoryConfig,
    pub(super) master: MasterKey,
    pub(super) keyring: Arc<Keyring>,
    /// Copies of the configuration that differ from the true one.
    pub(super) stale_copies: Vec<usize>,
}

/// What the heads of all volumes name together.
#[derive(Default)]
pub(super) struct Named {
    pub(super) volumes: BTreeSet<VolumeName>,
    pub(super) segments: Vec<SegmentId>,
    pub(super) gc_generation: u64,
    /// What is damaged or missing; the index is then rebuilt.
    pub(super) damage: Vec<Error>,
    /// Volumes that a manifest names and that have no heads.
    pub(super) missing: BTreeSet<VolumeName>,
}

impl Repository {
    /// Opens the repository in a directory.
    pub fn open(options: OpenOptions) -> Result<Arc<Self>> {
        let read_only = options.access == Access::ReadOnly;
        let local = LocalBackend::new(options.disk.clone(), options.path.clone(), read_only);
        let backend: Arc<dyn Backend> = Arc::new(local);
        let unlocked = unlock_repository(&*backend, &options.path.display().to_string(), &options.credential)?;
        Self::open_unlocked(options, backend, unlocked)
    }

    fn open_unlocked(options: OpenOptions, backend: Arc<dyn Backend>, unlocked: Unlocked) -> Result<Arc<Self>> {
        let read_only = options.access == Access::ReadOnly;
        let mut notes = Vec::new();
        let (readers, writers) = match read_only {
            true => (Some(share_reader_lock(&options)?), None),
            false => {
                prepare_writing(&*backend, &unlocked, &options, &mut notes)?;
                let writers = share_writer_lock(&options)?;
                backend.hold_reserve();
                (None, Some(writers))
            }
        };
        let Unlocked { config, master, keyring, .. } = unlocked;
        let named = read_heads(&*backend, &keyring, &options)?;
        // P5: a listing that lacks what a manifest names was cut short or tampered with.
        named.missing.iter().for_each(|volume| note(&mut notes, format!("the heads of volume {volume} are gone")));
        let (index, index_damage) = open_index(&backend, &keyring, &named, &options, &mut notes)?;
        let sealer = Arc::new(BlobSealer::new(keyring.clone(), config.compression));
        let inflight = Arc::new(InFlight::new());
        let leftovers = if read_only { Vec::new() } else { backend.list_open()? };
        let (reader, pipeline) = start_threads(&options, &config, &backend, &index, &sealer, &inflight)?;
        Ok(Arc::new(Self {
            pipeline,
            reader,
            maintenance: Mutex::default(),
            index,
            inflight,
            sealer,
            keyring,
            master,
            config,
            backend,
            disk: options.disk,
            spawner: options.spawner,
            path: options.path,
            state_dir: options.state_dir,
            adopt_copy: options.adopt_copy,
            volumes: Mutex::new(named.volumes),
            gc_generation: AtomicU64::new(named.gc_generation),
            writers: Mutex::new(writers),
            packs_in_use: RwLock::default(),
            writer: random(),
            commit_turn: Mutex::new(CommitTurn::default()),
            leftovers: Mutex::new(Leftovers::new(leftovers)),
            locks_held: Arc::default(),
            table_dir: options.table_dir,
            totals: Mutex::default(),
            notes,
            index_rebuilt: options.rebuild_index || !index_damage.is_empty(),
            index_damage: Mutex::new(index_damage),
            missing_volumes: named.missing,
            _readers: readers,
        }))
    }
}

/// Starts the read path, and the write path unless nothing is to be written.
fn start_threads(
    options: &OpenOptions,
    config: &RepositoryConfig,
    backend: &Arc<dyn Backend>,
    index: &Arc<Index>,
    sealer: &Arc<BlobSealer>,
    inflight: &Arc<InFlight>,
) -> Result<(BlobReader, Option<Pipeline>)> {
    let suspects = Arc::<Suspects>::default();
    let reader = BlobReader::start(ReaderParts {
        spawner: options.spawner.clone(),
        backend: backend.clone(),
        index: index.clone(),
        sealer: sealer.clone(),
        inflight: inflight.clone(),
        suspects: suspects.clone(),
        cache_bytes: options.cache_bytes,
    })?;
    if options.access == Access::ReadOnly {
        return Ok((reader, None));
    }
    let pipeline = Pipeline::start(PipelineParts {
        spawner: options.spawner.clone(),
        keyring: sealer.keyring().clone(),
        sealer: sealer.clone(),
        backend: backend.clone(),
        index: index.clone(),
        suspects,
        inflight: inflight.clone(),
        pack_bytes: config.pack_bytes,
        pipeline_bytes: options.pipeline_bytes,
        workers: options.workers,
    })?;
    Ok((reader, Some(pipeline)))
}

/// Reads config and slots and tries the secret.
pub(super) fn unlock_repository(backend: &dyn Backend, path: &str, credential: &Credential) -> Result<Unlocked> {
    let mut copies = [None, None, None];
    for (copy, object) in copies.iter_mut().zip(CONFIG_COPIES) {
        *copy = match backend.get(&ObjectName::new(object)?, CONFIG_LENGTH as u64 * 16) {
            Ok(bytes) => Some(bytes),
            Err(Error::NotFound { .. }) => None,
            // Longer than any configuration: damaged, and another copy may be intact.
            Err(Error::Corrupt { .. }) => Some(Vec::new()),
            Err(error) => return Err(not_a_repository(path, error)),
        };
    }
    let stored = match StoredConfig::read(&copies) {
        Err(Error::NotFound { object }) => {
            let why = format!("it has no file {object}");
            return Err(Error::NotARepository { path: path.to_string(), why });
        }
        other => other?,
    };
    let slots = read_slots(backend)?;
    let (master, epoch, _) = unlock(&slots, stored.repository(), credential)?;
    let keyring = Arc::new(Keyring::new(&master, stored.repository(), epoch));
    let verified = stored.verify(&keyring)?;
    Ok(Unlocked { config: verified.config, master, keyring, stale_copies: verified.stale_copies })
}

/// A directory that is missing is a mistake of the caller's, not a failure of the disk.
fn not_a_repository(path: &str, error: Error) -> Error {
    match &error {
        Error::Io { source, .. }
            if matches!(
                source.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory | std::io::ErrorKind::Other
            ) =>
        {
            Error::NotARepository { path: path.to_string(), why: error.to_string() }
        }
        _ => error,
    }
}

/// The copies of all slots, as they are.
pub(super) fn read_slots(backend: &dyn Backend) -> Result<Vec<(SlotName, Vec<u8>)>> {
    let mut objects = Vec::new();
    backend.list("keys/", &mut |name, _| {
        if objects.len() < SLOTS_MAX * SLOT_COPIES {
            objects.push(name);
        }
        Ok(())
    })?;
    objects.sort();
    let mut slots = Vec::with_capacity(objects.len());
    for object in objects {
        let Some(name) = SlotName::from_object(object.as_str()) else { continue };
        match backend.get(&object, SLOT_LENGTH as u64 * 16) {
            Ok(bytes) => slots.push((name, bytes)),
            // Removed meanwhile, or longer than any slot: others remain.
            Err(Error::NotFound { .. } | Error::Corrupt { .. }) => log::warn!("key slot {object} cannot be used"),
            Err(error) => return Err(error),
        }
    }
    Ok(slots)
}

fn share_reader_lock(options: &OpenOptions) -> Result<ReaderLock> {
    let lock = ReaderLock::share(&*options.disk, &options.path)?;
    let holder = || "a gc that is deleting packs".to_string();
    lock.ok_or_else(|| Error::Locked { volume: options.path.display().to_string(), holder: holder() })
}

fn share_writer_lock(options: &OpenOptions) -> Result<WriterLock> {
    let lock = WriterLock::share(&*options.disk, &options.path)?;
    let holder = || "a gc, which wants to be the only writer".to_string();
    lock.ok_or_else(|| Error::Locked { volume: options.path.display().to_string(), holder: holder() })
}

/// Writes copies of the configuration again that are not as they should be, and makes the place where heads are remembered.
fn prepare_writing(
    backend: &dyn Backend,
    unlocked: &Unlocked,
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<()> {
    let bytes = crate::crypto::seal_config(&unlocked.keyring, &unlocked.config);
    for &copy in &unlocked.stale_copies {
        backend.replace(&ObjectName::new(CONFIG_COPIES[copy])?, &bytes)?;
        note(notes, format!("{} was missing or damaged and was written again", CONFIG_COPIES[copy]));
    }
    create_dirs(&*options.disk, &options.state_dir)
        .map_err(|e| Error::io(format!("create {}", options.state_dir.display()), e))
}

/// Reads what the newest heads of all volumes name.
/// Reads what the newest head of each volume names; a head that only this machine still has counts, since opening its volume
/// restores it.
pub(super) fn read_heads(backend: &dyn Backend, keyring: &Keyring, options: &OpenOptions) -> Result<Named> {
    let states = StateDirectory::new(&*options.disk, &options.state_dir, keyring);
    let mut named = Named::default();
    backend.list("heads/", &mut |name, _| {
        let volume = name.as_str().split('/').nth(1).and_then(|text| VolumeName::new(text).ok());
        if let Some(volume) = volume.filter(|_| named.volumes.len() < VOLUMES_MAX) {
            named.volumes.insert(volume);
        }
        Ok(())
    })?;
    let mut seen = BTreeSet::new();
    for volume in named.volumes.clone() {
        let found = newest_heads(backend, keyring, &volume, HEADS_KEPT as usize)?;
        if found.newest_is_damaged() {
            named.damage.extend(found.damaged.first().map(|damaged| damaged.error.clone()));
        }
        let remembered = if options.adopt_copy { None } else { states.load(&volume)? };
        let lost = remembered.and_then(|remembered| lost_head(keyring, &volume, &found, &remembered));
        let Some(newest) = lost.as_ref().or(found.newest()) else { continue };
        named.gc_generation = named.gc_generation.max(newest.head.gc_generation);
        match read_manifest(backend, keyring, newest.head.manifest) {
            Ok(manifest) => {
                named.segments.extend(manifest.segments.into_iter().filter(|segment| seen.insert(*segment)));
                let gone = manifest.volumes.into_iter().filter(|volume| !named.volumes.contains(volume));
                named.missing.extend(gone);
            }
            Err(error @ (Error::NotFound { .. } | Error::Corrupt { .. })) => named.damage.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(named)
}

fn open_index(
    backend: &Arc<dyn Backend>,
    keyring: &Arc<Keyring>,
    named: &Named,
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<(Arc<Index>, Vec<Error>)> {
    let mut damage = named.damage.clone();
    if damage.is_empty() && !options.rebuild_index {
        match Index::open(backend.clone(), keyring.clone(), &named.segments, options.index.clone()) {
            Ok(index) => return Ok((Arc::new(index), damage)),
            Err(error @ (Error::NotFound { .. } | Error::Corrupt { .. })) => damage.push(error),
            Err(error) => return Err(error),
        }
    }
    let why = damage.first().map_or("as was asked for".to_string(), Error::to_string);
    note(notes, format!("the index is rebuilt from the packs: {why}"));
    let mut index_options = options.index.clone();
    if options.access == Access::ReadOnly {
        // Nothing can be written, so all entries stay in memory.
        index_options.table_entries_max = usize::MAX;
    }
    // What it lists becomes part of the next commit's segments.
    let index = Index::rebuild(backend.clone(), keyring.clone(), index_options, &mut |_, error| {
        note(notes, format!("a pack is left out of the index: {error}"));
    })?;
    Ok((Arc::new(index), damage))
}

fn note(notes: &mut Vec<String>, text: String) {
    log::warn!("{text}");
    notes.push(text);
}
