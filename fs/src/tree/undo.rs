//! Changes of several records, all of them or none.
//!
//! *Invariants*
//! 1. While [`Tree::atomically`] runs, every change of a record notes what was there before. A failure takes the notes back,
//!    newest first.
//! 2. Taking back reads no node: what it touches was changed a moment ago, and changed nodes are in memory. Only a leaf that
//!    lost its last cell leaves its range to a neighbour, which may not be; before that, the whole tree is kept instead.
//!
//! *Bounds*: what one operation changes. The tree itself is copied only where it is kept.

use std::sync::Arc;

use super::{Tree, node::Node};
use crate::error::Result;

/// What takes one change back.
#[derive(Debug)]
pub(super) enum Undo {
    /// The key had this value.
    Put { key: Vec<u8>, value: Vec<u8> },
    /// The key was not there.
    Take { key: Vec<u8> },
    /// All was as it is in this tree.
    Whole { root: Arc<Node>, dirty_bytes: usize },
}

impl Tree {
    /// Runs `change`; if it fails, all records are as they were.
    pub fn atomically<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = self.undo.replace(Vec::new());
        let outcome = change(self);
        let notes = std::mem::replace(&mut self.undo, outer).unwrap_or_default();
        match &outcome {
            Ok(_) => {
                if let Some(outer) = &mut self.undo {
                    outer.extend(notes);
                }
            }
            Err(_) => self.take_back(notes),
        }
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
        for note in notes.into_iter().rev() {
            let undone = match note {
                Undo::Put { key, value } => self.insert(&key, &value).map(drop),
                Undo::Take { key } => self.remove(&key).map(drop),
                Undo::Whole { root, dirty_bytes } => {
                    self.root = root;
                    self.dirty_bytes = dirty_bytes;
                    Ok(())
                }
            };
            if let Err(error) = undone {
                // Invariant 2 rules it out. If it is wrong, a tree that is half changed must neither be stored nor built upon.
                log::error!("a change of the tree could not be taken back: {error}");
                self.torn = Some(error);
                break;
            }
        }
        self.undo = outer;
    }
}
