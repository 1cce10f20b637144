//! Space that is set aside on the disk of a repository for the day it is full.
//!
//! A preallocated file without content: nobody else can fill what it holds. When what was accepted, a deletion or a gc finds no other
//! space, a slice is cut off it, and work goes on in its place (P6). It is made whole again once there is space.
//!
//! *Invariants*: its bytes and its length mean nothing. It may be missing, and another process may cut it or make it whole at any time.

use std::{io, path::PathBuf, sync::atomic::Ordering};

use super::{Shared, parent};
use crate::disk::Allocation;

/// Name of the file, in the directory of the repository.
pub(super) const RESERVE: &str = "reserve";

/// What is set aside: enough for the heads, segments and nodes of a few checkpoints, and for a run of gc to move a pack.
const RESERVE_BYTES: u64 = 24 << 20;
/// Given up at a time: whoever fills the disk can also fill what a slice leaves over.
const SLICE_BYTES: u64 = 1 << 20;
/// On a small disk it is this part of it.
const SMALL_DISK_PART: u64 = 8;

/// Bytes that are to be set aside on a disk of `total` bytes.
pub(in crate::backend) fn wanted(total: u64) -> u64 {
    RESERVE_BYTES.min(total / SMALL_DISK_PART)
}

impl Shared {
    fn reserve_path(&self) -> PathBuf {
        debug_assert_eq!(parent(RESERVE), "");
        self.root.join(RESERVE)
    }

    /// Bytes that the reserve holds.
    pub(super) fn reserve_held(&self) -> io::Result<u64> {
        Ok(self.disk.metadata(&self.reserve_path())?.map_or(0, |info| info.occupied_bytes))
    }

    /// Makes the reserve whole if the disk has the space.
    pub(super) fn hold_reserve(&self) -> io::Result<()> {
        let space = self.disk.space(&self.root)?;
        let (wanted, held) = (wanted(space.total_bytes), self.reserve_held()?);
        if held >= wanted || space.free_bytes < wanted - held {
            return Ok(());
        }
        let path = self.reserve_path();
        let file = match self.disk.open_write(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.create_new(&path)?,
            opened => opened?,
        };
        // Nothing is synced: power loss may take the reserve, and the next open makes it again.
        if file.allocate(0, wanted)? == Allocation::LengthOnly {
            // A length alone would only look as if space was set aside.
            file.set_len(0)?;
        }
        self.reserve_in_use.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Gives a slice of the reserve to whoever writes next; returns whether it held anything.
    pub(super) fn give_up_slice(&self) -> bool {
        let give_up = || {
            let held = self.reserve_held()?;
            if held == 0 {
                return Ok(false);
            }
            let file = self.disk.open_write(&self.reserve_path())?;
            file.set_len(file.len()?.min(held).saturating_sub(SLICE_BYTES))?;
            if !self.reserve_in_use.swap(true, Ordering::Relaxed) {
                log::warn!("the disk of {} is full; what was set aside for that is used now", self.root.display());
            }
            Ok::<bool, io::Error>(true)
        };
        give_up().unwrap_or_else(|e| {
            log::debug!("the reserve of {} cannot be used: {e}", self.root.display());
            false
        })
    }
}
