//! The pack being filled: hashes and lists what is appended, and ends it with padding, trailer and tail.
//!
//! *Not here*: the bytes themselves, which the packer appends to an open object at the same time.

use std::{fmt, sync::Arc};

use blake3::Hasher;

use crate::{
    crypto::{Keyring, Purpose, fill_random, random},
    format::{
        pack::{
            PACK_ENTRY_COUNT_MAX, PACK_ENTRY_LENGTH, PACK_LENGTH_MAX, PACK_TAIL_LENGTH, PackEntry, PackTail,
            SEALED_LENGTH_MAX, SEALED_LENGTH_MIN, encode_trailer, tail_binding,
        },
        padding::padded_length,
    },
    id::{BlobId, BlobKind, PackId},
};

/// A pack that takes blobs.
pub struct PackBuilder {
    keyring: Arc<Keyring>,
    kind: BlobKind,
    hasher: Hasher,
    entries: Vec<PackEntry>,
    length: u64,
}

/// A pack that is complete once `suffix` is appended to its blobs.
#[derive(Clone, Debug)]
pub struct FinishedPack {
    /// BLAKE3 of blobs and suffix.
    pub id: PackId,
    /// Kind of its blobs.
    pub kind: BlobKind,
    /// Length of blobs and suffix.
    pub length: u64,
    /// Padding, sealed trailer, sealed tail.
    pub suffix: Vec<u8>,
    /// What it holds, by offset.
    pub entries: Vec<PackEntry>,
}

impl PackBuilder {
    /// An empty pack for blobs of one kind.
    pub fn new(keyring: Arc<Keyring>, kind: BlobKind) -> Self {
        Self { keyring, kind, hasher: Hasher::new(), entries: Vec::new(), length: 0 }
    }

    /// Whether a blob of that sealed length may still be pushed.
    pub fn fits(&self, sealed_length: usize) -> bool {
        let entry_count = self.entries.len() as u64 + 1;
        entry_count <= u64::from(PACK_ENTRY_COUNT_MAX)
            && finished_length(self.length + sealed_length as u64, entry_count) <= PACK_LENGTH_MAX
    }

    /// Takes the next blob and gives its offset; the caller appends the same bytes there.
    ///
    /// # Panics
    /// If the blob does not [fit](Self::fits), or is no sealed blob by its length.
    pub fn push(&mut self, id: BlobId, plain_length: u32, epoch: u32, sealed: &[u8]) -> u32 {
        assert!(self.fits(sealed.len()), "a pack is closed before it is full");
        assert!(sealed.len() > SEALED_LENGTH_MIN as usize && sealed.len() <= SEALED_LENGTH_MAX as usize);
        let (offset, length) = (self.length as u32, sealed.len() as u32);
        self.hasher.update(sealed);
        self.entries.push(PackEntry { id, kind: self.kind, offset, length, plain_length, epoch });
        self.length += u64::from(length);
        offset
    }

    /// Kind of its blobs.
    pub fn kind(&self) -> BlobKind {
        self.kind
    }

    /// Bytes of blobs so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What was pushed, by offset.
    pub fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    /// Ends the pack: its name, and the bytes that follow the blobs.
    pub fn finish(mut self) -> FinishedPack {
        let tail = PackTail {
            kind: self.kind,
            salt: random(),
            blobs_length: self.length as u32,
            entry_count: self.entries.len() as u32,
        };
        let length = finished_length(self.length, self.entries.len() as u64);
        let padding = length - self.length - tail.trailer_length() - PACK_TAIL_LENGTH as u64;

        let mut suffix = vec![0; padding as usize];
        fill_random(&mut suffix);
        let trailer = encode_trailer(&self.entries);
        suffix.extend(self.keyring.seal(Purpose::PackTrailer, &tail.trailer_binding(length), &trailer));
        suffix.extend(self.keyring.seal(Purpose::PackTail, &tail_binding(length), &tail.encode()));
        assert_eq!(self.length + suffix.len() as u64, length, "trailer and tail have the lengths they announce");

        self.hasher.update(&suffix);
        let id = PackId(*self.hasher.finalize().as_bytes());
        FinishedPack { id, kind: self.kind, length, suffix, entries: self.entries }
    }
}

impl fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, length, entries, .. } = self;
        f.debug_struct("PackBuilder")
            .field("kind", kind)
            .field("length", length)
            .field("entry_count", &entries.len())
            .finish_non_exhaustive()
    }
}

/// Length of a pack with so many bytes of blobs in so many entries.
fn finished_length(blobs_length: u64, entry_count: u64) -> u64 {
    let trailer_length = entry_count * PACK_ENTRY_LENGTH as u64 + u64::from(SEALED_LENGTH_MIN);
    padded_length(blobs_length + trailer_length + PACK_TAIL_LENGTH as u64)
}
