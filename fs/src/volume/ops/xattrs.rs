//! Extended attributes. What may be named and how large it may be is decided by the namespace rules.

use std::ops::ControlFlow;

use super::super::{Volume, state::Meta};
use crate::{
    error::{Error, Result},
    format::op::Op,
    ino::Ino,
    namespace::{Namespace, NamespaceView, SetXattrArgs, XattrMode},
};

impl Volume {
    /// Sets an attribute.
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        self.check_xattr_writable(ino)?;
        self.space.accept(&self.repository, value.len() as u64 + 4096, || self.accepted_bytes())?;
        let time = self.now();
        let mut meta = self.meta.write();
        check_flags(&meta, ino)?;
        let args = SetXattrArgs { ino, name, value, mode, time };
        meta.change(|tree| Namespace::new(tree, &self.names).set_xattr(&args))?;
        let op = Op::SetXattr { ino, name: name.to_vec(), value: value.to_vec(), time };
        self.finish_change(meta, &op, time);
        Ok(())
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.check_xattr_writable(ino)?;
        let time = self.now();
        let mut meta = self.meta.write();
        check_flags(&meta, ino)?;
        meta.change(|tree| Namespace::new(tree, &self.names).remove_xattr(ino, name, time))?;
        self.finish_change(meta, &Op::RemoveXattr { ino, name: name.to_vec(), time }, time);
        Ok(())
    }

    /// The value of an attribute.
    pub fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        if Self::is_view(ino) {
            return self.view_get_xattr(ino, name);
        }
        NamespaceView::new(&self.tree(), &self.names).get_xattr(ino, name)
    }

    /// The names of all attributes.
    pub fn list_xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        if Self::is_view(ino) {
            return self.view_list_xattrs(ino);
        }
        collect_xattrs(&NamespaceView::new(&self.tree(), &self.names), ino)
    }

    fn check_xattr_writable(&self, ino: Ino) -> Result<()> {
        if Self::is_view(ino) {
            return Err(Error::ReadOnly("a snapshot".into()));
        }
        self.check_writable()?;
        self.wait_for_nodes();
        Ok(())
    }
}

/// Refuses a change of what the inode's flags protect.
fn check_flags(meta: &Meta, ino: Ino) -> Result<()> {
    meta.inode(ino)?.map_or(Ok(()), |inode| inode.check_attributes(ino))
}

/// The names of an inode's attributes. A front end answers them in one piece of 64 KiB, as Linux does, which bounds them.
pub(crate) fn collect_xattrs(view: &NamespaceView<'_>, ino: Ino) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    view.list_xattr(ino, &mut |name| {
        names.push(name.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok(names)
}
