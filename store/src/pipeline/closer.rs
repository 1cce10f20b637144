//! The thread that turns full packs into stored ones, so that filling goes on meanwhile.
//!
//! *Ordering*: trailer written -> fdatasync -> rename -> directory fsync (all in `publish`) -> index (F1) -> in-flight table.
//!
//! *Invariants*
//! 1. The index learns of a pack only after the pack is durable (F1).
//! 2. A file that failed once is not synced again: its blobs are read back, verified by unsealing, and written to a new file. A
//!    second failure poisons the pipeline; the blobs stay readable where they are, as long as the process lives.
//! 3. A pack that cannot be completed for want of space stays readable, and closing it is tried again by the next commit (P6).
//!
//! *Threads*: one, named `pack-closer`, and committers that try again. Submitters wait while [`CLOSING_MAX`] packs queue.
//!
//! *Bounds*: [`CLOSING_MAX`] packs queue and one is worked on; those that wait for space are bounded by the space there is.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Shared,
    gate::Gate,
    inflight::Place,
    open_pack::OpenPack,
    stream::{Filling, Sealed},
};
use crate::{
    backend::ObjectName,
    error::{Error, Result},
    pack::{FinishedPack, PackEntry},
};

const CLOSING_MAX: usize = 3;
/// Room reserved for a pack that is written again.
const RESCUE_ROOM: u64 = 1 << 20;

#[derive(Debug)]
struct Closing {
    filling: Filling,
    /// The file refused a write: it is not to be published.
    broken: bool,
}

/// A pack on its way to the storage.
#[derive(Debug)]
struct Finished {
    pack: Arc<OpenPack>,
    whole: FinishedPack,
}

/// A pack that could not be stored, kept if it only lacks space.
struct Unstored {
    stalled: Option<Finished>,
    error: Error,
}

impl Unstored {
    fn for_good(error: Error) -> Box<Self> {
        Box::new(Self { stalled: None, error })
    }
}

/// The queue of packs to close.
#[derive(Debug, Default)]
pub(crate) struct Closer {
    state: Gate<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Closing>,
    /// Packs in the queue, worked on, or waiting for space; for `fsync`.
    unstored: Vec<Arc<OpenPack>>,
    /// Packs that wait for space.
    stalled: Vec<Finished>,
    submitted: u64,
    finished: u64,
    closed: bool,
}

impl Closer {
    /// Queues a pack; waits while too many queue.
    pub(crate) fn submit(&self, shared: &Shared, filling: Filling, broken: bool) {
        let mut closing = Some(Closing { filling, broken });
        self.state.wait(&*shared.spawner, |state| {
            if state.queue.len() >= CLOSING_MAX {
                return None;
            }
            let closing = closing.take()?;
            state.unstored.push(closing.filling.pack.clone());
            state.queue.push_back(closing);
            state.submitted += 1;
            Some(())
        });
        self.state.notify_all();
    }

    /// Waits until all packs submitted before are stored or have failed.
    pub(crate) fn drain(&self, shared: &Shared) -> Result<()> {
        let end = self.state.with(|state| state.submitted);
        self.state.wait(&*shared.spawner, |state| (state.finished >= end).then_some(()));
        self.retry_stalled(shared)
    }

    /// The packs that are not stored yet.
    pub(crate) fn unstored(&self) -> Vec<Arc<OpenPack>> {
        self.state.with(|state| state.unstored.clone())
    }

    /// Lets the thread end once the queue is empty.
    pub(crate) fn close(&self) {
        self.state.with(|state| state.closed = true);
        self.state.notify_all();
    }

    /// The thread's life.
    pub(crate) fn run(&self, shared: &Shared) {
        loop {
            let next = self.state.wait(&*shared.spawner, |state| match state.queue.pop_front() {
                Some(closing) => Some(Some(closing)),
                None if state.closed => Some(None),
                None => None,
            });
            let Some(closing) = next else { return };
            self.state.notify_all();
            shared.spawner.step("close pack");
            let stalled = shared.close_pack(closing);
            self.state.with(|state| {
                state.stalled.extend(stalled);
                state.finished += 1;
            });
            self.state.notify_all();
        }
    }

    fn retry_stalled(&self, shared: &Shared) -> Result<()> {
        let mut result = Ok(());
        for finished in self.state.with(|state| std::mem::take(&mut state.stalled)) {
            if let Err(unstored) = shared.store_or_rescue(finished) {
                let Unstored { stalled, error } = *unstored;
                self.state.with(|state| state.stalled.extend(stalled));
                result = Err(error);
            }
        }
        result
    }

    fn forget(&self, pack: &Arc<OpenPack>) {
        self.state.with(|state| state.unstored.retain(|other| !Arc::ptr_eq(other, pack)));
    }
}

impl Shared {
    /// Stores one pack; gives it back if there is no space for it.
    fn close_pack(&self, closing: Closing) -> Option<Finished> {
        let Closing { filling: Filling { builder, pack }, broken } = closing;
        if builder.is_empty() {
            pack.object().discard();
            self.closer.forget(&pack);
            return None;
        }
        let finished = Finished { pack, whole: builder.finish() };
        let closed = match broken {
            true => self.rescue_or_give_up(finished),
            false => self.store_or_rescue(finished),
        };
        // An error has poisoned the pipeline, or is found again by the next commit.
        closed.err().and_then(|unstored| unstored.stalled)
    }

    fn store_or_rescue(&self, finished: Finished) -> Result<(), Box<Unstored>> {
        match self.store(&finished) {
            Ok(()) => {
                self.stored(&finished.whole, &finished.pack);
                Ok(())
            }
            Err(error @ Error::NoSpace { .. }) => Err(Box::new(Unstored { stalled: Some(finished), error })),
            Err(error) => {
                let name = finished.pack.name();
                log::warn!("pack {name:?} could not be stored, its content moves to another file: {error}");
                self.rescue_or_give_up(finished)
            }
        }
    }

    /// Completes, syncs and publishes a pack.
    fn store(&self, finished: &Finished) -> Result<()> {
        let Finished { pack, whole } = finished;
        // It is complete already if an earlier attempt found no space for the name.
        if pack.object().len() < whole.length {
            pack.append(&whole.suffix)?;
        }
        self.spawner.step("publish pack");
        pack.object().publish(&ObjectName::pack(&whole.id)).map(drop)
    }

    fn stored(&self, whole: &FinishedPack, pack: &Arc<OpenPack>) {
        // F1: only here, after `publish` made the pack durable, may an index segment come to list its blobs.
        self.index.insert_pack(whole.id, &whole.entries);
        {
            let mut stored = self.counters.stored.lock();
            stored.packs += 1;
            stored.pack_bytes += whole.length;
            let sealed_bytes = whole.entries.iter().map(|entry| u64::from(entry.length)).sum();
            stored.count_blobs(whole.kind, whole.entries.len() as u64, sealed_bytes);
        }
        for entry in &whole.entries {
            self.suspects.heal(&entry.id);
            self.inflight.leave(&entry.id, pack);
        }
        self.closer.forget(pack);
        if let Err(error) = self.bound_index_table() {
            // The entries stay in memory; the next commit writes them or fails.
            log::warn!("index entries could not be written: {error}");
        }
    }

    /// Copies a pack that failed into another one, later if there is no space for that, or else gives up: the pipeline takes
    /// nothing more, so that nobody comes to rely on these blobs, but who has them can read them.
    fn rescue_or_give_up(&self, finished: Finished) -> Result<(), Box<Unstored>> {
        match self.rescue(&finished) {
            Ok(()) => Ok(()),
            Err(error @ Error::NoSpace { .. }) => Err(Box::new(Unstored { stalled: Some(finished), error })),
            Err(error) => {
                self.closer.forget(&finished.pack);
                self.poison(error.clone());
                Err(Unstored::for_good(error))
            }
        }
    }

    /// Copies the blobs of a pack that failed into a new one and stores that.
    ///
    /// What is read back after a failed sync may be anything, so each blob must unseal before it is believed.
    fn rescue(&self, finished: &Finished) -> Result<()> {
        let from = &finished.pack;
        let mut filling = Filling::create(self, finished.whole.kind, RESCUE_ROOM)?;
        let to = filling.pack.clone();
        let copied = self.copy_blobs(from, &finished.whole.entries, &mut filling);
        let stored = copied.and_then(|()| {
            let rescued = Finished { pack: to.clone(), whole: filling.builder.finish() };
            self.store(&rescued).map(|()| rescued.whole)
        });
        let whole = stored.inspect_err(|_| to.object().discard())?;
        for entry in &whole.entries {
            self.inflight.moved(from, Place { pack: to.clone(), entry: *entry });
        }
        self.stored(&whole, &to);
        self.closer.forget(from);
        from.object().discard();
        Ok(())
    }

    fn copy_blobs(&self, from: &OpenPack, entries: &[PackEntry], to: &mut Filling) -> Result<()> {
        for entry in entries {
            let bytes = from.object().read_at(u64::from(entry.offset), entry.length)?;
            self.sealer.unseal(entry.kind, entry.epoch, &entry.id, &bytes, entry.plain_length)?;
            to.append(&Sealed { id: entry.id, plain_length: entry.plain_length, epoch: entry.epoch, bytes })?;
        }
        Ok(())
    }
}
