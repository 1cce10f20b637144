//! Threads that answer requests which may wait for the disk or for memory.
//!
//! *Threads*: [`Pool::run`] may be called by any thread and never blocks. Threads are started as they are needed, up to the
//! bound, and stay.
//!
//! *Bounds*: at most [`THREADS_MAX`] threads. The queue is bounded by the kernel, which sends no more requests than callers
//! wait for (and `max_background` others).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crossbeam::channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use vellum_store::spawn::{JoinHandle, Spawner};

use super::places::Places;

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
    places: Arc<Places>,
}

impl Pool {
    /// A pool without threads yet.
    pub fn new(spawner: Arc<dyn Spawner>, name: &'static str) -> Self {
        let (sender, receiver) = unbounded();
        let places = Arc::new(Places::new(THREADS_MAX));
        Self { spawner, name, handles: Mutex::default(), sender: Some(sender), receiver, places }
    }

    /// Has a thread of the pool do `work`.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        let work: Work = Box::new(work);
        if self.places.claim() {
            self.grow();
        }
        if let Some(sender) = &self.sender {
            // The receiver lives as long as this pool, so sending cannot fail.
            let _ = sender.send(work);
        }
        // After sending: whoever else found that no thread can be started either sees this request or is seen here.
        if self.places.threads() == 0 {
            // Better late from here than never.
            self.receiver.try_iter().for_each(|work| answer(work, &self.places));
        }
    }

    fn grow(&self) {
        let (receiver, places) = (self.receiver.clone(), Arc::clone(&self.places));
        let body = move || {
            while let Ok(work) = receiver.recv() {
                answer(work, &places);
            }
        };
        let mut handles = self.handles.lock();
        match self.spawner.spawn(&format!("fuse-{}-{}", self.name, handles.len()), Box::new(body)) {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                log::warn!("start a thread for requests: {error}");
                self.places.give_up();
            }
        }
    }
}

fn answer(work: Work, places: &Places) {
    // A request that panics must not take the thread along: its caller gets EIO from the dropped reply.
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        log::error!("a request panicked");
    }
    places.release();
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
