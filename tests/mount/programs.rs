//! Programs that ask much of a filesystem: git and a database.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use vellum_tests::seed::Seed;

use crate::site::{Site, have, succeed};

fn git(dir: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]);
    command.args(["-c", "init.defaultBranch=main", "-c", "safe.directory=*"]);
    succeed(command.args(words).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", dir))
}

#[test]
fn git_works_in_the_mount_and_in_a_snapshot() {
    let Some(site) = Site::new() else { return };
    if !have("git") {
        return;
    }
    let mounted = site.mount();
    let dir = mounted.path("work");
    fs::create_dir(&dir).unwrap();
    git(&dir, &["init", "-q"]);
    for round in 0..5 {
        for number in 0..40 {
            let path = dir.join(format!("dir-{}/file-{number}", number % 7));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("round {round} of {number}\n").repeat(number + round)).unwrap();
        }
        git(&dir, &["add", "-A"]);
        git(&dir, &["commit", "-q", "-m", &format!("round {round}")]);
    }
    git(&dir, &["branch", "other", "HEAD~2"]);
    git(&dir, &["checkout", "-q", "other"]);
    git(&dir, &["gc", "-q", "--prune=now"]);
    git(&dir, &["fsck", "--full", "--strict"]);
    git(&dir, &["checkout", "-q", "main"]);
    assert_eq!(git(&dir, &["status", "--porcelain"]), "");
    fs::create_dir(mounted.snapshot("s")).unwrap();
    fs::remove_dir_all(dir.join(".git")).unwrap();
    let past = mounted.snapshot("s/work");
    git(&past, &["fsck", "--full"]);
    assert_eq!(git(&past, &["log", "--format=%s", "main"]).lines().count(), 5);
    mounted.umount();
    let mounted = site.mount();
    git(&mounted.snapshot("s/work"), &["fsck", "--full"]);
    let clone = mounted.path("clone");
    git(&mounted.path(""), &["clone", "-q", mounted.snapshot("s/work").to_str().unwrap(), clone.to_str().unwrap()]);
    git(&clone, &["fsck", "--full"]);
    mounted.umount();
}

/// Adds rows in transactions and tells of each that is committed, until it fails.
const WRITER: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
db.execute('pragma journal_mode=' + sys.argv[2])
# With a rollback journal, only this level syncs the directory after the removal that commits.
db.execute('pragma synchronous=extra')
db.execute('create table if not exists t(id integer primary key, body blob)')
number = db.execute('select coalesce(max(id), 0) from t').fetchone()[0]
print('start', flush=True)
while number < 100000:
    db.execute('begin immediate')
    for _ in range(5):
        number += 1
        db.execute('insert into t values(?, ?)', (number, str(number).encode() * 200))
    if number % 4 == 0:
        db.execute('delete from t where id = ?', (number // 2,))
    db.execute('commit')
    print(number, flush=True)
";

/// Checks the database and prints the last row.
const READER: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60)
assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'
last = db.execute('select coalesce(max(id), 0) from t').fetchone()[0]
for number, body in db.execute('select id, body from t'):
    assert body == str(number).encode() * 200, number
print(last)
";

fn start_writer(path: &Path, mode: &str) -> (Child, impl Iterator<Item = String>) {
    let mut command = Command::new("python3");
    command.args(["-c", WRITER]).arg(path).arg(mode).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    (child, lines)
}

fn last_row(path: &Path) -> u64 {
    succeed(Command::new("python3").args(["-c", READER]).arg(path)).trim().parse().unwrap()
}

fn database_survives_kills(mode: &str) {
    let Some(site) = Site::new() else { return };
    if !have("python3") || !Command::new("python3").args(["-c", "import sqlite3"]).status().unwrap().success() {
        println!("skipped: python3 has no sqlite3");
        return;
    }
    let mut random = Seed::of_test(&format!("a database with {mode}"), 4);
    let mut committed = 0;
    for _ in 0..3 {
        let mounted = site.mount_with("version-quiet=1,version-max-wait=1");
        let path = mounted.path("db");
        let (mut child, mut lines) = start_writer(&path, mode);
        assert_eq!(lines.next().as_deref(), Some("start"));
        for line in lines.by_ref().take(3 + random.below(40) as usize) {
            committed = line.parse().unwrap();
        }
        mounted.kill();
        // It may have committed more before it met the dead mount.
        for line in lines {
            committed = line.parse().unwrap();
        }
        child.wait().unwrap();
        let mounted = site.mount();
        let found = last_row(&path);
        assert!(found >= committed, "{mode}: row {committed} was committed, and {found} is the last one there");
        assert_eq!(found % 5, 0, "{mode}: a transaction was torn");
        fs::create_dir(mounted.snapshot(&format!("at {found}"))).unwrap();
        mounted.umount();
    }
}

#[test]
fn a_database_with_a_write_ahead_log_survives_kills() {
    database_survives_kills("wal");
}

#[test]
fn a_database_with_a_rollback_journal_survives_kills() {
    database_survives_kills("delete");
}
