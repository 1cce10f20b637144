//! What programs see of a filesystem, as one set of operations: the same random sequences run on a volume through the
//! library and on a mounted one through system calls.
//!
//! *Not here*: what the answers should be (`model`), which operations come when (`marathon`), system calls (`kernel`).

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use vellum_fs::{
    attr::{Attr, Caller, SetAttr, SetTime},
    content::read::Seek,
    error::Error,
    format::inode::FileKind,
    fuse::errno::errno,
    ino::Ino,
    namespace::{RenameFlags, XattrMode},
    time::Time,
    volume::{
        Volume,
        handles::{HandleId, OpenMode},
        ops::{files::Allocate, names::NewInode},
        snapshot::SnapshotRequest,
    },
};

use crate::{
    dump::{self, Dump},
    model::{Id, Kind, Model, ROOT, Stamp},
    rig,
};

/// An answer, or the number of the error.
pub type Answer<T> = Result<T, i32>;

/// A name in a directory of the model.
#[derive(Clone, Copy, Debug)]
pub struct At<'m> {
    /// The model before the operation.
    pub model: &'m Model,
    /// The directory.
    pub directory: Id,
    /// The name.
    pub name: &'m [u8],
}

/// An inode, and an open handle of it if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Of<'m> {
    /// The model before the operation.
    pub model: &'m Model,
    /// The inode.
    pub id: Id,
    /// How it is reached when it has no name.
    pub handle: Option<u64>,
}

/// What `stat` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Inode number.
    pub id: Id,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Names.
    pub nlink: u32,
    /// Device.
    pub rdev: u64,
    /// Length in bytes.
    pub size: u64,
    /// atime, mtime, ctime.
    pub times: [Stamp; 3],
}

/// What to create.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it is to be.
    pub kind: Kind,
    /// Permission bits asked for.
    pub mode: u32,
    /// Bits to take away.
    pub umask: u32,
    /// Who creates it.
    pub owner: (u32, u32),
    /// Device number.
    pub rdev: u64,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
}

/// A change of attributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access: a time, or now.
    pub atime: Option<Option<Stamp>>,
    /// Last change of content: a time, or now.
    pub mtime: Option<Option<Stamp>>,
    /// Length.
    pub size: Option<u64>,
}

/// The modes of `fallocate` that exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Reserve.
    Reserve,
    /// Reserve beyond the end.
    ReserveKeepSize,
    /// Make a hole.
    Punch,
    /// Make zeros.
    Zero,
    /// Make zeros within the file.
    ZeroKeepSize,
}

/// Flags of a rename.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// RENAME_NOREPLACE.
    pub no_replace: bool,
    /// RENAME_EXCHANGE.
    pub exchange: bool,
    /// RENAME_WHITEOUT.
    pub whiteout: bool,
}

/// A filesystem, or a directory of it, under test. Paths of answers and handles are its own.
#[allow(missing_docs)]
pub trait Face {
    /// Whether a kernel stands between: it checks some arguments first, and asks as root.
    fn through_kernel(&self) -> bool;
    /// What the next operation records as its time, or what stands for that in the model.
    fn begin(&mut self) -> Stamp;
    /// Whether a time that was found is the one that was wanted.
    fn is_time(&self, wanted: Stamp, found: Stamp) -> bool {
        wanted == found
    }
    /// The umask, where it is not free to choose.
    fn umask(&self) -> Option<u32>;
    fn lookup(&mut self, at: At<'_>) -> Answer<Seen>;
    fn stat(&mut self, of: Of<'_>) -> Answer<Seen>;
    fn create(&mut self, at: At<'_>, asked: &Asked) -> Answer<Id>;
    fn link(&mut self, of: Of<'_>, at: At<'_>) -> Answer<()>;
    fn unlink(&mut self, at: At<'_>) -> Answer<()>;
    fn rmdir(&mut self, at: At<'_>) -> Answer<()>;
    fn rename(&mut self, from: At<'_>, to: At<'_>, flags: Flags) -> Answer<()>;
    fn change(&mut self, of: Of<'_>, change: &Change) -> Answer<()>;
    fn set_xattr(&mut self, of: Of<'_>, name: &[u8], value: &[u8], must_exist: Option<bool>) -> Answer<()>;
    fn remove_xattr(&mut self, of: Of<'_>, name: &[u8]) -> Answer<()>;
    fn get_xattr(&mut self, of: Of<'_>, name: &[u8]) -> Answer<Vec<u8>>;
    /// Names in order.
    fn list_xattr(&mut self, of: Of<'_>) -> Answer<Vec<Vec<u8>>>;
    fn read_link(&mut self, of: Of<'_>) -> Answer<Vec<u8>>;
    /// Entries in order of names, without `.` and `..`; `page` of them at a time, where that can be chosen.
    fn list(&mut self, of: Of<'_>, page: usize) -> Answer<Vec<(Vec<u8>, Id, Kind)>>;
    fn open(&mut self, of: Of<'_>, append: bool) -> Answer<u64>;
    fn close(&mut self, handle: u64) -> Answer<()>;
    fn read(&mut self, handle: u64, offset: u64, length: usize) -> Answer<Vec<u8>>;
    fn write(&mut self, handle: u64, offset: u64, bytes: &[u8]) -> Answer<()>;
    fn allocate(&mut self, handle: u64, space: Space, offset: u64, length: u64) -> Answer<()>;
    fn seek(&mut self, handle: u64, data: bool, offset: u64) -> Answer<u64>;
    fn copy(&mut self, from: (u64, u64), to: (u64, u64), length: u64) -> Answer<u64>;
    fn fsync(&mut self, handle: u64) -> Answer<()>;
    fn sync_names(&mut self) -> Answer<()>;
    fn flush(&mut self) -> Answer<()>;
    fn checkpoint(&mut self) -> Answer<()>;
    fn snapshot(&mut self, name: &[u8]) -> Answer<()>;
    fn delete_snapshot(&mut self, name: &[u8]) -> Answer<()>;
    /// The whole tree, live or as a snapshot has it; birth times are left out where they are not shown.
    fn dump(&mut self, snapshot: Option<&[u8]>) -> Dump;
}

/// A directory of a volume, through the library.
pub struct VolumeFace {
    /// The volume.
    pub volume: Arc<Volume>,
    root: Ino,
    op: u64,
    lane: u64,
    handles: HashMap<u64, HandleId>,
}

impl VolumeFace {
    /// A directory of a volume as the root of what is tested. Times of different lanes differ.
    pub fn new(volume: Arc<Volume>, root: Ino, lane: u64) -> Self {
        Self { volume, root, op: 0, lane, handles: HashMap::new() }
    }

    fn ino(&self, id: Id) -> Ino {
        if id == ROOT { self.root } else { Ino(id) }
    }

    fn seen(&self, attr: &Attr) -> Seen {
        Seen {
            id: if attr.ino == self.root { ROOT } else { attr.ino.0 },
            kind: dump::kind(attr.kind),
            mode: attr.perm,
            owner: (attr.uid, attr.gid),
            nlink: attr.nlink,
            rdev: attr.rdev,
            size: attr.size,
            times: [attr.atime, attr.mtime, attr.ctime].map(|time| (time.sec, time.nsec)),
        }
    }

    fn handle(&self, handle: u64) -> HandleId {
        self.handles[&handle]
    }
}

/// The number of an error, as a program would see it.
pub fn number(error: &Error) -> i32 {
    errno(error).code()
}

fn answer<T>(result: vellum_fs::Result<T>) -> Answer<T> {
    result.map_err(|error| number(&error))
}

fn time(stamp: Stamp) -> Time {
    Time::new(stamp.0, stamp.1).expect("nanoseconds stay below a second")
}

fn set_time(wanted: Option<Option<Stamp>>) -> Option<SetTime> {
    wanted.map(|at| at.map_or(SetTime::Now, |at| SetTime::At(time(at))))
}

/// The kind as the library calls it.
fn file_kind(kind: Kind) -> FileKind {
    match kind {
        Kind::File => FileKind::Regular,
        Kind::Directory => FileKind::Directory,
        Kind::Symlink => FileKind::Symlink,
        Kind::Fifo => FileKind::Fifo,
        Kind::Socket => FileKind::Socket,
        Kind::CharDevice => FileKind::CharDevice,
        Kind::BlockDevice => FileKind::BlockDevice,
    }
}

impl Face for VolumeFace {
    fn through_kernel(&self) -> bool {
        false
    }

    fn begin(&mut self) -> Stamp {
        self.op += 1;
        let stamp = (1_700_000_000 + self.op as i64, (self.lane as u32 * 7919) % 1_000_000_000);
        rig::set_clock(time(stamp));
        stamp
    }

    fn umask(&self) -> Option<u32> {
        None
    }

    fn lookup(&mut self, at: At<'_>) -> Answer<Seen> {
        let entry = answer(self.volume.lookup(self.ino(at.directory), at.name))?;
        self.volume.forget(entry.attr.ino, 1);
        Ok(self.seen(&entry.attr))
    }

    fn stat(&mut self, of: Of<'_>) -> Answer<Seen> {
        answer(self.volume.get_attr(self.ino(of.id))).map(|attr| self.seen(&attr))
    }

    fn create(&mut self, at: At<'_>, asked: &Asked) -> Answer<Id> {
        let Asked { kind, mode, umask, owner: (uid, gid), rdev, ref target } = *asked;
        let (parent, name, kind) = (self.ino(at.directory), at.name, file_kind(kind));
        let new = NewInode { parent, name, kind, mode, umask, rdev, target };
        let caller = Caller { uid, gid, pid: 1 };
        let entry = match kind {
            // Programs mostly make a file by opening it.
            FileKind::Regular if self.op.is_multiple_of(2) => {
                let (entry, opened) = answer(self.volume.create(&new, rig::RDWR, &caller))?;
                answer(self.volume.release(opened.handle))?;
                entry
            }
            _ => answer(self.volume.create_inode(&new, &caller))?,
        };
        self.volume.forget(entry.attr.ino, 1);
        Ok(entry.attr.ino.0)
    }

    fn link(&mut self, of: Of<'_>, at: At<'_>) -> Answer<()> {
        let entry = answer(self.volume.link(self.ino(of.id), self.ino(at.directory), at.name))?;
        self.volume.forget(entry.attr.ino, 1);
        Ok(())
    }

    fn unlink(&mut self, at: At<'_>) -> Answer<()> {
        answer(self.volume.unlink(self.ino(at.directory), at.name).map(drop))
    }

    fn rmdir(&mut self, at: At<'_>) -> Answer<()> {
        answer(self.volume.rmdir(self.ino(at.directory), at.name, &rig::ME))
    }

    fn rename(&mut self, from: At<'_>, to: At<'_>, flags: Flags) -> Answer<()> {
        let Flags { no_replace, exchange, whiteout } = flags;
        let flags = RenameFlags { no_replace, exchange, whiteout };
        let (from, to) = ((self.ino(from.directory), from.name), (self.ino(to.directory), to.name));
        answer(self.volume.rename(from, to, flags, &rig::ME).map(drop))
    }

    fn change(&mut self, of: Of<'_>, change: &Change) -> Answer<()> {
        let Change { mode, uid, gid, atime, mtime, size } = *change;
        let set = SetAttr { mode, uid, gid, size, atime: set_time(atime), mtime: set_time(mtime) };
        answer(self.volume.set_attr(self.ino(of.id), &set)).map(drop)
    }

    fn set_xattr(&mut self, of: Of<'_>, name: &[u8], value: &[u8], must_exist: Option<bool>) -> Answer<()> {
        let mode = match must_exist {
            None => XattrMode::Set,
            Some(true) => XattrMode::Replace,
            Some(false) => XattrMode::Create,
        };
        answer(self.volume.set_xattr(self.ino(of.id), name, value, mode))
    }

    fn remove_xattr(&mut self, of: Of<'_>, name: &[u8]) -> Answer<()> {
        answer(self.volume.remove_xattr(self.ino(of.id), name))
    }

    fn get_xattr(&mut self, of: Of<'_>, name: &[u8]) -> Answer<Vec<u8>> {
        answer(self.volume.get_xattr(self.ino(of.id), name))
    }

    fn list_xattr(&mut self, of: Of<'_>) -> Answer<Vec<Vec<u8>>> {
        answer(self.volume.list_xattrs(self.ino(of.id)))
    }

    fn read_link(&mut self, of: Of<'_>) -> Answer<Vec<u8>> {
        answer(self.volume.read_link(self.ino(of.id)))
    }

    fn list(&mut self, of: Of<'_>, page: usize) -> Answer<Vec<(Vec<u8>, Id, Kind)>> {
        let (mut entries, mut resume) = (Vec::new(), 0);
        loop {
            let (mut taken, from) = (0, resume);
            let mut take = |entry: &vellum_fs::namespace::DirEntry<'_>| {
                if taken == page {
                    return ControlFlow::Break(());
                }
                (taken, resume) = (taken + 1, entry.cookie);
                if !matches!(entry.name, b"." | b"..") {
                    entries.push((entry.name.to_vec(), entry.ino.0, dump::kind(entry.kind)));
                }
                ControlFlow::Continue(())
            };
            answer(self.volume.read_dir(self.ino(of.id), from, &mut take))?;
            if taken == 0 {
                entries.sort();
                return Ok(entries);
            }
        }
    }

    fn open(&mut self, of: Of<'_>, append: bool) -> Answer<u64> {
        let mode = OpenMode { read: true, write: true, append, sync: false };
        let handle = answer(self.volume.open_file(self.ino(of.id), mode))?.handle;
        self.handles.insert(handle.0, handle);
        Ok(handle.0)
    }

    fn close(&mut self, handle: u64) -> Answer<()> {
        let handle = self.handles.remove(&handle).expect("it is open");
        answer(self.volume.flush(handle))?;
        answer(self.volume.release(handle))
    }

    fn read(&mut self, handle: u64, offset: u64, length: usize) -> Answer<Vec<u8>> {
        answer(self.volume.read(self.handle(handle), offset, length))
    }

    fn write(&mut self, handle: u64, offset: u64, bytes: &[u8]) -> Answer<()> {
        let written = answer(self.volume.write(self.handle(handle), offset, bytes))?;
        assert_eq!(written, bytes.len(), "a write takes all");
        Ok(())
    }

    fn allocate(&mut self, handle: u64, space: Space, offset: u64, length: u64) -> Answer<()> {
        let what = match space {
            Space::Reserve => Allocate::Reserve { keep_size: false },
            Space::ReserveKeepSize => Allocate::Reserve { keep_size: true },
            Space::Punch => Allocate::Punch,
            Space::Zero => Allocate::Zero { keep_size: false },
            Space::ZeroKeepSize => Allocate::Zero { keep_size: true },
        };
        answer(self.volume.allocate(self.handle(handle), offset, length, what))
    }

    fn seek(&mut self, handle: u64, data: bool, offset: u64) -> Answer<u64> {
        let what = if data { Seek::Data } else { Seek::Hole };
        answer(self.volume.seek(self.handle(handle), what, offset))?.ok_or(libc::ENXIO)
    }

    fn copy(&mut self, from: (u64, u64), to: (u64, u64), length: u64) -> Answer<u64> {
        let (from, to) = ((self.handle(from.0), from.1), (self.handle(to.0), to.1));
        answer(self.volume.copy_range(from, to, length))
    }

    fn fsync(&mut self, handle: u64) -> Answer<()> {
        answer(self.volume.fsync(self.handle(handle)))
    }

    fn sync_names(&mut self) -> Answer<()> {
        answer(self.volume.sync_names())
    }

    fn flush(&mut self) -> Answer<()> {
        answer(self.volume.flush_dirty())
    }

    fn checkpoint(&mut self) -> Answer<()> {
        answer(self.volume.checkpoint())
    }

    fn snapshot(&mut self, name: &[u8]) -> Answer<()> {
        let request = SnapshotRequest { name: Some(name.to_vec()), comment: String::new() };
        answer(self.volume.take_snapshot(&request)).map(drop)
    }

    fn delete_snapshot(&mut self, name: &[u8]) -> Answer<()> {
        answer(self.volume.delete_snapshot(name)).map(drop)
    }

    fn dump(&mut self, snapshot: Option<&[u8]>) -> Dump {
        let Some(snapshot) = snapshot else {
            return dump::of_volume(&self.volume, self.root).expect("the live tree is read");
        };
        let snapshots = self.volume.lookup(self.root, b".snapshots").expect("every directory has its snapshots");
        let root = self.volume.lookup(snapshots.attr.ino, snapshot).expect("the snapshot has this directory");
        let dump = dump::of_volume(&self.volume, root.attr.ino).expect("the snapshot is read");
        self.volume.forget(root.attr.ino, 1);
        self.volume.forget(snapshots.attr.ino, 1);
        dump
    }
}
