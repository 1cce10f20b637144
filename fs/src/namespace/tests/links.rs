//! Hard links, unlinked inodes and the records by which an inode knows its names.

use super::*;
use crate::format::key;

#[test]
fn a_file_with_names_in_two_directories_keeps_both_right_when_the_first_goes() {
    let mut bench = Bench::new();
    let (a, b) = (bench.dir(Ino::ROOT, b"a"), bench.dir(Ino::ROOT, b"b"));
    let file = bench.file(a, b"first");
    bench.link(file, b, b"second").unwrap();
    bench.link(file, b, b"third").unwrap();
    assert_eq!(bench.inode(file).nlink, 3);
    assert_eq!(bench.view().path_of(file).unwrap(), [b"a".to_vec(), b"first".to_vec()]);

    assert_eq!(bench.unlink(a, b"first").unwrap().nlink, 2);
    assert_eq!(bench.inode(file).parent, b, "a further name takes the place of the first");
    let links = bench.view().links_of(file).unwrap();
    let mut names: Vec<_> = links.iter().map(|&link| bench.view().name_at(file, link).unwrap()).collect();
    names.sort();
    assert_eq!(names, [b"second".to_vec(), b"third".to_vec()]);

    bench.unlink(b, b"second").unwrap();
    bench.unlink(b, b"third").unwrap();
    assert_eq!(bench.orphans(), [file]);
    assert!(bench.records().iter().all(|(key, _)| key[8] != key::PARENT), "no record of a name is left");
}

#[test]
fn a_rename_moves_the_right_one_of_several_names() {
    let mut bench = Bench::new();
    let (a, b) = (bench.dir(Ino::ROOT, b"a"), bench.dir(Ino::ROOT, b"b"));
    let file = bench.file(a, b"one");
    bench.link(file, a, b"two").unwrap();
    bench.rename((a, b"two"), (b, b"deux")).unwrap();
    bench.rename((a, b"one"), (b, b"un")).unwrap();
    assert!(bench.list(a).is_empty());
    assert_eq!(bench.view().links_of(file).unwrap().len(), 2);
    for link in bench.view().links_of(file).unwrap() {
        assert_eq!(link.parent, b);
        bench.view().name_at(file, link).unwrap();
    }
    assert_eq!(bench.view().path_of(file).unwrap(), [b"b".to_vec(), b"un".to_vec()]);
}

#[test]
fn link_and_unlink_move_the_ctime_of_the_inode_and_both_times_of_the_directory() {
    let mut bench = Bench::new();
    let dir = bench.dir(Ino::ROOT, b"d");
    let file = bench.file(dir, b"f");
    let made = bench.inode(file);
    bench.link(file, dir, b"g").unwrap();
    let (linked, after) = (bench.inode(file), bench.inode(dir));
    assert!(linked.ctime > made.ctime && linked.mtime == made.mtime);
    assert_eq!((after.mtime, after.ctime), (linked.ctime, linked.ctime));
    bench.unlink(dir, b"g").unwrap();
    let (unlinked, after) = (bench.inode(file), bench.inode(dir));
    assert!(unlinked.ctime > linked.ctime && unlinked.mtime == made.mtime);
    assert_eq!((after.mtime, after.ctime), (unlinked.ctime, unlinked.ctime));
}

#[test]
fn directories_and_the_nameless_get_no_further_name() {
    let mut bench = Bench::new();
    let (dir, file) = (bench.dir(Ino::ROOT, b"d"), bench.file(Ino::ROOT, b"f"));
    assert!(matches!(bench.link(dir, Ino::ROOT, b"x"), Err(Error::NotPermitted(_))));
    assert!(matches!(bench.link(file, Ino::ROOT, b"d"), Err(Error::Exists(_))));
    assert!(matches!(bench.link(file, file, b"x"), Err(Error::NotDirectory(_))));
    bench.unlink(Ino::ROOT, b"f").unwrap();
    assert!(matches!(bench.link(file, Ino::ROOT, b"x"), Err(Error::NotFound(_))));
}

#[test]
fn a_file_has_at_most_as_many_names_as_the_limit() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    let mut inode = bench.inode(file);
    inode.nlink = LINKS_MAX - 1;
    bench.live().put_inode(file, &inode).unwrap();
    bench.link(file, Ino::ROOT, b"last").unwrap();
    let before = bench.records();
    assert!(matches!(bench.link(file, Ino::ROOT, b"more"), Err(Error::TooManyLinks(_))));
    assert_eq!(bench.records(), before, "what is refused changes nothing");
}

#[test]
fn an_unlinked_inode_stays_readable_until_it_is_dropped() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    let time = bench.now();
    let set = SetXattrArgs { ino: file, name: b"user.a", value: &[1; 20_000], mode: XattrMode::Set, time };
    bench.live().set_xattr(&set).unwrap();
    assert!(matches!(bench.live().drop_inode(file), Err(Error::Busy(_))), "it still has a name");
    bench.unlink(Ino::ROOT, b"f").unwrap();
    assert_eq!((bench.inode(file).nlink, bench.orphans()), (0, vec![file]));
    assert_eq!(bench.view().get_xattr(file, b"user.a").unwrap().len(), 20_000);
    let time = bench.now();
    let change = AttributeChange { mode: Some(0o600), ctime: time, ..Default::default() };
    bench.live().set_attr(file, &change).unwrap();
    bench.live().drop_inode(file).unwrap();
    bench.live().drop_inode(file).unwrap();
    assert!(bench.orphans().is_empty());
    assert_eq!(bench.records().len(), 1, "only the root is left");
}

#[test]
fn dropping_an_inode_leaves_its_neighbours() {
    let mut bench = Bench::new();
    let made: Vec<Ino> = (0..3u8).map(|i| bench.file(Ino::ROOT, &[b'a' + i])).collect();
    bench.unlink(Ino::ROOT, b"b").unwrap();
    bench.live().drop_inode(made[1]).unwrap();
    bench.inode(made[0]);
    bench.inode(made[2]);
    assert!(bench.view().inode(made[1]).unwrap_err().is_not_found());
}

#[test]
fn a_removed_directory_can_be_looked_at_but_takes_nothing_in() {
    let mut bench = Bench::new();
    let dir = bench.dir(Ino::ROOT, b"d");
    let file = bench.file(Ino::ROOT, b"f");
    assert_eq!(bench.inode(Ino::ROOT).nlink, 3);
    bench.rmdir(Ino::ROOT, b"d").unwrap();
    assert_eq!((bench.inode(dir).nlink, bench.inode(Ino::ROOT).nlink), (0, 2));
    assert!(matches!(bench.make(dir, b"x", FileKind::Regular), Err(Error::NotFound(_))));
    assert!(matches!(bench.link(file, dir, b"x"), Err(Error::NotFound(_))));
    assert!(matches!(bench.rename((Ino::ROOT, b"f"), (dir, b"x")), Err(Error::NotFound(_))));
    assert!(matches!(bench.view().parent_of(dir), Err(Error::NotFound(_))));
    let mut count = 0;
    let mut take = |_: DirEntry<'_>| {
        count += 1;
        ControlFlow::Continue(())
    };
    bench.view().read_dir(dir, 0, &mut take).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn a_set_gid_directory_hands_on_its_group_and_to_directories_the_bit() {
    let mut bench = Bench::new();
    let dir = bench.dir(Ino::ROOT, b"d");
    let ctime = bench.now();
    let change = AttributeChange { mode: Some(0o2755), gid: Some(77), ctime, ..Default::default() };
    bench.live().set_attr(dir, &change).unwrap();
    let (file, sub) = (bench.file(dir, b"f"), bench.dir(dir, b"s"));
    assert_eq!((bench.inode(file).gid, bench.inode(file).mode), (77, 0o755));
    assert_eq!((bench.inode(sub).gid, bench.inode(sub).mode), (77, 0o2755));
}

#[test]
fn damaged_records_of_names_are_told_and_not_followed() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    let mut inode = bench.inode(file);
    inode.nlink = 2;
    bench.live().put_inode(file, &inode).unwrap();
    assert!(bench.unlink(Ino::ROOT, b"f").unwrap_err().is_damage(), "it claims a name that it does not know");

    let mut bench = Bench::new();
    let (a, b) = (bench.dir(Ino::ROOT, b"a"), bench.dir(Ino::ROOT, b"b"));
    let (mut first, mut second) = (bench.inode(a), bench.inode(b));
    (first.parent, second.parent) = (b, a);
    bench.live().put_inode(a, &first).unwrap();
    bench.live().put_inode(b, &second).unwrap();
    assert!(bench.view().path_of(a).unwrap_err().is_damage(), "a cycle of parents ends");
    let file = bench.dir(Ino::ROOT, b"c");
    assert!(bench.view().is_below(a, file).unwrap_err().is_damage());
}

#[test]
fn a_name_that_says_file_does_not_remove_a_directory() {
    let mut bench = Bench::new();
    let dir = bench.dir(Ino::ROOT, b"d");
    bench.file(dir, b"f");
    let link = bench.view().links_of(dir).unwrap()[0];
    bench.live().put_dirent(link, dir, FileKind::Regular, b"d").unwrap();
    assert!(bench.unlink(Ino::ROOT, b"d").unwrap_err().is_damage());
    bench.live().put_dirent(link, Ino(99), FileKind::Regular, b"d").unwrap();
    assert!(bench.unlink(Ino::ROOT, b"d").unwrap_err().is_damage(), "nor is a lost inode taken for a missing name");
}
