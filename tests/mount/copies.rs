//! Trees copied in with the usual programs come out the same: at once, after a remount, from a snapshot, and without FUSE.

use std::{
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use rustix::{
    fs::{SeekFrom, copy_file_range, seek},
    io::Errno,
};
use vellum_tests::seed::number_from_environment;

use crate::{
    facts::{Facts, assert_same, facts, make_zoo},
    site::{Mounted, Site, have, noise, succeed},
};

/// Files of a real tree that are copied at most.
const REAL_FILES: usize = 2500;

/// Directories with real files: those of the toolchain, of the crates, or of the system.
pub fn real_directories(files_max: usize) -> Vec<PathBuf> {
    let registry = std::env::home_dir().map(|home| home.join(".cargo/registry/src"));
    let places = [registry, Some("/usr/share/perl".into()), Some("/usr/share/doc".into()), Some("/usr/lib".into())];
    for place in places.into_iter().flatten() {
        let mut chosen = Vec::new();
        let mut count = 0;
        for dir in directories(&place).iter().flat_map(|dir| directories(dir)) {
            let more =
                Command::new("find").arg(&dir).output().map_or(0, |found| found.stdout.split(|&b| b == b'\n').count());
            if count + more <= files_max {
                count += more;
                chosen.push(dir);
            }
            if count * 10 > files_max * 9 {
                break;
            }
        }
        if count > files_max / 4 {
            return chosen;
        }
    }
    Vec::new()
}

fn directories(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
    found.sort();
    found
}

/// What lies in the source directories, under their last names.
fn facts_of(sources: &[PathBuf]) -> Facts {
    let mut all = Facts::new();
    for source in sources {
        let name = Path::new(source.file_name().unwrap());
        all.extend(facts(source).into_iter().map(|(path, fact)| (name.join(path), fact.below(name))));
    }
    all
}

/// Compares a copy live, in a snapshot, after changes, after a remount, and as `restore` brings it back.
fn compare_everywhere(site: &Site, mounted: Mounted<'_>, expected: &Facts) {
    // The directories that were copied are compared through what lies in them.
    let inner = |root: &Path| {
        let mut found = facts(root);
        found.retain(|path, _| path.components().count() > 1);
        found
    };
    assert_same(expected, &inner(&mounted.path("in")), "live");
    fs::create_dir(mounted.snapshot("s")).unwrap();
    assert_same(expected, &inner(&mounted.snapshot("s/in")), "in a snapshot");
    mounted.umount();
    let mounted = site.mount();
    assert_same(expected, &inner(&mounted.path("in")), "after a remount");
    succeed(
        Command::new("sh")
            .args(["-c", "find . -type f -size +4 -print0 | head -zn 500 | xargs -0 -n 50 sed -i s/e/E/"])
            .current_dir(mounted.path("in")),
    );
    succeed(
        Command::new("rm")
            .arg("-rf")
            .args(fs::read_dir(mounted.path("in")).unwrap().take(3).map(|e| e.unwrap().path())),
    );
    assert_same(expected, &inner(&mounted.snapshot("s/in")), "in a snapshot after changes");
    mounted.umount();
    site.run(["restore"], [site.repository().as_os_str(), "s".as_ref(), "--to".as_ref(), site.path("out").as_os_str()]);
    // A socket is left out on purpose: it means nothing without its program.
    let mut restorable = expected.clone();
    restorable.retain(|path, _| path != Path::new("zoo/socket"));
    assert_same(&restorable, &inner(&site.path("out/in")), "restored without a mount");
    compare_listing(site, expected.len());
    let checked = site.run(["check", "--read-data"], [site.repository()]);
    println!("{checked}");
}

/// `ls` and `cat` without a mount show what `restore` brings.
fn compare_listing(site: &Site, count: usize) {
    let list = site.run(["ls", "-R", "--json"], [site.repository().as_os_str(), "s:in".as_ref()]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let entries = list.as_array().map_or(0, Vec::len);
    let directories = fs::read_dir(site.path("out/in")).unwrap().count();
    assert_eq!(entries, count + directories, "entries that ls shows");
    let files = Command::new("find")
        .args([".", "-type", "f", "-size", "-100k"])
        .current_dir(site.path("out/in"))
        .output()
        .unwrap();
    for path in files.stdout.split(|&byte| byte == b'\n').step_by(97).filter(|path| path.starts_with(b"./")) {
        let inside = Path::new(std::ffi::OsStr::from_bytes(&path[2..]));
        let mut what = std::ffi::OsString::from("s:in/");
        what.push(inside);
        let shown = site.vellum().arg("cat").arg(site.repository()).arg(what).output().unwrap();
        assert!(shown.stdout == fs::read(site.path("out/in").join(inside)).unwrap(), "{}", inside.display());
    }
}

#[test]
fn a_real_tree_survives_cp() {
    let Some(site) = Site::new() else { return };
    let sources = real_directories(REAL_FILES);
    let mounted = site.mount();
    fs::create_dir(mounted.path("in")).unwrap();
    succeed(Command::new("cp").arg("-a").args(&sources).arg(mounted.path("in")));
    compare_everywhere(&site, mounted, &facts_of(&sources));
}

#[test]
fn everything_survives_cp() {
    let Some(site) = Site::new() else { return };
    make_zoo(&site.path("zoo"));
    let mounted = site.mount();
    fs::create_dir(mounted.path("in")).unwrap();
    succeed(Command::new("cp").args(["-a", "--sparse=always"]).arg(site.path("zoo")).arg(mounted.path("in")));
    let blocks =
        |name: &str| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(mounted.path("in/zoo").join(name)).unwrap());
    assert!(blocks("all-hole") < 16 && blocks("sparse") < 2048, "{} {}", blocks("all-hole"), blocks("sparse"));
    compare_everywhere(&site, mounted, &facts_of(&[site.path("zoo")]));
}

#[test]
fn everything_survives_rsync_and_a_second_one_finds_nothing_to_do() {
    let Some(site) = Site::new() else { return };
    if !have("rsync") {
        return;
    }
    make_zoo(&site.path("zoo"));
    let mounted = site.mount();
    fs::create_dir(mounted.path("in")).unwrap();
    let rsync = |options: &[&str], from: &Path, to: &Path| {
        // By itself, rsync takes times of the same second for equal.
        succeed(
            Command::new("rsync")
                .args(["-aHAXS", "--numeric-ids", "--modify-window=-1"])
                .args(options)
                .arg(from)
                .arg(to),
        )
    };
    let compare = ["-n", "-c", "--itemize-changes", "--delete"];
    rsync(&[], &site.path("zoo"), &mounted.path("in"));
    let changes = rsync(&compare, &mounted.path("in/zoo/"), &site.path("zoo/"));
    assert_eq!(changes, "", "from the mount to the source");
    assert_eq!(rsync(&compare, &site.path("zoo"), &mounted.path("in")), "", "from the source to the mount");
    compare_everywhere(&site, mounted, &facts_of(&[site.path("zoo")]));
}

#[test]
fn everything_survives_tar() {
    let Some(site) = Site::new() else { return };
    make_zoo(&site.path("zoo"));
    // A socket is nothing that tar would take.
    fs::remove_file(site.path("zoo/socket")).unwrap();
    let mounted = site.mount();
    fs::create_dir(mounted.path("in")).unwrap();
    let options = "--sparse --xattrs --xattrs-include='*' --acls --numeric-owner --format=posix";
    let script = format!(
        "tar -C {:?} -cf - {options} zoo | tar -C {:?} -xpf - {options} --same-owner",
        site.path(""),
        mounted.path("in")
    );
    succeed(Command::new("sh").args(["-c", &script]));
    compare_everywhere(&site, mounted, &facts_of(&[site.path("zoo")]));
}

/// Copies all of a file as programs do; returns the number of calls.
fn copy_all(from: &File, to: &File) -> u64 {
    let (mut at, mut calls) = (0, 0);
    loop {
        let (mut source, mut target) = (at, at);
        match copy_file_range(from, Some(&mut source), to, Some(&mut target), 1 << 40).unwrap() {
            0 => return calls,
            copied => (at, calls) = (at + copied as u64, calls + 1),
        }
    }
}

fn rw(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Offsets at which data and holes begin, in turn.
fn map_of(file: &File) -> Vec<u64> {
    let mut edges = Vec::new();
    let mut at = 0;
    loop {
        match seek(file, if edges.len() % 2 == 0 { SeekFrom::Data(at) } else { SeekFrom::Hole(at) }) {
            Ok(next) => edges.push(next),
            Err(error) => {
                assert_eq!(error, Errno::NXIO);
                return edges;
            }
        }
        at = *edges.last().unwrap();
    }
}

/// Larger than one answer to the kernel can tell, dense at the start, a hole, and dense at the end; once more out of a snapshot.
#[test]
fn a_large_file_is_copied_by_reference() {
    let Some(site) = Site::new() else { return };
    let dense = (number_from_environment("VELLUM_TEST_LARGE_MIB", 64) << 20) as usize;
    let mounted = site.mount();
    let file = rw(&mounted.path("file"));
    let piece = noise(7, 4 << 20);
    (0..dense).step_by(piece.len()).for_each(|at| {
        file.write_all_at(&[&at.to_le_bytes()[..], &piece[8..]].concat(), at as u64).unwrap();
    });
    let end = (6u64 << 30) + 12_345;
    file.write_all_at(&piece, end).unwrap();
    fs::create_dir(mounted.snapshot("s")).unwrap();
    drop(file);
    mounted.umount();
    let stored = site.stats()["data_bytes"].as_u64();
    let mounted = site.mount();
    for (from, to) in [(mounted.path("file"), "copy"), (mounted.snapshot("s/file"), "past")] {
        let (from, to) = (File::open(from).unwrap(), rw(&mounted.path(to)));
        let began = Instant::now();
        let calls = copy_all(&from, &to);
        println!("{calls} calls took {:?}", began.elapsed());
        to.sync_all().unwrap();
    }
    mounted.kill();
    let mounted = site.mount();
    let file = File::open(mounted.path("file")).unwrap();
    for name in ["copy", "past"] {
        let copy = File::open(mounted.path(name)).unwrap();
        let (wanted, found) = (file.metadata().unwrap(), copy.metadata().unwrap());
        assert_eq!((found.len(), found.blocks()), (end + piece.len() as u64, wanted.blocks()));
        assert_eq!(map_of(&copy), map_of(&file));
        let mut buffers = (vec![0; 1 << 20], vec![0; 1 << 20]);
        let ends = (end..end + piece.len() as u64).step_by(1 << 20);
        for at in (0..dense as u64 + (4 << 20)).step_by(1 << 20).chain(ends) {
            file.read_exact_at(&mut buffers.0, at).unwrap();
            copy.read_exact_at(&mut buffers.1, at).unwrap();
            assert!(buffers.0 == buffers.1, "{name} at {at}");
        }
    }
    drop(file);
    mounted.umount();
    assert_eq!(site.stats()["data_bytes"].as_u64(), stored, "a copy stored content");
}

#[test]
fn a_range_is_copied_within_its_file_and_not_over_itself() {
    let Some(site) = Site::new() else { return };
    let mounted = site.mount();
    let file = rw(&mounted.path("file"));
    let content = noise(8, 1 << 20);
    file.write_all_at(&content, 0).unwrap();
    let copy =
        |from: u64, to: u64, length| copy_file_range(&file, Some(&mut { from }), &file, Some(&mut { to }), length);
    assert_eq!(copy(0, 1000, 5000), Err(Errno::INVAL));
    assert_eq!(copy(0, 1000, 500_000), Err(Errno::INVAL));
    assert_eq!(copy(100_000, 3 << 20, 500_000), Ok(500_000));
    assert_eq!(copy(0, 600_001, 300_000), Ok(300_000));
    let mut wanted = content.clone();
    wanted.resize(3 << 20, 0);
    wanted.extend_from_slice(&content[100_000..600_000]);
    wanted[600_001..900_001].copy_from_slice(&content[..300_000]);
    assert!(fs::read(mounted.path("file")).unwrap() == wanted);
    // What a mapping or a reader had in memory is not shown instead.
    file.sync_all().unwrap();
    assert!(fs::read(mounted.path("file")).unwrap() == wanted);
    let read_only = File::open(mounted.path("file")).unwrap();
    assert_eq!(copy_file_range(&file, None, &read_only, None, 10), Err(Errno::BADF));
    drop((file, read_only));
    mounted.umount();
}
