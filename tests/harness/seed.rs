//! Random numbers that a seed repeats, and the settings that tests take from the environment.

/// A source of numbers.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// Starts from a number.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of a test: `VELLUM_SEED`, or `default`; printed, so that a failure can be repeated.
    pub fn of_test(test: &str, default: u64) -> Self {
        let seed = number_from_environment("VELLUM_SEED", default);
        println!("{test}: seed {seed} (VELLUM_SEED={seed} repeats it)");
        Self(seed)
    }

    /// The next number (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    /// One of several.
    pub fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// A number that an environment variable overrides.
pub fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
