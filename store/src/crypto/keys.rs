//! The master key and the keyring: every subkey of a repository, and sealing under them.
//!
//! *Invariants*
//! 1. New bytes are sealed under the current epoch; any epoch can be unsealed, because its keys follow from the master key.
//! 2. Id, gear and name keys are those of epoch 0 for ever, so dedup survives a rotation.
//! 3. What is sealed for one purpose, epoch, repository or associated data never unseals for another.
//!
//! *Threads*: a [`Keyring`] is immutable and shared by all threads.
//!
//! *Format*: sealed bytes are nonce (24, random), ciphertext (as long as the plaintext), tag (16): XChaCha20-Poly1305 under
//! the sealing subkey of the purpose and epoch. The associated data is
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | format version, `u32` |
//! | 4 | 16 | repository id |
//! | 20 | 1 | purpose, `u8` |
//! | 21 | 4 | key epoch, `u32` |
//! | 25 | rest | what the caller binds |

use std::fmt;

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize, Zeroizing};

use super::{
    context::{Context, Purpose, SubkeyUse},
    lockmem::Locked,
    random,
};
use crate::{
    chunker::GearTable,
    error::{Error, Result},
    format::FORMAT_VERSION,
    id::{BlobId, BlobKind, RepositoryId},
};

/// Bytes of a nonce, before the ciphertext.
pub const NONCE_LENGTH: usize = 24;
/// Bytes of a tag, after the ciphertext.
pub const TAG_LENGTH: usize = 16;
/// How much longer sealed bytes are than their plaintext.
pub const SEAL_OVERHEAD: usize = NONCE_LENGTH + TAG_LENGTH;

/// Bytes of associated data before those of the caller.
const AAD_PREFIX_LENGTH: usize = 25;

/// The random key from which all others of a repository follow.
pub struct MasterKey(Locked<[u8; 32]>);

impl MasterKey {
    /// Draws a new key.
    pub fn generate() -> Self {
        Self(Locked::new(|key| *key = random()))
    }

    /// Takes a key out of an unsealed slot.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Locked::new(|key| *key = *bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

#[derive(Default, Zeroize)]
struct Secrets {
    master: [u8; 32],
    seal: [[u8; 32]; Purpose::COUNT],
    data_id: [u8; 32],
    node_id: [u8; 32],
}

/// All keys of one repository at one epoch.
pub struct Keyring {
    secrets: Locked<Secrets>,
    gear: Box<GearTable>,
    repository: RepositoryId,
    epoch: u32,
}

impl Keyring {
    /// Derives the keys of a repository; what it seals from here on is of `epoch`.
    pub fn new(master: &MasterKey, repository: RepositoryId, epoch: u32) -> Self {
        Self::derive(master.as_bytes(), repository, epoch)
    }

    fn derive(master: &[u8; 32], repository: RepositoryId, epoch: u32) -> Self {
        let secrets = Locked::new(|secrets: &mut Secrets| {
            secrets.master = *master;
            for purpose in Purpose::ALL {
                secrets.seal[purpose as usize - 1] = derive_seal_key(master, purpose, epoch);
            }
            secrets.data_id = derive_subkey(master, SubkeyUse::DataId);
            secrets.node_id = derive_subkey(master, SubkeyUse::NodeId);
        });
        let gear_key = Zeroizing::new(derive_subkey(master, SubkeyUse::GearTable));
        Self { secrets, gear: Box::new(GearTable::new(&gear_key)), repository, epoch }
    }

    /// The same keys, sealing under another epoch: after a rotation, or when a head shows that one has happened.
    pub fn at_epoch(&self, epoch: u32) -> Self {
        Self::derive(&self.secrets.master, self.repository, epoch)
    }

    /// The repository that these keys belong to.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The epoch under which [`Self::seal`] seals.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Tells master keys apart without revealing them; remembered outside the repository.
    pub fn fingerprint(&self) -> [u8; 16] {
        let digest = self.subkey(SubkeyUse::KeyFingerprint);
        std::array::from_fn(|i| digest[i])
    }

    /// The key of one use, the same in every epoch.
    pub fn subkey(&self, use_: SubkeyUse) -> [u8; 32] {
        derive_subkey(&self.secrets.master, use_)
    }

    /// The id of a plaintext.
    pub fn blob_id(&self, kind: BlobKind, plaintext: &[u8]) -> BlobId {
        let key = match kind {
            BlobKind::Data => &self.secrets.data_id,
            BlobKind::Node => &self.secrets.node_id,
        };
        BlobId(*blake3::keyed_hash(key, plaintext).as_bytes())
    }

    /// The chunker's table.
    pub fn gear(&self) -> &GearTable {
        &self.gear
    }

    /// Seals a copy of `plaintext`, bound to `aad`, under the current epoch.
    pub fn seal(&self, purpose: Purpose, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD);
        sealed.resize(NONCE_LENGTH, 0);
        sealed.extend_from_slice(plaintext);
        self.seal_vec(purpose, aad, &mut sealed);
        sealed
    }

    /// Seals a buffer in place: 24 bytes of room, then the plaintext; the tag is appended.
    ///
    /// # Panics
    /// If the buffer has no room for the nonce.
    pub fn seal_vec(&self, purpose: Purpose, aad: &[u8], buffer: &mut Vec<u8>) {
        buffer.resize(buffer.len() + TAG_LENGTH, 0);
        self.seal_slice(purpose, aad, buffer);
    }

    /// Seals a slice in place: 24 bytes of room, the plaintext, 16 bytes of room.
    ///
    /// # Panics
    /// If the slice is shorter than the room.
    pub fn seal_slice(&self, purpose: Purpose, aad: &[u8], buffer: &mut [u8]) {
        let nonce: [u8; NONCE_LENGTH] = random();
        let (nonce_room, rest) = buffer.split_at_mut(NONCE_LENGTH);
        let (text, tag_room) = rest.split_at_mut(rest.len() - TAG_LENGTH);
        nonce_room.copy_from_slice(&nonce);
        let aad = self.bound(purpose, self.epoch, aad);
        let tag = cipher(&self.secrets.seal[purpose as usize - 1])
            .encrypt_inout_detached(&XNonce::from(nonce), &aad, text.into())
            .expect("a plaintext is far below the cipher's 256 GiB");
        tag_room.copy_from_slice(&tag);
    }

    /// Unseals what [`Self::seal`] made under `epoch`; any failure is [`Error::Corrupt`] naming `object`.
    pub fn unseal(&self, purpose: Purpose, epoch: u32, aad: &[u8], sealed: &[u8], object: &str) -> Result<Vec<u8>> {
        let Some(length) = sealed.len().checked_sub(SEAL_OVERHEAD) else { return Err(not_authentic(object)) };
        let mut plaintext = sealed[NONCE_LENGTH..][..length].to_vec();
        let (nonce, tag) = (&sealed[..NONCE_LENGTH], &sealed[NONCE_LENGTH + length..]);
        self.unseal_detached(purpose, epoch, aad, nonce, &mut plaintext, tag).map_err(|()| not_authentic(object))?;
        Ok(plaintext)
    }

    /// Unseals in place and gives the plaintext, a part of the slice; on failure the slice is as it was.
    pub fn unseal_slice<'a>(
        &self,
        purpose: Purpose,
        epoch: u32,
        aad: &[u8],
        sealed: &'a mut [u8],
        object: &str,
    ) -> Result<&'a mut [u8]> {
        let Some(length) = sealed.len().checked_sub(SEAL_OVERHEAD) else { return Err(not_authentic(object)) };
        let (nonce, rest) = sealed.split_at_mut(NONCE_LENGTH);
        let (text, tag) = rest.split_at_mut(length);
        self.unseal_detached(purpose, epoch, aad, nonce, text, tag).map_err(|()| not_authentic(object))?;
        Ok(text)
    }

    fn unseal_detached(
        &self,
        purpose: Purpose,
        epoch: u32,
        aad: &[u8],
        nonce: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), ()> {
        let older;
        let key = if epoch == self.epoch {
            &self.secrets.seal[purpose as usize - 1]
        } else {
            // Two compressions of BLAKE3, less than a thousandth of unsealing a chunk: not worth a cache of keys.
            older = Zeroizing::new(derive_seal_key(&self.secrets.master, purpose, epoch));
            &*older
        };
        let nonce = <[u8; NONCE_LENGTH]>::try_from(nonce).map_err(|_| ())?;
        let tag = <[u8; TAG_LENGTH]>::try_from(tag).map_err(|_| ())?;
        let aad = self.bound(purpose, epoch, aad);
        cipher(key).decrypt_inout_detached(&XNonce::from(nonce), &aad, text.into(), &Tag::from(tag)).map_err(|_| ())
    }

    /// The associated data: what every sealing is bound to, then what the caller binds.
    fn bound(&self, purpose: Purpose, epoch: u32, aad: &[u8]) -> Vec<u8> {
        let mut bound = Vec::with_capacity(AAD_PREFIX_LENGTH + aad.len());
        bound.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bound.extend_from_slice(self.repository.as_bytes());
        bound.push(purpose as u8);
        bound.extend_from_slice(&epoch.to_le_bytes());
        bound.extend_from_slice(aad);
        bound
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("repository", &self.repository)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

pub(super) fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

fn derive_seal_key(master: &[u8; 32], purpose: Purpose, epoch: u32) -> [u8; 32] {
    Context::Seal(purpose).derive(&[master, &epoch.to_le_bytes()])
}

fn derive_subkey(master: &[u8; 32], use_: SubkeyUse) -> [u8; 32] {
    Context::Subkey(use_).derive(&[master, &0u32.to_le_bytes()])
}

fn not_authentic(object: &str) -> Error {
    Error::corrupt(object, "the seal does not match")
}

#[cfg(test)]
mod tests;
