//! Which packs a check has read whole, so that one that was cut off can be taken up again.
//!
//! *Invariants*
//! 1. A pack is listed only after every byte of it was read and found right, and as the very file that it was then: a copy of the repository,
//!    and a pack that took another's place, are read again. A block copy of a disk has the same files; it takes a restart of the machine, as a
//!    rule, to put one in the place of the other, and after that no mark fits.
//! 2. There is one list, that of the check that began last. It is gone once that check has ended, or another has begun.
//! 3. A list that is too old counts as none: what was right then may have rotted.
//! 4. The list only ever saves work: what cannot be read of it is read again in the packs.
//!
//! *Format*: file `<state directory>/<repository id>/.checked`, which no volume's name can be, little-endian:
//!
//! | offset | size | field | meaning and check |
//! |---|---|---|---|
//! | 0 | 4 | magic | `VLMC` |
//! | 4 | 4 | version | 0 |
//! | 8 | 16 | list | random, another one for each list |
//! | 24 | - | frames | one after the other to the end; one that is torn or does not unseal ends the list |
//!
//! A frame: its length (u32), nonce (24), body, tag (16); purpose `State`, associated data: fingerprint of the master key (16), `.checked` (u32
//! length, bytes), list (16), number of the frame from 0 (u64). The body of frame 0: when the check began (i64, nanoseconds since 1970). That of
//! the others: bytes of the packs in it (u64), and for each a mark: the first 16 bytes of the BLAKE3 hash of pack (32), length (u64), device
//! (u64), file (u64), last change (i64), and the identity of the machine's present run.
//!
//! *Ordering*: the removal of a list is synced; what is added to one is not, since that costs no more than reading again.
//!
//! *Bounds*: 16 bytes a pack in the file, about 20 in memory.

use std::{collections::HashSet, io, path::PathBuf};

use super::StateDirectory;
use crate::{
    codec::{Reader, Writer},
    crypto::{Purpose, SEAL_OVERHEAD, random},
    disk::{DiskFile, DiskLock, FileIdentity},
    error::{Error, Result},
    format::sealed,
    id::PackId,
};

const MAGIC: [u8; 4] = *b"VLMC";
const VERSION: u32 = 0;
const NAME: &str = ".checked";
const LOCK: &str = ".checked.lock";
const LIST_BYTES: usize = 16;
const PREAMBLE_BYTES: usize = 8 + LIST_BYTES;
const MARK_BYTES: usize = 16;
/// Nanoseconds after which what was read is read again: 30 days.
const AGE_MAX_NS: i64 = 30 * 24 * 3600 * 1_000_000_000;
/// Packs in one frame.
const MARKS_MAX: usize = 4096;
const FRAME_BYTES_MAX: usize = SEAL_OVERHEAD + 8 + MARKS_MAX * MARK_BYTES;

/// A pack, as the file that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark([u8; MARK_BYTES]);

impl Mark {
    /// What tells the file with this pack from any other, and from itself after a change. `boot_id` is that of [`crate::lock::Holder`].
    pub fn new(pack: &PackId, length: u64, file: &FileIdentity, boot_id: &str) -> Self {
        let mut bytes = Writer(Vec::with_capacity(32 + 4 * 8 + boot_id.len()));
        bytes.bytes(pack.as_bytes());
        [length, file.device, file.file].into_iter().for_each(|number| bytes.u64(number));
        bytes.i64(file.changed_ns);
        bytes.bytes(boot_id.as_bytes());
        let mut mark = [0; MARK_BYTES];
        mark.copy_from_slice(&blake3::hash(&bytes.0).as_bytes()[..MARK_BYTES]);
        Self(mark)
    }
}

/// What a list says of the check that made it.
#[derive(Debug, Default)]
pub struct Checked {
    /// When it began, in nanoseconds since 1970; `None` if there was no list.
    pub began_ns: Option<i64>,
    /// The packs that it read and found right.
    pub packs: HashSet<Mark>,
}

impl Checked {
    fn counts_at(&self, now_ns: i64) -> bool {
        self.began_ns.is_some_and(|began_ns| (0..=AGE_MAX_NS).contains(&now_ns.saturating_sub(began_ns)))
    }
}

/// The list of the check that runs. Nobody else has one of this repository on this machine.
#[derive(Debug)]
pub struct CheckedList<'a> {
    states: StateDirectory<'a>,
    file: Box<dyn DiskFile>,
    list: [u8; LIST_BYTES],
    /// Where the next frame goes, and its number.
    end: u64,
    number: u64,
    /// What the next frame will hold.
    marks: Vec<Mark>,
    bytes: u64,
    _lock: Box<dyn DiskLock>,
}

impl<'a> CheckedList<'a> {
    /// A new list in the place of any other; `None` if a check that runs has one.
    pub fn begin(states: StateDirectory<'a>, began_ns: i64) -> Result<Option<Self>> {
        let Some(lock) = states.lock_checked()? else { return Ok(None) };
        states.remove_checked()?;
        Self::create(states, began_ns, lock).map(Some)
    }

    /// The list of a check that was cut off, and what is in it, or a new one if there is none that counts; `None` if a check that runs has one.
    pub fn resume(states: StateDirectory<'a>, now_ns: i64) -> Result<Option<(Self, Checked)>> {
        let Some(lock) = states.lock_checked()? else { return Ok(None) };
        let path = states.checked_path();
        let file = match states.disk.open_write(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Some((Self::create(states, now_ns, lock)?, Checked::default())));
            }
            Err(e) => return Err(Error::io(format!("read {}", path.display()), e)),
        };
        match read_all(&states, &*file) {
            Ok((checked, list, end, number)) if checked.counts_at(now_ns) => {
                let resumed = Self { states, file, list, end, number, marks: Vec::new(), bytes: 0, _lock: lock };
                Ok(Some((resumed, checked)))
            }
            Err(error @ Error::Io { .. }) => Err(error),
            unusable => {
                let why = unusable.err().map_or("it is too old".to_string(), |error| error.to_string());
                log::warn!("what the last check has read does not count: {why}");
                states.remove_checked()?;
                Ok(Some((Self::create(states, now_ns, lock)?, Checked::default())))
            }
        }
    }

    /// The check has ended, and nothing is left to go on with; durable on return.
    pub fn end(self) -> Result<()> {
        self.states.remove_checked()
    }

    fn create(states: StateDirectory<'a>, began_ns: i64, lock: Box<dyn DiskLock>) -> Result<Self> {
        let path = states.checked_path();
        let list = random();
        let mut preamble = Writer(Vec::with_capacity(PREAMBLE_BYTES));
        preamble.bytes(&MAGIC);
        preamble.u32(VERSION);
        preamble.bytes(&list);
        let created = states.disk.create_new(&path).and_then(|file| {
            file.write_all_at(&preamble.0, 0)?;
            Ok(file)
        });
        let file = created.map_err(|e| Error::io(format!("write {}", path.display()), e))?;
        let end = PREAMBLE_BYTES as u64;
        let mut new = Self { states, file, list, end, number: 0, marks: Vec::new(), bytes: 0, _lock: lock };
        new.append(&began_ns.to_le_bytes())?;
        Ok(new)
    }

    /// Notes a pack that was read whole and found right. It is in the list after the next [`Self::write`].
    pub fn add(&mut self, mark: Mark, length: u64) -> Result<()> {
        self.marks.push(mark);
        self.bytes += length;
        if self.marks.len() == MARKS_MAX { self.write() } else { Ok(()) }
    }

    /// Writes what was noted.
    pub fn write(&mut self) -> Result<()> {
        if self.marks.is_empty() {
            return Ok(());
        }
        let mut body = Writer(Vec::with_capacity(8 + self.marks.len() * MARK_BYTES));
        body.u64(std::mem::take(&mut self.bytes));
        self.marks.drain(..).for_each(|mark| body.bytes(&mark.0));
        self.append(&body.0)
    }

    fn append(&mut self, body: &[u8]) -> Result<()> {
        let aad = self.states.checked_associated(&self.list, self.number);
        let sealed = self.states.keyring.seal(Purpose::State, &aad, body);
        let mut frame = Writer(Vec::with_capacity(4 + sealed.len()));
        frame.u32(sealed.len() as u32);
        frame.bytes(&sealed);
        let written = self.file.write_all_at(&frame.0, self.end);
        written.map_err(|e| Error::io(format!("write {}", self.states.checked_path().display()), e))?;
        self.end += frame.0.len() as u64;
        self.number += 1;
        Ok(())
    }
}

/// What a list holds, its name, and where it ends: in bytes, and in frames.
fn read_all(states: &StateDirectory<'_>, file: &dyn DiskFile) -> Result<(Checked, [u8; LIST_BYTES], u64, u64)> {
    let object = format!("list of packs that were read {}", states.checked_path().display());
    let read = |length: usize, offset: u64| {
        let mut bytes = vec![0; length];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Error::corrupt(&object, "it ends early")),
            Err(e) => Err(Error::io(format!("read {object}"), e)),
        }
    };
    let preamble = read(PREAMBLE_BYTES, 0)?;
    let mut reader = Reader::new(&preamble, &object);
    sealed::magic_and_version(&mut reader, &object, MAGIC, VERSION)?;
    let list: [u8; LIST_BYTES] = reader.array()?;
    let frame = |offset: u64, number: u64| {
        let length = Reader::new(&read(4, offset)?, &object).u32()? as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Error::corrupt(&object, "the length of a frame is out of bounds"));
        }
        let aad = states.checked_associated(&list, number);
        let sealed = read(length, offset + 4)?;
        let (body, _) = sealed::unseal_any_epoch(states.keyring, Purpose::State, &aad, &sealed, &object)?;
        Ok((body, offset + 4 + length as u64))
    };
    let (body, mut end) = frame(PREAMBLE_BYTES as u64, 0)?;
    let mut reader = Reader::new(&body, &object);
    let began_ns = Some(reader.i64()?);
    reader.finish()?;
    let (mut checked, mut number) = (Checked { began_ns, packs: HashSet::new() }, 1);
    loop {
        match frame(end, number) {
            Ok((body, next)) => {
                let mut reader = Reader::new(&body, &object);
                reader.u64()?;
                while reader.remaining() > 0 {
                    checked.packs.insert(Mark(reader.array()?));
                }
                (end, number) = (next, number + 1);
            }
            Err(error) if error.is_damage() => return Ok((checked, list, end, number)),
            Err(error) => return Err(error),
        }
    }
}

impl StateDirectory<'_> {
    fn checked_path(&self) -> PathBuf {
        self.root.join(NAME)
    }

    /// What a frame of a list is bound to.
    fn checked_associated(&self, list: &[u8; LIST_BYTES], number: u64) -> Vec<u8> {
        let mut aad = Writer(self.associated_with(NAME));
        aad.bytes(list);
        aad.u64(number);
        aad.0
    }

    fn lock_checked(&self) -> Result<Option<Box<dyn DiskLock>>> {
        let path = self.root.join(LOCK);
        let locked = self.create_root().and_then(|()| self.disk.lock(&path, true));
        locked.map_err(|e| Error::io(format!("lock {}", path.display()), e))
    }

    fn remove_checked(&self) -> Result<()> {
        let path = self.checked_path();
        self.remove_if_present(&path)
            .and_then(|removed| if removed { self.disk.sync_dir(&self.root) } else { Ok(()) })
            .map_err(|e| Error::io(format!("remove {}", path.display()), e))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, MemoryDisk};
    use crate::format::sealed::tests::keyring;
    use crate::id::VolumeName;

    const FILE: FileIdentity = FileIdentity { device: 1, file: 2, changed_ns: 3 };

    fn mark(number: u8) -> Mark {
        Mark::new(&PackId([number; 32]), 5, &FILE, "boot")
    }

    fn new_disk() -> MemoryDisk {
        let disk = MemoryDisk::new();
        disk.create_dir(Path::new("/state")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk
    }

    /// What going on would find, on a disk of its own.
    fn found(disk: &MemoryDisk) -> (Option<i64>, Vec<u8>) {
        let (disk, keyring) = (disk.kill(), keyring());
        let states = || StateDirectory::new(&disk, Path::new("/state"), &keyring);
        let (_, checked) = CheckedList::resume(states(), 99).unwrap().unwrap();
        let numbers = (0..=u8::MAX).filter(|&number| checked.packs.contains(&mark(number)));
        let numbers: Vec<u8> = numbers.collect();
        assert_eq!(numbers.len(), checked.packs.len());
        (checked.began_ns, numbers)
    }

    #[test]
    fn a_mark_is_another_for_each_thing_that_can_differ() {
        let others = [
            Mark::new(&PackId([2; 32]), 5, &FILE, "boot"),
            Mark::new(&PackId([1; 32]), 6, &FILE, "boot"),
            Mark::new(&PackId([1; 32]), 5, &FileIdentity { device: 2, ..FILE }, "boot"),
            Mark::new(&PackId([1; 32]), 5, &FileIdentity { file: 3, ..FILE }, "boot"),
            Mark::new(&PackId([1; 32]), 5, &FileIdentity { changed_ns: 4, ..FILE }, "boot"),
            Mark::new(&PackId([1; 32]), 5, &FILE, "another"),
        ];
        assert!(others.iter().all(|&other| other != mark(1)));
        assert_eq!(others.iter().collect::<HashSet<_>>().len(), others.len());
    }

    #[test]
    fn what_was_written_is_found_until_the_check_ends_or_another_begins() {
        let (disk, keyring) = (new_disk(), keyring());
        let states = || StateDirectory::new(&disk, Path::new("/state"), &keyring);
        assert_eq!(found(&disk), (None, vec![]));
        let mut list = CheckedList::begin(states(), 7).unwrap().unwrap();
        list.write().unwrap();
        assert_eq!(found(&disk), (Some(7), vec![]));
        (1..4).for_each(|number| list.add(mark(number), 5).unwrap());
        assert_eq!(found(&disk), (Some(7), vec![]), "not written yet");
        list.write().unwrap();
        assert_eq!(found(&disk), (Some(7), vec![1, 2, 3]));
        assert!(CheckedList::begin(states(), 8).unwrap().is_none(), "one at a time");
        assert!(CheckedList::resume(states(), 8).unwrap().is_none());
        drop(list);
        let (mut list, checked) = CheckedList::resume(states(), 8).unwrap().unwrap();
        assert_eq!((checked.began_ns, checked.packs.len()), (Some(7), 3));
        list.add(mark(9), 5).unwrap();
        list.write().unwrap();
        assert_eq!(found(&disk), (Some(7), vec![1, 2, 3, 9]));
        list.end().unwrap();
        assert_eq!(found(&disk.crash()), (None, vec![]));
        let mut list = CheckedList::begin(states(), 10).unwrap().unwrap();
        list.add(mark(4), 5).unwrap();
        list.write().unwrap();
        drop(list);
        let list = CheckedList::begin(states(), 11).unwrap().unwrap();
        drop(list);
        assert_eq!(found(&disk), (Some(11), vec![]));
        assert_eq!(states().volumes().unwrap(), Vec::<VolumeName>::new());
    }

    #[test]
    fn a_list_counts_for_a_month() {
        let (disk, keyring) = (new_disk(), keyring());
        let states = || StateDirectory::new(&disk, Path::new("/state"), &keyring);
        for (age_ns, counts) in [(0, true), (AGE_MAX_NS, true), (AGE_MAX_NS + 1, false), (-1, false)] {
            let mut list = CheckedList::begin(states(), 7).unwrap().unwrap();
            list.add(mark(1), 5).unwrap();
            list.write().unwrap();
            drop(list);
            let (_, checked) = CheckedList::resume(states(), 7 + age_ns).unwrap().unwrap();
            assert_eq!((checked.began_ns, checked.packs.len()), (counts.then_some(7), usize::from(counts)), "{age_ns}");
        }
    }

    #[test]
    fn many_packs_take_several_frames() {
        let (disk, keyring) = (new_disk(), keyring());
        let states = || StateDirectory::new(&disk, Path::new("/state"), &keyring);
        let mut list = CheckedList::begin(states(), 7).unwrap().unwrap();
        let marks: HashSet<Mark> =
            (0..MARKS_MAX as u64 * 2 + 1).map(|length| Mark::new(&PackId([0; 32]), length, &FILE, "boot")).collect();
        marks.iter().for_each(|&mark| list.add(mark, 1).unwrap());
        list.write().unwrap();
        assert_eq!(list.number, 4);
        drop(list);
        assert_eq!(CheckedList::resume(states(), 8).unwrap().unwrap().1.packs, marks);
    }

    #[test]
    fn damage_costs_what_comes_after_it_and_says_of_no_pack_that_it_was_read() {
        let (disk, keyring) = (new_disk(), keyring());
        let states = || StateDirectory::new(&disk, Path::new("/state"), &keyring);
        let mut list = CheckedList::begin(states(), 7).unwrap().unwrap();
        let mut ends = vec![list.end];
        for number in 1..4 {
            list.add(mark(number), 5).unwrap();
            list.write().unwrap();
            ends.push(list.end);
        }
        let (path, length) = (states().checked_path(), list.end);
        drop(list);
        // Packs whose frames lie before that byte, if the head of the list does.
        let kept = |at: u64| {
            let frames = ends.iter().filter(|&&end| end <= at).count();
            let began = (frames > 0).then_some(7);
            (began, (1..frames.max(1) as u8).collect::<Vec<u8>>())
        };
        for at in 0..length {
            disk.rot(&path, at, 1).unwrap();
            assert_eq!(found(&disk), kept(at), "byte {at}");
            disk.rot(&path, at, 1).unwrap();
            let cut = disk.kill();
            cut.open_write(&path).unwrap().set_len(at).unwrap();
            assert_eq!(found(&cut), kept(at), "length {at}");
        }
        assert_eq!(found(&disk), kept(length));
    }

    #[test]
    fn what_goes_on_after_damage_takes_the_place_of_what_was_damaged() {
        let (disk, keyring) = (new_disk(), keyring());
        let states = || StateDirectory::new(&disk, Path::new("/state"), &keyring);
        let mut list = CheckedList::begin(states(), 7).unwrap().unwrap();
        for number in 1..4 {
            list.add(mark(number), 5).unwrap();
            list.write().unwrap();
        }
        let (path, length) = (states().checked_path(), list.end);
        drop(list);
        disk.rot(&path, length - 100, 1).unwrap();
        let (mut list, checked) = CheckedList::resume(states(), 8).unwrap().unwrap();
        assert_eq!(checked.packs, HashSet::from([mark(1)]));
        list.add(mark(8), 5).unwrap();
        list.write().unwrap();
        drop(list);
        // It is as long as what it replaces, so that what follows counts again.
        assert_eq!(found(&disk), (Some(7), vec![1, 3, 8]));
    }
}
