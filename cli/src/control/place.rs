//! Where control sockets lie: in a directory of the user's own that nobody else can enter.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Names of sockets begin like this.
pub const SOCKET_PREFIX: &str = "mount-";
/// And end like this.
pub const SOCKET_SUFFIX: &str = ".sock";

/// The directory of this user's sockets, made if it is missing.
pub fn runtime_dir() -> Result<PathBuf> {
    let dir = wanted();
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io(format!("create {}", dir.display()), error)),
    }
    check(&dir)?;
    Ok(dir)
}

/// The socket of this process.
pub fn socket_path() -> Result<PathBuf> {
    Ok(runtime_dir()?.join(format!("{SOCKET_PREFIX}{}{SOCKET_SUFFIX}", std::process::id())))
}

/// The sockets of this user, of processes that live and of those that were killed.
pub fn sockets() -> Result<Vec<PathBuf>> {
    let dir = wanted();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("list {}", dir.display()), error)),
    };
    let is_socket = |name: &str| name.starts_with(SOCKET_PREFIX) && name.ends_with(SOCKET_SUFFIX);
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_socket))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}

fn wanted() -> PathBuf {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return "/run/vellum".into();
    }
    match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir()) {
        Some(dir) => dir.join("vellum"),
        None => format!("/tmp/vellum-{uid}").into(),
    }
}

/// Refuses a directory that another user made or can enter: whoever owns it could put a socket of their own there.
fn check(dir: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(dir).map_err(|error| Error::io(format!("look at {}", dir.display()), error))?;
    let is_own = metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw();
    if !is_own || metadata.mode() & 0o077 != 0 {
        let message = format!("{} is not a directory that only this user can enter", dir.display());
        return Err(Error::refused(
            message,
            "remove it, or set XDG_RUNTIME_DIR to a directory of your own (mode 0700)",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        check(dir.path()).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o710)).unwrap();
        assert!(check(dir.path()).is_err());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(check(&link).is_err(), "a link could lead anywhere");
    }
}
