//! What a test needs from the machine it runs on, and how it says that this is missing.
//!
//! A test that cannot run calls [`skip`] and returns. The line goes to the test's output and, under `scripts/test`, to
//! the list that is printed at the end, so that nothing is left out unseen.

use std::{
    env,
    ffi::OsString,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The `vellum` program of this build. It is built when the first test asks for it, so that it is never older than its
/// sources; `VELLUM_TEST_PROGRAM` names another one.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(named) = env::var_os("VELLUM_TEST_PROGRAM") {
            return named.into();
        }
        let test = env::current_exe().expect("a running test has a path");
        let profile = test.ancestors().nth(2).expect("tests lie in `deps` below the directory of their profile");
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        build.args(["build", "--quiet", "--locked", "--package", "vellum-cli"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        build.arg("--target-dir").arg(profile.parent().expect("a profile lies in the target directory"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo can be started").success(), "the program does not compile");
        profile.join("vellum")
    })
}

/// A Python with the libraries of `tests/reader/requirements.txt`, if `scripts/test` could make one.
pub fn python() -> Option<PathBuf> {
    env::var_os("VELLUM_TEST_PYTHON").map(PathBuf::from)
}

/// Why no FUSE filesystem can be mounted here, in the words of `scripts/needs.sh`; `None` if one can.
pub fn why_no_mount() -> Option<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace");
    let ask = Command::new("bash").args(["-c", ". scripts/needs.sh; why_no_mount"]).current_dir(top).output();
    match ask {
        Ok(answer) if answer.status.success() => {
            let why = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
            (!why.is_empty()).then_some(why)
        }
        Ok(answer) => Some(format!("scripts/needs.sh failed: {}", String::from_utf8_lossy(&answer.stderr).trim())),
        Err(error) => Some(format!("bash cannot be started: {error}")),
    }
}

/// Notes that `test` does not run, and why.
pub fn skip(test: &str, why: &str) {
    let line = format!("{test}: {why}");
    println!("skipped: {line}");
    if let Some(list) = env::var_os("VELLUM_TEST_SKIPPED") {
        let list = OpenOptions::new().append(true).create(true).open(list);
        let written = list.and_then(|mut list| writeln!(list, "{line}"));
        written.expect("scripts/test made the list of what was skipped");
    }
}
