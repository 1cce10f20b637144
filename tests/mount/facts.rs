//! What can be told of a tree from outside, to be compared with another one; and a tree with one of everything.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, FileTimes, Metadata},
    io::{Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};

/// Everything that a copy must keep of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    modified: (i64, i64),
    device: u64,
    links: u64,
    target: Option<PathBuf>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Option<blake3::Hash>,
    twin: Option<PathBuf>,
}

impl Fact {
    /// The same, where the tree is seen from one directory higher.
    pub fn below(mut self, dir: &Path) -> Self {
        self.twin = self.twin.map(|twin| dir.join(twin));
        self
    }
}

/// The entries of a tree by their paths in it.
pub type Facts = BTreeMap<PathBuf, Fact>;

/// Looks at everything below `root`.
pub fn facts(root: &Path) -> Facts {
    let mut found = Facts::new();
    let mut first_names = HashMap::new();
    look(root, Path::new(""), &mut found, &mut first_names);
    found
}

fn look(root: &Path, dir: &Path, found: &mut Facts, first_names: &mut HashMap<u64, PathBuf>) {
    let mut names: Vec<_> = fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let inside = dir.join(name);
        let path = root.join(&inside);
        let data = path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        found.insert(inside.clone(), fact(&path, &inside, &data, first_names));
        if data.is_dir() {
            look(root, &inside, found, first_names);
        }
    }
}

fn fact(path: &Path, inside: &Path, data: &Metadata, first_names: &mut HashMap<u64, PathBuf>) -> Fact {
    let file = data.is_file();
    let linked = !data.is_dir() && data.nlink() > 1;
    let twin = linked.then(|| first_names.entry(data.ino()).or_insert_with(|| inside.to_owned()).clone());
    let special = !data.is_dir() && !file && !data.is_symlink();
    Fact {
        mode: data.mode(),
        owner: (data.uid(), data.gid()),
        size: if data.is_dir() { 0 } else { data.size() },
        modified: (data.mtime(), data.mtime_nsec()),
        device: if special { data.rdev() } else { 0 },
        links: if data.is_dir() { 0 } else { data.nlink() },
        target: data.is_symlink().then(|| fs::read_link(path).unwrap()),
        xattrs: xattrs(path),
        content: file.then(|| hash(path)),
        twin,
    }
}

/// The hash of a file's content.
pub fn hash(path: &Path) -> blake3::Hash {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if count == 0 {
            return hasher.finalize();
        }
        hasher.update(&buffer[..count]);
    }
}

/// The extended attributes, ACLs included.
pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65_536];
    let Ok(length) = llistxattr(path, &mut list[..]) else {
        return BTreeMap::new();
    };
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 65_536];
        let length = lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        (name.to_vec(), value)
    };
    names.map(value).collect()
}

/// Sets an extended attribute.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Fails with the first differences, if there are any.
pub fn assert_same(expected: &Facts, found: &Facts, why: &str) {
    let mut differences = Vec::new();
    for (path, fact) in expected {
        match found.get(path) {
            None => differences.push(format!("{} is missing", path.display())),
            Some(other) if other != fact => {
                differences.push(format!("{}: expected {fact:#?}\nfound {other:#?}", path.display()));
            }
            Some(_) => {}
        }
    }
    let surplus = found.keys().filter(|path| !expected.contains_key(*path));
    differences.extend(surplus.map(|path| format!("{} should not be there", path.display())));
    let count = differences.len();
    differences.truncate(5);
    assert!(count == 0, "{why}: {count} differences, the first of them:\n{}", differences.join("\n"));
}

/// An access control list as the kernel takes it: rights of a named user, of the group, and the mask.
fn acl(user: u32, rights: u16) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries = [(0x01, 6, NOBODY), (0x02, rights, user), (0x04, 4, NOBODY), (0x10, 6, NOBODY), (0x20, 4, NOBODY)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(rights));
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

fn set_modified(path: &Path, time: SystemTime) {
    let file = File::open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
}

/// One of everything that a Linux filesystem can hold.
pub fn make_zoo(root: &Path) {
    fs::create_dir(root).unwrap();
    let at = |name: &str| root.join(name);
    for size in [0, 1, 100, 2047, 2048, 2049, 4096, 65_536, 300_000] {
        fs::write(at(&format!("size-{size}")), super::site::noise(size, size as usize)).unwrap();
    }
    fs::write(at("text"), "the same line\n".repeat(20_000)).unwrap();
    make_links(root);
    for (name, kind, device) in [
        ("fifo", SFlag::S_IFIFO, 0),
        ("null", SFlag::S_IFCHR, makedev(1, 3)),
        ("disk", SFlag::S_IFBLK, makedev(259, 70_000)),
    ] {
        mknod(&at(name), kind, Mode::from_bits_truncate(0o640), device).unwrap();
    }
    drop(UnixListener::bind(at("socket")).unwrap());
    make_names(root);
    for mode in [0o000, 0o400, 0o755, 0o1777, 0o2711, 0o4755, 0o6755] {
        let path = at(&format!("mode-{mode:o}"));
        fs::write(&path, "x").unwrap();
        std::os::unix::fs::chown(&path, Some(1234), Some(4_000_000_000)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    make_attributes(root);
    make_sparse(&at("sparse"));
    make_sparse(&at("sparse-odd"));
    File::options().write(true).open(at("sparse-odd")).unwrap().set_len((32 << 20) + 12_345).unwrap();
    File::create(at("all-hole")).unwrap().set_len(5_000_001).unwrap();
    let epoch = SystemTime::UNIX_EPOCH;
    for (name, time) in [
        ("before-1970", epoch - Duration::new(86_400, 123_456_789)),
        ("after-2038", epoch + Duration::new(5_000_000_000, 1)),
        ("nanoseconds", epoch + Duration::new(1_700_000_000, 999_999_999)),
    ] {
        fs::write(at(name), name).unwrap();
        set_modified(&at(name), time);
    }
    set_modified(&at("deep"), epoch + Duration::new(1_600_000_000, 5));
}

fn make_links(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("deep/er/and/deeper")).unwrap();
    fs::hard_link(at("size-4096"), at("deep/er/link")).unwrap();
    fs::hard_link(at("size-4096"), at("link")).unwrap();
    symlink("size-1", at("short link")).unwrap();
    symlink("x/".repeat(2047) + "y", at("longest link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    fs::hard_link(at("dangling"), at("dangling too")).unwrap();
}

fn make_names(root: &Path) {
    fs::write(root.join("n".repeat(255)), "longest").unwrap();
    let odd: [&[u8]; 6] = [b"\xff\xfe\x80", b"new\nline", b" ", b"-rf", b"\xc3\xa4", b"a\xcc\x88"];
    for name in odd {
        fs::write(root.join(std::ffi::OsString::from_vec(name.to_vec())), name).unwrap();
    }
    let mut long = vec![0xf0; 255];
    long[0] = b'd';
    fs::create_dir(root.join(std::ffi::OsStr::from_bytes(&long))).unwrap();
    for name in ["Case", "case", "CASE"] {
        fs::write(root.join(name), name).unwrap();
    }
}

fn make_attributes(root: &Path) {
    let path = root.join("attributes");
    fs::write(&path, "attributes").unwrap();
    set_xattr(&path, "user.short", b"value");
    set_xattr(&path, "user.empty", b"");
    set_xattr(&path, "user.long", &vec![7; 2500]);
    set_xattr(&path, "trusted.overlay.opaque", b"y");
    set_xattr(&path, "system.posix_acl_access", &acl(1234, 6));
    let dir = root.join("default acl");
    fs::create_dir(&dir).unwrap();
    set_xattr(&dir, "system.posix_acl_default", &acl(1234, 7));
    set_xattr(&dir, "user.of a directory", b"1");
}

fn make_sparse(path: &Path) {
    let mut file = File::create(path).unwrap();
    file.write_all(&[1; 5000]).unwrap();
    file.write_all_at(&[2; 100_000], 10 << 20).unwrap();
    file.write_all_at(&[3; 1], (32 << 20) - 1).unwrap();
}
