//! Tests of the journal on a simulated disk: what comes back, what it costs, what failing disks do to it.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use super::*;
use crate::disk::MemoryDisk;
use crate::format::sealed::tests::keyring_of;
use crate::spawn::Seed;

mod crash;
mod damage;
mod failure;
mod probe;

use probe::{Call, ProbeDisk};

static KEYRING: LazyLock<Arc<Keyring>> = LazyLock::new(|| Arc::new(keyring_of(1, 0)));

/// Small enough to wrap around often.
const SMALL: JournalOptions = JournalOptions { segment_bytes: 32 << 10, segments_max: 3 };

fn volume() -> VolumeName {
    VolumeName::new("main").unwrap()
}

fn dir() -> PathBuf {
    PathBuf::from("/journal/main")
}

fn head(n: u8) -> HeadHash {
    HeadHash([n; 32])
}

type Replayed = Vec<(u64, Vec<u8>)>;

fn open_with(
    disk: Arc<dyn Disk>,
    options: JournalOptions,
    after: u64,
    heads: &[HeadHash],
) -> Result<(Journal, Recovery, Replayed)> {
    let mut replayed = Vec::new();
    let mut replay = |number: u64, payload: &[u8]| {
        replayed.push((number, payload.to_vec()));
        Ok(())
    };
    let (journal, recovery) =
        Journal::open(disk, &dir(), KEYRING.clone(), &volume(), options, after, heads, &mut replay)?;
    Ok((journal, recovery, replayed))
}

fn open(disk: &MemoryDisk, after: u64, heads: &[HeadHash]) -> (Journal, Recovery, Replayed) {
    open_with(Arc::new(disk.clone()), SMALL, after, heads).unwrap()
}

fn read(disk: &dyn Disk, after: u64, heads: &[HeadHash]) -> (Recovery, Replayed) {
    let mut replayed = Vec::new();
    let mut replay = |number: u64, payload: &[u8]| {
        replayed.push((number, payload.to_vec()));
        Ok(())
    };
    let recovery = Journal::read(disk, &dir(), KEYRING.clone(), &volume(), after, heads, &mut replay).unwrap();
    (recovery, replayed)
}

/// Bytes that tell their commit.
fn payload(number: u64, length: usize) -> Vec<u8> {
    let mut seed = Seed::new(number ^ 0x9e37_79b9);
    (0..length).map(|_| seed.number() as u8).collect()
}

/// What the commits from 1 on must give, when each was appended with [`payload`] of that length.
fn expected(lengths: &[usize]) -> Replayed {
    (1..).zip(lengths).map(|(number, &length)| (number, payload(number, length))).collect()
}

fn append_all(journal: &Journal, lengths: &[usize]) {
    for &length in lengths {
        let number = journal.last_commit() + 1;
        assert_eq!(journal.append(&payload(number, length)).unwrap(), number);
    }
}

#[test]
fn commits_come_back_in_order_after_power_loss() {
    let disk = MemoryDisk::new();
    let (journal, recovery, _) = open(&disk, 0, &[head(1)]);
    assert_eq!(recovery, Recovery::default());
    let lengths = [0, 1, 3912, 3913, 12_000, journal.payload_max(), 5, 5];
    append_all(&journal, &lengths);
    let (journal, recovery, replayed) = open(&disk.crash(), 0, &[head(1)]);
    assert_eq!(replayed, expected(&lengths));
    assert_eq!((recovery.commits, recovery.last_commit, recovery.newest_seen), (8, 8, 8));
    assert_eq!(recovery.damage, None);
    assert_eq!(journal.last_commit(), 8);
}

#[test]
fn a_commit_is_one_write_and_one_fdatasync() {
    let memory = MemoryDisk::new();
    let disk = Arc::new(ProbeDisk::new(memory));
    let (journal, _, _) = open_with(disk.clone(), SMALL, 0, &[head(1)]).unwrap();
    disk.take_calls();
    for _ in 0..5 {
        journal.append(&[7; 3900]).unwrap();
        assert_eq!(disk.take_calls(), [Call::Write, Call::SyncData]);
    }
}

#[test]
fn numbers_go_on_after_a_trim_and_a_clean_reopening() {
    let disk = MemoryDisk::new();
    let (journal, _, _) = open(&disk, 0, &[]);
    append_all(&journal, &[10, 10, 10]);
    journal.trim(3, head(2)).unwrap();
    drop(journal);
    let (journal, recovery, replayed) = open(&disk, 3, &[head(2)]);
    assert_eq!((recovery.commits, recovery.last_commit, replayed.len()), (0, 3, 0));
    append_all(&journal, &[10]);
    assert_eq!(open(&disk.crash(), 3, &[head(2)]).2, [(4, payload(4, 10))]);
}

#[test]
fn commits_between_freezing_and_publishing_a_head_follow_the_one_before_it() {
    let disk = MemoryDisk::new();
    let (journal, _, _) = open(&disk, 0, &[head(1)]);
    append_all(&journal, &[10, 10, 10]);
    // A head that holds commits up to 2 becomes durable here, and the power goes before the trim.
    let (recovery, replayed) = read(&disk.crash(), 2, &[head(2), head(1)]);
    assert_eq!((recovery.damage, replayed), (None, vec![(3, payload(3, 10))]));
    journal.trim(2, head(2)).unwrap();
    append_all(&journal, &[10]);
    let (recovery, replayed) = read(&disk.crash(), 2, &[head(2), head(1)]);
    assert_eq!((recovery.damage, replayed.len()), (None, 2));
}

#[test]
fn a_full_journal_says_so_until_it_is_trimmed() {
    let disk = MemoryDisk::new();
    let (journal, _, _) = open(&disk, 0, &[head(1)]);
    assert_eq!(journal.free_bytes(), 3 * (32 << 10));
    let mut lengths = Vec::new();
    while journal.free_bytes() >= Journal::space_for(5000) {
        lengths.push(5000);
        append_all(&journal, &[5000]);
    }
    assert_eq!(lengths.len(), 12);
    assert!(matches!(journal.append(&[0; 1]), Err(Error::JournalFull { .. })));
    assert!(journal.used_fraction() > 0.99);
    assert_eq!(open(&disk.crash(), 0, &[head(1)]).2, expected(&lengths), "a refused commit takes no number");
    journal.trim(4, head(2)).unwrap();
    assert_eq!(journal.free_bytes(), 32 << 10, "one segment holds nothing newer");
    append_all(&journal, &[5000]);
    let (recovery, replayed) = read(&disk.crash(), 4, &[head(2), head(1)]);
    assert_eq!((recovery.damage, recovery.last_commit, replayed.len()), (None, 13, 9));
}

#[test]
fn opening_a_full_journal_works() {
    let disk = MemoryDisk::new();
    let (journal, _, _) = open(&disk, 0, &[head(1)]);
    append_all(&journal, &[30_000; 3]);
    let (journal, recovery, _) = open(&disk.crash(), 0, &[head(1)]);
    assert_eq!((recovery.last_commit, journal.free_bytes()), (3, 0));
    journal.trim(3, head(2)).unwrap();
    append_all(&journal, &[30_000; 3]);
}

#[test]
fn reading_changes_nothing_and_a_missing_journal_is_empty() {
    let memory = MemoryDisk::new();
    let disk = ProbeDisk::new(memory.clone());
    assert_eq!(read(&disk, 7, &[]).0, Recovery { last_commit: 7, newest_seen: 7, ..Recovery::default() });
    append_all(&open(&memory, 0, &[head(1)]).0, &[10, 10]);
    assert_eq!(read(&disk, 0, &[head(1)]).1, expected(&[10, 10]));
    assert_eq!(disk.take_calls(), []);
}

#[test]
fn an_error_of_replay_ends_the_opening_with_it() {
    let disk = MemoryDisk::new();
    append_all(&open(&disk, 0, &[head(1)]).0, &[10, 10]);
    let mut refuse = |_: u64, _: &[u8]| Err(Error::corrupt("tree", "no such inode"));
    let result = Journal::open(Arc::new(disk), &dir(), KEYRING.clone(), &volume(), SMALL, 0, &[head(1)], &mut refuse);
    assert!(matches!(result, Err(Error::Corrupt { object, .. }) if object == "tree"));
}

#[test]
fn payloads_and_options_outside_their_bounds_are_refused() {
    let disk = MemoryDisk::new();
    let (journal, _, _) = open(&disk, 0, &[]);
    assert_eq!(journal.payload_max(), (32 << 10) - 184);
    let over = vec![0; journal.payload_max() + 1];
    assert!(matches!(journal.append(&over), Err(Error::Invalid { .. })));
    assert!(matches!(journal.trim(1, head(2)), Err(Error::Invalid { .. })));
    for (segment_bytes, segments_max) in [(4096, 4), (20_000, 4), (512 << 20, 4), (32 << 10, 0), (32 << 10, 33)] {
        let options = JournalOptions { segment_bytes, segments_max };
        assert!(matches!(open_with(Arc::new(disk.clone()), options, 0, &[]), Err(Error::Invalid { .. })));
    }
}

#[test]
fn the_longest_payload_fits_and_other_segment_lengths_are_phased_out() {
    let disk = MemoryDisk::new();
    append_all(&open(&disk, 0, &[head(1)]).0, &[10]);
    let large = JournalOptions { segment_bytes: 9 << 20, segments_max: 2 };
    let (journal, recovery, _) = open_with(Arc::new(disk.clone()), large, 0, &[head(1)]).unwrap();
    assert_eq!((recovery.commits, journal.payload_max()), (1, PAYLOAD_BYTES_MAX));
    let lengths = [10, PAYLOAD_BYTES_MAX, 10];
    append_all(&journal, &lengths[1..]);
    assert_eq!(read(&disk.crash(), 0, &[head(1)]).1, expected(&lengths));
    journal.trim(4 - 1, head(2)).unwrap();
    let mut lengths = Vec::new();
    disk.list_dir(&dir(), &mut |name, _| {
        lengths.push(disk.metadata(&dir().join(name)).unwrap().unwrap().len);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(lengths, [9 << 20], "the small segment is gone");
}

#[test]
fn a_journal_of_an_earlier_key_epoch_is_replayed() {
    let disk = MemoryDisk::new();
    append_all(&open(&disk, 0, &[head(1)]).0, &[10, 10]);
    let rotated = Arc::new(keyring_of(1, 2));
    let mut count = 0;
    let mut replay = |_: u64, _: &[u8]| {
        count += 1;
        Ok(())
    };
    let opened = Journal::open(Arc::new(disk.clone()), &dir(), rotated, &volume(), SMALL, 0, &[head(1)], &mut replay);
    let (journal, recovery) = opened.unwrap();
    assert_eq!((count, recovery.damage), (2, None));
    journal.append(b"under the new epoch").unwrap();
    let (recovery, replayed) = read(&disk.crash(), 0, &[head(1)]);
    assert_eq!((recovery.commits, replayed.len()), (2, 2), "the old keyring does not know what follows");
}

#[cfg(unix)]
#[test]
fn the_journal_works_on_a_real_disk() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("journal").join("main");
    let lengths = [10, 100_000, 5000];
    let mut replayed = Vec::new();
    for count in [0, 1, 2, 3] {
        replayed.clear();
        let mut replay = |number: u64, payload: &[u8]| {
            replayed.push((number, payload.to_vec()));
            Ok(())
        };
        let disk = Arc::new(crate::disk::LocalDisk);
        let options = JournalOptions { segment_bytes: 2 << 20, segments_max: 2 };
        let (journal, recovery) =
            Journal::open(disk, &dir, KEYRING.clone(), &volume(), options, 0, &[head(1)], &mut replay).unwrap();
        assert_eq!((recovery.damage, replayed.len()), (None, count));
        if count < lengths.len() {
            append_all(&journal, &lengths[count..=count]);
        }
    }
    assert_eq!(replayed, expected(&lengths));
}
