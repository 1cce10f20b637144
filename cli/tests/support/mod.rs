//! A directory to work in, and the program run in it as a person would run it.
//!
//! Repositories open with a key file, which needs no stretching, so that tests are quick; those about passphrases say so.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use vellum_fs::{
    attr::{Caller, SetAttr, SetTime},
    format::inode::FileKind,
    ino::Ino,
    namespace::XattrMode,
    time::Time,
    volume::{Volume, VolumeOptions, handles::OpenMode, ops::names::NewInode, snapshot::SnapshotRequest},
};
use vellum_store::{
    crypto::Credential,
    id::VolumeName,
    repository::{OpenOptions, Repository},
};
use zeroize::Zeroizing;

/// The least memory that a passphrase may cost, for quick tests.
pub const CHEAP: &str = "65536";

/// What a run of the program gave.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Expects success, and gives what was printed.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Expects an exit code, and a word in the message; that there is a hint, and no panic. Gives the message.
    #[track_caller]
    pub fn failed(self, code: i32, word: &str) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(word), "{self:?}");
        assert!(self.err.contains("hint: ") || self.err.contains("Usage") || self.err.contains("--help"), "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        self.err
    }

    pub fn json(self) -> serde_json::Value {
        let out = self.done();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// A directory of a test's own.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// With a key file in it.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), [7u8; 64]).unwrap();
        Self { dir }
    }

    /// With a repository `repo` in it.
    pub fn with_repository() -> Self {
        let place = Self::new();
        place.run(["init", "repo"]).done();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that has the key, and nothing else of ours in its environment.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_vellum")), args)
    }

    /// The same for another name of the program.
    pub fn command_of<S: AsRef<OsStr>>(&self, program: &Path, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VELLUM_")) {
            command.env_remove(name);
        }
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("VELLUM_STATE_DIR", self.path("state"))
            .env("VELLUM_KEY_FILE", self.path("key"))
            .stdin(Stdio::null());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::new(self.command(args).output().unwrap())
    }

    /// Runs with a passphrase in place of the key file.
    pub fn run_with_passphrase<S: AsRef<OsStr>>(&self, passphrase: &str, args: impl IntoIterator<Item = S>) -> Run {
        let mut command = self.command(args);
        command.env_remove("VELLUM_KEY_FILE").env("VELLUM_PASSPHRASE", passphrase);
        Run::new(command.output().unwrap())
    }

    pub fn output(&self, command: &mut Command) -> Run {
        Run::new(command.output().unwrap())
    }

    /// Puts files into the volume without a mount, and takes the snapshot `one`.
    pub fn fill(&self, fill: impl FnOnce(&Filler<'_>)) {
        self.change(|filler| {
            fill(filler);
            let request = SnapshotRequest { name: Some(b"one".to_vec()), comment: String::new() };
            filler.volume.take_snapshot(&request).unwrap();
        });
    }

    /// Changes the volume without a mount.
    pub fn change(&self, change: impl FnOnce(&Filler<'_>)) {
        let credential = Credential::KeyFile(Zeroizing::new(fs::read(self.path("key")).unwrap()));
        let options = OpenOptions::new(self.path("repo"), credential, self.path("state"));
        let repository = Repository::open(options).unwrap();
        let (volume, _) = Volume::open(repository, VolumeOptions::new(VolumeName::new("main").unwrap())).unwrap();
        change(&Filler { volume: &volume });
        volume.close().unwrap();
    }
}

/// Makes files in an open volume.
pub struct Filler<'v> {
    pub volume: &'v Volume,
}

impl Filler<'_> {
    pub fn make(&self, parent: Ino, name: &str, kind: FileKind, mode: u32, target: &str) -> Ino {
        let new = NewInode { parent, name: name.as_bytes(), kind, mode, umask: 0, rdev: 0, target: target.as_bytes() };
        let owner = nix::unistd::geteuid().as_raw();
        let caller = Caller { uid: owner, gid: nix::unistd::getegid().as_raw(), pid: 0 };
        self.volume.create_inode(&new, &caller).unwrap().attr.ino
    }

    pub fn directory(&self, parent: Ino, name: &str) -> Ino {
        self.make(parent, name, FileKind::Directory, 0o750, "")
    }

    /// A file with parts of content at offsets.
    pub fn file(&self, parent: Ino, name: &str, parts: &[(u64, &[u8])]) -> Ino {
        let ino = self.make(parent, name, FileKind::Regular, 0o640, "");
        let handle = self.volume.open_file(ino, OpenMode { write: true, ..OpenMode::default() }).unwrap().handle;
        for (offset, bytes) in parts {
            assert_eq!(self.volume.write(handle, *offset, bytes).unwrap(), bytes.len());
        }
        self.volume.release(handle).unwrap();
        ino
    }

    pub fn unlink(&self, parent: Ino, name: &str) {
        self.volume.unlink(parent, name.as_bytes()).unwrap();
    }

    pub fn xattr(&self, ino: Ino, name: &str, value: &[u8]) {
        self.volume.set_xattr(ino, name.as_bytes(), value, XattrMode::Set).unwrap();
    }

    pub fn modified(&self, ino: Ino, sec: i64, nsec: u32) {
        let at = Some(SetTime::At(Time { sec, nsec }));
        self.volume.set_attr(ino, &SetAttr { mtime: at, atime: at, ..SetAttr::default() }).unwrap();
    }
}

/// Bytes that neither repeat nor compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
