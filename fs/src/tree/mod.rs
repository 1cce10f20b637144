//! The metadata tree: a copy-on-write B+tree of records, whose nodes are blobs of the store.
//!
//! *Invariants*
//! 1. A [`Tree`] is a value: a clone costs three reference counts and never sees what is done to the original later.
//! 2. A node that another tree can see is copied before it is changed; a node that only this tree holds is changed in
//!    place.
//! 3. Nodes not yet stored are in memory and reachable from the root by nodes in memory. Stored nodes come and go
//!    through the bounded [`NodeCache`].
//! 4. No node is empty but the root of an empty tree, and all leaves are at level 0.
//!
//! *Ordering*: F2: [`Tree::store`] hands a node to the store only after all its children.
//!
//! *Threads*: reading needs `&Tree` and takes no lock but those of the cache's shards. Changing needs `&mut Tree`. A
//! clone can be stored on one thread while the original is read and changed on others.
//!
//! *Bounds*: a change touches one path, at most [`node::LEVEL_MAX`] nodes, and their neighbours when nodes merge.
//! Memory beyond the cache is what was changed since the last [`Tree::store`] and [`Tree::release_stored`].
//!
//! *Not here*: what records mean ([`crate::format`]), how nodes are sealed and packed (`vellum-store`).

mod cache;
mod cursor;
mod diff;
mod edit;
mod lease;
pub mod node;
mod store;
mod undo;
mod walk;

use std::{fmt, sync::Arc};

pub use cache::NodeCache;
pub use cursor::{Each, Record};
pub use diff::EachChange;
use lease::Lease;
pub use lease::Readers;
use node::Node;
pub use store::NodeStore;
use undo::Undo;
use vellum_store::id::BlobId;
pub use walk::{Span, Visitor};

use crate::error::{Error, Object, Result};

/// Size at which nodes are split.
pub const NODE_BYTES_DEFAULT: usize = 16 << 10;

/// One state of the records of a volume.
pub struct Tree {
    root: Arc<Node>,
    nodes: Nodes,
    node_bytes: usize,
    dirty_bytes: usize,
    /// What takes the changes of a running [`Tree::atomically`] back, in their order.
    undo: Option<Vec<Undo>>,
    /// Why the records are not to be trusted: a change ended half-way and could not be taken back.
    torn: Option<Error>,
    /// Shared by all clones, so that who would delete what they name can wait for them.
    lease: Arc<Lease>,
}

impl Clone for Tree {
    fn clone(&self) -> Self {
        let (root, nodes, torn) = (Arc::clone(&self.root), self.nodes.clone(), self.torn.clone());
        let lease = Arc::clone(&self.lease);
        Self { root, nodes, node_bytes: self.node_bytes, dirty_bytes: self.dirty_bytes, undo: None, torn, lease }
    }
}

impl Tree {
    /// A tree without records.
    pub fn empty(store: Arc<dyn NodeStore>, cache: Arc<NodeCache>) -> Self {
        let root = Arc::new(Node::empty(0));
        let dirty_bytes = root.size();
        Self::with_root(root, Nodes { store, cache }, dirty_bytes)
    }

    /// The tree with this root.
    pub fn load(store: Arc<dyn NodeStore>, cache: Arc<NodeCache>, root: &BlobId) -> Result<Self> {
        let nodes = Nodes { store, cache };
        let root = nodes.get(root)?;
        Ok(Self::with_root(root, nodes, 0))
    }

    fn with_root(root: Arc<Node>, nodes: Nodes, dirty_bytes: usize) -> Self {
        let lease = Arc::default();
        Self { root, nodes, node_bytes: NODE_BYTES_DEFAULT, dirty_bytes, undo: None, torn: None, lease }
    }

    /// Tells when all clones that were made so far, and their clones, have gone.
    pub fn renew_lease(&mut self) -> Readers {
        let readers = Readers::of(&self.lease);
        self.lease = Arc::default();
        readers
    }

    /// Fails if a change ended half-way and could not be taken back: see [`Self::atomically`].
    fn check_whole(&self) -> Result<()> {
        self.torn.clone().map_or(Ok(()), Err)
    }

    /// Another tree of the same store and cache: the one with this root.
    pub fn at_root(&self, root: &BlobId) -> Result<Self> {
        let tree = Self::load(Arc::clone(&self.nodes.store), Arc::clone(&self.nodes.cache), root)?;
        Ok(tree.with_node_bytes(self.node_bytes))
    }

    /// Splits nodes at another size than [`NODE_BYTES_DEFAULT`].
    pub fn with_node_bytes(mut self, node_bytes: usize) -> Self {
        assert!((512..=node::NODE_BYTES_MAX).contains(&node_bytes), "within the bounds of the format");
        self.node_bytes = node_bytes;
        self
    }

    /// Levels from the root to the leaves.
    pub fn depth(&self) -> usize {
        usize::from(self.root.level()) + 1
    }

    /// Bytes of nodes in memory that are not stored; exact after [`Self::store`] and [`Self::release_stored`], and not
    /// lowered in between by what a clone stores.
    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Id of the root, if the tree is stored as it is.
    pub fn root_id(&self) -> Option<BlobId> {
        self.root.stored().copied()
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("root", &self.root.stored())
            .field("depth", &self.depth())
            .field("dirty_bytes", &self.dirty_bytes)
            .finish_non_exhaustive()
    }
}

/// Where stored nodes come from.
#[derive(Clone)]
struct Nodes {
    store: Arc<dyn NodeStore>,
    cache: Arc<NodeCache>,
}

impl Nodes {
    fn get(&self, id: &BlobId) -> Result<Arc<Node>> {
        if let Some(node) = self.cache.get(id) {
            return Ok(node);
        }
        let node = Arc::new(Node::decode(id, &self.store.get(id)?)?);
        self.cache.insert(*id, Arc::clone(&node));
        Ok(node)
    }

    /// The child of a cell. It must be on the level below, which keeps every descent finite.
    fn child(&self, parent: &Node, at: usize) -> Result<Arc<Node>> {
        if let Some(child) = parent.resident(at) {
            return Ok(Arc::clone(child));
        }
        let id = parent.child_id(at);
        let child = self.get(&id)?;
        if child.level() + 1 != parent.level() {
            return Err(Error::damaged(Object::Text(format!("tree node {id}")), "not on the level below its parent"));
        }
        // Each way down gives a record, so that no walk is longer than what its caller is ready to take.
        if child.count() == 0 {
            return Err(Error::damaged(Object::Text(format!("tree node {id}")), "a node below another has no cells"));
        }
        Ok(child)
    }
}

#[cfg(test)]
mod tests;
