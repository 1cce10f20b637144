//! How far a check that reads every byte came, so that one that was cut off can be taken up again.
//!
//! *Invariants*
//! 1. Packs are read in the order of their ids, so one id tells which have been read.
//! 2. The note only ever saves work: without it, or if it cannot be read, a check begins anew.
//!
//! *Format*: file `<state directory>/<repository id>/.check`, little-endian, `.check` being no name of a volume:
//!
//! | offset | size | field | meaning and check |
//! |---|---|---|---|
//! | 0 | 4 | magic | `VLMC` |
//! | 4 | 4 | version | 0 |
//! | 8 | 104 | sealed | nonce (24), body (64), tag (16); purpose `State`, associated data: fingerprint, `.check` (u32 length, bytes) |
//!
//! The body: last pack that was read (32), when the check began (i64, nanoseconds since 1970), packs (u64), their bytes (u64), damage
//! found in them (u64).

use super::StateDirectory;
use crate::{
    codec::{Reader, Writer},
    crypto::{Purpose, SEAL_OVERHEAD},
    error::{Error, Result},
    format::sealed,
    id::PackId,
};

const MAGIC: [u8; 4] = *b"VLMC";
const VERSION: u32 = 0;
const NAME: &str = ".check";
const BODY_BYTES: usize = 32 + 8 + 8 + 8 + 8;
const FILE_BYTES: usize = 8 + BODY_BYTES + SEAL_OVERHEAD;

/// How far a check that reads every byte came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckNote {
    /// The last pack that was read; those of lower ids were, too.
    pub last: PackId,
    /// When that check began, in nanoseconds since 1970.
    pub began_ns: i64,
    /// Packs that were read.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How much damage was found in them, and told then.
    pub damaged: u64,
}

impl StateDirectory<'_> {
    /// The note of a check that was cut off, if there is one.
    pub fn check_note(&self) -> Result<Option<CheckNote>> {
        let object = format!("note of a check {}", self.root.join(NAME).display());
        let Some(bytes) = self.read_file(NAME, FILE_BYTES, &object)? else { return Ok(None) };
        let mut reader = Reader::new(&bytes, &object);
        sealed::magic_and_version(&mut reader, &object, MAGIC, VERSION)?;
        let sealed = reader.bytes(reader.remaining())?;
        let aad = self.associated_with(NAME);
        let (body, _) = sealed::unseal_any_epoch(self.keyring, Purpose::State, &aad, sealed, &object)?;
        let mut reader = Reader::new(&body, &object);
        let note = CheckNote {
            last: PackId(reader.array()?),
            began_ns: reader.i64()?,
            packs: reader.u64()?,
            bytes: reader.u64()?,
            damaged: reader.u64()?,
        };
        reader.finish()?;
        Ok(Some(note))
    }

    /// Notes how far a check is.
    pub fn note_check(&self, note: &CheckNote) -> Result<()> {
        let mut body = Writer(Vec::with_capacity(BODY_BYTES));
        body.bytes(note.last.as_bytes());
        body.i64(note.began_ns);
        [note.packs, note.bytes, note.damaged].into_iter().for_each(|number| body.u64(number));
        let mut bytes = Writer(Vec::with_capacity(FILE_BYTES));
        bytes.bytes(&MAGIC);
        bytes.u32(VERSION);
        bytes.bytes(&self.keyring.seal(Purpose::State, &self.associated_with(NAME), &body.0));
        self.replace_file(NAME, &bytes.0)
            .map_err(|e| Error::io(format!("write the note of a check {}", self.root.join(NAME).display()), e))
    }

    /// The check has ended.
    pub fn forget_check(&self) -> Result<()> {
        let path = self.root.join(NAME);
        self.remove_if_present(&path)
            .map(drop)
            .map_err(|e| Error::io(format!("remove the note of a check {}", path.display()), e))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::disk::{Disk, MemoryDisk};
    use crate::format::sealed::tests::keyring;
    use crate::id::VolumeName;

    const NOTE: CheckNote = CheckNote { last: PackId([7; 32]), began_ns: -5, packs: 3, bytes: 1 << 40, damaged: 2 };

    #[test]
    fn a_note_comes_back_and_is_no_volume_and_damage_of_it_is_an_error() {
        let disk = MemoryDisk::new();
        disk.create_dir(Path::new("/state")).unwrap();
        let keyring = keyring();
        let states = StateDirectory::new(&disk, Path::new("/state"), &keyring);
        assert_eq!(states.check_note().unwrap(), None);
        states.forget_check().unwrap();
        for packs in [3, 4] {
            states.note_check(&CheckNote { packs, ..NOTE }).unwrap();
            assert_eq!(states.check_note().unwrap(), Some(CheckNote { packs, ..NOTE }));
        }
        assert_eq!(states.volumes().unwrap(), Vec::<VolumeName>::new());
        let path: PathBuf = states.root.join(NAME);
        for at in 0..FILE_BYTES as u64 {
            disk.rot(&path, at, 1).unwrap();
            assert!(states.check_note().is_err(), "byte {at}");
            disk.rot(&path, at, 1).unwrap();
        }
        disk.open_write(&path).unwrap().set_len(FILE_BYTES as u64 - 1).unwrap();
        assert!(states.check_note().unwrap_err().is_damage());
        states.forget_check().unwrap();
        assert_eq!(states.check_note().unwrap(), None);
    }
}
