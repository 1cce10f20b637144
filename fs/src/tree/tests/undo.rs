//! Changes that fail half-way, over a store from which nothing can be read at that moment.

use super::*;

/// Often one that fills most of a small node, so that splits leave leaves of one cell.
fn large_value(random: &mut Random) -> Vec<u8> {
    let length = if random.below(3) == 0 { 150 + random.below(350) } else { random.below(60) };
    random.bytes(length)
}

/// Up to `count` random changes of the tree and the model, a third of them inside a nested change that may fail by itself.
fn change_some(tree: &mut Tree, model: &mut Model, random: &mut Random, count: usize) {
    for _ in 0..random.below(count + 1) {
        match random.below(100) {
            0..45 => {
                let (key, value) = (random.key(), large_value(random));
                tree.insert(&key, &value).unwrap();
                model.insert(key, value);
            }
            45..80 => {
                let key = random.key();
                let key = tree.first_at_or_after(&key).unwrap().map_or(key, |(found, _)| found);
                assert_eq!(tree.remove(&key).unwrap(), model.remove(&key).is_some());
            }
            80..84 => {
                let (from, to) = (random.key(), random.key());
                tree.remove_range(&from, &to).unwrap();
                model.retain(|key, _| *key < from || *key >= to);
            }
            _ => {
                let mut inner = model.clone();
                let fails = random.below(2) == 0;
                let outcome = tree.atomically(|tree| {
                    change_some(tree, &mut inner, random, count / 3);
                    if fails { Err(Error::Interrupted) } else { Ok(()) }
                });
                assert_eq!(outcome.is_err(), fails);
                if !fails {
                    *model = inner;
                }
            }
        }
    }
}

fn random_run(seed: u64, node_bytes: usize, rounds: usize) {
    println!("seed {seed}, nodes of {node_bytes}");
    let mut random = Random(seed);
    let (store, mut tree) = new_tree(node_bytes);
    let mut model = Model::new();
    for round in 0..rounds {
        let fails = random.below(2) == 0;
        let (before, mut changed) = (tree.clone(), model.clone());
        // Sometimes nodes are shared with a clone, mostly they are the tree's own.
        let before = (random.below(4) == 0).then_some(before);
        let outcome = tree.atomically(|tree| {
            // Growing and shrinking in turn, so that leaves come and go.
            change_some(tree, &mut changed, &mut random, if round % 7 == 0 { 60 } else { 12 });
            // From here on, reading a node would fail: taking back must not need one.
            store.broken.store(fails, Ordering::Relaxed);
            if fails { Err(Error::Interrupted) } else { Ok(()) }
        });
        store.broken.store(false, Ordering::Relaxed);
        assert_eq!(outcome.is_err(), fails);
        assert!(tree.torn.is_none() && tree.undo.is_none(), "round {round}");
        if let Some(before) = before {
            assert_eq!(records(&before), model, "a clone kept what it was, round {round}");
        }
        if !fails {
            model = changed;
        }
        assert_eq!(records(&tree), model, "round {round}");
        check_nodes(&tree);
        if random.below(3) == 0 {
            let root = tree.store().unwrap();
            tree = Tree::load(store.clone(), NodeCache::new(0), &root).unwrap().with_node_bytes(node_bytes);
        }
        if random.below(60) == 0 {
            // To a nearly empty tree, whose leaves have few cells.
            tree.remove_range(&[], &[4]).unwrap();
            model.retain(|key, _| key.as_slice() >= &[4][..]);
        }
    }
}

#[test]
fn what_fails_is_taken_back_without_reading_a_node() {
    for seed in 0..8 {
        random_run(seed, 512, 400);
    }
    random_run(9, 4096, 600);
}

#[test]
fn a_leaf_that_only_the_change_made_is_emptied_last() {
    let (store, mut tree) = new_tree(512);
    for i in 0..200u32 {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    let root = tree.store().unwrap();
    for i in 0..200u32 {
        let mut tree = Tree::load(store.clone(), NodeCache::new(0), &root).unwrap().with_node_bytes(512);
        let failed = tree.atomically(|tree| {
            tree.remove(&i.to_be_bytes())?;
            // Alone in its leaf after the split, wherever the key stands.
            tree.insert(&i.to_be_bytes(), &[8; 490])?;
            store.broken.store(true, Ordering::Relaxed);
            Err::<(), _>(Error::Interrupted)
        });
        store.broken.store(false, Ordering::Relaxed);
        assert!(failed.is_err() && tree.torn.is_none(), "key {i}");
        assert!(records(&tree).values().all(|value| value == &[7; 40]), "key {i}");
        assert_eq!(records(&tree).len(), 200);
        check_nodes(&tree);
    }
}

#[test]
fn a_tree_whose_change_unwinds_is_used_no_more() {
    let (_, mut tree) = new_tree(512);
    tree.insert(b"one", b"1").unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tree.atomically(|tree| -> Result<()> {
            tree.insert(b"two", b"2")?;
            std::panic::resume_unwind(Box::new("half-way"))
        })
    }));
    assert!(unwound.is_err());
    assert!(tree.get(b"one").is_err() && tree.insert(b"one", b"3").is_err() && tree.store().is_err());
    assert!(tree.clone().first_at_or_after(b"").is_err() && tree.atomically(|_| Ok(())).is_err());
}

#[test]
fn a_node_that_cannot_be_read_leaves_all_records_as_they_were() {
    let (store, mut tree) = new_tree(512);
    for i in 0..2000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    let root = tree.store().unwrap();
    let mut tree = Tree::load(store.clone(), NodeCache::new(0), &root).unwrap().with_node_bytes(512);
    let failed = tree.atomically(|tree| {
        tree.insert(&3u32.to_be_bytes(), b"other")?;
        tree.insert(b"new", b"one")?;
        tree.remove(&4u32.to_be_bytes())?;
        tree.remove_range(&5u32.to_be_bytes(), &900u32.to_be_bytes())?;
        store.broken.store(true, Ordering::Relaxed);
        tree.insert(&1900u32.to_be_bytes(), b"other")
    });
    assert!(failed.is_err());
    store.broken.store(false, Ordering::Relaxed);
    assert!(records(&tree).values().all(|value| value == &[7; 40]));
    assert_eq!(tree.store().unwrap(), root, "the same records in the same nodes");
}

#[test]
fn changes_in_place_copy_no_node() {
    let (_, mut tree) = new_tree(16 << 10);
    for i in 0..20_000u32 {
        tree.insert(&i.to_be_bytes(), &[7; 40]).unwrap();
    }
    let leaf = |tree: &Tree| Arc::as_ptr(tree.root.resident(5).unwrap());
    let (root, fifth) = (Arc::as_ptr(&tree.root), leaf(&tree));
    let key = tree.root.key(5).to_vec();
    tree.atomically(|tree| tree.insert(&key, b"other")).unwrap();
    assert!(tree.atomically(|tree| tree.insert(&key, b"third").and(Err::<(), _>(Error::Interrupted))).is_err());
    assert_eq!(tree.get(&key).unwrap().as_deref(), Some(&b"other"[..]));
    assert_eq!((Arc::as_ptr(&tree.root), leaf(&tree)), (root, fifth));
}
