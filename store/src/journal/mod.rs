//! The journal of a volume: sealed commits that are durable after one write and one `fdatasync`, replayed at the next opening.
//!
//! *Invariants*
//! 1. When [`Journal::append`] returns a number, that commit and all before it survive power loss (F6).
//! 2. Commits are numbered consecutively, over segments, heads and openings.
//! 3. Recovery gives a prefix that holds every acknowledged commit, or says that it cannot, and then nothing is written.
//! 4. Space of a commit is used again only after [`Journal::trim`] was told of a durable head that holds it (F5).
//!
//! *Ordering*: a segment is whole and named before its first commit; a commit is durable before its number is returned and
//! before the next is written; a head is durable before the commits that it holds are trimmed.
//!
//! *Threads*: one lock orders commits, and it is held while a commit is sealed, written and synced, because a commit may
//! only follow what is durable. Those who want to share a commit meet before they call. [`Journal::free_bytes`] takes no lock.
//!
//! *Bounds*: [`JournalOptions`]; a payload of [`PAYLOAD_BYTES_MAX`], and never more than a segment holds.
//!
//! *Failures*: a failed write or sync sets its segment aside for good, and the commit goes into a new one. If that fails as
//! well the journal is poisoned: what was not acknowledged may or may not be found by the next opening.
//!
//! *Not here*: the bytes ([`crate::format::journal`]), group commit and what payloads mean (`fs::journal`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::spawn::turns::Mutex;

use crate::crypto::{Keyring, random};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::head::NO_HEAD;
use crate::format::journal::{
    BLOCK_BYTES, COMMIT_OVERHEAD, CommitHeader, CommitId, Place, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, blocks_for,
};
use crate::id::{HeadHash, VolumeName};

mod recover;
mod ring;
mod segment;
#[cfg(test)]
mod tests;

pub use crate::format::journal::PAYLOAD_BYTES_MAX;
pub use recover::Recovery;

use recover::{Found, Run, Sealing, refused};
use ring::{Ring, WriteError};

/// How much space a journal takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// Length of a segment: a multiple of 4096, from 16 KiB to 256 MiB.
    pub segment_bytes: u64,
    /// Most segments in use: 1 to 32. They are made when they are first needed.
    pub segments_max: u32,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { segment_bytes: 32 << 20, segments_max: 4 }
    }
}

/// The open journal of one volume. Only the holder of the volume's lock may have one.
#[derive(Debug)]
pub struct Journal {
    sealing: Sealing,
    options: JournalOptions,
    free_bytes: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    ring: Ring,
    /// The head that further commits follow.
    head: HeadHash,
    session: u64,
    /// Newest commit; it is durable.
    last: u64,
    /// Its identity.
    previous: CommitId,
    /// Why nothing can be written any more.
    refused: Option<String>,
}

impl Journal {
    /// Opens the journal in `dir`, creating it if missing, and replays in order every commit after `after_commit`.
    ///
    /// `heads` are the newest head and those before it that commits may still follow, newest first; give all that are kept. If
    /// none is given the commits follow [`NO_HEAD`]. An error of `replay` is returned as it is. With
    /// [`Recovery::damage`] the journal refuses every [`Self::append`] and [`Self::trim`], and nothing on disk was changed.
    #[allow(clippy::too_many_arguments)]
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        keyring: Arc<Keyring>,
        volume: &VolumeName,
        options: JournalOptions,
        after_commit: u64,
        heads: &[HeadHash],
        replay: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<(Self, Recovery)> {
        check_options(&options)?;
        segment::create_dir(disk.as_ref(), dir)?;
        let listing = segment::list(disk.as_ref(), dir)?;
        let files = segment::open_all(disk.as_ref(), dir, &listing, true)?;
        let sealing = Sealing { keyring, volume: volume.clone() };
        let heads = if heads.is_empty() { &[NO_HEAD] } else { heads };
        let scan = recover::scan(&files, &sealing, after_commit);
        let session = scan.newest_session.saturating_add(1);
        let run = recover::run(scan, &files, &sealing, after_commit, heads, replay)?;
        let mut inner = Inner {
            ring: Ring::new(disk.clone(), dir.to_path_buf(), options, files),
            head: heads[0],
            session,
            last: run.recovery.last_commit,
            previous: run.last.as_ref().map_or(CommitId::NONE, |(found, _)| found.header.id),
            refused: run.recovery.damage.clone(),
        };
        let journal = |inner: Inner| Self {
            sealing: sealing.clone(),
            options,
            free_bytes: AtomicU64::new(inner.ring.free_bytes()),
            inner: Mutex::new(inner),
        };
        if inner.refused.is_some() {
            return Ok((journal(inner), run.recovery));
        }
        for unfinished in &listing.unfinished {
            disk.remove(unfinished).map_err(|e| Error::io(format!("remove {}", unfinished.display()), e))?;
        }
        inner.take_over(&sealing, &run)?;
        Ok((journal(inner), run.recovery))
    }

    /// Replays a journal without writing anything, as [`Self::open`] would; a missing directory is an empty journal.
    pub fn read(
        disk: &dyn Disk,
        dir: &Path,
        keyring: Arc<Keyring>,
        volume: &VolumeName,
        after_commit: u64,
        heads: &[HeadHash],
        replay: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<Recovery> {
        let files = segment::open_all(disk, dir, &segment::list(disk, dir)?, false)?;
        let sealing = Sealing { keyring, volume: volume.clone() };
        let heads = if heads.is_empty() { &[NO_HEAD] } else { heads };
        let scan = recover::scan(&files, &sealing, after_commit);
        Ok(recover::run(scan, &files, &sealing, after_commit, heads, replay)?.recovery)
    }

    /// Sets all segments in `dir` aside, durable on return; gives the names under which they are kept. The next opening begins an
    /// empty journal. Called after a head that covers every number in them is durable.
    pub fn set_aside(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>> {
        let listing = segment::list(disk, dir)?;
        let kept = listing.segments.iter().map(|&number| segment::set_aside(disk, dir, number));
        let kept = kept.collect::<Result<Vec<_>>>()?;
        if !kept.is_empty() {
            disk.sync_dir(dir).map_err(|e| Error::io(format!("sync {}", dir.display()), e))?;
        }
        Ok(kept)
    }

    /// Appends one commit and returns its number when it is durable.
    ///
    /// [`Error::JournalFull`]: a checkpoint and [`Self::trim`] make room. [`Error::NoSpace`]: nothing was written, the
    /// journal is as before. [`Error::Poisoned`]: the disk failed twice, or the journal was found damaged.
    pub fn append(&self, payload: &[u8]) -> Result<u64> {
        if payload.len() > self.payload_max() {
            return Err(Error::Invalid {
                what: format!("a journal commit of {} bytes is over the limit {}", payload.len(), self.payload_max()),
            });
        }
        let mut inner = self.inner.lock();
        let result = inner.append(&self.sealing, payload);
        self.free_bytes.store(inner.ring.free_bytes(), Ordering::Relaxed);
        result
    }

    /// Lets the space of all commits up to `through_commit` be used again, and has later commits follow `head`.
    ///
    /// `head` must be durable, name at least `through_commit`, and be remembered as far as rollbacks are concerned.
    pub fn trim(&self, through_commit: u64, head: HeadHash) -> Result<()> {
        let mut inner = self.inner.lock();
        if let Some(why) = &inner.refused {
            return Err(refused(&self.sealing.volume, why));
        }
        if through_commit > inner.last {
            return Err(Error::Invalid {
                what: format!("the journal ends at commit {}, before {through_commit}", inner.last),
            });
        }
        inner.head = head;
        inner.ring.release(through_commit);
        self.free_bytes.store(inner.ring.free_bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Number of the newest commit; it is durable.
    pub fn last_commit(&self) -> u64 {
        self.inner.lock().last
    }

    /// Room for commits before the next trim, their headers and rounding included. Takes no lock.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// How much of the journal's space is taken, from 0 to 1. Takes no lock.
    pub fn used_fraction(&self) -> f64 {
        let total = self.options.segment_bytes * u64::from(self.options.segments_max);
        1.0 - (self.free_bytes().min(total) as f64 / total as f64)
    }

    /// Longest payload of one commit.
    pub fn payload_max(&self) -> usize {
        PAYLOAD_BYTES_MAX.min(self.options.segment_bytes as usize - COMMIT_OVERHEAD)
    }

    /// Space that a payload takes.
    pub fn space_for(payload_length: usize) -> u64 {
        u64::from(blocks_for(payload_length)) * BLOCK_BYTES as u64
    }
}

impl Inner {
    /// Makes the space of the replayed commits known to the ring, and the newest of them durable.
    fn take_over(&mut self, sealing: &Sealing, run: &Run) -> Result<()> {
        for Found { header, segment, block } in &run.live {
            self.ring.occupy(*segment, header.number, block + header.blocks());
        }
        let Some((found, payload)) = &run.last else {
            self.ring.release(0);
            return self.ring.place(1).map(drop);
        };
        let original = self.ring.number(found.segment);
        self.ring.resume(found.segment);
        self.ring.release(0);
        // The newest commit may be in the page cache alone, left there by a process that died before its sync, or whose
        // sync failed; syncing it again would prove nothing then. So it is written a second time.
        match self.write(sealing, &found.header, payload) {
            Err(Error::JournalFull { .. }) => self.ring.sync(original),
            other => other,
        }
    }

    fn append(&mut self, sealing: &Sealing, payload: &[u8]) -> Result<u64> {
        if let Some(why) = &self.refused {
            return Err(refused(&sealing.volume, why));
        }
        let header = CommitHeader {
            number: self.last + 1,
            session: self.session,
            durable: self.last,
            head: self.head,
            id: CommitId(random()),
            previous: self.previous,
            payload_length: payload.len() as u32,
            segment_blocks: 0,
        };
        self.write(sealing, &header, payload)?;
        self.last = header.number;
        self.previous = header.id;
        Ok(header.number)
    }

    /// Puts a commit on the disk, in a new segment if the one at hand fails.
    fn write(&mut self, sealing: &Sealing, header: &CommitHeader, payload: &[u8]) -> Result<()> {
        let volume = &sealing.volume;
        let Some(index) = self.ring.place(header.blocks())? else {
            return Err(Error::JournalFull { volume: volume.to_string() });
        };
        let doing =
            |number: u64| format!("write commit {} to journal segment {number} of volume {volume}", header.number);
        let first = match self.write_at(sealing, index, header, payload) {
            Ok(()) => return Ok(()),
            Err(WriteError::NoSpace(e)) => return Err(Error::io(doing(self.ring.number(index)), e)),
            Err(WriteError::Failed(e)) => Error::io(doing(self.ring.number(index)), e),
        };
        log::warn!("{first}; the segment is set aside and the commit goes into a new one");
        self.ring.set_aside(index);
        let moved = self.ring.grow().or_else(|e| self.ring.place(header.blocks())?.ok_or(e)).and_then(|fresh| {
            self.write_at(sealing, fresh, header, payload).map_err(|e| {
                self.ring.set_aside(fresh);
                let (WriteError::NoSpace(e) | WriteError::Failed(e)) = e;
                Error::io(doing(self.ring.number(fresh)), e)
            })
        });
        moved.map_err(|second| {
            let why = format!("its journal failed twice: {first}; {second}");
            let error = refused(volume, &why);
            self.refused = Some(why);
            error
        })
    }

    fn write_at(
        &mut self,
        sealing: &Sealing,
        index: usize,
        header: &CommitHeader,
        payload: &[u8],
    ) -> Result<(), WriteError> {
        let place = Place { segment: self.ring.number(index), block: self.ring.end(index) };
        let header = CommitHeader { segment_blocks: self.ring.blocks(index), ..header.clone() };
        let bytes = header.seal(&sealing.keyring, &sealing.volume, place, payload);
        self.ring.write(index, header.number, &bytes)
    }
}

fn check_options(options: &JournalOptions) -> Result<()> {
    let JournalOptions { segment_bytes, segments_max } = *options;
    let length_fits = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes);
    if !length_fits || !segment_bytes.is_multiple_of(BLOCK_BYTES as u64) || !(1..=32).contains(&segments_max) {
        let what = format!("a journal of {segments_max} segments of {segment_bytes} bytes is outside its bounds");
        return Err(Error::Invalid { what });
    }
    Ok(())
}
