//! The log's writer: lays records out in segments and keeps the segments in motion.

use super::format::{self, Chain, FLUSH_HEADER, TAIL};
use super::ledger::Ledger;
use super::recover::{self, Recovered};
use super::{BLOCK, DiskOp, FileName, LogEntry, LogRecord, RECORD_BYTES_MAX, WalError, WalIdentity, WalLimits};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Dead segments that are kept to be recycled; more are deleted. One flush of the store kills a few at once, and a new segment must be
/// filled with zeroes before it is used, which costs more than it holds.
const DEAD_KEPT: usize = 3;

/// The writer's state. See the module's page for what it guarantees.
#[derive(Clone, Debug)]
pub struct Wal {
    identity: WalIdentity,
    limits: WalLimits,
    ledger: Ledger,
    chain: Chain,
    /// Every segment that holds flushes, with its size in bytes. The last one is current.
    segments: BTreeMap<u64, u32>,
    /// Where the next flush goes in the current segment.
    position: usize,
    /// The segment behind the current one is ready for flushes.
    prepared: bool,
    /// A [`Preparation`] is being executed.
    preparing: bool,
    /// The last flush carried no records, so every record lies below a durable watermark.
    marked: bool,
}

/// Disk operations that get the next segment ready and give dead ones back. They touch nothing that a flush touches, so they may run
/// on another thread while flushes go on; after all of them succeeded, [`Wal::finish_preparation`] is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// In order. Only [`DiskOp::Create`] needs space, so only that one may find the disk full; it may then be repeated.
    pub ops: Vec<DiskOp>,
    ready: bool,
}

/// Figures about the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Segments that hold flushes.
    pub segments: usize,
    /// Bytes of all segments, the prepared one included.
    pub disk_bytes: u64,
    /// Bytes of records that are still needed.
    pub live_bytes: u64,
    /// Flushes since the log was created.
    pub flushes: u64,
}

impl Wal {
    /// Makes a new log in a directory that holds none. It exists once all operations were executed: a directory in which they were not
    /// is not a log, and [`Wal::recover`] says [`WalError::Empty`] or recovers an empty one.
    #[must_use]
    pub fn create(identity: WalIdentity, limits: WalLimits) -> (Self, Vec<DiskOp>) {
        let mut wal = Self::assemble(identity, limits, Ledger::default(), Chain { next_flush: 1, ..Chain::default() });
        let mut ops = wal.create_segment(1);
        wal.segments.insert(1, limits.segment_bytes);
        wal.append(&[], &mut ops);
        (wal, ops)
    }

    /// Reads a log from the contents of its files and says what it holds, where to go on, and what must be executed before anything
    /// else: what was read is made durable, and a torn tail is overwritten.
    pub fn recover(
        identity: WalIdentity,
        limits: WalLimits,
        files: Vec<(FileName, Bytes)>,
    ) -> Result<(Self, Recovered, Vec<DiskOp>), WalError> {
        let sizes: BTreeMap<u64, u32> = files.iter().map(|(file, bytes)| (file.0, bytes.len() as u32)).collect();
        let read = recover::read(&identity, &files)?;
        let mut wal = Self::assemble(identity, limits, read.ledger, read.chain);
        let mut ops = Vec::new();
        for (&segment, &size) in &sizes {
            if (read.first..=read.last).contains(&segment) {
                wal.segments.insert(segment, size);
            } else if segment == read.last + 1 && size == limits.segment_bytes && read.ready.contains(&segment) {
                wal.prepared = true;
                // A process that was killed may have left its header in the page cache alone.
                ops.push(DiskOp::Sync { file: FileName(segment) });
            } else {
                ops.push(DiskOp::Delete { file: FileName(segment) });
            }
        }
        wal.position = read.position;
        ops.push(DiskOp::SyncDir);
        ops.push(DiskOp::Sync { file: FileName(read.last) });
        wal.append(&[], &mut ops);
        Ok((wal, read.recovered, ops))
    }

    fn assemble(identity: WalIdentity, limits: WalLimits, ledger: Ledger, chain: Chain) -> Self {
        let record_bytes = limits.record_bytes as usize;
        let largest = BLOCK + format::flush_bytes(format::record_bytes(record_bytes));
        assert!(record_bytes <= RECORD_BYTES_MAX);
        let segment_bytes = limits.segment_bytes as usize;
        assert!(segment_bytes.is_multiple_of(BLOCK) && largest <= segment_bytes);
        Self {
            identity,
            limits,
            ledger,
            chain,
            segments: BTreeMap::new(),
            position: BLOCK,
            prepared: false,
            preparing: false,
            marked: false,
        }
    }

    /// Appends a batch as one flush, or as several when it does not fit into one segment, and forces it to disk. The records are
    /// durable when all operations were executed, in order. An empty batch still writes a flush.
    ///
    /// # Panics
    /// If a payload is larger than the limit, if an entry would leave a hole in its shard's log, if a repair is not of an entry
    /// that rotted, or if a segment is needed beyond [`Wal::fitting`] while it is being prepared.
    pub fn append(&mut self, batch: &[LogRecord], out: &mut Vec<DiskOp>) {
        for record in batch {
            assert!(record.payload_len() <= self.limits.record_bytes as usize, "a record exceeds the log's limit");
        }
        let repairs = |record: &LogRecord| matches!(record, LogRecord::Repair(_));
        let records: Vec<_> = batch.iter().map(|record| (record, repairs(record))).collect();
        self.write(&records, out);
    }

    /// How many of the first records [`Wal::append`] can take without a segment that is not prepared yet. A batch may be appended in
    /// pieces.
    #[must_use]
    pub fn fitting(&self, batch: &[LogRecord]) -> usize {
        let sizes: Vec<usize> = batch.iter().map(|record| format::record_bytes(record.payload_len())).collect();
        let here = fitting(&sizes, self.room());
        let next = if self.prepared { fitting(&sizes[here..], self.limits.segment_bytes as usize - BLOCK) } else { 0 };
        here + next
    }

    /// Housekeeping for a driver that executes everything in order: prepares the next segment, recycles or deletes dead ones, and
    /// writes live records of the oldest segment forward when too much space is held by too little.
    pub fn upkeep(&mut self, out: &mut Vec<DiskOp>) {
        if let Some(preparation) = self.prepare() {
            out.extend_from_slice(&preparation.ops);
            self.finish_preparation(&preparation);
        }
        self.rewrite(out);
    }

    /// Writes live records of the oldest segment forward, one flush, if that is due and the next segment is prepared. Says whether
    /// it did.
    pub fn rewrite(&mut self, out: &mut Vec<DiskOp>) -> bool {
        let used: u64 = self.segments.values().map(|size| u64::from(*size)).sum();
        let oldest = self.oldest_needed();
        let due = self.segments.range(oldest..).count() > self.limits.segments_target as usize
            && self.ledger.live_bytes() * 2 < used;
        if !due || !self.prepared || oldest >= self.current() {
            return false;
        }
        let records = self.ledger.live_in(oldest, self.limits.rewrite_bytes as usize);
        if records.is_empty() {
            // What is left in it rotted, and must be repaired first.
            return false;
        }
        let records: Vec<_> = records.iter().map(|record| (record, true)).collect();
        self.write(&records, out);
        true
    }

    /// Puts back an entry that [rotted](super::RecoveredLog::rotted), as it was fetched from another replica. Says whether it was that
    /// entry, and changes nothing if not. It is durable when all operations were executed.
    pub fn repair(&mut self, entry: &LogEntry, out: &mut Vec<DiskOp>) -> bool {
        let is_it = self.is_rotted(entry);
        if is_it {
            self.append(&[LogRecord::Repair(entry.clone())], out);
        }
        is_it
    }

    fn is_rotted(&self, entry: &LogEntry) -> bool {
        self.ledger.rotted(entry.shard, entry.index).is_some_and(|rotted| rotted.was(entry))
    }

    /// Starts getting the next segment ready, if it is not, and gives back dead segments. Call it only when the operations of all
    /// appends so far were executed.
    pub fn prepare(&mut self) -> Option<Preparation> {
        if self.preparing {
            return None;
        }
        let oldest = self.oldest_needed();
        let mut ops = Vec::new();
        let ready = !self.prepared;
        if ready {
            let next = self.current() + 1;
            ops = match self.segments.first_key_value() {
                Some((&dead, &size)) if dead < oldest && size == self.limits.segment_bytes => {
                    self.segments.remove(&dead);
                    self.recycle_segment(dead, next)
                }
                _ => self.create_segment(next),
            };
        }
        while self.segments.range(..oldest).count() > DEAD_KEPT {
            let Some((dead, _)) = self.segments.pop_first() else { break };
            // One by one, so that what is left is always a contiguous end of the stream.
            ops.extend([DiskOp::Delete { file: FileName(dead) }, DiskOp::SyncDir]);
        }
        self.preparing = !ops.is_empty();
        self.preparing.then_some(Preparation { ops, ready })
    }

    /// Says that every operation of a preparation was executed.
    pub fn finish_preparation(&mut self, preparation: &Preparation) {
        assert!(self.preparing, "no preparation is under way");
        self.preparing = false;
        self.prepared |= preparation.ready;
    }

    /// Puts the last records below a durable watermark, if they are not. For idle moments: afterwards any damage to them is told apart
    /// from a torn write.
    pub fn mark_durable(&mut self, out: &mut Vec<DiskOp>) {
        if !self.marked && self.room() >= format::flush_bytes(0) {
            self.append(&[], out);
        }
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        let used: u64 = self.segments.values().map(|size| u64::from(*size)).sum();
        let prepared = if self.prepared { u64::from(self.limits.segment_bytes) } else { 0 };
        WalStats {
            segments: self.segments.len(),
            disk_bytes: used + prepared,
            live_bytes: self.ledger.live_bytes(),
            flushes: self.chain.next_flush - 1,
        }
    }

    fn current(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(segment, _)| *segment)
    }

    fn room(&self) -> usize {
        let size = self.segments.last_key_value().map_or(0, |(_, size)| *size as usize);
        size.saturating_sub(self.position)
    }

    /// The lowest segment that recovery needs.
    fn oldest_needed(&self) -> u64 {
        self.ledger.oldest().unwrap_or(u64::MAX).min(self.current())
    }

    fn write(&mut self, records: &[(&LogRecord, bool)], out: &mut Vec<DiskOp>) {
        let sizes: Vec<usize> = records.iter().map(|(r, _)| format::record_bytes(r.payload_len())).collect();
        let mut done = 0;
        loop {
            let count = fitting(&sizes[done..], self.room());
            let nothing_fits = count == 0 && (done < records.len() || self.room() < format::flush_bytes(0));
            if nothing_fits {
                self.advance(out);
                continue;
            }
            self.write_flush(&records[done..done + count], out);
            done += count;
            if done == records.len() {
                break;
            }
        }
        self.marked = records.is_empty();
    }

    fn write_flush(&mut self, records: &[(&LogRecord, bool)], out: &mut Vec<DiskOp>) {
        let (segment, offset) = (self.current(), self.position);
        for (record, rewritten) in records {
            if let (LogRecord::Entry(entry), false) = (record, rewritten) {
                let next = self.ledger.next_index(entry.shard);
                assert!(entry.index <= next, "{}: entry {} leaves a hole at {next}", entry.shard, entry.index);
            }
            if let LogRecord::Repair(entry) = record {
                assert!(self.is_rotted(entry), "{}: entry {} is not one that rotted", entry.shard, entry.index);
            }
            self.ledger.apply(record, *rewritten, segment);
        }
        let oldest = self.oldest_needed();
        let bytes = format::encode_flush(&self.identity, segment, offset, oldest, &mut self.chain, records);
        assert!(bytes.len() <= self.room() && bytes.len() >= FLUSH_HEADER + TAIL);
        self.position += bytes.len();
        let file = FileName(segment);
        out.push(DiskOp::Write { file, offset: offset as u64, bytes });
        out.push(DiskOp::Sync { file });
    }

    /// Goes on in the next segment, which is prepared here and now if nobody did it ahead.
    fn advance(&mut self, out: &mut Vec<DiskOp>) {
        assert!(self.prepared || !self.preparing, "the next segment is still being prepared");
        if !self.prepared
            && let Some(preparation) = self.prepare()
        {
            out.extend_from_slice(&preparation.ops);
            self.finish_preparation(&preparation);
        }
        assert!(std::mem::take(&mut self.prepared));
        self.segments.insert(self.current() + 1, self.limits.segment_bytes);
        self.position = BLOCK;
    }

    fn create_segment(&self, segment: u64) -> Vec<DiskOp> {
        let file = FileName(segment);
        vec![
            DiskOp::Create { file, bytes: u64::from(self.limits.segment_bytes) },
            self.header(segment),
            DiskOp::Sync { file },
            DiskOp::SyncDir,
        ]
    }

    fn recycle_segment(&self, dead: u64, segment: u64) -> Vec<DiskOp> {
        let file = FileName(segment);
        vec![
            DiskOp::Rename { from: FileName(dead), to: file },
            DiskOp::SyncDir,
            self.header(segment),
            DiskOp::Sync { file },
        ]
    }

    fn header(&self, segment: u64) -> DiskOp {
        let bytes = format::encode_segment_header(&self.identity, segment, self.limits.segment_bytes);
        DiskOp::Write { file: FileName(segment), offset: 0, bytes }
    }
}

/// How many of the first records fit into one flush of at most `room` bytes.
fn fitting(sizes: &[usize], room: usize) -> usize {
    let mut bytes = 0;
    sizes
        .iter()
        .take_while(|size| {
            bytes += **size;
            format::flush_bytes(bytes) <= room
        })
        .count()
}
