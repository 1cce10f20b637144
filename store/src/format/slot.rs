//! Key slots: the bytes of one wrapped master key, and the names and parameters that lie plainly in it.
//!
//! *Invariants*
//! 1. The checksum needs no key: it tells a damaged slot from a wrong secret, and says nothing about who wrote the slot.
//! 2. All bytes before the sealed part are its associated data, so none can be changed without the key.
//! 3. Parameters that would exhaust memory or patience are refused by the decoder, before anything can run with them.
//!
//! *Format*: 432 bytes, in `keys/<name>`, `keys/<name>.1` and `keys/<name>.2`, which are the same.
//!
//! | offset | size | field | meaning, check |
//! |---|---|---|---|
//! | 0 | 8 | magic | `vellumKS` |
//! | 8 | 4 | format version | `u32`, 0 |
//! | 12 | 1 | kind | 1 passphrase, 2 key file, 3 recovery code |
//! | 13 | 3 | reserved | 0 |
//! | 16 | 16 | repository id | that of `config` |
//! | 32 | 16 | salt | random |
//! | 48 | 4 | Argon2id memory | `u32` KiB, 8 times the lanes to 4 GiB; 0 unless a passphrase |
//! | 52 | 4 | Argon2id passes | `u32`, 1 to 64, and memory times passes at most 64 GiB; 0 unless a passphrase |
//! | 56 | 4 | Argon2id lanes | `u32`, 1 to 16; 0 unless a passphrase |
//! | 60 | 4 | reserved | 0 |
//! | 64 | 8 | created | `i64`, nanoseconds since 1970 |
//! | 72 | 1 | name length | 1 to 48 |
//! | 73 | 63 | name | `a-z 0-9 -`, zero padded; the slot's object name |
//! | 136 | 1 | label length | 0 to 127 |
//! | 137 | 127 | label | UTF-8 without control characters, zero padded; anyone can read it |
//! | 264 | 32 | commitment | see below |
//! | 296 | 24 | nonce | random |
//! | 320 | 64 | ciphertext | of the master key (32), the key epoch `u32`, 28 zero bytes |
//! | 384 | 16 | tag | |
//! | 400 | 32 | checksum | BLAKE3-256 of bytes 0 to 399, without key |
//!
//! The key-encryption key (KEK), 32 bytes, comes from the secret by kind:
//! - passphrase: Argon2id version 0x13 of its UTF-8 bytes with the salt and parameters, no secret and no associated data;
//! - key file: `blake3::derive_key("vellum v1 slot-key-file", salt || all bytes of the file)`;
//! - recovery code: `blake3::derive_key("vellum v1 slot-recovery", salt || the 20 bytes of the code)`.
//!
//! The commitment is `blake3::derive_key("vellum v1 slot-commit", KEK)`. The sealing key is
//! `blake3::derive_key("vellum v1 slot-seal", KEK)`, for XChaCha20-Poly1305 with bytes 0 to 295 as associated data.
//!
//! A recovery code is 32 characters of `0123456789ABCDEFGHJKMNPQRSTVWXYZ`, five bits each, most significant first, in groups
//! of four. When one is read, case, spaces and hyphens do not matter, `O` is `0`, and `I` and `L` are `1`.

use std::fmt;

use crate::{
    codec::{Reader, Writer},
    error::{Error, Result},
    format::FORMAT_VERSION,
    id::RepositoryId,
};

/// Length of a slot.
pub const SLOT_LENGTH: usize = 432;
/// Copies of each slot, the first included.
pub const SLOT_COPIES: usize = 3;
/// Bytes that are sealed: key, epoch and zeros.
pub const SLOT_PLAIN_LENGTH: usize = 64;
/// Bytes that the sealed part is bound to.
pub const SLOT_BOUND_LENGTH: usize = 296;
/// Longest label, in bytes.
pub const LABEL_LENGTH_MAX: usize = 127;

const MAGIC: &[u8; 8] = b"vellumKS";
const NAME_LENGTH_MAX: usize = 48;
const NAME_ROOM: usize = 63;
const CHECKED_LENGTH: usize = SLOT_LENGTH - 32;

/// Name of a slot: 1 to 48 of `a-z 0-9 -`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

impl SlotName {
    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<Self> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > NAME_LENGTH_MAX || name.starts_with('-') || !name.bytes().all(allowed) {
            let rule = "1 to 48 of a-z 0-9 -, not starting with a hyphen";
            return Err(Error::InvalidName { what: "slot", name: name.to_string(), rule });
        }
        Ok(Self(name.to_string()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Object names of the copies, in the order in which they are tried and written.
    pub fn objects(&self) -> [String; SLOT_COPIES] {
        [format!("keys/{self}"), format!("keys/{self}.1"), format!("keys/{self}.2")]
    }

    /// The slot that an object name belongs to, the name of any copy.
    pub fn from_object(object: &str) -> Option<Self> {
        let name = object.strip_prefix("keys/")?;
        let name = name.strip_suffix(".1").or_else(|| name.strip_suffix(".2")).unwrap_or(name);
        Self::new(name).ok()
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What opens a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotKind {
    /// A passphrase, stretched by Argon2id. On disk: 1.
    Passphrase = 1,
    /// The content of a key file. On disk: 2.
    KeyFile = 2,
    /// A recovery code. On disk: 3.
    RecoveryCode = 3,
}

/// Cost of stretching a passphrase with Argon2id; always inside the bounds of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParams {
    m_kib: u32,
    t: u32,
    p: u32,
}

impl KdfParams {
    /// Most memory that a reader spends: 4 GiB.
    pub const M_KIB_MAX: u32 = 4 << 20;
    /// Most passes that a reader makes.
    pub const T_MAX: u32 = 64;
    /// Most lanes that a reader fills.
    pub const P_MAX: u32 = 16;
    /// Most memory times passes: some minutes of one core.
    pub const WORK_KIB_MAX: u64 = 64 << 20;
    /// Least memory and passes for a new slot.
    pub const M_KIB_FLOOR: u32 = 64 << 10;
    /// See [`Self::M_KIB_FLOOR`].
    pub const T_FLOOR: u32 = 3;

    /// Checks and takes parameters for a new slot: at least 64 MiB and three passes.
    pub fn new(m_kib: u32, t: u32, p: u32) -> Result<Self> {
        if m_kib < Self::M_KIB_FLOOR || t < Self::T_FLOOR || !Self::is_bounded(m_kib, t, p) {
            return Err(Error::Invalid {
                what: format!("key derivation with {m_kib} KiB, {t} passes, {p} lanes is too weak or too heavy"),
            });
        }
        Ok(Self { m_kib, t, p })
    }

    /// The weakest there are, for tests; a slot made with them protects nothing.
    pub fn testing() -> Self {
        Self { m_kib: 8, t: 1, p: 1 }
    }

    /// Memory in KiB.
    pub fn m_kib(&self) -> u32 {
        self.m_kib
    }

    /// Passes.
    pub fn t(&self) -> u32 {
        self.t
    }

    /// Lanes.
    pub fn p(&self) -> u32 {
        self.p
    }

    /// Memory times passes, by which slots are tried: the dearest last.
    pub fn work_kib(&self) -> u64 {
        u64::from(self.m_kib) * u64::from(self.t)
    }

    fn is_bounded(m_kib: u32, t: u32, p: u32) -> bool {
        (1..=Self::P_MAX).contains(&p)
            && (1..=Self::T_MAX).contains(&t)
            && (8 * p..=Self::M_KIB_MAX).contains(&m_kib)
            && u64::from(m_kib) * u64::from(t) <= Self::WORK_KIB_MAX
    }
}

impl Default for KdfParams {
    /// 256 MiB, three passes, four lanes.
    fn default() -> Self {
        Self { m_kib: 256 << 10, t: 3, p: 4 }
    }
}

/// What a slot says in plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its name.
    pub name: SlotName,
    /// What opens it.
    pub kind: SlotKind,
    /// What its maker called it.
    pub label: String,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: i64,
    /// How its passphrase is stretched; none for the other kinds.
    pub kdf: Option<KdfParams>,
}

/// A slot as read: intact and bounded, but opened by nobody yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFile {
    /// What it says in plain.
    pub info: SlotInfo,
    /// The repository whose key it holds.
    pub repository: RepositoryId,
    /// Salt of the key derivation.
    pub salt: [u8; 16],
    /// Commitment to the key-encryption key.
    pub commitment: [u8; 32],
    /// Nonce, ciphertext and tag.
    pub sealed: [u8; 24 + SLOT_PLAIN_LENGTH + 16],
}

impl SlotFile {
    /// The bytes that the sealed part is bound to.
    pub fn encode_bound(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(SLOT_LENGTH);
        writer.array(MAGIC);
        writer.u32(FORMAT_VERSION);
        writer.u8(self.info.kind as u8);
        writer.zeros(3);
        writer.array(self.repository.as_bytes());
        writer.array(&self.salt);
        writer.u32(self.info.kdf.map_or(0, |kdf| kdf.m_kib));
        writer.u32(self.info.kdf.map_or(0, |kdf| kdf.t));
        writer.u32(self.info.kdf.map_or(0, |kdf| kdf.p));
        writer.zeros(4);
        writer.i64(self.info.created_ns);
        encode_text(&mut writer, self.info.name.as_str(), NAME_ROOM);
        encode_text(&mut writer, &self.info.label, LABEL_LENGTH_MAX);
        writer.array(&self.commitment);
        debug_assert_eq!(writer.len(), SLOT_BOUND_LENGTH);
        writer.0
    }

    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.encode_bound();
        bytes.extend_from_slice(&self.sealed);
        let checksum = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads a slot; a newer version is told apart from damage.
    pub fn decode(bytes: &[u8], object: &str) -> Result<Self> {
        let mut reader = Reader::new(bytes, object);
        if reader.array::<8>()? != *MAGIC {
            return Err(reader.corrupt("this is no key slot"));
        }
        let found = reader.u32()?;
        if found > FORMAT_VERSION {
            // Another version may have another length and checksum, so this comes before both.
            return Err(Error::UnsupportedFormat { object: object.to_string(), found, known: FORMAT_VERSION });
        }
        if bytes.len() != SLOT_LENGTH {
            return Err(reader.corrupt("it is not 432 bytes long"));
        }
        if blake3::hash(&bytes[..CHECKED_LENGTH]).as_bytes()[..] != bytes[CHECKED_LENGTH..] {
            return Err(reader.corrupt("the checksum does not match"));
        }
        Self::decode_fields(&mut reader)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Result<Self> {
        let kind = match reader.u8()? {
            1 => SlotKind::Passphrase,
            2 => SlotKind::KeyFile,
            3 => SlotKind::RecoveryCode,
            _ => return Err(reader.corrupt("unknown kind of slot")),
        };
        reader.zeros(3)?;
        let repository = RepositoryId(reader.array()?);
        let salt = reader.array()?;
        let (m_kib, t, p) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let kdf = match kind {
            SlotKind::Passphrase if KdfParams::is_bounded(m_kib, t, p) => Some(KdfParams { m_kib, t, p }),
            SlotKind::KeyFile | SlotKind::RecoveryCode if (m_kib, t, p) == (0, 0, 0) => None,
            _ => return Err(reader.corrupt("the parameters of the key derivation are outside their bounds")),
        };
        reader.zeros(4)?;
        let created_ns = reader.i64()?;
        let name = decode_text(reader, NAME_ROOM)?;
        let name = SlotName::new(&name).map_err(|_| reader.corrupt("the name breaks the rules"))?;
        let label = decode_text(reader, LABEL_LENGTH_MAX)?;
        let info = SlotInfo { name, kind, label, created_ns, kdf };
        Ok(Self { info, repository, salt, commitment: reader.array()?, sealed: reader.array()? })
    }
}

fn encode_text(writer: &mut Writer, text: &str, room: usize) {
    assert!(text.len() <= room && room <= 255, "names and labels are checked before a slot is made");
    writer.u8(text.len() as u8);
    writer.bytes(text.as_bytes());
    writer.zeros(room - text.len());
}

fn decode_text(reader: &mut Reader<'_>, room: usize) -> Result<String> {
    let length = usize::from(reader.u8()?);
    if length > room {
        return Err(reader.corrupt("a text is longer than its field"));
    }
    let bytes = reader.bytes(length)?;
    reader.zeros(room - length)?;
    match std::str::from_utf8(bytes) {
        // A label is shown on terminals.
        Ok(text) if !text.chars().any(char::is_control) => Ok(text.to_string()),
        _ => Err(reader.corrupt("a text is not plain UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn slot() -> SlotFile {
        let info = SlotInfo {
            name: SlotName::new("laptop-1").unwrap(),
            kind: SlotKind::Passphrase,
            label: "blauer Läptop".to_string(),
            created_ns: 77,
            kdf: Some(KdfParams::default()),
        };
        let sealed = std::array::from_fn(|i| i as u8);
        SlotFile { info, repository: RepositoryId([2; 16]), salt: [3; 16], commitment: [4; 32], sealed }
    }

    fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        let checksum = *blake3::hash(&bytes[..CHECKED_LENGTH]).as_bytes();
        bytes[CHECKED_LENGTH..].copy_from_slice(&checksum);
        bytes
    }

    #[test]
    fn a_slot_reads_back_as_written_and_lies_where_the_table_says() {
        let bytes = slot().encode();
        assert_eq!(bytes.len(), SLOT_LENGTH);
        assert_eq!(slot().encode_bound().len(), SLOT_BOUND_LENGTH);
        assert_eq!(&bytes[48..60], &[0, 0, 4, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(&bytes[72..81], b"\x08laptop-1");
        assert_eq!(bytes[136], 14);
        assert_eq!(&bytes[264..296], &[4; 32]);
        assert_eq!(&bytes[296..299], &[0, 1, 2]);
        assert_eq!(SlotFile::decode(&bytes, "keys/laptop-1").unwrap(), slot());
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let bytes = slot().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SlotFile::decode(&damaged, "keys/x").is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(SlotFile::decode(&bytes[..length], "keys/x").is_err(), "{length} bytes");
        }
    }

    #[test]
    fn derivation_parameters_that_would_exhaust_the_reader_are_refused() {
        let bombs = [
            (u32::MAX, 1, 1),
            (KdfParams::M_KIB_MAX + 1, 1, 1),
            (8, KdfParams::T_MAX + 1, 1),
            (8, u32::MAX, 1),
            (1 << 20, 1, 17),
            (1 << 20, 1, u32::MAX),
            (KdfParams::M_KIB_MAX, 17, 1),
            (7, 1, 1),
            (8, 1, 2),
            (8, 0, 1),
            (8, 1, 0),
            (0, 0, 0),
        ];
        for (m_kib, t, p) in bombs {
            let mut bytes = slot().encode();
            bytes[48..52].copy_from_slice(&u32::to_le_bytes(m_kib));
            bytes[52..56].copy_from_slice(&u32::to_le_bytes(t));
            bytes[56..60].copy_from_slice(&u32::to_le_bytes(p));
            let error = SlotFile::decode(&with_checksum(bytes), "keys/x").unwrap_err();
            assert!(error.is_damage(), "{m_kib} {t} {p}: {error}");
        }
    }

    #[test]
    fn a_new_slot_is_never_weaker_than_the_floor() {
        assert!(KdfParams::new(KdfParams::M_KIB_FLOOR, 3, 4).is_ok());
        for (m_kib, t, p) in [(KdfParams::M_KIB_FLOOR - 1, 3, 4), (1 << 20, 2, 1), (1 << 20, 3, 0), (5 << 20, 3, 1)] {
            assert!(KdfParams::new(m_kib, t, p).is_err(), "{m_kib} {t} {p}");
        }
        let default = KdfParams::default();
        assert_eq!(KdfParams::new(default.m_kib, default.t, default.p).unwrap(), default);
    }

    #[test]
    fn fields_that_break_their_rules_are_refused_even_with_a_right_checksum() {
        let edits: [(usize, &[u8]); 9] = [
            (12, &[0]),
            (12, &[2]),
            (13, &[1]),
            (60, &[1]),
            (72, &[0]),
            (72, &[64]),
            (73, b"../"),
            (136, &[128]),
            (137, b"\x1b[2J"),
        ];
        for (offset, value) in edits {
            let mut bytes = slot().encode();
            bytes[offset..offset + value.len()].copy_from_slice(value);
            assert!(SlotFile::decode(&with_checksum(bytes), "keys/x").is_err(), "offset {offset}");
        }
    }

    #[test]
    fn the_copies_of_a_slot_lead_back_to_its_name() {
        let name = SlotName::new("a-1").unwrap();
        for object in name.objects() {
            assert_eq!(SlotName::from_object(&object), Some(name.clone()), "{object}");
        }
        for other in ["keys/", "keys/a.3", "keys/A", "packs/a", "a", "keys/a/b", "keys/-a"] {
            assert_eq!(SlotName::from_object(other), None, "{other}");
        }
    }
}
