//! Mending: whatever was damaged, the volume can be written again, nothing is lost that was not damaged, and what is lost is
//! told by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use vellum_fs::{
    format::inode::FileKind,
    ino::Ino,
    volume::{
        Volume,
        handles::OpenMode,
        harm::{Harm, HarmKind, TreeName},
        ops::names::NewInode,
        repair::{RepairEvent, RepairReport, repair},
        snapshot::SnapshotRequest,
    },
};
use vellum_store::{
    disk::{
        Disk, FaultDisk, MemoryDisk,
        fault::{Fault, Op, Rule},
    },
    id::VolumeName,
    repository::Access,
};
use vellum_tests::{
    dump::read_file,
    rig::{self, ME, Settings, store_file},
};

fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn open(disk: &MemoryDisk) -> Arc<Volume> {
    let (volume, replayed) = rig::open(&shared(disk), &Settings::default()).expect("the volume opens");
    assert_eq!(replayed.damage, None);
    volume
}

/// What a run told.
#[derive(Debug, Default)]
struct Told {
    report: RepairReport,
    found: Vec<String>,
    mended: Vec<String>,
    lost: Vec<String>,
    harm: Vec<Harm>,
}

impl Told {
    /// Paths of harmed files of a tree, with the ranges of their content that are lost.
    fn content(&self, tree: &TreeName) -> BTreeMap<String, Vec<std::ops::Range<u64>>> {
        let of_tree = self.harm.iter().filter(|harm| harm.tree == *tree);
        let ranges = of_tree.filter_map(|harm| match &harm.kind {
            HarmKind::Content { ranges, .. } => Some((text(&harm.paths[0]), ranges.clone())),
            _ => None,
        });
        ranges.collect()
    }

    /// Paths of the live tree of which anything is harmed.
    fn paths(&self) -> BTreeSet<String> {
        let live = self.harm.iter().filter(|harm| harm.tree == TreeName::Live);
        live.flat_map(|harm| harm.paths.iter().map(|path| text(path))).collect()
    }

    fn is_nothing(&self) -> bool {
        self.found.is_empty() && self.mended.is_empty() && self.lost.is_empty()
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8(path.to_vec()).expect("the tests use plain names")
}

fn run_on(disk: &Arc<dyn Disk>, access: Access, read_data: bool) -> vellum_fs::error::Result<Told> {
    let repository = rig::open_repository(disk, access)?;
    let mut told = Told::default();
    let options = |name: &VolumeName| Ok(rig::volume_options(name.clone(), &Settings::default()));
    let report = repair(&repository, &options, read_data, &mut |event| match event {
        RepairEvent::Progress(_) => {}
        RepairEvent::Found(damage) => told.found.push(format!("{}: {}", damage.object, damage.what)),
        RepairEvent::Mended(text) => told.mended.push(text),
        RepairEvent::Lost(text) => told.lost.push(text),
        RepairEvent::Harm(harm) => told.harm.push(harm),
    })?;
    told.report = report;
    Ok(told)
}

fn run(disk: &MemoryDisk, read_data: bool) -> Told {
    run_on(&shared(disk), Access::ReadWrite, read_data).expect("repair runs")
}

fn path_of(object: &str) -> PathBuf {
    Path::new(rig::REPOSITORY).join(object)
}

/// Stored objects whose names start with `prefix`, and their lengths.
fn objects(disk: &MemoryDisk, prefix: &str) -> BTreeMap<String, u64> {
    let repository = rig::open_repository(&shared(disk), Access::ReadOnly).expect("the repository opens");
    let mut found = BTreeMap::new();
    let list = &mut |name: vellum_store::backend::ObjectName, length| {
        found.insert(name.to_string(), length);
        Ok(())
    };
    repository.backend().list(prefix, list).expect("the disk is well");
    found
}

fn flip(disk: &MemoryDisk, object: &str, at: u64) {
    disk.rot(&path_of(object), at, 0x10).expect("the object is there");
}

fn remove(disk: &MemoryDisk, object: &str) {
    disk.remove(&path_of(object)).expect("the object is there");
    let dir = path_of(object);
    disk.sync_dir(dir.parent().expect("objects lie in directories")).expect("it is there");
}

fn read(volume: &Volume, name: &str) -> vellum_fs::error::Result<Vec<u8>> {
    let entry = volume.lookup(Ino::ROOT, name.as_bytes())?;
    read_file(volume, entry.attr.ino)
}

fn snapshot(volume: &Volume, name: &str) {
    let request = SnapshotRequest { name: Some(name.as_bytes().to_vec()), ..SnapshotRequest::default() };
    volume.take_snapshot(&request).expect("the name is free");
}

type Contents = BTreeMap<String, Vec<u8>>;

/// A repository with some files, a snapshot, and more heads than are kept.
fn furnished() -> (MemoryDisk, Contents) {
    let disk = rig::new_disk();
    let volume = open(&disk);
    let mut contents = Contents::new();
    for number in 0..12 {
        let name = format!("file-{number}");
        let length = [100, 3000, 40_000][number % 3];
        contents.insert(name.clone(), store_file(&volume, &name, number as u64, length).expect("there is room"));
        volume.checkpoint().expect("the disk is well");
        if number == 6 {
            snapshot(&volume, "then");
        }
    }
    volume.close().expect("the disk is well");
    (disk, contents)
}

/// The volume opens for writing, takes new files, and all but `harmed` files are as they were.
fn assert_good(disk: &MemoryDisk, contents: &Contents, harmed: &[&str]) {
    let volume = open(disk);
    for (name, content) in contents {
        match harmed.contains(&name.as_str()) {
            true => assert!(read(&volume, name).is_err(), "{name} is harmed"),
            false => assert!(read(&volume, name).expect("it is whole") == *content, "{name}"),
        }
    }
    let fresh = store_file(&volume, "written after", 99, 20_000).expect("there is room");
    volume.checkpoint().expect("the disk is well");
    volume.close().expect("the disk is well");
    drop(volume);
    let volume = open(&disk.crash());
    assert!(read(&volume, "written after").expect("it was stored") == fresh);
    let ino = volume.lookup(Ino::ROOT, b"written after").expect("it is there").attr.ino;
    volume.unlink(Ino::ROOT, b"written after").expect("it is there");
    volume.forget(ino, 2);
    volume.close().expect("the disk is well");
}

/// What a check says when nothing is wrong but `lost` findings.
fn assert_check(disk: &MemoryDisk, is_clean: bool) {
    let repository = rig::open_repository(&shared(disk), Access::ReadOnly).expect("the repository opens");
    let mut damage = Vec::new();
    repository.check(true, &mut |_| {}, &mut |found| damage.push(found)).expect("the disk is well");
    assert_eq!(damage, [], "of objects nothing is left to tell");
    let mut options = rig::volume_options(rig::main_volume(), &Settings::default());
    options.read_only = true;
    let (volume, _) = Volume::open(repository, options).expect("the volume opens");
    volume.check_trees(&mut |found| damage.push(found)).expect("the disk is well");
    assert_eq!(damage.is_empty(), is_clean, "{damage:?}");
}

fn assert_second_run_is_idle(disk: &MemoryDisk) {
    let again = run(disk, true);
    assert!(again.is_nothing(), "{again:?}");
}

#[test]
fn a_repository_without_damage_stays_as_it_is() {
    let (disk, contents) = furnished();
    let before = objects(&disk, "");
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let told = run_on(&shared(&disk), access, true).expect("repair runs");
        assert!(told.is_nothing() && told.harm.is_empty(), "{told:?}");
        assert_eq!(objects(&disk, ""), before);
    }
    assert_good(&disk, &contents, &[]);
}

#[test]
fn a_deleted_or_damaged_index_is_built_anew_and_a_manifest_with_it() {
    for damage in ["delete index", "flip index", "flip a page", "delete manifest", "flip manifest"] {
        let (disk, contents) = furnished();
        let prefix = if damage.ends_with("manifest") { "manifests/" } else { "index/" };
        for (object, length) in objects(&disk, prefix) {
            match damage {
                "delete index" | "delete manifest" => remove(&disk, &object),
                "flip a page" => flip(&disk, &object, 100),
                _ => flip(&disk, &object, length - 50),
            }
        }
        let dry = run_on(&shared(&disk), Access::ReadOnly, false).expect("repair runs");
        assert!(!dry.mended.is_empty() && dry.harm.is_empty(), "{damage}: {dry:?}");
        let told = run(&disk, false);
        assert!(told.mended.iter().any(|text| text.contains("index is built anew")), "{damage}: {told:?}");
        assert!(told.lost.is_empty() && told.harm.is_empty(), "{damage}: {told:?}");
        assert_second_run_is_idle(&disk);
        assert_check(&disk, true);
        let volume = open(&disk);
        assert!(volume.repository().notes().is_empty(), "{damage}: {:?}", volume.repository().notes());
        volume.close().expect("the disk is well");
        drop(volume);
        assert_good(&disk, &contents, &[]);
    }
}

fn newest_head(disk: &MemoryDisk) -> String {
    objects(disk, "heads/main/").into_keys().next_back().expect("there are heads")
}

/// As on another machine, which remembers nothing.
fn forget(disk: &MemoryDisk) {
    let mut names = Vec::new();
    let state = Path::new("/state");
    let list = |dir: &Path, names: &mut Vec<PathBuf>| {
        let listed = disk.list_dir(dir, &mut |name, _| {
            names.push(dir.join(name));
            std::ops::ControlFlow::Continue(())
        });
        listed.expect("it is a directory");
    };
    list(state, &mut names);
    for dir in names {
        let mut files = Vec::new();
        list(&dir, &mut files);
        files.iter().for_each(|file| disk.remove(file).expect("it is there"));
        disk.sync_dir(&dir).expect("it is there");
    }
}

fn fails_to_open(disk: &MemoryDisk) -> String {
    rig::open(&shared(disk), &Settings::default()).expect_err("it cannot be opened for writing").to_string()
}

#[test]
fn a_damaged_newest_head_that_nobody_remembers_costs_what_only_it_named() {
    let (disk, mut contents) = furnished();
    let newest = newest_head(&disk);
    flip(&disk, &newest, 500);
    forget(&disk);
    assert!(fails_to_open(&disk).contains("damaged"));
    let told = run(&disk, true);
    assert!(told.lost.iter().any(|text| text.contains("newest heads are damaged")), "{told:?}");
    assert!(told.harm.is_empty(), "{told:?}");
    assert_eq!(objects(&disk, "damaged/").len(), 1, "it is kept");
    assert_second_run_is_idle(&disk);
    assert_check(&disk, true);
    contents.remove("file-11");
    assert_good(&disk, &contents, &[]);
}

#[test]
fn heads_that_this_machine_remembers_come_back() {
    for all in [false, true] {
        let (disk, contents) = furnished();
        let newest = newest_head(&disk);
        match all {
            true => objects(&disk, "heads/").keys().for_each(|head| remove(&disk, head)),
            false => flip(&disk, &newest, 500),
        }
        let told = run(&disk, false);
        assert!(told.mended.iter().any(|text| text.contains("remembers")), "{told:?}");
        assert!(told.lost.is_empty() && told.harm.is_empty(), "{told:?}");
        assert_second_run_is_idle(&disk);
        assert_good(&disk, &contents, &[]);
    }
}

/// The packs of the last checkpoint are gone, with both copies of its root.
#[test]
fn a_tree_that_cannot_be_opened_gives_way_to_the_one_before() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    let mut contents = Contents::new();
    contents.insert("kept".to_string(), store_file(&volume, "kept", 1, 50_000).expect("there is room"));
    volume.checkpoint().expect("the disk is well");
    let before = objects(&disk, "packs/");
    store_file(&volume, "lost", 2, 50_000).expect("there is room");
    let lost_ino = volume.lookup(Ino::ROOT, b"lost").expect("it is there").attr.ino;
    volume.close().expect("the disk is well");
    drop(volume);
    for pack in objects(&disk, "packs/").into_keys().filter(|pack| !before.contains_key(pack)) {
        remove(&disk, &pack);
    }
    fails_to_open(&disk);
    let told = run(&disk, false);
    assert!(told.lost.iter().any(|text| text.contains("it goes on from head")), "{told:?}");
    assert!(told.harm.is_empty(), "{told:?}");
    assert_second_run_is_idle(&disk);
    assert_check(&disk, true);
    assert_good(&disk, &contents, &[]);
    let volume = open(&disk);
    store_file(&volume, "another", 3, 100).expect("there is room");
    let ino = volume.lookup(Ino::ROOT, b"another").expect("it is there").attr.ino;
    assert!(ino > lost_ino, "no inode number is given out again");
}

/// Where a file cannot be read, step by step.
fn unreadable(volume: &Volume, name: &str, size: u64, step: u64) -> Vec<u64> {
    let ino = volume.lookup(Ino::ROOT, name.as_bytes()).expect("the name is there").attr.ino;
    let handle = volume.open_file(ino, OpenMode { read: true, ..OpenMode::default() }).expect("it is there").handle;
    let found = (0..size).step_by(step as usize).filter(|&at| volume.read(handle, at, 1).is_err()).collect();
    volume.release(handle).expect("it is open");
    found
}

#[test]
fn lost_content_is_told_to_the_byte_and_heals_when_it_is_written_again() {
    for whole in [false, true] {
        let (disk, contents) = furnished();
        let largest =
            objects(&disk, "packs/").into_iter().max_by_key(|(_, length)| *length).expect("there are packs").0;
        match whole {
            true => remove(&disk, &largest),
            false => flip(&disk, &largest, 20_000),
        }
        let dry = run_on(&shared(&disk), Access::ReadOnly, true).expect("repair runs");
        let told = run(&disk, true);
        assert_eq!(dry.harm, told.harm, "a dry run tells what will be lost");
        let live = told.content(&TreeName::Live);
        assert_eq!(live.len(), 1, "{told:?}");
        assert_second_run_is_idle(&disk);
        assert_eq!(run(&disk, true).harm, told.harm, "what is lost is told again");
        let names: Vec<&str> = live.keys().map(String::as_str).collect();
        let volume = open(&disk);
        for (name, ranges) in &live {
            let size = contents[name].len() as u64;
            let expected: Vec<u64> =
                (0..size).step_by(97).filter(|at| ranges.iter().any(|range| range.contains(at))).collect();
            assert_eq!(unreadable(&volume, name, size, 97), expected, "{ranges:?}");
            assert!(!whole || (ranges.len() == 1 && ranges[0] == (0..size)), "{ranges:?}");
        }
        volume.close().expect("the disk is well");
        drop(volume);
        assert_check(&disk, false);
        assert_good(&disk, &contents, &names);
        // The same content again is stored again, and with it the harmed file is whole.
        let volume = open(&disk);
        let number: u64 = names[0].rsplit('-').next().and_then(|text| text.parse().ok()).expect("names end in it");
        store_file(&volume, "again", number, contents[names[0]].len()).expect("there is room");
        volume.checkpoint().expect("the disk is well");
        assert!(read(&volume, names[0]).expect("it healed") == contents[names[0]]);
        volume.close().expect("the disk is well");
        drop(volume);
        assert_eq!(run(&disk, true).harm, [], "nothing is harmed any more");
        assert_check(&disk, true);
    }
}

/// A directory that was not linked for a moment, a listing that lacks files: what was not there when a repair looked can come back.
#[test]
fn packs_that_come_back_after_a_repair_are_taken_in_again() {
    let (disk, contents) = furnished();
    let mut packs: Vec<_> = objects(&disk, "packs/").into_iter().collect();
    packs.sort_by_key(|(_, length)| std::cmp::Reverse(*length));
    // Packs of content: those of nodes are small here.
    let gone: Vec<_> = packs.iter().take(3).map(|(name, _)| name.clone()).collect();
    let away = |number: usize| PathBuf::from(format!("/away-{number}"));
    for (number, name) in gone.iter().enumerate() {
        disk.rename(&path_of(name), &away(number)).expect("the object is there");
    }
    let told = run(&disk, false);
    assert!(told.lost.iter().any(|text| text.contains("packs that are gone: 3")), "{told:?}");
    assert!(!told.content(&TreeName::Live).is_empty(), "{told:?}");
    for (number, name) in gone.iter().enumerate() {
        disk.rename(&away(number), &path_of(name)).expect("it is there");
    }
    let again = run(&disk, false);
    assert!(again.harm.is_empty() && again.lost.is_empty(), "{again:?}");
    assert_second_run_is_idle(&disk);
    assert_check(&disk, true);
    assert_good(&disk, &contents, &[]);
}

/// The newest tree can be opened, and only the list of its snapshots has a hole.
#[test]
fn a_lost_list_of_snapshots_costs_no_newer_file() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    // Enough for several leaves of snapshot records.
    for number in 0..400 {
        snapshot(&volume, &format!("a snapshot with a name of some length, number {number}"));
    }
    volume.close().expect("the disk is well");
    drop(volume);
    let before = objects(&disk, "packs/");
    let volume = open(&disk);
    let newest = store_file(&volume, "newest", 1, 30_000).expect("there is room");
    volume.checkpoint().expect("the disk is well");
    volume.close().expect("the disk is well");
    drop(volume);
    // Each old pack in turn, until one takes a leaf of the list and leaves the rest of the tree.
    let mut met = false;
    for pack in before.keys().rev() {
        let harmed = disk.crash();
        remove(&harmed, pack);
        let told = run_on(&shared(&harmed), Access::ReadOnly, false).expect("repair runs");
        if !told.lost.iter().any(|text| text.contains("its list cannot tell")) {
            continue;
        }
        met = true;
        assert!(!told.lost.iter().any(|text| text.contains("goes on from")), "{told:?}");
        run(&harmed, false);
        let volume = open(&harmed);
        assert!(read(&volume, "newest").expect("it is in the newest tree") == newest);
        volume.close().expect("the disk is well");
        break;
    }
    assert!(met, "a pack holds a leaf of the list");
}

/// A file was changed after a snapshot, and the new content is lost.
#[test]
fn an_older_version_in_a_snapshot_is_pointed_at() {
    let (disk, _) = furnished();
    let volume = open(&disk);
    let before = objects(&disk, "packs/");
    let ino = volume.lookup(Ino::ROOT, b"file-5").expect("it is there").attr.ino;
    let handle = volume.open_file(ino, rig::RDWR).expect("it is there").handle;
    volume.write(handle, 0, &[7; 40_000].map(|byte: u8| byte)).expect("there is room");
    let mut noise = vec![0; 40_000];
    blake3::Hasher::new().update(b"new").finalize_xof().fill(&mut noise);
    volume.write(handle, 0, &noise).expect("there is room");
    volume.release(handle).expect("it is open");
    volume.close().expect("the disk is well");
    drop(volume);
    let new = objects(&disk, "packs/").into_iter().filter(|(pack, _)| !before.contains_key(pack));
    let largest = new.max_by_key(|(_, length)| *length).expect("there are new packs").0;
    remove(&disk, &largest);
    let told = run(&disk, false);
    let older = told.harm.iter().find_map(|harm| match &harm.kind {
        HarmKind::Content { older, .. } => older.clone(),
        _ => None,
    });
    assert_eq!(older, Some((b"then".to_vec(), b"file-5".to_vec())), "{told:?}");
}

/// The list of a pack is damaged, and the index still knows what it holds.
#[test]
fn a_pack_that_lost_its_list_is_saved_with_what_the_index_knows() {
    let (disk, contents) = furnished();
    for (pack, length) in objects(&disk, "packs/") {
        flip(&disk, &pack, length - 10);
    }
    let told = run(&disk, false);
    assert!(told.lost.is_empty() && told.harm.is_empty(), "{told:?}");
    assert!(told.report.store.saved_blobs > 20 && told.report.store.lost_blobs == 0, "{told:?}");
    assert_second_run_is_idle(&disk);
    assert_check(&disk, true);
    assert_good(&disk, &contents, &[]);
}

fn make(volume: &Volume, parent: Ino, name: &str, content: &[u8]) {
    let new = NewInode {
        parent,
        name: name.as_bytes(),
        kind: FileKind::Regular,
        mode: 0o644,
        umask: 0,
        rdev: 0,
        target: b"",
    };
    let (_, opened) = volume.create(&new, rig::RDWR, &ME).expect("the name is free");
    volume.write(opened.handle, 0, content).expect("there is room");
    volume.release(opened.handle).expect("it is open");
}

/// Directories with many small files, so that the tree has many leaves; and a few heads that differ in little.
fn forest() -> (MemoryDisk, BTreeMap<String, Vec<u8>>) {
    let disk = rig::new_disk();
    let volume = open(&disk);
    let mut contents = Contents::new();
    for dir in 0..25 {
        let name = format!("dir-{dir}");
        let parent = volume.mkdir(Ino::ROOT, name.as_bytes(), 0o755, 0, &ME).expect("the name is free").attr.ino;
        for file in 0..40 {
            let mut content = vec![0; if file % 8 == 0 { 30_000 } else { 500 }];
            blake3::Hasher::new().update(&[dir, file]).finalize_xof().fill(&mut content);
            make(&volume, parent, &format!("file-{file}"), &content);
            contents.insert(format!("{name}/file-{file}"), content);
        }
    }
    volume.checkpoint().expect("the disk is well");
    for extra in 0..3 {
        make(&volume, Ino::ROOT, &format!("extra-{extra}"), b"small");
        volume.checkpoint().expect("the disk is well");
    }
    volume.close().expect("the disk is well");
    (disk, contents)
}

fn read_path(volume: &Volume, path: &str) -> vellum_fs::error::Result<Vec<u8>> {
    let (dir, file) = path.split_once('/').expect("all lie in directories");
    let dir = volume.lookup(Ino::ROOT, dir.as_bytes())?.attr.ino;
    let file = volume.lookup(dir, file.as_bytes())?.attr.ino;
    read_file(volume, file)
}

/// Every file that cannot be read is told, by its name or as one of so many names that its directory lacks; and no other is.
fn assert_harm_is_exact(volume: &Volume, contents: &Contents, told: &Told, what: &str) {
    let named = told.paths();
    let mut nameless: BTreeMap<String, u64> = BTreeMap::new();
    for (path, content) in contents {
        let dir = path.split_once('/').expect("all lie in directories").0;
        match read_path(volume, path) {
            Ok(read) => {
                assert!(read == *content, "{what}: {path}");
                assert!(!named.contains(path), "{what}: {path} is told and can be read");
            }
            Err(error) => {
                assert!(error.is_damage(), "{what}: {path}: {error}");
                if !named.contains(path) {
                    *nameless.entry(dir.to_string()).or_default() += 1;
                }
            }
        }
    }
    let live = told.harm.iter().filter(|harm| harm.tree == TreeName::Live);
    let mut explained: BTreeMap<String, u64> = BTreeMap::new();
    for harm in live {
        match &harm.kind {
            HarmKind::Entries { hidden } => drop(explained.insert(text(&harm.paths[0]), *hidden)),
            HarmKind::Hidden { kind: FileKind::Directory } => {
                // Its files are told only with it.
                let dir = text(&harm.paths[0]);
                if let Some(count) = nameless.get(&dir) {
                    explained.insert(dir, *count);
                }
            }
            _ => {}
        }
    }
    // Names in the root directory are directories: what lies below those is not counted there.
    let root = explained.remove("").unwrap_or(0);
    nameless.retain(|dir, count| explained.get(dir) != Some(count));
    assert!(nameless.len() as u64 <= root, "{what}: {nameless:?} against {explained:?} and {root}: {told:?}");
}

#[test]
fn every_damaged_node_is_mended_from_its_second_copy_or_told_with_the_files_it_held() {
    let (disk, contents) = forest();
    let (mut whole, mut harmed, mut older) = (0, 0, 0);
    for (pack, length) in objects(&disk, "packs/") {
        for at in [length / 7, length / 2, length * 4 / 5] {
            let image = disk.kill();
            flip(&image, &pack, at);
            let what = format!("{pack} at {at}");
            let told = run(&image, true);
            assert_second_run_is_idle(&image);
            let volume = open(&image);
            match (told.harm.is_empty(), told.lost.is_empty()) {
                (true, true) => whole += 1,
                (false, true) => harmed += 1,
                _ => older += 1,
            }
            if told.lost.is_empty() && !told.mended.is_empty() {
                assert_harm_is_exact(&volume, &contents, &told, &what);
            }
            volume.close().expect("the disk is well");
            drop(volume);
            // New names of the root directory, and new inodes, may belong into the very node that is lost.
            let takes_names = !told.harm.iter().any(|harm| match &harm.kind {
                HarmKind::Node { first, last, .. } => *first <= Ino::ROOT || last.is_none(),
                _ => false,
            });
            if takes_names {
                assert_good(&image, &Contents::new(), &[]);
            }
        }
    }
    assert!(whole > 3 && harmed > 1, "{whole} {harmed} {older}");
}

#[test]
fn a_journal_that_is_damaged_in_the_middle_is_kept_up_to_there_and_begun_anew() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    for number in 0..8u8 {
        make(&volume, Ino::ROOT, &format!("file-{number}"), &[number; 50]);
        let ino = volume.lookup(Ino::ROOT, format!("file-{number}").as_bytes()).expect("it is there").attr.ino;
        let handle = volume.open_file(ino, rig::RDWR).expect("it is there").handle;
        volume.fsync(handle).expect("the disk is well");
        volume.release(handle).expect("it is open");
    }
    let image = disk.kill();
    flip(&image, "journal/main/0000000000000001", 4 * 4096 + 200);
    let (volume, replayed) = rig::open(&shared(&image), &Settings::default()).expect("it opens");
    assert!(replayed.damage.is_some() && volume.options().read_only);
    volume.close().expect("it is only read");
    drop(volume);
    let told = run(&image, false);
    assert!(told.lost.iter().any(|text| text.contains("journal")), "{told:?}");
    assert!(told.mended.iter().any(|text| text.contains("written again")), "{told:?}");
    assert_second_run_is_idle(&image);
    let aside = path_of("journal/main/0000000000000001.damaged");
    assert!(image.metadata(&aside).expect("the disk is well").is_some(), "the old segment is kept");
    let volume = open(&image);
    let there = (0..8u8)
        .take_while(|number| read(&volume, &format!("file-{number}")).is_ok_and(|content| content == [*number; 50]));
    let there = there.count() as u8;
    assert!((1..8).contains(&there), "{there}");
    for number in there..8 {
        assert!(read(&volume, &format!("file-{number}")).is_err(), "what follows is a prefix");
    }
    volume.close().expect("the disk is well");
    drop(volume);
    assert_good(&image, &Contents::new(), &[]);
    assert_check(&image, true);
}

/// A block of the journal that the disk does not give today may be read tomorrow: it must not be settled as lost.
#[test]
fn a_journal_that_cannot_be_read_ends_the_run_and_loses_nothing() {
    let disk = rig::new_disk();
    let volume = open(&disk);
    for number in 0..6u8 {
        make(&volume, Ino::ROOT, &format!("file-{number}"), &[number; 50]);
        let ino = volume.lookup(Ino::ROOT, format!("file-{number}").as_bytes()).expect("it is there").attr.ino;
        let handle = volume.open_file(ino, rig::RDWR).expect("it is there").handle;
        volume.fsync(handle).expect("the disk is well");
        volume.release(handle).expect("it is open");
    }
    let mut failed = 0;
    for skip in 0..12 {
        let image = disk.kill();
        let faults = FaultDisk::new(shared(&image));
        faults.add(Rule::once(Op::Read, Fault::Io).at("journal/").after(skip).times(u64::MAX));
        failed += u32::from(run_on(&(Arc::new(faults) as Arc<dyn Disk>), Access::ReadWrite, false).is_err());
        drop(volume_after(&image));
    }
    assert!(failed > 0, "reading the journal failed at least once");
}

/// The volume with all that was synced into its journal.
fn volume_after(image: &MemoryDisk) -> Arc<Volume> {
    let volume = open(image);
    for number in 0..6u8 {
        assert_eq!(read(&volume, &format!("file-{number}")).expect("it was synced"), [number; 50]);
    }
    volume.close().expect("the disk is well");
    volume
}

/// Everything at once: heads, index, a pack of content and the journal.
fn ruined() -> (MemoryDisk, Contents) {
    let (disk, mut contents) = furnished();
    let largest = objects(&disk, "packs/").into_iter().max_by_key(|(_, length)| *length).expect("there are packs").0;
    flip(&disk, &largest, 20_000);
    flip(&disk, &newest_head(&disk), 500);
    for (object, length) in objects(&disk, "index/") {
        flip(&disk, &object, length - 50);
    }
    forget(&disk);
    contents.remove("file-11");
    (disk, contents)
}

/// Power goes before each change of the disk in turn.
#[test]
fn a_run_that_is_cut_off_anywhere_is_taken_up_by_the_next() {
    let (disk, contents) = ruined();
    let harmed = {
        let image = disk.kill();
        run(&image, true).content(&TreeName::Live)
    };
    let names: Vec<&str> = harmed.keys().map(String::as_str).collect();
    let mut calls = 0;
    loop {
        let image = disk.kill();
        let faults = FaultDisk::new(shared(&image));
        faults.add(Rule::power_off_after(calls));
        let done = run_on(&(Arc::new(faults) as Arc<dyn Disk>), Access::ReadWrite, true);
        let after = image.crash_seeded(calls);
        let told = run(&after, true);
        assert_eq!(told.content(&TreeName::Live), harmed, "power off after {calls} calls");
        assert_second_run_is_idle(&after);
        assert_good(&after, &contents, &names);
        if done.is_ok() {
            assert!(calls > 20, "a run takes more than {calls} changes of the disk");
            return;
        }
        calls += 1;
    }
}

#[test]
fn repair_keeps_away_from_a_volume_that_is_in_use() {
    let (disk, _) = furnished();
    let volume = open(&disk);
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let refused = run_on(&shared(&disk), access, false).expect_err("the volume is open");
        assert!(refused.to_string().contains("volume main is in use"), "{refused}");
    }
    volume.close().expect("the disk is well");
}
