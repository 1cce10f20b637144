//! Reading and writing as programs do it: through memory, by appending, in parallel, in large directories.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use vellum_tests::seed::{Seed, number_from_environment};

use crate::{
    site::{Site, noise, succeed},
    sys::Mapping,
};

fn rw(path: &std::path::Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// The kernel asks for holes without telling what it holds back. A program that copies what is no hole, as `cp` does, left out
/// what had just been written.
#[test]
fn what_the_kernel_holds_back_is_no_hole_with_its_writeback_cache() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount_with("writeback");
    let file = rw(&mounted.path("file"));
    file.set_len(4 << 20).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&noise(3, 300_000), 1 << 20).unwrap();
    assert_eq!(lseek(&file, 1 << 20, Whence::SeekData), Ok(1 << 20));
    assert!(lseek(&file, 1 << 20, Whence::SeekHole).unwrap() >= (1 << 20) + 300_000);
    file.write_all_at(&noise(4, 300_000), 5 << 20).unwrap();
    assert_eq!(lseek(&file, 5 << 20, Whence::SeekData), Ok(5 << 20));
    drop(file);
    mounted.umount();
}

/// A journal or database that is kept in a mapping over a sparse file looked empty to `cp`.
#[test]
fn what_is_stored_in_a_mapping_is_no_hole_to_another_reader() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    let file = rw(&path);
    file.set_len(4 << 20).unwrap();
    file.sync_all().unwrap();
    let mapping = Mapping::new(&file, 4 << 20, true);
    mapping.write(1 << 20, b"through memory");
    let reader = File::open(&path).unwrap();
    assert!(lseek(&reader, 0, Whence::SeekData).unwrap() <= 1 << 20);
    assert_eq!(lseek(&reader, 1 << 20, Whence::SeekData), Ok(1 << 20));
    assert!(lseek(&reader, 1 << 20, Whence::SeekHole).unwrap() >= (1 << 20) + 14);
    assert_eq!(lseek(&reader, 4 << 20, Whence::SeekData), Err(Errno::ENXIO));
    mapping.sync();
    // To who opened it alone, the answer is exact.
    assert!(lseek(&file, 0, Whence::SeekData).unwrap() > 0);
    drop((mapping, reader, file));
    mounted.umount();
}

#[test]
fn what_is_stored_in_a_shared_mapping_is_read_and_kept() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    let file = rw(&path);
    file.write_all_at(&noise(1, 1 << 20), 0).unwrap();
    let mapping = Mapping::new(&file, 1 << 20, true);
    mapping.write(5000, b"through memory");
    let mut read = [0; 14];
    rw(&path).read_exact_at(&mut read, 5000).unwrap();
    assert_eq!(&read, b"through memory");
    file.write_all_at(b"through a write", 700_000).unwrap();
    assert_eq!(mapping.read(700_000, 15), b"through a write");
    mapping.sync();
    file.sync_all().unwrap();
    let expected = fs::read(&path).unwrap();
    mounted.kill();
    let mounted = site.mount();
    assert!(fs::read(&path).unwrap() == expected);
    let file = rw(&path);
    let mapping = Mapping::new(&file, 1 << 20, true);
    mapping.write(0, b"without a sync");
    drop(mapping);
    drop(file);
    mounted.umount();
    let mounted = site.mount();
    assert_eq!(&fs::read(&path).unwrap()[..14], b"without a sync");
    mounted.umount();
}

/// The kernel writes a mapped page back through any handle of the file that can write; when that was one that appends, the
/// page went to the end of the file.
#[test]
fn pages_of_a_mapping_go_to_their_place_although_a_handle_appends() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    fs::write(&path, vec![b'.'; 8192]).unwrap();
    let appending = File::options().read(true).append(true).open(&path).unwrap();
    let mapping = Mapping::new(&appending, 8192, true);
    mapping.write(100, b"mapped");
    mapping.sync();
    let read = fs::read(&path).unwrap();
    assert_eq!((read.len(), &read[100..106]), (8192, b"mapped".as_slice()));
    // The same handle, once it shall not append any more.
    let flags = rustix::fs::fcntl_getfl(&appending).unwrap();
    rustix::fs::fcntl_setfl(&appending, flags - rustix::fs::OFlags::APPEND).unwrap();
    appending.write_all_at(b"placed", 200).unwrap();
    let read = fs::read(&path).unwrap();
    assert_eq!((read.len(), &read[200..206]), (8192, b"placed".as_slice()));
    drop((mapping, appending));
    mounted.umount();
}

#[test]
fn a_private_mapping_keeps_its_changes_to_itself() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    let file = rw(&path);
    file.write_all_at(&[7; 10_000], 0).unwrap();
    let mapping = Mapping::new(&file, 10_000, false);
    mapping.write(0, b"private");
    assert_eq!(fs::read(&path).unwrap(), [7; 10_000]);
    assert_eq!(mapping.read(0, 7), b"private");
    drop((mapping, file));
    mounted.umount();
}

#[test]
fn two_processes_that_append_lose_nothing() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("log");
    let script = format!("i=0; while [ $i -lt 400 ]; do echo \"$0 $i\" >> {path:?}; i=$((i+1)); done");
    let held = format!("i=0; while [ $i -lt 400 ]; do echo \"$0 $i\"; i=$((i+1)); done >> {path:?}");
    let mut writers: Vec<_> = [("a", &script), ("b", &script), ("c", &held)]
        .map(|(name, script)| Command::new("sh").args(["-c", script, name]).spawn().unwrap())
        .into();
    for writer in &mut writers {
        assert!(writer.wait().unwrap().success());
    }
    let text = fs::read_to_string(&path).unwrap();
    for name in ["a", "b", "c"] {
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(name)).collect();
        let expected: Vec<_> = (0..400).map(|number| format!(" {number}")).collect();
        assert_eq!(lines, expected, "lines of {name}");
    }
    mounted.umount();
}

#[test]
fn a_reader_never_misses_a_file_that_is_renamed_over() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    fs::write(&path, "0".repeat(100)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    let text = fs::read_to_string(&path).expect("the name is always there");
                    assert!(text.len() == 100 && text.bytes().all(|byte| byte == text.as_bytes()[0]), "{text}");
                    count += 1;
                }
                assert!(count > 0);
            });
        }
        for number in 0..500 {
            let new = mounted.path("new");
            fs::write(&new, (number % 10).to_string().repeat(100)).unwrap();
            fs::rename(&new, &path).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    mounted.umount();
}

#[test]
fn names_that_stay_are_listed_once_while_others_come_and_go() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let dir = mounted.path("dir");
    fs::create_dir(&dir).unwrap();
    let stay: BTreeSet<_> = (0..700).map(|number| format!("stay-{number}")).collect();
    for name in &stay {
        fs::write(dir.join(name), "").unwrap();
    }
    for number in 0..700 {
        fs::write(dir.join(format!("go-{number}")), "").unwrap();
    }
    let mut seen = Vec::new();
    for (at, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name().into_string().unwrap());
        if at < 700 {
            fs::remove_file(dir.join(format!("go-{at}"))).unwrap();
            fs::write(dir.join(format!("come-{at}")), "").unwrap();
        }
    }
    let kept: Vec<_> = seen.iter().filter(|name| name.starts_with("stay")).cloned().collect();
    assert_eq!(kept.len(), 700, "no name twice");
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), stay);
    let all: BTreeSet<_> = seen.iter().collect();
    assert_eq!(all.len(), seen.len(), "no name twice");
    // Removing while listing, as rm does, leaves nothing behind.
    for entry in fs::read_dir(&dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::remove_dir(&dir).unwrap();
    mounted.umount();
}

#[test]
fn a_directory_of_many_entries_is_listed_found_and_removed() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let count = number_from_environment("VELLUM_TEST_ENTRIES", 50_000);
    let dir = mounted.path("dir");
    fs::create_dir(&dir).unwrap();
    for number in 0..count {
        File::create(dir.join(format!("entry-{number}"))).unwrap();
    }
    let names = |dir: &std::path::Path| {
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<BTreeSet<_>>()
    };
    let expected: BTreeSet<_> = (0..count).map(|number| format!("entry-{number}")).collect();
    assert!(names(&dir) == expected);
    fs::create_dir(mounted.snapshot("s")).unwrap();
    mounted.umount();
    let mounted = site.mount();
    assert!(names(&dir) == expected);
    let mut random = Seed::new(2);
    for _ in 0..200 {
        assert!(fs::metadata(dir.join(format!("entry-{}", random.below(count)))).unwrap().is_file());
    }
    assert!(fs::metadata(dir.join(format!("entry-{count}"))).is_err());
    succeed(Command::new("rm").arg("-r").arg(&dir));
    assert!(names(&mounted.snapshot("s/dir")) == expected);
    mounted.umount();
}

#[test]
fn a_name_is_durable_when_its_directory_was_synced() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    fs::create_dir_all(mounted.path("a/b")).unwrap();
    fs::write(mounted.path("a/b/file"), "").unwrap();
    std::os::unix::fs::symlink("x", mounted.path("a/link")).unwrap();
    fs::write(mounted.path("a/gone"), "").unwrap();
    fs::remove_file(mounted.path("a/gone")).unwrap();
    File::open(mounted.path("a")).unwrap().sync_all().unwrap();
    mounted.kill();
    let mounted = site.mount();
    assert!(mounted.path("a/b/file").exists() && !mounted.path("a/gone").exists());
    assert_eq!(fs::read_link(mounted.path("a/link")).unwrap(), std::path::Path::new("x"));
    mounted.umount();
}

#[test]
fn writes_that_promise_to_be_durable_are() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    for (name, flags) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC), ("direct", libc::O_DIRECT | libc::O_SYNC)] {
        let mut file =
            File::options().write(true).create_new(true).custom_flags(flags).open(mounted.path(name)).unwrap();
        file.write_all(&noise(1, 8192)).unwrap();
    }
    mounted.kill();
    let mounted = site.mount();
    for name in ["sync", "dsync", "direct"] {
        assert!(fs::read(mounted.path(name)).unwrap() == noise(1, 8192), "{name}");
    }
    mounted.umount();
}

#[test]
fn holes_are_found_punched_and_kept() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("file");
    let mut file = rw(&path);
    file.write_all_at(&noise(3, 1 << 20), 0).unwrap();
    file.write_all_at(b"end", (8 << 20) - 3).unwrap();
    succeed(Command::new("fallocate").args(["-p", "-o", "262144", "-l", "262144"]).arg(&path));
    let mut expected = noise(3, 1 << 20);
    expected[262_144..524_288].fill(0);
    let check = |path: &std::path::Path| {
        let mut read = vec![0; 1 << 20];
        File::open(path).unwrap().read_exact(&mut read).unwrap();
        assert!(read == expected);
    };
    check(&path);
    let seek = |file: &mut File, to| rustix::fs::seek(&*file, to).unwrap();
    let hole = seek(&mut file, rustix::fs::SeekFrom::Hole(0));
    assert!(hole <= 262_144, "a hole at {hole}");
    let data = seek(&mut file, rustix::fs::SeekFrom::Data(2 << 20));
    assert!(data > 2 << 20 && data <= (8 << 20) - 3, "data at {data}");
    fs::create_dir(mounted.snapshot("s")).unwrap();
    let blocks = file.metadata().unwrap().blocks();
    assert!(blocks * 512 < 2 << 20, "{blocks} blocks");
    file.set_len(100).unwrap();
    file.set_len(8 << 20).unwrap();
    file.seek(SeekFrom::Start(100)).unwrap();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!(rest.len() == (8 << 20) - 100 && rest.iter().all(|&byte| byte == 0));
    check(&mounted.snapshot("s/file"));
    drop(file);
    mounted.umount();
}

#[test]
fn locks_of_two_processes_exclude_each_other() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let path = mounted.path("lock");
    let file = rw(&path);
    file.lock().unwrap();
    let taken = Command::new("flock").args(["-n"]).arg(&path).arg("true").status();
    if let Ok(status) = taken {
        assert!(!status.success(), "a second lock was given");
        file.unlock().unwrap();
        succeed(Command::new("flock").arg("-n").arg(&path).arg("true"));
    }
    drop(file);
    mounted.umount();
}

#[test]
fn random_reads_and_writes_of_a_file_agree_with_memory() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount_with("version-quiet=1,version-max-wait=1,dirty=8M");
    let mut random = Seed::of_test("random_reads_and_writes_of_a_file_agree_with_memory", 3);
    let path = mounted.path("file");
    let file = rw(&path);
    let mut model: Vec<u8> = Vec::new();
    for step in 0..3000 {
        let offset = random.below(6 << 20);
        let length = 1 + random.below(if step % 50 == 0 { 900_000 } else { 9_000 });
        match random.below(20) {
            0 => {
                model.resize(offset as usize, 0);
                file.set_len(offset).unwrap();
            }
            1..=9 => {
                let bytes = noise(random.draw(), length as usize);
                let end = (offset + length) as usize;
                if model.len() < end {
                    model.resize(end, 0);
                }
                model[offset as usize..end].copy_from_slice(&bytes);
                file.write_all_at(&bytes, offset).unwrap();
            }
            10 if step % 3 == 0 => file.sync_data().unwrap(),
            _ => {
                let mut read = vec![0; length as usize];
                let mut count = 0;
                while count < read.len() {
                    match file.read_at(&mut read[count..], offset + count as u64).unwrap() {
                        0 => break,
                        more => count += more,
                    }
                }
                let from = (offset as usize).min(model.len());
                let to = ((offset + length) as usize).min(model.len());
                assert!(read[..count] == model[from..to], "step {step}: {length} bytes at {offset}");
            }
        }
    }
    assert!(fs::read(&path).unwrap() == model);
    drop(file);
    mounted.umount();
    let mounted = site.mount();
    assert!(fs::read(&path).unwrap() == model);
    mounted.umount();
}
