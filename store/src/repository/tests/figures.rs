//! Figures, remembered in a local table on a real disk.

use super::*;
use crate::disk::LocalDisk;

fn counted(stats: &RepositoryStats) -> [u64; 6] {
    let RepositoryStats { volumes, packs, pack_bytes, blobs, data_bytes, node_bytes, .. } = *stats;
    [volumes, packs, pack_bytes, blobs, data_bytes, node_bytes]
}

#[test]
fn remembered_figures_are_those_that_a_count_gives() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let path = dir.path().join("repository");
    let base = InitOptions::new(&path, passphrase(), 0).unwrap();
    Repository::init(&InitOptions { kdf: KdfParams::testing(), pack_bytes: 64 << 10, ..base }).unwrap();
    let open = |table_dir| {
        let state_dir = dir.path().join("state");
        Repository::open(OpenOptions { path: path.clone(), state_dir, table_dir, ..options(disk.clone()) }).unwrap()
    };
    let tables = Some(dir.path().join("tables"));
    for round in 0..3 {
        let repository = open(tables.clone());
        let volume = open_volume(&repository);
        let before = repository.stats().unwrap();
        commit_chunks(&repository, &volume, &chunks(60 + round, 3)).unwrap();
        let after = repository.stats().unwrap();
        assert!(after.packs > before.packs && after.blobs > before.blobs);
        drop((repository, volume));
        assert_eq!(counted(&open(None).stats().unwrap()), counted(&after));
        assert_eq!(counted(&open(tables.clone()).stats().unwrap()), counted(&after));
        // Another process that knows nothing of the table commits: the figures are counted anew.
        let repository = open(None);
        commit_chunks(&repository, &open_volume(&repository), &chunks(80 + round, 1)).unwrap();
        drop(repository);
        assert_eq!(counted(&open(tables.clone()).stats().unwrap()), counted(&open(None).stats().unwrap()));
    }
}
