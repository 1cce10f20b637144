//! What a worker or helper does with one job: hash, claim, probe, compress and seal, append.
//!
//! *Ordering*: a blob is hashed before it is compressed, and looked for before it is sealed, so that what is known costs neither.
//!
//! *Threads*: any; a job runs on one thread. No lock is held while hashing, probing, sealing or appending.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Shared,
    inflight::{Claim, Follower, Settled},
    queue::{Job, Work},
    stream::{Sealed, StreamKind},
    ticket::Answer,
};
use crate::{
    compress::{Effort, Scratch},
    error::{Error, Result},
    id::{BlobId, BlobKind},
};

/// Scratches that are kept for helpers.
const SCRATCHES_MAX: usize = 8;

impl Shared {
    /// The life of a worker.
    pub(crate) fn work(&self) {
        let mut scratch = Scratch::new();
        while let Some(job) = self.queue.pop(&*self.spawner) {
            self.run(job, &mut scratch);
        }
    }

    /// Runs queued jobs until the answer is there, or until none is queued, and then waits for it.
    pub(crate) fn help_until(&self, answer: &Answer) -> Result<BlobId> {
        self.help(|| answer.get(), || answer.wait(&*self.spawner))
    }

    /// Runs queued jobs until all that were submitted before are done.
    pub(crate) fn help_until_idle(&self) {
        let end = self.queue.next_sequence();
        self.help(|| self.queue.is_finished(end).then_some(()), || self.queue.wait_finished(&*self.spawner, end));
    }

    /// Takes `bytes` of the budget, running queued jobs as long as they do not fit.
    pub(crate) fn enter(&self, bytes: usize) {
        self.help(|| self.budget.try_take(bytes).then_some(()), || self.budget.take(&*self.spawner, bytes));
    }

    fn help<R>(&self, done: impl Fn() -> Option<R>, wait: impl FnOnce() -> R) -> R {
        let mut scratch = None;
        loop {
            if let Some(result) = done() {
                self.keep_scratch(scratch);
                return result;
            }
            let Some(job) = self.queue.pop_or_wait() else { break };
            let scratch = scratch.get_or_insert_with(|| self.scratches.lock().pop().unwrap_or_default());
            self.run(job, scratch);
        }
        self.keep_scratch(scratch);
        let result = wait();
        self.queue.wait_over();
        result
    }

    fn keep_scratch(&self, scratch: Option<Scratch>) {
        let mut scratches = self.scratches.lock();
        if scratches.len() < SCRATCHES_MAX {
            scratches.extend(scratch);
        }
    }

    fn run(&self, job: Job, scratch: &mut Scratch) {
        let Job { kind, work, answer, charge, sequence } = job;
        self.spawner.step("pipeline job");
        match work {
            Work::Claimed(id) => {
                let follower = Follower { answer: None, sequence, charge };
                if let Some((plain, copies)) = self.inflight.begin(&id, follower) {
                    self.store_claimed(kind, &id, &plain, copies, scratch);
                }
            }
            Work::Hash(plain) => {
                let id = self.keyring.blob_id(kind, &plain);
                let plain = Arc::new(plain);
                let follower = Follower { answer: answer.clone(), sequence, charge };
                match self.inflight.claim(&id, 1, plain.clone(), Some(follower)) {
                    Claim::New(_) => self.store_claimed(kind, &id, &plain, 1, scratch),
                    Claim::Joined(_) => self.note_hit(plain.len()),
                    Claim::Held => {
                        self.note_hit(plain.len());
                        self.finish(Follower { answer, sequence, charge }, &Ok(id));
                    }
                }
            }
        }
    }

    /// Stores the copies of a claimed blob that the index does not have.
    fn store_claimed(&self, kind: BlobKind, id: &BlobId, plain: &[u8], copies: u8, scratch: &mut Scratch) {
        let missing = copies.saturating_sub(self.copies_stored(id));
        if missing == 0 {
            self.note_hit(plain.len());
            return self.settle(self.inflight.release(id));
        }
        self.inflight.expect(id, missing);
        self.spawner.step("seal blob");
        // With one of two copies lost, the remaining one may lie in either stream; the copies' stream is closed
        // with every commit, so that its pack is another one for sure.
        let streams = match (kind, missing, copies) {
            (BlobKind::Data, ..) => &[StreamKind::Data][..],
            (BlobKind::Node, 1, 2) => &[StreamKind::NodeCopy],
            (BlobKind::Node, 1, _) => &[StreamKind::Node],
            (BlobKind::Node, ..) => &[StreamKind::Node, StreamKind::NodeCopy],
        };
        let frame = self.sealer.frame(plain, self.sealer.compression(), self.effort(kind), scratch);
        for (frame, stream) in std::iter::repeat_n(frame, streams.len()).zip(streams) {
            // Each copy is sealed under its own nonce: equal bytes in two packs would show where a blob begins and ends.
            let bytes = self.sealer.seal_frame(kind, id, frame);
            self.counters.sealed_blobs.fetch_add(1, Ordering::Relaxed);
            self.counters.sealed_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let epoch = self.keyring.epoch();
            let sealed = Sealed { id: *id, plain_length: plain.len() as u32, epoch, bytes };
            self.streams[*stream as usize].append(self, sealed);
        }
    }

    /// How many good copies of a blob stored packs hold, as far as the index knows.
    fn copies_stored(&self, id: &BlobId) -> u8 {
        if self.suspects.contains(id) {
            return 0;
        }
        match self.index.lasting_copies(id) {
            Ok(copies) => copies.min(2) as u8,
            Err(error) => {
                // Storing the blob once more is safe, and heals what the index lost.
                log::warn!("the index could not be asked for blob {id}, which is stored again: {error}");
                0
            }
        }
    }

    fn effort(&self, kind: BlobKind) -> Effort {
        let effort = Effort::under_pressure(self.budget.percent());
        match kind {
            // Level 3 saves less than one percent of a node over level 1, and a snapshot waits for it.
            BlobKind::Node if effort == Effort::Full => Effort::Quick,
            _ => effort,
        }
    }

    pub(crate) fn note_hit(&self, bytes: usize) {
        self.counters.shared_blobs.fetch_add(1, Ordering::Relaxed);
        self.counters.shared_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Gives an answer that is due to all who wait for it.
    pub(crate) fn settle(&self, settled: Option<Settled>) {
        let Some(Settled { answer, followers, result, promised }) = settled else { return };
        if let (Err(error), true) = (&result, promised) {
            self.note_failure(error);
        }
        answer.resolve(result.clone());
        for follower in followers {
            self.finish(follower, &result);
        }
    }

    fn finish(&self, follower: Follower, result: &Result<BlobId>) {
        if let Some(answer) = follower.answer {
            answer.resolve(result.clone());
        }
        self.budget.give(follower.charge);
        self.queue.finish(follower.sequence);
    }

    /// One copy of a blob could not be stored.
    pub(crate) fn fail(&self, kind: BlobKind, id: &BlobId, plain_length: u32, error: Error) {
        if !matches!(error, Error::NoSpace { .. }) {
            self.poison(error.clone());
        }
        let no_space = matches!(error, Error::NoSpace { .. });
        let settled = self.inflight.missed(id, error);
        if let Some(Settled { result: Err(error), promised: true, .. }) = &settled
            && no_space
        {
            self.failure.lock().park(kind, id, plain_length, error);
        }
        self.settle(settled);
    }

    /// Submits the parked blobs again.
    pub(crate) fn retry_parked(&self) {
        let parked = self.failure.lock().take_parked();
        for (kind, id) in parked {
            if self.inflight.unpark(&id) {
                self.queue.push(|sequence| Job { kind, work: Work::Claimed(id), answer: None, charge: 0, sequence });
            }
        }
    }
}
