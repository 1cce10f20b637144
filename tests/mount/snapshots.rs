//! `.snapshots` as a shell sees it.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    process::Command,
};

use crate::{
    facts::{assert_same, facts, make_zoo},
    site::{Site, fail, noise, succeed},
};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn errno(result: std::io::Result<()>) -> i32 {
    result.expect_err("this must be refused").raw_os_error().unwrap()
}

#[test]
fn the_hidden_directory_is_reached_in_every_directory_and_listed_in_none() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::create_dir_all(mounted.path("a/b/c")).unwrap();
    fs::write(mounted.path("a/b/c/file"), "one").unwrap();
    fs::create_dir(mounted.snapshot("first")).unwrap();
    assert_eq!(names(&mounted.path("")), ["a"]);
    assert_eq!(succeed(Command::new("ls").arg("-a").arg(mounted.path("a"))), ".\n..\nb\n");
    for dir in ["", "a", "a/b", "a/b/c"] {
        let hidden = mounted.path(dir).join(".snapshots");
        assert_eq!(names(&hidden), ["first", "latest"], "in {dir:?}");
        assert_eq!(names(&hidden.join("first")), names(&mounted.path(dir)), "in {dir:?}");
    }
    assert_eq!(fs::read_to_string(mounted.path("a/b/c/.snapshots/first/file")).unwrap(), "one");
    assert_eq!(fs::read_to_string(mounted.path("a/.snapshots/first/b/c/file")).unwrap(), "one");
    fs::create_dir(mounted.path("later")).unwrap();
    assert_eq!(names(&mounted.path("later/.snapshots")), [""; 0], "the directory is younger than all snapshots");
    assert_eq!(fs::metadata(mounted.path("later/.snapshots/first")).unwrap_err().kind(), ErrorKind::NotFound);
    mounted.umount();
}

#[test]
fn mkdir_rmdir_and_mv_manage_snapshots() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::write(mounted.path("file"), "one").unwrap();
    fs::create_dir(mounted.snapshot("first")).unwrap();
    fs::write(mounted.path("file"), "two").unwrap();
    fs::create_dir(mounted.path("dir")).unwrap();
    fs::create_dir(mounted.path("dir/.snapshots/second")).unwrap();
    assert_eq!(fs::create_dir(mounted.snapshot("first")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    fs::rename(mounted.snapshot("first"), mounted.snapshot("renamed")).unwrap();
    assert_eq!(names(&mounted.path(".snapshots")), ["latest", "renamed", "second"]);
    assert_eq!(fs::read_to_string(mounted.snapshot("renamed/file")).unwrap(), "one");
    assert_eq!(fs::metadata(mounted.snapshot("first")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_to_string(mounted.snapshot("second/file")).unwrap(), "two");
    fs::remove_dir(mounted.snapshot("renamed")).unwrap();
    assert_eq!(names(&mounted.path(".snapshots")), ["latest", "second"]);
    assert_eq!(fs::metadata(mounted.snapshot("renamed")).unwrap_err().kind(), ErrorKind::NotFound);
    let mounted = {
        mounted.umount();
        site.mount()
    };
    assert_eq!(names(&mounted.path(".snapshots")), ["latest", "second"]);
    mounted.umount();
    assert_eq!(site.run(["ls"], [site.repository().as_os_str(), "second".as_ref()]).trim(), "dir\nfile");
}

#[test]
fn nothing_below_a_snapshot_can_be_changed() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::write(mounted.path("file"), "one").unwrap();
    fs::create_dir(mounted.path("dir")).unwrap();
    fs::create_dir(mounted.snapshot("s")).unwrap();
    let inside = |name: &str| mounted.snapshot("s").join(name);
    let refused = [
        ("write", fs::write(inside("file"), "x")),
        ("create", fs::write(inside("new"), "x")),
        ("unlink", fs::remove_file(inside("file"))),
        ("rmdir", fs::remove_dir(inside("dir"))),
        ("mkdir", fs::create_dir(inside("dir/new"))),
        ("rename", fs::rename(inside("file"), inside("other"))),
        ("link", fs::hard_link(inside("file"), inside("other"))),
        ("symlink", symlink("x", inside("other"))),
        ("chmod", fs::set_permissions(inside("file"), std::os::unix::fs::PermissionsExt::from_mode(0o600))),
        ("chown", std::os::unix::fs::chown(inside("file"), Some(1), Some(1))),
        ("truncate", fs::File::options().write(true).open(inside("file")).map(drop)),
        ("create beside snapshots", fs::write(mounted.snapshot("file"), "x")),
        ("link beside snapshots", symlink("x", mounted.snapshot("link"))),
    ];
    for (what, result) in refused {
        assert_eq!(errno(result), libc::EROFS, "{what}");
    }
    let moved = [
        fs::rename(mounted.path("file"), inside("file")),
        fs::rename(inside("file"), mounted.path("stolen")),
        fs::hard_link(inside("file"), mounted.path("stolen")),
        fs::rename(mounted.path("dir"), mounted.snapshot("dir")),
    ];
    for result in moved {
        assert!([libc::EROFS, libc::EXDEV].contains(&errno(result)));
    }
    for dir in ["", "dir"] {
        let hidden = mounted.path(dir).join(".snapshots");
        assert_eq!(errno(fs::create_dir(&hidden)), libc::EEXIST);
        assert_eq!(errno(symlink("x", &hidden)), libc::EEXIST);
        assert_eq!(errno(fs::hard_link(mounted.path("file"), &hidden)), libc::EEXIST);
        assert!(fs::write(&hidden, "x").is_err());
        assert!(fs::rename(mounted.path("file"), &hidden).is_err());
        assert!(fs::remove_dir(&hidden).is_err());
        assert!(fs::rename(&hidden, mounted.path("shown")).is_err());
    }
    for bad in ["@x", ".hidden", "a:b"] {
        assert_eq!(errno(fs::create_dir(mounted.snapshot(bad))), libc::EINVAL, "{bad}");
    }
    assert_eq!(errno(fs::create_dir(mounted.snapshot("latest"))), libc::EEXIST);
    assert_eq!(errno(fs::create_dir(mounted.snapshot(&"n".repeat(201)))), libc::ENAMETOOLONG);
    assert_eq!(fs::read_to_string(inside("file")).unwrap(), "one");
    mounted.umount();
}

#[test]
fn two_snapshots_over_two_paths_stay_apart() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::create_dir_all(mounted.path("dir/sub")).unwrap();
    fs::write(mounted.path("dir/sub/file"), "one").unwrap();
    fs::create_dir(mounted.snapshot("first")).unwrap();
    fs::write(mounted.path("dir/sub/file"), "two!").unwrap();
    fs::create_dir(mounted.snapshot("second")).unwrap();
    fs::write(mounted.path("dir/sub/file"), "three").unwrap();
    let paths = [
        ("dir/sub", "three"),
        (".snapshots/first/dir/sub", "one"),
        ("dir/.snapshots/first/sub", "one"),
        ("dir/sub/.snapshots/first", "one"),
        (".snapshots/second/dir/sub", "two!"),
        ("dir/.snapshots/second/sub", "two!"),
        ("dir/sub/.snapshots/second", "two!"),
    ];
    let ino = |path: &str| fs::metadata(mounted.path(path)).unwrap().ino();
    for (at, (path, _)) in paths.iter().enumerate() {
        for (other, _) in &paths[..at] {
            assert_ne!(ino(path), ino(other), "{path} and {other}");
        }
    }
    // A shell stands in one of them while the others are walked, and asks where it is at the end.
    let walk = paths.map(|(path, _)| format!("ls -lR {0:?}; cat {0:?}/file", mounted.path(path))).join("\n");
    for (path, content) in paths {
        let place = mounted.path(path);
        let script = format!("cd {place:?} && ({walk}) >&2 && cat file && /bin/pwd -P && cat file");
        let printed = succeed(Command::new("sh").args(["-c", &script]));
        assert_eq!(printed, format!("{content}{}\n{content}", place.display()), "in {path}");
    }
    mounted.umount();
}

#[test]
fn removing_the_live_tree_leaves_snapshots_whole_also_after_a_remount() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    make_zoo(&mounted.path("zoo"));
    fs::write(mounted.path("zoo/large"), noise(1, 3 << 20)).unwrap();
    let before = facts(&mounted.path("zoo"));
    fs::create_dir(mounted.snapshot("s")).unwrap();
    assert_same(&before, &facts(&mounted.snapshot("s/zoo")), "the snapshot at once");
    succeed(Command::new("rm").arg("-rf").arg(mounted.path("zoo")));
    assert_eq!(names(&mounted.path("")), [""; 0]);
    assert_same(&before, &facts(&mounted.snapshot("s/zoo")), "the snapshot after rm -rf");
    make_zoo(&mounted.path("zoo"));
    fs::write(mounted.path("zoo/size-4096"), "other").unwrap();
    assert_same(&before, &facts(&mounted.path("zoo/.snapshots/s")), "found by path");
    let inos =
        |root: &Path| ["zoo", "zoo/size-1", "zoo/deep/er"].map(|name| fs::metadata(root.join(name)).unwrap().ino());
    let numbers = inos(&mounted.snapshot("s"));
    let mounted = {
        mounted.umount();
        site.mount()
    };
    assert_same(&before, &facts(&mounted.snapshot("s/zoo")), "the snapshot after a remount");
    assert_eq!(inos(&mounted.snapshot("s")), numbers, "inode numbers after a remount");
    mounted.umount();
}

#[test]
fn latest_and_instants_are_links_to_snapshots() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let before = seconds_now();
    fs::write(mounted.path("file"), "one").unwrap();
    fs::create_dir(mounted.snapshot("first")).unwrap();
    let latest = || fs::read_link(mounted.snapshot("latest")).unwrap();
    assert_eq!(latest(), Path::new("first"));
    assert_eq!(fs::read_to_string(mounted.snapshot("latest/file")).unwrap(), "one");
    fs::write(mounted.path("file"), "two").unwrap();
    fs::create_dir(mounted.snapshot("second")).unwrap();
    assert_eq!(latest(), Path::new("second"), "the kernel must not keep the link");
    assert_eq!(fs::read_to_string(mounted.snapshot("latest/file")).unwrap(), "two");
    assert_eq!(fs::read_link(mounted.snapshot("@-0s")).unwrap(), Path::new("second"));
    assert_eq!(fs::metadata(mounted.snapshot("@-2h")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::metadata(mounted.snapshot("@nonsense")).unwrap_err().kind(), ErrorKind::NotFound);
    let taken = fs::metadata(mounted.path(".snapshots")).unwrap().mtime();
    assert!(taken >= before && taken <= seconds_now());
    fs::remove_dir(mounted.snapshot("second")).unwrap();
    assert_eq!(latest(), Path::new("first"));
    assert_eq!(fs::read_to_string(mounted.snapshot("latest/file")).unwrap(), "one");
    mounted.umount();
}

fn seconds_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs() as i64
}

#[test]
fn only_the_owner_of_the_mount_manages_snapshots() {
    use std::os::unix::process::CommandExt;
    let Some(site) = Site::new() else { return };
    // Another user has to get to the mountpoint.
    fs::set_permissions(site.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mounted = site.mount();
    fs::set_permissions(mounted.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(mounted.path("file"), "one").unwrap();
    fs::create_dir(mounted.snapshot("s")).unwrap();
    let other = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).current_dir(mounted.path("")).env("LC_ALL", "C").uid(12_345).gid(12_345);
        command
    };
    for (program, words) in [
        ("mkdir", vec![".snapshots/x"]),
        ("rmdir", vec![".snapshots/s"]),
        ("mv", vec!["-T", ".snapshots/s", ".snapshots/t"]),
    ] {
        let (_, told) = fail(&mut other(program, &words));
        assert!(told.contains("Permission denied"), "{program}: {told}");
    }
    assert_eq!(succeed(&mut other("cat", &[".snapshots/latest/file"])), "one");
    succeed(&mut other("mkdir", &["mine"]));
    assert_eq!(names(&mounted.path(".snapshots")), ["latest", "s"]);
    mounted.umount();
}

#[test]
fn the_hidden_directory_can_be_shown_and_renamed() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount_with("snapdir=visible,snapdir-name=.zfs");
    fs::create_dir(mounted.path(".zfs/s")).unwrap();
    fs::create_dir(mounted.path("dir")).unwrap();
    assert_eq!(names(&mounted.path("")), [".zfs", "dir"]);
    assert_eq!(names(&mounted.path(".zfs")), ["latest", "s"]);
    fs::write(mounted.path(".snapshots"), "a name like any other").unwrap();
    mounted.umount();
}

#[test]
fn the_program_and_the_directory_show_the_same_snapshots() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::write(mounted.path("file"), "one").unwrap();
    let target = mounted.path("");
    succeed(site.vellum().arg("snapshot").arg(&target).args(["by program", "-m", "a comment"]));
    fs::create_dir(mounted.snapshot("by mkdir")).unwrap();
    let list: serde_json::Value = serde_json::from_str(&site.run(["snapshots", "--json"], [&target])).unwrap();
    let text = list.to_string();
    assert!(text.contains("by program") && text.contains("by mkdir") && text.contains("a comment"), "{text}");
    let deleted = site.vellum().arg("delete").arg(&target).arg("by mkdir").output().unwrap();
    let told = String::from_utf8_lossy(&deleted.stderr);
    assert!(deleted.status.success() && told.contains("gc"), "{told}");
    assert_eq!(names(&mounted.path(".snapshots")), ["by program", "latest"]);
    mounted.umount();
}
