//! Extended attributes.

use super::*;
use crate::format::{key, xattr::XATTR_VALUE_MAX};

fn set(bench: &mut Bench, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
    let time = bench.now();
    bench.live().set_xattr(&SetXattrArgs { ino, name, value, mode, time })
}

fn names(bench: &Bench, ino: Ino) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    let mut take = |name: &[u8]| {
        names.push(name.to_vec());
        ControlFlow::Continue(())
    };
    bench.view().list_xattr(ino, &mut take).unwrap();
    names
}

#[test]
fn values_from_empty_to_64_kib_are_kept_and_larger_ones_refused() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    for length in [0, 1, 7999, 8000, 8001, 16_000, XATTR_VALUE_MAX, 24_001, 3] {
        let value: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
        set(&mut bench, file, b"user.v", &value, XattrMode::Set).unwrap();
        assert_eq!(bench.view().get_xattr(file, b"user.v").unwrap(), value);
    }
    let parts = bench.records().iter().filter(|(key, _)| key[8] == key::XATTR).count();
    assert_eq!(parts, 1, "a shorter value leaves no part of a longer one");
    let large = vec![0; XATTR_VALUE_MAX + 1];
    let refused = set(&mut bench, file, b"user.v", &large, XattrMode::Set);
    assert!(matches!(refused, Err(Error::AttributeTooBig(_))));
}

#[test]
fn create_and_replace_look_whether_the_attribute_is_there() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    assert!(matches!(set(&mut bench, file, b"user.a", b"1", XattrMode::Replace), Err(Error::NoAttribute(_))));
    set(&mut bench, file, b"user.a", b"1", XattrMode::Create).unwrap();
    assert!(matches!(set(&mut bench, file, b"user.a", b"2", XattrMode::Create), Err(Error::Exists(_))));
    set(&mut bench, file, b"user.a", b"3", XattrMode::Replace).unwrap();
    assert_eq!(bench.view().get_xattr(file, b"user.a").unwrap(), b"3");
}

#[test]
fn names_need_a_known_namespace_and_at_most_255_bytes() {
    let mut bench = Bench::new();
    let link = bench.make(Ino::ROOT, b"l", FileKind::Symlink).unwrap();
    for name in [&b"user.x"[..], b"trusted.x", b"security.capability"] {
        set(&mut bench, link, name, b"v", XattrMode::Set).unwrap();
    }
    for name in [&b"system.other"[..], b"system.posix_acl_accesses", b"x", b"os2.name"] {
        assert!(matches!(set(&mut bench, link, name, b"v", XattrMode::Set), Err(Error::Unsupported(_))), "{name:?}");
        assert!(matches!(bench.view().get_xattr(link, name), Err(Error::Unsupported(_))));
    }
    assert!(matches!(set(&mut bench, link, b"user.", b"v", XattrMode::Set), Err(Error::InvalidArgument(_))));
    assert!(matches!(set(&mut bench, link, b"user.a\0b", b"v", XattrMode::Set), Err(Error::InvalidArgument(_))));
    let mut name = b"user.".to_vec();
    name.resize(255, b'n');
    set(&mut bench, link, &name, b"v", XattrMode::Set).unwrap();
    name.push(b'n');
    assert!(matches!(set(&mut bench, link, &name, b"v", XattrMode::Set), Err(Error::Range(_))));
    assert!(matches!(set(&mut bench, link, b"", b"v", XattrMode::Set), Err(Error::Range(_))));
}

#[test]
fn removing_takes_one_attribute_whole_and_leaves_those_with_a_longer_name() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    for name in [&b"user.a"[..], b"user.ab", b"user.a.b"] {
        set(&mut bench, file, name, &[9; 30_000], XattrMode::Set).unwrap();
    }
    let before = bench.inode(file).ctime;
    let time = bench.now();
    bench.live().remove_xattr(file, b"user.a", time).unwrap();
    assert!(bench.inode(file).ctime > before);
    assert_eq!(names(&bench, file), [b"user.a.b".to_vec(), b"user.ab".to_vec()]);
    assert_eq!(bench.view().get_xattr(file, b"user.ab").unwrap(), [9; 30_000]);
    assert!(matches!(bench.live().remove_xattr(file, b"user.a", time), Err(Error::NoAttribute(_))));
    assert!(matches!(bench.view().get_xattr(file, b"user.a"), Err(Error::NoAttribute(_))));
    assert!(matches!(bench.view().get_xattr(Ino(99), b"user.a"), Err(Error::NotFound(_))));
}

#[test]
fn the_names_of_one_inode_never_outgrow_a_list() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    let mut set_all = || {
        for i in 0..1000 {
            let mut name = format!("user.{i}.").into_bytes();
            name.resize(255, b'x');
            set(&mut bench, file, &name, b"", XattrMode::Set)?;
        }
        Ok(())
    };
    let full: Result<()> = set_all();
    assert!(matches!(full, Err(Error::NoSpace(_))));
    let listed = names(&bench, file);
    assert_eq!(listed.len(), 256, "as many names of 255 bytes and a zero as fit 64 KiB");
    set(&mut bench, file, &listed[0], b"again", XattrMode::Set).unwrap();
}

#[test]
fn a_value_with_a_missing_part_is_damage() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    set(&mut bench, file, b"user.a", &[1; 20_000], XattrMode::Set).unwrap();
    bench.tree.remove(&key::xattr(file, b"user.a", 1)).unwrap();
    assert!(bench.view().get_xattr(file, b"user.a").unwrap_err().is_damage());
}
