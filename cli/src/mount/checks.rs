//! What can be told to be wrong before a passphrase is asked for and anything is opened.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use vellum_store::lock::LockState;

use crate::{
    error::{Error, Exit, NO_HELPER_HINT, Result, no_device_hint},
    mount::options::Options,
    target::{self, Source},
};

const DEVICE: &str = "/dev/fuse";
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];
/// Looked into where PATH does not say.
const HELPER_DIRS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/sbin"];
const FUSE_CONFIG: &str = "/etc/fuse.conf";

/// The mountpoint, absolute and without links.
pub fn mountpoint(path: &Path, options: &Options) -> Result<PathBuf> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("the mountpoint {shown} does not exist");
            return Err(Error::told(Exit::NotFound, message, format!("make it with `mkdir {shown}`")));
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => return Err(target::dead_mount(path)),
        Err(error) => return Err(Error::io(format!("look at the mountpoint {shown}"), error)),
    };
    if !metadata.is_dir() {
        return Err(Error::refused(format!("the mountpoint {shown} is not a directory"), "choose an empty directory"));
    }
    let doing = |error| Error::io(format!("look into the mountpoint {shown}"), error);
    if let Some(mut client) = target::mounted_at(path).ok().flatten() {
        let what = client.status().map(|status| format!("{}#{}", status.repository, status.volume));
        let message = format!(
            "{shown} lies in a mounted vellum volume{}",
            what.map(|what| format!(" ({what})")).unwrap_or_default()
        );
        return Err(Error::refused(message, "choose a directory outside of it, or unmount it first"));
    }
    if !options.nonempty && fs::read_dir(path).map_err(doing)?.next().is_some() {
        let message = format!("the mountpoint {shown} is not empty");
        return Err(Error::refused(message, "choose an empty directory, or hide what is in it with `-o nonempty`"));
    }
    path.canonicalize().map_err(doing)
}

/// Refuses places that would be served by the very process that needs them. All paths are absolute and without links.
pub fn places(mountpoint: &Path, repository: &Path, options: &Options, state_dir: &Path) -> Result<()> {
    if mountpoint.starts_with(repository) {
        let message =
            format!("the mountpoint {} lies inside the repository {}", mountpoint.display(), repository.display());
        return Err(Error::refused(message, "choose a directory outside of the repository"));
    }
    let needed = [
        ("the repository", Some(repository)),
        ("the journal", options.journal.as_deref()),
        ("the log", options.log.as_deref()),
        ("the state directory", Some(state_dir)),
    ];
    if let Some(journal) = options.journal.as_deref().filter(|journal| !journal.is_dir()) {
        let message = format!("the directory {} for the journal does not exist", journal.display());
        return Err(Error::told(Exit::NotFound, message, format!("make it with `mkdir {}`", journal.display())));
    }
    for (what, path) in needed {
        if let Some(path) = path.filter(|path| path.starts_with(mountpoint)) {
            let message = format!("{what} {} lies inside the mountpoint {}", path.display(), mountpoint.display());
            return Err(Error::refused(
                message,
                "choose another mountpoint: this one would hide it from vellum itself",
            ));
        }
    }
    Ok(())
}

/// Refuses a volume that somebody has mounted.
pub fn not_mounted(source: &Source, read_only: bool) -> Result<()> {
    match source.lock_state() {
        Ok(LockState::Held(holder)) if !read_only => Err(source.locked(holder.as_ref())),
        Ok(_) => Ok(()),
        // The opening that follows says more.
        Err(_) => Ok(()),
    }
}

/// Refuses what the system lacks for mounting.
pub fn system(options: &Options) -> Result<()> {
    match fs::metadata(DEVICE) {
        Ok(metadata) if metadata.file_type().is_char_device() => {}
        Ok(_) => return Err(Error::refused(format!("{DEVICE} is not a device"), "remove it, then `modprobe fuse`")),
        Err(error) => return Err(Error::refused(format!("{DEVICE} is missing: {error}"), no_device_hint(&error))),
    }
    if let Err(error) = fs::File::options().read(true).write(true).open(DEVICE) {
        return Err(Error::refused(format!("{DEVICE} cannot be opened: {error}"), no_device_hint(&error)));
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    if !has_helper() {
        return Err(Error::refused("fusermount3 was not found", NO_HELPER_HINT));
    }
    if (options.allow_other || options.allow_root) && !others_are_allowed() {
        let message = format!("allow_other and allow_root need `user_allow_other` in {FUSE_CONFIG}");
        return Err(Error::refused(message, "add that line as root, or mount without the option"));
    }
    Ok(())
}

fn has_helper() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(HELPER_DIRS.iter().map(PathBuf::from)).collect();
    dirs.iter().any(|dir| HELPERS.iter().any(|helper| dir.join(helper).is_file()))
        || std::env::var_os("FUSERMOUNT_PATH").is_some_and(|path| Path::new(&path).is_file())
}

fn others_are_allowed() -> bool {
    match fs::read_to_string(FUSE_CONFIG) {
        Ok(text) => text.lines().any(|line| line.trim() == "user_allow_other"),
        // Readable by root and the helper only: the helper decides.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mountpoints_that_cannot_be_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let why = |path: &Path| mountpoint(path, &Options::default()).unwrap_err().report();
        let missing = why(&dir.path().join("none"));
        assert_eq!(missing.exit, Exit::NotFound);
        assert!(missing.message.contains("does not exist"), "{missing}");
        fs::write(dir.path().join("file"), "x").unwrap();
        assert!(why(&dir.path().join("file")).message.contains("not a directory"));
        assert!(why(dir.path()).message.contains("not empty"));
        let hiding = Options { nonempty: true, ..Options::default() };
        mountpoint(dir.path(), &hiding).unwrap();
    }

    #[test]
    fn nothing_that_vellum_needs_may_lie_inside_the_mountpoint() {
        let refused = |mountpoint: &str, repository: &str, state: &str, journal: Option<&str>| {
            let options = Options { journal: journal.map(Into::into), ..Options::default() };
            places(Path::new(mountpoint), Path::new(repository), &options, Path::new(state)).is_err()
        };
        assert!(refused("/repo/mnt", "/repo", "/s", None));
        assert!(refused("/mnt", "/mnt/repo", "/s", None));
        assert!(refused("/mnt", "/mnt", "/s", None));
        assert!(refused("/mnt", "/repo", "/mnt/s", None));
        assert!(refused("/tmp", "/repo", "/s", Some("/tmp")));
        assert!(!refused("/mnt", "/mnt2/repo", "/s", Some("/tmp")));
        assert!(refused("/mnt", "/repo", "/s", Some("/no/such/directory")));
    }
}
