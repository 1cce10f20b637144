//! One byte of a repository changes: everything reads as it was, or is an error, and nothing panics.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use vellum_store::{
    disk::{Disk, MemoryDisk},
    id::BlobId,
    id::BlobKind,
    lock::Holder,
    repository::{Access, Copies, HeadDraft, OpenOptions, Repository},
    spawn::Seed,
};
use vellum_tests::{bench::noise, rig};

/// Bytes that one seed flips.
const FLIPS: u64 = 400;

/// A repository without volumes: chunks, and one node, stored twice, that names them.
pub(crate) struct Story {
    pub(crate) disk: MemoryDisk,
    chunks: Vec<(BlobId, Vec<u8>)>,
    root: BlobId,
    nodes: Vec<u8>,
}

/// How much is stored: commits, chunks of each, and how long they are at the most.
pub(crate) struct Size {
    pub(crate) commits: u64,
    pub(crate) chunks: u64,
    pub(crate) length: u64,
}

const SMALL: Size = Size { commits: 4, chunks: 8, length: 9000 };

pub(crate) fn open(disk: &MemoryDisk) -> vellum_store::error::Result<Arc<Repository>> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    // Nothing is answered from memory.
    Repository::open(OpenOptions { cache_bytes: 1, ..rig::repository_options(&shared, Access::ReadOnly) })
}

pub(crate) fn tell(seed: u64, size: &Size) -> Story {
    let mut choices = Seed::new(seed);
    let disk = rig::new_disk();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let repository = rig::open_repository(&shared, Access::ReadWrite).expect("it opens");
    let holder = Holder::this_process(0);
    let volume = repository.open_volume(&rig::main_volume(), true, false, &holder).expect("it opens");
    let (mut chunks, mut nodes) = (Vec::new(), Vec::new());
    let mut root = None;
    for commit in 0..size.commits {
        for _ in 0..size.chunks {
            let length = 1 + choices.below(size.length) as usize;
            let text = b"a text that says the same again and again ".repeat(length / 42 + 1);
            let plain = if choices.coin() { noise(choices.number(), length) } else { text[..length].to_vec() };
            let id = repository.submit_data(plain.clone()).and_then(|ticket| ticket.wait()).expect("there is room");
            nodes.extend(id.0);
            chunks.push((id, plain));
        }
        let tree_root = repository.put(BlobKind::Node, nodes.clone(), Copies::Two).expect("there is room");
        let draft = HeadDraft { tree_root, op_sequence: commit, journal_commit: 0, time_ns: 0 };
        repository.commit(&volume, &draft).expect("the disk is well");
        root = Some(tree_root);
    }
    volume.release();
    Story { disk, chunks, root: root.expect("there were commits"), nodes }
}

impl Story {
    /// Reads the chunks of these numbers, or all of them and the node; what cannot be read must be damage, and what is read must be
    /// right. Returns the numbers of what could not be read; the node's is the one after the last chunk.
    pub(crate) fn refused(
        &self,
        repository: &Repository,
        chunks: Option<&BTreeSet<usize>>,
        what: &str,
    ) -> BTreeSet<usize> {
        let mut refused = BTreeSet::new();
        let mut judge = |number, found: vellum_store::error::Result<Arc<[u8]>>, wanted: &[u8]| match found {
            Ok(found) => assert!(*found == *wanted, "{what}: other bytes"),
            Err(error) => {
                assert!(error.is_damage(), "{what}: {error}");
                refused.insert(number);
            }
        };
        let is_asked = |number: usize| chunks.is_none_or(|chunks| chunks.contains(&number));
        for (number, (id, plain)) in self.chunks.iter().enumerate().filter(|(number, _)| is_asked(*number)) {
            judge(number, repository.read(BlobKind::Data, id, plain.len() as u32), plain);
        }
        if is_asked(self.chunks.len()) {
            judge(self.chunks.len(), repository.read_node(&self.root), &self.nodes);
        }
        refused
    }

    fn read(&self, repository: &Repository, what: &str) -> u64 {
        self.refused(repository, None, what).len() as u64
    }

    /// Files that hold what is read back, with their lengths.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        let mut dirs = vec![PathBuf::from(rig::REPOSITORY)];
        while let Some(dir) = dirs.pop() {
            let mut found = Vec::new();
            let listed = self.disk.list_dir(&dir, &mut |name, _| {
                found.push(dir.join(name));
                std::ops::ControlFlow::Continue(())
            });
            listed.expect("it is listed");
            for path in found {
                let info = self.disk.metadata(&path).expect("it is there").expect("it is there");
                match info.is_dir {
                    true if path.ends_with("locks") || path.ends_with("open") => {}
                    true => dirs.push(path),
                    false if path.ends_with("reserve") => {}
                    false => files.push((path, info.len)),
                }
            }
        }
        files.sort();
        files
    }
}

pub(crate) fn unit(seed: u64) -> u64 {
    let story = tell(seed, &SMALL);
    let files = story.files();
    let total: u64 = files.iter().map(|(_, length)| length).sum();
    let whole = open(&story.disk).expect("it opens");
    assert_eq!(story.read(&whole, "before anything is changed"), 0);
    let mut choices = Seed::new(seed ^ 0xf11b);
    let mut refused = 0;
    for _ in 0..FLIPS {
        let mut at = choices.below(total);
        let (path, _) = files
            .iter()
            .find(|(_, length)| {
                let inside = at < *length;
                at -= if inside { 0 } else { *length };
                inside
            })
            .expect("it lies in one of them");
        let bits = 1 << choices.below(8);
        let what = format!("seed {seed}: {} at {at} by {bits:#x}", path.display());
        story.disk.rot(path, at, bits).expect("it is there");
        if path.starts_with("/repository/packs") {
            // It holds no state of packs: what is open sees the change.
            refused += story.read(&whole, &what);
        } else {
            match open(&story.disk) {
                Ok(repository) => refused += story.read(&repository, &what),
                Err(error) => panic!("{what}: {error}"),
            }
        }
        story.disk.rot(path, at, bits).expect("it is there");
    }
    assert!(refused > FLIPS / 4, "seed {seed}: only {refused} changes were met");
    assert_eq!(story.read(&whole, "after all is as it was"), 0);
    FLIPS
}
