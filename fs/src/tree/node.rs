//! One node of the tree, held in memory as the bytes that are stored.
//!
//! *Invariants*
//! 1. Keys ascend strictly. A leaf's cells are records. An interior node's cells are a child's lower bound and its id;
//!    the first cell's key is empty, as it takes every key below the second.
//! 2. The bytes are the encoded node but for two things that [`Node::encode`] fills in: the count, and the ids of
//!    children that were not stored when they were last changed.
//! 3. `stored` is set once, when the node and all below it are in the store; whoever changes a node clears it first,
//!    and changes only a node that nobody else holds.
//!
//! *Bounds*: [`NODE_BYTES_MAX`] bytes encoded, levels below [`LEVEL_MAX`].
//!
//! *Format*
//!
//! | offset | size | field | check |
//! |---|---|---|---|
//! | 0 | 1 | magic, 0x4e | |
//! | 1 | 1 | format, 0 | |
//! | 2 | 1 | level: 0 for a leaf, else one above the children | below 16; the level that the parent implies |
//! | 3 | 1 | reserved | 0 |
//! | 4 | 2 | count of cells | from 1, but in an empty tree's root |
//! | 6 | 2 | reserved | 0 |
//! | 8 | - | cells, in ascending order of keys, up to the end of the node | |
//!
//! A cell is: u16 length of the key, u16 length of the value, key, value. The value of an interior cell is the child's
//! blob id, 32 bytes, and the key of the first one is empty.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use vellum_store::id::BlobId;

use crate::{
    error::{Error, Result},
    format::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
};

/// Most bytes of an encoded node.
pub const NODE_BYTES_MAX: usize = 32 << 10;
/// Levels of a tree stay below this.
pub const LEVEL_MAX: u8 = 16;

const MAGIC: u8 = 0x4e;
const FORMAT: u8 = 0;
const HEADER: usize = 8;
const CELL_HEADER: usize = 4;
const ID: usize = BlobId::LENGTH;
/// Inserts that followed each other before a split trusts that more will follow.
const RUN_MIN: u16 = 3;
const RUN_MAX: u16 = 64;

/// A node of the tree.
#[derive(Debug)]
pub struct Node {
    level: u8,
    bytes: Vec<u8>,
    offsets: Vec<u16>,
    /// Children in memory; empty, or one for each cell of an interior node.
    resident: Vec<Option<Arc<Node>>>,
    trend: Trend,
    stored: OnceLock<BlobId>,
}

/// Where inserts went lately: a vote that single stray inserts do not overturn.
#[derive(Clone, Copy, Debug, Default)]
struct Trend {
    last: u16,
    run: u16,
}

impl Trend {
    fn note(&mut self, at: usize) {
        let at = at as u16;
        if at == self.last + 1 {
            self.last = at;
            self.run = (self.run + 1).min(RUN_MAX);
        } else if self.run > 0 {
            self.run -= 1;
            self.last += u16::from(at <= self.last);
        } else {
            self.last = at;
        }
    }

    fn forget_from(&mut self, at: usize) {
        if usize::from(self.last) >= at {
            *self = Self::default();
        }
    }
}

impl Node {
    /// A node without cells.
    pub fn empty(level: u8) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(&[MAGIC, FORMAT, level, 0, 0, 0, 0, 0]);
        Self {
            level,
            bytes,
            offsets: Vec::new(),
            resident: Vec::new(),
            trend: Trend::default(),
            stored: OnceLock::new(),
        }
    }

    /// Reads and validates an encoded node.
    pub fn decode(id: &BlobId, bytes: &[u8]) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(format!("tree node {id}"), what);
        if bytes.len() < HEADER || bytes.len() > NODE_BYTES_MAX {
            return Err(damaged("length out of bounds"));
        }
        let level = bytes[2];
        if [bytes[0], bytes[1], bytes[3], bytes[6], bytes[7]] != [MAGIC, FORMAT, 0, 0, 0] || level >= LEVEL_MAX {
            return Err(damaged("not a tree node of this format"));
        }
        let count = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
        let offsets = Self::parse_cells(bytes, level > 0, count).map_err(damaged)?;
        if level > 0 && count == 0 {
            return Err(damaged("an interior node without children"));
        }
        let stored = OnceLock::from(*id);
        let trend = Trend::default();
        Ok(Self { level, bytes: bytes.to_vec(), offsets, resident: Vec::new(), trend, stored })
    }

    fn parse_cells(bytes: &[u8], interior: bool, count: usize) -> Result<Vec<u16>, &'static str> {
        // A cell has at least a header, so a count that cannot fit allocates nothing.
        if count > (bytes.len() - HEADER) / CELL_HEADER {
            return Err("more cells than fit");
        }
        let mut offsets = Vec::with_capacity(count);
        let mut at = HEADER;
        let mut last: Option<&[u8]> = None;
        for _ in 0..count {
            let header = bytes.get(at..at + CELL_HEADER).ok_or("a cell is cut off")?;
            let key_length = usize::from(u16::from_le_bytes([header[0], header[1]]));
            let value_length = usize::from(u16::from_le_bytes([header[2], header[3]]));
            if key_length > KEY_BYTES_MAX || value_length > VALUE_BYTES_MAX || interior && value_length != ID {
                return Err("a cell's length is out of bounds");
            }
            let key_at = at + CELL_HEADER;
            let end = key_at + key_length + value_length;
            if end > bytes.len() {
                return Err("a cell is cut off");
            }
            let key = &bytes[key_at..key_at + key_length];
            if interior && last.is_none() && key_length > 0 {
                return Err("the first child has a lower bound");
            }
            if last.is_some_and(|last| last >= key) {
                return Err("keys are out of order");
            }
            offsets.push(at as u16);
            (at, last) = (end, Some(key));
        }
        if at == bytes.len() { Ok(offsets) } else { Err("bytes after the last cell") }
    }

    /// The node's bytes as they are stored. Every child must be stored.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.size() <= NODE_BYTES_MAX, "nodes are split before they exceed the format's bound");
        let mut bytes = self.bytes.clone();
        bytes[4..6].copy_from_slice(&(self.count() as u16).to_le_bytes());
        for (at, child) in self.resident.iter().enumerate() {
            if let Some(child) = child {
                let id = child.stored.get().expect("children are stored before their parent");
                let range = self.value_range(at);
                bytes[range].copy_from_slice(id.as_bytes());
            }
        }
        bytes
    }

    /// A copy that anyone may change; children stay shared.
    pub fn copy(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 512);
        bytes.extend_from_slice(&self.bytes);
        Self {
            level: self.level,
            bytes,
            offsets: self.offsets.clone(),
            resident: self.resident.clone(),
            trend: self.trend,
            stored: OnceLock::new(),
        }
    }

    /// A stored interior node that holds its children by id only.
    pub fn without_children(&self) -> Self {
        Self {
            level: self.level,
            bytes: self.encode(),
            offsets: self.offsets.clone(),
            resident: Vec::new(),
            trend: self.trend,
            stored: self.stored.clone(),
        }
    }

    /// 0 for a leaf, else one above the children.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Count of cells.
    pub fn count(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes of the encoded node.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Memory that the node takes, children left out.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity() + 2 * self.offsets.capacity() + 8 * self.resident.capacity()
    }

    /// The id, if the node is stored as it is.
    pub fn stored(&self) -> Option<&BlobId> {
        self.stored.get()
    }

    /// Notes that the node is stored as it is, and all below it.
    pub fn set_stored(&self, id: BlobId) {
        // Two clones of a tree may store the same node at the same time; both get the same id.
        let first = self.stored.get_or_init(|| id);
        debug_assert_eq!(*first, id);
    }

    /// Notes that the node is about to change; whether it was stored as it is.
    pub fn clear_stored(&mut self) -> bool {
        self.stored.take().is_some()
    }

    /// Key of a cell.
    pub fn key(&self, at: usize) -> &[u8] {
        let (start, key_length, _) = self.cell(at);
        &self.bytes[start..start + key_length]
    }

    /// Value of a cell.
    pub fn value(&self, at: usize) -> &[u8] {
        &self.bytes[self.value_range(at)]
    }

    /// The child of a cell of an interior node, if it is in memory.
    pub fn resident(&self, at: usize) -> Option<&Arc<Node>> {
        self.resident.get(at)?.as_ref()
    }

    /// The id of a child that is not in memory.
    pub fn child_id(&self, at: usize) -> BlobId {
        BlobId::from_slice(self.value(at)).expect("an interior cell holds an id, which decoding checked")
    }

    /// The place of a child in memory, to be filled or changed.
    pub fn resident_mut(&mut self, at: usize) -> &mut Option<Arc<Node>> {
        if self.resident.is_empty() {
            self.resident = vec![None; self.count()];
        }
        &mut self.resident[at]
    }

    /// Replaces children in memory that are stored by their ids; the others are handed to `rest`.
    pub fn release_children(&mut self, rest: &mut dyn FnMut(&mut Arc<Node>)) {
        let mut kept = false;
        for at in 0..self.resident.len() {
            let Some(child) = &mut self.resident[at] else { continue };
            if let Some(id) = child.stored.get().copied() {
                self.resident[at] = None;
                let range = self.value_range(at);
                self.bytes[range].copy_from_slice(id.as_bytes());
            } else {
                kept = true;
                rest(child);
            }
        }
        if !kept {
            self.resident = Vec::new();
        }
    }

    fn cell(&self, at: usize) -> (usize, usize, usize) {
        let start = usize::from(self.offsets[at]);
        let header = &self.bytes[start..start + CELL_HEADER];
        let key_length = usize::from(u16::from_le_bytes([header[0], header[1]]));
        let value_length = usize::from(u16::from_le_bytes([header[2], header[3]]));
        (start + CELL_HEADER, key_length, value_length)
    }

    fn value_range(&self, at: usize) -> Range<usize> {
        let (start, key_length, value_length) = self.cell(at);
        start + key_length..start + key_length + value_length
    }

    /// The cell with this key, or where it would go.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let at = self.lower_bound(key);
        if at < self.count() && self.key(at) == key { Ok(at) } else { Err(at) }
    }

    /// The first cell whose key is not below `key`.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The child under which `key` is, or would be.
    pub fn child_index(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(at) => at,
            Err(at) => at.saturating_sub(1),
        }
    }

    /// Puts a cell at its place.
    pub fn insert_cell(&mut self, at: usize, key: &[u8], value: &[u8]) {
        assert!(key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX, "records have bounded keys and values");
        let length = CELL_HEADER + key.len() + value.len();
        let start = self.open_gap(at, length);
        let cell = &mut self.bytes[start..start + length];
        cell[..2].copy_from_slice(&(key.len() as u16).to_le_bytes());
        cell[2..4].copy_from_slice(&(value.len() as u16).to_le_bytes());
        cell[CELL_HEADER..CELL_HEADER + key.len()].copy_from_slice(key);
        cell[CELL_HEADER + key.len()..].copy_from_slice(value);
        self.offsets.insert(at, start as u16);
        self.offsets[at + 1..].iter_mut().for_each(|offset| *offset += length as u16);
        if !self.resident.is_empty() {
            self.resident.insert(at, None);
        }
        self.trend.note(at);
    }

    /// Puts a child at its place.
    pub fn insert_child(&mut self, at: usize, key: &[u8], child: Arc<Node>) {
        self.insert_cell(at, key, &[0; ID]);
        *self.resident_mut(at) = Some(child);
    }

    fn open_gap(&mut self, at: usize, length: usize) -> usize {
        let end = self.bytes.len();
        let start = self.offsets.get(at).map_or(end, |&offset| usize::from(offset));
        self.bytes.resize(end + length, 0);
        self.bytes.copy_within(start..end, start + length);
        start
    }

    /// Gives a cell another value.
    pub fn replace_value(&mut self, at: usize, value: &[u8]) {
        assert!(value.len() <= VALUE_BYTES_MAX, "records have bounded values");
        let range = self.value_range(at);
        if range.len() != value.len() {
            let old_end = self.bytes.len();
            let new_end = range.start + value.len();
            if value.len() > range.len() {
                self.bytes.resize(old_end + value.len() - range.len(), 0);
            }
            self.bytes.copy_within(range.end..old_end, new_end);
            self.bytes.truncate(old_end - range.len() + value.len());
            let cell = usize::from(self.offsets[at]);
            self.bytes[cell + 2..cell + 4].copy_from_slice(&(value.len() as u16).to_le_bytes());
            let (grown, shrunk) = (value.len() as u16, range.len() as u16);
            self.offsets[at + 1..].iter_mut().for_each(|offset| *offset = *offset + grown - shrunk);
        }
        self.bytes[range.start..range.start + value.len()].copy_from_slice(value);
    }

    /// Takes cells out, and their children with them.
    pub fn remove_cells(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let start = usize::from(self.offsets[range.start]);
        let end = self.offsets.get(range.end).map_or(self.bytes.len(), |&offset| usize::from(offset));
        self.bytes.drain(start..end);
        self.offsets[range.end..].iter_mut().for_each(|offset| *offset -= (end - start) as u16);
        self.offsets.drain(range.clone());
        if !self.resident.is_empty() {
            self.resident.drain(range.clone());
        }
        self.trend.forget_from(range.start);
        if range.start == 0 && self.level > 0 {
            self.clear_first_key();
        }
    }

    fn clear_first_key(&mut self) {
        if self.offsets.is_empty() {
            return;
        }
        let (start, key_length, _) = self.cell(0);
        self.bytes.drain(start..start + key_length);
        self.bytes[start - CELL_HEADER..start - CELL_HEADER + 2].fill(0);
        self.offsets[1..].iter_mut().for_each(|offset| *offset -= key_length as u16);
    }

    /// Moves the cells from `at` on to a new node; returns the bound between the two, and that node.
    pub fn split_off(&mut self, at: usize) -> (Vec<u8>, Self) {
        let bound = if self.level > 0 { self.key(at).to_vec() } else { self.bound_before(at) };
        let start = usize::from(self.offsets[at]);
        let mut right = Self::empty(self.level);
        right.bytes.reserve(self.bytes.len() - start);
        right.bytes.extend_from_slice(&self.bytes[start..]);
        let shift = (start - HEADER) as u16;
        right.offsets = self.offsets[at..].iter().map(|offset| offset - shift).collect();
        if !self.resident.is_empty() {
            right.resident = self.resident.split_off(at);
        }
        self.bytes.truncate(start);
        self.offsets.truncate(at);
        if usize::from(self.trend.last) >= at {
            right.trend = Trend { last: self.trend.last - at as u16, run: self.trend.run };
            self.trend = Trend::default();
        }
        if right.level > 0 {
            right.clear_first_key();
        }
        (bound, right)
    }

    /// Appends all cells of a node whose keys are not below `bound`, and this one's are.
    pub fn append_node(&mut self, right: &Self, bound: &[u8]) {
        let had = self.count();
        let mut from = 0;
        if self.level > 0 {
            self.insert_cell(had, bound, right.value(0));
            from = 1;
        }
        let start = right.offsets.get(from).map_or(right.bytes.len(), |&offset| usize::from(offset));
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&right.bytes[start..]);
        self.offsets.extend(right.offsets[from..].iter().map(|&offset| (usize::from(offset) - start + base) as u16));
        if !self.resident.is_empty() || !right.resident.is_empty() {
            self.resident.resize(had, None);
            self.resident.extend_from_slice(&right.resident);
            self.resident.resize(self.offsets.len(), None);
        }
        self.trend = Trend::default();
    }

    /// Where to split a node that outgrew `bytes_max` when the cell `inserted` was put in or grew.
    ///
    /// Inserts that follow each other, as a copy's do, leave a full node behind and go on in a nearly empty one; any
    /// others leave two halves.
    pub fn split_point(&self, inserted: usize, bytes_max: usize) -> usize {
        debug_assert!(self.count() > 1);
        if self.trend.run >= RUN_MIN && usize::from(self.trend.last) == inserted && inserted > 0 {
            let next = inserted + 1;
            let fits = self.offsets.get(next).is_some_and(|&end| usize::from(end) <= bytes_max);
            return if fits { next } else { inserted };
        }
        let half = HEADER + (self.bytes.len() - HEADER) / 2;
        let above = self.offsets.partition_point(|&offset| usize::from(offset) < half);
        // The boundary nearest to the middle.
        let distance = |at: usize| self.offsets.get(at).map_or(self.bytes.len(), |&o| o.into()).abs_diff(half);
        let at = if above > 0 && distance(above - 1) < distance(above) { above - 1 } else { above };
        at.clamp(1, self.count() - 1)
    }

    /// The shortest key that is above the key before `at` and not above the one at it.
    fn bound_before(&self, at: usize) -> Vec<u8> {
        let (low, high) = (self.key(at - 1), self.key(at));
        let common = low.iter().zip(high).take_while(|(a, b)| a == b).count();
        high[..(common + 1).min(high.len())].to_vec()
    }
}
