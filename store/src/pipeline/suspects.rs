//! Blobs whose stored copies were found damaged: they count as absent, so that writing them again heals them.
//!
//! *Threads*: any; the lock is a leaf, and untouched while nothing was ever damaged.
//!
//! *Bounds*: [`SUSPECTS_MAX`]; damage beyond that is found again by the next read.

use std::collections::HashSet;

use super::{
    BlobId,
    sync::{AtomicUsize, Mutex, Ordering},
};

const SUSPECTS_MAX: usize = 1 << 16;

/// The set of one repository.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    count: AtomicUsize,
    ids: Mutex<HashSet<BlobId>>,
}

impl Suspects {
    /// Notes a damaged blob; whether that is new.
    pub(crate) fn add(&self, id: &BlobId) -> bool {
        let mut ids = self.ids.lock();
        let is_new = ids.len() < SUSPECTS_MAX && ids.insert(*id);
        self.count.store(ids.len(), Ordering::Relaxed);
        is_new
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_new_once_and_again_after_it_healed() {
        let (suspects, id) = (Suspects::default(), BlobId([7; 32]));
        assert!(suspects.add(&id) && !suspects.add(&id) && suspects.contains(&id));
        suspects.heal(&id);
        assert!(!suspects.contains(&id) && suspects.add(&id));
    }
}
