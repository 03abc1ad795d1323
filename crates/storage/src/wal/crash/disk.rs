//! A disk that knows what it has promised, and what it may still lose.
//!
//! Between a write and the sync that covers it, each sector of the write is on the disk or is not, in any combination, whatever the
//! order in which sectors were written. Between a change of the directory and the directory's sync, each change is there or is not; one
//! change is never half there. A file that was made but not synced may have any size up to its own, and zeros in it. A sector is
//! never torn.

use crate::wal::{BLOCK, DiskOp, FileName};
use bytes::Bytes;
use quorate_env::Rng;
use std::collections::{BTreeMap, BTreeSet};

const SECTOR: usize = 512;

/// Changes of the directory of which every subset is tried; of more, random ones are.
const CHANGES_IN_FULL: usize = 4;

/// Random combinations of lost sectors at each point, besides the systematic ones.
const RANDOM_COMBINATIONS: usize = 4;

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What is surely there. Shorter than `now`, and without a length of its own, until the first sync.
    durable: Bytes,
    now: Vec<u8>,
    /// Whether the size is durable.
    sized: bool,
    /// Sectors that were written since the last sync.
    pending: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Name(FileName, usize),
    Rename(FileName, FileName),
    Remove(FileName),
}

/// See the top of this file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<FileName, usize>,
    durable_names: BTreeMap<FileName, usize>,
    changes: Vec<Change>,
}

/// What one power cut takes of what was not synced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Survival {
    /// Which changes of the directory are kept, in their order.
    changes: Vec<bool>,
    /// Which pending sectors are kept, in the order of [`Disk::pending`].
    sectors: Vec<bool>,
    /// The size of files whose size was not durable, in quarters of their own.
    quarters: usize,
}

impl Disk {
    /// A disk on which everything that is found is durable.
    pub fn holding(files: &[(FileName, Bytes)]) -> Self {
        let mut disk = Self::default();
        for (file, bytes) in files {
            disk.names.insert(*file, disk.inodes.len());
            let (durable, now) = (bytes.clone(), bytes.to_vec());
            disk.inodes.push(Inode { durable, now, sized: true, pending: BTreeSet::new() });
        }
        disk.durable_names = disk.names.clone();
        disk
    }

    pub fn run(&mut self, op: &DiskOp) {
        match op {
            DiskOp::Create { file, bytes } => {
                let inode = self.inodes.len();
                self.inodes.push(Inode { now: vec![0; *bytes as usize], ..Inode::default() });
                self.change(Change::Name(*file, inode));
            }
            DiskOp::Write { file, offset, bytes } => {
                assert!(bytes.len().is_multiple_of(BLOCK) && offset.is_multiple_of(BLOCK as u64));
                let at = *offset as usize;
                let inode = &mut self.inodes[self.names[file]];
                inode.now[at..at + bytes.len()].copy_from_slice(bytes);
                inode.pending.extend(at / SECTOR..(at + bytes.len()) / SECTOR);
            }
            DiskOp::Sync { file } => {
                let inode = &mut self.inodes[self.names[file]];
                if !inode.pending.is_empty() || !inode.sized {
                    inode.durable = Bytes::copy_from_slice(&inode.now);
                    inode.pending.clear();
                    inode.sized = true;
                }
            }
            DiskOp::Rename { from, to } => {
                assert!(!self.names.contains_key(to), "{to} is taken");
                assert!(self.names.contains_key(from), "{from} is not there");
                self.change(Change::Rename(*from, *to));
            }
            DiskOp::SyncDir => {
                self.durable_names.clone_from(&self.names);
                self.changes.clear();
            }
            DiskOp::Delete { file } => self.change(Change::Remove(*file)),
        }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, change);
        self.changes.push(change);
    }

    /// What a process reads that starts while the power stays on.
    pub fn files(&self) -> Vec<(FileName, Bytes)> {
        let contents = |inode: &Inode| {
            if inode.sized && inode.pending.is_empty() { inode.durable.clone() } else { inode.now.clone().into() }
        };
        self.names.iter().map(|(file, inode)| (*file, contents(&self.inodes[*inode]))).collect()
    }

    /// Sectors that a power cut may take.
    fn pending(&self) -> Vec<(usize, usize)> {
        let of = |(number, inode): (usize, &Inode)| -> Vec<(usize, usize)> {
            inode.pending.iter().map(|sector| (number, *sector)).collect()
        };
        self.inodes.iter().enumerate().flat_map(of).collect()
    }

    /// What a process finds that starts after the power was cut.
    pub fn after(&self, survival: &Survival) -> Vec<(FileName, Bytes)> {
        let mut names = self.durable_names.clone();
        let kept = self.changes.iter().zip(&survival.changes).filter(|(_, kept)| **kept);
        kept.for_each(|(change, _)| apply(&mut names, *change));
        let mut contents: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for (number, inode) in self.inodes.iter().enumerate() {
            if !inode.sized {
                contents.insert(number, vec![0; inode.now.len() / 4 * survival.quarters]);
            }
        }
        for ((number, sector), kept) in self.pending().into_iter().zip(&survival.sectors) {
            let inode = &self.inodes[number];
            let found = contents.entry(number).or_insert_with(|| inode.durable.to_vec());
            let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
            if *kept && to <= found.len() {
                found[from..to].copy_from_slice(&inode.now[from..to]);
            }
        }
        let of =
            |number: usize| contents.get(&number).map_or(self.inodes[number].durable.clone(), |c| c.clone().into());
        names.into_iter().map(|(file, number)| (file, of(number))).collect()
    }

    /// Power cuts worth trying at this moment, none of them twice: of the directory's changes every subset; of the sectors none, all, each
    /// alone, all but each, every beginning, every end, and some at random; of unsynced sizes nothing, half and all. If these are
    /// more than `most`, random ones of them.
    pub fn survivals(&self, rng: &mut Rng, most: usize) -> Vec<Survival> {
        let pending = self.pending().len();
        let sizes: &[usize] = if self.inodes.iter().all(|inode| inode.sized) { &[4] } else { &[4, 0, 2] };
        let mut all = Vec::new();
        for changes in subsets(self.changes.len(), rng) {
            for sectors in combinations(pending, rng) {
                for quarters in sizes {
                    let (changes, sectors) = (changes.clone(), sectors.clone());
                    all.push(Survival { changes, sectors, quarters: *quarters });
                }
            }
        }
        while all.len() > most {
            all.swap_remove(rng.below(all.len() as u64) as usize);
        }
        all
    }

    /// Bytes of all files.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.names.values().map(|inode| self.inodes[*inode].now.len()).sum()
    }
}

fn apply(names: &mut BTreeMap<FileName, usize>, change: Change) {
    match change {
        Change::Name(file, inode) => {
            names.insert(file, inode);
        }
        Change::Rename(from, to) => {
            // What it renames may be a creation that was lost.
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
        Change::Remove(file) => {
            names.remove(&file);
        }
    }
}

fn subsets(items: usize, rng: &mut Rng) -> Vec<Vec<bool>> {
    let in_full = items <= CHANGES_IN_FULL;
    let count = if in_full { 1 << items } else { 2 << CHANGES_IN_FULL };
    let kept = |number: u64| (0..items).map(|item| number >> (item % 64) & 1 == 1).collect();
    (0..count).map(|number| kept(if in_full { number } else { rng.next_u64() })).collect()
}

fn combinations(items: usize, rng: &mut Rng) -> BTreeSet<Vec<bool>> {
    let mut all = BTreeSet::from([vec![false; items], vec![true; items]]);
    for at in 0..items {
        all.insert((0..items).map(|item| item == at).collect());
        all.insert((0..items).map(|item| item != at).collect());
        all.insert((0..items).map(|item| item < at).collect());
        all.insert((0..items).map(|item| item > at).collect());
    }
    if items > 2 {
        for _ in 0..RANDOM_COMBINATIONS {
            let likely = rng.between(100, 900);
            all.insert((0..items).map(|_| rng.chance(likely)).collect());
        }
    }
    all
}
