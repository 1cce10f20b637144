//! The process is killed in the middle of work, again and again, and what comes back is compared with what it had promised.
//!
//! Several writers, each one thread with a directory of its own, change names and files at random and keep a ledger outside of
//! the mount: each operation that was answered, in order, and how far `fsync` had promised to keep it. A real tree is copied
//! in beside them, and snapshots are taken. After the kill and a remount, promise P1 is checked:
//! - the names, modes, links and attributes of a directory are those after some number of the operations on them, and not
//!   fewer than the last `fsync` covers;
//! - each file's content, size and time are those after some number of its own writes, not fewer than its last `fsync` covers,
//!   nor fewer than it had when it was renamed over another file, if that rename survived; the last of them may be the beginning of a
//!   write, which the kernel passes on in several requests if it is not aligned;
//! - a snapshot holds exactly what was answered before it was taken;
//! - the copied tree holds beginnings of the files that were to be copied.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use vellum_tests::seed::{Seed, number_from_environment};

use crate::{
    copies::real_directories,
    facts::{Facts, assert_same, facts, xattrs},
    site::{Mounted, Site, noise},
};

const WRITERS: u64 = 3;
/// Longest single write.
const WRITE_MAX: u64 = 120_000;
/// The kernel cuts a write into requests at multiples of this: where the first or last page is not in its cache, that page goes alone.
const PAGE: u64 = 4096;

/// What a name stands for in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Dir,
    Link(PathBuf),
    /// Number of the file in the ledger; hard links share it.
    File(usize),
}

/// The names of one writer's directory, with their modes and attributes.
type Names = BTreeMap<PathBuf, (Thing, u32, Vec<u8>)>;

/// A change of names, and which files must have come how far if it survived.
struct NameStep {
    what: String,
    names: Names,
    /// File and number of its writes that a rename over another file ties to it.
    tied: Option<(usize, usize)>,
}

/// What made a file what it is.
#[derive(Clone, Copy)]
enum Change {
    Write { offset: u64, length: u64, seed: u64 },
    Truncate(u64),
}

impl Change {
    /// Brings the change into `content`, or for a write only its first `most` bytes.
    fn apply(self, content: &mut Vec<u8>, most: u64) {
        match self {
            Self::Write { offset, length, seed } => {
                let part = length.min(most) as usize;
                let (offset, end) = (offset as usize, offset as usize + part);
                content.resize(content.len().max(end), 0);
                content[offset..end].copy_from_slice(&noise(seed, length as usize)[..part]);
            }
            Self::Truncate(size) => content.resize(size as usize, 0),
        }
    }
}

/// One state of a file.
#[derive(Clone)]
struct Version {
    /// What made it of the version before; nothing made the first.
    change: Option<Change>,
    length: u64,
    hash: blake3::Hash,
    /// Modification time, where the writer asked for it.
    modified: Option<(i64, i64)>,
}

/// The life of one file.
struct FileLedger {
    content: Vec<u8>,
    versions: Vec<Version>,
    /// Number of the version that an `fsync` promised to keep at least.
    synced: usize,
}

impl FileLedger {
    fn new() -> Self {
        let empty = Version { change: None, length: 0, hash: blake3::hash(b""), modified: None };
        Self { content: Vec::new(), versions: vec![empty], synced: 0 }
    }

    /// Notes a change that is about to be asked for: unanswered, it may have been done all the same.
    fn note(&mut self, change: Change) {
        change.apply(&mut self.content, u64::MAX);
        let (length, hash) = (self.content.len() as u64, blake3::hash(&self.content));
        self.versions.push(Version { change: Some(change), length, hash, modified: None });
    }

    /// Which of the versions after `least` up to `most` has `found` after the first requests that the kernel made of its write.
    fn written_in_part(&self, found: &[u8], least: usize, most: usize) -> Option<usize> {
        let mut content = Vec::new();
        for (at, version) in self.versions.iter().enumerate().take(most + 1) {
            let Some(change) = version.change else { continue };
            if at > least
                && let Change::Write { offset, length, .. } = change
            {
                let (first, last) = ((offset / PAGE + 1) * PAGE, (offset + length - 1) / PAGE * PAGE);
                for end in [first, last] {
                    let part = end.saturating_sub(offset);
                    if part < length && found.len() as u64 == (content.len() as u64).max(offset + part) {
                        let mut partly = content.clone();
                        change.apply(&mut partly, part);
                        if partly == found {
                            return Some(at);
                        }
                    }
                }
            }
            change.apply(&mut content, u64::MAX);
        }
        None
    }
}

/// What one writer knows.
struct Ledger {
    root: PathBuf,
    random: Seed,
    steps: Vec<NameStep>,
    /// Number of the step that an `fsync` promised to keep at least.
    synced: usize,
    files: Vec<FileLedger>,
    snapshots: Vec<(String, usize, Vec<usize>)>,
    unique: u64,
}

impl Ledger {
    fn new(root: PathBuf, random: Seed) -> Self {
        let first = NameStep { what: "start".to_string(), names: Names::new(), tied: None };
        Self { root, random, steps: vec![first], synced: 0, files: Vec::new(), snapshots: Vec::new(), unique: 0 }
    }

    fn names(&self) -> &Names {
        &self.steps.last().unwrap().names
    }

    fn path(&self, inside: &Path) -> PathBuf {
        self.root.join(inside)
    }

    fn fresh(&mut self, kind: &str) -> PathBuf {
        self.unique += 1;
        let dirs: Vec<_> =
            self.names().iter().filter(|(_, entry)| entry.0 == Thing::Dir).map(|(path, _)| path).collect();
        let name = format!("{kind}-{}", self.unique);
        match self.random.clone().below(dirs.len() as u64 + 1) as usize {
            0 => name.into(),
            at => dirs[at - 1].join(name),
        }
    }

    fn pick(&mut self, wanted: impl Fn(&Thing) -> bool) -> Option<(PathBuf, Thing)> {
        let number = self.random.draw();
        let found: Vec<_> = self.names().iter().filter(|(_, entry)| wanted(&entry.0)).collect();
        let (path, entry) = found.get(number as usize % found.len().max(1))?;
        Some(((*path).clone(), entry.0.clone()))
    }

    /// Notes a change of names before it is asked for: unanswered, it may have been done all the same.
    fn step(&mut self, what: String, tied: Option<(usize, usize)>, change: impl FnOnce(&mut Names)) {
        let mut names = self.names().clone();
        change(&mut names);
        self.steps.push(NameStep { what, names, tied });
    }

    /// One random operation; fails when the mount is dead.
    fn operate(&mut self, mounted: &Path) -> io::Result<()> {
        match self.random.below(40) {
            0..=9 => self.create(),
            10..=16 => self.write(),
            17..=19 => self.replace(true),
            20..=22 => self.replace(false),
            23..=24 => self.truncate(),
            25..=27 => self.sync(),
            28..=29 => self.rename(),
            30..=31 => self.unlink(),
            32 => self.make_dir(),
            33 => self.make_link(),
            34 => self.hard_link(),
            35 => self.change_mode(),
            36 => self.set_attribute(),
            37 => self.sync_directory(),
            38 if self.unique.is_multiple_of(4) => self.snapshot(mounted),
            _ => self.write(),
        }
    }

    fn create(&mut self) -> io::Result<()> {
        let path = self.fresh("file");
        self.create_at(&path).map(drop)
    }

    fn create_at(&mut self, path: &Path) -> io::Result<usize> {
        let number = self.files.len();
        self.files.push(FileLedger::new());
        let inside = path.to_owned();
        self.step(format!("create {path:?}"), None, |names| {
            names.insert(inside, (Thing::File(number), 0o644, Vec::new()));
        });
        let file = File::options().write(true).create_new(true).open(self.path(path))?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        let writes = 1 + self.random.below(3);
        for _ in 0..writes {
            let length = self.write_length();
            let offset = self.files[number].content.len() as u64;
            self.write_at(&file, number, offset, length)?;
        }
        if self.random.below(4) == 0 {
            self.sync_file(&file, number)?;
        }
        Ok(number)
    }

    fn write_length(&mut self) -> u64 {
        let most = [100, 3000, 20_000, WRITE_MAX][self.random.below(4) as usize];
        1 + self.random.below(most)
    }

    fn write_at(&mut self, file: &File, number: usize, offset: u64, length: u64) -> io::Result<()> {
        let seed = self.random.draw();
        let bytes = noise(seed, length as usize);
        let ledger = &mut self.files[number];
        ledger.note(Change::Write { offset, length, seed });
        let done = file.write_at(&bytes, offset)?;
        if done < bytes.len() {
            // The kernel cuts a write into requests; the process died between two of them.
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        let data = file.metadata()?;
        let last = ledger.versions.last_mut().unwrap();
        assert_eq!(data.len(), last.length);
        last.modified = Some((data.mtime(), data.mtime_nsec()));
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let Some((path, Thing::File(number))) = self.pick(|thing| matches!(thing, Thing::File(_))) else {
            return self.create();
        };
        let file = File::options().write(true).open(self.path(&path))?;
        let count = 1 + self.random.below(4);
        for _ in 0..count {
            let size = self.files[number].content.len() as u64;
            let offset = match self.random.below(3) {
                0 => self.random.below(size + 1),
                1 if size < 2 << 20 => size,
                _ => self.random.below(size + 100_000).min(3 << 20),
            };
            let length = self.write_length();
            self.write_at(&file, number, offset, length)?;
        }
        if self.random.below(5) == 0 { self.sync_file(&file, number) } else { Ok(()) }
    }

    fn truncate(&mut self) -> io::Result<()> {
        let Some((path, Thing::File(number))) = self.pick(|thing| matches!(thing, Thing::File(_))) else {
            return Ok(());
        };
        let size = self.random.below(self.files[number].content.len() as u64 + 10_000);
        self.files[number].note(Change::Truncate(size));
        File::options().write(true).open(self.path(&path))?.set_len(size)
    }

    fn sync_file(&mut self, file: &File, number: usize) -> io::Result<()> {
        // What is answered covers everything that was asked for before; names are one sequence, so it covers them as well.
        let (version, step) = (self.files[number].versions.len() - 1, self.steps.len() - 1);
        if self.random.below(2) == 0 {
            file.sync_all()?
        } else {
            file.sync_data()?
        };
        self.files[number].synced = version;
        self.synced = step;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some((path, Thing::File(number))) = self.pick(|thing| matches!(thing, Thing::File(_))) else {
            return Ok(());
        };
        let file = File::open(self.path(&path))?;
        self.sync_file(&file, number)
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        let step = self.steps.len() - 1;
        File::open(&self.root)?.sync_all()?;
        self.synced = step;
        Ok(())
    }

    /// As editors save: a new file is renamed over the old one, with or without a sync before.
    fn replace(&mut self, sync: bool) -> io::Result<()> {
        let Some((target, Thing::File(old))) = self.pick(|thing| matches!(thing, Thing::File(_))) else {
            return Ok(());
        };
        let path = self.fresh("new");
        let number = self.create_at(&path)?;
        if sync {
            let file = File::open(self.path(&path))?;
            self.sync_file(&file, number)?;
        }
        let version = self.files[number].versions.len() - 1;
        assert_ne!(old, number);
        let (from, to) = (path.clone(), target.clone());
        self.step(format!("rename {path:?} over {target:?}"), Some((number, version)), |names| {
            let entry = names.remove(&from).unwrap();
            names.insert(to, entry);
        });
        fs::rename(self.path(&path), self.path(&target))
    }

    fn rename(&mut self) -> io::Result<()> {
        let Some((path, _)) = self.pick(|_| true) else { return Ok(()) };
        let mut target = self.fresh("moved");
        if target.starts_with(&path) {
            target = target.file_name().unwrap().into();
        }
        let (from, to) = (path.clone(), target.clone());
        self.step(format!("rename {path:?} to {target:?}"), None, |names| {
            let moved: Vec<_> = names.keys().filter(|name| name.starts_with(&from)).cloned().collect();
            for name in moved {
                let entry = names.remove(&name).unwrap();
                let below = name.strip_prefix(&from).unwrap();
                names.insert(if below.as_os_str().is_empty() { to.clone() } else { to.join(below) }, entry);
            }
        });
        fs::rename(self.path(&path), self.path(&target))
    }

    fn unlink(&mut self) -> io::Result<()> {
        let Some((path, _)) = self.pick(|thing| *thing != Thing::Dir) else { return Ok(()) };
        let gone = path.clone();
        self.step(format!("unlink {path:?}"), None, |names| {
            names.remove(&gone);
        });
        fs::remove_file(self.path(&path))
    }

    fn make_dir(&mut self) -> io::Result<()> {
        let path = self.fresh("dir");
        let made = path.clone();
        self.step(format!("mkdir {path:?}"), None, |names| {
            names.insert(made, (Thing::Dir, 0o755, Vec::new()));
        });
        fs::create_dir(self.path(&path))
    }

    fn make_link(&mut self) -> io::Result<()> {
        let path = self.fresh("link");
        let (made, target) = (path.clone(), PathBuf::from(format!("target of {path:?}")));
        let kept = target.clone();
        self.step(format!("symlink {path:?}"), None, |names| {
            names.insert(made, (Thing::Link(kept), 0o777, Vec::new()));
        });
        symlink(target, self.path(&path))
    }

    fn hard_link(&mut self) -> io::Result<()> {
        let Some((path, _)) = self.pick(|thing| matches!(thing, Thing::File(_))) else { return Ok(()) };
        let name = self.fresh("second");
        let (from, to) = (path.clone(), name.clone());
        self.step(format!("link {path:?} to {name:?}"), None, |names| {
            let entry = names[&from].clone();
            names.insert(to, entry);
        });
        fs::hard_link(self.path(&path), self.path(&name))
    }

    /// Changes the entry at a path, and at all names of the same file.
    fn change_entry(&mut self, what: String, path: &Path, change: impl Fn(&mut (Thing, u32, Vec<u8>))) {
        let thing = self.names()[path].0.clone();
        let path = path.to_owned();
        self.step(what, None, |names| {
            let same = |name: &Path, other: &Thing| name == path || matches!(thing, Thing::File(_)) && *other == thing;
            names.iter_mut().filter(|(name, entry)| same(name, &entry.0)).for_each(|(_, entry)| change(entry));
        });
    }

    fn change_mode(&mut self) -> io::Result<()> {
        let Some((path, _)) = self.pick(|thing| !matches!(thing, Thing::Link(_))) else { return Ok(()) };
        let mode = 0o600 | self.random.below(0o200) as u32;
        self.change_entry(format!("chmod {mode:o} {path:?}"), &path, |entry| entry.1 = mode);
        fs::set_permissions(self.path(&path), Permissions::from_mode(mode))
    }

    fn set_attribute(&mut self) -> io::Result<()> {
        let Some((path, _)) = self.pick(|thing| !matches!(thing, Thing::Link(_))) else { return Ok(()) };
        let value = format!("value {}", self.random.below(1000)).into_bytes();
        self.change_entry(format!("setxattr {path:?}"), &path, |entry| entry.2.clone_from(&value));
        let full = self.path(&path);
        Ok(rustix::fs::setxattr(full, "user.ledger", &value, rustix::fs::XattrFlags::empty())?)
    }

    fn snapshot(&mut self, mounted: &Path) -> io::Result<()> {
        self.unique += 1;
        let round = self.root.parent().and_then(Path::file_name).unwrap().display();
        let name = format!("{round}-{}-{}", self.root.file_name().unwrap().display(), self.unique);
        let (step, versions) = (self.steps.len() - 1, self.files.iter().map(|file| file.versions.len() - 1).collect());
        fs::create_dir(mounted.join(".snapshots").join(&name))?;
        self.synced = step;
        for file in &mut self.files {
            file.synced = file.versions.len() - 1;
        }
        self.snapshots.push((name, step, versions));
        Ok(())
    }

    /// Compares what came back with the ledger. Names may be the same after several steps; one of them must fit the files.
    fn check(&self, root: &Path, at_least: usize, at_most: usize, file_bounds: impl Fn(usize) -> (usize, usize)) {
        let found = observe(root);
        let fitting: Vec<_> = (at_least..=at_most).rev().filter(|&step| found.fits(&self.steps[step].names)).collect();
        let mut told = Vec::new();
        for step in fitting {
            match self.check_files(root, step, &found, &file_bounds) {
                Ok(()) => return,
                Err(error) => told.push(format!("after step {step}, {}: {error}", self.steps[step].what)),
            }
        }
        if told.is_empty() {
            told = self.describe(&found, at_least, at_most);
        }
        panic!("{} is in no state that the steps {at_least} to {at_most} leave: {told:#?}", root.display());
    }

    fn describe(&self, found: &Observed, at_least: usize, at_most: usize) -> Vec<String> {
        let also = (0..self.steps.len()).rev().find(|&step| found.fits(&self.steps[step].names));
        let missing = |step: usize| {
            let names = &self.steps[step].names;
            let missing: Vec<_> = names.keys().filter(|path| !found.entries.contains_key(*path)).collect();
            let surplus: Vec<_> = found.entries.keys().filter(|path| !names.contains_key(*path)).collect();
            format!("of step {step}, {missing:?} are missing, and {surplus:?} are there beside it")
        };
        let steps = (at_least.saturating_sub(3)..=at_most).map(|step| format!("{step}: {}", self.steps[step].what));
        let mut told = vec![format!("names fit step {also:?}"), missing(at_least), missing(at_most)];
        told.extend(steps.take(40));
        told
    }

    fn check_files(
        &self,
        root: &Path,
        step: usize,
        found: &Observed,
        file_bounds: &impl Fn(usize) -> (usize, usize),
    ) -> Result<(), String> {
        let mut inodes = BTreeMap::new();
        for (path, (thing, ..)) in &self.steps[step].names {
            if let Thing::File(number) = thing {
                let ino = found.entries[path].ino.unwrap();
                if *inodes.entry(*number).or_insert(ino) != ino {
                    return Err(format!("{path:?} and its other names are not one file"));
                }
                let (least, most) = file_bounds(*number);
                // The newest tie of this file among the renames that survived.
                let tied = self.steps[..=step].iter().filter_map(|step| step.tied).filter(|(file, _)| file == number);
                let least = tied.map(|(_, version)| version).fold(least, usize::max).min(most);
                self.check_file(&root.join(path), *number, least, most)?;
            }
        }
        Ok(())
    }

    fn check_file(&self, path: &Path, number: usize, least: usize, most: usize) -> Result<(), String> {
        let content = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let data = path.metadata().unwrap();
        let modified = (data.mtime(), data.mtime_nsec());
        let hash = blake3::hash(&content);
        let versions = &self.files[number].versions;
        let fits = |at: &usize| versions[*at].length == data.len() && versions[*at].hash == hash;
        let found: Vec<_> = (least..=most).filter(fits).collect();
        if found.is_empty() && self.files[number].written_in_part(&content, least, most).is_some() {
            return Ok(());
        }
        if found.is_empty() {
            let also: Vec<_> = (0..versions.len()).filter(fits).collect();
            let lengths: Vec<_> = versions.iter().map(|version| version.length).collect();
            return Err(format!(
                "{}: its {} bytes are those of none of the versions {least} to {most} (but {also:?}); lengths {lengths:?}",
                path.display(),
                data.len()
            ));
        }
        let times: Vec<_> = found.iter().map(|&at| versions[at].modified).collect();
        match times.iter().any(|time| time.is_none_or(|time| time == modified)) {
            true => Ok(()),
            false => Err(format!("{}: was modified at {modified:?}, and not at one of {times:?}", path.display())),
        }
    }

    fn check_live(&self) {
        let last = |number: usize| self.files[number].versions.len() - 1;
        self.check(&self.root, self.synced, self.steps.len() - 1, |number| (self.files[number].synced, last(number)));
    }
}

/// What a directory holds, in the ledger's terms but for the numbers of files.
struct Observed {
    entries: BTreeMap<PathBuf, Entry>,
}

struct Entry {
    target: Option<PathBuf>,
    mode: u32,
    attribute: Vec<u8>,
    /// Of a file.
    ino: Option<u64>,
}

impl Observed {
    fn fits(&self, names: &Names) -> bool {
        let same = |(path, (thing, mode, attribute)): (&PathBuf, &(Thing, u32, Vec<u8>)),
                    (other, entry): (&PathBuf, &Entry)| {
            let kind = match thing {
                Thing::Dir => entry.target.is_none() && entry.ino.is_none(),
                Thing::Link(target) => entry.target.as_ref() == Some(target),
                Thing::File(_) => entry.ino.is_some(),
            };
            path == other && kind && *mode == entry.mode && *attribute == entry.attribute
        };
        names.len() == self.entries.len() && names.iter().zip(&self.entries).all(|(named, found)| same(named, found))
    }
}

fn observe(root: &Path) -> Observed {
    let mut entries = BTreeMap::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let inside = dir.join(entry.unwrap().file_name());
            let path = root.join(&inside);
            let data = path.symlink_metadata().unwrap();
            if data.is_dir() {
                dirs.push(inside.clone());
            }
            let target = data.is_symlink().then(|| fs::read_link(&path).unwrap());
            let attribute = xattrs(&path).remove(b"user.ledger".as_slice()).unwrap_or_default();
            let ino = data.is_file().then(|| data.ino());
            entries.insert(inside, Entry { target, mode: data.mode() & 0o7777, attribute, ino });
        }
    }
    Observed { entries }
}

/// Works until the mount is dead, and counts what was done.
fn work(ledger: &mut Ledger, mounted: &Path, count: &AtomicU64, reached: &mpsc::Sender<()>, limit: u64) {
    loop {
        match ledger.operate(mounted) {
            Ok(()) => {
                if count.fetch_add(1, Ordering::Relaxed) + 1 == limit {
                    // The receiver may have left already.
                    let _ = reached.send(());
                }
            }
            Err(error) => {
                let dead = [libc::ENOTCONN, libc::ECONNABORTED, libc::EIO].contains(&error.raw_os_error().unwrap_or(0));
                assert!(dead, "{}: {error}", ledger.root.display());
                let _ = reached.send(());
                return;
            }
        }
    }
}

/// Each copied file is a beginning of its source.
fn check_copy(sources: &[PathBuf], copy: &Path) -> u64 {
    let mut count = 0;
    for source in sources {
        let root = copy.join(source.file_name().unwrap());
        if root.exists() {
            count += check_copied(source, &root);
        }
    }
    count
}

fn check_copied(source: &Path, copy: &Path) -> u64 {
    let mut count = 0;
    for entry in fs::read_dir(copy).unwrap() {
        let name = entry.unwrap().file_name();
        let (from, to) = (source.join(&name), copy.join(&name));
        let data = to.symlink_metadata().unwrap();
        assert!(from.symlink_metadata().is_ok(), "{} is not in the source", to.display());
        if data.is_dir() {
            count += check_copied(&from, &to);
        } else if data.is_file() {
            let (whole, begun) = (fs::read(&from).unwrap(), fs::read(&to).unwrap());
            assert!(whole.starts_with(&begun), "{} is no beginning of its source", to.display());
        }
        count += 1;
    }
    count
}

struct Round {
    root: PathBuf,
    expected: Facts,
}

#[test]
fn a_killed_process_keeps_what_it_promised() {
    let Some(site) = Site::new() else { return };
    let mut random = Seed::of_test("a_killed_process_keeps_what_it_promised", 1);
    let rounds = number_from_environment("VELLUM_TEST_KILLS", 8);
    let sources = real_directories(2500);
    let mut past: Vec<Round> = Vec::new();
    let totals = Mutex::new((0u64, 0u64, 0u64));
    for round in 0..rounds {
        let mounted = site.mount_with(
            ["rw", "version-quiet=1,version-max-wait=1", "dirty=8M,version-max-wait=2"][random.below(3) as usize],
        );
        let dir = mounted.path(format!("round-{round}"));
        fs::create_dir(&dir).unwrap();
        File::open(&dir).unwrap().sync_all().unwrap();
        let mut ledgers: Vec<_> = (0..WRITERS)
            .map(|number| Ledger::new(dir.join(format!("writer-{number}")), Seed::new(random.draw())))
            .collect();
        for ledger in &ledgers {
            fs::create_dir(&ledger.root).unwrap();
        }
        File::open(&dir).unwrap().sync_all().unwrap();
        let limit = 1 + random.below(if round % 3 == 0 { 60 } else { 700 });
        kill_in_the_middle(mounted, &sources, &mut ledgers, &dir, limit);
        let mounted = site.mount();
        for ledger in &ledgers {
            ledger.check_live();
            check_snapshots(ledger, &mounted, &dir);
        }
        let copied = check_copy(&sources, &dir.join("copy"));
        {
            let mut totals = totals.lock().unwrap();
            totals.0 += ledgers.iter().map(|ledger| ledger.steps.len() as u64).sum::<u64>();
            totals.1 +=
                ledgers.iter().flat_map(|ledger| &ledger.files).map(|file| file.versions.len() as u64).sum::<u64>();
            totals.2 += copied;
        }
        fs::remove_dir_all(dir.join("copy")).unwrap_or_default();
        File::open(&dir).unwrap().sync_all().unwrap();
        past.push(Round { expected: facts(&dir), root: dir });
        // Every round that went before is still whole; which one is looked at is left to chance, but for the last.
        let older = &past[random.below(past.len() as u64) as usize];
        assert_same(&older.expected, &facts(&older.root), "an earlier round");
        match random.below(3) {
            0 => mounted.kill(),
            _ => mounted.umount(),
        }
    }
    let mounted = site.mount();
    for round in &past {
        assert_same(&round.expected, &facts(&round.root), "at the end");
    }
    mounted.umount();
    site.run(["check", "--read-data"], [site.repository()]);
    let (steps, writes, copied) = *totals.lock().unwrap();
    println!("{rounds} kills; checked {steps} changes of names, {writes} writes, {copied} copied entries");
}

fn check_snapshots(ledger: &Ledger, mounted: &Mounted<'_>, dir: &Path) {
    // A snapshot shows the same path below its own name.
    let round = dir.strip_prefix(mounted.path("")).unwrap();
    let name = ledger.root.file_name().unwrap();
    for (snapshot, step, versions) in &ledger.snapshots {
        let root = mounted.snapshot(snapshot).join(round).join(name);
        ledger.check(&root, *step, *step, |number| versions.get(number).map_or((0, 0), |&version| (version, version)));
    }
}

fn kill_in_the_middle(mounted: Mounted<'_>, sources: &[PathBuf], ledgers: &mut [Ledger], dir: &Path, limit: u64) {
    let copy = dir.join("copy");
    fs::create_dir(&copy).unwrap();
    let mut copying = Command::new("cp");
    copying.arg("-a").args(sources).arg(&copy).stderr(Stdio::null());
    let mut copying = copying.spawn().unwrap();
    let count = AtomicU64::new(0);
    let (reached, wait) = mpsc::channel();
    let place = mounted.path("");
    let mut dead = None;
    std::thread::scope(|scope| {
        for ledger in ledgers {
            let (reached, count, place) = (reached.clone(), &count, &place);
            scope.spawn(move || work(ledger, place, count, &reached, limit));
        }
        wait.recv().unwrap();
        // It stays mounted until all have noticed: below it, names would only seem to be missing.
        dead = Some(mounted.kill_only());
    });
    copying.wait().unwrap();
    dead.unwrap().take_away();
}
