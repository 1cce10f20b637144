//! Where the journal of a volume that is open for writing lies, remembered until it was closed cleanly.
//!
//! A volume whose process was killed must be opened with the same journal the next time: with another one, what was synced since
//! the last checkpoint would be passed over, and lost with the next checkpoint. Where that was is known to this machine only.
//!
//! *Ordering*: remembered and synced before the volume is opened, forgotten after it was closed.
//!
//! *Format*: `journals/<repository>-<volume>` in the state directory holds the path of the directory, and nothing if the journal
//! lies in the repository.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use vellum_store::id::{RepositoryId, VolumeName};

use crate::{
    error::{Error, Result},
    target::os_str,
};

/// What is remembered about one volume that is open.
#[derive(Debug)]
pub struct JournalPlace {
    file: PathBuf,
    is_new: bool,
}

impl JournalPlace {
    /// Remembers that the journal lies in `dir`, or in the repository; refuses if it was left somewhere else.
    pub fn claim(state_dir: &Path, repository: RepositoryId, volume: &VolumeName, dir: Option<&Path>) -> Result<Self> {
        let file = file_of(state_dir, repository, volume);
        let wanted = dir.map_or(&b""[..], |dir| dir.as_os_str().as_encoded_bytes());
        match fs::read(&file) {
            Ok(left) if left == wanted => return Ok(Self { file, is_new: false }),
            Ok(left) => return Err(left_elsewhere(volume, &left)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(format!("read {}", file.display()), error)),
        }
        write_synced(&file, wanted).map_err(|error| Error::io(format!("write {}", file.display()), error))?;
        Ok(Self { file, is_new: true })
    }

    /// Where a volume keeps its segments below the directory of the option `journal=`: several volumes may share it.
    pub fn below(dir: &Path, repository: RepositoryId, volume: &VolumeName) -> PathBuf {
        dir.join(format!("{repository}-{volume}"))
    }

    /// The directory outside of the repository in which the segments of a volume were left; `None` if they are inside. Fails if
    /// it cannot be told, or if it is not there: what was synced since the last checkpoint would count as never written.
    pub fn left_in(state_dir: &Path, repository: RepositoryId, volume: &VolumeName) -> Result<Option<PathBuf>> {
        let file = file_of(state_dir, repository, volume);
        let left = match fs::read(&file) {
            Ok(left) if left.is_empty() => return Ok(None),
            Ok(left) => left,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("read {}", file.display()), error)),
        };
        let dir = Self::below(Path::new(&os_str(&left)), repository, volume);
        match fs::metadata(&dir) {
            Ok(found) if found.is_dir() => Ok(Some(dir)),
            _ => Err(Error::refused(
                format!("volume {volume} left its journal in {}, and that is not there", dir.display()),
                "make that directory available, as it was when the volume was mounted; if it is lost, make it anew, empty: what was \
                 synced since the last checkpoint is lost with it",
            )),
        }
    }

    /// Nothing is left anywhere: a repair has taken in what there was.
    pub fn forget_left(state_dir: &Path, repository: RepositoryId, volume: &VolumeName) {
        match fs::remove_file(file_of(state_dir, repository, volume)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => log::warn!("journal of volume {volume}: {error}"),
            _ => {}
        }
    }

    /// The volume was closed, and its journal holds nothing that the repository lacks.
    pub fn forget(self) {
        if let Err(error) = fs::remove_file(&self.file) {
            log::warn!("cannot remove {}: {error}", self.file.display());
        }
    }

    /// The volume could not be opened: what was there before is there again.
    pub fn give_up(self) {
        if self.is_new {
            self.forget();
        }
    }
}

fn file_of(state_dir: &Path, repository: RepositoryId, volume: &VolumeName) -> PathBuf {
    state_dir.join("journals").join(format!("{repository}-{volume}"))
}

fn left_elsewhere(volume: &VolumeName, left: &[u8]) -> Error {
    let (place, option) = match left {
        b"" => ("in the repository".to_string(), "without the option journal=".to_string()),
        dir => {
            let dir = PathBuf::from(os_str(dir));
            (format!("in {}", dir.display()), format!("with `-o journal={}`", dir.display()))
        }
    };
    let message = format!("volume {volume} was not closed cleanly, and left its journal {place}");
    Error::refused(message, format!("mount and unmount it once {option}"))
}

fn write_synced(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let new = file.with_extension("new");
    let mut out = File::create(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn segments_are_where_a_mount_puts_them_or_it_is_an_error() {
        let (state, journals) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (repository, volume) = (RepositoryId([7; 16]), VolumeName::new("main").unwrap());
        let left = || JournalPlace::left_in(state.path(), repository, &volume);
        assert_eq!(left().unwrap(), None);
        JournalPlace::claim(state.path(), repository, &volume, None).unwrap().forget();
        let place = JournalPlace::claim(state.path(), repository, &volume, Some(journals.path())).unwrap();
        assert!(left().unwrap_err().to_string().contains("is not there"));
        let dir = JournalPlace::below(journals.path(), repository, &volume);
        fs::create_dir(&dir).unwrap();
        assert_eq!(left().unwrap(), Some(dir));
        place.forget();
        assert_eq!(left().unwrap(), None);
        fs::create_dir(file_of(state.path(), repository, &volume)).unwrap();
        assert!(left().is_err(), "what cannot be read is not nothing");
    }

    #[test]
    fn a_journal_that_was_left_somewhere_is_not_passed_over() {
        let state = tempfile::tempdir().unwrap();
        let (repository, volume) = (RepositoryId([7; 16]), VolumeName::new("main").unwrap());
        let claim = |dir: Option<&str>| JournalPlace::claim(state.path(), repository, &volume, dir.map(Path::new));
        drop(claim(Some("/j")).unwrap());
        let hint = claim(None).unwrap_err().hint().unwrap();
        assert!(hint.contains("-o journal=/j"), "{hint}");
        assert!(claim(Some("/k")).is_err());
        claim(Some("/j")).unwrap().forget();
        drop(claim(None).unwrap());
        assert!(claim(Some("/j")).is_err());
        // One that could not be opened changes nothing.
        claim(None).unwrap().give_up();
        assert!(claim(Some("/j")).is_err());
        claim(None).unwrap().forget();
        claim(Some("/k")).unwrap().give_up();
        claim(None).unwrap();
    }
}
