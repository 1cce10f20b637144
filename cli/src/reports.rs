//! What commands answer: the documents that `--json` prints and that the control socket carries.
//!
//! *Format*: field names are a promise to scripts. Times are RFC 3339 in UTC with nanoseconds, sizes are bytes. A name or path is a
//! string, or `{"hex": "..."}` if it is not UTF-8.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use vellum_fs::{
    format::volume::SnapshotRecord,
    time::Time,
    volume::{
        gc,
        harm::{Harm, HarmKind, TreeName},
        repair,
    },
};
use vellum_store::repository::{CheckSummary, Damage, EarlierCheck, Progress, RepositoryStats};

use crate::output::{escaped, exact_time};

/// A name or a path: any bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub Vec<u8>);

impl Name {
    /// From an argument or a path.
    pub fn of(text: impl AsRef<std::ffi::OsStr>) -> Self {
        Self(text.as_ref().as_encoded_bytes().to_vec())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&escaped(&self.0))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NameText {
    Text(String),
    Hex { hex: String },
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                NameText::Hex { hex: self.0.iter().map(|byte| format!("{byte:02x}")).collect() }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NameText::deserialize(deserializer)? {
            NameText::Text(text) => Ok(Self(text.into_bytes())),
            NameText::Hex { hex } => {
                let pairs = hex.as_bytes().chunks(2);
                let byte = |pair: &[u8]| {
                    let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
                    pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
                        .ok_or_else(|| D::Error::custom("a malformed name"))
                };
                pairs.map(byte).collect::<Result<_, _>>().map(Self)
            }
        }
    }
}

/// What `init` made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InitReport {
    /// Where.
    pub repository: Name,
    /// Its identity.
    pub id: String,
    /// Its first volume.
    pub volume: String,
    /// Its first key.
    pub slot: String,
}

/// How a mount is doing. Fields with a default are not told by the process of a mount that an older program began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The repository.
    pub repository: Name,
    /// The volume.
    pub volume: String,
    /// Where it is mounted.
    pub mountpoint: Name,
    /// The process.
    pub pid: u32,
    /// Since when, in seconds since 1970.
    pub started: u64,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// `good`, `troubled` (something failed and is tried again), `read-only`, or `poisoned` (it accepts no more writes).
    #[serde(default)]
    pub health: String,
    /// The failure behind `troubled` or `poisoned`.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Content that only memory holds, or memory and the journal.
    #[serde(default)]
    pub dirty_bytes: u64,
    /// Changes since the newest checkpoint.
    #[serde(default)]
    pub changes: u64,
    /// Number of the newest checkpoint's head; 0 before the first.
    #[serde(default)]
    pub head: u64,
    /// When that checkpoint was made, in seconds since 1970.
    #[serde(default)]
    pub checkpoint: Option<i64>,
    /// Space that can still be written.
    pub free_bytes: u64,
    /// Size of the disk below.
    pub total_bytes: u64,
    /// What was noticed when it was opened.
    pub notes: Vec<String>,
}

/// Whether a repository is mounted, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum TargetStatus {
    /// By a process that answers.
    Mounted(StatusReport),
    /// By a process that does not answer to us.
    Locked {
        /// The repository.
        repository: Name,
        /// The volume.
        volume: String,
        /// The process, as far as it said.
        holder: Option<String>,
    },
    /// By nobody.
    NotMounted {
        /// The repository.
        repository: Name,
        /// The volume.
        volume: String,
    },
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// Its name.
    pub name: Name,
    /// Its number, which no other snapshot of the volume ever has.
    pub id: u64,
    /// When it was taken.
    pub time: String,
    /// The same, in seconds since 1970.
    pub time_seconds: i64,
    /// Its comment.
    pub comment: String,
    /// Whether deleting it is refused.
    pub held: bool,
}

impl From<&SnapshotRecord> for SnapshotReport {
    fn from(record: &SnapshotRecord) -> Self {
        Self {
            name: Name(record.name.clone()),
            id: record.id,
            time: exact_time(record.time),
            time_seconds: record.time.sec,
            comment: record.comment.clone(),
            held: record.held,
        }
    }
}

/// What a repository holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsReport {
    /// Volumes.
    pub volumes: u64,
    /// Stored packs.
    pub packs: u64,
    /// Their bytes, padding and trailers included.
    pub pack_bytes: u64,
    /// Blobs in them; second copies count.
    pub blobs: u64,
    /// Sealed bytes of file content.
    pub data_bytes: u64,
    /// Sealed bytes of metadata.
    pub node_bytes: u64,
    /// Index segments.
    pub index_segments: u64,
    /// Entries of the index.
    pub index_entries: u64,
    /// Memory that the index takes.
    pub index_memory_bytes: u64,
    /// Decoded content in memory.
    pub cached_bytes: u64,
}

impl From<&RepositoryStats> for StatsReport {
    fn from(stats: &RepositoryStats) -> Self {
        Self {
            volumes: stats.volumes,
            packs: stats.packs,
            pack_bytes: stats.pack_bytes,
            blobs: stats.blobs,
            data_bytes: stats.data_bytes,
            node_bytes: stats.node_bytes,
            index_segments: stats.segments,
            index_entries: stats.index_entries,
            index_memory_bytes: stats.index_memory_bytes,
            cached_bytes: stats.cached_bytes,
        }
    }
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressReport {
    /// Packs done.
    pub packs: u64,
    /// All packs.
    pub packs_total: u64,
    /// Bytes done.
    pub bytes: u64,
    /// All bytes.
    pub bytes_total: u64,
}

impl From<Progress> for ProgressReport {
    fn from(progress: Progress) -> Self {
        let Progress { packs, packs_total, bytes, bytes_total } = progress;
        Self { packs, packs_total, bytes, bytes_total }
    }
}

/// One thing that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageReport {
    /// The object, as in the repository's layout.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

impl From<Damage> for DamageReport {
    fn from(damage: Damage) -> Self {
        Self { object: damage.object, what: damage.what }
    }
}

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Whether every byte was read.
    pub read_data: bool,
    /// Volumes.
    pub volumes: u64,
    /// Intact heads.
    pub heads: u64,
    /// Index segments.
    pub index_segments: u64,
    /// Stored packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Blobs in them.
    pub blobs: u64,
    /// Packs that no index lists: of a process that runs, or that ended before it had committed.
    pub unlisted_packs: u64,
    /// Trees of volumes and snapshots.
    pub trees: u64,
    /// Their nodes, each counted once.
    pub nodes: u64,
    /// What an earlier check had read, from which this one went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<EarlierReport>,
    /// How much damage was found.
    pub damaged: u64,
    /// The damage, as far as it was kept.
    pub damage: Vec<DamageReport>,
}

/// What was read by a check that was cut off, and not again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierReport {
    /// When it began, in seconds since 1970.
    pub began_seconds: i64,
    /// Packs that it found right.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl From<EarlierCheck> for EarlierReport {
    fn from(EarlierCheck { began_ns, packs, bytes }: EarlierCheck) -> Self {
        Self { began_seconds: Time::from_nanos(began_ns).sec, packs, bytes }
    }
}

impl CheckReport {
    /// From what the store counted.
    pub fn new(summary: &CheckSummary, read_data: bool) -> Self {
        Self {
            read_data,
            volumes: summary.volumes,
            heads: summary.heads,
            index_segments: summary.segments,
            packs: summary.packs,
            pack_bytes: summary.pack_bytes,
            blobs: summary.blobs,
            unlisted_packs: summary.unlisted_packs,
            damaged: summary.damaged,
            earlier: summary.earlier.map(Into::into),
            ..Self::default()
        }
    }
}

/// What a repair found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// Whether it only told what it would do.
    pub dry_run: bool,
    /// Whether every byte was read.
    pub read_data: bool,
    /// Stored packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Trees of volumes and snapshots.
    pub trees: u64,
    /// Volumes that can be written.
    pub volumes: u64,
    /// How much damage was found.
    pub found: u64,
    /// The damage, as far as it was kept.
    pub damage: Vec<DamageReport>,
    /// What was mended.
    pub mended: Vec<String>,
    /// Blobs of damaged packs that were stored again.
    pub saved_blobs: u64,
    /// Blobs of damaged packs of which no good copy is left.
    pub lost_blobs: u64,
    /// Objects that were set aside.
    pub set_aside: u64,
    /// What is lost beyond single files.
    pub lost: Vec<String>,
    /// How many things are harmed.
    pub harmed_count: u64,
    /// Files, directories and trees that are harmed, as far as they were kept.
    pub harmed: Vec<HarmReport>,
}

impl RepairReport {
    /// Takes in what the run counted.
    pub fn complete(&mut self, done: &repair::RepairReport) {
        (self.packs, self.pack_bytes, self.trees) = (done.store.packs, done.store.pack_bytes, done.harm.trees);
        (self.found, self.volumes, self.harmed_count) = (done.found, done.volumes, done.harm.harmed);
        (self.saved_blobs, self.lost_blobs) = (done.store.saved_blobs, done.store.lost_blobs);
        self.set_aside = done.store.set_aside;
    }

    /// Whether nothing is lost.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.harmed_count == 0
    }
}

/// What one thing suffered in one tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HarmReport {
    /// The snapshot; the newest state if there is none.
    pub snapshot: Option<Name>,
    /// Its number, if it is an inode.
    pub ino: Option<u64>,
    /// Its paths from the root of the tree; none if they cannot be read.
    pub paths: Vec<Name>,
    /// `content`, `hidden`, `entries`, `node` or `tree`.
    pub harm: &'static str,
    /// What cannot be read, for people.
    pub what: String,
    /// Ranges of content that cannot be read: first byte, and the byte after the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<(u64, u64)>,
    /// The newest snapshot that has all of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_snapshot: Option<Name>,
    /// Its path there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_path: Option<Name>,
}

/// Ranges that are told to people; JSON has all.
const RANGES_TOLD: usize = 4;

impl From<Harm> for HarmReport {
    fn from(harm: Harm) -> Self {
        let snapshot = match harm.tree {
            TreeName::Live => None,
            TreeName::Snapshot(name) => Some(Name(name)),
        };
        let paths = harm.paths.into_iter().map(Name).collect();
        let mut report = Self {
            snapshot,
            ino: harm.ino.map(|ino| ino.0),
            paths,
            harm: "",
            what: String::new(),
            ranges: Vec::new(),
            older_snapshot: None,
            older_path: None,
        };
        (report.harm, report.what) = match harm.kind {
            HarmKind::Content { size, ranges, more, older } => {
                let mut told: Vec<String> =
                    ranges.iter().take(RANGES_TOLD).map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
                if more || ranges.len() > RANGES_TOLD {
                    told.push("more".to_string());
                }
                report.ranges = ranges.into_iter().map(|range| (range.start, range.end)).collect();
                (report.older_snapshot, report.older_path) =
                    older.map(|(snapshot, path)| (Name(snapshot), Name(path))).unzip();
                ("content", format!("of {size} bytes, these cannot be read: {}", told.join(", ")))
            }
            HarmKind::Hidden { kind } if kind.is_directory() => {
                ("hidden", "the directory cannot be read, and nothing below it be reached".to_string())
            }
            HarmKind::Hidden { .. } => ("hidden", "only its name is left".to_string()),
            HarmKind::Entries { hidden } => ("entries", format!("{hidden} names in this directory cannot be read")),
            HarmKind::Node { id, first, last, why } => {
                let last = last.map_or_else(|| "the last".to_string(), |last| last.0.to_string());
                ("node", format!("node {id}, with records of inodes from {} to {last}, cannot be read: {why}", first.0))
            }
            HarmKind::Tree { why } => ("tree", format!("nothing of it can be read: {why}")),
        };
        report
    }
}

impl std::fmt::Display for HarmReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(snapshot) = &self.snapshot {
            write!(f, "{snapshot}:")?;
        }
        match (&self.paths[..], self.ino) {
            ([], None) => f.write_str("(tree)")?,
            ([], Some(ino)) => write!(f, "(inode {ino}, whose path cannot be read)")?,
            ([path, others @ ..], _) => {
                write!(f, "/{path}")?;
                others.iter().try_for_each(|other| write!(f, " = /{other}"))?;
            }
        }
        write!(f, ": {}", escaped(self.what.as_bytes()))?;
        match (&self.older_snapshot, &self.older_path) {
            (Some(snapshot), Some(path)) => write!(f, "; whole in snapshot {snapshot} as {snapshot}:{path}"),
            _ => Ok(()),
        }
    }
}

/// What a gc found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Whether it only told what it would do.
    pub dry_run: bool,
    /// Packs before.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that files and snapshots use.
    pub used_bytes: u64,
    /// Bytes of packs in which nothing is used.
    pub dead_bytes: u64,
    /// Bytes of packs out of which what is used is moved.
    pub moved_from_bytes: u64,
    /// Bytes of what is moved.
    pub moved_bytes: u64,
    /// Bytes of packs that were deleted.
    pub deleted_bytes: u64,
    /// Packs that another process reads, and that a later run deletes.
    pub delayed_packs: u64,
    /// Packs that stay because something in them is damaged.
    pub damaged_packs: u64,
    /// Unused bytes in packs that stay.
    pub unused_bytes: u64,
    /// Trees that hold what is used: of volumes and snapshots.
    pub trees: u64,
    /// Deleted snapshots that somebody still has open.
    pub open_deleted: u64,
    /// Chunks that files name and no pack has.
    pub missing_chunks: u64,
}

impl GcReport {
    /// From what the run counted.
    pub fn new(report: &gc::GcReport, dry_run: bool) -> Self {
        let space = &report.space;
        Self {
            dry_run,
            packs: space.packs,
            bytes: space.bytes,
            used_bytes: space.live_bytes,
            dead_bytes: space.dead_bytes,
            moved_from_bytes: space.moved_from_bytes,
            moved_bytes: space.moved_bytes,
            deleted_bytes: space.deleted_bytes,
            delayed_packs: space.delayed_packs,
            damaged_packs: space.damaged_packs,
            unused_bytes: space.unused_bytes,
            trees: report.trees,
            open_deleted: report.open_deleted,
            missing_chunks: report.missing_chunks,
        }
    }

    /// Bytes that are free after the run, or would be.
    pub fn freed_bytes(&self) -> u64 {
        let gone = if self.dry_run { self.dead_bytes + self.moved_from_bytes } else { self.deleted_bytes };
        gone.saturating_sub(self.moved_bytes)
    }
}

/// One key slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    /// Its name.
    pub name: String,
    /// What opens it.
    pub kind: &'static str,
    /// What people call it.
    pub label: String,
    /// When it was made.
    pub created: String,
    /// Memory of one guess at its passphrase.
    pub kdf_memory_kib: Option<u32>,
}

/// One file in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Its path from the root of the snapshot.
    pub path: Name,
    /// What it is.
    pub kind: &'static str,
    /// Permission bits, as in `0644`.
    pub mode: String,
    /// Names of it.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length.
    pub size: u64,
    /// Last change of the content.
    pub modified: String,
    /// Its number, which is the same in all snapshots.
    pub ino: u64,
    /// Where a symbolic link leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Name>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mount_that_an_older_program_began_can_be_asked() {
        let told = r#"{"repository":"/r","volume":"main","mountpoint":"/m","pid":7,"started":1,"read_only":false,
            "poisoned":null,"free_bytes":5,"total_bytes":9,"notes":[]}"#;
        let status: StatusReport = serde_json::from_str(told).unwrap();
        assert_eq!((status.pid, status.health.as_str(), status.checkpoint), (7, "", None));
    }

    #[test]
    fn any_name_survives_json() {
        for name in [&b"plain"[..], b"", "\u{fc}nicode\n".as_bytes(), b"\xff\x00raw"] {
            let name = Name(name.to_vec());
            let text = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&text).unwrap(), name, "{text}");
        }
        for bad in ["{\"hex\":\"0\"}", "{\"hex\":\"0g\"}", "7", "{}"] {
            assert!(serde_json::from_str::<Name>(bad).is_err(), "{bad}");
        }
    }
}
