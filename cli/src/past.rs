//! A snapshot opened for reading without a mount: what `ls`, `cat` and `restore` share.

use std::{ops::ControlFlow, sync::Arc};

use vellum_fs::{
    format::{
        inode::{FileKind, Inode},
        volume::SnapshotRecord,
    },
    ino::Ino,
    name,
    namespace::{COOKIE_PARENT, Names, NamespaceView},
    time::Time,
    volume::{Volume, instant::parse_instant, snapdir::View},
};
use vellum_store::crypto::SubkeyUse;

use crate::{
    context::Context,
    error::{Error, Exit, Result},
    output::{escaped, local_time},
    reports::{FileReport, Name},
    target::{Inside, Source},
};

/// Entries that are read of a directory at a time.
const BATCH: usize = 1024;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Where the listing goes on.
    pub cookie: u64,
    /// The inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Its name.
    pub name: Vec<u8>,
}

/// An opened snapshot.
pub struct Past {
    volume: Arc<Volume>,
    view: Arc<View>,
    names: Names,
}

impl Past {
    /// Opens the snapshot that is named.
    pub fn open(context: &Context, source: &Source, snapshot: &[u8]) -> Result<Self> {
        let volume = context.open_reader(source)?;
        let opened = find(&volume, snapshot).and_then(|record| Ok(volume.open_snapshot(&record)?));
        let view = match opened {
            Ok(view) => view,
            Err(error) => {
                // The volume was only read: there is nothing to lose.
                let _ = volume.close();
                return Err(error);
            }
        };
        let names = Names::new(volume.repository().keyring().subkey(SubkeyUse::DirentName));
        Ok(Self { volume, view, names })
    }

    /// Ends the reading.
    pub fn close(self) -> Result<()> {
        Ok(self.volume.close()?)
    }

    /// The snapshot's entry in the list.
    pub fn record(&self) -> &SnapshotRecord {
        &self.view.record
    }

    /// The volume that it is a snapshot of.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The opened tree.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Names and attributes.
    pub fn namespace(&self) -> NamespaceView<'_> {
        NamespaceView::new(&self.view.tree, &self.names)
    }

    /// Where a path leads; symbolic links are not followed.
    pub fn resolve(&self, inside: &Inside) -> Result<(Ino, FileKind)> {
        for name in &inside.names {
            name::check(name)?;
        }
        match self.namespace().resolve(&inside.names) {
            Err(vellum_fs::Error::NotFound(_) | vellum_fs::Error::NotDirectory(_)) => {
                let path = escaped(&inside.names.join(&b'/'));
                let snapshot = escaped(&self.record().name);
                let message = format!("{path} does not exist in snapshot {snapshot}");
                Err(Error::told(
                    Exit::NotFound,
                    message,
                    "`vellum ls` shows what is there; write the path from the root of the volume",
                ))
            }
            resolved => Ok(resolved?),
        }
    }

    /// The next entries of a directory after a cookie, 0 to begin with; none at the end.
    pub fn children(&self, dir: Ino, after: u64) -> Result<Vec<Child>> {
        let mut batch = Vec::new();
        self.namespace().read_dir(dir, after.max(COOKIE_PARENT), &mut |entry| {
            batch.push(Child { cookie: entry.cookie, ino: entry.ino, kind: entry.kind, name: entry.name.to_vec() });
            if batch.len() == BATCH { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(batch)
    }

    /// What `ls` and `restore` tell of an inode.
    pub fn report(&self, path: &[u8], ino: Ino, inode: &Inode) -> Result<FileReport> {
        let target = match inode.kind {
            FileKind::Symlink => Some(Name(self.namespace().read_link(ino)?)),
            _ => None,
        };
        Ok(FileReport {
            path: Name(path.to_vec()),
            kind: kind_word(inode.kind),
            mode: format!("{:04o}", inode.mode),
            links: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            modified: crate::output::exact_time(inode.mtime),
            ino: ino.0,
            target,
        })
    }
}

/// The snapshot that is meant: a name, `latest`, or `@` and an instant.
fn find(volume: &Volume, wanted: &[u8]) -> Result<SnapshotRecord> {
    let text = std::str::from_utf8(wanted).unwrap_or_default();
    if wanted == b"latest" {
        return newest(volume, None)?.ok_or_else(|| no_snapshot("the volume has no snapshot".to_string()));
    }
    let Some(instant) = text.strip_prefix('@') else { return Ok(volume.snapshot(wanted)?) };
    let Some(at) = parse_instant(instant, volume.now(), &volume.options().zone) else {
        let message = format!("{:?} is not an instant", escaped(wanted));
        return Err(Error::usage(message, "write `@-2h`, `@yesterday`, `@14:05` or `@2026-11-20T14:05`"));
    };
    newest(volume, Some(at))?.ok_or_else(|| no_snapshot(format!("there is no snapshot from before {}", local_time(at))))
}

fn newest(volume: &Volume, until: Option<Time>) -> Result<Option<SnapshotRecord>> {
    let records = volume.snapshots()?;
    let kept =
        records.into_iter().filter(|record| record.deleted.is_none() && until.is_none_or(|until| record.time <= until));
    Ok(kept.max_by_key(|record| (record.time, record.id)))
}

fn no_snapshot(message: String) -> Error {
    Error::told(Exit::NotFound, message, "`vellum snapshots` lists the snapshots, `vellum snapshot` takes one")
}

/// The word for a kind of file.
pub fn kind_word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::CharDevice => "character-device",
        FileKind::BlockDevice => "block-device",
        FileKind::Socket => "socket",
    }
}

/// Mode and kind as `ls -l` shows them.
pub fn mode_text(inode: &Inode) -> String {
    let kind = match inode.kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = inode.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (inode.mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_shown_as_ls_shows_them() {
        let text = |kind, mode| mode_text(&Inode::new(kind, mode, 0, 0, Time::EPOCH));
        assert_eq!(text(FileKind::Regular, 0o644), "-rw-r--r--");
        assert_eq!(text(FileKind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(text(FileKind::Regular, 0o6745), "-rwsr-Sr-x");
        assert_eq!(text(FileKind::Regular, 0o1644), "-rw-r--r-T");
    }
}
