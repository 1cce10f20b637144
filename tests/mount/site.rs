//! A repository in a directory of its own, and its mounts.
//!
//! *Threads*: each mounted process has a thread here that collects what it logs; waiting means waiting for a line, for the end of
//! a process or for a change of the mount table, each with a deadline.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, OnceLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;
use vellum_tests::surroundings::{program, skip, why_no_mount};

/// Nothing that is waited for takes longer, even on a busy machine without optimisation.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The line that the process logs when the mountpoint shows the volume.
const READY: &str = "is mounted at";

/// A repository, a mountpoint, and what a user's home would hold.
pub struct Site {
    dir: TempDir,
    repository: PathBuf,
}

impl Site {
    /// A new repository; `None`, with a line that says why, where nothing can be mounted.
    pub fn new() -> Option<Self> {
        let dir = Self::place()?;
        let repository = dir.path().join("repo");
        Some(Self::made(dir, repository))
    }

    /// As [`Self::new`], with the repository below another directory.
    pub fn with_repository_in(place: &Path) -> Option<Self> {
        Some(Self::made(Self::place()?, place.join("repo")))
    }

    fn place() -> Option<TempDir> {
        static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
        let root = nix::unistd::geteuid().is_root();
        let why_not = WHY_NOT.get_or_init(|| match root {
            true => why_no_mount(),
            false => Some("all kinds of files and owners can only be made by root".to_owned()),
        });
        if let Some(why) = why_not {
            let thread = std::thread::current();
            skip(thread.name().unwrap_or("a test of a mount"), why);
            return None;
        }
        Some(tempfile::Builder::new().prefix("vellum-mount-").tempdir().unwrap())
    }

    fn made(dir: TempDir, repository: PathBuf) -> Self {
        let site = Self { dir, repository };
        fs::create_dir(site.mountpoint()).unwrap();
        fs::write(site.path("passphrase"), "a passphrase of tests\n").unwrap();
        site.run(["init", "--kdf-memory-kib", "65536"], [site.repository()]);
        site
    }

    /// A path beside the repository, outside of the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The repository.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    /// The program with this site's secret and state.
    pub fn vellum(&self) -> Command {
        let mut command = Command::new(program());
        command
            .env("VELLUM_STATE_DIR", self.path("state"))
            .env("VELLUM_PASSPHRASE_FILE", self.path("passphrase"))
            .env("LC_ALL", "C")
            .env_remove("VELLUM_PASSPHRASE")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to success; returns what it printed.
    pub fn run<'a>(
        &self,
        words: impl IntoIterator<Item = &'a str>,
        paths: impl IntoIterator<Item: AsRef<OsStr>>,
    ) -> String {
        succeed(self.vellum().args(words).args(paths))
    }

    /// Mounts with the default options and those that let tests see everything.
    pub fn mount(&self) -> Mounted<'_> {
        self.mount_with("rw")
    }

    /// Mounts with more options.
    pub fn mount_with(&self, options: &str) -> Mounted<'_> {
        let mut command = self.vellum();
        command.args(["mount", "--foreground", "-v", "-o", "allow_other,suid,dev", "-o", options]);
        command.args([self.repository(), &self.mountpoint()]);
        Mounted::start(self, self.mountpoint(), &mut command)
    }

    /// Bytes that the repository takes on its disk, and how many packs of file content it has.
    pub fn stored_bytes(&self) -> u64 {
        fn walk(dir: &Path) -> u64 {
            use std::os::unix::fs::MetadataExt;
            let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
            let size = |entry: fs::DirEntry| match entry.metadata() {
                Ok(data) if data.is_dir() => walk(&entry.path()),
                Ok(data) => data.blocks() * 512,
                Err(_) => 0,
            };
            entries.map(size).sum()
        }
        walk(&self.repository().join("packs"))
            + walk(&self.repository().join("index"))
            + walk(&self.repository().join("heads"))
    }

    /// What `stats --json` tells.
    pub fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.run(["stats", "--json"], [self.repository()])).unwrap()
    }
}

/// Runs a command to success; returns what it printed.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that must fail; returns its exit code and what it wrote to standard error.
pub fn fail(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(!output.status.success(), "{command:?} should have failed: {}", told(&output));
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Whether a program can be run; says so where it cannot.
pub fn have(name: &str) -> bool {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        let thread = std::thread::current();
        skip(thread.name().unwrap_or("a test of a mount"), &format!("{name} is not installed"));
    }
    found
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// What a process logs, line by line.
#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

impl Log {
    /// Waits until a line contains `text`; false if the log ends before.
    pub fn wait_for(&self, text: &str) -> bool {
        let until = Instant::now() + DEADLINE;
        let mut lines = self.lines.lock().unwrap();
        loop {
            if lines.lines.iter().any(|line| line.contains(text)) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line says {text:?}: {:#?}", lines.lines);
            if lines.ended {
                return false;
            }
            lines = self.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().lines.clone()
    }

    fn collect(&self, from: impl std::io::Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            self.lines.lock().unwrap().lines.push(line);
            self.more.notify_all();
        }
        self.lines.lock().unwrap().ended = true;
        self.more.notify_all();
    }
}

/// A mounted volume and the process that serves it, which ends with this value.
pub struct Mounted<'s> {
    site: &'s Site,
    mountpoint: PathBuf,
    child: Child,
    log: Arc<Log>,
    collector: Option<JoinHandle<()>>,
}

impl<'s> Mounted<'s> {
    fn start(site: &'s Site, mountpoint: PathBuf, command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = child.stderr.take().unwrap();
        let log = Arc::new(Log::default());
        let collecting = Arc::clone(&log);
        let collector = Some(std::thread::spawn(move || collecting.collect(errors)));
        let mounted = Self { site, mountpoint, child, log, collector };
        assert!(mounted.log.wait_for(READY), "{command:?} ended: {:#?}", mounted.log.lines());
        mounted
    }

    /// The mountpoint, or a path below it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mountpoint.join(name)
    }

    /// A path below the hidden directory of the mountpoint.
    pub fn snapshot(&self, name: &str) -> PathBuf {
        self.mountpoint.join(".snapshots").join(name)
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Unmounts as users do; the process must have ended well and without a complaint when that returns.
    pub fn umount(self) {
        self.umount_despite(&[]);
    }

    /// As [`Self::umount`]; complaints with one of these words are expected.
    pub fn umount_despite(mut self, expected: &[&str]) {
        self.site.run(["umount"], [&self.mountpoint]);
        // What the program waits for is the end of the connection, which the process closes by ending.
        let status = self.wait_for_end();
        assert!(status.success(), "the mount ended with {status}: {:#?}", self.log.lines());
        self.assert_quiet(expected);
    }

    /// Waits until the process has ended by itself.
    pub fn wait(mut self) -> ExitStatus {
        let status = self.wait_for_end();
        self.assert_quiet(&[]);
        status
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        wait_for_exit(&mut self.child)
    }

    /// Kills the process with SIGKILL, and takes the dead mount away.
    pub fn kill(self) {
        self.kill_only().take_away();
    }

    /// Kills the process with SIGKILL; the dead mount stays.
    pub fn kill_only(self) -> DeadMount {
        self.kill_only_despite(&[])
    }

    /// As [`Self::kill_only`]; complaints with one of these words are expected.
    pub fn kill_only_despite(mut self, expected: &[&str]) -> DeadMount {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.assert_quiet(expected);
        DeadMount { mountpoint: self.mountpoint.clone() }
    }

    /// Nothing that a user would have to worry about was logged.
    fn assert_quiet(&mut self, expected: &[&str]) {
        if let Some(collector) = self.collector.take() {
            collector.join().unwrap();
        }
        let complains = |line: &&String| {
            let loud = line.starts_with("error") || line.starts_with("warning") || line.contains("panicked");
            loud && !expected.iter().any(|word| line.contains(word))
        };
        let complaints: Vec<_> = self.log.lines().iter().filter(complains).cloned().collect();
        assert!(complaints.is_empty(), "the mount complained: {complaints:#?}");
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Only a test that fails comes here; what it leaves must not stop the others.
            let _ = umount2(&self.mountpoint, MntFlags::MNT_DETACH);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the mount logged: {:#?}", self.log.lines());
        }
    }
}

/// A mount whose process was killed.
pub struct DeadMount {
    mountpoint: PathBuf,
}

impl DeadMount {
    /// Unmounts it.
    pub fn take_away(self) {
        umount2(&self.mountpoint, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Waits for the end of a process.
pub fn wait_for_exit(child: &mut Child) -> ExitStatus {
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        process::{Pid, PidfdFlags, pidfd_open},
    };
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let deadline = Timespec { tv_sec: DEADLINE.as_secs() as i64, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&deadline)).unwrap();
    assert_eq!(ended, 1, "process {} did not end", child.id());
    child.wait().unwrap()
}

/// Bytes that do not compress and follow from a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
