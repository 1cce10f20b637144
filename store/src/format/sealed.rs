//! What the sealed records of fixed purpose (heads, manifests, journal commits, remembered state) have in common.

use crate::codec::Reader;
use crate::crypto::{Keyring, Purpose};
use crate::error::{Error, Result};

/// Unseals bytes that do not say under which key epoch they were sealed, newest epoch first, and gives that epoch.
///
/// The epoch is in the associated data, so at most one of them fits. There are as many as there were key rotations.
pub(crate) fn unseal_any_epoch(
    keyring: &Keyring,
    purpose: Purpose,
    aad: &[u8],
    sealed: &[u8],
    object: &str,
) -> Result<(Vec<u8>, u32)> {
    for epoch in (0..=keyring.epoch()).rev() {
        match keyring.unseal(purpose, epoch, aad, sealed, object) {
            Ok(body) => return Ok((body, epoch)),
            Err(Error::Corrupt { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Err(Error::corrupt(object, "it does not unseal"))
}

/// Reads the first eight bytes of a body: four of magic, then the format version, which must be at most `known`.
pub(crate) fn magic_and_version(reader: &mut Reader<'_>, object: &str, magic: [u8; 4], known: u32) -> Result<u32> {
    if reader.array::<4>()? != magic {
        return Err(Error::corrupt(object, "wrong magic"));
    }
    let found = reader.u32()?;
    if found > known {
        return Err(Error::UnsupportedFormat { object: object.to_string(), found, known });
    }
    Ok(found)
}

/// Checks that the rest of a body is zero: reserved bytes and padding.
pub(crate) fn zeros_to_end(mut reader: Reader<'_>) -> Result<()> {
    reader.zeros(reader.remaining())?;
    reader.finish()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypto::MasterKey;
    use crate::id::RepositoryId;

    pub(crate) fn keyring_of(seed: u8, epoch: u32) -> Keyring {
        Keyring::new(&MasterKey::from_bytes(&[seed; 32]), RepositoryId([seed; 16]), epoch)
    }

    pub(crate) fn keyring() -> Keyring {
        keyring_of(1, 0)
    }

    #[test]
    fn the_epoch_that_sealed_is_found_and_reported() {
        let old = keyring_of(1, 2).seal(Purpose::State, b"x", b"body");
        let (body, epoch) = unseal_any_epoch(&keyring_of(1, 5), Purpose::State, b"x", &old, "it").unwrap();
        assert_eq!((body.as_slice(), epoch), (&b"body"[..], 2));
        assert!(unseal_any_epoch(&keyring_of(1, 1), Purpose::State, b"x", &old, "it").unwrap_err().is_damage());
    }

    #[test]
    fn a_version_from_the_future_is_told_apart_from_damage() {
        let body = *b"ABCD\x07\0\0\0\0\x01";
        let read = |known| {
            let mut reader = Reader::new(&body, "it");
            magic_and_version(&mut reader, "it", *b"ABCD", known).map(|v| (v, zeros_to_end(reader).is_err()))
        };
        assert!(matches!(read(6), Err(Error::UnsupportedFormat { found: 7, known: 6, .. })));
        assert_eq!(read(7).unwrap(), (7, true));
    }
}
