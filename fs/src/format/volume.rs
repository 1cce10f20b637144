//! VOLUME records: counters of the volume, hashes of its heads, its snapshots.
//!
//! *Format*: every record starts with a format byte, 0. The subkeys and values:
//!
//! | subkind | name | subkey after it | value after the format byte |
//! |---|---|---|---|
//! | 1 | state | - | next inode uvar, operation sequence uvar, next snapshot id uvar, created time |
//! | 2 | head | sequence u64 | hash of that head, 32 bytes |
//! | 3 | snapshot | id u64 | as below |
//! | 4 | snapshot name | name | id u64 |
//!
//! A snapshot is: root (32 bytes), time, operation sequence uvar, flags u8, name and comment (each a u32 length and the
//! bytes), and the time of deletion if it is deleted. Flags: 1 = deleted, 2 = held, others 0. A time is ivar seconds
//! and u32 nanoseconds below a second.

use vellum_store::{
    codec::{Reader, Writer},
    id::{BlobId, HeadHash},
};

use super::{NAME_BYTES_MAX, read_time, write_time};
use crate::{
    error::{Error, Result},
    ino::Ino,
    time::Time,
};

const OBJECT: &str = "volume record";
const FORMAT: u8 = 0;
const FLAG_DELETED: u8 = 1;
const FLAG_HELD: u8 = 2;

/// Longest comment of a snapshot.
pub const COMMENT_BYTES_MAX: usize = 4096;

/// Counters of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeState {
    /// The lowest inode number that was never given out.
    pub next_ino: Ino,
    /// Sequence of the last operation that the tree holds.
    pub op_sequence: u64,
    /// The lowest snapshot id that was never given out.
    pub next_snapshot: u64,
    /// When the volume was made.
    pub created: Time,
}

impl VolumeState {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = start();
        writer.uvar(self.next_ino.0);
        writer.uvar(self.op_sequence);
        writer.uvar(self.next_snapshot);
        write_time(&mut writer, self.created);
        writer.0
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = open(bytes)?;
        let state = Self {
            next_ino: super::read_ino(&mut reader, OBJECT)?,
            op_sequence: reader.uvar()?,
            next_snapshot: reader.uvar()?,
            created: read_time(&mut reader, OBJECT)?,
        };
        reader.finish()?;
        Ok(state)
    }
}

/// Bytes of the record that names a head.
pub fn encode_head(hash: &HeadHash) -> Vec<u8> {
    let mut writer = start();
    writer.bytes(hash.as_bytes());
    writer.0
}

/// Reads what [`encode_head`] wrote.
pub fn decode_head(bytes: &[u8]) -> Result<HeadHash> {
    let mut reader = open(bytes)?;
    let hash = HeadHash(reader.array::<32>()?);
    reader.finish()?;
    Ok(hash)
}

/// Bytes of the record that leads from a snapshot's name to its id.
pub fn encode_snapshot_id(id: u64) -> Vec<u8> {
    let mut writer = start();
    writer.u64(id);
    writer.0
}

/// Reads what [`encode_snapshot_id`] wrote.
pub fn decode_snapshot_id(bytes: &[u8]) -> Result<u64> {
    let mut reader = open(bytes)?;
    let id = reader.u64()?;
    reader.finish()?;
    Ok(id)
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Its id, which is in the key.
    pub id: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// Root of its tree.
    pub root: BlobId,
    /// When it was taken.
    pub time: Time,
    /// The last operation that it holds.
    pub op_sequence: u64,
    /// Text given by the user.
    pub comment: String,
    /// Whether deleting it is refused.
    pub held: bool,
    /// When it was deleted; it can be had back until it is purged.
    pub deleted: Option<Time>,
}

impl SnapshotRecord {
    /// The record's bytes, without the id.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.name.len() <= NAME_BYTES_MAX && self.comment.len() <= COMMENT_BYTES_MAX, "checked when taken");
        let mut writer = start();
        writer.bytes(self.root.as_bytes());
        write_time(&mut writer, self.time);
        writer.uvar(self.op_sequence);
        let deleted = if self.deleted.is_some() { FLAG_DELETED } else { 0 };
        let held = if self.held { FLAG_HELD } else { 0 };
        writer.u8(deleted | held);
        writer.var_bytes(&self.name);
        writer.var_bytes(self.comment.as_bytes());
        if let Some(time) = self.deleted {
            write_time(&mut writer, time);
        }
        writer.0
    }

    /// Reads what [`Self::encode`] wrote for the snapshot with this id.
    pub fn decode(id: u64, bytes: &[u8]) -> Result<Self> {
        let mut reader = open(bytes)?;
        let root = BlobId(reader.array::<32>()?);
        let time = read_time(&mut reader, OBJECT)?;
        let op_sequence = reader.uvar()?;
        let flags = reader.u8()?;
        if flags & !(FLAG_DELETED | FLAG_HELD) != 0 {
            return Err(Error::damaged(OBJECT, "reserved bits are set"));
        }
        let name = reader.var_bytes(NAME_BYTES_MAX)?.to_vec();
        let comment = std::str::from_utf8(reader.var_bytes(COMMENT_BYTES_MAX)?)
            .map_err(|_| Error::damaged(OBJECT, "a comment is not UTF-8"))?
            .to_string();
        let deleted = if flags & FLAG_DELETED != 0 { Some(read_time(&mut reader, OBJECT)?) } else { None };
        reader.finish()?;
        Ok(Self { id, name, root, time, op_sequence, comment, held: flags & FLAG_HELD != 0, deleted })
    }
}

fn start() -> Writer {
    Writer(vec![FORMAT])
}

fn open(bytes: &[u8]) -> Result<Reader<'_>> {
    let mut reader = Reader::new(bytes, OBJECT);
    match reader.u8()? {
        FORMAT => Ok(reader),
        found => Err(Error::damaged(OBJECT, format!("unknown format {found}"))),
    }
}
