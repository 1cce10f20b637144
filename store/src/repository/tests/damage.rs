//! Bytes that rot or vanish: right bytes or an error, never wrong ones, and a check that names the object.

use super::*;

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
