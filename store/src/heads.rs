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

    /// Hashes of the intact heads, newest first, and of the one before the oldest.
    pub fn hashes(&self) -> Vec<HeadHash> {
        let mut hashes: Vec<HeadHash> = self.heads.iter().map(|found| found.hash).collect();
        hashes.extend(self.heads.last().filter(|found| found.head.sequence > 1).map(|found| found.head.previous));
        hashes
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
        let object = format!("head {} of volume {volume}", head.sequence);
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
