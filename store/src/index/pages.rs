//! Bounded cache of unsealed pages of entries.
//!
//! *Threads*: a lookup locks one set of eight pages for the time of eight comparisons; no lock is held across I/O.
//!
//! *Bounds*: the number of sets is fixed when the cache is made, and a set never has more than eight pages: the memory is
//! at most what was asked for (and at least one set). Sets are filled as pages are read.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use crate::format::segment::PAGE_LENGTH;

const SET_PAGES: usize = 8;

/// Tells the pages of one opened segment from those of all others, for the life of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u64);

/// An unsealed page.
pub(super) type Page = Arc<Vec<u8>>;

struct Slot {
    owner: Owner,
    number: u32,
    page: Page,
}

/// The cache: sets of eight pages, each in the order of last use.
pub(super) struct PageCache {
    sets: Box<[Mutex<Vec<Slot>>]>,
    owners: AtomicU64,
}

impl PageCache {
    /// A cache of about so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let set_count = (bytes_max / (PAGE_LENGTH * SET_PAGES)).max(1);
        Self { sets: (0..set_count).map(|_| Mutex::new(Vec::new())).collect(), owners: AtomicU64::new(0) }
    }

    /// A mark for a segment that was opened.
    pub(super) fn new_owner(&self) -> Owner {
        Owner(self.owners.fetch_add(1, Ordering::Relaxed))
    }

    /// The page, if it is cached.
    pub(super) fn get(&self, owner: Owner, number: u32) -> Option<Page> {
        let mut set = self.set(owner, number).lock();
        let at = set.iter().position(|slot| slot.owner == owner && slot.number == number)?;
        set[..=at].rotate_right(1);
        Some(set[0].page.clone())
    }

    /// Keeps a page, in place of the one of its set that was not used for longest.
    pub(super) fn put(&self, owner: Owner, number: u32, page: Page) {
        let mut set = self.set(owner, number).lock();
        if set.iter().any(|slot| slot.owner == owner && slot.number == number) {
            return;
        }
        set.truncate(SET_PAGES - 1);
        set.insert(0, Slot { owner, number, page });
    }

    fn set(&self, owner: Owner, number: u32) -> &Mutex<Vec<Slot>> {
        let mixed = ((owner.0 << 32) ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.sets[((u128::from(mixed) * self.sets.len() as u128) >> 64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(cache: &PageCache) -> usize {
        cache.sets.iter().map(|set| set.lock().len()).sum()
    }

    #[test]
    fn a_cache_never_exceeds_its_bound() {
        let cache = PageCache::new(PAGE_LENGTH * SET_PAGES * 4);
        let owner = cache.new_owner();
        for number in 0..10_000 {
            cache.put(owner, number, Page::default());
            cache.put(owner, number, Page::default());
            assert!(count(&cache) <= SET_PAGES * 4);
        }
        assert_eq!(count(&cache), SET_PAGES * 4, "and is filled evenly");
    }

    #[test]
    fn the_page_unused_for_longest_goes_and_owners_are_kept_apart() {
        let cache = PageCache::new(0);
        let (one, other) = (cache.new_owner(), cache.new_owner());
        for number in 0..8 {
            cache.put(one, number, Page::default());
        }
        assert!(cache.get(one, 0).is_some());
        assert!(cache.get(other, 0).is_none());
        cache.put(other, 0, Arc::new(vec![1]));
        assert!(cache.get(one, 0).is_some() && cache.get(one, 1).is_none());
        assert_eq!(cache.get(other, 0).as_deref(), Some(&vec![1]));
    }
}
