//! Changes of several records, all of them or none.
//!
//! *Invariants*
//! 1. While [`Tree::atomically`] runs, every change of a record notes what was there before, and a failure puts that back.
//! 2. Putting back depends on no node that is not in memory. Each noted key lies in the range of a changed leaf, and changed
//!    leaves stay in memory: a split leaves two of them, a merge one. Only a leaf that lost its last cell would leave its range
//!    to a neighbour that may not be in memory, so before that the whole tree is kept; and putting back itself removes nothing
//!    before all that was there is there again.
//! 3. If it failed nevertheless, the tree is neither read, nor changed, nor stored any more.
//!
//! *Bounds*: what one operation changes. The tree itself is copied only where it is kept.

use std::{collections::BTreeMap, sync::Arc};

use super::{Tree, node::Node};
use crate::error::{Error, Result};

/// What takes one change back.
#[derive(Debug)]
pub(super) enum Undo {
    /// The key had this value, or was not there.
    Record { key: Vec<u8>, before: Option<Vec<u8>> },
    /// All was as it is in this tree.
    Whole { root: Arc<Node>, dirty_bytes: usize },
}

impl Tree {
    /// Runs `change`; if it fails, all records are as they were.
    pub fn atomically<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.check_whole()?;
        // A failure within puts back in an order that the notes around it do not allow for.
        self.keep_whole();
        let outer = self.undo.replace(Vec::new());
        let running = Running { tree: self, outer, ended: false };
        let outcome = change(running.tree);
        let notes = running.end();
        if outcome.is_err() {
            self.take_back(notes);
        }
        // Notes of a change that succeeded are not needed outside: the whole tree was kept there before it.
        outcome
    }

    /// Keeps the tree as it is, if a failure is to bring it back: for changes that a note of one record cannot describe.
    pub(super) fn keep_whole(&mut self) {
        if let Some(notes) = &mut self.undo {
            notes.push(Undo::Whole { root: Arc::clone(&self.root), dirty_bytes: self.dirty_bytes });
        }
    }

    fn take_back(&mut self, notes: Vec<Undo>) {
        let outer = self.undo.take();
        if let Err(error) = self.put_back(notes) {
            log::error!("a change of the tree could not be taken back: {error}");
            self.torn = Some(error);
        }
        self.undo = outer;
    }

    fn put_back(&mut self, notes: Vec<Undo>) -> Result<()> {
        let mut oldest = BTreeMap::new();
        for note in notes {
            match note {
                Undo::Record { key, before } => {
                    oldest.entry(key).or_insert(before);
                }
                Undo::Whole { root, dirty_bytes } => {
                    // What came after it goes with it.
                    (self.root, self.dirty_bytes, self.torn) = (root, dirty_bytes, None);
                    break;
                }
            }
        }
        let mut new = Vec::new();
        for (key, before) in oldest {
            match before {
                Some(value) => drop(self.insert(&key, &value)?),
                None => new.push(key),
            }
        }
        let mut found = Vec::with_capacity(new.len());
        for key in new {
            if self.contains(&key)? {
                found.push(key);
            }
        }
        found.iter().try_for_each(|key| self.remove(key).map(drop))
    }
}

/// A change on its way. One that unwinds leaves its tree half changed, and to nobody.
struct Running<'t> {
    tree: &'t mut Tree,
    outer: Option<Vec<Undo>>,
    ended: bool,
}

impl Running<'_> {
    fn end(mut self) -> Vec<Undo> {
        self.ended = true;
        std::mem::replace(&mut self.tree.undo, self.outer.take()).unwrap_or_default()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.tree.undo = self.outer.take();
            self.tree.torn = Some(Error::damaged("the tree in memory", "a change of it ended half-way"));
        }
    }
}
