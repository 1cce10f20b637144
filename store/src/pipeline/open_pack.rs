//! A pack that is being filled or stored, as readers and `fsync` see it.
//!
//! *Invariants*
//! 1. Bytes below `appended` never change.
//! 2. Bytes below what [`OpenPack::sync`] covered survive power loss (F6).
//!
//! *Threads*: any. The lock of `synced` is held across the fdatasync on purpose: whoever waits for it finds its bytes covered
//! and needs no fdatasync of its own (group commit).

use super::{
    OpenName, OpenObject, Result,
    sync::{AtomicU64, Mutex, Ordering},
};

/// One open pack.
#[derive(Debug)]
pub(crate) struct OpenPack {
    object: Box<dyn OpenObject>,
    appended: AtomicU64,
    synced: Mutex<u64>,
}

impl OpenPack {
    pub(crate) fn new(object: Box<dyn OpenObject>) -> Self {
        Self { object, appended: AtomicU64::new(0), synced: Mutex::new(0) }
    }

    pub(crate) fn name(&self) -> &OpenName {
        self.object.name()
    }

    pub(crate) fn object(&self) -> &dyn OpenObject {
        &*self.object
    }

    /// Appends bytes and returns their offset. Only the one thread that fills the pack calls it.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<u64> {
        let offset = self.object.append(bytes)?;
        self.appended.store(offset + bytes.len() as u64, Ordering::Release);
        Ok(offset)
    }

    /// Makes all that was appended durable; one fdatasync, or none if that is done already.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut synced = self.synced.lock();
        let appended = self.appended.load(Ordering::Acquire);
        if *synced < appended {
            self.object.sync()?;
            *synced = appended;
        }
        Ok(())
    }

    /// Whether the bytes below `end` are durable.
    pub(crate) fn is_synced(&self, end: u64) -> bool {
        *self.synced.lock() >= end
    }
}
