//! Random operations, refused ones too, on a tree and on the model; results and whole trees are compared.

use std::collections::BTreeMap;

use super::{
    model::{Fault, Kind, Model, New, RenameMode, Stamp},
    *,
};
use crate::format::{key, op::Op};

const STEPS: usize = 2500;

/// Both trees, and the operations that were accepted so far.
struct Pair {
    bench: Bench,
    model: Model,
    accepted: Vec<Op>,
    random: Random,
    names: Vec<Vec<u8>>,
}

#[test]
fn random_operations_give_what_the_model_gives() {
    seeds(1..7).for_each(|seed| run(seed, Bench::new()));
}

#[test]
fn random_operations_give_what_the_model_gives_when_all_hashes_collide() {
    seeds(101..107).for_each(|seed| run(seed, Bench::colliding()));
}

/// These seeds, or the one in VELLUM_SEED.
fn seeds(all: std::ops::Range<u64>) -> std::ops::Range<u64> {
    match std::env::var("VELLUM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => all,
    }
}

fn run(seed: u64, bench: Bench) {
    println!("seed {seed}");
    let names = bench.names.clone();
    let mut pair = Pair {
        bench,
        model: Model::new(10, 20, 0o755, (1000, 5)),
        accepted: Vec::new(),
        random: Random(seed),
        names: name_pool(),
    };
    for step in 0..STEPS {
        pair.step();
        if step % 500 == 499 {
            pair.bench.checkpoint();
            compare(&pair.bench, &pair.model);
        }
    }
    compare(&pair.bench, &pair.model);
    println!("{} of {STEPS} accepted, {} inodes", pair.accepted.len(), pair.model.nodes.len());
    assert!(pair.accepted.len() > STEPS / 4 && pair.accepted.len() < STEPS * 3 / 4, "both ways are taken often");
    pair.replay_gives_the_same_tree(names);
}

fn name_pool() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        [&b"a"[..], b"A", b"b", b"B", b"c", b"dir", b"Dir", b"DIR", b"\xff\xfe", b" ", b"..."]
            .map(<[u8]>::to_vec)
            .to_vec();
    names.extend([
        vec![b'x'; 255],
        "\u{e4}\u{df}\u{130}".as_bytes().to_vec(),
        "\u{c4}\u{df}\u{130}".as_bytes().to_vec(),
    ]);
    names
}

impl Pair {
    fn step(&mut self) {
        match self.random.below(100) {
            0..30 => self.create(),
            30..40 => self.link(),
            40..52 => self.unlink(),
            52..60 => self.rmdir(),
            60..80 => self.rename(),
            80..86 => self.set_attr(),
            86..92 => self.set_xattr(),
            92..95 => self.remove_xattr(),
            95..97 => self.drop_orphan(),
            _ => self.lookup(),
        }
    }

    /// An inode: mostly a directory with a name, at times a file, an orphan, or nothing at all.
    fn directory(&mut self) -> Ino {
        if self.random.chance(6) {
            return self.any();
        }
        let live = |(_, node): &(&u64, &model::Node)| node.kind == Kind::Directory && node.nlink > 0;
        let ids: Vec<u64> = self.model.nodes.iter().filter(live).map(|(&id, _)| id).collect();
        Ino(*self.random.pick(&ids))
    }

    fn any(&mut self) -> Ino {
        if self.random.chance(3) {
            return Ino(1 << 40);
        }
        let ids: Vec<u64> = self.model.nodes.keys().copied().collect();
        Ino(*self.random.pick(&ids))
    }

    fn name(&mut self) -> Vec<u8> {
        if self.random.chance(2) {
            let bad: [&[u8]; 6] = [b"", b".", b"..", b"a/b", b"a\0", &[b'y'; 256]];
            return self.random.pick(&bad).to_vec();
        }
        self.random.pick(&self.names).clone()
    }

    /// A directory and one of its names, if it has any and luck does not want otherwise.
    fn entry(&mut self) -> (Ino, Vec<u8>) {
        let dir = self.directory();
        let names: Vec<Vec<u8>> =
            self.model.nodes.get(&dir.0).map(|node| node.entries.keys().cloned().collect()).unwrap_or_default();
        if names.is_empty() || self.random.chance(10) {
            return (dir, self.name());
        }
        (dir, self.random.pick(&names).clone())
    }

    fn now(&mut self) -> (Time, Stamp) {
        let time = self.bench.now();
        (time, (time.sec, time.nsec))
    }

    /// Applies an operation to the tree, compares the answer with the model's, and keeps it if it was accepted.
    fn apply<T: PartialEq + std::fmt::Debug>(
        &mut self,
        op: Op,
        expected: Result<T, Fault>,
        answer: impl FnOnce(Applied) -> T,
    ) {
        let before = (expected.is_err() && self.random.chance(10)).then(|| self.bench.records());
        let result = self.bench.live().apply(&op);
        assert_eq!(result.map(answer).map_err(fault), expected, "{op:?}");
        assert!(before.is_none_or(|before| before == self.bench.records()), "what is refused changes nothing: {op:?}");
        if expected.is_ok() {
            self.accepted.push(op);
        }
    }

    fn create(&mut self) {
        use FileKind::*;
        let kinds = [Regular, Regular, Directory, Directory, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice];
        let kind = *self.random.pick(&kinds);
        let (parent, name, ino, (time, stamp)) = (self.directory(), self.name(), self.bench.next_ino(), self.now());
        let length = *self.random.pick(&[1, 3, 40, 300, 4095, 4096]);
        let target = if kind == Symlink { vec![b't'; length] } else { Vec::new() };
        let mode = self.random.below(0o10000) as u32;
        let (uid, gid) = (self.random.below(3) as u32, self.random.below(3) as u32);
        let rdev = if matches!(kind, CharDevice | BlockDevice) { self.random.below(1 << 40) } else { 0 };
        let new = New { id: ino.0, kind: kind_of(kind), mode, uid, gid, rdev, target: target.clone() };
        let expected = self.model.create(parent.0, &name, &new, stamp);
        let op = Op::Create { parent, name, ino, kind, mode, uid, gid, rdev, target, time };
        self.apply(op, expected, |applied| assert!(matches!(applied, Applied::Created(made, _) if made == ino)));
    }

    fn link(&mut self) {
        let (ino, parent, name, (time, stamp)) = (self.any(), self.directory(), self.name(), self.now());
        let expected = self.model.link(ino.0, parent.0, &name, stamp);
        self.apply(Op::Link { ino, parent, name, time }, expected, |_| ());
    }

    fn unlink(&mut self) {
        let ((parent, name), (time, stamp)) = (self.entry(), self.now());
        let expected = self.model.unlink(parent.0, &name, stamp);
        self.apply(Op::Unlink { parent, name, time }, expected, removed);
    }

    fn rmdir(&mut self) {
        let ((parent, name), (time, stamp)) = (self.entry(), self.now());
        let expected = self.model.rmdir(parent.0, &name, stamp).map(|id| (id, 0));
        self.apply(Op::Rmdir { parent, name, time }, expected, removed);
    }

    fn rename(&mut self) {
        let ((parent, name), (new_parent, new_name)) = (self.entry(), self.entry());
        let (time, stamp) = self.now();
        let whiteout = self.random.chance(10).then(|| self.bench.next_ino());
        let flags = RenameFlags {
            no_replace: self.random.chance(20),
            exchange: self.random.chance(20),
            whiteout: whiteout.is_some(),
        };
        let mode =
            RenameMode { no_replace: flags.no_replace, exchange: flags.exchange, whiteout: whiteout.map(|ino| ino.0) };
        let expected = self.model.rename((parent.0, &name), (new_parent.0, &new_name), mode, stamp);
        let flags = flags.bits();
        let op = Op::Rename { parent, name, new_parent, new_name, flags, whiteout, time };
        self.apply(op, expected, |applied| match applied {
            Applied::Renamed(done) => (done.moved.0, done.replaced.map(|gone| (gone.ino.0, gone.nlink))),
            other => panic!("{other:?}"),
        });
    }

    fn set_attr(&mut self) {
        let (ino, (ctime, stamp)) = (self.any(), self.now());
        if self.random.chance(50) {
            let mode = self.random.chance(60).then(|| self.random.below(0o10000) as u32);
            let uid = self.random.chance(40).then(|| self.random.below(9) as u32);
            let gid = self.random.chance(40).then(|| self.random.below(9) as u32);
            let expected = self.model.set_owner_and_mode(ino.0, mode, uid, gid, stamp);
            return self.apply(Op::SetAttr { ino, mode, uid, gid, atime: None, mtime: None, ctime }, expected, |_| ());
        }
        let mut any_time = || {
            let (sec, nsec) = (self.random.next() as i64 >> 20, self.random.below(1_000_000_000) as u32);
            self.random.chance(70).then_some(Time { sec, nsec })
        };
        let (atime, mtime) = (any_time(), any_time());
        let stamp_of = |time: Option<Time>| time.map(|time| (time.sec, time.nsec));
        let expected = self.model.set_times(ino.0, stamp_of(atime), stamp_of(mtime), stamp);
        self.apply(Op::SetAttr { ino, mode: None, uid: None, gid: None, atime, mtime, ctime }, expected, |_| ());
    }

    fn xattr_name(&mut self) -> Vec<u8> {
        let names: [&[u8]; 8] =
            [b"user.a", b"user.ab", b"trusted.x", b"security.selinux", b"user.", b"system.other", b"os2.x", b"user.z"];
        self.random.pick(&names).to_vec()
    }

    fn set_xattr(&mut self) {
        let (ino, name, (time, stamp)) = (self.any(), self.xattr_name(), self.now());
        let value = vec![self.random.next() as u8; *self.random.pick(&[0, 5, 300, 8000, 8001, 20_000])];
        let must_exist = *self.random.pick(&[None, None, Some(true), Some(false)]);
        let expected = self.model.set_xattr(ino.0, &name, &value, must_exist, stamp);
        let mode = match must_exist {
            None => XattrMode::Set,
            Some(true) => XattrMode::Replace,
            Some(false) => XattrMode::Create,
        };
        let args = SetXattrArgs { ino, name: &name, value: &value, mode, time };
        assert_eq!(self.bench.live().set_xattr(&args).map_err(fault), expected, "{ino} {name:?} {mode:?}");
        if expected.is_ok() {
            self.accepted.push(Op::SetXattr { ino, name, value, time });
        }
    }

    fn remove_xattr(&mut self) {
        let (ino, name, (time, stamp)) = (self.any(), self.xattr_name(), self.now());
        let expected = self.model.remove_xattr(ino.0, &name, stamp);
        self.apply(Op::RemoveXattr { ino, name, time }, expected, |_| ());
    }

    fn lookup(&mut self) {
        let (parent, name) = self.entry();
        let found = self.bench.view().lookup(parent, &name).map(|(ino, _)| ino.0);
        assert_eq!(found.map_err(fault), self.model.lookup(parent.0, &name), "{parent} {name:?}");
    }

    fn drop_orphan(&mut self) {
        let orphans = self.model.orphans();
        if orphans.is_empty() {
            return;
        }
        let id = *self.random.pick(&orphans);
        self.model.forget(id);
        self.bench.live().drop_inode(Ino(id)).unwrap();
    }

    fn replay_gives_the_same_tree(mut self, names: Names) {
        // Drops are not journalled: replay meets orphans that were dropped meanwhile, and they go at its end.
        let mut replayed = Bench::with_names(names);
        for (sequence, op) in (1..).zip(&self.accepted) {
            let (read, op) = Op::decode(&op.encode(sequence)).unwrap();
            assert_eq!(read, sequence);
            replayed.live().apply(&op).unwrap();
        }
        for bench in [&mut self.bench, &mut replayed] {
            for ino in bench.orphans() {
                bench.live().drop_inode(ino).unwrap();
            }
        }
        assert_eq!(replayed.records(), self.bench.records());
    }
}

fn removed(applied: Applied) -> (u64, u32) {
    match applied {
        Applied::Removed(removed) => (removed.ino.0, removed.nlink),
        other => panic!("{other:?}"),
    }
}

fn kind_of(kind: FileKind) -> Kind {
    match kind {
        FileKind::Regular => Kind::File,
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink => Kind::Symlink,
        FileKind::Fifo => Kind::Fifo,
        FileKind::Socket => Kind::Socket,
        FileKind::CharDevice => Kind::CharDevice,
        FileKind::BlockDevice => Kind::BlockDevice,
    }
}

fn fault(error: Error) -> Fault {
    match error {
        Error::NotFound(_) => Fault::NotFound,
        Error::Exists(_) => Fault::Exists,
        Error::NotDirectory(_) => Fault::NotDirectory,
        Error::IsDirectory(_) => Fault::IsDirectory,
        Error::NotEmpty(_) => Fault::NotEmpty,
        Error::NotPermitted(_) => Fault::NotPermitted,
        Error::NameTooLong(_) => Fault::NameTooLong,
        Error::InvalidArgument(_) => Fault::InvalidArgument,
        Error::TooManyLinks(_) => Fault::TooManyLinks,
        Error::NoAttribute(_) => Fault::NoAttribute,
        Error::Unsupported(_) => Fault::Unsupported,
        Error::Range(_) => Fault::Range,
        Error::AttributeTooBig(_) => Fault::AttributeTooBig,
        other => panic!("no operation of the namespace is refused so: {other}"),
    }
}

/// Compares every inode, every name in both directions, and that the tree holds no record more.
fn compare(bench: &Bench, model: &Model) {
    let mut counts = BTreeMap::new();
    for (key, _) in bench.records() {
        *counts.entry(key[8]).or_insert(0) += 1;
    }
    let mut count = |kind| counts.remove(&kind).unwrap_or(0);
    let sum = |of: fn(&model::Node) -> usize| model.nodes.values().map(of).sum::<usize>();
    let further = |node: &model::Node| match node.kind {
        Kind::Directory => 0,
        _ => node.nlink.saturating_sub(1) as usize,
    };
    assert_eq!(count(key::INODE), model.nodes.len());
    assert_eq!(count(key::DIRENT), sum(|node| node.entries.len()));
    assert_eq!(count(key::PARENT), sum(further));
    assert_eq!(count(key::BODY), sum(|node| usize::from(node.kind == Kind::Symlink)));
    assert_eq!(bench.orphans().iter().map(|ino| ino.0).collect::<Vec<_>>(), model.orphans());
    let mut names = model.links();
    for (&id, node) in &model.nodes {
        compare_inode(bench, Ino(id), node);
        compare_names(bench, names.remove(&id).unwrap_or_default(), Ino(id), node);
        compare_entries(bench, model, Ino(id), node);
    }
}

fn compare_inode(bench: &Bench, ino: Ino, node: &model::Node) {
    let inode = bench.inode(ino);
    let stamp = |time: Time| (time.sec, time.nsec);
    assert_eq!(kind_of(inode.kind), node.kind, "{ino}");
    assert_eq!((inode.mode, inode.uid, inode.gid), (node.mode, node.uid, node.gid), "{ino}");
    assert_eq!((inode.nlink, inode.rdev), (node.nlink, node.rdev), "{ino}");
    assert_eq!(stamp(inode.atime), node.atime, "atime of {ino}");
    assert_eq!(stamp(inode.mtime), node.mtime, "mtime of {ino}");
    assert_eq!(stamp(inode.ctime), node.ctime, "ctime of {ino}");
    assert_eq!(stamp(inode.btime), node.btime, "btime of {ino}");
    match node.kind {
        Kind::Directory => assert_eq!(inode.size, node.entries.len() as u64 * ENTRY_BYTES, "{ino}"),
        _ => assert_eq!(inode.size, node.content.len() as u64, "{ino}"),
    }
    if node.kind == Kind::Symlink {
        assert_eq!(bench.view().read_link(ino).unwrap(), node.content, "{ino}");
    }
    let mut xattrs = BTreeMap::new();
    let mut take = |name: &[u8]| {
        xattrs.insert(name.to_vec(), bench.view().get_xattr(ino, name).unwrap());
        ControlFlow::Continue(())
    };
    bench.view().list_xattr(ino, &mut take).unwrap();
    assert_eq!(xattrs, node.xattrs, "{ino}");
}

fn compare_names(bench: &Bench, expected: Vec<(u64, Vec<u8>)>, ino: Ino, node: &model::Node) {
    let mut links: Vec<(u64, Vec<u8>)> = Vec::new();
    for link in bench.view().links_of(ino).unwrap() {
        links.push((link.parent.0, bench.view().name_at(ino, link).unwrap()));
    }
    links.sort();
    assert_eq!(links, expected, "names of {ino}");
    if node.nlink > 0 {
        let path = bench.view().path_of(ino).unwrap();
        assert_eq!(bench.view().resolve(&path).unwrap().0, ino);
    } else {
        assert!(bench.view().path_of(ino).unwrap_err().is_not_found());
    }
}

fn compare_entries(bench: &Bench, model: &Model, ino: Ino, node: &model::Node) {
    if node.kind != Kind::Directory || node.nlink == 0 {
        return;
    }
    assert_eq!(bench.view().parent_of(ino).unwrap().0, node.parent);
    let mut entries = BTreeMap::new();
    let mut take = |entry: DirEntry<'_>| {
        if entry.cookie > COOKIE_PARENT {
            assert_eq!(kind_of(entry.kind), model.nodes[&entry.ino.0].kind);
            assert_eq!(entries.insert(entry.name.to_vec(), entry.ino.0), None, "an entry is listed once");
        }
        ControlFlow::Continue(())
    };
    bench.view().read_dir(ino, 0, &mut take).unwrap();
    assert_eq!(entries, node.entries, "entries of {ino}");
}
