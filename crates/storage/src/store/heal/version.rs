//! A copy of what says which tables the store has: of the file `current` and of the version file that it names.
//!
//! The two are small, and everything hangs on them. Each block of the copy carries its own sums, so one flipped bit in each is healed.

use super::page::{Found, PAGE, PAYLOAD, seal, unseal};

const MAGIC: [u8; 8] = *b"QUORVERS";
const VERSION: u32 = 1;
const HEADER: usize = 24;

/// What the checksums of its blocks are seeded with; no table has so high a number.
const SEED: u64 = u64::MAX << 24;

/// The two files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct VersionFiles {
    pub current: Vec<u8>,
    pub version: Vec<u8>,
}

impl VersionFiles {
    pub fn encode(&self) -> Vec<u8> {
        let mut content = MAGIC.to_vec();
        content.extend_from_slice(&VERSION.to_le_bytes());
        content.extend_from_slice(&(self.current.len() as u32).to_le_bytes());
        content.extend_from_slice(&(self.version.len() as u64).to_le_bytes());
        content.extend_from_slice(&self.current);
        content.extend_from_slice(&self.version);
        let mut file = Vec::new();
        for (number, payload) in content.chunks(PAYLOAD).enumerate() {
            seal(payload, SEED | number as u64, &mut file);
        }
        file
    }

    /// `None` if more than a bit in a block has changed.
    pub fn decode(file: &[u8]) -> Option<Self> {
        let mut content = Vec::with_capacity(file.len());
        for (number, block) in file.chunks_exact(PAGE).enumerate() {
            let mut block: [u8; PAGE] = block.try_into().ok()?;
            if unseal(&mut block, SEED | number as u64) == Found::Bad {
                return None;
            }
            content.extend_from_slice(&block[..PAYLOAD]);
        }
        let (header, files) = content.split_at_checked(HEADER)?;
        if !header.starts_with(&MAGIC) || header[8..12] != VERSION.to_le_bytes() {
            return None;
        }
        let current = u32::from_le_bytes(header[12..16].try_into().ok()?) as usize;
        let version = usize::try_from(u64::from_le_bytes(header[16..24].try_into().ok()?)).ok()?;
        let (current, rest) = files.split_at_checked(current)?;
        Some(Self { current: current.to_vec(), version: rest.get(..version)?.to_vec() })
    }
}
