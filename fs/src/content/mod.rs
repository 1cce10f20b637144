//! The content of files: dirty segments over extents or an inline body; pure logic, without locks and without I/O of its own.
//!
//! A file's content is its *base* (EXTENT records, or a BODY record while it is small; what neither covers is a hole)
//! below the layers of its dirty segments, clipped to its size.
//!
//! *Invariants*
//! 1. A file has a BODY record or EXTENT records, never both. A flush leaves a body if the size is at most [`INLINE_MAX`].
//! 2. An extent beyond the size lies below a zero segment: truncation inserts the segment, and the next flush removes the extent.
//! 3. A plan's outputs are in order and do not overlap; together with what stays dirty they say what the file said before.
//!
//! *Ordering*: what is captured first is applied first. Flushes of one inode are serialised by the volume, since a plan
//! holds only as long as the extents it was made from.
//!
//! *Threads*: none. Maps and trees are used under the volume's locks; captures, pieces and plans need none.
//!
//! *Not here*: when to flush and what a budget allows (`volume`), chunks to blobs (the store's pipeline).

pub mod base;
pub mod class;
pub mod dirty;
pub mod extents;
pub mod overlay;
pub mod plan;
pub mod read;
mod rechunk;
pub mod share;

pub use base::{Base, TreeBase};
pub use class::ClassTracker;
pub use dirty::{Capture, DirtyMap, Slice};
pub use extents::Change;
pub use overlay::{Layer, Piece, Source, resolve};
pub use plan::{Output, PlanInput, Planned, Planner, Tail};
pub use read::{Seek, read_pieces, seek};
pub use share::{Batch, Sharer};

/// Largest content kept in the tree instead of in a chunk.
pub const INLINE_MAX: u64 = 2048;

/// Length and alignment of the blocks of a file that is overwritten at random. Pages of SQLite and PostgreSQL and
/// clusters of qcow2 divide it or are multiples of it.
pub const RANDOM_BLOCK: u64 = 16 << 10;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
