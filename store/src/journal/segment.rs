//! Segment files: their names, their creation and finding those that are there.
//!
//! *Ordering*: a segment gets its name only when it is whole, filled with zeros and synced, and the name is durable before the
//! first commit goes into it. So a later commit changes bytes alone, and one `fdatasync` makes it durable.
//!
//! *Bounds*: at most [`FILES_MAX`] segments are looked at, each to [`SEGMENT_BYTES_MAX`] bytes.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use crate::disk::{Disk, DiskFile, EntryKind};
use crate::error::{Error, Result};
use crate::format::journal::{BLOCK_BYTES, SEGMENT_BYTES_MAX};

/// Most segment files that a journal directory may hold; failed ones wait there for the next trim.
pub(super) const FILES_MAX: usize = 64;

const NEW_SUFFIX: &str = ".new";
const ASIDE_SUFFIX: &str = ".damaged";
/// Segments of one number that may have been set aside.
const ASIDE_MAX: u32 = 1000;
const FILL_BYTES: usize = 1 << 20;

/// One open segment.
#[derive(Debug)]
pub(super) struct SegmentFile {
    /// Its number, from 1; part of what the commits in it are bound to.
    pub(super) number: u64,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// The open file.
    pub(super) file: Box<dyn DiskFile>,
    /// Its length when it was opened.
    pub(super) length: u64,
}

impl SegmentFile {
    /// How many whole blocks are there to read.
    pub(super) fn blocks(&self) -> u32 {
        (self.length.min(SEGMENT_BYTES_MAX) / BLOCK_BYTES as u64) as u32
    }
}

/// What a journal directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Numbers of the segments, ascending.
    pub(super) segments: Vec<u64>,
    /// Segments that were still being made.
    pub(super) unfinished: Vec<PathBuf>,
}

/// Lists a journal directory; a missing one holds nothing. Names of other shapes are left alone.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let doing = || format!("list journal {}", dir.display());
    if disk.metadata(dir).map_err(|e| Error::io(doing(), e))?.is_none() {
        return Ok(listing);
    }
    let result = disk.list_dir(dir, &mut |name, kind| {
        let text = name.to_str().unwrap_or("");
        if kind != EntryKind::File {
            return ControlFlow::Continue(());
        }
        if let Some(number) = number_of(text) {
            listing.segments.push(number);
        } else if text.strip_suffix(NEW_SUFFIX).and_then(number_of).is_some() {
            listing.unfinished.push(dir.join(name));
        }
        match listing.segments.len() + listing.unfinished.len() > FILES_MAX {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    result.map_err(|e| Error::io(doing(), e))?;
    if listing.segments.len() + listing.unfinished.len() > FILES_MAX {
        return Err(Error::corrupt(format!("journal {}", dir.display()), format!("more than {FILES_MAX} segments")));
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// Opens the listed segments, for writing if asked.
pub(super) fn open_all(disk: &dyn Disk, dir: &Path, listing: &Listing, write: bool) -> Result<Vec<SegmentFile>> {
    let open = |&number: &u64| {
        let path = dir.join(name_of(number));
        let opened = if write { disk.open_write(&path) } else { disk.open_read(&path) };
        let open = opened.and_then(|file| file.len().map(|length| (file, length)));
        let (file, length) = open.map_err(|e| Error::io(format!("open journal segment {}", path.display()), e))?;
        Ok(SegmentFile { number, path, file, length })
    };
    listing.segments.iter().map(open).collect()
}

/// Makes a new segment, whole and durable; on failure nothing of that name is left, as far as the disk allows.
pub(super) fn create(disk: &dyn Disk, dir: &Path, number: u64, length: u64) -> Result<SegmentFile> {
    let path = dir.join(name_of(number));
    let unfinished = dir.join(format!("{}{NEW_SUFFIX}", name_of(number)));
    let mut leftover = &unfinished;
    let made = disk.create_new(&unfinished).and_then(|file| {
        file.allocate(0, length)?;
        // Reserved blocks are not enough: turning them into written ones at the first commit would cost the backing
        // filesystem a metadata write in each fdatasync.
        let zeros = vec![0; FILL_BYTES.min(length as usize)];
        for offset in (0..length).step_by(FILL_BYTES) {
            let part = (length - offset).min(FILL_BYTES as u64) as usize;
            file.write_all_at(&zeros[..part], offset)?;
        }
        file.sync_all()?;
        disk.rename_new(&unfinished, &path)?;
        leftover = &path;
        disk.sync_dir(dir)?;
        Ok(file)
    });
    match made {
        Ok(file) => Ok(SegmentFile { number, path, file, length }),
        Err(e) => {
            // The first failure is what the caller hears of. A leftover that stays does no harm: it holds no commit, and the
            // next opening removes or uses it.
            let _ = disk.remove(leftover);
            Err(Error::io(format!("create journal segment {}", path.display()), e))
        }
    }
}

/// Creates the journal directory and the one above it. Their names and those in them are durable on return, also if an
/// earlier process made them and died before it could sync.
pub(super) fn create_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let create = |path: &Path| {
        disk.create_dir(path)?;
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), |parent| disk.sync_dir(parent))
    };
    let parent = dir.parent().filter(|parent| parent.file_name().is_some());
    parent
        .map_or(Ok(()), create)
        .and_then(|()| create(dir))
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|e| Error::io(format!("create journal directory {}", dir.display()), e))
}

/// Gives a segment a name under which it is kept and not read; that is durable with the next sync of the directory.
pub(super) fn set_aside(disk: &dyn Disk, dir: &Path, number: u64) -> Result<PathBuf> {
    let path = dir.join(name_of(number));
    let doing = || format!("set journal segment {} aside", path.display());
    for count in 1..=ASIDE_MAX {
        let again = if count == 1 { String::new() } else { format!(".{count}") };
        let aside = dir.join(format!("{}{ASIDE_SUFFIX}{again}", name_of(number)));
        match disk.rename_new(&path, &aside) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| aside).map_err(|e| Error::io(doing(), e)),
        }
    }
    Err(Error::io(doing(), std::io::ErrorKind::AlreadyExists.into()))
}

fn name_of(number: u64) -> String {
    format!("{number:016x}")
}

fn number_of(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name, 16).ok()?;
    (number > 0 && name_of(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_names_that_were_given_out_are_segments() {
        assert_eq!(number_of("000000000000001f"), Some(31));
        for bad in ["", "1f", "000000000000001F", "0000000000000000", "+00000000000001f", "000000000000001f0"] {
            assert_eq!(number_of(bad), None, "{bad}");
        }
        assert_eq!(number_of(&name_of(u64::MAX)), Some(u64::MAX));
    }
}
