//! Reading a log back, and telling apart what was torn from what rotted.
//!
//! Flushes are numbered without gaps, and flush n is written only after flush n - 1 was synced. So any flush beyond n proves that n
//! was durable, and says so in its watermark. What cannot be read is therefore
//!
//! - **rot**, if a later flush exists anywhere in the log;
//! - **rot**, if one flipped bit explains it: a crash leaves whole sectors unwritten, it does not flip a bit;
//! - **torn**, otherwise: the last flush, never acknowledged.
//!
//! What is torn is cut. What rotted is read as far as its copies and parities go (`salvage`), and what they do not give back is named, so that it
//! can be fetched from another replica. A log of which not even the names can be read is refused.

use super::format::{self, Chain, FlushHeader, RecordName, Tail};
use super::ledger::Ledger;
use super::salvage::{self, Salvaged};
use super::{BLOCK, FORMAT_VERSION, FileName, HardState, LogEntry, WalError, WalIdentity};
use bytes::Bytes;
use quorate_env::checksum::checksum;
use quorate_env::{LogIndex, ShardId, Term};
use std::collections::{BTreeMap, BTreeSet};

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Each shard's log.
    pub shards: BTreeMap<ShardId, RecoveredLog>,
    /// Where a torn flush was cut off, if one was: the file and the byte offset in it.
    pub torn: Option<(FileName, u64)>,
    /// Where durable bytes have changed. What is lost by it is named in `shards`; everything else could be restored.
    pub damage: Vec<Damage>,
    /// Flushes read.
    pub flushes: u64,
}

impl Recovered {
    /// Fails if something acknowledged is lost here, for those who cannot fetch it from another replica.
    pub fn require_whole(&self) -> Result<(), WalError> {
        let lost = self.shards.iter().find_map(|(shard, log)| Some(log.rotted.first()?.lost(*shard)));
        lost.map_or_else(|| self.require_promises(), Err)
    }

    /// Fails if promises are lost: no other replica has those.
    pub fn require_promises(&self) -> Result<(), WalError> {
        let lost = self.shards.iter().find_map(|(shard, log)| Some((*shard, log.promises_lost?)));
        lost.map_or(Ok(()), |(shard, PromisesLost { term, place: (file, offset), .. })| {
            Err(WalError::Rot { file, offset, shard: Some(shard), index: None, term: Some(term) })
        })
    }
}

/// One shard's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredLog {
    /// The last promises, if any were written and they can be read.
    pub hard_state: Option<HardState>,
    /// The last index (and its term) before the log's first entry; 0 if the log was never compacted.
    pub start: (LogIndex, Term),
    /// Contiguous from `start` on, but for those that rotted.
    pub entries: Vec<LogEntry>,
    /// Entries that this log has and cannot read, in the order of their indexes. They were acknowledged: until each is
    /// [repaired](super::Wal::repair) or compacted, the replica must neither lead nor vote as if it did not have them.
    pub rotted: Vec<Rotted>,
    /// The last promises cannot be read. A replica may go on in a later term, in which it has promised nothing.
    pub promises_lost: Option<PromisesLost>,
}

/// An entry whose payload rotted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotted {
    /// Its position.
    pub index: LogIndex,
    /// The term it was proposed in.
    pub term: Term,
    /// Of the payload that it had.
    pub bytes: u32,
    /// The file and the offset in it.
    pub place: (FileName, u64),
    pub(super) name: RecordName,
    /// The seed of the payload's checksum; none if that checksum may itself be what rotted.
    pub(super) seed: Option<u64>,
}

impl Rotted {
    /// Says that it cannot be fetched from anywhere.
    #[must_use]
    pub fn lost(&self, shard: ShardId) -> WalError {
        let (file, offset) = self.place;
        WalError::Rot { file, offset, shard: Some(shard), index: Some(self.index), term: Some(self.term) }
    }

    /// What its payload was, in the words of consensus.
    #[must_use]
    pub fn entry_kind(&self) -> u8 {
        self.name.entry_kind
    }

    /// Whether an entry is the one that was here: it has its index and term, which in a replicated log name one entry, and its checksum
    /// where that is known.
    #[must_use]
    pub fn was(&self, entry: &LogEntry) -> bool {
        let same_name = (self.index, self.term, self.name.entry_kind) == (entry.index, entry.term, entry.kind);
        let matches = |seed| self.name.checksum == checksum(seed, &entry.payload);
        same_name && self.bytes as usize == entry.payload.len() && self.seed.is_none_or(matches)
    }
}

/// A hard state that rotted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromisesLost {
    /// Its term. The replica had promised nothing in later ones.
    pub term: Term,
    /// The highest index that it knew to be committed.
    pub commit: LogIndex,
    /// The file and the offset in it.
    pub place: (FileName, u64),
}

/// Durable bytes that have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: FileName,
    /// Where the damaged part begins, in bytes.
    pub offset: u64,
    /// What was hit.
    pub part: Part,
}

/// A part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A segment's header.
    SegmentHeader,
    /// A flush's header.
    FlushHeader,
    /// Records, or the second copy of their names.
    Records,
    /// A flush's tail: one bit of it. A tail that is missing may never have been written.
    Tail,
}

/// What the writer goes on from.
pub(super) struct Read {
    pub ledger: Ledger,
    pub chain: Chain,
    /// The lowest segment with flushes.
    pub first: u64,
    /// The segment of the last flush.
    pub last: u64,
    /// Where the last flush ends.
    pub position: usize,
    /// Segments whose header is in order.
    pub ready: BTreeSet<u64>,
    pub recovered: Recovered,
}

/// A flush, and how well it can be read.
#[derive(Clone)]
pub(super) struct Flush {
    pub file: FileName,
    /// Of the whole segment.
    pub bytes: Bytes,
    pub offset: usize,
    /// As it was read, or as much of it as the tail told.
    pub header: FlushHeader,
    pub condition: Condition,
}

/// How well a flush can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Whole,
    /// The header was mended: one bit had flipped.
    HeaderMended,
    /// Only the tail says that there was a flush.
    HeaderLost,
    /// The body does not match its checksum.
    BodyHit,
}

impl Flush {
    pub fn end(&self) -> usize {
        self.offset + self.header.disk_bytes()
    }

    fn rot(&self, offset: usize) -> WalError {
        rot(self.file, offset)
    }
}

pub(super) fn read(identity: &WalIdentity, files: &[(FileName, Bytes)]) -> Result<Read, WalError> {
    let mut files: Vec<&(FileName, Bytes)> = files.iter().collect();
    files.sort_by_key(|(file, _)| *file);
    let ready = check_headers(identity, &files)?;
    let found = find_flushes(identity, &files);
    let flushes = Search::new(identity, &files, &found).run(&found)?;
    let (Some(first), Some(last)) = (flushes.first(), flushes.last()) else { return Err(WalError::Empty) };
    if first.file.0 > last.header.oldest {
        return Err(beginning_is_gone(&files, FileName(last.header.oldest)));
    }
    // A segment is made only when the one before it holds a durable flush.
    if let Some((highest, _)) = files.last()
        && highest.0 > last.file.0 + 1
    {
        return Err(beginning_is_gone(&files, FileName(last.file.0 + 1)));
    }

    let mut ledger = Ledger::default();
    let mut chain = Chain { next_flush: last.header.seq + 1, flush: last.header.checksum, record: 0 };
    let mut previous = None;
    for flush in &flushes {
        for salvaged in salvage::records(identity, flush, &mut previous)? {
            match salvaged {
                Salvaged::Record { record, rewritten } => ledger.apply(&record, rewritten, flush.file.0),
                Salvaged::Entry(shard, rotted) => ledger.apply_rotted(shard, rotted),
                Salvaged::Promises(shard, lost) => ledger.lose_promises(shard, lost),
            }
        }
    }
    chain.record = previous.unwrap_or(0);
    ledger.detach_payloads();
    let next = found.iter().find(|found| found.header.seq == chain.next_flush);
    let recovered = Recovered {
        shards: ledger.logs()?,
        torn: next.map(|torn| (torn.file, torn.offset as u64)),
        damage: damage(identity, &flushes, &ready),
        flushes: flushes.len() as u64,
    };
    Ok(Read { ledger, chain, first: first.file.0, last: last.file.0, position: last.end(), ready, recovered })
}

fn check_headers(identity: &WalIdentity, files: &[&(FileName, Bytes)]) -> Result<BTreeSet<u64>, WalError> {
    let mut ready = BTreeSet::new();
    for (file, bytes) in files {
        let Some(header) = format::decode_segment_header(bytes) else { continue };
        if header.version > FORMAT_VERSION {
            return Err(WalError::NewerFormat { file: *file, found: header.version });
        }
        if header.identity != *identity {
            let WalIdentity { cluster, node, incarnation } = header.identity;
            return Err(WalError::Foreign { file: *file, cluster, node, incarnation });
        }
        if header.segment == file.0 {
            ready.insert(file.0);
        }
    }
    Ok(ready)
}

/// Every flush whose header can be read, in the order of their places, without looking for headers inside flushes.
fn find_flushes(identity: &WalIdentity, files: &[&(FileName, Bytes)]) -> Vec<Flush> {
    let mut found = Vec::new();
    for (file, bytes) in files {
        let mut offset = BLOCK;
        while offset < bytes.len() {
            match FlushHeader::decode(identity, *file, bytes, offset) {
                Some(header) => {
                    let (bytes, condition) = (bytes.clone(), Condition::Whole);
                    found.push(Flush { file: *file, bytes, offset, header, condition });
                    offset += header.disk_bytes();
                }
                None => offset += BLOCK,
            }
        }
    }
    found
}

/// Puts together the unbroken sequence of flushes.
struct Search<'a> {
    identity: &'a WalIdentity,
    files: &'a [&'a (FileName, Bytes)],
    /// The highest flush that another one says was durable.
    watermark: u64,
    chosen: Vec<Flush>,
    /// The flush that should come next was found, but is not whole: torn, unless a later one shows up.
    broken: Option<Flush>,
}

impl<'a> Search<'a> {
    fn new(identity: &'a WalIdentity, files: &'a [&'a (FileName, Bytes)], found: &[Flush]) -> Self {
        let watermark = found.iter().map(|flush| flush.header.watermark).max().unwrap_or(0);
        Self { identity, files, watermark, chosen: Vec::new(), broken: None }
    }

    fn run(mut self, found: &[Flush]) -> Result<Vec<Flush>, WalError> {
        for flush in found {
            self.fill_up_to(flush)?;
            if flush.header.seq == self.expected(flush) {
                self.take(flush);
            }
            // A lower number is left over from a write that a crash cut short, whose number was used again elsewhere.
        }
        if let Some(last) = self.mended_end()? {
            self.chosen.push(last);
        }
        Ok(self.chosen)
    }

    /// The number of the next flush; where the log begins, that of the flush at hand.
    fn expected(&self, flush: &Flush) -> u64 {
        let first = || self.broken.as_ref().map_or(flush.header.seq, |broken| broken.header.seq);
        self.chosen.last().map_or_else(first, |last| last.header.seq + 1)
    }

    /// Puts what rotted between the last chosen flush and `flush` into its place: `flush` proves that it was durable.
    fn fill_up_to(&mut self, flush: &Flush) -> Result<(), WalError> {
        // Where the log begins, a flush starts right behind the segment's header.
        if self.chosen.is_empty() && self.broken.is_none() && flush.offset != BLOCK {
            let lost = self.lost_at(flush.file, BLOCK, flush, |seq| seq < flush.header.seq);
            self.chosen.push(lost.ok_or_else(|| flush.rot(BLOCK))?);
        }
        while flush.header.seq > self.expected(flush) {
            let next = match self.broken.take() {
                Some(broken) => Flush { condition: Condition::BodyHit, ..broken },
                None => self.lost_before(flush)?,
            };
            self.chosen.push(next);
        }
        Ok(())
    }

    fn take(&mut self, flush: &Flush) {
        let previous = self.chosen.last().filter(|last| last.condition != Condition::HeaderLost);
        let linked = previous.is_none_or(|last| last.header.checksum == flush.header.previous);
        let (identity, header) = (self.identity, &flush.header);
        if linked && header.body_is_whole(identity, &flush.bytes, flush.offset) {
            self.chosen.push(flush.clone());
            self.broken = None;
        } else if header.seq <= self.watermark
            || (linked && header.with_mended_body(identity, &flush.bytes, flush.offset).is_some())
        {
            self.chosen.push(Flush { condition: Condition::BodyHit, ..flush.clone() });
            self.broken = None;
        } else {
            self.broken = Some(flush.clone());
        }
    }

    /// The flush behind the last chosen one, whose header cannot be read.
    fn lost_before(&self, flush: &Flush) -> Result<Flush, WalError> {
        let Some(last) = self.chosen.last() else { return Err(flush.rot(BLOCK)) };
        let expected = |seq: u64| seq == last.header.seq + 1;
        let next = FileName(last.file.0 + 1);
        let lost =
            self.lost_at(last.file, last.end(), flush, expected).or_else(|| self.lost_at(next, BLOCK, flush, expected));
        lost.ok_or_else(|| lost_between(self.files, last, flush))
    }

    /// The flush that begins at `offset` of `file` and ends before `flush`: with its header mended, or as its tail names it.
    fn lost_at(&self, file: FileName, offset: usize, flush: &Flush, is_it: impl Fn(u64) -> bool) -> Option<Flush> {
        let (_, bytes) = self.files.iter().find(|(name, _)| *name == file)?;
        let mended = FlushHeader::mended(self.identity, file, bytes, offset).filter(|header| is_it(header.seq));
        if let Some(header) = mended {
            return Some(Flush {
                file,
                bytes: bytes.clone(),
                offset,
                header,
                condition: self.of_mended(&header, bytes, offset),
            });
        }
        let limit = if file == flush.file { flush.offset } else { bytes.len() };
        let mut ends = (offset + BLOCK..=limit).step_by(BLOCK);
        let (end, tail) = ends.find_map(|end| {
            let tail = Tail::decode(self.identity, file.0, bytes, end).filter(|tail| is_it(tail.seq))?;
            Some((end, tail))
        })?;
        let header = tail.header(file.0, offset, end, &tail.names(bytes)?)?;
        Some(Flush { file, bytes: bytes.clone(), offset, header, condition: Condition::HeaderLost })
    }

    fn of_mended(&self, header: &FlushHeader, bytes: &Bytes, offset: usize) -> Condition {
        let whole = header.body_is_whole(self.identity, bytes, offset);
        if whole { Condition::HeaderMended } else { Condition::BodyHit }
    }

    /// Nothing readable follows the last flush. Looks once more at the two places where its successor would begin: one flipped bit in
    /// its header must not make it vanish.
    fn mended_end(&self) -> Result<Option<Flush>, WalError> {
        let last = self.chosen.last();
        let next = last.map_or(1, |last| last.header.seq + 1);
        for (file, bytes) in self.files {
            let offset = match last {
                Some(last) if *file < last.file => continue,
                Some(last) if *file == last.file => last.end(),
                _ => BLOCK,
            };
            let mended = FlushHeader::mended(self.identity, *file, bytes, offset).filter(|header| header.seq == next);
            if let Some(header) = mended {
                // More than the one bit is wrong: whether it was ever durable cannot be known.
                if !header.body_is_whole(self.identity, bytes, offset) {
                    return Err(rot(*file, offset));
                }
                let (file, bytes, condition) = (*file, bytes.clone(), Condition::HeaderMended);
                return Ok(Some(Flush { file, bytes, offset, header, condition }));
            }
        }
        Ok(None)
    }
}

/// Everything that is not as it was written, of what the log is made of.
fn damage(identity: &WalIdentity, flushes: &[Flush], ready: &BTreeSet<u64>) -> Vec<Damage> {
    let mut damage = Vec::new();
    let mut headers_seen = BTreeSet::new();
    for flush in flushes {
        let mut hit = |offset: usize, part| damage.push(Damage { file: flush.file, offset: offset as u64, part });
        if headers_seen.insert(flush.file) && !ready.contains(&flush.file.0) {
            hit(0, Part::SegmentHeader);
        }
        match flush.condition {
            Condition::Whole => {}
            Condition::HeaderMended | Condition::HeaderLost => hit(flush.offset, Part::FlushHeader),
            Condition::BodyHit => hit(flush.offset, Part::Records),
        }
        let (segment, bytes, end) = (flush.file.0, &flush.bytes, flush.end());
        if Tail::decode(identity, segment, bytes, end).is_none() && Tail::is_one_bit_away(identity, segment, bytes, end)
        {
            hit(flush.end() - format::TAIL, Part::Tail);
        }
    }
    damage
}

pub(super) fn rot(file: FileName, offset: usize) -> WalError {
    WalError::Rot { file, offset: offset as u64, shard: None, index: None, term: None }
}

fn lost_between(files: &[&(FileName, Bytes)], last: &Flush, flush: &Flush) -> WalError {
    let missing = (last.file.0 + 1..flush.file.0).find(|segment| files.iter().all(|(file, _)| file.0 != *segment));
    match missing {
        Some(segment) => WalError::Missing { file: FileName(segment) },
        None if last.end() + BLOCK <= last.bytes.len() => last.rot(last.end()),
        None => flush.rot(BLOCK),
    }
}

fn beginning_is_gone(files: &[&(FileName, Bytes)], oldest: FileName) -> WalError {
    if files.iter().any(|(file, _)| *file == oldest) { rot(oldest, BLOCK) } else { WalError::Missing { file: oldest } }
}
