//! Copying files out of a snapshot, without a mount.
//!
//! *Invariants*
//! 1. Nothing outside of the target directory is ever touched: every step is relative to an open directory, and no symbolic
//!    link below the target is followed, whatever the snapshot or the target holds.
//! 2. A file appears under its name only when it is complete, with its attributes; what cannot be read completely does not
//!    appear.
//! 3. Without `force`, nothing that exists is changed; directories that exist are filled up.
//! 4. What cannot be restored is told by its path, and the rest goes on, unless the target is full.
//!
//! *Ordering*: a directory gets its attributes after its last entry, since each entry changes its times. At the end the
//! target's filesystem is synced: "done" means durable.
//!
//! *Bounds*: one open descriptor a level; [`TOLD_MAX`] entries of each list of the report; one path for each file that has
//! further names still to come.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
};

use nix::{
    fcntl::{AtFlags, OFlag, open},
    sys::stat::Mode,
};
use serde::Serialize;
use vellum_fs::{
    content::read::Seek,
    format::inode::{FileKind, Inode},
    ino::Ino,
};

use crate::{
    error::{Error, Exit, Result},
    output::escaped,
    past::{Child, Past},
    progress::Progress,
    reports::Name,
    target::Inside,
};

mod attributes;
mod place;

use place::{Place, Temporary};

/// Entries that are kept of each list; more are counted.
const TOLD_MAX: usize = 10_000;
/// Read at a time.
const READ_BYTES: u64 = 1 << 20;
/// Flags for everything that must not follow a link.
const NO_FOLLOW: AtFlags = AtFlags::AT_SYMLINK_NOFOLLOW;

/// Something about one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The path in the snapshot.
    pub path: Name,
    /// What about it.
    pub what: String,
}

/// Paths with something about them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct List {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub paths: Vec<Told>,
}

/// What was restored, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// Regular files.
    pub files: u64,
    /// Directories that were made.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Pipes and devices.
    pub specials: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Bytes written; holes do not count.
    pub bytes: u64,
    /// Restored, but not in every respect, or left out because it means nothing without its program.
    pub notes: List,
    /// Not restored because it exists.
    pub existing: List,
    /// Not restored because the system refused.
    pub failed: List,
    /// Not restored because it is damaged.
    pub damaged: List,
}

/// How to restore.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Replace what exists.
    pub force: bool,
}

/// A directory that is being filled.
struct Frame {
    place: Place,
    ino: Ino,
    path: Vec<u8>,
    waiting: VecDeque<Child>,
    after: u64,
    /// To be given once it is full; none for a directory that was there and is to stay as it was.
    attributes: Option<Inode>,
}

/// A restore under way.
struct Restore<'a> {
    past: &'a Past,
    root: Place,
    choice: Choice,
    progress: &'a Progress,
    report: RestoreReport,
    /// Where a file with several names was restored first, and how many more are to come.
    linked: HashMap<Ino, (Vec<u8>, u32)>,
}

/// Restores what `inside` names into the directory `to`.
pub fn restore(past: &Past, inside: &Inside, to: &Path, choice: Choice, progress: &Progress) -> Result<RestoreReport> {
    let (ino, kind) = past.resolve(inside)?;
    let (top, made) = open_target(to)?;
    let root = top.try_clone().map_err(|error| Error::io(format!("open {}", to.display()), error))?;
    let mut restore =
        Restore { past, root, choice, progress, report: RestoreReport::default(), linked: HashMap::new() };
    match inside.names.last() {
        None => {
            let attributes = if made { Some(past.namespace().inode(ino)?) } else { None };
            restore.fill(Frame::new(top, ino, Vec::new(), attributes))?;
        }
        Some(name) => {
            let child = Child { cookie: 0, ino, kind, name: name.clone() };
            if let Some(frame) = restore.child(&top, &[], &child)? {
                restore.fill(frame)?;
            }
        }
    }
    nix::unistd::syncfs(&restore.root).map_err(|error| Error::io(format!("sync {}", to.display()), error.into()))?;
    Ok(restore.report)
}

fn open_target(to: &Path) -> Result<(Place, bool)> {
    let made = !to.exists();
    std::fs::create_dir_all(to).map_err(|error| Error::io(format!("create {}", to.display()), error))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd: OwnedFd =
        open(to, flags, Mode::empty()).map_err(|error| Error::io(format!("open {}", to.display()), error.into()))?;
    Ok((Place::new(fd), made))
}

impl Frame {
    fn new(place: Place, ino: Ino, path: Vec<u8>, attributes: Option<Inode>) -> Self {
        Self { place, ino, path, waiting: VecDeque::new(), after: 0, attributes }
    }
}

impl List {
    fn push(&mut self, path: &[u8], what: impl Into<String>) {
        self.count += 1;
        if self.paths.len() < TOLD_MAX {
            self.paths.push(Told { path: Name(path.to_vec()), what: what.into() });
        }
    }
}

impl Restore<'_> {
    /// Fills a directory and those below it, by a stack of its own: trees can be deeper than ours.
    fn fill(&mut self, first: Frame) -> Result<()> {
        let mut stack = vec![first];
        while let Some(mut frame) = stack.pop() {
            if frame.waiting.is_empty() {
                match self.past.children(frame.ino, frame.after) {
                    Ok(batch) => frame.waiting = batch.into(),
                    Err(error) => self.tell(&frame.path, &error)?,
                }
            }
            let Some(child) = frame.waiting.pop_front() else {
                self.finish_directory(&frame)?;
                continue;
            };
            frame.after = child.cookie;
            let below = self.child(&frame.place, &frame.path, &child)?;
            stack.push(frame);
            stack.extend(below);
        }
        Ok(())
    }

    fn finish_directory(&mut self, frame: &Frame) -> Result<()> {
        let Some(inode) = &frame.attributes else { return Ok(()) };
        match self.give_attributes(&attributes::Of::Open(&frame.place), frame.ino, inode, &frame.path) {
            Ok(()) => Ok(()),
            Err(error) => self.tell(&frame.path, &error),
        }
    }

    /// Restores one entry; a directory is given back to be filled. An error ends everything.
    fn child(&mut self, parent: &Place, parent_path: &[u8], child: &Child) -> Result<Option<Frame>> {
        let path = match parent_path.is_empty() {
            true => child.name.clone(),
            false => [parent_path, b"/", &child.name].concat(),
        };
        match self.entry(parent, &path, child) {
            Ok(frame) => Ok(frame),
            Err(error) => self.tell(&path, &error).map(|()| None),
        }
    }

    /// Puts an error where it belongs; one that would meet every further entry as well is returned.
    fn tell(&mut self, path: &[u8], error: &Error) -> Result<()> {
        let what = error.to_string();
        match error.exit() {
            Exit::NoSpace => {
                let hint = "free some space where it is restored to, then restore again with --force";
                return Err(Error::told(Exit::NoSpace, format!("{}: {what}", escaped(path)), hint));
            }
            Exit::Damage => self.report.damaged.push(path, what.clone()),
            _ => self.report.failed.push(path, what.clone()),
        }
        self.progress.line(&format!("{}: {}", escaped(path), escaped(what.as_bytes())));
        Ok(())
    }

    fn entry(&mut self, parent: &Place, path: &[u8], child: &Child) -> Result<Option<Frame>> {
        let Child { ino, kind, ref name, .. } = *child;
        let inode = self.past.namespace().inode(ino)?;
        if inode.kind != kind {
            return Err(vellum_fs::Error::damaged(ino, "its entry tells another kind than its inode").into());
        }
        if kind.is_directory() {
            return self.directory(parent, path, name, ino, inode).map(Some);
        }
        if kind == FileKind::Socket {
            self.report.notes.push(path, "a socket means nothing without its program, left out");
            return Ok(None);
        }
        if !self.choice.force && parent.exists(name)? {
            self.report.existing.push(path, "exists");
            return Ok(None);
        }
        if inode.nlink > 1 && self.link(parent, path, name, ino)? {
            return Ok(None);
        }
        match kind {
            FileKind::Regular => self.file(parent, path, name, ino, &inode)?,
            FileKind::Symlink => self.symlink(parent, path, name, ino, &inode)?,
            _ => self.special(parent, path, name, ino, &inode)?,
        }
        if inode.nlink > 1 {
            self.linked.insert(ino, (path.to_vec(), inode.nlink - 1));
        }
        Ok(None)
    }

    fn directory(&mut self, parent: &Place, path: &[u8], name: &[u8], ino: Ino, inode: Inode) -> Result<Frame> {
        let (place, made) = parent.make_directory(name)?;
        self.report.directories += u64::from(made);
        self.progress.message(escaped(path));
        Ok(Frame::new(place, ino, path.to_vec(), (made || self.choice.force).then_some(inode)))
    }

    fn file(&mut self, parent: &Place, path: &[u8], name: &[u8], ino: Ino, inode: &Inode) -> Result<()> {
        let temporary = parent.temporary();
        let file = temporary.create_file()?;
        self.progress.message(escaped(path));
        self.content(&file, ino, inode.size)?;
        let place = Place::new(file.into());
        self.give_attributes(&attributes::Of::Open(&place), ino, inode, path)?;
        temporary.publish(name, self.choice.force)?;
        self.report.files += 1;
        Ok(())
    }

    /// Writes data where there is data, and leaves holes where there are holes.
    fn content(&mut self, file: &File, ino: Ino, size: u64) -> Result<()> {
        let (volume, tree) = (self.past.volume(), &self.past.view().tree);
        let failed = |error: io::Error| Error::io("write it", error);
        let mut at = 0;
        while let Some(from) = volume.seek_in_tree(tree, ino, Seek::Data, at)? {
            let to = volume.seek_in_tree(tree, ino, Seek::Hole, from)?.unwrap_or(size).min(size);
            if to <= from {
                return Err(vellum_fs::Error::damaged(ino, "data beyond its size").into());
            }
            at = from;
            while at < to {
                let bytes = volume.read_in_tree(tree, ino, at, (to - at).min(READ_BYTES) as usize)?;
                if bytes.is_empty() {
                    return Err(vellum_fs::Error::damaged(ino, "its content ends before its size").into());
                }
                file.write_all_at(&bytes, at).map_err(failed)?;
                at += bytes.len() as u64;
                self.report.bytes += bytes.len() as u64;
                self.progress.add(bytes.len() as u64);
            }
        }
        file.set_len(size).map_err(failed)
    }

    fn symlink(&mut self, parent: &Place, path: &[u8], name: &[u8], ino: Ino, inode: &Inode) -> Result<()> {
        let temporary = parent.temporary();
        temporary.create_symlink(&self.past.namespace().read_link(ino)?)?;
        self.finish_named(temporary, path, name, ino, inode)?;
        self.report.symlinks += 1;
        Ok(())
    }

    fn special(&mut self, parent: &Place, path: &[u8], name: &[u8], ino: Ino, inode: &Inode) -> Result<()> {
        let temporary = parent.temporary();
        temporary.create_special(inode.kind, inode.rdev)?;
        self.finish_named(temporary, path, name, ino, inode)?;
        self.report.specials += 1;
        Ok(())
    }

    fn finish_named(&mut self, made: Temporary<'_>, path: &[u8], name: &[u8], ino: Ino, inode: &Inode) -> Result<()> {
        self.give_attributes(&attributes::Of::Named(&made), ino, inode, path)?;
        made.publish(name, self.choice.force)
    }

    /// Gives a file that was restored before a further name; false if there is none to link to.
    fn link(&mut self, parent: &Place, path: &[u8], name: &[u8], ino: Ino) -> Result<bool> {
        let Some((first, left)) = self.linked.get_mut(&ino) else { return Ok(false) };
        let first = first.clone();
        *left -= 1;
        if *left == 0 {
            self.linked.remove(&ino);
        }
        let temporary = parent.temporary();
        if let Err(error) = temporary.create_link(&self.root, &first) {
            // As on a filesystem without hard links: better a second copy than none.
            self.report.notes.push(path, format!("a copy, not a link to {}: {error}", escaped(&first)));
            return Ok(false);
        }
        temporary.publish(name, self.choice.force)?;
        self.report.hard_links += 1;
        Ok(true)
    }

    fn give_attributes(&mut self, of: &attributes::Of<'_>, ino: Ino, inode: &Inode, path: &[u8]) -> Result<()> {
        let notes = &mut self.report.notes;
        attributes::give(self.past, of, ino, inode, &mut |what| notes.push(path, what))
    }
}
