//! Tests of the records: round trips, edge values and hostile bytes.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use vellum_store::id::{BlobId, HeadHash};

use super::{
    dirent::{Dirent, DirentRef, first_cookie, last_cookie},
    extent::{BLOB_BYTES_MAX, Extent},
    inode::{FLAGS_KNOWN, FileKind, Inode, SIZE_MAX, WriteClass},
    op::{self, Op, Part},
    volume::{self, SnapshotRecord, VolumeState},
    xattr::{self, Joiner, PART_BYTES, XATTR_VALUE_MAX},
    *,
};

/// A small generator of numbers, so that a printed seed repeats a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Decodes cut, changed and random bytes: nothing may panic, and what is accepted must be what would be written.
fn attack<T: Debug>(good: &[u8], decode: impl Fn(&[u8]) -> Result<T>, encode: impl Fn(&T) -> Vec<u8>) {
    let mut random = Random(0x5eed);
    let value = decode(good).unwrap();
    assert_eq!(encode(&value), good);
    for cut in 0..good.len() {
        if let Ok(value) = decode(&good[..cut]) {
            assert_eq!(encode(&value), &good[..cut], "cut at {cut}: {value:?}");
        }
    }
    for _ in 0..5000 {
        let mut bad = good.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bad.len());
            bad[at] = random.next() as u8;
        }
        if random.below(4) == 0 {
            bad.push(random.next() as u8);
        }
        match decode(&bad) {
            Ok(value) => assert_eq!(encode(&value), bad, "{value:?}"),
            Err(error) => assert!(error.is_damage(), "{error}"),
        }
    }
}

fn times() -> Vec<Time> {
    [
        (0, 0),
        (1_700_000_000, 123_456_789),
        (1_700_000_000, 123_456_790),
        (-5, 999_999_999),
        (i64::MIN, 0),
        (i64::MAX, 1),
    ]
    .into_iter()
    .map(|(sec, nsec)| Time::new(sec, nsec).unwrap())
    .collect()
}

fn inode() -> Inode {
    Inode {
        nlink: 1,
        size: 123_456,
        allocated: 100_000,
        parent: Ino(42),
        parent_cookie: 0x1234_5678_9abc_0000,
        mtime: Time::new(1_600_000_000, 5).unwrap(),
        ctime: Time::new(1_700_000_000, 900).unwrap(),
        ..Inode::new(FileKind::Regular, 0o644, 1000, 100, Time::new(1_700_000_000, 7).unwrap())
    }
}

#[test]
fn inodes_round_trip_whatever_their_times_are() {
    for atime in times() {
        for mtime in times() {
            for ctime in times() {
                for btime in times() {
                    let inode = Inode { atime, mtime, ctime, btime, ..inode() };
                    assert_eq!(Inode::decode(Ino(9), &inode.encode()).unwrap(), inode);
                }
            }
        }
    }
}

#[test]
fn inodes_of_all_kinds_and_extreme_numbers_round_trip() {
    for kind in (1..=7).map(|kind| FileKind::from_u8(kind).unwrap()) {
        let inode = Inode {
            kind,
            mode: 0o7777,
            uid: u32::MAX,
            gid: u32::MAX,
            nlink: u32::MAX,
            size: SIZE_MAX,
            allocated: u64::MAX,
            rdev: u64::MAX,
            flags: FLAGS_KNOWN,
            generation: u32::MAX,
            class: WriteClass::Random,
            parent: Ino::MAX,
            parent_cookie: u64::MAX,
            ..inode()
        };
        assert_eq!(Inode::decode(Ino(9), &inode.encode()).unwrap(), inode);
    }
    assert_eq!(FileKind::from_u8(0), None);
    assert_eq!(FileKind::from_u8(8), None);
}

#[test]
fn a_fresh_inode_is_short_and_equal_times_cost_nothing() {
    let fresh = Inode { nlink: 1, ..Inode::new(FileKind::Regular, 0o644, 1000, 1000, times()[1]) };
    assert!(fresh.encode().len() <= 36, "{}", fresh.encode().len());
    let later = Inode { ctime: times()[2], mtime: times()[2], ..fresh.clone() };
    assert_eq!(later.encode().len(), fresh.encode().len() + 1, "a nanosecond later is one byte");
}

#[test]
fn hostile_inodes_are_refused_and_named() {
    attack(&inode().encode(), |bytes| Inode::decode(Ino(9), bytes), Inode::encode);
    let error = Inode::decode(Ino(77), &[0xff; 4]).unwrap_err();
    assert!(error.to_string().contains("inode 77"), "{error}");
}

#[test]
fn entries_round_trip_and_hostile_ones_are_refused() {
    let entry = Dirent { ino: Ino(300), kind: FileKind::Directory, name: "Größe \u{1f600}".into() };
    attack(&entry.encode(), Dirent::decode, Dirent::encode);
    let bytes = Dirent { name: vec![0xff; 255], ..entry.clone() }.encode();
    assert_eq!(DirentRef::decode(&bytes).unwrap().name, [0xff; 255]);
    let mut slash = entry.encode();
    *slash.last_mut().unwrap() = b'/';
    assert!(Dirent::decode(&slash).unwrap_err().is_damage());
}

#[test]
fn cookies_ignore_case_and_need_the_key() {
    let (a, b) = ([1; 32], [2; 32]);
    assert_eq!(first_cookie(&a, b"Makefile"), first_cookie(&a, b"MAKEFILE"));
    assert_ne!(first_cookie(&a, b"Makefile"), first_cookie(&b, b"Makefile"));
    for i in 0..1000u32 {
        let first = first_cookie(&a, &i.to_le_bytes());
        assert!(first >= 1 << 16 && last_cookie(first) < 1 << 63 && first & 0xffff == 0);
        assert_eq!(last_cookie(first) - first, 65_535);
    }
    // Part of the format: a fixed vector.
    assert_eq!(first_cookie(&[7; 32], b"a name"), 1_275_132_864_443_973_632);
}

#[test]
fn extents_round_trip_and_hostile_ones_are_refused() {
    let whole = Extent { offset: 4096, length: 65_536, blob: BlobId([3; 32]), blob_offset: 0, blob_length: 65_536 };
    let part = Extent { length: 100, blob_offset: 65_436, ..whole };
    let head = Extent { length: 100, ..whole };
    assert_eq!(whole.encode().len(), 35);
    for extent in [whole, part, head] {
        attack(&extent.encode(), |bytes| Extent::decode(4096, bytes), Extent::encode);
    }
    assert_eq!(part.end(), 4196);
    assert!(Extent::decode(SIZE_MAX, &whole.encode()).is_err(), "past the largest file");
    let mut writer = Writer::new();
    writer.bytes(&[3; 32]);
    writer.uvar(u64::from(BLOB_BYTES_MAX) + 1);
    assert!(Extent::decode(0, &writer.0).is_err(), "longer than any blob");
}

#[test]
fn attribute_values_of_any_length_come_together_again() {
    for length in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, XATTR_VALUE_MAX] {
        let value: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let parts = xattr::split(&value);
        assert!(parts.iter().all(|part| part.len() <= VALUE_BYTES_MAX));
        let mut joiner = Joiner::new(&parts[0]).unwrap();
        for part in &parts[1..] {
            assert!(!joiner.is_complete());
            joiner.push(part).unwrap();
        }
        assert_eq!(joiner.length(), length);
        assert_eq!(joiner.finish().unwrap(), value);
    }
}

#[test]
fn attribute_parts_that_do_not_fit_are_damage() {
    let parts = xattr::split(&[1; 20_000]);
    let mut joiner = Joiner::new(&parts[0]).unwrap();
    assert!(joiner.push(&parts[2]).is_err());
    joiner.push(&parts[1]).unwrap();
    assert!(joiner.finish().unwrap_err().is_damage());
    assert!(Joiner::new(&[]).is_err());
    assert!(Joiner::new(&[0xff, 0xff, 0xff, 0x7f]).is_err(), "a length beyond the bound allocates nothing");
    assert!(Joiner::new(&[3, 1, 2]).is_err());
}

#[test]
fn volume_records_round_trip_and_hostile_ones_are_refused() {
    let state = VolumeState { next_ino: Ino(1 << 40), op_sequence: 7, next_snapshot: 3, created: times()[1] };
    attack(&state.encode(), VolumeState::decode, VolumeState::encode);
    attack(&volume::encode_head(&HeadHash([5; 32])), volume::decode_head, volume::encode_head);
    attack(&volume::encode_snapshot_id(12), volume::decode_snapshot_id, |id| volume::encode_snapshot_id(*id));
    for (held, deleted) in [(false, None), (true, None), (false, Some(times()[2])), (true, Some(times()[3]))] {
        let snapshot = SnapshotRecord {
            id: 4,
            name: b"before upgrade".to_vec(),
            root: BlobId([8; 32]),
            time: times()[1],
            op_sequence: 1 << 33,
            comment: "päckchen".into(),
            held,
            deleted,
        };
        attack(&snapshot.encode(), |bytes| SnapshotRecord::decode(4, bytes), SnapshotRecord::encode);
    }
}

fn operations() -> Vec<Op> {
    let time = times()[1];
    let (parent, ino, name) = (Ino(5), Ino(6), b"name".to_vec());
    let extent = Extent { offset: 8192, length: 10, blob: BlobId([1; 32]), blob_offset: 5, blob_length: 99 };
    let create = |kind, target: &[u8]| Op::Create {
        parent,
        name: name.clone(),
        ino,
        kind,
        mode: 0o600,
        uid: 1,
        gid: 2,
        rdev: 0x100_0000_0003,
        target: target.to_vec(),
        time,
    };
    let rename = |flags, whiteout| Op::Rename {
        parent,
        name: name.clone(),
        new_parent: Ino(9),
        new_name: b"other".to_vec(),
        flags,
        whiteout,
        time,
    };
    let (mode, uid, gid, atime, mtime) = (Some(0o755), Some(1), Some(u32::MAX), Some(times()[2]), Some(times()[3]));
    vec![
        create(FileKind::CharDevice, b""),
        create(FileKind::Symlink, &[b'x'; TARGET_BYTES_MAX]),
        Op::Link { ino, parent, name: name.clone(), time },
        Op::Unlink { parent, name: name.clone(), time },
        Op::Rmdir { parent, name: name.clone(), time },
        rename(op::RENAME_NO_REPLACE, None),
        rename(op::RENAME_WHITEOUT, Some(Ino(77))),
        Op::SetAttr { ino, mode, uid, gid, atime, mtime, ctime: time },
        Op::SetAttr { ino, mode: None, uid: None, gid, atime: None, mtime, ctime: time },
        Op::SetXattr { ino, name: b"user.a".to_vec(), value: vec![9; 300], time },
        Op::RemoveXattr { ino, name: b"user.a".to_vec(), time },
        Op::SetFlags { ino, flags: FLAGS_KNOWN, time },
        Op::Data { ino, size: 0, atime: time, mtime: time, ctime: time, parts: vec![] },
        Op::Data {
            ino,
            size: 1 << 40,
            atime: time,
            mtime: time,
            ctime: time,
            parts: vec![
                Part::Bytes { offset: 3, data: vec![4; 70] },
                Part::Zero { offset: 1 << 30, length: 1 << 39 },
                Part::Extent { extent, place: vec![1, 2, 3] },
            ],
        },
    ]
}

#[test]
fn operations_round_trip_and_hostile_ones_are_refused() {
    for (sequence, op) in operations().into_iter().enumerate() {
        let sequence = sequence as u64 + (1 << 40);
        let bytes = op.encode(sequence);
        assert_eq!(Op::decode(&bytes).unwrap(), (sequence, op));
        attack(&bytes, Op::decode, |(sequence, op)| op.encode(*sequence));
    }
}

#[test]
fn a_commit_gives_its_operations_back_in_order() {
    let mut payload = Vec::new();
    for (sequence, op) in operations().iter().enumerate() {
        op::frame(&mut payload, &op.encode(sequence as u64));
    }
    let mut found = Vec::new();
    op::for_each(&payload, &mut |sequence, op| {
        assert_eq!(sequence, found.len() as u64);
        found.push(op);
        Ok(())
    })
    .unwrap();
    assert_eq!(found, operations());
    assert!(op::for_each(&payload[..payload.len() - 1], &mut |_, _| Ok(())).unwrap_err().is_damage());
    assert!(op::for_each(&[0xff; 8], &mut |_, _| Ok(())).unwrap_err().is_damage());
}

#[test]
fn signed_numbers_round_trip_at_their_ends() {
    for value in [0, -1, 1, i64::MIN, i64::MAX, 63, -64, 64] {
        let mut writer = Writer::new();
        write_ivar(&mut writer, value);
        let mut reader = Reader::new(&writer.0, "number");
        assert_eq!(read_ivar(&mut reader).unwrap(), value);
        reader.finish().unwrap();
    }
}
