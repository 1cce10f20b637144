//! Reading files, and fetching ahead of who reads on.
//!
//! *Threads*: any. Layers and tree are captured under the cell and `meta`; blobs are read without a lock.
//!
//! *Bounds*: one read is at most [`READ_BYTES_MAX`]; a handle's window grows from [`WINDOW_MIN`] to [`WINDOW_MAX`].

use std::sync::Arc;

use vellum_store::id::BlobKind;

use super::{
    Volume,
    cells::{Cell, CellState},
    handles::{Handle, HandleId, Target},
    snapdir::View,
    state::{inode_in, put_inode_in},
};
use crate::{
    content::{
        base::TreeBase,
        extents,
        overlay::{self, Layer, Piece},
        read::{Seek, read_pieces, seek},
    },
    error::{Error, Result},
    format::inode::{FLAG_NO_ATIME, Inode},
    ino::Ino,
    tree::Tree,
};

/// Longest read that is answered at once.
pub const READ_BYTES_MAX: usize = 16 << 20;
/// First read-ahead window.
const WINDOW_MIN: u64 = 256 << 10;
/// Largest read-ahead window.
const WINDOW_MAX: u64 = 8 << 20;
/// A reader that finds an atime older than this has it moved even if the file did not change (relatime).
const ATIME_AGE_SECONDS: i64 = 86_400;

impl CellState {
    /// The layers, topmost first, as readers and seekers take them.
    pub(crate) fn layers_for_reading(&self) -> Vec<&dyn Layer> {
        std::iter::once(&self.live).chain(&self.frozen).map(|layer| layer as &dyn Layer).collect()
    }
}

impl Volume {
    pub(crate) fn read_live(&self, cell: &Arc<Cell>, handle: &Handle, offset: u64, length: usize) -> Result<Vec<u8>> {
        let read = self.read_pieces_of(cell, handle, offset, length, false)?;
        Ok(read.expect("a read that may fetch always has an answer"))
    }

    fn read_pieces_of(
        &self,
        cell: &Arc<Cell>,
        handle: &Handle,
        offset: u64,
        length: usize,
        cached_only: bool,
    ) -> Result<Option<Vec<u8>>> {
        let (pieces, tree, size) = {
            let mut state = cell.lock();
            let (tree, inode) = {
                let meta = self.meta.read();
                (meta.tree.clone(), meta.inode(cell.ino)?.ok_or(Error::Stale(cell.ino.into()))?)
            };
            self.note_read(cell, handle, &mut state)?;
            let end = offset.saturating_add(length.min(READ_BYTES_MAX) as u64).min(inode.size);
            if offset >= end {
                return Ok(Some(Vec::new()));
            }
            (overlay::resolve(offset..end, &state.layers_for_reading()), tree, inode.size)
        };
        self.read_ahead(&tree, cell.ino, handle, offset, length as u64, size);
        self.assemble_pieces(&tree, cell.ino, &pieces, cached_only)
    }

    /// Puts a read together; `None` if a blob is not in memory and must not be fetched.
    fn assemble_pieces(&self, tree: &Tree, ino: Ino, pieces: &[Piece], cached_only: bool) -> Result<Option<Vec<u8>>> {
        let mut missed = false;
        let mut blobs = |id: &_, length| {
            if !cached_only {
                return Ok(self.repository.read(BlobKind::Data, id, length)?);
            }
            self.repository.read_cached(id).ok_or_else(|| {
                missed = true;
                Error::Interrupted
            })
        };
        let mut out = Vec::new();
        match read_pieces(pieces, &mut TreeBase::new(tree, ino, &mut blobs), &mut out) {
            Ok(()) => Ok(Some(out)),
            Err(_) if missed => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Self::read`], if no blob has to be fetched for it; `None` otherwise. Never blocks on the disk for content.
    pub fn read_if_cached(&self, handle: HandleId, offset: u64, length: usize) -> Result<Option<Vec<u8>>> {
        let handle = self.handles.get(handle)?;
        match &handle.target {
            Target::Live(cell) => self.read_pieces_of(cell, &handle, offset, length, true),
            Target::Frozen(view, ino) => {
                let size = inode_in(&view.tree, *ino)?.ok_or(Error::Stale((*ino).into()))?.size;
                self.read_ahead(&view.tree, *ino, &handle, offset, length as u64, size);
                self.read_tree_if(&view.tree, *ino, size, offset, length, true)
            }
            Target::Directory(ino) => Err(Error::IsDirectory((*ino).into())),
        }
    }

    pub(crate) fn read_frozen(
        &self,
        view: &View,
        ino: Ino,
        handle: &Handle,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>> {
        let size = inode_in(&view.tree, ino)?.ok_or(Error::Stale(ino.into()))?.size;
        self.read_ahead(&view.tree, ino, handle, offset, length as u64, size);
        self.read_in_tree(&view.tree, ino, offset, length)
    }

    /// Reads content of an inode as a stored tree has it.
    pub fn read_in_tree(&self, tree: &Tree, ino: Ino, offset: u64, length: usize) -> Result<Vec<u8>> {
        let size = inode_in(tree, ino)?.ok_or(Error::Stale(ino.into()))?.size;
        let read = self.read_tree_if(tree, ino, size, offset, length, false)?;
        Ok(read.expect("a read that may fetch always has an answer"))
    }

    fn read_tree_if(
        &self,
        tree: &Tree,
        ino: Ino,
        size: u64,
        offset: u64,
        length: usize,
        cached_only: bool,
    ) -> Result<Option<Vec<u8>>> {
        let end = offset.saturating_add(length.min(READ_BYTES_MAX) as u64).min(size);
        if offset >= end {
            return Ok(Some(Vec::new()));
        }
        self.assemble_pieces(tree, ino, &overlay::resolve(offset..end, &[]), cached_only)
    }

    /// Finds data or a hole from `offset` on; `None` when there is none before the end.
    ///
    /// What was stored through a mapping is not here before the front end writes it back. So while another handle may have one,
    /// all of the file is data: who copies by holes would leave out what a reader sees.
    pub fn seek(&self, handle: HandleId, what: Seek, offset: u64) -> Result<Option<u64>> {
        let handle = self.handles.get(handle)?;
        let mut blobs = |id: &_, length| Ok(self.repository.read(BlobKind::Data, id, length)?);
        match &handle.target {
            Target::Live(cell) => {
                let state = cell.lock();
                let (tree, inode) = {
                    let meta = self.meta.read();
                    (meta.tree.clone(), meta.inode(cell.ino)?.ok_or(Error::Stale(cell.ino.into()))?)
                };
                if state.mappable > u32::from(handle.mode.is_mappable()) {
                    let found = if what == Seek::Data { offset } else { inode.size };
                    return Ok((offset < inode.size).then_some(found));
                }
                let mut base = TreeBase::new(&tree, cell.ino, &mut blobs);
                seek(what, offset, inode.size, &state.layers_for_reading(), &mut base)
            }
            Target::Frozen(view, ino) => self.seek_in_tree(&view.tree, *ino, what, offset),
            Target::Directory(ino) => Err(Error::IsDirectory((*ino).into())),
        }
    }

    /// As [`Self::seek`], in a stored tree.
    pub fn seek_in_tree(&self, tree: &Tree, ino: Ino, what: Seek, offset: u64) -> Result<Option<u64>> {
        let inode = inode_in(tree, ino)?.ok_or(Error::Stale(ino.into()))?;
        let mut blobs = |id: &_, length| Ok(self.repository.read(BlobKind::Data, id, length)?);
        seek(what, offset, inode.size, &[], &mut TreeBase::new(tree, ino, &mut blobs))
    }

    /// Asks for what a sequential reader will want next.
    fn read_ahead(&self, tree: &Tree, ino: Ino, handle: &Handle, offset: u64, length: u64, size: u64) {
        let range = {
            let mut pattern = handle.pattern.lock();
            let sequential = offset == pattern.next && offset > 0 || offset == 0 && size > length;
            pattern.next = offset + length;
            if !sequential {
                pattern.window = 0;
                pattern.ahead = 0;
                return;
            }
            pattern.window = (pattern.window * 2).clamp(WINDOW_MIN, WINDOW_MAX);
            let from = pattern.ahead.max(offset + length);
            let to = (offset + length + pattern.window).min(size);
            // Ask again only when half of the window was used, so that requests stay large.
            if to <= from || (from > offset + length + pattern.window / 2 && to < size) {
                return;
            }
            pattern.ahead = to;
            from..to
        };
        let count_max = (WINDOW_MAX / self.repository.config().chunk_sizes.min() as u64) as usize;
        if let Ok(found) = extents::list(tree, ino, range, count_max) {
            let wanted: Vec<_> = found.iter().map(|extent| (extent.blob, extent.blob_length)).collect();
            self.repository.read_ahead(&wanted);
        }
    }

    /// Moves the access time of a file that is read through `handle`, where that is wanted.
    pub(crate) fn note_read(&self, cell: &Cell, handle: &Handle, state: &mut CellState) -> Result<()> {
        if self.options.relatime && !handle.intent.keeps_atime && self.touch_atime(cell.ino)? {
            // Synced with the content, if that is; a file is synced as a whole.
            state.attributes_changed = Some(self.meta.read().generation);
        }
        Ok(())
    }

    /// Whether a read at this moment moves the access time of an inode.
    pub(crate) fn moves_atime(&self, inode: &Inode) -> bool {
        let old = || self.now().sec - inode.atime.sec >= ATIME_AGE_SECONDS;
        self.options.relatime
            && inode.flags & FLAG_NO_ATIME == 0
            && (inode.atime <= inode.mtime || inode.atime <= inode.ctime || old())
            && self.check_writable().is_ok()
    }

    /// Moves the access time of an inode that is read, if that is wanted; returns whether it did.
    pub(crate) fn touch_atime(&self, ino: Ino) -> Result<bool> {
        // Most reads find it moved already, and need no more than this.
        let stale = |inode: Option<Inode>| inode.filter(|inode| self.moves_atime(inode));
        if !self.options.relatime || stale(self.meta.read().inode(ino)?).is_none() {
            return Ok(false);
        }
        let now = self.now();
        let mut meta = self.meta.write();
        let Some(mut inode) = stale(meta.inode(ino)?) else {
            return Ok(false);
        };
        inode.atime = now;
        put_inode_in(&mut meta.tree, ino, &inode)?;
        // Not a change by itself: it rides along with the next checkpoint and never makes one.
        meta.atime_moved = true;
        meta.changed.insert(ino);
        Ok(true)
    }
}
