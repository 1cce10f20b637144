//! The bytes of one blob: what is sealed, and the header inside.
//!
//! *Format*: a sealed blob, as it lies in a pack:
//!
//! | offset | size | field | meaning, check |
//! |---|---|---|---|
//! | 0 | 24 | nonce | random for every sealing |
//! | 24 | 5 + n | ciphertext | XChaCha20-Poly1305 of the header and the body |
//! | 29 + n | 16 | tag | checked before anything inside is looked at |
//!
//! and its plaintext:
//!
//! | offset | size | field | meaning, check |
//! |---|---|---|---|
//! | 0 | 1 | codec | 0 raw, 1 zstd (one or more frames, no dictionary); others are damage |
//! | 1 | 4 | plain length | `u32`, at most 16 MiB and at most what the reader expects |
//! | 5 | n | body | raw: exactly `plain length` bytes; zstd: decompresses to exactly as many |
//!
//! The key is the subkey `data-seal` or `node-seal` of the key epoch. The associated data is 57 bytes: format version `u32`,
//! repository id (16), kind `u8` (1 data, 2 node), key epoch `u32`, blob id (32). The blob id is keyed BLAKE3-256 of the
//! plaintext body under the subkey `data-id` or `node-id` (epoch 0 for ever); it is recomputed at every read.
//!
//! *Not here*: sealing (`crypto/seal.rs`), where blobs lie (`format/pack.rs`).

use crate::{
    codec::{Reader, Writer},
    error::Result,
};

/// Longest plaintext of a blob, in bytes.
pub const BLOB_PLAIN_MAX: u32 = 16 << 20;
/// Bytes of [`BlobHeader`].
pub const BLOB_HEADER_LENGTH: usize = 5;

/// How the body of a blob is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// The plaintext itself. On disk: 0.
    Raw = 0,
    /// zstd frames. On disk: 1.
    Zstd = 1,
}

/// What precedes the body inside the sealed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobHeader {
    /// How the body is stored.
    pub codec: Codec,
    /// Length of the plaintext.
    pub plain_length: u32,
}

impl BlobHeader {
    /// Appends the header.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(self.codec as u8);
        writer.u32(self.plain_length);
    }

    /// Reads the header and checks it against the body that follows; `plain_length_max` bounds what it may announce.
    pub fn decode(reader: &mut Reader<'_>, plain_length_max: u32) -> Result<Self> {
        let codec = match reader.u8()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            other => return Err(reader.corrupt(&format!("unknown codec {other}"))),
        };
        let plain_length = reader.u32()?;
        if plain_length > plain_length_max.min(BLOB_PLAIN_MAX) {
            return Err(
                reader.corrupt(&format!("plaintext of {plain_length} bytes, {plain_length_max} expected at most"))
            );
        }
        if codec == Codec::Raw && plain_length as usize != reader.remaining() {
            return Err(reader.corrupt("raw body is not as long as announced"));
        }
        Ok(Self { codec, plain_length })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decode(bytes: &[u8], max: u32) -> Result<BlobHeader> {
        BlobHeader::decode(&mut Reader::new(bytes, "blob"), max)
    }

    #[test]
    fn a_header_lies_where_the_table_says() {
        let header = BlobHeader { codec: Codec::Zstd, plain_length: 0x0001_0203 };
        let mut writer = Writer::new();
        header.encode(&mut writer);
        assert_eq!(writer.0, [1, 3, 2, 1, 0]);
        assert_eq!(writer.len(), BLOB_HEADER_LENGTH);
        assert_eq!(decode(&writer.0, BLOB_PLAIN_MAX).unwrap(), header);
    }

    #[test]
    fn announced_lengths_are_bounded_twice() {
        let announce = |length: u32| [&[1][..], &length.to_le_bytes()].concat();
        assert!(decode(&announce(BLOB_PLAIN_MAX), u32::MAX).is_ok());
        assert!(decode(&announce(BLOB_PLAIN_MAX + 1), u32::MAX).is_err());
        assert!(decode(&announce(100), 99).is_err());
        assert!(decode(&announce(u32::MAX), u32::MAX).is_err());
    }

    #[test]
    fn a_raw_body_is_as_long_as_announced() {
        assert!(decode(&[0, 2, 0, 0, 0, 7, 7], 10).is_ok());
        assert!(decode(&[0, 2, 0, 0, 0, 7], 10).is_err());
        assert!(decode(&[0, 1, 0, 0, 0, 7, 7], 10).is_err());
        assert!(decode(&[9, 0, 0, 0, 0], 10).is_err(), "unknown codec");
        assert!(decode(&[0, 0, 0, 0], 10).is_err(), "cut off");
    }
}
