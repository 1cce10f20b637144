//! Tests of the namespace: examples of each rule, and random operations against the reference model.
#![allow(clippy::unwrap_used)]

// Shared with the tests of whole volumes, which use more of it; it names nothing of either package.
#[allow(dead_code)]
#[path = "../../../../tests/harness/model.rs"]
mod model;

mod acls;
mod links;
mod listing;
mod names;
mod property;
mod renames;
mod xattrs;

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use parking_lot::Mutex;
use vellum_store::id::BlobId;

use super::*;
use crate::tree::{NodeCache, NodeStore, Tree};

/// A tree with a root directory, and the clock that its operations read.
struct Bench {
    tree: Tree,
    names: Names,
    next_ino: u64,
    clock: i64,
}

impl Bench {
    fn new() -> Self {
        Self::with_names(Names::new([7; 32]))
    }

    fn with_names(names: Names) -> Self {
        let mut bench = Self { tree: empty_tree(), names, next_ino: 1, clock: 1000 };
        let root = RootArgs { uid: 10, gid: 20, mode: 0o755, time: Time { sec: 1000, nsec: 5 } };
        bench.live().make_root(&root).unwrap();
        bench
    }

    /// All names of the tree fall to four hashes.
    fn colliding() -> Self {
        Self::with_names(Names::with_hash([7; 32], colliding_cookie))
    }

    fn live(&mut self) -> Namespace<'_> {
        Namespace::new(&mut self.tree, &self.names)
    }

    fn view(&self) -> NamespaceView<'_> {
        NamespaceView::new(&self.tree, &self.names)
    }

    fn now(&mut self) -> Time {
        self.clock += 1;
        Time { sec: self.clock, nsec: 5 }
    }

    fn next_ino(&mut self) -> Ino {
        self.next_ino += 1;
        Ino(self.next_ino)
    }

    /// Stores the tree, as a checkpoint does.
    fn checkpoint(&mut self) {
        self.tree.store().unwrap();
    }

    fn make(&mut self, parent: Ino, name: &[u8], kind: FileKind) -> Result<Ino> {
        let (ino, time) = (self.next_ino(), self.now());
        let target: &[u8] = if kind == FileKind::Symlink { b"target" } else { b"" };
        let args = CreateArgs { parent, name, ino, kind, mode: 0o755, uid: 1, gid: 2, rdev: 0, target, time };
        self.live().create(&args).map(|_| ino)
    }

    fn file(&mut self, parent: Ino, name: &[u8]) -> Ino {
        self.make(parent, name, FileKind::Regular).unwrap()
    }

    fn dir(&mut self, parent: Ino, name: &[u8]) -> Ino {
        self.make(parent, name, FileKind::Directory).unwrap()
    }

    fn link(&mut self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Inode> {
        let time = self.now();
        self.live().link(&LinkArgs { ino, parent, name, time })
    }

    fn unlink(&mut self, parent: Ino, name: &[u8]) -> Result<Removed> {
        let time = self.now();
        self.live().unlink(parent, name, time)
    }

    fn rmdir(&mut self, parent: Ino, name: &[u8]) -> Result<Removed> {
        let time = self.now();
        self.live().rmdir(parent, name, time)
    }

    fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8])) -> Result<Renamed> {
        self.rename_with(from, to, RenameFlags::default())
    }

    fn rename_with(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), flags: RenameFlags) -> Result<Renamed> {
        let time = self.now();
        let whiteout = flags.whiteout.then(|| self.next_ino());
        let ((parent, name), (new_parent, new_name)) = (from, to);
        self.live().rename(&RenameArgs { parent, name, new_parent, new_name, flags, whiteout, time })
    }

    fn inode(&self, ino: Ino) -> Inode {
        self.view().inode(ino).unwrap()
    }

    /// The names of a directory, without `.` and `..`, in the order of a listing.
    fn list(&self, dir: Ino) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        let mut take = |entry: DirEntry<'_>| {
            if entry.cookie > COOKIE_PARENT {
                names.push(entry.name.to_vec());
            }
            ControlFlow::Continue(())
        };
        self.view().read_dir(dir, 0, &mut take).unwrap();
        names
    }

    fn orphans(&self) -> Vec<Ino> {
        let mut orphans = Vec::new();
        let mut take = |ino| {
            orphans.push(ino);
            Ok(ControlFlow::Continue(()))
        };
        self.view().orphans(&mut take).unwrap();
        orphans
    }

    /// All records of the tree.
    fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = Vec::new();
        let mut take = |key: &[u8], value: &[u8]| {
            records.push((key.to_vec(), value.to_vec()));
            Ok(ControlFlow::Continue(()))
        };
        self.tree.scan(&[0; 9], &[255; 9], &mut take).unwrap();
        records
    }
}

/// A store of nodes in memory, for trees larger than the cache.
#[derive(Default)]
struct MemoryNodes(Mutex<HashMap<BlobId, Arc<[u8]>>>);

impl NodeStore for MemoryNodes {
    fn get(&self, id: &BlobId) -> Result<Arc<[u8]>> {
        let node = self.0.lock().get(id).cloned();
        node.ok_or_else(|| vellum_store::Error::BlobMissing { id: *id }.into())
    }

    fn put(&self, bytes: Vec<u8>, _interior: bool) -> Result<BlobId> {
        let id = BlobId(*blake3::hash(&bytes).as_bytes());
        self.0.lock().insert(id, bytes.into());
        Ok(id)
    }
}

/// Small nodes give trees of some depth from few records.
fn empty_tree() -> Tree {
    Tree::empty(Arc::new(MemoryNodes::default()), NodeCache::new(1 << 20)).with_node_bytes(1024)
}

fn colliding_cookie(_: &[u8; 32], name: &[u8]) -> u64 {
    (u64::from(name[0] & 3) + 1) << 16
}

/// A small generator of random numbers, the same for the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
