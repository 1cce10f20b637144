//! Bad input to the libraries: wrong secrets, foreign and newer repositories, histories that went back, parts of other repositories.
//! Each gives an error that says what is wrong, soon, and without much memory.

use std::time::{Duration, Instant};

use vellum_fs::{error::Error as FsError, ino::Ino};
use vellum_store::{
    Error,
    crypto::{Credential, KdfParams},
    disk::{Disk, MemoryDisk},
    repository::{Access, InitOptions, OpenOptions, Repository},
};
use vellum_tests::{
    bench::{Bench, Opened, REPOSITORY, STATE, close, create},
    portrait::{Findings, Portrait, read_all},
};

use crate::{
    flips::kind,
    story::{STORY, Story},
};

/// What no refusal may take, on a machine that does other things as well.
const SOON: Duration = Duration::from_secs(20);
const BOTH: [Access; 2] = [Access::ReadOnly, Access::ReadWrite];

fn refusal(bench: &Bench, access: Access) -> FsError {
    let started = Instant::now();
    let error = bench.open(access).err().expect("it is refused");
    assert!(started.elapsed() < SOON, "{:?}: {error}", started.elapsed());
    error
}

fn store_refusal(bench: &Bench, access: Access) -> Error {
    match refusal(bench, access) {
        FsError::Store(error) => error,
        error => panic!("not of the store: {error:?}"),
    }
}

fn objects(bench: &Bench, of: &str) -> Vec<String> {
    bench.files().into_iter().map(|(object, _)| object).filter(|object| kind(object) == of).collect()
}

/// Changes all copies of an object in one way.
fn change_all(bench: &Bench, of: &str, change: impl Fn(&mut Vec<u8>)) {
    for object in objects(bench, of) {
        let mut bytes = bench.bytes(&object);
        change(&mut bytes);
        bench.put(&object, &bytes);
    }
}

/// Puts the unkeyed checksum right that ends configurations and slots, as anybody can.
fn with_checksum(bytes: &mut [u8]) {
    let end = bytes.len() - 32;
    let checksum = *blake3::hash(&bytes[..end]).as_bytes();
    bytes[end..].copy_from_slice(&checksum);
}

#[test]
fn a_wrong_secret_is_one_error_whatever_is_wrong_about_it() {
    for access in BOTH {
        let other_key = STORY.bench.with_key(9);
        assert!(matches!(store_refusal(&other_key, access), Error::WrongKey));
        let mut options = STORY.bench.kill().options(access);
        for text in ["a passphrase where a key file opens", ""] {
            options.credential = Credential::Passphrase(text.to_string().into());
            let error = Repository::open(options).unwrap_err();
            assert!(matches!(error, Error::WrongKey) && !error.to_string().contains("where a key"), "{error}");
            options = STORY.bench.kill().options(access);
        }
    }
}

#[test]
fn a_newer_format_is_told_by_its_number_and_the_object() {
    for (of, at) in [("config", 8), ("keys", 8)] {
        for right_checksum in [false, true] {
            let bench = STORY.bench.kill();
            change_all(&bench, of, |bytes| {
                bytes[at] = 7;
                if right_checksum {
                    with_checksum(bytes);
                }
            });
            let error = store_refusal(&bench, Access::ReadWrite);
            let Error::UnsupportedFormat { object, found: 7, known: 0 } = &error else { panic!("{error:?}") };
            assert!(object.starts_with(of), "{object}");
        }
    }
}

#[test]
fn a_place_that_is_no_repository_is_told_so() {
    let disk = MemoryDisk::new();
    let open = |disk: &MemoryDisk, path: &str| {
        let mut options = OpenOptions::new(path, vellum_tests::bench::credential(7), STATE);
        options.disk = std::sync::Arc::new(disk.clone());
        Repository::open(options).unwrap_err()
    };
    let write = |path: &str, bytes: &[u8]| {
        let file = disk.create_new(path.as_ref()).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    };
    for dir in ["/empty", "/full", "/full/keys", "/restic", "/huge"] {
        disk.create_dir(dir.as_ref()).unwrap();
    }
    write("/full/notes.txt", b"hello");
    write("/restic/config", b"{\"version\":2,\"id\":\"0123\"}");
    write("/huge/config", &vec![b'v'; 1 << 20]);
    write("/file", b"a file");
    for path in ["/empty", "/full", "/missing", "/file"] {
        let error = open(&disk, path);
        assert!(matches!(&error, Error::NotARepository { path: named, .. } if named == path), "{path}: {error:?}");
    }
    for path in ["/restic", "/huge"] {
        let error = open(&disk, path);
        assert!(error.to_string().contains("config"), "{path}: {error}");
    }
    assert!(disk.metadata("/empty/tmp".as_ref()).unwrap().is_none(), "nothing was made there");
}

#[test]
fn a_repository_that_went_back_is_refused_and_adopted_only_on_purpose() {
    let story = &*STORY;
    let bench = story.bench.kill();
    bench.restore_from(&story.earlier);
    for access in BOTH {
        let error = store_refusal(&bench, access);
        assert!(matches!(&error, Error::Rollback { volume, .. } if volume == "main"), "{error:?}");
        assert!(error.to_string().contains("remembers"), "{error}");
    }
    assert!(!bench.check().is_empty(), "a check says so too");

    // A restored copy, adopted on purpose.
    let adopt = |bench: &Bench| {
        let mut options = bench.options(Access::ReadWrite);
        options.adopt_copy = true;
        vellum_tests::bench::open_volume(Repository::open(options).unwrap(), "main", Access::ReadWrite).unwrap()
    };
    let opened = adopt(&bench);
    let mut findings = Findings::default();
    for (name, portrait) in &story.snapshots {
        portrait.compare_snapshot(&opened.volume, name, &mut findings);
    }
    assert_eq!((findings.wrong, findings.errors), (vec![], vec![]));
    assert!(opened.volume.lookup(Ino::ROOT, b"later0").is_err());
    close(&opened.volume);
    drop(opened);
    // It is known from here on.
    close(&bench.open(Access::ReadWrite).unwrap().volume);
}

/// What is seen is remembered when it is opened, not when it is next changed: else a store could roll back between the two.
#[test]
fn a_history_that_was_only_looked_at_cannot_be_rolled_back_either() {
    let story = &*STORY;
    // A machine that never saw this repository opens it for writing and changes nothing.
    let stranger = Bench::new(7);
    stranger.restore_from(&settled(&story.bench));
    close(&stranger.open(Access::ReadWrite).unwrap().volume);
    stranger.restore_from(&story.earlier);
    assert!(matches!(store_refusal(&stranger, Access::ReadWrite), Error::Rollback { .. }));
}

/// The same repository after an opening and closing: its journal is empty.
fn settled(bench: &Bench) -> Bench {
    let bench = bench.kill();
    close(&bench.open(Access::ReadWrite).unwrap().volume);
    bench
}

#[test]
fn parts_of_another_repository_with_the_same_secret_are_refused() {
    let story = &*STORY;
    // Made with the same key file, so that its slots open; its master key is another one.
    let other = Story::tell(7).bench;
    for of in ["heads", "manifests", "index", "packs", "journal", "keys", "config"] {
        let bench = story.bench.kill();
        let (mine, theirs) = (objects(&bench, of), objects(&other, of));
        for (number, object) in mine.iter().enumerate() {
            // Under the names that are expected, and under their own.
            bench.put(object, &other.bytes(&theirs[number % theirs.len()]));
        }
        theirs
            .iter()
            .filter(|object| !mine.contains(object))
            .for_each(|object| bench.put(object, &other.bytes(object)));
        let named = bench.check();
        for access in BOTH {
            match bench.kill().open(access) {
                Ok(opened) => {
                    assert!(!matches!(of, "keys" | "config"), "{of}");
                    assert_no_wrong_bytes(story, &opened, of == "journal");
                    close(&opened.volume);
                }
                Err(error) => {
                    assert!(!error.is_not_found() && !format!("{error:?}").contains("NotFound"), "{of}: {error:?}")
                }
            }
        }
        assert!(!named.is_empty() || of == "journal", "{of}");
    }
}

/// Everything of another repository at the place of this one, as after a mistake in a script.
#[test]
fn another_repository_in_the_place_of_this_one_is_not_taken_for_it() {
    let bench = STORY.bench.kill();
    let other = Story::tell(7);
    bench.restore_from(&other.bench);
    // It is whole, and its identity is new to this machine: it opens as what it is.
    let opened = bench.open(Access::ReadOnly).unwrap();
    let mut findings = Findings::default();
    other.snapshots[0].1.compare_snapshot(&opened.volume, "one", &mut findings);
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
}

fn assert_no_wrong_bytes(story: &Story, opened: &Opened, without_journal: bool) {
    let all = story.states.len() - 1;
    let state = if without_journal { 0 } else { all };
    let mut findings = Findings::default();
    if opened.summary.commits as usize == state {
        story.states[state].compare(&opened.volume, Ino::ROOT, &mut findings);
    } else {
        assert!(opened.summary.damage.is_some());
    }
    for (name, portrait) in &story.snapshots {
        portrait.compare_snapshot(&opened.volume, name, &mut findings);
    }
    assert!(findings.wrong.is_empty(), "{:#?}", findings.wrong);
}

/// Two volumes of one repository, with one key: what is of one does not pass for the other's.
#[test]
fn heads_and_journal_of_another_volume_are_refused() {
    let bench = Bench::new(7);
    for name in ["main", "other"] {
        let volume = bench.open_named(name, Access::ReadWrite).unwrap().volume;
        let (_, handle) = create(&volume, Ino::ROOT, "whose", name.as_bytes());
        volume.fsync(handle).unwrap();
        volume.checkpoint().unwrap();
        let (_, handle) = create(&volume, Ino::ROOT, "synced", name.as_bytes());
        volume.fsync(handle).unwrap();
    }
    let spliced = |of: &str| {
        let bench = bench.kill();
        for object in objects(&bench, of).iter().filter(|object| object.contains("/main/")) {
            bench.put(object, &bench.bytes(&object.replace("/main/", "/other/")));
        }
        bench
    };
    for access in BOTH {
        // This machine remembers the newest head; another one has nothing to go by.
        let harmed = spliced("heads");
        assert!(harmed.check().iter().any(|damage| damage.object.starts_with("heads/main/")));
        let opened = harmed.kill().open(access).unwrap();
        let whose = opened.volume.lookup(Ino::ROOT, b"whose").unwrap().attr.ino;
        assert_eq!(read_all(&opened.volume, whose).unwrap(), b"main");
        let error = refusal(&harmed.forgetful(), access);
        assert!(error.to_string().contains("heads/main/"), "{error}");
        let opened = spliced("journal").open(access).unwrap();
        let whose = opened.volume.lookup(Ino::ROOT, b"whose").unwrap().attr.ino;
        assert_eq!(read_all(&opened.volume, whose).unwrap(), b"main");
        assert!(opened.volume.lookup(Ino::ROOT, b"synced").unwrap_err().is_not_found(), "the journal was cut");
    }
}

/// A store that shows the journal of long ago: its commits are covered by the head, or follow one that has gone by.
#[test]
fn an_older_journal_changes_nothing() {
    let story = &*STORY;
    let (bench, whole) = (settled(&story.bench), settled(&story.bench));
    for object in objects(&bench, "journal") {
        bench.remove(&object);
    }
    for object in objects(&story.bench, "journal") {
        bench.put(&object, &story.bench.bytes(&object));
    }
    let opened = bench.open(Access::ReadOnly).unwrap();
    assert_eq!(opened.summary.commits, 0);
    let right = Portrait::draw(&whole.open(Access::ReadOnly).unwrap().volume, Ino::ROOT).unwrap();
    let mut findings = Findings::default();
    right.compare(&opened.volume, Ino::ROOT, &mut findings);
    assert_eq!((findings.wrong, findings.errors), (vec![], vec![]));
}

/// The store hides the journal, lets the volume go on from the newest head, and then shows the hidden commits again: they have
/// higher numbers than the head covers, and are authentic.
#[test]
fn commits_that_were_hidden_cannot_come_back_after_the_history_went_on() {
    let story = &*STORY;
    let bench = story.bench.kill();
    for object in objects(&bench, "journal") {
        bench.remove(&object);
    }
    let volume = bench.open(Access::ReadWrite).unwrap().volume;
    for name in ["went on", "and on"] {
        let (_, handle) = create(&volume, Ino::ROOT, name, b"after the journal was hidden");
        volume.release(handle).unwrap();
        volume.checkpoint().unwrap();
    }
    let right = Portrait::draw(&volume, Ino::ROOT).unwrap();
    close(&volume);
    drop(volume);
    for object in objects(&story.bench, "journal") {
        bench.put(&object, &story.bench.bytes(&object));
    }
    for access in BOTH {
        let opened = bench.kill().open(access).unwrap();
        assert_eq!(opened.summary.commits, 0);
        let damage = opened.summary.damage.expect("commits of another history are told");
        assert!(damage.contains("not in this history"), "{damage}");
        let mut findings = Findings::default();
        right.compare(&opened.volume, Ino::ROOT, &mut findings);
        assert_eq!((findings.wrong, findings.errors), (vec![], vec![]));
    }
}

#[test]
fn a_volume_of_which_no_head_can_be_read_is_damaged_and_not_missing() {
    let bench = STORY.bench.kill();
    change_all(&bench, "heads", |bytes| bytes[100] ^= 1);
    assert!(bench.check().iter().filter(|damage| damage.object.starts_with("heads/main/")).count() >= 7);
    for access in BOTH {
        let error = refusal(&bench.forgetful(), access);
        assert!(error.is_damage() && error.to_string().contains("heads/main/"), "{error:?}");
    }
}

/// Argon2 parameters are plain, and anybody can put the slot's checksum right: absurd ones are refused before they run.
#[test]
fn a_slot_that_asks_for_absurd_work_is_refused_at_once() {
    const M_AT: usize = 8 + 4 + 4 + 16 + 16;
    let disk = MemoryDisk::new();
    let secret = |text: &str| Credential::Passphrase(text.to_string().into());
    let mut init = InitOptions::new(REPOSITORY, secret("right"), 1).unwrap();
    (init.kdf, init.disk) = (KdfParams::testing(), std::sync::Arc::new(disk.clone()));
    Repository::init(&init).unwrap();
    let open = |disk: &MemoryDisk, text: &str| {
        let mut options = OpenOptions::new(REPOSITORY, secret(text), STATE);
        options.disk = std::sync::Arc::new(disk.clone());
        let started = Instant::now();
        let opened = Repository::open(options).map(drop);
        assert!(started.elapsed() < SOON);
        opened
    };
    open(&disk, "right").unwrap();
    assert!(matches!(open(&disk, "wrong"), Err(Error::WrongKey)));
    for (m_kib, t, p) in
        [(u32::MAX, 1, 1), (4 << 20 | 1, 1, 1), (8, u32::MAX, 1), (4 << 20, 64, 1), (64, 1, 200), (0, 0, 0)]
    {
        let harmed = disk.kill();
        for copy in ["keys/default", "keys/default.1", "keys/default.2"] {
            let path = std::path::Path::new(REPOSITORY).join(copy);
            let file = harmed.open_write(&path).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            for (number, value) in [m_kib, t, p].into_iter().enumerate() {
                let at = M_AT + 4 * number;
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            with_checksum(&mut bytes);
            file.write_all_at(&bytes, 0).unwrap();
        }
        let error = open(&harmed, "right").unwrap_err();
        assert!(error.to_string().contains("keys/default"), "{m_kib} KiB, {t}, {p}: {error}");
    }
}

/// The machine's own memory of a repository, damaged: never taken for a first contact, and named.
#[test]
fn damage_in_what_this_machine_remembers_is_told_and_can_be_overridden() {
    let story = &*STORY;
    let names = |disk: &MemoryDisk, dir: &str| {
        let mut names = Vec::new();
        disk.list_dir(dir.as_ref(), &mut |name, _| {
            names.push(format!("{dir}/{}", name.to_str().unwrap()));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        names
    };
    let dirs = names(&story.bench.disk, STATE);
    let files: Vec<String> =
        dirs.iter().filter(|dir| !dir.ends_with("tables")).flat_map(|dir| names(&story.bench.disk, dir)).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let length = story.bench.disk.metadata(files[0].as_ref()).unwrap().unwrap().len;
    for at in (0..length).step_by(61) {
        for cut in [false, true] {
            let bench = story.bench.kill();
            match cut {
                true => bench.disk.open_write(files[0].as_ref()).unwrap().set_len(at).unwrap(),
                false => bench.disk.rot(files[0].as_ref(), at, 1 << (at % 8)).unwrap(),
            }
            for access in BOTH {
                let error = store_refusal(&bench, access);
                let is_told = match &error {
                    Error::Corrupt { object, .. } | Error::UnsupportedFormat { object, .. } => {
                        object.contains(&files[0])
                    }
                    Error::Rollback { what, .. } => what.contains("key"),
                    _ => false,
                };
                assert!(is_told, "byte {at}: {error:?}");
            }
            assert!(!bench.check().is_empty());
            let mut options = bench.options(Access::ReadWrite);
            options.adopt_copy = true;
            let repository = Repository::open(options).unwrap();
            close(&vellum_tests::bench::open_volume(repository, "main", Access::ReadWrite).unwrap().volume);
            close(&bench.open(Access::ReadWrite).unwrap().volume);
        }
    }
}
