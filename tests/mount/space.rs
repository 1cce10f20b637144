//! What things cost, and what happens when the disk of the repository is full.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::unix::{ffi::OsStrExt, fs::FileExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::lgetxattr;
use vellum_tests::seed::number_from_environment;

use crate::{
    facts::hash,
    site::{DEADLINE, Site, fail, have, noise, succeed},
};

#[test]
fn the_same_data_again_adds_no_data_pack() {
    let Some(site) = Site::new() else { return };
    let data_bytes = || site.stats()["data_bytes"].as_u64().unwrap();
    let source = site.path("source");
    fs::create_dir(&source).unwrap();
    for number in 0..300 {
        let line = format!("file {number} says the same thing over and over\n");
        fs::write(source.join(format!("text-{number}")), line.repeat(200 + 7 * number)).unwrap();
    }
    for number in 0..10 {
        fs::write(source.join(format!("noise-{number}")), noise(number, 3_000_000)).unwrap();
    }
    let copy = |name: &str| {
        let mounted = site.mount();
        succeed(Command::new("cp").arg("-a").arg(&source).arg(mounted.path(name)));
        mounted.umount();
        (data_bytes(), site.stored_bytes())
    };
    let first = copy("first");
    let second = copy("second");
    println!("first {first:?}, second {second:?} bytes of data and in all");
    assert_eq!(first.0, second.0, "data was stored again");
    assert!(second.1 - first.1 < 1 << 20, "the second copy took {} bytes", second.1 - first.1);
}

#[test]
fn one_byte_in_front_of_a_large_file_costs_little() {
    let Some(site) = Site::new() else { return };
    let large = (number_from_environment("VELLUM_TEST_LARGE_MIB", 64) << 20) as usize;
    let piece = 8 << 20;
    let content = |number: usize| noise(number as u64, piece);
    let write = |path: &Path, front: &[u8]| {
        // Written over what is there, without truncating it first.
        let mut file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
        file.write_all(front).unwrap();
        (0..large / piece).for_each(|number| file.write_all(&content(number)).unwrap());
    };
    let after = |change: &dyn Fn(&Path)| {
        let mounted = site.mount();
        change(&mounted.path(""));
        mounted.umount();
        site.stored_bytes()
    };
    let first = after(&|root| write(&root.join("large"), b""));
    let again = after(&|root| write(&root.join("shifted"), b"x"));
    let in_place = after(&|root| write(&root.join("large"), b"y"));
    println!("{first} bytes, {} for a shifted copy, {} in place", again - first, in_place - again);
    assert!(again - first < 2 << 20, "a shifted copy took {} bytes", again - first);
    assert!(in_place - again < 2 << 20, "a shift in place took {} bytes", in_place - again);
    let mounted = site.mount();
    let expected = |front: &[u8]| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(front);
        for number in 0..large / piece {
            hasher.update(&content(number));
        }
        hasher.finalize()
    };
    assert_eq!(hash(&mounted.path("shifted")), expected(b"x"));
    assert_eq!(hash(&mounted.path("large")), expected(b"y"));
    mounted.umount();
}

#[test]
fn a_sparse_file_costs_what_is_in_it() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::write(mounted.path("something"), "x").unwrap();
    mounted.umount();
    let before = site.stored_bytes();
    let mounted = site.mount();
    let file = File::create(mounted.path("sparse")).unwrap();
    file.set_len(100_000_000_000).unwrap();
    file.write_all_at(b"in the middle", 50_000_000_000).unwrap();
    file.write_all_at(b"end", 99_999_999_997).unwrap();
    drop(file);
    mounted.umount();
    let taken = site.stored_bytes() - before;
    println!("{taken} bytes");
    assert!(taken <= 64 << 10, "{taken} bytes");
    let mounted = site.mount();
    let file = File::open(mounted.path("sparse")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100_000_000_000);
    let mut read = [1; 20];
    file.read_exact_at(&mut read, 50_000_000_000 - 2).unwrap();
    assert_eq!(&read, b"\0\0in the middle\0\0\0\0\0");
    drop(file);
    mounted.umount();
}

/// A small disk, which goes away with this value.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// A filesystem in memory.
    fn in_memory(path: PathBuf, bytes: u64) -> Self {
        fs::create_dir(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(format!("size={bytes}").as_str())).unwrap();
        Self { path }
    }

    /// ext4 in a file; `None` where there are no loop devices.
    fn in_file(path: PathBuf, bytes: u64) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let image = path.with_extension("image");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))
            && run(Command::new("mount").args(["-o", "loop"]).args([&image, &path]));
        if !made {
            println!("skipped: no ext4 in a file can be mounted here");
        }
        made.then_some(Self { path })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failed test must not leave it behind either.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

fn is_full(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::StorageFull
}

/// Fills the mount with files until nothing more is taken; gives the files whose every byte was accepted.
fn fill(root: &Path, kept: &mut BTreeMap<PathBuf, blake3::Hash>) {
    let mut refused = 0;
    // Large files meet the limit first, small ones fill what is left.
    for (kind, length) in [("large", 3_000_000), ("middle", 100_000), ("small", 1_000)] {
        for number in 0.. {
            assert!(number < 20_000, "the disk is never full");
            let path = root.join(format!("{kind}-{number}"));
            let content = noise(number + length, length as usize);
            let written = File::create(&path).and_then(|mut file| {
                file.write_all(&content)?;
                if number % 5 == 0 { file.sync_all() } else { Ok(()) }
            });
            match written {
                Ok(()) => drop(kept.insert(path, blake3::hash(&content))),
                Err(error) => {
                    assert!(is_full(&error), "{}: {error}", path.display());
                    refused += 1;
                    if refused % 3 == 0 {
                        break;
                    }
                }
            }
        }
    }
}

fn check(kept: &BTreeMap<PathBuf, blake3::Hash>, why: &str) {
    for (path, expected) in kept {
        assert_eq!(hash(path), *expected, "{}: {why}", path.display());
    }
}

fn survives_a_full_disk(site: &Site) {
    let mounted = site.mount();
    let mut kept = BTreeMap::new();
    fs::write(mounted.path("first"), noise(1, 500_000)).unwrap();
    kept.insert(mounted.path("first"), blake3::hash(&noise(1, 500_000)));
    fs::create_dir(mounted.snapshot("s")).unwrap();
    fs::create_dir(mounted.snapshot("t")).unwrap();
    fill(&mounted.path(""), &mut kept);
    println!("{} files were taken", kept.len());
    check(&kept, "while full");
    fs::remove_dir(mounted.snapshot("s")).unwrap();
    let removed: Vec<_> = kept.keys().skip(1).step_by(7).cloned().collect();
    for path in &removed {
        fs::remove_file(path).unwrap();
        kept.remove(path);
    }
    File::open(mounted.path("")).unwrap().sync_all().unwrap();
    check(&kept, "after removing some");
    assert_eq!(hash(&mounted.snapshot("t/first")), blake3::hash(&noise(1, 500_000)));
    mounted.umount_despite(&["no space", "full"]);
    let mounted = site.mount();
    check(&kept, "after a remount");
    removed.iter().for_each(|path| assert!(!path.exists(), "{} is back", path.display()));
    assert!(!mounted.snapshot("s").exists() && mounted.snapshot("t").exists());
    if fs::create_dir(mounted.path("again")).is_ok() {
        fill(&mounted.path("again"), &mut BTreeMap::new());
    }
    fs::remove_dir(mounted.snapshot("t")).unwrap();
    mounted.kill();
    let mounted = site.mount();
    check(&kept, "after a kill");
    assert!(!mounted.snapshot("t").exists());
    mounted.umount_despite(&["no space", "full"]);
    site.run(["check", "--read-data"], [site.repository()]);
}

#[test]
fn a_full_disk_in_memory_loses_nothing_that_was_accepted() {
    let Some(place) = Site::new() else { return };
    let disk = Disk::in_memory(place.path("disk"), 96 << 20);
    let site = Site::with_repository_in(&disk.path).unwrap();
    survives_a_full_disk(&site);
}

#[test]
fn a_full_disk_with_ext4_loses_nothing_that_was_accepted() {
    let Some(place) = Site::new() else { return };
    let Some(disk) = Disk::in_file(place.path("disk"), 96 << 20) else { return };
    let site = Site::with_repository_in(&disk.path).unwrap();
    survives_a_full_disk(&site);
}

/// Somebody else fills the disk to its last byte: what deletes, frees or ends goes on, since space was set aside for it.
fn goes_on_when_others_fill_the_disk(disk: &Disk) {
    let site = Site::with_repository_in(&disk.path).unwrap();
    const FULL: &[&str] = &["is full", "no space"];
    let fill = || {
        let path = disk.path.join("of somebody else");
        let mut filler = File::options().create(true).append(true).open(&path).unwrap();
        let mut buffer = vec![7; 1 << 20];
        while !buffer.is_empty() {
            if let Err(error) = filler.write_all(&buffer) {
                assert!(is_full(&error), "{error}");
                buffer.truncate(buffer.len() / 2);
            }
        }
        path
    };
    let reserve = || fs::metadata(site.repository().join("reserve")).map_or(0, |found| found.len());
    let mounted = site.mount();
    let mut kept = BTreeMap::new();
    for number in 0..30 {
        let path = mounted.path(format!("file-{number}"));
        fs::write(&path, noise(number, 600_000)).unwrap();
        kept.insert(path, blake3::hash(&noise(number, 600_000)));
    }
    fs::create_dir(mounted.snapshot("s")).unwrap();
    fs::write(mounted.path("later"), noise(99, 200_000)).unwrap();
    kept.insert(mounted.path("later"), blake3::hash(&noise(99, 200_000)));
    let whole = reserve();
    assert!((10 << 20..=12 << 20).contains(&whole), "an eighth is set aside: {whole}");
    fill();
    // The mount asks for the space once a second; what it takes before that fits what is set aside.
    let deadline = Instant::now() + DEADLINE;
    loop {
        match fs::write(mounted.path("refused"), noise(98, 4096)) {
            Ok(()) => assert!(Instant::now() < deadline, "writes to a full disk are taken"),
            Err(refused) => break assert!(is_full(&refused), "{refused}"),
        }
    }
    // Perhaps there is only its name, perhaps not even that.
    drop(fs::remove_file(mounted.path("refused")));
    fs::remove_dir(mounted.snapshot("s")).unwrap();
    for number in (0..30).filter(|number| number % 3 > 0) {
        let path = mounted.path(format!("file-{number}"));
        fs::remove_file(&path).unwrap();
        kept.remove(&path);
    }
    File::open(mounted.path("")).unwrap().sync_all().unwrap();
    // The first run frees what nothing reaches, without staking what is set aside; then there is room to move the rest.
    let mut freed = 0;
    for _ in 0..3 {
        let told = site.run(["gc", "--json"], [mounted.path("")]);
        freed += serde_json::from_str::<serde_json::Value>(&told).unwrap()["deleted_bytes"].as_u64().unwrap();
    }
    assert!(freed > 5_000_000, "{freed}");
    check(&kept, "after a gc");
    let filler = fill();
    fs::remove_file(mounted.path("file-0")).unwrap();
    kept.remove(&mounted.path("file-0"));
    mounted.umount_despite(FULL);
    let mounted = site.mount();
    fill();
    fs::remove_file(mounted.path("file-3")).unwrap();
    kept.remove(&mounted.path("file-3"));
    File::open(mounted.path("")).unwrap().sync_all().unwrap();
    mounted.kill_only_despite(FULL).take_away();
    let mounted = site.mount();
    check(&kept, "after a kill");
    assert!(!mounted.path("file-0").exists() && !mounted.path("file-3").exists());
    mounted.umount_despite(FULL);
    fs::remove_file(filler).unwrap();
    let mounted = site.mount();
    assert_eq!(reserve(), whole, "it is set aside again");
    fs::write(mounted.path("new"), noise(97, 1 << 20)).unwrap();
    check(&kept, "at the end");
    mounted.umount_despite(FULL);
    site.run(["check", "--read-data"], [site.repository()]);
}

#[test]
fn on_a_disk_in_memory_that_others_filled_deletes_gc_and_unmounting_work() {
    let Some(place) = Site::new() else { return };
    goes_on_when_others_fill_the_disk(&Disk::in_memory(place.path("disk"), 96 << 20));
}

#[test]
fn on_ext4_that_others_filled_deletes_gc_and_unmounting_work() {
    let Some(place) = Site::new() else { return };
    let Some(disk) = Disk::in_file(place.path("disk"), 96 << 20) else { return };
    goes_on_when_others_fill_the_disk(&disk);
}

#[test]
fn a_full_disk_is_named_by_the_program() {
    let Some(site) = Site::new() else { return };
    let disk = Disk::in_memory(site.path("disk"), 1 << 20);
    fs::write(disk.path.join("fills it"), noise(1, 1 << 20)).unwrap();
    let (code, told) = fail(site.vellum().arg("init").arg(disk.path.join("repo")));
    assert_eq!(code, 7, "{told}");
    assert!(told.to_lowercase().contains("no space") && told.contains("hint:"), "{told}");
}

/// `df` shows as available what a writer of incompressible bytes can still write, and as free what the disk has.
#[test]
fn statfs_tells_what_can_still_be_written() {
    let Some(place) = Site::new() else { return };
    let disk = Disk::in_memory(place.path("disk"), 96 << 20);
    let site = Site::with_repository_in(&disk.path).unwrap();
    let mounted = site.mount();
    let told = || {
        let told = rustix::fs::statvfs(mounted.path("")).unwrap();
        assert!(told.f_bavail <= told.f_bfree && told.f_bfree <= told.f_blocks);
        (told.f_bavail * told.f_frsize, told.f_bfree * told.f_frsize)
    };
    let (available, free) = told();
    assert!(available < free, "something is held back: {available} of {free}");
    let mut file = File::create(mounted.path("file")).unwrap();
    let mut written = 0;
    // A pack that was being filled may give back what was set aside for it only after a write was refused: what is said to be
    // available then can be written.
    let deadline = Instant::now() + DEADLINE;
    loop {
        match file.write_all(&noise(written, 1 << 20)) {
            Ok(()) => written += 1 << 20,
            Err(_) if told().0 < 8 << 20 => break,
            Err(error) => assert!(Instant::now() < deadline, "{error}, and {} are said to be available", told().0),
        }
        assert!(written < 96 << 20, "the disk is never full");
    }
    println!("{available} available, {free} free, {written} written, then {:?}", told());
    // An eighth is what seals and trailers may take; two packs that are being filled have 16 MiB set aside each.
    let least = available - available / 8 - (32 << 20);
    assert!((least..=free).contains(&written), "{written} of {available} were written");
    drop(file);
    mounted.umount_despite(&["no space", "full"]);
}

/// The kernel ends a process that writes beyond its limit (`ulimit -f`), unless that asks for an error instead: a mount that died of
/// it took with it what was not synced.
#[test]
fn a_limit_of_file_lengths_is_an_error_and_not_the_end() {
    let Some(site) = Site::new().filter(|_| have("prlimit")) else { return };
    let mounted = site.mount();
    fs::write(mounted.path("before"), b"kept").unwrap();
    File::open(mounted.path("before")).unwrap().sync_all().unwrap();
    succeed(Command::new("prlimit").arg("--fsize=4096:4096").arg(format!("--pid={}", mounted.pid())));
    let mut beyond = File::create(mounted.path("beyond")).unwrap();
    let synced = beyond.write_all(&noise(1, 3_000_000)).and_then(|()| beyond.sync_all());
    let refused = synced.unwrap_err();
    assert_ne!(refused.raw_os_error(), Some(libc::ENOTCONN), "the process of the mount died");
    drop(beyond);
    assert_eq!(fs::read(mounted.path("before")).unwrap(), b"kept");
    mounted.kill_only_despite(&["File too large"]).take_away();
    let mounted = site.mount();
    assert_eq!(fs::read(mounted.path("before")).unwrap(), b"kept");
    mounted.umount();
}

/// What cannot be accepted stays in the queue, and the attempt fails at once: a mount tried for ever, wrote each failure into its
/// log, and left the program waiting.
#[test]
fn without_descriptors_commands_are_turned_away() {
    let Some(site) = Site::new().filter(|_| have("prlimit")) else { return };
    let mounted = site.mount();
    let pid = mounted.pid();
    let limit =
        |count: u32| succeed(Command::new("prlimit").arg(format!("--nofile={count}:")).arg(format!("--pid={pid}")));
    let mut value = [0; 256];
    let length = lgetxattr(mounted.path(""), "user.vellum.control", &mut value[..]).unwrap();
    let socket = Path::new(OsStr::from_bytes(&value[..length])).to_path_buf();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let highest = open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u32>().unwrap()).max().unwrap();
    limit(highest + 1);
    // More than the mount serves at a time, whatever it has left.
    let mut connections: Vec<_> = (0..40).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let last = connections.last_mut().unwrap();
    last.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut told = String::new();
    last.read_to_string(&mut told).unwrap();
    assert_eq!(told, "\"busy\"\n", "the connection is neither served nor turned away");
    let (_, told) = fail(site.vellum().arg("status").arg(mounted.path("")));
    assert!(told.contains("as many conversations as it can hold") && told.contains("hint:"), "{told}");
    drop(connections);
    limit(1024);
    mounted.umount_despite(&["cannot accept"]);
}
