//! Errors of a volume as NTSTATUS: one total match, no wildcard.
//!
//! The numbers are those of the NTSTATUS table that Microsoft publishes ([MS-ERREF], section 2.3.1).

use vellum_fs::Error;
use vellum_store::Error as StoreError;

/// A status code, as WinFsp passes it to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

const INVALID_HANDLE: Status = Status(0xC000_0008);
const INVALID_PARAMETER: Status = Status(0xC000_000D);
const END_OF_FILE: Status = Status(0xC000_0011);
const ACCESS_DENIED: Status = Status(0xC000_0022);
const BUFFER_TOO_SMALL: Status = Status(0xC000_0023);
const OBJECT_NAME_NOT_FOUND: Status = Status(0xC000_0034);
const OBJECT_NAME_COLLISION: Status = Status(0xC000_0035);
const SHARING_VIOLATION: Status = Status(0xC000_0043);
const EA_TOO_LARGE: Status = Status(0xC000_0050);
const NONEXISTENT_EA_ENTRY: Status = Status(0xC000_0051);
const DISK_FULL: Status = Status(0xC000_007F);
const MEDIA_WRITE_PROTECTED: Status = Status(0xC000_00A2);
const FILE_IS_A_DIRECTORY: Status = Status(0xC000_00BA);
const NOT_SUPPORTED: Status = Status(0xC000_00BB);
const NOT_SAME_DEVICE: Status = Status(0xC000_00D4);
const DIRECTORY_NOT_EMPTY: Status = Status(0xC000_0101);
const FILE_CORRUPT_ERROR: Status = Status(0xC000_0102);
const NOT_A_DIRECTORY: Status = Status(0xC000_0103);
const NAME_TOO_LONG: Status = Status(0xC000_0106);
const CANCELLED: Status = Status(0xC000_0120);
const FILE_DELETED: Status = Status(0xC000_0123);
const IO_DEVICE_ERROR: Status = Status(0xC000_0185);
const TOO_MANY_LINKS: Status = Status(0xC000_0265);
const REPARSE_POINT_NOT_RESOLVED: Status = Status(0xC000_0280);
const FILE_TOO_LARGE: Status = Status(0xC000_0904);

/// The status that answers `error`. Damage and failures are logged, here and nowhere else.
pub fn status(error: &Error) -> Status {
    match error {
        Error::NotFound(_) => OBJECT_NAME_NOT_FOUND,
        Error::Exists(_) => OBJECT_NAME_COLLISION,
        Error::NotDirectory(_) => NOT_A_DIRECTORY,
        Error::IsDirectory(_) => FILE_IS_A_DIRECTORY,
        Error::NotEmpty(_) => DIRECTORY_NOT_EMPTY,
        Error::NotPermitted(_) | Error::Access(_) => ACCESS_DENIED,
        Error::ReadOnly(_) | Error::Poisoned { .. } => MEDIA_WRITE_PROTECTED,
        Error::NameTooLong(_) => NAME_TOO_LONG,
        Error::InvalidArgument(_) => INVALID_PARAMETER,
        Error::NoSpace(_) => DISK_FULL,
        Error::TooBig(_) => FILE_TOO_LARGE,
        Error::TooManyLinks(_) => TOO_MANY_LINKS,
        Error::NoAttribute(_) => NONEXISTENT_EA_ENTRY,
        Error::Range(_) => BUFFER_TOO_SMALL,
        Error::AttributeTooBig(_) => EA_TOO_LARGE,
        Error::Unsupported(_) => NOT_SUPPORTED,
        Error::Stale(_) => FILE_DELETED,
        Error::BadHandle(_) => INVALID_HANDLE,
        Error::NoData(_) => END_OF_FILE,
        Error::Busy(_) => SHARING_VIOLATION,
        Error::CrossDevice(_) => NOT_SAME_DEVICE,
        Error::Loop(_) => REPARSE_POINT_NOT_RESOLVED,
        Error::Interrupted => CANCELLED,
        Error::Damaged { .. } => {
            log::error!("{error}");
            FILE_CORRUPT_ERROR
        }
        Error::Store(source) => store_status(source),
    }
}

fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::NoSpace { .. } | StoreError::JournalFull { .. } => DISK_FULL,
        StoreError::ReadOnly { .. } | StoreError::Poisoned { .. } => MEDIA_WRITE_PROTECTED,
        StoreError::Corrupt { .. } | StoreError::BlobMissing { .. } => {
            log::error!("{error}");
            FILE_CORRUPT_ERROR
        }
        StoreError::NotFound { .. }
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
            IO_DEVICE_ERROR
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_told_from_one_that_cannot_be_read() {
        let missing = Error::NotFound("a file".into());
        let damaged = Error::Store(StoreError::Corrupt { object: "pack".into(), what: "truncated".into() });
        assert_eq!(status(&missing), OBJECT_NAME_NOT_FOUND);
        assert_eq!(status(&damaged), FILE_CORRUPT_ERROR);
    }

    #[test]
    fn what_cannot_be_written_any_more_looks_write_protected() {
        assert_eq!(status(&Error::ReadOnly("a snapshot".into())), MEDIA_WRITE_PROTECTED);
    }
}
