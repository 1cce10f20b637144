//! What `fsync` needs: durable places in open packs, and their adoption after a crash.

use super::*;
use crate::disk::fault::{Fault, FaultDisk, Op, Rule};

fn submit(repository: &Repository, stored: &[Vec<u8>]) -> Vec<BlobId> {
    let tickets: Vec<_> = stored.iter().map(|chunk| repository.submit_data(chunk.clone()).unwrap()).collect();
    tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect()
}

fn places(repository: &Repository, ids: &[BlobId]) -> Vec<BlobPlace> {
    repository.sync_open_packs().unwrap();
    ids.iter().map(|id| repository.durable_location(id).unwrap()).collect()
}

/// Adopts everything on a fresh disk, reads it, commits it, and reads it after another crash.
fn adopt_all(disk: &MemoryDisk, ids: &[BlobId], places: &[BlobPlace], stored: &[Vec<u8>]) {
    let repository = open(disk);
    let volume = open_volume(&repository);
    for _ in 0..2 {
        for (id, place) in ids.iter().zip(places) {
            let place = BlobPlace::decode(&place.encode()).unwrap();
            repository.adopt(id, &place).unwrap();
        }
    }
    for (id, chunk) in ids.iter().zip(stored) {
        assert_eq!(&*repository.read(BlobKind::Data, id, BLOB_PLAIN_MAX).unwrap(), &chunk[..]);
    }
    let flat: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
    let tree_root = repository.put(BlobKind::Node, flat, Copies::Two).unwrap();
    repository.commit(&volume, &HeadDraft { tree_root, op_sequence: 1, journal_commit: 1, time_ns: 0 }).unwrap();
    repository.discard_leftovers(&main_volume()).unwrap();
    assert_eq!(repository.backend().list_open().unwrap(), [], "leftovers are gone");
    drop((repository, volume));
    let repository = open(&disk.crash());
    assert_eq!(read_chunks(&repository, &tree_root).unwrap(), stored);
    assert_eq!(damage_of(&repository), []);
}

#[test]
fn a_small_fsync_creates_no_pack_no_segment_and_no_head() {
    let disk = new_repository();
    let faults = Arc::new(FaultDisk::new(Arc::new(disk)));
    let repository = Repository::open(options(faults.clone())).unwrap();
    let ids = submit(&repository, &[noise(1, 4096)]);
    places(&repository, &ids);
    faults.start_trace();
    let before = faults.count(Op::Sync);
    let ids = submit(&repository, &[noise(2, 4096)]);
    places(&repository, &ids);
    assert_eq!(faults.count(Op::Sync), before + 1, "one fdatasync");
    for op in [Op::Create, Op::Rename, Op::SyncDir, Op::CreateDir] {
        assert_eq!(faults.traced(op, ""), 0, "{op:?}");
    }
    places(&repository, &ids);
    assert_eq!(faults.count(Op::Sync), before + 1, "nothing is left to sync");
}

#[test]
fn blobs_in_an_open_pack_that_was_synced_survive_power_loss() {
    let disk = new_repository();
    let stored = chunks(40, 2);
    let repository = open(&disk);
    let ids = submit(&repository, &stored);
    let places = places(&repository, &ids);
    assert!(places.iter().any(|place| matches!(place, BlobPlace::Open { .. })));
    for seed in 0..4 {
        adopt_all(&disk.crash_seeded(seed), &ids, &places, &stored);
    }
    adopt_all(&disk.crash(), &ids, &places, &stored);
}

#[test]
fn blobs_whose_open_pack_was_stored_afterwards_are_found_under_its_name() {
    let disk = new_repository();
    let stored = chunks(41, 2);
    let repository = open(&disk);
    let ids = submit(&repository, &stored);
    let places = places(&repository, &ids);
    // Fills the pack up and more, without a commit.
    submit(&repository, &chunks(42, 12));
    repository.pipeline.as_ref().unwrap().store_packs().unwrap();
    assert_eq!(repository.backend().list_open().unwrap(), []);
    adopt_all(&disk.crash(), &ids, &places, &stored);
    let later: Vec<_> = ids.iter().map(|id| repository.durable_location(id).unwrap()).collect();
    assert!(later.iter().all(|place| matches!(place, BlobPlace::Stored { .. })));
    adopt_all(&disk.crash(), &ids, &later, &stored);
}

#[test]
fn a_place_whose_bytes_are_damaged_or_gone_is_an_error() {
    let disk = new_repository();
    let stored = chunks(43, 1);
    let repository = open(&disk);
    let ids = submit(&repository, &stored);
    let place = places(&repository, &ids).remove(0);
    let BlobPlace::Open { open: name, .. } = &place else { panic!("{place:?}") };
    let path = PathBuf::from("/repository").join(name.to_string());
    let damaged = disk.crash();
    damaged.rot(&path, 100, 1).unwrap();
    assert!(open(&damaged).adopt(&ids[0], &place).unwrap_err().is_damage());
    let gone = disk.crash();
    gone.remove(&path).unwrap();
    assert!(open(&gone).adopt(&ids[0], &place).unwrap_err().is_damage());
    assert!(open(&disk.crash()).adopt(&BlobId([7; 32]), &place).unwrap_err().is_damage());
}

#[test]
fn a_repository_open_read_only_reads_adopted_blobs_where_they_are() {
    let disk = new_repository();
    let stored = chunks(44, 2);
    let repository = open(&disk);
    let ids = submit(&repository, &stored);
    let places = places(&repository, &ids);
    let image = disk.crash();
    let before = files(&image);
    let reader =
        Repository::open(OpenOptions { access: Access::ReadOnly, ..options(Arc::new(image.clone())) }).unwrap();
    for ((id, place), chunk) in ids.iter().zip(&places).zip(&stored) {
        reader.adopt(id, place).unwrap();
        assert_eq!(&*reader.read(BlobKind::Data, id, BLOB_PLAIN_MAX).unwrap(), &chunk[..]);
    }
    let after = files(&image);
    let changed: Vec<_> = after.iter().filter(|file| !before.contains(file)).collect();
    assert!(changed.iter().all(|(path, _)| path.starts_with("/repository/locks")), "{changed:?}");
}

#[test]
fn leftovers_stay_while_another_process_has_a_volume_open() {
    let disk = new_repository();
    let first = open(&disk);
    let volume = open_volume(&first);
    submit(&first, &chunks(45, 1));
    first.sync_open_packs().unwrap();
    let other = open(&disk);
    let name = VolumeName::new("other").unwrap();
    let held = other.open_volume(&name, true, false, &Holder::this_process(0)).unwrap();
    other.discard_leftovers(&main_volume()).unwrap();
    assert_eq!(disk_open_packs(&other), 1, "it may be the other process's");
    volume.release();
    other.discard_leftovers(&main_volume()).unwrap();
    assert_eq!(disk_open_packs(&other), 0);
    held.release();
}

#[test]
fn leftovers_stay_until_every_volume_was_replayed() {
    let disk = new_repository();
    let name = VolumeName::new("other").unwrap();
    let first = open(&disk);
    let volume = open_volume(&first);
    commit_chunks(&first, &volume, &chunks(46, 1)).unwrap();
    let other = first.open_volume(&name, true, false, &Holder::this_process(0)).unwrap();
    commit_chunks(&first, &other, &chunks(47, 1)).unwrap();
    submit(&first, &chunks(48, 1));
    first.sync_open_packs().unwrap();
    let later = open(&disk.crash());
    later.discard_leftovers(&main_volume()).unwrap();
    assert_eq!(disk_open_packs(&later), 1, "the journal of the other volume may name it");
    later.discard_leftovers(&name).unwrap();
    assert_eq!(disk_open_packs(&later), 0);
}

fn disk_open_packs(repository: &Repository) -> usize {
    repository.backend().list_open().unwrap().len()
}

#[test]
fn an_open_pack_that_fails_to_sync_is_moved_and_its_places_are_given_from_there() {
    let disk = new_repository();
    let faults = Arc::new(FaultDisk::new(Arc::new(disk.clone())));
    let repository = Repository::open(options(faults.clone())).unwrap();
    let stored = chunks(46, 2);
    let ids = submit(&repository, &stored);
    faults.add(Rule::once(Op::Sync, Fault::Io).at("packs/"));
    let places = places(&repository, &ids);
    adopt_all(&disk.crash(), &ids, &places, &stored);
}
