//! A directory of a mounted filesystem as a [`Face`]: every operation is a system call.
//!
//! Times come from the clock of whoever serves the mount, so an operation's own time is unknown to the model until
//! `stat` shows it; it must then lie between the begin of the operation and now.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW,
        UTIME_OMIT, XattrFlags,
    },
    io::Errno,
};

use crate::{
    dump::{Dump, Item},
    face::{Answer, Asked, At, Change, Face, Flags, Of, Seen, Space},
    model::{Id, Kind, ROOT, Stamp},
};

/// Seconds of a time that is not known yet: no clock shows them.
const UNKNOWN: i64 = i64::MIN;

/// A directory of a mount.
pub struct KernelFace {
    root: PathBuf,
    /// Inode number of the directory, once it was asked for.
    root_id: Option<Id>,
    umask: u32,
    began: Stamp,
    ops: u32,
    next: u64,
    handles: HashMap<u64, File>,
}

fn clock() -> Stamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    (now.as_secs() as i64, now.subsec_nanos())
}

fn io_answer<T>(result: io::Result<T>) -> Answer<T> {
    result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

fn answer<T>(result: Result<T, Errno>) -> Answer<T> {
    result.map_err(Errno::raw_os_error)
}

impl KernelFace {
    /// A directory as the root of what is tested.
    pub fn new(root: PathBuf) -> Self {
        let status = fs::read_to_string("/proc/self/status").expect("a process has a status");
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).expect("and in it a umask");
        let umask = u32::from_str_radix(umask.trim(), 8).expect("in octal");
        Self { root, root_id: None, umask, began: (0, 0), ops: 0, next: 0, handles: HashMap::new() }
    }

    fn path(&self, of: Of<'_>) -> Answer<PathBuf> {
        let path = of.model.path_of(of.id).ok_or(libc::ENOENT)?;
        Ok(if path.is_empty() { self.root.clone() } else { self.root.join(OsStr::from_bytes(&path)) })
    }

    fn path_at(&self, at: At<'_>) -> Answer<PathBuf> {
        let directory = self.path(Of { model: at.model, id: at.directory, handle: None })?;
        Ok(directory.join(OsStr::from_bytes(at.name)))
    }

    /// A path that leads to the inode, by way of an open handle if it has no name.
    fn reach(&self, of: Of<'_>) -> Answer<PathBuf> {
        use std::os::fd::AsRawFd;
        match (self.path(of), of.handle) {
            (Err(_), Some(handle)) => Ok(format!("/proc/self/fd/{}", self.handles[&handle].as_raw_fd()).into()),
            (path, _) => path,
        }
    }

    fn seen(&mut self, data: &fs::Metadata, is_root: bool) -> Seen {
        if is_root {
            self.root_id = Some(data.ino());
        }
        let (major, minor) = (rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev()));
        Seen {
            id: if is_root { ROOT } else { data.ino() },
            kind: kind(data),
            mode: data.mode() & 0o7777,
            owner: (data.uid(), data.gid()),
            nlink: data.nlink() as u32,
            rdev: u64::from(major) << 32 | u64::from(minor),
            size: data.size(),
            times: times(data),
        }
    }

    fn file(&self, handle: u64) -> &File {
        &self.handles[&handle]
    }

    fn walk(&self, path: &Path, name: Vec<u8>, with_ids: bool, dump: &mut Dump) -> io::Result<()> {
        let data = fs::symlink_metadata(path)?;
        let content = match kind(&data) {
            Kind::File => {
                let mut content = Vec::new();
                File::open(path)?.read_to_end(&mut content)?;
                content
            }
            Kind::Symlink => fs::read_link(path)?.into_os_string().into_vec(),
            Kind::Directory => {
                for entry in fs::read_dir(path)? {
                    let below = entry?.file_name();
                    let name = [&name[..], b"/", below.as_bytes()].concat();
                    self.walk(&path.join(below), name, with_ids, dump)?;
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        let (major, minor) = (rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev()));
        let mut xattrs = std::collections::BTreeMap::new();
        for name in list_names(path)? {
            let value = get_value(path, &name)?;
            xattrs.insert(name, value);
        }
        let [atime, mtime, ctime] = times(&data);
        let item = Item {
            id: if with_ids { data.ino() } else { 0 },
            kind: kind(&data),
            mode: data.mode() & 0o7777,
            owner: (data.uid(), data.gid()),
            nlink: data.nlink() as u32,
            rdev: u64::from(major) << 32 | u64::from(minor),
            times: [atime, mtime, ctime, (0, 0)],
            content: Arc::new(content),
            xattrs,
        };
        dump.insert(name, item);
        Ok(())
    }
}

fn times(data: &fs::Metadata) -> [Stamp; 3] {
    [
        (data.atime(), data.atime_nsec() as u32),
        (data.mtime(), data.mtime_nsec() as u32),
        (data.ctime(), data.ctime_nsec() as u32),
    ]
}

fn kind(data: &fs::Metadata) -> Kind {
    kind_of(data.file_type())
}

fn kind_of(kind: fs::FileType) -> Kind {
    match kind {
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_symlink() => Kind::Symlink,
        kind if kind.is_fifo() => Kind::Fifo,
        kind if kind.is_socket() => Kind::Socket,
        kind if kind.is_char_device() => Kind::CharDevice,
        kind if kind.is_block_device() => Kind::BlockDevice,
        _ => Kind::File,
    }
}

/// Names of attributes in order.
fn list_names(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; 65_536];
    // Through a link of /proc what is meant is the file that it leads to.
    let length = match path.starts_with("/proc") {
        true => rustix::fs::listxattr(path, &mut list[..])?,
        false => rustix::fs::llistxattr(path, &mut list[..])?,
    };
    let mut names: Vec<Vec<u8>> =
        list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

fn get_value(path: &Path, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65_536];
    let name = OsStr::from_bytes(name);
    let length = match path.starts_with("/proc") {
        true => rustix::fs::getxattr(path, name, &mut value[..])?,
        false => rustix::fs::lgetxattr(path, name, &mut value[..])?,
    };
    value.truncate(length);
    Ok(value)
}

impl Face for KernelFace {
    fn through_kernel(&self) -> bool {
        true
    }

    fn begin(&mut self) -> Stamp {
        self.began = clock();
        self.ops += 1;
        (UNKNOWN, self.ops)
    }

    fn is_time(&self, wanted: Stamp, found: Stamp) -> bool {
        if wanted == (UNKNOWN, self.ops) { self.began <= found && found <= clock() } else { wanted == found }
    }

    fn umask(&self) -> Option<u32> {
        Some(self.umask)
    }

    fn lookup(&mut self, at: At<'_>) -> Answer<Seen> {
        let data = io_answer(fs::symlink_metadata(self.path_at(at)?))?;
        Ok(self.seen(&data, false))
    }

    fn stat(&mut self, of: Of<'_>) -> Answer<Seen> {
        let data = match (self.path(of), of.handle) {
            (Err(_), Some(handle)) => self.file(handle).metadata(),
            (path, _) => fs::symlink_metadata(path?),
        };
        let data = io_answer(data)?;
        Ok(self.seen(&data, of.id == ROOT))
    }

    fn create(&mut self, at: At<'_>, asked: &Asked) -> Answer<Id> {
        let path = self.path_at(at)?;
        let mode = Mode::from_raw_mode(asked.mode);
        let kind = match asked.kind {
            Kind::Directory => {
                answer(rustix::fs::mkdir(&path, mode))?;
                None
            }
            Kind::Symlink => {
                answer(rustix::fs::symlink(OsStr::from_bytes(&asked.target), &path))?;
                None
            }
            // Programs mostly make a file by opening it.
            Kind::File if self.ops.is_multiple_of(2) => {
                let made = File::options().write(true).create_new(true).mode(asked.mode).open(&path);
                io_answer(made)?;
                None
            }
            Kind::File => Some(FileType::RegularFile),
            Kind::Fifo => Some(FileType::Fifo),
            Kind::Socket => Some(FileType::Socket),
            Kind::CharDevice => Some(FileType::CharacterDevice),
            Kind::BlockDevice => Some(FileType::BlockDevice),
        };
        if let Some(kind) = kind {
            let device = rustix::fs::makedev((asked.rdev >> 32) as u32, asked.rdev as u32);
            answer(rustix::fs::mknodat(CWD, &path, kind, mode, device))?;
        }
        io_answer(fs::symlink_metadata(&path)).map(|data| data.ino())
    }

    fn link(&mut self, of: Of<'_>, at: At<'_>) -> Answer<()> {
        answer(rustix::fs::linkat(CWD, self.path(of)?, CWD, self.path_at(at)?, AtFlags::empty()))
    }

    fn unlink(&mut self, at: At<'_>) -> Answer<()> {
        answer(rustix::fs::unlink(self.path_at(at)?))
    }

    fn rmdir(&mut self, at: At<'_>) -> Answer<()> {
        answer(rustix::fs::rmdir(self.path_at(at)?))
    }

    fn rename(&mut self, from: At<'_>, to: At<'_>, flags: Flags) -> Answer<()> {
        let mut bits = RenameFlags::empty();
        bits.set(RenameFlags::NOREPLACE, flags.no_replace);
        bits.set(RenameFlags::EXCHANGE, flags.exchange);
        bits.set(RenameFlags::WHITEOUT, flags.whiteout);
        answer(rustix::fs::renameat_with(CWD, self.path_at(from)?, CWD, self.path_at(to)?, bits))
    }

    fn change(&mut self, of: Of<'_>, change: &Change) -> Answer<()> {
        let path = self.reach(of)?;
        if let Some(size) = change.size {
            // A file is cut by its path, which takes its times along; what has no path is cut by a handle.
            return match (self.path(of), of.handle) {
                (Err(_), Some(handle)) => answer(rustix::fs::ftruncate(self.file(handle), size)),
                _ => io_answer(nix::unistd::truncate(&path, size as i64).map_err(io::Error::from)),
            };
        }
        if let Some(mode) = change.mode {
            answer(rustix::fs::chmod(&path, Mode::from_raw_mode(mode)))?;
        }
        let through = path.starts_with("/proc");
        let follow = if through { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        if change.uid.or(change.gid).is_some() {
            let owner = change.uid.map(rustix::fs::Uid::from_raw);
            let group = change.gid.map(rustix::fs::Gid::from_raw);
            answer(rustix::fs::chownat(CWD, &path, owner, group, follow))?;
        }
        if change.atime.or(change.mtime).is_some() {
            let time = |wanted: Option<Option<Stamp>>| match wanted {
                None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                Some(None) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
                Some(Some((seconds, nanoseconds))) => Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
            };
            let times = Timestamps { last_access: time(change.atime), last_modification: time(change.mtime) };
            answer(rustix::fs::utimensat(CWD, &path, &times, follow))?;
        }
        Ok(())
    }

    fn set_xattr(&mut self, of: Of<'_>, name: &[u8], value: &[u8], must_exist: Option<bool>) -> Answer<()> {
        let flags = match must_exist {
            None => XattrFlags::empty(),
            Some(true) => XattrFlags::REPLACE,
            Some(false) => XattrFlags::CREATE,
        };
        let (path, name) = (self.reach(of)?, OsStr::from_bytes(name));
        answer(match path.starts_with("/proc") {
            true => rustix::fs::setxattr(&path, name, value, flags),
            false => rustix::fs::lsetxattr(&path, name, value, flags),
        })
    }

    fn remove_xattr(&mut self, of: Of<'_>, name: &[u8]) -> Answer<()> {
        let (path, name) = (self.reach(of)?, OsStr::from_bytes(name));
        answer(match path.starts_with("/proc") {
            true => rustix::fs::removexattr(&path, name),
            false => rustix::fs::lremovexattr(&path, name),
        })
    }

    fn get_xattr(&mut self, of: Of<'_>, name: &[u8]) -> Answer<Vec<u8>> {
        answer(get_value(&self.reach(of)?, name))
    }

    fn list_xattr(&mut self, of: Of<'_>) -> Answer<Vec<Vec<u8>>> {
        io_answer(list_names(&self.reach(of)?))
    }

    fn read_link(&mut self, of: Of<'_>) -> Answer<Vec<u8>> {
        io_answer(fs::read_link(self.path(of)?)).map(|target| target.into_os_string().into_vec())
    }

    fn list(&mut self, of: Of<'_>, _page: usize) -> Answer<Vec<(Vec<u8>, Id, Kind)>> {
        let mut entries = Vec::new();
        for entry in io_answer(fs::read_dir(self.path(of)?))? {
            use std::os::unix::fs::DirEntryExt;
            let entry = io_answer(entry)?;
            let kind = kind_of(io_answer(entry.file_type())?);
            entries.push((OsString::into_vec(entry.file_name()), entry.ino(), kind));
        }
        entries.sort();
        Ok(entries)
    }

    fn open(&mut self, of: Of<'_>, append: bool) -> Answer<u64> {
        let mut options = File::options();
        options.read(true).write(!append).append(append);
        let file = io_answer(options.open(self.reach(of)?))?;
        self.next += 1;
        self.handles.insert(self.next, file);
        Ok(self.next)
    }

    fn close(&mut self, handle: u64) -> Answer<()> {
        let file = self.handles.remove(&handle).expect("it is open");
        io_answer(nix::unistd::close(file).map_err(io::Error::from))
    }

    fn read(&mut self, handle: u64, offset: u64, length: usize) -> Answer<Vec<u8>> {
        let (mut bytes, mut filled) = (vec![0; length], 0);
        while filled < length {
            match io_answer(self.file(handle).read_at(&mut bytes[filled..], offset + filled as u64))? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn write(&mut self, handle: u64, offset: u64, bytes: &[u8]) -> Answer<()> {
        io_answer(self.file(handle).write_all_at(bytes, offset))
    }

    fn allocate(&mut self, handle: u64, space: Space, offset: u64, length: u64) -> Answer<()> {
        let mode = match space {
            Space::Reserve => FallocateFlags::empty(),
            Space::ReserveKeepSize => FallocateFlags::KEEP_SIZE,
            Space::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            Space::Zero => FallocateFlags::ZERO_RANGE,
            Space::ZeroKeepSize => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        answer(rustix::fs::fallocate(self.file(handle), mode, offset, length))
    }

    fn seek(&mut self, handle: u64, data: bool, offset: u64) -> Answer<u64> {
        let to = if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        answer(rustix::fs::seek(self.file(handle), to))
    }

    fn copy(&mut self, from: (u64, u64), to: (u64, u64), length: u64) -> Answer<u64> {
        let (mut offset, mut target, mut left) = (from.1, to.1, length);
        // One call may copy less than it was asked for; only the end of the source ends it.
        while left > 0 {
            let (source, sink) = (self.file(from.0), self.file(to.0));
            let copied = rustix::fs::copy_file_range(source, Some(&mut offset), sink, Some(&mut target), left as usize);
            match answer(copied)? {
                0 => break,
                count => left -= count as u64,
            }
        }
        Ok(length - left)
    }

    fn fsync(&mut self, handle: u64) -> Answer<()> {
        io_answer(self.file(handle).sync_all())
    }

    fn sync_names(&mut self) -> Answer<()> {
        io_answer(File::open(&self.root).and_then(|root| root.sync_all()))
    }

    fn flush(&mut self) -> Answer<()> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Answer<()> {
        Ok(())
    }

    fn snapshot(&mut self, name: &[u8]) -> Answer<()> {
        io_answer(fs::create_dir(self.root.join(".snapshots").join(OsStr::from_bytes(name))))
    }

    fn delete_snapshot(&mut self, name: &[u8]) -> Answer<()> {
        io_answer(fs::remove_dir(self.root.join(".snapshots").join(OsStr::from_bytes(name))))
    }

    fn dump(&mut self, snapshot: Option<&[u8]>) -> Dump {
        let mut dump = Dump::new();
        let path = match snapshot {
            Some(name) => self.root.join(".snapshots").join(OsStr::from_bytes(name)),
            None => self.root.clone(),
        };
        self.walk(&path, Vec::new(), snapshot.is_none(), &mut dump).expect("the tree is read");
        dump
    }
}
