//! Finding the good prefix of a journal, and telling its torn end from damage.
//!
//! *Invariants*
//! 1. What is replayed is a run of consecutive commits, each authentic, each naming the one before it, each following a head
//!    of the given history.
//! 2. Nothing that was read is trusted further than its seal: any bytes give a prefix, a damage note or an error, never a
//!    panic, and no length is believed before it is bounded.
//! 3. The end of the run is damage exactly if an authentic commit behind it names one of the missing ones durable, or means
//!    another last one than the run's; if an intact commit behind it follows an unknown head; if a segment is shorter than it was
//!    made; or if a part could not be read. Otherwise it is a torn end: a commit that was being written when the power went.
//!
//! *Bounds*: one pass over all blocks, unsealing 144 bytes of each that is not zero; then each live commit is read once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::segment::SegmentFile;
use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::format::journal::{BLOCK_BYTES, CommitHeader, HEADER_BYTES, Place, SEGMENT_BYTES_MIN};
use crate::id::{HeadHash, VolumeName};

const SCAN_BLOCKS: u32 = 256;

/// What opening a journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many commits were replayed.
    pub commits: u64,
    /// Number of the newest good commit; `after_commit` if there was none.
    pub last_commit: u64,
    /// Largest number of any authentic commit seen. A head that records a loss takes it as its journal commit, so that no
    /// number of the lost ones is used again.
    pub newest_seen: u64,
    /// Why the journal ends too early, if it does. It is read-only then.
    pub damage: Option<String>,
    /// A part of it could not be read at all. That is no damage to be settled: it may be read tomorrow.
    pub unreadable: bool,
}

/// The keys and the volume that commits are sealed for.
#[derive(Clone, Debug)]
pub(super) struct Sealing {
    pub(super) keyring: Arc<Keyring>,
    pub(super) volume: VolumeName,
}

/// A commit whose header is authentic; its body was not looked at yet.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) header: CommitHeader,
    /// Index into the scanned segments.
    pub(super) segment: usize,
    pub(super) block: u32,
}

/// All authentic headers with numbers after a given one.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) commits: BTreeMap<u64, Vec<Found>>,
    pub(super) newest_session: u64,
    newest_seen: u64,
    unreadable: Option<String>,
    /// A segment that lacks its end.
    cut: Option<String>,
}

/// The replayed run.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) recovery: Recovery,
    /// Every copy of every commit of the run.
    pub(super) live: Vec<Found>,
    /// The newest commit of the run with its payload.
    pub(super) last: Option<(Found, Vec<u8>)>,
}

/// Looks for headers at every block of every segment.
pub(super) fn scan(segments: &[SegmentFile], sealing: &Sealing, after_commit: u64) -> Scan {
    let mut scan = Scan::default();
    let mut buffer = vec![0; SCAN_BLOCKS as usize * BLOCK_BYTES];
    for (index, segment) in segments.iter().enumerate() {
        if segment.length < SEGMENT_BYTES_MIN {
            scan.note_cut(segment, SEGMENT_BYTES_MIN);
        }
        for first in (0..segment.blocks()).step_by(SCAN_BLOCKS as usize) {
            let count = SCAN_BLOCKS.min(segment.blocks() - first);
            let bytes = &mut buffer[..count as usize * BLOCK_BYTES];
            read_blocks(&mut scan, segment, first, bytes);
            for (at, block) in bytes.chunks_exact(BLOCK_BYTES).enumerate() {
                let place = Place { segment: segment.number, block: first + at as u32 };
                let Some(header) = header_at(sealing, place, block) else { continue };
                // Segments are filled from block 0, so that some commit is left in any part that is.
                if header.segment_blocks > segment.blocks() {
                    scan.note_cut(segment, u64::from(header.segment_blocks) * BLOCK_BYTES as u64);
                }
                scan.newest_session = scan.newest_session.max(header.session);
                scan.newest_seen = scan.newest_seen.max(header.number);
                if header.number > after_commit {
                    let found = Found { header, segment: index, block: place.block };
                    scan.commits.entry(found.header.number).or_default().push(found);
                }
            }
        }
    }
    scan
}

impl Scan {
    fn note_cut(&mut self, segment: &SegmentFile, made: u64) {
        let (path, length) = (segment.path.display(), segment.length);
        self.cut.get_or_insert_with(|| format!("{path} has {length} bytes, and at least {made} when it was made"));
    }
}

/// Reads blocks, one at a time where reading them together fails; what cannot be read is zero and noted.
fn read_blocks(scan: &mut Scan, segment: &SegmentFile, first: u32, bytes: &mut [u8]) {
    let start = u64::from(first) * BLOCK_BYTES as u64;
    if segment.file.read_exact_at(bytes, start).is_ok() {
        return;
    }
    for (at, block) in bytes.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        let offset = start + (at * BLOCK_BYTES) as u64;
        if let Err(e) = segment.file.read_exact_at(block, offset) {
            block.fill(0);
            let note = || format!("byte {offset} of {} could not be read: {e}", segment.path.display());
            scan.unreadable.get_or_insert_with(note);
        }
    }
}

fn header_at(sealing: &Sealing, place: Place, block: &[u8]) -> Option<CommitHeader> {
    // A nonce of zeros does not happen; blocks that were never written cost nothing.
    if block[..HEADER_BYTES].iter().all(|&b| b == 0) {
        return None;
    }
    CommitHeader::unseal(&sealing.keyring, &sealing.volume, place, block)
}

/// Replays the good prefix after `after_commit` and judges its end. Errors are those of `replay` alone.
pub(super) fn run(
    mut scan: Scan,
    segments: &[SegmentFile],
    sealing: &Sealing,
    after_commit: u64,
    heads: &[HeadHash],
    replay: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<Run> {
    let mut run = Run::default();
    let mut last_commit = after_commit;
    while let Some(number) = last_commit.checked_add(1) {
        let Some((found, payload)) = choose(&mut scan, segments, sealing, number, heads, run.last.as_ref()) else {
            break;
        };
        replay(number, &payload)?;
        let copies = scan.commits.remove(&number).unwrap_or_default();
        run.live.extend(copies.into_iter().filter(|copy| copy.header.id == found.header.id));
        run.last = Some((found, payload));
        last_commit = number;
    }
    let last = run.last.as_ref().map(|(found, _)| &found.header);
    let unreadable = scan.unreadable.is_some();
    let damage = damage(&mut scan, segments, sealing, last_commit, last, heads);
    run.recovery = Recovery {
        commits: last_commit - after_commit,
        last_commit,
        newest_seen: scan.newest_seen.max(after_commit),
        damage,
        unreadable,
    };
    Ok(run)
}

/// The intact commit of a number that continues the run.
///
/// Two different commits of one number exist if the first was torn and the number was used again: the later session is
/// right, and the earlier one is not fallen back to. Copies within a session are equal, and any will do.
fn choose(
    scan: &mut Scan,
    segments: &[SegmentFile],
    sealing: &Sealing,
    number: u64,
    heads: &[HeadHash],
    last: Option<&(Found, Vec<u8>)>,
) -> Option<(Found, Vec<u8>)> {
    let continues = |header: &CommitHeader| match last {
        Some((before, _)) => header.follows(&before.header),
        None => true,
    };
    let fitting = |found: &&Found| heads.contains(&found.header.head) && continues(&found.header);
    let mut candidates: Vec<Found> = scan.commits.get(&number)?.iter().filter(fitting).cloned().collect();
    let session = candidates.iter().map(|found| found.header.session).max()?;
    candidates.retain(|found| found.header.session == session);
    // The youngest file first: a copy is made when the older file failed.
    candidates.sort_by_key(|found| std::cmp::Reverse(segments[found.segment].number));
    candidates.into_iter().find_map(|found| payload_of(scan, segments, sealing, &found).map(|payload| (found, payload)))
}

fn payload_of(scan: &mut Scan, segments: &[SegmentFile], sealing: &Sealing, found: &Found) -> Option<Vec<u8>> {
    let segment = &segments[found.segment];
    if u64::from(found.block) + u64::from(found.header.blocks()) > u64::from(segment.blocks()) {
        return None;
    }
    let mut bytes = vec![0; found.header.blocks() as usize * BLOCK_BYTES];
    read_blocks(scan, segment, found.block, &mut bytes);
    found.header.unseal_payload(&sealing.keyring, &bytes, "journal commit").ok()
}

/// Why the journal should not end where the run does, if it should not.
fn damage(
    scan: &mut Scan,
    segments: &[SegmentFile],
    sealing: &Sealing,
    last_commit: u64,
    last: Option<&CommitHeader>,
    heads: &[HeadHash],
) -> Option<String> {
    let missing = last_commit.saturating_add(1);
    let behind: Vec<Found> = scan.commits.range(missing..).flat_map(|(_, found)| found).cloned().collect();
    for found in behind.iter().filter(|found| !heads.contains(&found.header.head)) {
        // A torn commit may name a head that has long left the history; only a whole one is somebody's work.
        if payload_of(scan, segments, sealing, found).is_some() {
            return Some(format!("journal commit {} follows a head that is not in this history", found.header.number));
        }
    }
    if let Some(witness) = behind.iter().find(|found| found.header.durable >= missing) {
        let (number, durable) = (witness.header.number, witness.header.durable);
        return Some(format!(
            "journal commit {missing} is missing or damaged, and commit {number} says that all up to {durable} were durable"
        ));
    }
    // It names the newest of the run durable, and means another one by it.
    let contradicts =
        |found: &&Found| found.header.number == missing && last.is_some_and(|last| !found.header.follows(last));
    if behind.iter().any(|found| contradicts(&found)) {
        return Some(format!(
            "journal commit {missing} follows another commit {last_commit} than the one that is there"
        ));
    }
    if let Some(what) = scan.cut.take() {
        return Some(format!("the journal may go on after commit {last_commit}, but {what}"));
    }
    scan.unreadable.take().map(|what| format!("the journal may go on after commit {last_commit}, but {what}"))
}

/// Short form for a journal that cannot be used.
pub(super) fn refused(volume: &VolumeName, why: &str) -> Error {
    Error::Poisoned { volume: volume.to_string(), why: why.to_string() }
}
