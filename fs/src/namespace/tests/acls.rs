//! Access control lists: what they do to modes, and what new inodes inherit.

use super::*;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const MASK: u16 = 16;
const OTHER: u16 = 32;

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn extended(owner: u16, group: u16, mask: u16, other: u16) -> Vec<u8> {
    let none = u32::MAX;
    acl(&[(USER_OBJ, owner, none), (USER, 6, 1000), (GROUP_OBJ, group, none), (MASK, mask, none), (OTHER, other, none)])
}

fn set(bench: &mut Bench, ino: Ino, name: &[u8], value: &[u8]) -> Result<()> {
    let time = bench.now();
    bench.live().set_xattr(&SetXattrArgs { ino, name, value, mode: XattrMode::Set, time })
}

fn create(bench: &mut Bench, parent: Ino, name: &[u8], kind: FileKind, mode: u32, umask: u32) -> Ino {
    let mode = bench.view().create_mode(parent, kind, mode, umask).unwrap();
    let (ino, time) = (bench.next_ino(), bench.now());
    let args = CreateArgs { parent, name, ino, kind, mode, uid: 1, gid: 2, rdev: 0, target: b"", time };
    bench.live().create(&args).unwrap();
    ino
}

#[test]
fn an_access_list_sets_the_mode_and_a_mode_sets_the_list() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    set(&mut bench, file, ACCESS, &extended(7, 5, 4, 1)).unwrap();
    assert_eq!(bench.inode(file).mode, 0o741, "the group bits of the mode are the mask");
    let ctime = bench.now();
    let change = AttributeChange { mode: Some(0o4620), ctime, ..Default::default() };
    bench.live().set_attr(file, &change).unwrap();
    assert_eq!(bench.view().get_xattr(file, ACCESS).unwrap(), extended(6, 5, 2, 0));
    set(&mut bench, file, ACCESS, &extended(7, 7, 7, 7)).unwrap();
    assert_eq!(bench.inode(file).mode, 0o4777, "bits above the nine stay");
}

#[test]
fn a_list_that_says_no_more_than_the_mode_is_not_kept() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    set(&mut bench, file, ACCESS, &extended(7, 5, 4, 1)).unwrap();
    let minimal = acl(&[(USER_OBJ, 6, u32::MAX), (GROUP_OBJ, 4, u32::MAX), (OTHER, 0, u32::MAX)]);
    set(&mut bench, file, ACCESS, &minimal).unwrap();
    assert_eq!(bench.inode(file).mode, 0o640);
    assert!(matches!(bench.view().get_xattr(file, ACCESS), Err(Error::NoAttribute(_))));
    set(&mut bench, file, ACCESS, &acl(&[])).unwrap();
}

#[test]
fn a_default_list_is_inherited_and_stands_in_for_the_umask() {
    let mut bench = Bench::new();
    let dir = bench.dir(Ino::ROOT, b"d");
    set(&mut bench, dir, DEFAULT, &extended(7, 7, 7, 5)).unwrap();
    assert_eq!(bench.inode(dir).mode, 0o755, "a default list leaves the mode");
    let file = create(&mut bench, dir, b"f", FileKind::Regular, 0o666, 0o077);
    assert_eq!(bench.inode(file).mode, 0o664);
    assert_eq!(bench.view().get_xattr(file, ACCESS).unwrap(), extended(6, 7, 6, 4));
    assert!(matches!(bench.view().get_xattr(file, DEFAULT), Err(Error::NoAttribute(_))));
    let sub = create(&mut bench, dir, b"s", FileKind::Directory, 0o777, 0o077);
    assert_eq!(bench.inode(sub).mode, 0o775);
    assert_eq!(bench.view().get_xattr(sub, DEFAULT).unwrap(), extended(7, 7, 7, 5));
    let deep = create(&mut bench, sub, b"f", FileKind::Regular, 0o600, 0);
    assert_eq!(bench.inode(deep).mode, 0o600);
    let plain = create(&mut bench, Ino::ROOT, b"f", FileKind::Regular, 0o666, 0o027);
    assert_eq!(bench.inode(plain).mode, 0o640, "without a default list the umask counts");
}

#[test]
fn a_symbolic_link_inherits_nothing() {
    let mut bench = Bench::new();
    let dir = bench.dir(Ino::ROOT, b"d");
    set(&mut bench, dir, DEFAULT, &extended(7, 7, 7, 5)).unwrap();
    let link = bench.make(dir, b"l", FileKind::Symlink).unwrap();
    assert!(matches!(bench.view().get_xattr(link, ACCESS), Err(Error::NoAttribute(_))));
    assert_eq!(bench.view().create_mode(dir, FileKind::Symlink, 0o777, 0o077).unwrap(), 0o777);
    assert!(matches!(set(&mut bench, link, ACCESS, &extended(7, 7, 7, 5)), Err(Error::Unsupported(_))));
}

#[test]
fn malformed_lists_and_default_lists_of_files_are_refused() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    let none = u32::MAX;
    let bad = [
        vec![],
        vec![1, 0, 0, 0],
        vec![2, 0, 0, 0, 1],
        acl(&[(USER_OBJ, 7, none)]),
        acl(&[(GROUP_OBJ, 7, none), (USER_OBJ, 7, none), (OTHER, 7, none)]),
        acl(&[(USER_OBJ, 8, none), (GROUP_OBJ, 7, none), (OTHER, 7, none)]),
        acl(&[(USER_OBJ, 7, none), (USER, 7, 5), (GROUP_OBJ, 7, none), (OTHER, 7, none)]),
        acl(&[(USER_OBJ, 7, none), (GROUP_OBJ, 7, none), (OTHER, 7, none), (64, 7, none)]),
    ];
    let before = bench.records();
    for value in bad {
        assert!(matches!(set(&mut bench, file, ACCESS, &value), Err(Error::InvalidArgument(_))), "{value:?}");
    }
    assert!(matches!(set(&mut bench, file, DEFAULT, &extended(7, 7, 7, 7)), Err(Error::Access(_))));
    assert_eq!(bench.records(), before);
}

#[test]
fn replay_of_a_create_under_a_default_list_gives_the_same_records() {
    let mut benches = [Bench::new(), Bench::new()];
    let trees = benches.each_mut().map(|bench| {
        let dir = bench.dir(Ino::ROOT, b"d");
        set(bench, dir, DEFAULT, &extended(7, 5, 5, 0)).unwrap();
        create(bench, dir, b"f", FileKind::Regular, 0o666, 0o022);
        bench.records()
    });
    assert_eq!(trees[0], trees[1]);
}
