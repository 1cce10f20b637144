//! Attributes: getattr, setattr, readlink, statfs.

use super::super::Volume;
use crate::{
    attr::{Attr, SetAttr, SetTime},
    error::{Error, Result},
    format::{
        inode::{FileKind, SIZE_MAX},
        op::Op,
    },
    ino::Ino,
    namespace::{AttributeChange, Namespace, NamespaceView},
    time::Time,
    volume::{
        cells::{Cell, CellState, Queued},
        flush::STREAM_BYTES,
        space::SpaceGauge,
        state::{Meta, inode_in, put_inode_in},
    },
};

/// What `statfs` tells.
#[derive(Clone, Copy, Debug)]
pub struct VolumeStatistics {
    /// Unit in which sizes are best shown.
    pub block_bytes: u32,
    /// Size of the disk below.
    pub total_bytes: u64,
    /// What is free of it, and not spoken for by what was accepted.
    pub free_bytes: u64,
    /// What can still be written, if it neither deduplicates nor compresses; without what is held back for checkpoints.
    pub writable_bytes: u64,
    /// Inodes that can still be made: as good as without bound.
    pub files_free: u64,
    /// Longest name.
    pub name_bytes_max: u32,
}

impl Volume {
    /// Attributes of an inode.
    pub fn get_attr(&self, ino: Ino) -> Result<Attr> {
        if Self::is_view(ino) {
            return self.view_attr(ino);
        }
        let inode = inode_in(&self.tree(), ino)?.ok_or(Error::Stale(ino.into()))?;
        Ok(self.attr_of(ino, &inode))
    }

    /// Changes the attributes that `change` names. Truncation may wait for the byte budget: never.
    pub fn set_attr(&self, ino: Ino, change: &SetAttr) -> Result<Attr> {
        if Self::is_view(ino) {
            return Err(Error::ReadOnly("a snapshot".into()));
        }
        self.check_writable()?;
        self.wait_for_nodes();
        let time = self.now();
        let cell = self.cells.get(ino);
        let changed = self.set_attr_in(&cell, change, time);
        self.cells.put(cell);
        changed
    }

    fn set_attr_in(&self, cell: &Cell, change: &SetAttr, time: Time) -> Result<Attr> {
        let ino = cell.ino;
        let mut state = cell.lock();
        let mut meta = self.meta.write();
        let inode = meta.inode(ino)?.ok_or(Error::Stale(ino.into()))?;
        if let Some(size) = change.size {
            match inode.kind {
                FileKind::Regular => {}
                FileKind::Directory => return Err(Error::IsDirectory(ino.into())),
                _ => return Err(Error::InvalidArgument(format!("inode {ino} has no size to set").into())),
            }
            if size > SIZE_MAX {
                return Err(Error::TooBig(ino.into()));
            }
        }
        let now = |set: Option<SetTime>| set.is_none_or(|set| set == SetTime::Now);
        let touches = change.mode.is_none() && change.uid.is_none() && change.gid.is_none() && change.size.is_none();
        if touches && now(change.atime) && now(change.mtime) {
            inode.check_touch(ino)?;
        } else {
            inode.check_attributes(ino)?;
        }
        let names = AttributeChange {
            mode: change.mode,
            uid: change.uid,
            gid: change.gid,
            atime: change.atime.map(|set| set.resolve(time)),
            mtime: change.mtime.map(|set| set.resolve(time)),
            ctime: time,
        };
        if let Some(size) = change.size {
            self.resize(cell, &mut state, &mut meta, size, time)?;
        }
        self.apply_attributes(ino, inode.kind, &mut state, &mut meta, &names)?;
        self.note_change(&meta, time);
        let inode = meta.inode(ino)?.ok_or(Error::Stale(ino.into()))?;
        drop(meta);
        drop(state);
        Ok(self.attr_of(ino, &inode))
    }

    /// Owners and modes are names' matter and are recorded; times of a file with unsynced content stay with its content.
    fn apply_attributes(
        &self,
        ino: Ino,
        kind: FileKind,
        state: &mut CellState,
        meta: &mut Meta,
        change: &AttributeChange,
    ) -> Result<()> {
        let with_content = kind == FileKind::Regular && state.has_unjournaled();
        let owners = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
        let times = change.atime.is_some() || change.mtime.is_some();
        if !owners && !times {
            return Ok(());
        }
        meta.change(|tree| Namespace::new(tree, &self.names).set_attr(ino, change))?;
        let (atime, mtime) = if with_content { (None, None) } else { (change.atime, change.mtime) };
        if owners || !with_content {
            let AttributeChange { mode, uid, gid, ctime, .. } = *change;
            meta.record(&Op::SetAttr { ino, mode, uid, gid, atime, mtime, ctime });
        }
        if with_content && times {
            let sequence_taken = owners;
            if !sequence_taken {
                meta.next_sequence();
            }
            meta.changed.insert(ino);
            state.attributes_changed = Some(meta.generation);
        }
        Ok(())
    }

    /// Sets a file's size; what lies between the old and the new one reads as zeros.
    pub(crate) fn resize(
        &self,
        cell: &Cell,
        state: &mut CellState,
        meta: &mut Meta,
        size: u64,
        time: Time,
    ) -> Result<()> {
        let mut inode = meta.inode(cell.ino)?.ok_or(Error::Stale(cell.ino.into()))?;
        self.begin_change(state, meta, cell.ino, time);
        if size < inode.size {
            state.live.zero(size, inode.size - size);
        }
        inode.class = state.overwrites.note_truncate(size, inode.class);
        inode.size = size;
        (inode.mtime, inode.ctime) = (time, time);
        put_inode_in(&mut meta.tree, cell.ino, &inode)?;
        self.settle_budget(cell, state, 0);
        Ok(())
    }

    /// What every change of content begins with, under both locks: generation, sequence number, list of changed inodes.
    pub(crate) fn begin_change(&self, state: &mut CellState, meta: &mut Meta, ino: Ino, time: Time) {
        state.rotate(meta.generation);
        state.attributes_changed = Some(meta.generation);
        if state.dirty_since_ns == 0 {
            state.dirty_since_ns = time.as_nanos();
        }
        if state.queued == Queued::No {
            state.queued = Queued::Aging;
            meta.aging.push_back(ino);
        } else if state.queued == Queued::Aging && state.live.held_bytes() > STREAM_BYTES {
            state.queued = Queued::Stream;
            meta.streams.push_back(ino);
        }
        meta.next_sequence();
        meta.changed.insert(ino);
        self.note_change(meta, time);
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        if Self::is_view(ino) {
            return self.view_read_link(ino);
        }
        self.touch_atime(ino)?;
        NamespaceView::new(&self.tree(), &self.names).read_link(ino)
    }

    /// Space and counts of the volume.
    pub fn statistics(&self) -> Result<VolumeStatistics> {
        let space = self.repository.space()?;
        let accepted = self.accepted_bytes();
        let free_bytes = space.free_bytes.saturating_add(space.reserve_bytes).saturating_sub(accepted);
        let writable_bytes = match self.check_healthy() {
            Ok(()) => SpaceGauge::measure(&self.repository, accepted)?.max(0) as u64,
            Err(_) => 0,
        };
        Ok(VolumeStatistics {
            block_bytes: 4096,
            total_bytes: space.total_bytes,
            free_bytes,
            writable_bytes,
            files_free: u64::MAX >> 16,
            name_bytes_max: 255,
        })
    }
}
