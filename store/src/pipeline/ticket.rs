//! What a submitter holds until its blob is in a pack.
//!
//! *Threads*: [`Ticket::wait`] runs queued work while its own is not done, so that a lone submitter pays no wake-up of
//! another core, which costs a hundred times the work on a virtual machine.

use std::sync::Arc;

use super::{Shared, gate::Gate};
use crate::{error::Result, id::BlobId, spawn::Spawner};

/// The answer for one blob, shared by all who submitted the same.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    result: Gate<Option<Result<BlobId>>>,
}

impl Answer {
    /// Gives the answer; the first one stays.
    pub(crate) fn resolve(&self, result: Result<BlobId>) {
        self.result.with(|slot| {
            slot.get_or_insert(result);
        });
        self.result.notify_all();
    }

    pub(crate) fn get(&self) -> Option<Result<BlobId>> {
        self.result.with(|slot| slot.clone())
    }

    pub(crate) fn wait(&self, spawner: &dyn Spawner) -> Result<BlobId> {
        self.result.wait(spawner, |slot| slot.clone())
    }
}

/// One submitted blob: answers once the blob is readable from an open or stored pack, or was found in one.
///
/// A dropped ticket changes nothing; a failure that no ticket told is told by the next flush of the pipeline.
#[derive(Debug)]
pub struct Ticket(State);

#[derive(Debug)]
enum State {
    Done(BlobId),
    Waiting(Arc<Shared>, Arc<Answer>),
}

impl Ticket {
    pub(crate) fn done(id: BlobId) -> Self {
        Self(State::Done(id))
    }

    pub(crate) fn waiting(shared: Arc<Shared>, answer: Arc<Answer>) -> Self {
        Self(State::Waiting(shared, answer))
    }

    /// Waits for the answer: the blob's id, or why it could not be stored.
    pub fn wait(self) -> Result<BlobId> {
        match self.0 {
            State::Done(id) => Ok(id),
            State::Waiting(shared, answer) => shared.help_until(&answer),
        }
    }

    /// Whether [`Self::wait`] would answer at once.
    pub fn is_done(&self) -> bool {
        match &self.0 {
            State::Done(_) => true,
            State::Waiting(_, answer) => answer.get().is_some(),
        }
    }
}
