//! Primitives of loom with the methods that those of `parking_lot` have.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

pub use loom::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};

const UNPOISONED: &str = "a panic ends the model, so nobody sees a poisoned lock";

/// A lock.
pub struct Mutex<T>(loom::sync::Mutex<T>);

/// A lock that is held.
pub struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    /// A lock around a value.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().expect(UNPOISONED)))
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("only a wait takes it, and puts it back")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().expect("only a wait takes it, and puts it back")
    }
}

/// Where threads wait for a change.
#[derive(Debug)]
pub struct Condvar(loom::sync::Condvar);

impl Condvar {
    /// Nobody waits.
    pub fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    /// Lets the lock go, waits, and takes it again.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.0 = guard.0.take().map(|held| self.0.wait(held).expect(UNPOISONED));
    }

    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}
