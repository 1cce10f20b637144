//! `.snapshots`: the hidden directory through which every directory shows its past.
//!
//! Reached by name in each live directory, it lists the snapshots in which that directory exists, and `latest`. Names that begin
//! with `@` are instants: links to the snapshot in force then.
//!
//! *Invariants*
//! 1. An inode number here is bit 63 and 63 bits of a keyed hash of (snapshot, entry directory, inode). The entry directory is
//!    part of it because a kernel keeps one name for a directory inode: one number reached over two paths would be moved
//!    from one to the other under the feet of whoever works there. Numbers are the same after forget and remount.
//! 2. What lies below a snapshot's name never changes (F7): it is read from the snapshot's own tree.
//! 3. Links (`latest`, instants) may change their target at any moment and say so ([`Entry::transient`]).
//!
//! *Threads*: any. The table's lock is a leaf, held for no I/O.
//!
//! *Bounds*: one small entry for each number that a front end holds a reference to; trees are opened lazily and shared.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use vellum_store::id::BlobId;

use super::{
    Volume,
    instant::parse_instant,
    ops::{Entry, xattrs::collect_xattrs},
    records,
    snapshot::SnapshotRequest,
    state::inode_in,
};
use crate::{
    attr::{Attr, Caller},
    error::{Error, Result},
    format::{
        inode::{FileKind, Inode},
        key,
        volume::SnapshotRecord,
    },
    ino::Ino,
    namespace::{DirEntry, NamespaceView},
    tree::Tree,
};

/// Name of the link to the newest snapshot.
const LATEST: &[u8] = b"latest";
/// Cookie of `latest`; those of snapshots are their ids above [`COOKIE_BASE`].
const COOKIE_LATEST: u64 = 3;
const COOKIE_BASE: u64 = 16;

/// An opened snapshot.
#[derive(Debug)]
pub struct View {
    /// Its entry in the list, as of the opening.
    pub record: SnapshotRecord,
    /// Its tree.
    pub tree: Tree,
    /// Whether it stood in the list after the table of open snapshots had it: gc leaves it whole from then on.
    is_whole: AtomicBool,
}

/// What a number of the view stands for.
#[derive(Clone, Debug)]
enum Node {
    /// The snapshot directory of a live directory.
    Snapdir(Ino),
    /// A link in the snapshot directory of a live directory: its name and its target. The target is part of the number, because
    /// kernels cache the text of a link by number.
    Link(Ino, Vec<u8>, Vec<u8>),
    /// An inode of a snapshot, entered through a live directory.
    Inside(Arc<View>, Ino, Ino),
}

#[derive(Debug)]
struct Held {
    node: Node,
    references: u64,
}

/// The table of numbers that front ends hold, and the snapshots open because of them.
#[derive(Default)]
pub struct Views {
    key: [u8; 32],
    held: Mutex<HashMap<Ino, Held>>,
    open: Mutex<HashMap<u64, Weak<View>>>,
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views").field("held", &self.len()).finish_non_exhaustive()
    }
}

impl Views {
    /// An empty table; `key` is the hash key of the numbers.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key, ..Self::default() }
    }

    /// Roots of the snapshots that somebody has open, listed or not.
    pub fn open_roots(&self) -> Vec<BlobId> {
        let open = self.open.lock();
        open.values().filter_map(Weak::upgrade).map(|view| view.record.root).collect()
    }

    /// The number of a node (invariant 1).
    fn number(&self, node: &Node) -> Ino {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        match node {
            Node::Snapdir(dir) => hasher.update(b"dir").update(&dir.0.to_le_bytes()),
            Node::Link(dir, name, target) => {
                hasher.update(b"lnk").update(&dir.0.to_le_bytes()).update(&(name.len() as u64).to_le_bytes());
                hasher.update(name).update(target)
            }
            Node::Inside(view, entry, ino) => hasher
                .update(b"ino")
                .update(&view.record.id.to_le_bytes())
                .update(&entry.0.to_le_bytes())
                .update(&ino.0.to_le_bytes()),
        };
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Ino(u64::from_le_bytes(first) | 1 << 63)
    }

    fn reference(&self, node: Node) -> Ino {
        let ino = self.number(&node);
        self.held.lock().entry(ino).or_insert(Held { node, references: 0 }).references += 1;
        ino
    }

    fn add_reference(&self, ino: Ino) {
        if let Some(held) = self.held.lock().get_mut(&ino) {
            held.references += 1;
        }
    }

    fn forget(&self, ino: Ino, count: u64) {
        let mut table = self.held.lock();
        if let Some(held) = table.get_mut(&ino) {
            held.references = held.references.saturating_sub(count);
            if held.references == 0 {
                table.remove(&ino);
            }
        }
    }

    fn node(&self, ino: Ino) -> Result<Node> {
        self.held.lock().get(&ino).map(|held| held.node.clone()).ok_or(Error::Stale(ino.into()))
    }

    /// Number of entries; for `status` and tests.
    pub fn len(&self) -> usize {
        self.held.lock().len()
    }

    /// Whether no number is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Volume {
    /// Opens a snapshot for reading, without any front end's number; [`Error::NotFound`] if it was deleted since `record` was
    /// read. The caller keeps the tree that `record` comes from until then, so that gc leaves the snapshot whole.
    pub fn open_snapshot(&self, record: &SnapshotRecord) -> Result<Arc<View>> {
        let known = self.snapdir.open.lock().get(&record.id).and_then(Weak::upgrade);
        let known = known.filter(|view| view.record.root == record.root);
        if let Some(view) = known.filter(|view| view.is_whole.load(Ordering::Acquire)) {
            return Ok(view);
        }
        let tree = self.tree().at_root(&record.root)?;
        let view = {
            let mut open = self.snapdir.open.lock();
            open.retain(|_, view| view.strong_count() > 0);
            let other = open.get(&record.id).and_then(Weak::upgrade).filter(|view| view.record.root == record.root);
            // One view of each snapshot: what it shows is held back from gc by this table.
            other.unwrap_or_else(|| {
                let view = Arc::new(View { record: record.clone(), tree, is_whole: AtomicBool::new(false) });
                open.insert(record.id, Arc::downgrade(&view));
                view
            })
        };
        self.repository.spawner().step("snapshot: in the table");
        // Deleted since its record was read, it may be half gone; deleted from here on, it stays.
        match self.tree().get(key::snapshot(record.id).as_bytes())? {
            Some(_) => {
                view.is_whole.store(true, Ordering::Release);
                Ok(view)
            }
            None => Err(Error::NotFound(format!("snapshot {}", record.name.escape_ascii()).into())),
        }
    }

    /// The snapshot directory of a live directory.
    pub(crate) fn snapdir_entry(&self, dir: Ino) -> Result<Entry> {
        let inode = self.meta.read().inode(dir)?.ok_or(Error::Stale(dir.into()))?;
        if inode.kind != FileKind::Directory {
            return Err(Error::NotDirectory(dir.into()));
        }
        self.view_entry(Node::Snapdir(dir), false)
    }

    fn view_entry(&self, node: Node, name_may_move: bool) -> Result<Entry> {
        let transient = matches!(node, Node::Link(..));
        let immutable = matches!(node, Node::Inside(..));
        let attr = self.node_attr(&node)?;
        self.snapdir.reference(node);
        Ok(Entry { attr, immutable, name_may_move, transient })
    }

    fn node_attr(&self, node: &Node) -> Result<Attr> {
        let ino = self.snapdir.number(node);
        match node {
            Node::Snapdir(dir) => {
                let live = self.meta.read().inode(*dir)?.ok_or(Error::Stale((*dir).into()))?;
                let time = self.newest_snapshot()?.map_or(live.mtime, |record| record.time);
                // The owner may create (take) and remove (delete) entries; the kernel checks the mode before it asks.
                let inode = Inode::new(FileKind::Directory, 0o755, self.options.snapshot_admin, live.gid, time);
                Ok(Attr::new(ino, &Inode { nlink: 2, size: 4096, ..inode }))
            }
            Node::Link(_, _, target) => {
                let inode = Inode::new(FileKind::Symlink, 0o777, self.options.snapshot_admin, 0, self.now());
                Ok(Attr::new(ino, &Inode { nlink: 1, size: target.len() as u64, ..inode }))
            }
            Node::Inside(view, _, inner) => {
                let inode = inode_in(&view.tree, *inner)?.ok_or(Error::Stale(ino.into()))?;
                Ok(Attr::new(ino, &inode))
            }
        }
    }

    /// `lookup` below a snapshot directory.
    pub(crate) fn view_lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        match self.snapdir.node(parent)? {
            node if name == b"." => self.view_entry(node, false),
            Node::Snapdir(dir) if name == b".." => self.lookup(dir, b"."),
            Node::Inside(view, entry, inner) if name == b".." => {
                let parent = NamespaceView::new(&view.tree, &self.names).parent_of(inner)?;
                self.view_entry(self.parent_node(&view, entry, inner, parent), false)
            }
            Node::Snapdir(dir) => {
                let tree = self.tree();
                // A list that could not be read must not look like one that lacks the name.
                if let Some(record) = records::find_snapshot(&tree, name)? {
                    let entry = self.directory_in(&record, dir)?;
                    return self.view_entry(entry, true);
                }
                let target = self.link_target(dir, name)?;
                self.view_entry(Node::Link(dir, name.to_vec(), target), true)
            }
            Node::Inside(view, entry, inner) => {
                let (ino, _) = NamespaceView::new(&view.tree, &self.names).lookup(inner, name)?;
                self.view_entry(Node::Inside(view, entry, ino), false)
            }
            Node::Link(..) => Err(Error::NotDirectory("a link to a snapshot".into())),
        }
    }

    /// Where a live directory was in a snapshot: by inode, else by path, so that history survives renames and re-creation.
    fn directory_in(&self, record: &SnapshotRecord, dir: Ino) -> Result<Node> {
        let view = self.open_snapshot(record)?;
        let past = NamespaceView::new(&view.tree, &self.names);
        let by_inode = inode_in(&view.tree, dir)?.filter(|inode| inode.kind == FileKind::Directory && inode.nlink > 0);
        let inner = if by_inode.is_some() {
            dir
        } else {
            let path = NamespaceView::new(&self.tree(), &self.names).path_of(dir)?;
            let (ino, kind) = past.resolve(&path)?;
            if kind != FileKind::Directory {
                return Err(Error::NotFound("this directory in that snapshot".into()));
            }
            ino
        };
        Ok(Node::Inside(view, dir, inner))
    }

    /// What is above a directory of a snapshot: its parent then, or the snapshot directory that it was entered through.
    fn parent_node(&self, view: &Arc<View>, entry: Ino, inner: Ino, parent: Ino) -> Node {
        match self.directory_in(&view.record, entry) {
            Ok(Node::Inside(_, _, top)) if top == inner => Node::Snapdir(entry),
            _ => Node::Inside(Arc::clone(view), entry, parent),
        }
    }

    /// What `latest` or an instant stands for in the snapshot directory of `dir`.
    fn link_target(&self, dir: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let missing = || Error::NotFound(format!("snapshot {}", name.escape_ascii()).into());
        let limit = if name == LATEST {
            None
        } else {
            let text = name.strip_prefix(b"@").and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(missing)?;
            Some(parse_instant(text, self.now(), &self.options.zone).ok_or_else(missing)?)
        };
        let tree = self.tree();
        for record in records::snapshots(&tree)?.iter().rev() {
            if limit.is_some_and(|limit| record.time > limit) {
                continue;
            }
            match self.directory_in(record, dir) {
                Ok(_) => return Ok(record.name.clone()),
                Err(Error::NotFound(_) | Error::NotDirectory(_)) => {}
                // An older snapshot in the place of a damaged one would be other content under the same name.
                Err(error) => return Err(error),
            }
        }
        Err(missing())
    }

    fn newest_snapshot(&self) -> Result<Option<SnapshotRecord>> {
        Ok(self.snapshots()?.pop())
    }

    /// Gives back references of a number of the view.
    pub(crate) fn view_forget(&self, ino: Ino, count: u64) {
        self.snapdir.forget(ino, count);
    }

    /// Adds a reference to a number that the caller holds already.
    pub(crate) fn view_reference(&self, ino: Ino) {
        self.snapdir.add_reference(ino);
    }

    /// Attributes of a number of the view.
    pub(crate) fn view_attr(&self, ino: Ino) -> Result<Attr> {
        self.node_attr(&self.snapdir.node(ino)?)
    }

    /// Flags of an inode of a snapshot.
    pub(crate) fn view_flags(&self, ino: Ino) -> Result<u32> {
        match self.snapdir.node(ino)? {
            Node::Inside(view, _, inner) => Ok(inode_in(&view.tree, inner)?.ok_or(Error::Stale(ino.into()))?.flags),
            Node::Snapdir(_) | Node::Link(..) => Ok(0),
        }
    }

    /// Target of a link: the snapshot that it stands for, or the target of a link inside a snapshot.
    pub(crate) fn view_read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        match self.snapdir.node(ino)? {
            Node::Link(_, _, target) => Ok(target),
            Node::Inside(view, _, inner) => NamespaceView::new(&view.tree, &self.names).read_link(inner),
            Node::Snapdir(_) => Err(Error::InvalidArgument("a directory is no link".into())),
        }
    }

    /// The snapshot and the inode in it that a number stands for.
    pub(crate) fn view_file(&self, ino: Ino) -> Result<(Arc<View>, Ino)> {
        match self.snapdir.node(ino)? {
            Node::Inside(view, _, inner) => Ok((view, inner)),
            Node::Snapdir(_) | Node::Link(..) => Err(Error::IsDirectory("a snapshot directory".into())),
        }
    }

    /// Lists a directory of the view.
    pub(crate) fn view_read_dir(
        &self,
        ino: Ino,
        after: u64,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        match self.snapdir.node(ino)? {
            Node::Snapdir(dir) => self.list_snapshots_of(ino, dir, after, visit),
            Node::Inside(view, entry, inner) => {
                NamespaceView::new(&view.tree, &self.names).read_dir(inner, after, &mut |found: DirEntry<'_>| {
                    let node = match found.name {
                        b".." => self.parent_node(&view, entry, inner, found.ino),
                        _ => Node::Inside(Arc::clone(&view), entry, found.ino),
                    };
                    self.visit_node(node, &found, visit)
                })
            }
            Node::Link(..) => Err(Error::NotDirectory("a link to a snapshot".into())),
        }
    }

    /// Shows an entry under its number in the view, holding a reference while it is shown, so that its attributes can be asked.
    fn visit_node(
        &self,
        node: Node,
        found: &DirEntry<'_>,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let ino = self.snapdir.reference(node);
        let flow = visit(&DirEntry { ino, ..*found });
        self.snapdir.forget(ino, 1);
        flow
    }

    /// Shows the snapshot directory of `dir` in a listing of `dir`, for mounts that want it visible.
    pub(crate) fn visit_snapdir(
        &self,
        dir: Ino,
        cookie: u64,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let name = &self.options.snapdir_name;
        self.visit_node(Node::Snapdir(dir), &DirEntry { cookie, ino: dir, kind: FileKind::Directory, name }, visit)
    }

    fn list_snapshots_of(
        &self,
        ino: Ino,
        dir: Ino,
        after: u64,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let kind = FileKind::Directory;
        for (cookie, ino, name) in [(1, ino, b".".as_slice()), (2, dir, b"..".as_slice())] {
            if after < cookie && visit(&DirEntry { cookie, ino, kind, name }).is_break() {
                return Ok(());
            }
        }
        let tree = self.tree();
        let snapshots = records::snapshots(&tree)?;
        let latest = match self.link_target(dir, LATEST) {
            Ok(target) => Some(target),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if after < COOKIE_LATEST
            && let Some(target) = latest
        {
            let entry = DirEntry { cookie: COOKIE_LATEST, ino, kind: FileKind::Symlink, name: LATEST };
            if self.visit_node(Node::Link(dir, LATEST.to_vec(), target), &entry, visit).is_break() {
                return Ok(());
            }
        }
        for record in snapshots {
            let cookie = COOKIE_BASE + record.id;
            if cookie <= after {
                continue;
            }
            let node = match self.directory_in(&record, dir) {
                Ok(node) => node,
                Err(Error::NotFound(_) | Error::NotDirectory(_)) => continue,
                Err(error) => return Err(error),
            };
            let entry = DirEntry { cookie, ino, kind, name: &record.name };
            if self.visit_node(node, &entry, visit).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The value of an extended attribute in a snapshot.
    pub(crate) fn view_get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        match self.snapdir.node(ino)? {
            Node::Inside(view, _, inner) => NamespaceView::new(&view.tree, &self.names).get_xattr(inner, name),
            Node::Snapdir(_) | Node::Link(..) => Err(Error::NoAttribute(name.escape_ascii().to_string().into())),
        }
    }

    /// The names of extended attributes in a snapshot.
    pub(crate) fn view_list_xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        match self.snapdir.node(ino)? {
            Node::Inside(view, _, inner) => collect_xattrs(&NamespaceView::new(&view.tree, &self.names), inner),
            Node::Snapdir(_) | Node::Link(..) => Ok(Vec::new()),
        }
    }

    fn check_snapshot_admin(&self, parent: Ino, caller: &Caller) -> Result<Ino> {
        let Node::Snapdir(dir) = self.snapdir.node(parent)? else {
            return Err(Error::ReadOnly("a snapshot".into()));
        };
        if caller.uid != 0 && caller.uid != self.options.snapshot_admin {
            return Err(Error::Access("snapshots are managed by the owner of the mount".into()));
        }
        Ok(dir)
    }

    /// `mkdir .snapshots/NAME` takes a snapshot.
    pub(crate) fn view_mkdir(&self, parent: Ino, name: &[u8], caller: &Caller) -> Result<Entry> {
        let dir = self.check_snapshot_admin(parent, caller)?;
        let request = SnapshotRequest { name: Some(name.to_vec()), ..SnapshotRequest::default() };
        let record = self.take_snapshot(&request)?;
        self.view_entry(self.directory_in(&record, dir)?, true)
    }

    /// `rmdir .snapshots/NAME` deletes a snapshot.
    pub(crate) fn view_rmdir(&self, parent: Ino, name: &[u8], caller: &Caller) -> Result<()> {
        self.check_snapshot_admin(parent, caller)?;
        self.delete_snapshot(name).map(|_| ())
    }

    /// `mv .snapshots/NAME .snapshots/OTHER` renames a snapshot.
    pub(crate) fn view_rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), caller: &Caller) -> Result<()> {
        self.check_snapshot_admin(from.0, caller)?;
        self.check_snapshot_admin(to.0, caller)?;
        self.rename_snapshot(from.1, to.1).map(|_| ())
    }
}
