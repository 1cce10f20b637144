//! The bytes of one simulated file: a sparse map of pages that copies share until one of them is written.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// What a medium writes as a whole.
pub(super) const SECTOR: u64 = 512;

const PAGE: u64 = 4096;

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    length: u64,
    /// Pages that were written; all others are zeros. Bytes beyond the length are zeros as well.
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Fills the buffer as far as there are bytes.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let count = self.length.saturating_sub(offset).min(buffer.len() as u64) as usize;
        for (page, within, part) in pieces(offset, count) {
            match self.pages.get(&page) {
                Some(bytes) => buffer[part.clone()].copy_from_slice(&bytes[within..within + part.len()]),
                None => buffer[part].fill(0),
            }
        }
        count
    }

    /// Writes the bytes, and zeros between the end and `offset`.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for (page, within, part) in pieces(offset, bytes.len()) {
            let target = Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize])));
            target[within..within + part.len()].copy_from_slice(&bytes[part]);
        }
        self.length = self.length.max(offset + bytes.len() as u64);
    }

    pub(super) fn set_len(&mut self, length: u64) {
        if length < self.length {
            self.pages.split_off(&length.div_ceil(PAGE));
            if let Some(bytes) = self.pages.get_mut(&(length / PAGE)) {
                Arc::make_mut(bytes)[(length % PAGE) as usize..].fill(0);
            }
        }
        self.length = length;
    }

    /// Takes a sector over from another content, as far as it is inside this one's length.
    pub(super) fn copy_sector(&mut self, from: &Self, sector: u64) {
        let offset = sector * SECTOR;
        let count = self.length.saturating_sub(offset).min(SECTOR) as usize;
        let mut bytes = [0; SECTOR as usize];
        from.read(&mut bytes[..count], offset);
        let has_page = |content: &Self| content.pages.contains_key(&(offset / PAGE));
        if count > 0 && (has_page(from) || has_page(self)) {
            self.write(&bytes[..count], offset);
        }
    }

    /// Those of the given sectors that lie in written pages.
    pub(super) fn sectors(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        let sectors = PAGE / SECTOR;
        let pages = if range.is_empty() { 0..0 } else { range.start / sectors..range.end.div_ceil(sectors) };
        self.pages
            .range(pages)
            .flat_map(move |(page, _)| page * sectors..(page + 1) * sectors)
            .filter(move |sector| range.contains(sector))
    }
}

/// Cuts a range into pages: page number, offset in the page, part of the range.
fn pieces(offset: u64, count: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE) as usize;
        let length = (PAGE as usize - within).min(count - done);
        let part = done..done + length;
        done += length;
        (length > 0).then_some((at / PAGE, within, part))
    })
}
