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
use parking_lot::Mutex;
use vellum_store::spawn::{JoinHandle, Spawner};

/// Threads that may wait at the same time.
const THREADS_MAX: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

/// The pool; its threads end when it is dropped.
pub struct Pool {
    spawner: Arc<dyn Spawner>,
    name: &'static str,
    handles: Mutex<Vec<JoinHandle>>,
    sender: Option<Sender<Work>>,
    receiver: Receiver<Work>,
    threads: AtomicUsize,
    idle: Arc<AtomicUsize>,
}

impl Pool {
    /// A pool without threads yet.
    pub fn new(spawner: Arc<dyn Spawner>, name: &'static str) -> Self {
        let (sender, receiver) = unbounded();
        let (threads, handles) = (AtomicUsize::new(0), Mutex::default());
        Self { spawner, name, handles, sender: Some(sender), receiver, threads, idle: Arc::default() }
    }

    /// Has a thread of the pool do `work`.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        let work: Work = Box::new(work);
        if self.idle.load(Ordering::Relaxed) <= self.receiver.len() {
            self.grow();
        }
        if self.threads.load(Ordering::Relaxed) == 0 {
            // No thread could be started: better late from here than never.
            return work();
        }
        if let Some(sender) = &self.sender {
            // The receiver lives as long as this pool, so sending cannot fail.
            let _ = sender.send(work);
        }
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
        match self.spawner.spawn(&format!("fuse-{}-{number}", self.name), Box::new(body)) {
            Ok(handle) => self.handles.lock().push(handle),
            Err(error) => {
                log::warn!("start a thread for requests: {error}");
                self.threads.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Pool {
    /// Waits for what is being answered: nothing may be written for this mount after its volume was closed.
    fn drop(&mut self) {
        self.sender = None;
        for handle in self.handles.get_mut().drain(..) {
            handle.join();
        }
    }
}
