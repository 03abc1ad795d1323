//! What can still be read of a flush that rotted.
//!
//! There are four sources, best first: the body as it is, if its checksum matches; the body with the one bit turned back that its parities
//! point at, if its checksum matches then; each record by itself, with the second copy of its name; each record by its own header.
//! Every payload that is handed out matches a 64-bit checksum that was seeded with its place. What matches none is named.

use super::format::{self, DecodedRecord, FLUSH_HEADER, RECORD_HEADER, RecordName, Tail};
use super::recover::{Condition, Flush, PromisesLost, Rotted, rot};
use super::{LogRecord, WalError, WalIdentity};
use quorate_env::ShardId;
use quorate_env::checksum::checksum;

/// A record, or what is left of it.
pub(super) enum Salvaged {
    /// It is whole.
    Record { record: LogRecord, rewritten: bool },
    /// The payload of an entry is gone.
    Entry(ShardId, Rotted),
    /// Promises are gone.
    Promises(ShardId, PromisesLost),
}

/// The records of a flush. `previous` is what the next record names the last one by, where that is known.
pub(super) fn records(
    identity: &WalIdentity,
    flush: &Flush,
    previous: &mut Option<u64>,
) -> Result<Vec<Salvaged>, WalError> {
    let whole = match flush.condition {
        Condition::Whole | Condition::HeaderMended => Some(flush.bytes.clone()),
        Condition::BodyHit => flush.header.with_mended_body(identity, &flush.bytes, flush.offset),
        Condition::HeaderLost => None,
    };
    let Some(bytes) = whole else { return one_by_one(identity, flush, previous) };
    let decoded = format::decode_records(identity, &flush.header, &bytes, flush.offset)
        .map_err(|offset| rot(flush.file, offset))?;
    let mut records = Vec::with_capacity(decoded.len());
    for DecodedRecord { record, rewritten, previous: named, hash } in decoded {
        if previous.is_some_and(|hash| hash != named) {
            return Err(rot(flush.file, flush.offset));
        }
        *previous = Some(hash);
        records.push(Salvaged::Record { record, rewritten });
    }
    Ok(records)
}

fn one_by_one(identity: &WalIdentity, flush: &Flush, previous: &mut Option<u64>) -> Result<Vec<Salvaged>, WalError> {
    let segment = flush.file.0;
    let copies = Tail::decode(identity, segment, &flush.bytes, flush.end()).and_then(|tail| tail.names(&flush.bytes));
    let end = flush.offset + FLUSH_HEADER + flush.header.identities_at();
    let mut at = flush.offset + FLUSH_HEADER;
    let mut records = Vec::new();
    for number in 0..flush.header.records as usize {
        let seed = format::place(identity, segment, at);
        let own = RecordName::of_header(&flush.bytes, at, end, seed);
        let copy = copies.as_ref().and_then(|copies| copies.get(number)).copied();
        // Without either nobody knows what was here, nor where the next record begins.
        let name = copy.or(own.map(|(name, _)| name)).filter(|name| at + name.disk_bytes() <= end);
        let name = name.ok_or_else(|| rot(flush.file, at))?;
        if let (Some(hash), Some((_, named))) = (*previous, own)
            && hash != named
        {
            return Err(rot(flush.file, at));
        }
        // A header that is gone was a function of the name and of the record before it.
        let header = match (own, *previous) {
            (Some(_), _) => flush.bytes[at..at + RECORD_HEADER].try_into().ok(),
            (None, Some(previous)) => Some(name.header(identity, seed, previous)),
            (None, None) => None,
        };
        *previous = header.map(|header: [u8; RECORD_HEADER]| name.hash(&header));
        records.push(record(flush, at, seed, name, copy.is_some())?);
        at += name.disk_bytes();
    }
    Ok(records)
}

/// `sure`: the name is the second copy, which has a checksum over its payload checksums.
fn record(flush: &Flush, at: usize, seed: u64, name: RecordName, sure: bool) -> Result<Salvaged, WalError> {
    let payload = flush.bytes.slice(at + RECORD_HEADER..at + RECORD_HEADER + name.bytes as usize);
    if checksum(seed, &payload) == name.checksum {
        let record = name.record(payload).ok_or_else(|| rot(flush.file, at))?;
        return Ok(Salvaged::Record { record, rewritten: name.is_rewritten() });
    }
    let place = (flush.file, at as u64);
    let RecordName { shard, index, term, bytes, .. } = name;
    Ok(if name.is_hard_state() {
        Salvaged::Promises(shard, PromisesLost { term, commit: index, place })
    } else {
        Salvaged::Entry(shard, Rotted { index, term, bytes, place, name, seed: sure.then_some(seed) })
    })
}
