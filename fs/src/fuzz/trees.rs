//! Targets for trees: nodes that any bytes make up, and whole trees of any records under the rules of the namespace.

use std::{ops::ControlFlow, sync::Arc};

use parking_lot::Mutex;
use vellum_store::id::BlobId;

use super::{Input, records::an_op_of_each_kind};
use crate::{
    content::extents::{self, Change},
    error::{Error, Result},
    format::{
        extent::Extent,
        inode::FileKind,
        key,
        op::{self, Op},
    },
    ino::Ino,
    namespace::{Names, Namespace, NamespaceView, RootArgs},
    time::Time,
    tree::{NodeCache, NodeStore, Span, Tree, Visitor, node::Node},
    volume::records,
};

/// Nodes in memory, found by the first byte of their ids, so that an input can name them.
#[derive(Default)]
struct Numbered(Mutex<Vec<Arc<[u8]>>>);

impl Numbered {
    fn id(number: usize) -> BlobId {
        BlobId([number as u8; 32])
    }
}

impl NodeStore for Numbered {
    fn get(&self, id: &BlobId) -> Result<Arc<[u8]>> {
        let nodes = self.0.lock();
        let found = nodes.get(usize::from(id.0[0]) % nodes.len().max(1)).cloned();
        found.ok_or_else(|| vellum_store::Error::BlobMissing { id: *id }.into())
    }

    fn put(&self, bytes: Vec<u8>, _interior: bool) -> Result<BlobId> {
        let mut nodes = self.0.lock();
        if nodes.len() > usize::from(u8::MAX) {
            return Err(Error::NoSpace("more nodes than have a number".into()));
        }
        nodes.push(bytes.into());
        Ok(Self::id(nodes.len() - 1))
    }
}

/// A cache that keeps nothing: ids repeat from run to run.
fn no_cache() -> Arc<NodeCache> {
    NodeCache::new(0)
}

struct CountAll(usize);

impl Visitor for CountAll {
    fn enter(&mut self, _id: &BlobId, _level: u8) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    fn record(&mut self, _key: &[u8], _value: &[u8]) -> Result<()> {
        self.0 += 1;
        if self.0 > 10_000 { Err(Error::NoSpace("a graph with too many paths".into())) } else { Ok(()) }
    }

    fn failed(&mut self, _id: &BlobId, _span: Span<'_>, _error: Error) -> Result<()> {
        self.record(b"", b"")
    }
}

/// Nodes, each behind its length in two bytes; the first is the root. The last few bytes are keys to look for and to change.
pub(super) fn node(data: &[u8]) -> bool {
    let (nodes, keys) = data.split_at(data.len() - data.len() / 8);
    let store = Arc::new(Numbered::default());
    let mut input = Input(nodes);
    let mut accepted = 0;
    while !input.0.is_empty() {
        let length = input.u16();
        let bytes = input.take(length.into());
        if let Ok(node) = Node::decode(&Numbered::id(0), bytes) {
            assert_eq!(node.encode(), bytes);
            assert!((0..node.count()).all(|at| node.search(node.key(at)) == Ok(at)));
            accepted += 1;
        }
        // What does not fit into the numbers cannot be named.
        let _ = store.put(bytes.to_vec(), false);
    }
    let Ok(tree) = Tree::load(store.clone(), no_cache(), &Numbered::id(0)) else { return false };
    let mut changed = tree.clone().with_node_bytes(1024);
    // A graph may lead to one leaf in many ways: what is walked is bounded.
    let mut left = 2000;
    let _ = tree.scan_from(b"", &mut |_, _| {
        left -= 1;
        Ok(if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    });
    let _ = tree.visit(&mut CountAll(0));
    for key in keys.chunks(9) {
        let _ = (tree.get(key), tree.first_at_or_after(key), tree.last_at_or_before(key));
        let done = match key[0] & 3 {
            0 => changed.remove(key),
            1 => changed.remove_range(key, &[key, &[0xff]].concat()),
            _ => changed.insert(key, &vec![key[0]; usize::from(key[0]) * 4]),
        };
        if done.is_err() {
            break;
        }
        assert!(key[0] & 3 < 2 || changed.get(key).is_ok(), "what was put there can be read");
    }
    let _ = changed.store();
    left = 2000;
    let _ = tree.diff(&changed, &mut |_, _, _| {
        left -= 1;
        Ok(if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    });
    accepted > 0
}

pub(super) fn node_seeds() -> Vec<Vec<u8>> {
    let seed = |records: u64| {
        let store = Arc::new(Numbered::default());
        let mut tree = Tree::empty(store.clone(), no_cache()).with_node_bytes(512);
        for number in 0..records {
            tree.insert(&key::extent(Ino(1), number << 16), &[number as u8; 40]).expect("memory fails no read");
        }
        tree.store().expect("the numbers suffice");
        // Children go before their parents: turned round, the root is the first.
        let nodes: Vec<Arc<[u8]>> = store.0.lock().iter().rev().cloned().collect();
        let number = |old: u8| (nodes.len() - 1) as u8 - old;
        let renumber = |node: &Arc<[u8]>| {
            let mut bytes = node.to_vec();
            if bytes[2] > 0 {
                let decoded = Node::decode(&Numbered::id(0), node).expect("it was encoded right here");
                let mut end = 8;
                for at in 0..decoded.count() {
                    end += 4 + decoded.key(at).len() + 32;
                    let id = number(decoded.value(at)[0]);
                    bytes[end - 32..end].fill(id);
                }
            }
            [&(bytes.len() as u16).to_le_bytes()[..], &bytes].concat()
        };
        let all: Vec<u8> = nodes.iter().flat_map(renumber).collect();
        // An eighth of the input is keys.
        let keys = key::extent(Ino(1), 3 << 16).to_vec().repeat(all.len() / 7 / 17 + 1);
        [&all[..], &keys[..all.len().div_ceil(7)]].concat()
    };
    vec![seed(0), seed(3), seed(30), seed(100)]
}

/// Number of records; each of them kind, inode, length of the subkey, subkey, length of the value in two bytes, value. Then
/// the payload of a journal commit, whose operations are applied.
pub(super) fn tree(data: &[u8]) -> bool {
    let mut input = Input(data);
    let names = Names::new([7; 32]);
    let store = Arc::new(Numbered::default());
    let mut tree = Tree::empty(store, no_cache()).with_node_bytes(1024);
    for _ in 0..input.u8() {
        let (kind, ino, subkey_length) = (input.u8(), input.u8(), input.u8() % 200);
        let key = [&u64::from(ino).to_be_bytes()[..], &[kind], input.take(subkey_length.into())].concat();
        let length = input.u16() % 2048;
        tree.insert(&key, input.take(length.into())).expect("memory fails no read");
    }
    tree.store().expect("the numbers suffice");
    let found = read_everything(&tree, &names);
    let mut applied = false;
    let _ = op::for_each(input.0, &mut |_, op| {
        applied |= change(&mut tree, &names, &op).is_ok();
        Ok(())
    });
    read_everything(&tree, &names);
    found | applied
}

fn change(tree: &mut Tree, names: &Names, op: &Op) -> Result<()> {
    let Op::Data { ino, parts, .. } = op else {
        let before = tree.clone();
        let applied = tree.atomically(|tree| Namespace::new(tree, names).apply(op).map(drop));
        if applied.is_err() {
            // A change that fails has changed nothing.
            let mut left = 0;
            before.diff(tree, &mut |_, _, _| {
                left += 1;
                Ok(ControlFlow::Continue(()))
            })?;
            assert_eq!(left, 0, "{op:?} failed half-way");
        }
        return applied;
    };
    for part in parts {
        match part {
            op::Part::Bytes { data, .. } if data.len() < 2048 => {
                extents::apply(tree, *ino, &[Change::Inline(data.clone())])?;
            }
            op::Part::Bytes { .. } => {}
            op::Part::Zero { offset, length } if *length > 0 => {
                extents::apply(tree, *ino, &[Change::Hole { offset: *offset, length: *length }])?;
            }
            op::Part::Zero { .. } => {}
            op::Part::Extent { extent, .. } => {
                extents::apply(tree, *ino, &[Change::Extent(*extent)])?;
            }
        }
    }
    Ok(())
}

/// All that is ever read of a tree; says whether anything of it made sense.
fn read_everything(tree: &Tree, names: &Names) -> bool {
    let view = NamespaceView::new(tree, names);
    let mut found = records::state(tree).is_ok_and(|state| state.is_some());
    found |= records::snapshots(tree).is_ok_and(|list| !list.is_empty());
    let _ = (records::head(tree, 1), records::find_snapshot(tree, b"monday"));
    let _ = view.orphans(&mut |_| Ok(ControlFlow::Continue(())));
    for ino in (0..8).map(Ino) {
        found |= view.inode(ino).is_ok();
        let mut entries = Vec::new();
        let _ = view.read_dir(ino, 0, &mut |entry| {
            entries.push(entry.name.to_vec());
            ControlFlow::Continue(())
        });
        for name in entries.iter().map(Vec::as_slice).chain([&b"file"[..]]) {
            let _ = (view.lookup(ino, name), view.lookup_folded(ino, name));
        }
        let mut attributes = Vec::new();
        let _ = view.list_xattr(ino, &mut |name| {
            attributes.push(name.to_vec());
            ControlFlow::Continue(())
        });
        for name in attributes.iter().map(Vec::as_slice).chain([&b"user.a"[..]]) {
            let _ = view.get_xattr(ino, name);
        }
        let _ = (view.links_of(ino), view.read_link(ino), view.parent_of(ino));
        let _ = (view.path_of(ino), view.is_below(ino, Ino::ROOT));
        let _ = (extents::body(tree, ino), extents::is_empty(tree, ino), extents::before(tree, ino, u64::MAX));
        let _ = extents::list(tree, ino, 0..u64::MAX, 100);
        let mut at = 0;
        // Bounded, as extents that overlap may lead on for ever.
        for _ in 0..100 {
            let Ok(Some(extent)) = extents::after(tree, ino, at) else { break };
            assert!(extent.end() > at);
            at = extent.end();
        }
    }
    found
}

pub(super) fn tree_seeds() -> Vec<Vec<u8>> {
    let (names, time) = (Names::new([7; 32]), Time { sec: 1_700_000_000, nsec: 250 });
    let mut tree = Tree::empty(Arc::new(Numbered::default()), no_cache());
    let mut namespace = Namespace::new(&mut tree, &names);
    namespace.make_root(&RootArgs { uid: 1000, gid: 1000, mode: 0o755, time }).expect("the tree is empty");
    let create = |name: &[u8], ino, kind| Op::Create {
        parent: Ino::ROOT,
        name: name.to_vec(),
        ino: Ino(ino),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: if kind == FileKind::Symlink { b"to".to_vec() } else { Vec::new() },
        time,
    };
    let ops = [
        create(b"file", 2, FileKind::Regular),
        create(b"dir", 3, FileKind::Directory),
        create(b"link", 4, FileKind::Symlink),
        Op::Link { ino: Ino(2), parent: Ino(3), name: b"second".to_vec(), time },
        Op::SetXattr { ino: Ino(2), name: b"user.a".to_vec(), value: vec![5; 300], time },
    ];
    for op in &ops {
        namespace.apply(op).expect("the names are free");
    }
    let extent = |offset, length| {
        Change::Extent(Extent { offset, length, blob: BlobId([3; 32]), blob_offset: 0, blob_length: 65_536 })
    };
    extents::apply(&mut tree, Ino(2), &[extent(0, 1000), extent(5000, 65_536)]).expect("memory fails no read");
    let mut all = Vec::new();
    let mut count = 0;
    tree.scan_from(b"", &mut |key, value| {
        count += 1;
        all.extend([key[8], key[7], (key.len() - 9) as u8]);
        all.extend(&key[9..]);
        all.extend((value.len() as u16).to_le_bytes());
        all.extend(value);
        Ok(ControlFlow::Continue(()))
    })
    .expect("memory fails no read");
    let with = |ops: &[Op]| {
        let mut payload = Vec::new();
        (5..).zip(ops).for_each(|(sequence, op)| op::frame(&mut payload, &op.encode(sequence)));
        [&[count][..], &all, &payload].concat()
    };
    let ops = an_op_of_each_kind();
    vec![with(&[]), with(&ops[..5]), with(&ops[5..6]), with(&ops[8..])]
}
