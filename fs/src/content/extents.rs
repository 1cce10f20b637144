//! EXTENT and BODY records of an inode in a tree: lookup, and the replacement of ranges.
//!
//! *Invariants*
//! 1. Extents of an inode never overlap: whoever puts one in trims or splits those it meets. A split keeps the blob and
//!    adds to the offset in it.
//! 2. Every change returns by how much it changed the allocated bytes: the sum of the extents' lengths, or the body's.

use std::ops::{ControlFlow, Range};

use vellum_store::id::BlobId;

use crate::{
    error::{Error, Result},
    format::{
        extent::Extent,
        key::{self, KeyParts},
    },
    ino::Ino,
    tree::Tree,
};

/// One step of bringing a flushed plan into a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This extent is the content of its range.
    Extent(Extent),
    /// The range has no extents.
    Hole {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// The file has no extents; this is its content, from the start. Empty: there is none.
    Inline(Vec<u8>),
}

impl Change {
    /// A chunk stored as a blob of its own.
    pub fn chunk(offset: u64, length: u32, blob: BlobId) -> Self {
        Self::Extent(Extent { offset, length: length.into(), blob, blob_offset: 0, blob_length: length })
    }

    /// What it replaces.
    pub fn range(&self) -> Range<u64> {
        match self {
            Self::Extent(extent) => extent.offset..extent.end(),
            Self::Hole { offset, length } => *offset..offset + length,
            Self::Inline(_) => 0..u64::MAX,
        }
    }
}

/// Whether the extent is all of its blob.
pub fn is_whole(extent: &Extent) -> bool {
    extent.blob_offset == 0 && extent.length == u64::from(extent.blob_length)
}

/// The part of an extent that covers `range`, which lies within it and is not empty.
pub fn part(extent: &Extent, range: Range<u64>) -> Extent {
    assert!(extent.offset <= range.start && range.start < range.end && range.end <= extent.end());
    let skipped = (range.start - extent.offset) as u32;
    let length = range.end - range.start;
    Extent { offset: range.start, length, blob_offset: extent.blob_offset + skipped, ..*extent }
}

/// The first extent that ends after `offset`.
pub fn after(tree: &Tree, ino: Ino, offset: u64) -> Result<Option<Extent>> {
    let key = key::extent(ino, offset);
    let at_or_before = tree.last_at_or_before(&key)?;
    if let Some(extent) = decode_found(ino, at_or_before)?
        && extent.end() > offset
    {
        return Ok(Some(extent));
    }
    // Not beyond the inode's own records: what follows may lie in a node that cannot be read, which is not this file's damage.
    let mut next = None;
    tree.scan(&key, &key::kind_start(ino, key::EXTENT + 1), &mut |key, value| {
        next = Some((key.to_vec(), value.to_vec()));
        Ok(ControlFlow::Break(()))
    })?;
    decode_found(ino, next)
}

/// The last extent that begins before `offset`.
pub fn before(tree: &Tree, ino: Ino, offset: u64) -> Result<Option<Extent>> {
    let Some(last) = offset.checked_sub(1) else { return Ok(None) };
    decode_found(ino, tree.last_at_or_before(&key::extent(ino, last))?)
}

/// At most `count_max` extents that meet a range, in order.
pub fn list(tree: &Tree, ino: Ino, range: Range<u64>, count_max: usize) -> Result<Vec<Extent>> {
    let mut found = Vec::new();
    if range.is_empty() || count_max == 0 {
        return Ok(found);
    }
    found.extend(before(tree, ino, range.start)?.filter(|extent| extent.end() > range.start));
    let (from, to) = (key::extent(ino, range.start), key::extent(ino, range.end));
    tree.scan(&from, &to, &mut |key, value| {
        if found.len() == count_max {
            return Ok(ControlFlow::Break(()));
        }
        found.push(decode(ino, key, value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// Makes `new` the only extents in `range`: they lie in it, in order and without overlap. Returns the change in allocated bytes.
pub fn replace(tree: &mut Tree, ino: Ino, range: Range<u64>, new: &[Extent]) -> Result<i64> {
    assert!(new.first().is_none_or(|first| range.start <= first.offset), "new extents lie in the range");
    assert!(new.last().is_none_or(|last| last.end() <= range.end), "new extents lie in the range");
    assert!(new.windows(2).all(|pair| pair[0].end() <= pair[1].offset), "new extents are in order");
    if range.is_empty() {
        return Ok(0);
    }
    let mut delta = 0;
    let mut right = None;
    if let Some(left) = before(tree, ino, range.start)?
        && left.end() > range.start
    {
        put(tree, ino, &part(&left, left.offset..range.start))?;
        delta -= (left.end() - range.start) as i64;
        right = right_of(&left, range.end);
    }
    let (from, to) = (key::extent(ino, range.start), key::extent(ino, range.end));
    let mut removed = 0;
    tree.scan(&from, &to, &mut |key, value| {
        let extent = decode(ino, key, value)?;
        removed += extent.length as i64;
        right = right_of(&extent, range.end);
        Ok(ControlFlow::Continue(()))
    })?;
    if removed > 0 {
        tree.remove_range(&from, &to)?;
        delta -= removed;
    }
    for extent in new.iter().chain(&right) {
        put(tree, ino, extent)?;
        delta += extent.length as i64;
    }
    Ok(delta)
}

/// Applies a plan's changes, which are in order and do not overlap. Returns the change in allocated bytes.
pub fn apply(tree: &mut Tree, ino: Ino, changes: &[Change]) -> Result<i64> {
    let mut delta = 0;
    if changes.is_empty() {
        return Ok(0);
    }
    // Whatever a plan of a file with a body puts out includes the body's content.
    delta += put_body(tree, ino, &[])?;
    let mut rest = changes;
    while let Some(first) = rest.first() {
        let mut range = first.range();
        let mut count = 1;
        while let Some(next) = rest.get(count)
            && next.range().start == range.end
        {
            range.end = next.range().end;
            count += 1;
        }
        let new: Vec<Extent> = (rest[..count].iter())
            .filter_map(|change| match change {
                Change::Extent(extent) => Some(*extent),
                Change::Hole { .. } | Change::Inline(_) => None,
            })
            .collect();
        delta += replace(tree, ino, range, &new)?;
        if let Change::Inline(bytes) = first {
            delta += put_body(tree, ino, bytes)?;
        }
        rest = &rest[count..];
    }
    Ok(delta)
}

/// Whether the inode has neither extents nor an inline body.
pub fn is_empty(tree: &Tree, ino: Ino) -> Result<bool> {
    Ok(before(tree, ino, u64::MAX)?.is_none() && !tree.contains(&key::body(ino))?)
}

/// The inline body.
pub fn body(tree: &Tree, ino: Ino) -> Result<Option<Vec<u8>>> {
    tree.get(&key::body(ino))
}

/// Makes `bytes` the inline body; none if empty. Returns the change in allocated bytes.
fn put_body(tree: &mut Tree, ino: Ino, bytes: &[u8]) -> Result<i64> {
    let before = body(tree, ino)?;
    let key = key::body(ino);
    if !bytes.is_empty() {
        tree.insert(&key, bytes)?;
    } else if before.is_some() {
        tree.remove(&key)?;
    }
    Ok(bytes.len() as i64 - before.map_or(0, |body| body.len() as i64))
}

fn right_of(extent: &Extent, end: u64) -> Option<Extent> {
    (extent.end() > end).then(|| part(extent, end..extent.end()))
}

fn put(tree: &mut Tree, ino: Ino, extent: &Extent) -> Result<()> {
    tree.insert(&key::extent(ino, extent.offset), &extent.encode())?;
    Ok(())
}

/// The extent that a neighbour search found, unless the neighbour is another kind of record or of another inode.
fn decode_found(ino: Ino, found: Option<(Vec<u8>, Vec<u8>)>) -> Result<Option<Extent>> {
    let Some((key, value)) = found else { return Ok(None) };
    let ours = KeyParts::parse(&key).is_some_and(|parts| parts.ino == ino && parts.kind == key::EXTENT);
    if ours { decode(ino, &key, &value).map(Some) } else { Ok(None) }
}

fn decode(ino: Ino, key: &[u8], value: &[u8]) -> Result<Extent> {
    let offset = KeyParts::parse(key)
        .filter(|parts| parts.kind == key::EXTENT)
        .and_then(|parts| parts.number())
        .ok_or_else(|| Error::damaged(ino, "key of an extent is malformed"))?;
    Extent::decode(offset, value)
}
