//! Tests of the local backend: the conformance suite, power loss and full or failing disks.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    backend::conformance,
    disk::{
        FaultDisk, LocalDisk, MemoryDisk,
        fault::{Fault, Op, Rule},
    },
};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// A repository's directory on a simulated disk, itself durable.
fn simulated() -> (MemoryDisk, LocalBackend) {
    let disk = MemoryDisk::new();
    disk.create_dir(Path::new("/r")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let backend = reopen(&disk);
    (disk, backend)
}

fn reopen(disk: &MemoryDisk) -> LocalBackend {
    LocalBackend::new(Arc::new(disk.clone()), "/r".into(), false)
}

#[test]
fn conforms_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let repositories = std::cell::Cell::new(0);
    conformance::check(&|| {
        repositories.set(repositories.get() + 1);
        let root = dir.path().join(repositories.get().to_string());
        std::fs::create_dir(&root).unwrap();
        Box::new(LocalBackend::new(Arc::new(LocalDisk), root, false))
    });
}

#[test]
fn conforms_on_a_simulated_disk() {
    conformance::check(&|| Box::new(simulated().1));
}

fn faulty() -> (MemoryDisk, FaultDisk, LocalBackend) {
    let (memory, _) = simulated();
    let disk = FaultDisk::new(Arc::new(memory.clone()));
    let backend = LocalBackend::new(Arc::new(disk.clone()), "/r".into(), false);
    (memory, disk, backend)
}

fn names(backend: &LocalBackend) -> Vec<String> {
    let mut names = Vec::new();
    backend
        .list("", &mut |name, _| {
            names.push(name.to_string());
            Ok(())
        })
        .unwrap();
    names.sort();
    names
}

/// What a run of calls was promised before the power failed.
#[derive(Default)]
struct Promises {
    stored: Vec<(ObjectName, Vec<u8>)>,
    /// An open object and how much of it was synced; gone once its publication begins.
    open: Option<(OpenName, Vec<u8>)>,
    config: usize,
}

const CONFIGS: [&[u8]; 3] = [b"", b"the first", b"the second, which is longer"];

fn run_until_the_power_fails(backend: &LocalBackend, promises: &mut Promises) -> Result<()> {
    for i in 0..3u8 {
        let (put, published) = (name(&format!("index/{i}")), name(&format!("packs/a{i}/x")));
        backend.put_new(&put, &[i; 1500])?;
        promises.stored.push((put, vec![i; 1500]));
        let open = backend.create_open(8192)?;
        open.append(&[i; 700])?;
        open.sync()?;
        promises.open = Some((open.name().clone(), vec![i; 700]));
        open.append(&[i; 900])?;
        promises.open = None;
        open.publish(&published)?;
        promises.stored.push((published, vec![i; 1600]));
        if let Some(config) = CONFIGS.get(i as usize + 1) {
            backend.replace(&name("config"), config)?;
            promises.config = i as usize + 1;
        }
    }
    Ok(())
}

fn verify(survivor: &MemoryDisk, promises: &Promises, what: &str) {
    let backend = reopen(survivor);
    for (name, bytes) in &promises.stored {
        assert_eq!(&backend.get(name, 1 << 20).unwrap(), bytes, "{what}: {name}");
    }
    for text in names(&backend) {
        let bytes = backend.get(&name(&text), 1 << 20).unwrap();
        match text.as_str() {
            "config" => assert!(CONFIGS.contains(&&bytes[..]), "{what}: {bytes:?}"),
            _ if text.starts_with("index/") => assert!(bytes.len() == 1500, "{what}: {text}"),
            _ => assert!(bytes.len() == 1600, "{what}: {text}"),
        }
        assert!(text == "config" || bytes.iter().all(|&b| b == bytes[0]), "{what}: {text}");
    }
    if promises.config > 0 {
        let bytes = backend.get(&name("config"), 100).unwrap();
        assert!(CONFIGS[promises.config..].contains(&&bytes[..]), "{what}: {bytes:?}");
    }
    if let Some((open, bytes)) = &promises.open {
        assert!(backend.list_open().unwrap().contains(open), "{what}: {open}");
        assert_eq!(&backend.read_open(open, 0, bytes.len() as u32).unwrap(), bytes, "{what}");
    }
    // The repository goes on from whatever is left.
    backend.put_new(&name("index/after"), b"x").unwrap();
    assert_eq!(backend.get(&name("index/after"), 1).unwrap(), b"x", "{what}");
}

#[test]
fn whatever_was_promised_survives_power_loss_before_any_call() {
    for calls in 0.. {
        let (memory, disk, backend) = faulty();
        disk.add(Rule::power_off_after(calls));
        let mut promises = Promises::default();
        let done = run_until_the_power_fails(&backend, &mut promises);
        verify(&memory.crash(), &promises, &format!("after {calls} calls"));
        verify(&memory.kill(), &promises, &format!("killed after {calls} calls"));
        for seed in 0..8 {
            verify(&memory.crash_seeded(seed), &promises, &format!("after {calls} calls, seed {seed}"));
        }
        if done.is_ok() {
            assert!(calls > 60, "the run has {calls} calls");
            break;
        }
    }
}

#[test]
fn directories_of_a_process_that_died_are_made_durable_before_use() {
    let (memory, _) = simulated();
    memory.create_dir(Path::new("/r/index")).unwrap();
    reopen(&memory).put_new(&name("index/x"), b"x").unwrap();
    assert_eq!(reopen(&memory.crash()).get(&name("index/x"), 1).unwrap(), b"x");
}

#[test]
fn object_that_exists_is_durable_even_if_who_stored_it_died_too_early() {
    let (memory, disk, backend) = faulty();
    disk.add(Rule::once(Op::SyncDir, Fault::PowerOff).at("/r/index"));
    assert!(backend.put_new(&name("index/x"), b"x").is_err());
    let killed = memory.kill();
    assert_eq!(reopen(&killed).put_new(&name("index/x"), b"y").unwrap(), Put::Exists);
    assert_eq!(reopen(&killed.crash()).get(&name("index/x"), 1).unwrap(), b"x");
}

#[test]
fn failed_read_is_never_answered_as_missing() {
    let (_, disk, backend) = faulty();
    backend.put_new(&name("index/x"), b"12345").unwrap();
    for op in [Op::Open, Op::Read] {
        for read in [
            &(|b: &LocalBackend| b.get(&name("index/x"), 9).map(|_| ())) as &dyn Fn(&LocalBackend) -> Result<()>,
            &|b| b.get_range(&name("index/x"), 0, 5).map(|_| ()),
        ] {
            disk.add(Rule::once(op, Fault::Io));
            let error = read(&backend).unwrap_err();
            assert!(matches!(&error, Error::Io { doing, .. } if doing == "read /r/index/x"), "{op:?}: {error}");
        }
    }
    for (op, failing) in [(Op::Metadata, "/r/index/x"), (Op::List, "/r/index")] {
        disk.add(Rule::once(op, Fault::Io).at(failing).times(u64::MAX));
        assert!(matches!(backend.list("index/", &mut |_, _| Ok(())), Err(Error::Io { .. })), "{op:?}");
    }
    assert!(matches!(backend.length(&name("index/x")), Err(Error::Io { .. })));
}

#[test]
fn repository_that_vanished_does_not_look_empty() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    std::fs::create_dir(&root).unwrap();
    let backend = LocalBackend::new(Arc::new(LocalDisk), root.clone(), false);
    backend.put_new(&name("config"), b"x").unwrap();
    std::fs::rename(&root, dir.path().join("elsewhere")).unwrap();
    let gone = |error: Error| error.to_string().contains("the repository's directory is gone");
    assert!(gone(backend.get(&name("config"), 9).unwrap_err()));
    assert!(gone(backend.length(&name("config")).unwrap_err()));
    assert!(gone(backend.list("", &mut |_, _| Ok(())).unwrap_err()));
    assert!(gone(backend.list_open().unwrap_err()));
    assert!(gone(backend.delete(&name("config")).unwrap_err()));
}

#[test]
fn full_disk_is_no_space_and_leaves_no_part_behind() {
    let (memory, _) = simulated();
    let backend = reopen(&memory);
    memory.set_capacity(10_000);
    backend.put_new(&name("index/x"), &[1; 4000]).unwrap();
    assert!(matches!(backend.put_new(&name("index/y"), &[1; 8000]), Err(Error::NoSpace { .. })));
    assert!(matches!(backend.create_open(8000), Err(Error::NoSpace { .. })));
    assert!(backend.list_open().unwrap().is_empty());
    assert_eq!(names(&backend), ["index/x"]);
    assert_eq!(backend.space().unwrap().free_bytes, 6000);
    backend.put_new(&name("index/y"), &[1; 6000]).unwrap();
}

#[test]
fn open_object_survives_a_full_disk_within_its_reserve() {
    let (memory, disk, backend) = faulty();
    let open = backend.create_open(3000).unwrap();
    memory.set_capacity(3000);
    open.append(&[1; 1000]).unwrap();
    disk.add(Rule::once(Op::Write, Fault::ShortNoSpace));
    assert!(matches!(open.append(&[2; 4000]), Err(Error::NoSpace { .. })));
    assert_eq!(open.len(), 1000);
    assert_eq!(open.append(&[3; 500]).unwrap(), 1000);
    open.sync().unwrap();
    memory.set_capacity(1 << 20);
    open.publish(&name("packs/ab/x")).unwrap();
    let bytes = reopen(&memory.crash()).get(&name("packs/ab/x"), 9999).unwrap();
    assert_eq!(bytes, [vec![1; 1000], vec![3; 500]].concat());
}

/// A reservation is space that nobody uses yet; a full disk has to be full of something.
#[test]
fn reservations_give_way_before_a_disk_counts_as_full() {
    let (memory, _) = simulated();
    let backend = reopen(&memory);
    memory.set_capacity(2 << 20);
    let idle = backend.create_open(1 << 20).unwrap();
    idle.append(b"idle").unwrap();
    let busy = backend.create_open(512 << 10).unwrap();
    // More than what is not reserved, in each of the ways to take space.
    busy.append(&vec![1; 1 << 20]).unwrap();
    let later = backend.create_open(900 << 10).unwrap();
    backend.put_new(&name("index/x"), &vec![2; 700 << 10]).unwrap();
    assert!(matches!(busy.append(&vec![1; 500 << 10]), Err(Error::NoSpace { .. })));
    later.append(b"later").unwrap();
    for (open, length) in [(&idle, 4), (&busy, 1 << 20), (&later, 5)] {
        assert_eq!(open.len(), length);
        // What the trailer takes has stayed reserved.
        open.append(&vec![3; 60 << 10]).unwrap();
        open.publish(&name(&format!("packs/ab/{length}"))).unwrap();
        assert_eq!(backend.length(&name(&format!("packs/ab/{length}"))).unwrap(), Some(length + (60 << 10)));
    }
}

/// Nobody else can fill what is set aside, and nothing that must be stored fails before it is used up.
#[test]
fn what_is_set_aside_is_the_last_space_to_be_used_and_comes_back() {
    let (memory, _) = simulated();
    memory.set_capacity(16 << 20);
    let backend = reopen(&memory);
    let told = |backend: &LocalBackend| {
        let space = backend.space().unwrap();
        (space.free_bytes, space.reserve_bytes, space.unreserved_bytes)
    };
    assert_eq!(told(&backend), (16 << 20, 0, 2 << 20));
    backend.hold_reserve();
    assert_eq!(told(&backend), (14 << 20, 2 << 20, 0));
    assert!(names(&backend).is_empty(), "it is no object");
    let others = memory.create_new(Path::new("/others")).unwrap();
    others.allocate(0, 14 << 20).unwrap();
    // A reservation is not worth it; the caller goes on with a smaller one.
    assert!(matches!(backend.create_open(1 << 19), Err(Error::NoSpace { .. })));
    assert_eq!(told(&backend), (0, 2 << 20, 0));
    let open = backend.create_open(0).unwrap();
    open.append(&[1; 600 << 10]).unwrap();
    assert_eq!(told(&backend), (424 << 10, 1 << 20, 1 << 20), "a slice of it is used");
    backend.put_new(&name("index/x"), &[2; 1400 << 10]).unwrap();
    assert!(matches!(backend.put_new(&name("index/y"), &[2; 100 << 10]), Err(Error::NoSpace { .. })));
    open.publish(&name("packs/ab/x")).unwrap();
    backend.hold_reserve();
    assert_eq!(told(&backend), (48 << 10, 0, 2 << 20), "there is not enough to set anything aside");
    others.set_len(12 << 20).unwrap();
    backend.hold_reserve();
    assert_eq!(told(&backend), (48 << 10, 2 << 20, 0));
    let reader = LocalBackend::new(Arc::new(memory.clone()), "/r".into(), true);
    assert!(!reader.make_room());
    assert!(backend.make_room() && backend.make_room() && !backend.make_room());
    assert_eq!(told(&backend), (2096 << 10, 0, 2 << 20));
}

/// An append of which a part fits leaves nothing behind that would look like room for it.
#[test]
fn an_append_that_fits_in_part_gets_to_what_is_set_aside() {
    let (memory, _) = simulated();
    memory.set_capacity(16 << 20);
    let backend = reopen(&memory);
    backend.hold_reserve();
    let open = backend.create_open(0).unwrap();
    open.append(&[1; 1000]).unwrap();
    let others = memory.create_new(Path::new("/others")).unwrap();
    others.allocate(0, (14 << 20) - (200 << 10)).unwrap();
    assert_eq!(open.append(&[2; 300 << 10]).unwrap(), 1000);
    assert_eq!(backend.space().unwrap().reserve_bytes, 1 << 20);
    open.publish(&name("packs/ab/x")).unwrap();
    assert_eq!(backend.length(&name("packs/ab/x")).unwrap(), Some(1000 + (300 << 10)));
}

/// On ext4 the third fsync after an error succeeds for bytes that have become zeros; the simulated disk does so at the second.
#[test]
fn open_object_is_poisoned_by_its_first_failure_and_never_synced_again() {
    for (op, fault) in
        [(Op::Sync, Fault::Io), (Op::Sync, Fault::IoAfter), (Op::Write, Fault::Io), (Op::Write, Fault::IoAfter)]
    {
        let (_, disk, backend) = faulty();
        let open = backend.create_open(100).unwrap();
        open.append(b"before").unwrap();
        open.sync().unwrap();
        let syncs = disk.count(Op::Sync);
        disk.add(Rule::once(op, fault));
        let first = if op == Op::Write { open.append(b"lost").unwrap_err() } else { open.sync().unwrap_err() };
        assert!(matches!(first, Error::Io { .. }), "{first}");
        let failed_syncs = disk.count(Op::Sync) - syncs;
        for again in
            [open.append(b"x").unwrap_err(), open.sync().unwrap_err(), open.publish(&name("packs/ab/x")).unwrap_err()]
        {
            assert_eq!(again.to_string(), first.to_string());
        }
        assert_eq!(disk.count(Op::Sync) - syncs, failed_syncs);
        assert_eq!(open.read_at(0, 6).unwrap(), b"before");
        assert!(names(&backend).is_empty());
        open.discard();
        assert!(backend.list_open().unwrap().is_empty());
    }
}

#[test]
fn failed_publication_is_not_reported_as_done() {
    for (op, path) in [
        (Op::SetLen, ""),
        (Op::Sync, ""),
        (Op::Rename, ""),
        (Op::SyncDir, "/r/packs/ab"),
        (Op::SyncDir, "/r/packs/open"),
    ] {
        let (_, disk, backend) = faulty();
        backend.put_new(&name("packs/ab/other"), b"").unwrap();
        let open = backend.create_open(100).unwrap();
        open.append(b"bytes").unwrap();
        disk.add(Rule::once(op, Fault::Io).at(path));
        let first = open.publish(&name("packs/ab/x")).unwrap_err();
        let second = open.publish(&name("packs/ab/x")).unwrap_err();
        assert_eq!(first.to_string(), second.to_string(), "{op:?} {path}");
    }
}

#[test]
fn put_that_fails_anywhere_says_so_and_can_be_repeated_unless_a_directory_failed() {
    let mut ended = false;
    for calls in 0..12 {
        let (memory, disk, backend) = faulty();
        disk.add(Rule { ops: Vec::new(), path_contains: String::new(), skip: calls, times: 1, fault: Fault::Io });
        let first = backend.put_new(&name("index/x"), b"bytes");
        disk.heal();
        let second = backend.put_new(&name("index/x"), b"bytes");
        ended = first.is_ok();
        match first {
            Err(Error::Io { doing, .. }) if ["sync /r", "sync /r/index"].contains(&doing.as_str()) => {
                assert!(second.unwrap_err().to_string().starts_with(&doing));
            }
            Ok(Put::Stored) | Err(Error::Io { .. }) => {
                second.unwrap();
                let survivor = reopen(&memory.crash());
                assert_eq!(survivor.get(&name("index/x"), 9).unwrap(), b"bytes", "after {calls} calls");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(ended);
}

#[test]
fn error_of_a_repository_that_cannot_be_written_names_it() {
    let (_, disk, backend) = faulty();
    disk.add(Rule { ops: Vec::new(), path_contains: String::new(), skip: 0, times: u64::MAX, fault: Fault::ReadOnly });
    for error in [backend.put_new(&name("index/x"), b"").unwrap_err(), backend.create_open(0).unwrap_err()] {
        assert!(error.to_string().contains("the repository /r cannot be written"), "{error}");
    }
    let (_, disk, _) = faulty();
    let backend = LocalBackend::new(Arc::new(disk.clone()), "/r".into(), true);
    let before = disk.changes();
    assert!(matches!(backend.put_new(&name("index/x"), b""), Err(Error::ReadOnly { what }) if what == "repository /r"));
    assert!(matches!(backend.delete(&name("index/x")), Err(Error::ReadOnly { .. })));
    assert!(matches!(backend.create_open(0), Err(Error::ReadOnly { .. })));
    assert_eq!(disk.changes(), before);
}

#[test]
fn leftovers_of_crashed_puts_are_swept_by_the_next_writer_only() {
    let (memory, disk, backend) = faulty();
    disk.add(Rule::once(Op::Sync, Fault::PowerOff));
    assert!(backend.put_new(&name("index/x"), b"x").is_err());
    let temporaries = |disk: &MemoryDisk| {
        let mut count = 0;
        disk.list_dir(Path::new("/r/tmp"), &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        count
    };
    assert_eq!(temporaries(&memory), 1);
    assert!(names(&reopen(&memory)).is_empty());
    assert_eq!(temporaries(&memory), 1);
    reopen(&memory).put_new(&name("index/x"), b"x").unwrap();
    assert_eq!(temporaries(&memory), 0);
}

#[test]
fn put_whose_temporary_was_swept_writes_it_again() {
    /// Sweeps before the rename, as another process that has just started.
    #[derive(Debug)]
    struct Sweeping(MemoryDisk, std::sync::atomic::AtomicU32);
    impl crate::spawn::Spawner for Sweeping {
        fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> io::Result<crate::spawn::JoinHandle> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn blocking_begin(&self) {}
        fn blocking_end(&self) {}
        fn step(&self, _: &'static str) {
            let backend = reopen(&self.0);
            if self.1.load(Ordering::Relaxed) > 0 && self.0.metadata(Path::new("/r/tmp")).unwrap().is_some() {
                backend.sweep_temporaries().unwrap();
                self.1.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
    for (sweeps, works) in [(3, true), (1000, false)] {
        let (memory, _) = simulated();
        let sweeping = Sweeping(memory.clone(), sweeps.into());
        let disk = FaultDisk::with_steps(Arc::new(memory.clone()), Arc::new(sweeping));
        let backend = LocalBackend::new(Arc::new(disk), "/r".into(), false);
        let put = backend.put_new(&name("index/x"), b"x");
        assert_eq!(put.is_ok(), works, "{put:?}");
        assert_eq!(names(&reopen(&memory)).len(), works as usize);
    }
}

#[test]
fn foreign_files_are_no_objects_and_linked_directories_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, other) = (dir.path().join("r"), dir.path().join("other disk"));
    for path in [
        &root,
        &other,
        &root.join("lost+found"),
        &root.join("locks"),
        &root.join("journal"),
        &root.join("journal/main"),
        &other.join("ab"),
    ] {
        std::fs::create_dir(path).unwrap();
    }
    for path in [".DS_Store", "lost+found/x", "locks/main", "journal/main/1", "a b", "config~"] {
        std::fs::write(root.join(path), b"").unwrap();
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        std::fs::write(root.join(OsStr::from_bytes(b"\xff")), b"").unwrap();
        std::os::unix::fs::symlink(&other, root.join("packs")).unwrap();
    }
    let backend = LocalBackend::new(Arc::new(LocalDisk), root, false);
    assert!(names(&backend).is_empty());
    std::fs::write(other.join("ab/x"), b"").unwrap();
    assert_eq!(names(&backend), ["packs/ab/x"]);
}

#[cfg(unix)]
#[test]
fn repository_path_may_hold_any_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join(OsStr::from_bytes(b"not \xff\xfe text\n"));
    std::fs::create_dir(&root).unwrap();
    let backend = LocalBackend::new(Arc::new(LocalDisk), root.clone(), false);
    backend.put_new(&name("index/x"), b"x").unwrap();
    let open = backend.create_open(10).unwrap();
    open.append(b"bytes").unwrap();
    open.publish(&name("packs/ab/x")).unwrap();
    assert_eq!(names(&backend), ["index/x", "packs/ab/x"]);
    assert_eq!(std::fs::read(root.join("packs/ab/x")).unwrap(), b"bytes");
}

#[test]
fn descriptors_are_kept_for_packs_and_no_more_than_the_bound() {
    let (_, disk, backend) = faulty();
    let packs: Vec<_> = (0..OPEN_FILES_MAX + 10).map(|i| name(&format!("packs/ab/{i}"))).collect();
    packs.iter().for_each(|pack| assert_eq!(backend.put_new(pack, b"bytes").unwrap(), Put::Stored));
    let opens = |pack: &ObjectName| {
        let before = disk.count(Op::Open);
        assert_eq!(backend.get_range(pack, 1, 2).unwrap(), b"yt");
        disk.count(Op::Open) - before
    };
    assert!(packs.iter().all(|pack| opens(pack) == 1));
    assert_eq!(backend.open_files.lock().files.len(), OPEN_FILES_MAX);
    assert_eq!((opens(&packs[packs.len() - 1]), opens(&packs[0])), (0, 1));
    backend.replace(&name("keys/slot"), b"bytes").unwrap();
    assert_eq!((opens(&name("keys/slot")), opens(&name("keys/slot"))), (1, 1));
}

#[test]
fn file_opened_before_a_deletion_is_not_kept_after_it() {
    let mut cache = OpenFiles::default();
    let memory = MemoryDisk::new();
    let file: Arc<dyn DiskFile> = Arc::from(memory.create_new(Path::new("/x")).unwrap());
    let before = cache.deletions;
    cache.forget(&name("packs/ab/x"));
    cache.insert(&name("packs/ab/x"), &file, before);
    assert!(cache.get(&name("packs/ab/x")).is_none());
}

#[test]
fn removed_key_slot_stays_removed_after_power_loss() {
    let (memory, backend) = simulated();
    backend.put_new(&name("keys/slot"), b"x").unwrap();
    backend.delete(&name("keys/slot")).unwrap();
    assert!(names(&reopen(&memory.crash())).is_empty());
}
