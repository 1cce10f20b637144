//! Listing: cookies, pages, and changes between pages.

use std::collections::BTreeSet;

use super::*;

/// One page of a listing: up to `count` entries after a cookie.
fn page(bench: &Bench, dir: Ino, after: u64, count: usize) -> Vec<(u64, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut take = |entry: DirEntry<'_>| {
        entries.push((entry.cookie, entry.name.to_vec()));
        if entries.len() == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    bench.view().read_dir(dir, after, &mut take).unwrap();
    entries
}

#[test]
fn dot_and_dot_dot_come_first_under_reserved_cookies() {
    let mut bench = Bench::new();
    let dir = bench.dir(Ino::ROOT, b"d");
    bench.file(dir, b"f");
    let mut seen = Vec::new();
    let mut take = |entry: DirEntry<'_>| {
        seen.push((entry.cookie, entry.ino, entry.name.to_vec()));
        ControlFlow::Continue(())
    };
    bench.view().read_dir(dir, 0, &mut take).unwrap();
    assert_eq!(seen[0], (COOKIE_SELF, dir, b".".to_vec()));
    assert_eq!(seen[1], (COOKIE_PARENT, Ino::ROOT, b"..".to_vec()));
    assert!(seen[2].0 > COOKIE_PARENT && seen[2].0 < 1 << 63);
    assert_eq!(page(&bench, dir, COOKIE_SELF, 9).len(), 2);
    assert_eq!(page(&bench, dir, COOKIE_PARENT, 9).len(), 1);
    assert_eq!(page(&bench, dir, seen[2].0, 9).len(), 0);
    assert_eq!(page(&bench, dir, u64::MAX, 9).len(), 0, "a cookie that never was ends the listing");
    assert_eq!(bench.view().parent_of(Ino::ROOT).unwrap(), Ino::ROOT);
}

#[test]
fn a_listing_of_what_is_no_directory_is_refused() {
    let mut bench = Bench::new();
    let file = bench.file(Ino::ROOT, b"f");
    let mut take = |_: DirEntry<'_>| ControlFlow::Continue(());
    assert!(matches!(bench.view().read_dir(file, 0, &mut take), Err(Error::NotDirectory(_))));
    assert!(matches!(bench.view().read_dir(Ino(99), 0, &mut take), Err(Error::NotFound(_))));
}

#[test]
fn a_huge_directory_is_listed_whole_while_entries_are_removed_between_pages() {
    const ENTRIES: u32 = 50_000;
    let mut bench = Bench::new();
    let dir = bench.dir(Ino::ROOT, b"huge");
    let name = |i: u32| format!("file-{i:06}").into_bytes();
    for i in 0..ENTRIES {
        bench.file(dir, &name(i));
    }
    assert_eq!(bench.inode(dir).size, u64::from(ENTRIES) * ENTRY_BYTES);
    let mut seen = BTreeSet::new();
    let (mut after, mut removed) = (COOKIE_PARENT, 0u32);
    loop {
        let entries = page(&bench, dir, after, 1000);
        let Some(last) = entries.last() else { break };
        after = last.0;
        for (i, (_, name)) in entries.iter().enumerate() {
            assert!(seen.insert(name.clone()), "an entry is met once");
            // The last of the page goes too, so that the listing resumes at a cookie whose entry is gone.
            if i % 3 == 0 || i + 1 == entries.len() {
                bench.unlink(dir, name).unwrap();
                removed += 1;
            }
        }
    }
    assert_eq!(seen.len() as u32, ENTRIES, "what was there all the time is met");
    assert_eq!(bench.list(dir).len() as u32, ENTRIES - removed);
    assert_eq!(bench.orphans().len() as u32, removed);
    for (_, name) in page(&bench, dir, COOKIE_PARENT, usize::MAX) {
        bench.unlink(dir, &name).unwrap();
    }
    bench.rmdir(Ino::ROOT, b"huge").unwrap();
}

#[test]
fn names_that_collide_are_listed_once_each_across_pages_and_removals() {
    let mut bench = Bench::colliding();
    let names: Vec<Vec<u8>> =
        (0..600u32).map(|i| format!("{}{i}", (b'a' + (i % 9) as u8) as char).into_bytes()).collect();
    for name in &names {
        bench.file(Ino::ROOT, name);
    }
    let (mut after, mut seen) = (COOKIE_PARENT, BTreeSet::new());
    loop {
        let entries = page(&bench, Ino::ROOT, after, 7);
        let Some(last) = entries.last() else { break };
        after = last.0;
        bench.unlink(Ino::ROOT, &entries[0].1).unwrap();
        seen.extend(entries.into_iter().map(|(_, name)| name));
    }
    assert_eq!(seen.len(), names.len());
}

#[test]
fn an_entry_that_is_replaced_by_a_rename_keeps_its_place() {
    let mut bench = Bench::new();
    for name in [b"a", b"b", b"c"] {
        bench.file(Ino::ROOT, name);
    }
    let cookie_of = |bench: &Bench, name: &[u8]| {
        let entries = page(bench, Ino::ROOT, 0, usize::MAX);
        entries.into_iter().find(|(_, found)| found == name).unwrap().0
    };
    let before = cookie_of(&bench, b"b");
    bench.rename((Ino::ROOT, b"a"), (Ino::ROOT, b"b")).unwrap();
    assert_eq!(cookie_of(&bench, b"b"), before);
}
