//! What a command can fail with: what, which object, what to do next, and the exit code.
//!
//! *Invariants*
//! 1. The exit codes are a promise to scripts: they are numbered here and nowhere else.
//! 2. Every error of the layers below has a `match` arm of its own, so that a new one must be decided on here.
//! 3. A [`Report`] holds text only, so an error crosses from the mount's process to the command that asked, unchanged.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::output::escaped;

/// Result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How a command ended, as scripts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Anything without a code of its own.
    Failed = 1,
    /// The command line or an option is wrong.
    Usage = 2,
    /// Damage was found.
    Damage = 3,
    /// Another process has the volume.
    Locked = 4,
    /// No key slot opens with the secret.
    WrongKey = 5,
    /// The repository, snapshot or path is not there.
    NotFound = 6,
    /// The disk is full.
    NoSpace = 7,
}

/// An error as it is told: to people, and from the mount's process to the command that asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The exit code it leads to.
    pub exit: Exit,
    /// What failed, and on which object.
    pub message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] vellum_store::Error),
    /// The volume failed.
    #[error(transparent)]
    Fs(vellum_fs::Error),
    /// The mount failed.
    #[cfg(unix)]
    #[error(transparent)]
    Mount(#[from] vellum_fs::fuse::MountError),
    /// The operating system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to which object.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The reader of our output went away.
    #[error("standard output was closed")]
    OutputClosed,
    /// The caller was told, and there is nothing to add.
    #[error("the error was told already")]
    AlreadyTold(Exit),
    /// What this layer found by itself, or another process told.
    #[error("{}", .0.message)]
    Told(Report),
}

impl From<vellum_fs::Error> for Error {
    fn from(error: vellum_fs::Error) -> Self {
        match error {
            vellum_fs::Error::Store(error) => Self::Store(error),
            other => Self::Fs(other),
        }
    }
}

impl Error {
    /// Wraps a system error.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source }
    }

    /// An error of this layer.
    pub fn told(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Told(Report { exit, message: message.into(), hint: Some(hint.into()) })
    }

    /// An argument that cannot be meant.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::told(Exit::Usage, message, hint)
    }

    /// A refusal without a code of its own.
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::told(Exit::Failed, message, hint)
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Store(error) => store_exit(error),
            Self::Fs(error) => fs_exit(error),
            #[cfg(unix)]
            Self::Mount(_) => Exit::Failed,
            Self::Io { source, .. } => io_exit(source),
            Self::OutputClosed => Exit::Failed,
            Self::AlreadyTold(exit) => *exit,
            Self::Told(report) => report.exit,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => store_hint(error),
            Self::Fs(error) => fs_hint(error),
            #[cfg(unix)]
            Self::Mount(error) => Some(mount_hint(error)),
            Self::Io { source, .. } => io_hint(source),
            Self::OutputClosed | Self::AlreadyTold(_) => None,
            Self::Told(report) => report.hint.clone(),
        }
    }

    /// The error as it is told.
    pub fn report(&self) -> Report {
        Report { exit: self.exit(), message: self.to_string(), hint: self.hint() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names from repositories and from other processes are in it.
        write!(f, "error: {}", escaped(self.message.as_bytes()))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {}", escaped(hint.as_bytes())),
            None => Ok(()),
        }
    }
}

fn store_exit(error: &vellum_store::Error) -> Exit {
    use vellum_store::Error as E;
    match error {
        E::NotFound { .. } | E::NotARepository { .. } => Exit::NotFound,
        E::BlobMissing { .. } | E::Corrupt { .. } | E::Rollback { .. } => Exit::Damage,
        E::WrongKey => Exit::WrongKey,
        E::Locked { .. } => Exit::Locked,
        E::NoSpace { .. } => Exit::NoSpace,
        E::InvalidName { .. } | E::Invalid { .. } => Exit::Usage,
        E::UnsupportedFormat { .. }
        | E::AlreadyExists { .. }
        | E::JournalFull { .. }
        | E::Poisoned { .. }
        | E::ReadOnly { .. }
        | E::LastSlot { .. } => Exit::Failed,
        E::Io { source, .. } => io_exit(source),
    }
}

fn store_hint(error: &vellum_store::Error) -> Option<String> {
    use vellum_store::Error as E;
    let hint = match error {
        E::NotFound { .. } => "check the name; `vellum snapshots` and `vellum key list` show what there is",
        E::NotARepository { .. } => "check the path, or make a repository there with `vellum init`",
        E::BlobMissing { .. } | E::Corrupt { .. } => {
            "`vellum check --read-data` names everything that is damaged; if there is a copy of the repository, put that \
             object back from it"
        }
        E::Rollback { .. } => {
            "if the repository was copied or restored on purpose, say so with --as-copy; otherwise the storage shows an \
             old or foreign state, and nothing should be written to it"
        }
        E::WrongKey => {
            "try again, and check which of VELLUM_PASSPHRASE, VELLUM_PASSPHRASE_FILE, VELLUM_PASSPHRASE_COMMAND and \
             VELLUM_KEY_FILE is set"
        }
        E::Locked { .. } => "unmount it there, or give the mountpoint instead of the repository",
        E::NoSpace { .. } => {
            "free some space on the disk of the repository, then try again; nothing that was stored is lost"
        }
        E::UnsupportedFormat { .. } => "open it with a newer vellum",
        E::AlreadyExists { .. } => "choose another place or name",
        E::JournalFull { .. } => "try again; if it stays full, unmount and mount again",
        E::Poisoned { .. } => "unmount and mount again; the log of the mount tells the first failure",
        E::ReadOnly { .. } => "open or mount it without `ro`",
        E::LastSlot { .. } => "add another key first, with `vellum key add`",
        E::InvalidName { .. } => "choose another name",
        E::Invalid { .. } => "`--help` after the command shows what is accepted",
        E::Io { source, .. } => return io_hint(source),
    };
    Some(hint.to_string())
}

fn fs_exit(error: &vellum_fs::Error) -> Exit {
    use vellum_fs::Error as E;
    match error {
        E::NotFound(_) | E::NoAttribute(_) | E::NoData(_) => Exit::NotFound,
        E::NoSpace(_) => Exit::NoSpace,
        E::Damaged { .. } => Exit::Damage,
        E::NameTooLong(_) | E::InvalidArgument(_) => Exit::Usage,
        E::Store(error) => store_exit(error),
        E::Exists(_)
        | E::NotDirectory(_)
        | E::IsDirectory(_)
        | E::NotEmpty(_)
        | E::NotPermitted(_)
        | E::Access(_)
        | E::ReadOnly(_)
        | E::TooBig(_)
        | E::TooManyLinks(_)
        | E::Range(_)
        | E::AttributeTooBig(_)
        | E::Unsupported(_)
        | E::Stale(_)
        | E::BadHandle(_)
        | E::Busy(_)
        | E::CrossDevice(_)
        | E::Loop(_)
        | E::Poisoned { .. }
        | E::Interrupted => Exit::Failed,
    }
}

fn fs_hint(error: &vellum_fs::Error) -> Option<String> {
    use vellum_fs::Error as E;
    let hint = match error {
        E::NotFound(_) => "`vellum snapshots` lists the snapshots, `vellum ls` what is in them",
        E::Exists(_) | E::NameTooLong(_) | E::InvalidArgument(_) => "choose another name",
        E::IsDirectory(_) => "`vellum ls` lists directories, `vellum restore` copies them out",
        E::NoSpace(_) => {
            "free some space on the disk of the repository, then try again; nothing that was stored is lost"
        }
        E::Damaged { .. } => {
            "`vellum check --read-data` names everything that is damaged; other snapshots may hold the same file intact"
        }
        E::ReadOnly(_) => "mount it without `ro`; if its journal is damaged, the log of the mount says where",
        E::Poisoned { .. } => "unmount and mount again; the log of the mount tells the first failure",
        E::Busy(_) => "it is held or in use",
        E::Store(error) => return store_hint(error),
        E::NotDirectory(_)
        | E::NotEmpty(_)
        | E::NotPermitted(_)
        | E::Access(_)
        | E::TooBig(_)
        | E::TooManyLinks(_)
        | E::NoAttribute(_)
        | E::Range(_)
        | E::AttributeTooBig(_)
        | E::Unsupported(_)
        | E::Stale(_)
        | E::BadHandle(_)
        | E::NoData(_)
        | E::CrossDevice(_)
        | E::Loop(_)
        | E::Interrupted => return None,
    };
    Some(hint.to_string())
}

#[cfg(unix)]
fn mount_hint(error: &vellum_fs::fuse::MountError) -> String {
    use vellum_fs::fuse::MountError as E;
    match error {
        E::NoDevice(error) => no_device_hint(error).to_string(),
        E::NoHelper => NO_HELPER_HINT.to_string(),
        E::Refused { .. } => {
            "check that you own the mountpoint; allow_other needs `user_allow_other` in /etc/fuse.conf".to_string()
        }
    }
}

/// What to do without /dev/fuse.
pub fn no_device_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "let this user open it (`chmod 666 /dev/fuse`, as is usual), or mount as root"
        }
        _ => NO_DEVICE_HINT,
    }
}

const NO_DEVICE_HINT: &str =
    "load it with `modprobe fuse`; a container must be given the device (--device /dev/fuse --cap-add SYS_ADMIN)";
/// What to do without the mount helper.
pub const NO_HELPER_HINT: &str = "install the package fuse3, or mount as root";

fn io_exit(source: &io::Error) -> Exit {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::NoSpace,
        io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::Failed,
    }
}

fn io_hint(source: &io::Error) -> Option<String> {
    let hint = match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "check owner and mode of it, and run as the user whom it belongs to; reading works without the right to write: \
             mount with `-o ro`"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the disk is mounted read-only; mount the volume with `-o ro`",
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space, then try again",
        _ => "the end of the message is the answer of the system; when that is put right, try again",
    };
    Some(hint.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_kinds_that_scripts_act_on_have_codes_of_their_own() {
        let wrong = Error::from(vellum_store::Error::WrongKey);
        let locked = vellum_store::Error::Locked { volume: "main".into(), holder: "process 1".into() };
        let damage = vellum_fs::Error::damaged("inode 3", "bad");
        let full = Error::io("write x", io::Error::from(io::ErrorKind::StorageFull));
        let missing = vellum_fs::Error::not_found("snapshot x");
        assert_eq!(wrong.exit() as u8, 5);
        assert_eq!(Error::from(locked).exit() as u8, 4);
        assert_eq!(Error::from(damage).exit() as u8, 3);
        assert_eq!(full.exit() as u8, 7);
        assert_eq!(Error::from(missing).exit() as u8, 6);
    }

    #[test]
    fn an_error_keeps_code_and_hint_across_processes() {
        let report = Error::from(vellum_store::Error::WrongKey).report();
        let text = serde_json::to_string(&report).unwrap();
        let told = Error::Told(serde_json::from_str(&text).unwrap());
        assert_eq!(told.report(), report);
        assert_eq!(told.exit(), Exit::WrongKey);
    }

    #[test]
    fn an_error_is_told_with_its_hint_on_a_line_of_its_own() {
        let error = Error::refused("it will not do", "do something else");
        assert_eq!(error.report().to_string(), "error: it will not do\nhint: do something else");
    }
}
