//! Checking the trees of a volume: every node can be read, every record decodes, and every chunk that a file names is
//! stored.
//!
//! *Invariants*
//! 1. Damage is told and the check goes on; only a failure to read ends it.
//! 2. Nothing is written.
//!
//! *Bounds*: the ids of all nodes met are held in memory, 32 bytes for some hundred records each; what several snapshots
//! share is read once.
//!
//! *Not here*: packs, index, heads and slots, which the store checks; whether every byte of a chunk is intact, which
//! reading the packs tells.

use std::{collections::HashSet, ops::ControlFlow};

use vellum_store::{id::BlobId, repository::Damage};

use super::Volume;
use crate::{
    error::{Error, Result},
    format::{
        dirent::Dirent,
        extent::Extent,
        inode::Inode,
        key::{self, KeyParts},
        volume::{SnapshotRecord, VolumeState},
    },
    ino::Ino,
    tree::{Span, Tree, Visitor},
};

/// What a check of the trees saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSummary {
    /// Trees: that of the newest head, and those of the snapshots.
    pub trees: u64,
    /// Nodes, each counted once.
    pub nodes: u64,
    /// Records in them.
    pub records: u64,
    /// How much damage was told.
    pub damaged: u64,
}

struct TreeCheck<'a> {
    volume: &'a Volume,
    tree: Tree,
    /// What the tree is called in a finding.
    name: String,
    met: &'a mut HashSet<BlobId>,
    summary: &'a mut TreeSummary,
    found: &'a mut dyn FnMut(Damage),
}

impl Volume {
    /// Checks the tree of the newest head and those of all snapshots, as they are stored.
    pub fn check_trees(&self, found: &mut dyn FnMut(Damage)) -> Result<TreeSummary> {
        let mut summary = TreeSummary::default();
        let mut met = HashSet::new();
        let Some(head) = self.handle.head() else { return Ok(summary) };
        self.check_tree("the newest tree".to_string(), &head.tree_root, &mut met, &mut summary, found)?;
        let snapshots = match self.snapshots() {
            Ok(snapshots) => snapshots,
            Err(error) => {
                tell("list of snapshots", error, &mut summary, found)?;
                Vec::new()
            }
        };
        for snapshot in snapshots {
            let name = format!("snapshot {}", snapshot.name.escape_ascii());
            self.check_tree(name, &snapshot.root, &mut met, &mut summary, found)?;
        }
        Ok(summary)
    }

    fn check_tree(
        &self,
        name: String,
        root: &BlobId,
        met: &mut HashSet<BlobId>,
        summary: &mut TreeSummary,
        found: &mut dyn FnMut(Damage),
    ) -> Result<()> {
        summary.trees += 1;
        if met.contains(root) {
            return Ok(());
        }
        let tree = match self.tree().at_root(root) {
            Ok(tree) => tree,
            Err(error) => return tell(&name, error, summary, found),
        };
        let walked = tree.clone();
        walked.visit(&mut TreeCheck { volume: self, tree, name, met, summary, found })
    }
}

impl Visitor for TreeCheck<'_> {
    fn enter(&mut self, id: &BlobId, _level: u8) -> Result<ControlFlow<()>> {
        if !self.met.insert(*id) {
            return Ok(ControlFlow::Break(()));
        }
        self.summary.nodes += 1;
        Ok(ControlFlow::Continue(()))
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.summary.records += 1;
        match self.check_record(key, value) {
            Ok(()) => Ok(()),
            Err(error) => self.tell(error),
        }
    }

    fn failed(&mut self, _id: &BlobId, _span: Span<'_>, error: Error) -> Result<()> {
        self.tell(error)
    }
}

impl TreeCheck<'_> {
    fn tell(&mut self, error: Error) -> Result<()> {
        tell(&self.name, error, self.summary, self.found)
    }

    fn check_record(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let parts = KeyParts::parse(key).ok_or_else(|| Error::damaged("a record", "its key is malformed"))?;
        let number = || parts.number().ok_or_else(|| Error::damaged(parts.ino, "the key of a record is malformed"));
        match parts.kind {
            key::INODE => Inode::decode(parts.ino, value).map(drop),
            key::DIRENT => {
                number()?;
                self.check_dirent(parts.ino, &Dirent::decode(value)?)
            }
            key::EXTENT => {
                let extent = Extent::decode(number()?, value)?;
                match self.volume.repository.holds(&extent.blob)? {
                    true => Ok(()),
                    false => Err(vellum_store::Error::BlobMissing { id: extent.blob }.into()),
                }
            }
            key::VOLUME => match parts.volume() {
                Some((key::VOLUME_STATE, _)) => VolumeState::decode(value).map(drop),
                Some((key::VOLUME_SNAPSHOT, _)) => SnapshotRecord::decode(0, value).map(drop),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn check_dirent(&self, dir: Ino, entry: &Dirent) -> Result<()> {
        let what = || format!("its entry {:?} leads", String::from_utf8_lossy(&entry.name));
        match self.tree.get(&key::inode(entry.ino)) {
            Ok(Some(value)) => match Inode::decode(entry.ino, &value)?.kind == entry.kind {
                true => Ok(()),
                false => Err(Error::damaged(dir, format!("{} to an inode of another kind", what()))),
            },
            Ok(None) => Err(Error::damaged(dir, format!("{} to no inode", what()))),
            // The node of the inode is told when the walk comes to it.
            Err(error) if error.is_damage() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Tells damage and goes on; a failure to read is returned.
fn tell(tree: &str, error: Error, summary: &mut TreeSummary, found: &mut dyn FnMut(Damage)) -> Result<()> {
    if !error.is_damage() {
        return Err(error);
    }
    summary.damaged += 1;
    let damage = match error {
        Error::Store(vellum_store::Error::Corrupt { object, what }) => {
            Damage { object, what: format!("{what}, in {tree}") }
        }
        other => Damage { object: tree.to_string(), what: other.to_string() },
    };
    found(damage);
    Ok(())
}
