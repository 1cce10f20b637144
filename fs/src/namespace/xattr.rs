//! Extended attributes.
//!
//! *Bounds*: a name has at most [`XATTR_NAME_MAX`] bytes, a value [`XATTR_VALUE_MAX`], and the names of one inode
//! together, each with a zero, [`LIST_BYTES_MAX`], so that they can always be listed.

use std::ops::ControlFlow;

use super::{Namespace, NamespaceView, acl};
use crate::{
    error::{Error, Result},
    format::{
        key::{self, KeyParts},
        xattr::{Joiner, XATTR_NAME_MAX, XATTR_VALUE_MAX, split},
    },
    ino::Ino,
    time::Time,
};

/// Longest list of the names of an inode's attributes; what the kernel can return.
pub const LIST_BYTES_MAX: usize = 65_536;

/// Whether an attribute must, may or must not exist before it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// It may.
    #[default]
    Set,
    /// It must not: [`Error::Exists`].
    Create,
    /// It must: [`Error::NoAttribute`].
    Replace,
}

/// An attribute to be set.
#[derive(Clone, Copy, Debug)]
pub struct SetXattrArgs<'a> {
    /// The inode.
    pub ino: Ino,
    /// The attribute's name, with its namespace.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// Whether it must exist.
    pub mode: XattrMode,
    /// The inode's ctime.
    pub time: Time,
}

impl NamespaceView<'_> {
    /// The value of an attribute; [`Error::NoAttribute`] if it is not set.
    pub fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        check_name(name)?;
        match self.find_xattr(ino, name)? {
            Some(value) => Ok(value),
            None => {
                self.inode(ino)?;
                Err(missing(name))
            }
        }
    }

    /// Calls `f` with the names of all attributes of an inode, in byte order.
    pub fn list_xattr(&self, ino: Ino, f: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<()> {
        self.inode(ino)?;
        self.xattr_names(ino, f)
    }

    fn xattr_names(&self, ino: Ino, f: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<()> {
        let (from, to) = (key::kind_start(ino, key::XATTR), key::kind_start(ino, key::XATTR + 1));
        self.tree.scan(&from, &to, &mut |key, _| match KeyParts::parse(key).and_then(|parts| parts.xattr()) {
            Some((name, 0)) => Ok(f(name)),
            Some(_) => Ok(ControlFlow::Continue(())),
            None => Err(Error::damaged(ino, "the key of an extended attribute is malformed")),
        })
    }

    /// The value of an attribute, if it is set.
    pub(super) fn find_xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(first) = self.tree.get(&key::xattr(ino, name, 0))? else {
            return Ok(None);
        };
        let mut joiner = Joiner::new(&first)?;
        let mut part = 1;
        while !joiner.is_complete() {
            let next = self.tree.get(&key::xattr(ino, name, part))?;
            let next = next.ok_or_else(|| Error::damaged(ino, "a part of an extended attribute is missing"))?;
            joiner.push(&next)?;
            part += 1;
        }
        joiner.finish().map(Some)
    }

    fn list_bytes(&self, ino: Ino) -> Result<usize> {
        let mut bytes = 0;
        self.xattr_names(ino, &mut |name| {
            bytes += name.len() + 1;
            ControlFlow::Continue(())
        })?;
        Ok(bytes)
    }
}

impl Namespace<'_> {
    /// Sets an attribute. An access ACL changes the mode, and is not kept if the mode says it all.
    pub fn set_xattr(&mut self, args: &SetXattrArgs<'_>) -> Result<()> {
        check_name(args.name)?;
        if args.value.len() > XATTR_VALUE_MAX {
            return Err(Error::AttributeTooBig(shown(args.name)));
        }
        let mut inode = self.inode(args.ino)?;
        let exists = self.tree.contains(&key::xattr(args.ino, args.name, 0))?;
        match args.mode {
            XattrMode::Create if exists => return Err(Error::Exists(shown(args.name))),
            XattrMode::Replace if !exists => return Err(missing(args.name)),
            _ => {}
        }
        if !exists && self.view().list_bytes(args.ino)? + args.name.len() + 1 > LIST_BYTES_MAX {
            return Err(Error::NoSpace(shown(args.name)));
        }
        if is_acl(args.name) {
            self.set_acl(args.ino, &mut inode, args.name, args.value)?;
        } else {
            self.put_xattr(args.ino, args.name, args.value)?;
        }
        inode.ctime = args.time;
        self.put_inode(args.ino, &inode)
    }

    /// Removes an attribute; [`Error::NoAttribute`] if it is not set.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8], time: Time) -> Result<()> {
        check_name(name)?;
        let mut inode = self.inode(ino)?;
        if !self.take_xattr(ino, name)? {
            return Err(missing(name));
        }
        inode.ctime = time;
        self.put_inode(ino, &inode)
    }

    /// Stores a value, whatever was there.
    pub(super) fn put_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<()> {
        self.take_xattr(ino, name)?;
        for (part, value) in (0..).zip(split(value)) {
            self.tree.insert(&key::xattr(ino, name, part), &value)?;
        }
        Ok(())
    }

    /// Removes all parts of a value; false if there are none.
    pub(super) fn take_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<bool> {
        if !self.tree.remove(&key::xattr(ino, name, 0))? {
            return Ok(false);
        }
        for part in 1..=u8::MAX {
            if !self.tree.remove(&key::xattr(ino, name, part))? {
                break;
            }
        }
        Ok(true)
    }
}

fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS_NAME || name == acl::DEFAULT_NAME
}

/// Names are `user.`, `trusted.` or `security.` and at least one byte more, or one of the two ACLs.
fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(Error::Range("the name of an extended attribute".into()));
    }
    if is_acl(name) {
        return Ok(());
    }
    for prefix in [&b"user."[..], b"trusted.", b"security."] {
        if let Some(rest) = name.strip_prefix(prefix) {
            let valid = !rest.is_empty() && !rest.contains(&0);
            return if valid { Ok(()) } else { Err(Error::invalid(shown(name))) };
        }
    }
    Err(Error::Unsupported(shown(name)))
}

fn missing(name: &[u8]) -> Error {
    Error::NoAttribute(shown(name))
}

fn shown(name: &[u8]) -> crate::error::Object {
    format!("attribute {:?}", String::from_utf8_lossy(name)).into()
}
