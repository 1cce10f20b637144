//! Long random sequences of all operations on a [`Face`] and on the model: every answer, error numbers included, and
//! after each change the attributes of every inode that it touched must be the model's.
//!
//! *Bounds*: some hundred inodes, files of some 60 KB, a few snapshots; nothing is kept of what is past.

use std::sync::Arc;

use crate::{
    choice::Choice,
    dump::{self, Dump},
    face::{Answer, Asked, At, Change, Face, Flags, Of, Seen},
    model::{
        ACL_ACCESS, ACL_DEFAULT, ACL_TAGS, AclEntry, Fault, Id, Kind, Model, New, Outcome, ROOT, RenameMode, Stamp,
        acl_bytes,
    },
};

mod files;

const INODES_MAX: usize = 120;
const HANDLES_MAX: usize = 8;
const FILE_BYTES_MAX: usize = 60_000;
const SNAPSHOTS_MAX: usize = 3;
/// Whole trees are compared this often.
const VERIFY_EVERY: u64 = 5000;

/// The number of a model's error.
pub fn number(fault: Fault) -> i32 {
    match fault {
        Fault::NotFound => libc::ENOENT,
        Fault::Exists => libc::EEXIST,
        Fault::NotDirectory => libc::ENOTDIR,
        Fault::IsDirectory => libc::EISDIR,
        Fault::NotEmpty => libc::ENOTEMPTY,
        Fault::NotPermitted => libc::EPERM,
        Fault::NameTooLong => libc::ENAMETOOLONG,
        Fault::InvalidArgument => libc::EINVAL,
        Fault::TooManyLinks => libc::EMLINK,
        Fault::NoAttribute => libc::ENODATA,
        Fault::Unsupported => libc::EOPNOTSUPP,
        Fault::Range => libc::ERANGE,
        Fault::AttributeTooBig => libc::E2BIG,
        Fault::Access => libc::EACCES,
    }
}

/// A filesystem under a long random sequence.
pub struct Marathon<F: Face> {
    /// What is tested.
    pub face: F,
    /// What it should hold.
    pub model: Model,
    /// Operations so far.
    pub ops: u64,
    choice: Choice,
    /// Names of snapshots begin with it.
    label: String,
    now: Stamp,
    doing: &'static str,
    names: Vec<Vec<u8>>,
    handles: Vec<Open>,
    snapshots: Vec<(Vec<u8>, Dump)>,
    /// Whether it may take and delete snapshots, which other marathons of the volume see too.
    pub takes_snapshots: bool,
}

#[derive(Clone, Copy)]
struct Open {
    handle: u64,
    id: Id,
    append: bool,
}

fn of<'m>(model: &'m Model, handles: &[Open], id: Id) -> Of<'m> {
    Of { model, id, handle: handles.iter().find(|open| open.id == id).map(|open| open.handle) }
}

fn name_pool() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        [&b"a"[..], b"A", b"b", b"c", b"dir", b"Dir", b"DIR", b"\xff\xfe", b" ", b"..."].map(<[u8]>::to_vec).to_vec();
    names.extend((0..12).map(|number| format!("file-{number}.txt").into_bytes()));
    names.extend([vec![b'x'; 255], vec![b'X'; 255], "\u{e4}\u{df}".as_bytes().to_vec()]);
    names
}

impl<F: Face> Marathon<F> {
    /// Begins on an empty directory.
    pub fn new(face: F, seed: u64, label: &str) -> Self {
        Self::of(face, Choice::seeded(seed), label)
    }

    /// Begins on an empty directory, with decisions from anywhere.
    pub fn of(mut face: F, choice: Choice, label: &str) -> Self {
        let empty = Model::new(0, 0, 0, (0, 0));
        let root = face.stat(Of { model: &empty, id: ROOT, handle: None }).expect("there is a root");
        let mut model = Model::new(root.owner.0, root.owner.1, root.mode, (0, 0));
        let node = model.nodes.get_mut(&ROOT).expect("a model has a root");
        [node.atime, node.mtime, node.ctime] = root.times;
        Self {
            face,
            model,
            ops: 0,
            choice,
            label: label.to_owned(),
            now: (0, 0),
            doing: "nothing",
            names: name_pool(),
            handles: Vec::new(),
            snapshots: Vec::new(),
            takes_snapshots: true,
        }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.choice.below(end as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.choice.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        self.choice.noise(length)
    }

    /// Whether the input that decides has come to its end.
    pub fn is_over(&self) -> bool {
        self.choice.is_spent()
    }

    fn directory(&mut self) -> Id {
        let directories: Vec<Id> =
            self.model.nodes.iter().filter(|(_, node)| node.kind == Kind::Directory).map(|(&id, _)| id).collect();
        self.pick(&directories)
    }

    fn name(&mut self) -> Vec<u8> {
        if self.chance(1) {
            let bad: &[&[u8]] = match self.face.through_kernel() {
                true => &[&[b'y'; 256]],
                false => &[b"", b".", b"..", b"a/b", b"a\0", &[b'y'; 256]],
            };
            return self.pick(bad).to_vec();
        }
        let at = self.below(self.names.len());
        self.names[at].clone()
    }

    /// A directory and a name in it, mostly one that exists.
    fn entry(&mut self) -> (Id, Vec<u8>) {
        let directory = self.directory();
        let count = self.model.nodes[&directory].entries.len();
        if count == 0 || self.chance(15) {
            return (directory, self.name());
        }
        let at = self.below(count);
        let name = self.model.nodes[&directory].entries.keys().nth(at).expect("there are as many");
        (directory, name.clone())
    }

    /// An inode that a program can name or has open.
    fn inode(&mut self) -> Id {
        let ids: Vec<Id> = self.model.nodes.keys().copied().collect();
        self.pick(&ids)
    }

    fn handle_of(&self, id: Id) -> Option<u64> {
        of(&self.model, &self.handles, id).handle
    }

    fn begin(&mut self, doing: &'static str) -> Stamp {
        self.doing = doing;
        self.now = self.face.begin();
        self.now
    }

    /// Both answers are the same, errors by number; answers whether both succeeded.
    fn agree<T: PartialEq + std::fmt::Debug>(&self, found: &Answer<T>, wanted: &Outcome<T>) -> bool {
        match (found, wanted) {
            (Ok(found), Ok(wanted)) if found == wanted => true,
            (Err(found), Err(wanted)) if *found == number(*wanted) => false,
            _ => panic!("operation {}, {}: found {found:?}, wanted {wanted:?}", self.ops, self.doing),
        }
    }

    /// Attributes are those of the model; times that were to be found out enter it.
    fn check(&mut self, id: Id) {
        let found = match self.face.stat(of(&self.model, &self.handles, id)) {
            Ok(found) => found,
            Err(error) => panic!("operation {}, {}: stat of {id}: error {error}", self.ops, self.doing),
        };
        let times = [self.seen(id).times, found.times];
        let timely = times[0].iter().zip(times[1]).all(|(&wanted, found)| self.face.is_time(wanted, found));
        let wanted = Seen { times: if timely { found.times } else { times[0] }, ..self.seen(id) };
        assert_eq!(found, wanted, "operation {}, {} at {:?}", self.ops, self.doing, self.now);
        let node = self.model.nodes.get_mut(&id).expect("it was seen");
        if node.btime == self.now {
            // Not shown by a kernel; a creation sets all times to one.
            node.btime = found.times[2];
        }
        [node.atime, node.mtime, node.ctime] = found.times;
    }

    fn seen(&self, id: Id) -> Seen {
        let node = &self.model.nodes[&id];
        let size = match node.kind {
            Kind::Directory => 32 * node.entries.len(),
            _ => node.content.len(),
        };
        Seen {
            id,
            kind: node.kind,
            mode: node.mode,
            owner: (node.uid, node.gid),
            nlink: node.nlink,
            rdev: node.rdev,
            size: size as u64,
            times: [node.atime, node.mtime, node.ctime],
        }
    }

    /// Checks what is left of an inode that lost a name.
    fn check_or_forget(&mut self, id: Id) {
        let node = &self.model.nodes[&id];
        if node.nlink > 0 || self.handle_of(id).is_some() {
            return self.check(id);
        }
        self.model.forget(id);
    }

    /// Does one random operation.
    pub fn step(&mut self) {
        self.ops += 1;
        match self.choice.below(1000) {
            0..110 => self.create(),
            110..150 => self.link(),
            150..200 => self.unlink(),
            200..225 => self.rmdir(),
            225..315 => self.rename(),
            315..360 => self.change_owner_and_mode(),
            360..395 => self.change_times(),
            395..450 => self.xattr(),
            450..475 => self.acl(),
            475..500 => self.read_xattrs(),
            500..560 => self.lookup(),
            560..580 => self.list(),
            580..590 => self.read_link(),
            590..640 => self.open_or_close(),
            640..770 => self.write(),
            770..800 => self.truncate(),
            800..830 => self.allocate(),
            830..850 => self.copy(),
            850..870 => self.seek(),
            870..970 => self.read(),
            970..982 => self.sync(),
            982..992 => self.flush(),
            992..998 => self.checkpoint(),
            _ => self.snapshot(),
        }
        if self.ops.is_multiple_of(VERIFY_EVERY) {
            self.verify();
        }
    }

    fn create(&mut self) {
        use Kind::*;
        if self.model.nodes.len() >= INODES_MAX {
            return self.unlink();
        }
        let (parent, name) = (self.directory(), self.name());
        let kinds =
            [File, File, File, File, Directory, Directory, Symlink, Symlink, Fifo, Socket, CharDevice, BlockDevice];
        let kind = self.pick(&kinds);
        let kernel = self.face.through_kernel();
        let lengths: &[usize] = if kernel { &[1, 40, 300, 3000] } else { &[0, 1, 40, 300, 4095, 4096] };
        let target = if kind == Symlink { vec![b't'; self.pick(lengths)] } else { Vec::new() };
        let owner = if kernel { (0, 0) } else { (self.below(3) as u32, self.below(3) as u32) };
        // Devices of the same number on both sides of the kernel's encoding.
        let device = matches!(kind, CharDevice | BlockDevice);
        let rdev = if device { (self.choice.below(4096) << 32) | self.choice.below(1 << 20) } else { 0 };
        let bits = if kind == Directory { 0o1777 } else { 0o777 };
        let mode = self.choice.number() as u32 & bits | 0o400;
        let umask = self.face.umask().unwrap_or_else(|| self.choice.below(0o100) as u32);
        let now = self.begin("create");
        let asked = Asked { kind, mode, umask, owner, rdev, target };
        let found = self.face.create(At { model: &self.model, directory: parent, name: &name }, &asked);
        let id = found.unwrap_or(0);
        let mode = self.model.mode_of_new(parent, kind, mode, umask);
        let (uid, gid) = owner;
        let new = New { id, kind, mode, uid, gid, rdev, target: asked.target };
        let wanted = self.model.create(parent, &name, &new, now).map(|()| id);
        if self.agree(&found, &wanted) {
            self.check(parent);
            self.check(id);
            if kind == File && self.chance(50) {
                self.open(id);
            }
        }
    }

    fn link(&mut self) {
        let (id, parent, name) = (self.inode(), self.directory(), self.name());
        if self.face.through_kernel() && (self.model.nodes[&id].nlink == 0 || id == ROOT) {
            // What has no name any more is not linked by one.
            return;
        }
        let now = self.begin("link");
        let found = self
            .face
            .link(of(&self.model, &self.handles, id), At { model: &self.model, directory: parent, name: &name });
        let exists = self.model.lookup(parent, &name).is_ok();
        let wanted = match self.model.link(id, parent, &name, now) {
            // The kernel looks at the new name first.
            Err(Fault::NotPermitted) if self.face.through_kernel() && exists => Err(Fault::Exists),
            Err(Fault::NotPermitted) if self.face.through_kernel() && name.len() > 255 => Err(Fault::NameTooLong),
            other => other,
        };
        if self.agree(&found, &wanted) {
            self.check(parent);
            self.check(id);
        }
    }

    fn unlink(&mut self) {
        let (parent, name) = self.entry();
        let now = self.begin("unlink");
        let found = self.face.unlink(At { model: &self.model, directory: parent, name: &name });
        let wanted = self.model.unlink(parent, &name, now);
        if self.agree(&found, &wanted.map(drop)) {
            self.check(parent);
            self.check_or_forget(wanted.expect("both agreed").0);
        }
    }

    fn rmdir(&mut self) {
        let (parent, name) = self.entry();
        let now = self.begin("rmdir");
        let found = self.face.rmdir(At { model: &self.model, directory: parent, name: &name });
        let wanted = self.model.rmdir(parent, &name, now);
        if self.agree(&found, &wanted.map(drop)) {
            self.check(parent);
            self.model.forget(wanted.expect("both agreed"));
        }
    }

    fn rename(&mut self) {
        let (from, mut to) = (self.entry(), self.entry());
        if self.chance(40) {
            to.1 = self.name();
        }
        let flags = Flags { no_replace: self.chance(15), exchange: self.chance(20), whiteout: self.chance(8) };
        let now = self.begin("rename");
        let target = self.model.lookup(to.0, &to.1).ok();
        let missing = self.model.lookup(from.0, &from.1) == Err(Fault::NotFound);
        let above = target.is_some_and(|target| self.is_above(target, from.0));
        let at = |(directory, name): &(Id, Vec<u8>)| (*directory, name.clone());
        let (old, new) = (at(&from), at(&to));
        let old = At { model: &self.model, directory: old.0, name: &old.1 };
        let new = At { model: &self.model, directory: new.0, name: &new.1 };
        let found = self.face.rename(old, new, flags);
        let left = if found.is_ok() && flags.whiteout { self.face.lookup(old).map_or(0, |seen| seen.id) } else { 0 };
        let whiteout = flags.whiteout.then_some(left);
        let mode = RenameMode { no_replace: flags.no_replace, exchange: flags.exchange, whiteout };
        let before = (self.model.nodes[&from.0].mtime, self.model.nodes[&to.0].mtime);
        let wanted = self.model.rename((from.0, &from.1), (to.0, &to.1), mode, now);
        let told = match wanted {
            // The kernel does not ask for what cannot be: a directory that the old name lies in is never empty.
            Err(Fault::IsDirectory) if self.face.through_kernel() && above => Err(Fault::NotEmpty),
            // And it looks at the old name first.
            Err(Fault::NameTooLong) if self.face.through_kernel() && missing => Err(Fault::NotFound),
            other => other.map(drop),
        };
        if !self.agree(&found, &told) {
            return;
        }
        let (moved, replaced) = wanted.expect("both agreed");
        let changed = before != (self.model.nodes[&from.0].mtime, self.model.nodes[&to.0].mtime);
        let whiteout = whiteout.filter(|_| changed);
        let others = [target.filter(|_| replaced.is_none()), whiteout];
        for id in [from.0, to.0, moved].into_iter().chain(others.into_iter().flatten()) {
            self.check(id);
        }
        if let Some((id, _)) = replaced {
            self.check_or_forget(id);
        }
    }

    fn is_above(&self, ancestor: Id, mut at: Id) -> bool {
        loop {
            if at == ancestor {
                return true;
            }
            if at == ROOT {
                return false;
            }
            at = self.model.nodes[&at].parent;
        }
    }

    fn change_owner_and_mode(&mut self) {
        let id = self.inode();
        let node = &self.model.nodes[&id];
        let (kind, kernel) = (node.kind, self.face.through_kernel());
        let bits = if kind == Kind::Directory || !kernel { 0o7777 } else { 0o777 };
        let mode = self.choice.coin().then(|| self.choice.number() as u32 & bits);
        // A symbolic link has no mode to set, as far as programs can ask.
        let mode = mode.filter(|_| !(kernel && kind == Kind::Symlink));
        let uid = self.choice.coin().then(|| self.choice.below(9) as u32);
        let gid = self.choice.coin().then(|| self.choice.below(9) as u32);
        // One change for a system call.
        let (uid, gid) = if kernel && mode.is_some() { (None, None) } else { (uid, gid) };
        if mode.or(uid).or(gid).is_none() || (kernel && self.unreachable(id)) {
            return;
        }
        let now = self.begin("chmod or chown");
        let found =
            self.face.change(of(&self.model, &self.handles, id), &Change { mode, uid, gid, ..Change::default() });
        let wanted = self.model.set_owner_and_mode(id, mode, uid, gid, now);
        self.agree(&found, &wanted);
        self.check(id);
    }

    /// Whether a path is the only way and there is none.
    fn unreachable(&self, id: Id) -> bool {
        self.model.nodes[&id].nlink == 0 && self.handle_of(id).is_none()
    }

    fn a_time(&mut self) -> Option<Option<Stamp>> {
        let seconds = (self.choice.below(1 << 35) as i64) - (1 << 33);
        match self.choice.below(4) {
            0 => None,
            1 => Some(None),
            _ => Some(Some((seconds, self.choice.below(1_000_000_000) as u32))),
        }
    }

    fn change_times(&mut self) {
        let (id, atime, mtime) = (self.inode(), self.a_time(), self.a_time());
        if atime.or(mtime).is_none() {
            return;
        }
        let now = self.begin("utimens");
        let found = self.face.change(of(&self.model, &self.handles, id), &Change { atime, mtime, ..Change::default() });
        let at = |time: Option<Option<Stamp>>| time.map(|time| time.unwrap_or(now));
        let wanted = self.model.set_times(id, at(atime), at(mtime), now);
        self.agree(&found, &wanted);
        self.check(id);
    }

    fn xattr_name(&mut self, id: Id) -> Vec<u8> {
        let plain = matches!(self.model.nodes[&id].kind, Kind::File | Kind::Directory);
        let names: &[&[u8]] = match (self.face.through_kernel(), plain) {
            (true, true) => &[b"user.a", b"user.ab", b"trusted.x", b"user.a-much-longer-name"],
            // Programs cannot put names of users on anything but files and directories.
            (true, false) => &[b"trusted.x", b"trusted.y"],
            (false, _) => {
                &[b"user.a", b"user.ab", b"trusted.x", b"security.selinux", b"user.", b"system.other", b"os2.x"]
            }
        };
        self.pick(names).to_vec()
    }

    fn xattr(&mut self) {
        let id = self.inode();
        let name = self.xattr_name(id);
        let now = self.begin("setxattr or removexattr");
        let (found, wanted) = if self.chance(75) {
            let length = self.pick(&[0, 5, 5, 40, 300, 300, 9_000, 20_000]);
            let value = self.noise(length);
            let must_exist = self.pick(&[None, None, Some(true), Some(false)]);
            let found = self.face.set_xattr(of(&self.model, &self.handles, id), &name, &value, must_exist);
            (found, self.model.set_xattr(id, &name, &value, must_exist, now))
        } else {
            (self.face.remove_xattr(of(&self.model, &self.handles, id), &name), self.model.remove_xattr(id, &name, now))
        };
        self.agree(&found, &wanted);
        self.check(id);
    }

    fn acl(&mut self) {
        let id = self.inode();
        let name = self.pick(&[ACL_ACCESS, ACL_DEFAULT]);
        let (handed_on, directory) = (name == ACL_DEFAULT, self.model.nodes[&id].kind == Kind::Directory);
        let now = self.begin("an access control list");
        let (found, wanted) = if self.chance(70) {
            // The kernel does not read a list that is not for this kind of inode.
            let kind = self.model.nodes[&id].kind;
            let fits = kind != Kind::Symlink && (kind == Kind::Directory || !handed_on);
            let may_be_bad = fits || !self.face.through_kernel();
            let value = self.list_of_access(may_be_bad);
            (
                self.face.set_xattr(of(&self.model, &self.handles, id), name, &value, None),
                self.model.set_xattr(id, name, &value, None, now),
            )
        } else if self.face.through_kernel() && self.model.nodes[&id].kind == Kind::Symlink {
            return;
        } else {
            let wanted = match self.model.remove_xattr(id, name, now) {
                // The kernel knows that only directories hand a list on, and asks nobody.
                Err(Fault::NoAttribute) if self.face.through_kernel() && handed_on && !directory => Ok(()),
                other => other,
            };
            (self.face.remove_xattr(of(&self.model, &self.handles, id), name), wanted)
        };
        self.agree(&found, &wanted);
        self.check(id);
    }

    fn list_of_access(&mut self, may_be_bad: bool) -> Vec<u8> {
        let mut entries: Vec<AclEntry> = Vec::new();
        let malformed = may_be_bad && self.chance(5);
        let named = self.chance(70);
        for tag in ACL_TAGS {
            let (user, group) = (tag == ACL_TAGS[1], tag == ACL_TAGS[3]);
            let count = match () {
                () if user || group => {
                    if named {
                        1 + self.below(3)
                    } else {
                        0
                    }
                }
                () if tag == ACL_TAGS[4] => usize::from(named || self.chance(30)),
                () if tag == ACL_TAGS[5] && malformed => 0,
                () => 1,
            };
            for number in 0..count as u32 {
                let id = if user || group { 10 + number } else { u32::MAX };
                entries.push((tag, self.choice.below(8) as u16, id));
            }
        }
        acl_bytes(&entries)
    }

    fn read_xattrs(&mut self) {
        let id = self.inode();
        self.begin("getxattr or listxattr");
        if self.choice.coin() {
            let names: Vec<Vec<u8>> = self.model.nodes[&id].xattrs.keys().cloned().collect();
            let found = self.face.list_xattr(of(&self.model, &self.handles, id));
            self.agree(&found, &Ok(names));
            return;
        }
        let name = self.xattr_name(id);
        let wanted = match self.model.nodes[&id].xattrs.get(&name) {
            Some(value) => Ok(value.clone()),
            None => Err(self.model.clone().remove_xattr(id, &name, (0, 0)).expect_err("it is not there")),
        };
        let found = self.face.get_xattr(of(&self.model, &self.handles, id), &name);
        self.agree(&found, &wanted);
    }

    fn lookup(&mut self) {
        let (directory, name) = self.entry();
        if name == b"." || name == b".." {
            // The volume answers these to who exports it; programs never get that far.
            return;
        }
        self.begin("lookup");
        let found = self.face.lookup(At { model: &self.model, directory, name: &name });
        let wanted = self.model.lookup(directory, &name).map(|id| self.seen(id));
        self.agree(&found, &wanted);
    }

    fn list(&mut self) {
        let id = self.inode();
        let page = 1 + self.below(20);
        self.begin("readdir");
        let found = self.face.list(of(&self.model, &self.handles, id), page);
        let node = &self.model.nodes[&id];
        let entries = node.entries.iter().map(|(name, at)| (name.clone(), *at, self.model.nodes[at].kind)).collect();
        let wanted = if node.kind == Kind::Directory { Ok(entries) } else { Err(Fault::NotDirectory) };
        if self.face.through_kernel() && (node.nlink == 0 || node.kind == Kind::Symlink) {
            // No path leads there, or a path leads on.
            return;
        }
        self.agree(&found, &wanted);
    }

    fn read_link(&mut self) {
        let id = self.inode();
        let node = &self.model.nodes[&id];
        if node.nlink == 0 {
            return;
        }
        let wanted = if node.kind == Kind::Symlink { Ok(node.content.clone()) } else { Err(Fault::InvalidArgument) };
        self.begin("readlink");
        let found = self.face.read_link(of(&self.model, &self.handles, id));
        self.agree(&found, &wanted);
    }

    fn flush(&mut self) {
        self.begin("flush");
        let found = self.face.flush();
        self.agree(&found, &Ok(()));
    }

    fn checkpoint(&mut self) {
        self.begin("checkpoint");
        let found = self.face.checkpoint();
        self.agree(&found, &Ok(()));
    }

    fn snapshot(&mut self) {
        if !self.takes_snapshots {
            return;
        }
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            let at = self.below(SNAPSHOTS_MAX);
            let (name, wanted) = self.snapshots.swap_remove(at);
            self.compare_snapshot(&name, &wanted);
            self.begin("deleting a snapshot");
            let found = self.face.delete_snapshot(&name);
            self.agree(&found, &Ok(()));
            return;
        }
        self.begin("snapshot");
        let name = format!("{}-{}", self.label, self.ops).into_bytes();
        let found = self.face.snapshot(&name);
        self.agree(&found, &Ok(()));
        let wanted = dump::without_ids(self.dump());
        self.snapshots.push((name, wanted));
    }

    fn dump(&self) -> Dump {
        dump::of_model(&self.model, &|id| Arc::new(self.model.nodes[&id].content.clone()))
    }

    fn compare_snapshot(&mut self, name: &[u8], wanted: &Dump) {
        let found = dump::without_ids(self.face.dump(Some(name)));
        self.compare(&format!("snapshot {}", name.escape_ascii()), found, wanted.clone());
    }

    fn compare(&self, what: &str, mut found: Dump, mut wanted: Dump) {
        for item in found.values_mut().chain(wanted.values_mut()) {
            // A kernel does not show when an inode was made. The root is the caller's directory, not the sequence's.
            item.times[3] = (0, 0);
        }
        for root in [&mut found, &mut wanted] {
            if let Some(root) = root.get_mut(&Vec::new()[..]) {
                root.id = 0;
            }
        }
        assert!(found == wanted, "{what} after {} operations:\n{}", self.ops, dump::difference(&found, &wanted));
    }

    /// Compares the whole tree, what is unlinked and open, and all snapshots.
    pub fn verify(&mut self) {
        self.doing = "verify";
        let found = self.face.dump(None);
        self.compare("the tree", found, self.dump());
        for open in self.handles.clone() {
            self.check(open.id);
            let content = &self.model.nodes[&open.id].content;
            let found =
                self.face.read(open.handle, 0, content.len() + 1).unwrap_or_else(|error| panic!("read: {error}"));
            assert!(found == *content, "content of open inode {} after {} operations", open.id, self.ops);
        }
        for (name, wanted) in self.snapshots.clone() {
            self.compare_snapshot(&name, &wanted);
        }
    }

    /// Closes all files; the filesystem can be unmounted then.
    pub fn close_all(&mut self) {
        while !self.handles.is_empty() {
            self.close(0);
        }
    }
}
