//! A Hamming code of a page, which tells where the one bit is that was flipped.
//!
//! Bit `p` of a page is bit `p % 32` of word `p / 32`. The sum is the XOR of all words and, above it, the XOR of the numbers of all words with an odd
//! number of ones. One flipped bit changes one bit of the former, and the latter by the number of its word. It costs two XORs a word, where a CRC
//! costs a look-up a byte. What it finds is a guess: three flipped bits may look like one, so it has to be proven.

/// Bytes of the largest page.
const BYTES_MAX: usize = 4096;

/// Sixty-four bits at a time: this many of them.
const WORDS: usize = BYTES_MAX / 8;

/// The sum of at most [`BYTES_MAX`] bytes, a multiple of 8; 42 bits.
pub(super) fn hamming(bytes: &[u8]) -> u64 {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    // Folded in half again and again: the half that is folded over are the words with that bit in their number.
    let (mut number, mut half) = (0, WORDS / 2);
    while half > 0 {
        let (low, high) = words[..2 * half].split_at_mut(half);
        let mut ones = 0;
        for (low, high) in low.iter_mut().zip(high) {
            ones ^= *high;
            *low ^= *high;
        }
        number |= half as u64 * u64::from(ones.count_ones() % 2);
        half /= 2;
    }
    let (low, high) = (words[0] as u32, (words[0] >> 32) as u32);
    u64::from(low ^ high) | u64::from(high.count_ones() % 2) << 32 | number << 33
}

/// Which bit of `length` bytes makes sums differ by `difference` when it alone is flipped; bit `n` is bit `n % 8` of byte `n / 8`.
pub(super) fn flipped_bit(length: usize, difference: u64) -> Option<usize> {
    let (column, word) = (difference as u32, (difference >> 32) as usize);
    let bit = word * 32 + column.trailing_zeros() as usize;
    (column.is_power_of_two() && bit < length * 8).then_some(bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flipped_bit_is_found_and_two_are_none() {
        for length in [4096, 4080] {
            let mut bytes: Vec<u8> = (0..length as u32).map(|i| (i * 37 % 251) as u8).collect();
            let right = hamming(&bytes);
            assert_eq!(flipped_bit(length, 0), None);
            for bit in 0..length * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(flipped_bit(length, hamming(&bytes) ^ right), Some(bit));
                let other = (bit + 32 * 77) % (length * 8);
                bytes[other / 8] ^= 1 << (other % 8);
                assert_eq!(flipped_bit(length, hamming(&bytes) ^ right), None);
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes[other / 8] ^= 1 << (other % 8);
            }
        }
    }
}
