//! Fuzz targets for a whole volume: sequences of operations against the model, and journals that say anything.
//!
//! *Not here*: single decoders (`fuzz` in the store, the filesystem and the program), running them (`tests/fuzz`).

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use vellum_fs::{
    format::{
        extent::Extent,
        inode::FileKind,
        op::{self, Op, Part},
    },
    ino::Ino,
    time::Time,
    volume::{Volume, ops::names::NewInode},
};
use vellum_fuzzing::Target;
use vellum_store::{
    disk::{Disk, MemoryDisk},
    format::{
        head::{HEAD_BYTES, Head},
        journal::{BLOCK_BYTES, CommitHeader, CommitId, Place},
    },
    id::{BlobId, HeadHash},
    repository::Access,
};

use crate::{
    choice::Choice,
    face::VolumeFace,
    marathon::Marathon,
    rig::{self, ME, RDWR, REPOSITORY, Settings},
};

/// All targets of whole volumes.
pub const TARGETS: &[Target] = &[
    Target { name: "operations", run: operations, seeds: operation_seeds },
    Target { name: "replay", run: replay, seeds: replay_seeds },
];

/// A disk with an empty volume that was closed.
static EMPTY: LazyLock<MemoryDisk> = LazyLock::new(|| {
    let disk = rig::new_disk();
    let (volume, _) = open(&disk, &Settings::default()).expect("a new volume opens");
    volume.close().expect("the disk is well");
    disk
});

fn open(disk: &MemoryDisk, settings: &Settings) -> vellum_fs::Result<(Arc<Volume>, Option<String>)> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let (volume, summary) = rig::open(&disk, settings)?;
    Ok((volume, summary.damage))
}

/// First byte: how small things are, in bit 0. Then decisions of a [`Marathon`], with a remount every now and then.
fn operations(data: &[u8]) -> bool {
    let Some((&first, decisions)) = data.split_first() else { return false };
    let small = Settings { dirty_bytes: 60_000, journal_segment: 128 << 10, ..Settings::default() };
    let settings = if first & 1 == 0 { Settings::default() } else { small };
    let disk = EMPTY.kill();
    let opened = || open(&disk, &settings).expect("the volume opens").0;
    let face = VolumeFace::new(opened(), Ino::ROOT, 0);
    let mut runner = Marathon::of(face, Choice::of_input(decisions), "fuzz");
    let remount = |runner: &mut Marathon<VolumeFace>| {
        runner.close_all();
        runner.face.volume.close().expect("the disk is well");
        assert_eq!(runner.face.volume.dirty_bytes(), 0, "nothing is dirty after a close");
        runner.face.volume = opened();
        runner.verify();
    };
    while !runner.is_over() {
        match runner.below(64) {
            0 => remount(&mut runner),
            1 => runner.verify(),
            _ => runner.step(),
        }
    }
    runner.verify();
    remount(&mut runner);
    let mut damage = Vec::new();
    runner.face.volume.check_trees(&mut |found| damage.push(found)).expect("the trees are read");
    assert!(damage.is_empty(), "{damage:?}");
    runner.face.volume.close().expect("the disk is well");
    true
}

/// Random decisions, which are sequences of operations like any others, of several lengths.
fn operation_seeds() -> Vec<Vec<u8>> {
    let seed = |(number, length): (u64, usize)| {
        let noise = Choice::seeded(number).noise(length);
        [vec![number as u8], noise].concat()
    };
    (0..).zip([20, 60, 120, 250, 250, 500, 500, 800, 800, 1200]).map(seed).collect()
}

/// A disk with a volume of a few files that was closed, and what its journal has to follow.
struct Told {
    disk: MemoryDisk,
    head: Head,
    hash: HeadHash,
}

const FILES: [&str; 4] = ["small", "large", "dir", "link"];

static TOLD: LazyLock<Told> = LazyLock::new(|| {
    let disk = EMPTY.kill();
    let (volume, _) = open(&disk, &Settings::default()).expect("the volume opens");
    rig::store_file(&volume, FILES[0], 1, 100).expect("the disk is well");
    rig::store_file(&volume, FILES[1], 2, 40_000).expect("the disk is well");
    volume.mkdir(Ino::ROOT, FILES[2].as_bytes(), 0o755, 0, &ME).expect("the name is free");
    let (parent, name, kind) = (Ino::ROOT, FILES[3].as_bytes(), FileKind::Symlink);
    let link = NewInode { parent, name, kind, mode: 0o777, umask: 0, rdev: 0, target: b"to" };
    volume.create_inode(&link, &ME).expect("the name is free");
    volume.checkpoint().expect("the disk is well");
    let keyring = Arc::clone(volume.repository().keyring());
    volume.close().expect("the disk is well");
    let (sequence, sealed) = newest_head(&disk);
    let head = Head::decode(&keyring, &rig::main_volume(), sequence, &sealed).expect("it was written right here");
    Told { disk, head, hash: HeadHash::of(&sealed) }
});

fn newest_head(disk: &MemoryDisk) -> (u64, Vec<u8>) {
    let (folder, mut newest) = (Path::new(REPOSITORY).join("heads/main"), PathBuf::new());
    let mut take = |name: &std::ffi::OsStr, _| {
        newest = newest.clone().max(PathBuf::from(name));
        ControlFlow::Continue(())
    };
    disk.list_dir(&folder, &mut take).expect("heads are listed");
    let mut bytes = vec![0; HEAD_BYTES];
    let file = disk.open_read(&folder.join(&newest)).expect("it was listed");
    file.read_exact_at(&mut bytes, 0).expect("a head has this length");
    (u64::from_str_radix(&newest.to_string_lossy(), 16).expect("a head is named by its number"), bytes)
}

/// The payload of an authentic journal commit; everything is read, and the volume is written to, as far as it lets itself be.
fn replay(data: &[u8]) -> bool {
    let told = &*TOLD;
    let disk = told.disk.kill();
    let payload = &data[..data.len().min(32 << 10)];
    put_commit(&disk, told, payload);
    let Ok((volume, damage)) = open(&disk, &Settings::default()) else { return false };
    let readable = read_everything(&volume);
    if damage.is_none() {
        // Any of these may be refused because of what the journal made of the tree.
        let _ = rig::store_file(&volume, "new", 3, 3000);
        let _ = (volume.flush_dirty(), volume.checkpoint());
        read_everything(&volume);
    }
    let _ = volume.close();
    readable && !data.is_empty()
}

fn put_commit(disk: &MemoryDisk, told: &Told, payload: &[u8]) {
    let (segment, block) = (0xffff, 0);
    let header = CommitHeader {
        number: told.head.journal_commit + 1,
        session: 1 << 40,
        durable: told.head.journal_commit,
        head: told.hash,
        id: CommitId([7; 16]),
        previous: CommitId::NONE,
        payload_length: payload.len() as u32,
        segment_blocks: 0,
    };
    let store: Arc<dyn Disk> = Arc::new(disk.clone());
    let repository = rig::open_repository(&store, Access::ReadOnly).expect("the repository opens");
    let sealed = header.seal(repository.keyring(), &rig::main_volume(), Place { segment, block }, payload);
    let path = Path::new(REPOSITORY).join(format!("journal/main/{segment:016x}"));
    let file = disk.create_new(&path).expect("the number is free");
    file.allocate(0, (sealed.len() as u64).max(8 * BLOCK_BYTES as u64)).expect("memory takes it");
    file.write_all_at(&sealed, 0).expect("memory takes it");
}

/// Says whether the root was read. Directories are followed as deep as a few of them go.
fn read_everything(volume: &Volume) -> bool {
    let (mut all, mut at) = (vec![Ino::ROOT], 0);
    let mut readable = true;
    while at < all.len().min(50) {
        let ino = all[at];
        let listed = volume.read_dir(ino, 0, &mut |entry| {
            all.push(entry.ino);
            if all.len() < 100 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        readable &= at > 0 || listed.is_ok();
        let _ =
            (volume.get_attr(ino), volume.read_link(ino), volume.get_xattr(ino, b"user.a"), volume.list_xattrs(ino));
        if let Ok(opened) = volume.open_file(ino, RDWR) {
            let size = volume.get_attr(ino).map_or(0, |attr| attr.size);
            for offset in [0, size.saturating_sub(100)] {
                let _ = volume.read(opened.handle, offset, 5000);
            }
            let _ = volume.release(opened.handle);
        }
        at += 1;
    }
    readable
}

fn replay_seeds() -> Vec<Vec<u8>> {
    let told = &*TOLD;
    let (volume, _) = open(&told.disk.kill(), &Settings::default()).expect("the volume opens");
    let number = |name: &str| volume.lookup(Ino::ROOT, name.as_bytes()).expect("it was made").attr.ino;
    let [small, large, dir, link] = FILES.map(number);
    volume.close().expect("the disk is well");
    let time = Time { sec: 1_700_000_001, nsec: 9 };
    let (parent, ino) = (Ino::ROOT, Ino(1 << 20));
    let data = |ino, size, parts| Op::Data { ino, size, atime: time, mtime: time, ctime: time, parts };
    let create = |name: &[u8], ino, kind| Op::Create {
        parent: dir,
        name: name.to_vec(),
        ino,
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        rdev: 0,
        target: Vec::new(),
        time,
    };
    let name = |at: usize| FILES[at].as_bytes().to_vec();
    let bytes = |offset, length| Part::Bytes { offset, data: vec![3; length] };
    let blob = BlobId([1; 32]);
    let extent = Extent { offset: 0, length: 9000, blob, blob_offset: 0, blob_length: 9000 };
    let lost = Part::Extent { extent, place: vec![1; 9] };
    let sequences: Vec<Vec<Op>> = vec![
        vec![create(b"new", ino, FileKind::Regular), data(ino, 5000, vec![bytes(0, 3000), bytes(4000, 1000)])],
        vec![data(small, 1 << 40, vec![Part::Zero { offset: 50, length: 1 << 39 }])],
        vec![data(large, 20_000, vec![bytes(19_000, 1000)]), data(large, 30_000, vec![])],
        vec![data(large, 60_000, vec![lost])],
        vec![Op::Unlink { parent, name: name(0), time }, Op::Rmdir { parent, name: name(2), time }],
        vec![
            Op::Rename { parent, name: name(0), new_parent: dir, new_name: name(1), flags: 0, whiteout: None, time },
            Op::Link { ino: large, parent: dir, name: b"second".to_vec(), time },
        ],
        vec![Op::Rename {
            parent,
            name: name(2),
            new_parent: parent,
            new_name: name(3),
            flags: 2,
            whiteout: None,
            time,
        }],
        vec![
            Op::SetAttr { ino: link, mode: None, uid: Some(4), gid: None, atime: Some(time), mtime: None, ctime: time },
            Op::SetXattr { ino: small, name: b"user.a".to_vec(), value: vec![5; 300], time },
            Op::RemoveXattr { ino: small, name: b"user.a".to_vec(), time },
            Op::SetFlags { ino: dir, flags: 5, time },
        ],
    ];
    let frame = |ops: &Vec<Op>| {
        let (mut payload, first) = (Vec::new(), told.head.op_sequence + 1);
        (first..).zip(ops).for_each(|(sequence, op)| op::frame(&mut payload, &op.encode(sequence)));
        payload
    };
    sequences.iter().map(frame).collect()
}
