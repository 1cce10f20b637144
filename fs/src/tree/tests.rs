//! Tests of the tree, against an ordered map and over a store that can fail.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use super::{node::NODE_BYTES_MAX, *};
use crate::format::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

mod undo;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Change = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

/// Nodes in a map, with counts of what was asked for, and a switch that makes everything fail.
#[derive(Default)]
struct MapStore {
    nodes: Mutex<HashMap<BlobId, Arc<[u8]>>>,
    puts: AtomicUsize,
    gets: AtomicUsize,
    broken: AtomicBool,
}

impl MapStore {
    fn fail_if_broken(&self) -> Result<()> {
        let broken = self.broken.load(Ordering::Relaxed);
        if broken { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn take_counts(&self) -> (usize, usize) {
        (self.puts.swap(0, Ordering::Relaxed), self.gets.swap(0, Ordering::Relaxed))
    }
}

impl NodeStore for MapStore {
    fn get(&self, id: &BlobId) -> Result<Arc<[u8]>> {
        self.fail_if_broken()?;
        self.gets.fetch_add(1, Ordering::Relaxed);
        let node = self.nodes.lock().get(id).cloned();
        node.ok_or_else(|| vellum_store::Error::BlobMissing { id: *id }.into())
    }

    fn put(&self, bytes: Vec<u8>, _interior: bool) -> Result<BlobId> {
        self.fail_if_broken()?;
        self.puts.fetch_add(1, Ordering::Relaxed);
        assert!(bytes.len() <= NODE_BYTES_MAX);
        let id = BlobId(*blake3::hash(&bytes).as_bytes());
        self.nodes.lock().insert(id, bytes.into());
        Ok(id)
    }
}

/// A small generator of numbers, so that a printed seed repeats a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Keys that share prefixes, with some long ones.
    fn key(&mut self) -> Vec<u8> {
        let length = if self.below(50) == 0 { KEY_BYTES_MAX } else { 1 + self.below(6) };
        (0..length).map(|_| self.below(6) as u8).collect()
    }

    fn value(&mut self) -> Vec<u8> {
        let length = if self.below(40) == 0 { self.below(VALUE_BYTES_MAX + 1) } else { self.below(60) };
        self.bytes(length)
    }
}

fn new_tree(node_bytes: usize) -> (Arc<MapStore>, Tree) {
    let store = Arc::new(MapStore::default());
    let tree = Tree::empty(store.clone(), NodeCache::new(1 << 20)).with_node_bytes(node_bytes);
    (store, tree)
}

fn records(tree: &Tree) -> Model {
    let mut found = Model::new();
    tree.scan_from(&[], &mut |key, value| {
        assert!(found.last_key_value().is_none_or(|(last, _)| last.as_slice() < key), "keys come in order");
        found.insert(key.to_vec(), value.to_vec());
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    found
}

/// Checks the invariants of every node, and returns the bytes of those that are not stored.
fn check_nodes(tree: &Tree) -> usize {
    fn check(nodes: &Nodes, node: &Node, low: Option<&[u8]>, high: Option<&[u8]>) -> usize {
        assert!(node.size() <= NODE_BYTES_MAX);
        let first = usize::from(node.level() > 0);
        for at in first..node.count() {
            assert!(low.is_none_or(|low| node.key(at) >= low), "above the lower bound");
            assert!(high.is_none_or(|high| node.key(at) < high), "below the upper bound");
        }
        let mut dirty = if node.stored().is_none() { node.size() } else { 0 };
        if node.level() > 0 {
            assert!(node.count() > 0, "an interior node has children");
            for at in 0..node.count() {
                let child = nodes.child(node, at).unwrap();
                assert!(child.count() > 0, "no node below the root is empty");
                assert!(node.stored().is_none() || child.stored().is_some(), "all below a stored node is stored");
                let low = if at > 0 { Some(node.key(at)) } else { low };
                let high = if at + 1 < node.count() { Some(node.key(at + 1)) } else { high };
                dirty += check(nodes, &child, low, high);
            }
        }
        dirty
    }
    check(&tree.nodes, &tree.root, None, None)
}

fn leaf_fill(tree: &Tree, node_bytes: usize) -> f64 {
    fn leaves(nodes: &Nodes, node: &Node, count: &mut usize, bytes: &mut usize) {
        if node.level() == 0 {
            *count += 1;
            *bytes += node.size();
            return;
        }
        (0..node.count()).for_each(|at| leaves(nodes, &nodes.child(node, at).unwrap(), count, bytes));
    }
    let (mut count, mut bytes) = (0, 0);
    leaves(&tree.nodes, &tree.root, &mut count, &mut bytes);
    bytes as f64 / (count * node_bytes) as f64
}

fn compare(tree: &Tree, model: &Model, random: &mut Random) {
    for _ in 0..4 {
        let (a, b) = (random.key(), random.key());
        assert_eq!(tree.get(&a).unwrap().as_ref(), model.get(&a));
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        assert_eq!(tree.first_at_or_after(&a).unwrap(), model.range(a.clone()..).next().map(owned));
        assert_eq!(tree.last_at_or_before(&a).unwrap(), model.range(..=a.clone()).next_back().map(owned));
        let mut keys = Vec::new();
        tree.scan(&a, &b, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        let expected: Vec<_> = if a < b { model.range(a..b).map(|(key, _)| key.clone()).collect() } else { Vec::new() };
        assert_eq!(keys, expected);
    }
}

fn random_run(seed: u64, node_bytes: usize, steps: usize) {
    println!("seed {seed}, nodes of {node_bytes}");
    let mut random = Random(seed);
    let (store, mut tree) = new_tree(node_bytes);
    let mut model = Model::new();
    let mut snapshots: Vec<(Tree, Model)> = Vec::new();
    for step in 0..steps {
        match random.below(100) {
            0..60 => {
                let (key, value) = (random.key(), random.value());
                assert_eq!(tree.insert(&key, &value).unwrap(), model.insert(key, value).is_none());
            }
            60..88 => {
                let key = random.key();
                let key = tree.first_at_or_after(&key).unwrap().map_or(key, |(found, _)| found);
                assert_eq!(tree.remove(&key).unwrap(), model.remove(&key).is_some());
                assert!(!tree.remove(&key).unwrap());
            }
            88..90 => {
                let (from, to) = (random.key(), random.key());
                let before = model.len();
                model.retain(|key, _| *key < from || *key >= to);
                assert_eq!(tree.remove_range(&from, &to).unwrap(), model.len() < before);
            }
            90..94 => {
                snapshots.push((tree.clone(), model.clone()));
                if snapshots.len() > 4 {
                    let (tree, model) = snapshots.swap_remove(random.below(4));
                    assert_eq!(records(&tree), model, "a clone kept what it was, step {step}");
                }
            }
            94..97 if !snapshots.is_empty() => {
                let at = random.below(snapshots.len());
                snapshots[at].0.store().unwrap();
                tree.release_stored();
                assert_eq!(check_nodes(&tree), tree.dirty_bytes());
            }
            97 => {
                let root = tree.store().unwrap();
                assert_eq!((tree.root_id(), tree.dirty_bytes()), (Some(root), 0));
                tree = Tree::load(store.clone(), NodeCache::new(64 << 10), &root).unwrap().with_node_bytes(node_bytes);
            }
            _ => compare(&tree, &model, &mut random),
        }
        if step % 500 == 0 {
            check_nodes(&tree);
            assert_eq!(records(&tree), model);
        }
    }
    check_nodes(&tree);
    assert_eq!(records(&tree), model);
    for (mut snapshot, model) in snapshots {
        let root = snapshot.store().unwrap();
        let loaded = Tree::load(store.clone(), NodeCache::new(0), &root).unwrap();
        assert_eq!(records(&loaded), model);
    }
}

#[test]
fn random_changes_give_what_a_sorted_map_gives() {
    for seed in 0..6 {
        random_run(seed, 512, 3000);
    }
    random_run(77, 16 << 10, 4000);
    random_run(78, NODE_BYTES_MAX, 4000);
}

#[test]
fn dirty_bytes_are_exact_without_clones() {
    let mut random = Random(5);
    let (_, mut tree) = new_tree(1024);
    for step in 0..6000 {
        let shrink = step / 1000 % 2 == 1;
        if random.below(10) < if shrink { 2 } else { 8 } {
            tree.insert(&random.key(), &random.value()).unwrap();
        } else if random.below(20) == 0 {
            tree.remove_range(&random.key(), &random.key()).unwrap();
        } else if let Some((key, _)) = tree.first_at_or_after(&random.key()).unwrap() {
            tree.remove(&key).unwrap();
        }
        if step % 100 == 0 {
            assert_eq!(check_nodes(&tree), tree.dirty_bytes(), "step {step}");
        }
        if random.below(700) == 0 {
            tree.store().unwrap();
        }
    }
}

#[test]
fn keys_in_order_leave_nodes_full() {
    let (_, mut tree) = new_tree(4096);
    for i in 0..20_000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    let fill = leaf_fill(&tree, 4096);
    assert!(fill > 0.97, "{fill}");
}

#[test]
fn several_sequences_at_once_and_strays_still_leave_nodes_nearly_full() {
    let (_, mut tree) = new_tree(4096);
    let mut random = Random(3);
    for i in 0..8000u32 {
        for stream in 0..3u8 {
            tree.insert(&[&[stream][..], &i.to_be_bytes()].concat(), &[7; 40]).unwrap();
        }
        if i % 8 == 0 {
            tree.insert(&[&[3][..], &random.bytes(6)].concat(), &[7; 20]).unwrap();
        }
    }
    let fill = leaf_fill(&tree, 4096);
    assert!(fill > 0.9, "{fill}");
}

#[test]
fn keys_in_any_order_leave_nodes_more_than_half_full() {
    let (_, mut tree) = new_tree(4096);
    let mut random = Random(4);
    for _ in 0..20_000 {
        tree.insert(&random.bytes(8), &[7; 40]).unwrap();
    }
    let fill = leaf_fill(&tree, 4096);
    assert!(fill > 0.6, "{fill}");
    // A falling sequence must not leave one record a node either.
    let (_, mut tree) = new_tree(4096);
    for i in (0..20_000u32).rev() {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    assert!(leaf_fill(&tree, 4096) > 0.45);
}

#[test]
fn a_change_after_storing_stores_one_path() {
    let (store, mut tree) = new_tree(4096);
    for i in 0..50_000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    tree.store().unwrap();
    store.take_counts();
    tree.insert(&25_000u32.to_be_bytes(), &[8; 40]).unwrap();
    tree.store().unwrap();
    assert_eq!(store.take_counts().0, tree.depth());
    // A state that equals an earlier one is the same blobs.
    tree.insert(&25_000u32.to_be_bytes(), &[7; 40]).unwrap();
    let known = store.nodes.lock().len();
    tree.store().unwrap();
    assert_eq!(store.nodes.lock().len(), known);
    store.take_counts();
    tree.store().unwrap();
    assert_eq!(store.take_counts().0, 0, "an unchanged tree stores nothing");
}

#[test]
fn emptying_a_tree_leaves_one_leaf_and_few_nodes_on_the_way() {
    let (_, mut tree) = new_tree(4096);
    for i in 0..20_000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    for i in (0..20_000u32).filter(|i| i % 50 != 0) {
        tree.remove(&i.to_be_bytes()).unwrap();
    }
    check_nodes(&tree);
    assert!(leaf_fill(&tree, 4096) > 0.25, "{}", leaf_fill(&tree, 4096));
    for i in (0..20_000u32).filter(|i| i % 50 == 0) {
        assert!(tree.remove(&i.to_be_bytes()).unwrap());
    }
    assert!(tree.is_empty());
    assert_eq!(tree.depth(), 1);
    assert_eq!(tree.dirty_bytes(), tree.root.size());
}

#[test]
fn removing_a_range_reads_only_its_edges() {
    let (store, mut tree) = new_tree(4096);
    for i in 0..100_000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    let root = tree.store().unwrap();
    let end = u32::MAX.to_be_bytes();
    let ranges = [
        (100u32.to_be_bytes().to_vec(), 99_900u32.to_be_bytes().to_vec(), 200),
        (vec![], 99_900u32.to_be_bytes().to_vec(), 100),
        (100u32.to_be_bytes().to_vec(), end.to_vec(), 100),
        (vec![], end.to_vec(), 0),
    ];
    for (from, to, left) in ranges {
        let cache = NodeCache::new(1 << 20);
        let mut tree = Tree::load(store.clone(), cache, &root).unwrap().with_node_bytes(4096);
        store.take_counts();
        assert!(tree.remove_range(&from, &to).unwrap());
        let (_, gets) = store.take_counts();
        assert!(gets <= 4 * 3, "{gets} nodes read");
        assert_eq!(records(&tree).len(), left);
        check_nodes(&tree);
        assert!(!tree.remove_range(&from, &to).unwrap());
    }
}

#[test]
fn a_failing_store_changes_no_record() {
    let (store, mut tree) = new_tree(1024);
    for i in 0..5000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    store.broken.store(true, Ordering::Relaxed);
    assert!(tree.store().is_err());
    store.broken.store(false, Ordering::Relaxed);
    assert_eq!(records(&tree).len(), 5000);
    let root = tree.store().unwrap();

    let mut tree = Tree::load(store.clone(), NodeCache::new(0), &root).unwrap().with_node_bytes(1024);
    store.broken.store(true, Ordering::Relaxed);
    for i in (0..5000u32).step_by(500) {
        assert!(tree.get(&i.to_be_bytes()).is_err());
        assert!(tree.insert(&i.to_be_bytes(), b"other").is_err());
        assert!(tree.remove(&i.to_be_bytes()).is_err());
        assert!(tree.remove_range(&i.to_be_bytes(), &(i + 1).to_be_bytes()).is_err());
    }
    store.broken.store(false, Ordering::Relaxed);
    check_nodes(&tree);
    assert_eq!(records(&tree).len(), 5000);
    assert!(records(&tree).values().all(|value| value == &[7; 40]));
}

#[test]
fn after_a_failed_commit_everything_can_be_stored_again() {
    let (store, mut tree) = new_tree(512);
    for i in 0..3000u32 {
        tree.insert(&i.to_be_bytes(), b"committed").unwrap();
    }
    let mut frozen = tree.clone();
    frozen.store().unwrap();
    tree.release_stored();
    let committed = store.nodes.lock().clone();
    for i in (0..3000u32).step_by(7) {
        tree.insert(&i.to_be_bytes(), b"lost and found").unwrap();
    }
    tree.clone().store().unwrap();
    // The commit fails, and the store drops what it had only in memory.
    *store.nodes.lock() = committed;
    for i in (0..3000u32).step_by(11) {
        tree.remove(&i.to_be_bytes()).unwrap();
    }
    let expected = records(&tree);
    let root = tree.clone().store_again().unwrap();
    tree.release_stored();
    tree.nodes.cache.clear();
    assert_eq!(records(&Tree::load(store, NodeCache::new(0), &root).unwrap()), expected);
    assert_eq!(records(&tree), expected);
}

#[test]
fn a_clone_is_stored_while_the_original_goes_on() {
    let (store, mut tree) = new_tree(1024);
    let mut random = Random(11);
    let mut model = Model::new();
    for round in 0..8 {
        for _ in 0..300 {
            let (key, value) = (random.key(), random.bytes(30));
            tree.insert(&key, &value).unwrap();
            model.insert(key, value);
        }
        let mut frozen = tree.clone();
        let expected = model.clone();
        let root = std::thread::scope(|scope| {
            let storing = scope.spawn(move || frozen.store().unwrap());
            for _ in 0..300 {
                let (key, value) = (random.key(), random.bytes(30));
                tree.insert(&key, &value).unwrap();
                model.insert(key, value);
            }
            storing.join().unwrap()
        });
        tree.release_stored();
        assert_eq!(check_nodes(&tree), tree.dirty_bytes());
        assert_eq!(records(&Tree::load(store.clone(), NodeCache::new(0), &root).unwrap()), expected, "round {round}");
        assert_eq!(records(&tree), model);
    }
}

#[test]
fn memory_is_the_cache_after_storing_and_the_cache_keeps_its_bound() {
    const BOUND: usize = 1 << 20;
    let store = Arc::new(MapStore::default());
    let cache = NodeCache::new(BOUND);
    let mut tree = Tree::empty(store.clone(), cache.clone()).with_node_bytes(4096);
    for i in 0..100_000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 60]).unwrap();
        assert!(i % 10_000 != 0 || cache.bytes() <= BOUND);
    }
    let live = tree.clone();
    tree.store().unwrap();
    let mut live = live;
    live.insert(&5u32.to_be_bytes(), b"dirty").unwrap();
    live.release_stored();
    let resident = (0..live.root.count()).filter(|&at| live.root.resident(at).is_some()).count();
    assert_eq!(resident, 1, "only the changed path stays in memory");
    assert!(live.dirty_bytes() <= 3 * 4096, "{}", live.dirty_bytes());
    let mut random = Random(9);
    for _ in 0..20_000 {
        tree.get(&(random.below(100_000) as u32).to_be_bytes()).unwrap();
    }
    assert!(cache.bytes() <= BOUND && cache.bytes() > BOUND / 2, "{}", cache.bytes());
    cache.clear();
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn the_cache_forgets_what_was_changed_and_the_change_copies_nothing() {
    let (store, mut tree) = new_tree(4096);
    for i in 0..5000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 60]).unwrap();
    }
    let root = tree.store().unwrap();
    let cache = NodeCache::new(16 << 20);
    let mut tree = Tree::load(store, cache.clone(), &root).unwrap().with_node_bytes(4096);
    let key = |i: u32| i.to_be_bytes();
    tree.get(&key(777)).unwrap();
    let (read, place) = (cache.bytes(), leaf_place(&tree, &key(777)));
    tree.insert(&key(777), &[8; 60]).unwrap();
    assert_eq!(leaf_place(&tree, &key(777)), place, "the leaf is changed where it is");
    assert!(cache.bytes() < read, "{} of {read}", cache.bytes());
    // The older version can still be read, from the store.
    let older = tree.at_root(&root).unwrap();
    assert_eq!(older.get(&key(777)).unwrap().as_deref(), Some(&[7; 60][..]));
    assert_eq!(tree.get(&key(777)).unwrap().as_deref(), Some(&[8; 60][..]));
}

/// Where in memory the leaf of a key is.
fn leaf_place(tree: &Tree, key: &[u8]) -> *const Node {
    let mut node = Arc::clone(&tree.root);
    while node.level() > 0 {
        node = tree.nodes.child(&node, node.child_index(key)).unwrap();
    }
    Arc::as_ptr(&node)
}

#[test]
fn a_scan_does_not_drive_out_what_is_used_again_and_again() {
    let (store, mut tree) = new_tree(4096);
    for i in 0..100_000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 60]).unwrap();
    }
    let root = tree.store().unwrap();
    let tree = Tree::load(store.clone(), NodeCache::new(2 << 20), &root).unwrap();
    let hot: Vec<_> = (0..40u32).map(|i| (i * 64).to_be_bytes()).collect();
    hot.iter().chain(&hot).for_each(|key| assert!(tree.contains(key).unwrap()));
    let mut count = 0u32;
    tree.scan_from(&[], &mut |_, _| {
        count += 1;
        if count.is_multiple_of(2000) {
            hot.iter().for_each(|key| assert!(tree.contains(key).unwrap()));
        }
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    store.take_counts();
    hot.iter().for_each(|key| assert!(tree.contains(key).unwrap()));
    assert!(store.take_counts().1 <= 4, "the working set stayed");
}

#[test]
fn hostile_nodes_give_errors_and_never_a_panic() {
    let mut random = Random(21);
    let id = BlobId([0; 32]);
    let mut leaf = Node::empty(0);
    let mut interior = Node::empty(1);
    for i in 0..40u16 {
        leaf.insert_cell(i.into(), &i.to_be_bytes(), &random.bytes(20));
        let bound = if i > 0 { &i.to_be_bytes()[..] } else { &[] };
        interior.insert_cell(i.into(), bound, &random.bytes(32));
    }
    let mut accepted = 0;
    for good in [leaf.encode(), interior.encode()] {
        assert!(Node::decode(&id, &good).is_ok());
        for cut in 0..good.len() {
            assert!(Node::decode(&id, &good[..cut]).is_err());
        }
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..=random.below(3) {
                let at = if random.below(3) == 0 { random.below(16) } else { random.below(bad.len()) };
                bad[at] = random.next() as u8;
            }
            let Ok(node) = Node::decode(&id, &bad) else { continue };
            accepted += 1;
            assert_eq!(node.encode(), bad, "what is accepted is what would be written");
            node.search(&random.key()).ok();
            node.child_index(&random.key());
        }
    }
    assert!(accepted > 1000, "changed values are not for nodes to judge");
    for _ in 0..5000 {
        let length = random.below(300);
        assert!(Node::decode(&id, &random.bytes(length)).is_err());
    }
    assert!(Node::decode(&id, &vec![0; NODE_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_child_on_the_wrong_level_is_damage() {
    let (store, _) = new_tree(512);
    let mut leaf = Node::empty(0);
    leaf.insert_cell(0, b"k", b"v");
    let leaf = store.put(leaf.encode(), false).unwrap();
    let mut root = Node::empty(2);
    root.insert_cell(0, b"", leaf.as_bytes());
    let root = store.put(root.encode(), true).unwrap();
    let mut tree = Tree::load(store, NodeCache::new(1 << 20), &root).unwrap();
    assert!(tree.get(b"k").unwrap_err().is_damage());
    assert!(tree.insert(b"k", b"w").unwrap_err().is_damage());
    assert!(tree.scan_from(b"", &mut |_, _| Ok(ControlFlow::Continue(()))).unwrap_err().is_damage());
}

/// A few nodes whose cells all lead to one empty leaf made walks that never came to a record, and never to an end.
#[test]
fn an_empty_node_below_another_is_damage() {
    let (store, _) = new_tree(512);
    let leaf = store.put(Node::empty(0).encode(), false).unwrap();
    let mut root = Node::empty(1);
    root.insert_cell(0, b"", leaf.as_bytes());
    let root = store.put(root.encode(), true).unwrap();
    let tree = Tree::load(store.clone(), NodeCache::new(1 << 20), &root).unwrap();
    assert!(tree.get(b"k").unwrap_err().is_damage());
    assert!(tree.scan_from(b"", &mut |_, _| Ok(ControlFlow::Continue(()))).unwrap_err().is_damage());
    // As the root of an empty tree it is right.
    let empty = Tree::load(store, NodeCache::new(1 << 20), &leaf).unwrap();
    assert_eq!(empty.get(b"k").unwrap(), None);
}

#[test]
fn the_largest_records_fit_any_node_size() {
    for node_bytes in [512, 8192, 16 << 10, NODE_BYTES_MAX] {
        let (store, mut tree) = new_tree(node_bytes);
        for i in 0..200u8 {
            let key = [vec![i; 100], vec![0; KEY_BYTES_MAX - 100]].concat();
            tree.insert(&key, &vec![i; VALUE_BYTES_MAX - usize::from(i % 3)]).unwrap();
            tree.insert(&[i, 0], b"small").unwrap();
        }
        let root = tree.store().unwrap();
        assert_eq!(records(&Tree::load(store, NodeCache::new(1 << 20), &root).unwrap()).len(), 400);
    }
}

#[test]
fn a_visit_meets_every_node_once_and_skips_what_it_is_told_to() {
    #[derive(Default)]
    struct Census {
        nodes: Vec<BlobId>,
        records: usize,
        skip: Option<BlobId>,
        failures: usize,
    }
    impl Visitor for Census {
        fn enter(&mut self, id: &BlobId, _level: u8) -> Result<ControlFlow<()>> {
            self.nodes.push(*id);
            Ok(if self.skip == Some(*id) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        }
        fn record(&mut self, _key: &[u8], _value: &[u8]) -> Result<()> {
            self.records += 1;
            Ok(())
        }
        fn failed(&mut self, _id: &BlobId, _span: Span<'_>, _error: Error) -> Result<()> {
            self.failures += 1;
            Ok(())
        }
    }
    let (store, mut tree) = new_tree(512);
    for i in 0..3000u32 {
        tree.insert(&i.to_be_bytes(), b"value").unwrap();
    }
    tree.store().unwrap();
    let mut all = Census::default();
    tree.visit(&mut all).unwrap();
    assert_eq!((all.nodes.len(), all.records), (store.nodes.lock().len(), 3000));
    let mut none = Census { skip: tree.root_id(), ..Census::default() };
    tree.visit(&mut none).unwrap();
    assert_eq!((none.nodes.len(), none.records), (1, 0));

    let leaf = *all.nodes.last().unwrap();
    store.nodes.lock().remove(&leaf);
    tree.nodes.cache.clear();
    let mut rest = Census::default();
    tree.visit(&mut rest).unwrap();
    assert_eq!(rest.failures, 1);
    assert!(rest.records < 3000 && rest.records > 2900);
}

fn differences(a: &Tree, b: &Tree) -> Vec<Change> {
    let mut found = Vec::new();
    a.diff(b, &mut |key, old, new| {
        found.push((key.to_vec(), old.map(<[u8]>::to_vec), new.map(<[u8]>::to_vec)));
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    found
}

#[test]
fn the_difference_of_two_trees_is_that_of_two_maps() {
    for seed in 0..30 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (_, mut a) = new_tree(512);
        let mut model_a = Model::new();
        for _ in 0..random.below(1500) {
            let (key, value) = (random.key(), random.bytes(20));
            a.insert(&key, &value).unwrap();
            model_a.insert(key, value);
        }
        if random.below(2) == 0 {
            a.store().unwrap();
        }
        let (mut b, mut model_b) = (a.clone(), model_a.clone());
        for _ in 0..random.below(200) {
            let key = random.key();
            if random.below(3) == 0 {
                assert_eq!(b.remove(&key).unwrap(), model_b.remove(&key).is_some());
            } else {
                let value = random.bytes(20);
                b.insert(&key, &value).unwrap();
                model_b.insert(key, value);
            }
        }
        if random.below(4) == 0 {
            let (from, to) = (random.key(), random.key());
            b.remove_range(&from, &to).unwrap();
            model_b.retain(|key, _| *key < from || *key >= to);
        }
        if random.below(2) == 0 {
            b.store().unwrap();
        }
        let keys: std::collections::BTreeSet<_> = model_a.keys().chain(model_b.keys()).collect();
        let expected: Vec<_> = keys
            .into_iter()
            .filter(|key| model_a.get(*key) != model_b.get(*key))
            .map(|key| (key.clone(), model_a.get(key).cloned(), model_b.get(key).cloned()))
            .collect();
        assert_eq!(differences(&a, &b), expected);
        assert!(differences(&b, &b.clone()).is_empty());
    }
}

#[test]
fn a_difference_reads_only_where_the_trees_differ() {
    let (store, mut tree) = new_tree(4096);
    for i in 0..100_000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    let old = tree.store().unwrap();
    for i in [5u32, 50_000, 50_001, 99_999] {
        tree.insert(&i.to_be_bytes(), &[8; 3]).unwrap();
    }
    // A split and a merge shift the boundaries of leaves, not what the others hold.
    tree.insert(&[&20_000u32.to_be_bytes()[..], b"between"].concat(), &[8; 4000]).unwrap();
    tree.remove_range(&70_000u32.to_be_bytes(), &70_075u32.to_be_bytes()).unwrap();
    let new = tree.store().unwrap();
    store.take_counts();
    let load = |root| Tree::load(store.clone(), NodeCache::new(0), root).unwrap();
    let found = differences(&load(&old), &load(&new));
    assert_eq!(found.len(), 4 + 1 + 75);
    let (_, gets) = store.take_counts();
    assert!(gets < 60, "{gets} nodes read of {}", store.nodes.lock().len());
}
