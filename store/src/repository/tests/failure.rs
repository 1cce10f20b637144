//! Disks that fail and fill up while blobs are on their way.

use super::*;
use crate::disk::fault::{Fault, FaultDisk, Op, Rule};

fn faulty() -> (MemoryDisk, Arc<FaultDisk>, Arc<Repository>) {
    let disk = new_repository();
    let faults = Arc::new(FaultDisk::new(Arc::new(disk.clone())));
    let repository = Repository::open(options(faults.clone())).unwrap();
    (disk, faults, repository)
}

#[test]
fn a_pack_that_fails_to_sync_is_written_to_another_file() {
    for op in [Op::Sync, Op::Write, Op::SetLen, Op::Rename] {
        let (disk, faults, repository) = faulty();
        let volume = open_volume(&repository);
        faults.add(Rule::once(op, Fault::Io).at("packs/").after(1));
        let stored = chunks(30, 8);
        let root = commit_chunks(&repository, &volume, &stored).unwrap_or_else(|error| panic!("{op:?}: {error}"));
        drop((repository, volume));
        let repository = open(&disk.crash());
        assert_eq!(read_chunks(&repository, &root).unwrap(), stored, "{op:?}");
        assert_eq!(damage_of(&repository), [], "{op:?}");
    }
}

#[test]
fn a_second_failure_stops_the_pipeline_and_leaves_the_blobs_readable() {
    let (disk, faults, repository) = faulty();
    let volume = open_volume(&repository);
    let before = chunks(31, 2);
    let root = commit_chunks(&repository, &volume, &before).unwrap();
    faults.add(Rule::once(Op::Sync, Fault::Io).at("packs/").times(u64::MAX));
    let plain = noise(1, 5000);
    let id = repository.submit_data(plain.clone()).unwrap().wait().unwrap();
    assert_eq!(&*repository.read(BlobKind::Data, &id, 5000).unwrap(), &plain[..]);
    let lost = commit_chunks(&repository, &volume, &chunks(32, 2)).unwrap_err();
    assert!(matches!(lost, Error::Io { .. }), "{lost}");
    faults.heal();
    // Nothing more is taken, so it is no dedup target; reads go on, of what is stored and of what is not.
    assert!(!repository.index.contains(&id).unwrap());
    assert_eq!(&*repository.read(BlobKind::Data, &id, 5000).unwrap(), &plain[..]);
    assert!(repository.submit_data(plain).is_err());
    assert!(commit_chunks(&repository, &volume, &before).is_err());
    assert_eq!(read_chunks(&repository, &root).unwrap(), before);
    drop((repository, volume));
    let repository = open(&disk.crash());
    assert_eq!(open_volume(&repository).head().unwrap().tree_root, root);
    assert_eq!(read_chunks(&repository, &root).unwrap(), before);
}

#[test]
fn a_failed_write_of_the_index_leaves_the_commit_to_be_repeated() {
    for place in ["index/", "tmp/"] {
        let (disk, faults, repository) = faulty();
        let volume = open_volume(&repository);
        faults.add(Rule::once(Op::Rename, Fault::NoSpace).at(place).times(u64::MAX));
        let stored = chunks(33, 3);
        assert!(matches!(commit_chunks(&repository, &volume, &stored), Err(Error::NoSpace { .. })), "{place}");
        faults.heal();
        let root = commit_chunks(&repository, &volume, &stored).unwrap();
        drop((repository, volume));
        assert_eq!(read_chunks(&open(&disk.crash()), &root).unwrap(), stored);
    }
}

#[test]
fn a_full_disk_loses_no_promised_blob_and_the_commit_succeeds_once_there_is_space() {
    let disk = new_repository();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    let first = commit_chunks(&repository, &volume, &chunks(34, 2)).unwrap();
    disk.set_capacity(0);
    let nodes: Vec<_> = (0..8).map(|n| noise(100 + n, 6000)).collect();
    let ids: Vec<_> =
        nodes.iter().map(|node| repository.put(BlobKind::Node, node.clone(), Copies::Two).unwrap()).collect();
    assert!(matches!(repository.flush_pipeline(), Err(Error::NoSpace { .. })));
    let tree_root = ids[0];
    let draft = HeadDraft { tree_root, op_sequence: 2, journal_commit: 0, time_ns: 0 };
    // A commit must not succeed without them, however often it is tried.
    for _ in 0..2 {
        assert!(matches!(repository.commit(&volume, &draft), Err(Error::NoSpace { .. })));
    }
    for (id, node) in ids.iter().zip(&nodes) {
        assert_eq!(&*repository.read_node(id).unwrap(), &node[..]);
    }
    assert_eq!(volume.head().unwrap().tree_root, first);
    disk.set_capacity(1 << 40);
    repository.commit(&volume, &draft).unwrap();
    drop((repository, volume));
    let repository = open(&disk.crash());
    for (id, node) in ids.iter().zip(&nodes) {
        assert_eq!(&*repository.read_node(id).unwrap(), &node[..]);
        assert_eq!(repository.index.lookup(id).unwrap().len(), 2);
    }
}

#[test]
fn a_chunk_for_which_there_is_no_space_is_told_by_its_ticket_and_can_come_again() {
    let disk = new_repository();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    disk.set_capacity(0);
    let stored = chunks(35, 3);
    for chunk in &stored {
        let told = repository.submit_data(chunk.clone()).unwrap().wait();
        assert!(matches!(told, Err(Error::NoSpace { .. })), "{told:?}");
    }
    repository.flush_pipeline().unwrap();
    disk.set_capacity(1 << 40);
    let root = commit_chunks(&repository, &volume, &stored).unwrap();
    assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
}

#[test]
fn a_disk_that_fills_up_within_a_pack_completes_it_later() {
    let disk = new_repository();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    let stored = chunks(36, 4);
    let tickets: Vec<_> = stored.iter().map(|chunk| repository.submit_data(chunk.clone()).unwrap()).collect();
    let ids: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect();
    disk.set_capacity(0);
    let flat: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
    let tree_root = repository.put(BlobKind::Node, flat, Copies::Two).unwrap();
    let draft = HeadDraft { tree_root, op_sequence: 2, journal_commit: 0, time_ns: 0 };
    assert!(matches!(repository.commit(&volume, &draft), Err(Error::NoSpace { .. })));
    assert_eq!(read_chunks(&repository, &tree_root).unwrap(), stored);
    disk.set_capacity(1 << 40);
    repository.commit(&volume, &draft).unwrap();
    drop((repository, volume));
    assert_eq!(read_chunks(&open(&disk.crash()), &tree_root).unwrap(), stored);
}
