//! The one error type of the store; the kinds that callers act on stay distinct.
//!
//! *Invariants*
//! 1. `NotFound` is never the answer to a failed read: gc and recovery trust the difference.
//! 2. A wrong key, a forged slot and a slot of another repository are one error: [`Error::WrongKey`].
//! 3. No message carries a secret.

use std::{io, sync::Arc};

use crate::id::BlobId;

/// Result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the store. Cheap to clone, so that several waiters of one operation get the same answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The named object does not exist (the listing or open itself succeeded).
    #[error("{object} does not exist")]
    NotFound {
        /// The object, as in the repository's layout.
        object: String,
    },
    /// A blob that something refers to is in no pack that the index knows.
    #[error("blob {id} is in no known pack")]
    BlobMissing {
        /// The missing blob.
        id: BlobId,
    },
    /// Bytes that were read are not those that were written.
    #[error("{object} is damaged: {what}")]
    Corrupt {
        /// The object, as in the repository's layout, with an offset where that helps.
        object: String,
        /// Which check failed.
        what: String,
    },
    /// No slot opens with the given secret, or a slot was forged.
    #[error("wrong passphrase or key file (or a damaged key slot)")]
    WrongKey,
    /// The object has a format that this program does not know.
    #[error("{object} has format version {found}; this program knows up to {known}")]
    UnsupportedFormat {
        /// The object, as in the repository's layout.
        object: String,
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// The place given is not a repository.
    #[error("{path} is not a vellum repository: {why}")]
    NotARepository {
        /// The place looked at.
        path: String,
        /// What is missing or wrong there.
        why: String,
    },
    /// `init` on a place that holds something already.
    #[error("{path} already holds {what}")]
    AlreadyExists {
        /// The place.
        path: String,
        /// What it holds.
        what: String,
    },
    /// Another process holds the lock.
    #[error("volume {volume} is in use by {holder}")]
    Locked {
        /// The volume.
        volume: String,
        /// Who holds it: process, host and mountpoint as far as known.
        holder: String,
    },
    /// The disk is full, or the keep-free reserve would be touched.
    #[error("no space left: {doing}")]
    NoSpace {
        /// What was being written.
        doing: String,
    },
    /// The journal has no room for a commit until a checkpoint trims it.
    #[error("the journal of volume {volume} is full")]
    JournalFull {
        /// The volume.
        volume: String,
    },
    /// The repository shows an older or forked history than this client remembers.
    #[error("the history of volume {volume} is not the one this machine remembers: {what}")]
    Rollback {
        /// The volume.
        volume: String,
        /// What differs.
        what: String,
    },
    /// A writer with a higher epoch has taken the volume over, or an earlier failure poisoned it.
    #[error("volume {volume} can no longer be written: {why}")]
    Poisoned {
        /// The volume.
        volume: String,
        /// The first failure.
        why: String,
    },
    /// Opened read-only.
    #[error("{what} is open read-only")]
    ReadOnly {
        /// The repository or volume.
        what: String,
    },
    /// A name that the rules forbid.
    #[error("{name:?} is not a valid {what} name: use {rule}")]
    InvalidName {
        /// Kind of name.
        what: &'static str,
        /// The name given.
        name: String,
        /// The rule.
        rule: &'static str,
    },
    /// A setting or argument outside its bounds.
    #[error("{what}")]
    Invalid {
        /// What is wrong with which value.
        what: String,
    },
    /// The last key slot cannot be removed.
    #[error("slot {slot} is the last one that opens this repository and cannot be removed")]
    LastSlot {
        /// The slot.
        slot: String,
    },
    /// The operating system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to which object.
        doing: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// Wraps a system error; a full disk or quota becomes [`Error::NoSpace`].
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { doing },
            _ => Self::Io { doing, source: Arc::new(source) },
        }
    }

    /// A sync that failed, of whatever kind: nobody knows what is durable, so it is never want of space to be tried again.
    pub fn sync(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source: Arc::new(source) }
    }

    /// Short form for damaged bytes.
    pub fn corrupt(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Corrupt { object: object.into(), what: what.into() }
    }

    /// Whether this is damage (a failed check of bytes that were read), as opposed to a failure to read.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::BlobMissing { .. })
    }
}
