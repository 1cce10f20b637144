//! Directories: open, list, sync.

use std::ops::ControlFlow;

use super::super::{
    Volume,
    handles::{HandleId, OpenIntent, OpenMode, Target},
};
use crate::{
    attr::Attr,
    error::{Error, Result},
    format::inode::FileKind,
    ino::Ino,
    namespace::{DirEntry, NamespaceView},
};

/// Cookie of a visible snapshot directory: above those of `.` and `..`, below all others.
const COOKIE_SNAPDIR: u64 = 3;

impl Volume {
    /// Opens a directory; says whether its entries will never change.
    pub fn open_dir(&self, ino: Ino) -> Result<(HandleId, bool)> {
        let kind = if Self::is_view(ino) {
            self.view_attr(ino)?.kind
        } else {
            self.meta.read().inode(ino)?.ok_or(Error::Stale(ino.into()))?.kind
        };
        if kind != FileKind::Directory {
            return Err(Error::NotDirectory(ino.into()));
        }
        let immutable = Self::is_view(ino) && self.view_file(ino).is_ok();
        Ok((self.handles.insert(ino, OpenMode::default(), OpenIntent::default(), Target::Directory(ino)), immutable))
    }

    /// Lists entries whose cookie is above `after`, `.` and `..` first, until `visit` breaks. A cookie stays valid whatever
    /// is created or removed meanwhile.
    pub fn read_dir(
        &self,
        ino: Ino,
        after: u64,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if Self::is_view(ino) {
            return self.view_read_dir(ino, after, visit);
        }
        self.touch_atime(ino)?;
        let tree = self.tree();
        let view = NamespaceView::new(&tree, &self.names);
        if ino != Ino::ROOT || !self.options.snapdir_visible || after >= COOKIE_SNAPDIR {
            return view.read_dir(ino, after, &mut |entry| visit(&entry));
        }
        // The hidden directory is made visible: it stands between `..` and the first entry.
        let mut broken = false;
        view.read_dir(ino, after, &mut |entry| {
            if entry.cookie >= COOKIE_SNAPDIR {
                return ControlFlow::Break(());
            }
            let flow = visit(&entry);
            broken = flow.is_break();
            flow
        })?;
        if broken || self.visit_snapdir(ino, COOKIE_SNAPDIR, visit).is_break() {
            return Ok(());
        }
        view.read_dir(ino, COOKIE_SNAPDIR, &mut |entry| visit(&entry))
    }

    /// As [`Self::read_dir`], with attributes; entries that `visit` takes (by `Continue`) hold a reference, but `.` and `..`.
    pub fn read_dir_plus(
        &self,
        ino: Ino,
        after: u64,
        visit: &mut dyn FnMut(&DirEntry<'_>, &Attr) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut failed = None;
        let mut shown = false;
        self.read_dir(ino, after, &mut |entry| {
            let attr = match self.get_attr(entry.ino) {
                Ok(attr) => attr,
                // Unlinked since the listing's tree was cloned.
                Err(Error::Stale(_)) => return ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let counted = !matches!(entry.name, b"." | b"..");
            if counted {
                self.reference(entry.ino);
            }
            let flow = visit(entry, &attr);
            shown |= flow.is_continue();
            if flow.is_break() && counted {
                self.forget(entry.ino, 1);
            }
            flow
        })?;
        match failed {
            // What was shown was counted, and an error would make the front end forget it: the next call meets the error first.
            Some(error) if !shown => Err(error),
            _ => Ok(()),
        }
    }

    fn reference(&self, ino: Ino) {
        if Self::is_view(ino) { self.view_reference(ino) } else { self.references.add(ino) }
    }

    /// Closes a directory.
    pub fn release_dir(&self, handle: HandleId) -> Result<()> {
        self.handles.remove(handle).map(|_| ()).ok_or(Error::BadHandle(format!("handle {}", handle.0).into()))
    }

    /// Makes every change of names before this call durable. Blocks on the disk.
    pub fn sync_names(&self) -> Result<()> {
        let through = self.meta.read().op_sequence;
        self.sync_journal(through)
    }
}
