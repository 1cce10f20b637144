//! The three copies of `config`: which of them to believe before and after the key is known.
//!
//! *Invariants*
//! 1. Before [`StoredConfig::verify`] only the repository id is given out, to find the key slots.
//! 2. Any one intact and authentic copy is enough; copies that differ from it are named, so that the caller rewrites them.
//!
//! *Bounds*: at most three copies of 256 bytes.
//!
//! *Format*: in `format/config.rs`.

use subtle::ConstantTimeEq;

use super::{context::SubkeyUse, keys::Keyring};
use crate::{
    config::{CONFIG_COPIES, RepositoryConfig},
    error::{Error, Result},
    format::config::{ConfigFile, encode_coded},
    id::RepositoryId,
};

/// The bytes of every copy of a configuration, authenticated under these keys.
pub fn seal_config(keyring: &Keyring, config: &RepositoryConfig) -> Vec<u8> {
    ConfigFile { config: config.clone(), code: code_of(keyring, config) }.encode()
}

/// The intact copies of a configuration, not authenticated.
#[derive(Debug)]
pub struct StoredConfig {
    intact: Vec<(usize, ConfigFile)>,
}

/// An authenticated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedConfig {
    /// The values.
    pub config: RepositoryConfig,
    /// Indices into [`CONFIG_COPIES`] of copies that are missing, damaged or different, to be written again.
    pub stale_copies: Vec<usize>,
}

impl StoredConfig {
    /// Takes what was read of the copies, in the order of [`CONFIG_COPIES`]; `None` is a copy that does not exist.
    ///
    /// [`Error::NotFound`] if none exists; the error of the first if none is intact, but a newer format before damage.
    pub fn read(copies: &[Option<Vec<u8>>; 3]) -> Result<Self> {
        let mut intact = Vec::new();
        let mut failure = None;
        for (index, bytes) in copies.iter().enumerate() {
            let Some(bytes) = bytes else { continue };
            match ConfigFile::decode(bytes, CONFIG_COPIES[index]) {
                Ok(file) => intact.push((index, file)),
                Err(error @ Error::UnsupportedFormat { .. })
                    if !matches!(failure, Some(Error::UnsupportedFormat { .. })) =>
                {
                    failure = Some(error);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match (intact.is_empty(), failure) {
            (false, _) => Ok(Self { intact }),
            (true, Some(error)) => Err(error),
            (true, None) => Err(Error::NotFound { object: CONFIG_COPIES[0].to_string() }),
        }
    }

    /// The repository whose key slots to try.
    pub fn repository(&self) -> RepositoryId {
        self.intact[0].1.config.repository
    }

    /// The values that a holder of the key wrote, or [`Error::Corrupt`].
    pub fn verify(self, keyring: &Keyring) -> Result<VerifiedConfig> {
        let authentic = |file: &ConfigFile| {
            file.config.repository == keyring.repository()
                && bool::from(file.code.ct_eq(&code_of(keyring, &file.config)))
        };
        let Some((_, file)) = self.intact.iter().find(|(_, file)| authentic(file)) else {
            return Err(Error::corrupt(CONFIG_COPIES[0], "no copy was written by a holder of this key"));
        };
        let stale_copies = (0..CONFIG_COPIES.len())
            .filter(|&copy| !self.intact.iter().any(|(index, other)| *index == copy && other == file))
            .collect();
        Ok(VerifiedConfig { config: file.config.clone(), stale_copies })
    }
}

fn code_of(keyring: &Keyring, config: &RepositoryConfig) -> [u8; 32] {
    *blake3::keyed_hash(&keyring.subkey(SubkeyUse::ConfigMac), &encode_coded(config)).as_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypto::MasterKey;

    const REPOSITORY: RepositoryId = RepositoryId([4; 16]);

    fn keyring(key: u8) -> Keyring {
        Keyring::new(&MasterKey::from_bytes(&[key; 32]), REPOSITORY, 0)
    }

    fn sealed(key: u8, pack_bytes: u32) -> Vec<u8> {
        let mut config = RepositoryConfig::new(REPOSITORY, 1);
        config.pack_bytes = pack_bytes;
        seal_config(&keyring(key), &config)
    }

    #[test]
    fn any_one_of_the_three_copies_is_enough() {
        let good = sealed(1, 1 << 20);
        let mut damaged = good.clone();
        damaged[40] ^= 1;
        for survivor in 0..3 {
            let mut copies = [Some(damaged.clone()), None, Some(damaged.clone())];
            copies[survivor] = Some(good.clone());
            let stored = StoredConfig::read(&copies).unwrap();
            assert_eq!(stored.repository(), REPOSITORY);
            let verified = stored.verify(&keyring(1)).unwrap();
            assert_eq!(verified.config.pack_bytes, 1 << 20);
            let stale: Vec<_> = (0..3).filter(|&copy| copy != survivor).collect();
            assert_eq!(verified.stale_copies, stale);
        }
    }

    #[test]
    fn a_copy_that_was_altered_with_a_right_checksum_is_passed_over() {
        let forged = sealed(2, 2 << 20);
        let good = sealed(1, 1 << 20);
        let stored = StoredConfig::read(&[Some(forged.clone()), Some(good), Some(forged.clone())]).unwrap();
        let verified = stored.verify(&keyring(1)).unwrap();
        assert_eq!((verified.config.pack_bytes, verified.stale_copies), (1 << 20, vec![0, 2]));
        let all_forged = StoredConfig::read(&[Some(forged), None, None]).unwrap();
        assert!(all_forged.verify(&keyring(1)).unwrap_err().is_damage());
    }

    #[test]
    fn a_configuration_of_another_repository_is_refused_under_the_same_key() {
        let other = Keyring::new(&MasterKey::from_bytes(&[1; 32]), RepositoryId([5; 16]), 0);
        let bytes = seal_config(&other, &RepositoryConfig::new(RepositoryId([5; 16]), 1));
        assert!(StoredConfig::read(&[Some(bytes), None, None]).unwrap().verify(&keyring(1)).is_err());
    }

    #[test]
    fn missing_is_not_damaged_and_newer_is_neither() {
        assert!(matches!(StoredConfig::read(&[None, None, None]), Err(Error::NotFound { .. })));
        let damaged = Some(vec![0; 256]);
        assert!(StoredConfig::read(&[damaged.clone(), None, None]).unwrap_err().is_damage());
        let mut newer = sealed(1, 1 << 20);
        newer[8] = 1;
        let error = StoredConfig::read(&[damaged.clone(), Some(newer), damaged]).unwrap_err();
        assert!(matches!(error, Error::UnsupportedFormat { found: 1, .. }), "{error}");
    }

    #[test]
    fn the_epoch_does_not_matter_to_the_configuration() {
        let bytes = sealed(1, 1 << 20);
        let stored = StoredConfig::read(&[Some(bytes), None, None]).unwrap();
        assert!(stored.verify(&keyring(1).at_epoch(9)).is_ok());
    }
}
