//! Blobs that wait for a worker, in order of submission, and the record of which are done.
//!
//! *Threads*: any number of submitters, workers and helpers. Workers sleep only on an empty queue, and are woken only when
//! enough bytes wait to pay for it: what lies below that is run by whoever waits for it ([`Queue::pop_or_wait`]). Once such a
//! helper found nothing and sleeps, every push wakes a worker, since the helper's own answer may depend on it.
//!
//! *Bounds*: bytes by the pipeline's budget; every job is charged at least [`JOB_CHARGE`], which bounds their number too.

use std::{collections::VecDeque, sync::Arc};

use super::{gate::Gate, ticket::Answer};
use crate::{
    id::{BlobId, BlobKind},
    spawn::Spawner,
};

/// What each job costs in the budget beside its plaintext.
pub(crate) const JOB_CHARGE: usize = 256;
/// Bytes that must wait for each worker awake before another one is woken.
const WAKE_BYTES: usize = 128 << 10;

/// What a job is to store.
#[derive(Debug)]
pub(crate) enum Work {
    /// A chunk that nobody hashed yet.
    Hash(Vec<u8>),
    /// A blob that was claimed in the in-flight table by its submitter, which holds the plaintext.
    Claimed(BlobId),
}

/// One submitted blob.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) kind: BlobKind,
    pub(crate) work: Work,
    /// Answer of a [`Work::Hash`] job; a claimed one is answered through the in-flight table.
    pub(crate) answer: Option<Arc<Answer>>,
    pub(crate) charge: usize,
    pub(crate) sequence: u64,
}

/// The queue of one pipeline.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Gate<State>,
    finished: Gate<Finished>,
    workers: usize,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    sleeping: usize,
    /// Helpers that found the queue empty and sleep until an answer comes.
    helpers: usize,
    next_sequence: u64,
    closed: bool,
}

/// Which sequences are done: all below `base`, and those marked in `window`.
#[derive(Debug, Default)]
struct Finished {
    base: u64,
    window: VecDeque<bool>,
    waiting: usize,
}

impl Queue {
    pub(crate) fn new(workers: usize) -> Self {
        Self { state: Gate::default(), finished: Gate::default(), workers }
    }

    /// Puts a job at the end. `make` gets its sequence number.
    pub(crate) fn push(&self, make: impl FnOnce(u64) -> Job) {
        let wake = self.state.with(|state| {
            let job = make(state.next_sequence);
            state.next_sequence += 1;
            state.bytes += job.charge;
            state.jobs.push_back(job);
            let awake = self.workers - state.sleeping.min(self.workers);
            let wake = state.sleeping > 0 && (state.helpers > 0 || state.bytes >= WAKE_BYTES * (awake + 1));
            // The waker counts the sleeper as awake, so that the next push does not wake it again.
            state.sleeping -= usize::from(wake);
            wake
        });
        if wake {
            self.state.notify_one();
        }
    }

    /// The next job for a helper; with `None` the helper counts as sleeping until [`Self::wait_over`].
    pub(crate) fn pop_or_wait(&self) -> Option<Job> {
        self.state.with(|state| {
            let job = state.pop();
            state.helpers += usize::from(job.is_none());
            job
        })
    }

    /// A helper that got `None` has its answer.
    pub(crate) fn wait_over(&self) {
        self.state.with(|state| state.helpers -= 1);
    }

    /// The next job, waiting for one; `None` once the queue is closed and empty.
    pub(crate) fn pop(&self, spawner: &dyn Spawner) -> Option<Job> {
        self.state.wait(spawner, |state| match state.pop() {
            Some(job) => Some(Some(job)),
            None if state.closed => Some(None),
            None => {
                state.sleeping = (state.sleeping + 1).min(self.workers);
                None
            }
        })
    }

    /// The sequence that the next submitted job gets.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.state.with(|state| state.next_sequence)
    }

    /// Marks one sequence as done.
    pub(crate) fn finish(&self, sequence: u64) {
        let wake = self.finished.with(|finished| {
            finished.mark(sequence);
            finished.waiting > 0
        });
        if wake {
            self.finished.notify_all();
        }
    }

    /// Whether all sequences below `end` are done.
    pub(crate) fn is_finished(&self, end: u64) -> bool {
        self.finished.with(|finished| finished.base >= end)
    }

    /// Waits until all sequences below `end` are done.
    pub(crate) fn wait_finished(&self, spawner: &dyn Spawner, end: u64) {
        let mut counted = false;
        self.finished.wait(spawner, |finished| {
            let done = finished.base >= end;
            match (done, counted) {
                (true, true) => finished.waiting -= 1,
                (false, false) => finished.waiting += 1,
                _ => {}
            }
            counted = !done;
            done.then_some(())
        });
    }

    /// Lets the workers end once the queue is empty.
    pub(crate) fn close(&self) {
        self.state.with(|state| state.closed = true);
        self.state.notify_all();
    }
}

impl State {
    fn pop(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front()?;
        self.bytes -= job.charge;
        Some(job)
    }
}

impl Finished {
    fn mark(&mut self, sequence: u64) {
        let at = (sequence - self.base) as usize;
        if self.window.len() <= at {
            self.window.resize(at + 1, false);
        }
        debug_assert!(!self.window[at], "a job is finished once");
        self.window[at] = true;
        while self.window.front() == Some(&true) {
            self.window.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_waits_for_the_oldest_job_and_not_for_later_ones() {
        let queue = Queue::new(1);
        queue.finish(1);
        assert!(!queue.is_finished(1));
        queue.finish(0);
        assert!(queue.is_finished(2) && !queue.is_finished(3));
        queue.finish(4);
        queue.finish(2);
        assert!(queue.is_finished(3) && !queue.is_finished(4));
    }

    #[test]
    fn small_jobs_wake_nobody_until_enough_bytes_wait() {
        let queue = Queue::new(2);
        queue.state.with(|state| state.sleeping = 2);
        let job = |charge| {
            move |sequence| Job { kind: BlobKind::Data, work: Work::Hash(Vec::new()), answer: None, charge, sequence }
        };
        queue.push(job(1000));
        assert_eq!(queue.state.with(|state| state.sleeping), 2);
        queue.push(job(WAKE_BYTES));
        assert_eq!(queue.state.with(|state| state.sleeping), 1);
        queue.push(job(1000));
        assert_eq!(queue.state.with(|state| state.sleeping), 1);
        queue.push(job(WAKE_BYTES));
        assert_eq!(queue.state.with(|state| state.sleeping), 0);
    }
}
