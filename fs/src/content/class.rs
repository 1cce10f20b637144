//! Which write class an inode deserves: chunks that content decides, or small fixed blocks.
//!
//! Databases and disk images overwrite small parts of flushed data all over again and again. Content-defined chunks
//! then store 8 to 20 times what was written; aligned blocks of 16 KiB store 1 to 4 times. A rewrite from start to end
//! costs nothing extra with chunks and keeps deduplication, so it does not count.

use crate::format::inode::WriteClass;

/// Overwrites of flushed data, not continuing each other, that make an inode [`WriteClass::Random`].
pub const OVERWRITES_MIN: u32 = 8;

/// Counts an inode's overwrites while it is in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClassTracker {
    overwrites: u32,
    last_end: u64,
}

impl ClassTracker {
    /// Notes a write of `length` bytes at `offset` into a file of `size` bytes before the write. `flushed` says whether
    /// the write covers bytes that are no longer dirty ([`super::DirtyMap::covers`], asked before the write). Returns whether the inode should be [`WriteClass::Random`] from here on.
    pub fn note_write(&mut self, offset: u64, length: u64, size: u64, flushed: bool) -> bool {
        let continues = offset == self.last_end;
        self.last_end = offset + length;
        if offset < size && flushed && !continues {
            self.overwrites = self.overwrites.saturating_add(1);
        }
        self.overwrites >= OVERWRITES_MIN
    }

    /// Notes a truncation; a file emptied is a new file. Returns the class it has from here on.
    pub fn note_truncate(&mut self, new_size: u64, class: WriteClass) -> WriteClass {
        if new_size > 0 {
            return class;
        }
        *self = Self::default();
        WriteClass::Stream
    }
}
