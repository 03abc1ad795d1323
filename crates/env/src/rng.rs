//! Randomness from a seed.
//!
//! SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014). Five lines of our own,
//! because a seed in a bug report must mean the same schedule in every later version, and no crate promises that.

/// A seeded generator. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator that always produces the same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// An independent generator for a purpose, so that drawing more for one purpose does not shift another.
    #[must_use]
    pub fn split(&self, purpose: u64) -> Self {
        let mut child = Self::new(self.state ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        child.next_u64();
        child
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift; the bias is below 2^-32 for every bound used here.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`. `low` must not exceed `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "empty interval {low}..={high}");
        low + self.below(high - low + 1)
    }

    /// True with probability `per_mille / 1000`.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One element, or `None` of an empty slice.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_change_between_versions() {
        let mut rng = Rng::new(42);
        assert_eq!(rng.next_u64(), 13_679_457_532_755_275_413);
        assert_eq!(rng.below(1), 0);
        assert_eq!(Rng::new(1).between(7, 7), 7);
        assert_eq!(Rng::new(1).pick::<u8>(&[]), None);
    }

    #[test]
    fn split_generators_differ_by_purpose() {
        let rng = Rng::new(7);
        assert_ne!(rng.split(1).next_u64(), rng.split(2).next_u64());
        assert_eq!(rng.split(1).next_u64(), rng.split(1).next_u64());
    }
}
