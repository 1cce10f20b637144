//! Threads that answer requests which may wait for the disk or for memory.
//!
//! *Threads*: [`Pool::run`] may be called by any thread and never blocks. Threads are started as they are needed, up to the
//! bound, and stay.
//!
//! *Bounds*: at most [`THREADS_MAX`] threads. The queue is bounded by the kernel, which sends no more requests than callers
//! wait for (and `max_background` others).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crossbeam::channel::{Receiver, Sender, unbounded};
use vellum_store::spawn::Spawner;

/// Threads that may wait at the same time.
const THREADS_MAX: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

/// The pool; its threads end when it is dropped.
pub struct Pool {
    spawner: Arc<dyn Spawner>,
    sender: Sender<Work>,
    receiver: Receiver<Work>,
    threads: AtomicUsize,
    idle: Arc<AtomicUsize>,
}

impl Pool {
    /// A pool without threads yet.
    pub fn new(spawner: Arc<dyn Spawner>) -> Self {
        let (sender, receiver) = unbounded();
        Self { spawner, sender, receiver, threads: AtomicUsize::new(0), idle: Arc::default() }
    }

    /// Has a thread of the pool do `work`.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        let work: Work = Box::new(work);
        if self.idle.load(Ordering::Relaxed) <= self.sender.len() {
            self.grow();
        }
        if self.threads.load(Ordering::Relaxed) == 0 {
            // No thread could be started: better late from here than never.
            return work();
        }
        // The receiver lives as long as this pool, so sending cannot fail.
        let _ = self.sender.send(work);
    }

    fn grow(&self) {
        let number = self.threads.fetch_add(1, Ordering::Relaxed);
        if number >= THREADS_MAX {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (receiver, idle) = (self.receiver.clone(), Arc::clone(&self.idle));
        let body = move || {
            idle.fetch_add(1, Ordering::Relaxed);
            while let Ok(work) = receiver.recv() {
                idle.fetch_sub(1, Ordering::Relaxed);
                // A request that panics must not take the thread along: its caller gets EIO from the dropped reply.
                if catch_unwind(AssertUnwindSafe(work)).is_err() {
                    log::error!("a request panicked");
                }
                idle.fetch_add(1, Ordering::Relaxed);
            }
        };
        if let Err(error) = self.spawner.spawn(&format!("vellum-fuse-{number}"), Box::new(body)) {
            log::warn!("start a thread for requests: {error}");
            self.threads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
