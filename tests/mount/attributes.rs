//! Times, flags, set-id bits and handles of files: what `stat`, `chattr` and servers of network filesystems see.

use std::{
    fs::{self, File, FileTimes},
    io::{Read, Write},
    os::unix::{
        fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{IFlags, ioctl_getflags, ioctl_setflags},
    io::Errno,
};

use crate::{
    facts::set_xattr,
    site::{Mounted, Site, fail, have, noise, succeed},
    sys::{self, FileHandle},
};

/// Access, modification and change in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    accessed: i128,
    modified: i128,
    changed: i128,
}

fn times(path: &Path) -> Times {
    let data = fs::symlink_metadata(path).unwrap();
    let nanos = |sec: i64, nsec: i64| i128::from(sec) * 1_000_000_000 + i128::from(nsec);
    Times {
        accessed: nanos(data.atime(), data.atime_nsec()),
        modified: nanos(data.mtime(), data.mtime_nsec()),
        changed: nanos(data.ctime(), data.ctime_nsec()),
    }
}

/// Which times of an inode an operation moves: of its content and of its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moves {
    Nothing,
    Changed,
    Both,
}

/// Does something, and compares which times moved with what should have.
#[track_caller]
fn moves(what: &str, root: &Path, expected: &[(&str, Moves)], act: impl FnOnce()) {
    let before: Vec<Times> = expected.iter().map(|(name, _)| times(&root.join(name))).collect();
    act();
    for ((name, moves), before) in expected.iter().zip(before) {
        let after = times(&root.join(name));
        let moved = (after.modified > before.modified, after.changed > before.changed);
        let right = match moves {
            Moves::Nothing => after == before,
            Moves::Changed => moved == (false, true) && after.modified == before.modified,
            Moves::Both => moved == (true, true),
        };
        assert!(right && after.accessed == before.accessed, "{what}: {name}: {before:?} became {after:?}");
    }
}

#[test]
fn names_that_come_and_go_move_the_times_of_their_directories_and_inodes() {
    use Moves::{Both, Changed, Nothing};
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let root = mounted.path("");
    let at = |name: &str| root.join(name);
    fs::create_dir(at("a")).unwrap();
    fs::create_dir(at("b")).unwrap();
    fs::write(at("a/file"), "content").unwrap();
    fs::write(at("b/other"), "content").unwrap();
    fs::hard_link(at("b/other"), at("b/other too")).unwrap();
    moves("create", &root, &[("a", Both), ("a/file", Nothing), ("b", Nothing), ("", Nothing)], || {
        File::create_new(at("a/new")).unwrap();
    });
    moves("mkdir", &root, &[("a", Both)], || fs::create_dir(at("a/dir")).unwrap());
    moves("symlink", &root, &[("a", Both)], || symlink("x", at("a/symlink")).unwrap());
    moves("link", &root, &[("a/file", Changed), ("b", Both), ("a", Nothing)], || {
        fs::hard_link(at("a/file"), at("b/link")).unwrap();
    });
    moves("unlink", &root, &[("a/file", Changed), ("b", Both), ("a", Nothing)], || {
        fs::remove_file(at("b/link")).unwrap();
    });
    moves("rmdir", &root, &[("a", Both)], || fs::remove_dir(at("a/dir")).unwrap());
    let file = File::open(at("a/file")).unwrap();
    let before = times(&at("a/file"));
    moves("rename over", &root, &[("a", Both), ("b", Both), ("b/other too", Changed)], || {
        fs::rename(at("a/file"), at("b/other")).unwrap();
    });
    let after = times(&at("b/other"));
    assert!(after.changed > before.changed && after.modified == before.modified, "rename over: the file itself");
    assert_eq!(file.metadata().unwrap().ino(), fs::metadata(at("b/other")).unwrap().ino());
    let failed = [("a", Nothing), ("b", Nothing), ("b/other", Nothing), ("", Nothing)];
    moves("what fails", &root, &failed, || {
        File::create_new(at("b/other")).unwrap_err();
        fs::create_dir(at("b/other")).unwrap_err();
        fs::remove_dir(at("b")).unwrap_err();
        fs::remove_file(at("a/none")).unwrap_err();
        fs::rename(at("a/none"), at("b/other")).unwrap_err();
        fs::rename(at("b"), at("a/new")).unwrap_err();
        fs::hard_link(at("b/other"), at("a/new")).unwrap_err();
        symlink("x", at("b/other")).unwrap_err();
    });
    drop(file);
    mounted.umount();
}

#[test]
fn writes_and_changes_of_attributes_move_the_times_of_their_inode() {
    use Moves::{Both, Changed, Nothing};
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let root = mounted.path("");
    let path = root.join("file");
    fs::write(&path, "content").unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let check = |what: &str, file: Moves, act: &dyn Fn()| {
        moves(what, &root, &[("file", file), ("", Nothing)], act);
    };
    check("write", Both, &|| file.write_all_at(b"x", 3).unwrap());
    check("truncate", Both, &|| file.set_len(3).unwrap());
    check("truncate to the same size", Both, &|| file.set_len(3).unwrap());
    check("O_TRUNC of an empty file", Both, &|| {
        File::create(&path).unwrap();
        File::create(&path).unwrap();
    });
    check("fallocate", Both, &|| {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 5000).unwrap();
    });
    check("punch", Both, &|| {
        use rustix::fs::FallocateFlags;
        rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 50).unwrap();
    });
    check("chmod", Changed, &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap());
    check("chown", Changed, &|| std::os::unix::fs::chown(&path, Some(5), Some(6)).unwrap());
    check("setxattr", Changed, &|| set_xattr(&path, "user.a", b"1"));
    check("removexattr", Changed, &|| rustix::fs::removexattr(&path, "user.a").unwrap());
    check("read", Nothing, &|| drop(fs::read(&path).unwrap()));
    check("open, close and fsync", Nothing, &|| File::open(&path).unwrap().sync_all().unwrap());
    check("a snapshot", Nothing, &|| fs::create_dir(mounted.snapshot("s")).unwrap());
    check("what fails", Nothing, &|| {
        rustix::fs::removexattr(&path, "user.none").unwrap_err();
        file.set_len(u64::MAX >> 1 | 1 << 63).unwrap_err();
        fs::read(mounted.path("file/x")).unwrap_err();
    });
    drop(file);
    mounted.umount();
}

/// `rsync` and `cp -p` set the times and close; a flush or a checkpoint that moved them later would have everything copied again.
#[test]
fn times_that_were_set_after_a_write_stay_through_flush_snapshot_and_remount() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount_with("version-quiet=1,version-max-wait=1");
    let path = mounted.path("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(&noise(1, 3 << 20)).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    let set = times(&path);
    drop(file);
    assert_eq!(times(&path), set, "after close");
    fs::create_dir(mounted.snapshot("s")).unwrap();
    assert_eq!(times(&path), set, "after a snapshot");
    mounted.umount();
    let mounted = site.mount();
    assert_eq!(times(&path), set, "after a remount");
    assert_eq!(times(&mounted.snapshot("s/file")), set, "in the snapshot");
    assert_eq!(set.modified, 1_000_000_000_123_456_789);
    mounted.umount();
}

#[test]
fn access_times_move_with_reads_where_that_was_asked_for() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount_with("relatime");
    let path = mounted.path("file");
    fs::create_dir(mounted.path("dir")).unwrap();
    symlink("file", mounted.path("link")).unwrap();
    fs::write(&path, noise(2, 10_000)).unwrap();
    let read = |options: &mut fs::OpenOptions| {
        let mut bytes = Vec::new();
        options.read(true).open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == noise(2, 10_000));
        times(&path).accessed
    };
    let written = times(&path).accessed;
    assert_eq!(read(File::options().custom_flags(libc::O_NOATIME)), written, "O_NOATIME");
    let first = read(&mut File::options());
    assert!(first > written, "the first read after a write");
    assert_eq!(read(&mut File::options()), first, "a second read");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&noise(2, 10_000)[..10], 0).unwrap();
    assert_eq!(times(&path).accessed, first, "a write");
    drop(file);
    let second = read(&mut File::options());
    assert!(second > first, "the first read after a second write, of pages that the kernel has");
    let day = Duration::from_secs(86_400);
    let old = SystemTime::now() - day - day;
    let file = File::options().write(true).open(&path).unwrap();
    file.set_times(FileTimes::new().set_modified(old - day).set_accessed(old)).unwrap();
    drop(file);
    assert!(read(&mut File::options()) > second, "a read after more than a day");
    let (dir, link) = (times(&mounted.path("dir")), times(&mounted.path("link")));
    assert_eq!(fs::read_dir(mounted.path("dir")).unwrap().count(), 0);
    fs::read_link(mounted.path("link")).unwrap();
    assert!(times(&mounted.path("dir")).accessed > dir.accessed, "a listing");
    assert!(times(&mounted.path("link")).accessed > link.accessed, "readlink");
    let last = (times(&path), times(&mounted.path("dir")), times(&mounted.path("link")));
    mounted.umount();
    let mounted = site.mount();
    assert_eq!((times(&path), times(&mounted.path("dir")), times(&mounted.path("link"))), last);
    fs::write(&path, "1").unwrap();
    let before = times(&path).accessed;
    fs::read(&path).unwrap();
    assert_eq!(times(&path).accessed, before, "without relatime");
    mounted.umount();
}

#[test]
fn chattr_and_lsattr_work_and_the_kernel_sees_what_they_change() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let (path, dir) = (mounted.path("file"), mounted.path("dir"));
    fs::write(&path, "content").unwrap();
    fs::create_dir(&dir).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let before = times(&path);
    ioctl_setflags(&file, IFlags::IMMUTABLE | IFlags::NODUMP).unwrap();
    let after = times(&path);
    assert!(after.changed > before.changed && after.modified == before.modified, "{before:?} {after:?}");
    assert_eq!(ioctl_getflags(&file).unwrap(), IFlags::IMMUTABLE | IFlags::NODUMP);
    let denied = |error: std::io::Error| assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    denied(file.write_all_at(b"x", 0).unwrap_err());
    denied(file.set_len(0).unwrap_err());
    denied(fs::write(&path, "x").unwrap_err());
    denied(fs::remove_file(&path).unwrap_err());
    denied(fs::rename(&path, mounted.path("moved")).unwrap_err());
    denied(fs::hard_link(&path, mounted.path("link")).unwrap_err());
    denied(fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    // fsxattr: immutable, not dumped.
    assert_eq!(sys::get_fsxattr(&file).unwrap(), [0x88, 0, 0, 0, 0, 0, 0]);
    sys::set_fsxattr(&file, [0x10, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(ioctl_getflags(&file).unwrap(), IFlags::APPEND);
    denied(file.write_all_at(b"x", 0).unwrap_err());
    denied(File::options().write(true).open(&path).unwrap_err());
    File::options().append(true).open(&path).unwrap().write_all(b", more").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "content, more");
    assert_eq!(ioctl_setflags(&file, IFlags::COMPRESSED), Err(Errno::OPNOTSUPP));
    assert_eq!(sys::set_fsxattr(&file, [0, 0, 0, 7, 0, 0, 0]).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    ioctl_setflags(File::open(&dir).unwrap(), IFlags::APPEND).unwrap();
    fs::write(dir.join("kept"), "x").unwrap();
    denied(fs::remove_file(dir.join("kept")).unwrap_err());
    fs::create_dir(mounted.snapshot("s")).unwrap();
    drop(file);
    mounted.umount();
    let mounted = site.mount();
    for dir in [mounted.path(""), mounted.snapshot("s")] {
        assert_eq!(ioctl_getflags(File::open(dir.join("file")).unwrap()).unwrap(), IFlags::APPEND);
        assert_eq!(ioctl_getflags(File::open(dir.join("dir")).unwrap()).unwrap(), IFlags::APPEND);
    }
    let past = File::open(mounted.snapshot("s/file")).unwrap();
    assert_eq!(ioctl_setflags(&past, IFlags::empty()), Err(Errno::ROFS));
    drop(past);
    programs_see_the_flags(&site, &mounted);
    mounted.umount();
}

fn programs_see_the_flags(site: &Site, mounted: &Mounted<'_>) {
    if have("lsattr") && have("chattr") {
        let shown = succeed(Command::new("lsattr").arg(mounted.path("file")));
        assert!(shown.split_whitespace().next().unwrap().contains('a'), "{shown}");
        succeed(Command::new("chattr").arg("-a").arg(mounted.path("file")));
        succeed(Command::new("chattr").args(["-R", "-a", "+A"]).arg(mounted.path("dir")));
        // The owner may not protect anything; that is for root.
        fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(mounted.path("file"), Some(1000), Some(1000)).unwrap();
        let owner = |flag: &str| {
            let mut command = Command::new("chattr");
            command.arg(flag).arg(mounted.path("file")).env("LC_ALL", "C").uid(1000).gid(1000);
            command
        };
        succeed(&mut owner("+d"));
        assert!(fail(&mut owner("+i")).1.contains("not permitted"));
    }
    if have("fstrim") {
        let (_, told) = fail(Command::new("fstrim").arg(mounted.path("")).env("LC_ALL", "C"));
        assert!(told.contains("not supported"), "{told}");
    }
}

/// Runs a line of shell as a user that is not root, in the root of the mount.
fn as_user(mounted: &Mounted<'_>, uid: u32, gid: u32, line: &str) -> std::process::Output {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(mounted.path("")).env("LC_ALL", "C").uid(uid).gid(gid);
    command.output().unwrap()
}

#[test]
fn set_id_bits_go_when_somebody_else_could_profit() {
    let Some(site) = Site::new() else { return };
    fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mounted = site.mount();
    let path = mounted.path("tool");
    let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
    let reset = |mode: u32| {
        fs::write(&path, "content").unwrap();
        std::os::unix::fs::chown(&path, Some(1000), Some(1000)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for line in ["printf x >> tool", "printf x 1<>tool", ": > tool", "truncate -s 3 tool", "fallocate -l 10000 tool"] {
        reset(0o6777);
        let output = as_user(&mounted, 1000, 1000, line);
        assert!(output.status.success(), "{line}: {output:?}");
        assert_eq!(mode(), 0o777, "{line}");
    }
    // Without group execution, set-gid is no privilege.
    reset(0o2767);
    as_user(&mounted, 1000, 1000, "printf x >> tool");
    assert_eq!(mode() & 0o4000, 0);
    reset(0o6777);
    std::os::unix::fs::chown(&path, Some(1001), None).unwrap();
    assert_eq!(mode(), 0o777, "a new owner, by root");
    reset(0o6777);
    std::os::unix::fs::chown(&path, None, Some(1001)).unwrap();
    assert_eq!(mode(), 0o777, "a new group, by root");
    reset(0o6777);
    File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    assert_eq!(mode(), 0o6777, "root may write without taking the bits");
    reset(0o755);
    assert!(as_user(&mounted, 1000, 2000, "chgrp 2000 tool && chmod 2755 tool").status.success());
    assert_eq!(mode(), 0o2755);
    reset(0o755);
    std::os::unix::fs::chown(&path, None, Some(3000)).unwrap();
    assert!(as_user(&mounted, 1000, 1000, "chmod 2755 tool").status.success());
    assert_eq!(mode(), 0o755, "a group that the user is not in");
    mounted.umount();
}

#[test]
fn a_set_gid_directory_hands_its_group_on() {
    let Some(site) = Site::new() else { return };
    fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mounted = site.mount();
    fs::create_dir(mounted.path("dir")).unwrap();
    std::os::unix::fs::chown(mounted.path("dir"), Some(1000), Some(3000)).unwrap();
    fs::set_permissions(mounted.path("dir"), fs::Permissions::from_mode(0o2775)).unwrap();
    let line = "umask 022; cd dir && : > file && mkdir sub && ln -s x link && mkfifo fifo && : > sub/file";
    assert!(as_user(&mounted, 1000, 1000, line).status.success());
    for (name, mode) in [("file", 0o644), ("sub", 0o2755), ("link", 0o777), ("fifo", 0o644), ("sub/file", 0o644)] {
        let data = fs::symlink_metadata(mounted.path("dir").join(name)).unwrap();
        assert_eq!((data.gid(), data.mode() & 0o7777), (3000, mode), "{name}");
    }
    mounted.umount();
}

#[test]
fn numbers_and_handles_of_files_stay_good_across_remounts_and_die_with_them() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::create_dir_all(mounted.path("dir/sub")).unwrap();
    fs::write(mounted.path("dir/sub/file"), "content").unwrap();
    fs::write(mounted.path("dir/gone"), "gone").unwrap();
    let names = ["", "dir", "dir/sub", "dir/sub/file"];
    let ino = |name: &str| fs::symlink_metadata(mounted.path(name)).unwrap().ino();
    let numbers = names.map(ino);
    let handles = names.map(|name| FileHandle::of(&mounted.path(name)).unwrap());
    let gone = FileHandle::of(&mounted.path("dir/gone")).unwrap();
    let gone_number = ino("dir/gone");
    let root = File::open(mounted.path("")).unwrap();
    assert!(gone.open(&root, libc::O_RDONLY).is_ok());
    drop(root);
    fs::create_dir(mounted.snapshot("s")).unwrap();
    let past = fs::metadata(mounted.snapshot("s/dir/sub/file")).unwrap().ino();
    fs::remove_file(mounted.path("dir/gone")).unwrap();
    // A rename changes the path and not the inode.
    fs::rename(mounted.path("dir/sub"), mounted.path("moved")).unwrap();
    mounted.umount();
    let mounted = site.mount();
    let root = File::open(mounted.path("")).unwrap();
    for (number, handle) in numbers.iter().zip(&handles) {
        let file = handle.open(&root, libc::O_PATH).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), *number);
    }
    let mut content = String::new();
    handles[3].open(&root, libc::O_RDONLY).unwrap().read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    // Opened by handle, a directory knows its way up.
    let sub = handles[2].open(&root, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
    let up = rustix::fs::statat(&sub, "..", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(up.st_ino, numbers[0]);
    assert_eq!(gone.open(&root, libc::O_RDONLY).unwrap_err().raw_os_error(), Some(libc::ESTALE));
    // A number is never given out again.
    for number in 0..200 {
        let path = mounted.path(format!("dir/new{number}"));
        fs::write(&path, "x").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), gone_number);
    }
    assert_eq!(fs::metadata(mounted.path("moved/file")).unwrap().ino(), numbers[3]);
    assert_eq!(fs::metadata(mounted.snapshot("s/dir/sub/file")).unwrap().ino(), past);
    drop((root, sub));
    mounted.umount();
}
