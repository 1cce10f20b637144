//! Failing disks: EIO at every place, full disks, processes that die over it.

use std::io;

use super::*;

const SCRIPT: [usize; 14] = [10, 5000, 9000, 1, 12_000, 0, 8000, 300, 20_000, 10, 4000, 4000, 9000, 77];

/// Runs the script on a disk on which the changes with these numbers fail, counted from the first append on. Gives the disk, the
/// largest acknowledged number and how many appends failed.
fn run_failing(fails: &'static [u64], counted: fn(Call) -> bool) -> (MemoryDisk, u64, u64) {
    let disk = Arc::new(ProbeDisk::new(MemoryDisk::new()));
    let options = JournalOptions { segments_max: 6, ..SMALL };
    let (journal, _, _) = open_with(disk.clone(), options, 0, &[head(1)]).unwrap();
    let mut count = 0;
    disk.before(move |_, call| {
        count += u64::from(counted(call));
        match counted(call) && fails.contains(&count) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    });
    let (mut acknowledged, mut failed) = (0, 0);
    for (number, length) in (1..).zip(SCRIPT) {
        match journal.append(&payload(number, length)) {
            Ok(given) => {
                assert_eq!((given, failed), (number, 0), "nothing is acknowledged after a failure");
                acknowledged = given;
            }
            Err(Error::Poisoned { .. }) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    if failed > 0 {
        assert!(matches!(journal.trim(acknowledged, head(2)), Err(Error::Poisoned { .. })));
    }
    (disk.memory.clone(), acknowledged, failed)
}

fn check_recovers(disk: &MemoryDisk, acknowledged: u64) {
    for disk in [disk.crash(), disk.kill()] {
        let (_, recovery, replayed) = open(&disk, 0, &[head(1)]);
        assert_eq!(recovery.damage, None);
        assert!(recovery.last_commit >= acknowledged && recovery.last_commit <= acknowledged + 1);
        assert_eq!(replayed, expected(&SCRIPT[..recovery.last_commit as usize]));
    }
}

#[test]
fn one_failure_of_any_write_or_sync_moves_the_commit_to_a_new_segment() {
    let commit = |call| matches!(call, Call::Write | Call::SyncData);
    for fails in [[1u64], [2], [3], [4], [5], [6], [9], [12], [15], [16], [17], [20], [21], [22], [23], [24]] {
        let (disk, acknowledged, failed) = run_failing(Vec::leak(fails.to_vec()), commit);
        assert_eq!((acknowledged, failed), (SCRIPT.len() as u64, 0), "failing {fails:?}");
        check_recovers(&disk, acknowledged);
    }
}

#[test]
fn failures_of_two_commits_are_survived_and_two_failures_of_one_poison() {
    let (disk, acknowledged, failed) = run_failing(&[2, 9], |call| call == Call::SyncData);
    assert_eq!((acknowledged, failed), (SCRIPT.len() as u64, 0));
    check_recovers(&disk, acknowledged);
    for first in [1u64, 2, 3, 5, 8, 11] {
        let fails = Vec::leak(vec![first, first + 1]);
        let (disk, acknowledged, failed) = run_failing(fails, |call| call == Call::SyncData);
        assert!(failed > 0, "failing {fails:?}");
        check_recovers(&disk, acknowledged);
    }
}

#[test]
fn a_failed_segment_is_removed_by_the_next_trim() {
    let disk = Arc::new(ProbeDisk::new(MemoryDisk::new()));
    let (journal, _, _) = open_with(disk.clone(), SMALL, 0, &[head(1)]).unwrap();
    append_all(&journal, &[10]);
    let mut failures = 1;
    disk.before(move |_, call| match call {
        Call::SyncData if failures > 0 => {
            failures -= 1;
            Err(io::Error::from_raw_os_error(5))
        }
        _ => Ok(()),
    });
    append_all(&journal, &[10]);
    disk.take_calls();
    journal.trim(1, head(2)).unwrap();
    assert_eq!(disk.take_calls(), [Call::Remove, Call::SyncDir]);
    append_all(&journal, &[10]);
    let (recovery, replayed) = read(&disk.memory.crash(), 1, &[head(2), head(1)]);
    assert_eq!((recovery.damage, replayed), (None, vec![(2, payload(2, 10)), (3, payload(3, 10))]));
}

#[test]
fn a_commit_left_in_the_page_cache_by_a_dead_process_becomes_durable_at_opening() {
    let disk = Arc::new(ProbeDisk::new(MemoryDisk::new()));
    let (journal, _, _) = open_with(disk.clone(), SMALL, 0, &[head(1)]).unwrap();
    append_all(&journal, &[10]);
    disk.before(|_, call| match call {
        Call::SyncData | Call::Create => Err(io::Error::from_raw_os_error(5)),
        _ => Ok(()),
    });
    assert!(matches!(journal.append(&payload(2, 20)), Err(Error::Poisoned { .. })));
    assert_eq!(read(&disk.memory.crash(), 0, &[head(1)]).1, expected(&[10]), "it is not on the disk");
    let reborn = disk.memory.kill();
    let disk = Arc::new(ProbeDisk::new(reborn.clone()));
    let (journal, _, replayed) = open_with(disk.clone(), SMALL, 0, &[head(1)]).unwrap();
    assert_eq!(replayed, expected(&[10, 20]), "but in the page cache");
    // A sync of what the page cache holds would prove nothing after the earlier one failed: it is written again.
    assert!(disk.take_calls().ends_with(&[Call::Write, Call::SyncData]));
    append_all(&journal, &[30]);
    assert_eq!(open(&reborn.crash(), 0, &[head(1)]).2, expected(&[10, 20, 30]));
}

#[test]
fn a_full_disk_is_told_and_does_no_harm() {
    let disk = Arc::new(ProbeDisk::new(MemoryDisk::new()));
    let (journal, _, _) = open_with(disk.clone(), SMALL, 0, &[head(1)]).unwrap();
    append_all(&journal, &[10]);
    disk.before(|_, call| match call {
        Call::Write | Call::Create => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    assert!(matches!(journal.append(&[0; 9]), Err(Error::NoSpace { .. })), "a filesystem that copies on write");
    disk.before(|_, call| match call {
        Call::Create => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    append_all(&journal, &[10, 20_000]);
    assert!(matches!(journal.append(&[0; 9000]), Err(Error::JournalFull { .. })), "no further segment");
    assert!(journal.free_bytes() < 32 << 10, "space that is not there is not promised");
    journal.trim(3, head(2)).unwrap();
    append_all(&journal, &[9000]);
    assert_eq!(read(&disk.memory.crash(), 3, &[head(2)]).1, [(4, payload(4, 9000))]);
}

#[test]
fn a_journal_that_cannot_make_its_first_segment_does_not_open() {
    for call in [Call::CreateDir, Call::Create, Call::Allocate, Call::Write, Call::SyncAll, Call::Rename] {
        let disk = Arc::new(ProbeDisk::new(MemoryDisk::new()));
        disk.before(move |_, seen| match seen == call {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        });
        assert!(matches!(open_with(disk.clone(), SMALL, 0, &[]), Err(Error::NoSpace { .. })), "{call:?}");
        disk.before(|_, _| Ok(()));
        append_all(&open_with(disk.clone(), SMALL, 0, &[head(1)]).unwrap().0, &[10]);
        assert_eq!(read(&disk.memory.crash(), 0, &[head(1)]).1, expected(&[10]));
    }
}

#[test]
fn a_segment_whose_name_was_not_synced_gets_it_synced_by_the_next_opening() {
    let disk = Arc::new(ProbeDisk::new(MemoryDisk::new()));
    let mut syncs = 0;
    disk.before(move |_, call| {
        syncs += u64::from(call == Call::SyncDir);
        // The process dies after the rename of its first segment: nothing works any more.
        match syncs > 3 {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    });
    assert!(open_with(disk.clone(), SMALL, 0, &[]).is_err());
    let reborn = disk.memory.kill();
    assert!(reborn.metadata(&dir().join("0000000000000001")).unwrap().is_some());
    append_all(&open(&reborn, 0, &[head(1)]).0, &[10]);
    assert_eq!(read(&reborn.crash(), 0, &[head(1)]).1, expected(&[10]));
}

#[test]
fn a_segment_that_cannot_be_made_is_tried_a_second_time() {
    for call in [Call::Create, Call::Allocate, Call::SyncAll, Call::Rename, Call::SyncDir] {
        let disk = Arc::new(ProbeDisk::new(MemoryDisk::new()));
        let (journal, _, _) = open_with(disk.clone(), SMALL, 0, &[head(1)]).unwrap();
        let mut failed = false;
        disk.before(move |_, seen| match seen == call && !failed {
            true => {
                failed = true;
                Err(io::Error::from_raw_os_error(5))
            }
            false => Ok(()),
        });
        append_all(&journal, &[20_000; 3]);
        check_recovered_lengths(&disk.memory, &[20_000; 3]);
    }
}

fn check_recovered_lengths(disk: &MemoryDisk, lengths: &[usize]) {
    let (recovery, replayed) = read(&disk.crash(), 0, &[head(1)]);
    assert_eq!((recovery.damage, replayed), (None, expected(lengths)));
}
