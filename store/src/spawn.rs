//! Where threads come from: real ones, or ones that a seed steps through.
//!
//! *Invariants*
//! 1. The store starts no thread but through a [`Spawner`], so that a whole program runs unmodified in simulation.
//! 2. Under [`Stepped`], at most one registered thread runs between two of its calls into the spawner.
//!
//! *Threads*: everything here may be called from any thread. A thread that waits for another one (a channel, a condition, a join) does so
//! inside [`blocking`] or through [`wait_until`]; otherwise a stepped program stands still. No caller holds a lock across
//! [`Spawner::step`] that another thread needs in order to reach its own next step.
//!
//! *Bounds*: [`Stepped`] gives up with a panic that names the waiting places after [`IDLE_POLLS_MAX`] polls without progress.

use std::{
    fmt, io,
    panic::resume_unwind,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, TryRecvError, TrySendError};
use parking_lot::{Condvar, MutexGuard};

mod stepped;
pub mod turns;

pub use stepped::{IDLE_POLLS_MAX, Stepped};

/// Source of the choices of a simulation: the SplitMix64 generator, of which the same seed always gives the same numbers.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True or false.
    pub fn coin(&mut self) -> bool {
        self.number() >> 63 == 1
    }
}

/// Starts threads, and is told where they could be interrupted or have to wait.
pub trait Spawner: Send + Sync + fmt::Debug {
    /// Starts a named thread.
    fn spawn(&self, name: &str, f: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle>;

    /// The calling thread is about to wait for another one; see [`blocking`].
    fn blocking_begin(&self);

    /// The calling thread has stopped waiting.
    fn blocking_end(&self);

    /// A place where another thread could run first. `label` names the place in a trace.
    fn step(&self, label: &'static str);

    /// Whether waits must be polled between steps so that the order of wake-ups follows the seed; see [`wait_until`].
    fn polls(&self) -> bool {
        false
    }

    /// A poll of a condition that does not hold yet; like [`Self::step`], but it counts as no progress.
    fn idle(&self, label: &'static str) {
        self.step(label);
    }
}

/// One started thread.
#[derive(Debug)]
pub struct JoinHandle {
    thread: thread::JoinHandle<()>,
    baton: Option<Arc<stepped::Baton>>,
}

impl JoinHandle {
    /// Waits for the thread's end; a panic of the thread goes on in the caller.
    pub fn join(self) {
        let baton = self.baton.clone();
        if let Some(baton) = &baton {
            baton.wait_for_end(self.thread.thread().id());
        }
        if let Err(panic) = self.thread.join() {
            resume_unwind(panic);
        }
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Real threads; steps and waits are left to the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Spawner for Threads {
    fn spawn(&self, name: &str, f: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle> {
        let thread = thread::Builder::new().name(name.to_string()).spawn(f)?;
        Ok(JoinHandle { thread, baton: None })
    }

    fn blocking_begin(&self) {}

    fn blocking_end(&self) {}

    fn step(&self, _label: &'static str) {}
}

/// Runs `f`, which waits for another thread, as a wait that the spawner knows of.
pub fn blocking<R>(spawner: &dyn Spawner, f: impl FnOnce() -> R) -> R {
    struct Waiting<'s>(&'s dyn Spawner);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.blocking_end();
        }
    }
    spawner.blocking_begin();
    let _waiting = Waiting(spawner);
    f()
}

/// Waits on a condition variable until `ready` holds. In a simulation the condition is polled instead, between steps of the other threads, so that
/// who wakes first follows from the seed.
pub fn wait_until<T>(
    spawner: &dyn Spawner,
    label: &'static str,
    changed: &Condvar,
    guard: &mut MutexGuard<'_, T>,
    mut ready: impl FnMut(&mut T) -> bool,
) {
    while !ready(guard) {
        if spawner.polls() {
            MutexGuard::unlocked(guard, || spawner.idle(label));
        } else {
            changed.wait(guard);
        }
    }
}

/// Like [`wait_until`], but gives up after `timeout`; says whether the condition holds. A simulation has no clock: there the time is up as soon
/// as the condition does not hold after the other threads had a turn.
pub fn wait_until_or<T>(
    spawner: &dyn Spawner,
    label: &'static str,
    timeout: Duration,
    changed: &Condvar,
    guard: &mut MutexGuard<'_, T>,
    mut ready: impl FnMut(&mut T) -> bool,
) -> bool {
    if spawner.polls() {
        if !ready(guard) {
            MutexGuard::unlocked(guard, || spawner.idle(label));
        }
        return ready(guard);
    }
    let deadline = Instant::now() + timeout;
    while !ready(guard) {
        if changed.wait_until(guard, deadline).timed_out() {
            return ready(guard);
        }
    }
    true
}

/// Receives from a channel; `None` when all senders are gone and nothing is left.
pub fn receive<T>(spawner: &dyn Spawner, label: &'static str, channel: &Receiver<T>) -> Option<T> {
    if !spawner.polls() {
        return channel.recv().ok();
    }
    loop {
        match channel.try_recv() {
            Ok(value) => {
                spawner.step(label);
                return Some(value);
            }
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => spawner.idle(label),
        }
    }
}

/// Sends into a channel that has room for at least one value, waiting while it is full; gives the value back when all receivers are gone.
pub fn send<T>(spawner: &dyn Spawner, label: &'static str, channel: &Sender<T>, value: T) -> Result<(), T> {
    if !spawner.polls() {
        return channel.send(value).map_err(|e| e.0);
    }
    let mut value = value;
    loop {
        match channel.try_send(value) {
            Ok(()) => {
                spawner.step(label);
                return Ok(());
            }
            Err(TrySendError::Disconnected(back)) => return Err(back),
            Err(TrySendError::Full(back)) => value = back,
        }
        spawner.idle(label);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use crossbeam::channel;
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn real_threads_carry_their_name_and_end_when_joined() {
        let (sender, receiver) = channel::bounded(1);
        let work = move || sender.send(thread::current().name().map(str::to_string)).unwrap();
        Threads.spawn("packer", Box::new(work)).unwrap().join();
        assert_eq!(receive(&Threads, "name", &receiver).unwrap().as_deref(), Some("packer"));
        assert_eq!(receive(&Threads, "end", &receiver), None);
    }

    #[test]
    fn value_comes_back_when_nobody_is_left_to_receive_it() {
        for spawner in [&Threads as &dyn Spawner, &Stepped::new(1)] {
            let (sender, receiver) = channel::bounded(1);
            drop(receiver);
            assert_eq!(send(spawner, "send", &sender, 5), Err(5));
        }
    }

    #[test]
    fn real_waits_end_with_the_condition_or_the_time() {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let shared2 = shared.clone();
        let set = move || {
            *shared2.0.lock() = true;
            shared2.1.notify_all();
        };
        let mut guard = shared.0.lock();
        let thread = Threads.spawn("set", Box::new(set)).unwrap();
        wait_until(&Threads, "set", &shared.1, &mut guard, |set| *set);
        assert!(!wait_until_or(&Threads, "never", Duration::from_millis(1), &shared.1, &mut guard, |set| !*set));
        assert!(wait_until_or(&Threads, "already", Duration::ZERO, &shared.1, &mut guard, |set| *set));
        drop(guard);
        thread.join();
    }

    #[test]
    fn wait_that_panics_is_over_for_the_spawner_too() {
        let spawner = Stepped::new(1);
        let caught =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| blocking(&spawner, || panic!("in the wait"))));
        assert!(caught.is_err());
        spawner.step("goes on");
    }

    #[test]
    fn seed_always_gives_the_same_numbers_within_bounds() {
        // First outputs of SplitMix64 from zero, as its authors publish them.
        let mut seed = Seed::new(0);
        assert_eq!((seed.number(), seed.number()), (0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4));
        assert!((0..100).all(|_| seed.below(3) < 3));
        assert!((0..100).any(|_| seed.coin()) && (0..100).any(|_| !seed.coin()));
    }
}
