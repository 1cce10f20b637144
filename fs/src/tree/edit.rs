//! Changing a tree: path copying, splits and merges.

use std::sync::Arc;

use super::{
    Nodes, Tree,
    node::{LEVEL_MAX, NODE_BYTES_MAX, Node},
    undo::Undo,
};
use crate::error::Result;

/// A node is merged with a neighbour when it is smaller than the split size divided by this.
const UNDERFULL_DIVISOR: usize = 4;

/// What one change needs on its way down and up.
struct Edit<'t> {
    nodes: &'t Nodes,
    node_bytes: usize,
    /// Change of the tree's dirty bytes.
    dirty: isize,
    /// Takes notes of what was there before.
    undo: Option<&'t mut Vec<Undo>>,
}

/// A node's right half and the bound that leads to it.
struct Split {
    separator: Vec<u8>,
    right: Node,
}

impl Tree {
    /// Gives a key a value; whether the key is new.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        self.edit(|edit, root| {
            let (added, split) = edit.insert(root, key, value)?;
            if let Some(split) = split {
                edit.grow_root(root, split);
            }
            Ok(added)
        })
    }

    /// Takes a key out; whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> Result<bool> {
        // Looked for first, because a miss must not copy a path.
        let Some(neighbours) = self.neighbours(key)? else {
            return Ok(false);
        };
        if neighbours == 0 {
            self.keep_whole();
        }
        self.edit(|edit, root| {
            edit.remove(root, key)?;
            edit.shrink_root(root);
            Ok(true)
        })
    }

    /// Takes all keys from `from` up to but without `to` out; whether there were any. Nodes wholly within the range
    /// are not read. When a node at its edges cannot be read, part of the range may be gone.
    pub fn remove_range(&mut self, from: &[u8], to: &[u8]) -> Result<bool> {
        match self.first_at_or_after(from)? {
            Some((key, _)) if key.as_slice() < to => {}
            _ => return Ok(false),
        }
        self.keep_whole();
        self.edit(|edit, root| {
            edit.remove_range(root, from, to, None, None)?;
            edit.shrink_root(root);
            Ok(true)
        })
    }

    fn edit(&mut self, f: impl FnOnce(&mut Edit<'_>, &mut Arc<Node>) -> Result<bool>) -> Result<bool> {
        self.check_whole()?;
        let mut edit = Edit { nodes: &self.nodes, node_bytes: self.node_bytes, dirty: 0, undo: self.undo.as_mut() };
        let outcome = f(&mut edit, &mut self.root);
        self.dirty_bytes = self.dirty_bytes.saturating_add_signed(edit.dirty);
        outcome
    }
}

impl Edit<'_> {
    fn note(&mut self, undo: impl FnOnce() -> Undo) {
        if let Some(notes) = &mut self.undo {
            notes.push(undo());
        }
    }

    /// Makes a node this tree's own and marks it changed.
    fn own<'n>(&mut self, node: &'n mut Arc<Node>) -> &'n mut Node {
        if let Some(id) = node.stored() {
            self.dirty += node.size() as isize;
            self.nodes.cache.remove(id);
        }
        if Arc::get_mut(node).is_none() {
            *node = Arc::new(node.copy());
        }
        let node = Arc::get_mut(node).expect("a node just copied has one owner, and so has one that was found alone");
        node.clear_stored();
        node
    }

    /// The child of a cell, in memory, to be changed.
    fn child_mut<'n>(&self, node: &'n mut Node, at: usize) -> Result<&'n mut Arc<Node>> {
        if node.resident(at).is_none() {
            let child = self.nodes.child(node, at)?;
            *node.resident_mut(at) = Some(child);
        }
        Ok(node.resident_mut(at).as_mut().expect("the child was just put there, or found there"))
    }

    fn insert(&mut self, node: &mut Arc<Node>, key: &[u8], value: &[u8]) -> Result<(bool, Option<Split>)> {
        let interior = node.level() > 0;
        let node = self.own(node);
        let before = node.size();
        let (added, at) = if interior {
            let at = node.child_index(key);
            let (added, split) = self.insert(self.child_mut(node, at)?, key, value)?;
            let Some(split) = split else {
                return Ok((added, None));
            };
            node.insert_child(at + 1, &split.separator, Arc::new(split.right));
            (added, at + 1)
        } else {
            match node.search(key) {
                Ok(at) => {
                    self.note(|| Undo::Record { key: key.to_vec(), before: Some(node.value(at).to_vec()) });
                    node.replace_value(at, value);
                    (false, at)
                }
                Err(at) => {
                    self.note(|| Undo::Record { key: key.to_vec(), before: None });
                    node.insert_cell(at, key, value);
                    (true, at)
                }
            }
        };
        self.dirty += node.size() as isize - before as isize;
        Ok((added, self.split(node, at)))
    }

    fn split(&mut self, node: &mut Node, inserted: usize) -> Option<Split> {
        if node.size() <= self.node_bytes || node.count() < 2 {
            return None;
        }
        let before = node.size();
        let (separator, right) = node.split_off(node.split_point(inserted, self.node_bytes));
        self.dirty += (node.size() + right.size()) as isize - before as isize;
        Some(Split { separator, right })
    }

    fn grow_root(&mut self, root: &mut Arc<Node>, split: Split) {
        let level = root.level() + 1;
        assert!(level < LEVEL_MAX, "a tree of this depth would hold more records than can be counted");
        let left = std::mem::replace(root, Arc::new(Node::empty(level)));
        let node = self.own(root);
        node.insert_child(0, &[], left);
        node.insert_child(1, &split.separator, Arc::new(split.right));
        self.dirty += node.size() as isize;
    }

    /// Takes levels away that have one node, and leaves a leaf when nothing is left. A root with one child is sound,
    /// so a child that cannot be read fails nothing.
    fn shrink_root(&mut self, root: &mut Arc<Node>) {
        while root.level() > 0 && root.count() <= 1 {
            let next = match root.count() {
                0 => Arc::new(Node::empty(0)),
                _ => match self.nodes.child(root, 0) {
                    Ok(child) => child,
                    Err(_) => return,
                },
            };
            if root.stored().is_none() {
                self.dirty -= root.size() as isize;
            }
            if root.count() == 0 {
                self.dirty += next.size() as isize;
            }
            *root = next;
        }
    }

    fn remove(&mut self, node: &mut Arc<Node>, key: &[u8]) -> Result<()> {
        let interior = node.level() > 0;
        let node = self.own(node);
        if interior {
            let at = node.child_index(key);
            self.remove(self.child_mut(node, at)?, key)?;
            self.settle(node, at);
        } else if let Ok(at) = node.search(key) {
            // The last cell of a leaf is not noted: the whole tree was kept.
            if node.count() > 1 {
                self.note(|| Undo::Record { key: key.to_vec(), before: Some(node.value(at).to_vec()) });
            }
            self.remove_cells(node, at, at + 1);
        }
        Ok(())
    }

    fn remove_cells(&mut self, node: &mut Node, from: usize, to: usize) {
        let before = node.size();
        node.remove_cells(from..to);
        self.dirty += node.size() as isize - before as isize;
    }

    /// `low` and `high` are known bounds of the node's keys.
    fn remove_range(
        &mut self,
        node: &mut Arc<Node>,
        from: &[u8],
        to: &[u8],
        low: Option<&[u8]>,
        high: Option<&[u8]>,
    ) -> Result<()> {
        let interior = node.level() > 0;
        let node = self.own(node);
        if !interior {
            let (start, end) = (node.lower_bound(from), node.lower_bound(to));
            self.remove_cells(node, start, end.max(start));
            return Ok(());
        }
        let first = node.child_index(from);
        let mut at = first;
        // The first cell's key is empty, so its bound is the parent's.
        let mut child_low = if first > 0 { Some(node.key(first).to_vec()) } else { low.map(<[u8]>::to_vec) };
        while at < node.count() && child_low.as_deref().is_none_or(|low| low < to) {
            let next = (at + 1 < node.count()).then(|| node.key(at + 1).to_vec());
            let child_high = next.as_deref().or(high);
            let starts_inside = child_low.as_deref().is_some_and(|low| low >= from);
            if !(starts_inside && child_high.is_some_and(|high| high <= to)) {
                let child = self.child_mut(node, at)?;
                self.remove_range(child, from, to, child_low.as_deref(), child_high)?;
                if child.count() > 0 {
                    at += 1;
                    child_low = next;
                    continue;
                }
            }
            self.forget(node.resident(at));
            self.remove_cells(node, at, at + 1);
            child_low = next;
        }
        // At most two children at the edges of the range were cut and not taken out; the right one first, because
        // settling moves what follows.
        for edge in [at, at.wrapping_sub(1), first] {
            if edge < node.count() {
                self.settle(node, edge);
            }
        }
        Ok(())
    }

    fn forget(&mut self, child: Option<&Arc<Node>>) {
        let Some(child) = child.filter(|child| child.stored().is_none()) else { return };
        self.dirty -= child.size() as isize;
        (0..child.count()).for_each(|at| self.forget(child.resident(at)));
    }

    /// Takes an empty child out, and merges an underfull one with a neighbour if both fit one node.
    fn settle(&mut self, node: &mut Node, at: usize) {
        let Some(child) = node.resident(at) else { return };
        if child.count() == 0 {
            self.forget(node.resident(at));
            self.remove_cells(node, at, at + 1);
            return;
        }
        let size = child.size();
        if size * UNDERFULL_DIVISOR >= self.node_bytes {
            return;
        }
        for left in [at.checked_sub(1), Some(at)].into_iter().flatten() {
            if left + 1 < node.count() && self.merge(node, left) {
                return;
            }
        }
    }

    /// Merges the children at `left` and after it if they fit; whether it did. A neighbour that cannot be read is left
    /// alone: a removal must not fail for the sake of tidiness, and whoever needs that node will meet the damage.
    fn merge(&mut self, node: &mut Node, left: usize) -> bool {
        let (Ok(a), Ok(b)) = (self.nodes.child(node, left), self.nodes.child(node, left + 1)) else {
            return false;
        };
        let bound = node.key(left + 1).to_vec();
        // Room is left, so that the next insert does not split it again.
        let fits = (a.size() + b.size() + bound.len()) * 4 <= self.node_bytes * 3;
        if !fits || a.size() + b.size() > NODE_BYTES_MAX {
            return false;
        }
        drop(a);
        let Ok(slot) = self.child_mut(node, left) else {
            return false;
        };
        let merged = self.own(slot);
        let before = merged.size();
        merged.append_node(&b, &bound);
        self.dirty += merged.size() as isize - before as isize;
        if b.stored().is_none() {
            self.dirty -= b.size() as isize;
        }
        drop(b);
        self.remove_cells(node, left + 1, left + 2);
        true
    }
}
