//! Measures what an index of many entries takes: bytes on disk, memory once open, lookups a second.
//!
//! ```text
//! cargo run --release --example index_scale -- [ENTRIES [SEGMENTS]]      20,000,000 entries in 1 segment unless given
//! ```
//!
//! The segments are written front to back into a temporary directory (`TMPDIR` says where). The program then runs itself
//! again to open and probe them, so that the memory of writing does not count; and once more to merge them if there are
//! eight or more.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

use vellum_store::{
    backend::{Backend, LocalBackend, ObjectName},
    crypto::{Keyring, MasterKey},
    disk::LocalDisk,
    format::segment::IndexEntry,
    id::{BlobId, BlobKind, PackId, RepositoryId, SegmentId},
    index::{Index, IndexOptions, SegmentWriter},
};

/// The id space is cut into this many equal parts, so that sorted ids can be made a part at a time.
const PARTS: u64 = 4096;
const ENTRIES_PER_PACK: u64 = 400;
const HITS: u64 = 200_000;
const MISSES: u64 = 2_000_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "probe", directory, entries, ref segments @ ..] => probe(Path::new(directory), entries.parse()?, segments),
        [_, "merge", directory, _, ref segments @ ..] => merge(Path::new(directory), segments),
        [_] => build(20_000_000, 1),
        [_, entries] => build(entries.parse()?, 1),
        [_, entries, segments] => build(entries.parse()?, segments.parse()?),
        _ => Err("usage: index_scale [ENTRIES [SEGMENTS]]".into()),
    }
}

fn build(entry_count: u64, segment_count: u64) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let backend = backend(directory.path());
    let per_part = entry_count.div_ceil(PARTS * segment_count);
    let entry_count = per_part * PARTS * segment_count;
    let (started, mut bytes) = (Instant::now(), 0);
    let mut segments = Vec::new();
    for segment in 0..segment_count {
        let id = write_segment(&backend, segment * per_part, per_part)?;
        bytes += backend.length(&ObjectName::segment(&id))?.unwrap_or(0);
        segments.push(id.to_hex());
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("entries                {entry_count} in {segment_count} segment(s)");
    println!("bytes an entry on disk {:.2}", bytes as f64 / entry_count as f64);
    println!("written                {:.0} entries/s", entry_count as f64 / seconds);
    memory("writing");
    for role in ["probe", "merge"] {
        let mut again = Command::new(env::current_exe()?);
        again.arg(role).arg(directory.path()).arg(entry_count.to_string()).args(&segments);
        if !again.status()?.success() {
            return Err(format!("the {role} failed").into());
        }
    }
    Ok(())
}

fn write_segment(backend: &Arc<dyn Backend>, first: u64, per_part: u64) -> Outcome<SegmentId> {
    let entry_count = per_part * PARTS;
    let pack_count = entry_count.div_ceil(ENTRIES_PER_PACK);
    let pack = |n: u64| (PackId(*blake3::hash(&(first + n).to_le_bytes()).as_bytes()), 0, BlobKind::Data);
    let packs = (0..pack_count).map(pack);
    let mut writer = SegmentWriter::create(backend.clone(), keyring(), entry_count, packs, Vec::new())?;
    for part in 0..PARTS {
        let mut ids: Vec<_> = (first..first + per_part).map(|n| id(part, n)).collect();
        ids.sort_unstable();
        for (n, id) in ids.into_iter().enumerate() {
            let spread = part.wrapping_mul(0x9e37_79b9).wrapping_add(n as u64);
            let pack_number = (spread % pack_count) as u32;
            writer.push(&IndexEntry {
                id,
                pack_number,
                offset: spread as u32,
                length: 40_000,
                plain_length: 65_536,
            })?;
        }
    }
    Ok(writer.finish()?)
}

fn probe(directory: &Path, entry_count: u64, segments: &[&str]) -> Outcome<()> {
    memory("at start");
    let started = Instant::now();
    let index = open(directory, segments)?;
    println!("opened in              {:.2} s", started.elapsed().as_secs_f64());
    println!("held by segments       {:.1} MiB", index.segment_memory_bytes() as f64 / 1_048_576.0);
    memory("open");

    let per_part = entry_count / PARTS;
    let mut random = 1u64;
    let mut next = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let (started, mut found) = (Instant::now(), 0);
    for _ in 0..HITS {
        found += index.lookup(&id(next(PARTS), next(per_part)))?.len() as u64;
    }
    println!("hits                   {:.0}/s", HITS as f64 / started.elapsed().as_secs_f64());
    let (started, mut wrong) = (Instant::now(), 0);
    for n in 0..MISSES {
        wrong += index.lookup(&id(next(PARTS), per_part + n))?.len() as u64;
    }
    println!("misses                 {:.0}/s", MISSES as f64 / started.elapsed().as_secs_f64());
    memory("probed");
    match (found, wrong) {
        (HITS, 0) => Ok(()),
        _ => Err(format!("{found} of {HITS} found, and {wrong} that were never there").into()),
    }
}

fn merge(directory: &Path, segments: &[&str]) -> Outcome<()> {
    let index = open(directory, segments)?;
    if !index.merge_due() {
        return Ok(());
    }
    memory("before merging");
    let started = Instant::now();
    index.merge()?;
    println!("merged                 {:.0} entries/s", index.entry_count() as f64 / started.elapsed().as_secs_f64());
    memory("merged");
    Ok(())
}

fn open(directory: &Path, segments: &[&str]) -> Outcome<Index> {
    let segments: Option<Vec<_>> = segments.iter().map(|hex| SegmentId::from_hex(hex)).collect();
    let options = IndexOptions { page_cache_bytes: 8 << 20, ..IndexOptions::default() };
    Ok(Index::open(backend(directory), keyring(), &segments.ok_or("segment ids are hexadecimal")?, options)?)
}

fn backend(directory: &Path) -> Arc<dyn Backend> {
    Arc::new(LocalBackend::new(Arc::new(LocalDisk), PathBuf::from(directory), false))
}

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::new(&MasterKey::from_bytes(&[1; 32]), RepositoryId([2; 16]), 0))
}

/// An id in the given part of the id space.
fn id(part: u64, n: u64) -> BlobId {
    let mut id = *blake3::hash(&[part.to_le_bytes(), n.to_le_bytes()].concat()).as_bytes();
    id[0] = (part >> 4) as u8;
    id[1] = (part << 4) as u8 | id[1] & 15;
    BlobId(id)
}

/// Prints what the system counts as this process's memory, now and at its highest.
fn memory(when: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown");
        line.trim().to_string()
    };
    println!("memory, {when:<14} {} now, {} at most", field("VmRSS:"), field("VmHWM:"));
}
