//! Where a blob lies, and the short list of places that a lookup answers with.

use std::ops::Deref;

use crate::id::PackId;

/// Most places of one blob that the index answers with or keeps: interior nodes have two, and damage that was healed by
/// writing the blob again adds one.
pub const LOCATIONS_MAX: usize = 4;

/// One place of a blob: enough to read and unseal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackId,
    /// Where the sealed bytes start in it.
    pub offset: u32,
    /// Length of the sealed bytes.
    pub length: u32,
    /// Length of the plaintext.
    pub plain_length: u32,
    /// Key epoch of the seal.
    pub epoch: u32,
}

impl Location {
    const NOWHERE: Self = Self { pack: PackId([0; 32]), offset: 0, length: 0, plain_length: 0, epoch: 0 };

    fn is_same_place(&self, other: &Self) -> bool {
        self.pack == other.pack && self.offset == other.offset
    }
}

/// The places of one blob, newest first; a slice of [`Location`].
#[derive(Clone, Debug)]
pub struct Locations {
    list: [Location; LOCATIONS_MAX],
    count: usize,
}

impl Locations {
    /// Adds an older place; one that is there already, or one too many, is left out.
    pub(super) fn push(&mut self, location: Location) {
        if self.count < LOCATIONS_MAX && !self.iter().any(|known| known.is_same_place(&location)) {
            self.list[self.count] = location;
            self.count += 1;
        }
    }
}

impl Default for Locations {
    fn default() -> Self {
        Self { list: [Location::NOWHERE; LOCATIONS_MAX], count: 0 }
    }
}

impl Deref for Locations {
    type Target = [Location];

    fn deref(&self) -> &[Location] {
        &self.list[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_keeps_order_and_leaves_out_repeats_and_the_fifth() {
        let place = |n: u8| Location { pack: PackId([n; 32]), ..Location::NOWHERE };
        let mut list = Locations::default();
        for n in [3, 1, 3, 2, 9, 7] {
            list.push(place(n));
        }
        assert_eq!(list.iter().map(|location| location.pack.0[0]).collect::<Vec<_>>(), [3, 1, 2, 9]);
    }
}
