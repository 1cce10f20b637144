//! Key slots: wrapping the master key under a passphrase, a key file or a recovery code, and getting it back.
//!
//! *Invariants*
//! 1. A wrong secret, a forged slot and a slot of another repository are one answer: [`Error::WrongKey`].
//! 2. A slot commits to its key: the commitment is compared before the cipher runs, so no slot opens under two secrets, and
//!    guessing cannot test many secrets with one slot (XChaCha20-Poly1305 alone would allow both).
//! 3. No key derivation runs with parameters outside the bounds of the format.
//! 4. Slots are tried from the cheapest to the dearest, so a planted heavy slot does not delay one that opens.
//!
//! *Threads*: called at open and by key commands; Argon2id fills up to its memory parameter and takes a second or so.
//!
//! *Bounds*: at most [`SLOTS_MAX`] slots; a key file of 32 bytes to 1 MiB; a passphrase of 1 byte to 64 KiB.
//!
//! *Format*: in `format/slot.rs`.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{AeadInOut, Tag, XNonce};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{
    context::Context,
    keys::{MasterKey, NONCE_LENGTH, cipher},
    random,
};
pub use crate::format::slot::{KdfParams, SLOT_COPIES, SlotInfo, SlotKind, SlotName};
use crate::{
    error::{Error, Result},
    format::slot::{LABEL_LENGTH_MAX, SLOT_PLAIN_LENGTH, SlotFile},
    id::RepositoryId,
};

/// Most slots of a repository; a listing that shows more is not tried further.
pub const SLOTS_MAX: usize = 64;
/// Shortest key file, in bytes: it is not stretched, so it must be as hard to guess as a key.
pub const KEY_FILE_LENGTH_MIN: usize = 32;
/// Longest key file, in bytes.
pub const KEY_FILE_LENGTH_MAX: usize = 1 << 20;
/// Longest passphrase, in bytes.
pub const PASSPHRASE_LENGTH_MAX: usize = 64 << 10;

const RECOVERY_LENGTH: usize = 20;
const RECOVERY_DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A secret that opens slots of its kind.
pub enum Credential {
    /// A passphrase, as typed.
    Passphrase(Zeroizing<String>),
    /// The content of a key file.
    KeyFile(Zeroizing<Vec<u8>>),
    /// A recovery code, as typed.
    RecoveryCode(Zeroizing<String>),
}

impl Credential {
    /// The kind of slot that it opens.
    pub fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase(_) => SlotKind::Passphrase,
            Self::KeyFile(_) => SlotKind::KeyFile,
            Self::RecoveryCode(_) => SlotKind::RecoveryCode,
        }
    }

    /// Whether a slot may be made for it; [`Error::Invalid`] says what it lacks, without quoting it.
    pub fn check(&self) -> Result<()> {
        let what = match self {
            Self::Passphrase(text) if text.is_empty() => "the passphrase is empty".to_string(),
            Self::Passphrase(text) if text.len() > PASSPHRASE_LENGTH_MAX => "the passphrase is too long".to_string(),
            Self::KeyFile(bytes) if !(KEY_FILE_LENGTH_MIN..=KEY_FILE_LENGTH_MAX).contains(&bytes.len()) => {
                format!("a key file has {KEY_FILE_LENGTH_MIN} to {KEY_FILE_LENGTH_MAX} bytes, not {}", bytes.len())
            }
            Self::RecoveryCode(text) if decode_recovery(text).is_none() => {
                "a recovery code has 32 letters and digits".to_string()
            }
            _ => return Ok(()),
        };
        Err(Error::Invalid { what })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential::{:?}(..)", self.kind())
    }
}

/// Draws a recovery code of 160 bits, to be written down.
pub fn generate_recovery_code() -> Zeroizing<String> {
    let bytes = Zeroizing::new(random::<RECOVERY_LENGTH>());
    let mut text = Zeroizing::new(String::with_capacity(40));
    for (index, group) in bytes.as_chunks::<5>().0.iter().enumerate() {
        let value = group.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        for digit in 0..8 {
            if (index, digit) != (0, 0) && digit % 4 == 0 {
                text.push('-');
            }
            text.push(RECOVERY_DIGITS[(value >> (35 - 5 * digit)) as usize & 31] as char);
        }
    }
    text
}

/// Draws the content of a key file.
pub fn generate_key_file() -> Zeroizing<Vec<u8>> {
    let key = Zeroizing::new(random::<64>());
    Zeroizing::new(key.to_vec())
}

/// Wraps the master key in a new slot; the bytes go to every copy. `kdf` serves passphrases only.
///
/// [`Error::Invalid`] if the credential or the label breaks its bounds.
#[allow(clippy::too_many_arguments)]
pub fn seal_slot(
    master: &MasterKey,
    epoch: u32,
    repository: RepositoryId,
    name: &SlotName,
    label: &str,
    credential: &Credential,
    kdf: KdfParams,
    created_ns: i64,
) -> Result<Vec<u8>> {
    credential.check()?;
    if label.len() > LABEL_LENGTH_MAX || label.chars().any(char::is_control) {
        let what = format!("a slot's label has at most {LABEL_LENGTH_MAX} bytes and no control characters");
        return Err(Error::Invalid { what });
    }
    let kdf = (credential.kind() == SlotKind::Passphrase).then_some(kdf);
    let info = SlotInfo { name: name.clone(), kind: credential.kind(), label: label.to_string(), created_ns, kdf };
    let mut slot =
        SlotFile { info, repository, salt: random(), commitment: [0; 32], sealed: [0; NONCE_LENGTH + 64 + 16] };
    let kek = derive_kek(credential, &slot)?;
    slot.commitment = commitment_of(&kek);
    seal_key(&mut slot, &kek, master, epoch);
    Ok(slot.encode())
}

/// Opens the first slot that the credential fits: the master key, the key epoch when the slot was made, and its name.
///
/// `slots` may hold several copies of each. [`Error::WrongKey`] if none opens; damage is reported only where no slot of the
/// repository was intact.
pub fn unlock(
    slots: &[(SlotName, Vec<u8>)],
    repository: RepositoryId,
    credential: &Credential,
) -> Result<(MasterKey, u32, SlotName)> {
    let intact = intact_slots(slots, repository)?;
    if credential.check().is_err() {
        return Err(Error::WrongKey);
    }
    for slot in intact.iter().filter(|slot| slot.info.kind == credential.kind()) {
        let kek = derive_kek(credential, slot)?;
        if !bool::from(commitment_of(&kek).ct_eq(&slot.commitment)) {
            continue;
        }
        if let Some((master, epoch)) = unseal_key(slot, &kek) {
            return Ok((master, epoch, slot.info.name.clone()));
        }
    }
    Err(Error::WrongKey)
}

/// What one copy of a slot says in plain; nothing of it is authenticated.
pub fn describe_slot(name: &SlotName, bytes: &[u8]) -> Result<SlotInfo> {
    let slot = decode_named(name, bytes)?;
    Ok(slot.info)
}

/// The intact slots, each once, the cheapest first.
fn intact_slots(slots: &[(SlotName, Vec<u8>)], repository: RepositoryId) -> Result<Vec<SlotFile>> {
    let mut intact: Vec<SlotFile> = Vec::new();
    let mut failure = None;
    for (name, bytes) in slots.iter().take(SLOTS_MAX * SLOT_COPIES) {
        match decode_named(name, bytes) {
            Ok(slot) if slot.repository != repository => log::warn!("slot {name} belongs to another repository"),
            Ok(slot) if intact.contains(&slot) => {}
            Ok(slot) => intact.push(slot),
            Err(error) => {
                log::warn!("{error}");
                failure = failure.or(Some(error));
            }
        }
    }
    if let (true, Some(error)) = (intact.is_empty(), failure) {
        return Err(error);
    }
    intact.sort_by_key(|slot| slot.info.kdf.map_or(0, |kdf| kdf.work_kib()));
    Ok(intact)
}

fn decode_named(name: &SlotName, bytes: &[u8]) -> Result<SlotFile> {
    let object = format!("keys/{name}");
    let slot = SlotFile::decode(bytes, &object)?;
    if slot.info.name != *name {
        return Err(Error::corrupt(object, format!("it is slot {} under another name", slot.info.name)));
    }
    Ok(slot)
}

fn derive_kek(credential: &Credential, slot: &SlotFile) -> Result<Zeroizing<[u8; 32]>> {
    let kek = match credential {
        Credential::Passphrase(passphrase) => return stretch(passphrase.as_bytes(), slot),
        Credential::KeyFile(bytes) => Context::SlotKeyFile.derive(&[&slot.salt, bytes]),
        Credential::RecoveryCode(text) => {
            let code = decode_recovery(text).ok_or(Error::WrongKey)?;
            Context::SlotRecovery.derive(&[&slot.salt, &code[..]])
        }
    };
    Ok(Zeroizing::new(kek))
}

fn stretch(passphrase: &[u8], slot: &SlotFile) -> Result<Zeroizing<[u8; 32]>> {
    let kdf = slot.info.kdf.ok_or(Error::WrongKey)?;
    let failed = |error: argon2::Error| Error::Invalid {
        what: format!("slot {} needs {} MiB of memory to open: {error}", slot.info.name, kdf.m_kib() >> 10),
    };
    let params = Params::new(kdf.m_kib(), kdf.t(), kdf.p(), Some(32)).map_err(failed)?;
    let mut kek = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, &slot.salt, &mut kek[..])
        .map_err(failed)?;
    Ok(kek)
}

fn commitment_of(kek: &[u8; 32]) -> [u8; 32] {
    Context::SlotCommit.derive(&[kek])
}

fn seal_key(slot: &mut SlotFile, kek: &[u8; 32], master: &MasterKey, epoch: u32) {
    let key = Zeroizing::new(Context::SlotSeal.derive(&[kek]));
    let nonce: [u8; NONCE_LENGTH] = random();
    let mut text = Zeroizing::new([0; SLOT_PLAIN_LENGTH]);
    text[..32].copy_from_slice(master.as_bytes());
    text[32..36].copy_from_slice(&epoch.to_le_bytes());
    let tag = cipher(&key)
        .encrypt_inout_detached(&XNonce::from(nonce), &slot.encode_bound(), (&mut text[..]).into())
        .expect("64 bytes are far below the cipher's 256 GiB");
    let (nonce_room, rest) = slot.sealed.split_at_mut(NONCE_LENGTH);
    let (text_room, tag_room) = rest.split_at_mut(SLOT_PLAIN_LENGTH);
    nonce_room.copy_from_slice(&nonce);
    text_room.copy_from_slice(&text[..]);
    tag_room.copy_from_slice(&tag);
}

fn unseal_key(slot: &SlotFile, kek: &[u8; 32]) -> Option<(MasterKey, u32)> {
    let key = Zeroizing::new(Context::SlotSeal.derive(&[kek]));
    let (nonce, rest) = slot.sealed.split_first_chunk::<NONCE_LENGTH>()?;
    let (text, tag) = rest.split_first_chunk::<SLOT_PLAIN_LENGTH>()?;
    let mut text = Zeroizing::new(*text);
    let tag = Tag::from(*tag.first_chunk::<16>()?);
    cipher(&key)
        .decrypt_inout_detached(&XNonce::from(*nonce), &slot.encode_bound(), (&mut text[..]).into(), &tag)
        .ok()?;
    let (master, rest) = text.split_first_chunk::<32>()?;
    let epoch = u32::from_le_bytes(*rest.first_chunk::<4>()?);
    Some((MasterKey::from_bytes(master), epoch))
}

fn decode_recovery(text: &str) -> Option<Zeroizing<[u8; RECOVERY_LENGTH]>> {
    let mut code = Zeroizing::new([0; RECOVERY_LENGTH]);
    let mut digits = 0;
    let mut value = 0u64;
    for typed in text.bytes().filter(|typed| !matches!(typed, b' ' | b'-' | b'\n' | b'\r' | b'\t')) {
        let canonical = match typed.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        };
        let digit = RECOVERY_DIGITS.iter().position(|&digit| digit == canonical)?;
        value = value << 5 | digit as u64;
        digits += 1;
        if digits % 8 == 0 {
            let group = code.get_mut((digits / 8 - 1) * 5..digits / 8 * 5)?;
            group.copy_from_slice(&value.to_be_bytes()[3..]);
            value = 0;
        }
    }
    value.zeroize();
    (digits == 32).then_some(code)
}

#[cfg(test)]
mod tests;
