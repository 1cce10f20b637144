//! What happened to a volume: the model after each operation, all that P1 needs to judge what a crash left.
//!
//! *Invariants*
//! 1. `names` holds the model after each operation that changed it; contents of files are kept apart, one [`Version`] for each
//!    change of content, size or times of a file.
//! 2. What was acknowledged as durable is noted only after the volume said so.
//!
//! *Bounds*: some forty inodes, files of some 100 KB, as all versions are kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use vellum_fs::{ino::Ino, time::Time, volume::Volume};

use crate::{
    dump::{self, Content, Dump},
    model::{Id, Kind, Model, Stamp},
    rig,
};

/// A file's content, size and times after one of its changes.
#[derive(Clone, Debug)]
pub struct Version {
    /// Content; its length is the size.
    pub content: Content,
    /// Last access.
    pub atime: Stamp,
    /// Last change of content.
    pub mtime: Stamp,
}

/// What was acknowledged so far.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    /// All names through this operation.
    pub names: u64,
    /// All content of a file through this version.
    pub content: BTreeMap<Id, usize>,
    /// Snapshots.
    pub snapshots: BTreeSet<Vec<u8>>,
    /// Snapshots that are no more, under that name.
    pub deleted: BTreeSet<Vec<u8>>,
}

/// A rename over another file: who has it has at least this version of the file that it brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tie {
    pub(crate) op: u64,
    pub(crate) file: Id,
    pub(crate) version: usize,
}

/// Everything that happened.
#[derive(Clone, Debug)]
pub struct History {
    /// Number of the newest operation.
    pub op: u64,
    /// Names; files have no content here.
    pub model: Model,
    /// Versions of each file that ever was, oldest first.
    pub files: BTreeMap<Id, Vec<Version>>,
    names: Vec<(u64, Model)>,
    pub(crate) ties: Vec<Tie>,
    /// What each snapshot that was ever begun must show.
    pub(crate) snapshots: BTreeMap<Vec<u8>, Dump>,
    /// Snapshots whose deletion or renaming was begun.
    pub(crate) gone: BTreeSet<Vec<u8>>,
    /// What is durable for certain.
    pub acknowledged: Acknowledged,
    pub(crate) next_snapshot: u32,
}

/// What a crash left, as far as the history explains it.
#[derive(Debug)]
pub struct Explained {
    op: u64,
    model: Model,
    versions: BTreeMap<Id, usize>,
    snapshots: BTreeSet<Vec<u8>>,
}

/// Where the bytes of a content come from, range by range: the newest version that has them there, or zeros.
fn origin(content: &[u8], versions: &[Version]) -> String {
    let mut told = String::new();
    let mut at = 0;
    while at < content.len() {
        let same = |version: &Version| {
            let theirs = version.content.get(at..).unwrap_or_default();
            content[at..].iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count()
        };
        let best = versions.iter().enumerate().map(|(number, version)| (same(version), number)).max();
        let zeros = content[at..].iter().take_while(|byte| **byte == 0).count();
        let (length, who) = match best {
            Some((length, number)) if length >= zeros && length > 0 => (length, format!("version {number}")),
            _ if zeros > 0 => (zeros, "zeros".to_string()),
            _ => (1, "nowhere".to_string()),
        };
        told += &format!("{at}..{} of {who}, ", at + length);
        at += length;
        if told.len() > 600 {
            return told + "..";
        }
    }
    told
}

fn stamp(op: u64) -> Stamp {
    (1_700_000_000 + op as i64, (op as u32 * 7919) % 1_000_000_000)
}

pub(crate) fn time(stamp: Stamp) -> Time {
    Time::new(stamp.0, stamp.1).expect("nanoseconds stay below a second")
}

impl History {
    /// The history of a volume that was just made.
    pub fn new(volume: &Volume) -> Self {
        let root = volume.get_attr(Ino::ROOT).expect("every volume has a root");
        let model = Model::new(root.uid, root.gid, root.perm, (root.btime.sec, root.btime.nsec));
        Self {
            op: 0,
            names: vec![(0, model.clone())],
            model,
            files: BTreeMap::new(),
            ties: Vec::new(),
            snapshots: BTreeMap::new(),
            gone: BTreeSet::new(),
            acknowledged: Acknowledged::default(),
            next_snapshot: 0,
        }
    }

    pub(crate) fn begin(&mut self) -> Stamp {
        self.op += 1;
        rig::set_clock(time(stamp(self.op)));
        stamp(self.op)
    }

    pub(crate) fn names_changed(&mut self) {
        self.names.push((self.op, self.model.clone()));
    }

    pub(crate) fn newest(&self, file: Id) -> &Version {
        self.files[&file].last().expect("a file has a version from its creation on")
    }

    pub(crate) fn add_version(&mut self, file: Id, content: Content) {
        let node = &self.model.nodes[&file];
        let version = Version { content, atime: node.atime, mtime: node.mtime };
        self.files.entry(file).or_default().push(version);
    }

    /// The whole tree as it should be.
    pub fn dump(&self) -> Dump {
        dump::of_model(&self.model, &|file| Arc::clone(&self.newest(file).content))
    }

    pub(crate) fn acknowledge_all(&mut self, through: u64) {
        self.acknowledged.names = through;
        self.acknowledged.content = self.files.iter().map(|(&file, versions)| (file, versions.len() - 1)).collect();
    }

    /// Compares the live tree, and all snapshots, with what they should be.
    pub fn verify(&self, volume: &Volume) {
        let found = dump::of_volume(volume, Ino::ROOT).expect("the live tree is read");
        let wanted = self.dump();
        assert!(found == wanted, "after operation {}:\n{}", self.op, dump::difference(&found, &wanted));
        self.verify_snapshots(volume, &self.acknowledged);
    }

    fn verify_snapshots(&self, volume: &Volume, acknowledged: &Acknowledged) -> BTreeSet<Vec<u8>> {
        let listed: BTreeSet<Vec<u8>> =
            volume.snapshots().expect("snapshots are listed").into_iter().map(|record| record.name).collect();
        for name in acknowledged.snapshots.iter().filter(|name| !self.gone.contains(*name)) {
            assert!(listed.contains(name), "snapshot {} is lost", name.escape_ascii());
        }
        for name in &listed {
            assert!(!acknowledged.deleted.contains(name), "snapshot {} came back", name.escape_ascii());
            let wanted = self.snapshots.get(name).expect("no snapshot appears that was never taken");
            let found = dump::of_snapshot(volume, name).expect("a snapshot is read");
            let (name, difference) = (name.escape_ascii(), dump::difference(&found, wanted));
            assert!(found == *wanted, "snapshot {name} changed:\n{difference}");
        }
        listed
    }

    /// Finds the state that P1 allows and `volume`, opened after a crash, shows; panics if there is none.
    pub fn explain(&self, volume: &Volume, acknowledged: &Acknowledged) -> Explained {
        let found = dump::of_volume(volume, Ino::ROOT).expect("the tree is read after a crash");
        let names = dump::names_only(found.clone());
        let empty = |_: Id| Content::default();
        let wanted = |model: &Model| dump::names_only(dump::of_model(model, &empty));
        // The state of each entry lasts until the next one.
        let ends = self.names.iter().skip(1).map(|(op, _)| *op - 1).chain([u64::MAX]);
        let candidates: Vec<_> =
            self.names.iter().zip(ends).filter(|(_, end)| *end >= acknowledged.names).map(|(entry, _)| entry).collect();
        let Some((op, model)) = candidates.iter().find(|(_, model)| wanted(model) == names) else {
            let nearest = candidates.iter().min_by_key(|(_, model)| dump::difference(&names, &wanted(model)).len());
            let (op, model) = nearest.expect("the newest state is a candidate");
            let difference = dump::difference(&names, &wanted(model));
            let older = self.names.iter().find(|(_, model)| wanted(model) == names).map(|(op, _)| *op);
            let sure = acknowledged.names;
            panic!(
                "names are those of no prefix with all {sure} acknowledged operations (an older one: {older:?}); \
                 the nearest, after {op} of {}:\n{difference}",
                self.op
            );
        };
        let mut versions = BTreeMap::new();
        for (path, item) in found.iter().filter(|(_, item)| item.kind == Kind::File) {
            let tied = self.ties.iter().filter(|tie| tie.file == item.id && tie.op <= *op).map(|tie| tie.version);
            let synced = acknowledged.content.get(&item.id).copied();
            let least = tied.chain(synced).max().unwrap_or(0);
            let fits = |version: &Version| {
                version.content == item.content && item.times[..2] == [version.atime, version.mtime]
            };
            let all = &self.files[&item.id];
            let Some(version) = all.iter().rposition(fits).filter(|&version| version >= least) else {
                let same: Vec<_> = (0..all.len()).filter(|&at| all[at].content == item.content).collect();
                let parts = origin(&item.content, all);
                panic!(
                    "{} is no version from {least} ({synced:?} was synced) to {} of its own history; its content alone \
                     is that of {same:?}; {parts}\n{item:?}\nwith the names of operation {op}; versions {:?}",
                    path.escape_ascii(),
                    all.len() - 1,
                    all.iter().map(|v| (v.content.len(), v.atime, v.mtime)).collect::<Vec<_>>()
                );
            };
            versions.insert(item.id, version);
        }
        let snapshots = self.verify_snapshots(volume, acknowledged);
        Explained { op: *op, model: model.clone(), versions, snapshots }
    }

    /// Goes on from what a crash left. All of it is durable by then.
    pub fn resume(&mut self, explained: Explained) {
        let Explained { model, versions, snapshots, op } = explained;
        self.model = model;
        let orphans = self.model.orphans();
        orphans.into_iter().for_each(|id| self.model.forget(id));
        self.files.retain(|file, _| self.model.nodes.contains_key(file));
        for (file, version) in versions {
            let all = self.files.get_mut(&file).expect("an explained file has versions");
            all.truncate(version + 1);
            let newest = all[version].clone();
            let node = self.model.nodes.get_mut(&file).expect("an explained file is in the model");
            (node.atime, node.mtime) = (newest.atime, newest.mtime);
        }
        // The numbers of operations go on, so that times stay unique.
        assert!(op <= self.op);
        self.names = vec![(self.op, self.model.clone())];
        self.ties.clear();
        self.gone.clear();
        self.acknowledge_all(self.op);
        self.acknowledged.deleted.extend(self.snapshots.keys().filter(|name| !snapshots.contains(*name)).cloned());
        self.acknowledged.snapshots = snapshots;
    }

    /// Takes change times from the volume after a crash: those of files follow names and content alike, so P1 leaves them open.
    pub fn adopt_change_times(&mut self, volume: &Volume) {
        for (&id, node) in self.model.nodes.iter_mut().filter(|(_, node)| node.kind == Kind::File) {
            let attr = volume.get_attr(Ino(id)).expect("the file is there");
            node.ctime = (attr.ctime.sec, attr.ctime.nsec);
        }
        let model = self.model.clone();
        self.names = vec![(self.op, model)];
    }
}
