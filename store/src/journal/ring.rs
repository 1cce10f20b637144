//! The segments of one journal as space: placing, writing, setting aside, recycling.
//!
//! *Invariants*
//! 1. Blocks that hold a live commit are not written again until [`Ring::release`] covers that commit.
//! 2. A segment whose write or sync failed is neither written nor synced again; it goes away once its commits are released.
//! 3. There are at most `segments_max` usable segments, and one more for each that was set aside.
//!
//! *Threads*: owned by the journal, used under its lock.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::JournalOptions;
use super::segment::{self, FILES_MAX, SegmentFile};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::journal::BLOCK_BYTES;

/// All segments of a journal.
#[derive(Debug)]
pub(super) struct Ring {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: JournalOptions,
    segments: Vec<Segment>,
    current: Option<usize>,
    grow_failed: bool,
}

#[derive(Debug)]
struct Segment {
    file: SegmentFile,
    /// Blocks taken, from the start.
    end: u32,
    /// Newest commit in them; 0 if the segment is free.
    newest: u64,
    usable: bool,
}

/// Why a commit did not get onto the disk.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There was no space for the write itself; the segment is as good as before.
    NoSpace(io::Error),
    /// Nothing is known of what the segment holds of that write.
    Failed(io::Error),
}

impl Ring {
    /// Takes over the segments found at opening; those of another length than asked for are kept only for what they hold.
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, options: JournalOptions, files: Vec<SegmentFile>) -> Self {
        let usable = |file: &SegmentFile| file.length == options.segment_bytes;
        let segments =
            files.into_iter().map(|file| Segment { usable: usable(&file), file, end: 0, newest: 0 }).collect();
        Self { disk, dir, options, segments, current: None, grow_failed: false }
    }

    /// Number of the segment at an index.
    pub(super) fn number(&self, index: usize) -> u64 {
        self.segments[index].file.number
    }

    /// Length of the segment at an index, in blocks.
    pub(super) fn blocks(&self, index: usize) -> u32 {
        self.segments[index].file.blocks()
    }

    /// First free block of the segment at an index.
    pub(super) fn end(&self, index: usize) -> u32 {
        self.segments[index].end
    }

    /// Notes that blocks up to `end` of a segment are taken by a commit.
    pub(super) fn occupy(&mut self, index: usize, number: u64, end: u32) {
        let segment = &mut self.segments[index];
        segment.end = segment.end.max(end);
        segment.newest = segment.newest.max(number);
    }

    /// Makes a segment the one that is filled next, if it can be.
    pub(super) fn resume(&mut self, index: usize) {
        self.current = self.segments[index].usable.then_some(index);
    }

    /// A segment with room for that many blocks behind its end; `None` if only a release can make room.
    pub(super) fn place(&mut self, blocks: u32) -> Result<Option<usize>> {
        let fits = |segment: &Segment| segment.usable && segment.end + blocks <= segment.file.blocks();
        if let Some(index) = self.current.filter(|&index| fits(&self.segments[index])) {
            return Ok(Some(index));
        }
        let free = self.segments.iter().position(|segment| segment.newest == 0 && fits(segment));
        if free.is_some() {
            self.current = free;
            return Ok(free);
        }
        if self.usable_count() >= self.options.segments_max as usize {
            return Ok(None);
        }
        let grown = match self.grow() {
            // Nothing was in that file yet: a second one may do.
            Err(e) if !matches!(e, Error::NoSpace { .. }) => self.grow(),
            grown => grown,
        };
        match grown {
            Ok(index) => Ok(Some(index)),
            Err(e) if self.segments.iter().all(|segment| segment.newest == 0) => Err(e),
            Err(e) => {
                // A checkpoint makes room in the segments that there are.
                log::warn!("the journal stays at {} segments: {e}", self.usable_count());
                self.grow_failed = true;
                Ok(None)
            }
        }
    }

    /// Adds a new segment, also beyond `segments_max`, and makes it the current one.
    pub(super) fn grow(&mut self) -> Result<usize> {
        if self.segments.len() >= FILES_MAX {
            return Err(Error::corrupt(
                format!("journal {}", self.dir.display()),
                format!("all of its {FILES_MAX} segments are in use or were set aside"),
            ));
        }
        let number = self.segments.iter().map(|segment| segment.file.number).max().unwrap_or(0).checked_add(1);
        let number =
            number.ok_or_else(|| Error::corrupt(format!("journal {}", self.dir.display()), "segment numbers"))?;
        let file = segment::create(self.disk.as_ref(), &self.dir, number, self.options.segment_bytes)?;
        self.segments.push(Segment { file, end: 0, newest: 0, usable: true });
        self.current = Some(self.segments.len() - 1);
        Ok(self.segments.len() - 1)
    }

    /// Writes a commit at the segment's end and makes it durable: one write, one `fdatasync`, no space allocated.
    pub(super) fn write(&mut self, index: usize, number: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let segment = &self.segments[index];
        assert!(segment.usable, "a segment that was set aside is never written again");
        let offset = u64::from(segment.end) * BLOCK_BYTES as u64;
        segment.file.file.write_all_at(bytes, offset).map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::NoSpace(e),
            _ => WriteError::Failed(e),
        })?;
        // After a failed sync a full disk is no better than any other reason: pages may be lost.
        segment.file.file.sync_data().map_err(WriteError::Failed)?;
        let end = segment.end + (bytes.len() / BLOCK_BYTES) as u32;
        self.occupy(index, number, end);
        Ok(())
    }

    /// Syncs the segment with that number, for a commit that an earlier process wrote.
    pub(super) fn sync(&self, number: u64) -> Result<()> {
        let Some(segment) = self.segments.iter().find(|segment| segment.file.number == number) else { return Ok(()) };
        let file = &segment.file;
        file.file.sync_data().map_err(|e| Error::io(format!("sync journal segment {}", file.path.display()), e))
    }

    /// Sets a segment aside after a failure; what it held before stays for recovery.
    pub(super) fn set_aside(&mut self, index: usize) {
        self.segments[index].usable = false;
        self.current = self.current.filter(|&current| current != index);
    }

    /// Frees all segments that hold no commit after `through`, and removes those that are of no more use.
    pub(super) fn release(&mut self, through: u64) {
        for segment in self.segments.iter_mut().filter(|segment| segment.newest <= through) {
            segment.newest = 0;
            segment.end = 0;
        }
        self.grow_failed = false;
        let current = self.current.map(|index| self.number(index));
        let (disk, mut removed) = (&self.disk, false);
        self.segments.retain(|segment| {
            if segment.usable || segment.newest > 0 {
                return true;
            }
            let result = disk.remove(&segment.file.path);
            removed |= result.is_ok();
            if let Err(e) = &result {
                log::warn!("cannot remove the old journal segment {}: {e}", segment.file.path.display());
            }
            result.is_err()
        });
        self.current = current.and_then(|number| self.segments.iter().position(|s| s.file.number == number));
        if removed && let Err(e) = self.disk.sync_dir(&self.dir) {
            // The removed names may come back; they hold no commit after the head's.
            log::warn!("cannot sync the journal directory {}: {e}", self.dir.display());
        }
    }

    /// Room for commits before the next release.
    pub(super) fn free_bytes(&self) -> u64 {
        let room = |(index, segment): (usize, &Segment)| match segment.usable {
            true if segment.newest == 0 || self.current == Some(index) => segment.file.blocks() - segment.end,
            _ => 0,
        };
        let present: u64 = self.segments.iter().enumerate().map(room).map(u64::from).sum();
        let to_come = if self.grow_failed {
            0
        } else {
            (self.options.segments_max as usize).saturating_sub(self.usable_count()) as u64
        };
        present * BLOCK_BYTES as u64 + to_come * self.options.segment_bytes
    }

    fn usable_count(&self) -> usize {
        self.segments.iter().filter(|segment| segment.usable).count()
    }
}
