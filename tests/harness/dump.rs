//! A whole tree written down by path, from a volume or from the model, to be compared.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use vellum_fs::{
    attr::Attr,
    error::{Error, Result},
    format::inode::FileKind,
    ino::Ino,
    time::Time,
    volume::{Volume, handles::OpenMode},
};

use crate::model::{Id, Kind, Model, Node, ROOT, Stamp};

/// Bytes of a file, or the target of a link.
pub type Content = Arc<Vec<u8>>;

/// What is compared of one inode.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// Its number; 0 where numbers differ by nature.
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
    /// atime, mtime, ctime, btime.
    pub times: [Stamp; 4],
    /// Content of a file, target of a link.
    pub content: Content,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hash = blake3::hash(&self.content).to_hex();
        write!(
            f,
            "{:?} {} mode {:o} owner {:?} nlink {} rdev {} times {:?} xattrs {:?} content {} bytes {}",
            self.kind,
            self.id,
            self.mode,
            self.owner,
            self.nlink,
            self.rdev,
            self.times,
            self.xattrs.iter().map(|(name, value)| (name.escape_ascii().to_string(), value.len())).collect::<Vec<_>>(),
            self.content.len(),
            &hash[..8]
        )
    }
}

/// A tree by path.
pub type Dump = BTreeMap<Vec<u8>, Item>;

fn stamp(time: Time) -> Stamp {
    (time.sec, time.nsec)
}

/// The kind as the model calls it.
pub fn kind(kind: FileKind) -> Kind {
    match kind {
        FileKind::Regular => Kind::File,
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink => Kind::Symlink,
        FileKind::Fifo => Kind::Fifo,
        FileKind::Socket => Kind::Socket,
        FileKind::CharDevice => Kind::CharDevice,
        FileKind::BlockDevice => Kind::BlockDevice,
    }
}

/// Reads a whole file.
pub fn read_file(volume: &Volume, ino: Ino) -> Result<Vec<u8>> {
    let handle = volume.open_file(ino, OpenMode { read: true, ..OpenMode::default() })?.handle;
    let all = read_handle(volume, handle);
    volume.release(handle)?;
    all
}

/// Reads a whole file through an open handle.
pub fn read_handle(volume: &Volume, handle: vellum_fs::volume::handles::HandleId) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let part = volume.read(handle, all.len() as u64, 100_000)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&part);
    }
}

/// Reads all files below a directory while others change it. What goes meanwhile is not there; other errors are returned.
pub fn read_all(volume: &Volume, dir: Ino) -> Result<()> {
    let mut names = Vec::new();
    volume.read_dir(dir, 0, &mut |entry| {
        names.push(entry.name.to_vec());
        ControlFlow::Continue(())
    })?;
    names.retain(|name| !matches!(&name[..], b"." | b".."));
    for name in names {
        let Ok(entry) = volume.lookup(dir, &name) else { continue };
        let read = match entry.attr.kind {
            FileKind::Regular => read_file(volume, entry.attr.ino).map(drop),
            FileKind::Directory => read_all(volume, entry.attr.ino),
            _ => Ok(()),
        };
        volume.forget(entry.attr.ino, 1);
        match read {
            Err(Error::Stale(_) | Error::NotFound(_)) | Ok(()) => {}
            other => return other,
        }
    }
    Ok(())
}

fn item(volume: &Volume, attr: &Attr) -> Result<Item> {
    let ino = attr.ino;
    let content = match attr.kind {
        FileKind::Regular => {
            let content = read_file(volume, ino)?;
            assert_eq!(content.len() as u64, attr.size, "{ino} has the size it says");
            content
        }
        FileKind::Symlink => volume.read_link(ino)?,
        _ => Vec::new(),
    };
    let mut xattrs = BTreeMap::new();
    for name in volume.list_xattrs(ino)? {
        let value = volume.get_xattr(ino, &name)?;
        xattrs.insert(name, value);
    }
    Ok(Item {
        id: if Volume::is_view(ino) { 0 } else { ino.0 },
        kind: kind(attr.kind),
        mode: attr.perm,
        owner: (attr.uid, attr.gid),
        nlink: attr.nlink,
        rdev: attr.rdev,
        times: [attr.atime, attr.mtime, attr.ctime, attr.btime].map(stamp),
        content: Arc::new(content),
        xattrs,
    })
}

/// Writes down what a volume shows below `root`.
pub fn of_volume(volume: &Volume, root: Ino) -> Result<Dump> {
    let mut dump = Dump::new();
    let mut left = vec![(Vec::new(), volume.get_attr(root)?)];
    while let Some((path, attr)) = left.pop() {
        if attr.kind == FileKind::Directory {
            let mut names = Vec::new();
            volume.read_dir(attr.ino, 0, &mut |entry| {
                names.push((entry.name.to_vec(), entry.ino));
                ControlFlow::Continue(())
            })?;
            for (name, listed) in names.into_iter().filter(|(name, _)| !matches!(&name[..], b"." | b"..")) {
                let entry = volume.lookup(attr.ino, &name)?;
                assert!(Volume::is_view(listed) || listed == entry.attr.ino, "readdir and lookup agree");
                let below = [&path[..], b"/", &name].concat();
                left.push((below, entry.attr));
            }
        }
        dump.insert(path, item(volume, &attr)?);
        if attr.ino != root {
            volume.forget(attr.ino, 1);
        }
    }
    Ok(dump)
}

/// Writes down what a snapshot shows.
pub fn of_snapshot(volume: &Volume, name: &[u8]) -> Result<Dump> {
    let snapshots = volume.lookup(Ino::ROOT, b".snapshots")?;
    let root = volume.lookup(snapshots.attr.ino, name)?;
    let dump = of_volume(volume, root.attr.ino);
    volume.forget(root.attr.ino, 1);
    volume.forget(snapshots.attr.ino, 1);
    dump
}

/// Writes down what the model holds; `content` tells the content of files.
pub fn of_model(model: &Model, content: &dyn Fn(Id) -> Content) -> Dump {
    let mut dump = Dump::new();
    let mut left = vec![(Vec::new(), ROOT)];
    while let Some((path, id)) = left.pop() {
        let node: &Node = &model.nodes[&id];
        for (name, child) in &node.entries {
            left.push(([&path[..], b"/", name].concat(), *child));
        }
        let content = match node.kind {
            Kind::File => content(id),
            _ => Arc::new(node.content.clone()),
        };
        let item = Item {
            id,
            kind: node.kind,
            mode: node.mode,
            owner: (node.uid, node.gid),
            nlink: node.nlink,
            rdev: node.rdev,
            times: [node.atime, node.mtime, node.ctime, node.btime],
            content,
            xattrs: node.xattrs.clone(),
        };
        dump.insert(path, item);
    }
    dump
}

/// The same without inode numbers, as a snapshot shows it.
pub fn without_ids(mut dump: Dump) -> Dump {
    dump.values_mut().for_each(|item| item.id = 0);
    dump
}

/// The same without what P1 lets each file have by itself: content, size and times.
pub fn names_only(mut dump: Dump) -> Dump {
    for item in dump.values_mut().filter(|item| item.kind == Kind::File) {
        item.content = Content::default();
        item.times[..3].fill((0, 0));
    }
    dump
}

/// How two dumps differ, for people.
pub fn difference(found: &Dump, wanted: &Dump) -> String {
    let mut lines = Vec::new();
    for path in found.keys().chain(wanted.keys().filter(|path| !found.contains_key(*path))) {
        let (found, wanted) = (found.get(path), wanted.get(path));
        if found != wanted {
            lines.push(format!("  {}\n    found  {found:?}\n    wanted {wanted:?}", path.escape_ascii()));
        }
        if let (Some(found), Some(wanted)) = (found, wanted)
            && found.content != wanted.content
        {
            let first = found.content.iter().zip(wanted.content.iter()).position(|(a, b)| a != b);
            lines.push(format!("    contents differ from byte {first:?}"));
        }
    }
    lines.join("\n")
}
