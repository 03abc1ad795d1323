//! What is kept beside a table so that it can be healed: the sums of its pages, and the XOR of every sixteen of them.
//!
//! ```text
//!   header | sums ... | parity ... | sums ... | header         each a page; the sums and the header are there twice
//! ```
//!
//! Page `i` of the table is in group `i % groups`, so that the neighbours of a bad page are in other groups. The sums also cover the parity
//! pages. Blocks of sums carry sums of their own: a flipped bit in each page of both files is healed, and so is a page lost of each group.

use super::page::{Found, PAGE, PAYLOAD, SUM, Sum, seal, unseal};
use std::io::{self, Read};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

const MAGIC: [u8; 8] = *b"QUORSUMS";
const VERSION: u32 = 1;

/// Pages of a table that share a parity page.
const GROUP_PAGES: usize = 16;

/// Sums in a block.
const SUMS: usize = PAYLOAD / SUM;

/// Pages read at one time.
const PIECE_PAGES: usize = 64;

/// How a table is cut up. All of it follows from the table's length.
#[derive(Clone, Copy, Debug)]
struct Shape {
    pages: usize,
    groups: usize,
    sum_blocks: usize,
}

impl Shape {
    fn of(length: u64) -> Self {
        let pages = usize::try_from(length.div_ceil(PAGE as u64)).unwrap_or(usize::MAX / PAGE);
        let groups = pages.div_ceil(GROUP_PAGES);
        Self { pages, groups, sum_blocks: (pages + groups).div_ceil(SUMS) }
    }

    fn blocks(self) -> usize {
        2 * (1 + self.sum_blocks) + self.groups
    }

    fn parity_begins(self) -> usize {
        (1 + self.sum_blocks) * PAGE
    }

    /// Where the two copies of the header (0) or of a block of sums (from 1) begin.
    fn copies(self, block: usize) -> [usize; 2] {
        let second = if block == 0 { self.blocks() - 1 } else { self.sum_blocks + self.groups + block };
        [block * PAGE, second * PAGE]
    }
}

/// Which table, and what it looks like as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub id: u64,
    pub length: u64,
    pub checksum: u128,
}

impl Header {
    fn encode(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(PAGE as u32).to_le_bytes());
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], id: u64) -> Option<Self> {
        let length = u64::from_le_bytes(bytes.get(24..32)?.try_into().ok()?);
        let checksum = u128::from_le_bytes(bytes.get(32..48)?.try_into().ok()?);
        let header = Self { id, length, checksum };
        bytes.starts_with(&header.encode()).then_some(header)
    }

    /// The header of a file that begins with it and has the length that it asks for.
    pub fn of_file(first: &[u8], bytes: u64, id: u64) -> Option<Self> {
        let mut block: [u8; PAGE] = first.get(..PAGE)?.try_into().ok()?;
        if unseal(&mut block, seed(id, 0)) != Found::Whole {
            return None;
        }
        Self::decode(&block, id).filter(|header| (Shape::of(header.length).blocks() * PAGE) as u64 == bytes)
    }
}

/// What a block's checksum is seeded with: a block that was written to another place proves nothing.
fn seed(id: u64, block: usize) -> u64 {
    (id << 24) ^ block as u64
}

/// Reads a table and makes its sums.
pub(super) fn build(table: &mut impl Read, id: u64, length: u64) -> io::Result<(Header, Vec<u8>)> {
    let shape = Shape::of(length);
    let mut parity = vec![0; shape.groups * PAGE];
    let mut sums = Vec::with_capacity((shape.pages + shape.groups) * SUM);
    let mut whole = Xxh3::new();
    let mut piece = vec![0; PIECE_PAGES * PAGE];
    let (mut left, mut page) = (length, 0);
    while left > 0 {
        let bytes = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        table.read_exact(&mut piece[..bytes])?;
        whole.update(&piece[..bytes]);
        piece[bytes..].fill(0);
        for content in piece[..bytes.next_multiple_of(PAGE)].chunks_exact(PAGE) {
            sums.extend_from_slice(&Sum::of(content, 0).encode());
            add(&mut parity[page % shape.groups * PAGE..][..PAGE], content);
            page += 1;
        }
        left -= bytes as u64;
    }
    for content in parity.chunks_exact(PAGE) {
        sums.extend_from_slice(&Sum::of(content, 0).encode());
    }
    let header = Header { id, length, checksum: whole.digest128() };
    let mut file = Vec::with_capacity(shape.blocks() * PAGE);
    seal(&header.encode(), seed(id, 0), &mut file);
    for (block, sums) in sums.chunks(SUMS * SUM).enumerate() {
        seal(sums, seed(id, 1 + block), &mut file);
    }
    file.extend_from_slice(&parity);
    file.extend_from_within(PAGE..shape.parity_begins());
    file.extend_from_within(..PAGE);
    Ok((header, file))
}

fn add(to: &mut [u8], page: &[u8]) {
    to.iter_mut().zip(page).for_each(|(to, byte)| *to ^= byte);
}

/// The sums of a table, as far as they can be read.
pub(super) struct Sums {
    pub header: Header,
    /// Whether the file is exactly what was written.
    pub clean: bool,
    shape: Shape,
    /// Of the table's pages, then of the parity pages. `None`: both copies are lost.
    sums: Vec<Option<Sum>>,
    parity: Vec<u8>,
}

/// What healing did to the copy of a table in memory.
#[derive(Debug, Default)]
pub(super) struct Healing {
    /// Pages in which a bit was flipped back.
    pub bits: u64,
    /// Pages that were made from the others of their group.
    pub pages: u64,
    /// Numbers of the pages that were changed.
    pub changed: Vec<usize>,
    /// Numbers of the pages that are still bad.
    pub bad: Vec<usize>,
}

impl Sums {
    /// Reads the sums of table `id`. `None` if not even one of the two headers can be read.
    pub fn read(file: &[u8], id: u64) -> Option<Self> {
        let block = |at: usize, number: usize| -> Option<([u8; PAGE], Found)> {
            let mut block: [u8; PAGE] = file.get(at..at + PAGE)?.try_into().ok()?;
            let found = unseal(&mut block, seed(id, number));
            (found != Found::Bad).then_some((block, found))
        };
        let last = (file.len() / PAGE).checked_sub(1)? * PAGE;
        let header = [0, last].into_iter().filter_map(|at| block(at, 0)).find_map(|(b, _)| Header::decode(&b, id))?;
        let shape = Shape::of(header.length);
        let mut clean = file.len() == shape.blocks() * PAGE;
        let mut either = |number: usize| {
            let [first, second] = shape.copies(number).map(|at| block(at, number));
            let whole = |copy: &Option<([u8; PAGE], Found)>| matches!(copy, Some((_, Found::Whole)));
            clean &= whole(&first) && whole(&second);
            first.or(second).map(|(block, _)| block)
        };
        either(0);
        let count = shape.pages + shape.groups;
        // A header that was read proves its length; a file that is shorter than that has fewer sums to give.
        let mut sums = Vec::with_capacity(count.min(file.len() / SUM));
        for number in 1..=shape.sum_blocks {
            let block = either(number);
            let here = SUMS.min(count - sums.len());
            for at in 0..here {
                let sum = block.as_ref().and_then(|block| block[at * SUM..][..SUM].try_into().ok());
                sums.push(sum.map(Sum::decode));
            }
        }
        let begins = shape.parity_begins().min(file.len());
        let mut parity = file[begins..(begins + shape.groups * PAGE).min(file.len())].to_vec();
        parity.resize(shape.groups * PAGE, 0);
        let mut sums = Self { header, clean, shape, sums, parity };
        sums.mend_parity();
        Some(sums)
    }

    /// Flips back bits in parity pages; one that stays bad loses its sum, so that nothing is made from it.
    fn mend_parity(&mut self) {
        for (sum, page) in self.sums[self.shape.pages..].iter_mut().zip(self.parity.chunks_exact_mut(PAGE)) {
            let found = sum.map_or(Found::Bad, |sum| sum.mend(page, 0));
            self.clean &= found == Found::Whole;
            if found == Found::Bad {
                *sum = None;
            }
        }
    }

    /// Heals `table`, as it was found on the disk, in memory. Whether it is what it was is then to be asked of [`Self::proves`].
    pub fn heal(&self, table: &mut Vec<u8>) -> Healing {
        let mut healing = Healing::default();
        table.truncate(usize::try_from(self.header.length).unwrap_or(usize::MAX));
        table.resize(self.shape.pages * PAGE, 0);
        for (number, page) in table.chunks_exact_mut(PAGE).enumerate() {
            // A page without a sum is hoped to be right: a page that is made with its help is proven by its own.
            match self.sums[number].map_or(Found::Whole, |sum| sum.mend(page, 0)) {
                Found::Whole => {}
                Found::Mended => {
                    healing.bits += 1;
                    healing.changed.push(number);
                }
                Found::Bad => healing.bad.push(number),
            }
        }
        let mut bad_in_group = vec![0u32; self.shape.groups];
        healing.bad.iter().for_each(|number| bad_in_group[number % self.shape.groups] += 1);
        let Healing { bad, changed, pages, .. } = &mut healing;
        bad.retain(|number| {
            let alone = bad_in_group[number % self.shape.groups] == 1;
            let made = if alone { self.make(*number, table) } else { None };
            if let Some(made) = &made {
                table[number * PAGE..][..PAGE].copy_from_slice(made);
                changed.push(*number);
                *pages += 1;
            }
            made.is_none()
        });
        table.truncate(usize::try_from(self.header.length).unwrap_or(usize::MAX));
        healing
    }

    /// Makes a page from the others of its group.
    fn make(&self, number: usize, table: &[u8]) -> Option<Vec<u8>> {
        let group = number % self.shape.groups;
        let sum = self.sums[number]?;
        self.sums[self.shape.pages + group]?;
        let mut made = self.parity[group * PAGE..][..PAGE].to_vec();
        for other in (group..self.shape.pages).step_by(self.shape.groups).filter(|other| *other != number) {
            add(&mut made, &table[other * PAGE..][..PAGE]);
        }
        (Sum::of(&made, 0) == sum).then_some(made)
    }

    /// Whether these are the bytes of the table, all of them.
    pub fn proves(&self, table: &[u8]) -> bool {
        table.len() as u64 == self.header.length && xxh3_128(table) == self.header.checksum
    }
}

/// Where page `number` begins, and its bytes, in a table that may end within it.
pub(super) fn page_of(table: &[u8], number: usize) -> (u64, &[u8]) {
    let begin = number * PAGE;
    ((begin as u64), &table[begin..(begin + PAGE).min(table.len())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_block_of_a_file_has_a_place_of_its_own() {
        for pages in (0..3_000).step_by(7) {
            let shape = Shape::of(pages * PAGE as u64);
            let copies = (0..=shape.sum_blocks).flat_map(|block| shape.copies(block));
            let parity = (0..shape.groups).map(|group| shape.parity_begins() + group * PAGE);
            let places: Vec<usize> = copies.chain(parity).collect();
            let all: BTreeSet<usize> = (0..shape.blocks()).map(|block| block * PAGE).collect();
            assert_eq!(places.len(), all.len(), "{pages} pages");
            assert_eq!(places.into_iter().collect::<BTreeSet<_>>(), all, "{pages} pages");
        }
    }

    #[test]
    fn a_block_in_the_place_of_another_proves_nothing() {
        let places = (0..4).flat_map(|id| (0..40).map(move |block| (id, block)));
        let seeds: BTreeSet<u64> = places.map(|(id, block)| seed(id, block)).collect();
        assert_eq!(seeds.len(), 4 * 40);
    }
}
