//! Who still reads a state of the records: what a clone of a tree names must stay in the store for as long as the clone lives.
//!
//! Clones share a lease. [`super::Tree::renew_lease`] gives a tree another one, and tells when all clones that were made before it
//! have gone.
//!
//! *Threads*: any; a lock is taken when the last clone of a lease goes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use vellum_store::spawn::turns::{is_simulated, waits_its_turn};

/// Turns that others get in a simulation before patience ends.
const SIMULATED_TURNS: u32 = 20_000;

#[derive(Debug, Default)]
struct Ended {
    has_ended: Mutex<bool>,
    changed: Condvar,
}

/// What the clones of a tree share.
#[derive(Debug, Default)]
pub(super) struct Lease(Arc<Ended>);

impl Drop for Lease {
    fn drop(&mut self) {
        *self.0.has_ended.lock() = true;
        self.0.changed.notify_all();
    }
}

/// The clones that were made before a lease was renewed.
#[derive(Debug)]
pub struct Readers(Arc<Ended>);

impl Readers {
    pub(super) fn of(lease: &Lease) -> Self {
        Self(Arc::clone(&lease.0))
    }

    /// Waits until all of them have gone; `false` if one is still there after `patience`.
    pub fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        // A simulation has no clock.
        for _ in 0..SIMULATED_TURNS {
            let has_ended = *self.0.has_ended.lock();
            if has_ended || !waits_its_turn("readers of an older state") {
                break;
            }
        }
        let mut has_ended = self.0.has_ended.lock();
        while !*has_ended && !is_simulated() {
            if self.0.changed.wait_until(&mut has_ended, deadline).timed_out() {
                return *has_ended;
            }
        }
        *has_ended
    }
}
