//! Locks and conditions of which a simulation decides who comes next.
//!
//! A thread that waits for a lock in the operating system holds up a stepped program if the holder waits for its turn. These look first
//! whether the calling thread is stepped: if so they try, and let others go on between two attempts. Otherwise they are those of `parking_lot`.
//!
//! *Invariants*
//! 1. A lock that may be held across a [`super::Spawner::step`], or while another of these is taken, is one of these. Leaves may be any.
//!
//! *Threads*: any. Outside of a simulation each call costs one load more.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

use super::{Spawner, Stepped};

/// Whether there was ever a simulation in this process.
static SIMULATING: AtomicBool = AtomicBool::new(false);

pub(super) fn note_simulation() {
    SIMULATING.store(true, Ordering::Relaxed);
}

/// The simulation that steps the calling thread.
#[inline]
pub(crate) fn simulation() -> Option<Stepped> {
    if SIMULATING.load(Ordering::Relaxed) { Stepped::of_this_thread() } else { None }
}

/// Lets others go on if the calling thread is stepped and waits for something that it has to look at again; whether it is.
pub fn waits_its_turn(label: &'static str) -> bool {
    simulation().map(|stepped| stepped.idle(label)).is_some()
}

/// Fills in bytes that follow from the seed, if the calling thread is stepped; whether it is.
#[cfg(any(test, feature = "simulation"))]
pub(crate) fn simulated_random(bytes: &mut [u8]) -> bool {
    simulation().map(|stepped| stepped.fill(bytes)).is_some()
}

/// No thread's random bytes follow from anything.
#[cfg(not(any(test, feature = "simulation")))]
pub(crate) fn simulated_random(_: &mut [u8]) -> bool {
    false
}

/// Whether the calling thread is stepped.
#[inline]
pub fn is_simulated() -> bool {
    simulation().is_some()
}

fn take<R>(label: &'static str, attempt: impl Fn() -> Option<R>, take: impl FnOnce() -> R) -> R {
    let Some(stepped) = simulation() else { return take() };
    stepped.step(label);
    loop {
        if let Some(taken) = attempt() {
            return taken;
        }
        stepped.idle(label);
    }
}

/// A lock that one holds.
#[derive(Debug, Default)]
pub struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around a value.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        take("mutex", || self.0.try_lock(), || self.0.lock())
    }

    /// The lock, if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }

    /// As [`Self::lock`], where nobody else can have it: no place for others to go on.
    pub fn lock_alone(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    /// The value, by its only owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

/// A lock that many readers share, or one writer holds.
#[derive(Debug, Default)]
pub struct RwLock<T>(parking_lot::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock around a value.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::RwLock::new(value))
    }

    /// Waits until nobody writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        take("reading", || self.0.try_read(), || self.0.read())
    }

    /// The lock for writing, if nobody holds it.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.0.try_write()
    }

    /// Waits until nobody reads or writes.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        take("writing", || self.0.try_write(), || self.0.write())
    }

    /// The value, by its only owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

/// What threads wait for while they hold a lock that is a leaf.
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

impl Condvar {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self(parking_lot::Condvar::new())
    }

    /// Lets the lock go, waits, and takes it again; the caller looks then whether it waited for this.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        match is_simulated() {
            true => MutexGuard::unlocked(guard, || _ = waits_its_turn("condition")),
            // Never let go before: what is notified in between would be missed.
            false => self.0.wait(guard),
        }
    }

    /// As [`Self::wait`], for so long at the most. A simulation has no clock: others go on once.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, patience: Duration) {
        match is_simulated() {
            true => MutexGuard::unlocked(guard, || _ = waits_its_turn("condition")),
            false => _ = self.0.wait_for(guard, patience),
        }
    }

    /// Wakes one that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        sync::{Arc, mpsc},
        thread,
    };

    use super::*;
    use crate::spawn::Seed;

    /// Two threads that hand a number to and fro; each waits for its turn without a limit.
    fn hand_to_and_fro(rounds: u64) {
        let shared = Arc::new((Mutex::new(0_u64), Condvar::new()));
        let (ended, end) = mpsc::channel();
        for parity in [0, 1] {
            let (shared, ended) = (Arc::clone(&shared), ended.clone());
            thread::spawn(move || {
                let (number, changed) = &*shared;
                let mut number = number.lock();
                while *number < rounds {
                    if *number % 2 == parity {
                        *number += 1;
                        changed.notify_one();
                    } else {
                        changed.wait(&mut number);
                    }
                }
                changed.notify_one();
                ended.send(()).unwrap();
            });
        }
        for _ in 0..2 {
            end.recv_timeout(Duration::from_secs(120)).expect("no wake-up is lost");
        }
    }

    #[test]
    fn a_wait_misses_no_notification() {
        hand_to_and_fro(50_000);
    }

    /// What threads do under a lock that they hold while others go on, in the order of a seed.
    fn order(seed: u64) -> Vec<u64> {
        let stepped = Stepped::new(seed);
        let shared = Arc::new((Mutex::new(Vec::new()), RwLock::new(0_u64)));
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let (shared, spawner) = (Arc::clone(&shared), stepped.clone());
                let mut pauses = Seed::new(number);
                let work = move || {
                    for _ in 0..20 {
                        let mut order = shared.0.lock();
                        order.push(number);
                        spawner.step("held");
                        *shared.1.write() += 1;
                        drop(order);
                        for _ in 0..pauses.below(3) {
                            let _read = shared.1.read();
                            spawner.step("read");
                        }
                    }
                };
                stepped.spawn("worker", Box::new(work)).unwrap()
            })
            .collect();
        threads.into_iter().for_each(super::super::JoinHandle::join);
        assert_eq!(*shared.1.read(), 60);
        shared.0.lock().clone()
    }

    #[test]
    fn locks_that_are_held_while_others_go_on_follow_the_seed() {
        let first = order(1);
        assert!((0..10).all(|_| order(1) == first));
        assert!((2..6).any(|seed| order(seed) != first));
    }

    #[test]
    fn random_bytes_follow_the_seed_of_who_is_stepped_and_of_nobody_else() {
        let draw = |seed| {
            let _stepped = Stepped::new(seed);
            let mut bytes = [0; 20];
            assert!(simulated_random(&mut bytes));
            bytes
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(!is_simulated() && !simulated_random(&mut [0; 4]));
        let _stepped = Stepped::new(1);
        assert!(is_simulated() && !thread::spawn(is_simulated).join().unwrap());
    }
}
