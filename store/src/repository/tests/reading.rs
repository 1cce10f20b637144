//! How often the disk is asked.

use super::*;
use crate::disk::fault::{FaultDisk, Op};

/// A repository with chunks, reopened over a disk that counts.
fn counted(stored: &[Vec<u8>]) -> (Arc<FaultDisk>, Arc<Repository>, Vec<(BlobId, u32)>) {
    let disk = new_repository();
    let root = {
        let repository = open(&disk);
        let volume = open_volume(&repository);
        commit_chunks(&repository, &volume, stored).unwrap()
    };
    let faults = Arc::new(FaultDisk::new(Arc::new(disk)));
    let repository = Repository::open(options(faults.clone())).unwrap();
    let root = repository.read_node(&root).unwrap();
    let ids = root.chunks(32).zip(stored).map(|(id, chunk)| (BlobId::from_slice(id).unwrap(), chunk.len() as u32));
    let ids = ids.collect();
    (faults, repository, ids)
}

#[test]
fn many_readers_of_one_chunk_cause_one_read() {
    let stored = chunks(70, 1);
    let (faults, repository, ids) = counted(&stored);
    faults.start_trace();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let (id, length) = ids[0];
                assert_eq!(&*repository.read(BlobKind::Data, &id, length).unwrap(), &stored[0][..]);
            });
        }
    });
    assert_eq!(faults.traced(Op::Read, "/packs/"), 1);
    assert!(repository.read_cached(&ids[0].0).is_some());
}

#[test]
fn adjacent_chunks_of_a_pack_are_read_ahead_with_one_read() {
    let stored: Vec<_> = (0..6).map(|n| noise(7000 + n, 8000)).collect();
    let (faults, repository, ids) = counted(&stored);
    faults.start_trace();
    repository.read_ahead(&ids);
    for ((id, length), chunk) in ids.iter().zip(&stored) {
        assert_eq!(&*repository.read(BlobKind::Data, id, *length).unwrap(), &chunk[..]);
    }
    // Those that a reader asked for before the background came to them are read alone.
    let reads = faults.traced(Op::Read, "/packs/");
    assert!((1..=6).contains(&reads), "{reads}");
    let (faults, repository, ids) = counted(&stored);
    faults.start_trace();
    repository.read_ahead(&ids);
    while ids.iter().any(|(id, _)| repository.read_cached(id).is_none()) {
        std::thread::yield_now();
    }
    assert_eq!(faults.traced(Op::Read, "/packs/"), 1);
}

#[test]
fn what_was_just_put_is_read_without_the_disk() {
    let disk = new_repository();
    let faults = Arc::new(FaultDisk::new(Arc::new(disk)));
    let repository = Repository::open(options(faults.clone())).unwrap();
    faults.start_trace();
    let id = repository.put(BlobKind::Node, noise(1, 900), Copies::One).unwrap();
    assert!(repository.read_cached(&id).is_some());
    assert_eq!(faults.traced(Op::Read, ""), 0);
}
