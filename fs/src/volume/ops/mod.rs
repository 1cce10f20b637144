//! The operations of a volume by family: one method for each thing that a front end may ask.
//!
//! *Invariants*
//! 1. A failed operation changes nothing.
//! 2. Every operation reads the clock once.
//! 3. An inode number of the snapshot view (bit 63) is answered by [`super::snapdir`]; changes there give
//!    [`Error::ReadOnly`](crate::error::Error::ReadOnly).
//!
//! *Threads*: any. What may block is said at each method: `read` for a blob that is not cached, `write` when the byte budget is
//! used up, and whatever syncs.

pub mod attributes;
pub mod copy;
pub mod directories;
pub mod files;
pub mod flags;
pub mod names;
pub mod xattrs;

use crate::attr::Attr;

/// What a lookup or creation answers; it holds one reference, which `forget` gives back.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Attributes, with the inode's number.
    pub attr: Attr,
    /// Content and attributes will never change: a front end may keep them for ever.
    pub immutable: bool,
    /// The name may come to mean something else (a snapshot renamed, deleted, taken anew), though the inode stays what it is.
    pub name_may_move: bool,
    /// The name may lead elsewhere at any moment (`latest`, relative times): not to be kept at all.
    pub transient: bool,
}
