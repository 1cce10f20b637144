//! A real directory in which somebody plants what no repository holds: pipes, devices, loops of links, files without end.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use vellum_fs::ino::Ino;
use vellum_store::{
    crypto::KdfParams,
    repository::{Access, InitOptions, OpenOptions, Repository},
};
use vellum_tests::bench::{close, create, credential, noise, open_volume};

/// No step may wait for whoever planted it.
const SOON: Duration = Duration::from_secs(60);

fn options(dir: &Path, access: Access) -> OpenOptions {
    let mut options = OpenOptions::new(dir.join("repo"), credential(7), dir.join("state"));
    options.access = access;
    options
}

fn planted() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut init = InitOptions::new(dir.path().join("repo"), credential(7), 1).unwrap();
    init.kdf = KdfParams::testing();
    Repository::init(&init).unwrap();
    let repository = Repository::open(options(dir.path(), Access::ReadWrite)).unwrap();
    let volume = open_volume(repository, "main", Access::ReadWrite).unwrap().volume;
    create(&volume, Ino::ROOT, "file", &noise(1, 100_000));
    close(&volume);
    dir
}

/// Opens for reading and for writing, and checks; only that it ends matters, and that nothing panics.
fn use_everything(dir: &Path) {
    let (done, ended) = mpsc::channel();
    let path = dir.to_path_buf();
    thread::spawn(move || {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let Ok(repository) = Repository::open(options(&path, access)) else { continue };
            // What a check of such a directory finds, or that it ends early, is beside the point.
            let _ = repository.check(true, &mut |_| {}, &mut |_| {});
            if let Ok(opened) = open_volume(repository, "main", access) {
                let _ = opened.volume.lookup(Ino::ROOT, b"file");
                close(&opened.volume);
            }
        }
        done.send(()).unwrap();
    });
    ended.recv_timeout(SOON).expect("it ends, and without a panic");
}

/// Every file of the repository, but for the lock that a process may hold.
fn files_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path(), files),
            false => files.push(entry.path()),
        }
    }
}

/// Opening a pipe waits until somebody writes to it, which nobody does.
#[test]
fn a_pipe_or_device_in_the_place_of_any_file_is_not_waited_for() {
    let dir = planted();
    let mut files = Vec::new();
    files_below(&dir.path().join("repo"), &mut files);
    assert!(files.len() > 10);
    for file in files {
        let aside = dir.path().join("aside");
        fs::rename(&file, &aside).unwrap();
        mkfifo(&file, Mode::S_IRWXU).unwrap();
        use_everything(dir.path());
        // What is replaced by renaming may be a file again.
        let _ = fs::remove_file(&file);
        symlink("/dev/zero", &file).unwrap();
        use_everything(dir.path());
        let _ = fs::remove_file(&file);
        fs::rename(&aside, &file).unwrap();
    }
    let repository = Repository::open(options(dir.path(), Access::ReadOnly)).unwrap();
    let opened = open_volume(repository, "main", Access::ReadOnly).unwrap();
    opened.volume.lookup(Ino::ROOT, b"file").unwrap();
    close(&opened.volume);
}

/// Two links to their own directory make more paths than can ever be listed.
#[test]
fn directories_that_are_linked_into_themselves_are_listed_to_an_end() {
    let dir = planted();
    let repo = dir.path().join("repo");
    for of in ["packs", "index", "heads", "manifests", "keys", "heads/main"] {
        for name in ["aa", "bb", "cc"] {
            let link = repo.join(of).join(name);
            if !link.exists() {
                symlink(".", link).unwrap();
            }
        }
    }
    use_everything(dir.path());
}

/// Sparse files of a terabyte cost whoever plants them nothing; reading them would.
#[test]
fn files_without_end_are_refused_by_their_length() {
    let dir = planted();
    let repo = dir.path().join("repo");
    let name = "00".repeat(32);
    for object in [
        format!("packs/00/{name}"),
        format!("index/{name}"),
        format!("manifests/{name}"),
        "heads/main/00000000000000ff".to_string(),
        "keys/planted".to_string(),
        "journal/main/00000000000000ff".to_string(),
        "packs/open/00000000000000ff".to_string(),
    ] {
        let path = repo.join(&object);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        use_everything(dir.path());
        fs::remove_file(&path).unwrap_or(());
    }
}
