//! Bytes that rot or vanish: right bytes or an error, never wrong ones, and a check that names the object.

use std::{collections::BTreeSet, path::Path};

use super::*;
use crate::disk::{
    FaultDisk,
    fault::{Fault, Op, Rule},
};

/// A small repository with two chunks, a root in two packs, and two commits.
fn small() -> (MemoryDisk, BlobId, Vec<Vec<u8>>) {
    let disk = new_repository();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    commit_chunks(&repository, &volume, &[noise(1, 900)]).unwrap();
    let stored = vec![noise(1, 900), vec![b'a'; 3000]];
    let root = commit_chunks(&repository, &volume, &stored).unwrap();
    (disk, root, stored)
}

#[test]
fn a_flipped_byte_anywhere_gives_right_bytes_or_an_error_and_a_check_names_the_object() {
    let (disk, root, stored) = small();
    let mut told = 0;
    for (path, length) in files(&disk) {
        let relative = path.strip_prefix("/repository").unwrap().to_string_lossy().into_owned();
        if length == 0 || relative.starts_with("locks/") || relative == "reserve" {
            continue;
        }
        // Every byte of a small object, and of a padded one a spread that meets each of its parts.
        let step = (length / 24).max(1);
        for at in (0..length).step_by(step as usize).chain([length - 1]) {
            let image = disk.kill();
            image.rot(&path, at, 0x10).unwrap();
            let what = format!("{relative} at {at}");
            let base = OpenOptions { access: Access::ReadOnly, ..options(Arc::new(image.clone())) };
            let repository = Repository::open(base).unwrap_or_else(|error| panic!("{what}: {error}"));
            match read_chunks(&repository, &root) {
                Ok(read) => assert_eq!(read, stored, "{what}"),
                Err(error) => assert!(error.is_damage(), "{what}: {error}"),
            }
            let damage = damage_of(&repository);
            let name = relative.rsplit('/').next().unwrap();
            let names_it = |one: &Damage| {
                one.object.contains(name) || relative.starts_with("heads/") && one.object.starts_with("head ")
            };
            let named = damage.iter().any(names_it);
            // An old segment that no manifest names any more is not part of the repository.
            let noted = !repository.notes().is_empty();
            assert!(named || noted, "{what}: {damage:?}");
            told += damage.len();
        }
    }
    assert!(told > 50, "{told}");
}

#[test]
fn a_damaged_segment_is_rebuilt_at_open() {
    let (disk, root, stored) = small();
    for (path, length) in files(&disk).iter().filter(|(path, _)| path.to_string_lossy().contains("/index/")) {
        disk.rot(path, length - 40, 1).unwrap();
    }
    let repository = open(&disk);
    assert!(repository.notes().iter().any(|note| note.contains("rebuilt")), "{:?}", repository.notes());
    assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
}

fn packs_of(repository: &Repository, id: &BlobId) -> Vec<(PathBuf, u64)> {
    let locations = repository.index.lookup(id).unwrap();
    let path = |pack| PathBuf::from("/repository").join(crate::backend::ObjectName::pack(pack).as_str());
    locations.iter().map(|location| (path(&location.pack), u64::from(location.offset))).collect()
}

#[test]
fn the_second_copy_of_a_node_answers_when_the_first_is_damaged() {
    let (disk, root, stored) = small();
    let places = packs_of(&open(&disk), &root);
    assert_eq!(places.len(), 2);
    assert_ne!(places[0].0, places[1].0, "two copies lie in two packs");
    for (pack, offset) in &places {
        let image = disk.kill();
        image.rot(pack, offset + 30, 4).unwrap();
        assert_eq!(read_chunks(&open(&image), &root).unwrap(), stored);
        let image = disk.kill();
        image.remove(pack).unwrap();
        assert_eq!(read_chunks(&open(&image), &root).unwrap(), stored);
    }
    for place in &places {
        disk.rot(&place.0, place.1 + 30, 4).unwrap();
    }
    let error = read_chunks(&open(&disk), &root).unwrap_err();
    assert!(error.is_damage() && error.to_string().contains(&root.to_hex()), "{error}");
}

#[test]
fn a_damaged_chunk_heals_when_it_is_written_again() {
    let (disk, root, stored) = small();
    let id = BlobId::from_slice(&open(&disk).read_node(&root).unwrap()[..32]).unwrap();
    let (pack, offset) = packs_of(&open(&disk), &id).remove(0);
    disk.rot(&pack, offset + 50, 1).unwrap();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    assert!(read_chunks(&repository, &root).unwrap_err().is_damage());
    commit_chunks(&repository, &volume, &stored).unwrap();
    assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
    drop((repository, volume));
    assert_eq!(read_chunks(&open(&disk), &root).unwrap(), stored);
}

#[test]
fn a_pack_that_is_gone_is_damage_and_never_not_found() {
    let (disk, root, _) = small();
    let id = BlobId::from_slice(&open(&disk).read_node(&root).unwrap()[..32]).unwrap();
    let (pack, _) = packs_of(&open(&disk), &id).remove(0);
    disk.remove(&pack).unwrap();
    let repository = open(&disk);
    let error = read_chunks(&repository, &root).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let damage = damage_of(&repository);
    assert!(damage.iter().any(|one| pack.ends_with(&one.object) && one.what.contains("gone")), "{damage:?}");
}

#[test]
fn a_lost_copy_of_the_configuration_is_written_again() {
    let (disk, root, stored) = small();
    disk.remove(&PathBuf::from("/repository/config")).unwrap();
    disk.rot(&PathBuf::from("/repository/config.1"), 40, 1).unwrap();
    let repository = open(&disk);
    assert_eq!(repository.notes().len(), 2);
    assert_eq!(read_chunks(&repository, &root).unwrap(), stored);
    assert_eq!(damage_of(&repository), []);
}

/// Six commits, their packs in no order, and their lengths.
fn repository_of_many_packs() -> (MemoryDisk, Arc<Repository>, Vec<(PathBuf, u64)>) {
    let disk = new_repository();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    for seed in 0..6 {
        commit_chunks(&repository, &volume, &[noise(seed, 9000)]).unwrap();
    }
    let packs = stored_packs(&disk);
    assert!(packs.len() >= 12, "{} packs", packs.len());
    (disk, repository, packs)
}

fn stored_packs(disk: &MemoryDisk) -> Vec<(PathBuf, u64)> {
    files(disk).into_iter().filter(|(path, _)| path.starts_with("/repository/packs")).collect()
}

/// Harms a byte of a blob in a pack.
fn harm(disk: &MemoryDisk, pack: &(PathBuf, u64)) {
    disk.rot(&pack.0, pack.1 / 4, 1).unwrap();
}

fn notes(repository: &Repository, resume: bool) -> Result<CheckNotes<'_>> {
    match resume {
        true => repository.resume_check(1, 9),
        false => Ok(repository.note_check(1, 5)),
    }
}

/// Checks every byte, until so many packs were read; the file names of packs that were told. Its notes stay, as if it was cut off.
fn check_until(repository: &Repository, resume: bool, packs_max: u64) -> (Option<CheckSummary>, BTreeSet<String>) {
    let mut told = BTreeSet::new();
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut progress = |progress: Progress| assert!(progress.packs < packs_max, "cut off, as it should be");
        let mut found = |damage: Damage| told.extend(damage.object.rsplit('/').next().map(ToOwned::to_owned));
        repository.check_noting(&mut notes(repository, resume).unwrap(), &mut progress, &mut found).unwrap()
    }));
    (run.ok(), told)
}

fn name_of(pack: &(PathBuf, u64)) -> String {
    pack.0.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_check_that_was_cut_off_reads_what_it_has_not_read() {
    let (disk, repository, packs) = repository_of_many_packs();
    let count = packs.len() as u64;
    let (nothing, _) = check_until(&repository, true, u64::MAX);
    assert_eq!(nothing.as_ref().unwrap().earlier, None, "there is nothing to go on from");
    assert!(check_until(&repository, false, 5).0.is_none());
    // Which ones it read is for the storage to say; what it has not read is read by the next, and the rest not again.
    packs.iter().for_each(|pack| harm(&disk, pack));
    let (went_on, told) = check_until(&repository, true, u64::MAX);
    let went_on = went_on.unwrap();
    let earlier = went_on.earlier.unwrap();
    assert_eq!((earlier.packs, earlier.began_ns, told.len() as u64), (5, 5, count - 5));
    let skipped = packs.iter().filter(|pack| !told.contains(&name_of(pack)));
    assert_eq!(earlier.bytes, skipped.map(|(_, length)| length).sum::<u64>());
    let nothing = nothing.unwrap();
    assert_eq!((nothing.packs, nothing.pack_bytes), (went_on.packs, went_on.pack_bytes));
    // What is damaged is told as often as it is looked at.
    let (again, told_again) = check_until(&repository, true, u64::MAX);
    assert_eq!((again.unwrap().earlier.unwrap().packs, told_again), (5, told));
    notes(&repository, true).unwrap().end();
    let (anew, all) = check_until(&repository, true, u64::MAX);
    assert_eq!((anew.unwrap().earlier, all.len() as u64), (None, count), "one that ended leaves nothing to go on from");
}

#[test]
fn a_check_that_goes_on_reads_what_is_new_what_came_back_and_all_of_a_copy() {
    let (disk, repository, packs) = repository_of_many_packs();
    let (all, _) = check_until(&repository, false, u64::MAX);
    assert_eq!(all.unwrap().damaged, 0);
    // Not forgotten, as if it had been cut off at its last byte. Packs are named by what is in them: new ones lie anywhere between.
    let volume = open_volume(&repository);
    for seed in 10..16 {
        commit_chunks(&repository, &volume, &[noise(seed, 9000)]).unwrap();
    }
    let new: Vec<_> = stored_packs(&disk).into_iter().filter(|pack| !packs.contains(pack)).collect();
    assert!(new.len() >= 12);
    new.iter().for_each(|pack| harm(&disk, pack));
    // One pack is put back from a backup, with a fault.
    let file = disk.open_read(&packs[3].0).unwrap();
    let mut bytes = vec![0; packs[3].1 as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let (elsewhere, place) = (Path::new("/repository/tmp/back"), &packs[3].0);
    disk.create_dir(Path::new("/repository/tmp")).unwrap();
    disk.create_new(elsewhere).unwrap().write_all_at(&bytes, 0).unwrap();
    disk.rename(elsewhere, place).unwrap();
    harm(&disk, &packs[3]);
    let (went_on, told) = check_until(&repository, true, u64::MAX);
    let expected: BTreeSet<String> = new.iter().chain([&packs[3]]).map(name_of).collect();
    assert_eq!((told, went_on.unwrap().earlier.unwrap().packs), (expected, packs.len() as u64 - 1));
}

#[test]
fn one_check_at_a_time_has_notes_and_a_new_one_begins_a_new_list() {
    let (_disk, repository, packs) = repository_of_many_packs();
    let mut beside = Vec::new();
    let mut progress = |_: Progress| {
        let mut fresh = notes(&repository, false).unwrap();
        let summary = repository.check_noting(&mut fresh, &mut |_| {}, &mut |_| {}).unwrap();
        fresh.end();
        beside.push((notes(&repository, true).unwrap_err().to_string(), summary.earlier));
    };
    repository.check_noting(&mut notes(&repository, false).unwrap(), &mut progress, &mut |_| {}).unwrap();
    assert!(beside.iter().all(|(error, earlier)| error.contains("another check") && earlier.is_none()), "{beside:?}");
    let (went_on, _) = check_until(&repository, true, u64::MAX);
    assert_eq!(went_on.unwrap().earlier.unwrap().packs, packs.len() as u64, "what ran beside has noted nothing");
    assert!(check_until(&repository, false, 2).0.is_none());
    let (went_on, _) = check_until(&repository, true, u64::MAX);
    assert_eq!(went_on.unwrap().earlier.unwrap().packs, 2);
}

#[test]
fn without_a_place_for_notes_everything_is_read() {
    let (disk, repository, packs) = repository_of_many_packs();
    let faults = FaultDisk::new(Arc::new(disk.clone()));
    let without = Repository::open(options(Arc::new(faults.clone()))).unwrap();
    faults.add(Rule::once(Op::Lock, Fault::ReadOnly).times(u64::MAX).at("/state"));
    assert!(check_until(&repository, false, 5).0.is_none());
    packs.iter().for_each(|pack| harm(&disk, pack));
    let (read, told) = check_until(&without, true, u64::MAX);
    assert_eq!((read.unwrap().earlier, told.len()), (None, packs.len()));
}
