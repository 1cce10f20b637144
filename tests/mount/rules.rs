//! Rules that every Linux filesystem keeps, one test for each.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    mem::MaybeUninit,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output},
};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, Mode, OFlags, RawDir, RenameFlags, SeekFrom, XattrFlags, fallocate, getxattr,
        listxattr, mkdirat, openat, renameat_with, seek, setxattr, statat, unlinkat,
    },
    io::Errno,
};

use crate::{
    facts::set_xattr,
    site::{Mounted, Site, noise},
};

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// A site whose mountpoint other users can get to.
fn open_site() -> Option<Site> {
    let site = Site::new()?;
    fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    Some(site)
}

/// Runs a line of shell as a user that is not root, in the root of the mount.
fn as_user(mounted: &Mounted<'_>, uid: u32, line: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(mounted.path("")).env("LC_ALL", "C").uid(uid).gid(uid);
    command.output().unwrap()
}

#[track_caller]
fn allowed(output: Output) {
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn denied(output: Output, why: &str) {
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
}

#[test]
fn two_names_of_a_file_are_one_inode() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let (one, two) = (mounted.path("one"), mounted.path("two"));
    fs::write(&one, "first").unwrap();
    let same = |links: u64| {
        let (a, b) = (fs::metadata(&one).unwrap(), fs::metadata(&two).unwrap());
        let told = |data: &fs::Metadata| {
            (data.ino(), data.nlink(), data.len(), data.mode(), data.uid(), data.ctime_nsec(), data.mtime_nsec())
        };
        assert_eq!(told(&a), told(&b));
        assert_eq!(a.nlink(), links);
    };
    fs::metadata(&two).unwrap_err();
    fs::hard_link(&one, &two).unwrap();
    same(2);
    fs::write(&two, "written through the second").unwrap();
    same(2);
    assert_eq!(fs::read_to_string(&one).unwrap(), "written through the second");
    fs::set_permissions(&one, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&two, Some(7), None).unwrap();
    same(2);
    fs::hard_link(&two, mounted.path("three")).unwrap();
    same(3);
    fs::remove_file(mounted.path("three")).unwrap();
    same(2);
    // A rename of one name over another of the same file does nothing.
    fs::rename(&one, &two).unwrap();
    same(2);
    fs::remove_file(&one).unwrap();
    assert_eq!(fs::metadata(&two).unwrap().nlink(), 1);
    mounted.umount();
}

#[test]
fn renames_keep_to_their_flags() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let at = |name: &str| mounted.path(name);
    fs::write(at("a"), "a").unwrap();
    fs::write(at("b"), "b").unwrap();
    fs::create_dir(at("dir")).unwrap();
    let rename = |from: &str, to: &str, flags| renameat_with(CWD, at(from), CWD, at(to), flags);
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(rename("a", "c", RenameFlags::NOREPLACE), Ok(()));
    assert_eq!(rename("c", "dir", RenameFlags::EXCHANGE), Ok(()));
    assert!(at("c").is_dir() && fs::read_to_string(at("dir")).unwrap() == "a");
    assert_eq!(rename("b", "none", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    assert_eq!(rename("b", "d", RenameFlags::WHITEOUT), Ok(()));
    let whiteout = fs::metadata(at("b")).unwrap();
    assert_eq!((whiteout.mode() & libc::S_IFMT, whiteout.rdev()), (libc::S_IFCHR, 0));
    assert_eq!(rename("c", "d", RenameFlags::NOREPLACE | RenameFlags::EXCHANGE), Err(Errno::INVAL));
    assert_eq!(rename("c", "d", RenameFlags::from_bits_retain(64)), Err(Errno::INVAL));
    fs::create_dir(at("c/inner")).unwrap();
    assert_eq!(errno(fs::rename(at("c"), at("c/inner/x"))), libc::EINVAL);
    assert_eq!(errno(fs::rename(at("d"), at("c"))), libc::EISDIR);
    assert_eq!(errno(fs::rename(at("c"), at("d"))), libc::ENOTDIR);
    fs::create_dir(at("e")).unwrap();
    assert_eq!(errno(fs::rename(at("e"), at("c"))), libc::ENOTEMPTY);
    fs::rename(at("c/inner"), at("e")).unwrap();
    mounted.umount();
}

#[test]
fn a_change_of_mode_or_owner_counts_at_once() {
    let Some(site) = open_site() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    fs::write(&path, "content").unwrap();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o600);
    denied(as_user(&mounted, 1000, "cat file"), "Permission denied");
    mode(0o604);
    allowed(as_user(&mounted, 1000, "cat file"));
    std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
    allowed(as_user(&mounted, 1000, "chmod 200 file && echo x > file"));
    denied(as_user(&mounted, 1000, "cat file"), "Permission denied");
    // A sticky directory keeps names from those who own neither it nor them.
    fs::create_dir(mounted.path("tmp")).unwrap();
    fs::set_permissions(mounted.path("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    allowed(as_user(&mounted, 1000, ": > tmp/mine"));
    denied(as_user(&mounted, 2000, "rm -f tmp/mine"), "not permitted");
    denied(as_user(&mounted, 2000, "mv tmp/mine tmp/yours"), "not permitted");
    allowed(as_user(&mounted, 1000, "rm tmp/mine"));
    // Whoever may write may set the times to now, and to nothing else.
    mode(0o666);
    allowed(as_user(&mounted, 2000, "touch file"));
    denied(as_user(&mounted, 2000, "touch -d 2001-01-01 file"), "not permitted");
    mounted.umount();
}

#[test]
fn data_goes_through_a_descriptor_whatever_became_of_the_mode() {
    let Some(site) = open_site() else { return };
    let mounted = site.mount();
    fs::set_permissions(mounted.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let line = "umask 777; exec 3> file; echo kept >&3; exec 3>&-; chmod 400 file; cat file";
    let output = as_user(&mounted, 1000, line);
    assert_eq!(output.stdout, b"kept\n", "{output:?}");
    let mut file = File::options().write(true).create_new(true).mode(0o400).open(mounted.path("read-only")).unwrap();
    file.write_all(&noise(1, 300_000)).unwrap();
    file.sync_all().unwrap();
    file.set_len(100).unwrap();
    drop(file);
    assert!(fs::read(mounted.path("read-only")).unwrap() == noise(1, 100));
    mounted.umount();
}

/// Names, cookies and numbers that a directory lists.
fn list(dir: &File) -> Vec<(Vec<u8>, u64, u64)> {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut listed = Vec::new();
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        listed.push((entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie(), entry.ino()));
    }
    listed
}

#[test]
fn a_listing_resumes_at_every_cookie_and_tells_the_numbers_that_stat_tells() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("dir");
    fs::create_dir(&path).unwrap();
    (0..100).for_each(|number| fs::write(path.join(format!("file{number}")), "x").unwrap());
    fs::create_dir(path.join("sub")).unwrap();
    fs::create_dir(mounted.snapshot("s")).unwrap();
    for path in [path.clone(), mounted.snapshot("s/dir"), mounted.snapshot("s/dir/sub"), mounted.path(".snapshots/s")] {
        let dir = File::open(&path).unwrap();
        let all = list(&dir);
        for (at, (name, cookie, ino)) in all.iter().enumerate() {
            let found = statat(&dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).unwrap();
            assert_eq!(found.st_ino, *ino, "{} in {}", name.escape_ascii(), path.display());
            seek(&dir, SeekFrom::Start(*cookie)).unwrap();
            assert!(list(&dir) == all[at + 1..], "after {}", name.escape_ascii());
        }
        assert_eq!(all.iter().filter(|(name, ..)| matches!(name.as_slice(), b"." | b"..")).count(), 2);
    }
    // Also where the entry of the cookie went away.
    let dir = File::open(&path).unwrap();
    let all = list(&dir);
    let middle = all.iter().position(|(name, ..)| name == b"file50").unwrap();
    fs::remove_file(path.join("file50")).unwrap();
    seek(&dir, SeekFrom::Start(all[middle].1)).unwrap();
    assert!(list(&dir) == all[middle + 1..]);
    drop(dir);
    mounted.umount();
}

#[test]
fn an_open_directory_works_after_its_removal_and_takes_nothing_more() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    for replace in [false, true] {
        let path = mounted.path("dir");
        fs::create_dir(&path).unwrap();
        let dir = File::open(&path).unwrap();
        let ino = dir.metadata().unwrap().ino();
        if replace {
            fs::create_dir(mounted.path("other")).unwrap();
            fs::rename(mounted.path("other"), &path).unwrap();
        } else {
            fs::remove_dir(&path).unwrap();
        }
        let data = dir.metadata().unwrap();
        assert_eq!((data.ino(), data.nlink(), data.is_dir()), (ino, 0, true));
        let mut buffer = [MaybeUninit::uninit(); 1024];
        assert_eq!(RawDir::new(&dir, &mut buffer).next().unwrap().unwrap_err(), Errno::NOENT, "as on ext4");
        assert_eq!(mkdirat(&dir, "x", Mode::RWXU), Err(Errno::NOENT));
        let made = openat(&dir, "x", OFlags::CLOEXEC | OFlags::CREATE | OFlags::WRONLY, Mode::RWXU);
        assert_eq!(made.unwrap_err(), Errno::NOENT);
        dir.sync_all().unwrap();
        drop(dir);
        let _ = fs::remove_dir(&path);
    }
    mounted.umount();
}

#[test]
fn names_links_and_depths_have_the_limits_of_ext4() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let root = File::open(mounted.path("")).unwrap();
    for name in ["x".repeat(255).as_bytes(), "ä".repeat(127).as_bytes(), b"\xff\xfe", b"a\nb\\"] {
        let path = mounted.path(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, name).unwrap();
        assert_eq!(fs::read(&path).unwrap(), name);
    }
    for name in ["x".repeat(256), "ä".repeat(128)] {
        let path = mounted.path(&name);
        assert_eq!(errno(fs::write(&path, "")), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::create_dir(&path)), libc::ENAMETOOLONG);
        assert_eq!(errno(symlink("x", &path)), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::metadata(&path)), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::rename(mounted.path("x".repeat(255)), &path)), libc::ENAMETOOLONG);
    }
    let target = "t".repeat(4095);
    symlink(&target, mounted.path("long")).unwrap();
    assert_eq!(fs::read_link(mounted.path("long")).unwrap().as_os_str(), target.as_str());
    assert_eq!(fs::symlink_metadata(mounted.path("long")).unwrap().len(), 4095);
    assert_eq!(errno(symlink("t".repeat(4096), mounted.path("longer"))), libc::ENAMETOOLONG);
    symlink("round", mounted.path("round")).unwrap();
    assert_eq!(errno(fs::read(mounted.path("round"))), libc::ELOOP);
    // Deeper than any path can say.
    let depth = 300;
    let name = "d".repeat(50);
    let mut dirs = vec![rustix::fd::OwnedFd::from(root)];
    for _ in 0..depth {
        let up = dirs.last().unwrap();
        mkdirat(up, &name, Mode::RWXU).unwrap();
        dirs.push(openat(up, &name, OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty()).unwrap());
    }
    let deepest = dirs.last().unwrap();
    drop(openat(deepest, "file", OFlags::CLOEXEC | OFlags::CREATE | OFlags::RDWR, Mode::RWXU).unwrap());
    let up = statat(deepest, "..", AtFlags::empty()).unwrap().st_ino;
    assert_eq!(up, rustix::fs::fstat(&dirs[depth - 1]).unwrap().st_ino);
    unlinkat(deepest, "file", AtFlags::empty()).unwrap();
    dirs.pop();
    while let Some(dir) = dirs.pop() {
        unlinkat(&dir, &name, AtFlags::REMOVEDIR).unwrap();
    }
    mounted.umount();
}

#[test]
fn fallocate_does_what_it_can_and_refuses_the_rest() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let size = || file.metadata().unwrap().len();
    fallocate(&file, FallocateFlags::empty(), 1000, 9000).unwrap();
    assert_eq!(size(), 10_000);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(size(), 10_000);
    let content = noise(1, 500_000);
    file.write_all_at(&content, 0).unwrap();
    let mut wanted = content.clone();
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 100_001, 200_000).unwrap();
    wanted[100_001..300_001].fill(0);
    fallocate(&file, FallocateFlags::ZERO_RANGE, 400_000, 200_000).unwrap();
    wanted[400_000..].fill(0);
    wanted.resize(600_000, 0);
    fallocate(&file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 590_000, 200_000).unwrap();
    assert!(fs::read(&path).unwrap() == wanted);
    file.sync_all().unwrap();
    assert!(fs::read(&path).unwrap() == wanted);
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE, FallocateFlags::UNSHARE_RANGE] {
        assert_eq!(fallocate(&file, mode, 0, 4096), Err(Errno::OPNOTSUPP), "{mode:?}");
    }
    drop(file);
    mounted.umount();
}

#[test]
fn blocks_count_data_and_not_holes_at_any_moment() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let blocks = |name: &str| fs::metadata(mounted.path(name)).unwrap().blocks();
    fs::write(mounted.path("tiny"), "x").unwrap();
    fs::write(mounted.path("text"), "the same line\n".repeat(100_000)).unwrap();
    fs::copy(mounted.path("text"), mounted.path("twin")).unwrap();
    let sparse = File::create(mounted.path("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(&noise(1, 100_000), 1 << 39).unwrap();
    let check = || {
        assert!((1..=16).contains(&blocks("tiny")), "{}", blocks("tiny"));
        for name in ["text", "twin"] {
            let data = 1_400_000u64.div_ceil(512);
            assert!((data..data + 400).contains(&blocks(name)), "{name}: {}", blocks(name));
        }
        assert!((196..1000).contains(&blocks("sparse")), "{}", blocks("sparse"));
    };
    check();
    sparse.sync_all().unwrap();
    fs::create_dir(mounted.snapshot("s")).unwrap();
    check();
    drop(sparse);
    mounted.umount();
    let mounted = site.mount();
    let blocks = |name: &str| fs::metadata(mounted.path(name)).unwrap().blocks();
    assert_eq!((blocks("tiny"), blocks("twin"), blocks("sparse")), (1, 1_400_000u64.div_ceil(512), 196));
    mounted.umount();
}

#[test]
fn sizes_without_content_cost_nothing_and_end_at_the_largest() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.set_len(999_999_999_999_999).unwrap();
    assert_eq!((file.metadata().unwrap().len(), file.metadata().unwrap().blocks() < 16), (999_999_999_999_999, true));
    file.sync_all().unwrap();
    let largest = i64::MAX as u64;
    file.set_len(largest).unwrap();
    file.write_all_at(b"z", largest - 1).unwrap();
    assert_eq!(file.metadata().unwrap().len(), largest);
    let mut bytes = [1; 2];
    assert_eq!(file.read_at(&mut bytes, largest - 2).unwrap(), 2);
    assert_eq!(&bytes, b"\0z");
    assert_eq!(errno(file.write_all_at(b"z", largest)), libc::EINVAL, "an offset that the kernel does not know");
    assert_eq!(fallocate(&file, FallocateFlags::empty(), largest - 1, 10), Err(Errno::FBIG));
    file.sync_all().unwrap();
    file.set_len(5).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"start");
    drop(file);
    mounted.umount();
}

#[test]
fn extended_attributes_answer_as_on_ext4() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    fs::write(&path, "x").unwrap();
    let set = |name: &str, value: &[u8], flags| setxattr(&path, name, value, flags);
    assert_eq!(set("user.a", b"1", XattrFlags::REPLACE), Err(Errno::NODATA));
    assert_eq!(set("user.a", b"12345", XattrFlags::CREATE), Ok(()));
    assert_eq!(set("user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.a", b"67890", XattrFlags::REPLACE), Ok(()));
    assert_eq!(rustix::fs::getxattr_query(&path, "user.a"), Ok(5));
    assert_eq!(getxattr(&path, "user.a", &mut [0; 3][..]), Err(Errno::RANGE));
    assert_eq!(getxattr(&path, "user.none", &mut [0; 3][..]), Err(Errno::NODATA));
    assert_eq!(listxattr(&path, &mut [0u8; 3][..]), Err(Errno::RANGE));
    assert_eq!(set("user.empty", b"", XattrFlags::empty()), Ok(()));
    assert_eq!(rustix::fs::getxattr_query(&path, "user.empty"), Ok(0));
    assert_eq!(set("user.large", &[7; 65_536], XattrFlags::empty()), Ok(()));
    assert_eq!(set("user.larger", &[7; 65_537], XattrFlags::empty()), Err(Errno::TOOBIG));
    assert_eq!(set(&format!("user.{}", "n".repeat(250)), b"", XattrFlags::empty()), Ok(()));
    assert_eq!(set(&format!("user.{}", "n".repeat(251)), b"", XattrFlags::empty()), Err(Errno::RANGE));
    assert_eq!(set("trusted.a", b"1", XattrFlags::empty()), Ok(()));
    assert_eq!(set("security.a", b"1", XattrFlags::empty()), Ok(()));
    assert_eq!(set("unknown.a", b"1", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
    symlink("file", mounted.path("link")).unwrap();
    set_xattr(&mounted.path("link"), "trusted.of.link", b"1");
    let user = rustix::fs::lsetxattr(mounted.path("link"), "user.of.link", b"1", XattrFlags::empty());
    assert_eq!(user, Err(Errno::PERM));
    mounted.umount();
}

const NOBODY: u32 = u32::MAX;

/// An access control list as the kernel takes it, of tags, rights and ids.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn access_lists_are_enforced_and_inherited_without_the_umask() {
    let Some(site) = open_site() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    fs::write(&path, "content").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    denied(as_user(&mounted, 1000, "cat file"), "Permission denied");
    let list = acl(&[(1, 6, NOBODY), (2, 4, 1000), (4, 0, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)]);
    set_xattr(&path, "system.posix_acl_access", &list);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "the mask shows as the group");
    allowed(as_user(&mounted, 1000, "cat file"));
    denied(as_user(&mounted, 1001, "cat file"), "Permission denied");
    denied(as_user(&mounted, 1000, "echo x >> file"), "Permission denied");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    denied(as_user(&mounted, 1000, "cat file"), "Permission denied");
    let dir = mounted.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let default = acl(&[(1, 7, NOBODY), (2, 6, 1000), (4, 6, NOBODY), (16, 7, NOBODY), (32, 4, NOBODY)]);
    set_xattr(&dir, "system.posix_acl_default", &default);
    allowed(as_user(&mounted, 2000, "umask 077; echo x > dir/file; mkdir dir/sub"));
    assert_eq!(fs::metadata(dir.join("file")).unwrap().mode() & 0o777, 0o664);
    assert_eq!(fs::metadata(dir.join("sub")).unwrap().mode() & 0o777, 0o774);
    allowed(as_user(&mounted, 1000, "cat dir/file && echo more >> dir/file"));
    assert_eq!(rustix::fs::getxattr_query(dir.join("sub"), "system.posix_acl_default"), Ok(default.len()));
    mounted.umount();
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

#[test]
fn locks_of_open_files_and_of_processes_exclude_each_other() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("lock");
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    let (one, two) = (open(), open());
    let (write, read, free) = (whole_file(libc::F_WRLCK), whole_file(libc::F_RDLCK), whole_file(libc::F_UNLCK));
    // Those of open files exclude each other within one process.
    fcntl(&one, FcntlArg::F_OFD_SETLK(&write)).unwrap();
    assert!(fcntl(&two, FcntlArg::F_OFD_SETLK(&read)).is_err());
    fcntl(&one, FcntlArg::F_OFD_SETLK(&read)).unwrap();
    fcntl(&two, FcntlArg::F_OFD_SETLK(&read)).unwrap();
    fcntl(&one, FcntlArg::F_OFD_SETLK(&free)).unwrap();
    fcntl(&two, FcntlArg::F_OFD_SETLK(&free)).unwrap();
    // Those of processes do not, but against those of open files.
    fcntl(&one, FcntlArg::F_SETLK(&write)).unwrap();
    fcntl(&two, FcntlArg::F_SETLK(&write)).unwrap();
    assert!(fcntl(&two, FcntlArg::F_OFD_SETLK(&read)).is_err());
    // Closing any descriptor of the file gives those of the process back.
    drop(open());
    fcntl(&two, FcntlArg::F_OFD_SETLK(&write)).unwrap();
    drop((one, two));
    mounted.umount();
}

#[test]
fn a_mount_honours_devices_and_set_id_bits_only_when_asked_to() {
    let Some(site) = Site::new() else { return };
    let options = |mounted: &Mounted<'_>| {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let place = mounted.path("").display().to_string();
        let place = place.trim_end_matches('/');
        let line = table.lines().find(|line| line.split(' ').nth(4) == Some(place)).unwrap();
        line.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    let mounted = site.mount_with("nosuid,nodev");
    let told = options(&mounted);
    assert!(told.contains(&"nosuid".to_owned()) && told.contains(&"nodev".to_owned()), "{told:?}");
    rustix::fs::mknodat(CWD, mounted.path("null"), rustix::fs::FileType::CharacterDevice, Mode::RWXU, 0x103).unwrap();
    assert_eq!(File::open(mounted.path("null")).unwrap_err().kind(), ErrorKind::PermissionDenied);
    mounted.umount();
    let mounted = site.mount();
    let told = options(&mounted);
    assert!(!told.contains(&"nosuid".to_owned()) && !told.contains(&"nodev".to_owned()), "{told:?}");
    let mut nothing = Vec::new();
    File::open(mounted.path("null")).unwrap().read_to_end(&mut nothing).unwrap();
    assert!(nothing.is_empty());
    mounted.umount();
}

#[test]
fn reads_past_the_cache_see_what_was_written_and_reach_the_file() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    let direct = File::options().read(true).write(true).create_new(true).custom_flags(libc::O_DIRECT).open(&path);
    let direct = direct.unwrap();
    let cached = File::options().read(true).write(true).open(&path).unwrap();
    let content = noise(3, 1 << 20);
    direct.write_all_at(&content, 0).unwrap();
    let mut read = vec![0; content.len()];
    cached.read_exact_at(&mut read, 0).unwrap();
    assert!(read == content);
    cached.write_all_at(&noise(4, 8192), 4096).unwrap();
    direct.read_exact_at(&mut read, 0).unwrap();
    assert!(read[4096..12_288] == noise(4, 8192) && read[12_288..] == content[12_288..]);
    direct.write_all_at(&noise(5, 4096), 8192).unwrap();
    cached.read_exact_at(&mut read, 0).unwrap();
    assert!(read[8192..12_288] == noise(5, 4096));
    drop((direct, cached));
    mounted.umount();
}

/// What the open files of a tree show, by name.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn open_files_without_names_leave_nothing_behind_after_an_unmount() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::write(mounted.path("stays"), "stays").unwrap();
    let files: Vec<File> = (0..20)
        .map(|number| {
            let path = mounted.path(format!("gone{number}"));
            fs::write(&path, noise(number, 200_000)).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            fs::remove_file(&path).unwrap();
            file.set_len(150_000).unwrap();
            file.write_all_at(b"more", 199_996).unwrap();
            assert_eq!((file.metadata().unwrap().nlink(), file.metadata().unwrap().len()), (0, 200_000));
            // Through /proc it can be opened once more.
            let again = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
            assert_eq!(again.metadata().unwrap().ino(), file.metadata().unwrap().ino());
            file
        })
        .collect();
    fs::create_dir(mounted.snapshot("s")).unwrap();
    let only = BTreeMap::from([("stays".to_owned(), b"stays".to_vec())]);
    assert_eq!(contents(&mounted.snapshot("s")), only, "a snapshot has no files without names");
    drop(files);
    mounted.umount();
    let mounted = site.mount();
    assert_eq!(contents(&mounted.path("")), only);
    mounted.umount();
    let told = site.run(["check", "--read-data"], [site.repository()]);
    assert!(told.contains("no damage"), "{told}");
}
