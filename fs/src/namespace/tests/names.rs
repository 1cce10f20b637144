//! Names: any bytes, collisions of their hashes, case.

use super::*;

#[test]
fn any_255_bytes_are_a_name_and_256_are_not() {
    let mut bench = Bench::new();
    let mut random = Random(5);
    for _ in 0..200 {
        let byte = |random: &mut Random| match random.next() as u8 {
            0 | b'/' => 0xff,
            byte => byte,
        };
        let name: Vec<u8> = (0..255).map(|_| byte(&mut random)).collect();
        let ino = bench.file(Ino::ROOT, &name);
        assert_eq!(bench.view().lookup(Ino::ROOT, &name).unwrap(), (ino, FileKind::Regular));
        assert_eq!(bench.view().path_of(ino).unwrap(), [name]);
    }
    assert_eq!(bench.list(Ino::ROOT).len(), 200);
    let long = [b'x'; 256];
    assert!(matches!(bench.make(Ino::ROOT, &long, FileKind::Regular), Err(Error::NameTooLong(_))));
    assert!(matches!(bench.view().lookup(Ino::ROOT, &long), Err(Error::NameTooLong(_))));
    for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
        assert!(matches!(bench.make(Ino::ROOT, bad, FileKind::Regular), Err(Error::InvalidArgument(_))), "{bad:?}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_and_other_normal_forms_are_names_of_their_own() {
    let mut bench = Bench::new();
    let names: [&[u8]; 5] = [b"\xff", b"\xfe", "\u{e4}".as_bytes(), "a\u{308}".as_bytes(), b"\xe4"];
    let made: Vec<Ino> = names.iter().map(|name| bench.file(Ino::ROOT, name)).collect();
    for (name, ino) in names.iter().zip(made) {
        assert_eq!(bench.view().lookup(Ino::ROOT, name).unwrap().0, ino);
    }
}

#[test]
fn a_gap_among_colliding_names_hides_nothing_and_is_filled_again() {
    let mut bench = Bench::colliding();
    for name in [b"a1", b"a2", b"a3"] {
        bench.file(Ino::ROOT, name);
    }
    let cookie = |bench: &Bench, name: &[u8]| {
        let ino = bench.view().lookup(Ino::ROOT, name).unwrap().0;
        bench.inode(ino).parent_cookie
    };
    let gap = cookie(&bench, b"a2");
    bench.unlink(Ino::ROOT, b"a2").unwrap();
    bench.view().lookup(Ino::ROOT, b"a3").unwrap();
    assert!(matches!(bench.make(Ino::ROOT, b"a3", FileKind::Regular), Err(Error::Exists(_))));
    bench.file(Ino::ROOT, b"a4");
    assert_eq!(cookie(&bench, b"a4"), gap);
    assert!(matches!(bench.view().lookup(Ino::ROOT, b"a2"), Err(Error::NotFound(_))));
}

#[test]
fn a_hash_takes_65536_names_and_then_the_directory_is_full_for_it() {
    let mut bench = Bench::with_names(Names::with_hash([0; 32], |_, name| (u64::from(name.len() == 9) + 1) << 16));
    let first = 1 << 16;
    // Entries are laid down directly: each create walks the whole run, which would take minutes.
    for counter in 0..=u64::from(u16::MAX) {
        let link = Link { parent: Ino::ROOT, cookie: first + counter };
        bench.live().put_dirent(link, Ino(2), FileKind::Regular, format!("n{counter}").as_bytes()).unwrap();
    }
    let full = bench.make(Ino::ROOT, b"more", FileKind::Regular);
    assert!(matches!(full, Err(Error::NoSpace(_))));
    bench.file(Ino::ROOT, b"nine-long");
    assert!(matches!(bench.rename((Ino::ROOT, b"nine-long"), (Ino::ROOT, b"more")), Err(Error::NoSpace(_))));
    bench.tree.remove(&key::dirent(Ino::ROOT, first + 40_000)).unwrap();
    let made = bench.file(Ino::ROOT, b"more");
    assert_eq!(bench.inode(made).parent_cookie, first + 40_000);
}

#[test]
fn names_that_differ_in_case_live_side_by_side_and_an_exact_match_wins() {
    let mut bench = Bench::new();
    let (upper, lower) = (bench.file(Ino::ROOT, b"README"), bench.file(Ino::ROOT, b"readme"));
    assert_eq!(bench.view().lookup(Ino::ROOT, b"readme").unwrap().0, lower);
    assert!(matches!(bench.view().lookup(Ino::ROOT, b"ReadMe"), Err(Error::NotFound(_))));
    assert_eq!(bench.view().lookup_folded(Ino::ROOT, b"readme").unwrap().0, lower);
    let (ino, _, name) = bench.view().lookup_folded(Ino::ROOT, b"ReadMe").unwrap();
    assert_eq!((ino, name), (upper, b"README".to_vec()), "the lowest cookie");
    bench.rename((Ino::ROOT, b"readme"), (Ino::ROOT, b"ReadMe")).unwrap();
    assert_eq!(bench.view().lookup_folded(Ino::ROOT, b"ReadMe").unwrap().0, lower);
    assert!(matches!(bench.view().lookup_folded(Ino::ROOT, b"other"), Err(Error::NotFound(_))));
}

#[test]
fn a_link_target_of_4095_bytes_is_kept_and_shows_as_the_size() {
    let mut bench = Bench::new();
    let (ino, time) = (bench.next_ino(), bench.now());
    let target = vec![0xfe; 4095];
    let mut args = CreateArgs {
        parent: Ino::ROOT,
        name: b"l",
        ino,
        kind: FileKind::Symlink,
        mode: 0o777,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: &target,
        time,
    };
    assert_eq!(bench.live().create(&args).unwrap().size, 4095);
    assert_eq!(bench.view().read_link(ino).unwrap(), target);
    let (long, before) = (vec![b'x'; 4096], bench.records());
    (args.name, args.target) = (b"m", &long);
    assert!(matches!(bench.live().create(&args), Err(Error::NameTooLong(_))));
    args.target = b"";
    assert!(matches!(bench.live().create(&args), Err(Error::NotFound(_))));
    args.target = b"a\0b";
    assert!(matches!(bench.live().create(&args), Err(Error::InvalidArgument(_))));
    assert_eq!(bench.records(), before);
    let file = bench.file(Ino::ROOT, b"f");
    assert!(matches!(bench.view().read_link(file), Err(Error::InvalidArgument(_))));
}

#[test]
fn inode_numbers_that_mean_something_else_are_refused() {
    let mut bench = Bench::new();
    let time = bench.now();
    for ino in [Ino::VOLUME, Ino::ROOT, Ino::view(5)] {
        let args = CreateArgs {
            parent: Ino::ROOT,
            name: b"x",
            ino,
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: b"",
            time,
        };
        assert!(matches!(bench.live().create(&args), Err(Error::InvalidArgument(_))), "{ino}");
    }
}

#[test]
fn a_number_that_is_given_out_twice_is_damage() {
    let mut bench = Bench::new();
    bench.file(Ino::ROOT, b"a");
    bench.next_ino -= 1;
    assert!(bench.make(Ino::ROOT, b"b", FileKind::Regular).unwrap_err().is_damage());
}
