//! Random operations, each done on a volume and on the model, whose results must agree.
//!
//! *Bounds*: some forty inodes, files of some 160 KB, as the history keeps all versions.

use std::sync::Arc;

use vellum_fs::{
    attr::{Caller, SetAttr, SetTime},
    format::inode::FileKind,
    ino::Ino,
    namespace::{RenameFlags, XattrMode},
    volume::{
        Volume,
        handles::{HandleId, OpenMode},
        ops::{files::Allocate, names::NewInode},
        snapshot::SnapshotRequest,
    },
};
use vellum_store::spawn::Seed;

use crate::{
    dump::{self, Content},
    face,
    history::{Explained, History, Tie, time},
    marathon,
    model::{
        ACL_ACCESS, ACL_DEFAULT, ACL_TAGS, AclEntry, Fault, Id, Kind, New, Node, Outcome, ROOT, RenameMode, Stamp,
        acl_bytes,
    },
    rig::ME,
};

const RDWR: OpenMode = OpenMode { read: true, write: true, append: false, sync: false };
const NAMES: [&str; 7] = ["a", "b", "c", "d", "Data", "a-longer-name.txt", "z"];
/// Files are kept below this.
const FILE_BYTES_MAX: usize = 160_000;
const HANDLES_MAX: usize = 6;
const INODES_MAX: usize = 40;

/// A volume under a random history.
pub struct Player {
    /// The volume.
    pub volume: Arc<Volume>,
    /// What it should hold.
    pub history: History,
    handles: Vec<(HandleId, Id)>,
    seed: Seed,
    /// Whether an operation failed because the disk did; the history ends there.
    pub failed: Option<String>,
    /// Whether failures of the disk are expected.
    pub faulty: bool,
}

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Player").field("op", &self.history.op).finish_non_exhaustive()
    }
}

impl Player {
    /// Plays on a volume that was just made.
    pub fn new(volume: Arc<Volume>, seed: u64) -> Self {
        let history = History::new(&volume);
        Self { volume, history, handles: Vec::new(), seed: Seed::new(seed), failed: None, faulty: false }
    }

    /// Goes on with the volume that was opened after a crash.
    pub fn resume(&mut self, volume: Arc<Volume>, explained: Explained) {
        self.volume = volume;
        self.handles.clear();
        self.history.resume(explained);
        self.history.adopt_change_times(&self.volume);
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.seed.below(bound)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.seed.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.seed.below(from.len() as u64) as usize])
    }

    fn name(&mut self) -> &'static [u8] {
        NAMES[self.seed.below(NAMES.len() as u64) as usize].as_bytes()
    }

    fn directory(&mut self) -> Id {
        let named = |(&id, node): (&Id, &Node)| (node.kind == Kind::Directory && node.nlink > 0).then_some(id);
        let directories: Vec<Id> = self.history.model.nodes.iter().filter_map(named).collect();
        self.pick(&directories).unwrap_or(ROOT)
    }

    /// A directory and a name, more often one that exists.
    fn entry(&mut self) -> (Id, Vec<u8>) {
        let directory = self.directory();
        let names: Vec<Vec<u8>> = self.history.model.nodes[&directory].entries.keys().cloned().collect();
        if names.is_empty() || self.chance(20) {
            return (directory, self.name().to_vec());
        }
        let at = self.seed.below(names.len() as u64) as usize;
        (directory, names[at].clone())
    }

    fn any_inode(&mut self) -> Id {
        let ids: Vec<Id> = self.history.model.nodes.iter().filter(|(_, n)| n.nlink > 0).map(|(&id, _)| id).collect();
        self.pick(&ids).unwrap_or(ROOT)
    }

    /// Agrees on success or failure. With failures of the disk about, a failure ends the history.
    fn agree<T>(&mut self, what: &str, found: vellum_fs::error::Result<T>, wanted: Outcome<()>) -> Option<T> {
        match (found, wanted) {
            (Ok(value), Ok(())) => Some(value),
            (Err(error), Err(fault)) if self.faulty || face::number(&error) == marathon::number(fault) => None,
            (Err(error), Ok(())) if self.faulty => {
                self.failed = Some(format!("{what}: {error}"));
                None
            }
            (found, wanted) => {
                let found = found.map(|_| ());
                panic!("operation {} {what}: the volume says {found:?}, the model {wanted:?}", self.history.op)
            }
        }
    }

    /// Whether an operation that only the disk can refuse succeeded.
    fn done<T>(&mut self, what: &str, found: vellum_fs::error::Result<T>) -> Option<T> {
        self.agree(what, found, Ok(()))
    }

    /// Does one random operation.
    pub fn step(&mut self) {
        match self.seed.below(1000) {
            0..120 => self.create(),
            120..150 => self.make_other(),
            150..180 => self.unlink(),
            180..195 => self.rmdir(),
            195..265 => self.rename(),
            265..285 => self.link(),
            285..325 => self.attributes(),
            325..360 => self.times(),
            360..390 => self.xattr(),
            390..410 => self.acl(),
            410..430 => self.copy(),
            430..620 => self.write(),
            620..670 => self.truncate(),
            670..700 => self.allocate(),
            700..750 => self.open_or_close(),
            750..790 => self.read(),
            790..890 => self.fsync(),
            890..920 => self.sync_names(),
            920..955 => self.flush(),
            955..980 => self.checkpoint(),
            980..992 => self.snapshot(),
            _ => self.change_snapshot(),
        }
    }

    fn create_as(&mut self, kind: FileKind, model_kind: Kind, target: &[u8]) -> Option<Id> {
        if self.history.model.nodes.len() >= INODES_MAX {
            return None;
        }
        let (parent, name) = (self.directory(), self.name());
        let now = self.history.begin();
        let mode = match model_kind {
            Kind::Symlink => 0o777,
            _ => 0o600 + self.seed.below(0o100) as u32,
        };
        let caller = Caller { uid: self.seed.below(3) as u32, gid: self.seed.below(3) as u32, pid: 1 };
        let rdev = if kind == FileKind::CharDevice { 0x0001_0003 } else { 0 };
        let new = NewInode { parent: Ino(parent), name, kind, mode, umask: 0, rdev, target };
        let found = self.volume.create_inode(&new, &caller);
        let id = found.as_ref().map_or(0, |entry| entry.attr.ino.0);
        let (uid, gid) = (caller.uid, caller.gid);
        let made = New { id, kind: model_kind, mode, uid, gid, rdev, target: target.to_vec() };
        let mut model = self.history.model.clone();
        let wanted = model.create(parent, name, &made, now);
        let entry = self.agree("create", found, wanted)?;
        self.history.model = model;
        if model_kind == Kind::File {
            self.history.add_version(id, Content::default());
        }
        self.history.names_changed();
        self.volume.forget(entry.attr.ino, 1);
        Some(id)
    }

    fn create(&mut self) {
        if let Some(id) = self.create_as(FileKind::Regular, Kind::File, b"")
            && self.handles.len() < HANDLES_MAX
            && self.chance(70)
        {
            self.open(id);
        }
    }

    fn make_other(&mut self) {
        match self.seed.below(10) {
            0 | 1 => drop(self.create_as(FileKind::Symlink, Kind::Symlink, b"some/target")),
            2 => drop(self.create_as(FileKind::CharDevice, Kind::CharDevice, b"")),
            3 => drop(self.create_as(FileKind::Fifo, Kind::Fifo, b"")),
            4 => drop(self.create_as(FileKind::Socket, Kind::Socket, b"")),
            _ => drop(self.create_as(FileKind::Directory, Kind::Directory, b"")),
        }
    }

    fn is_open(&self, id: Id) -> bool {
        self.handles.iter().any(|(_, open)| *open == id)
    }

    fn forget_if_gone(&mut self, id: Id) {
        if self.history.model.nodes.get(&id).is_some_and(|node| node.nlink == 0) && !self.is_open(id) {
            self.history.model.forget(id);
        }
    }

    fn unlink(&mut self) {
        let (parent, name) = self.entry();
        let now = self.history.begin();
        let found = self.volume.unlink(Ino(parent), &name);
        let mut model = self.history.model.clone();
        let wanted = model.unlink(parent, &name, now);
        let removed = wanted.as_ref().ok().copied();
        if self.agree("unlink", found, wanted.map(drop)).is_some() {
            self.history.model = model;
            self.history.names_changed();
            removed.into_iter().for_each(|(id, _)| self.forget_if_gone(id));
        }
    }

    fn rmdir(&mut self) {
        let (parent, name) = self.entry();
        let now = self.history.begin();
        let found = self.volume.rmdir(Ino(parent), &name, &ME);
        let mut model = self.history.model.clone();
        let wanted = model.rmdir(parent, &name, now);
        let removed = wanted.as_ref().ok().copied();
        if self.agree("rmdir", found, wanted.map(drop)).is_some() {
            self.history.model = model;
            self.history.names_changed();
            removed.into_iter().for_each(|id| self.forget_if_gone(id));
        }
    }

    fn rename(&mut self) {
        let (from, to) = (self.entry(), self.entry());
        let now = self.history.begin();
        let (no_replace, exchange) = match self.seed.below(10) {
            0 => (true, false),
            1 => (false, true),
            _ => (false, false),
        };
        let leaves = self.chance(10);
        let flags = RenameFlags { no_replace, exchange, whiteout: leaves };
        let found = self.volume.rename((Ino(from.0), &from.1), (Ino(to.0), &to.1), flags, &ME);
        let mut model = self.history.model.clone();
        let left = || self.volume.lookup(Ino(from.0), &from.1).map_or(0, |entry| entry.attr.ino.0);
        let whiteout = leaves.then(|| if found.is_ok() { left() } else { 0 });
        whiteout.into_iter().filter(|id| *id != 0).for_each(|id| self.volume.forget(Ino(id), 1));
        let mode = RenameMode { no_replace, exchange, whiteout };
        let other = model.lookup(to.0, &to.1).ok();
        let wanted = model.rename((from.0, &from.1), (to.0, &to.1), mode, now);
        let moved = wanted.as_ref().ok().copied();
        if self.agree("rename", found, wanted.map(drop)).is_none() {
            return;
        }
        let changed = self.history.model != model;
        self.history.model = model;
        if !changed {
            return;
        }
        self.history.names_changed();
        if let Some((moved, replaced)) = moved {
            let tied = match (replaced, exchange) {
                (Some(_), _) => vec![moved],
                (None, true) => std::iter::once(moved).chain(other).collect(),
                (None, false) => Vec::new(),
            };
            let op = self.history.op;
            for file in tied {
                if let Some(versions) = self.history.files.get(&file) {
                    self.history.ties.push(Tie { op, file, version: versions.len() - 1 });
                }
            }
            replaced.into_iter().for_each(|(id, _)| self.forget_if_gone(id));
        }
    }

    fn link(&mut self) {
        let (id, parent, name) = (self.any_inode(), self.directory(), self.name());
        let now = self.history.begin();
        let found = self.volume.link(Ino(id), Ino(parent), name);
        let mut model = self.history.model.clone();
        let wanted = model.link(id, parent, name, now);
        if let Some(entry) = self.agree("link", found, wanted) {
            self.history.model = model;
            self.history.names_changed();
            self.volume.forget(entry.attr.ino, 1);
        }
    }

    fn attributes(&mut self) {
        let id = self.any_inode();
        let now = self.history.begin();
        let mode = self.seed.coin().then(|| self.seed.below(0o1000) as u32);
        let uid = self.seed.coin().then(|| self.seed.below(9) as u32);
        let gid = self.seed.coin().then(|| self.seed.below(9) as u32);
        if mode.or(uid).or(gid).is_none() {
            return;
        }
        let found = self.volume.set_attr(Ino(id), &SetAttr { mode, uid, gid, ..SetAttr::default() });
        if self.done("chmod, chown", found).is_some() {
            self.history
                .model
                .set_owner_and_mode(id, mode, uid, gid, now)
                .expect("the inode was picked from the model");
            self.history.names_changed();
        }
    }

    fn times(&mut self) {
        let id = self.any_inode();
        let now = self.history.begin();
        let atime = self.seed.coin().then(|| (self.seed.below(1 << 40) as i64, 5));
        let mtime = self.seed.coin().then(|| (self.seed.below(1 << 40) as i64, 6));
        if atime.or(mtime).is_none() {
            return;
        }
        let set = |stamp: Option<Stamp>| stamp.map(|stamp| SetTime::At(time(stamp)));
        let change = SetAttr { atime: set(atime), mtime: set(mtime), ..SetAttr::default() };
        let found = self.volume.set_attr(Ino(id), &change);
        if self.done("utimens", found).is_some() {
            self.history.model.set_times(id, atime, mtime, now).expect("the inode was picked from the model");
            match self.history.model.nodes[&id].kind {
                Kind::File => {
                    let content = Arc::clone(&self.history.newest(id).content);
                    self.history.add_version(id, content);
                }
                _ => self.history.names_changed(),
            }
        }
    }

    fn xattr(&mut self) {
        let id = self.any_inode();
        let now = self.history.begin();
        let name: &[u8] = if self.seed.coin() { b"user.a" } else { b"user.note" };
        let mut model = self.history.model.clone();
        let agreed = if self.chance(70) {
            let length = if self.chance(10) { 20_000 } else { 200 };
            let length = self.seed.below(length) as usize;
            let value = self.noise(length);
            let (mode, must_exist) = match self.seed.below(6) {
                0 => (XattrMode::Create, Some(false)),
                1 => (XattrMode::Replace, Some(true)),
                _ => (XattrMode::Set, None),
            };
            let found = self.volume.set_xattr(Ino(id), name, &value, mode);
            let wanted = model.set_xattr(id, name, &value, must_exist, now);
            self.agree("setxattr", found, wanted)
        } else {
            let found = self.volume.remove_xattr(Ino(id), name);
            let wanted = model.remove_xattr(id, name, now);
            self.agree("removexattr", found, wanted)
        };
        if agreed.is_some() {
            self.history.model = model;
            self.history.names_changed();
        }
    }

    fn acl(&mut self) {
        let id = self.any_inode();
        let name = if self.seed.coin() { ACL_ACCESS } else { ACL_DEFAULT };
        // An owner, perhaps a user, a group, a mask for both, and all others.
        let named = self.seed.coin();
        let tags = ACL_TAGS.iter().filter(|tag| (**tag != ACL_TAGS[1] && **tag != ACL_TAGS[4]) || named);
        let tags = tags.filter(|tag| **tag != ACL_TAGS[3]);
        let entries: Vec<AclEntry> = tags.map(|&tag| (tag, self.seed.below(8) as u16, 77)).collect();
        let value = acl_bytes(if self.seed.below(10) == 0 { &[] } else { &entries });
        let now = self.history.begin();
        let found = self.volume.set_xattr(Ino(id), name, &value, XattrMode::Set);
        let mut model = self.history.model.clone();
        let wanted = model.set_xattr(id, name, &value, None, now);
        if self.agree("an access control list", found, wanted).is_some() {
            self.history.model = model;
            self.history.names_changed();
        }
    }

    fn copy(&mut self) {
        let Some((from, source)) = self.handle() else { return };
        let (original, source) = (source, Arc::clone(&self.history.newest(source).content));
        let Some((to, id)) = self.handle() else { return };
        if from == to || !self.handles.iter().any(|(handle, _)| *handle == from) {
            return;
        }
        let offset = self.seed.below(source.len() as u64 + 100) as usize;
        let target = self.seed.below(self.history.newest(id).content.len() as u64 + 5_000) as usize;
        let length = (1 + self.seed.below(40_000) as usize).min(FILE_BYTES_MAX.saturating_sub(target));
        let bytes = &source[offset.min(source.len())..(offset + length).min(source.len())];
        let now = self.history.begin();
        let found = self.volume.copy_range((from, offset as u64), (to, target as u64), length as u64);
        let overlap =
            original == id && !bytes.is_empty() && offset < target + bytes.len() && target < offset + bytes.len();
        let wanted = if overlap { Err(Fault::InvalidArgument) } else { Ok(()) };
        let Some(copied) = self.agree("copy_file_range", found, wanted) else { return };
        let bytes = match self.faulty {
            // What was copied before the disk failed counts.
            true => &bytes[..copied as usize],
            false => bytes,
        };
        assert_eq!(copied, bytes.len() as u64, "operation {}: bytes that were copied", self.history.op);
        if copied > 0 {
            self.change(id, now, |content| {
                content.resize(content.len().max(target + bytes.len()), 0);
                content[target..target + bytes.len()].copy_from_slice(bytes);
            });
        }
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&self.seed.number().to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn some_bytes(&mut self, length: usize) -> Vec<u8> {
        match self.seed.below(10) {
            0 => vec![0; length],
            1 | 2 => b"the same words again and again. ".iter().copied().cycle().take(length).collect(),
            3 => {
                // Data between zeros: holes of all sizes.
                let mut bytes = vec![0; length];
                let (from, to) = (length / 3, length / 2);
                let middle = self.noise(to - from);
                bytes[from..to].copy_from_slice(&middle);
                bytes
            }
            _ => self.noise(length),
        }
    }

    fn handle(&mut self) -> Option<(HandleId, Id)> {
        if self.handles.is_empty() || self.chance(10) {
            let files: Vec<Id> =
                self.history.model.nodes.iter().filter(|(_, n)| n.kind == Kind::File).map(|(&id, _)| id).collect();
            let id = self.pick(&files)?;
            self.open(id);
        }
        let handles = self.handles.clone();
        self.pick(&handles)
    }

    fn open(&mut self, id: Id) {
        if self.handles.len() >= HANDLES_MAX {
            self.close(0);
        }
        if self.failed.is_some() || !self.history.model.nodes.contains_key(&id) {
            return;
        }
        let opened = self.volume.open_file(Ino(id), RDWR);
        if let Some(opened) = self.done("open", opened) {
            self.handles.push((opened.handle, id));
        }
    }

    fn close(&mut self, at: usize) {
        let (handle, id) = self.handles.remove(at);
        let closed = self.volume.release(handle);
        self.done("close", closed);
        self.forget_if_gone(id);
    }

    fn open_or_close(&mut self) {
        if !self.handles.is_empty() && self.seed.coin() {
            let at = self.seed.below(self.handles.len() as u64) as usize;
            self.close(at);
        } else {
            self.handle();
        }
    }

    /// Makes a new version of a file's content.
    fn change(&mut self, id: Id, now: Stamp, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = (*self.history.newest(id).content).clone();
        change(&mut content);
        let node = self.history.model.nodes.get_mut(&id).expect("the file is in the model");
        (node.mtime, node.ctime) = (now, now);
        self.history.add_version(id, Arc::new(content));
    }

    fn write(&mut self) {
        let Some((handle, id)) = self.handle() else { return };
        let size = self.history.newest(id).content.len();
        let offset = match self.seed.below(10) {
            0..4 => size,
            4 => 0,
            5 => size + self.seed.below(30_000) as usize,
            _ => self.seed.below(size as u64 + 1) as usize,
        };
        let most = match self.seed.below(10) {
            0..3 => 50,
            3..6 => 3_000,
            6..9 => 20_000,
            _ => 100_000,
        };
        let length = 1 + self.seed.below(most) as usize;
        let length = length.min(FILE_BYTES_MAX.saturating_sub(offset));
        if length == 0 {
            return;
        }
        let bytes = self.some_bytes(length);
        let now = self.history.begin();
        let found = self.volume.write(handle, offset as u64, &bytes);
        if self.done("write", found).is_some() {
            self.change(id, now, |content| {
                content.resize(content.len().max(offset + length), 0);
                content[offset..offset + length].copy_from_slice(&bytes);
            });
        }
    }

    fn truncate(&mut self) {
        let Some((_, id)) = self.handle() else { return };
        let size = self.history.newest(id).content.len();
        let new_size = match self.seed.below(6) {
            0 => 0,
            1 => self.seed.below(2_100) as usize,
            2 => (size + self.seed.below(50_000) as usize).min(FILE_BYTES_MAX),
            _ => self.seed.below(size as u64 + 1) as usize,
        };
        let now = self.history.begin();
        let found = self.volume.set_attr(Ino(id), &SetAttr { size: Some(new_size as u64), ..SetAttr::default() });
        if self.done("truncate", found).is_some() {
            self.change(id, now, |content| content.resize(new_size, 0));
        }
    }

    fn allocate(&mut self) {
        let Some((handle, id)) = self.handle() else { return };
        let size = self.history.newest(id).content.len();
        let offset = self.seed.below(size as u64 + 2_000) as usize;
        let length = 1 + self.seed.below(40_000) as usize;
        let what = match self.seed.below(4) {
            0 => Allocate::Reserve { keep_size: self.seed.coin() },
            1 => Allocate::Zero { keep_size: self.seed.coin() },
            _ => Allocate::Punch,
        };
        let end = offset + length;
        let grows = matches!(what, Allocate::Reserve { keep_size: false } | Allocate::Zero { keep_size: false });
        if grows && end > FILE_BYTES_MAX {
            return;
        }
        let now = self.history.begin();
        let found = self.volume.allocate(handle, offset as u64, length as u64, what);
        if self.done("fallocate", found).is_some() {
            self.change(id, now, |content| {
                if !matches!(what, Allocate::Reserve { .. }) {
                    let to = end.min(content.len());
                    content[offset.min(to)..to].fill(0);
                }
                if grows {
                    content.resize(content.len().max(end), 0);
                }
            });
        }
    }

    fn read(&mut self) {
        let Some((handle, id)) = self.handle() else { return };
        let content = Arc::clone(&self.history.newest(id).content);
        let offset = self.seed.below(content.len() as u64 + 100) as usize;
        let length = 1 + self.seed.below(50_000) as usize;
        let found = self.volume.read(handle, offset as u64, length);
        if let Some(found) = self.done("read", found) {
            let wanted = &content[offset.min(content.len())..(offset + length).min(content.len())];
            assert!(found == wanted, "operation {}: read of inode {id} at {offset}", self.history.op);
        }
    }

    fn fsync(&mut self) {
        let Some((handle, id)) = self.handle() else { return };
        let (names, version) = (self.history.op, self.history.files[&id].len() - 1);
        let found = self.volume.fsync(handle);
        if self.done("fsync", found).is_some() {
            self.history.acknowledged.names = names;
            self.history.acknowledged.content.insert(id, version);
        }
    }

    fn sync_names(&mut self) {
        let names = self.history.op;
        let found = self.volume.sync_names();
        if self.done("sync of names", found).is_some() {
            self.history.acknowledged.names = names;
        }
    }

    fn flush(&mut self) {
        let found = self.volume.flush_dirty();
        self.done("flush", found);
    }

    fn checkpoint(&mut self) {
        let op = self.history.op;
        let found = self.volume.checkpoint();
        if self.done("checkpoint", found).is_some() {
            self.history.acknowledge_all(op);
        }
    }

    fn snapshot(&mut self) {
        self.history.next_snapshot += 1;
        let name = format!("s{}", self.history.next_snapshot).into_bytes();
        self.history.begin();
        // Known before it is taken: after a crash it may be there or not.
        let dump = dump::without_ids(self.history.dump());
        self.history.snapshots.insert(name.clone(), dump);
        let op = self.history.op;
        let request = SnapshotRequest { name: Some(name.clone()), comment: String::new() };
        let found = self.volume.take_snapshot(&request);
        if self.done("snapshot", found).is_some() {
            self.history.acknowledge_all(op);
            self.history.acknowledged.snapshots.insert(name);
        }
    }

    fn change_snapshot(&mut self) {
        let names: Vec<Vec<u8>> = self
            .history
            .acknowledged
            .snapshots
            .iter()
            .filter(|name| !self.history.gone.contains(*name))
            .cloned()
            .collect();
        if names.is_empty() {
            return;
        }
        let name = names[self.seed.below(names.len() as u64) as usize].clone();
        self.history.begin();
        self.history.gone.insert(name.clone());
        let op = self.history.op;
        if self.seed.coin() {
            let found = self.volume.delete_snapshot(&name);
            if self.done("deleting a snapshot", found).is_some() {
                self.history.acknowledge_all(op);
                self.history.acknowledged.deleted.insert(name);
            }
            return;
        }
        self.history.next_snapshot += 1;
        let new_name = format!("r{}", self.history.next_snapshot).into_bytes();
        let dump = self.history.snapshots[&name].clone();
        self.history.snapshots.insert(new_name.clone(), dump);
        let found = self.volume.rename_snapshot(&name, &new_name);
        if self.done("renaming a snapshot", found).is_some() {
            self.history.acknowledge_all(op);
            self.history.acknowledged.deleted.insert(name);
            self.history.acknowledged.snapshots.insert(new_name);
        }
    }

    /// Reads what unlinked files that are still open hold, and compares all else.
    pub fn verify(&mut self) {
        self.history.verify(&self.volume);
        for (handle, id) in self.handles.clone() {
            let found = dump::read_handle(&self.volume, handle).expect("an open file is read");
            assert!(found == **self.history.newest(id).content, "operation {}: open inode {id}", self.history.op);
        }
    }

    /// Lets go of all open files.
    pub fn close_all(&mut self) {
        while !self.handles.is_empty() && self.failed.is_none() {
            self.close(0);
        }
        self.handles.clear();
    }

    /// Closes the volume; everything is durable then.
    pub fn close_volume(&mut self) {
        self.close_all();
        let op = self.history.op;
        let found = self.volume.close();
        if self.done("closing the volume", found).is_some() {
            self.history.acknowledge_all(op);
        }
    }
}
