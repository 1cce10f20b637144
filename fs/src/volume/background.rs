//! The two threads of a volume: one flushes content, one makes journal commits and checkpoints in time.
//!
//! *Threads*: `flush` runs when dirty content passes the soft limit, when a streamed file has a batch ready, and every
//! second for what is old; `checkpoint` runs when asked, when the volume was quiet, and when it waited long enough. Both end
//! when [`Signals::stop`] was called.
//!
//! *Bounds*: a request is a flag, so requests do not queue. Dirty tree nodes: above `dirty_nodes_max` they start a checkpoint;
//! above twice that, whoever would change names or attributes waits for the end of one ([`Volume::wait_for_nodes`]).

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use vellum_store::spawn::turns::Condvar;

use super::{Volume, health::Work};
use crate::error::Result;

/// Content that has been dirty for this long is flushed.
const DIRTY_AGE: Duration = Duration::from_secs(3);
/// Flushes in a row that may fail while writers wait for memory: the cause may go by.
const FAILURES_BORNE: u32 = 3;
/// How often the threads look at clocks when nobody wakes them.
const TICK: Duration = Duration::from_secs(1);
/// Checkpoints that one change waits for: if they fail, or do not help, it goes on.
const CHECKPOINTS_AWAITED: u32 = 3;
/// Changed inodes above this start a checkpoint.
const CHANGED_INODES_MAX: usize = 50_000;

#[derive(Debug, Default)]
struct Wishes {
    flush: bool,
    checkpoint: bool,
    journal: bool,
    stop: bool,
    /// Checkpoints that this thread has ended, well or not.
    checkpoints: u64,
}

/// How operations wake the background threads.
#[derive(Debug, Default)]
pub struct Signals {
    wishes: Mutex<Wishes>,
    flush_wanted: Condvar,
    checkpoint_wanted: Condvar,
    checkpoint_ended: Condvar,
}

impl Signals {
    /// Asks for content to be flushed.
    pub fn want_flush(&self) {
        let mut wishes = self.wishes.lock();
        if !wishes.flush {
            wishes.flush = true;
            self.flush_wanted.notify_one();
        }
    }

    /// Asks for a checkpoint.
    pub fn want_checkpoint(&self) {
        let mut wishes = self.wishes.lock();
        if !wishes.checkpoint {
            wishes.checkpoint = true;
            self.checkpoint_wanted.notify_one();
        }
    }

    /// Asks for a checkpoint, and waits for the end of one, though it may have begun before.
    fn await_checkpoint(&self) {
        let mut wishes = self.wishes.lock();
        let before = wishes.checkpoints;
        while wishes.checkpoints == before && !wishes.stop {
            wishes.checkpoint = true;
            self.checkpoint_wanted.notify_one();
            self.checkpoint_ended.wait(&mut wishes);
        }
    }

    fn note_checkpoint(&self) {
        self.wishes.lock().checkpoints += 1;
        self.checkpoint_ended.notify_all();
    }

    /// Asks for a journal commit of what is pending.
    pub fn want_journal(&self) {
        let mut wishes = self.wishes.lock();
        if !wishes.journal {
            wishes.journal = true;
            self.checkpoint_wanted.notify_one();
        }
    }

    /// Asks both threads to end.
    pub fn stop(&self) {
        self.wishes.lock().stop = true;
        self.flush_wanted.notify_all();
        self.checkpoint_wanted.notify_all();
        self.checkpoint_ended.notify_all();
    }
}

/// Starts both threads of `volume`. They hold it weakly: a volume that is dropped without `close` ends them.
pub(crate) fn start(volume: &Arc<Volume>) -> Result<()> {
    let spawner = Arc::clone(volume.repository.spawner());
    let mut threads = volume.threads.lock();
    for (name, body) in [("flush", flush_loop as fn(&Signals, &Weak<Volume>)), ("checkpoint", checkpoint_loop)] {
        let (signals, weak) = (Arc::clone(&volume.background), Arc::downgrade(volume));
        let thread = spawner
            .spawn(&format!("vellum-{name}"), Box::new(move || body(&signals, &weak)))
            .map_err(|error| vellum_store::Error::io(format!("start the {name} thread"), error))?;
        threads.push(thread);
    }
    Ok(())
}

fn flush_loop(signals: &Signals, volume: &Weak<Volume>) {
    let mut failures = 0;
    loop {
        let stop = {
            let mut wishes = signals.wishes.lock();
            if !wishes.flush && !wishes.stop {
                signals.flush_wanted.wait_for(&mut wishes, TICK);
            }
            wishes.flush = false;
            wishes.stop
        };
        // Only for as long as there is work: two threads that held it while they wait would keep it alive for each other.
        let Some(volume) = volume.upgrade().filter(|_| !stop) else {
            return;
        };
        volume.space.forget();
        let pressed = volume.budget.is_pressed();
        let older_than = if pressed { Duration::ZERO } else { DIRTY_AGE };
        let flushed = volume.flush_old(older_than, pressed);
        volume.troubles.note(Work::Flush, &flushed);
        volume.budget.set_full(flushed.as_ref().err().filter(|error| error.is_no_space()).cloned());
        if let Err(error) = flushed {
            log::warn!("flush of volume {}: {error}", volume.options.name);
            failures += 1;
            if failures >= FAILURES_BORNE && volume.budget.is_awaited() && !error.is_no_space() {
                // A checkpoint stores what can be stored, or else poisons the volume and lets those who wait go.
                volume.background.want_checkpoint();
            }
        } else {
            failures = 0;
        }
    }
}

fn checkpoint_loop(signals: &Signals, volume: &Weak<Volume>) {
    let mut journal_at = Instant::now();
    let mut dirty_since: Option<Instant> = None;
    loop {
        let (stop, asked, journal) = {
            let mut wishes = signals.wishes.lock();
            if !wishes.checkpoint && !wishes.journal && !wishes.stop {
                signals.checkpoint_wanted.wait_for(&mut wishes, TICK);
            }
            let asked = std::mem::take(&mut wishes.checkpoint);
            (wishes.stop, asked, std::mem::take(&mut wishes.journal))
        };
        let Some(volume) = volume.upgrade().filter(|_| !stop) else {
            return;
        };
        if journal || journal_at.elapsed() >= volume.options.journal_interval {
            journal_at = Instant::now();
            volume.journal_in_time();
        }
        if !volume.has_changes() {
            dirty_since = None;
            if !volume.has_piled_up() {
                // Another thread's checkpoint did what was asked for.
                signals.note_checkpoint();
                continue;
            }
            // Nothing but access times; still, memory must not grow with them.
            volume.meta.write().next_sequence();
        }
        let since = *dirty_since.get_or_insert_with(Instant::now);
        if asked || volume.checkpoint_due(since) {
            dirty_since = None;
            if let Err(error) = volume.checkpoint() {
                log::error!("checkpoint of volume {}: {error}", volume.options.name);
            }
            signals.note_checkpoint();
        }
    }
}

impl Volume {
    fn journal_in_time(&self) {
        let (pending, through) = {
            let meta = self.meta.read();
            (!meta.pending.is_empty(), meta.op_sequence)
        };
        let journaled = if pending { self.sync_journal(through) } else { Ok(()) };
        self.troubles.note(Work::Journal, &journaled);
        if let Err(error) = journaled {
            log::error!("journal of volume {}: {error}", self.options.name);
        }
    }

    /// Bytes of changed tree nodes that no checkpoint has stored.
    pub fn dirty_node_bytes(&self) -> usize {
        self.meta.read().tree.dirty_bytes()
    }

    /// Whether a change of names or attributes would wait until a checkpoint has stored changed nodes.
    pub fn change_would_wait(&self) -> bool {
        self.dirty_node_bytes() > 2 * self.options.dirty_nodes_max
    }

    /// Waits while changes are too far ahead of the checkpoints. In a huge directory each new name changes another node, and
    /// names come faster than nodes are stored. The caller holds no lock.
    pub(crate) fn wait_for_nodes(&self) {
        for _ in 0..CHECKPOINTS_AWAITED {
            if !self.change_would_wait() || self.check_writable().is_err() {
                return;
            }
            self.background.await_checkpoint();
        }
    }

    fn checkpoint_due(&self, since: Instant) -> bool {
        let quiet_ns = self.options.checkpoint_quiet.as_nanos() as i64;
        let quiet = self.now().as_nanos() - self.last_change_ns.load(Ordering::Relaxed) >= quiet_ns;
        quiet || since.elapsed() >= self.options.checkpoint_max_wait || self.has_piled_up()
    }

    /// Whether more is in memory than should wait for the clock.
    pub(crate) fn has_piled_up(&self) -> bool {
        let meta = self.meta.read();
        meta.tree.dirty_bytes() > self.options.dirty_nodes_max || meta.changed.len() > CHANGED_INODES_MAX
    }
}
