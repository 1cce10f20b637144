//! Reading a tree: point lookups and ordered walks.

use std::{ops::ControlFlow, sync::Arc};

use super::{Nodes, Tree, node::Node};
use crate::error::Result;

/// A key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// What walks call for each record.
pub type Each<'f> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>> + 'f;

/// A node on the way down: borrowed while it is in memory, else held.
enum Held<'t> {
    Borrowed(&'t Node),
    Owned(Arc<Node>),
}

impl Held<'_> {
    fn node(&self) -> &Node {
        match self {
            Self::Borrowed(node) => node,
            Self::Owned(node) => node,
        }
    }
}

impl Tree {
    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_with(key, <[u8]>::to_vec)
    }

    /// What `f` makes of the value of a key, without a copy of it.
    pub fn get_with<R>(&self, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let leaf = self.leaf(key)?;
        let leaf = leaf.node();
        Ok(leaf.search(key).ok().map(|at| f(leaf.value(at))))
    }

    /// Whether there is a record with this key.
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    /// How many other records share the leaf of a key; `None` if the key is not there.
    pub(super) fn neighbours(&self, key: &[u8]) -> Result<Option<usize>> {
        let leaf = self.leaf(key)?;
        let leaf = leaf.node();
        Ok(leaf.search(key).ok().map(|_| leaf.count() - 1))
    }

    /// Whether there is no record at all.
    pub fn is_empty(&self) -> bool {
        self.root.count() == 0
    }

    /// The first record whose key is not below `key`.
    pub fn first_at_or_after(&self, key: &[u8]) -> Result<Option<Record>> {
        let mut found = None;
        self.scan_from(key, &mut |key, value| {
            found = Some((key.to_vec(), value.to_vec()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The last record whose key is not above `key`.
    pub fn last_at_or_before(&self, key: &[u8]) -> Result<Option<Record>> {
        self.check_whole()?;
        self.nodes.last(&self.root, key)
    }

    /// Calls `f` with the records from `from` up to but without `to`, in order, until it breaks.
    pub fn scan(&self, from: &[u8], to: &[u8], f: &mut Each<'_>) -> Result<()> {
        self.check_whole()?;
        self.nodes.walk(&self.root, from, Some(to), f).map(drop)
    }

    /// Like [`Self::scan`], up to the end of the tree.
    pub fn scan_from(&self, from: &[u8], f: &mut Each<'_>) -> Result<()> {
        self.check_whole()?;
        self.nodes.walk(&self.root, from, None, f).map(drop)
    }

    fn leaf(&self, key: &[u8]) -> Result<Held<'_>> {
        self.check_whole()?;
        let mut held = Held::Borrowed(&self.root);
        loop {
            held = match held {
                Held::Borrowed(node) if node.level() > 0 => {
                    let at = node.child_index(key);
                    match node.resident(at) {
                        Some(child) => Held::Borrowed(child),
                        None => Held::Owned(self.nodes.child(node, at)?),
                    }
                }
                Held::Owned(node) if node.level() > 0 => {
                    let at = node.child_index(key);
                    Held::Owned(self.nodes.child(&node, at)?)
                }
                leaf => return Ok(leaf),
            }
        }
    }
}

impl Nodes {
    fn walk(&self, node: &Node, from: &[u8], to: Option<&[u8]>, f: &mut Each<'_>) -> Result<ControlFlow<()>> {
        let before_end = |key: &[u8]| to.is_none_or(|to| key < to);
        if node.level() == 0 {
            for at in node.lower_bound(from)..node.count() {
                let key = node.key(at);
                if !before_end(key) || f(key, node.value(at))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            return Ok(ControlFlow::Continue(()));
        }
        let first = node.child_index(from);
        for at in first..node.count() {
            if at > first && !before_end(node.key(at)) {
                return Ok(ControlFlow::Break(()));
            }
            let child = self.child(node, at)?;
            if self.walk(&child, from, to, f)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn last(&self, node: &Node, key: &[u8]) -> Result<Option<Record>> {
        if node.level() == 0 {
            let at = match node.search(key) {
                Ok(at) => Some(at),
                Err(at) => at.checked_sub(1),
            };
            return Ok(at.map(|at| (node.key(at).to_vec(), node.value(at).to_vec())));
        }
        // The child under which the key would be may hold only keys above it; then the child before it has the answer.
        for at in (0..=node.child_index(key)).rev() {
            let child = self.child(node, at)?;
            if let Some(record) = self.last(&child, key)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}
