//! Threads are held up, at any instruction and for longer than others need to go on: a race that hangs on one moment is met a thousand
//! times as often.
//!
//! A signal goes to one thread of the process after the other, chosen at random; its handler sleeps. Calls go on afterwards
//! (`SA_RESTART`), so that nothing is different but the time.
//!
//! *Threads*: one that sends; the handler runs in any.

#![allow(unsafe_code)]

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd::gettid,
};
use vellum_store::spawn::Seed;

/// How long a thread is held up at the most, and how far apart two signals are.
const HELD_NS_MAX: u64 = 3_000_000;
const APART_NS_MAX: u64 = 400_000;
/// Threads come and go: they are listed again after so long.
const LISTED: Duration = Duration::from_millis(2);

static HELD_UP: AtomicU64 = AtomicU64::new(0);

fn nap(ns: u64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: ns as libc::c_long };
    // SAFETY: `time` outlives the call, and nobody asks for what is left; nanosleep may be called in a signal handler.
    unsafe { libc::nanosleep(&time, std::ptr::null_mut()) };
}

extern "C" fn hold_up(_signal: libc::c_int) {
    let errno = Errno::last_raw();
    let count = HELD_UP.fetch_add(1, Ordering::Relaxed);
    nap(count.wrapping_mul(0x9e37_79b9_7f4a_7c15) % HELD_NS_MAX);
    Errno::set_raw(errno);
}

/// How often a thread was held up.
pub(crate) fn count() -> u64 {
    HELD_UP.load(Ordering::Relaxed)
}

/// Holds up the threads of this process from here on.
pub(crate) fn start(seed: u64) {
    let action = SigAction::new(SigHandler::Handler(hold_up), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler touches an atomic and errno, and calls nanosleep alone.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("the signal is not in use");
    thread::spawn(move || {
        let (own, process) = (gettid().as_raw(), std::process::id());
        let (mut choices, mut threads, mut listed) = (Seed::new(seed), Vec::new(), Instant::now() - LISTED);
        loop {
            if listed.elapsed() >= LISTED {
                let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
                threads = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect::<Vec<i32>>();
                threads.retain(|thread| *thread != own);
                listed = Instant::now();
            }
            if !threads.is_empty() {
                let thread = threads[choices.below(threads.len() as u64) as usize];
                // SAFETY: plain numbers; a thread that has ended meanwhile is an error that means nothing.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
            }
            nap(choices.below(APART_NS_MAX));
        }
    });
}
