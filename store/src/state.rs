//! What this machine remembers of a volume, outside the repository, so that an older or forked history is not taken for the newest.
//!
//! *Invariants*
//! 1. The file is replaced as a whole: after power loss it is the former or the new one.
//! 2. It tells by the key's fingerprint that a repository of the same identity has another key, before anything is unsealed.
//! 3. Damage is an error, never taken for a first contact.
//!
//! *Ordering*: written after a head is durable and before its commit is reported: temporary name, `fdatasync`, rename, directory
//! sync. So what is remembered is never newer than the repository, unless that was rolled back.
//!
//! *Threads*: one writer for each volume, the holder of its lock.
//!
//! *Format*: file `<state directory>/<repository id>/<volume>`, little-endian:
//!
//! | offset | size | field | meaning and check |
//! |---|---|---|---|
//! | 0 | 4 | magic | `VLMS` |
//! | 4 | 4 | version | 0 |
//! | 8 | 16 | fingerprint | of the master key |
//! | 24 | 1128 | sealed | nonce (24), body (1088), tag (16); purpose `State`, associated data: fingerprint, volume (u32 length, bytes) |
//!
//! The body: sequence (u64), head hash (32), time (i64, nanoseconds since 1970), reserved (16, zero), the head's sealed bytes (1024).
//!
//! *Not here*: proving that a newer head descends from the remembered one (the head log in the tree, `fs`).

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::codec::{Reader, Writer};
use crate::crypto::{Keyring, Purpose, SEAL_OVERHEAD};
use crate::disk::{Disk, EntryKind};
use crate::error::{Error, Result};
use crate::format::head::{HEAD_BYTES, Head};
use crate::format::sealed;
use crate::id::{HeadHash, VolumeName};

mod checked;

pub use checked::{Checked, CheckedList, Mark};

const MAGIC: [u8; 4] = *b"VLMS";
const VERSION: u32 = 0;
const FINGERPRINT_BYTES: usize = 16;
const BODY_BYTES: usize = 8 + 32 + 8 + 16 + HEAD_BYTES;
const FILE_BYTES: usize = 8 + FINGERPRINT_BYTES + BODY_BYTES + SEAL_OVERHEAD;

/// The newest head of a volume that this machine has published or accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its sequence.
    pub sequence: u64,
    /// Its hash.
    pub hash: HeadHash,
    /// When it was remembered, for people.
    pub time_ns: i64,
    /// Its sealed bytes, from which a damaged head is restored.
    pub head: Vec<u8>,
}

/// How a head in the repository relates to the remembered one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is that head.
    Same,
    /// It is newer; whether it descends from the remembered one is still to be proved.
    Newer,
}

impl Remembered {
    /// What to remember of a head's sealed bytes.
    pub fn new(sequence: u64, head: Vec<u8>, time_ns: i64) -> Self {
        Self { sequence, hash: HeadHash::of(&head), time_ns, head }
    }

    /// Compares with the newest head seen; an older one, or another one of the same sequence, is [`Error::Rollback`].
    pub fn compare(&self, volume: &VolumeName, sequence: u64, hash: HeadHash) -> Result<Relation> {
        let rollback = |what: String| Err(Error::Rollback { volume: volume.to_string(), what });
        if sequence < self.sequence {
            return rollback(format!("its newest head is {sequence}, this machine remembers {}", self.sequence));
        }
        if sequence > self.sequence {
            return Ok(Relation::Newer);
        }
        match hash == self.hash {
            true => Ok(Relation::Same),
            false => rollback(format!("head {sequence} is {hash}, this machine remembers {}", self.hash)),
        }
    }

    /// Checks the hash that a newer history has at the remembered sequence.
    pub fn check_ancestor(&self, volume: &VolumeName, at_remembered_sequence: HeadHash) -> Result<()> {
        if at_remembered_sequence == self.hash {
            return Ok(());
        }
        let what = format!(
            "it went another way after head {}: the history has {at_remembered_sequence} there",
            self.sequence - 1
        );
        Err(Error::Rollback { volume: volume.to_string(), what })
    }
}

/// The state directory, as used for one repository.
#[derive(Debug)]
pub struct StateDirectory<'a> {
    disk: &'a dyn Disk,
    keyring: &'a Keyring,
    root: PathBuf,
}

impl<'a> StateDirectory<'a> {
    /// Uses `state_dir`, which must exist before anything is stored.
    pub fn new(disk: &'a dyn Disk, state_dir: &Path, keyring: &'a Keyring) -> Self {
        Self { disk, keyring, root: state_dir.join(keyring.repository().to_hex()) }
    }

    /// What is remembered of a volume; `None` at first contact. [`Error::Rollback`] if the repository had another key then.
    pub fn load(&self, volume: &VolumeName) -> Result<Option<Remembered>> {
        let path = self.path(volume);
        let doing = || format!("read remembered state {}", path.display());
        let Some(info) = self.disk.metadata(&path).map_err(|e| Error::io(doing(), e))? else { return Ok(None) };
        let object = format!("remembered state {}", path.display());
        if info.len != FILE_BYTES as u64 {
            return Err(Error::corrupt(object, format!("{} bytes instead of {FILE_BYTES}", info.len)));
        }
        let mut bytes = [0; FILE_BYTES];
        let read = self.disk.open_read(&path).and_then(|file| file.read_exact_at(&mut bytes, 0));
        match read {
            Ok(()) => self.decode(volume, &bytes, &object).map(Some),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Error::corrupt(object, "it ends early")),
            Err(e) => Err(Error::io(doing(), e)),
        }
    }

    /// Remembers a head; durable on return.
    pub fn store(&self, volume: &VolumeName, remembered: &Remembered) -> Result<()> {
        let path = self.path(volume);
        let bytes = self.encode(volume, remembered)?;
        let unfinished = path.with_file_name(format!(".{volume}.new"));
        let stored = self.create_root().and_then(|()| {
            self.remove_if_present(&unfinished)?;
            let file = self.disk.create_new(&unfinished)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            self.disk.rename(&unfinished, &path)?;
            self.disk.sync_dir(&self.root)
        });
        stored.map_err(|e| Error::io(format!("write remembered state {}", path.display()), e))
    }

    /// Forgets a volume, so that what is seen next is taken as a first contact.
    pub fn forget(&self, volume: &VolumeName) -> Result<()> {
        let path = self.path(volume);
        self.remove_if_present(&path)
            .and_then(|removed| if removed { self.disk.sync_dir(&self.root) } else { Ok(()) })
            .map_err(|e| Error::io(format!("remove remembered state {}", path.display()), e))
    }

    /// The volumes of which something is remembered.
    pub fn volumes(&self) -> Result<Vec<VolumeName>> {
        let mut volumes = Vec::new();
        let listed = self.disk.list_dir(&self.root, &mut |name, kind| {
            if kind == EntryKind::File {
                volumes.extend(name.to_str().and_then(|text| VolumeName::new(text).ok()));
            }
            ControlFlow::Continue(())
        });
        match listed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(volumes),
            other => other.map(|()| volumes).map_err(|e| Error::io(format!("list {}", self.root.display()), e)),
        }
    }

    fn path(&self, volume: &VolumeName) -> PathBuf {
        self.root.join(volume.as_str())
    }

    fn create_root(&self) -> io::Result<()> {
        self.disk.create_dir(&self.root)?;
        // Also if it was there: an earlier process may have died before it could sync.
        self.root.parent().map_or(Ok(()), |parent| self.disk.sync_dir(parent))
    }

    fn remove_if_present(&self, path: &Path) -> io::Result<bool> {
        match self.disk.remove(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn encode(&self, volume: &VolumeName, remembered: &Remembered) -> Result<Vec<u8>> {
        Head::decode(self.keyring, volume, remembered.sequence, &remembered.head)?;
        let mut body = Writer(Vec::with_capacity(BODY_BYTES));
        body.u64(remembered.sequence);
        body.bytes(remembered.hash.as_bytes());
        body.i64(remembered.time_ns);
        body.bytes(&[0; 16]);
        body.bytes(&remembered.head);
        let mut bytes = Writer(Vec::with_capacity(FILE_BYTES));
        bytes.bytes(&MAGIC);
        bytes.u32(VERSION);
        bytes.bytes(&self.keyring.fingerprint());
        bytes.bytes(&self.keyring.seal(Purpose::State, &self.associated(volume), &body.0));
        Ok(bytes.0)
    }

    fn decode(&self, volume: &VolumeName, bytes: &[u8], object: &str) -> Result<Remembered> {
        let mut reader = Reader::new(bytes, object);
        sealed::magic_and_version(&mut reader, object, MAGIC, VERSION)?;
        if reader.array::<FINGERPRINT_BYTES>()? != self.keyring.fingerprint() {
            let what = "it has another master key than the repository that this machine remembers".to_string();
            return Err(Error::Rollback { volume: volume.to_string(), what });
        }
        let sealed = reader.bytes(reader.remaining())?;
        let (body, _) =
            sealed::unseal_any_epoch(self.keyring, Purpose::State, &self.associated(volume), sealed, object)?;
        let mut reader = Reader::new(&body, object);
        let (sequence, hash, time_ns) = (reader.u64()?, HeadHash(reader.array()?), reader.i64()?);
        reader.zeros(16)?;
        let head = reader.bytes(HEAD_BYTES)?.to_vec();
        reader.finish()?;
        if sequence == 0 || HeadHash::of(&head) != hash {
            return Err(Error::corrupt(object, "its parts contradict each other"));
        }
        Ok(Remembered { sequence, hash, time_ns, head })
    }

    /// What the state of a volume is bound to.
    pub(crate) fn associated(&self, volume: &VolumeName) -> Vec<u8> {
        self.associated_with(volume.as_str())
    }

    fn associated_with(&self, name: &str) -> Vec<u8> {
        let mut aad = Writer(Vec::with_capacity(FINGERPRINT_BYTES + 68));
        aad.bytes(&self.keyring.fingerprint());
        aad.var_bytes(name.as_bytes());
        aad.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::format::head::tests::sample;
    use crate::format::sealed::tests::{keyring, keyring_of};

    fn main() -> VolumeName {
        VolumeName::new("main").unwrap()
    }

    fn root() -> PathBuf {
        PathBuf::from("/state")
    }

    fn disk() -> MemoryDisk {
        let disk = MemoryDisk::new();
        disk.create_dir(&root()).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk
    }

    fn remembered(keyring: &Keyring, sequence: u64) -> Remembered {
        let mut head = sample(sequence, HeadHash([1; 32]));
        head.key_epoch = keyring.epoch();
        Remembered::new(sequence, head.encode(keyring, &main()), 5)
    }

    #[test]
    fn what_is_stored_survives_power_loss_and_a_crash_leaves_the_former_or_the_new() {
        let (disk, keyring) = (disk(), keyring());
        let state = StateDirectory::new(&disk, &root(), &keyring);
        assert_eq!(state.load(&main()).unwrap(), None);
        let (first, second) = (remembered(&keyring, 4), remembered(&keyring, 5));
        state.store(&main(), &first).unwrap();
        let crashed = disk.crash();
        let state = StateDirectory::new(&crashed, &root(), &keyring);
        assert_eq!(state.load(&main()).unwrap(), Some(first));
        assert_eq!(state.load(&VolumeName::new("other").unwrap()).unwrap(), None);
        state.store(&main(), &second).unwrap();
        state.store(&main(), &second).unwrap();
        let again = crashed.crash();
        let state = StateDirectory::new(&again, &root(), &keyring);
        assert_eq!(state.load(&main()).unwrap(), Some(second));
        state.forget(&main()).unwrap();
        state.forget(&main()).unwrap();
        let forgotten = again.crash();
        assert_eq!(StateDirectory::new(&forgotten, &root(), &keyring).load(&main()).unwrap(), None);
    }

    #[test]
    fn a_leftover_of_a_dead_process_does_not_stop_the_next_store() {
        let (disk, keyring) = (disk(), keyring());
        let state = StateDirectory::new(&disk, &root(), &keyring);
        state.store(&main(), &remembered(&keyring, 4)).unwrap();
        disk.create_new(&state.root.join(".main.new")).unwrap();
        state.store(&main(), &remembered(&keyring, 5)).unwrap();
        assert_eq!(state.load(&main()).unwrap().unwrap().sequence, 5);
    }

    #[test]
    fn older_and_forked_histories_are_refused_and_newer_ones_need_a_proof() {
        let remembered = remembered(&keyring(), 4);
        let compare = |sequence, hash| remembered.compare(&main(), sequence, hash);
        assert_eq!(compare(4, remembered.hash).unwrap(), Relation::Same);
        assert_eq!(compare(5, HeadHash([0; 32])).unwrap(), Relation::Newer);
        assert!(matches!(compare(3, remembered.hash), Err(Error::Rollback { .. })));
        assert!(matches!(compare(4, HeadHash([0; 32])), Err(Error::Rollback { .. })));
        assert!(remembered.check_ancestor(&main(), remembered.hash).is_ok());
        assert!(matches!(remembered.check_ancestor(&main(), HeadHash([0; 32])), Err(Error::Rollback { .. })));
    }

    #[test]
    fn another_master_key_is_told_apart_from_damage_and_from_a_rotation() {
        let (disk, keyring) = (disk(), keyring());
        StateDirectory::new(&disk, &root(), &keyring).store(&main(), &remembered(&keyring, 4)).unwrap();
        let rotated = keyring_of(1, 3);
        let state = StateDirectory::new(&disk, &root(), &rotated);
        assert_eq!(state.load(&main()).unwrap().unwrap().sequence, 4);
        let other = keyring_of(2, 0);
        let mut state = StateDirectory::new(&disk, &root(), &other);
        state.root = root().join(keyring.repository().to_hex());
        assert!(matches!(state.load(&main()), Err(Error::Rollback { .. })));
    }

    #[test]
    fn damage_is_never_taken_for_a_first_contact() {
        let (disk, keyring) = (disk(), keyring());
        let state = StateDirectory::new(&disk, &root(), &keyring);
        state.store(&main(), &remembered(&keyring, 4)).unwrap();
        let path = state.path(&main());
        for offset in 0..FILE_BYTES {
            disk.rot(&path, offset as u64, 1).unwrap();
            assert!(state.load(&main()).is_err(), "byte {offset}");
            disk.rot(&path, offset as u64, 1).unwrap();
        }
        for length in [0, 1, FILE_BYTES - 1, FILE_BYTES + 1] {
            disk.open_write(&path).unwrap().set_len(length as u64).unwrap();
            assert!(state.load(&main()).unwrap_err().is_damage(), "length {length}");
        }
    }

    #[test]
    fn only_heads_that_unseal_are_remembered() {
        let (disk, keyring) = (disk(), keyring());
        let state = StateDirectory::new(&disk, &root(), &keyring);
        let mut bad = remembered(&keyring, 4);
        bad.sequence = 5;
        assert!(state.store(&main(), &bad).unwrap_err().is_damage());
    }
}
