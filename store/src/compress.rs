//! Compression of single blobs: zstd at a level that follows the pressure, or none where it would not pay.
//!
//! *Invariants*
//! 1. Each blob is compressed alone: no dictionary is shared, so one file's content never shows in another's size.
//! 2. A compressed body is smaller than the plaintext by a 64th at least; otherwise the plaintext is stored raw.
//! 3. Decompression fills a buffer of exactly the authenticated length; more or fewer bytes are an error.
//!
//! *Threads*: a [`Scratch`] belongs to one thread at a time; everything else is plain data.
//!
//! *Bounds*: a [`Scratch`] keeps its zstd contexts (a few hundred KiB) and one buffer of the largest blob it has seen.

use std::{fmt, io::Cursor, ops::Range};

use zstd::bulk::{Compressor, Decompressor};

pub use crate::config::Compression;

/// Plaintexts shorter than this are stored raw: a frame of zstd costs as much as it can save.
const COMPRESS_LENGTH_MIN: usize = 32;
/// Compression must save one part in this many, or reading back is not worth the time.
const GAIN_FRACTION_MIN: usize = 64;
/// Plaintexts shorter than this are not probed: compressing them is as cheap as looking.
const PROBE_LENGTH_MIN: usize = 4096;
/// Sampled runs and their length: 4 KiB in all.
const PROBE_RUNS: usize = 16;
const PROBE_RUN_LENGTH: usize = 256;
/// Above this a sample is worth compressing: an order-0 gain of about half a percent.
const CHI_SQUARE_MAX: i64 = 500;

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
        if !compression.enabled || plaintext.len() < COMPRESS_LENGTH_MIN {
            return false;
        }
        let start = self.buffer.len();
        // Room for less than the plaintext: what does not fit does not pay, and zstd says so instead of writing it.
        self.buffer.reserve(plaintext.len());
        let level = level_for(plaintext, compression, effort);
        let Some(compressor) = compressor_at(&mut self.compressor, level) else { return false };
        let mut output = Cursor::new(&mut self.buffer);
        output.set_position(start as u64);
        let written = compressor.compress_to_buffer(plaintext, &mut output);
        let pays = written.is_ok_and(|length| length < plaintext.len() - plaintext.len() / GAIN_FRACTION_MIN);
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

/// The level that this plaintext is worth.
///
/// Where a sample gains nothing, only repeats are left to find, and the fastest strategy skips ahead so quickly over bytes
/// without any that looking costs less than a tenth of sealing them (6 us of 64 KiB, against 40 us at level 3).
fn level_for(plaintext: &[u8], compression: Compression, effort: Effort) -> i32 {
    let effort = if is_incompressible(plaintext) { Effort::Hurried } else { effort };
    effort.level(compression.level)
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
    // Of compressed files sampled (crates, gz, xz, whl, zst) nine in ten stay below 440; executables begin at 12,000. A
    // chunk wrongly tried costs time, a chunk wrongly passed over costs space for ever: so the limit is a low one.
    squares / expected < CHI_SQUARE_MAX
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::LEVEL_DEFAULT;

    fn random_bytes(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"probe").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn text(length: usize) -> Vec<u8> {
        (0..).flat_map(|line: u32| format!("{line}: some words that return\n").into_bytes()).take(length).collect()
    }

    #[test]
    fn the_probe_passes_over_random_and_compressed_bytes() {
        let words: Vec<u8> =
            random_bytes(1 << 20).into_iter().flat_map(|b| [b"etaoinsh"[b as usize & 7], b >> 5]).collect();
        let compressed = zstd::bulk::compress(&words, 3).unwrap();
        assert!((65_536..1 << 20).contains(&compressed.len()), "{}", compressed.len());
        for length in [4096, 4097, 65_536, 262_144] {
            assert!(is_incompressible(&random_bytes(length)), "{length}");
        }
        assert!(is_incompressible(&compressed));
    }

    #[test]
    fn the_probe_lets_pass_what_pays() {
        let hexadecimal = crate::id::hex(&random_bytes(32_768)).into_bytes();
        let floats: Vec<u8> =
            random_bytes(16_384).into_iter().flat_map(|b| (f64::from(b) / 7.0).to_le_bytes()).collect();
        let half: Vec<u8> = [random_bytes(32_768), text(32_768)].concat();
        let counters: Vec<u8> = (0..16_384u32).flat_map(u32::to_le_bytes).collect();
        let seven_bits: Vec<u8> = random_bytes(65_536).into_iter().map(|b| b & 0x7f).collect();
        for (name, data) in [
            ("text", text(65_536)),
            ("hex", hexadecimal),
            ("floats", floats),
            ("half", half),
            ("counters", counters),
            ("seven bits", seven_bits),
            ("zeros", vec![0; 65_536]),
            ("short", random_bytes(4095)),
        ] {
            assert!(!is_incompressible(&data), "{name}");
        }
    }

    #[test]
    fn a_body_that_would_not_be_shorter_is_not_kept() {
        let mut scratch = Scratch::new();
        scratch.buffer.extend_from_slice(b"kept");
        for data in [random_bytes(4000), random_bytes(31), vec![0; 31], Vec::new()] {
            assert!(!scratch.compress(&data, Compression::default(), Effort::Full));
            assert_eq!(scratch.buffer, b"kept");
        }
        assert!(!scratch.compress(&text(9000), Compression::NONE, Effort::Full));
        assert!(scratch.compress(&text(9000), Compression::default(), Effort::Full));
        assert!(scratch.buffer.starts_with(b"kept"));
        let body = 4..scratch.buffer.len();
        assert_eq!(scratch.decompress(body, 9000).unwrap(), text(9000));
    }

    #[test]
    fn repeats_of_random_bytes_are_found_although_the_sample_looks_random() {
        let repeated = random_bytes(30_000).repeat(2);
        assert!(is_incompressible(&repeated));
        let mut scratch = Scratch::new();
        assert!(scratch.compress(&repeated, Compression::default(), Effort::Full));
        assert!(scratch.buffer.len() < 31_000, "{}", scratch.buffer.len());
    }

    #[test]
    fn a_gain_too_small_to_matter_is_left_alone() {
        let mut data = random_bytes(65_536);
        data[..600].fill(0);
        assert!(!Scratch::new().compress(&data, Compression::default(), Effort::Full));
        data[..3000].fill(0);
        assert!(Scratch::new().compress(&data, Compression::default(), Effort::Full));
    }

    #[test]
    fn one_context_serves_every_level_in_turn() {
        let mut scratch = Scratch::new();
        let data = text(100_000);
        let mut lengths = Vec::new();
        for effort in [Effort::Full, Effort::Hurried, Effort::Quick, Effort::Full] {
            scratch.buffer.clear();
            assert!(scratch.compress(&data, Compression::new(9).unwrap(), effort));
            lengths.push(scratch.buffer.len());
            let body = 0..scratch.buffer.len();
            assert_eq!(scratch.decompress(body, data.len()).unwrap(), data);
        }
        assert_eq!(lengths[0], lengths[3], "the level is set back");
        assert!(lengths[1] > lengths[0], "{lengths:?}");
    }

    #[test]
    fn pressure_never_raises_the_effort() {
        let levels: Vec<_> = (0..=120).map(|percent| Effort::under_pressure(percent).level(LEVEL_DEFAULT)).collect();
        assert!(levels.is_sorted_by(|a, b| a >= b));
        assert_eq!((levels[0], levels[50], levels[100]), (3, 1, -1));
        assert_eq!(Effort::Hurried.level(-5), -5, "a configured level below is kept");
    }

    #[test]
    fn decompression_gives_exactly_the_length_asked_for_or_nothing() {
        let mut scratch = Scratch::new();
        assert!(scratch.compress(&text(5000), Compression::default(), Effort::Quick));
        let end = scratch.buffer.len();
        for length in [0, 4999, 5001] {
            assert!(scratch.decompress(0..end, length).is_none(), "{length}");
        }
        assert!(scratch.decompress(0..end - 1, 5000).is_none());
        assert!(scratch.decompress(0..end + 1, 5000).is_none(), "past the buffer");
        assert_eq!(scratch.decompress(0..end, 5000).unwrap(), text(5000));
    }
}
