//! A disk that keeps only what was synced, and of the rest whatever it likes.
//!
//! A crash keeps, of the sectors written since a file's last sync, a random subset; and of the directory changes since the last directory
//! sync, a random prefix. Sectors are 512 bytes and are never themselves torn.

use bytes::Bytes;
use quorate_env::Rng;
use quorate_storage::wal::{DiskOp, FileName};
use std::collections::{BTreeMap, BTreeSet};

const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug, Default)]
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
