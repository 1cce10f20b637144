//! How many threads a pool has and how many of them are free, so that no request waits while another thread may be started for it.
//!
//! *Invariants*
//! 1. `free` is the number of threads less that of requests which run or wait; what is missing to it is about to be added by who claims.
//! 2. A request that finds no thread free has one started, unless there are as many as there may be. If that fails, it waits for another.
//!
//! *Threads*: any; nothing waits here. `tests/interleavings` tries all orders with up to three interruptions.

use super::sync::{AtomicIsize, AtomicUsize, Ordering};

/// The places of one pool.
#[derive(Debug)]
pub struct Places {
    threads: AtomicUsize,
    threads_max: usize,
    /// Below zero while requests wait.
    free: AtomicIsize,
}

impl Places {
    /// No thread yet.
    pub fn new(threads_max: usize) -> Self {
        Self { threads: AtomicUsize::new(0), threads_max, free: AtomicIsize::new(0) }
    }

    /// A request comes. Returns whether the caller has to start a thread for it; if it cannot, [`Self::give_up`].
    pub fn claim(&self) -> bool {
        if self.free.fetch_sub(1, Ordering::Relaxed) > 0 {
            return false;
        }
        let more = |threads| (threads < self.threads_max).then_some(threads + 1);
        let may_start = self.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok();
        if may_start {
            self.free.fetch_add(1, Ordering::Relaxed);
        }
        may_start
    }

    /// A request is done, or will not be done here.
    pub fn release(&self) {
        self.free.fetch_add(1, Ordering::Relaxed);
    }

    /// A thread that was to be started was not.
    pub fn give_up(&self) {
        self.free.fetch_sub(1, Ordering::Relaxed);
        self.threads.fetch_sub(1, Ordering::SeqCst);
    }

    /// Threads there are, or are about to be.
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::SeqCst)
    }
}
