//! A disk that keeps only what was synced, and of the rest whatever it likes.
//!
//! A crash keeps, of the sectors written since a file's last sync, a random subset; and of the directory changes since the last directory
//! sync, a random prefix. Sectors are 512 bytes and are never themselves torn.

use bytes::Bytes;
use quorate_env::Rng;
use quorate_storage::wal::{DiskOp, FileName};
use std::collections::{BTreeMap, BTreeSet};

const SECTOR: usize = 512;

/// Flushes of the log begin on such a multiple, with this.
const BLOCK: usize = 4096;
const FLUSH_MAGIC: &[u8] = b"QFLU";

/// The sizes of a flush's and of a record's header, and where the former says how long the body is (docs/design/log-format.md).
const FLUSH_HEADER: usize = 96;
const RECORD_HEADER: usize = 64;
const BODY_AT: usize = 48;

/// Bytes that changed on the disk, as they were.
#[derive(Clone, Debug)]
pub(crate) struct Garbled {
    inode: u64,
    at: usize,
    before: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<FileName, u64>,
    durable_names: BTreeMap<FileName, u64>,
    name_changes: Vec<(FileName, Option<u64>)>,
}

impl Disk {
    pub fn run(&mut self, op: &DiskOp) {
        match op {
            DiskOp::Create { file, bytes } => {
                let inode = self.next_inode;
                self.next_inode += 1;
                let zeros = vec![0; *bytes as usize];
                self.inodes.insert(inode, Inode { data: zeros.clone(), durable: zeros, dirty: BTreeSet::new() });
                self.rename(*file, Some(inode));
            }
            DiskOp::Write { file, offset, bytes } => {
                let inode = self.inodes.get_mut(&self.names[file]).expect("a named inode exists");
                let at = *offset as usize;
                inode.data[at..at + bytes.len()].copy_from_slice(bytes);
                inode.dirty.extend(at / SECTOR..(at + bytes.len()).div_ceil(SECTOR));
            }
            DiskOp::Sync { file } => {
                let inode = self.inodes.get_mut(&self.names[file]).expect("a named inode exists");
                for sector in std::mem::take(&mut inode.dirty) {
                    let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(inode.data.len()));
                    inode.durable[from..to].copy_from_slice(&inode.data[from..to]);
                }
            }
            DiskOp::Rename { from, to } => {
                let inode = self.names[from];
                self.rename(*from, None);
                self.rename(*to, Some(inode));
            }
            DiskOp::Delete { file } => self.rename(*file, None),
            DiskOp::SyncDir => {
                self.durable_names = self.names.clone();
                self.name_changes.clear();
            }
        }
    }

    fn rename(&mut self, file: FileName, inode: Option<u64>) {
        apply(&mut self.names, file, inode);
        self.name_changes.push((file, inode));
    }

    /// The power goes. Returns whether something unsynced was partly kept.
    pub fn crash(&mut self, rng: &mut Rng) -> bool {
        let mut torn = false;
        for inode in self.inodes.values_mut() {
            let total = inode.dirty.len();
            let mut kept = 0;
            for sector in std::mem::take(&mut inode.dirty) {
                if rng.chance(500) {
                    let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(inode.data.len()));
                    inode.durable[from..to].copy_from_slice(&inode.data[from..to]);
                    kept += 1;
                }
            }
            torn |= kept > 0 && kept < total;
            inode.data = inode.durable.clone();
        }
        let kept = rng.below(self.name_changes.len() as u64 + 1) as usize;
        self.names = self.durable_names.clone();
        for (file, inode) in self.name_changes.drain(..).take(kept) {
            apply(&mut self.names, file, inode);
        }
        self.durable_names = self.names.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
        torn
    }

    /// A disk that holds what is durable here now, and nothing else.
    pub fn image(&self) -> Self {
        let mut image = self.clone();
        image.names = image.durable_names.clone();
        image.name_changes.clear();
        let named: BTreeSet<u64> = image.names.values().copied().collect();
        image.inodes.retain(|inode, _| named.contains(inode));
        for inode in image.inodes.values_mut() {
            inode.data = inode.durable.clone();
            inode.dirty.clear();
        }
        image
    }

    /// Writes to another place than is asked for, and makes it durable; none if there is no other.
    pub fn misdirect(&mut self, file: FileName, offset: u64, bytes: &[u8], rng: &mut Rng) -> Option<()> {
        let fits = |inode: &u64| self.inodes[inode].data.len() >= BLOCK + bytes.len();
        let files: Vec<(FileName, u64)> =
            self.names.iter().map(|(name, inode)| (*name, *inode)).filter(|(_, inode)| fits(inode)).collect();
        let (other, inode) = *rng.pick(&files)?;
        let inode = self.inodes.get_mut(&inode)?;
        let places = (inode.data.len() - bytes.len()) / BLOCK;
        // Near the beginning, where something is.
        let at = BLOCK * rng.between(1, places.min(64) as u64) as usize;
        if (other, at as u64) == (file, offset) {
            return None;
        }
        inode.data[at..at + bytes.len()].copy_from_slice(bytes);
        inode.durable[at..at + bytes.len()].copy_from_slice(bytes);
        Some(())
    }

    /// Of a planted bug: nothing is left of a log behind a place.
    pub fn cut(&mut self, file: FileName, offset: usize) {
        let later: Vec<FileName> = self.names.keys().copied().filter(|name| *name > file).collect();
        later.into_iter().for_each(|name| {
            self.names.remove(&name);
        });
        if let Some(inode) = self.names.get(&file).and_then(|inode| self.inodes.get_mut(inode)) {
            let from = offset.min(inode.data.len());
            inode.data[from..].fill(0);
            inode.durable[from..].fill(0);
        }
        self.durable_names = self.names.clone();
    }

    /// Garbles up to so many bytes of one of the last flushes of the log, where records are. What was there is returned.
    pub fn garble(&mut self, back: usize, longest: u64, rng: &mut Rng) -> Option<Garbled> {
        let begins = |data: &[u8], block: &usize| data[*block..].starts_with(FLUSH_MAGIC);
        let flushes: Vec<(u64, usize)> = self
            .names
            .values()
            .flat_map(|inode| {
                let data = &self.inodes[inode].data;
                let blocks = (BLOCK..data.len()).step_by(BLOCK).filter(|block| begins(data, block));
                blocks.map(|block| (*inode, block)).collect::<Vec<_>>()
            })
            .collect();
        let last = flushes.len().checked_sub(1)?;
        let (inode, block) = flushes[rng.between(last.saturating_sub(back) as u64, last as u64) as usize];
        let hit = self.inodes.get_mut(&inode)?;
        let data = &mut hit.data;
        let body = u32::from_le_bytes(data[block + BODY_AT..][..4].try_into().ok()?) as usize;
        if block + FLUSH_HEADER + body > data.len() || body <= RECORD_HEADER + 64 {
            return None;
        }
        let first_payload = block + FLUSH_HEADER + RECORD_HEADER;
        let at = rng.between(first_payload as u64, (block + FLUSH_HEADER + body - 64) as u64) as usize;
        let at = if longest == u64::MAX { block + FLUSH_HEADER } else { at };
        let end = block + FLUSH_HEADER + body;
        let len = if longest == u64::MAX { end - at } else { (rng.between(2, longest) as usize).min(end - at) };
        let before = data[at..at + len].to_vec();
        for byte in &mut data[at..at + len] {
            *byte ^= rng.between(0, 255) as u8;
        }
        let garbled = data[at..at + len].to_vec();
        hit.durable[at..at + len].copy_from_slice(&garbled);
        Some(Garbled { inode, at, before })
    }

    /// Takes it back.
    pub fn restore(&mut self, was: &Garbled) {
        if let Some(inode) = self.inodes.get_mut(&was.inode) {
            inode.data[was.at..was.at + was.before.len()].copy_from_slice(&was.before);
            inode.durable[was.at..was.at + was.before.len()].copy_from_slice(&was.before);
        }
    }

    /// All files, as a starting process reads them.
    pub fn files(&self) -> Vec<(FileName, Bytes)> {
        let read = |(file, inode): (&FileName, &u64)| (*file, Bytes::from(self.inodes[inode].data.clone()));
        self.names.iter().map(read).collect()
    }
}

fn apply(names: &mut BTreeMap<FileName, u64>, file: FileName, inode: Option<u64>) {
    match inode {
        Some(inode) => names.insert(file, inode),
        None => names.remove(&file),
    };
}
