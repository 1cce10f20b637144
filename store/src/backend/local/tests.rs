#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    backend::conformance,
    disk::{LocalDisk, MemoryDisk},
};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// A repository's directory on a simulated disk, itself durable.
fn simulated() -> (MemoryDisk, LocalBackend) {
    let disk = MemoryDisk::new();
    disk.create_dir(Path::new("/r")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let backend = reopen(&disk);
    (disk, backend)
}

fn reopen(disk: &MemoryDisk) -> LocalBackend {
    LocalBackend::new(Arc::new(disk.clone()), "/r".into(), false)
}

#[test]
fn conforms_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let repositories = std::cell::Cell::new(0);
    conformance::check(&|| {
        repositories.set(repositories.get() + 1);
        let root = dir.path().join(repositories.get().to_string());
        std::fs::create_dir(&root).unwrap();
        Box::new(LocalBackend::new(Arc::new(LocalDisk), root, false))
    });
}

#[test]
fn conforms_on_a_simulated_disk() {
    conformance::check(&|| Box::new(simulated().1));
}
