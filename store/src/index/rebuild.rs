//! Building an index anew from the trailers of all packs.
//!
//! *Bounds*: the table of entries is flushed and the segments are merged as they become due, so memory is that of an index
//! in use; a pack's trailer is held while it is inserted.
//!
//! *Not here*: tombstones are lost with the index; packs that were deleted from it but are still stored come back, and the
//! next gc condemns them again.

use std::sync::Arc;

use super::{Index, IndexOptions, segment::Source};
use crate::{
    backend::Backend,
    crypto::Keyring,
    error::{Error, Result},
    id::PackId,
    pack::read_trailer,
};

impl Index {
    /// Reads the trailer of every stored pack into an index that starts empty; damaged packs are left out and named to `damaged`.
    ///
    /// What is not yet in a segment when it returns is in the table; the caller flushes it.
    pub fn rebuild(
        backend: Arc<dyn Backend>,
        keyring: Arc<Keyring>,
        options: IndexOptions,
        damaged: &mut dyn FnMut(PackId, Error),
    ) -> Result<Self> {
        let index = Self::open(backend, keyring, &[], options)?;
        index.list_trailers(false, damaged)?;
        Ok(index)
    }

    /// Forgets all segments and begins anew from the trailers, as [`Self::rebuild`] does, with nobody else at work. The segments stay
    /// where they are, and are not taken in again. With `in_memory` nothing is written.
    pub fn relist(&self, in_memory: bool, damaged: &mut dyn FnMut(PackId, Error)) -> Result<()> {
        {
            let _still = self.hold_still();
            self.state.write().forget_all();
        }
        self.list_trailers(in_memory, damaged)
    }

    fn list_trailers(&self, in_memory: bool, damaged: &mut dyn FnMut(PackId, Error)) -> Result<()> {
        let Source { backend, keyring } = &self.source;
        backend.list("packs/", &mut |name, length| {
            let Some(pack) = name.as_pack() else { return Ok(()) };
            let mut read = |offset, length| backend.get_range(&name, offset, length);
            match read_trailer(keyring, pack, length, &mut read) {
                Ok(entries) => self.insert_pack(pack, &entries),
                Err(error) if error.is_damage() => damaged(pack, error),
                Err(error) => return Err(error),
            }
            while !in_memory && (self.flush_due() || self.merge_due()) {
                if self.flush_due() {
                    self.flush()?;
                }
                if self.merge_due() {
                    self.merge()?;
                }
            }
            Ok(())
        })
    }
}
