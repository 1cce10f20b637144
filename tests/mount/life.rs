//! The life of a mount: how it ends, and what it leaves.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::Command,
};

use nix::mount::{MntFlags, umount2};

use crate::{
    facts::{assert_same, facts, make_zoo},
    site::{Site, fail, noise, succeed},
};

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("this must fail").raw_os_error().unwrap()
}

#[test]
fn umount_returns_when_everything_is_durable_and_the_process_is_gone() {
    let Some(site) = Site::new() else { return };
    let content = noise(1, 20 << 20);
    for round in 0..3 {
        let mounted = site.mount();
        fs::write(mounted.path(format!("file-{round}")), &content).unwrap();
        let pid = mounted.pid();
        mounted.umount();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
    // Without any journal, only what a head names counts.
    fs::remove_dir_all(site.repository().join("journal")).unwrap();
    let mounted = site.mount();
    for round in 0..3 {
        assert!(fs::read(mounted.path(format!("file-{round}"))).unwrap() == content, "file {round}");
    }
    mounted.umount();
}

#[test]
fn a_mount_in_the_background_tells_its_readiness_and_ends_with_umount() {
    let Some(site) = Site::new() else { return };
    let log = format!("log={}", site.path("log").display());
    succeed(site.vellum().args(["mount", "-o", &log]).args([site.repository(), &site.mountpoint()]));
    fs::write(site.mountpoint().join("file"), "one").unwrap();
    let status: serde_json::Value = serde_json::from_str(&site.run(["status", "--json"], [site.mountpoint()])).unwrap();
    fs::create_dir(site.path("other")).unwrap();
    let (code, told) = fail(site.vellum().arg("mount").args([site.repository(), &site.path("other")]));
    assert!(code == 4 && told.contains(&status_pid(&status).to_string()), "who has it: {told}");
    site.run(["umount"], [site.mountpoint()]);
    let lines = fs::read_to_string(site.path("log")).unwrap();
    assert!(!lines.contains("warning") && !lines.contains("error"), "{lines}");
    let mounted = site.mount();
    assert_eq!(fs::read_to_string(mounted.path("file")).unwrap(), "one");
    mounted.umount();
}

fn status_pid(status: &serde_json::Value) -> u64 {
    fn find(value: &serde_json::Value) -> Option<u64> {
        match value {
            serde_json::Value::Object(map) => {
                map.get("pid").and_then(serde_json::Value::as_u64).or_else(|| map.values().find_map(find))
            }
            serde_json::Value::Array(list) => list.iter().find_map(find),
            _ => None,
        }
    }
    find(status).unwrap_or_else(|| panic!("no pid in {status}"))
}

#[test]
fn a_dead_process_looks_dead_and_what_was_synced_comes_back() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_all().unwrap();
    let dead = mounted.kill_only();
    assert_eq!(errno(fs::read_dir(site.mountpoint())), libc::ENOTCONN);
    assert_eq!(errno(fs::metadata(&path)), libc::ENOTCONN);
    assert_eq!(errno(fs::write(&path, "x")), libc::ENOTCONN);
    assert_eq!(errno(file.write_all(b"x")), libc::ENOTCONN);
    drop(dead);
    let (_, told) = fail(site.vellum().arg("umount").arg(site.mountpoint()));
    assert!(told.contains("was gone"), "{told}");
    let mounted = site.mount();
    assert_eq!(fs::read_to_string(&path).unwrap(), "synced");
    mounted.umount();
}

#[test]
fn a_lazy_umount_lets_open_files_finish() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let mut file = fs::File::create(mounted.path("file")).unwrap();
    file.write_all(b"before").unwrap();
    let (_, told) = fail(site.vellum().arg("umount").arg(site.mountpoint()));
    assert!(told.contains("in use"), "{told}");
    site.run(["umount", "--lazy"], [site.mountpoint()]);
    assert_eq!(fs::read_dir(site.mountpoint()).unwrap().count(), 0, "the mountpoint below is shown");
    file.write_all(b" and after").unwrap();
    file.sync_all().unwrap();
    let (code, told) = fail(site.vellum().arg("mount").args([site.repository(), &site.mountpoint()]));
    assert_eq!(code, 4, "the process holds the lock until it is done: {told}");
    drop(file);
    assert!(mounted.wait().success());
    let mounted = site.mount();
    assert_eq!(fs::read_to_string(mounted.path("file")).unwrap(), "before and after");
    mounted.umount();
}

/// A process whose mount had been taken away lazily used to unmount the path once more when its last file was closed, and so
/// took away what had been mounted there since.
#[test]
fn the_end_of_a_detached_process_does_not_touch_what_is_mounted_there_since() {
    let (Some(site), Some(other)) = (Site::new(), Site::new()) else { return };
    let mounted = site.mount();
    let file = fs::File::create(mounted.path("file")).unwrap();
    umount2(&site.mountpoint(), MntFlags::MNT_DETACH).unwrap();
    let place = site.mountpoint();
    succeed(
        other
            .vellum()
            .args(["mount", "-o", &format!("log={}", other.path("log").display())])
            .args([other.repository(), &place]),
    );
    fs::write(place.join("second"), "here").unwrap();
    drop(file);
    assert!(mounted.wait().success());
    assert_eq!(fs::read_to_string(place.join("second")).unwrap(), "here");
    other.run(["umount"], [place]);
}

#[test]
fn umount_by_other_means_is_as_good() {
    let Some(site) = Site::new() else { return };
    for (round, words) in [vec!["umount"], vec!["fusermount3", "-u"]].into_iter().enumerate() {
        let mounted = site.mount();
        fs::write(mounted.path(format!("file-{round}")), "content").unwrap();
        let done = Command::new(words[0]).args(&words[1..]).arg(site.mountpoint()).status();
        if !done.is_ok_and(|status| status.success()) {
            println!("skipped: {} does not work here", words[0]);
            umount2(&site.mountpoint(), MntFlags::empty()).unwrap();
        }
        assert!(mounted.wait().success());
    }
    let mounted = site.mount();
    assert_eq!(fs::read_dir(mounted.path("")).unwrap().count(), 2);
    mounted.umount();
}

#[test]
fn a_signal_unmounts_and_closes() {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(site) = Site::new() else { return };
    for signal in [Signal::TERM, Signal::INT] {
        let mounted = site.mount();
        fs::write(mounted.path("file"), format!("{signal:?}")).unwrap();
        kill_process(Pid::from_raw(mounted.pid() as i32).unwrap(), signal).unwrap();
        assert!(mounted.wait().success());
        let mounted = site.mount();
        assert_eq!(fs::read_to_string(mounted.path("file")).unwrap(), format!("{signal:?}"));
        mounted.umount();
    }
}

#[test]
fn a_read_only_mount_shows_everything_and_takes_nothing() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    make_zoo(&mounted.path("zoo"));
    let before = facts(&mounted.path("zoo"));
    fs::create_dir(mounted.snapshot("s")).unwrap();
    mounted.umount();
    let state = listing(site.repository());
    let mounted = site.mount_with("ro");
    assert_same(&before, &facts(&mounted.path("zoo")), "read-only");
    assert_same(&before, &facts(&mounted.snapshot("s/zoo")), "a snapshot, read-only");
    assert_eq!(errno(fs::write(mounted.path("zoo/text"), "x")), libc::EROFS);
    assert_eq!(errno(fs::create_dir(mounted.path("new"))), libc::EROFS);
    assert_eq!(errno(fs::create_dir(mounted.snapshot("new"))), libc::EROFS);
    mounted.umount();
    assert_eq!(listing(site.repository()), state, "reading changed the repository");
}

/// Names and sizes of all files, but for locks.
fn listing(dir: &Path) -> Vec<String> {
    let printed = succeed(Command::new("find").args([".", "-type", "f", "-printf", "%p %s\n"]).current_dir(dir));
    let mut lines: Vec<_> = printed.lines().filter(|line| !line.contains("lock")).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_read_only_mount_shows_what_only_the_journal_holds() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let mut file = fs::File::create(mounted.path("small")).unwrap();
    file.write_all(b"small").unwrap();
    file.sync_all().unwrap();
    let large = noise(5, 5 << 20);
    let mut file = fs::File::create(mounted.path("large")).unwrap();
    file.write_all(&large).unwrap();
    file.sync_all().unwrap();
    mounted.kill();
    for _ in 0..2 {
        let mounted = site.mount_with("ro");
        assert_eq!(fs::read_to_string(mounted.path("small")).unwrap(), "small");
        assert!(fs::read(mounted.path("large")).unwrap() == large);
        mounted.umount();
    }
    let mounted = site.mount();
    assert!(fs::read(mounted.path("large")).unwrap() == large);
    mounted.umount();
}

#[test]
fn unlinked_open_files_work_until_the_last_close_and_are_gone_after_a_kill() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    let content = noise(7, 2 << 20);
    fs::write(&path, &content).unwrap();
    let mut file = fs::File::options().read(true).write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert!(read == content);
    file.write_all(b"more").unwrap();
    file.sync_all().unwrap();
    // A checkpoint meets a file without a name.
    fs::create_dir(mounted.snapshot("s")).unwrap();
    file.write_all(b"and more").unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), content.len() as u64 + 12);
    mounted.kill();
    drop(file);
    let mounted = site.mount();
    assert_eq!(fs::read_dir(mounted.path("")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(mounted.snapshot("s")).unwrap().count(), 0);
    fs::write(&path, "again").unwrap();
    let file = fs::File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    drop(file);
    mounted.umount();
    site.run(["check", "--read-data"], [site.repository()]);
    site.mount().umount();
}

#[test]
fn open_files_keep_working_across_renames_snapshots_and_removal_of_their_directory() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::create_dir(mounted.path("dir")).unwrap();
    let mut file = fs::File::create(mounted.path("dir/file")).unwrap();
    file.write_all(b"1").unwrap();
    fs::rename(mounted.path("dir/file"), mounted.path("moved")).unwrap();
    fs::remove_dir(mounted.path("dir")).unwrap();
    file.write_all(b"2").unwrap();
    fs::create_dir(mounted.snapshot("s")).unwrap();
    file.write_all(b"3").unwrap();
    fs::rename(mounted.path("moved"), mounted.path("again")).unwrap();
    file.write_all(b"4").unwrap();
    assert_eq!(fs::read_to_string(mounted.path("again")).unwrap(), "1234");
    assert_eq!(fs::read_to_string(mounted.snapshot("s/moved")).unwrap(), "12");
    drop(file);
    mounted.umount();
}
