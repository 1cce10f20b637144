//! A filesystem over FUSE that does nothing: names and attributes in memory, content thrown away, nothing stored.
//!
//! What small files cost on it is what the transport costs; scripts/bench shows vellum beside it. It asks for the same
//! abilities of the kernel, threads and times to live as a mount of vellum.
//!
//! Usage: noop_mount MOUNTPOINT; it ends when that is unmounted.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

const TTL: Duration = Duration::from_secs(3600);
const THREADS: usize = 2;
const WRITE_BYTES_MAX: u32 = 1 << 20;

#[derive(Default)]
struct Directory {
    /// Where names lead, and their places in a listing.
    names: HashMap<OsString, (u64, u64)>,
    places: BTreeMap<u64, OsString>,
}

struct Node {
    attr: FileAttr,
    directory: Option<Directory>,
}

struct Nodes {
    nodes: HashMap<u64, Node>,
    next: u64,
}

struct Noop(Mutex<Nodes>);

fn attr(ino: u64, kind: FileType, perm: u32, request: Option<&Request>) -> FileAttr {
    let now = SystemTime::now();
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm: (perm & 0o7777) as u16,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: request.map_or(0, Request::uid),
        gid: request.map_or(0, Request::gid),
        rdev: 0,
        blksize: 128 << 10,
        flags: 0,
    }
}

fn node(attr: FileAttr) -> Node {
    Node { attr, directory: (attr.kind == FileType::Directory).then(Directory::default) }
}

impl Nodes {
    fn directory(&mut self, ino: INodeNo) -> Result<&mut Directory, Errno> {
        let node = self.nodes.get_mut(&ino.0).ok_or(Errno::ENOENT)?;
        node.directory.as_mut().ok_or(Errno::ENOTDIR)
    }

    fn enter(&mut self, parent: INodeNo, name: &OsStr, ino: u64) -> Result<(), Errno> {
        self.next += 1;
        let place = self.next;
        let directory = self.directory(parent)?;
        directory.places.insert(place, name.to_owned());
        directory.names.insert(name.to_owned(), (ino, place));
        Ok(())
    }

    fn leave(&mut self, parent: INodeNo, name: &OsStr) -> Result<u64, Errno> {
        let directory = self.directory(parent)?;
        let (ino, place) = directory.names.remove(name).ok_or(Errno::ENOENT)?;
        directory.places.remove(&place);
        Ok(ino)
    }

    fn make(
        &mut self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        kind: FileType,
        mode: u32,
    ) -> Result<FileAttr, Errno> {
        if self.directory(parent)?.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.next += 1;
        let attr = attr(self.next, kind, mode, Some(request));
        self.enter(parent, name, attr.ino.0)?;
        self.nodes.insert(attr.ino.0, node(attr));
        Ok(attr)
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let ino = self.leave(parent, name)?;
        self.nodes.remove(&ino);
        Ok(())
    }

    fn attr(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        self.nodes.get(&ino.0).map(|node| node.attr).ok_or(Errno::ENOENT)
    }

    /// The entries of a directory after a place, with their attributes.
    fn after(
        &mut self,
        ino: INodeNo,
        place: u64,
        visit: &mut dyn FnMut(u64, &OsStr, &FileAttr) -> bool,
    ) -> Result<(), Errno> {
        self.directory(ino)?;
        let Some(directory) = self.nodes.get(&ino.0).and_then(|node| node.directory.as_ref()) else { return Ok(()) };
        for (&place, name) in directory.places.range(place + 1..) {
            let Some(node) = directory.names.get(name).and_then(|(ino, _)| self.nodes.get(ino)) else { continue };
            if visit(place, name, &node.attr) {
                break;
            }
        }
        Ok(())
    }
}

impl Noop {
    fn nodes(&self) -> std::sync::MutexGuard<'_, Nodes> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn empty(answer: Result<(), Errno>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn entry(answer: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match answer {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

fn attributes(answer: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match answer {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Noop {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_DONT_MASK,
        ];
        for flag in wanted {
            // What a kernel lacks it does not get; the mount beside it lacks it as well.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut nodes = self.nodes();
        let found = nodes.directory(parent).and_then(|at| at.names.get(name).map(|at| at.0).ok_or(Errno::ENOENT));
        entry(found.and_then(|ino| nodes.attr(INodeNo(ino))), reply);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        attributes(self.nodes().attr(ino), reply);
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut nodes = self.nodes();
        if let Some(Node { attr, .. }) = nodes.nodes.get_mut(&ino.0) {
            attr.perm = mode.map_or(attr.perm, |mode| (mode & 0o7777) as u16);
            (attr.uid, attr.gid) = (uid.unwrap_or(attr.uid), gid.unwrap_or(attr.gid));
            attr.size = size.unwrap_or(attr.size);
        }
        attributes(nodes.attr(ino), reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        entry(self.nodes().make(request, parent, name, FileType::Directory, mode), reply);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.nodes().remove(parent, name), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.nodes().remove(parent, name), reply);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut nodes = self.nodes();
        // What the new name led to is lost; nothing here minds.
        let _ = nodes.remove(new_parent, new_name);
        let moved = nodes.leave(parent, name).and_then(|ino| nodes.enter(new_parent, new_name, ino));
        empty(moved, reply);
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(1), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.nodes().make(request, parent, name, FileType::RegularFile, mode) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(1), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = self.nodes().attr(ino).map_or(0, |attr| attr.size);
        reply.data(&vec![0; end.saturating_sub(offset).min(size.into()) as usize]);
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if let Some(node) = self.nodes().nodes.get_mut(&ino.0) {
            node.attr.size = node.attr.size.max(offset + data.len() as u64);
        }
        reply.written(data.len() as u32);
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(1), FopenFlags::empty());
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, after: u64, mut reply: ReplyDirectory) {
        let listed = self
            .nodes()
            .after(ino, after, &mut |place, name, attr| reply.add(INodeNo(attr.ino.0), place, attr.kind, name));
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        after: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.nodes().after(ino, after, &mut |place, name, attr| {
            reply.add(INodeNo(attr.ino.0), place, name, &TTL, attr, Generation(0))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }
}

fn main() -> std::io::Result<()> {
    let Some(mountpoint) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: noop_mount MOUNTPOINT");
        std::process::exit(2);
    };
    let root = node(attr(INodeNo::ROOT.0, FileType::Directory, 0o755, None));
    let nodes = Nodes { nodes: HashMap::from([(INodeNo::ROOT.0, root)]), next: INodeNo::ROOT.0 };
    let mut config = Config::default();
    (config.n_threads, config.clone_fd) = (Some(THREADS), true);
    config.mount_options = vec![fuser::MountOption::FSName("noop".into()), fuser::MountOption::DefaultPermissions];
    fuser::mount(Noop(Mutex::new(nodes)), &mountpoint, &config)
}
