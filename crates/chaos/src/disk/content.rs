//! The bytes of one file, in blocks that two versions of it can share: what is read now, and what would be left after a power cut.

use std::sync::Arc;

/// Bytes of a block, the unit of sharing.
pub const BLOCK: usize = 4096;

/// Bytes that a disk writes as one.
pub const SECTOR: usize = 512;

type Block = [u8; BLOCK];

/// A file's bytes. A block that is not there reads as zeros.
#[derive(Clone, Debug, Default)]
pub struct Content {
    bytes: u64,
    blocks: Vec<Option<Arc<Block>>>,
}

impl Content {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Up to `length` bytes from `offset` on.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = self.bytes.min(offset + length as u64);
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let (block, within) = place(at);
            let piece = (BLOCK - within).min((end - at) as usize);
            match self.block(block) {
                Some(bytes) => out.extend_from_slice(&bytes[within..within + piece]),
                None => out.resize(out.len() + piece, 0),
            }
            at += piece as u64;
        }
        out
    }

    /// Blocks that a write would have to allocate.
    pub fn missing(&self, offset: u64, length: usize) -> usize {
        touched(offset, length).filter(|block| self.block(*block).is_none()).count()
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (block, within) = place(at);
            let piece = (BLOCK - within).min(rest.len());
            self.block_mut(block)[within..within + piece].copy_from_slice(&rest[..piece]);
            rest = &rest[piece..];
            at += piece as u64;
        }
        self.bytes = self.bytes.max(at);
    }

    /// Cuts the file, or extends it with zeros.
    pub fn resize(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let (block, within) = place(bytes);
            self.blocks.truncate(block + usize::from(within > 0));
            if within > 0 && self.block(block).is_some() {
                self.block_mut(block)[within..].fill(0);
            }
        }
        self.bytes = bytes;
    }

    /// Takes over one block of another version.
    pub fn take_block(&mut self, from: &Self, block: usize) {
        let taken = from.blocks.get(block).cloned().flatten();
        if block >= self.blocks.len() {
            self.blocks.resize(block + 1, None);
        }
        self.blocks[block] = taken;
    }

    /// Takes over one sector of a block of another version.
    pub fn take_sector(&mut self, from: &Self, block: usize, sector: usize) {
        let within = sector * SECTOR..(sector + 1) * SECTOR;
        let zeros = [0; BLOCK];
        let bytes = from.block(block).unwrap_or(&zeros);
        self.block_mut(block)[within.clone()].copy_from_slice(&bytes[within]);
    }

    /// Turns one bit over.
    pub fn flip(&mut self, offset: u64, bit: u8) {
        let (block, within) = place(offset);
        self.block_mut(block)[within] ^= 1 << bit;
    }

    fn block(&self, block: usize) -> Option<&Block> {
        self.blocks.get(block)?.as_deref()
    }

    fn block_mut(&mut self, block: usize) -> &mut Block {
        if block >= self.blocks.len() {
            self.blocks.resize(block + 1, None);
        }
        Arc::make_mut(self.blocks[block].get_or_insert_with(|| Arc::new([0; BLOCK])))
    }
}

fn place(offset: u64) -> (usize, usize) {
    ((offset / BLOCK as u64) as usize, (offset % BLOCK as u64) as usize)
}

fn touched(offset: u64, length: usize) -> std::ops::Range<usize> {
    place(offset).0..place(offset + length as u64 + BLOCK as u64 - 1).0
}

/// The blocks that a write touches, each with a bit for each of its sectors.
pub fn sectors(offset: u64, length: usize) -> impl Iterator<Item = (usize, u8)> {
    let end = offset + length as u64;
    touched(offset, length).map(move |block| {
        let mask = (0..BLOCK / SECTOR).filter(|sector| {
            let begins = (block * BLOCK + sector * SECTOR) as u64;
            begins < end && begins + SECTOR as u64 > offset
        });
        (block, mask.fold(0, |mask, sector| mask | 1 << sector))
    })
}
