//! The one byte budget of unflushed file content, shared by all writers of a volume.
//!
//! *Invariants*
//! 1. `used` counts the bytes held by all dirty maps; it may pass `hard` only by one write per waiting thread.
//! 2. Readers never touch the budget.
//!
//! *Threads*: any writer reserves; the flusher releases. Waiting happens only in [`Budget::reserve`], never with a lock held.
//!
//! *Bounds*: `hard` is a setting; above `soft` the flusher is asked to start.

use super::{
    Error, Result,
    sync::{AtomicU64, Condvar, Mutex, Ordering},
};

/// Counts bytes against a soft and a hard limit.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    soft: u64,
    hard: u64,
    waiters: Mutex<Waiters>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Waiters {
    count: usize,
    open: bool,
    full: Option<Error>,
}

impl Budget {
    /// A budget of `hard` bytes; flushing should begin at half of it.
    pub fn new(hard: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            soft: hard / 2,
            hard,
            waiters: Mutex::new(Waiters::default()),
            freed: Condvar::new(),
        }
    }

    /// Bytes held.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes above which flushing should run because of memory.
    pub fn soft(&self) -> u64 {
        self.soft
    }

    /// Whether flushing should run because of memory: the soft limit is passed, or a write that is large for this budget waits
    /// below it.
    pub fn is_pressed(&self) -> bool {
        self.used() > self.soft || (self.used() > 0 && self.is_awaited())
    }

    /// Whether somebody waits for bytes.
    pub fn is_awaited(&self) -> bool {
        self.waiters.lock().count > 0
    }

    /// Whether a reservation of `bytes` would have to wait.
    pub fn would_wait(&self, bytes: u64) -> bool {
        let used = self.used();
        used > 0 && used.saturating_add(bytes) > self.hard
    }

    /// Takes `bytes`, waiting until they fit. A single reservation larger than the limit passes when nothing else is held.
    /// Before it waits, with the budget [pressed](Self::is_pressed) by then, it calls `wake_flusher`.
    /// While flushing fails for want of space, whoever would wait gets that error instead.
    pub fn reserve(&self, bytes: u64, wake_flusher: impl Fn()) -> Result<()> {
        if self.would_wait(bytes) {
            let mut waiters = self.waiters.lock();
            waiters.count += 1;
            let mut answer = Ok(());
            while self.would_wait(bytes) && !waiters.open {
                wake_flusher();
                if let Some(error) = &waiters.full {
                    answer = Err(error.clone());
                    break;
                }
                self.freed.wait(&mut waiters);
            }
            waiters.count -= 1;
            answer?;
        }
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Tells that flushing fails because the disk is full, or (`None`) that it works again.
    pub fn set_full(&self, error: Option<Error>) {
        let mut waiters = self.waiters.lock();
        waiters.full = error;
        if waiters.full.is_some() {
            self.freed.notify_all();
        }
    }

    /// Adds bytes that were never reserved (replay, splitting) without waiting.
    pub fn force(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes what counted as `before` count as `after`, without waiting.
    pub fn settle(&self, before: u64, after: u64) {
        self.force(after.saturating_sub(before));
        self.release(before.saturating_sub(after));
    }

    /// Gives `bytes` back.
    pub fn release(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "budget released more than it held");
        let waiters = self.waiters.lock();
        if waiters.count > 0 {
            self.freed.notify_all();
        }
    }

    /// Lets every present and later waiter pass: the volume is poisoned, and its writers will be answered with an error.
    pub fn open_gates(&self) {
        self.waiters.lock().open = true;
        self.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_writer_waits_until_bytes_are_released() {
        let budget = Arc::new(Budget::new(100));
        budget.reserve(80, || {}).expect("nothing is full");
        assert!(budget.would_wait(30) && budget.is_pressed());
        let other = Arc::clone(&budget);
        let writer = std::thread::spawn(move || other.reserve(30, || {}).expect("nothing is full"));
        budget.release(80);
        writer.join().expect("the writer passes because everything was released");
        assert_eq!(budget.used(), 30);
    }

    #[test]
    fn one_write_larger_than_the_budget_still_passes_alone() {
        let budget = Budget::new(10);
        budget.reserve(1000, || {}).expect("nothing is full");
        assert_eq!(budget.used(), 1000);
    }

    #[test]
    fn open_gates_free_a_waiter() {
        let budget = Arc::new(Budget::new(10));
        budget.reserve(10, || {}).expect("nothing is full");
        let other = Arc::clone(&budget);
        let writer = std::thread::spawn(move || other.reserve(5, || {}).expect("nothing is full"));
        budget.open_gates();
        writer.join().expect("the writer passes because the gates are open");
    }
}
