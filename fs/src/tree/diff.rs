//! The difference of two trees, found without reading what they share.
//!
//! *Invariants*: two subtrees with the same id hold the same records, so where both walks stand before such a pair they
//! step over it. Nothing else is trusted: not levels, not bounds beyond the order of keys.
//!
//! *Bounds*: reads the nodes in which the trees differ, and their parents; remembers one path of each tree.

use std::{ops::ControlFlow, sync::Arc};

use vellum_store::id::BlobId;

use super::{Nodes, Tree, node::Node};
use crate::error::Result;

/// What [`Tree::diff`] calls with a key, its value in the first tree and its value in the second.
pub type EachChange<'f> = dyn FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Result<ControlFlow<()>> + 'f;

/// One tree being walked: the nodes from the root down, each with the next cell, and the bound of its first cell.
struct Walk<'t> {
    nodes: &'t Nodes,
    path: Vec<Step>,
}

struct Step {
    node: Arc<Node>,
    at: usize,
    low: Vec<u8>,
}

/// What a walk stands before.
enum Next<'w> {
    Record(&'w [u8], &'w [u8]),
    Subtree { low: &'w [u8], level: u8 },
}

impl<'t> Walk<'t> {
    fn new(tree: &'t Tree) -> Self {
        let path = vec![Step { node: Arc::clone(&tree.root), at: 0, low: Vec::new() }];
        let mut walk = Self { nodes: &tree.nodes, path };
        walk.leave_finished();
        walk
    }

    fn leave_finished(&mut self) {
        while self.path.last().is_some_and(|step| step.at >= step.node.count()) {
            self.path.pop();
        }
    }

    fn next(&self) -> Option<Next<'_>> {
        let Step { node, at, low } = self.path.last()?;
        Some(match (node.level(), at) {
            (0, _) => Next::Record(node.key(*at), node.value(*at)),
            (level, 0) => Next::Subtree { low, level: level - 1 },
            (level, _) => Next::Subtree { low: node.key(*at), level: level - 1 },
        })
    }

    /// Id of the subtree that the walk stands before, if it is stored.
    fn id(&self) -> Option<BlobId> {
        let step = self.path.last().filter(|step| step.node.level() > 0)?;
        match step.node.resident(step.at) {
            Some(child) => child.stored().copied(),
            None => Some(step.node.child_id(step.at)),
        }
    }

    fn step_over(&mut self) {
        if let Some(step) = self.path.last_mut() {
            step.at += 1;
        }
        self.leave_finished();
    }

    fn step_into(&mut self) -> Result<()> {
        let Some(step) = self.path.last_mut() else { return Ok(()) };
        let node = self.nodes.child(&step.node, step.at)?;
        let low = if step.at == 0 { step.low.clone() } else { step.node.key(step.at).to_vec() };
        step.at += 1;
        self.path.push(Step { node, at: 0, low });
        self.leave_finished();
        Ok(())
    }
}

/// What to do about the places where the two walks stand.
enum Turn {
    SkipBoth,
    IntoFirst,
    IntoSecond,
    Only(bool),
    Both,
}

fn decide(a: &Walk<'_>, b: &Walk<'_>) -> Option<Turn> {
    Some(match (a.next(), b.next()) {
        (None, None) => return None,
        (Some(Next::Subtree { .. }), None) => Turn::IntoFirst,
        (None, Some(Next::Subtree { .. })) => Turn::IntoSecond,
        (Some(Next::Record(..)), None) => Turn::Only(true),
        (None, Some(Next::Record(..))) => Turn::Only(false),
        (Some(Next::Record(a, _)), Some(Next::Record(b, _))) => match a.cmp(b) {
            std::cmp::Ordering::Less => Turn::Only(true),
            std::cmp::Ordering::Greater => Turn::Only(false),
            std::cmp::Ordering::Equal => Turn::Both,
        },
        (Some(Next::Record(key, _)), Some(Next::Subtree { low, .. })) if key < low => Turn::Only(true),
        (Some(Next::Record(..)), Some(Next::Subtree { .. })) => Turn::IntoSecond,
        (Some(Next::Subtree { low, .. }), Some(Next::Record(key, _))) if key < low => Turn::Only(false),
        (Some(Next::Subtree { .. }), Some(Next::Record(..))) => Turn::IntoFirst,
        (Some(Next::Subtree { low: low_a, level: level_a }), Some(Next::Subtree { low: low_b, level: level_b })) => {
            match (a.id(), b.id()) {
                (Some(a), Some(b)) if a == b => Turn::SkipBoth,
                _ if level_a > level_b || level_a == level_b && low_a <= low_b => Turn::IntoFirst,
                _ => Turn::IntoSecond,
            }
        }
    })
}

impl Tree {
    /// Calls `f` for every key whose value differs between this tree and `other`, in order, until it breaks.
    pub fn diff(&self, other: &Self, f: &mut EachChange<'_>) -> Result<()> {
        self.check_whole()?;
        other.check_whole()?;
        if Arc::ptr_eq(&self.root, &other.root) || self.root_id().is_some() && self.root_id() == other.root_id() {
            return Ok(());
        }
        let (mut a, mut b) = (Walk::new(self), Walk::new(other));
        while let Some(turn) = decide(&a, &b) {
            let flow = match (turn, a.next(), b.next()) {
                (Turn::IntoFirst, ..) => {
                    a.step_into()?;
                    continue;
                }
                (Turn::IntoSecond, ..) => {
                    b.step_into()?;
                    continue;
                }
                (Turn::Only(true), Some(Next::Record(key, value)), _) => {
                    let flow = f(key, Some(value), None)?;
                    a.step_over();
                    flow
                }
                (Turn::Only(false), _, Some(Next::Record(key, value))) => {
                    let flow = f(key, None, Some(value))?;
                    b.step_over();
                    flow
                }
                (Turn::Both, Some(Next::Record(key, old)), Some(Next::Record(_, new))) if old != new => {
                    let flow = f(key, Some(old), Some(new))?;
                    a.step_over();
                    b.step_over();
                    flow
                }
                _ => {
                    a.step_over();
                    b.step_over();
                    continue;
                }
            };
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}
