//! Files: open, read, write, close, sync, fallocate, seek, copy.

use std::sync::Arc;

use super::{
    super::{
        Volume,
        cells::{Cell, CellState},
        flush::STREAM_BYTES,
        handles::{Handle, HandleId, OpenIntent, OpenMode, Target},
        journal::CONTENT_INLINE_MAX,
        state::{inode_in, put_inode_in},
    },
    Entry,
    names::NewInode,
};
use crate::{
    attr::Caller,
    error::{Error, Result},
    format::inode::{FileKind, Inode, SIZE_MAX, WriteClass},
    ino::Ino,
};

/// What to do with a range of a file's space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Reserve; the file may grow.
    Reserve {
        /// Leave the size as it is.
        keep_size: bool,
    },
    /// Make a hole; the size stays.
    Punch,
    /// Make the range zeros.
    Zero {
        /// Leave the size as it is.
        keep_size: bool,
    },
}

/// An opened file.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The handle.
    pub handle: HandleId,
    /// Content will never change: what is cached of it stays right.
    pub immutable: bool,
    /// The next read moves the access time, if it is asked for here and not answered from a cache.
    pub refresh: bool,
}

impl Volume {
    /// Opens a file.
    pub fn open_file(&self, ino: Ino, mode: OpenMode) -> Result<Opened> {
        self.open_file_for(ino, mode, OpenIntent::default())
    }

    /// Opens a file, telling more of what the opener means to do.
    pub fn open_file_for(&self, ino: Ino, mode: OpenMode, intent: OpenIntent) -> Result<Opened> {
        if Self::is_view(ino) {
            if mode.write {
                return Err(Error::ReadOnly("a snapshot".into()));
            }
            let (view, inner) = self.view_file(ino)?;
            let handle = self.handles.insert(ino, mode, intent, Target::Frozen(view, inner));
            return Ok(Opened { handle, immutable: true, refresh: false });
        }
        if mode.write {
            self.check_writable()?;
        }
        let inode = inode_in(&self.tree(), ino)?.ok_or(Error::Stale(ino.into()))?;
        if inode.kind == FileKind::Directory {
            return Err(Error::IsDirectory(ino.into()));
        }
        if mode.write {
            if intent.appends || mode.append { inode.check_touch(ino)? } else { inode.check_attributes(ino)? }
        }
        let refresh = mode.read && !intent.keeps_atime && self.moves_atime(&inode);
        Ok(Opened { handle: self.open_cell(ino, mode, intent), immutable: false, refresh })
    }

    fn open_cell(&self, ino: Ino, mode: OpenMode, intent: OpenIntent) -> HandleId {
        let cell = self.cells.get(ino);
        let mut state = cell.lock();
        state.opens += 1;
        state.mappable += u32::from(mode.is_mappable());
        drop(state);
        self.handles.insert(ino, mode, intent, Target::Live(cell))
    }

    /// Creates a regular file and opens it. The front end has looked for an existing one already; one that appeared since
    /// gives [`Error::Exists`].
    pub fn create(&self, new: &NewInode<'_>, mode: OpenMode, caller: &Caller) -> Result<(Entry, Opened)> {
        let entry = self.create_inode(new, caller)?;
        let handle = self.open_cell(entry.attr.ino, mode, OpenIntent::default());
        Ok((entry, Opened { handle, immutable: false, refresh: false }))
    }

    /// Closes a handle.
    pub fn release(&self, handle: HandleId) -> Result<()> {
        let Some(handle) = self.handles.remove(handle) else {
            return Err(Error::BadHandle(format!("handle {}", handle.0).into()));
        };
        let ino = handle.ino;
        let Target::Live(cell) = &handle.target else {
            return Ok(());
        };
        let cell = Arc::clone(cell);
        let mappable = handle.mode.is_mappable();
        drop(handle);
        let last = {
            let mut state = cell.lock();
            state.opens -= 1;
            state.mappable -= u32::from(mappable);
            state.opens == 0
        };
        self.cells.put(cell);
        if last {
            self.drop_if_nameless(ino);
        }
        Ok(())
    }

    /// Answers `close`: reports a write-back error that nobody has seen yet. Makes nothing durable.
    pub fn flush(&self, handle: HandleId) -> Result<()> {
        match &self.handles.get(handle)?.target {
            Target::Live(cell) => cell.lock().error.take().map_or(Ok(()), Err),
            Target::Frozen(..) | Target::Directory(_) => Ok(()),
        }
    }

    /// Makes a file's content, and every change of names before this call, durable. Blocks on the disk.
    pub fn fsync(&self, handle: HandleId) -> Result<()> {
        match &self.handles.get(handle)?.target {
            Target::Live(cell) => self.sync_inode(cell.ino),
            Target::Frozen(..) | Target::Directory(_) => Ok(()),
        }
    }

    /// Whether a write of `bytes` would have to wait for memory or the disk.
    pub fn write_would_wait(&self, handle: HandleId, bytes: usize) -> bool {
        let waits = |handle: &Handle| match &handle.target {
            Target::Live(cell) => handle.mode.sync || cell.lock().sync_waiting,
            Target::Frozen(..) | Target::Directory(_) => false,
        };
        self.budget.would_wait(bytes as u64) || self.handles.get(handle).is_ok_and(|handle| waits(&handle))
    }

    /// Writes `data` at `offset` (at the end, for an appending handle). Waits when the byte budget is used up; when it
    /// returns, the bytes are kept (P6), though not durable unless the handle syncs.
    pub fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<usize> {
        let handle = self.handles.get(handle)?;
        let Target::Live(cell) = &handle.target else {
            return Err(Error::ReadOnly("a snapshot".into()));
        };
        if data.is_empty() {
            return Ok(0);
        }
        self.check_writable()?;
        let bytes = data.len() as u64;
        self.space.accept(&self.repository, bytes, || self.accepted_bytes())?;
        self.budget.reserve(bytes, || self.background.want_flush())?;
        let written = self.write_in(cell, &handle, offset, data);
        if written.is_err() {
            self.budget.release(bytes);
        }
        written?;
        if handle.mode.sync {
            self.sync_inode(cell.ino)?;
        }
        Ok(data.len())
    }

    fn write_in(&self, cell: &Arc<Cell>, handle: &Handle, offset: u64, data: &[u8]) -> Result<()> {
        let bytes = data.len() as u64;
        let mut state = self.lock_for_writing(cell);
        let time = self.now();
        let offset = {
            let mut meta = self.meta.write();
            let mut inode = meta.inode(cell.ino)?.ok_or(Error::Stale(cell.ino.into()))?;
            let offset = if handle.mode.append { inode.size } else { offset };
            inode.check_content(cell.ino, offset)?;
            let end = offset.checked_add(bytes).filter(|&end| end <= SIZE_MAX);
            let end = end.ok_or(Error::TooBig(cell.ino.into()))?;
            self.begin_change(&mut state, &mut meta, cell.ino, time);
            self.note_class(&mut state, &mut inode, offset, bytes);
            inode.size = inode.size.max(end);
            (inode.mtime, inode.ctime) = (time, time);
            put_inode_in(&mut meta.tree, cell.ino, &inode)?;
            offset
        };
        // The generation was fixed under `meta`; a freeze in between waits for this cell and finds the bytes.
        state.live.write(offset, data);
        self.settle_budget(cell, &state, bytes);
        let flush = state.live.held_bytes() > STREAM_BYTES;
        drop(state);
        if flush || self.budget.is_pressed() {
            self.background.want_flush();
        }
        Ok(())
    }

    /// Locks a cell to change its content; steps behind a sync that could otherwise never end.
    fn lock_for_writing<'c>(&self, cell: &'c Arc<Cell>) -> parking_lot::MutexGuard<'c, CellState> {
        let state = cell.lock();
        if !state.sync_waiting || state.dirty_bytes() <= CONTENT_INLINE_MAX / 2 {
            return state;
        }
        drop(state);
        drop(cell.take_turn());
        cell.lock()
    }

    /// Turns a reservation into what the dirty maps really hold. Whatever changes their segments ends with this: the budget
    /// is compared with the last settlement, so that no splitting or joining of segments is ever counted twice or forgotten.
    pub(crate) fn settle_budget(&self, cell: &Cell, state: &CellState, reserved: u64) {
        let (before, after) = cell.note_dirty(state);
        self.budget.settle(before + reserved, after);
    }

    fn note_class(&self, state: &mut CellState, inode: &mut Inode, offset: u64, bytes: u64) {
        let flushed = !state.live.covers(offset, bytes) && inode.allocated > 0;
        if state.overwrites.note_write(offset, bytes, inode.size, flushed) {
            inode.class = WriteClass::Random;
        }
    }

    /// Reads up to `length` bytes at `offset`; short only at the end of the file. Blocks when a blob is not cached.
    pub fn read(&self, handle: HandleId, offset: u64, length: usize) -> Result<Vec<u8>> {
        let handle = self.handles.get(handle)?;
        match &handle.target {
            Target::Live(cell) => self.read_live(cell, &handle, offset, length),
            Target::Frozen(view, ino) => self.read_frozen(view, *ino, &handle, offset, length),
            Target::Directory(ino) => Err(Error::IsDirectory((*ino).into())),
        }
    }

    /// Reserves, punches or zeroes a range.
    pub fn allocate(&self, handle: HandleId, offset: u64, length: u64, what: Allocate) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let Target::Live(cell) = &handle.target else {
            return Err(Error::ReadOnly("a snapshot".into()));
        };
        self.check_writable()?;
        let end = offset.checked_add(length).filter(|&end| end <= SIZE_MAX && length > 0);
        let end = end.ok_or(Error::TooBig(cell.ino.into()))?;
        let (grows, zeroes) = match what {
            Allocate::Reserve { keep_size } => (!keep_size, false),
            Allocate::Punch => (false, true),
            Allocate::Zero { keep_size } => (!keep_size, true),
        };
        if matches!(what, Allocate::Reserve { .. }) {
            // Content is never overwritten in place, so space cannot be set aside for it; only a full disk is told.
            self.space.accept(&self.repository, length, || self.accepted_bytes())?;
        }
        let time = self.now();
        let mut state = cell.lock();
        let mut meta = self.meta.write();
        let mut inode = meta.inode(cell.ino)?.ok_or(Error::Stale(cell.ino.into()))?;
        inode.check_content(cell.ino, if zeroes { 0 } else { inode.size })?;
        self.begin_change(&mut state, &mut meta, cell.ino, time);
        if zeroes {
            let zero_end = end.min(inode.size);
            if zero_end > offset {
                state.live.zero(offset, zero_end - offset);
            }
        }
        if grows {
            inode.size = inode.size.max(end);
        }
        (inode.mtime, inode.ctime) = (time, time);
        put_inode_in(&mut meta.tree, cell.ino, &inode)?;
        drop(meta);
        self.settle_budget(cell, &state, 0);
        Ok(())
    }
}
