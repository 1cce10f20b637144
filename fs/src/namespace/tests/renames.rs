//! Renames over everything, and with every flag.

use super::*;

const NO_REPLACE: RenameFlags = RenameFlags { no_replace: true, exchange: false, whiteout: false };
const EXCHANGE: RenameFlags = RenameFlags { no_replace: false, exchange: true, whiteout: false };
const WHITEOUT: RenameFlags = RenameFlags { no_replace: false, exchange: false, whiteout: true };

const KINDS: [FileKind; 7] = [
    FileKind::Regular,
    FileKind::Directory,
    FileKind::Symlink,
    FileKind::Fifo,
    FileKind::CharDevice,
    FileKind::BlockDevice,
    FileKind::Socket,
];

#[test]
fn everything_replaces_everything_that_the_rules_allow() {
    for source in KINDS {
        for target in KINDS {
            let mut bench = Bench::new();
            let (a, b) = (bench.dir(Ino::ROOT, b"a"), bench.dir(Ino::ROOT, b"b"));
            let (moved, old) = (bench.make(a, b"x", source).unwrap(), bench.make(b, b"y", target).unwrap());
            let before = bench.records();
            let result = bench.rename((a, b"x"), (b, b"y"));
            match (source.is_directory(), target.is_directory()) {
                (true, false) => assert!(matches!(result, Err(Error::NotDirectory(_))), "{source:?} {target:?}"),
                (false, true) => assert!(matches!(result, Err(Error::IsDirectory(_))), "{source:?} {target:?}"),
                _ => {
                    let replaced = Some(Removed { ino: old, kind: target, nlink: 0 });
                    assert_eq!(result.unwrap(), Renamed { moved, replaced, exchanged: None, changed: true });
                    assert_eq!(bench.view().lookup(b, b"y").unwrap(), (moved, source));
                    assert_eq!((bench.orphans(), bench.inode(a).nlink), (vec![old], 2));
                    assert_eq!(bench.inode(b).nlink, 2 + u32::from(source.is_directory()));
                    continue;
                }
            }
            assert_eq!(bench.records(), before, "what is refused changes nothing");
        }
    }
}

#[test]
fn a_directory_with_entries_is_not_replaced() {
    let mut bench = Bench::new();
    let (_, b) = (bench.dir(Ino::ROOT, b"a"), bench.dir(Ino::ROOT, b"b"));
    bench.file(b, b"f");
    assert!(matches!(bench.rename((Ino::ROOT, b"a"), (Ino::ROOT, b"b")), Err(Error::NotEmpty(_))));
    bench.unlink(b, b"f").unwrap();
    bench.rename((Ino::ROOT, b"a"), (Ino::ROOT, b"b")).unwrap();
    assert_eq!(bench.inode(Ino::ROOT).nlink, 3);
}

#[test]
fn a_directory_moves_neither_into_itself_nor_below_and_neither_is_exchanged() {
    let mut bench = Bench::new();
    let a = bench.dir(Ino::ROOT, b"a");
    let b = bench.dir(a, b"b");
    let c = bench.dir(b, b"c");
    for dir in [a, b, c] {
        assert!(matches!(bench.rename((Ino::ROOT, b"a"), (dir, b"x")), Err(Error::InvalidArgument(_))));
    }
    assert!(matches!(bench.rename_with((Ino::ROOT, b"a"), (b, b"c"), EXCHANGE), Err(Error::InvalidArgument(_))));
    assert!(matches!(bench.rename_with((b, b"c"), (Ino::ROOT, b"a"), EXCHANGE), Err(Error::InvalidArgument(_))));
    assert!(matches!(bench.rename((b, b"c"), (Ino::ROOT, b"a")), Err(Error::NotEmpty(_))));
    bench.rename((b, b"c"), (Ino::ROOT, b"c")).unwrap();
    bench.rename((Ino::ROOT, b"a"), (c, b"a")).unwrap();
    assert_eq!(bench.view().path_of(b).unwrap(), [b"c".to_vec(), b"a".to_vec(), b"b".to_vec()]);
}

#[test]
fn two_names_of_one_file_are_left_alone_by_a_rename_of_one_to_the_other() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"a");
    bench.link(file, Ino::ROOT, b"b").unwrap();
    let before = bench.records();
    for flags in [RenameFlags::default(), EXCHANGE, WHITEOUT] {
        assert!(!bench.rename_with((Ino::ROOT, b"a"), (Ino::ROOT, b"b"), flags).unwrap().changed);
        assert!(!bench.rename_with((Ino::ROOT, b"a"), (Ino::ROOT, b"a"), flags).unwrap().changed);
    }
    assert_eq!(bench.records(), before);
}

#[test]
fn no_replace_refuses_a_name_that_exists() {
    let mut bench = Bench::new();
    let a = bench.file(Ino::ROOT, b"a");
    bench.file(Ino::ROOT, b"b");
    assert!(matches!(bench.rename_with((Ino::ROOT, b"a"), (Ino::ROOT, b"b"), NO_REPLACE), Err(Error::Exists(_))));
    assert!(matches!(bench.rename_with((Ino::ROOT, b"a"), (Ino::ROOT, b"a"), NO_REPLACE), Err(Error::Exists(_))));
    bench.rename_with((Ino::ROOT, b"a"), (Ino::ROOT, b"c"), NO_REPLACE).unwrap();
    assert_eq!(bench.view().lookup(Ino::ROOT, b"c").unwrap().0, a);
}

#[test]
fn an_exchange_swaps_a_directory_with_entries_and_a_file_across_directories() {
    let mut bench = Bench::new();
    let (a, b) = (bench.dir(Ino::ROOT, b"a"), bench.dir(Ino::ROOT, b"b"));
    let (dir, file) = (bench.dir(a, b"dir"), bench.file(b, b"file"));
    let inner = bench.file(dir, b"inner");
    bench.link(file, a, b"other").unwrap();
    let done = bench.rename_with((a, b"dir"), (b, b"file"), EXCHANGE).unwrap();
    assert_eq!(done, Renamed { moved: dir, replaced: None, exchanged: Some(file), changed: true });
    assert_eq!(bench.view().lookup(a, b"dir").unwrap(), (file, FileKind::Regular));
    assert_eq!(bench.view().lookup(b, b"file").unwrap(), (dir, FileKind::Directory));
    assert_eq!((bench.inode(a).nlink, bench.inode(b).nlink), (2, 3));
    assert_eq!(bench.view().parent_of(dir).unwrap(), b);
    assert_eq!(bench.view().path_of(inner).unwrap(), [b"b".to_vec(), b"file".to_vec(), b"inner".to_vec()]);
    assert_eq!(bench.view().links_of(file).unwrap().len(), 2);
    assert_eq!(bench.inode(a).size, 2 * ENTRY_BYTES);
    assert!(matches!(bench.rename_with((a, b"dir"), (b, b"none"), EXCHANGE), Err(Error::NotFound(_))));
}

#[test]
fn a_whiteout_takes_the_old_name() {
    let mut bench = Bench::new();
    let dir = bench.dir(Ino::ROOT, b"d");
    let file = bench.file(dir, b"f");
    bench.rename_with((dir, b"f"), (dir, b"g"), WHITEOUT).unwrap();
    let (whiteout, kind) = bench.view().lookup(dir, b"f").unwrap();
    let inode = bench.inode(whiteout);
    assert_eq!((kind, inode.rdev, inode.mode, inode.nlink), (FileKind::CharDevice, 0, 0, 1));
    assert_eq!(bench.view().path_of(whiteout).unwrap(), [b"d".to_vec(), b"f".to_vec()]);
    assert_eq!(bench.view().lookup(dir, b"g").unwrap().0, file);
    assert_eq!(bench.inode(dir).size, 2 * ENTRY_BYTES);
}

#[test]
fn flags_that_exclude_each_other_are_refused() {
    let mut bench = Bench::new();
    bench.file(Ino::ROOT, b"a");
    bench.file(Ino::ROOT, b"b");
    for other in [NO_REPLACE, WHITEOUT] {
        let flags = RenameFlags { exchange: true, ..other };
        let result = bench.rename_with((Ino::ROOT, b"a"), (Ino::ROOT, b"b"), flags);
        assert!(matches!(result, Err(Error::InvalidArgument(_))));
    }
    assert_eq!(RenameFlags::from_bits(8), None);
    for bits in 0..8 {
        assert_eq!(RenameFlags::from_bits(bits).map(RenameFlags::bits), Some(bits));
    }
}

#[test]
fn a_rename_moves_the_ctime_of_the_inode_and_both_times_of_both_directories() {
    let mut bench = Bench::new();
    let (a, b) = (bench.dir(Ino::ROOT, b"a"), bench.dir(Ino::ROOT, b"b"));
    let (file, old) = (bench.file(a, b"f"), bench.file(b, b"g"));
    bench.link(old, a, b"kept").unwrap();
    let before = bench.inode(file);
    bench.rename((a, b"f"), (b, b"g")).unwrap();
    let time = Time { sec: bench.clock, nsec: 5 };
    let after = bench.inode(file);
    assert_eq!((after.ctime, after.mtime), (time, before.mtime));
    assert_eq!((bench.inode(old).ctime, bench.inode(old).nlink), (time, 1));
    for dir in [a, b] {
        assert_eq!((bench.inode(dir).mtime, bench.inode(dir).ctime), (time, time));
    }
}

#[test]
fn a_rename_in_a_chain_of_a_thousand_directories_looks_only_upwards() {
    let mut bench = Bench::new();
    let mut at = Ino::ROOT;
    for _ in 0..1000 {
        at = bench.dir(at, b"d");
    }
    let side = bench.dir(Ino::ROOT, b"side");
    bench.rename((Ino::ROOT, b"side"), (at, b"side")).unwrap();
    assert_eq!(bench.view().path_of(side).unwrap().len(), 1001);
    assert!(matches!(bench.rename((Ino::ROOT, b"d"), (side, b"d")), Err(Error::InvalidArgument(_))));
}
