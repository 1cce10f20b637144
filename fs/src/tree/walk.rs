//! Visiting the nodes of a stored tree, for checking and for reachability.

use std::ops::ControlFlow;

use vellum_store::id::BlobId;

use super::{Nodes, Tree, node::Node};
use crate::error::{Error, Result};

/// Told about every node and record of a tree.
pub trait Visitor {
    /// A node is about to be read; whether to. A node that was met before need not be read again, nor what is below it.
    fn enter(&mut self, id: &BlobId, level: u8) -> Result<ControlFlow<()>>;

    /// A record of a leaf.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// A node could not be read, or is damaged; returning `Ok` goes on with the next.
    fn failed(&mut self, id: &BlobId, error: Error) -> Result<()> {
        let _ = id;
        Err(error)
    }
}

impl Tree {
    /// Visits the stored nodes below the root, and the root, parents before children and in the order of keys. Nodes
    /// that are not stored are passed through without being entered.
    pub fn visit(&self, visitor: &mut dyn Visitor) -> Result<()> {
        if let Some(id) = self.root.stored()
            && visitor.enter(id, self.root.level())?.is_break()
        {
            return Ok(());
        }
        self.nodes.visit(&self.root, visitor)
    }
}

impl Nodes {
    fn visit(&self, node: &Node, visitor: &mut dyn Visitor) -> Result<()> {
        if node.level() == 0 {
            return (0..node.count()).try_for_each(|at| visitor.record(node.key(at), node.value(at)));
        }
        for at in 0..node.count() {
            let id = match node.resident(at) {
                Some(child) => child.stored().copied(),
                None => Some(node.child_id(at)),
            };
            if let Some(id) = id
                && visitor.enter(&id, node.level() - 1)?.is_break()
            {
                continue;
            }
            match (self.child(node, at), id) {
                (Ok(child), _) => self.visit(&child, visitor)?,
                (Err(error), Some(id)) => visitor.failed(&id, error)?,
                (Err(error), None) => return Err(error),
            }
        }
        Ok(())
    }
}
