//! Random histories of an index, beside a plain map that does the same.

use std::collections::HashMap;

use super::*;

/// A small generator: the seed of a failing run is in its message.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[derive(Default)]
struct Model {
    /// Places of each blob, as pack and offset.
    places: HashMap<u64, Vec<(PackId, u32)>>,
    packs: HashMap<PackId, Vec<u64>>,
}

impl Model {
    fn check(&self, index: &Index, ids: impl Iterator<Item = u64>, context: &str) {
        for n in ids {
            let found = index.lookup(&id(n)).unwrap();
            let mut found: Vec<_> = found.iter().map(|at| (at.pack, at.offset)).collect();
            let mut expected = self.places.get(&n).cloned().unwrap_or_default();
            assert_eq!(found.len(), expected.len().min(LOCATIONS_MAX), "{context}, blob {n}");
            assert_eq!(index.contains(&id(n)).unwrap(), !expected.is_empty(), "{context}, blob {n}");
            if expected.len() <= LOCATIONS_MAX {
                found.sort();
                expected.sort();
                assert_eq!(found, expected, "{context}, blob {n}");
            } else {
                assert!(found.iter().all(|place| expected.contains(place)), "{context}, blob {n}");
            }
        }
    }

    fn check_listing(&self, index: &Index, context: &str) {
        let mut listed = HashMap::<PackId, u64>::new();
        index
            .for_each_entry(&mut |pack, _| {
                *listed.entry(pack).or_default() += 1;
                Ok(())
            })
            .unwrap();
        let expected: HashMap<_, _> = self.packs.iter().map(|(pack, blobs)| (*pack, blobs.len() as u64)).collect();
        assert_eq!(listed, expected, "{context}");
        let mut counted = HashMap::new();
        index
            .packs(&mut |pack, stats| {
                counted.insert(pack, stats.entry_count);
                Ok(())
            })
            .unwrap();
        assert_eq!(counted, expected, "{context}");
    }
}

fn run(seed: u64, steps: u64) {
    println!("seed {seed}");
    let (mut random, mut model, shelf) = (Random(seed), Model::default(), Shelf::default());
    let mut index = open(&shelf, &[]).unwrap();
    for step in 0..steps {
        let context = format!("seed {seed}, step {step}");
        match random.below(100) {
            0..50 => {
                let at = pack(random.below(1 << 40));
                // Some are in more packs than a lookup answers with.
                let mut blobs: Vec<u64> = (0..=random.below(60)).map(|_| random.below(4000)).collect();
                blobs.extend((0..random.below(4)).map(|_| random.below(40)));
                blobs.sort();
                blobs.dedup();
                let list = entries(blobs.iter().copied());
                index.insert_pack(at, &list);
                for (n, entry) in blobs.iter().zip(&list) {
                    model.places.entry(*n).or_default().push((at, entry.offset));
                }
                if !blobs.is_empty() {
                    model.packs.insert(at, blobs);
                }
            }
            50..80 => {
                index.flush().unwrap();
                assert_eq!(index.table_len(), 0);
            }
            80..90 => index.merge().unwrap(),
            90..95 => {
                let nth = random.below(model.packs.len().max(1) as u64) as usize;
                let mut packs: Vec<_> = model.packs.keys().copied().collect();
                packs.sort();
                let Some(at) = packs.get(nth).copied() else { continue };
                index.remove_packs(&[at]);
                for n in model.packs.remove(&at).unwrap() {
                    model.places.get_mut(&n).unwrap().retain(|place| place.0 != at);
                }
            }
            _ => {
                index.flush().unwrap();
                for segment in index.take_superseded() {
                    shelf.delete(&ObjectName::segment(&segment)).unwrap();
                }
                index = open(&shelf, &index.segments()).unwrap();
            }
        }
        let from = random.below(4000);
        model.check(&index, from..from + 20, &context);
    }
    while index.merge_due() {
        index.merge().unwrap();
    }
    let context = format!("seed {seed}, end");
    model.check(&index, 0..4100, &context);
    model.check_listing(&index, &context);
    index.verify(&mut |segment, error| panic!("{context}: {segment}: {error}")).unwrap();
}

#[test]
fn any_history_answers_like_a_map() {
    let first = u64::from_le_bytes(crate::crypto::random());
    (0..4).for_each(|n| run(first.wrapping_add(n), 150));
}

#[test]
fn lookups_during_flushes_and_merges_miss_nothing() {
    let shelf = Shelf::default();
    let index = open(&shelf, &[]).unwrap();
    let inserted = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (index, inserted) = (&index, &inserted);
        let writer = Arc::new(scope.spawn(move || {
            for n in 0..200 {
                index.insert_pack(pack(n), &entries(n * 10..n * 10 + 10));
                inserted.store(n * 10 + 10, std::sync::atomic::Ordering::Release);
                index.flush().unwrap();
            }
        }));
        let (merging, shelf) = (writer.clone(), &shelf);
        scope.spawn(move || {
            while !merging.is_finished() {
                index.merge().unwrap();
                index.take_superseded().iter().for_each(|id| shelf.delete(&ObjectName::segment(id)).unwrap());
            }
        });
        for reader in 0..2 {
            let mut random = Random(reader);
            let writer = writer.clone();
            scope.spawn(move || {
                while !writer.is_finished() {
                    let bound = inserted.load(std::sync::atomic::Ordering::Acquire);
                    let n = random.below(bound.max(1));
                    assert!(bound == 0 || index.lookup(&id(n)).unwrap().len() == 1, "blob {n} of {bound}");
                }
            });
        }
    });
    assert_eq!(index.entry_count(), 2000);
}
