//! Compression of single blobs: zstd at a level that follows the pressure, or none where it would not pay.
//!
//! *Invariants*
//! 1. Each blob is compressed alone: no dictionary is shared, so one file's content never shows in another's size.
//! 2. A compressed body is smaller than the plaintext; otherwise the plaintext is stored raw.
//! 3. Decompression fills a buffer of exactly the authenticated length; more or fewer bytes are an error.
//!
//! *Threads*: a [`Scratch`] belongs to one thread at a time; everything else is plain data.
//!
//! *Bounds*: a [`Scratch`] keeps its zstd contexts (a few hundred KiB) and one buffer of the largest blob it has seen.

use std::{fmt, io::Cursor, ops::Range};

use zstd::bulk::{Compressor, Decompressor};

pub use crate::config::Compression;

/// Plaintexts shorter than this are not probed: compressing them is as cheap as looking.
const PROBE_LENGTH_MIN: usize = 4096;
/// Sampled runs and their length: 4 KiB in all.
const PROBE_RUNS: usize = 16;
const PROBE_RUN_LENGTH: usize = 256;

/// How much time one blob may take, chosen from the fill of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Writers wait: level -1.
    Hurried,
    /// The pipeline is busy: level 1.
    Quick,
    /// The configured level.
    Full,
}

impl Effort {
    /// The effort for queues that are `percent` full.
    pub fn under_pressure(percent: u32) -> Self {
        match percent {
            0..25 => Self::Full,
            25..75 => Self::Quick,
            _ => Self::Hurried,
        }
    }

    fn level(self, configured: i32) -> i32 {
        match self {
            Self::Hurried => configured.min(-1),
            Self::Quick => configured.min(1),
            Self::Full => configured,
        }
    }
}

/// A context and the level that is set in it.
type Leveled = (Compressor<'static>, i32);

/// Reused zstd contexts and one buffer; each worker has its own.
#[derive(Default)]
pub struct Scratch {
    compressor: Option<Leveled>,
    decompressor: Option<Decompressor<'static>>,
    pub(crate) buffer: Vec<u8>,
}

impl Scratch {
    /// Empty; contexts are made at first use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the compressed form of `plaintext` to the buffer and says whether it did: not if that would not be shorter.
    pub(crate) fn compress(&mut self, plaintext: &[u8], compression: Compression, effort: Effort) -> bool {
        if !compression.enabled || plaintext.len() < 32 || is_incompressible(plaintext) {
            return false;
        }
        let start = self.buffer.len();
        // Room for less than the plaintext: what does not fit does not pay, and zstd says so instead of writing it.
        self.buffer.reserve(plaintext.len());
        let level = effort.level(compression.level);
        let Some(compressor) = compressor_at(&mut self.compressor, level) else { return false };
        let mut output = Cursor::new(&mut self.buffer);
        output.set_position(start as u64);
        let written = compressor.compress_to_buffer(plaintext, &mut output);
        let pays = written.is_ok_and(|length| length < plaintext.len());
        if !pays {
            self.buffer.truncate(start);
        }
        pays
    }

    /// Decompresses the `body` range of the buffer into exactly `length` bytes, or nothing.
    ///
    /// The caller has bounded `length`; zstd gets a buffer of that capacity as its window and its limit.
    pub(crate) fn decompress(&mut self, body: Range<usize>, length: usize) -> Option<Vec<u8>> {
        if self.decompressor.is_none() {
            self.decompressor = Decompressor::new().ok();
        }
        let mut plaintext = Vec::with_capacity(length);
        let written = self.decompressor.as_mut()?.decompress_to_buffer(self.buffer.get(body)?, &mut plaintext).ok()?;
        (written == length && plaintext.len() == length).then_some(plaintext)
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("buffer_bytes", &self.buffer.capacity()).finish_non_exhaustive()
    }
}

fn compressor_at(slot: &mut Option<Leveled>, level: i32) -> Option<&mut Compressor<'static>> {
    if slot.is_none() {
        *slot = Some((Compressor::new(level).ok()?, level));
    }
    let (compressor, current) = slot.as_mut()?;
    if *current != level {
        compressor.set_compression_level(level).ok()?;
        *current = level;
    }
    Some(compressor)
}

/// Whether a sample says that compressing would gain next to nothing.
///
/// Squared counts of the byte values in 4 KiB of samples tell the order-0 gain without a logarithm: chi-square is 255 for
/// uniform bytes, and 5678 (2 n ln 2) above that for each bit a byte that an entropy coder would save.
pub fn is_incompressible(plaintext: &[u8]) -> bool {
    if plaintext.len() < PROBE_LENGTH_MIN {
        return false;
    }
    let mut counts = [0u16; 256];
    let stride = (plaintext.len() - PROBE_RUN_LENGTH) / (PROBE_RUNS - 1);
    for run in 0..PROBE_RUNS {
        for &byte in &plaintext[run * stride..][..PROBE_RUN_LENGTH] {
            counts[byte as usize] += 1;
        }
    }
    let expected = (PROBE_RUNS * PROBE_RUN_LENGTH / 256) as i64;
    let squares: i64 = counts.iter().map(|&count| (i64::from(count) - expected).pow(2)).sum();
    // 0.16 bits a byte, 2 %: what already compressed formats leave at most.
    squares / expected < 255 + 900
}
