//! The blobs that are on their way: claimed by a submitter, being sealed, or in a pack that is not stored yet.
//!
//! *Invariants*
//! 1. Of all who submit the same blob while it is in flight, one seals it; the others get its answer.
//! 2. A blob leaves the table only after the index knows its stored pack, so a reader that asks the table first and the index
//!    second finds it in one of them.
//! 3. A blob whose id its submitter was given at once is not given up for want of space: it is parked, readable, until the next
//!    flush tries again. A commit flushes first, so none succeeds without it.
//! 4. A blob whose last place is withdrawn leaves the table: it is no dedup target any more, and submitting it stores it again.
//!
//! *Threads*: any; each shard has a leaf lock, under which nothing else is locked and no I/O happens. Answers are given after
//! the lock is released.
//!
//! *Bounds*: entries by the pipeline's budget and by the entries of the packs that are open or being stored.

use std::{
    collections::{HashMap, hash_map},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{open_pack::OpenPack, ticket::Answer};
use crate::{
    error::{Error, Result},
    id::BlobId,
    pack::PackEntry,
};

const SHARDS: usize = 64;

/// Where a blob lies in a pack that is not stored yet.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) pack: Arc<OpenPack>,
    pub(crate) entry: PackEntry,
}

/// One job that waits for a blob's answer.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) answer: Option<Arc<Answer>>,
    pub(crate) sequence: u64,
    /// Bytes that the job holds of the budget.
    pub(crate) charge: usize,
}

/// What a claim found.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nobody else has it: the claimant stores it.
    New(Arc<Answer>),
    /// Somebody is at it: the answer will be this one.
    Joined(Arc<Answer>),
    /// It is in an open pack already.
    Held,
}

/// What a reader finds.
#[derive(Debug)]
pub(crate) enum Found {
    Plain(Arc<Vec<u8>>),
    Places(Vec<Place>),
}

/// An answer that is due, with all who wait for it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Settled {
    pub(crate) answer: Arc<Answer>,
    pub(crate) followers: Vec<Follower>,
    pub(crate) result: Result<BlobId>,
    /// Its submitter knew the id at once and may not ask the answer.
    pub(crate) promised: bool,
}

#[derive(Debug)]
struct Entry {
    /// Kept until all wanted copies are in packs, for readers.
    plain: Option<Arc<Vec<u8>>>,
    answer: Arc<Answer>,
    followers: Vec<Follower>,
    promised: bool,
    /// Waits for space, with nobody at work on it.
    parked: bool,
    copies: u8,
    /// Copies that have not reached a pack yet; not known before the index was asked.
    missing: u8,
    failure: Option<Error>,
    places: Vec<Place>,
}

/// The table of one pipeline.
#[derive(Debug)]
pub(crate) struct InFlight {
    shards: Vec<Mutex<HashMap<BlobId, Entry>>>,
}

impl InFlight {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, id: &BlobId) -> &Mutex<HashMap<BlobId, Entry>> {
        &self.shards[id.0[0] as usize % SHARDS]
    }

    /// Claims a blob for storing. A `follower` joins whatever answer there is to come; without one,
    /// the submitter goes on with the id alone.
    pub(crate) fn claim(&self, id: &BlobId, copies: u8, plain: Arc<Vec<u8>>, follower: Option<Follower>) -> Claim {
        match self.shard(id).lock().entry(*id) {
            hash_map::Entry::Vacant(vacant) => {
                let answer = follower.as_ref().and_then(|f| f.answer.clone()).unwrap_or_default();
                vacant.insert(Entry {
                    plain: Some(plain),
                    answer: answer.clone(),
                    promised: follower.is_none(),
                    parked: false,
                    followers: follower.into_iter().collect(),
                    copies,
                    missing: copies,
                    failure: None,
                    places: Vec::new(),
                });
                Claim::New(answer)
            }
            hash_map::Entry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                if entry.plain.is_none() {
                    return Claim::Held;
                }
                entry.promised |= follower.is_none();
                entry.followers.extend(follower);
                if entry.unpark() {
                    return Claim::New(entry.answer.clone());
                }
                Claim::Joined(entry.answer.clone())
            }
        }
    }

    /// The plaintext and wanted copies of a blob that its submitter claimed; its job becomes a follower.
    pub(crate) fn begin(&self, id: &BlobId, follower: Follower) -> Option<(Arc<Vec<u8>>, u8)> {
        let mut shard = self.shard(id).lock();
        let entry = shard.get_mut(id)?;
        entry.followers.push(follower);
        Some((entry.plain.clone()?, entry.copies))
    }

    /// Sets how many copies must reach a pack.
    pub(crate) fn expect(&self, id: &BlobId, missing: u8) {
        if let Some(entry) = self.shard(id).lock().get_mut(id) {
            entry.missing = missing;
        }
    }

    /// The index has the blob: the claim was not needed.
    pub(crate) fn release(&self, id: &BlobId) -> Option<Settled> {
        let entry = self.shard(id).lock().remove(id)?;
        let Entry { answer, followers, promised, .. } = entry;
        Some(Settled { answer, followers, result: Ok(*id), promised })
    }

    /// One copy is in an open pack; the answer is due with the last one.
    pub(crate) fn placed(&self, place: Place) -> Option<Settled> {
        let id = place.entry.id;
        let mut shard = self.shard(&id).lock();
        let entry = shard.get_mut(&id)?;
        entry.places.push(place);
        entry.missing = entry.missing.saturating_sub(1);
        (entry.missing == 0).then(|| entry.settle(id))
    }

    /// One copy could not be stored. With no other copy the blob is withdrawn; but a promised one for which there was no space is
    /// parked with its plaintext, for others refer to it by now.
    pub(crate) fn missed(&self, id: &BlobId, error: Error) -> Option<Settled> {
        let mut shard = self.shard(id).lock();
        let entry = shard.get_mut(id)?;
        entry.missing = entry.missing.saturating_sub(1);
        entry.failure.get_or_insert(error);
        if entry.missing > 0 {
            return None;
        }
        let plain = entry.plain.clone();
        let no_space = matches!(entry.failure, Some(Error::NoSpace { .. }));
        let settled = entry.settle(*id);
        if entry.places.is_empty() {
            if settled.promised && no_space {
                (entry.parked, entry.plain, entry.answer) = (true, plain, Arc::default());
            } else {
                shard.remove(id);
            }
        }
        Some(settled)
    }

    /// Takes a parked blob up again: `true` for whoever is to submit it.
    pub(crate) fn unpark(&self, id: &BlobId) -> bool {
        self.shard(id).lock().get_mut(id).is_some_and(Entry::unpark)
    }

    /// Where a reader finds a blob in flight.
    pub(crate) fn find(&self, id: &BlobId) -> Option<Found> {
        let shard = self.shard(id).lock();
        let entry = shard.get(id)?;
        Some(match &entry.plain {
            Some(plain) => Found::Plain(plain.clone()),
            None => Found::Places(entry.places.clone()),
        })
    }

    /// The blob's sealed bytes lie in another open pack: the one in `from` could not be stored.
    pub(crate) fn moved(&self, from: &Arc<OpenPack>, to: Place) {
        let id = to.entry.id;
        if let Some(entry) = self.shard(&id).lock().get_mut(&id)
            && let Some(place) = entry.places.iter_mut().find(|place| Arc::ptr_eq(&place.pack, from))
        {
            *place = to;
        }
    }

    /// The blob is no longer in flight from this pack: it is stored and in the index, or it is withdrawn.
    pub(crate) fn leave(&self, id: &BlobId, pack: &Arc<OpenPack>) {
        let mut shard = self.shard(id).lock();
        if let Some(entry) = shard.get_mut(id) {
            entry.places.retain(|place| !Arc::ptr_eq(&place.pack, pack));
            if entry.places.is_empty() && entry.plain.is_none() {
                shard.remove(id);
            }
        }
    }
}

impl Entry {
    fn unpark(&mut self) -> bool {
        self.missing = if self.parked { self.copies } else { self.missing };
        std::mem::take(&mut self.parked)
    }

    fn settle(&mut self, id: BlobId) -> Settled {
        self.plain = None;
        // With one copy in a pack the blob is stored, though not as safely as it was meant to be.
        let failure = self.failure.take().filter(|_| self.places.is_empty());
        Settled {
            answer: self.answer.clone(),
            followers: std::mem::take(&mut self.followers),
            result: failure.map_or(Ok(id), Err),
            promised: self.promised,
        }
    }
}
