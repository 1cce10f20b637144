//! Open files and directories.
//!
//! *Threads*: any; the table's lock is a leaf. *Bounds*: one entry per open handle of a front end.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use super::{cells::Cell, snapdir::View};
use crate::{
    error::{Error, Result},
    ino::Ino,
};

/// Names an open file or directory to a front end. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleId(pub u64);

/// How a file was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenMode {
    /// Reads are allowed.
    pub read: bool,
    /// Writes are allowed.
    pub write: bool,
    /// Every write goes to the end.
    pub append: bool,
    /// Every write is durable before it is answered.
    pub sync: bool,
}

impl OpenMode {
    /// Whether a shared mapping that can be stored to may hang on the handle.
    pub fn is_mappable(&self) -> bool {
        self.read && self.write
    }
}

/// What an opener means to do beyond the mode.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenIntent {
    /// Writes go to the end, which whoever writes sees to; what is append-only asks for it.
    pub appends: bool,
    /// Reads leave the access time alone.
    pub keeps_atime: bool,
}

/// What a handle refers to.
#[derive(Clone, Debug)]
pub enum Target {
    /// A file of the live tree.
    Live(Arc<Cell>),
    /// A file of a snapshot: the tree it lies in, and its number there.
    Frozen(Arc<View>, Ino),
    /// A directory of either.
    Directory(Ino),
}

/// Where sequential reading got to.
#[derive(Debug, Default)]
pub struct ReadPattern {
    /// Offset after the last read.
    pub next: u64,
    /// Bytes to fetch ahead; 0 while reads jump.
    pub window: u64,
    /// End of what was asked for ahead.
    pub ahead: u64,
}

/// One open handle.
#[derive(Debug)]
pub struct Handle {
    /// The front end's view of the inode.
    pub ino: Ino,
    /// How it was opened.
    pub mode: OpenMode,
    /// What for.
    pub intent: OpenIntent,
    /// What it refers to.
    pub target: Target,
    /// For read-ahead.
    pub pattern: Mutex<ReadPattern>,
}

/// The table of open handles.
#[derive(Debug)]
pub struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<HandleId, Arc<Handle>>>,
}

impl Default for Handles {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }
}

impl Handles {
    /// Adds a handle.
    pub fn insert(&self, ino: Ino, mode: OpenMode, intent: OpenIntent, target: Target) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed));
        let handle = Handle { ino, mode, intent, target, pattern: Mutex::default() };
        self.open.write().insert(id, Arc::new(handle));
        id
    }

    /// The handle, or [`Error::BadHandle`].
    pub fn get(&self, id: HandleId) -> Result<Arc<Handle>> {
        self.open.read().get(&id).map(Arc::clone).ok_or(Error::BadHandle(format!("handle {}", id.0).into()))
    }

    /// Removes a handle.
    pub fn remove(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.open.write().remove(&id)
    }

    /// Number of open handles.
    pub fn len(&self) -> usize {
        self.open.read().len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
