//! Heads in a backend: publishing the next one, reading the newest, keeping the last few.
//!
//! *Invariants*
//! 1. A head is created exclusively, once its tree, segments and manifest are durable (F3): of two writers one loses, and knows it.
//! 2. A damaged head is reported, never skipped in silence; a head that could not be read is an error, not an absence.
//! 3. Heads that are returned form a chain: each is what the one above it follows.
//!
//! *Ordering*: a head is durable when [`publish_head`] returns.
//!
//! *Bounds*: of a listing only the `count` largest sequences are kept in memory; a head has [`HEAD_BYTES`] bytes.
//!
//! *Not here*: whether these heads continue what this machine remembers (`state`).

use std::collections::BTreeSet;

use crate::backend::{Backend, ObjectName, Put};
use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::format::head::{HEAD_BYTES, Head};
use crate::format::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::id::{HeadHash, ManifestId, VolumeName};

/// How many heads of a volume are kept.
pub const HEADS_KEPT: u64 = 8;

const DELETES_MAX: usize = 4096;

/// A head that was made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedHead {
    /// Hash of its sealed bytes.
    pub hash: HeadHash,
    /// The sealed bytes, to be remembered outside the repository.
    pub bytes: Vec<u8>,
}

/// What the newest names of a volume's heads stand for.
#[derive(Clone, Debug, Default)]
pub struct HeadsFound {
    /// Intact heads, newest first, each followed by the one above it.
    pub heads: Vec<FoundHead>,
    /// What else has the name of a head of this volume, newest first.
    pub damaged: Vec<DamagedHead>,
}

/// One intact head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundHead {
    /// What it says.
    pub head: Head,
    /// Hash of its sealed bytes.
    pub hash: HeadHash,
    /// The sealed bytes.
    pub bytes: Vec<u8>,
}

/// One head that is not what was published.
#[derive(Clone, Debug)]
pub struct DamagedHead {
    /// The sequence in its name.
    pub sequence: u64,
    /// What is wrong.
    pub error: Error,
}

impl HeadsFound {
    /// The newest intact head.
    pub fn newest(&self) -> Option<&FoundHead> {
        self.heads.first()
    }

    /// Whether a name above the newest intact head stands for damage, so that the newest state is not known from here.
    pub fn newest_is_damaged(&self) -> bool {
        let intact = self.newest().map_or(0, |found| found.head.sequence);
        self.damaged.iter().any(|damaged| damaged.sequence > intact)
    }

    /// Hashes of the newest intact head and of those before it, as far as they are known without a gap: a damaged head is known by
    /// the one that follows it.
    pub fn hashes(&self) -> Vec<HeadHash> {
        let newest = self.newest().map_or(0, |found| found.head.sequence);
        (1..=newest).rev().map_while(|sequence| self.hash_at(sequence)).collect()
    }

    /// The hash of the head `sequence` in the history of the newest one; `None` if it lies too far back to tell from here.
    pub fn hash_at(&self, sequence: u64) -> Option<HeadHash> {
        let own = self.heads.iter().find(|found| found.head.sequence == sequence).map(|found| found.hash);
        let next = sequence.checked_add(1)?;
        own.or_else(|| self.heads.iter().find(|found| found.head.sequence == next).map(|found| found.head.previous))
    }
}

/// Creates the head `head.sequence` of `volume`; `None` if that one exists already: another writer was faster.
pub fn publish_head(
    backend: &dyn Backend,
    keyring: &Keyring,
    volume: &VolumeName,
    head: &Head,
) -> Result<Option<PublishedHead>> {
    let bytes = head.encode(keyring, volume);
    // Check before writing that it can be read again: it decides what the volume is.
    debug_assert_eq!(Head::decode(keyring, volume, head.sequence, &bytes).ok().as_ref(), Some(head));
    match backend.put_new(&ObjectName::head(volume, head.sequence), &bytes)? {
        Put::Stored => Ok(Some(PublishedHead { hash: HeadHash::of(&bytes), bytes })),
        Put::Exists => Ok(None),
    }
}

/// Reads the newest heads of a volume, `count` at most.
pub fn newest_heads(backend: &dyn Backend, keyring: &Keyring, volume: &VolumeName, count: usize) -> Result<HeadsFound> {
    let mut newest = BTreeSet::new();
    list_heads(backend, volume, &mut |sequence| {
        newest.insert(sequence);
        if newest.len() > count {
            newest.pop_first();
        }
    })?;
    let mut found = HeadsFound::default();
    for &sequence in newest.iter().rev() {
        let read = match backend.get(&ObjectName::head(volume, sequence), HEAD_BYTES as u64) {
            // Trimmed since it was listed.
            Err(Error::NotFound { .. }) => continue,
            Err(error @ Error::Corrupt { .. }) => Err(error),
            Err(error) => return Err(error),
            Ok(bytes) => Head::decode(keyring, volume, sequence, &bytes).map(|head| (head, bytes)),
        };
        match read.and_then(|(head, bytes)| chained(&found, volume, head, bytes)) {
            Ok(head) => found.heads.push(head),
            Err(error @ Error::Corrupt { .. }) => found.damaged.push(DamagedHead { sequence, error }),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Checks that a head is the one that the intact head right above it follows.
fn chained(found: &HeadsFound, volume: &VolumeName, head: Head, bytes: Vec<u8>) -> Result<FoundHead> {
    let hash = HeadHash::of(&bytes);
    if let Some(above) = found.heads.last().filter(|above| above.head.sequence == head.sequence + 1)
        && above.head.previous != hash
    {
        let object = ObjectName::head(volume, head.sequence).to_string();
        return Err(Error::corrupt(object, format!("head {} follows another one", above.head.sequence)));
    }
    Ok(FoundHead { head, hash, bytes })
}

/// Puts remembered bytes back in the place of a damaged head. They must unseal as that head.
pub fn restore_head(
    backend: &dyn Backend,
    keyring: &Keyring,
    volume: &VolumeName,
    sequence: u64,
    bytes: &[u8],
) -> Result<()> {
    Head::decode(keyring, volume, sequence, bytes)?;
    let name = ObjectName::head(volume, sequence);
    backend.delete(&name)?;
    match backend.put_new(&name, bytes)? {
        Put::Stored => Ok(()),
        Put::Exists => Err(Error::AlreadyExists { path: name.to_string(), what: "another head".to_string() }),
    }
}

/// Deletes heads more than `kept` below `newest`, and gives their number. What is left over comes with the next call.
pub fn trim_heads(backend: &dyn Backend, volume: &VolumeName, newest: u64, kept: u64) -> Result<usize> {
    let mut old = Vec::new();
    list_heads(backend, volume, &mut |sequence| {
        if sequence.saturating_add(kept) <= newest && old.len() < DELETES_MAX {
            old.push(sequence);
        }
    })?;
    for &sequence in &old {
        backend.delete(&ObjectName::head(volume, sequence))?;
    }
    Ok(old.len())
}

fn list_heads(backend: &dyn Backend, volume: &VolumeName, f: &mut dyn FnMut(u64)) -> Result<()> {
    backend.list(&format!("heads/{volume}/"), &mut |name, _| {
        // A name that no head can have is none, whoever put it there.
        if let Some(sequence) = name.as_head(volume).filter(|&sequence| sequence > 0) {
            f(sequence);
        }
        Ok(())
    })
}

/// Stores a manifest and gives the id that a head names it by.
pub fn publish_manifest(backend: &dyn Backend, keyring: &Keyring, manifest: &Manifest) -> Result<ManifestId> {
    let (id, bytes) = manifest.encode(keyring)?;
    // A random nonce is in the name: an object of that name holds these bytes.
    backend.put_new(&ObjectName::manifest(&id), &bytes)?;
    Ok(id)
}

/// Reads the manifest that a head names.
pub fn read_manifest(backend: &dyn Backend, keyring: &Keyring, id: ManifestId) -> Result<Manifest> {
    let bytes = backend.get(&ObjectName::manifest(&id), MANIFEST_BYTES_MAX)?;
    Manifest::decode(keyring, id, &bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::backend::LocalBackend;
    use crate::disk::{Disk, MemoryDisk};
    use crate::format::head::{NO_HEAD, tests::sample};
    use crate::format::sealed::tests::{keyring, keyring_of};
    use crate::id::SegmentId;

    struct Bench {
        disk: MemoryDisk,
        backend: LocalBackend,
        keyring: Keyring,
        volume: VolumeName,
    }

    impl Bench {
        fn new() -> Self {
            let disk = MemoryDisk::new();
            disk.create_dir(&PathBuf::from("/repo")).unwrap();
            disk.sync_dir(&PathBuf::from("/")).unwrap();
            Self::on(disk)
        }

        fn on(disk: MemoryDisk) -> Self {
            let backend = LocalBackend::new(Arc::new(disk.clone()), PathBuf::from("/repo"), false);
            Self { disk, backend, keyring: keyring(), volume: VolumeName::new("main").unwrap() }
        }

        fn with_heads(count: u64) -> Self {
            let bench = Self::new();
            (1..=count).for_each(|_| drop(bench.publish_next()));
            bench
        }

        fn publish_next(&self) -> PublishedHead {
            let newest = self.newest(1);
            let (sequence, previous) =
                newest.newest().map_or((1, NO_HEAD), |found| (found.head.sequence + 1, found.hash));
            self.publish(&sample(sequence, previous)).unwrap()
        }

        fn publish(&self, head: &Head) -> Option<PublishedHead> {
            publish_head(&self.backend, &self.keyring, &self.volume, head).unwrap()
        }

        fn newest(&self, count: usize) -> HeadsFound {
            newest_heads(&self.backend, &self.keyring, &self.volume, count).unwrap()
        }

        fn path(&self, sequence: u64) -> PathBuf {
            PathBuf::from("/repo").join(ObjectName::head(&self.volume, sequence).as_str())
        }
    }

    fn sequences(found: &HeadsFound) -> Vec<u64> {
        found.heads.iter().map(|found| found.head.sequence).collect()
    }

    #[test]
    fn published_heads_survive_power_loss_and_come_back_newest_first() {
        let bench = Bench::with_heads(5);
        let last = bench.publish_next();
        let bench = Bench::on(bench.disk.crash());
        let found = bench.newest(3);
        assert_eq!((sequences(&found), found.damaged.len()), (vec![6, 5, 4], 0));
        assert_eq!((found.heads[0].hash, &found.heads[0].bytes), (last.hash, &last.bytes));
        assert_eq!(found.hashes().len(), 4, "three heads, and the one that the oldest follows");
        assert_eq!(found.hashes()[1], found.heads[0].head.previous);
        assert_eq!(found.hash_at(4), Some(found.heads[2].hash));
        assert_eq!(found.hash_at(3), Some(found.heads[2].head.previous));
        assert_eq!(found.hash_at(2), None);
        assert_eq!(Bench::with_heads(1).newest(8).hashes().len(), 1, "nothing comes before the first");
    }

    #[test]
    fn of_two_writers_of_one_sequence_one_loses_and_changes_nothing() {
        let bench = Bench::with_heads(2);
        let before = bench.newest(8);
        let rival = sample(2, before.heads[1].hash);
        assert_eq!(bench.publish(&rival), None);
        assert_eq!(bench.newest(8).heads, before.heads);
    }

    #[test]
    fn a_volume_without_heads_has_none_and_others_are_not_mixed_in() {
        let mut bench = Bench::with_heads(2);
        bench.volume = VolumeName::new("mai").unwrap();
        assert!(bench.newest(8).newest().is_none());
        assert!(!bench.newest(8).newest_is_damaged());
        bench.publish_next();
        assert_eq!(sequences(&bench.newest(8)), [1]);
    }

    #[test]
    fn a_damaged_newest_head_is_told_and_restored_from_remembered_bytes() {
        let bench = Bench::with_heads(3);
        let last = bench.publish_next();
        bench.disk.rot(&bench.path(4), 700, 1).unwrap();
        let bench = Bench::on(bench.disk.clone());
        let found = bench.newest(8);
        assert_eq!((sequences(&found), found.newest_is_damaged()), (vec![3, 2, 1], true));
        assert_eq!(found.damaged[0].sequence, 4);
        let restore = |sequence| restore_head(&bench.backend, &bench.keyring, &bench.volume, sequence, &last.bytes);
        assert!(restore(3).unwrap_err().is_damage(), "only under its own sequence");
        restore(4).unwrap();
        let found = Bench::on(bench.disk.crash()).newest(8);
        assert_eq!((sequences(&found), found.newest_is_damaged()), (vec![4, 3, 2, 1], false));
    }

    /// The hashes become the log of heads: one that is skipped would put every older one under the sequence above it.
    #[test]
    fn a_damaged_head_in_between_leaves_no_gap_in_the_hashes() {
        let bench = Bench::with_heads(5);
        let whole = bench.newest(8).hashes();
        bench.disk.rot(&bench.path(4), 700, 1).unwrap();
        bench.disk.remove(&bench.path(2)).unwrap();
        assert_eq!(Bench::on(bench.disk.clone()).newest(8).hashes(), whole);
    }

    #[test]
    fn heads_of_wrong_length_or_another_key_are_damage() {
        let bench = Bench::with_heads(3);
        bench.disk.open_write(&bench.path(2)).unwrap().set_len(1023).unwrap();
        bench.disk.open_write(&bench.path(1)).unwrap().set_len(1 << 30).unwrap();
        let found = Bench::on(bench.disk.clone()).newest(8);
        assert_eq!((sequences(&found), found.damaged.len()), (vec![3], 2));
        assert!(!found.newest_is_damaged());
        let found = newest_heads(&bench.backend, &keyring_of(2, 0), &bench.volume, 8).unwrap();
        assert_eq!((found.heads.len(), found.damaged.len()), (0, 3));
    }

    #[test]
    fn an_authentic_head_that_the_next_one_does_not_follow_is_damage() {
        let bench = Bench::with_heads(1);
        // A writer's head 2 exchanged for one that lost, as only the store could.
        bench.publish(&sample(2, HeadHash([1; 32])));
        bench.publish(&sample(3, HeadHash([2; 32])));
        let found = bench.newest(8);
        assert_eq!(sequences(&found), [3, 1]);
        assert_eq!(found.damaged[0].sequence, 2);
        assert!(found.damaged[0].error.is_damage());
    }

    #[test]
    fn trimming_keeps_the_newest_heads() {
        let bench = Bench::with_heads(12);
        assert_eq!(trim_heads(&bench.backend, &bench.volume, 12, HEADS_KEPT).unwrap(), 4);
        assert_eq!(sequences(&bench.newest(100)), [12, 11, 10, 9, 8, 7, 6, 5]);
        assert_eq!(trim_heads(&bench.backend, &bench.volume, 12, HEADS_KEPT).unwrap(), 0);
        assert_eq!(trim_heads(&bench.backend, &bench.volume, 3, HEADS_KEPT).unwrap(), 0);
    }

    #[test]
    fn manifests_are_found_by_the_id_that_publishing_gave() {
        let bench = Bench::new();
        let manifest =
            Manifest { segments: vec![SegmentId([3; 32])], volumes: vec![bench.volume.clone()], gc_generation: 1 };
        let id = publish_manifest(&bench.backend, &bench.keyring, &manifest).unwrap();
        let bench = Bench::on(bench.disk.crash());
        assert_eq!(read_manifest(&bench.backend, &bench.keyring, id).unwrap(), manifest);
        let missing = read_manifest(&bench.backend, &bench.keyring, ManifestId([0; 32]));
        assert!(matches!(missing, Err(Error::NotFound { .. })));
    }
}
