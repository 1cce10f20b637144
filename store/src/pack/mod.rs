//! Packs: putting sealed blobs into one immutable object, and finding them again from its end.
//!
//! *Invariants*
//! 1. A pack's name is the BLAKE3 of its bytes, known only when its suffix is; so a pack is complete under its name or absent.
//! 2. Every byte of a pack is sealed or random (F8).
//! 3. The entries of a trailer lie back to back and inside the file, whatever bytes a store returns.
//!
//! *Threads*: a [`PackBuilder`] belongs to one packer; reading is stateless.
//!
//! *Bounds*: a builder holds 52 bytes for each entry, at most 2^20 of them, and none of the blobs. Reading a trailer takes
//! as much memory as the trailer; verifying takes [`VERIFY_STEP`] or one blob, whichever is more.
//!
//! *Format*: in `format/pack.rs`.
//!
//! *Not here*: open packs (`backend`), what goes into which pack (`pipeline`), where a blob is (`index`).

mod builder;

use blake3::Hasher;

pub use self::builder::{FinishedPack, PackBuilder};
pub use crate::format::pack::PackEntry;
use crate::{
    backend::ObjectName,
    crypto::{Keyring, Purpose},
    error::{Error, Result},
    format::pack::{PACK_LENGTH_MAX, PACK_TAIL_LENGTH, PackTail, decode_trailer, tail_binding},
    id::PackId,
};

/// Bytes read from the end of a pack at first: tail and trailer of a pack with up to 700 blobs.
const END_READ: u64 = 32 << 10;
/// Bytes read at a time by [`verify_pack`], unless a blob is longer.
pub const VERIFY_STEP: u32 = 1 << 20;

/// Reads `length` bytes of an object at an offset.
pub type ReadRange<'a> = &'a mut dyn FnMut(u64, u32) -> Result<Vec<u8>>;

/// Reads what a pack of `pack_length` bytes holds, from its end.
///
/// Damage of tail or trailer, and a file that was cut or lengthened, is [`Error::Corrupt`] naming the pack.
pub fn read_trailer(keyring: &Keyring, pack: PackId, pack_length: u64, read: ReadRange<'_>) -> Result<Vec<PackEntry>> {
    Ok(read_end(keyring, pack, pack_length, read)?.1)
}

/// Reads every byte of a pack: proves its name, and hands each blob, still sealed, to `blob`.
///
/// An error of `blob` ends the reading; a caller that wants to know all damage keeps it and returns `Ok`.
pub fn verify_pack(
    keyring: &Keyring,
    pack: PackId,
    pack_length: u64,
    read: ReadRange<'_>,
    blob: &mut dyn FnMut(&PackEntry, &[u8]) -> Result<()>,
) -> Result<Vec<PackEntry>> {
    let object = ObjectName::pack(&pack).to_string();
    let (tail, entries) = read_end(keyring, pack, pack_length, read)?;
    let mut hasher = Hasher::new();
    let mut rest = &entries[..];
    while let Some(first) = rest.first() {
        let start = u64::from(first.offset);
        let fitting = rest.iter().take_while(|entry| entry.end() - start <= u64::from(VERIFY_STEP)).count().max(1);
        let (group, after) = rest.split_at(fitting);
        let length = group.iter().map(|entry| entry.length).sum();
        let bytes = read_exactly(read, start, length, &object)?;
        hasher.update(&bytes);
        for entry in group {
            let from = (entry.offset - first.offset) as usize;
            blob(entry, &bytes[from..from + entry.length as usize])?;
        }
        rest = after;
    }
    let mut at = u64::from(tail.blobs_length);
    while at < pack_length {
        let length = (pack_length - at).min(u64::from(VERIFY_STEP)) as u32;
        hasher.update(&read_exactly(read, at, length, &object)?);
        at += u64::from(length);
    }
    if *hasher.finalize().as_bytes() != pack.0 {
        return Err(Error::corrupt(object, "its bytes do not have the hash that is its name"));
    }
    Ok(entries)
}

fn read_end(
    keyring: &Keyring,
    pack: PackId,
    pack_length: u64,
    read: ReadRange<'_>,
) -> Result<(PackTail, Vec<PackEntry>)> {
    let object = ObjectName::pack(&pack).to_string();
    if !(PACK_TAIL_LENGTH as u64..=PACK_LENGTH_MAX).contains(&pack_length) {
        return Err(Error::corrupt(object, format!("no pack is {pack_length} bytes long")));
    }
    let end_length = pack_length.min(END_READ);
    let end = read_exactly(read, pack_length - end_length, end_length as u32, &object)?;
    let (before_tail, sealed_tail) = end.split_at(end.len() - PACK_TAIL_LENGTH);
    let (epoch, plain) =
        unseal_any_epoch(keyring, Purpose::PackTail, &tail_binding(pack_length), sealed_tail, &object)?;
    let tail = PackTail::decode(&plain, pack_length, &object)?;

    let trailer_length = tail.trailer_length();
    let far;
    let sealed_trailer = if trailer_length <= before_tail.len() as u64 {
        &before_tail[before_tail.len() - trailer_length as usize..]
    } else {
        let at = pack_length - PACK_TAIL_LENGTH as u64 - trailer_length;
        far = read_exactly(read, at, trailer_length as u32, &object)?;
        &far
    };
    let binding = tail.trailer_binding(pack_length);
    let plain = keyring.unseal(Purpose::PackTrailer, epoch, &binding, sealed_trailer, &object)?;
    let entries = decode_trailer(&plain, &tail, &object)?;
    Ok((tail, entries))
}

fn read_exactly(read: ReadRange<'_>, offset: u64, length: u32, object: &str) -> Result<Vec<u8>> {
    let bytes = read(offset, length)?;
    if bytes.len() != length as usize {
        return Err(Error::corrupt(object, format!("{} of {length} bytes at offset {offset}", bytes.len())));
    }
    Ok(bytes)
}

/// Unseals what does not tell its epoch, because an epoch in plaintext would mark the object: the newest is tried first.
///
/// Each failed try costs one authentication of `sealed`, so this is for tails only.
pub(crate) fn unseal_any_epoch(
    keyring: &Keyring,
    purpose: Purpose,
    binding: &[u8],
    sealed: &[u8],
    object: &str,
) -> Result<(u32, Vec<u8>)> {
    let older = (0..keyring.epoch()).rev();
    let newest = keyring.unseal(purpose, keyring.epoch(), binding, sealed, object);
    let failure = match newest {
        Ok(plain) => return Ok((keyring.epoch(), plain)),
        Err(failure) => failure,
    };
    older
        .map(|epoch| (epoch, keyring.unseal(purpose, epoch, binding, sealed, object)))
        .find_map(|(epoch, plain)| plain.ok().map(|plain| (epoch, plain)))
        .ok_or(failure)
}

#[cfg(test)]
mod tests;
