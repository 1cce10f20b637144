//! Every byte of a repository of two mebibytes changes, and every file of it is cut at every length: what the byte touches reads as it
//! was, or is an error, and nothing panics.
//!
//! There is one repository for all seeds. A seed takes one slice of its bytes: so many seeds in a row as there are slices meet every
//! byte.
//!
//! What a byte of a pack touches is found by trying: all is read at every 32nd byte, less than a sealed blob has, and between two of
//! those what was refused at one of them. Bytes that touch no blob are in trailers and padding, which are read where there is no index.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use vellum_store::{
    disk::{Disk, MemoryDisk},
    repository::Repository,
};

use crate::flips::{Size, Story, open, tell};

const SLICES: u64 = 1024;
const STRIDE: u64 = 32;
const SIZE: Size = Size { commits: 4, chunks: 64, length: 32 << 10 };
const PACKS: &str = "/repository/packs";

/// The repository, and its files.
struct Ground {
    story: Story,
    files: Vec<(PathBuf, u64)>,
}

static GROUND: OnceLock<Ground> = OnceLock::new();

fn ground() -> &'static Ground {
    GROUND.get_or_init(|| {
        let story = tell(0x2_0000, &SIZE);
        let files = story.files();
        // Nothing is read from it, and every copy of the disk would have it.
        story.disk.remove(Path::new("/repository/reserve")).expect("it is there");
        Ground { story, files }
    })
}

pub(crate) fn note() -> String {
    let bytes: u64 = ground().files.iter().map(|(_, length)| length).sum();
    format!(" of {bytes} in {} files, in {SLICES} slices", ground().files.len())
}

/// The parts of files in the slice of a seed.
fn parts(seed: u64) -> Vec<(&'static Path, u64, u64)> {
    let files = &ground().files;
    let total: u64 = files.iter().map(|(_, length)| length).sum();
    let slice = seed % SLICES;
    let (from, to) = (total * slice / SLICES, total * (slice + 1) / SLICES);
    let (mut start, mut parts) = (0, Vec::new());
    for (path, length) in files {
        let (low, high) = (from.clamp(start, start + length), to.clamp(start, start + length));
        if low < high {
            parts.push((path.as_path(), low - start, high - start));
        }
        start += length;
    }
    parts
}

/// A copy of the disk with one change after the other, and the repository open on it.
struct Harmed {
    disk: MemoryDisk,
    whole: Arc<Repository>,
}

impl Harmed {
    fn new() -> Self {
        let disk = ground().story.disk.kill();
        let whole = open(&disk).expect("it opens");
        Self { disk, whole }
    }

    /// What cannot be read of `chunks`, or of everything.
    fn refused(&self, chunks: Option<&BTreeSet<usize>>, what: &str) -> BTreeSet<usize> {
        ground().story.refused(&self.whole, chunks, what)
    }
}

/// Opens the repository as it is now and reads all of it.
fn read_anew(disk: &MemoryDisk, what: &str) {
    match open(disk) {
        Ok(repository) => drop(ground().story.refused(&repository, None, what)),
        Err(error) => assert!(error.is_damage(), "{what}: {error}"),
    }
}

fn without_index(disk: &MemoryDisk) -> MemoryDisk {
    let bare = disk.kill();
    for (path, _) in ground().files.iter().filter(|(path, _)| path.starts_with("/repository/index")) {
        bare.remove(path).expect("it is there");
    }
    bare
}

/// Flips each byte of a slice.
pub(crate) fn flip(seed: u64) -> u64 {
    let harmed = Harmed::new();
    let bare = without_index(&harmed.disk);
    let mut count = 0;
    for (path, from, to) in parts(seed) {
        let flip_on = |disk: &MemoryDisk, at: u64, read: &mut dyn FnMut(&str)| {
            let bits = 1 << ((seed / SLICES + at) % 8);
            disk.rot(path, at, bits).expect("it is there");
            read(&format!("seed {seed}: {} at {at} by {bits:#x}", path.display()));
            disk.rot(path, at, bits).expect("it is there");
        };
        count += to - from;
        if !path.starts_with(PACKS) {
            (from..to).for_each(|at| flip_on(&harmed.disk, at, &mut |what| read_anew(&harmed.disk, what)));
            continue;
        }
        let touched = |at: u64| {
            let mut refused = BTreeSet::new();
            flip_on(&harmed.disk, at, &mut |what| refused = harmed.refused(None, what));
            refused
        };
        let (mut at, mut before) = (from, touched(from));
        while at < to {
            let end = (at + STRIDE).min(to - 1).max(at);
            let after = touched(end);
            let both: BTreeSet<usize> = before.union(&after).copied().collect();
            for inner in at..=end {
                match both.is_empty() {
                    true => flip_on(&bare, inner, &mut |what| read_anew(&bare, what)),
                    false => flip_on(&harmed.disk, inner, &mut |what| drop(harmed.refused(Some(&both), what))),
                }
            }
            (at, before) = (end + 1, after);
        }
    }
    count
}

/// Cuts files at each length of a slice.
pub(crate) fn cut(seed: u64) -> u64 {
    let mut count = 0;
    for (path, from, to) in parts(seed) {
        let harmed = Harmed::new();
        let cut_on = |disk: &MemoryDisk, length: u64| {
            disk.open_write(path).and_then(|file| file.set_len(length)).expect("there is room");
            format!("seed {seed}: {} is cut to {length} bytes", path.display())
        };
        count += to - from;
        if !path.starts_with(PACKS) {
            for length in (from..to).rev() {
                read_anew(&harmed.disk, &cut_on(&harmed.disk, length));
            }
            continue;
        }
        let bare = without_index(&harmed.disk);
        let mut at = to;
        let mut missing = BTreeSet::new();
        while at > from {
            let low = at.saturating_sub(STRIDE).max(from);
            // What goes within these lengths is known from the shortest of them, on a copy.
            let shortest = Harmed::new();
            let what = cut_on(&shortest.disk, low);
            let gone = shortest.refused(None, &what);
            let mut going: BTreeSet<usize> = gone.difference(&missing).copied().collect();
            going.extend(gone.first());
            for length in (low..at).rev() {
                let what = cut_on(&harmed.disk, length);
                harmed.refused(Some(&going), &what);
            }
            (at, missing) = (low, gone);
            // Its list is gone from the first byte on; where there is no index, that pack is without one.
            read_anew(&bare, &cut_on(&bare, at));
        }
    }
    count
}
