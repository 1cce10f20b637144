//! Threads of a mount, of which none may be missing without anybody noticing.
//!
//! A thread that panics (no way to that is known) has left its work half done, and others wait for it: a flusher that is gone would
//! leave a mount that hangs. The process ends instead, at once, and without storing anything more; to the volume that is a crash,
//! after which the next mount replays the journal.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use vellum_store::spawn::{JoinHandle, Spawner, Threads};

/// Real threads whose panic ends the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guarded;

impl Spawner for Guarded {
    fn spawn(&self, name: &str, f: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle> {
        let thread = name.to_string();
        let guarded = move || {
            if catch_unwind(AssertUnwindSafe(f)).is_err() {
                log::error!(
                    "the thread {thread} failed, which is a fault of vellum; the mount ends as in a crash. Take it away with \
                     `vellum umount`, mount again, and report what stands above"
                );
                log::logger().flush();
                std::process::abort();
            }
        };
        Threads.spawn(name, Box::new(guarded))
    }

    fn blocking_begin(&self) {}

    fn blocking_end(&self) {}

    fn step(&self, _label: &'static str) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    const INSIDE: &str = "VELLUM_TEST_INSIDE";

    /// The test runs itself once more, as the process that ends.
    #[test]
    fn a_thread_that_fails_ends_the_process() {
        let name = "mount::guarded::tests::a_thread_that_fails_ends_the_process";
        if std::env::var_os(INSIDE).is_some() {
            Guarded.spawn("well", Box::new(|| {})).unwrap().join();
            Guarded.spawn("unwell", Box::new(|| panic!("on purpose"))).unwrap().join();
            println!("it went on");
            return;
        }
        let inside = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        assert_eq!(inside.status.signal(), Some(libc::SIGABRT), "{inside:?}");
        assert!(String::from_utf8_lossy(&inside.stderr).contains("on purpose"), "{inside:?}");
        assert!(!String::from_utf8_lossy(&inside.stdout).contains("it went on"), "{inside:?}");
    }
}
