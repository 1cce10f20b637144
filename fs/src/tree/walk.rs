//! Visiting the nodes of a stored tree, for checking and for reachability.

use std::ops::ControlFlow;

use vellum_store::id::BlobId;

use super::{Nodes, Tree, node::Node};
use crate::error::{Error, Result};

/// The keys that can lie below a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<'k> {
    /// No key is below this one.
    pub low: &'k [u8],
    /// All keys are below this one, if there is a bound.
    pub high: Option<&'k [u8]>,
}

impl Span<'_> {
    /// Whether a key lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.low && self.high.is_none_or(|high| key < high)
    }
}

/// Told about every node and record of a tree.
pub trait Visitor {
    /// A node is about to be read; whether to. A node that was met before need not be read again, nor what is below it.
    fn enter(&mut self, id: &BlobId, level: u8) -> Result<ControlFlow<()>>;

    /// A record of a leaf.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// A node that was entered, and all below it, was visited, or as much of it as could be read.
    fn leave(&mut self, id: &BlobId, level: u8) -> Result<()> {
        let (_, _) = (id, level);
        Ok(())
    }

    /// A node could not be read, or is damaged; returning `Ok` goes on with the next.
    fn failed(&mut self, id: &BlobId, span: Span<'_>, error: Error) -> Result<()> {
        let (_, _) = (id, span);
        Err(error)
    }
}

impl Tree {
    /// Visits the stored nodes below the root, and the root, parents before children and in the order of keys. Nodes
    /// that are not stored are passed through without being entered.
    pub fn visit(&self, visitor: &mut dyn Visitor) -> Result<()> {
        let stored = self.root.stored();
        if let Some(id) = stored
            && visitor.enter(id, self.root.level())?.is_break()
        {
            return Ok(());
        }
        self.nodes.visit(&self.root, Span { low: &[], high: None }, visitor)?;
        stored.map_or(Ok(()), |id| visitor.leave(id, self.root.level()))
    }
}

impl Nodes {
    fn visit(&self, node: &Node, span: Span<'_>, visitor: &mut dyn Visitor) -> Result<()> {
        if node.level() == 0 {
            return (0..node.count()).try_for_each(|at| visitor.record(node.key(at), node.value(at)));
        }
        for at in 0..node.count() {
            let id = match node.resident(at) {
                Some(child) => child.stored().copied(),
                None => Some(node.child_id(at)),
            };
            let level = node.level() - 1;
            if let Some(id) = id
                && visitor.enter(&id, level)?.is_break()
            {
                continue;
            }
            // The first cell's key is empty, so its bound is the node's.
            let low = if at > 0 { node.key(at) } else { span.low };
            let high = if at + 1 < node.count() { Some(node.key(at + 1)) } else { span.high };
            let below = Span { low, high };
            match (self.child(node, at), id) {
                (Ok(child), id) => {
                    self.visit(&child, below, visitor)?;
                    id.map_or(Ok(()), |id| visitor.leave(&id, level))?;
                }
                (Err(error), Some(id)) => visitor.failed(&id, below, error)?,
                (Err(error), None) => return Err(error),
            }
        }
        Ok(())
    }
}
