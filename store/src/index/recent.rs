//! The entries since the last segment: a sorted table in memory, rebuilt from the packs written since.
//!
//! *Invariants*
//! 1. Newer places of an id come before older ones.
//! 2. All entries of a pack are in one table, so a segment has them all or none.
//!
//! *Threads*: behind the lock of [`super::Index`].
//!
//! *Bounds*: about 75 bytes an entry and 40 a pack; [`super::Index::flush_due`] says when a segment should be written.

use std::collections::{BTreeMap, HashSet};

use super::{location::Location, segment::PackRef};
use crate::{
    format::segment::IndexEntry,
    id::{BlobId, BlobKind, PackId},
    pack::PackEntry,
};

/// Entries and tombstones that are in no segment yet.
#[derive(Clone, Default)]
pub(super) struct Recent {
    packs: Vec<PackRef>,
    /// The number in the key counts down from `u32::MAX`, so that newer packs sort first.
    entries: BTreeMap<(BlobId, u32), Spot>,
    deleted: Vec<PackId>,
}

#[derive(Clone, Copy)]
struct Spot {
    offset: u32,
    length: u32,
    plain_length: u32,
}

impl Recent {
    /// Takes all entries of a pack; one that was taken before changes nothing.
    pub(super) fn insert_pack(&mut self, pack: PackId, entries: &[PackEntry]) {
        let mut is_known = false;
        if let Some(first) = entries.first() {
            self.find(&first.id, &mut |location| is_known |= location.pack == pack);
        }
        if is_known {
            return;
        }
        let first_row = self.packs.len();
        for entry in entries {
            let row = PackRef { pack, epoch: entry.epoch, kind: entry.kind };
            let of_pack = &self.packs[first_row..];
            let number = first_row + of_pack.iter().position(|known| *known == row).unwrap_or(of_pack.len());
            if number == self.packs.len() {
                self.packs.push(row);
            }
            let spot = Spot { offset: entry.offset, length: entry.length, plain_length: entry.plain_length };
            self.entries.insert((entry.id, turned(number as u32)), spot);
        }
    }

    /// Takes tombstones, and forgets the entries of those packs.
    pub(super) fn remove_packs(&mut self, packs: &HashSet<PackId>) {
        // In an order that does not depend on the run: it is written like that.
        let mut sorted: Vec<PackId> = packs.iter().copied().collect();
        sorted.sort_unstable();
        self.deleted.extend(sorted);
        self.forget_packs(packs);
    }

    /// Drops the entries of these packs.
    pub(super) fn forget_packs(&mut self, packs: &HashSet<PackId>) {
        let rows = &self.packs;
        if rows.iter().any(|row| packs.contains(&row.pack)) {
            self.entries.retain(|(_, number), _| !packs.contains(&rows[turned(*number) as usize].pack));
        }
    }

    /// Puts an older table beneath this one, as if its packs had been inserted first.
    pub(super) fn absorb_older(&mut self, mut older: Self) {
        let shift = older.packs.len() as u32;
        older.packs.append(&mut self.packs);
        older.entries.extend(self.entries.iter().map(|((id, number), spot)| ((*id, number - shift), *spot)));
        older.deleted.append(&mut self.deleted);
        *self = older;
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to put into a segment.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.deleted.is_empty()
    }

    /// The packs that entries name by number.
    pub(super) fn packs(&self) -> &[PackRef] {
        &self.packs
    }

    /// The tombstones.
    pub(super) fn deleted(&self) -> &[PackId] {
        &self.deleted
    }

    /// Hands every place of an id to `found`, newest first.
    pub(super) fn find(&self, id: &BlobId, found: &mut dyn FnMut(Location)) {
        for ((_, number), spot) in self.entries.range((*id, 0)..=(*id, u32::MAX)) {
            found(self.locate(&entry(*id, *number, spot)).1);
        }
    }

    /// The kind and place of an entry of this table.
    pub(super) fn locate(&self, entry: &IndexEntry) -> (BlobKind, Location) {
        let row = &self.packs[entry.pack_number as usize];
        let IndexEntry { offset, length, plain_length, .. } = *entry;
        (row.kind, Location { pack: row.pack, offset, length, plain_length, epoch: row.epoch })
    }

    /// All entries, sorted by id, newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = IndexEntry> {
        self.entries.iter().map(|((id, number), spot)| entry(*id, *number, spot))
    }
}

/// Turns the number of a row into one that sorts newer rows first, and back.
fn turned(number: u32) -> u32 {
    u32::MAX - number
}

fn entry(id: BlobId, number: u32, spot: &Spot) -> IndexEntry {
    let Spot { offset, length, plain_length } = *spot;
    IndexEntry { id, pack_number: turned(number), offset, length, plain_length }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(id: u8, offset: u32, epoch: u32) -> PackEntry {
        PackEntry { id: BlobId([id; 32]), kind: BlobKind::Data, offset, length: 50, plain_length: 9, epoch }
    }

    fn places(recent: &Recent, id: u8) -> Vec<(u8, u32, u32)> {
        let mut list = Vec::new();
        recent.find(&BlobId([id; 32]), &mut |at| list.push((at.pack.0[0], at.offset, at.epoch)));
        list
    }

    #[test]
    fn newer_packs_come_first_and_epochs_of_one_pack_are_kept_apart() {
        let mut recent = Recent::default();
        recent.insert_pack(PackId([1; 32]), &[blob(7, 0, 0), blob(8, 50, 1), blob(9, 100, 0)]);
        recent.insert_pack(PackId([2; 32]), &[blob(7, 10, 3)]);
        recent.insert_pack(PackId([1; 32]), &[blob(7, 0, 0)]);
        assert_eq!(places(&recent, 7), [(2, 10, 3), (1, 0, 0)]);
        assert_eq!(places(&recent, 8), [(1, 50, 1)]);
        assert_eq!(places(&recent, 6), []);
        assert_eq!((recent.len(), recent.packs().len()), (4, 3));
    }

    #[test]
    fn a_table_put_beneath_is_older() {
        let (mut older, mut newer) = (Recent::default(), Recent::default());
        older.insert_pack(PackId([1; 32]), &[blob(7, 0, 0)]);
        older.insert_pack(PackId([2; 32]), &[blob(8, 0, 0)]);
        newer.insert_pack(PackId([3; 32]), &[blob(7, 5, 0), blob(9, 6, 0)]);
        newer.absorb_older(older);
        assert_eq!(places(&newer, 7), [(3, 5, 0), (1, 0, 0)]);
        assert_eq!((places(&newer, 8), places(&newer, 9)), (vec![(2, 0, 0)], vec![(3, 6, 0)]));
        newer.insert_pack(PackId([4; 32]), &[blob(7, 1, 0)]);
        assert_eq!(places(&newer, 7)[0], (4, 1, 0));
    }

    #[test]
    fn removed_packs_leave_a_tombstone_only() {
        let mut recent = Recent::default();
        recent.insert_pack(PackId([1; 32]), &[blob(7, 0, 0), blob(8, 50, 0)]);
        recent.insert_pack(PackId([2; 32]), &[blob(7, 0, 0)]);
        recent.remove_packs(&HashSet::from([PackId([1; 32])]));
        assert_eq!((places(&recent, 7), places(&recent, 8)), (vec![(2, 0, 0)], vec![]));
        assert_eq!(recent.deleted(), [PackId([1; 32])]);
        assert!(!recent.is_empty());
    }
}
