//! Inode numbers, the identity of everything that has a name in a volume.
//!
//! *Invariants*
//! 1. A number is never used again for another object, so a snapshot and the live tree agree on who is who.
//! 2. Numbers of a volume's own objects are below 2^63; bit 63 marks an object seen through a snapshot, which the
//!    format never stores.

use std::fmt;

/// Bit that marks the numbers of objects seen through a snapshot.
const VIEW_BIT: u64 = 1 << 63;

/// Number of one inode of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// Holder of the records that belong to the volume itself.
    pub const VOLUME: Self = Self(0);
    /// The root directory.
    pub const ROOT: Self = Self(1);
    /// The largest number that the format can store.
    pub const MAX: Self = Self(VIEW_BIT - 1);

    /// Whether this names an object seen through a snapshot.
    pub fn is_view(self) -> bool {
        self.0 & VIEW_BIT != 0
    }

    /// The number of a snapshot's object, from 63 bits that identify it.
    pub fn view(bits: u64) -> Self {
        Self(bits | VIEW_BIT)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {}", self.0)
    }
}
