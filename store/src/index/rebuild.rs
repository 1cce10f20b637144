//! Building an index anew from the trailers of all packs.
//!
//! *Bounds*: the table of entries is flushed and the segments are merged as they become due, so memory is that of an index
//! in use; a pack's trailer is held while it is inserted.
//!
//! *Not here*: tombstones are lost with the index; packs that were deleted from it but are still stored come back, and the
//! next gc condemns them again.

use std::sync::Arc;

use super::{Index, IndexOptions};
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
        let index = Self::open(backend.clone(), keyring.clone(), &[], options)?;
        backend.list("packs/", &mut |name, length| {
            let Some(pack) = name.as_pack() else { return Ok(()) };
            let mut read = |offset, length| backend.get_range(&name, offset, length);
            match read_trailer(&keyring, pack, length, &mut read) {
                Ok(entries) => index.insert_pack(pack, &entries),
                Err(error) if error.is_damage() => damaged(pack, error),
                Err(error) => return Err(error),
            }
            if index.flush_due() {
                index.flush()?;
            }
            while index.merge_due() {
                index.merge()?;
            }
            Ok(())
        })?;
        Ok(index)
    }
}
