//! Reading ahead: what waits is looked up, sorted by place, and adjacent blobs of a pack are fetched with one read.
//!
//! *Bounds*: one turn takes [`TURN_BYTES_MAX`] of requests, one read [`FETCH_BYTES_MAX`]; a gap of [`GAP_BYTES_MAX`] between
//! two blobs is read and thrown away, since it costs less than another read.

use std::sync::Arc;

use super::{Flight, Shared};
use crate::{
    id::{BlobId, BlobKind},
    index::Location,
};

const TURN_BYTES_MAX: usize = 2 << 20;
const FETCH_BYTES_MAX: u64 = 2 << 20;
const GAP_BYTES_MAX: u64 = 64 << 10;

/// One blob of a turn, with the load that its readers wait for.
struct Wanted {
    id: BlobId,
    plain_length: u32,
    location: Location,
    flight: Arc<Flight>,
}

impl Wanted {
    fn end(&self) -> u64 {
        u64::from(self.location.offset) + u64::from(self.location.length)
    }
}

impl Shared {
    /// The life of a thread that reads ahead.
    pub(super) fn read_ahead(&self) {
        loop {
            let turn = self.ahead.wait(&*self.parts.spawner, |ahead| {
                let mut turn = Vec::new();
                let mut bytes = 0;
                while bytes < TURN_BYTES_MAX
                    && let Some((id, plain_length)) = ahead.requests.pop_front()
                {
                    bytes += plain_length as usize;
                    turn.push((id, plain_length));
                }
                ahead.bytes -= bytes.min(ahead.bytes);
                (!turn.is_empty() || ahead.closed).then_some(turn)
            });
            if turn.is_empty() {
                return;
            }
            self.share_the_rest();
            self.run_turn(turn);
        }
    }

    /// More may wait than one turn takes: the other thread shares the work.
    fn share_the_rest(&self) {
        if self.ahead.with(|ahead| !ahead.requests.is_empty()) {
            self.ahead.notify_one();
        }
    }

    fn run_turn(&self, turn: Vec<(BlobId, u32)>) {
        let mut wanted = Vec::with_capacity(turn.len());
        for (id, plain_length) in turn {
            wanted.extend(self.want(id, plain_length));
        }
        wanted.sort_by_key(|one| (one.location.pack, one.location.offset));
        let mut rest = &wanted[..];
        while let Some(first) = rest.first() {
            let start = u64::from(first.location.offset);
            let mut count = 1;
            while let Some(next) = rest.get(count)
                && next.location.pack == first.location.pack
                && u64::from(next.location.offset) <= rest[count - 1].end() + GAP_BYTES_MAX
                && next.end() - start <= FETCH_BYTES_MAX
            {
                count += 1;
            }
            let (group, after) = rest.split_at(count);
            self.fetch_group(group);
            rest = after;
        }
    }

    /// Boards the load of a chunk that lies in a stored pack and that nobody has or loads.
    fn want(&self, id: BlobId, plain_length: u32) -> Option<Wanted> {
        if self.cache.contains(&id) || self.parts.inflight.find(&id).is_some() {
            return None;
        }
        // A failed lookup is told to the reader that comes for the chunk.
        let location = self.parts.index.lookup(&id).ok()?.first().copied()?;
        let flight = self.board(&id).ok()?;
        Some(Wanted { id, plain_length, location, flight })
    }

    fn fetch_group(&self, group: &[Wanted]) {
        let [first, .., last] = group else {
            return group.iter().for_each(|one| self.load_wanted(one));
        };
        let start = u64::from(first.location.offset);
        let fetched = self.fetch(&first.location, start, (last.end() - start) as u32);
        for one in group {
            let from = (u64::from(one.location.offset) - start) as usize;
            let sealed = fetched.as_ref().ok().and_then(|bytes| bytes.get(from..from + one.location.length as usize));
            let plain = sealed.and_then(|sealed| {
                self.unseal(BlobKind::Data, &one.id, one.location.epoch, sealed, one.plain_length).ok()
            });
            match plain {
                Some(plain) => self.land(&one.id, &one.flight, &Ok(plain.into())),
                // With its own read, its other location and its own error.
                None => self.load_wanted(one),
            }
        }
    }

    fn load_wanted(&self, one: &Wanted) {
        let loaded = self.load(BlobKind::Data, &one.id, one.plain_length);
        self.land(&one.id, &one.flight, &loaded);
    }
}
