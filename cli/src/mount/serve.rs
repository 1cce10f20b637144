//! The process that serves a mount, from the opening of the repository until everything is durable.
//!
//! *Ordering*: signals blocked -> control socket -> repository -> volume (whose lock names the socket) -> mount -> readiness told ->
//! requests served -> volume closed -> those who wait are told -> the process ends.
//!
//! *Threads*: `signals` waits for SIGTERM, SIGINT and SIGHUP, which every other thread has blocked (as all have SIGXFSZ); `control` and its like answer
//! commands. The stage is a leaf lock.

use std::{
    path::PathBuf,
    process,
    sync::{Arc, Weak},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigSet, Signal},
};
use parking_lot::Mutex;
use vellum_fs::{
    fuse::{MountOptions, Mounted},
    volume::Volume,
};
use vellum_store::{
    crypto::Credential,
    repository::{Access, Repository},
    spawn::{Spawner, Threads},
};

use super::{
    last_words::end_on_panic,
    options::Options,
    unmount::{UnmountError, unmount},
};
use crate::{
    context::{Context, open_volume, volume_options},
    control::server::{Listener, Server},
    error::{Error, Exit, Result},
    journal_place::JournalPlace,
    reports::{Name, StatusReport},
    target::Source,
};

/// What is to be mounted where; all paths are absolute and without links.
#[derive(Clone, Debug)]
pub struct Job {
    /// The volume.
    pub source: Source,
    /// The mountpoint.
    pub mountpoint: PathBuf,
    /// The options.
    pub options: Options,
    /// Make the volume if it is missing.
    pub create: bool,
}

/// How far the process is, for the thread that gets the signals.
enum Stage {
    /// Nothing is mounted.
    Starting {
        socket: PathBuf,
    },
    Serving {
        mountpoint: PathBuf,
        volume: Weak<Volume>,
        asked: bool,
    },
    /// The volume is being closed, which must not be interrupted.
    Ending,
}

type SharedStage = Arc<Mutex<Stage>>;

/// Mounts and serves until the mount is gone. `ready` is called when the mountpoint shows the volume; if it fails, the mount is taken back.
pub fn serve(
    context: &Context,
    job: &Job,
    credential: Credential,
    ready: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    end_on_panic();
    raise_file_limit();
    outlive_length_limit()?;
    let listener = Listener::bind()?;
    let stage: SharedStage = Arc::new(Mutex::new(Stage::Starting { socket: listener.path().to_path_buf() }));
    watch_signals(&stage)?;
    let opened = open(context, job, &listener, credential);
    let Opened { repository, volume, place } = match opened {
        Ok(opened) => opened,
        Err(error) => {
            listener.discard();
            return Err(error);
        }
    };
    let (mounted, server) = match mount(job, &repository, &volume, listener) {
        Ok(mounted) => mounted,
        Err(error) => return Err(close_after(&volume, place, error)),
    };
    *stage.lock() =
        Stage::Serving { mountpoint: job.mountpoint.clone(), volume: Arc::downgrade(&volume), asked: false };
    log::info!("{} is mounted at {}", describe(&job.source), job.mountpoint.display());
    if let Err(error) = ready() {
        // Nobody will use it. The session unmounts when it is dropped.
        *stage.lock() = Stage::Ending;
        drop(mounted);
        drop(server.finish(Err(&error)));
        return Err(close_after(&volume, place, error));
    }
    let served = mounted.serve().map_err(Error::from);
    *stage.lock() = Stage::Ending;
    match &served {
        Ok(()) => {
            log::info!("{} is unmounted, everything is durable", job.mountpoint.display());
            place.into_iter().for_each(JournalPlace::forget);
        }
        Err(error) => log::error!("{} is unmounted, but: {error}", job.mountpoint.display()),
    }
    let _farewell = server.finish(served.as_ref().map(|_| ()));
    drop(volume);
    drop(repository);
    served
}

/// What was opened to be mounted.
struct Opened {
    repository: Arc<Repository>,
    volume: Arc<Volume>,
    /// Where its journal is, for one that is written.
    place: Option<JournalPlace>,
}

fn open(context: &Context, job: &Job, listener: &Listener, credential: Credential) -> Result<Opened> {
    let Job { source, mountpoint, options, create } = job;
    let access = if options.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let repository = context.open_tuned(&source.path, access, credential, &mut |open| {
        if let Some(bytes) = options.cache_bytes {
            open.cache_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
    })?;
    let id = repository.config().repository;
    let mut volume = volume_options(source.volume.clone());
    options.apply_to_volume(&mut volume);
    volume.create = *create && !options.read_only;
    volume.holder.mountpoint = Some(mountpoint.clone());
    volume.holder.control_socket = Some(listener.path().to_path_buf());
    volume.journal_dir = options.journal.as_ref().map(|dir| JournalPlace::below(dir, id, &source.volume));
    let place = match options.read_only {
        true => None,
        false => Some(JournalPlace::claim(&context.state_dir, id, &source.volume, options.journal.as_deref())?),
    };
    match open_volume(Arc::clone(&repository), volume) {
        Ok(volume) => Ok(Opened { repository, volume, place }),
        Err(error) => {
            place.into_iter().for_each(JournalPlace::give_up);
            Err(error)
        }
    }
}

fn mount(job: &Job, repository: &Repository, volume: &Arc<Volume>, listener: Listener) -> Result<(Mounted, Server)> {
    let mut options = MountOptions::new(job.mountpoint.clone(), mount_source(&job.source));
    job.options.apply_to_mount(&mut options);
    // A damaged journal makes a volume read-only by itself.
    options.read_only |= volume.options().read_only;
    options.control = Some(listener.path().to_path_buf());
    let status = StatusReport {
        repository: Name::of(&job.source.path),
        volume: job.source.volume.to_string(),
        mountpoint: Name::of(&job.mountpoint),
        pid: process::id(),
        started: volume.options().holder.started,
        read_only: options.read_only,
        health: String::new(),
        trouble: None,
        dirty_bytes: 0,
        changes: 0,
        head: 0,
        checkpoint: None,
        free_bytes: 0,
        total_bytes: 0,
        notes: repository.notes().to_vec(),
    };
    match Mounted::new(volume, &options) {
        Ok(mounted) => Ok((mounted, listener.serve(volume, status)?)),
        Err(error) => {
            listener.discard();
            Err(error.into())
        }
    }
}

/// Closes the volume of a mount that did not come about; the first error is the one to tell.
fn close_after(volume: &Volume, place: Option<JournalPlace>, error: Error) -> Error {
    match volume.close() {
        Ok(()) => place.into_iter().for_each(JournalPlace::forget),
        Err(second) => log::error!("the volume was not closed cleanly: {second}"),
    }
    error
}

/// The volume as messages name it.
pub fn describe(source: &Source) -> String {
    format!("volume {} of {}", source.volume, source.path.display())
}

/// What `/proc/mounts` shows as the source, in a form that fstab can use again.
fn mount_source(source: &Source) -> String {
    let text = match source.volume.as_str() {
        crate::context::VOLUME_DEFAULT => source.path.display().to_string(),
        volume => format!("{}#{volume}", source.path.display()),
    };
    match nix::unistd::geteuid().is_root() {
        true => text,
        // The helper takes it as one of its options.
        false => text.replace('\\', "\\\\").replace(',', "\\,"),
    }
}

/// Packs are kept open for reading: the usual soft limit of 1,024 descriptors is meant for programs that use select(2).
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        log::debug!("cannot raise the limit of open files: {error}");
    }
}

/// A write beyond the limit of file lengths ends a process unless the signal is blocked; then it is answered with EFBIG. For this
/// thread and all that it starts.
fn outlive_length_limit() -> Result<()> {
    let signals = SigSet::from(Signal::SIGXFSZ);
    signals.thread_block().map_err(|error| Error::io("block a signal", error.into()))
}

/// Blocks the signals that end a process, for this thread and all that it starts, and has a thread wait for them.
fn watch_signals(stage: &SharedStage) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|error| Error::io("block signals", error.into()))?;
    let stage = Arc::clone(stage);
    let watch = move || {
        while let Ok(signal) = signals.wait() {
            on_signal(&stage, signal);
        }
    };
    Threads.spawn("signals", Box::new(watch)).map(drop).map_err(|error| Error::io("start the signal thread", error))
}

fn on_signal(stage: &SharedStage, signal: Signal) {
    let mut stage = stage.lock();
    match &mut *stage {
        Stage::Starting { socket } => {
            // A missing socket is what is wanted.
            let _ = std::fs::remove_file(socket);
            process::exit(Exit::Failed as i32);
        }
        Stage::Serving { mountpoint, asked: asked @ false, .. } => {
            *asked = true;
            let mountpoint = mountpoint.clone();
            drop(stage);
            log::info!("{signal}: unmounting {}", mountpoint.display());
            leave(&mountpoint);
        }
        Stage::Serving { mountpoint, volume, asked: true } => {
            log::warn!("{signal} again: {} is still in use, closing it nevertheless", mountpoint.display());
            let volume = volume.upgrade();
            let closed = volume.map_or(Ok(()), |volume| volume.close());
            if let Err(error) = closed {
                log::error!("the volume was not closed cleanly: {error}");
            }
            process::exit(Exit::Failed as i32);
        }
        Stage::Ending => log::info!("{signal}: the volume is being closed"),
    }
}

fn leave(mountpoint: &std::path::Path) {
    let left = match unmount(mountpoint, false) {
        Err(UnmountError::Busy) => {
            log::warn!("{} is in use; it ends when the last user is done", mountpoint.display());
            unmount(mountpoint, true)
        }
        left => left,
    };
    match left {
        Ok(()) | Err(UnmountError::NotMounted) => {}
        Err(error) => log::error!("cannot unmount {}: {error:?}", mountpoint.display()),
    }
}
