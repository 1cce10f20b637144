//! Targets for single records: those of the tree, operations of the journal, instants as people write them.

use jiff::tz::{Offset, TimeZone};
use vellum_store::id::{BlobId, HeadHash};

use super::Input;
use crate::{
    content::extents,
    error::Result,
    format::{
        dirent::{Dirent, first_cookie, last_cookie},
        extent::Extent,
        inode::{FLAG_NO_DUMP, FileKind, Inode, SIZE_MAX, WriteClass},
        key::KeyParts,
        op::{self, Op, Part, RENAME_EXCHANGE},
        volume::{SnapshotRecord, VolumeState, decode_head, decode_snapshot_id, encode_head, encode_snapshot_id},
        xattr::{Joiner, split},
    },
    ino::Ino,
    name,
    namespace::RenameFlags,
    time::Time,
    volume::instant::parse_instant,
};

/// What a record is, as its first byte says.
const DECODERS: [fn(&[u8]) -> bool; 11] = [
    |bytes| same(bytes, Inode::decode(Ino(5), bytes).map(|inode| inode.encode())),
    dirent,
    extent,
    xattr,
    |bytes| same(bytes, VolumeState::decode(bytes).map(|state| state.encode())),
    |bytes| same(bytes, decode_head(bytes).map(|hash| encode_head(&hash))),
    |bytes| same(bytes, decode_snapshot_id(bytes).map(encode_snapshot_id)),
    |bytes| same(bytes, SnapshotRecord::decode(7, bytes).map(|record| record.encode())),
    key,
    folded,
    |bytes| {
        let bits = u32::from_le_bytes(Input(bytes).array());
        RenameFlags::from_bits(bits).is_some_and(|flags| flags.bits() == bits)
    },
];

pub(super) fn record(data: &[u8]) -> bool {
    let Some((&kind, bytes)) = data.split_first() else { return false };
    DECODERS[usize::from(kind) % DECODERS.len()](bytes)
}

/// Says whether something was decoded; then it must have been encoded into the same bytes.
fn same(bytes: &[u8], again: Result<Vec<u8>>) -> bool {
    let Ok(again) = again else { return false };
    assert_eq!(again, bytes);
    true
}

fn dirent(bytes: &[u8]) -> bool {
    let Ok(entry) = Dirent::decode(bytes) else { return false };
    let first = first_cookie(&[7; 32], &entry.name);
    assert!(first >= 1 << 16 && last_cookie(first) < 1 << 63);
    same(bytes, Ok(entry.encode()))
}

fn extent(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let offset = u64::from_be_bytes(input.array());
    let Ok(extent) = Extent::decode(offset, input.0) else { return false };
    assert!(extent.end() <= SIZE_MAX);
    let middle = extent.offset + extent.length / 2;
    let half = extents::part(&extent, middle..extent.end());
    assert_eq!(Extent::decode(middle, &half.encode()).ok(), Some(half));
    same(input.0, Ok(extent.encode()))
}

/// Parts, each behind its length.
fn xattr(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let mut part = || {
        let length = input.u16();
        input.take(length.into()).to_vec()
    };
    let first = part();
    let Ok(mut joiner) = Joiner::new(&first) else { return false };
    let mut parts = vec![first];
    while !joiner.is_complete() {
        let next = part();
        if joiner.push(&next).is_err() {
            assert!(joiner.finish().is_err());
            return false;
        }
        parts.push(next);
    }
    let value = joiner.finish().expect("it is complete");
    assert_eq!(split(&value), parts);
    true
}

fn key(bytes: &[u8]) -> bool {
    let Some(parts) = KeyParts::parse(bytes) else { return false };
    let again = [&parts.ino.0.to_be_bytes()[..], &[parts.kind], parts.subkey].concat();
    assert_eq!(again, bytes);
    parts.number().is_some() | parts.parent().is_some() | parts.xattr().is_some() | parts.volume().is_some()
}

fn folded(bytes: &[u8]) -> bool {
    let folded = name::fold(bytes);
    assert_eq!(name::fold(&folded), folded, "folding again changes nothing");
    assert!(name::same_folded(bytes, &folded));
    name::check(bytes).is_ok()
}

fn an_inode(kind: FileKind) -> Inode {
    let time = |sec, nsec| Time { sec, nsec };
    Inode {
        nlink: 2,
        size: 70_000,
        allocated: 65_536,
        rdev: 8 << 32 | 1,
        flags: FLAG_NO_DUMP,
        class: WriteClass::Random,
        parent: Ino(3),
        parent_cookie: 0x3e61_a7b2_5fcd_0000,
        ctime: time(1_700_000_003, 5),
        mtime: time(1_700_000_003, 5),
        atime: time(-4, 999_999_999),
        ..Inode::new(kind, 0o4755, 1000, 70_000, time(1_700_000_000, 7))
    }
}

fn an_extent(offset: u64, length: u32) -> Extent {
    Extent { offset, length: u64::from(length), blob: BlobId([0x33; 32]), blob_offset: 4096, blob_length: 65_536 }
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let time = Time { sec: 1_700_000_000, nsec: 250 };
    let dirent = Dirent { ino: Ino(300), kind: FileKind::Directory, name: "Straße é.TXT".into() };
    let state = VolumeState { next_ino: Ino(34), op_sequence: 300, next_snapshot: 2, created: time };
    let snapshot = |deleted| SnapshotRecord {
        id: 7,
        name: b"monday".to_vec(),
        root: BlobId([4; 32]),
        time,
        op_sequence: 99,
        comment: "before the upgrade".into(),
        held: true,
        deleted,
    };
    let (whole, value) = (Extent { blob_offset: 0, ..an_extent(0, 65_536) }, vec![7; 8100]);
    let xattr = |value: &[u8]| -> Vec<u8> {
        let behind_length = |part: &Vec<u8>| [&(part.len() as u16).to_le_bytes()[..], part].concat();
        split(value).iter().flat_map(behind_length).collect()
    };
    let seed = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    vec![
        seed(0, an_inode(FileKind::Regular).encode()),
        seed(0, Inode::new(FileKind::Directory, 0o755, 0, 0, time).encode()),
        seed(1, dirent.encode()),
        seed(2, [&4096u64.to_be_bytes()[..], &an_extent(4096, 1000).encode()].concat()),
        seed(2, [&0u64.to_be_bytes()[..], &whole.encode()].concat()),
        seed(3, xattr(b"value")),
        seed(3, xattr(&value)),
        seed(4, state.encode()),
        seed(5, encode_head(&HeadHash([4; 32]))),
        seed(6, encode_snapshot_id(7)),
        seed(7, snapshot(None).encode()),
        seed(7, snapshot(Some(time)).encode()),
        seed(8, crate::format::key::xattr(Ino(4), b"user.a", 1).to_vec()),
        seed(8, crate::format::key::parent(Ino(4), Ino(1), 65_536).to_vec()),
        seed(9, "Straße é.TXT\u{1c5}\u{345}".into()),
        seed(10, vec![3, 0, 0, 0]),
    ]
}

/// The payload of a journal commit, and the same bytes as one record.
pub(super) fn op(data: &[u8]) -> bool {
    let single = Op::decode(data).map(|(sequence, op)| op.encode(sequence));
    let mut again = Vec::new();
    let all = op::for_each(data, &mut |sequence, op| {
        op::frame(&mut again, &op.encode(sequence));
        Ok(())
    });
    assert!(data.starts_with(&again));
    same(data, single) | (all.is_ok() && same(data, Ok(again)))
}

/// One operation of each kind.
pub(super) fn an_op_of_each_kind() -> Vec<Op> {
    let (time, name) = (Time { sec: 1_700_000_001, nsec: 9 }, || b"name".to_vec());
    let (parent, ino, kind) = (Ino::ROOT, Ino(40), FileKind::Symlink);
    let target = b"some/target".to_vec();
    let parts = vec![
        Part::Bytes { offset: 10, data: vec![1; 20] },
        Part::Zero { offset: 100, length: 1 << 40 },
        Part::Extent { extent: an_extent(4096, 1000), place: vec![2; 10] },
    ];
    vec![
        Op::Create { parent, name: name(), ino, kind, mode: 0o777, uid: 1, gid: 2, rdev: 0, target, time },
        Op::Link { ino: Ino(2), parent, name: b"second".to_vec(), time },
        Op::Unlink { parent, name: name(), time },
        Op::Rmdir { parent, name: b"dir".to_vec(), time },
        Op::Rename {
            parent,
            name: b"file".to_vec(),
            new_parent: Ino(3),
            new_name: b"moved".to_vec(),
            flags: RENAME_EXCHANGE,
            whiteout: Some(Ino(41)),
            time,
        },
        Op::SetAttr {
            ino: Ino(2),
            mode: Some(0o600),
            uid: None,
            gid: Some(7),
            atime: None,
            mtime: Some(time),
            ctime: time,
        },
        Op::SetXattr { ino: Ino(2), name: b"user.a".to_vec(), value: vec![5; 9000], time },
        Op::RemoveXattr { ino: Ino(2), name: b"user.a".to_vec(), time },
        Op::SetFlags { ino: Ino(2), flags: 5, time },
        Op::Data { ino: Ino(2), size: 1 << 41, atime: time, mtime: time, ctime: time, parts },
    ]
}

pub(super) fn op_seeds() -> Vec<Vec<u8>> {
    let ops = an_op_of_each_kind();
    let frame = |ops: &[Op]| {
        let mut payload = Vec::new();
        (5..).zip(ops).for_each(|(sequence, op)| op::frame(&mut payload, &op.encode(sequence)));
        payload
    };
    let single = ops.iter().map(|op| op.encode(4));
    single.chain([frame(&ops[..3]), frame(&ops[7..])]).collect()
}

/// The present in seconds, a byte for the zone, then what was typed.
pub(super) fn instant(data: &[u8]) -> bool {
    let mut input = Input(data);
    let now = Time { sec: i64::from_le_bytes(input.array()), nsec: 0 };
    let zone = match input.u8() {
        0 => TimeZone::UTC,
        1 => TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("the rule is well-formed"),
        hours => Offset::constant(hours as i8 % 26).to_time_zone(),
    };
    // Names of snapshots are made of any time.
    assert!(now.to_name().ends_with('Z'));
    let text = String::from_utf8_lossy(input.0);
    let Some(at) = parse_instant(&text, now, &zone) else { return false };
    assert!(at.nsec < 1_000_000_000);
    if text.starts_with('-') {
        assert!(at <= Time::from_nanos(now.as_nanos()), "{text:?} looks back");
    }
    true
}

pub(super) fn instant_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "now",
        "today",
        "yesterday",
        "-2h",
        "-90s",
        "-1w",
        "2026-11-20",
        "2026-11-20T14:05",
        "2026-11-20_14-05-07",
        "2026-11-20T14:05Z",
        "2026-03-29T02:30",
        "2026-11-20T14:05+02:00",
        "14:05",
    ];
    let seed = |text: &&str| [&1_795_292_246i64.to_le_bytes()[..], &[1], text.as_bytes()].concat();
    texts.iter().map(seed).collect()
}
