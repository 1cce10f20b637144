//! Blobs whose stored copies were found damaged: they count as absent, so that writing them again heals them.
//!
//! *Threads*: any; the lock is a leaf, and untouched while nothing was ever damaged.
//!
//! *Bounds*: [`SUSPECTS_MAX`]; damage beyond that is found again by the next read.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use crate::id::BlobId;

const SUSPECTS_MAX: usize = 1 << 16;

/// The set of one repository.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    count: AtomicUsize,
    ids: Mutex<HashSet<BlobId>>,
}

impl Suspects {
    /// Notes a damaged blob.
    pub(crate) fn add(&self, id: &BlobId) {
        let mut ids = self.ids.lock();
        if ids.len() < SUSPECTS_MAX {
            ids.insert(*id);
        }
        self.count.store(ids.len(), Ordering::Relaxed);
    }

    /// Whether a blob was found damaged and not stored again since.
    pub(crate) fn contains(&self, id: &BlobId) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.ids.lock().contains(id)
    }

    /// A new copy of the blob is stored.
    pub(crate) fn heal(&self, id: &BlobId) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut ids = self.ids.lock();
            ids.remove(id);
            self.count.store(ids.len(), Ordering::Relaxed);
        }
    }
}
