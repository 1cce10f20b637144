//! How a volume is: what only memory holds, the newest checkpoint, and what failed since.
//!
//! For people and for monitoring; nothing here decides anything.
//!
//! *Threads*: any. The trouble is a leaf lock, taken when something failed or succeeded, and when somebody asks.

use parking_lot::Mutex;

use super::Volume;
use crate::{error::Error, time::Time};

/// What a volume tells about itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What it can do.
    pub state: HealthState,
    /// The first failure of the background work since it last succeeded, or what poisoned the volume.
    pub trouble: Option<String>,
    /// Bytes of content that only memory holds, or memory and the journal.
    pub dirty_bytes: u64,
    /// Changes since the newest checkpoint.
    pub changes: u64,
    /// Sequence of the newest durable head; 0 before the first.
    pub head: u64,
    /// When that head was made.
    pub head_time: Option<Time>,
}

/// What a volume can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Everything.
    Good,
    /// Everything, but background work failed and is tried again: a full disk.
    Troubled,
    /// It was opened for reading alone.
    ReadOnly,
    /// Something durable failed: it accepts no more writes until it is mounted again.
    Poisoned,
}

impl HealthState {
    /// The word that scripts compare.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Troubled => "troubled",
            Self::ReadOnly => "read-only",
            Self::Poisoned => "poisoned",
        }
    }
}

impl std::fmt::Display for Health {
    /// `state=good dirty=0 changes=0 head=7 time=1795312800`, and `trouble=...` at the end, which may contain spaces.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { state, dirty_bytes, changes, head, .. } = self;
        write!(f, "state={} dirty={dirty_bytes} changes={changes} head={head}", state.word())?;
        if let Some(time) = self.head_time {
            write!(f, " time={}", time.sec)?;
        }
        self.trouble.as_ref().map_or(Ok(()), |trouble| write!(f, " trouble={trouble}"))
    }
}

/// Kinds of background work, each of which fails and recovers by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Flush,
    Journal,
    Checkpoint,
}

/// The failures of the background work that nothing has made good yet.
#[derive(Debug, Default)]
pub(crate) struct Troubles([Mutex<Option<String>>; 3]);

impl Troubles {
    /// Notes how a piece of work ended. The first failure stays until the same work succeeds.
    pub(crate) fn note<T>(&self, work: Work, outcome: &Result<T, Error>) {
        let mut trouble = self.0[work as usize].lock();
        match outcome {
            Ok(_) => *trouble = None,
            Err(error) => {
                trouble.get_or_insert_with(|| error.to_string());
            }
        }
    }

    fn first(&self) -> Option<String> {
        self.0.iter().find_map(|trouble| trouble.lock().clone())
    }
}

impl Volume {
    /// How the volume is at this moment.
    pub fn health(&self) -> Health {
        let (changes, dirty_bytes) = {
            let meta = self.meta.read();
            (meta.op_sequence.saturating_sub(meta.durable_sequence), self.dirty_bytes())
        };
        let newest = self.handle.head();
        let poisoned = self.poisoned().map(|why| why.to_string());
        let trouble = self.troubles.first();
        let state = match (&poisoned, &trouble) {
            (Some(_), _) => HealthState::Poisoned,
            _ if self.options.read_only => HealthState::ReadOnly,
            (None, Some(_)) => HealthState::Troubled,
            (None, None) => HealthState::Good,
        };
        Health {
            state,
            trouble: poisoned.or(trouble),
            dirty_bytes,
            changes,
            head: newest.as_ref().map_or(0, |head| head.sequence),
            head_time: newest.map(|head| Time::from_nanos(head.time_ns)),
        }
    }
}
