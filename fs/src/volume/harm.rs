//! What damage has done to files: which paths of which trees cannot be read, and where.
//!
//! *Invariants*
//! 1. A file is named exactly if a part of it, its record, or the list of names that leads to it cannot be read.
//! 2. Nothing is changed but that interior nodes with one copy left may be stored a second time, if that is asked for.
//!
//! *Bounds*: a tree is walked and not collected. In memory are the nodes below which nothing is harmed ([`CLEAN_MAX`] at most, so
//! that what snapshots share is read once), the spans of nodes that cannot be read ([`SPANS_MAX`] of one tree), and the ranges of one
//! file ([`RANGES_MAX`]).
//!
//! *Not here*: why it cannot be read (`vellum-store`), what is done about it ([`super::repair`]).

use std::{
    collections::HashSet,
    ops::{ControlFlow, Range},
};

use vellum_store::{
    id::{BlobId, BlobKind},
    repository::Copies,
};

use super::Volume;
use crate::{
    content::extents,
    error::{Error, Result},
    format::{
        dirent::DirentRef,
        extent::Extent,
        inode::{FileKind, Inode},
        key::{self, KeyParts},
        volume::SnapshotRecord,
    },
    ino::Ino,
    namespace::{ENTRY_BYTES, Link, NamespaceView},
    tree::{Span, Tree, Visitor},
};

/// Nodes that are remembered to be whole, with all below them; leaves count too.
const CLEAN_MAX: usize = 1 << 21;
/// Unreadable nodes of one tree of which the names are looked for.
const SPANS_MAX: usize = 10_000;
/// Ranges of one file that are told one by one.
const RANGES_MAX: usize = 1000;
/// Names of one file that are told.
const NAMES_MAX: usize = 100;
/// Snapshots that are asked for an older version of a file.
const SNAPSHOTS_ASKED_MAX: usize = 64;

/// A tree of a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TreeName {
    /// The newest state.
    Live,
    /// The snapshot of this name.
    Snapshot(Vec<u8>),
}

/// What one thing suffered in one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harm {
    /// The tree.
    pub tree: TreeName,
    /// The inode, if it is one.
    pub ino: Option<Ino>,
    /// Its paths from the root of the tree; none if they cannot be read.
    pub paths: Vec<Vec<u8>>,
    /// What it suffered.
    pub kind: HarmKind,
}

/// What one thing suffered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HarmKind {
    /// Parts of a file's content cannot be read.
    Content {
        /// Its size.
        size: u64,
        /// Which parts, as far as they are told one by one.
        ranges: Vec<Range<u64>>,
        /// Whether there are more than that.
        more: bool,
        /// A snapshot in which all of the file can be read, and its path there.
        older: Option<(Vec<u8>, Vec<u8>)>,
    },
    /// The name is there, and nothing else of it can be read; of a directory, all below it is out of reach.
    Hidden {
        /// What it is.
        kind: FileKind,
    },
    /// A directory of which names cannot be read.
    Entries {
        /// How many.
        hidden: u64,
    },
    /// A node of the tree cannot be read. What can be named of it is told apart from this.
    Node {
        /// Its id.
        id: BlobId,
        /// The first inode of which it may hold records.
        first: Ino,
        /// The last one, if there is a bound.
        last: Option<Ino>,
        /// Why it cannot be read.
        why: String,
    },
    /// Nothing of the tree can be read.
    Tree {
        /// Why.
        why: String,
    },
}

/// What a walk saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HarmSummary {
    /// Trees that were walked.
    pub trees: u64,
    /// How much harm was told.
    pub harmed: u64,
    /// Interior nodes of which one copy was left.
    pub single_copies: u64,
}

/// How harm is looked for.
pub struct HarmSearch<'a> {
    /// Whether no good copy of a blob is left.
    pub is_lost: &'a dyn Fn(&BlobId) -> Result<bool>,
    /// Whether interior nodes with one copy are stored a second time; the caller commits.
    pub store_copies: bool,
    /// Is told what is harmed.
    pub tell: &'a mut dyn FnMut(Harm) -> Result<()>,
}

impl Volume {
    /// Walks the live tree and those of all snapshots, and tells what cannot be read in them.
    pub fn find_harm(&self, search: &mut HarmSearch<'_>) -> Result<HarmSummary> {
        let mut summary = HarmSummary::default();
        let mut clean = HashSet::new();
        let live = self.tree();
        let snapshots = match self.snapshots() {
            Err(error) if error.is_damage() => {
                let kind = HarmKind::Tree { why: format!("the list of snapshots cannot be read: {error}") };
                summary.harmed += 1;
                (search.tell)(Harm { tree: TreeName::Live, ino: None, paths: Vec::new(), kind })?;
                Vec::new()
            }
            other => other?,
        };
        self.find_harm_in(&live, TreeName::Live, &snapshots, &mut clean, search, &mut summary)?;
        for snapshot in &snapshots {
            let name = TreeName::Snapshot(snapshot.name.clone());
            match live.at_root(&snapshot.root) {
                Ok(tree) => self.find_harm_in(&tree, name, &[], &mut clean, search, &mut summary)?,
                Err(error) if error.is_damage() => {
                    summary.harmed += 1;
                    let kind = HarmKind::Tree { why: error.to_string() };
                    (search.tell)(Harm { tree: name, ino: None, paths: Vec::new(), kind })?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(summary)
    }

    fn find_harm_in(
        &self,
        tree: &Tree,
        name: TreeName,
        snapshots: &[SnapshotRecord],
        clean: &mut HashSet<BlobId>,
        search: &mut HarmSearch<'_>,
        summary: &mut HarmSummary,
    ) -> Result<()> {
        summary.trees += 1;
        let mut walk = Walk {
            volume: self,
            tree,
            name,
            snapshots,
            clean,
            search,
            summary,
            found: 0,
            found_before: Vec::new(),
            content: None,
            spans: Vec::new(),
        };
        tree.visit(&mut walk)?;
        walk.tell_content()?;
        walk.tell_names()
    }

    /// A snapshot, the newest first, in which all of a file can be read, and its path there.
    fn older_version(
        &self,
        ino: Ino,
        snapshots: &[SnapshotRecord],
        is_lost: &dyn Fn(&BlobId) -> Result<bool>,
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        for snapshot in snapshots.iter().rev().take(SNAPSHOTS_ASKED_MAX) {
            match self.path_if_whole(ino, snapshot, is_lost) {
                Ok(Some(path)) => return Ok(Some((snapshot.name.clone(), path))),
                Ok(None) => {}
                Err(error) if error.is_damage() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn path_if_whole(
        &self,
        ino: Ino,
        snapshot: &SnapshotRecord,
        is_lost: &dyn Fn(&BlobId) -> Result<bool>,
    ) -> Result<Option<Vec<u8>>> {
        let tree = self.tree().at_root(&snapshot.root)?;
        let path = NamespaceView::new(&tree, &self.names).path_of(ino)?;
        let mut whole = true;
        let (from, to) = (key::kind_start(ino, key::EXTENT), key::kind_start(ino, key::EXTENT + 1));
        tree.scan(&from, &to, &mut |key, value| {
            whole = !is_lost(&extent_of(key, value)?.blob)?;
            Ok(if whole { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(whole.then(|| path.join(&b'/')))
    }
}

fn extent_of(key: &[u8], value: &[u8]) -> Result<Extent> {
    let offset = KeyParts::parse(key).and_then(|parts| parts.number());
    Extent::decode(offset.ok_or_else(|| Error::damaged("an extent", "its key is malformed"))?, value)
}

/// Parts of one file that cannot be read, as far as the walk has come.
struct Content {
    ino: Ino,
    ranges: Vec<Range<u64>>,
    more: bool,
}

/// The walk of one tree.
struct Walk<'a, 's> {
    volume: &'a Volume,
    tree: &'a Tree,
    name: TreeName,
    snapshots: &'a [SnapshotRecord],
    clean: &'a mut HashSet<BlobId>,
    search: &'a mut HarmSearch<'s>,
    summary: &'a mut HarmSummary,
    /// How much harm was met.
    found: u64,
    /// The same when each node on the way down was entered.
    found_before: Vec<u64>,
    content: Option<Content>,
    /// Where nothing can be read, in the order of keys.
    spans: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Visitor for Walk<'_, '_> {
    fn enter(&mut self, id: &BlobId, _level: u8) -> Result<ControlFlow<()>> {
        if self.clean.contains(id) {
            return Ok(ControlFlow::Break(()));
        }
        self.found_before.push(self.found);
        Ok(ControlFlow::Continue(()))
    }

    fn leave(&mut self, id: &BlobId, level: u8) -> Result<()> {
        let before = self.found_before.pop();
        if before == Some(self.found) && self.clean.len() < CLEAN_MAX {
            self.clean.insert(*id);
        }
        let repository = &self.volume.repository;
        if level > 0 && repository.copies(id)? == 1 {
            self.summary.single_copies += 1;
            if self.search.store_copies {
                let bytes = repository.read_node(id)?.to_vec();
                repository.put(BlobKind::Node, bytes, Copies::Two)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(parts) = KeyParts::parse(key).filter(|parts| parts.kind == key::EXTENT) else { return Ok(()) };
        let extent = match extent_of(key, value) {
            Err(error) if error.is_damage() => return Ok(()),
            other => other?,
        };
        if (self.search.is_lost)(&extent.blob)? {
            self.found += 1;
            self.add_content(parts.ino, extent.offset..extent.end())?;
        }
        Ok(())
    }

    fn failed(&mut self, id: &BlobId, span: Span<'_>, error: Error) -> Result<()> {
        if !error.is_damage() {
            return Err(error);
        }
        self.found_before.pop();
        self.found += 1;
        let (first, last) = (ino_of(span.low), span.high.map(ino_of));
        if let Some(range) = self.content_in(first, span)? {
            self.add_content(first, range)?;
        }
        if self.spans.len() < SPANS_MAX {
            self.spans.push((span.low.to_vec(), span.high.map(<[u8]>::to_vec)));
        }
        let kind = HarmKind::Node { id: *id, first, last, why: error.to_string() };
        self.tell(None, Vec::new(), kind)
    }
}

impl Walk<'_, '_> {
    fn view(&self) -> NamespaceView<'_> {
        NamespaceView::new(self.tree, &self.volume.names)
    }

    fn tell(&mut self, ino: Option<Ino>, paths: Vec<Vec<u8>>, kind: HarmKind) -> Result<()> {
        self.summary.harmed += 1;
        (self.search.tell)(Harm { tree: self.name.clone(), ino, paths, kind })
    }

    fn add_content(&mut self, ino: Ino, range: Range<u64>) -> Result<()> {
        if self.content.as_ref().is_some_and(|content| content.ino != ino) {
            self.tell_content()?;
        }
        let content = self.content.get_or_insert_with(|| Content { ino, ranges: Vec::new(), more: false });
        let count = content.ranges.len();
        match content.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if count < RANGES_MAX => content.ranges.push(range),
            _ => content.more = true,
        }
        Ok(())
    }

    /// The content of a file that only records in `span` tell of, if its own record can be read.
    fn content_in(&self, ino: Ino, span: Span<'_>) -> Result<Option<Range<u64>>> {
        let Some(inode) = self.inode_if_readable(ino)?.filter(|inode| inode.kind == FileKind::Regular) else {
            return Ok(None);
        };
        let (first, last) = (key::body(ino), key::extent(ino, u64::MAX));
        if *span.low > *last || span.high.is_some_and(|high| high <= first.as_bytes()) {
            return Ok(None);
        }
        let offset_of = |bound: &[u8]| {
            let parts = KeyParts::parse(bound).filter(|parts| (parts.ino, parts.kind) == (ino, key::EXTENT))?;
            let mut offset = [0; 8];
            offset.iter_mut().zip(parts.subkey).for_each(|(to, from)| *to = *from);
            Some(u64::from_be_bytes(offset))
        };
        let mut start = offset_of(span.low).unwrap_or(0);
        if start > 0
            && let Ok(Some(before)) = extents::before(self.tree, ino, start)
        {
            start = start.max(before.end());
        }
        let end = span.high.and_then(offset_of).unwrap_or(inode.size).min(inode.size);
        Ok((start < end).then_some(start..end))
    }

    fn inode_if_readable(&self, ino: Ino) -> Result<Option<Inode>> {
        match self.view().inode(ino) {
            Ok(inode) => Ok(Some(inode)),
            Err(error) if error.is_damage() || error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tell_content(&mut self) -> Result<()> {
        let Some(Content { ino, mut ranges, more }) = self.content.take() else { return Ok(()) };
        let size = self.inode_if_readable(ino)?.map_or_else(|| ranges.last().map_or(0, |last| last.end), |it| it.size);
        ranges.iter_mut().for_each(|range| range.end = range.end.min(size));
        ranges.retain(|range| range.start < range.end);
        if ranges.is_empty() {
            return Ok(());
        }
        let paths = self.paths_of(ino)?;
        let older = self.volume.older_version(ino, self.snapshots, self.search.is_lost)?;
        self.tell(Some(ino), paths, HarmKind::Content { size, ranges, more, older })
    }

    /// The paths of an inode, as far as they can be read.
    fn paths_of(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let view = self.view();
        let mut paths = Vec::new();
        let mut take = |path: Result<Vec<Vec<u8>>>| match path {
            Ok(names) => {
                paths.push(names.join(&b'/'));
                Ok(())
            }
            Err(error) if error.is_damage() || error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        };
        take(view.path_of(ino))?;
        let (from, to) = (key::kind_start(ino, key::PARENT), key::kind_start(ino, key::PARENT + 1));
        let mut links = Vec::new();
        let scanned = self.tree.scan(&from, &to, &mut |key, _| {
            links.extend(KeyParts::parse(key).and_then(|parts| parts.parent()));
            Ok(if links.len() < NAMES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        match scanned {
            Err(error) if error.is_damage() => {}
            other => other?,
        }
        for (parent, cookie) in links {
            take(view.path_of(parent).and_then(|mut names| {
                names.push(view.name_at(ino, Link { parent, cookie })?);
                Ok(names)
            }))?;
        }
        Ok(paths)
    }

    /// Names what lies in the nodes that cannot be read, as far as other nodes tell.
    fn tell_names(&mut self) -> Result<()> {
        let spans = std::mem::take(&mut self.spans);
        if spans.is_empty() {
            return Ok(());
        }
        let mut told = None;
        for (low, _) in &spans {
            let dir = ino_of(low);
            if told == Some(dir) {
                continue;
            }
            told = Some(dir);
            let hidden = self.hidden_entries(dir, &spans)?;
            if hidden > 0 {
                let paths = self.paths_of(dir)?;
                self.tell(Some(dir), paths, HarmKind::Entries { hidden })?;
            }
        }
        let mut names = HiddenNames { walk: self, spans: &spans };
        let tree = names.walk.tree;
        tree.visit(&mut names)
    }

    /// How many names of a directory lie in unreadable nodes.
    fn hidden_entries(&self, dir: Ino, spans: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<u64> {
        let Some(inode) = self.inode_if_readable(dir)?.filter(|inode| inode.kind.is_directory()) else { return Ok(0) };
        let end = key::kind_start(dir, key::DIRENT + 1);
        let mut from = key::kind_start(dir, key::DIRENT).to_vec();
        let mut seen = 0;
        let mut count = |from: &[u8], to: &[u8]| {
            self.tree.scan(from, to, &mut |_, _| {
                seen += 1;
                Ok(ControlFlow::Continue(()))
            })
        };
        let meets = |(low, high): &&(Vec<u8>, Option<Vec<u8>>)| {
            low[..] < *end && high.as_deref().is_none_or(|high| *high > from[..])
        };
        let met: Vec<_> = spans.iter().filter(meets).cloned().collect();
        for (low, high) in met {
            if from < low {
                count(&from, &low)?;
            }
            from = high.unwrap_or_else(|| end.to_vec());
        }
        if from[..] < *end {
            count(&from, &end)?;
        }
        Ok((inode.size / ENTRY_BYTES).saturating_sub(seen))
    }
}

/// The inode of a bound, which may be shorter than a key.
fn ino_of(bound: &[u8]) -> Ino {
    let mut ino = [0; 8];
    ino.iter_mut().zip(bound).for_each(|(to, from)| *to = *from);
    Ino(u64::from_be_bytes(ino))
}

/// Looks in all readable directories for names of inodes whose records cannot be read.
struct HiddenNames<'w, 'a, 's> {
    walk: &'w mut Walk<'a, 's>,
    spans: &'w [(Vec<u8>, Option<Vec<u8>>)],
}

impl Visitor for HiddenNames<'_, '_, '_> {
    fn enter(&mut self, _id: &BlobId, _level: u8) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(parts) = KeyParts::parse(key).filter(|parts| parts.kind == key::DIRENT) else { return Ok(()) };
        let Ok(entry) = DirentRef::decode(value) else { return Ok(()) };
        let inode = key::inode(entry.ino);
        // The last span that begins at or below the record.
        let at = self.spans.partition_point(|(low, _)| low[..] <= *inode);
        let is_hidden = at
            .checked_sub(1)
            .and_then(|at| self.spans.get(at))
            .is_some_and(|(low, high)| Span { low, high: high.as_deref() }.contains(&inode));
        if !is_hidden {
            return Ok(());
        }
        let path = self.walk.view().path_of(parts.ino);
        let paths = match path {
            Ok(mut names) => {
                names.push(entry.name.to_vec());
                vec![names.join(&b'/')]
            }
            Err(error) if error.is_damage() || error.is_not_found() => Vec::new(),
            Err(error) => return Err(error),
        };
        self.walk.tell(Some(entry.ino), paths, HarmKind::Hidden { kind: entry.kind })
    }

    fn failed(&mut self, _id: &BlobId, _span: Span<'_>, _error: Error) -> Result<()> {
        // Told by the walk before.
        Ok(())
    }
}
