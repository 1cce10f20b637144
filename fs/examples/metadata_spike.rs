//! What the metadata of a bulk copy costs in the store, for node sizes, inode numbering and inline limits.
//!
//! Walks real directories for names, sizes, times and small contents, and writes the records of a copy of them into a
//! tree, with a checkpoint every [`CHECKPOINT_FILES`] files. Every node that a checkpoint puts is compressed, and
//! counted with what the store adds to it. Content of files that lies in the tree is counted apart: a node is
//! compressed with and without it, and overheads are shared by raw size. Last, the files of random directories are
//! changed, until there are [`EDITED_FILES`], and the checkpoint after that is measured, content in the tree included.
//!
//! `cargo run --release -p vellum-fs --example metadata_spike -- 100000 /usr/share /usr/lib`

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use vellum_fs::{
    Result,
    format::{
        dirent::{self, Dirent},
        extent::Extent,
        inode::{FileKind, Inode},
        key,
    },
    ino::Ino,
    time::Time,
    tree::{NodeCache, NodeStore, Tree},
};
use vellum_store::{codec::Writer, id::BlobId};

/// Nonce, tag, codec and plaintext length.
const SEAL_BYTES: usize = 40 + 5;
/// An entry in a pack's trailer, and one in an index segment.
const ENTRY_BYTES: usize = 52 + 44;
const CHECKPOINT_FILES: usize = 20_000;
const BODY_READ_MAX: u64 = 4096;
const EDITED_FILES: usize = 1000;
/// Copiers at work at the same time in the parallel order.
const COPIERS: usize = 8;

/// One thing that the copy makes.
struct Source {
    parent: usize,
    name: Vec<u8>,
    directory: bool,
    size: u64,
    mtime: Time,
    body: Vec<u8>,
}

/// Walks `roots` depth first, as `cp -a` does; entry 0 is the root. Parents come before their children.
fn collect(roots: &[PathBuf], file_count: usize) -> std::result::Result<Vec<Source>, Box<dyn Error>> {
    let root = Source { parent: 0, name: vec![], directory: true, size: 0, mtime: Time::EPOCH, body: vec![] };
    let mut sources = vec![root];
    let mut files = 0;
    for root in roots {
        let mut stack = vec![(root.clone(), 0usize, root.as_os_str().as_bytes().to_vec())];
        while let Some((path, parent, name)) = stack.pop() {
            if files >= file_count {
                return Ok(sources);
            }
            let meta = fs::symlink_metadata(&path)?;
            if !meta.is_dir() && !meta.is_file() {
                continue;
            }
            files += usize::from(meta.is_file());
            let body = if meta.is_file() && meta.len() <= BODY_READ_MAX { fs::read(&path)? } else { vec![] };
            let mtime = Time { sec: meta.mtime(), nsec: meta.mtime_nsec() as u32 };
            let name: Vec<u8> = name.iter().map(|&b| if b == b'/' { b'_' } else { b }).collect();
            sources.push(Source { parent, name, directory: meta.is_dir(), size: meta.len(), mtime, body });
            if meta.is_dir() {
                push_children(&path, sources.len() - 1, &mut stack)?;
            }
        }
    }
    Ok(sources)
}

fn push_children(path: &Path, at: usize, stack: &mut Vec<(PathBuf, usize, Vec<u8>)>) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        stack.push((entry.path(), at, entry.file_name().as_bytes().to_vec()));
    }
    Ok(())
}

/// The order in which several copiers, each with a share of the top of the tree, make the entries.
fn parallel_order(sources: &[Source]) -> Vec<usize> {
    let mut owners = vec![0; sources.len()];
    let mut queues: Vec<VecDeque<usize>> = vec![VecDeque::new(); COPIERS];
    let mut depth = vec![0; sources.len()];
    let mut next = 0;
    for (at, source) in sources.iter().enumerate().skip(1) {
        depth[at] = depth[source.parent] + 1;
        owners[at] = owners[source.parent];
        if depth[at] <= 2 {
            next = (next + 1) % COPIERS;
            owners[at] = next;
        }
        queues[owners[at]].push_back(at);
    }
    let mut order = Vec::with_capacity(sources.len());
    let mut made = vec![false; sources.len()];
    made[0] = true;
    while order.len() + 1 < sources.len() {
        for queue in &mut queues {
            if let Some(&at) = queue.front()
                && made[sources[at].parent]
            {
                queue.pop_front();
                made[at] = true;
                order.push(at);
            }
        }
    }
    order
}

/// Gives out inode numbers, in runs of a directory or one after the other.
struct Numbers {
    next: u64,
    runs: Option<HashMap<Ino, (u64, u64)>>,
}

impl Numbers {
    fn allocate(&mut self, parent: Ino) -> Ino {
        let Some(runs) = &mut self.runs else {
            self.next += 1;
            return Ino(self.next - 1);
        };
        match runs.get_mut(&parent) {
            Some((at, end)) if *at < *end => {
                *at += 1;
                Ino(*at - 1)
            }
            known => {
                let length = if known.is_some() { 256 } else { 32 };
                runs.insert(parent, (self.next + 1, self.next + length));
                self.next += length;
                Ino(self.next - length)
            }
        }
    }
}

#[derive(Default, Clone, Copy)]
struct Cost {
    nodes: usize,
    raw: usize,
    /// Compressed at levels 1 and 3, content in the tree left out.
    records: [f64; 2],
    overhead: f64,
    /// Compressed at level 1, with its share of overheads.
    bodies: f64,
}

/// Measures every node that is put.
#[derive(Default)]
struct MeasuringStore {
    nodes: Mutex<HashMap<BlobId, Arc<[u8]>>>,
    cost: Mutex<Cost>,
}

impl NodeStore for MeasuringStore {
    fn get(&self, id: &BlobId) -> Result<Arc<[u8]>> {
        let node = self.nodes.lock().get(id).cloned();
        node.ok_or_else(|| vellum_store::Error::BlobMissing { id: *id }.into())
    }

    fn put(&self, bytes: Vec<u8>, interior: bool) -> Result<BlobId> {
        let id = BlobId(*blake3::hash(&bytes).as_bytes());
        let copies = if interior { 2.0 } else { 1.0 };
        let stripped = without_bodies(&bytes);
        let packed = |bytes: &[u8], level| zstd::bulk::compress(bytes, level).map_or(bytes.len(), |b| b.len()) as f64;
        let share = stripped.len() as f64 / bytes.len() as f64;
        let overhead = (SEAL_BYTES + ENTRY_BYTES) as f64 * copies;
        let mut cost = self.cost.lock();
        cost.nodes += 1;
        cost.raw += bytes.len();
        let small = packed(&stripped, 1);
        cost.records[0] += small * copies;
        cost.records[1] += packed(&stripped, 3) * copies;
        cost.overhead += overhead * share;
        cost.bodies += (packed(&bytes, 1) - small) * copies + overhead * (1.0 - share);
        self.nodes.lock().insert(id, bytes.into());
        Ok(id)
    }
}

/// The cells of an encoded node, which the tree's format defines.
fn cells(node: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let number = |at: usize| usize::from(u16::from_le_bytes([node[at], node[at + 1]]));
    let mut at = 8;
    std::iter::from_fn(move || {
        let (key, value) = (number_or_end(node, at)?, number(at + 2));
        let start = at + 4;
        at = start + key + value;
        Some((&node[start..start + key], &node[start + key..at]))
    })
}

fn number_or_end(node: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes([*node.get(at)?, *node.get(at + 1)?])))
}

fn without_bodies(node: &[u8]) -> Vec<u8> {
    let mut stripped = node[..8].to_vec();
    for (key, value) in cells(node) {
        let body = node[2] == 0 && key.get(8) == Some(&key::BODY);
        stripped.extend_from_slice(&(key.len() as u16).to_le_bytes());
        stripped.extend_from_slice(&(value.len() as u16).to_le_bytes());
        stripped.extend_from_slice(key);
        stripped.extend_from_slice(if body { &[] } else { value });
    }
    stripped
}

#[derive(Clone, Copy)]
struct Setting {
    node_bytes: usize,
    runs: bool,
    parallel: bool,
    inline: u64,
}

struct Outcome {
    cost: Cost,
    files: usize,
    chunks: usize,
    seconds: f64,
    depth: usize,
    /// Raw bytes of leaves by kind of record in the final tree, keys and cell headers included.
    kinds: BTreeMap<u8, (usize, usize)>,
    /// Bytes a file of the checkpoint after the change of some directories.
    edit: f64,
}

/// One copy being made.
struct Copy<'s> {
    sources: &'s [Source],
    tree: Tree,
    setting: Setting,
    numbers: Numbers,
    inos: Vec<(Ino, u64)>,
    clock: i64,
    chunks: usize,
    random: u64,
}

impl Copy<'_> {
    fn tick(&mut self, upto_ns: u64) -> Time {
        self.clock += (self.random(upto_ns) + upto_ns / 4) as i64;
        Time::from_nanos(self.clock)
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn make(&mut self, at: usize) -> Result<()> {
        let source = &self.sources[at];
        let parent = self.inos[source.parent].0;
        let ino = self.numbers.allocate(parent);
        let created = self.tick(200_000);
        let first = dirent::first_cookie(&[9; 32], &source.name);
        let mut cookie = first;
        while self.tree.contains(&key::dirent(parent, cookie))? {
            cookie += 1;
        }
        self.inos[at] = (ino, cookie);
        let kind = if source.directory { FileKind::Directory } else { FileKind::Regular };
        let entry = Dirent { ino, kind, name: source.name.clone() };
        self.tree.insert(&key::dirent(parent, cookie), &entry.encode())?;
        self.touch_parent(source.parent, created)?;
        let mut inode = Inode::new(kind, if source.directory { 0o755 } else { 0o644 }, 1000, 1000, created);
        (inode.parent, inode.parent_cookie) = (parent, cookie);
        inode.nlink = if source.directory { 2 } else { 1 };
        self.tree.insert(&key::inode(ino), &inode.encode())?;
        self.tree.insert(&key::change(ino, at as u64, 0), &change(created))?;
        if !source.directory {
            self.content(ino, source)?;
            inode.size = source.size;
            inode.allocated = source.size;
        }
        // What `cp -a` sets at the end.
        (inode.mtime, inode.atime) = (source.mtime, source.mtime);
        inode.ctime = self.tick(400_000);
        self.tree.insert(&key::inode(ino), &inode.encode())?;
        Ok(())
    }

    /// Gives the files of random directories other times, and their first extent another blob.
    fn edit(&mut self) -> Result<usize> {
        let mut edited = 0;
        while edited < EDITED_FILES {
            let directory = self.random(self.sources.len() as u64) as usize;
            for at in 1..self.sources.len() {
                let source = &self.sources[at];
                if source.parent != directory || source.directory {
                    continue;
                }
                let ino = self.inos[at].0;
                let time = self.tick(100_000);
                let Some(value) = self.tree.get(&key::inode(ino))? else { continue };
                let mut inode = Inode::decode(ino, &value)?;
                (inode.mtime, inode.ctime) = (time, time);
                self.tree.insert(&key::inode(ino), &inode.encode())?;
                self.tree.insert(&key::change(ino, (self.sources.len() + edited) as u64, 0), &change(time))?;
                if let Some(value) = self.tree.get(&key::extent(ino, 0))? {
                    let extent =
                        Extent { blob: BlobId(*blake3::hash(&value).as_bytes()), ..Extent::decode(0, &value)? };
                    self.tree.insert(&key::extent(ino, 0), &extent.encode())?;
                }
                edited += 1;
            }
        }
        Ok(edited)
    }

    fn touch_parent(&mut self, parent: usize, time: Time) -> Result<()> {
        let ino = self.inos[parent].0;
        let Some(value) = self.tree.get(&key::inode(ino))? else { return Ok(()) };
        let mut inode = Inode::decode(ino, &value)?;
        (inode.mtime, inode.ctime) = (time, time);
        inode.size += 1;
        self.tree.insert(&key::inode(ino), &inode.encode())?;
        Ok(())
    }

    fn content(&mut self, ino: Ino, source: &Source) -> Result<()> {
        if source.size <= self.setting.inline {
            if source.size > 0 {
                self.tree.insert(&key::body(ino), &source.body)?;
            }
            return Ok(());
        }
        let mut offset = 0;
        while offset < source.size {
            let length = (16_384 + self.random(114_688)).min(source.size - offset);
            let blob = blake3::hash(&[ino.0.to_le_bytes(), offset.to_le_bytes()].concat());
            let blob = BlobId(*blob.as_bytes());
            let extent = Extent { offset, length, blob, blob_offset: 0, blob_length: length as u32 };
            self.tree.insert(&key::extent(ino, offset), &extent.encode())?;
            self.chunks += 1;
            offset += length;
        }
        Ok(())
    }
}

/// A record of history: operation, time, user and program.
fn change(time: Time) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(1);
    writer.i64(time.as_nanos());
    writer.uvar(1000);
    writer.bytes(b"a program's name");
    writer.0
}

fn run(sources: &[Source], order: &[usize], setting: Setting) -> Result<Outcome> {
    let store = Arc::new(MeasuringStore::default());
    let tree = Tree::empty(store.clone(), NodeCache::new(64 << 20)).with_node_bytes(setting.node_bytes);
    let runs = setting.runs.then(HashMap::new);
    let mut copy = Copy {
        sources,
        tree,
        setting,
        numbers: Numbers { next: 2, runs },
        inos: vec![(Ino::ROOT, 0); sources.len()],
        clock: 1_790_000_000_000_000_000,
        chunks: 0,
        random: 1,
    };
    let root = Inode::new(FileKind::Directory, 0o755, 0, 0, Time::from_nanos(copy.clock));
    copy.tree.insert(&key::inode(Ino::ROOT), &root.encode())?;
    let mut files = 0;
    let mut seconds = 0.0;
    let mut started = Instant::now();
    for &at in order {
        copy.make(at)?;
        files += usize::from(!sources[at].directory);
        if !sources[at].directory && files % CHECKPOINT_FILES == 0 {
            // Compression belongs to the pipeline, not to the tree.
            seconds += started.elapsed().as_secs_f64();
            copy.tree.store()?;
            started = Instant::now();
        }
    }
    seconds += started.elapsed().as_secs_f64();
    copy.tree.store()?;
    let mut kinds = BTreeMap::<u8, (usize, usize)>::new();
    copy.tree.scan_from(&[], &mut |key, value| {
        let entry = kinds.entry(key[8]).or_default();
        entry.0 += 1;
        entry.1 += 4 + key.len() + value.len();
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    let cost = std::mem::take(&mut *store.cost.lock());
    let edited = copy.edit()?;
    copy.tree.store()?;
    let after = *store.cost.lock();
    let edit = (after.records[0] + after.overhead + after.bodies) / edited as f64;
    Ok(Outcome { cost, files, chunks: copy.chunks, seconds, depth: copy.tree.depth(), kinds, edit })
}

fn print_row(setting: Setting, outcome: &Outcome) {
    let files = outcome.files as f64;
    let data = (outcome.chunks * ENTRY_BYTES) as f64 / files;
    let total = |level: usize| (outcome.cost.records[level] + outcome.cost.overhead) / files + data;
    println!(
        "| {} | {} | {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} | **{:.0}** | **{:.0}** | {:.0} | {:.0} | {:.1} |",
        setting.node_bytes >> 10,
        if setting.runs { "runs" } else { "counter" },
        if setting.parallel { "parallel" } else { "depth first" },
        setting.inline,
        outcome.cost.nodes,
        outcome.cost.raw as f64 / files,
        outcome.cost.records[0] / files,
        outcome.cost.records[1] / files,
        outcome.cost.overhead / files,
        data,
        total(0),
        total(1),
        outcome.cost.bodies / files,
        outcome.edit,
        outcome.seconds * 1e6 / files,
    );
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let file_count: usize = args.next().map_or(Ok(100_000), |arg| arg.parse())?;
    let mut roots: Vec<PathBuf> = args.map(PathBuf::from).collect();
    if roots.is_empty() {
        roots.push("/usr/share".into());
    }
    let sources = collect(&roots, file_count)?;
    let files = sources.iter().filter(|source| !source.directory).count();
    let small = |limit: u64| sources.iter().filter(|s| !s.directory && s.size <= limit).count() * 100 / files.max(1);
    println!(
        "{files} files in {} directories; {} % up to 1 KiB, {} % up to 2 KiB, {} % up to 4 KiB; checkpoint every {}\n",
        sources.len() - files,
        small(1024),
        small(2048),
        small(4096),
        CHECKPOINT_FILES,
    );
    println!(
        "Bytes a file, but for `node` (KiB), `inline` (bytes), `nodes` (count put) and `us` (time in the tree); `edit` is a\n\
         changed file.\n"
    );
    println!(
        "| node | inodes | order | inline | nodes | raw | zstd1 | zstd3 | overhead | data | **sum1** | **sum3** | bodies \
         | edit | us |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let depth_first: Vec<usize> = (1..sources.len()).collect();
    let parallel_sources = parallel_order(&sources);
    let mut kinds = BTreeMap::new();
    for parallel in [false, true] {
        for node_kib in [8, 16, 32] {
            for runs in [false, true] {
                for inline in [0, 1024, 2048, 4096] {
                    let setting = Setting { node_bytes: node_kib << 10, runs, parallel, inline };
                    let order = if parallel { &parallel_sources } else { &depth_first };
                    let outcome = run(&sources, order, setting)?;
                    print_row(setting, &outcome);
                    if (node_kib, runs, parallel, inline) == (16, true, false, 2048) {
                        println!("<!-- depth {} -->", outcome.depth);
                        kinds = outcome.kinds;
                    }
                }
            }
        }
    }
    println!("\nRaw bytes by kind of record (16 KiB, runs, depth first, 2048):");
    for (kind, (count, bytes)) in kinds {
        println!("- kind {kind}: {count} records, {:.1} bytes each", bytes as f64 / count as f64);
    }
    Ok(())
}
