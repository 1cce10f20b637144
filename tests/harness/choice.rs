//! Where a random sequence takes its decisions from: a seed, or the bytes of an input.
//!
//! An input is spent byte by byte, mostly one for a decision, so that who changes a byte changes a decision.

use vellum_store::spawn::Seed;

/// A source of decisions.
#[derive(Debug)]
pub struct Choice(Source);

#[derive(Debug)]
enum Source {
    Seeded(Seed),
    Input(std::vec::IntoIter<u8>),
}

impl Choice {
    /// Decisions without end, the same for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Seed::new(seed)))
    }

    /// Decisions as the bytes say; all zero when they are spent.
    pub fn of_input(bytes: &[u8]) -> Self {
        Self(Source::Input(Vec::from(bytes).into_iter()))
    }

    /// Whether an input is spent.
    pub fn is_spent(&self) -> bool {
        matches!(&self.0, Source::Input(bytes) if bytes.len() == 0)
    }

    /// Any number; an input gives four bytes.
    pub fn number(&mut self) -> u64 {
        match &mut self.0 {
            Source::Seeded(seed) => seed.number(),
            Source::Input(bytes) => take(bytes, 4),
        }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        match &mut self.0 {
            Source::Seeded(seed) => seed.below(bound),
            Source::Input(bytes) => {
                let length = match bound {
                    0..=1 => 0,
                    2..=0x100 => 1,
                    0x101..=0x1_0000 => 2,
                    _ => 8,
                };
                take(bytes, length) % bound
            }
        }
    }

    /// Yes or no.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Bytes that do not compress.
    pub fn noise(&mut self, length: usize) -> Vec<u8> {
        let number = match &mut self.0 {
            Source::Seeded(seed) => seed.number(),
            Source::Input(bytes) => take(bytes, 1),
        };
        let (mut seed, mut noise) = (Seed::new(number), vec![0; length]);
        for piece in noise.chunks_mut(8) {
            piece.copy_from_slice(&seed.number().to_le_bytes()[..piece.len()]);
        }
        noise
    }
}

fn take(bytes: &mut std::vec::IntoIter<u8>, length: usize) -> u64 {
    bytes.take(length).enumerate().fold(0, |number, (at, byte)| number | u64::from(byte) << (8 * at))
}
