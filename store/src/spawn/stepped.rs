//! Threads that a seed steps through: one holds the baton and runs, all others wait for it.
//!
//! *Invariants*
//! 1. Of the registered threads (the one that called [`Stepped::new`], and all that were spawned since), only the holder of the baton runs; threads that
//!    wait inside `blocking_begin`..`blocking_end` hold none.
//! 2. The next holder is chosen by the seed, at `step`, `idle`, `blocking_begin` and the end of a thread, among all that could run.
//!
//! With waits through [`super::wait_until`] alone the order of all threads follows from the seed. A thread that comes back from
//! [`super::blocking`] joins the choice when the system has woken it, which the seed does not govern.
//!
//! *Bounds*: [`IDLE_POLLS_MAX`] polls in a row without a step of progress are a deadlock, and panic, unless a thread is inside
//! [`super::blocking`].

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{JoinHandle, Seed, Spawner, turns};

/// Polls without progress after which the program is taken to stand still.
pub const IDLE_POLLS_MAX: u64 = 1_000_000;

thread_local! {
    /// Which batons this thread is registered with, and as whom.
    static REGISTERED: RefCell<Vec<Registered>> = const { RefCell::new(Vec::new()) };
}

struct Registered {
    baton: Weak<Baton>,
    number: u64,
    me: u32,
}

/// Spawner of a simulation. The thread that creates it is its first thread and holds the baton.
#[derive(Clone)]
pub struct Stepped {
    baton: Arc<Baton>,
}

impl Stepped {
    /// A simulation whose order of threads follows from `seed`.
    pub fn new(seed: u64) -> Self {
        static BATONS: AtomicU64 = AtomicU64::new(0);
        let baton = Arc::new(Baton {
            number: BATONS.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State {
                random: Seed::new(seed),
                running: Some(0),
                ready: Vec::new(),
                next_thread: 1,
                ended: Vec::new(),
                idle_polls: 0,
                blocked: 0,
                waiting_at: BTreeMap::new(),
            }),
            changed: Condvar::new(),
            steps: AtomicU64::new(0),
        });
        baton.register(0);
        turns::note_simulation();
        Self { baton }
    }

    /// The simulation that steps the calling thread: of several that do, the one that began last.
    pub(super) fn of_this_thread() -> Option<Self> {
        let baton = REGISTERED.with_borrow(|registered| registered.iter().rev().find_map(|one| one.baton.upgrade()));
        baton.map(|baton| Self { baton })
    }

    /// Bytes that follow from the seed.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.baton.state.lock();
        for part in bytes.chunks_mut(8) {
            let number = state.random.number().to_le_bytes();
            part.copy_from_slice(&number[..part.len()]);
        }
    }

    /// Steps made so far, by which a test can tell two runs apart.
    pub fn steps(&self) -> u64 {
        self.baton.steps.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stepped({} steps)", self.steps())
    }
}

impl Spawner for Stepped {
    fn spawn(&self, name: &str, f: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle> {
        let baton = self.baton.clone();
        let number = baton.enroll();
        let spawned = thread::Builder::new().name(name.to_string()).spawn(move || {
            let _running = baton.enter(number);
            f();
        });
        match spawned {
            Ok(thread) => Ok(JoinHandle { thread, baton: Some(self.baton.clone()) }),
            Err(e) => {
                self.baton.state.lock().ready.retain(|&other| other != number);
                Err(e)
            }
        }
    }

    fn blocking_begin(&self) {
        if self.baton.me().is_some() {
            let mut state = self.baton.state.lock();
            state.blocked += 1;
            self.baton.choose(&mut state);
        }
    }

    fn blocking_end(&self) {
        if let Some(me) = self.baton.me() {
            let mut state = self.baton.state.lock();
            state.idle_polls = 0;
            state.blocked -= 1;
            state.ready.push(me);
            self.baton.take_turn(state, me);
        }
    }

    fn step(&self, _label: &'static str) {
        if let Some(me) = self.baton.me() {
            let mut state = self.baton.state.lock();
            state.idle_polls = 0;
            state.waiting_at.remove(&me);
            self.baton.pass(state, me);
        }
    }

    fn polls(&self) -> bool {
        self.baton.me().is_some()
    }

    fn idle(&self, label: &'static str) {
        let Some(me) = self.baton.me() else {
            thread::yield_now();
            return;
        };
        let mut state = self.baton.state.lock();
        state.waiting_at.insert(me, label);
        state.idle_polls += 1;
        if state.blocked > 0 {
            // Somebody waits for the system, which needs its time.
            MutexGuard::unlocked(&mut state, thread::yield_now);
        } else if state.idle_polls > IDLE_POLLS_MAX {
            let places: Vec<_> = state.waiting_at.values().collect();
            panic!("no thread makes progress; they wait at {places:?}");
        }
        self.baton.pass(state, me);
    }
}

#[derive(Debug)]
pub(super) struct Baton {
    number: u64,
    state: Mutex<State>,
    changed: Condvar,
    steps: AtomicU64,
}

#[derive(Debug)]
struct State {
    random: Seed,
    /// Who holds the baton.
    running: Option<u32>,
    /// Who waits for it.
    ready: Vec<u32>,
    next_thread: u32,
    /// Threads whose function has returned or panicked.
    ended: Vec<ThreadId>,
    idle_polls: u64,
    /// Threads between `blocking_begin` and `blocking_end`.
    blocked: u32,
    /// The last poll of each thread that waits for a condition.
    waiting_at: BTreeMap<u32, &'static str>,
}

impl Baton {
    fn me(&self) -> Option<u32> {
        REGISTERED.with_borrow(|registered| registered.iter().find(|one| one.number == self.number).map(|one| one.me))
    }

    fn register(self: &Arc<Self>, me: u32) {
        REGISTERED.with_borrow_mut(|registered| {
            registered.retain(|one| one.baton.strong_count() > 0);
            registered.push(Registered { baton: Arc::downgrade(self), number: self.number, me });
        });
    }

    /// A number for a thread that is about to be spawned; it takes part in the choice at once, however late the system starts it.
    fn enroll(&self) -> u32 {
        let mut state = self.state.lock();
        let number = state.next_thread;
        state.next_thread += 1;
        state.ready.push(number);
        if state.running.is_none() {
            // The spawning thread is none of ours, and all of ours were waiting.
            self.choose(&mut state);
        }
        number
    }

    fn enter(self: &Arc<Self>, me: u32) -> Running {
        self.register(me);
        let state = self.state.lock();
        self.take_turn(state, me);
        Running { baton: self.clone(), me }
    }

    /// Puts the caller among the ready and lets the seed choose.
    fn pass(&self, mut state: MutexGuard<'_, State>, me: u32) {
        state.ready.push(me);
        self.choose(&mut state);
        self.take_turn(state, me);
    }

    /// Waits until the caller, who is among the ready or was chosen already, holds the baton.
    fn take_turn(&self, mut state: MutexGuard<'_, State>, me: u32) {
        if state.running.is_none() {
            self.choose(&mut state);
        }
        while state.running != Some(me) {
            self.changed.wait(&mut state);
        }
    }

    fn choose(&self, state: &mut State) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        state.running = None;
        if !state.ready.is_empty() {
            // Threads come back from real waits in any order; the choice must not depend on it.
            state.ready.sort_unstable();
            let index = state.random.below(state.ready.len() as u64);
            state.running = Some(state.ready.remove(index as usize));
        }
        self.changed.notify_all();
    }

    /// Waits, stepping the others, until a thread has ended.
    pub(super) fn wait_for_end(self: &Arc<Self>, thread: ThreadId) {
        let stepped = Stepped { baton: self.clone() };
        if stepped.polls() {
            while !self.state.lock().ended.contains(&thread) {
                stepped.idle("join");
            }
            self.state.lock().ended.retain(|other| *other != thread);
        }
    }
}

/// Hands the baton on when a thread ends, by a panic as well.
struct Running {
    baton: Arc<Baton>,
    me: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.baton.state.lock();
        state.ended.push(thread::current().id());
        state.waiting_at.remove(&self.me);
        state.idle_polls = 0;
        // A panic while waiting for the baton cannot happen, so it is ours to give.
        if state.running == Some(self.me) {
            self.baton.choose(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crossbeam::channel;

    use super::*;
    use crate::spawn::{blocking, receive, send, wait_until, wait_until_or};

    /// Three threads write their names at each step; the order is the trace of a run.
    fn trace(seed: u64) -> Vec<u32> {
        let spawner = Stepped::new(seed);
        let trace = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let (spawner2, trace) = (spawner.clone(), trace.clone());
                let work = move || {
                    for _ in 0..20 {
                        trace.lock().push(number);
                        spawner2.step("work");
                    }
                };
                spawner.spawn("worker", Box::new(work)).unwrap()
            })
            .collect();
        threads.into_iter().for_each(JoinHandle::join);
        Arc::try_unwrap(trace).unwrap().into_inner()
    }

    #[test]
    fn same_seed_gives_the_same_order_and_seeds_differ() {
        let first = trace(1);
        assert_eq!(first.len(), 60);
        assert!((0..20).all(|_| trace(1) == first));
        assert!((2..6).any(|seed| trace(seed) != first));
    }

    #[test]
    fn only_one_thread_runs_between_two_steps() {
        let spawner = Stepped::new(7);
        let inside = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (spawner2, inside) = (spawner.clone(), inside.clone());
                let work = move || {
                    for _ in 0..50 {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        spawner2.step("work");
                    }
                };
                spawner.spawn("worker", Box::new(work)).unwrap()
            })
            .collect();
        threads.into_iter().for_each(JoinHandle::join);
    }

    /// A producer, two workers and a collector over tiny channels, as the pipeline is built.
    fn pipeline(seed: u64) -> Vec<(u32, u32)> {
        let spawner = Stepped::new(seed);
        let (work_in, work_out) = channel::bounded::<u32>(1);
        let (done_in, done_out) = channel::bounded(1);
        for worker in 0..2 {
            let (spawner2, work, done) = (spawner.clone(), work_out.clone(), done_in.clone());
            let run = move || {
                while let Some(n) = receive(&spawner2, "work", &work) {
                    send(&spawner2, "done", &done, (worker, n)).unwrap();
                }
            };
            spawner.spawn("worker", Box::new(run)).unwrap();
        }
        drop((work_out, done_in));
        let spawner2 = spawner.clone();
        let produce = move || (0..30).for_each(|n| send(&spawner2, "produce", &work_in, n).unwrap());
        spawner.spawn("producer", Box::new(produce)).unwrap();
        std::iter::from_fn(|| receive(&spawner, "collect", &done_out)).collect()
    }

    #[test]
    fn channels_between_stepped_threads_neither_lose_nor_reorder_by_chance() {
        for seed in 0..20 {
            let first = pipeline(seed);
            let mut numbers: Vec<_> = first.iter().map(|&(_, n)| n).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..30).collect::<Vec<_>>(), "seed {seed}");
            assert_eq!(pipeline(seed), first, "seed {seed}");
        }
    }

    #[test]
    fn condition_is_polled_until_another_thread_makes_it_true() {
        let spawner = Stepped::new(3);
        let shared = Arc::new((Mutex::new(0), Condvar::new()));
        let (spawner2, shared2) = (spawner.clone(), shared.clone());
        let count = move || {
            for _ in 0..10 {
                *shared2.0.lock() += 1;
                shared2.1.notify_all();
                spawner2.step("count");
            }
        };
        let thread = spawner.spawn("counter", Box::new(count)).unwrap();
        let mut guard = shared.0.lock();
        wait_until(&spawner, "ten", &shared.1, &mut guard, |n| *n == 10);
        let second = std::time::Duration::from_secs(1);
        assert!(!wait_until_or(&spawner, "never", second, &shared.1, &mut guard, |n| *n == 11));
        drop(guard);
        thread.join();
    }

    #[test]
    fn real_wait_inside_blocking_lets_the_others_run() {
        let spawner = Stepped::new(5);
        let (sender, receiver) = std::sync::mpsc::channel();
        let spawner2 = spawner.clone();
        let late = move || {
            spawner2.step("before");
            sender.send(5).unwrap();
        };
        let thread = spawner.spawn("sender", Box::new(late)).unwrap();
        assert_eq!(blocking(&spawner, || receiver.recv()).unwrap(), 5);
        thread.join();
    }

    #[test]
    #[should_panic(expected = "no thread makes progress; they wait at [\"for ever\"]")]
    fn deadlock_is_reported_with_the_waiting_places() {
        let spawner = Stepped::new(1);
        let (_sender, receiver) = channel::bounded::<()>(1);
        receive(&spawner, "for ever", &receiver);
    }

    #[test]
    #[should_panic(expected = "the worker fails")]
    fn panic_of_a_thread_reaches_who_joins_it() {
        let spawner = Stepped::new(1);
        spawner.spawn("worker", Box::new(|| panic!("the worker fails"))).unwrap().join();
    }

    #[test]
    fn threads_that_are_not_registered_pass_through() {
        let spawner = Stepped::new(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                spawner.step("outside");
                blocking(&spawner, || ());
                assert!(!spawner.polls());
            });
        });
    }
}
