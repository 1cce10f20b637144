//! The one table of derive contexts: every key that is ever derived, and from what.
//!
//! *Invariants*: no two entries share a context, and none changes its meaning; a test holds known answers for each.
//!
//! *Format*: a subkey is `blake3::derive_key(context, material)`, 32 bytes.
//!
//! | contexts | material |
//! |---|---|
//! | `vellum v1 *-seal` but `slot-seal` | master key (32), key epoch `u32` |
//! | `vellum v1 data-id`, `node-id`, `gear-table`, `dirent-name`, `snapshot-ino`, `state-name`, `config-mac`, `key-fingerprint` | master key (32), `0u32`: the same in every epoch |
//! | `vellum v1 slot-key-file`, `slot-recovery` | salt of the slot (16), secret bytes |
//! | `vellum v1 slot-seal`, `slot-commit` | key-encryption key of the slot (32) |

/// What something is sealed as. Each has a sealing key per epoch; the number is part of the associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// A blob of file content; the same number as [`crate::id::BlobKind::Data`]. On disk: 1.
    Data = 1,
    /// A blob holding a tree node; the same number as [`crate::id::BlobKind::Node`]. On disk: 2.
    Node = 2,
    /// The entry list at the end of a pack. On disk: 3.
    PackTrailer = 3,
    /// The fixed-size end of a pack. On disk: 4.
    PackTail = 4,
    /// Parts of an index segment. On disk: 5.
    Segment = 5,
    /// A manifest. On disk: 6.
    Manifest = 6,
    /// A head. On disk: 7.
    Head = 7,
    /// A journal commit. On disk: 8.
    Journal = 8,
    /// Remembered state outside the repository. On disk: 9.
    State = 9,
    /// Rebuildable local tables. On disk: 10.
    Table = 10,
}

impl Purpose {
    /// Number of purposes.
    pub const COUNT: usize = 10;
    /// All purposes, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Data,
        Self::Node,
        Self::PackTrailer,
        Self::PackTail,
        Self::Segment,
        Self::Manifest,
        Self::Head,
        Self::Journal,
        Self::State,
        Self::Table,
    ];
}

/// What a key is used for that stays the same in every epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubkeyUse {
    /// Ids of data blobs.
    DataId,
    /// Ids of node blobs.
    NodeId,
    /// The table of the chunker.
    GearTable,
    /// Hashes of directory entry names.
    DirentName,
    /// Inode numbers shown inside snapshots.
    SnapshotIno,
    /// Names of files in the state directory.
    StateName,
    /// The code that authenticates `config`.
    ConfigMac,
    /// The public fingerprint of the master key.
    KeyFingerprint,
}

impl SubkeyUse {
    /// All uses.
    pub const ALL: [Self; 8] = [
        Self::DataId,
        Self::NodeId,
        Self::GearTable,
        Self::DirentName,
        Self::SnapshotIno,
        Self::StateName,
        Self::ConfigMac,
        Self::KeyFingerprint,
    ];
}

/// One derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// Sealing key of a purpose.
    Seal(Purpose),
    /// Key that is the same in every epoch.
    Subkey(SubkeyUse),
    /// Key-encryption key from a key file.
    SlotKeyFile,
    /// Key-encryption key from a recovery code.
    SlotRecovery,
    /// Key that seals a slot.
    SlotSeal,
    /// Commitment of a slot to its key-encryption key.
    SlotCommit,
}

impl Context {
    /// The table.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Seal(Purpose::Data) => "vellum v1 data-seal",
            Self::Seal(Purpose::Node) => "vellum v1 node-seal",
            Self::Seal(Purpose::PackTrailer) => "vellum v1 pack-trailer-seal",
            Self::Seal(Purpose::PackTail) => "vellum v1 pack-tail-seal",
            Self::Seal(Purpose::Segment) => "vellum v1 segment-seal",
            Self::Seal(Purpose::Manifest) => "vellum v1 manifest-seal",
            Self::Seal(Purpose::Head) => "vellum v1 head-seal",
            Self::Seal(Purpose::Journal) => "vellum v1 journal-seal",
            Self::Seal(Purpose::State) => "vellum v1 state-seal",
            Self::Seal(Purpose::Table) => "vellum v1 table-seal",
            Self::Subkey(SubkeyUse::DataId) => "vellum v1 data-id",
            Self::Subkey(SubkeyUse::NodeId) => "vellum v1 node-id",
            Self::Subkey(SubkeyUse::GearTable) => "vellum v1 gear-table",
            Self::Subkey(SubkeyUse::DirentName) => "vellum v1 dirent-name",
            Self::Subkey(SubkeyUse::SnapshotIno) => "vellum v1 snapshot-ino",
            Self::Subkey(SubkeyUse::StateName) => "vellum v1 state-name",
            Self::Subkey(SubkeyUse::ConfigMac) => "vellum v1 config-mac",
            Self::Subkey(SubkeyUse::KeyFingerprint) => "vellum v1 key-fingerprint",
            Self::SlotKeyFile => "vellum v1 slot-key-file",
            Self::SlotRecovery => "vellum v1 slot-recovery",
            Self::SlotSeal => "vellum v1 slot-seal",
            Self::SlotCommit => "vellum v1 slot-commit",
        }
    }

    /// `blake3::derive_key` of this context over the concatenated parts.
    pub(super) fn derive(self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(self.as_str());
        for part in parts {
            hasher.update(part);
        }
        let key = *hasher.finalize().as_bytes();
        zeroize::Zeroize::zeroize(&mut hasher);
        key
    }
}
