//! Answers early whether a write can still be kept: an accepted write must not fail later for want of space (P6).
//!
//! The gauge asks the backend how much is free now and then, and counts what was accepted since; it assumes that nothing
//! deduplicates or compresses. What the repository sets aside for a full disk, so that a checkpoint of what was accepted, deletions and
//! gc still succeed, is not free; as far as it could not be set aside, it is held back here.
//!
//! *Threads*: any; one atomic on the hot path.
//! *Bounds*: asks the system about once per [`REFRESH_BYTES`] accepted and once a second, and more often as the disk fills.

use std::sync::atomic::{AtomicI64, Ordering};

use vellum_store::repository::Repository;

use crate::error::{Error, Result};

/// Accepted bytes after which the system is asked again.
const REFRESH_BYTES: i64 = 16 << 20;
/// Seals, trailers, index entries and padding add at most this part to what was accepted.
const OVERHEAD_PART: u64 = 8;
/// What one change of names may cost before it is compressed and shared with others.
pub const NAME_CHANGE_BYTES: u64 = 4096;

/// Free space, as far as known without asking.
#[derive(Debug, Default)]
pub struct SpaceGauge {
    left: AtomicI64,
    until_refresh: AtomicI64,
}

impl SpaceGauge {
    /// Asks the system; `pending` bytes are accepted but not yet written.
    pub fn refresh(&self, repository: &Repository, pending: u64) -> Result<()> {
        let left = Self::measure(repository, pending)?;
        self.left.store(left, Ordering::Relaxed);
        // The closer the end, the sooner again: what packs add to the content adds up between two looks.
        self.until_refresh.store(REFRESH_BYTES.min(left / OVERHEAD_PART as i64), Ordering::Relaxed);
        Ok(())
    }

    /// Has the next change ask the system: others fill the disk as well.
    pub fn forget(&self) {
        self.until_refresh.store(0, Ordering::Relaxed);
    }

    /// Bytes that would be accepted if nothing deduplicated or compressed; asks the system. Negative in what is held back.
    pub fn measure(repository: &Repository, pending: u64) -> Result<i64> {
        let space = repository.space()?;
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let pending = pending.saturating_add(pending / OVERHEAD_PART);
        Ok(signed(space.free_bytes).saturating_sub(signed(space.unreserved_bytes)).saturating_sub(signed(pending)))
    }

    /// Accepts `bytes`, or answers [`Error::NoSpace`]. `pending` tells the bytes that were accepted but not yet written.
    pub fn accept(&self, repository: &Repository, bytes: u64, pending: impl Fn() -> u64) -> Result<()> {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        let stale = self.until_refresh.fetch_sub(wanted, Ordering::Relaxed) < wanted;
        if stale || self.left.load(Ordering::Relaxed) < wanted {
            self.refresh(repository, pending())?;
        }
        if self.left.fetch_sub(wanted, Ordering::Relaxed) < wanted {
            self.left.fetch_add(wanted, Ordering::Relaxed);
            return Err(Error::NoSpace("the disk of the repository is full".into()));
        }
        Ok(())
    }
}
