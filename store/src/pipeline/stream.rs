//! One sequence of packs of one kind: sealed blobs go in, full packs go to the closer.
//!
//! *Invariants*
//! 1. One thread at a time, the leader, hashes and appends; it takes over what others left in `pending`. So no thread is
//!    handed over to and none waits for another's write, yet no lock is held across one.
//! 2. A blob is told to the in-flight table after its bytes are in the file, so whoever learns its place can read it.
//! 3. A file that refused a write, but for want of space, is never written again: its blobs are copied to another pack by
//!    the closer, and the refused blob goes to a new file. A second refusal fails the blob.
//!
//! *Threads*: workers and helpers append; committers close. The lock is a leaf.
//!
//! *Bounds*: [`PENDING_BYTES_MAX`] of sealed bytes wait for the leader; above that their makers wait. A pack has at most
//! `pack_bytes` of blobs and one more blob, and at most [`PACK_ENTRIES_MAX`] entries.

use std::{collections::VecDeque, fmt, sync::Arc};

use super::{Shared, gate::Gate, inflight::Place, open_pack::OpenPack};
use crate::{
    error::{Error, Result},
    id::{BlobId, BlobKind},
    pack::{PackBuilder, PackEntry},
};

const PENDING_BYTES_MAX: usize = 2 << 20;
/// Keeps trailers small when blobs compress to almost nothing.
const PACK_ENTRIES_MAX: usize = 32 << 10;
/// Room that is reserved on disk beside the blobs, for trailer and padding.
const PACK_SLACK: u64 = 1 << 20;
/// Less than this is not worth reserving.
const PACK_ROOM_MIN: u64 = 64 << 10;

/// Which sequence of packs a blob goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Data,
    Node,
    /// Second copies of nodes, which must not share a pack with the first.
    NodeCopy,
}

impl StreamKind {
    pub(crate) const ALL: [Self; 3] = [Self::Data, Self::Node, Self::NodeCopy];

    fn blob_kind(self) -> BlobKind {
        match self {
            Self::Data => BlobKind::Data,
            Self::Node | Self::NodeCopy => BlobKind::Node,
        }
    }
}

/// A sealed blob on its way into a pack.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) id: BlobId,
    pub(crate) plain_length: u32,
    pub(crate) epoch: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A pack that is being filled, in the hands of its leader or the closer.
pub(crate) struct Filling {
    pub(crate) builder: PackBuilder,
    pub(crate) pack: Arc<OpenPack>,
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filling").field("pack", self.pack.name()).finish_non_exhaustive()
    }
}

/// One sequence of packs.
#[derive(Debug)]
pub(crate) struct Stream {
    kind: StreamKind,
    state: Gate<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Sealed>,
    pending_bytes: usize,
    /// Whether there is a leader; `filling` is then in its hands.
    busy: bool,
    filling: Option<Filling>,
    /// The pack that is being filled, for `fsync`.
    open: Option<Arc<OpenPack>>,
    closes_wanted: u64,
    closes_done: u64,
}

impl Stream {
    pub(crate) fn new(kind: StreamKind) -> Self {
        Self { kind, state: Gate::default() }
    }

    /// Puts a sealed blob into the pack; its place, or its failure, is told to the in-flight table.
    pub(crate) fn append(&self, shared: &Shared, sealed: Sealed) {
        let mut sealed = Some(sealed);
        let lead = self.state.wait(&*shared.spawner, |state| {
            if state.busy && state.pending_bytes >= PENDING_BYTES_MAX {
                return None;
            }
            let sealed = sealed.take()?;
            state.pending_bytes += sealed.bytes.len();
            state.pending.push_back(sealed);
            Some(!std::mem::replace(&mut state.busy, true))
        });
        if lead {
            self.lead(shared);
        }
    }

    /// Hands the pack that is being filled to the closer, with all that was appended before this call.
    pub(crate) fn close(&self, shared: &Shared) {
        let (turn, lead) = self.state.with(|state| {
            state.closes_wanted += 1;
            (state.closes_wanted, !std::mem::replace(&mut state.busy, true))
        });
        if lead {
            self.lead(shared);
        }
        self.state.wait(&*shared.spawner, |state| (state.closes_done >= turn).then_some(()));
    }

    /// The pack that is being filled, if there is one.
    pub(crate) fn open_pack(&self) -> Option<Arc<OpenPack>> {
        self.state.with(|state| state.open.clone())
    }

    /// Writes what is pending until nothing is.
    fn lead(&self, shared: &Shared) {
        let mut filling = self.state.with(|state| state.filling.take());
        loop {
            let (batch, wanted, done) = self.state.with(|state| {
                state.pending_bytes = 0;
                (std::mem::take(&mut state.pending), state.closes_wanted, state.closes_done)
            });
            self.state.notify_all();
            for sealed in batch {
                self.write(shared, &mut filling, sealed);
            }
            if wanted > done {
                self.pass_on(shared, filling.take(), false);
                self.state.with(|state| state.closes_done = wanted);
                self.state.notify_all();
            }
            let over = self.state.with(|state| {
                let over = state.pending.is_empty() && state.closes_wanted == state.closes_done;
                if over {
                    state.busy = false;
                    state.filling = filling.take();
                }
                over
            });
            if over {
                return;
            }
        }
    }

    fn write(&self, shared: &Shared, filling: &mut Option<Filling>, sealed: Sealed) {
        let mut failure = None;
        for _ in 0..2 {
            let current = match filling.take() {
                Some(current) => current,
                None => match self.start(shared) {
                    Ok(started) => started,
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                },
            };
            let current = filling.insert(current);
            match current.append(&sealed) {
                Ok(entry) => {
                    let place = Place { pack: current.pack.clone(), entry };
                    shared.settle(shared.inflight.placed(place));
                    if current.is_full(shared.pack_bytes) {
                        self.pass_on(shared, filling.take(), false);
                    }
                    return;
                }
                // A full disk leaves the file as it was: it can still take smaller blobs, and be closed.
                Err(error @ Error::NoSpace { .. }) => {
                    failure = Some(error);
                    break;
                }
                Err(error) => {
                    log::warn!(
                        "pack {:?} takes no more blobs, its content moves to another file: {error}",
                        current.pack.name()
                    );
                    failure = Some(error);
                    self.pass_on(shared, filling.take(), true);
                }
            }
        }
        let error = failure.expect("the loop ends early only with a failure");
        shared.fail(self.kind.blob_kind(), &sealed.id, sealed.plain_length, error);
    }

    fn start(&self, shared: &Shared) -> Result<Filling> {
        let room = match self.kind {
            StreamKind::Data => u64::from(shared.pack_bytes) + PACK_SLACK,
            // A checkpoint leaves small ones; what is more is appended past the reservation.
            StreamKind::Node | StreamKind::NodeCopy => PACK_SLACK,
        };
        let filling = Filling::create(shared, self.kind.blob_kind(), room)?;
        self.state.with(|state| state.open = Some(filling.pack.clone()));
        Ok(filling)
    }

    fn pass_on(&self, shared: &Shared, filling: Option<Filling>, broken: bool) {
        if let Some(filling) = filling {
            // The closer lists the pack before this stream forgets it, so that `fsync` sees it in one of them.
            shared.closer.submit(shared, filling, broken);
            self.state.with(|state| state.open = None);
        }
    }
}

impl Filling {
    /// Creates a pack with `room` bytes reserved, or as much of it as a nearly full disk still has: the reservation is meant
    /// for speed and for the trailer, and the last bytes of a disk go to blobs, not to what might follow them (P6).
    pub(crate) fn create(shared: &Shared, kind: BlobKind, room: u64) -> Result<Self> {
        let mut room = room;
        let object = loop {
            match shared.backend.create_open(room) {
                Err(Error::NoSpace { .. }) if room > 0 => room = if room / 4 < PACK_ROOM_MIN { 0 } else { room / 4 },
                created => break created?,
            }
        };
        Ok(Self { builder: PackBuilder::new(shared.keyring.clone(), kind), pack: Arc::new(OpenPack::new(object)) })
    }

    /// Appends one sealed blob; the builder learns of it only once it is in the file.
    pub(crate) fn append(&mut self, sealed: &Sealed) -> Result<PackEntry> {
        let written = self.pack.append(&sealed.bytes)?;
        let offset = self.builder.push(sealed.id, sealed.plain_length, sealed.epoch, &sealed.bytes);
        assert_eq!(u64::from(offset), written, "builder and file of an open pack agree on offsets");
        let (id, kind, length) = (sealed.id, self.builder.kind(), sealed.bytes.len() as u32);
        Ok(PackEntry { id, kind, offset, length, plain_length: sealed.plain_length, epoch: sealed.epoch })
    }

    fn is_full(&self, pack_bytes: u32) -> bool {
        self.builder.len() >= u64::from(pack_bytes) || self.builder.entries().len() >= PACK_ENTRIES_MAX
    }
}
