//! Names: lookup, create, link, unlink, rename.
//!
//! Each change is one critical section of `meta`: the tree changes, the record is appended, the sequence number grows. A
//! reader that loops on open during a rename over its file sees the old or the new one, never none.

use std::sync::atomic::Ordering;

use parking_lot::RwLockWriteGuard;

use super::{super::Volume, Entry};
use crate::{
    attr::{Attr, BLOCK_BYTES, Caller},
    error::{Error, Result},
    format::{
        inode::{FileKind, Inode},
        op::Op,
    },
    ino::Ino,
    namespace::{CreateArgs, LinkArgs, Namespace, NamespaceView, Removed, RenameArgs, RenameFlags},
    time::Time,
    volume::{
        space::NAME_CHANGE_BYTES,
        state::{Meta, PENDING_BYTES_SOFT, Tie},
    },
};

/// What to create.
#[derive(Clone, Copy, Debug)]
pub struct NewInode<'a> {
    /// Directory.
    pub parent: Ino,
    /// Name in it.
    pub name: &'a [u8],
    /// Kind.
    pub kind: FileKind,
    /// Permission bits as asked for.
    pub mode: u32,
    /// Bits to take away.
    pub umask: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Target of a symbolic link.
    pub target: &'a [u8],
}

impl Volume {
    /// Finds `name` in `parent`; the answer holds a reference. `.` is any inode itself, [`Error::Stale`] if it is gone, and `..`
    /// the directory of a directory.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        if Self::is_view(parent) {
            return self.view_lookup(parent, name);
        }
        if name == self.options.snapdir_name {
            return self.snapdir_entry(parent);
        }
        let tree = self.tree();
        let view = NamespaceView::new(&tree, &self.names);
        let ino = match name {
            // Not names, but how a kernel asks for an inode of which it has kept the number only.
            b"." => parent,
            b".." => view.parent_of(parent)?,
            name => view.lookup(parent, name)?.0,
        };
        let inode = match view.inode(ino) {
            Err(Error::NotFound(_)) if name == b"." => return Err(Error::Stale(ino.into())),
            inode => inode?,
        };
        Ok(self.referenced(ino, &inode))
    }

    /// Gives back `count` references.
    pub fn forget(&self, ino: Ino, count: u64) {
        if Self::is_view(ino) {
            self.view_forget(ino, count);
        } else if self.references.drop_some(ino, count) {
            self.drop_if_nameless(ino);
        }
    }

    /// Creates an inode of any kind; the answer holds a reference.
    pub fn create_inode(&self, new: &NewInode<'_>, caller: &Caller) -> Result<Entry> {
        self.check_name_writable(new.parent, new.name)?;
        let time = self.now();
        let mut meta = self.meta.write();
        let mode = {
            let view = NamespaceView::new(&meta.tree, &self.names);
            view.check_addable(new.parent, new.name)?;
            view.create_mode(new.parent, new.kind, new.mode, new.umask)?
        };
        let ino = meta.runs.allocate(new.parent);
        let args = CreateArgs {
            parent: new.parent,
            name: new.name,
            ino,
            kind: new.kind,
            mode,
            uid: caller.uid,
            gid: caller.gid,
            rdev: new.rdev,
            target: new.target,
            time,
        };
        let inode = meta.change(|tree| Namespace::new(tree, &self.names).create(&args))?;
        let op = Op::Create {
            parent: new.parent,
            name: new.name.to_vec(),
            ino,
            kind: new.kind,
            mode,
            uid: caller.uid,
            gid: caller.gid,
            rdev: new.rdev,
            target: new.target.to_vec(),
            time,
        };
        let entry = self.referenced(ino, &inode);
        self.finish_change(meta, &op, time);
        Ok(entry)
    }

    /// Adds a name to a file; the answer holds a reference.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Entry> {
        self.check_name_writable(parent, name)?;
        if Self::is_view(ino) {
            return Err(Error::CrossDevice("a link from a snapshot to the live tree".into()));
        }
        let time = self.now();
        let mut meta = self.meta.write();
        {
            let view = NamespaceView::new(&meta.tree, &self.names);
            view.check_addable(parent, name)?;
            view.inode(ino)?.check_attributes(ino)?;
        }
        let args = LinkArgs { ino, parent, name, time };
        let inode = meta.change(|tree| Namespace::new(tree, &self.names).link(&args))?;
        let op = Op::Link { ino, parent, name: name.to_vec(), time };
        let entry = self.referenced(ino, &inode);
        self.finish_change(meta, &op, time);
        Ok(entry)
    }

    /// Removes a name that is not a directory's. Returns the inode if it has other names.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<Option<Ino>> {
        self.check_name_removable(parent, name)?;
        let time = self.now();
        let mut meta = self.meta.write();
        NamespaceView::new(&meta.tree, &self.names).check_removable(parent, name)?;
        let removed = meta.change(|tree| Namespace::new(tree, &self.names).unlink(parent, name, time))?;
        self.finish_change(meta, &Op::Unlink { parent, name: name.to_vec(), time }, time);
        Ok(self.after_removal(&removed))
    }

    /// Removes an empty directory, or a snapshot if `parent` is a snapshot directory.
    pub fn rmdir(&self, parent: Ino, name: &[u8], caller: &Caller) -> Result<()> {
        if Self::is_view(parent) {
            return self.view_rmdir(parent, name, caller);
        }
        self.check_name_removable(parent, name)?;
        let time = self.now();
        let mut meta = self.meta.write();
        NamespaceView::new(&meta.tree, &self.names).check_removable(parent, name)?;
        let removed = meta.change(|tree| Namespace::new(tree, &self.names).rmdir(parent, name, time))?;
        self.finish_change(meta, &Op::Rmdir { parent, name: name.to_vec(), time }, time);
        self.after_removal(&removed);
        Ok(())
    }

    /// Creates a directory, or takes a snapshot if `parent` is a snapshot directory.
    pub fn mkdir(&self, parent: Ino, name: &[u8], mode: u32, umask: u32, caller: &Caller) -> Result<Entry> {
        if Self::is_view(parent) {
            return self.view_mkdir(parent, name, caller);
        }
        let new = NewInode { parent, name, kind: FileKind::Directory, mode, umask, rdev: 0, target: b"" };
        self.create_inode(&new, caller)
    }

    /// Moves a name, or renames a snapshot if both parents are the same snapshot directory. Returns the inode that lost its name
    /// to the one moved, if it has other names.
    pub fn rename(
        &self,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        flags: RenameFlags,
        caller: &Caller,
    ) -> Result<Option<Ino>> {
        match (Self::is_view(parent), Self::is_view(new_parent)) {
            (true, true) => return self.view_rename((parent, name), (new_parent, new_name), caller).map(|()| None),
            (true, false) | (false, true) => {
                return Err(Error::CrossDevice("a move between a snapshot and the live tree".into()));
            }
            (false, false) => {}
        }
        self.check_name_removable(parent, name)?;
        self.check_name_writable(new_parent, new_name)?;
        let time = self.now();
        let mut meta = self.meta.write();
        NamespaceView::new(&meta.tree, &self.names).check_renamable((parent, name), (new_parent, new_name))?;
        let whiteout = flags.whiteout.then(|| meta.runs.allocate(parent));
        let args = RenameArgs { parent, name, new_parent, new_name, flags, whiteout, time };
        let renamed = meta.change(|tree| Namespace::new(tree, &self.names).rename(&args))?;
        if !renamed.changed {
            return Ok(None);
        }
        let op = Op::Rename {
            parent,
            name: name.to_vec(),
            new_parent,
            new_name: new_name.to_vec(),
            flags: flags.bits(),
            whiteout,
            time,
        };
        let sequence = meta.record(&op);
        // P1: after a crash the file is never behind a rename that put it over another one.
        if renamed.replaced.is_some() || renamed.exchanged.is_some() {
            let moved = std::iter::once(renamed.moved).chain(renamed.exchanged);
            meta.ties.extend(moved.map(|ino| Tie { sequence, ino }));
        }
        self.note_change(&meta, time);
        drop(meta);
        Ok(renamed.replaced.as_ref().and_then(|removed| self.after_removal(removed)))
    }

    /// Attributes of an inode record, with what is still dirty counted in.
    pub(crate) fn attr_of(&self, ino: Ino, inode: &Inode) -> Attr {
        let dirty = self.cells.find(ino).map_or(0, |cell| cell.dirty_bytes());
        let attr = Attr::new(ino, inode);
        Attr { blocks: attr.blocks + dirty.div_ceil(BLOCK_BYTES), ..attr }
    }

    fn referenced(&self, ino: Ino, inode: &Inode) -> Entry {
        self.references.add(ino);
        let attr = self.attr_of(ino, inode);
        Entry { attr, immutable: false, name_may_move: false, transient: false }
    }

    /// Appends the record of a change and lets `meta` go.
    pub(crate) fn finish_change(&self, mut meta: RwLockWriteGuard<'_, Meta>, op: &Op, time: Time) {
        meta.record(op);
        self.note_change(&meta, time);
    }

    /// Tells the background threads that something changed at `time`.
    pub(crate) fn note_change(&self, meta: &Meta, time: Time) {
        self.last_change_ns.store(time.as_nanos(), Ordering::Relaxed);
        if meta.pending_bytes > PENDING_BYTES_SOFT {
            self.background.want_journal();
        }
    }

    fn check_name_removable(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        if Self::is_view(parent) || name == self.options.snapdir_name {
            return Err(Error::ReadOnly("a snapshot".into()));
        }
        self.wait_for_nodes();
        Ok(())
    }

    fn check_name_writable(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        if Self::is_view(parent) {
            return Err(Error::ReadOnly("a snapshot".into()));
        }
        if name == self.options.snapdir_name {
            return Err(Error::Exists(format!("{} (the snapshots of this directory)", name.escape_ascii()).into()));
        }
        self.wait_for_nodes();
        self.space.accept(&self.repository, NAME_CHANGE_BYTES, || self.accepted_bytes())
    }

    fn after_removal(&self, removed: &Removed) -> Option<Ino> {
        if removed.nlink > 0 {
            return Some(removed.ino);
        }
        self.drop_if_nameless(removed.ino);
        None
    }

    /// Drops an inode that has no name, no reference and no open handle. If that fails the inode stays as it is, and the next open
    /// meets it again: what took its name away has been done, and is no failure.
    pub(crate) fn drop_if_nameless(&self, ino: Ino) {
        if let Err(error) = self.try_drop_if_nameless(ino) {
            log::warn!("inode {ino} has no name and cannot be dropped: {error}");
        }
    }

    fn try_drop_if_nameless(&self, ino: Ino) -> Result<()> {
        if self.options.read_only || self.references.holds(ino) {
            return Ok(());
        }
        if let Some(cell) = self.cells.find(ino) {
            let opens = cell.lock().opens;
            self.cells.put(cell);
            if opens > 0 {
                return Ok(());
            }
        }
        let nameless = matches!(self.meta.read().inode(ino)?, Some(inode) if inode.nlink == 0);
        if nameless { self.drop_inode(ino) } else { Ok(()) }
    }

    /// Removes all records of a nameless inode, and its content; a running checkpoint keeps what it froze. Nothing if somebody has opened
    /// it or refers to it by now: he may also be the one who took its last name, after the caller had looked.
    pub(crate) fn drop_inode(&self, ino: Ino) -> Result<()> {
        let cell = self.cells.get(ino);
        let mut state = cell.lock();
        let mut meta = self.meta.write();
        let is_nameless = meta.inode(ino)?.is_some_and(|inode| inode.nlink == 0);
        if !is_nameless || state.opens > 0 || self.references.holds(ino) {
            drop((meta, state));
            self.cells.put(cell);
            return Ok(());
        }
        if let Some(frozen) = &meta.frozen
            && state.live_generation <= frozen.generation
        {
            let next = frozen.generation + 1;
            state.rotate(next);
        }
        // The records go without a journal entry: replay finds the inode nameless and collects it as well.
        meta.change(|tree| Namespace::new(tree, &self.names).drop_inode(ino))?;
        meta.next_sequence();
        drop(meta);
        state.live = Default::default();
        state.unjournaled.clear();
        state.attributes_changed = None;
        state.dropped = state.frozen.is_some();
        state.error = None;
        self.settle_budget(&cell, &state, 0);
        drop(state);
        self.cells.put(cell);
        Ok(())
    }
}
