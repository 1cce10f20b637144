//! One method per request of the kernel.
//!
//! *Invariants*
//! 1. Every entry that is answered with a reference (lookup, create, readdirplus) was counted by the volume; `forget` gives
//!    it back.
//! 2. What the kernel may keep follows from the entry alone: [`convert::ttls`].
//!
//! *Not here*: getlk, setlk and flock: left out, so that the kernel keeps locks itself, which is right for one mount.

use std::{
    ffi::OsStr,
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, Notifier, OpenFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::{
    MountOptions,
    convert::{self, TTL, caller},
    errno::{errno, sync_errno},
    ioctl,
    options::{CONTROL_XATTR, STATUS_XATTR},
    pool::Pool,
};
use crate::{
    attr::SetAttr,
    content::read::Seek,
    error::{Error, Result},
    format::inode::FileKind,
    ino::Ino,
    namespace::{RenameFlags, XattrMode},
    volume::{
        Volume,
        handles::HandleId,
        ops::{Entry, files::Opened, names::NewInode},
    },
};

/// Largest write of one request.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel sends without waiting for earlier ones.
const BACKGROUND_MAX: u16 = 64;

/// Answers requests with a volume.
pub struct Handler {
    volume: Arc<Volume>,
    /// For what may wait long: writes that need memory, syncs, snapshots.
    pool: Pool,
    /// For reads, which must not wait behind those.
    reads: Pool,
    control: Option<PathBuf>,
    writeback_cache: bool,
    notifier: Arc<OnceLock<Notifier>>,
}

impl Handler {
    /// A handler for `volume`.
    pub fn new(volume: Arc<Volume>, options: &MountOptions) -> Self {
        let spawner = volume.repository().spawner();
        let (pool, reads) = (Pool::new(Arc::clone(spawner), "sync"), Pool::new(Arc::clone(spawner), "read"));
        let (control, writeback_cache) = (options.control.clone(), options.writeback_cache);
        Self { volume, pool, reads, control, writeback_cache, notifier: Arc::default() }
    }

    /// Where the session puts what the kernel can be told by, once there is a session.
    pub fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.notifier)
    }

    fn opened(&self, answer: Result<Opened>, reply: ReplyOpen) {
        match answer {
            Ok(opened) => {
                // Pages in memory are read without a word to this process, which then could not move the access time.
                let flags = if opened.refresh { FopenFlags::empty() } else { file_flags() };
                reply.opened(FileHandle(opened.handle.0), flags);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Answers a change of names or attributes: from here, or from the pool if it has to wait for a checkpoint.
    fn change<R: Send + 'static>(&self, reply: R, work: impl FnOnce(&Volume, R) + Send + 'static) {
        if self.volume.change_would_wait() {
            return self.later(reply, work);
        }
        work(&self.volume, reply);
    }

    /// Answers from the pool.
    fn later<R: Send + 'static>(&self, reply: R, work: impl FnOnce(&Volume, R) + Send + 'static) {
        let volume = Arc::clone(&self.volume);
        self.pool.run(move || work(&volume, reply));
    }
}

fn entry(answer: Result<Entry>, reply: ReplyEntry) {
    match answer {
        Ok(entry) => send_entry(&entry, reply),
        Err(error) => reply.error(errno(&error)),
    }
}

fn send_entry(entry: &Entry, reply: ReplyEntry) {
    let (attr_ttl, entry_ttl) = convert::ttls(entry);
    let generation = Generation(entry.attr.generation.into());
    reply.entry_with_ttls(&attr_ttl, &entry_ttl, &convert::file_attr(&entry.attr), generation);
}

fn empty(answer: Result<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Answers what took a name from an inode, perhaps one that has others. The kernel counts its links down by itself once it has the
/// answer; if it was told the new count meanwhile, by whoever asked for the attributes, it counts one down too many, and keeps that
/// until it asks again.
fn fewer_links(answer: Result<Option<Ino>>, reply: ReplyEmpty, notifier: &OnceLock<Notifier>) {
    let linked = answer.as_ref().ok().copied().flatten();
    empty(answer.map(drop), reply);
    if let (Some(ino), Some(notifier)) = (linked, notifier.get()) {
        // An inode that it has let go of is no fault.
        let _ = notifier.inval_inode(INodeNo(ino.0), -1, 0);
    }
}

/// This process alone changes content, so what the kernel cached of a file stays right when it is opened again.
fn file_flags() -> FopenFlags {
    FopenFlags::FOPEN_KEEP_CACHE
}

fn send_xattr(answer: Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match answer {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}

impl Filesystem for Handler {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            // Handles of files stay good: numbers are never given out again, and `lookup` finds any of them.
            InitFlags::FUSE_EXPORT_SUPPORT,
            // The kernel enforces ACLs; the volume applies the umask, because a default ACL replaces it.
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_DONT_MASK,
        ];
        for flag in wanted {
            // What an older kernel lacks costs speed or ACLs, not correctness.
            if let Err(missing) = config.add_capabilities(flag) {
                log::info!("the kernel lacks {missing:?}");
            }
        }
        if self.writeback_cache && config.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE).is_err() {
            log::warn!("the kernel has no writeback cache");
        }
        // Out of bounds answers the nearest allowed value, which then is what is set.
        if let Err(nearest) = config.set_max_write(WRITE_BYTES_MAX) {
            let _ = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(WRITE_BYTES_MAX) {
            let _ = config.set_max_readahead(nearest);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.volume.lookup(convert::ino(parent), name.as_bytes()), reply);
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.volume.forget(convert::ino(ino), count);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.volume.get_attr(convert::ino(ino)) {
            Ok(attr) => reply.attr(&TTL, &convert::file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime) = (atime.map(convert::set_time), mtime.map(convert::set_time));
        let change = SetAttr { mode: mode.map(|mode| mode & 0o7777), uid, gid, size, atime, mtime };
        self.change(reply, move |volume, reply| match volume.set_attr(convert::ino(ino), &change) {
            Ok(attr) => reply.attr(&TTL, &convert::file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.volume.read_link(convert::ino(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (parent, name, caller) = (convert::ino(parent), name.as_bytes().to_vec(), caller(request));
        self.change(reply, move |volume, reply| {
            let made = convert::kind_of_mode(mode).and_then(|kind| {
                let rdev = match kind {
                    FileKind::BlockDevice | FileKind::CharDevice => convert::volume_device(rdev),
                    _ => 0,
                };
                let new = NewInode { parent, name: &name, kind, mode: mode & 0o7777, umask, rdev, target: b"" };
                volume.create_inode(&new, &caller)
            });
            entry(made, reply);
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (parent, caller) = (convert::ino(parent), caller(request));
        if Volume::is_view(parent) {
            // A snapshot waits for the disk.
            let name = name.as_bytes().to_vec();
            return self.later(reply, move |volume, reply| match volume.mkdir(parent, &name, mode, umask, &caller) {
                Ok(entry) => send_entry(&entry, reply),
                Err(error) => reply.error(errno(&error)),
            });
        }
        let name = name.as_bytes().to_vec();
        self.change(reply, move |volume, reply| {
            entry(volume.mkdir(parent, &name, mode & 0o7777, umask, &caller), reply);
        });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (name, notifier) = (name.as_bytes().to_vec(), self.notifier());
        self.change(reply, move |volume, reply| {
            fewer_links(volume.unlink(convert::ino(parent), &name), reply, &notifier);
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, caller) = (convert::ino(parent), caller(request));
        if Volume::is_view(parent) {
            let name = name.as_bytes().to_vec();
            return self.later(reply, move |volume, reply| empty(volume.rmdir(parent, &name, &caller), reply));
        }
        let name = name.as_bytes().to_vec();
        self.change(reply, move |volume, reply| empty(volume.rmdir(parent, &name, &caller), reply));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (parent, name, caller) = (convert::ino(parent), name.as_bytes().to_vec(), caller(request));
        let target = target.as_os_str().as_bytes().to_vec();
        self.change(reply, move |volume, reply| {
            let (kind, mode) = (FileKind::Symlink, 0o777);
            let new = NewInode { parent, name: &name, kind, mode, umask: 0, rdev: 0, target: &target };
            entry(volume.create_inode(&new, &caller), reply);
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(flags) = RenameFlags::from_bits(flags.bits()) else {
            return reply.error(Errno::EINVAL);
        };
        let (parent, new_parent, caller) = (convert::ino(parent), convert::ino(new_parent), caller(request));
        if Volume::is_view(parent) {
            let (name, new_name) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
            return self.later(reply, move |volume, reply| {
                empty(volume.rename((parent, &name), (new_parent, &new_name), flags, &caller).map(drop), reply);
            });
        }
        let (name, new_name, notifier) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec(), self.notifier());
        self.change(reply, move |volume, reply| {
            let renamed = volume.rename((parent, &name), (new_parent, &new_name), flags, &caller);
            fewer_links(renamed, reply, &notifier);
        });
    }

    fn link(&self, _request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (ino, parent, name) = (convert::ino(ino), convert::ino(parent), name.as_bytes().to_vec());
        self.change(reply, move |volume, reply| entry(volume.link(ino, parent, &name), reply));
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (mode, intent) = (convert::open_mode(flags), convert::open_intent(flags));
        self.opened(self.volume.open_file_for(convert::ino(ino), mode, intent), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (parent, name, caller) = (convert::ino(parent), name.as_bytes().to_vec(), caller(request));
        self.change(reply, move |volume, reply| {
            let (kind, mode) = (FileKind::Regular, mode & 0o7777);
            let new = NewInode { parent, name: &name, kind, mode, umask, rdev: 0, target: b"" };
            match volume.create(&new, convert::open_mode(OpenFlags(flags)), &caller) {
                Ok((entry, opened)) => {
                    let generation = Generation(entry.attr.generation.into());
                    let attr = convert::file_attr(&entry.attr);
                    reply.created(&TTL, &attr, generation, FileHandle(opened.handle.0), file_flags());
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let handle = HandleId(handle.0);
        match self.volume.read_if_cached(handle, offset, size as usize) {
            Ok(Some(data)) => reply.data(&data),
            Ok(None) => {
                let volume = Arc::clone(&self.volume);
                self.reads.run(move || match volume.read(handle, offset, size as usize) {
                    Ok(data) => reply.data(&data),
                    Err(error) => reply.error(errno(&error)),
                });
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let handle = HandleId(handle.0);
        let answer = |answer: Result<usize>, reply: ReplyWrite| match answer {
            Ok(written) => reply.written(written as u32),
            Err(error) => reply.error(errno(&error)),
        };
        if self.volume.write_would_wait(handle, data.len()) {
            let data = data.to_vec();
            return self.later(reply, move |volume, reply| answer(volume.write(handle, offset, &data), reply));
        }
        answer(self.volume.write(handle, offset, data), reply);
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        match self.volume.flush(HandleId(handle.0)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(sync_errno(&error)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.volume.release(HandleId(handle.0)), reply);
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.later(reply, move |volume, reply| match volume.fsync(HandleId(handle.0)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(sync_errno(&error)),
        });
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.volume.open_dir(convert::ino(ino)) {
            Ok((handle, immutable)) => {
                let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
                reply.opened(FileHandle(handle.0), if immutable { keep } else { FopenFlags::empty() });
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, after: u64, mut reply: ReplyDirectory) {
        let listed = self.volume.read_dir(convert::ino(ino), after, &mut |entry| {
            let name = OsStr::from_bytes(entry.name);
            match reply.add(INodeNo(entry.ino.0), entry.cookie, convert::file_type(entry.kind), name) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
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
        let ino = convert::ino(ino);
        let listed = self.volume.read_dir_plus(ino, after, &mut |entry, attr| {
            let name = OsStr::from_bytes(entry.name);
            let ttl = if Volume::is_view(ino) { std::time::Duration::ZERO } else { TTL };
            let (attr, generation) = (convert::file_attr(attr), Generation(attr.generation.into()));
            match reply.add(INodeNo(entry.ino.0), entry.cookie, name, &ttl, &attr, generation) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        empty(self.volume.release_dir(HandleId(handle.0)), reply);
    }

    fn fsyncdir(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.later(reply, move |volume, reply| match volume.sync_names() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(sync_errno(&error)),
        });
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.volume.statistics() {
            Ok(found) => {
                let unit = u64::from(found.block_bytes);
                let (blocks, free) = (found.total_bytes / unit, found.free_bytes / unit);
                let (writable, files) = (found.writable_bytes / unit, found.files_free);
                reply.statfs(
                    blocks,
                    free,
                    writable,
                    files,
                    files,
                    found.block_bytes,
                    found.name_bytes_max,
                    found.block_bytes,
                );
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            0 => XattrMode::Set,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let (ino, name, value) = (convert::ino(ino), name.as_bytes().to_vec(), value.to_vec());
        self.change(reply, move |volume, reply| empty(volume.set_xattr(ino, &name, &value, mode), reply));
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes();
        if name == CONTROL_XATTR
            && let Some(control) = &self.control
        {
            return send_xattr(Ok(control.as_os_str().as_bytes().to_vec()), size, reply);
        }
        if name == STATUS_XATTR {
            return send_xattr(Ok(self.volume.health().to_string().into_bytes()), size, reply);
        }
        send_xattr(self.volume.get_xattr(convert::ino(ino), name), size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let listed = self.volume.list_xattrs(convert::ino(ino)).map(|names| {
            let mut list = Vec::new();
            // As on other filesystems, only root sees names of the trusted namespace.
            for name in names.iter().filter(|name| request.uid() == 0 || !name.starts_with(b"trusted.")) {
                list.extend_from_slice(name);
                list.push(0);
            }
            list
        });
        send_xattr(listed, size, reply);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (ino, name) = (convert::ino(ino), name.as_bytes().to_vec());
        self.change(reply, move |volume, reply| empty(volume.remove_xattr(ino, &name), reply));
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // Asked only without default_permissions, which every mount has.
        reply.ok();
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let handle = HandleId(handle.0);
        let done = convert::allocate(mode).and_then(|what| self.volume.allocate(handle, offset, length, what));
        empty(done, reply);
    }

    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        input: &[u8],
        output_bytes_max: u32,
        reply: ReplyIoctl,
    ) {
        let answered = ioctl::answer(&self.volume, convert::ino(ino), &caller(request), command, input);
        match answered {
            Ok(answer) if answer.output.len() > output_bytes_max as usize => reply.error(Errno::EINVAL),
            Ok(answer) => {
                if answer.changed
                    && let Some(notifier) = self.notifier.get()
                {
                    // The kernel does not look for itself what such a call does to the times. An inode that it has let go of is no fault.
                    let _ = notifier.inval_inode(ino, -1, 0);
                }
                reply.ioctl(0, &answer.output);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        if self.writeback_cache {
            // What the kernel has not written yet is a hole here, or beyond the end, and a program that copies by holes would
            // leave it out. The kernel does not ask again, and tells that all is data.
            return reply.error(Errno::ENOSYS);
        }
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let found = u64::try_from(offset)
            .map_err(|_| Error::NoData("before the start".into()))
            .and_then(|offset| self.volume.seek(HandleId(handle.0), what, offset));
        match found {
            Ok(Some(found)) => reply.offset(found as i64),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _source: INodeNo,
        source_handle: FileHandle,
        source_offset: u64,
        _target: INodeNo,
        target_handle: FileHandle,
        target_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (source, target) = (HandleId(source_handle.0), HandleId(target_handle.0));
        self.later(reply, move |volume, reply| {
            match volume.copy_range((source, source_offset), (target, target_offset), length) {
                Ok(copied) => reply.written(copied as u32),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }
}
