//! Errors of a volume as errno: one total match, no wildcard.

use fuser::Errno;
use vellum_store::Error as StoreError;

use crate::error::Error;

/// The errno that answers `error`. What is an answer of every day is not logged; damage and failures are, here and nowhere else.
pub fn errno(error: &Error) -> Errno {
    match error {
        Error::NotFound(_) => Errno::ENOENT,
        Error::Exists(_) => Errno::EEXIST,
        Error::NotDirectory(_) => Errno::ENOTDIR,
        Error::IsDirectory(_) => Errno::EISDIR,
        Error::NotEmpty(_) => Errno::ENOTEMPTY,
        Error::NotPermitted(_) => Errno::EPERM,
        Error::Access(_) => Errno::EACCES,
        Error::ReadOnly(_) => Errno::EROFS,
        Error::NameTooLong(_) => Errno::ENAMETOOLONG,
        Error::InvalidArgument(_) => Errno::EINVAL,
        Error::NoSpace(_) => Errno::ENOSPC,
        Error::TooBig(_) => Errno::EFBIG,
        Error::TooManyLinks(_) => Errno::EMLINK,
        Error::NoAttribute(_) => Errno::ENODATA,
        Error::Range(_) => Errno::ERANGE,
        Error::AttributeTooBig(_) => Errno::E2BIG,
        Error::Unsupported(_) => Errno::EOPNOTSUPP,
        Error::Stale(_) => Errno::ESTALE,
        Error::BadHandle(_) => Errno::EBADF,
        Error::NoData(_) => Errno::ENXIO,
        Error::Busy(_) => Errno::EBUSY,
        Error::CrossDevice(_) => Errno::EXDEV,
        Error::Loop(_) => Errno::ELOOP,
        Error::Interrupted => Errno::EINTR,
        Error::Damaged { .. } => {
            log::error!("{error}");
            Errno::EIO
        }
        Error::Poisoned { .. } => Errno::EROFS,
        Error::Store(source) => store_errno(source),
    }
}

/// The errno for `fsync` and `close`: a volume that can no longer be written must not look merely read-only there.
pub fn sync_errno(error: &Error) -> Errno {
    match error {
        Error::Poisoned { .. } => Errno::EIO,
        other => errno(other),
    }
}

fn store_errno(error: &StoreError) -> Errno {
    match error {
        StoreError::NoSpace { .. } | StoreError::JournalFull { .. } => Errno::ENOSPC,
        StoreError::ReadOnly { .. } | StoreError::Poisoned { .. } => Errno::EROFS,
        StoreError::NotFound { .. }
        | StoreError::BlobMissing { .. }
        | StoreError::Corrupt { .. }
        | StoreError::WrongKey
        | StoreError::UnsupportedFormat { .. }
        | StoreError::NotARepository { .. }
        | StoreError::AlreadyExists { .. }
        | StoreError::Locked { .. }
        | StoreError::Rollback { .. }
        | StoreError::InvalidName { .. }
        | StoreError::Invalid { .. }
        | StoreError::LastSlot { .. }
        | StoreError::Io { .. } => {
            log::error!("{error}");
            Errno::EIO
        }
    }
}
