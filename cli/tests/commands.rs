//! Commands that need no mount: what they answer, and what they say and return when something is wrong.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use support::{CHEAP, Filler, Place, noise};
use vellum_fs::{format::inode::FileKind, ino::Ino};

#[test]
fn a_command_line_that_cannot_be_meant_is_answered_with_usage() {
    let place = Place::new();
    for args in [
        &[][..],
        &["explode"],
        &["init"],
        &["snapshot"],
        &["ls", "repo"],
        &["cat", "repo"],
        &["init", "r", "--explode"],
    ] {
        assert_eq!(place.run(args).code, 2, "{args:?}");
    }
    place.run(["init", "r", "--compression", "fast"]).failed(2, "compression level");
    place.run(["init", "r", "--compression", "99"]).failed(2, "");
    place.run(["--version"]).done();
    place.run(["mount", "--help"]).done();
}

#[test]
fn init_makes_a_repository_once() {
    let place = Place::new();
    let made = place.run(["init", "repo", "--json"]).json();
    assert_eq!(made["volume"], "main");
    assert_eq!(made["id"].as_str().unwrap().len(), 32);
    place.run(["init", "repo"]).failed(1, "already holds");
    fs::write(place.path("file"), "x").unwrap();
    place.run(["init", "file"]).failed(1, "already holds a file");
    fs::create_dir(place.path("full")).unwrap();
    fs::write(place.path("full/mine"), "x").unwrap();
    place.run(["init", "full"]).failed(1, "already holds");
    assert_eq!(fs::read_to_string(place.path("full/mine")).unwrap(), "x");
    assert_eq!(place.run(["snapshots", "repo", "--json"]).json(), serde_json::json!([]));
}

#[test]
fn what_is_no_repository_is_not_found() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    for target in ["missing", "empty", ".", "key"] {
        for args in [
            &["snapshots", target][..],
            &["check", target],
            &["ls", target, "x"],
            &["status", target],
            &["key", "list", target],
        ] {
            place.run(args).failed(6, "not a vellum repository");
        }
    }
}

#[test]
fn a_wrong_secret_has_a_code_of_its_own_and_is_not_repeated() {
    let place = Place::with_repository();
    fs::write(place.path("other"), [8u8; 64]).unwrap();
    place.run(["--key-file", "other", "snapshots", "repo"]).failed(5, "wrong passphrase or key file");
    let said = place.run_with_passphrase("hush-hush", ["snapshots", "repo"]).failed(5, "wrong passphrase");
    assert!(!said.contains("hush-hush"));
    place.run(["--key-file", "missing", "snapshots", "repo"]).failed(6, "key file missing");
    let mut both = place.command(["snapshots", "repo"]);
    place.output(both.env("VELLUM_PASSPHRASE", "x")).failed(2, "at the same time");
    fs::write(place.path("short"), "x").unwrap();
    place.run(["--key-file", "short", "init", "new"]).failed(2, "32 to");
}

#[test]
fn a_passphrase_comes_from_a_variable_a_file_or_a_command() {
    let place = Place::new();
    place.run_with_passphrase("one two", ["init", "repo", "--kdf-memory-kib", CHEAP]).done();
    fs::write(place.path("pass"), "one two\nnot this\n").unwrap();
    for (name, value) in [("VELLUM_PASSPHRASE_FILE", "pass"), ("VELLUM_PASSPHRASE_COMMAND", "echo one two")] {
        let mut command = place.command(["snapshots", "repo"]);
        place.output(command.env_remove("VELLUM_KEY_FILE").env(name, value)).done();
    }
    place.run(["init", "weak", "--kdf-memory-kib", "1024"]).failed(2, "");
}

#[test]
fn keys_are_added_changed_and_removed_but_for_the_last() {
    let place = Place::with_repository();
    let mut add =
        place.command(["key", "add", "repo", "second", "--kdf-memory-kib", CHEAP, "--label", "the other one"]);
    place.output(add.env("VELLUM_NEW_PASSPHRASE", "first words")).done();
    let keys = place.run(["key", "list", "repo", "--json"]).json();
    let names: Vec<_> = keys.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "second"]);
    assert_eq!((&keys[0]["kind"], &keys[1]["kind"]), (&"key-file".into(), &"passphrase".into()));
    assert_eq!(keys[1]["label"], "the other one");

    let mut again = place.command(["key", "add", "repo", "second"]);
    place.output(again.env("VELLUM_NEW_PASSPHRASE", "x")).failed(1, "already has a key second");

    let mut change = place.command(["key", "passwd", "repo", "second", "--kdf-memory-kib", CHEAP]);
    change
        .env_remove("VELLUM_KEY_FILE")
        .env("VELLUM_PASSPHRASE", "first words")
        .env("VELLUM_NEW_PASSPHRASE", "second words");
    place.output(&mut change).done();
    place.run_with_passphrase("first words", ["snapshots", "repo"]).failed(5, "wrong");
    place.run_with_passphrase("second words", ["snapshots", "repo"]).done();

    place.run_with_passphrase("second words", ["key", "remove", "repo", "default"]).done();
    place.run(["snapshots", "repo"]).failed(5, "wrong");
    place.run_with_passphrase("second words", ["key", "remove", "repo", "default"]).failed(6, "default");
    place.run_with_passphrase("second words", ["key", "remove", "repo", "second"]).failed(1, "last one");
    place.run_with_passphrase("second words", ["snapshots", "repo"]).done();
}

#[test]
fn a_key_file_is_drawn_and_a_recovery_code_is_shown_once() {
    let place = Place::with_repository();
    place.run(["key", "add", "repo", "drawn", "--generate-key-file", "new-key"]).done();
    assert_eq!(fs::metadata(place.path("new-key")).unwrap().permissions().mode() & 0o777, 0o400);
    place.run(["--key-file", "new-key", "snapshots", "repo"]).done();
    let shown = place.run(["key", "add", "repo", "paper", "--recovery-code"]);
    let code = shown.err.lines().find_map(|line| line.strip_prefix("    ")).unwrap().to_string();
    assert!(!shown.out.contains(&code));
    place.run_with_passphrase(&code, ["snapshots", "repo"]).done();
}

#[test]
fn snapshots_of_an_unmounted_repository_are_taken_renamed_and_deleted() {
    let place = Place::with_repository();
    assert_eq!(place.run(["snapshot", "repo", "one", "-m", "the first"]).done(), "one\n");
    place.run(["snapshot", "repo", "one"]).failed(1, "already exists");
    place.run(["snapshot", "repo", "bad/name"]).failed(2, "bad/name");
    let timed = place.run(["snapshot", "repo"]).done();
    assert!(timed.trim().ends_with('Z'), "{timed}");
    place.run(["rename", "repo", "one", "first"]).done();
    let found = place.run(["snapshots", "repo", "--json"]).json();
    assert_eq!(found[0]["name"], "first");
    assert_eq!(found[0]["comment"], "the first");
    place.run(["delete", "repo", "none"]).failed(6, "none");
    let deleted = place.run(["delete", "repo", "first"]);
    assert!(deleted.err.contains("gc"), "{deleted:?}");
    deleted.done();
    assert_eq!(place.run(["snapshots", "repo", "--json"]).json().as_array().unwrap().len(), 1);
    place.run(["snapshots", "repo#work"]).failed(6, "volume work");
}

/// A tree with one of everything.
fn fill_everything(filler: &Filler<'_>) {
    let dir = filler.directory(Ino::ROOT, "dir");
    let small = filler.file(dir, "small", &[(0, b"inline\n")]);
    filler.modified(small, 1_000_000_000, 123_456_789);
    filler.xattr(small, "user.note", b"kept");
    filler.file(dir, "large", &[(0, &noise(1, 3 << 20))]);
    filler.file(dir, "sparse", &[(0, b"head"), (64 << 20, b"tail")]);
    filler.file(dir, "empty", &[]);
    filler.make(dir, "link", FileKind::Symlink, 0o777, "../nowhere");
    filler.make(dir, "pipe", FileKind::Fifo, 0o600, "");
    filler.make(dir, "socket", FileKind::Socket, 0o600, "");
    filler.volume.link(small, Ino::ROOT, b"second-name").unwrap();
    let deep = filler.directory(dir, "deep");
    filler.file(deep, "odd\nname", &[(0, b"x")]);
    filler.modified(deep, -5, 500_000_000);
}

#[test]
fn a_snapshot_is_listed_and_read_without_a_mount() {
    let place = Place::with_repository();
    place.fill(fill_everything);
    assert_eq!(place.run(["ls", "repo", "one"]).done(), "dir\nsecond-name\n");
    assert_eq!(place.run(["ls", "repo", "latest:dir/deep"]).done(), "odd\nname\n");
    let long = place.run(["ls", "-l", "repo", "one:dir"]).done();
    assert!(long.contains("link -> ../nowhere") && long.contains("-rw-r-----   2"), "{long}");
    let all = place.run(["ls", "-R", "--json", "repo", "@now"]).json();
    let paths: Vec<_> = all.as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"dir/deep/odd\nname") && paths.len() == 11, "{paths:?}");

    assert_eq!(place.run(["cat", "repo", "one:dir/small", "one:second-name"]).done(), "inline\ninline\n");
    let large = place.command(["cat", "repo", "one:dir/large"]).output().unwrap();
    assert_eq!(large.stdout, noise(1, 3 << 20));
    place.run(["cat", "repo", "one:dir"]).failed(1, "is a directory");
    place.run(["cat", "repo", "one:dir/none"]).failed(6, "dir/none does not exist in snapshot one");
    place.run(["cat", "repo", "one:dir/small/below"]).failed(6, "does not exist");
    place.run(["ls", "repo", "none"]).failed(6, "none");
    place.run(["ls", "repo", "@never"]).failed(2, "not an instant");
    place.run(["ls", "repo", "@1999-01-01"]).failed(6, "no snapshot from before");
    place.run(["ls", "repo", "one:../x"]).failed(2, "..");
}

#[test]
fn restore_brings_everything_back_as_it_was() {
    let place = Place::with_repository();
    place.fill(fill_everything);
    let report = place.run(["restore", "repo", "one", "--to", "out", "--json"]).json();
    assert_eq!(report["damaged"]["count"], 0);
    assert_eq!((&report["files"], &report["hard_links"], &report["symlinks"]), (&5.into(), &1.into(), &1.into()));
    assert!(report["notes"].to_string().contains("dir/socket"), "{report}");
    let at = |name: &str| place.path("out").join(name);
    assert_eq!(fs::read(at("dir/large")).unwrap(), noise(1, 3 << 20));
    let small = fs::metadata(at("dir/small")).unwrap();
    assert_eq!(small.permissions().mode() & 0o7777, 0o640);
    assert_eq!((small.mtime(), small.mtime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!((small.nlink(), small.ino()), (2, fs::metadata(at("second-name")).unwrap().ino()));
    let sparse = fs::metadata(at("dir/sparse")).unwrap();
    assert_eq!(sparse.len(), (64 << 20) + 4);
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    assert_eq!(&fs::read(at("dir/sparse")).unwrap()[64 << 20..], b"tail");
    assert_eq!(fs::read_link(at("dir/link")).unwrap(), Path::new("../nowhere"));
    assert!(fs::metadata(at("dir/pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read(at("dir/deep/odd\nname")).unwrap(), b"x");
    let deep = fs::metadata(at("dir/deep")).unwrap();
    assert_eq!((deep.mtime(), deep.mtime_nsec()), (-5, 500_000_000), "a directory's times are given last");
    assert!(!at("dir/socket").exists());
}

#[test]
fn restore_changes_nothing_that_exists_unless_forced() {
    let place = Place::with_repository();
    place.fill(fill_everything);
    let out = place.path("out");
    fs::create_dir_all(out.join("dir")).unwrap();
    fs::write(out.join("dir/small"), "mine").unwrap();
    place.run(["restore", "repo", "one:dir", "--to", "out"]).failed(1, "1 entry exists already");
    assert_eq!(fs::read_to_string(out.join("dir/small")).unwrap(), "mine");
    assert_eq!(fs::read(out.join("dir/large")).unwrap().len(), 3 << 20, "the rest was restored");
    place.run(["restore", "repo", "one:dir", "--to", "out", "--force"]).done();
    assert_eq!(fs::read_to_string(out.join("dir/small")).unwrap(), "inline\n");
    let listed = place.run(["restore", "repo", "one:dir/deep", "--to", "other", "--dry-run"]).done();
    assert_eq!(listed, "odd\nname\n");
    assert!(!place.path("other").exists());
}

#[test]
fn restore_never_writes_through_a_link_in_the_target() {
    let place = Place::with_repository();
    place.fill(fill_everything);
    fs::create_dir_all(place.path("out")).unwrap();
    fs::create_dir_all(place.path("outside")).unwrap();
    symlink(place.path("outside"), place.path("out/dir")).unwrap();
    place.run(["restore", "repo", "one", "--to", "out", "--force"]).failed(1, "could not be restored");
    assert_eq!(fs::read_dir(place.path("outside")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(place.path("out/second-name")).unwrap(), "inline\n");
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() { dirs.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

#[test]
fn damage_is_named_leads_to_its_code_and_spares_the_rest() {
    let place = Place::with_repository();
    place.fill(fill_everything);
    let clean = place.run(["check", "repo", "--read-data", "--json"]).json();
    assert_eq!((&clean["damaged"], &clean["read_data"]), (&0.into(), &true.into()));
    let largest =
        files_below(&place.path("repo/packs")).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len());
    let pack = largest.unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();

    let name = pack.file_name().unwrap().to_str().unwrap();
    place.run(["check", "repo", "--read-data"]).failed(3, name);
    // None was cut off: it reads everything.
    place.run(["check", "repo", "--read-data", "--resume"]).failed(3, name);
    place.run(["check", "repo", "--resume"]).failed(2, "--read-data");
    let restored = place.run(["restore", "repo", "one", "--to", "out"]);
    assert!(restored.out.contains("damaged: dir/large"), "{restored:?}");
    restored.failed(3, "1 entry is damaged");
    assert!(!place.path("out/dir/large").exists(), "what cannot be read completely does not appear");
    assert_eq!(fs::read_to_string(place.path("out/dir/small")).unwrap(), "inline\n");
    assert_eq!(place.run(["cat", "repo", "one:dir/large"]).code, 3);
}

#[test]
fn repair_mends_what_it_can_and_lists_what_is_lost() {
    let place = Place::with_repository();
    place.fill(fill_everything);
    let whole = place.run(["repair", "repo", "--read-data"]).done();
    assert!(whole.contains("nothing is damaged"), "{whole}");
    for segment in files_below(&place.path("repo/index")) {
        fs::remove_file(segment).unwrap();
    }
    place.run(["repair", "repo", "--dry-run"]).failed(3, "nothing was changed");
    assert!(files_below(&place.path("repo/index")).is_empty(), "a dry run writes nothing");
    let mended = place.run(["repair", "repo"]).done();
    assert!(mended.contains("mended: the index is built anew"), "{mended}");
    place.run(["check", "repo", "--read-data"]).done();

    let packs = files_below(&place.path("repo/packs"));
    let pack = packs.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    let run = place.run(["repair", "repo", "--read-data"]);
    assert!(run.out.contains("harmed: /dir/large: of "), "{run:?}");
    assert!(run.out.contains("harmed: one:/dir/large: of "), "{run:?}");
    run.failed(3, "harmed");
    let again = place.run(["repair", "repo", "--json"]);
    assert_eq!(again.code, 3);
    let report: serde_json::Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!((&report["mended"], &report["found"]), (&serde_json::json!([]), &0.into()));
    assert_eq!(report["harmed"][0]["paths"][0], "dir/large");
    assert!(report["harmed"][0]["ranges"][0][1].as_u64() > report["harmed"][0]["ranges"][0][0].as_u64());
    assert_eq!(files_below(&place.path("repo/damaged")).len(), 1, "the damaged pack is kept");
    place.run(["repair", "elsewhere"]).failed(6, "elsewhere");
}

#[test]
fn a_check_notices_what_is_gone() {
    let place = Place::with_repository();
    place.fill(fill_everything);
    let packs = files_below(&place.path("repo/packs"));
    let largest = packs.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::remove_file(&largest).unwrap();
    place.run(["check", "repo"]).failed(3, largest.file_name().unwrap().to_str().unwrap());
}

#[test]
fn figures_and_status_are_told() {
    let place = Place::with_repository();
    place.fill(fill_everything);
    let stats = place.run(["stats", "repo", "--json"]).json();
    assert!(stats["data_bytes"].as_u64().unwrap() > 3 << 20, "{stats}");
    let status = place.run(["status", "repo", "--json"]).json();
    assert_eq!((&status["state"], &status["volume"]), (&"not-mounted".into(), &"main".into()));
    place.run(["stats", "repo"]).done();
}

#[test]
fn gc_frees_what_a_deleted_snapshot_held() {
    let place = Place::with_repository();
    let content = noise(5, 3 << 20);
    place.fill(|filler| {
        filler.file(Ino::ROOT, "file", &[(0, &content)]);
    });
    place.change(|filler| filler.unlink(Ino::ROOT, "file"));
    let held = place.run(["gc", "repo", "--json"]).json();
    assert!(held["used_bytes"].as_u64().unwrap() > 3 << 20, "{held}");
    place.run(["delete", "repo", "one"]).done();
    let told = place.run(["gc", "repo", "--dry-run"]).done();
    assert!(told.contains("would free 3."), "{told}");
    let freed = place.run(["gc", "repo", "--json"]).json();
    assert!(freed["deleted_bytes"].as_u64().unwrap() > 3 << 20, "{freed}");
    place.run(["check", "repo", "--read-data"]).done();
    place.run(["gc", "repo", "--max-unused", "100"]).failed(2, "max-unused");
    place.run(["gc", "elsewhere"]).failed(6, "elsewhere");
}

#[test]
fn completions_and_manual_pages_come_out() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run(["completions", shell]).done().contains("snapshots"));
    }
    place.run(["man", "pages"]).done();
    let pages: Vec<_> = fs::read_dir(place.path("pages")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(pages.contains(&"vellum.1".into()) && pages.contains(&"vellum-mount.1".into()), "{pages:?}");
}

#[test]
fn a_closed_output_ends_quietly() {
    let place = Place::new();
    let mut child = place
        .command(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
