//! The one error type of volumes.

/// Result of a volume operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in a volume.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] vellum_store::Error),
}
