//! Measures the write and read paths of the store on a real directory, without a mount: megabytes a second of plaintext.
//!
//! `cargo run --release --example ingest -- DIRECTORY [MIB]`; the directory must not exist, and is left behind.

use std::{
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use vellum_store::{
    crypto::{Credential, KdfParams},
    error::Result,
    id::{BlobId, BlobKind, VolumeName},
    lock::Holder,
    repository::{Copies, HeadDraft, InitOptions, OpenOptions, Repository, Ticket, VolumeHandle},
};
use zeroize::Zeroizing;

const CHUNK_BYTES: usize = 64 << 10;
const WORDS: &[&str] =
    &["pack", "index", "head", "chunk", "inode", "the", "of", "journal", "blob", "tree", "volume", "a"];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), mib) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: ingest DIRECTORY [MIB]");
        std::process::exit(2);
    };
    let mib = mib.and_then(|text| text.parse().ok()).unwrap_or(256);
    let path = PathBuf::from(path);
    let secret = || Credential::Passphrase(Zeroizing::new("measure".to_string()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    Repository::init(&InitOptions { kdf: KdfParams::testing(), ..InitOptions::new(&path, secret(), now)? })?;
    let repository = Repository::open(OpenOptions::new(&path, secret(), path.join("state")))?;
    let volume = repository.open_volume(&VolumeName::new("main")?, true, false, &Holder::this_process(0))?;

    let random = chunks(mib, noise);
    let text = chunks(mib, words);
    let random_ids = ingest(&repository, &volume, "random, new", &random)?;
    ingest(&repository, &volume, "random, known", &random)?;
    let text_ids = ingest(&repository, &volume, "text, new", &text)?;
    small(&repository)?;
    drop((volume, repository));
    let repository = Repository::open(OpenOptions::new(&path, secret(), path.join("state")))?;
    read(&repository, "random, read alone", &random_ids, false)?;
    read(&repository, "text, read alone", &text_ids, false)?;
    drop(repository);
    let repository = Repository::open(OpenOptions::new(&path, secret(), path.join("state")))?;
    read(&repository, "random, read ahead", &random_ids, true)?;
    read(&repository, "text, read ahead", &text_ids, true)?;
    println!("peak memory {} MiB, the data itself is {} MiB of it", peak_mib(), 2 * mib);
    Ok(())
}

fn ingest(repository: &Repository, volume: &VolumeHandle, what: &str, chunks: &[Vec<u8>]) -> Result<Vec<BlobId>> {
    let start = Instant::now();
    let mut ids = Vec::with_capacity(chunks.len());
    let mut tickets: Vec<Ticket> = Vec::new();
    for group in chunks.chunks(256) {
        for chunk in group {
            tickets.push(repository.submit_data(chunk.clone())?);
        }
        for ticket in tickets.drain(..) {
            ids.push(ticket.wait()?);
        }
    }
    let flat: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).take(1 << 20).collect();
    let tree_root = repository.put(BlobKind::Node, flat, Copies::Two)?;
    let stored = start.elapsed();
    repository.commit(volume, &HeadDraft { tree_root, op_sequence: 1, journal_commit: 0, time_ns: 0 })?;
    let bytes: usize = chunks.iter().map(Vec::len).sum();
    let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
    println!(
        "{what}: {:.0} MB/s in packs, {:.0} MB/s committed",
        rate(stored.as_secs_f64()),
        rate(start.elapsed().as_secs_f64())
    );
    Ok(ids)
}

/// Blobs of 4 KiB, each waited for alone, as small files are; and many at once.
fn small(repository: &Repository) -> Result<()> {
    const COUNT: u64 = 20_000;
    let start = Instant::now();
    for n in 0..COUNT {
        repository.submit_data(noise(1 << 40 | n, 4096))?.wait()?;
    }
    println!("4 KiB, one at a time: {:.0} a second", COUNT as f64 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    for n in 0..COUNT {
        repository.put(BlobKind::Node, noise(1 << 41 | n, 4096), Copies::One)?;
    }
    repository.flush_pipeline()?;
    println!("4 KiB, flushed at the end: {:.0} a second", COUNT as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

fn read(repository: &Repository, what: &str, ids: &[BlobId], ahead: bool) -> Result<()> {
    let start = Instant::now();
    let wanted: Vec<(BlobId, u32)> = ids.iter().map(|id| (*id, CHUNK_BYTES as u32)).collect();
    let mut bytes = 0;
    for (number, (id, length)) in wanted.iter().enumerate() {
        if ahead && number % 64 == 0 {
            let from = if number == 0 { 0 } else { number + 64 };
            repository.read_ahead(&wanted[from.min(wanted.len())..(number + 128).min(wanted.len())]);
        }
        bytes += repository.read(BlobKind::Data, id, *length)?.len();
    }
    println!("{what}: {:.0} MB/s", bytes as f64 / 1e6 / start.elapsed().as_secs_f64());
    Ok(())
}

fn chunks(mib: usize, make: fn(u64, usize) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..mib * (1 << 20) / CHUNK_BYTES).map(|n| make(n as u64, CHUNK_BYTES)).collect()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Words in random order, numbered now and then: compresses about 3:1.
fn words(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    for (n, byte) in noise(seed ^ 0x7e97, length / 4).into_iter().enumerate() {
        bytes.extend_from_slice(WORDS[byte as usize % WORDS.len()].as_bytes());
        bytes.push(b' ');
        if byte % 16 == 0 {
            bytes.extend_from_slice(format!("{:x} ", seed.wrapping_mul(0x9e37_79b9) ^ n as u64).as_bytes());
        }
        if bytes.len() >= length {
            break;
        }
    }
    bytes.resize(length, b'.');
    bytes
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).map_or(0, |kib| kib >> 10)
}
