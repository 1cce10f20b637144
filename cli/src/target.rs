//! From what was typed to what is meant: `REPO#VOLUME`, `TARGET`, `SNAPSHOT:PATH`.
//!
//! *Invariants*
//! 1. A volume that is mounted is asked at its own process; nothing else ever writes to it.
//! 2. A path that exists is taken as it is, even with a `#` in it.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use vellum_store::{
    disk::LocalDisk,
    id::VolumeName,
    lock::{Holder, LockState, read_holder},
};

use crate::{
    context::{VOLUME_DEFAULT, require_repository},
    control::client::{Client, ConnectError},
    error::{Error, Exit, Result},
    sys,
};

/// Longest path of a control socket that is believed.
const SOCKET_PATH_MAX: usize = 4096;

/// A volume of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The repository's directory.
    pub path: PathBuf,
    /// The volume.
    pub volume: VolumeName,
}

/// Where a command's work is done.
#[derive(Debug)]
pub enum Target {
    /// By the process that mounted the volume.
    Mounted(Client),
    /// Here.
    Repository(Source),
}

impl Source {
    /// Reads `REPO` or `REPO#VOLUME`.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let whole = || Ok(Self { path: text.into(), volume: VolumeName::new(VOLUME_DEFAULT)? });
        if Path::new(text).exists() {
            return whole();
        }
        let bytes = text.as_encoded_bytes();
        let Some(at) = bytes.iter().rposition(|&byte| byte == b'#') else { return whole() };
        let volume = String::from_utf8_lossy(&bytes[at + 1..]);
        Ok(Self { path: os_str(&bytes[..at]).into(), volume: VolumeName::new(&volume)? })
    }

    /// Who has the volume open for writing.
    pub fn lock_state(&self) -> Result<LockState> {
        Ok(read_holder(&LocalDisk, &self.path, &self.volume)?)
    }

    /// The error of a volume that somebody else has.
    pub fn locked(&self, holder: Option<&Holder>) -> Error {
        let holder = holder.map_or_else(|| "another process".to_string(), ToString::to_string);
        vellum_store::Error::Locked { volume: self.volume.to_string(), holder }.into()
    }
}

impl Target {
    /// Finds out what was meant.
    pub fn resolve(text: &OsStr) -> Result<Self> {
        if let Some(client) = mounted_at(Path::new(text))? {
            return Ok(Self::Mounted(client));
        }
        let source = Source::parse(text)?;
        require_repository(&source.path)?;
        match source.lock_state()? {
            LockState::Free => Ok(Self::Repository(source)),
            LockState::Held(holder) => match holder.as_ref().and_then(|holder| holder.control_socket.as_deref()) {
                Some(socket) => match Client::connect(socket) {
                    Ok(client) => Ok(Self::Mounted(client)),
                    Err(ConnectError::Gone) => Err(source.locked(holder.as_ref())),
                    Err(error) => Err(error.into_error(socket)),
                },
                None => Err(source.locked(holder.as_ref())),
            },
        }
    }

    /// Finds the repository for a look that never disturbs a mount: it is opened here even while it is mounted.
    pub fn resolve_source(text: &OsStr) -> Result<Source> {
        let Some(mut client) = mounted_at(Path::new(text))? else { return Source::parse(text) };
        let status = client.status()?;
        Ok(Source { path: os_str(&status.repository.0).into(), volume: VolumeName::new(&status.volume)? })
    }
}

/// The process that mounted the volume in which a path lies, if it is in one.
pub fn mounted_at(path: &Path) -> Result<Option<Client>> {
    match control_socket(path) {
        Ok(None) => Ok(None),
        Ok(Some(socket)) => match Client::connect(&socket) {
            Ok(client) => Ok(Some(client)),
            Err(error) => Err(error.into_error(&socket)),
        },
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => Err(dead_mount(path)),
        // What is not there may still be a REPO#VOLUME.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io(format!("look at {}", path.display()), error)),
    }
}

/// What the virtual attribute of a mounted volume tells.
pub fn control_socket(path: &Path) -> io::Result<Option<PathBuf>> {
    let value = sys::get_xattr(path, vellum_fs::fuse::options::CONTROL_XATTR, SOCKET_PATH_MAX)?;
    let socket = value.filter(|value| value.starts_with(b"/"));
    Ok(socket.map(|value| PathBuf::from(os_str(&value))))
}

/// The error of a mount whose process ended without unmounting.
pub fn dead_mount(path: &Path) -> Error {
    let message = format!("the process that mounted {} has ended", path.display());
    let hint = format!("run `vellum umount {}`, then mount again: what was synced is in the journal", path.display());
    Error::told(Exit::Failed, message, hint)
}

/// A path inside a snapshot, as `SNAPSHOT:PATH` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Name of the snapshot, `latest`, or `@` and an instant.
    pub snapshot: Vec<u8>,
    /// The names from the root on; none for the root itself.
    pub names: Vec<Vec<u8>>,
}

impl Inside {
    /// Reads `SNAPSHOT` or `SNAPSHOT:PATH`. Names of snapshots have no colon, instants may: those end at `:/` or at the last
    /// colon that leaves an instant.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_encoded_bytes();
        let at = match bytes.first() {
            Some(b'@') => instant_end(bytes),
            _ => bytes.iter().position(|&byte| byte == b':'),
        };
        let (snapshot, path) = match at {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (bytes, &b""[..]),
        };
        if snapshot.is_empty() {
            let message = format!("{:?} names no snapshot", text.to_string_lossy());
            return Err(Error::usage(message, "write SNAPSHOT or SNAPSHOT:PATH; `vellum snapshots` lists them"));
        }
        let mut names = Vec::new();
        for name in path.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => {
                    let message = format!("{:?} has `..` in it", text.to_string_lossy());
                    return Err(Error::usage(message, "write the path from the root of the snapshot"));
                }
                name => names.push(name.to_vec()),
            }
        }
        Ok(Self { snapshot: snapshot.to_vec(), names })
    }
}

/// Where an instant ends: before `:/`, or, as times have digits around their colons, before a colon that no digit follows.
fn instant_end(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|&at| bytes[at] == b':' && !bytes.get(at + 1).is_some_and(u8::is_ascii_digit))
}

/// Bytes of a name as the system's strings. Windows has no names that are not Unicode in practice; there the lossy form is as good.
pub fn os_str(bytes: &[u8]) -> std::ffi::OsString {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec());
    #[cfg(not(unix))]
    return String::from_utf8_lossy(bytes).into_owned().into();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn inside(text: &str) -> (String, Vec<String>) {
        let inside = Inside::parse(OsStr::new(text)).unwrap();
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        (text(&inside.snapshot), inside.names.iter().map(text).collect())
    }

    #[test]
    fn a_snapshot_ends_at_its_first_colon() {
        assert_eq!(inside("monday"), ("monday".into(), vec![]));
        assert_eq!(inside("monday:/a//b/./c:d"), ("monday".into(), vec!["a".into(), "b".into(), "c:d".into()]));
        assert_eq!(inside("monday:"), ("monday".into(), vec![]));
    }

    #[test]
    fn an_instant_keeps_the_colons_of_its_time() {
        assert_eq!(inside("@2026-11-20T14:05:/a"), ("@2026-11-20T14:05".into(), vec!["a".into()]));
        assert_eq!(inside("@14:05"), ("@14:05".into(), vec![]));
        assert_eq!(inside("@yesterday:docs/x"), ("@yesterday".into(), vec!["docs".into(), "x".into()]));
    }

    #[test]
    fn paths_that_climb_are_refused() {
        assert!(Inside::parse(OsStr::new("monday:a/../b")).is_err());
        assert!(Inside::parse(OsStr::new(":a")).is_err());
    }

    #[test]
    fn a_volume_follows_the_last_hash_unless_the_path_exists() {
        let dir = tempfile::tempdir().unwrap();
        let with_hash = dir.path().join("a#b");
        std::fs::create_dir(&with_hash).unwrap();
        assert_eq!(Source::parse(with_hash.as_os_str()).unwrap().path, with_hash);
        let mut named = with_hash.clone().into_os_string();
        named.push("#work");
        let source = Source::parse(&named).unwrap();
        assert_eq!((source.path, source.volume.as_str()), (with_hash, "work"));
        assert!(Source::parse(OsStr::new("/none#NOT VALID")).is_err());
    }

    #[test]
    fn a_path_outside_of_any_mount_has_no_process() {
        let dir = tempfile::tempdir().unwrap();
        assert!(mounted_at(dir.path()).unwrap().is_none());
        assert!(mounted_at(&dir.path().join("none")).unwrap().is_none());
    }
}
