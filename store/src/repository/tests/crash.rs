//! Power loss and sudden death at every step: the newest head is the one before or the new one, and what it names is whole.

use parking_lot::Mutex;

use super::*;
use crate::{
    disk::fault::{FaultDisk, Op, Rule},
    spawn::{JoinHandle, Spawner, Stepped, Threads},
};

/// Real threads; at every step an image of the disk as power loss would leave it.
#[derive(Debug)]
struct Images {
    disk: MemoryDisk,
    seed: u64,
    taken: Mutex<Vec<(&'static str, MemoryDisk)>>,
}

impl Spawner for Images {
    fn spawn(&self, name: &str, f: Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle> {
        Threads.spawn(name, f)
    }

    fn blocking_begin(&self) {}

    fn blocking_end(&self) {}

    fn step(&self, label: &'static str) {
        let mut taken = self.taken.lock();
        let image = match taken.len() % 2 {
            0 => self.disk.crash(),
            _ => self.disk.crash_seeded(self.seed + taken.len() as u64),
        };
        taken.push((label, image));
    }
}

/// Opens what a crash left, and says which of the two states it holds.
fn state_after(disk: &MemoryDisk, states: &[(BlobId, Vec<Vec<u8>>)], what: &str) -> usize {
    let repository = open(disk);
    let volume = open_volume(&repository);
    let root = volume.head().unwrap_or_else(|| panic!("{what}: no head")).tree_root;
    let state = states.iter().position(|(known, _)| *known == root).unwrap_or_else(|| panic!("{what}: a third root"));
    assert_eq!(read_chunks(&repository, &root).unwrap(), states[state].1, "{what}");
    assert_eq!(damage_of(&repository), [], "{what}");
    // And it can go on from there.
    commit_chunks(&repository, &volume, &chunks(99, 2)).unwrap();
    state
}

#[test]
fn power_loss_at_each_step_of_a_commit_leaves_the_old_head_or_the_new_one() {
    let disk = new_repository();
    let (old, new) = (chunks(10, 3), chunks(11, 4));
    let first = {
        let repository = open(&disk);
        let volume = open_volume(&repository);
        commit_chunks(&repository, &volume, &old).unwrap()
    };
    let seed = 0x5eed;
    println!("seed {seed}");
    let images = Arc::new(Images { disk: disk.clone(), seed, taken: Mutex::default() });
    let second = {
        let spawner: Arc<dyn Spawner> = images.clone();
        let repository = Repository::open(OpenOptions { spawner, ..options(Arc::new(disk.clone())) }).unwrap();
        let volume = open_volume(&repository);
        commit_chunks(&repository, &volume, &new).unwrap()
    };
    let states = [(first, old), (second, new)];
    let taken = std::mem::take(&mut *images.taken.lock());
    let labels: Vec<_> = taken.iter().map(|(label, _)| *label).collect();
    for label in ["close pack", "publish pack", "commit: packs are stored", "commit: head is published"] {
        assert!(labels.contains(&label), "{label} in {labels:?}");
    }
    let mut reached = false;
    for (number, (label, image)) in taken.iter().enumerate() {
        let state = state_after(image, &states, &format!("image {number} at {label}"));
        // F3: the new head can only be there once it is published, and is there for good from then on.
        reached |= *label == "commit: head is published";
        assert_eq!(state == 1, reached, "image {number} at {label}");
    }
    assert!(reached);
}

#[test]
fn power_loss_before_any_change_of_the_disk_leaves_the_old_head_or_the_new_one() {
    let (old, new) = (chunks(12, 2), chunks(13, 3));
    let prepared = new_repository();
    let first = {
        let repository = open(&prepared);
        let volume = open_volume(&repository);
        commit_chunks(&repository, &volume, &old).unwrap()
    };
    let root_of = |stored: &[Vec<u8>]| {
        let repository = open(&prepared.kill());
        let ids: Vec<u8> =
            stored.iter().flat_map(|chunk| repository.keyring().blob_id(BlobKind::Data, chunk).0).collect();
        repository.keyring().blob_id(BlobKind::Node, &ids)
    };
    let states = [(first, old), (root_of(&new), new.clone())];
    let mut outcomes = [0, 0];
    for calls in 0.. {
        let disk = prepared.kill();
        let faults = FaultDisk::new(Arc::new(disk.clone()));
        faults.add(Rule::power_off_after(calls));
        let faults: Arc<dyn Disk> = Arc::new(faults);
        let done = Repository::open(OpenOptions { disk: faults, ..options(Arc::new(disk.clone())) })
            .and_then(|repository| {
                let volume = repository.open_volume(&main_volume(), true, false, &Holder::this_process(0))?;
                commit_chunks(&repository, &volume, &new)
            })
            .is_ok();
        let seed = 7 * calls;
        let state =
            state_after(&disk.crash_seeded(seed), &states, &format!("power off after {calls} calls, seed {seed}"));
        outcomes[state] += 1;
        if done {
            // P1: what was reported is there.
            assert_eq!(state, 1);
            break;
        }
    }
    println!("old {}, new {}", outcomes[0], outcomes[1]);
    assert!(outcomes[0] > 10 && outcomes[1] > 1);
}

#[test]
fn a_first_commit_that_was_interrupted_leaves_an_empty_volume() {
    let disk = new_repository();
    let faults = FaultDisk::new(Arc::new(disk.clone()));
    faults.add(Rule { ops: vec![Op::Rename], ..Rule::power_off_after(0) }.at("heads/"));
    let repository = Repository::open(options(Arc::new(faults))).unwrap();
    let volume = open_volume(&repository);
    assert!(commit_chunks(&repository, &volume, &chunks(14, 3)).is_err());
    drop((repository, volume));
    let repository = open(&disk.crash());
    let volume = open_volume(&repository);
    assert!(volume.head().is_none());
    let stored = chunks(14, 3);
    let root = commit_chunks(&repository, &volume, &stored).unwrap();
    assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
}

#[test]
fn threads_stepped_by_a_seed_store_and_read_the_same() {
    for seed in 0..20 {
        println!("seed {seed}");
        let disk = new_repository();
        let stepped = Arc::new(Stepped::new(seed));
        let spawner: Arc<dyn Spawner> = stepped.clone();
        let stored = chunks(20 + seed, 6);
        let base = OpenOptions { spawner: spawner.clone(), pipeline_bytes: 120_000, ..options(Arc::new(disk.clone())) };
        let repository = Repository::open(base).unwrap();
        let volume = open_volume(&repository);
        let root = commit_chunks(&repository, &volume, &stored).unwrap();
        assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
        drop((repository, volume));
        let repository = open(&disk.crash());
        assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
    }
}

#[test]
fn segments_that_are_gone_are_rebuilt_from_the_packs() {
    let disk = new_repository();
    let stored = chunks(15, 6);
    let root = {
        let repository = open(&disk);
        let volume = open_volume(&repository);
        commit_chunks(&repository, &volume, &stored).unwrap()
    };
    for (path, _) in files(&disk).iter().filter(|(path, _)| path.to_string_lossy().contains("/index/")) {
        disk.remove(path).unwrap();
    }
    let repository = open(&disk);
    assert!(repository.notes().iter().any(|note| note.contains("rebuilt")), "{:?}", repository.notes());
    assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
    let volume = open_volume(&repository);
    assert_eq!(commit_chunks(&repository, &volume, &stored).unwrap(), root);
    assert_eq!(damage_of(&repository), []);
    drop((repository, volume));
    assert!(open(&disk).notes().is_empty());
}
