//! A page and the two sums that are kept of it: one finds a flipped bit, the other proves that the page is what it was.

use super::hamming::{flipped_bit, hamming};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a page, and of a block of our own files.
pub(super) const PAGE: usize = 4096;

/// Bytes of two sums.
pub(super) const SUM: usize = 16;

/// What a block of our own files can hold besides its sums.
pub(super) const PAYLOAD: usize = PAGE - SUM;

/// The sums of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    hamming: u64,
    xxh: u64,
}

/// What was found of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is what it was.
    Whole,
    /// One bit was flipped, and was flipped back.
    Mended,
    /// More is wrong with it.
    Bad,
}

impl Sum {
    pub fn of(page: &[u8], seed: u64) -> Self {
        Self { hamming: hamming(page), xxh: xxh3_64_with_seed(page, seed) }
    }

    pub fn encode(self) -> [u8; SUM] {
        let mut bytes = [0; SUM];
        bytes[..8].copy_from_slice(&self.hamming.to_le_bytes());
        bytes[8..].copy_from_slice(&self.xxh.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: [u8; SUM]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self { hamming: both as u64, xxh: (both >> 64) as u64 }
    }

    /// Judges a page, and flips back the one bit that was flipped. A page that stays bad is not touched.
    pub fn mend(self, page: &mut [u8], seed: u64) -> Found {
        let is = Self::of(page, seed);
        if is == self {
            return Found::Whole;
        }
        let Some(bit) = flipped_bit(page.len(), is.hamming ^ self.hamming) else { return Found::Bad };
        page[bit / 8] ^= 1 << (bit % 8);
        if xxh3_64_with_seed(page, seed) == self.xxh {
            return Found::Mended;
        }
        page[bit / 8] ^= 1 << (bit % 8);
        Found::Bad
    }
}

/// Appends a block that carries its own sums. The seed says which block of which file it is.
pub(super) fn seal(payload: &[u8], seed: u64, out: &mut Vec<u8>) {
    assert!(payload.len() <= PAYLOAD, "a block holds {PAYLOAD} bytes");
    let begin = out.len();
    out.extend_from_slice(payload);
    out.resize(begin + PAYLOAD, 0);
    let sum = Sum::of(&out[begin..], seed);
    out.extend_from_slice(&sum.encode());
}

/// Judges a block, and flips back the one bit that was flipped, in its payload or in its sums.
pub(super) fn unseal(block: &mut [u8; PAGE], seed: u64) -> Found {
    let (payload, stored) = block.split_at_mut(PAYLOAD);
    let mut bytes = [0; SUM];
    bytes.copy_from_slice(stored);
    let (sum, is) = (Sum::decode(bytes), Sum::of(payload, seed));
    match (is.hamming == sum.hamming, is.xxh == sum.xxh) {
        (true, true) => Found::Whole,
        (false, false) => sum.mend(payload, seed),
        // One sum proves the payload; so it is the other that was hit.
        _ if (is.hamming ^ sum.hamming).count_ones() + (is.xxh ^ sum.xxh).count_ones() == 1 => {
            stored.copy_from_slice(&is.encode());
            Found::Mended
        }
        _ => Found::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_stands_any_one_flipped_bit_and_nothing_else() {
        let mut sealed = Vec::new();
        seal(b"what it holds", 7, &mut sealed);
        let right: [u8; PAGE] = sealed[..].try_into().unwrap();
        assert_eq!(unseal(&mut right.clone(), 7), Found::Whole);
        assert_eq!(unseal(&mut right.clone(), 8), Found::Bad, "it is another block's");
        for bit in (0..PAGE * 8).step_by(61).chain(PAYLOAD * 8..PAGE * 8) {
            let mut block = right;
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&mut block, 7), Found::Mended, "bit {bit}");
            assert_eq!(block, right);
            let other = (bit + 4093) % (PAGE * 8);
            block[bit / 8] ^= 1 << (bit % 8);
            block[other / 8] ^= 1 << (other % 8);
            let found = block;
            assert_eq!(unseal(&mut block, 7), Found::Bad, "bits {bit} and {other}");
            assert!(block == found, "what stays bad is not touched: bits {bit} and {other}");
        }
    }
}
