//! Bugs that a log might have, put between the real log and its disk: each must be found, or the checks cannot fail.

use super::ME;
use crate::wal::format::{self, FLUSH_HEADER, FlushHeader, RECORD_HEADER};
use crate::wal::{BLOCK, DiskOp, FileName};
use bytes::Bytes;
use quorate_env::Writer;
use quorate_env::checksum::checksum;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A flush is written and not synced.
    SkipSync,
    /// A file is synced, and then the flush is written.
    SyncBeforeWrite,
    /// A segment is renamed, and the directory is not synced.
    ForgetSyncDir,
    /// A flush claims that it is durable itself.
    WatermarkTooHigh,
    /// A payload is believed although its checksum fails.
    AcceptBadChecksum,
    /// What recovery has to do itself before anything is written is not done.
    ForgetRepair,
}

impl Planted {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::SkipSync,
        Self::SyncBeforeWrite,
        Self::ForgetSyncDir,
        Self::WatermarkTooHigh,
        Self::AcceptBadChecksum,
        Self::ForgetRepair,
    ];
}

/// Carries a bug, or none.
#[derive(Clone, Debug)]
pub(super) struct Saboteur {
    bug: Option<Planted>,
    /// Number and checksum of the last flush header that was changed: the next flush names it.
    last: Option<(u64, u64)>,
}

impl Saboteur {
    pub fn new(bug: Option<Planted>) -> Self {
        Self { bug, last: None }
    }

    /// What reaches the disk of what the log asked for.
    pub fn pass_on(&mut self, mut ops: Vec<DiskOp>) -> Vec<DiskOp> {
        match self.bug {
            Some(Planted::SkipSync) => drop_after(&mut ops, is_flush, |op| matches!(op, DiskOp::Sync { .. })),
            Some(Planted::ForgetSyncDir) => {
                let is_rename = |op: &DiskOp| matches!(op, DiskOp::Rename { .. });
                drop_after(&mut ops, is_rename, |op| *op == DiskOp::SyncDir);
            }
            Some(Planted::SyncBeforeWrite) => {
                for at in 1..ops.len() {
                    if is_flush(&ops[at - 1]) && matches!(ops[at], DiskOp::Sync { .. }) {
                        ops.swap(at - 1, at);
                    }
                }
            }
            Some(Planted::WatermarkTooHigh) => ops.iter_mut().for_each(|op| self.raise_watermark(op)),
            Some(Planted::AcceptBadChecksum | Planted::ForgetRepair) | None => {}
        }
        ops
    }

    /// What is done of what recovery asks for.
    pub fn repair(&self, ops: Vec<DiskOp>) -> Vec<DiskOp> {
        if self.bug == Some(Planted::ForgetRepair) { Vec::new() } else { ops }
    }

    fn raise_watermark(&mut self, op: &mut DiskOp) {
        let DiskOp::Write { file, offset, bytes } = op else { return };
        let Some(mut header) = flush_at(*file, bytes, *offset as usize) else { return };
        header.watermark = header.seq;
        if let Some((seq, checksum)) = self.last
            && seq + 1 == header.seq
        {
            header.previous = checksum;
        }
        let mut changed = bytes.to_vec();
        let checksum = write_header(&mut changed, 0, *offset as usize, &header);
        self.last = Some((header.seq, checksum));
        *bytes = changed.into();
    }

    /// What recovery sees of what is on the disk.
    pub fn read(&self, files: &mut [(FileName, Bytes)]) {
        if self.bug != Some(Planted::AcceptBadChecksum) {
            return;
        }
        for (file, bytes) in files {
            for offset in (BLOCK..bytes.len()).step_by(BLOCK) {
                if let Some(header) = FlushHeader::decode(&ME, *file, bytes, offset)
                    && !header.body_is_whole(&ME, bytes, offset)
                    && let Some(accepted) = with_checksums_that_fit(bytes, &header, offset)
                {
                    *bytes = accepted;
                }
            }
        }
    }
}

/// Drops each operation that `is_victim` and comes right behind one that `is_before`.
fn drop_after(ops: &mut Vec<DiskOp>, is_before: impl Fn(&DiskOp) -> bool, is_victim: impl Fn(&DiskOp) -> bool) {
    for at in (1..ops.len()).rev() {
        if is_before(&ops[at - 1]) && is_victim(&ops[at]) {
            ops.remove(at);
        }
    }
}

fn is_flush(op: &DiskOp) -> bool {
    matches!(op, DiskOp::Write { offset, .. } if *offset > 0)
}

/// The header of a flush that is about to be written at `offset`.
fn flush_at(file: FileName, bytes: &[u8], offset: usize) -> Option<FlushHeader> {
    let mut segment = vec![0; offset];
    segment.extend_from_slice(bytes);
    FlushHeader::decode(&ME, file, &segment, offset)
}

fn write_header(bytes: &mut [u8], at: usize, offset: usize, header: &FlushHeader) -> u64 {
    let mut w = Writer::new();
    let checksum = header.encode(&mut w, format::place(&ME, header.segment, offset));
    bytes[at..at + FLUSH_HEADER].copy_from_slice(w.as_slice());
    checksum
}

/// The segment as a reader believes it that does not look at payload checksums; `None` if a record's header is bad.
fn with_checksums_that_fit(bytes: &Bytes, header: &FlushHeader, offset: usize) -> Option<Bytes> {
    let mut changed = bytes.to_vec();
    let mut at = offset + FLUSH_HEADER;
    for _ in 0..header.records {
        let seed = format::place(&ME, header.segment, at);
        let head = changed.get(at..at + RECORD_HEADER)?;
        let sum = u64::from_le_bytes(head[RECORD_HEADER - 8..].try_into().ok()?);
        if sum != checksum(seed, &head[..RECORD_HEADER - 8]) {
            return None;
        }
        let end = at + RECORD_HEADER + u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
        let fits = checksum(seed, changed.get(at + RECORD_HEADER..end)?);
        changed.get_mut(end..end + 8)?.copy_from_slice(&fits.to_le_bytes());
        at = end + 8;
    }
    let mut header = *header;
    let seed = format::place(&ME, header.segment, offset + FLUSH_HEADER);
    header.body_checksum = checksum(seed, header.body(&changed, offset));
    write_header(&mut changed, offset, offset, &header);
    Some(changed.into())
}
