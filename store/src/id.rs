//! Identities of the store: every id is its own type, and none is a bare array.
//!
//! *Bounds*: all ids are 32 bytes but [`RepositoryId`], which is 16. Hexadecimal is lower case, without prefix.

use std::fmt;

use crate::error::{Error, Result};

macro_rules! id_type {
    ($(#[$meta:meta])* $name:ident, $length:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = $length;

            /// The id's bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// Reads an id from exactly its length in bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                <[u8; $length]>::try_from(bytes).ok().map(Self)
            }

            /// Lower-case hexadecimal, as used in object names.
            pub fn to_hex(&self) -> String {
                hex(&self.0)
            }

            /// Reads what [`Self::to_hex`] wrote; anything else is `None`.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0u8; $length];
                unhex(text, &mut bytes).then_some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.to_hex()[..12])
            }
        }
    };
}

id_type!(
    /// Keyed BLAKE3-256 of a blob's plaintext; one key per [`BlobKind`].
    BlobId, 32
);
id_type!(
    /// BLAKE3-256 of all bytes of a pack file.
    PackId, 32
);
id_type!(
    /// BLAKE3-256 of all bytes of an index segment file.
    SegmentId, 32
);
id_type!(
    /// BLAKE3-256 of all bytes of a sealed manifest.
    ManifestId, 32
);
id_type!(
    /// BLAKE3-256 of all bytes of a sealed head.
    HeadHash, 32
);
id_type!(
    /// Random identity of a repository, drawn at `init`.
    RepositoryId, 16
);

/// What a blob holds; part of its id key, its sealing key and its associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlobKind {
    /// A chunk of file content. On disk: 1.
    Data = 1,
    /// A tree node. On disk: 2.
    Node = 2,
}

impl BlobKind {
    /// Reads the number used on disk.
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Data),
            2 => Some(Self::Node),
            _ => None,
        }
    }
}

/// Name of a volume: 1 to 64 of `a-z A-Z 0-9 . _ -`, not starting with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    /// Checks and takes a name; [`Error::InvalidName`] says which rule it breaks.
    pub fn new(name: &str) -> Result<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(allowed) {
            return Err(Error::InvalidName {
                what: "volume",
                name: name.to_string(),
                rule: "1 to 64 of a-z A-Z 0-9 . _ -, not starting with a dot",
            });
        }
        Ok(Self(name.to_string()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hexadecimal of any bytes.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for &b in bytes {
        text.push(DIGITS[(b >> 4) as usize] as char);
        text.push(DIGITS[(b & 15) as usize] as char);
    }
    text
}

fn unhex(text: &str, out: &mut [u8]) -> bool {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != out.len() * 2 {
        return false;
    }
    for (i, b) in out.iter_mut().enumerate() {
        match (digit(text[2 * i]), digit(text[2 * i + 1])) {
            (Some(high), Some(low)) => *b = high << 4 | low,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_refuses_what_it_did_not_write() {
        let id = BlobId(std::array::from_fn(|i| (i * 9) as u8));
        assert_eq!(BlobId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(BlobId::from_hex(&id.to_hex().to_uppercase()), None);
        assert_eq!(BlobId::from_hex(&id.to_hex()[1..]), None);
    }

    #[test]
    fn volume_names_refuse_paths_and_hidden_names() {
        assert!(VolumeName::new("main").is_ok());
        for bad in ["", ".x", "a/b", "a b", "ü", &"x".repeat(65)] {
            assert!(VolumeName::new(bad).is_err(), "{bad}");
        }
    }
}
