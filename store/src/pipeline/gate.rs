//! One value under a lock, with a condition that threads wait for.
//!
//! *Threads*: any. The closure given to [`Gate::with`] and [`Gate::wait`] runs under the lock and does no I/O. A wait tells the
//! [`Spawner`], so that a stepped program goes on, and never holds the lock while it waits for its turn.

use parking_lot::{Condvar, Mutex};

use crate::spawn::Spawner;

/// A value, its lock and its condition.
#[derive(Debug, Default)]
pub(crate) struct Gate<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Condvar::new() }
    }

    /// Runs `f` under the lock.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.value.lock())
    }

    /// Wakes one waiting thread, if there is one.
    pub(crate) fn notify_one(&self) {
        self.changed.notify_one();
    }

    /// Wakes all waiting threads.
    pub(crate) fn notify_all(&self) {
        self.changed.notify_all();
    }

    /// Waits until `f` gives a value; it is tried under the lock at once and after every notification.
    pub(crate) fn wait<R>(&self, spawner: &dyn Spawner, mut f: impl FnMut(&mut T) -> Option<R>) -> R {
        loop {
            let mut value = self.value.lock();
            if let Some(result) = f(&mut value) {
                return result;
            }
            if spawner.polls() {
                drop(value);
                spawner.idle("gate");
                continue;
            }
            spawner.blocking_begin();
            self.changed.wait(&mut value);
            // The lock goes back before the turn is asked for: whoever has the turn may need it.
            drop(value);
            spawner.blocking_end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::spawn::Threads;

    #[test]
    fn a_waiter_sees_the_change_that_it_waits_for() {
        let gate = Arc::new(Gate::new(0));
        let other = gate.clone();
        let thread = std::thread::spawn(move || {
            for _ in 0..10 {
                other.with(|value| *value += 1);
                other.notify_all();
            }
        });
        let seen = gate.wait(&Threads, |value| (*value == 10).then_some(*value));
        assert_eq!(seen, 10);
        assert!(thread.join().is_ok());
    }
}
