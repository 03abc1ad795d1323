//! One checksum for every format: XXH3, 64 bits, seeded with where the bytes belong.
//!
//! The seed makes a block that was written to (or read from) the wrong place fail its check even though its bytes are intact.

/// XXH3-64 of `bytes` under `seed`.
#[must_use]
pub fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed)
}

/// The next link of a hash chain: depends on everything hashed before it.
#[must_use]
pub fn chain(previous: u64, bytes: &[u8]) -> u64 {
    checksum(previous, bytes)
}
