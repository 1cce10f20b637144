//! The plain file `config`: what must be known before a key is.
//!
//! *Invariants*
//! 1. The checksum needs no key and only tells damage from intact bytes. The code (MAC) needs the key, and is what makes the
//!    values true; until it is verified they serve to find the key slots and nothing else.
//! 2. The three copies are the same bytes.
//!
//! *Format*: 256 bytes, in `config`, `config.1` and `config.2`.
//!
//! | offset | size | field | meaning, check |
//! |---|---|---|---|
//! | 0 | 8 | magic | `vellumRC` |
//! | 8 | 4 | format version | `u32`, 0 |
//! | 12 | 4 | length | `u32`, 256 |
//! | 16 | 16 | repository id | random |
//! | 32 | 1 | chunker | 1: keyed gear table, FastCDC 2020, normalisation 1 |
//! | 33 | 1 | compression | 0 none, 1 zstd |
//! | 34 | 1 | level | `i8`, -7 to 19 without 0 |
//! | 35 | 1 | reserved | 0 |
//! | 36 | 4 | chunk min | `u32`, even, 1 KiB to 1 MiB |
//! | 40 | 4 | chunk avg | `u32`, a power of two above min, at most 4 MiB |
//! | 44 | 4 | chunk max | `u32`, even, above avg, at most 8 MiB |
//! | 48 | 4 | pack bytes | `u32`, 64 KiB to 256 MiB |
//! | 52 | 4 | reserved | 0 |
//! | 56 | 8 | created | `i64`, nanoseconds since 1970 |
//! | 64 | 128 | reserved | 0 |
//! | 192 | 32 | code | keyed BLAKE3-256 of bytes 0 to 191 under the subkey `config-mac` |
//! | 224 | 32 | checksum | BLAKE3-256 of bytes 0 to 223, without key |

use crate::{
    codec::{Reader, Writer},
    config::{ChunkSizes, Compression, RepositoryConfig},
    error::{Error, Result},
    id::RepositoryId,
};

/// Newest version of the format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 0;

/// Length of the file.
pub const CONFIG_LENGTH: usize = 256;
/// Bytes that the code covers.
pub const CONFIG_CODED_LENGTH: usize = 192;

const MAGIC: &[u8; 8] = b"vellumRC";
const CHECKED_LENGTH: usize = CONFIG_CODED_LENGTH + 32;
const CHUNKER_KEYED_GEAR: u8 = 1;

/// The file as read: intact, but not authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// The values.
    pub config: RepositoryConfig,
    /// The code that a holder of the key made over the values.
    pub code: [u8; 32],
}

/// The bytes that the code covers.
pub fn encode_coded(config: &RepositoryConfig) -> [u8; CONFIG_CODED_LENGTH] {
    let mut writer = Writer::with_capacity(CONFIG_CODED_LENGTH);
    writer.array(MAGIC);
    writer.u32(config.format_version);
    writer.u32(CONFIG_LENGTH as u32);
    writer.array(config.repository.as_bytes());
    writer.u8(CHUNKER_KEYED_GEAR);
    writer.u8(config.compression.enabled as u8);
    writer.u8(config.compression.level as i8 as u8);
    writer.zeros(1);
    writer.u32(config.chunk_sizes.min());
    writer.u32(config.chunk_sizes.avg());
    writer.u32(config.chunk_sizes.max());
    writer.u32(config.pack_bytes);
    writer.zeros(4);
    writer.i64(config.created_ns);
    writer.zeros(CONFIG_CODED_LENGTH - writer.len());
    writer.0.try_into().expect("the fields above are shorter than the coded part, and zeros fill it")
}

impl ConfigFile {
    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(CONFIG_LENGTH);
        writer.bytes(&encode_coded(&self.config));
        writer.array(&self.code);
        let checksum = *blake3::hash(&writer.0).as_bytes();
        writer.array(&checksum);
        writer.0
    }

    /// Reads a file; a newer version is told apart from damage.
    pub fn decode(bytes: &[u8], object: &str) -> Result<Self> {
        let mut reader = Reader::new(bytes, object);
        if reader.array::<8>()? != *MAGIC {
            return Err(reader.corrupt("this is no configuration"));
        }
        let format_version = reader.u32()?;
        if format_version > FORMAT_VERSION {
            // Another version may have another length and checksum, so this comes before both.
            let object = object.to_string();
            return Err(Error::UnsupportedFormat { object, found: format_version, known: FORMAT_VERSION });
        }
        if bytes.len() != CONFIG_LENGTH || reader.u32()? as usize != CONFIG_LENGTH {
            return Err(reader.corrupt("it is not 256 bytes long"));
        }
        if blake3::hash(&bytes[..CHECKED_LENGTH]).as_bytes()[..] != bytes[CHECKED_LENGTH..] {
            return Err(reader.corrupt("the checksum does not match"));
        }
        let config = Self::decode_values(&mut reader, format_version)?;
        Ok(Self { config, code: reader.array()? })
    }

    fn decode_values(reader: &mut Reader<'_>, format_version: u32) -> Result<RepositoryConfig> {
        let repository = RepositoryId(reader.array()?);
        if reader.u8()? != CHUNKER_KEYED_GEAR {
            return Err(reader.corrupt("unknown chunker"));
        }
        let enabled = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.corrupt("unknown compression")),
        };
        let compression = Compression { enabled, level: i32::from(reader.u8()? as i8) };
        reader.zeros(1)?;
        let (min, avg, max) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let chunk_sizes = ChunkSizes::new(min, avg, max).map_err(|error| reader.corrupt(&error.to_string()))?;
        let pack_bytes = reader.u32()?;
        reader.zeros(4)?;
        let created_ns = reader.i64()?;
        reader.zeros(CONFIG_CODED_LENGTH - reader.position())?;
        let config = RepositoryConfig { format_version, repository, chunk_sizes, pack_bytes, compression, created_ns };
        config.check().map_err(|error| reader.corrupt(&error.to_string()))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file() -> ConfigFile {
        let mut config = RepositoryConfig::new(RepositoryId([3; 16]), -5);
        config.compression = Compression { level: -2, enabled: false };
        config.chunk_sizes = ChunkSizes::LARGE;
        ConfigFile { config, code: [9; 32] }
    }

    #[test]
    fn a_configuration_reads_back_as_written_and_lies_where_the_table_says() {
        let bytes = file().encode();
        assert_eq!(bytes.len(), CONFIG_LENGTH);
        assert_eq!(&bytes[..8], MAGIC);
        assert_eq!(&bytes[16..32], &[3; 16]);
        assert_eq!(&bytes[32..36], &[1, 0, 0xfe, 0]);
        assert_eq!(&bytes[36..40], &(64u32 << 10).to_le_bytes());
        assert_eq!(&bytes[56..64], &(-5i64).to_le_bytes());
        assert_eq!(&bytes[192..224], &[9; 32]);
        assert_eq!(ConfigFile::decode(&bytes, "config").unwrap(), file());
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let bytes = file().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ConfigFile::decode(&damaged, "config").is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(ConfigFile::decode(&bytes[..length], "config").is_err(), "{length} bytes");
        }
        assert!(ConfigFile::decode(&[bytes, vec![0]].concat(), "config").is_err(), "one byte more");
    }

    #[test]
    fn a_newer_version_is_not_called_damage() {
        let mut bytes = file().encode();
        bytes[8] = 7;
        let error = ConfigFile::decode(&bytes[..100], "config.1").unwrap_err();
        assert!(matches!(error, Error::UnsupportedFormat { found: 7, known: FORMAT_VERSION, .. }), "{error}");
    }

    #[test]
    fn values_outside_their_bounds_are_refused_even_with_a_right_checksum() {
        let edits: [(usize, &[u8]); 8] = [
            (32, &[2]),
            (33, &[2]),
            (34, &[0]),
            (34, &[20]),
            (35, &[1]),
            (36, &[1, 0, 0, 0]),
            (48, &[255, 255, 255, 255]),
            (191, &[1]),
        ];
        for (offset, value) in edits {
            let mut bytes = file().encode();
            bytes[offset..offset + value.len()].copy_from_slice(value);
            let checksum = *blake3::hash(&bytes[..CHECKED_LENGTH]).as_bytes();
            bytes[CHECKED_LENGTH..].copy_from_slice(&checksum);
            assert!(ConfigFile::decode(&bytes, "config").unwrap_err().is_damage(), "offset {offset}");
        }
    }
}
