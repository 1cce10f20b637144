//! The reference model: a plain in-memory tree with the operations and the rules of a POSIX namespace.
//!
//! It knows none of the filesystem's types, shares no code with it and is meant to be read: each operation states its
//! rules in the order in which they are checked, names and other arguments first, then the tree. Random operations run on
//! the model and on the filesystem; results and whole trees are compared.
//!
//! *Bounds*: everything is in memory and file content is dense, so callers keep trees and files small.

use std::collections::BTreeMap;

/// Inode number.
pub type Id = u64;

/// Seconds and nanoseconds.
pub type Stamp = (i64, u32);

/// The root directory.
pub const ROOT: Id = 1;

/// Most names of one file.
pub const LINKS_MAX: u32 = 65_000;

/// Longest name and longest xattr name in bytes.
pub const NAME_MAX: usize = 255;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// Why an operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// ENOENT.
    NotFound,
    /// EEXIST.
    Exists,
    /// ENOTDIR.
    NotDirectory,
    /// EISDIR.
    IsDirectory,
    /// ENOTEMPTY.
    NotEmpty,
    /// EPERM.
    NotPermitted,
    /// ENAMETOOLONG.
    NameTooLong,
    /// EINVAL.
    InvalidArgument,
    /// EMLINK.
    TooManyLinks,
    /// ENODATA.
    NoAttribute,
    /// EOPNOTSUPP.
    Unsupported,
    /// ERANGE.
    Range,
    /// E2BIG.
    AttributeTooBig,
    /// EACCES.
    Access,
}

/// Attribute that holds an inode's own access control list.
pub const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// Attribute that holds the list that a directory hands on.
pub const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// An entry of an access control list: tag, permissions, id.
pub type AclEntry = (u16, u16, u32);

/// Tags of entries, in the order in which they are stored: owner, user, owning group, group, mask, others.
pub const ACL_TAGS: [u16; 6] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20];
const OWNER: u16 = ACL_TAGS[0];
const USER: u16 = ACL_TAGS[1];
const OWNING_GROUP: u16 = ACL_TAGS[2];
const GROUP: u16 = ACL_TAGS[3];
const MASK: u16 = ACL_TAGS[4];
const OTHERS: u16 = ACL_TAGS[5];

/// How a rename treats what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameMode {
    /// Refuse if the new name exists.
    pub no_replace: bool,
    /// Swap the two names.
    pub exchange: bool,
    /// Leave a whiteout (character device 0:0, mode 0, owner 0:0) of this number at the old name.
    pub whiteout: Option<Id>,
}

/// One inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of a file; 2 and the subdirectories of a directory; 0 once unlinked.
    pub nlink: u32,
    /// Device number.
    pub rdev: u64,
    /// Last access.
    pub atime: Stamp,
    /// Last change of content.
    pub mtime: Stamp,
    /// Last change of anything.
    pub ctime: Stamp,
    /// Creation.
    pub btime: Stamp,
    /// Content of a file, or the target of a symbolic link.
    pub content: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names of a directory.
    pub entries: BTreeMap<Vec<u8>, Id>,
    /// Parent of a directory.
    pub parent: Id,
}

/// What a new inode is to be.
#[derive(Clone, Debug)]
pub struct New {
    /// Its number.
    pub id: Id,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, the umask applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory gives its own.
    pub gid: u32,
    /// Device number.
    pub rdev: u64,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
}

/// Result of a model operation.
pub type Outcome<T> = Result<T, Fault>;

/// A whole tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// All inodes, those without a name too.
    pub nodes: BTreeMap<Id, Node>,
}

impl Model {
    /// An empty tree: a root directory.
    pub fn new(uid: u32, gid: u32, mode: u32, time: Stamp) -> Self {
        let new = New { id: ROOT, kind: Kind::Directory, mode, uid, gid, rdev: 0, target: Vec::new() };
        Self { nodes: BTreeMap::from([(ROOT, node(&new, ROOT, time))]) }
    }

    /// The inode of a number.
    pub fn node(&self, id: Id) -> Outcome<&Node> {
        self.nodes.get(&id).ok_or(Fault::NotFound)
    }

    /// The inode of a name.
    pub fn lookup(&self, parent: Id, name: &[u8]) -> Outcome<Id> {
        check_name(name)?;
        let directory = self.node(parent)?;
        if directory.kind != Kind::Directory {
            return Err(Fault::NotDirectory);
        }
        directory.entries.get(name).copied().ok_or(Fault::NotFound)
    }

    /// Creates an inode of any kind.
    pub fn create(&mut self, parent: Id, name: &[u8], new: &New, time: Stamp) -> Outcome<()> {
        check_name(name)?;
        if new.kind == Kind::Symlink && new.target.is_empty() {
            return Err(Fault::NotFound);
        }
        if new.kind == Kind::Symlink && new.target.len() > 4095 {
            return Err(Fault::NameTooLong);
        }
        self.vacant(parent, name)?;
        if new.kind == Kind::Directory {
            self.at(parent).nlink += 1;
        }
        self.place(parent, name, new, time);
        Ok(())
    }

    /// The mode that an inode gets in `parent` for which `mode` is asked for: a default list stands in for the umask.
    pub fn mode_of_new(&self, parent: Id, kind: Kind, mode: u32, umask: u32) -> u32 {
        let default = self.nodes.get(&parent).and_then(|node| acl_of(node, ACL_DEFAULT));
        match default {
            _ if kind == Kind::Symlink => 0o777,
            Some(acl) => mode & (acl_mode(&acl) | !0o777),
            None => mode & !umask,
        }
    }

    /// Puts a new inode under a free name; a set-gid directory gives its group, and to directories the bit; a default
    /// list is inherited.
    fn place(&mut self, parent: Id, name: &[u8], new: &New, time: Stamp) {
        let mut made = node(new, parent, time);
        let directory = self.at(parent);
        if directory.mode & 0o2000 != 0 {
            made.gid = directory.gid;
            if new.kind == Kind::Directory {
                made.mode |= 0o2000;
            }
        }
        if new.kind != Kind::Symlink
            && let Some(default) = acl_of(self.at(parent), ACL_DEFAULT)
        {
            made.mode &= acl_mode(&default) | !0o777;
            let access = acl_with_mode(&default, made.mode);
            if access.len() > 3 {
                made.xattrs.insert(ACL_ACCESS.to_vec(), acl_bytes(&access));
            }
            if new.kind == Kind::Directory {
                made.xattrs.insert(ACL_DEFAULT.to_vec(), acl_bytes(&default));
            }
        }
        self.enter(parent, name, new.id, time);
        self.nodes.insert(new.id, made);
    }

    /// Gives a file a further name.
    pub fn link(&mut self, id: Id, parent: Id, name: &[u8], time: Stamp) -> Outcome<()> {
        check_name(name)?;
        let node = self.node(id)?;
        if node.kind == Kind::Directory {
            return Err(Fault::NotPermitted);
        }
        if node.nlink == 0 {
            return Err(Fault::NotFound);
        }
        self.vacant(parent, name)?;
        if self.at(id).nlink >= LINKS_MAX {
            return Err(Fault::TooManyLinks);
        }
        self.at(id).nlink += 1;
        self.at(id).ctime = time;
        self.enter(parent, name, id, time);
        Ok(())
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&mut self, parent: Id, name: &[u8], time: Stamp) -> Outcome<(Id, u32)> {
        let id = self.lookup(parent, name)?;
        if self.at(id).kind == Kind::Directory {
            return Err(Fault::IsDirectory);
        }
        self.leave(parent, name, time);
        Ok((id, self.unname(id, time)))
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, parent: Id, name: &[u8], time: Stamp) -> Outcome<Id> {
        let id = self.lookup(parent, name)?;
        if self.at(id).kind != Kind::Directory {
            return Err(Fault::NotDirectory);
        }
        if !self.at(id).entries.is_empty() {
            return Err(Fault::NotEmpty);
        }
        self.leave(parent, name, time);
        self.at(parent).nlink -= 1;
        self.unname(id, time);
        Ok(id)
    }

    /// Moves a name; the answer is what was moved and, with its remaining links, what was replaced.
    pub fn rename(
        &mut self,
        from: (Id, &[u8]),
        to: (Id, &[u8]),
        mode: RenameMode,
        time: Stamp,
    ) -> Outcome<(Id, Option<(Id, u32)>)> {
        if mode.exchange && (mode.no_replace || mode.whiteout.is_some()) {
            return Err(Fault::InvalidArgument);
        }
        check_name(from.1)?;
        check_name(to.1)?;
        let moved = self.lookup(from.0, from.1)?;
        let target = match self.lookup(to.0, to.1) {
            Err(Fault::NotFound) if self.node(to.0).is_ok_and(|node| node.nlink > 0) => None,
            other => Some(other?),
        };
        if mode.no_replace && target.is_some() {
            return Err(Fault::Exists);
        }
        if mode.exchange && target.is_none() {
            return Err(Fault::NotFound);
        }
        if self.reaches(to.0, moved) || (mode.exchange && target.is_some_and(|target| self.reaches(from.0, target))) {
            return Err(Fault::InvalidArgument);
        }
        if target == Some(moved) {
            return Ok((moved, None));
        }
        match target {
            Some(target) if mode.exchange => {
                self.exchange(from, moved, to, target, time);
                Ok((moved, None))
            }
            _ => self.replace(from, moved, to, target, mode, time),
        }
    }

    fn exchange(&mut self, from: (Id, &[u8]), moved: Id, to: (Id, &[u8]), target: Id, time: Stamp) {
        self.enter(from.0, from.1, target, time);
        self.enter(to.0, to.1, moved, time);
        self.hand_over(moved, from.0, to.0);
        self.hand_over(target, to.0, from.0);
        self.at(moved).ctime = time;
        self.at(target).ctime = time;
    }

    fn replace(
        &mut self,
        from: (Id, &[u8]),
        moved: Id,
        to: (Id, &[u8]),
        target: Option<Id>,
        mode: RenameMode,
        time: Stamp,
    ) -> Outcome<(Id, Option<(Id, u32)>)> {
        let mut replaced = None;
        if let Some(target) = target {
            let old = self.at(target).clone();
            match (self.at(moved).kind == Kind::Directory, old.kind == Kind::Directory) {
                (true, false) => return Err(Fault::NotDirectory),
                (false, true) => return Err(Fault::IsDirectory),
                (true, true) if !old.entries.is_empty() => return Err(Fault::NotEmpty),
                _ => {}
            }
            if old.kind == Kind::Directory {
                self.at(to.0).nlink -= 1;
            }
            replaced = Some((target, self.unname(target, time)));
        }
        self.leave(from.0, from.1, time);
        self.enter(to.0, to.1, moved, time);
        self.hand_over(moved, from.0, to.0);
        self.at(moved).ctime = time;
        if let Some(id) = mode.whiteout {
            let kind = Kind::CharDevice;
            let whiteout = New { id, kind, mode: 0, uid: 0, gid: 0, rdev: 0, target: Vec::new() };
            self.place(from.0, from.1, &whiteout, time);
        }
        Ok((moved, replaced))
    }

    /// Changes permission bits and owners.
    pub fn set_owner_and_mode(
        &mut self,
        id: Id,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        time: Stamp,
    ) -> Outcome<()> {
        self.node(id)?;
        let node = self.at(id);
        node.mode = mode.map_or(node.mode, |mode| mode & 0o7777);
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
        node.ctime = time;
        if let (Some(mode), Some(acl)) = (mode, acl_of(node, ACL_ACCESS)) {
            node.xattrs.insert(ACL_ACCESS.to_vec(), acl_bytes(&acl_with_mode(&acl, mode)));
        }
        Ok(())
    }

    /// Sets times as utimensat does.
    pub fn set_times(&mut self, id: Id, atime: Option<Stamp>, mtime: Option<Stamp>, time: Stamp) -> Outcome<()> {
        self.node(id)?;
        let node = self.at(id);
        node.atime = atime.unwrap_or(node.atime);
        node.mtime = mtime.unwrap_or(node.mtime);
        node.ctime = time;
        Ok(())
    }

    /// Writes into a file; a gap before `offset` reads as zeros.
    pub fn write(&mut self, id: Id, offset: usize, bytes: &[u8], time: Stamp) -> Outcome<()> {
        self.node(id)?;
        let node = self.at(id);
        node.content.resize(node.content.len().max(offset + bytes.len()), 0);
        node.content[offset..offset + bytes.len()].copy_from_slice(bytes);
        (node.mtime, node.ctime) = (time, time);
        Ok(())
    }

    /// Cuts or extends a file.
    pub fn truncate(&mut self, id: Id, size: usize, time: Stamp) -> Outcome<()> {
        self.node(id)?;
        let node = self.at(id);
        node.content.resize(size, 0);
        (node.mtime, node.ctime) = (time, time);
        Ok(())
    }

    /// Sets an extended attribute. `must_exist` refuses what is missing (`true`) or what is there (`false`).
    pub fn set_xattr(
        &mut self,
        id: Id,
        name: &[u8],
        value: &[u8],
        must_exist: Option<bool>,
        time: Stamp,
    ) -> Outcome<()> {
        check_xattr_name(name)?;
        if value.len() > 65_536 {
            return Err(Fault::AttributeTooBig);
        }
        self.node(id)?;
        match (must_exist, self.at(id).xattrs.contains_key(name)) {
            (Some(true), false) => return Err(Fault::NoAttribute),
            (Some(false), true) => return Err(Fault::Exists),
            _ => {}
        }
        if name == ACL_ACCESS || name == ACL_DEFAULT {
            self.set_acl(id, name, value)?;
        } else {
            self.at(id).xattrs.insert(name.to_vec(), value.to_vec());
        }
        self.at(id).ctime = time;
        Ok(())
    }

    /// Sets a list; one without entries, or an access list that says no more than the mode, is not kept.
    fn set_acl(&mut self, id: Id, name: &[u8], value: &[u8]) -> Outcome<()> {
        let entries = acl_entries(value)?;
        let node = self.at(id);
        if node.kind == Kind::Symlink {
            return Err(Fault::Unsupported);
        }
        if name == ACL_DEFAULT && node.kind != Kind::Directory && !entries.is_empty() {
            return Err(Fault::Access);
        }
        if name == ACL_ACCESS && !entries.is_empty() {
            node.mode = node.mode & !0o777 | acl_mode(&entries);
        }
        if entries.is_empty() || (name == ACL_ACCESS && entries.len() == 3) {
            node.xattrs.remove(name);
        } else {
            node.xattrs.insert(name.to_vec(), value.to_vec());
        }
        Ok(())
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, id: Id, name: &[u8], time: Stamp) -> Outcome<()> {
        check_xattr_name(name)?;
        self.node(id)?;
        self.at(id).xattrs.remove(name).ok_or(Fault::NoAttribute)?;
        self.at(id).ctime = time;
        Ok(())
    }

    /// Punches, zeroes or reserves: zeros what lies within the file and the range, then grows the file.
    pub fn allocate(
        &mut self,
        id: Id,
        (from, to): (usize, usize),
        zeroes: bool,
        grows: bool,
        time: Stamp,
    ) -> Outcome<()> {
        self.node(id)?;
        let node = self.at(id);
        if zeroes {
            let end = to.min(node.content.len());
            node.content[from.min(end)..end].fill(0);
        }
        if grows {
            node.content.resize(node.content.len().max(to), 0);
        }
        (node.mtime, node.ctime) = (time, time);
        Ok(())
    }

    /// A path that leads to an inode; `None` if it has no name.
    pub fn path_of(&self, id: Id) -> Option<Vec<u8>> {
        if id == ROOT {
            return Some(Vec::new());
        }
        let node = self.nodes.get(&id)?;
        let named = |&(&directory, within): &(&Id, &Node)| {
            (node.kind != Kind::Directory || directory == node.parent) && within.entries.values().any(|&at| at == id)
        };
        let (&parent, within) = self.nodes.iter().find(named)?;
        let (name, _) = within.entries.iter().find(|(_, at)| **at == id)?;
        let mut path = self.path_of(parent)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Some(path)
    }

    /// Inodes without a name, in order.
    pub fn orphans(&self) -> Vec<Id> {
        self.nodes.iter().filter(|(_, node)| node.nlink == 0).map(|(&id, _)| id).collect()
    }

    /// Forgets an inode without a name.
    pub fn forget(&mut self, id: Id) {
        assert_eq!(self.nodes.remove(&id).map(|node| node.nlink), Some(0), "only what has no name is forgotten");
    }

    /// All names of all inodes that have one, as (directory, name), in order.
    pub fn links(&self) -> BTreeMap<Id, Vec<(Id, Vec<u8>)>> {
        let mut links: BTreeMap<Id, Vec<_>> = BTreeMap::new();
        for (&directory, node) in &self.nodes {
            for (name, &child) in &node.entries {
                links.entry(child).or_default().push((directory, name.clone()));
            }
        }
        links
    }

    fn at(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("the caller looked the inode up")
    }

    /// Checks that `name` can be entered into `parent`.
    fn vacant(&self, parent: Id, name: &[u8]) -> Outcome<()> {
        match self.lookup(parent, name) {
            Ok(_) => Err(Fault::Exists),
            Err(Fault::NotFound) if self.node(parent).is_ok_and(|node| node.nlink > 0) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Whether `directory` is `ancestor` or lies below it.
    fn reaches(&self, mut directory: Id, ancestor: Id) -> bool {
        loop {
            if directory == ancestor {
                return true;
            }
            match self.nodes.get(&directory) {
                Some(node) if directory != ROOT && node.nlink > 0 => directory = node.parent,
                _ => return false,
            }
        }
    }

    fn enter(&mut self, parent: Id, name: &[u8], id: Id, time: Stamp) {
        let directory = self.at(parent);
        directory.entries.insert(name.to_vec(), id);
        (directory.mtime, directory.ctime) = (time, time);
    }

    fn leave(&mut self, parent: Id, name: &[u8], time: Stamp) {
        let directory = self.at(parent);
        directory.entries.remove(name);
        (directory.mtime, directory.ctime) = (time, time);
    }

    /// Takes one name from the count; a directory has only one.
    fn unname(&mut self, id: Id, time: Stamp) -> u32 {
        let node = self.at(id);
        node.nlink = if node.kind == Kind::Directory { 0 } else { node.nlink - 1 };
        node.ctime = time;
        node.nlink
    }

    /// Moves a directory's `..` and the link count that goes with it.
    fn hand_over(&mut self, id: Id, old: Id, new: Id) {
        if self.at(id).kind == Kind::Directory {
            self.at(id).parent = new;
            self.at(old).nlink -= 1;
            self.at(new).nlink += 1;
        }
    }
}

fn node(new: &New, parent: Id, time: Stamp) -> Node {
    let directory = new.kind == Kind::Directory;
    Node {
        kind: new.kind,
        mode: new.mode & 0o7777,
        uid: new.uid,
        gid: new.gid,
        nlink: if directory { 2 } else { 1 },
        rdev: new.rdev,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        content: new.target.clone(),
        xattrs: BTreeMap::new(),
        entries: BTreeMap::new(),
        parent: if directory { parent } else { 0 },
    }
}

fn check_name(name: &[u8]) -> Outcome<()> {
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(Fault::InvalidArgument);
    }
    if name.len() > NAME_MAX { Err(Fault::NameTooLong) } else { Ok(()) }
}

/// The list that an attribute holds, checked.
fn acl_entries(value: &[u8]) -> Outcome<Vec<AclEntry>> {
    let bad = Fault::InvalidArgument;
    let body = value.strip_prefix(&[2, 0, 0, 0]).ok_or(bad)?;
    if body.len() % 8 != 0 {
        return Err(bad);
    }
    let half = |at: &[u8]| u16::from(at[0]) | u16::from(at[1]) << 8;
    let entry = |at: &[u8]| (half(at), half(&at[2..]), u32::from(half(&at[4..])) | u32::from(half(&at[6..])) << 16);
    let entries: Vec<AclEntry> = body.chunks(8).map(entry).collect();
    let count = |tag| entries.iter().filter(|entry| entry.0 == tag).count();
    let named = count(USER) + count(GROUP) > 0;
    let valid = entries.iter().all(|entry| ACL_TAGS.contains(&entry.0) && entry.1 <= 7)
        && entries.windows(2).all(|pair| pair[0].0 <= pair[1].0)
        && [OWNER, OWNING_GROUP, OTHERS].into_iter().all(|tag| count(tag) == 1)
        && (count(MASK) == 1 || (count(MASK) == 0 && !named));
    if entries.is_empty() || valid { Ok(entries) } else { Err(bad) }
}

fn acl_of(node: &Node, name: &[u8]) -> Option<Vec<AclEntry>> {
    node.xattrs.get(name).map(|value| acl_entries(value).expect("only valid lists are kept"))
}

/// The attribute that holds a list.
pub fn acl_bytes(entries: &[AclEntry]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        bytes.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// The bits of the mode that a list stands for: with a mask, that is the group's bits.
fn acl_mode(entries: &[AclEntry]) -> u32 {
    let of = |tag| entries.iter().find(|entry| entry.0 == tag).map(|entry| u32::from(entry.1));
    let [owner, others] = [OWNER, OTHERS].map(|tag| of(tag).expect("valid lists have these"));
    owner << 6 | of(MASK).or(of(OWNING_GROUP)).expect("valid lists have this") << 3 | others
}

fn acl_with_mode(entries: &[AclEntry], mode: u32) -> Vec<AclEntry> {
    let masked = entries.iter().any(|entry| entry.0 == MASK);
    let change = |&(tag, permissions, id): &AclEntry| match tag {
        OWNER => (tag, (mode >> 6 & 7) as u16, id),
        OTHERS => (tag, (mode & 7) as u16, id),
        MASK => (tag, (mode >> 3 & 7) as u16, id),
        OWNING_GROUP if !masked => (tag, (mode >> 3 & 7) as u16, id),
        _ => (tag, permissions, id),
    };
    entries.iter().map(change).collect()
}

fn check_xattr_name(name: &[u8]) -> Outcome<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Fault::Range);
    }
    if name == ACL_ACCESS || name == ACL_DEFAULT {
        return Ok(());
    }
    for prefix in [&b"user."[..], b"trusted.", b"security."] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return if rest.is_empty() { Err(Fault::InvalidArgument) } else { Ok(()) };
        }
    }
    Err(Fault::Unsupported)
}
