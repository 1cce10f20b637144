//! Commands on a real mount. Without /dev/fuse these tests say so and pass.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::Read,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
};

use support::{Place, noise};
use vellum_store::{
    disk::LocalDisk,
    id::VolumeName,
    lock::{LockState, read_holder},
};

/// Whether this machine can mount; tells why not.
fn can_mount() -> bool {
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if let Err(error) = &device {
        eprintln!("skipped: /dev/fuse: {error}");
    }
    device.is_ok()
}

/// A repository, a mountpoint, and an unmounting when the test ends, however it ends.
struct Mounted {
    place: Place,
}

impl Mounted {
    fn new() -> Option<Self> {
        let mounted = Self::prepared()?;
        mounted.place.run(["mount", "repo", "mnt"]).done();
        Some(mounted)
    }

    fn prepared() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let place = Place::with_repository();
        fs::create_dir(place.path("mnt")).unwrap();
        Some(Self { place })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path("mnt").join(name)
    }

    fn status(&self) -> serde_json::Value {
        self.place.run(["status", "mnt", "--json"]).json()
    }

    fn pid(&self) -> i32 {
        self.status()["pid"].as_i64().unwrap() as i32
    }

    /// A connection that ends with the process.
    fn process(&self) -> UnixStream {
        let volume = VolumeName::new("main").unwrap();
        let state = read_holder(&LocalDisk, &self.place.path("repo"), &volume).unwrap();
        let LockState::Held(Some(holder)) = state else { panic!("{state:?}") };
        let socket = holder.control_socket.unwrap();
        UnixStream::connect(socket).unwrap()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let mut process = self.process();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
        // It ends when the process does; whether with an error says nothing.
        let _ = process.read_to_end(&mut Vec::new());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Most tests have unmounted by themselves.
        let _ = Command::new("umount").arg("-l").arg(self.place.path("mnt")).output();
    }
}

#[test]
fn a_mount_takes_files_and_umount_returns_when_they_are_durable() {
    let Some(mounted) = Mounted::new() else { return };
    let Mounted { place } = &mounted;
    fs::write(mounted.at("file"), noise(1, 1 << 20)).unwrap();
    let status = mounted.status();
    assert_eq!(
        (&status["state"], &status["volume"], &status["read_only"]),
        (&"mounted".into(), &"main".into(), &false.into())
    );
    place.run(["umount", "mnt"]).done();
    assert_eq!(fs::read_dir(place.path("mnt")).unwrap().count(), 0);
    // At once: the lock is free and the process is gone.
    place.run(["snapshot", "repo", "after"]).done();
    let read = place.command(["cat", "repo", "after:file"]).output().unwrap();
    assert_eq!(read.stdout, noise(1, 1 << 20));
    place.run(["umount", "mnt"]).failed(6, "no vellum volume is mounted");
}

#[test]
fn status_tells_what_waits_for_a_checkpoint() {
    let Some(mounted) = Mounted::new() else { return };
    let head = |status: &serde_json::Value| status["head"].as_u64().unwrap();
    let before = mounted.status();
    fs::write(mounted.at("file"), noise(1, 100_000)).unwrap();
    let written = mounted.status();
    // On a slow machine the checkpoint may have come between the two.
    assert!(written["changes"].as_u64().unwrap() > 0 || head(&written) > head(&before), "{written}");
    mounted.place.run(["snapshot", "mnt", "now"]).done();
    let saved = mounted.status();
    assert_eq!((&saved["health"], &saved["trouble"], &saved["changes"]), (&"good".into(), &().into(), &0.into()));
    assert!(head(&saved) > head(&before), "{saved}");
    let told =
        Command::new("getfattr").args(["-n", "user.vellum.status", "--only-values"]).arg(mounted.at("file")).output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    assert!(told.starts_with("state=good dirty=0 changes=0 head="), "{told}");
}

#[test]
fn gc_runs_beside_a_mount() {
    let Some(mounted) = Mounted::new() else { return };
    let place = &mounted.place;
    fs::write(mounted.at("gone"), noise(1, 4 << 20)).unwrap();
    fs::write(mounted.at("kept"), noise(2, 1 << 20)).unwrap();
    place.run(["snapshot", "mnt", "then"]).done();
    fs::remove_file(mounted.at("gone")).unwrap();
    place.run(["delete", "mnt", "then"]).done();
    let report = place.run(["gc", "mnt", "--json"]).json();
    assert!(report["deleted_bytes"].as_u64().unwrap() > 4 << 20, "{report}");
    assert!(fs::read(mounted.at("kept")).unwrap() == noise(2, 1 << 20));
    place.run(["check", "mnt", "--read-data"]).done();
    place.run(["umount", "mnt"]).done();
    place.run(["mount", "repo", "mnt"]).done();
    assert!(fs::read(mounted.at("kept")).unwrap() == noise(2, 1 << 20));
}

#[test]
fn commands_on_a_mounted_volume_are_done_by_its_process() {
    let Some(mounted) = Mounted::new() else { return };
    let Mounted { place } = &mounted;
    fs::create_dir(mounted.at("dir")).unwrap();
    fs::write(mounted.at("dir/file"), "first").unwrap();
    // By any path inside, and by the repository: neither needs the key.
    let mut keyless = place.command(["snapshot", "mnt/dir", "one"]);
    place.output(keyless.env_remove("VELLUM_KEY_FILE")).done();
    fs::write(mounted.at("dir/file"), "second").unwrap();
    let mut keyless = place.command(["snapshot", "repo", "two"]);
    place.output(keyless.env_remove("VELLUM_KEY_FILE")).done();
    assert_eq!(fs::read_to_string(mounted.at("dir/.snapshots/one/file")).unwrap(), "first");
    assert_eq!(fs::read_to_string(mounted.at(".snapshots/two/dir/file")).unwrap(), "second");
    place.run(["rename", "mnt", "two", "deux"]).done();
    place.run(["rename", "mnt", "none", "x"]).failed(6, "none");
    place.run(["delete", "repo", "one"]).done();
    let found = place.run(["snapshots", "mnt", "--json"]).json();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["name"], "deux");
    place.run(["check", "mnt", "--read-data"]).done();
    place.run(["stats", "mnt"]).done();
    // Reading beside the mount.
    assert_eq!(place.run(["cat", "repo", "deux:dir/file"]).done(), "second");
    assert_eq!(place.run(["ls", "mnt", "deux"]).done(), "dir\n");
    place.run(["umount", "mnt/dir"]).done();
}

#[test]
fn gc_beside_a_volume_of_another_process_is_told_whose_that_is() {
    let Some(mounted) = Mounted::new() else { return };
    let Mounted { place } = &mounted;
    fs::create_dir(place.path("other")).unwrap();
    place.run(["mount", "repo#second", "other", "--create"]).done();
    let said = place.run(["gc", "mnt"]).failed(4, "volume second is in use by process");
    assert!(said.contains(place.path("other").canonicalize().unwrap().to_str().unwrap()), "{said}");
    // Both go on.
    for dir in ["mnt", "other"] {
        fs::write(place.path(dir).join("file"), "content").unwrap();
        place.run(["snapshot", dir, "one"]).done();
    }
    place.run(["umount", "other"]).done();
    place.run(["gc", "mnt"]).done();
}

#[test]
fn a_second_mount_is_told_who_has_the_first() {
    let Some(mounted) = Mounted::new() else { return };
    let Mounted { place } = &mounted;
    fs::create_dir(place.path("other")).unwrap();
    let said = place.run(["mount", "repo", "other"]).failed(4, "in use by process");
    assert!(said.contains(place.path("mnt").canonicalize().unwrap().to_str().unwrap()), "{said}");
    fs::create_dir(mounted.at("inner")).unwrap();
    place.run(["mount", "repo", "mnt/inner"]).failed(1, "lies in a mounted vellum volume");
    place.run(["umount", "mnt"]).done();
}

#[test]
fn a_mount_that_cannot_be_says_why_and_leaves_nothing() {
    let Some(mounted) = Mounted::prepared() else { return };
    let Mounted { place } = &mounted;
    place.run(["mount", "repo", "none"]).failed(6, "does not exist");
    place.run(["mount", "repo", "key"]).failed(1, "not a directory");
    place.run(["mount", "repo", "state"]).failed(1, "not empty");
    fs::create_dir(place.path("repo/inside")).unwrap();
    place.run(["mount", "repo", "repo/inside"]).failed(1, "inside the repository");
    place.run(["mount", "repo", ".", "-o", "nonempty"]).failed(1, "inside the mountpoint");
    place.run(["mount", "mnt", "mnt"]).failed(6, "not a vellum repository");
    place.run(["mount", "repo", "mnt", "-o", "allow-other"]).failed(2, "unknown mount option");
    place.run(["mount", "repo#work", "mnt"]).failed(6, "volume work");
    fs::write(place.path("wrong"), [9u8; 64]).unwrap();
    place.run(["mount", "repo", "mnt", "-o", "key-file=wrong"]).failed(5, "wrong passphrase or key file");
    assert_eq!(place.run(["status", "repo", "--json"]).json()["state"], "not-mounted");
    place.run(["mount", "repo", "mnt"]).done();
    place.run(["umount", "mnt"]).done();
}

#[test]
fn mount_makes_what_is_missing_when_asked() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted { place: Place::new() };
    let Mounted { place } = &mounted;
    fs::create_dir(place.path("mnt")).unwrap();
    place.run(["mount", "new#work", "mnt", "--create"]).done();
    fs::write(mounted.at("file"), "x").unwrap();
    place.run(["snapshot", "mnt", "one"]).done();
    place.run(["umount", "mnt"]).done();
    assert_eq!(place.run(["cat", "new#work", "one:file"]).done(), "x");
}

#[test]
fn a_read_only_mount_refuses_writes() {
    let Some(mounted) = Mounted::prepared() else { return };
    let Mounted { place } = &mounted;
    place.run(["mount", "repo", "mnt", "-o", "ro"]).done();
    let refused = fs::write(mounted.at("file"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(mounted.status()["read_only"], true);
    place.run(["umount", "mnt"]).done();
}

#[test]
fn a_mount_in_use_is_not_taken_away() {
    let Some(mounted) = Mounted::new() else { return };
    let Mounted { place } = &mounted;
    fs::write(mounted.at("file"), "x").unwrap();
    let open = fs::File::open(mounted.at("file")).unwrap();
    place.run(["umount", "mnt"]).failed(1, "is in use");
    assert_eq!(fs::read_to_string(mounted.at("file")).unwrap(), "x");
    drop(open);
    place.run(["umount", "mnt"]).done();
}

#[test]
fn a_signal_unmounts_cleanly() {
    let Some(mounted) = Mounted::new() else { return };
    let Mounted { place } = &mounted;
    fs::write(mounted.at("file"), "kept").unwrap();
    mounted.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(fs::read_dir(place.path("mnt")).unwrap().count(), 0);
    place.run(["snapshot", "repo", "one"]).done();
    assert_eq!(place.run(["cat", "repo", "one:file"]).done(), "kept");
}

#[test]
fn a_foreground_mount_ends_with_the_unmount() {
    let Some(mounted) = Mounted::prepared() else { return };
    let Mounted { place } = &mounted;
    let mut serving =
        place.command(["mount", "--foreground", "repo", "mnt"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(serving.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("is mounted at")), "it tells that it is ready");
    place.run(["umount", "mnt"]).done();
    assert!(serving.wait().unwrap().success());
}

#[test]
fn a_killed_mount_looks_dead_and_the_next_one_has_what_was_synced() {
    let Some(mounted) = Mounted::new() else { return };
    let Mounted { place } = &mounted;
    fs::write(mounted.at("synced"), "safe").unwrap();
    fs::File::open(mounted.at("synced")).unwrap().sync_all().unwrap();
    mounted.signal(nix::sys::signal::Signal::SIGKILL);
    // The kernel closes the descriptors of the process one after the other: requests may still be cut off before the mount is
    // dead for good.
    let dead = (0..1_000_000).any(|n| {
        let refused = fs::metadata(mounted.at(&format!("none-{n}"))).unwrap_err().raw_os_error();
        std::thread::yield_now();
        refused == Some(libc::ENOTCONN)
    });
    assert!(dead, "a dead process never looks like an empty directory");
    place.run(["snapshot", "mnt"]).failed(1, "has ended");
    place.run(["mount", "repo", "mnt"]).failed(1, "has ended");
    // It takes the mount away, but not in silence: what was not synced is lost.
    place.run(["umount", "mnt"]).failed(1, "was gone");
    place.run(["umount", "mnt"]).failed(6, "no vellum volume");
    // The journal is where it was left, and not passed over.
    fs::create_dir(place.path("journal")).unwrap();
    place.run(["mount", "repo", "mnt", "-o", "journal=journal"]).failed(1, "left its journal in the repository");
    place.run(["mount", "repo", "mnt"]).done();
    assert_eq!(fs::read_to_string(mounted.at("synced")).unwrap(), "safe");
    place.run(["umount", "mnt"]).done();
    place.run(["mount", "repo", "mnt", "-o", "journal=journal"]).done();
    assert_eq!(fs::read_to_string(mounted.at("synced")).unwrap(), "safe");
    place.run(["umount", "mnt"]).done();
}

#[test]
fn the_helpers_of_mount_and_umount_work_as_they_call_them() {
    let Some(mounted) = Mounted::prepared() else { return };
    let Mounted { place } = &mounted;
    let vellum = Path::new(env!("CARGO_BIN_EXE_vellum"));
    for name in ["mount.fuse.vellum", "umount.fuse.vellum"] {
        symlink(vellum, place.path(name)).unwrap();
    }
    let (repo, mnt) = (place.path("repo"), place.path("mnt"));
    let options = format!("rw,noauto,nofail,x-systemd.automount,key-file={}", place.path("key").display());
    let mut mount = place.command_of(&place.path("mount.fuse.vellum"), [] as [&str; 0]);
    mount.arg(&repo).arg(&mnt).args(["-n", "-o", &options, "-t", "fuse.vellum"]).env_remove("VELLUM_KEY_FILE");
    place.output(&mut mount).done();
    let line = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = line.lines().find(|line| line.contains(mnt.to_str().unwrap())).unwrap();
    assert!(line.contains("fuse.vellum") && line.contains("nosuid") && line.contains("nodev"), "{line}");
    fs::write(mounted.at("file"), "x").unwrap();
    let mut umount = place.command_of(&place.path("umount.fuse.vellum"), [] as [&str; 0]);
    place.output(umount.arg(&mnt).args(["-t", "fuse.vellum"])).done();
    assert_eq!(place.run(["status", "repo", "--json"]).json()["state"], "not-mounted");
}

#[test]
fn no_secret_shows_in_what_others_can_see_of_the_process() {
    let Some(mounted) = Mounted::prepared() else { return };
    let Mounted { place } = &mounted;
    let mut add = place.command(["key", "add", "repo", "words", "--kdf-memory-kib", support::CHEAP]);
    place.output(add.env("VELLUM_NEW_PASSPHRASE", "tell-nobody")).done();
    place.run_with_passphrase("tell-nobody", ["mount", "repo", "mnt"]).done();
    let proc = PathBuf::from(format!("/proc/{}", mounted.pid()));
    for file in ["cmdline", "environ"] {
        // Another user may not even read them; root may.
        let seen = fs::read(proc.join(file)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&seen).contains("tell-nobody"), "{file}");
    }
    let socket_dir = mounted.process().peer_addr().unwrap().as_pathname().unwrap().parent().unwrap().to_path_buf();
    assert_eq!(fs::metadata(socket_dir).unwrap().permissions().mode() & 0o077, 0);
    place.run(["umount", "mnt"]).done();
}
