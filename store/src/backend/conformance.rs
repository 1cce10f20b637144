//! What every backend must do, as one suite that each of them passes.
//!
//! The functions panic with a sentence at the first promise that does not hold; they are for tests alone, of backends outside this package too.
//!
//! *Not here*: durability, which takes a disk that can crash (the tests of `local`).

use std::{collections::BTreeMap, sync::Barrier, thread};

use super::{Backend, ObjectName, OpenName, Put};
use crate::error::{Error, Result};

/// Makes an empty repository's backend.
pub type Make<'m> = &'m dyn Fn() -> Box<dyn Backend>;

/// Runs the whole suite, each part on a backend of its own.
pub fn check(make: Make<'_>) {
    stored_objects_read_back_whole_and_in_ranges(&*make());
    nothing_stored_is_overwritten(&*make());
    missing_is_told_from_damaged(&*make());
    only_keys_and_config_are_replaced(&*make());
    listing_shows_each_object_of_a_prefix_once(&*make());
    listing_ends_with_the_error_of_its_caller(&*make());
    deletion_is_idempotent_and_shows_at_once(&*make());
    what_is_set_aside_keeps_its_bytes_and_frees_its_name(&*make());
    open_objects_are_appended_read_and_published(&*make());
    open_objects_are_invisible_until_published(&*make());
    publication_never_overwrites(&*make());
    discarded_object_is_gone(&*make());
    one_of_many_writers_of_a_name_wins(&*make());
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).expect("the suite's names are valid")
}

fn ok<T>(promise: &str, result: Result<T>) -> T {
    result.unwrap_or_else(|e| panic!("{promise}: {e}"))
}

fn is_missing<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::NotFound { .. }))
}

fn is_corrupt<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

fn listed(backend: &dyn Backend, prefix: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let add = &mut |name: ObjectName, length| {
        let twice = found.insert(name.as_str().to_string(), length);
        assert_eq!(twice, None, "{name} is listed once");
        Ok(())
    };
    ok("list", backend.list(prefix, add));
    found
}

fn stored_objects_read_back_whole_and_in_ranges(backend: &dyn Backend) {
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i / 7) as u8).collect();
    for (text, length) in
        [("packs/ab/x", 100_000), ("index/y", 4096), ("heads/Main_1/0000000000000001", 1), ("config", 0)]
    {
        let bytes = &bytes[..length];
        assert_eq!(ok("store", backend.put_new(&name(text), bytes)), Put::Stored);
        assert_eq!(ok("get", backend.get(&name(text), length as u64)), bytes, "{text}");
        assert_eq!(ok("length", backend.length(&name(text))), Some(length as u64), "{text}");
        for (offset, count) in [(0, length), (0, 0), (length, 0), (length / 2, length / 2), (length / 3, length / 4)] {
            let found = ok("range", backend.get_range(&name(text), offset as u64, count as u32));
            assert_eq!(found, &bytes[offset..offset + count], "{text} {offset} {count}");
        }
    }
}

fn nothing_stored_is_overwritten(backend: &dyn Backend) {
    let object = name("manifests/m");
    assert_eq!(ok("store", backend.put_new(&object, b"first")), Put::Stored);
    assert_eq!(ok("store again", backend.put_new(&object, b"second")), Put::Exists);
    assert_eq!(ok("get", backend.get(&object, 10)), b"first");
}

fn missing_is_told_from_damaged(backend: &dyn Backend) {
    for text in ["packs/ab/x", "index/x", "nowhere/at/all", "config"] {
        assert!(is_missing(&backend.get(&name(text), 10)), "get of the missing {text}");
        assert!(is_missing(&backend.get_range(&name(text), 0, 1)), "range of the missing {text}");
        assert_eq!(ok("length", backend.length(&name(text))), None, "{text}");
    }
    ok("store", backend.put_new(&name("index/x"), b"12345"));
    for (offset, length) in [(0, 6), (5, 1), (4, 2), (u64::MAX, 1), (1 << 40, 4), (0, u32::MAX)] {
        assert!(
            is_corrupt(&backend.get_range(&name("index/x"), offset, length)),
            "{length} bytes at {offset} are too many"
        );
    }
    assert!(is_corrupt(&backend.get(&name("index/x"), 4)), "an object longer than expected is damaged");
    let absent = OpenName::new("0123456789abcdef").expect("16 digits make a name");
    assert!(is_missing(&backend.read_open(&absent, 0, 1)), "a missing open object");
}

fn only_keys_and_config_are_replaced(backend: &dyn Backend) {
    for text in ["config", "config.1", "keys/slot", "keys/slot.2"] {
        ok("create by replacing", backend.replace(&name(text), b"a longer first version"));
        ok("replace", backend.replace(&name(text), b"second"));
        assert_eq!(ok("get", backend.get(&name(text), 100)), b"second", "{text}");
        assert_eq!(ok("put", backend.put_new(&name(text), b"third")), Put::Exists);
    }
    for text in ["packs/ab/x", "heads/main/0000000000000001", "index/x"] {
        assert!(matches!(backend.replace(&name(text), b""), Err(Error::Invalid { .. })), "{text} is never replaced");
        assert_eq!(ok("length", backend.length(&name(text))), None);
    }
}

fn listing_shows_each_object_of_a_prefix_once(backend: &dyn Backend) {
    assert!(listed(backend, "").is_empty());
    assert!(listed(backend, "packs/").is_empty());
    let names = [
        "packs/ab/x",
        "packs/ab/y",
        "packs/ac/z",
        "index/i",
        "heads/main/0000000000000001",
        "heads/main2/0000000000000001",
    ];
    for (i, text) in names.iter().enumerate() {
        ok("store", backend.put_new(&name(text), &vec![0; i]));
    }
    let _open = ok("open", backend.create_open(0));
    let of = |prefix: &str| -> BTreeMap<String, u64> {
        let all = names.iter().enumerate().map(|(i, text)| (text.to_string(), i as u64));
        all.filter(|(text, _)| text.starts_with(prefix)).collect()
    };
    for prefix in [
        "",
        "packs/",
        "packs/ab/",
        "packs/ab/y",
        "packs/a",
        "heads/main/",
        "heads/main",
        "index/",
        "keys/",
        "pa",
        "nowhere/x",
    ] {
        assert_eq!(listed(backend, prefix), of(prefix), "prefix {prefix:?}");
    }
}

fn listing_ends_with_the_error_of_its_caller(backend: &dyn Backend) {
    for i in 0..5 {
        ok("store", backend.put_new(&name(&format!("packs/a{i}/x")), b""));
    }
    let mut calls = 0;
    let result = backend.list("packs/", &mut |_, _| {
        calls += 1;
        Err(Error::WrongKey)
    });
    assert!(matches!(result, Err(Error::WrongKey)) && calls == 1, "{calls} calls");
}

fn deletion_is_idempotent_and_shows_at_once(backend: &dyn Backend) {
    for text in ["packs/ab/x", "keys/slot"] {
        let object = name(text);
        ok("store", backend.put_new(&object, b"bytes"));
        ok("read", backend.get_range(&object, 0, 5));
        ok("delete", backend.delete(&object));
        assert!(is_missing(&backend.get_range(&object, 0, 5)), "{text} is deleted");
        assert!(listed(backend, "").is_empty());
        ok("delete again", backend.delete(&object));
        assert_eq!(ok("store anew", backend.put_new(&object, b"other")), Put::Stored);
        assert_eq!(ok("read anew", backend.get_range(&object, 0, 5)), b"other");
        ok("delete", backend.delete(&object));
    }
    ok("delete where nothing ever was", backend.delete(&name("nowhere/x")));
}

fn what_is_set_aside_keeps_its_bytes_and_frees_its_name(backend: &dyn Backend) {
    let damaged = name("heads/main/0000000000000007");
    assert!(!ok("set aside", backend.set_aside(&damaged)), "what is not there cannot be set aside");
    for bytes in [&b"first"[..], b"second", b"third"] {
        ok("put", backend.put_new(&damaged, bytes));
        assert!(ok("set aside", backend.set_aside(&damaged)), "it was there");
        assert!(is_missing(&backend.get(&damaged, 10)), "its name is free");
    }
    let kept: Vec<String> = listed(backend, "damaged/").into_keys().collect();
    let first = "damaged/heads.main.0000000000000007";
    assert_eq!(kept, [first.to_string(), format!("{first}.2"), format!("{first}.3")], "all of them are kept");
    let contents = kept.iter().map(|kept| ok("get", backend.get(&name(kept), 10))).collect::<Vec<_>>();
    assert_eq!(contents, [&b"first"[..], b"second", b"third"]);
    assert!(listed(backend, "heads/").is_empty(), "none is listed where it was");
}

fn open_objects_are_appended_read_and_published(backend: &dyn Backend) {
    for hint in [0, 3, 100_000] {
        let open = ok("open", backend.create_open(hint));
        assert!(open.is_empty());
        assert_eq!(ok("append", open.append(b"first")), 0);
        assert_eq!(ok("append", open.append(b"second")), 5);
        ok("sync", open.sync());
        assert_eq!(ok("append nothing", open.append(b"")), 11);
        assert_eq!(ok("append", open.append(b"third")), 11);
        assert_eq!(open.len(), 16);
        assert_eq!(ok("read", open.read_at(3, 8)), b"stsecond");
        assert!(open.read_at(10, 7).is_err(), "what was not appended cannot be read");
        assert_eq!(ok("read by name", backend.read_open(open.name(), 5, 6)), b"second");
        let object = name(&format!("packs/ab/{hint}"));
        assert_eq!(ok("publish", open.publish(&object)), Put::Stored);
        assert_eq!(ok("get", backend.get(&object, 100)), b"firstsecondthird", "hint {hint}");
        assert_eq!(ok("read after publication", open.read_at(0, 5)), b"first");
        assert!(open.append(b"more").is_err(), "a published object is closed");
        ok("sync what is published, and durable by that", open.sync());
        assert!(open.publish(&name("packs/ab/again")).is_err());
        open.discard();
        assert_eq!(ok("length", backend.length(&object)), Some(16), "discarding comes too late after publication");
    }
}

fn open_objects_are_invisible_until_published(backend: &dyn Backend) {
    let first = ok("open", backend.create_open(10));
    let second = ok("open", backend.create_open(10));
    assert_ne!(first.name(), second.name());
    ok("append", first.append(b"x"));
    assert!(listed(backend, "").is_empty());
    let mut names = ok("list open", backend.list_open());
    names.sort();
    let mut expected = vec![first.name().clone(), second.name().clone()];
    expected.sort();
    assert_eq!(names, expected);
    ok("publish", first.publish(&name("packs/ab/x")));
    assert_eq!(ok("list open", backend.list_open()), [second.name().clone()]);
    assert!(is_missing(&backend.read_open(first.name(), 0, 1)), "the open name ends with publication");
    let left = second.name().clone();
    drop(second);
    assert_eq!(ok("list open", backend.list_open()), std::slice::from_ref(&left), "a dropped object stays for replay");
    ok("delete", backend.delete_open(&left));
    ok("delete again", backend.delete_open(&left));
    assert!(ok("list open", backend.list_open()).is_empty());
}

fn publication_never_overwrites(backend: &dyn Backend) {
    let object = name("packs/ab/x");
    ok("store", backend.put_new(&object, b"first"));
    let open = ok("open", backend.create_open(10));
    ok("append", open.append(b"second"));
    assert_eq!(ok("publish", open.publish(&object)), Put::Exists);
    assert_eq!(ok("get", backend.get(&object, 10)), b"first");
    assert!(ok("list open", backend.list_open()).is_empty(), "the second version is removed");
}

fn discarded_object_is_gone(backend: &dyn Backend) {
    let open = ok("open", backend.create_open(10));
    ok("append", open.append(b"bytes"));
    open.discard();
    open.discard();
    assert!(ok("list open", backend.list_open()).is_empty());
    assert!(open.append(b"more").is_err() && open.publish(&name("packs/ab/x")).is_err());
    assert!(listed(backend, "").is_empty());
}

fn one_of_many_writers_of_a_name_wins(backend: &dyn Backend) {
    const WRITERS: usize = 4;
    for round in 0..20 {
        let object = name(&format!("heads/main/{round:016x}"));
        let start = Barrier::new(WRITERS);
        let put = |writer: usize| {
            let bytes = vec![writer as u8; 3000];
            start.wait();
            let put = if writer < WRITERS / 2 {
                backend.put_new(&object, &bytes)
            } else {
                backend.create_open(3000).and_then(|open| open.append(&bytes).and_then(|_| open.publish(&object)))
            };
            ok("put", put)
        };
        let puts: Vec<Put> = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || put(writer))).collect();
            writers.into_iter().map(|writer| writer.join().expect("no writer panics")).collect()
        });
        let winners: Vec<usize> = (0..WRITERS).filter(|&writer| puts[writer] == Put::Stored).collect();
        assert_eq!(winners.len(), 1, "one writer stores {object}");
        assert_eq!(ok("get", backend.get(&object, 3000)), vec![winners[0] as u8; 3000]);
    }
}
