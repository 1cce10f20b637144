//! Storing a tree: changed nodes go to the store, children first, and leave memory.

use std::sync::Arc;

use vellum_store::id::BlobId;

use super::{Nodes, Tree, node::Node};
use crate::error::Result;

/// Keeps the encoded nodes of trees.
pub trait NodeStore: Send + Sync {
    /// The node with this id, verified to be the one that was put.
    fn get(&self, id: &BlobId) -> Result<Arc<[u8]>>;

    /// Takes a node; equal nodes have equal ids. `interior` nodes are worth a second copy. The node can be read at
    /// once; it is durable when a later commit of the store says so.
    fn put(&self, bytes: Vec<u8>, interior: bool) -> Result<BlobId>;
}

impl Tree {
    /// Stores all nodes that are not, and returns the id of the root. Costs the nodes that changed since the last time.
    pub fn store(&mut self) -> Result<BlobId> {
        self.store_as(false)
    }

    /// Like [`Self::store`], but hands every node in memory to the store again, for when a commit failed after a clone was
    /// stored and the store may have dropped what it took. Complete for a tree on which neither [`Self::store`] nor
    /// [`Self::release_stored`] was called since the last commit that succeeded.
    pub fn store_again(&mut self) -> Result<BlobId> {
        self.store_as(true)
    }

    fn store_as(&mut self, again: bool) -> Result<BlobId> {
        self.check_whole()?;
        let id = self.nodes.put(&self.root, again)?;
        self.root = self.nodes.stored_form(&self.root);
        self.dirty_bytes = 0;
        Ok(id)
    }

    /// Lets go of nodes that a clone of this tree has stored: they are referred to by id, and cached. Called once the commit
    /// that needed them has succeeded.
    pub fn release_stored(&mut self) {
        if self.root.stored().is_some() {
            self.root = self.nodes.stored_form(&self.root);
            self.dirty_bytes = 0;
        } else {
            self.dirty_bytes = release(&mut self.root);
        }
    }
}

/// Releases below a node that is not stored; returns the bytes that remain dirty. Nodes that a clone still holds stay
/// as they are: the clone's end will make them this tree's own, or its storing will release them.
fn release(node: &mut Arc<Node>) -> usize {
    let mut dirty = node.size();
    let Some(node) = Arc::get_mut(node) else {
        return dirty + shared_dirty(node);
    };
    node.release_children(&mut |child| dirty += release(child));
    dirty
}

fn shared_dirty(node: &Node) -> usize {
    let children = (0..node.count()).filter_map(|at| node.resident(at)).filter(|child| child.stored().is_none());
    children.map(|child| child.size() + shared_dirty(child)).sum()
}

impl Nodes {
    fn put(&self, node: &Arc<Node>, again: bool) -> Result<BlobId> {
        match node.stored() {
            Some(id) if !again => return Ok(*id),
            _ => {}
        }
        // F2: the children first.
        for at in 0..node.count() {
            if let Some(child) = node.resident(at) {
                self.put(child, again)?;
            }
        }
        let id = self.store.put(node.encode(), node.level() > 0)?;
        node.set_stored(id);
        let form = if node.level() > 0 { Arc::new(node.without_children()) } else { Arc::clone(node) };
        self.cache.insert(id, form);
        Ok(id)
    }

    /// A stored node as the cache holds it: without children in memory.
    fn stored_form(&self, node: &Arc<Node>) -> Arc<Node> {
        if node.level() == 0 {
            return Arc::clone(node);
        }
        let cached = node.stored().and_then(|id| self.cache.get(id));
        cached.unwrap_or_else(|| Arc::new(node.without_children()))
    }
}
