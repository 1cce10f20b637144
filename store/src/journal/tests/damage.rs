//! Bytes that are not those that were written: damage is told from a torn end, and nothing is believed.

use std::path::PathBuf;

use super::*;
use crate::format::journal::HEADER_BYTES;

fn segment(number: u64) -> PathBuf {
    dir().join(format!("{number:016x}"))
}

fn write_at(disk: &MemoryDisk, number: u64, block: u32, bytes: &[u8]) {
    let file = disk.open_write(&segment(number)).unwrap();
    file.write_all_at(bytes, u64::from(block) * BLOCK_BYTES as u64).unwrap();
    file.sync_all().unwrap();
}

fn read_at(disk: &MemoryDisk, number: u64, block: u32, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count * BLOCK_BYTES];
    let file = disk.open_read(&segment(number)).unwrap();
    file.read_exact_at(&mut bytes, u64::from(block) * BLOCK_BYTES as u64).unwrap();
    bytes
}

/// A commit as some process might have written it.
fn sealed(segment: u64, block: u32, header: &CommitHeader, payload: &[u8]) -> Vec<u8> {
    header.seal(&KEYRING, &volume(), Place { segment, block }, payload)
}

fn header(number: u64, session: u64, id: u8, previous: u8, payload: &[u8]) -> CommitHeader {
    CommitHeader {
        number,
        session,
        durable: number - 1,
        head: head(1),
        id: CommitId([id; 16]),
        previous: CommitId([previous; 16]),
        payload_length: payload.len() as u32,
        segment_blocks: 0,
    }
}

/// Segment 1 holds commits 1 to 4 in blocks 0, 1-2, 3 and 4-6 (7 is the last and free), segment 2 commits 5 and 6 in 0-2 and 3.
const LENGTHS: [usize; 6] = [10, 5000, 3000, 12_000, 9000, 10];
const ENDS: [u64; 4] = [1, 3, 4, 7];

fn two_segments() -> MemoryDisk {
    let disk = MemoryDisk::new();
    append_all(&open(&disk, 0, &[head(1)]).0, &LENGTHS);
    disk.crash()
}

#[test]
fn a_flipped_byte_is_damage_but_in_the_last_commit() {
    let lengths = [10, 5000, 10, 3000];
    let block_of = [0, 1, 1, 2, 3];
    let disk = MemoryDisk::new();
    append_all(&open(&disk, 0, &[head(1)]).0, &lengths);
    let all = expected(&lengths);
    // All bytes of the headers; of the bodies, whose every byte the format's own test flips, one in eleven.
    let headers = |offset: &usize| offset % BLOCK_BYTES < HEADER_BYTES || offset.is_multiple_of(11);
    for offset in (0..block_of.len() * BLOCK_BYTES).filter(headers) {
        let bad = disk.kill();
        bad.rot(&segment(1), offset as u64, 1 << (offset % 8)).unwrap();
        let hit = block_of[offset / BLOCK_BYTES];
        let (recovery, replayed) = read(&bad, 0, &[head(1)]);
        assert_eq!(replayed, all[..hit], "byte {offset}");
        // The very last commit has no witness.
        assert_eq!(recovery.damage.is_some(), hit + 1 < lengths.len(), "byte {offset}");
    }
    disk.rot(&segment(1), 6 * BLOCK_BYTES as u64, 1).unwrap();
    assert_eq!(read(&disk, 0, &[head(1)]).0.damage, None, "free space means nothing");
}

#[test]
fn a_truncated_segment_is_damage() {
    let all = expected(&LENGTHS);
    let whole = two_segments();
    assert_eq!(read(&whole, 0, &[head(1)]).1, all);
    for number in [1, 2] {
        for length in (0..=32u64 << 10).step_by(1024).flat_map(|at| [at, at + 511]) {
            let disk = whole.kill();
            disk.open_write(&segment(number)).unwrap().set_len(length.min(32 << 10)).unwrap();
            let blocks = length.min(32 << 10) / BLOCK_BYTES as u64;
            let kept = match number {
                1 => ENDS.iter().filter(|&&end| end <= blocks).count(),
                _ => 4 + usize::from(blocks >= 3) + usize::from(blocks >= 4),
            };
            let expected_count = if kept == 4 && number == 1 { all.len() } else { kept };
            let (recovery, replayed) = read(&disk, 0, &[head(1)]);
            assert_eq!(replayed, all[..expected_count], "segment {number} cut to {length}");
            // Every commit tells how long its segment was, and the first one lies in the first block.
            let is_cut = length < 32 << 10;
            assert_eq!(recovery.damage.is_some(), is_cut, "segment {number} cut to {length}");
            let (journal, again, _) = open(&disk, 0, &[head(1)]);
            assert_eq!(again, recovery);
            assert_eq!(journal.append(b"more").is_ok(), !is_cut);
        }
    }
}

#[test]
fn a_missing_segment_is_damage_if_a_later_one_is_there() {
    let (first, last) = (two_segments(), two_segments());
    first.remove(&segment(1)).unwrap();
    let (recovery, replayed) = read(&first, 0, &[head(1)]);
    assert!(recovery.damage.unwrap().contains("commit 1 is missing"));
    assert_eq!((replayed.len(), recovery.newest_seen), (0, 6));
    last.remove(&segment(2)).unwrap();
    let (recovery, replayed) = read(&last, 0, &[head(1)]);
    assert_eq!((recovery.damage, replayed), (None, expected(&LENGTHS[..4])));
}

#[test]
fn a_damaged_journal_is_read_only_until_a_head_records_the_loss() {
    let memory = two_segments();
    memory.rot(&segment(1), 3 * BLOCK_BYTES as u64 + 500, 4).unwrap();
    let disk = Arc::new(ProbeDisk::new(memory.clone()));
    let (journal, recovery, replayed) = open_with(disk.clone(), SMALL, 0, &[head(1)]).unwrap();
    assert_eq!(replayed, expected(&LENGTHS[..2]));
    assert!(recovery.damage.unwrap().starts_with("journal commit 3 is missing or damaged, and commit "));
    for result in [journal.append(b"more").map(drop), journal.trim(2, head(2))] {
        assert!(matches!(result, Err(Error::Poisoned { .. })));
    }
    let changes = disk.take_calls();
    assert!(changes.iter().all(|call| matches!(call, Call::CreateDir | Call::SyncDir)), "{changes:?}");
    let (journal, recovery, replayed) = open(&memory, recovery.newest_seen, &[head(2), head(1)]);
    assert_eq!((recovery.damage, replayed.len()), (None, 0));
    assert_eq!(journal.append(b"more").unwrap(), 7, "no number of a lost commit is used again");
}

#[test]
fn whole_commits_of_another_history_are_damage_and_their_torn_remains_are_not() {
    let disk = MemoryDisk::new();
    append_all(&open(&disk, 0, &[head(1)]).0, &[10, 5000]);
    let (recovery, replayed) = read(&disk, 0, &[head(2)]);
    assert!(recovery.damage.unwrap().contains("not in this history"));
    assert_eq!(replayed.len(), 0);
    // Commit 2 alone, torn, and known to no kept head any more.
    disk.rot(&segment(1), 2 * BLOCK_BYTES as u64, 1).unwrap();
    assert_eq!(read(&disk, 1, &[head(2)]).0.damage, None);
}

#[test]
fn of_two_commits_with_one_number_the_later_session_is_right() {
    let (old, new, next) = (b"torn away and come back", b"acknowledged", b"after it");
    let make = |previous_of_third: u8, with_new: bool, flipped: u8| {
        let disk = two_segments();
        write_at(&disk, 1, 0, &[0; 32 << 10]);
        write_at(&disk, 2, 0, &[0; 32 << 10]);
        write_at(&disk, 1, 0, &sealed(1, 0, &header(1, 1, 1, 0, b"one"), b"one"));
        write_at(&disk, 1, 1, &sealed(1, 1, &header(2, 1, 2, 1, old), old));
        if with_new {
            let mut commit = sealed(2, 0, &header(2, 5, 3, 1, new), new);
            commit[HEADER_BYTES + 50] ^= flipped;
            write_at(&disk, 2, 0, &commit);
        }
        write_at(&disk, 2, 1, &sealed(2, 1, &header(3, 5, 4, previous_of_third, next), next));
        read(&disk, 0, &[head(1)])
    };
    let (recovery, replayed) = make(3, true, 0);
    assert_eq!(recovery.damage, None);
    assert_eq!(replayed, [(1, b"one".to_vec()), (2, new.to_vec()), (3, next.to_vec())]);
    // Without the acknowledged one, the other is not what commit 3 follows: the loss shows.
    let (recovery, replayed) = make(3, false, 0);
    assert!(recovery.damage.is_some());
    assert_eq!(replayed.len(), 2);
    let (recovery, replayed) = make(3, true, 1);
    assert!(recovery.damage.is_some());
    assert_eq!(replayed.len(), 1, "the earlier one does not stand in for the damaged later one");
    assert!(make(9, true, 0).0.damage.is_some(), "a chain that breaks is damage");
}

#[test]
fn commits_do_not_count_in_another_place() {
    let disk = two_segments();
    let third = read_at(&disk, 1, 3, 1);
    write_at(&disk, 1, 0, &third);
    let (recovery, replayed) = read(&disk, 0, &[head(1)]);
    assert!(recovery.damage.is_some());
    assert_eq!(replayed.len(), 0);
    let disk = two_segments();
    let (first, second) = (read_at(&disk, 1, 0, 8), read_at(&disk, 2, 0, 8));
    write_at(&disk, 1, 0, &second);
    write_at(&disk, 2, 0, &first);
    assert_eq!(read(&disk, 0, &[head(1)]).0.newest_seen, 0, "exchanged segments hold nothing");
}

#[test]
fn a_segment_put_back_to_an_earlier_round_hides_nothing_unseen() {
    let disk = MemoryDisk::new();
    let (journal, _, _) = open(&disk, 0, &[head(1)]);
    append_all(&journal, &[10, 10, 10]);
    let earlier = read_at(&disk, 1, 0, 8);
    journal.trim(3, head(2)).unwrap();
    append_all(&journal, &[10, 10]);
    let second = disk.kill();
    write_at(&disk, 1, 0, &earlier);
    let (recovery, replayed) = read(&disk, 3, &[head(2), head(1)]);
    assert_eq!((recovery.damage, replayed.len()), (None, 0), "cut back to the head, as a hostile store can");
    write_at(&second, 1, 0, &earlier[..BLOCK_BYTES]);
    assert!(read(&second, 3, &[head(2), head(1)]).0.damage.is_some(), "but not only in part");
}

#[test]
fn what_cannot_be_read_is_not_taken_for_the_end() {
    for (offset, commits) in [(0, 0), (3 * BLOCK_BYTES as u64 + HEADER_BYTES as u64, 2), (7 * BLOCK_BYTES as u64, 6)] {
        let disk = ProbeDisk::new(two_segments());
        disk.make_unreadable(&segment(1), offset);
        let (recovery, replayed) = read(&disk, 0, &[head(1)]);
        assert_eq!(replayed, expected(&LENGTHS[..commits]));
        assert!(recovery.damage.is_some(), "offset {offset}");
    }
}

#[test]
fn garbage_gives_a_prefix_and_never_a_panic() {
    let all = expected(&LENGTHS);
    for start in 0..150 {
        let mut seed = Seed::new(start);
        let disk = two_segments();
        for _ in 0..=seed.below(3) {
            let number = 1 + seed.below(2);
            let mut bytes = vec![0; 1 + seed.below(10_000) as usize];
            bytes.iter_mut().for_each(|byte| *byte = seed.number() as u8);
            disk.open_write(&segment(number)).unwrap().write_all_at(&bytes, seed.below(40 << 10)).unwrap();
        }
        let (recovery, replayed) = read(&disk, 0, &[head(1)]);
        assert_eq!(replayed, all[..replayed.len()], "seed {start}");
        assert_eq!(recovery.last_commit as usize, replayed.len());
    }
}

#[test]
fn stray_names_are_left_alone_and_too_many_segments_are_refused() {
    let disk = two_segments();
    for name in ["notes.txt", "1", "00000000000000FF", "0000000000000000"] {
        disk.create_new(&dir().join(name)).unwrap();
    }
    disk.create_new(&dir().join("0000000000000009.new")).unwrap();
    let (_, recovery, _) = open(&disk, 0, &[head(1)]);
    assert_eq!((recovery.commits, recovery.damage), (6, None));
    assert_eq!(disk.metadata(&dir().join("0000000000000009.new")).unwrap(), None, "an unfinished segment is removed");
    assert!(disk.metadata(&dir().join("notes.txt")).unwrap().is_some());
    for number in 100..170 {
        disk.create_new(&segment(number)).unwrap();
    }
    let mut replay = |_: u64, _: &[u8]| Ok(());
    let result = Journal::read(&disk, &dir(), KEYRING.clone(), &volume(), 0, &[head(1)], &mut replay);
    assert!(matches!(result, Err(Error::Corrupt { .. })));
}
