//! Reading a log back, and telling apart what was torn from what rotted.
//!
//! Flushes are numbered without gaps, and flush n is written only after flush n - 1 was synced. So any flush beyond n proves that n
//! was durable, and says so in its watermark. What cannot be read is therefore
//!
//! - **rot**, if a later flush exists anywhere in the log;
//! - **rot**, if one flipped bit explains it: a crash leaves whole sectors unwritten, it does not flip a bit;
//! - **torn**, otherwise: the last flush, never acknowledged.

use super::format::{self, BadRecord, Chain, FlushHeader};
use super::ledger::Ledger;
use super::{BLOCK, FORMAT_VERSION, FileName, HardState, LogEntry, WalError, WalIdentity};
use bytes::Bytes;
use quorate_env::{LogIndex, ShardId, Term};
use std::collections::{BTreeMap, BTreeSet};

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Each shard's log.
    pub shards: BTreeMap<ShardId, RecoveredLog>,
    /// Where a torn flush was cut off, if one was: the file and the byte offset in it.
    pub torn: Option<(FileName, u64)>,
    /// Flushes read.
    pub flushes: u64,
}

/// One shard's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredLog {
    /// The last promises, if any were written.
    pub hard_state: Option<HardState>,
    /// The last index (and its term) before the log's first entry; 0 if the log was never compacted.
    pub start: (LogIndex, Term),
    /// Contiguous from `start` on.
    pub entries: Vec<LogEntry>,
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

/// A flush whose header can be read.
struct Found<'a> {
    file: FileName,
    bytes: &'a Bytes,
    offset: usize,
    header: FlushHeader,
}

impl Found<'_> {
    fn end(&self) -> usize {
        self.offset + self.header.disk_bytes()
    }
}

pub(super) fn read(identity: &WalIdentity, files: &[(FileName, Bytes)]) -> Result<Read, WalError> {
    let mut files: Vec<&(FileName, Bytes)> = files.iter().collect();
    files.sort_by_key(|(file, _)| *file);
    let ready = check_headers(identity, &files)?;
    let found = find_flushes(identity, &files);
    let flushes = choose_flushes(identity, &files, &found)?;
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
        let records = format::decode_records(identity, &flush.header, flush.bytes, flush.offset)
            .map_err(|bad| rot(flush.file, &bad))?;
        for record in records {
            if previous.is_some_and(|hash| hash != record.previous) {
                return Err(rot(flush.file, &BadRecord { offset: flush.offset, identity: None }));
            }
            previous = Some(record.hash);
            ledger.apply(&record.record, record.rewritten, flush.file.0);
        }
    }
    chain.record = previous.unwrap_or(0);
    ledger.detach_payloads();
    let next = found.iter().find(|found| found.header.seq == chain.next_flush);
    let recovered = Recovered {
        shards: ledger.logs()?,
        torn: next.map(|torn| (torn.file, torn.offset as u64)),
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

/// Every flush header in the files, in the order of their places, without looking for headers inside flushes.
fn find_flushes<'a>(identity: &WalIdentity, files: &[&'a (FileName, Bytes)]) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    for (file, bytes) in files {
        let mut offset = BLOCK;
        while offset < bytes.len() {
            match FlushHeader::decode(identity, *file, bytes, offset) {
                Some(header) => {
                    found.push(Found { file: *file, bytes, offset, header });
                    offset += header.disk_bytes();
                }
                None => offset += BLOCK,
            }
        }
    }
    found
}

/// The unbroken sequence of whole flushes, or the damage that breaks it.
fn choose_flushes<'a, 'b>(
    identity: &WalIdentity,
    files: &[&'a (FileName, Bytes)],
    found: &'b [Found<'a>],
) -> Result<Vec<&'b Found<'a>>, WalError> {
    let mut chosen: Vec<&Found<'a>> = Vec::new();
    let watermark = found.iter().map(|flush| flush.header.watermark).max().unwrap_or(0);
    // The flush that should come next was found, but is not whole.
    let mut broken: Option<&Found<'a>> = None;
    for flush in found {
        let (expected, previous) = match chosen.last() {
            Some(last) => (last.header.seq + 1, Some(last.header.checksum)),
            // Where the log begins, a flush starts right behind the segment's header.
            None if flush.offset != BLOCK && broken.is_none() => {
                return Err(rot(flush.file, &lost_before(identity, flush, BLOCK)));
            }
            None => (broken.map_or(flush.header.seq, |broken| broken.header.seq), None),
        };
        if flush.header.seq < expected {
            // Left over from a write that a crash cut short, whose number was used again elsewhere.
            continue;
        }
        if flush.header.seq > expected {
            return Err(match (broken, chosen.last()) {
                (Some(broken), _) => body_rot(identity, broken),
                (None, Some(last)) if last.file == flush.file => {
                    rot(flush.file, &lost_before(identity, flush, last.end()))
                }
                (None, Some(last)) => lost_between(files, last, flush),
                (None, None) => rot(flush.file, &BadRecord { offset: flush.offset, identity: None }),
            });
        }
        let linked = previous.is_none_or(|previous| previous == flush.header.previous);
        if linked && flush.header.body_is_whole(identity, flush.bytes, flush.offset) {
            chosen.push(flush);
            broken = None;
        } else if flush.header.seq <= watermark
            || (linked && flush.header.body_is_one_bit_away(identity, flush.bytes, flush.offset))
        {
            return Err(body_rot(identity, flush));
        } else {
            broken = Some(flush);
        }
    }
    check_the_end(identity, files, chosen.last().copied())?;
    Ok(chosen)
}

/// Nothing readable follows the last flush. Looks once more at the two places where its successor would begin.
fn check_the_end(
    identity: &WalIdentity,
    files: &[&(FileName, Bytes)],
    last: Option<&Found<'_>>,
) -> Result<(), WalError> {
    let next = last.map_or(1, |last| last.header.seq + 1);
    for (file, bytes) in files {
        let offset = match last {
            Some(last) if *file < last.file => continue,
            Some(last) if *file == last.file => last.end(),
            _ => BLOCK,
        };
        if FlushHeader::is_one_bit_away(identity, *file, bytes, offset, next) {
            return Err(rot(*file, &BadRecord { offset, identity: None }));
        }
    }
    Ok(())
}

fn rot(file: FileName, bad: &BadRecord) -> WalError {
    let (shard, index) = bad.identity.unzip();
    WalError::Rot { file, offset: bad.offset as u64, shard, index }
}

/// Names what was hit in a flush whose header is good and whose body is not.
fn body_rot(identity: &WalIdentity, flush: &Found<'_>) -> WalError {
    let bad = match format::decode_records(identity, &flush.header, flush.bytes, flush.offset) {
        Err(bad) => bad,
        // Every record is good: it was the second copy of the identities.
        Ok(_) => BadRecord { offset: flush.offset, identity: None },
    };
    rot(flush.file, &bad)
}

/// Names what was hit between `from` and a readable flush of the same segment: the tail in front of that flush tells.
fn lost_before(identity: &WalIdentity, flush: &Found<'_>, from: usize) -> BadRecord {
    let copy = format::identity_copy(identity, flush.file.0, flush.bytes, flush.offset, 0);
    BadRecord { offset: from, identity: copy }
}

fn lost_between(files: &[&(FileName, Bytes)], last: &Found<'_>, flush: &Found<'_>) -> WalError {
    let missing = (last.file.0 + 1..flush.file.0).find(|segment| files.iter().all(|(file, _)| file.0 != *segment));
    match missing {
        Some(segment) => WalError::Missing { file: FileName(segment) },
        None if last.end() + BLOCK <= last.bytes.len() => {
            rot(last.file, &BadRecord { offset: last.end(), identity: None })
        }
        None => rot(flush.file, &BadRecord { offset: BLOCK, identity: None }),
    }
}

fn beginning_is_gone(files: &[&(FileName, Bytes)], oldest: FileName) -> WalError {
    if files.iter().any(|(file, _)| *file == oldest) {
        rot(oldest, &BadRecord { offset: BLOCK, identity: None })
    } else {
        WalError::Missing { file: oldest }
    }
}
