//! What a mount does when one of its threads panics, to which no way is known: it says so and ends.
//!
//! Whoever panics has left its work half done, perhaps in the middle of a change, and others wait for it or would go on from there. A
//! process that ends at once, before anything unwinds, stores nothing of that: to the volume it is a crash, after which the next mount
//! replays the journal.

use std::panic;

use vellum_store::table;

/// From here on a panic of any thread ends the process; but for those of sled, which are caught.
pub fn end_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        if table::is_guarded() {
            return;
        }
        log::error!(
            "{info}: this is a fault of vellum, and the mount ends as in a crash. Take it away with `vellum umount`, mount again, and \
             report these lines"
        );
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    const INSIDE: &str = "VELLUM_TEST_INSIDE";

    /// The test runs itself once more, as the process that ends.
    #[test]
    fn a_panic_of_any_thread_ends_the_process() {
        let name = "mount::last_words::tests::a_panic_of_any_thread_ends_the_process";
        if std::env::var_os(INSIDE).is_some() {
            end_on_panic();
            let caught = panic::catch_unwind(|| std::thread::spawn(|| panic!("on purpose")).join());
            println!("it went on: {}", caught.is_ok());
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
