//! A repository on a disk in memory, with one volume: made, opened, killed, and its objects as files to be harmed.
//!
//! Checkpoints and journal commits happen only when a test asks for them, so that each state is known.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use vellum_fs::{
    attr::Caller,
    error::Result,
    format::inode::FileKind,
    ino::Ino,
    volume::{
        Volume, VolumeOptions,
        handles::{HandleId, OpenMode},
        ops::names::NewInode,
        replay::ReplaySummary,
    },
};
use vellum_store::{
    crypto::{Credential, KdfParams},
    disk::{Disk, EntryKind, MemoryDisk},
    id::VolumeName,
    repository::{Access, Damage, InitOptions, OpenOptions, Repository},
};

/// Who asks for everything.
pub const ME: Caller = Caller { uid: 0, gid: 0, pid: 1 };
/// Opened to read and write.
pub const RDWR: OpenMode = OpenMode { read: true, write: true, append: false, sync: false };
/// Where the repository lies.
pub const REPOSITORY: &str = "/repo";
/// Where the machine remembers heads.
pub const STATE: &str = "/state";

/// Small enough for the shortest journal segments.
const CAPACITY: u64 = 256 << 20;

/// A disk with a repository.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The disk.
    pub disk: MemoryDisk,
    key: u8,
    state: &'static str,
}

/// An open volume with what opening it told.
pub struct Opened {
    /// The volume.
    pub volume: Arc<Volume>,
    /// What replay did.
    pub summary: ReplaySummary,
}

impl Bench {
    /// A new repository that opens with the key file of that number.
    pub fn new(key: u8) -> Self {
        let bench = Self { disk: MemoryDisk::with_capacity(CAPACITY), key, state: STATE };
        let mut options = InitOptions::new(REPOSITORY, credential(key), 1).expect("a valid slot name");
        options.kdf = KdfParams::testing();
        options.disk = Arc::new(bench.disk.clone());
        options.pack_bytes = 2 << 20;
        Repository::init(&options).expect("an empty disk takes a repository");
        bench
    }

    /// The same repository and machine after the death of every process; what is done to it changes nothing here.
    pub fn kill(&self) -> Self {
        Self { disk: self.disk.kill(), ..*self }
    }

    /// The same repository on a machine that remembers nothing.
    pub fn forgetful(&self) -> Self {
        Self { state: "/nothing", ..self.kill() }
    }

    /// The same repository, to be opened with another key file.
    pub fn with_key(&self, key: u8) -> Self {
        Self { key, ..self.kill() }
    }

    /// The store's options.
    pub fn options(&self, access: Access) -> OpenOptions {
        let mut options = OpenOptions::new(REPOSITORY, credential(self.key), self.state);
        options.disk = Arc::new(self.disk.clone());
        options.access = access;
        options.workers = 1;
        options.cache_bytes = 4 << 20;
        options
    }

    /// Opens the repository.
    pub fn repository(&self, access: Access) -> vellum_store::Result<Arc<Repository>> {
        Repository::open(self.options(access))
    }

    /// Opens the volume `main`.
    pub fn open(&self, access: Access) -> Result<Opened> {
        self.open_named("main", access)
    }

    /// Opens a volume.
    pub fn open_named(&self, name: &str, access: Access) -> Result<Opened> {
        open_volume(self.repository(access)?, name, access)
    }

    /// What a check of everything names, of the repository and of its volume; an error to open either counts as naming.
    pub fn check(&self) -> Vec<Damage> {
        let mut found = Vec::new();
        let repository = match self.repository(Access::ReadOnly) {
            Ok(repository) => repository,
            Err(error) => return vec![damage_of(&error)],
        };
        if let Err(error) = repository.check(true, &mut |_| {}, &mut |damage| found.push(damage)) {
            found.push(damage_of(&error));
        }
        match open_volume(repository, "main", Access::ReadOnly) {
            Ok(opened) => {
                let what = opened.summary.damage.clone();
                found.extend(what.map(|what| Damage { object: "journal/main".into(), what }));
                close(&opened.volume);
            }
            Err(error) => found.push(Damage { object: error.to_string(), what: error.to_string() }),
        }
        found
    }

    /// Every file of the repository, relative to it, in order, with its length.
    pub fn files(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        self.list_below(Path::new(REPOSITORY), &mut files);
        files.sort();
        files
    }

    fn list_below(&self, dir: &Path, files: &mut Vec<(String, u64)>) {
        let mut names = Vec::new();
        let listed = self.disk.list_dir(dir, &mut |name, kind| {
            names.push((name.to_os_string(), kind));
            ControlFlow::Continue(())
        });
        listed.expect("the disk in memory lists its directories");
        for (name, kind) in names {
            let path = dir.join(name);
            if kind == EntryKind::Dir {
                self.list_below(&path, files);
                continue;
            }
            let info = self.disk.metadata(&path).expect("memory").expect("it was listed");
            let relative = path.strip_prefix(REPOSITORY).expect("below it");
            files.push((relative.to_str().expect("plain names").to_string(), info.len));
        }
    }

    /// The absolute path of a file of the repository.
    pub fn path(&self, object: &str) -> PathBuf {
        Path::new(REPOSITORY).join(object)
    }

    /// The bytes of a file of the repository.
    pub fn bytes(&self, object: &str) -> Vec<u8> {
        let file = self.disk.open_read(&self.path(object)).expect("it exists");
        let mut bytes = vec![0; file.len().expect("memory") as usize];
        file.read_exact_at(&mut bytes, 0).expect("memory");
        bytes
    }

    /// Replaces, or creates, a file of the repository.
    pub fn put(&self, object: &str, bytes: &[u8]) {
        self.remove(object);
        self.make_parents(object);
        let file = self.disk.create_new(&self.path(object)).expect("its directory exists");
        file.write_all_at(bytes, 0).expect("memory");
        file.sync_all().expect("memory");
    }

    fn make_parents(&self, object: &str) {
        let mut path = PathBuf::from(REPOSITORY);
        let parts: Vec<&str> = object.split('/').collect();
        for part in &parts[..parts.len() - 1] {
            path.push(part);
            self.disk.create_dir(&path).expect("memory");
        }
    }

    /// Removes a file of the repository, if it is there.
    pub fn remove(&self, object: &str) {
        match self.disk.remove(&self.path(object)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("remove {object}: {error}"),
        }
    }

    /// Flips bits of one byte.
    pub fn flip(&self, object: &str, offset: u64, bits: u8) {
        self.disk.rot(&self.path(object), offset, bits).expect("the offset lies in the file");
    }

    /// Takes all files of the repository from another one, as a restored copy of its directory would.
    pub fn restore_from(&self, other: &Self) {
        for (object, _) in self.files() {
            self.remove(&object);
        }
        for (object, _) in other.files() {
            self.put(&object, &other.bytes(&object));
        }
    }
}

/// The key file of a number.
pub fn credential(key: u8) -> Credential {
    Credential::KeyFile(vec![key; 32].into())
}

/// Opens a volume of an open repository, creating it where that is possible; it does nothing by itself.
pub fn open_volume(repository: Arc<Repository>, name: &str, access: Access) -> Result<Opened> {
    const NEVER: Duration = Duration::from_secs(1 << 20);
    let mut options = VolumeOptions::new(VolumeName::new(name)?);
    options.create = access == Access::ReadWrite;
    options.read_only = access == Access::ReadOnly;
    (options.checkpoint_quiet, options.checkpoint_max_wait, options.journal_interval) = (NEVER, NEVER, NEVER);
    options.node_cache_bytes = 1 << 20;
    let (volume, summary) = Volume::open(repository, options)?;
    Ok(Opened { volume, summary })
}

/// Closes a volume whose repository may be harmed: the last checkpoint may fail.
pub fn close(volume: &Volume) {
    // What could not be made durable is told by the next opening, which is what a test looks at.
    let _ = volume.close();
}

fn damage_of(error: &vellum_store::Error) -> Damage {
    Damage { object: error.to_string(), what: error.to_string() }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let key = blake3::hash(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Lines of text that say which file and line they are.
pub fn text(name: &str, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 80);
    let mut line = 0;
    while text.len() < length {
        text.extend_from_slice(format!("{name}: this is line {line} of a file in plain words\n").as_bytes());
        line += 1;
    }
    text.truncate(length);
    text
}

/// Creates a file with content and leaves it open.
pub fn create(volume: &Volume, parent: Ino, name: &str, content: &[u8]) -> (Ino, HandleId) {
    let new = NewInode { umask: 0o22, ..new_inode(parent, name, FileKind::Regular) };
    let (entry, opened) = volume.create(&new, RDWR, &ME).expect("the name is free");
    write(volume, opened.handle, 0, content);
    (entry.attr.ino, opened.handle)
}

/// What to create, with the usual mode.
pub fn new_inode(parent: Ino, name: &str, kind: FileKind) -> NewInode<'_> {
    NewInode { parent, name: name.as_bytes(), kind, mode: 0o644, umask: 0, rdev: 0, target: b"" }
}

/// Writes all of it.
pub fn write(volume: &Volume, handle: HandleId, offset: u64, content: &[u8]) {
    for (number, part) in content.chunks(1 << 17).enumerate() {
        let written = volume.write(handle, offset + (number << 17) as u64, part).expect("there is space");
        assert_eq!(written, part.len());
    }
}
