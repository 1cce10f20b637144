//! The bytes of plaintext that may be inside the pipeline at once.
//!
//! *Bounds*: `bytes_max`; a single request above it is let through when nothing else is inside, so that no size can wait for ever.

use super::gate::Gate;
use crate::spawn::Spawner;

/// The byte budget of one pipeline.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    state: Gate<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    waiting: usize,
    peak: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Gate::new(State::default()) }
    }

    /// Takes `bytes` if they fit.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        self.state.with(|state| state.take(bytes, self.bytes_max))
    }

    /// Waits until `bytes` fit and takes them.
    pub(crate) fn take(&self, spawner: &dyn Spawner, bytes: usize) {
        let mut counted = false;
        self.state.wait(spawner, |state| {
            if state.take(bytes, self.bytes_max) {
                state.waiting -= usize::from(counted);
                return Some(());
            }
            state.waiting += usize::from(!counted);
            counted = true;
            None
        });
    }

    /// Gives `bytes` back.
    pub(crate) fn give(&self, bytes: usize) {
        let wake = self.state.with(|state| {
            debug_assert!(state.used >= bytes, "more bytes leave the pipeline than entered it");
            state.used = state.used.saturating_sub(bytes);
            // Waiters are woken with a quarter free and not for every chunk: each wake-up of another core is dear.
            state.waiting > 0 && (state.used <= self.bytes_max / 4 * 3 || state.used == 0)
        });
        if wake {
            self.state.notify_all();
        }
    }

    /// How full the budget is; what compression effort follows.
    pub(crate) fn percent(&self) -> u32 {
        self.state.with(|state| (state.used.saturating_mul(100) / self.bytes_max.max(1)).min(100) as u32)
    }

    /// Most bytes that were ever inside.
    pub(crate) fn peak(&self) -> usize {
        self.state.with(|state| state.peak)
    }
}

impl State {
    fn take(&mut self, bytes: usize, bytes_max: usize) -> bool {
        if self.used != 0 && self.used.saturating_add(bytes) > bytes_max {
            return false;
        }
        self.used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(self.used);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::spawn::Threads;

    #[test]
    fn the_budget_holds_and_a_waiter_gets_in_when_bytes_leave() {
        let budget = Arc::new(Budget::new(100));
        assert!(budget.try_take(60) && budget.try_take(40) && !budget.try_take(1));
        let other = budget.clone();
        let thread = std::thread::spawn(move || other.take(&Threads, 50));
        budget.give(60);
        budget.give(40);
        assert!(thread.join().is_ok());
        assert!(budget.peak() <= 100);
    }

    #[test]
    fn one_request_above_the_budget_is_let_through_alone() {
        let budget = Budget::new(10);
        assert!(budget.try_take(50));
        assert!(!budget.try_take(1));
        budget.give(50);
        assert!(budget.try_take(1));
    }
}
