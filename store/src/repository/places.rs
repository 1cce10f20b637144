//! Where blobs lie durably before an index segment lists them: what `fsync` records in the journal, and what replay makes of it.
//!
//! *Invariants*
//! 1. A place is given only for bytes that survive power loss (F6).
//! 2. A place in an open pack stays good when that pack is stored afterwards, under a name that nobody could know: what was stored
//!    since the last index segment is then found by listing.
//! 3. A leftover is deleted only if no live process can be filling it.
//! 4. A repository that is open read-only reads adopted blobs where they are.
//!
//! *Format*: [`BlobPlace::encode`].
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | 1: stored, 2: in an open pack |
//! | 1 | 32 or 16 | pack id, or name of the open pack |
//! | then | 32 | blob id |
//! | | 1 | kind |
//! | | 4 | offset in the pack |
//! | | 4 | sealed length |
//! | | 4 | plaintext length |
//! | | 4 | key epoch |

use std::{collections::BTreeSet, ops::ControlFlow, sync::atomic::Ordering};

use super::Repository;
use crate::{
    backend::{ObjectName, OpenName},
    codec::{Reader, Writer},
    crypto::BLOB_PLAIN_MAX,
    error::{Error, Result},
    id::{BlobId, BlobKind, PackId, VolumeName},
    index::Location,
    pack::{PackEntry, read_trailer},
    pipeline::Found,
};

const TAG_STORED: u8 = 1;
const TAG_OPEN: u8 = 2;
const OBJECT: &str = "place of a blob";

/// Where a blob lies durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobPlace {
    /// In a stored pack.
    Stored {
        /// The pack.
        pack: PackId,
        /// The blob in it.
        entry: PackEntry,
    },
    /// In a pack that was open; it may have been stored since.
    Open {
        /// Its name while open.
        open: OpenName,
        /// The blob in it.
        entry: PackEntry,
    },
}

impl BlobPlace {
    /// The blob, and where in the pack it lies.
    pub fn entry(&self) -> &PackEntry {
        match self {
            Self::Stored { entry, .. } | Self::Open { entry, .. } => entry,
        }
    }

    /// The bytes for the journal.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(96);
        match self {
            Self::Stored { pack, .. } => {
                out.u8(TAG_STORED);
                out.bytes(pack.as_bytes());
            }
            Self::Open { open, .. } => {
                out.u8(TAG_OPEN);
                out.bytes(open.as_str().as_bytes());
            }
        }
        let entry = self.entry();
        out.bytes(entry.id.as_bytes());
        out.u8(entry.kind as u8);
        out.u32(entry.offset);
        out.u32(entry.length);
        out.u32(entry.plain_length);
        out.u32(entry.epoch);
        out.0
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, OBJECT);
        let tag = reader.u8()?;
        let (mut pack, mut open) = (None, None);
        match tag {
            TAG_STORED => pack = Some(PackId(reader.array()?)),
            TAG_OPEN => open = std::str::from_utf8(reader.bytes(OpenName::LENGTH)?).ok().and_then(OpenName::new),
            _ => {}
        }
        let id = BlobId(reader.array()?);
        let kind = BlobKind::from_u8(reader.u8()?).ok_or_else(|| Error::corrupt(OBJECT, "unknown kind"))?;
        let (offset, length, plain_length, epoch) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
        reader.finish()?;
        let entry = PackEntry { id, kind, offset, length, plain_length, epoch };
        if plain_length > BLOB_PLAIN_MAX {
            return Err(Error::corrupt(OBJECT, "longer than a blob"));
        }
        match (pack, open) {
            (Some(pack), _) => Ok(Self::Stored { pack, entry }),
            (_, Some(open)) => Ok(Self::Open { open, entry }),
            _ => Err(Error::corrupt(OBJECT, "unknown place")),
        }
    }
}

/// Open packs that earlier processes left.
#[derive(Debug)]
pub(super) struct Leftovers {
    names: Vec<OpenName>,
    /// Whether packs that the index did not know were looked for.
    discovered: bool,
    /// Volumes whose journals need no leftover any more.
    replayed: BTreeSet<VolumeName>,
}

impl Leftovers {
    pub(super) fn new(names: Vec<OpenName>) -> Self {
        Self { names, discovered: false, replayed: BTreeSet::new() }
    }
}

impl Repository {
    /// Makes what is in open packs durable where it lies: one `fdatasync` for each that has unsynced bytes. Creates no pack, no
    /// segment and no head, unless a file fails and its content must move.
    pub fn sync_open_packs(&self) -> Result<()> {
        self.writing()?.sync_open_packs()
    }

    /// Where a blob lies durably, to be recorded in the journal; syncs its pack if that was not done.
    pub fn durable_location(&self, id: &BlobId) -> Result<BlobPlace> {
        let pipeline = self.writing()?;
        if let Some(Found::Plain(_)) = self.inflight.find(id) {
            pipeline.flush()?;
        }
        if let Some(place) = pipeline.open_place(id) {
            // F6: nothing is named as durable that power loss could take.
            if place.pack.is_synced(place.entry.end()) || place.pack.sync().is_ok() {
                return Ok(BlobPlace::Open { open: place.pack.name().clone(), entry: place.entry });
            }
            pipeline.sync_open_packs()?;
        }
        // What has left the table of blobs in flight is in a stored pack, which is durable (F1).
        let locations = self.index.lookup(id)?;
        let Some(Location { pack, offset, length, plain_length, epoch }) = locations.first().copied() else {
            return Err(Error::BlobMissing { id: *id });
        };
        let entry = PackEntry { id: *id, kind: BlobKind::Data, offset, length, plain_length, epoch };
        Ok(BlobPlace::Stored { pack, entry })
    }

    /// Makes a blob whose place the journal recorded readable again, and part of the next commit.
    ///
    /// A blob in a leftover open pack is verified and copied to a current pack. [`Error::Corrupt`] or [`Error::BlobMissing`] if
    /// it is not where it was recorded; calling this again for the same blob does nothing.
    pub fn adopt(&self, id: &BlobId, place: &BlobPlace) -> Result<()> {
        if place.entry().id != *id {
            return Err(Error::corrupt(OBJECT, format!("it is that of blob {}, not of {id}", place.entry().id)));
        }
        let is_known =
            || Ok(self.inflight.find(id).is_some() || self.reader.has_adopted(id) || self.index.contains(id)?);
        if is_known()? {
            return Ok(());
        }
        let gone = match place {
            BlobPlace::Stored { pack, .. } => match self.adopt_pack(*pack) {
                Err(error @ Error::NotFound { .. }) => error,
                Ok(()) if !is_known()? => Error::corrupt(ObjectName::pack(pack).to_string(), "it lacks the blob"),
                other => return other,
            },
            BlobPlace::Open { open, entry } => match self.adopt_open(open, entry) {
                Err(error @ Error::NotFound { .. }) => error,
                other => return other,
            },
        };
        // The open pack was stored after the journal named it; the index never came to list it, or lists it elsewhere.
        self.discover_packs()?;
        match is_known()? {
            true => Ok(()),
            false => Err(Error::corrupt(format!("blob {id}"), gone.to_string())),
        }
    }

    /// Takes the entries of a stored pack into the index.
    pub(super) fn adopt_pack(&self, pack: PackId) -> Result<()> {
        let name = ObjectName::pack(&pack);
        let length = self.backend.length(&name)?.ok_or_else(|| Error::NotFound { object: name.to_string() })?;
        let entries = read_trailer(&self.keyring, pack, length, &mut |offset, length| {
            self.backend.get_range(&name, offset, length)
        })?;
        // F1: it is under its name, so the process that stored it made its bytes durable first.
        self.index.insert_stored_pack(pack, &entries);
        Ok(())
    }

    /// Copies a blob out of a leftover open pack.
    fn adopt_open(&self, open: &OpenName, entry: &PackEntry) -> Result<()> {
        let sealed = match &self.pipeline {
            Some(pipeline) if pipeline.owns(open) => return Ok(()),
            _ => self.backend.read_open(open, u64::from(entry.offset), entry.length)?,
        };
        // It may be torn, or the journal's word for it forged: only what unseals to its id is believed.
        let unsealed = self.sealer.unseal(entry.kind, entry.epoch, &entry.id, &sealed, entry.plain_length);
        let plain = unsealed.map_err(|error| match error {
            Error::Corrupt { object, what } => Error::corrupt(open.to_string(), format!("{object}: {what}")),
            other => other,
        })?;
        match &self.pipeline {
            Some(pipeline) => pipeline.put_sealed(entry.kind, &entry.id, plain, entry.epoch, sealed),
            None => {
                self.reader.adopt(open, entry);
                Ok(())
            }
        }
    }

    /// Looks for stored packs that the index does not know, and takes them in.
    fn discover_packs(&self) -> Result<()> {
        {
            let mut leftovers = self.leftovers.lock();
            if std::mem::replace(&mut leftovers.discovered, true) {
                return Ok(());
            }
        }
        self.list_packs()
    }

    /// Takes stored packs into the index that it does not know.
    pub(super) fn list_packs(&self) -> Result<()> {
        let mut stored = Vec::new();
        self.backend.list("packs/", &mut |name, _| {
            stored.extend(name.as_pack());
            Ok(())
        })?;
        if let Some(pipeline) = &self.pipeline {
            // Packs of this process that were listed before they were durable are told to the index by here (F1).
            pipeline.flush()?;
            pipeline.store_packs()?;
        }
        for pack in self.index.unknown_packs(&stored) {
            match self.adopt_pack(pack) {
                // A damaged pack that nothing names harms nobody; what is missed because of it is told by name.
                Err(error) if error.is_damage() => log::warn!("an unlisted pack is damaged: {error}"),
                other => other?,
            }
        }
        Ok(())
    }

    /// Notes that a commit holds what replay of `volume` took from the open packs that earlier processes left, and deletes them
    /// once no other volume can need them. They stay while a volume of this repository has not been replayed by this process,
    /// since its journal may name them, and while another process has one open, since some may be its own.
    pub fn discard_leftovers(&self, volume: &VolumeName) -> Result<()> {
        let pipeline = self.writing()?;
        let mut leftovers = self.leftovers.lock();
        leftovers.replayed.insert(volume.clone());
        // F5: a pack goes only when no journal reaches it.
        let all_replayed = self.volumes.lock().is_subset(&leftovers.replayed);
        if leftovers.names.is_empty() || !all_replayed || self.others_write()? {
            return Ok(());
        }
        for name in leftovers.names.drain(..).filter(|name| !pipeline.owns(name)) {
            self.backend.delete_open(&name)?;
        }
        Ok(())
    }

    /// The open packs that earlier processes left; nobody deletes them any more.
    pub(super) fn take_leftovers(&self) -> Vec<OpenName> {
        std::mem::take(&mut self.leftovers.lock().names)
    }

    /// Whether more volumes are locked than this process holds.
    fn others_write(&self) -> Result<bool> {
        let locks = self.path.join("locks");
        let mut names = Vec::new();
        let listed = self.disk.list_dir(&locks, &mut |name, _| {
            names.push(name.to_os_string());
            ControlFlow::Continue(())
        });
        match listed {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(|e| Error::io(format!("list {}", locks.display()), e))?,
        }
        let mut held = 0;
        for name in names.iter().filter(|name| !name.to_string_lossy().starts_with('.')) {
            let path = locks.join(name);
            let locked = self.disk.is_locked(&path).map_err(|e| Error::io(format!("look at {}", path.display()), e))?;
            held += usize::from(locked);
        }
        Ok(held > self.locks_held.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn places() -> [BlobPlace; 2] {
        let entry =
            PackEntry { id: BlobId([3; 32]), kind: BlobKind::Data, offset: 7, length: 100, plain_length: 60, epoch: 2 };
        let open = OpenName::new("0123456789abcdef").unwrap();
        [BlobPlace::Stored { pack: PackId([9; 32]), entry }, BlobPlace::Open { open, entry }]
    }

    #[test]
    fn places_round_trip() {
        for place in places() {
            assert_eq!(BlobPlace::decode(&place.encode()).unwrap(), place);
        }
    }

    #[test]
    fn cut_long_and_unknown_places_are_refused() {
        for place in places() {
            let bytes = place.encode();
            for length in 0..bytes.len() {
                assert!(BlobPlace::decode(&bytes[..length]).is_err());
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(BlobPlace::decode(&longer).is_err());
            let mut unknown = bytes;
            unknown[0] = 3;
            assert!(BlobPlace::decode(&unknown).is_err());
        }
    }
}
