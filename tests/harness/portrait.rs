//! A portrait of a tree: everything a reader can see of it, to be compared with what a harmed repository shows.
//!
//! A comparison allows exactly two answers for each question: the one in the portrait, or an error that says damage. A name that
//! is "not there" because it could not be read is as wrong as other bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

use vellum_fs::{
    attr::Attr,
    error::Error,
    format::inode::FileKind,
    ino::Ino,
    volume::{Volume, handles::OpenMode},
};

/// Bytes asked for at once.
const READ_BYTES: usize = 128 << 10;

/// One inode and what lies below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Portrait {
    attr: Attr,
    content: Arc<Vec<u8>>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    children: BTreeMap<Vec<u8>, Portrait>,
}

/// A wrong answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What was asked about.
    pub path: String,
    /// The question and the answer.
    pub what: String,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Answers that were neither right nor an error that says damage.
    pub wrong: Vec<Wrong>,
    /// Errors that say damage.
    pub errors: Vec<String>,
    /// Right answers.
    pub right: u64,
}

impl Portrait {
    /// Draws the tree below `ino`, which must be whole.
    pub fn draw(volume: &Volume, ino: Ino) -> Result<Self, Error> {
        let attr = volume.get_attr(ino)?;
        let mut portrait = Self { attr, content: Arc::default(), xattrs: BTreeMap::new(), children: BTreeMap::new() };
        portrait.content = Arc::new(match attr.kind {
            FileKind::Regular => read_all(volume, ino)?,
            FileKind::Symlink => volume.read_link(ino)?,
            _ => Vec::new(),
        });
        for name in volume.list_xattrs(ino)? {
            let value = volume.get_xattr(ino, &name)?;
            portrait.xattrs.insert(name, value);
        }
        if attr.kind == FileKind::Directory {
            for name in list(volume, ino).map_err(|(error, _)| error)? {
                let child = volume.lookup(ino, &name)?;
                portrait.children.insert(name, Self::draw(volume, child.attr.ino)?);
            }
        }
        Ok(portrait)
    }

    /// The portrait of a snapshot.
    pub fn draw_snapshot(volume: &Volume, name: &str) -> Result<Self, Error> {
        Self::draw(volume, find_snapshot(volume, name)?)
    }

    /// How many inodes it shows, each name counted.
    pub fn count(&self) -> usize {
        1 + self.children.values().map(Self::count).sum::<usize>()
    }

    /// Asks for everything that the portrait shows of the tree below `ino`.
    pub fn compare(&self, volume: &Volume, ino: Ino, findings: &mut Findings) {
        self.compare_at(volume, ino, "", findings);
    }

    /// As [`Self::compare`], for a snapshot.
    pub fn compare_snapshot(&self, volume: &Volume, name: &str, findings: &mut Findings) {
        match find_snapshot(volume, name) {
            Ok(ino) => self.compare_at(volume, ino, &format!("snapshot {name}:"), findings),
            Err(error) => findings.failed(&format!("snapshot {name}"), "lookup", &error),
        }
    }

    /// The paths at which two portraits differ.
    pub fn differing(&self, other: &Self) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        self.differ_at(other, "", &mut paths);
        paths
    }

    fn differ_at(&self, other: &Self, path: &str, paths: &mut BTreeSet<String>) {
        let is_same = is_alike(&self.attr, &other.attr)
            && self.content == other.content
            && self.xattrs == other.xattrs
            && self.children.keys().eq(other.children.keys());
        if !is_same {
            paths.insert(path.to_string());
        }
        let names: BTreeSet<_> = self.children.keys().chain(other.children.keys()).collect();
        for name in names {
            let below = format!("{path}/{}", name.escape_ascii());
            match (self.children.get(name), other.children.get(name)) {
                (Some(one), Some(two)) => one.differ_at(two, &below, paths),
                (Some(only), None) | (None, Some(only)) => only.all_paths(&below, paths),
                (None, None) => {}
            }
        }
    }

    fn all_paths(&self, path: &str, paths: &mut BTreeSet<String>) {
        paths.insert(path.to_string());
        for (name, child) in &self.children {
            child.all_paths(&format!("{path}/{}", name.escape_ascii()), paths);
        }
    }

    fn compare_at(&self, volume: &Volume, ino: Ino, path: &str, findings: &mut Findings) {
        match volume.get_attr(ino) {
            Ok(attr) => findings.answered(path, "attributes", is_alike(&attr, &self.attr), || {
                format!("{attr:?} instead of {:?}", self.attr)
            }),
            Err(error) => findings.failed(path, "attributes", &error),
        }
        self.compare_xattrs(volume, ino, path, findings);
        match self.attr.kind {
            FileKind::Regular => self.compare_content(volume, ino, path, findings),
            FileKind::Symlink => match volume.read_link(ino) {
                Ok(target) => findings.answered(path, "target", target == *self.content, || format!("{target:?}")),
                Err(error) => findings.failed(path, "target", &error),
            },
            FileKind::Directory => self.compare_children(volume, ino, path, findings),
            _ => {}
        }
    }

    fn compare_children(&self, volume: &Volume, ino: Ino, path: &str, findings: &mut Findings) {
        match list(volume, ino) {
            Ok(names) => {
                let known = names.len() == self.children.len() && names.iter().all(|n| self.children.contains_key(n));
                findings.answered(path, "names", known, || format!("{} names listed", names.len()));
            }
            Err((error, seen)) => {
                for name in seen.iter().filter(|name| !self.children.contains_key(*name)) {
                    let what = format!("the name {} is new", name.escape_ascii());
                    findings.wrong.push(Wrong { path: path.to_string(), what });
                }
                findings.failed(path, "names", &error);
            }
        }
        for (name, child) in &self.children {
            let below = format!("{path}/{}", name.escape_ascii());
            match volume.lookup(ino, name) {
                Ok(entry) => {
                    findings.answered(&below, "lookup", is_alike(&entry.attr, &child.attr), || {
                        format!("{:?} instead of {:?}", entry.attr, child.attr)
                    });
                    child.compare_at(volume, entry.attr.ino, &below, findings);
                }
                Err(error) => findings.failed(&below, "lookup", &error),
            }
        }
    }

    fn compare_xattrs(&self, volume: &Volume, ino: Ino, path: &str, findings: &mut Findings) {
        match volume.list_xattrs(ino) {
            Ok(names) => {
                let known = names.len() == self.xattrs.len() && names.iter().all(|n| self.xattrs.contains_key(n));
                findings.answered(path, "xattr names", known, || format!("{names:?}"));
            }
            Err(error) => findings.failed(path, "xattr names", &error),
        }
        for (name, value) in &self.xattrs {
            match volume.get_xattr(ino, name) {
                Ok(found) => findings.answered(path, "xattr", found == *value, || format!("{found:?}")),
                Err(error) => findings.failed(path, "xattr", &error),
            }
        }
    }

    fn compare_content(&self, volume: &Volume, ino: Ino, path: &str, findings: &mut Findings) {
        let opened = match volume.open_file(ino, OpenMode { read: true, ..OpenMode::default() }) {
            Ok(opened) => opened,
            Err(error) => return findings.failed(path, "open", &error),
        };
        for at in (0..=self.content.len()).step_by(READ_BYTES) {
            let right = &self.content[at..(at + READ_BYTES).min(self.content.len())];
            match volume.read(opened.handle, at as u64, READ_BYTES) {
                Ok(bytes) => findings.answered(path, "content", bytes == right, || {
                    let first = bytes.iter().zip(right).position(|(a, b)| a != b);
                    format!("{} bytes at {at} instead of {}, first differs {first:?}", bytes.len(), right.len())
                }),
                Err(error) => findings.failed(path, &format!("content at {at}"), &error),
            }
        }
        if let Err(error) = volume.release(opened.handle) {
            findings.failed(path, "release", &error);
        }
    }
}

impl Findings {
    fn answered(&mut self, path: &str, what: &str, right: bool, told: impl FnOnce() -> String) {
        match right {
            true => self.right += 1,
            false => self.wrong.push(Wrong { path: path.to_string(), what: format!("{what}: {}", told()) }),
        }
    }

    fn failed(&mut self, path: &str, what: &str, error: &Error) {
        // A directory in the place of a pack is no damage but a failure to read, and says so.
        match error.is_damage() || matches!(error, Error::Store(vellum_store::Error::Io { .. })) {
            true => self.errors.push(format!("{path} {what}: {error}")),
            false => {
                let what = format!("{what}: an error that does not say damage: {error:?}");
                self.wrong.push(Wrong { path: path.to_string(), what });
            }
        }
    }
}

/// Attributes but for those that depend on what is still in memory.
fn is_alike(a: &Attr, b: &Attr) -> bool {
    let core = |attr: &Attr| Attr { blocks: 0, atime: attr.btime, ..*attr };
    core(a) == core(b)
}

/// The directory of a snapshot, as `.snapshots/NAME` of the root.
pub fn find_snapshot(volume: &Volume, name: &str) -> Result<Ino, Error> {
    let dir = volume.lookup(Ino::ROOT, b".snapshots")?;
    Ok(volume.lookup(dir.attr.ino, name.as_bytes())?.attr.ino)
}

type Listed = Result<Vec<Vec<u8>>, (Error, Vec<Vec<u8>>)>;

/// The names in a directory without `.` and `..`; with an error, those that came before it.
fn list(volume: &Volume, ino: Ino) -> Listed {
    let mut names = Vec::new();
    let listed = volume.read_dir(ino, 0, &mut |entry| {
        if !matches!(entry.name, b"." | b"..") {
            names.push(entry.name.to_vec());
        }
        ControlFlow::Continue(())
    });
    match listed {
        Ok(()) => Ok(names),
        Err(error) => Err((error, names)),
    }
}

/// All bytes of a file.
pub fn read_all(volume: &Volume, ino: Ino) -> Result<Vec<u8>, Error> {
    let opened = volume.open_file(ino, OpenMode { read: true, ..OpenMode::default() })?;
    let mut all = Vec::new();
    loop {
        let part = volume.read(opened.handle, all.len() as u64, READ_BYTES)?;
        if part.is_empty() {
            break;
        }
        all.extend_from_slice(&part);
    }
    volume.release(opened.handle)?;
    Ok(all)
}
