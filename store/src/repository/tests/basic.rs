//! What is put is read back; what is known is not stored again.

use super::*;

#[test]
fn what_is_committed_is_read_after_a_reopen() {
    let disk = new_repository();
    let stored = chunks(1, 20);
    let root = {
        let repository = open(&disk);
        let volume = open_volume(&repository);
        let root = commit_chunks(&repository, &volume, &stored).unwrap();
        assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
        root
    };
    let repository = open(&disk);
    let volume = open_volume(&repository);
    assert_eq!(volume.head().unwrap().tree_root, root);
    assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
}

#[test]
fn the_same_data_twice_adds_no_pack_of_data_and_costs_no_sealing() {
    let disk = new_repository();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    let stored = chunks(2, 20);
    let root = commit_chunks(&repository, &volume, &stored).unwrap();
    let (packs, sealed) = (count_packs(&repository), repository.pipeline_counters().sealed_blobs);
    assert_eq!(commit_chunks(&repository, &volume, &stored).unwrap(), root);
    assert_eq!(count_packs(&repository), packs);
    assert_eq!(repository.pipeline_counters().sealed_blobs, sealed);
    drop((repository, volume));
    let repository = open(&disk);
    let volume = open_volume(&repository);
    commit_chunks(&repository, &volume, &stored).unwrap();
    assert_eq!(count_packs(&repository), packs);
    assert_eq!(repository.pipeline_counters().sealed_blobs, 0);
}

#[test]
fn a_blob_is_readable_from_the_moment_its_id_is_known() {
    let disk = new_repository();
    let repository = open(&disk);
    for n in 0..200 {
        let plain = noise(n, 3000);
        let id = repository.put(BlobKind::Node, plain.clone(), Copies::One).unwrap();
        assert_eq!(&repository.read_node(&id).unwrap()[..], &plain[..]);
    }
}

#[test]
fn two_threads_with_the_same_chunks_share_one_result() {
    let disk = new_repository();
    let repository = open(&disk);
    let stored = chunks(3, 40);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let tickets: Vec<_> =
                    stored.iter().map(|chunk| repository.submit_data(chunk.clone()).unwrap()).collect();
                for (ticket, chunk) in tickets.into_iter().zip(&stored) {
                    assert_eq!(ticket.wait().unwrap(), repository.keyring().blob_id(BlobKind::Data, chunk));
                }
            });
        }
    });
    let counters = repository.pipeline_counters();
    assert_eq!((counters.sealed_blobs, counters.shared_blobs), (40, 120));
}

#[test]
fn memory_stays_within_the_byte_budget() {
    let disk = new_repository();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let repository = Repository::open(OpenOptions { pipeline_bytes: 512 << 10, ..options(disk) }).unwrap();
    let tickets: Vec<_> = (0..60).map(|n| repository.submit_data(noise(n, 50_000)).unwrap()).collect();
    tickets.into_iter().for_each(|ticket| _ = ticket.wait().unwrap());
    let peak = repository.pipeline_counters().peak_bytes;
    assert!(peak <= 512 << 10, "{peak}");
    assert!(repository.cached_bytes() <= 4 << 20);
}

#[test]
fn a_lone_blob_is_stored_by_whoever_waits_for_it() {
    let disk = new_repository();
    let repository = open(&disk);
    let id = repository.submit_data(b"small".to_vec()).unwrap().wait().unwrap();
    assert_eq!(&*repository.read(BlobKind::Data, &id, 5).unwrap(), b"small");
    assert!(repository.read(BlobKind::Data, &id, 4).unwrap_err().is_damage());
}

#[test]
fn an_unknown_blob_is_missing_and_not_not_found() {
    let disk = new_repository();
    let repository = open(&disk);
    let missing = repository.read_node(&BlobId([1; 32])).unwrap_err();
    assert!(matches!(missing, Error::BlobMissing { .. }), "{missing}");
}

#[test]
fn read_ahead_brings_chunks_into_the_cache() {
    let disk = new_repository();
    let stored = chunks(4, 30);
    let root = {
        let repository = open(&disk);
        let volume = open_volume(&repository);
        commit_chunks(&repository, &volume, &stored).unwrap()
    };
    let repository = open(&disk);
    let root = repository.read_node(&root).unwrap();
    let wanted: Vec<_> =
        root.chunks(32).zip(&stored).map(|(id, chunk)| (BlobId::from_slice(id).unwrap(), chunk.len() as u32)).collect();
    repository.read_ahead(&wanted);
    for ((id, length), chunk) in wanted.iter().zip(&stored) {
        assert_eq!(&*repository.read(BlobKind::Data, id, *length).unwrap(), &chunk[..]);
    }
}

#[test]
fn a_repository_open_read_only_writes_nothing() {
    let disk = new_repository();
    let stored = chunks(5, 3);
    let root = {
        let repository = open(&disk);
        let volume = open_volume(&repository);
        commit_chunks(&repository, &volume, &stored).unwrap()
    };
    let repository =
        Repository::open(OpenOptions { access: Access::ReadOnly, ..options(Arc::new(disk.clone())) }).unwrap();
    let volume = repository.open_volume(&main_volume(), false, true, &Holder::this_process(0)).unwrap();
    assert_eq!(volume.head().unwrap().tree_root, root);
    assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
    assert!(matches!(repository.submit_data(vec![1]), Err(Error::ReadOnly { .. })));
    let draft = HeadDraft { tree_root: root, op_sequence: 2, journal_commit: 0, time_ns: 0 };
    assert!(matches!(repository.commit(&volume, &draft), Err(Error::ReadOnly { .. })));
}

#[test]
fn a_second_writer_of_a_volume_is_locked_out() {
    let disk = new_repository();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    let other = open(&disk);
    let refused = other.open_volume(&main_volume(), true, false, &Holder::this_process(0)).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    volume.release();
    other.open_volume(&main_volume(), true, false, &Holder::this_process(0)).unwrap();
}

#[test]
fn a_place_that_is_no_repository_is_told_from_a_wrong_passphrase() {
    let disk = MemoryDisk::new();
    let nothing = Repository::open(options(Arc::new(disk.clone()))).unwrap_err();
    assert!(matches!(nothing, Error::NotARepository { .. }), "{nothing}");
    init_on(Arc::new(disk.clone()));
    let wrong = Credential::Passphrase(Zeroizing::new("wrong".to_string()));
    let refused = Repository::open(OpenOptions { credential: wrong, ..options(Arc::new(disk)) }).unwrap_err();
    assert!(matches!(refused, Error::WrongKey), "{refused}");
}

#[test]
fn init_refuses_a_directory_that_holds_something_and_repeats_what_was_interrupted() {
    let disk = new_repository();
    let init = || {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let base = InitOptions::new("/repository", passphrase(), 0).unwrap();
        Repository::init(&InitOptions { kdf: KdfParams::testing(), disk, ..base })
    };
    assert!(matches!(init(), Err(Error::AlreadyExists { .. })));
    for copy in ["config", "config.1", "config.2"] {
        disk.remove(&PathBuf::from("/repository").join(copy)).unwrap();
    }
    init().unwrap();
    open(&disk);
}
