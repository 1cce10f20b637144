//! The repository that is harmed: a small real tree with two snapshots, and a journal with an open pack as a kill leaves them.

use std::sync::LazyLock;

use vellum_fs::{
    attr::SetAttr,
    format::{
        inode::FileKind,
        op::{self, Op, Part},
    },
    ino::Ino,
    namespace::{RenameFlags, XattrMode},
    volume::{Volume, ops::names::NewInode, snapshot::SnapshotRequest},
};
use vellum_store::{
    format::journal::{BLOCK_BYTES, CommitHeader, Place},
    id::VolumeName,
    repository::{Access, BlobPlace},
};
use vellum_tests::{
    bench::{Bench, ME, close, create, new_inode, noise, text, write},
    portrait::Portrait,
};

/// A repository, and what it holds.
pub struct Story {
    /// As the kill left it.
    pub bench: Bench,
    /// As it was right after the second snapshot, long before.
    pub earlier: Bench,
    /// The live tree after each journal commit since the newest head, from none to all.
    pub states: Vec<Portrait>,
    /// The newest journal commit that the newest head holds.
    pub after: u64,
    /// Names and portraits of the snapshots.
    pub snapshots: Vec<(&'static str, Portrait)>,
    /// Where what matters lies in the mutable files.
    pub live: Vec<LiveRange>,
}

/// A range of a journal segment or an open pack that replay needs.
#[derive(Clone, Debug)]
pub struct LiveRange {
    pub object: String,
    pub start: u64,
    pub end: u64,
    /// The journal commit that it is, or whose content it is.
    pub commit: u64,
    /// Whether it is a commit itself.
    pub is_commit: bool,
}

/// Told once, used by all tests.
pub static STORY: LazyLock<Story> = LazyLock::new(|| Story::tell(7));

impl Story {
    /// Makes the repository with the key of that number. The same data with every key.
    pub fn tell(key: u8) -> Self {
        let bench = Bench::new(key);
        let volume = bench.open(Access::ReadWrite).unwrap().volume;
        plant(&volume);
        volume.take_snapshot(&SnapshotRequest { name: Some(b"one".to_vec()), comment: "first".into() }).unwrap();
        let one = Portrait::draw_snapshot(&volume, "one").unwrap();
        change(&volume);
        volume.take_snapshot(&SnapshotRequest { name: Some(b"two".to_vec()), comment: String::new() }).unwrap();
        let two = Portrait::draw_snapshot(&volume, "two").unwrap();
        close(&volume);
        drop(volume);
        let earlier = bench.kill();

        // More than one pack, segment, manifest and head of each kind.
        let volume = bench.open(Access::ReadWrite).unwrap().volume;
        for number in 0..4 {
            let (_, handle) = create(&volume, Ino::ROOT, &format!("later{number}"), &noise(50 + number, 30_000));
            volume.fsync(handle).unwrap();
            volume.release(handle).unwrap();
            volume.checkpoint().unwrap();
        }
        let mut states = vec![Portrait::draw(&volume, Ino::ROOT).unwrap()];
        for step in 0..JOURNAL_STEPS {
            journal_step(&volume, step);
            states.push(Portrait::draw(&volume, Ino::ROOT).unwrap());
        }
        let bench = bench.kill();
        drop(volume);
        let (after, live) = live_ranges(&bench);
        Self { bench, earlier, states, after, snapshots: vec![("one", one), ("two", two)], live }
    }
}

/// The first tree: every kind of file, and every way to keep content.
fn plant(volume: &Volume) {
    let caller = &ME;
    let docs = volume.mkdir(Ino::ROOT, b"documents", 0o755, 0, caller).unwrap().attr.ino;
    let deep = volume.mkdir(docs, b"deeper", 0o700, 0, caller).unwrap().attr.ino;
    let release = |handle| volume.release(handle).unwrap();
    for (number, size) in [0, 1, 700, 2048, 2049, 5_000, 70_000].into_iter().enumerate() {
        let name = format!("text-file-{number}");
        release(create(volume, docs, &name, &text(&name, size)).1);
    }
    release(create(volume, deep, "noise", &noise(1, 400_000)).1);
    // Sparse: data, a hole, data.
    let (_, sparse) = create(volume, deep, "sparse", &noise(2, 20_000));
    write(volume, sparse, 300_000, &noise(3, 20_000));
    release(sparse);
    let (linked, handle) = create(volume, docs, "linked", &text("linked", 9_000));
    release(handle);
    volume.link(linked, deep, b"other name of linked").unwrap();
    for (name, value) in [("user.short", 10), ("user.long", 3_000), ("user.huge", 60_000)] {
        volume.set_xattr(linked, name.as_bytes(), &noise(4, value), XattrMode::Set).unwrap();
    }
    let target = b"documents/linked";
    let link = NewInode { target, ..new_inode(Ino::ROOT, "symlink", FileKind::Symlink) };
    volume.create_inode(&link, caller).unwrap();
    for (name, kind) in [("fifo", FileKind::Fifo), ("socket", FileKind::Socket), ("device", FileKind::CharDevice)] {
        volume.create_inode(&NewInode { rdev: 5 << 32 | 1, ..new_inode(Ino::ROOT, name, kind) }, caller).unwrap();
    }
    // Enough names for a tree of several nodes.
    let many = volume.mkdir(Ino::ROOT, b"many", 0o755, 0, caller).unwrap().attr.ino;
    for number in 0..150 {
        let name = format!("a rather long name of a file, number {number}");
        release(create(volume, many, &name, &text(&name, 40 + number)).1);
    }
}

/// What lies between the snapshots.
fn change(volume: &Volume) {
    let docs = volume.lookup(Ino::ROOT, b"documents").unwrap().attr.ino;
    let file = volume.lookup(docs, b"text-file-6").unwrap().attr.ino;
    let handle = volume.open_file(file, vellum_tests::bench::RDWR).unwrap().handle;
    write(volume, handle, 30_000, b"changed between the snapshots");
    volume.release(handle).unwrap();
    volume.unlink(docs, b"text-file-3").unwrap();
    let many = volume.lookup(Ino::ROOT, b"many").unwrap().attr.ino;
    let from = b"a rather long name of a file, number 7".as_slice();
    volume.rename((many, from), (docs, b"moved"), RenameFlags::default(), &ME).unwrap();
    volume.release(create(volume, docs, "new in two", &noise(9, 50_000)).1).unwrap();
}

const JOURNAL_STEPS: u64 = 7;

/// One change that ends in exactly one journal commit.
fn journal_step(volume: &Volume, step: u64) {
    let docs = volume.lookup(Ino::ROOT, b"documents").unwrap().attr.ino;
    let synced = |name: &str, content: &[u8]| {
        let (_, handle) = create(volume, docs, name, content);
        volume.fsync(handle).unwrap();
        volume.release(handle).unwrap();
    };
    let overwrite = |name: &[u8], offset: u64, content: &[u8]| {
        let ino = volume.lookup(docs, name).unwrap().attr.ino;
        let handle = volume.open_file(ino, vellum_tests::bench::RDWR).unwrap().handle;
        write(volume, handle, offset, content);
        volume.fsync(handle).unwrap();
        volume.release(handle).unwrap();
    };
    match step {
        0 => synced("synced small", &text("synced small", 1_500)),
        1 => overwrite(b"linked", 4_000, &noise(20, 3_000)),
        2 => synced("synced into the open pack", &noise(21, 700_000)),
        3 => {
            volume.rename((docs, b"moved"), (docs, b"moved again"), RenameFlags::default(), &ME).unwrap();
            volume.unlink(docs, b"text-file-4").unwrap();
            volume.mkdir(docs, b"made late", 0o711, 0, &ME).unwrap();
            volume.sync_names().unwrap();
        }
        4 => synced("second in the open pack", &text("second in the open pack", 900_000)),
        5 => {
            let ino = volume.lookup(docs, b"text-file-5").unwrap().attr.ino;
            volume.set_xattr(ino, b"user.late", &noise(22, 200), XattrMode::Set).unwrap();
            volume.set_attr(ino, &SetAttr { mode: Some(0o640), uid: Some(12), ..SetAttr::default() }).unwrap();
            volume.sync_names().unwrap();
        }
        _ => overwrite(b"synced small", 1_500, &text("appended", 40_000)),
    }
}

/// Looks for what replay needs, as the program itself would.
fn live_ranges(bench: &Bench) -> (u64, Vec<LiveRange>) {
    let repository = bench.repository(Access::ReadOnly).unwrap();
    let name = VolumeName::new("main").unwrap();
    let after = repository.heads(&name).unwrap().newest().unwrap().head.journal_commit;
    let mut live = Vec::new();
    for (object, _) in bench.files().into_iter().filter(|(object, _)| object.starts_with("journal/")) {
        let segment = u64::from_str_radix(object.rsplit('/').next().unwrap(), 16).unwrap();
        let bytes = bench.bytes(&object);
        for (block, at) in (0..bytes.len()).step_by(BLOCK_BYTES).enumerate() {
            let place = Place { segment, block: block as u32 };
            let Some(header) = CommitHeader::unseal(repository.keyring(), &name, place, &bytes[at..]) else { continue };
            if header.number <= after {
                continue;
            }
            let end = at + header.blocks() as usize * BLOCK_BYTES;
            let (start, commit) = (at as u64, header.number - after);
            let payload = header.unseal_payload(repository.keyring(), &bytes[at..end], "commit").unwrap();
            live.push(LiveRange { object: object.clone(), start, end: end as u64, commit, is_commit: true });
            op::for_each(&payload, &mut |_, op| {
                let Op::Data { parts, .. } = op else { return Ok(()) };
                for part in parts {
                    let Part::Extent { place, .. } = part else { continue };
                    if let BlobPlace::Open { open, entry } = BlobPlace::decode(&place)? {
                        let (start, end) = (u64::from(entry.offset), entry.end());
                        live.push(LiveRange { object: open.to_string(), start, end, commit, is_commit: false });
                    }
                }
                Ok(())
            })
            .unwrap();
        }
    }
    (after, live)
}
