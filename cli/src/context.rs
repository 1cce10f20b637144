//! What a command works with: its global options, and repositories opened by them.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use vellum_fs::{
    time::Time,
    volume::{Volume, VolumeOptions},
};
use vellum_store::{
    config::CONFIG_COPIES,
    crypto::{Credential, KdfParams},
    id::VolumeName,
    lock::Holder,
    repository::{Access, OpenOptions, Repository},
};

use crate::{
    args::{GlobalArgs, KdfArgs},
    error::{Error, Result},
    journal_place::JournalPlace,
    logging,
    output::{self, Output},
    secret,
    target::Source,
};

/// The volume that is meant where none is named.
pub const VOLUME_DEFAULT: &str = "main";

/// What a command works with.
#[derive(Debug)]
pub struct Context {
    /// The options that hold for every command.
    pub global: GlobalArgs,
    /// How results are printed.
    pub output: Output,
    /// Where this machine remembers the newest heads.
    pub state_dir: PathBuf,
}

impl Context {
    /// From the options of the command line and the environment.
    pub fn new(global: GlobalArgs) -> Result<Self> {
        let output = Output { json: global.json };
        Ok(Self { output, state_dir: state_dir()?, global })
    }

    /// The secret for a repository.
    pub fn credential(&self, repository: &Path) -> Result<Credential> {
        secret::credential(&self.global.secret, &format!("Passphrase for {}", repository.display()))
    }

    /// Opens a repository with the secret that was given.
    pub fn open(&self, path: &Path, access: Access) -> Result<Arc<Repository>> {
        require_repository(path)?;
        let credential = self.credential(path)?;
        self.open_with(path, access, credential)
    }

    /// As [`Self::open`], with a secret that is known.
    pub fn open_with(&self, path: &Path, access: Access, credential: Credential) -> Result<Arc<Repository>> {
        self.open_tuned(path, access, credential, &mut |_| {})
    }

    /// Opens a repository with options that `tune` changes. What was typed as a passphrase may be a recovery code.
    pub fn open_tuned(
        &self,
        path: &Path,
        access: Access,
        credential: Credential,
        tune: &mut dyn FnMut(&mut OpenOptions),
    ) -> Result<Arc<Repository>> {
        let code = secret::as_recovery_code(&credential);
        let mut open = |credential| {
            let mut options = OpenOptions::new(path, credential, self.state_dir.clone());
            options.access = access;
            options.adopt_copy = self.global.as_copy;
            tune(&mut options);
            Repository::open(options)
        };
        let opened = match (open(credential), code) {
            (Err(vellum_store::Error::WrongKey), Some(code)) => open(code),
            (opened, _) => opened,
        };
        let repository = opened?;
        // The store has logged them.
        if !logging::is_seen() {
            repository.notes().iter().for_each(|text| output::note(text));
        }
        Ok(repository)
    }

    /// Opens a volume for looking at what was checkpointed, which all snapshots are; nothing is written. What is only in the
    /// journal is left out: somebody else may be writing it.
    pub fn open_reader(&self, source: &Source) -> Result<Arc<Volume>> {
        let repository = self.open(&source.path, Access::ReadOnly)?;
        open_volume(repository, reader_options(source.volume.clone()))
    }

    /// Opens a volume for changing it, does the work and closes it, whatever comes of it.
    pub fn with_writer<T>(&self, source: &Source, work: impl FnOnce(&Volume) -> Result<T>) -> Result<T> {
        let repository = self.open(&source.path, Access::ReadWrite)?;
        let writer = Writer::open(&self.state_dir, &repository, &source.volume)?;
        let done = work(writer.volume());
        let closed = writer.close();
        let done = done?;
        closed?;
        Ok(done)
    }
}

/// A volume that a command opened for changing it.
pub struct Writer {
    volume: Arc<Volume>,
    place: JournalPlace,
}

impl Writer {
    /// Opens a volume whose journal lies in the repository.
    pub fn open(state_dir: &Path, repository: &Arc<Repository>, name: &VolumeName) -> Result<Self> {
        let place = JournalPlace::claim(state_dir, repository.config().repository, name, None)?;
        match open_volume(Arc::clone(repository), volume_options(name.clone())) {
            Ok(volume) => Ok(Self { volume, place }),
            Err(error) => {
                place.give_up();
                Err(error)
            }
        }
    }

    /// The volume.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Makes everything durable and lets go of the volume.
    pub fn close(self) -> Result<()> {
        self.volume.close()?;
        self.place.forget();
        Ok(())
    }
}

/// The options of a volume of which only what was checkpointed is looked at.
pub fn reader_options(name: VolumeName) -> VolumeOptions {
    let mut options = volume_options(name);
    options.read_only = true;
    options.skip_journal = true;
    options
}

/// Opens a volume and tells what its journal brought.
pub fn open_volume(repository: Arc<Repository>, options: VolumeOptions) -> Result<Arc<Volume>> {
    let name = options.name.clone();
    let (volume, replayed) = Volume::open(repository, options)?;
    if let Some(damage) = replayed.damage {
        output::note(&format!("the journal of volume {name} is damaged, what follows the damage is lost: {damage}"));
    }
    Ok(volume)
}

/// The options of a volume that a command opens for itself.
pub fn volume_options(name: VolumeName) -> VolumeOptions {
    let mut options = VolumeOptions::new(name);
    options.holder = Holder::this_process(seconds_now());
    options.zone = jiff::tz::TimeZone::system();
    #[cfg(unix)]
    {
        options.root_owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        options.snapshot_admin = options.root_owner.0;
    }
    options
}

/// Refuses what is no repository before a passphrase is asked for.
pub fn require_repository(path: &Path) -> Result<()> {
    match repository_state(path)? {
        RepositoryState::Present => Ok(()),
        RepositoryState::Missing => Err(not_a_repository(path, "it does not exist")),
        RepositoryState::Empty => Err(not_a_repository(path, "it is an empty directory")),
        RepositoryState::Other => Err(not_a_repository(path, "it has no file `config`")),
    }
}

fn not_a_repository(path: &Path, why: &str) -> Error {
    vellum_store::Error::NotARepository { path: path.display().to_string(), why: why.to_string() }.into()
}

/// What lies where a repository is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryState {
    /// A repository, as it seems.
    Present,
    /// Nothing.
    Missing,
    /// An empty directory.
    Empty,
    /// Anything else.
    Other,
}

/// Looks what lies at a path.
pub fn repository_state(path: &Path) -> Result<RepositoryState> {
    let look = |error| Error::io(format!("look into {}", path.display()), error);
    for copy in CONFIG_COPIES {
        match path.join(copy).symlink_metadata() {
            Ok(_) => return Ok(RepositoryState::Present),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(look(error)),
        }
    }
    match path.metadata() {
        Ok(metadata) if !metadata.is_dir() => Ok(RepositoryState::Other),
        Ok(_) => {
            let empty = path.read_dir().map_err(look)?.next().is_none();
            Ok(if empty { RepositoryState::Empty } else { RepositoryState::Other })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(RepositoryState::Missing),
        Err(error) => Err(look(error)),
    }
}

/// The cost of guessing a passphrase.
pub fn kdf_params(args: KdfArgs) -> Result<KdfParams> {
    let default = KdfParams::default();
    match args.kdf_memory_kib {
        None => Ok(default),
        Some(memory) => Ok(KdfParams::new(memory, default.t(), default.p())?),
    }
}

/// The time, in nanoseconds since 1970.
pub fn nanos_now() -> i64 {
    Time::now().as_nanos()
}

/// The time, in seconds since 1970.
pub fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Where this machine keeps what must not lie with the repository.
pub fn state_dir() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = if let Some(dir) = variable("VELLUM_STATE_DIR") {
        dir
    } else if is_root() {
        PathBuf::from("/var/lib/vellum")
    } else if let Some(dir) = variable("XDG_STATE_HOME") {
        dir.join("vellum")
    } else if let Some(home) = env::home_dir().filter(|home| !home.as_os_str().is_empty()) {
        home.join(".local/state/vellum")
    } else {
        return Err(Error::usage("there is no home directory to keep state in", "set VELLUM_STATE_DIR to a directory"));
    };
    std::path::absolute(&dir).map_err(|error| Error::io(format!("find {}", dir.display()), error))
}

#[cfg(unix)]
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_repository_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let state = |path: &Path| repository_state(path).unwrap();
        assert_eq!(state(&dir.path().join("none")), RepositoryState::Missing);
        assert_eq!(state(dir.path()), RepositoryState::Empty);
        std::fs::write(dir.path().join("file"), "x").unwrap();
        assert_eq!(state(dir.path()), RepositoryState::Other);
        assert_eq!(state(&dir.path().join("file")), RepositoryState::Other);
        std::fs::write(dir.path().join("config.2"), "x").unwrap();
        assert_eq!(state(dir.path()), RepositoryState::Present, "two lost copies do not hide a repository");
    }

    #[test]
    fn the_memory_of_a_guess_has_a_floor() {
        assert!(kdf_params(KdfArgs { kdf_memory_kib: Some(1024) }).is_err());
        assert_eq!(kdf_params(KdfArgs { kdf_memory_kib: Some(65_536) }).unwrap().m_kib(), 65_536);
    }
}
