//! Heads over time: rollbacks, copies, takeovers, damage of the newest.

use super::*;

fn head_path(sequence: u64) -> PathBuf {
    PathBuf::from(format!("/repository/heads/main/{sequence:016x}"))
}

/// Commits `count` times; gives the roots.
fn commits(disk: &MemoryDisk, count: u64) -> Vec<BlobId> {
    let repository = open(disk);
    let volume = open_volume(&repository);
    (0..count).map(|n| commit_chunks(&repository, &volume, &[noise(500 + n, 700)]).unwrap()).collect()
}

fn copy_dir(from: &MemoryDisk, to: &MemoryDisk, dir: &str) {
    let mut dirs = vec![PathBuf::from(dir)];
    while let Some(dir) = dirs.pop() {
        to.create_dir(&dir).unwrap();
        from.list_dir(&dir, &mut |name, kind| {
            let path = dir.join(name);
            if kind == EntryKind::Dir {
                dirs.push(path);
                return ControlFlow::Continue(());
            }
            let source = from.open_read(&path).unwrap();
            let mut bytes = vec![0; source.len().unwrap() as usize];
            source.read_exact_at(&mut bytes, 0).unwrap();
            to.create_new(&path).unwrap().write_all_at(&bytes, 0).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    }
}

#[test]
fn an_older_state_of_the_repository_is_refused_unless_it_is_adopted() {
    let disk = new_repository();
    commits(&disk, 2);
    let old = disk.kill();
    commits(&disk, 3);
    let mixed = MemoryDisk::new();
    copy_dir(&old, &mixed, "/repository");
    copy_dir(&disk, &mixed, "/state");
    let repository = open(&mixed);
    let refused = repository.open_volume(&main_volume(), true, false, &Holder::this_process(0)).unwrap_err();
    assert!(matches!(refused, Error::Rollback { .. }), "{refused}");
    drop(repository);
    let adopting = OpenOptions { adopt_copy: true, ..options(Arc::new(mixed.clone())) };
    let repository = Repository::open(adopting).unwrap();
    let volume = open_volume(&repository);
    commit_chunks(&repository, &volume, &[noise(1, 100)]).unwrap();
    drop((repository, volume));
    open_volume(&open(&mixed));
}

#[test]
fn a_history_that_went_another_way_is_refused() {
    let disk = new_repository();
    commits(&disk, 2);
    let fork = disk.kill();
    commits(&disk, 2);
    let repository = open(&fork);
    let volume = open_volume(&repository);
    for n in 0..4 {
        commit_chunks(&repository, &volume, &[noise(900 + n, 700)]).unwrap();
    }
    drop((repository, volume));
    let mixed = MemoryDisk::new();
    copy_dir(&fork, &mixed, "/repository");
    copy_dir(&disk, &mixed, "/state");
    let repository = open(&mixed);
    let refused = repository.open_volume(&main_volume(), true, false, &Holder::this_process(0)).unwrap_err();
    assert!(matches!(refused, Error::Rollback { .. }), "{refused}");
}

#[test]
fn a_history_far_ahead_is_proved_by_the_log_of_heads_before_anything_is_committed() {
    let disk = new_repository();
    commits(&disk, 1);
    let remembering = disk.kill();
    let (sequence, hash) = open_volume(&open(&remembering)).newest().unwrap();
    commits(&disk, 20);
    let mixed = MemoryDisk::new();
    copy_dir(&disk, &mixed, "/repository");
    copy_dir(&remembering, &mixed, "/state");
    let repository = open(&mixed);
    let volume = open_volume(&repository);
    let stored = [noise(7, 100)];
    assert!(matches!(commit_chunks(&repository, &volume, &stored), Err(Error::Rollback { .. })));
    for wrong in [None, Some(crate::id::HeadHash([1; 32]))] {
        assert!(matches!(volume.prove_ancestry(&mut |_| Ok(wrong)), Err(Error::Rollback { .. })));
    }
    volume
        .prove_ancestry(&mut |asked| {
            assert_eq!(asked, sequence);
            Ok(Some(hash))
        })
        .unwrap();
    commit_chunks(&repository, &volume, &stored).unwrap();
}

#[test]
fn a_damaged_newest_head_is_restored_from_what_this_machine_remembers() {
    let disk = new_repository();
    let roots = commits(&disk, 3);
    disk.rot(&head_path(3), 200, 1).unwrap();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    assert_eq!(volume.head().unwrap().tree_root, roots[2]);
    assert!(volume.notes().iter().any(|note| note.contains("restored")), "{:?}", volume.notes());
    commit_chunks(&repository, &volume, &[noise(1, 100)]).unwrap();
}

/// The head came back, but the index was opened by the manifest of the one below it and lacked the newest packs.
#[test]
fn a_newest_head_that_was_taken_away_is_restored_with_all_that_it_names() {
    let disk = new_repository();
    let roots = commits(&disk, 3);
    disk.remove(&head_path(3)).unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let repository = Repository::open(OpenOptions { access, ..options(Arc::new(disk.clone())) }).unwrap();
        assert!(repository.notes().is_empty(), "the index needs no rebuild: {:?}", repository.notes());
        let read_only = access == Access::ReadOnly;
        let volume = repository.open_volume(&main_volume(), false, read_only, &Holder::this_process(0)).unwrap();
        assert_eq!(volume.head().unwrap().tree_root, roots[2]);
        read_chunks(&repository, &roots[2]).unwrap();
        if !read_only {
            commit_chunks(&repository, &volume, &[noise(1, 100)]).unwrap();
        }
    }
}

#[test]
fn without_memory_a_damaged_newest_head_can_only_be_read_before() {
    let disk = new_repository();
    let roots = commits(&disk, 3);
    disk.rot(&head_path(3), 200, 1).unwrap();
    let strange = |access| OpenOptions { access, state_dir: "/elsewhere".into(), ..options(Arc::new(disk.clone())) };
    let repository = Repository::open(strange(Access::ReadWrite)).unwrap();
    let refused = repository.open_volume(&main_volume(), true, false, &Holder::this_process(0)).unwrap_err();
    assert!(refused.is_damage(), "{refused}");
    let repository = Repository::open(strange(Access::ReadOnly)).unwrap();
    let volume = repository.open_volume(&main_volume(), false, true, &Holder::this_process(0)).unwrap();
    assert_eq!(volume.head().unwrap().tree_root, roots[1]);
    assert!(!volume.notes().is_empty());
}

#[test]
fn a_writer_that_was_overtaken_publishes_nothing_more() {
    let disk = new_repository();
    let repository = open(&disk);
    let volume = open_volume(&repository);
    commit_chunks(&repository, &volume, &[noise(1, 100)]).unwrap();
    // As from another machine: locks are not seen.
    let elsewhere = MemoryDisk::new();
    copy_dir(&disk, &elsewhere, "/repository");
    let root = {
        let other = open(&elsewhere);
        let taken = open_volume(&other);
        commit_chunks(&other, &taken, &[noise(2, 100)]).unwrap()
    };
    let source = elsewhere.open_read(&head_path(2)).unwrap();
    let mut bytes = vec![0; 1024];
    source.read_exact_at(&mut bytes, 0).unwrap();
    disk.create_new(&head_path(2)).unwrap().write_all_at(&bytes, 0).unwrap();
    for _ in 0..2 {
        let lost = commit_chunks(&repository, &volume, &[noise(3, 100)]).unwrap_err();
        assert!(matches!(lost, Error::Poisoned { .. }), "{lost}");
    }
    let heads = repository.heads(&main_volume()).unwrap();
    assert_eq!((heads.heads[0].head.sequence, heads.heads[0].head.tree_root), (2, root));
    assert!(heads.heads[0].head.epoch > heads.heads[1].head.epoch);
}

#[test]
fn old_heads_manifests_and_merged_segments_do_not_pile_up() {
    let disk = new_repository();
    let mut roots = commits(&disk, 60);
    let count = |part: &str| files(&disk).iter().filter(|(path, _)| path.to_string_lossy().contains(part)).count();
    assert!(count("/heads/") <= 8 && count("/manifests/") <= 8, "{} {}", count("/heads/"), count("/manifests/"));
    // Merges run beside the commits, and what they merged goes with later ones.
    let mut tries = 0;
    while count("/index/") >= 40 {
        tries += 1;
        assert!(tries < 50, "{} segments", count("/index/"));
        roots.extend(commits(&disk, 20));
    }
    let repository = open(&disk);
    assert!(repository.notes().is_empty(), "{:?}", repository.notes());
    for root in &roots {
        read_chunks(&repository, root).unwrap();
    }
    assert_eq!(damage_of(&repository), []);
}

#[test]
fn two_volumes_share_chunks_and_both_survive_each_others_commits() {
    let disk = new_repository();
    let repository = open(&disk);
    let main = open_volume(&repository);
    let name = VolumeName::new("other").unwrap();
    let other = repository.open_volume(&name, true, false, &Holder::this_process(0)).unwrap();
    let stored = chunks(50, 5);
    let first = commit_chunks(&repository, &main, &stored).unwrap();
    let packs = count_packs(&repository);
    assert_eq!(commit_chunks(&repository, &other, &stored).unwrap(), first);
    assert_eq!(count_packs(&repository), packs);
    for n in 0..12 {
        commit_chunks(&repository, &main, &[noise(700 + n, 500)]).unwrap();
    }
    drop((repository, main, other));
    let repository = open(&disk);
    assert_eq!(repository.volumes().len(), 2);
    let other = repository.open_volume(&name, false, false, &Holder::this_process(0)).unwrap();
    assert_eq!(read_chunks(&repository, &other.head().unwrap().tree_root).unwrap(), stored);
}

#[test]
fn a_volume_that_does_not_exist_is_created_only_when_asked() {
    let repository = open(&new_repository());
    let missing = repository.open_volume(&main_volume(), false, false, &Holder::this_process(0)).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    assert!(repository.volumes().is_empty());
}
