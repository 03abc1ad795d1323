//! Answers to commands, encoded: a node that has no replica of a shard hears them from one that has.

use crate::across::{Decision, PartResult, TxAnswer, TxId, decode_ends, decode_flagged, encode_ends, encode_flag};
use crate::reserve::{Held, Reserved};
use crate::{
    Applied, DeleteResult, Header, KeyValue, LeaseId, OpResult, Outcome, PutResult, RangeResult, Refusal, Revision,
    TxnResult, limits,
};
use quorate_env::{DecodeError, LogIndex, Reader, Term, Timestamp, Writer};

/// Refusals that say nothing but what they are, by their numbers.
const PLAIN: [(u8, Refusal); 18] = [
    (1, Refusal::KeyNotFound),
    (2, Refusal::LeaseNotFound),
    (3, Refusal::LeaseExists),
    (4, Refusal::LeaseTtlTooLarge),
    (5, Refusal::UnknownProcedure),
    (6, Refusal::KeyspaceNotFound),
    (7, Refusal::KeyspaceExists),
    (8, Refusal::KeyspaceName),
    (9, Refusal::KeyspaceShards),
    (10, Refusal::OrderedSplit),
    (11, Refusal::NotOrdered),
    (12, Refusal::AlreadySplit),
    (13, Refusal::LeasesSplit),
    (14, Refusal::EmptyKey),
    (15, Refusal::Replicas),
    (16, Refusal::KeysInLog),
    (17, Refusal::NotLog),
    (18, Refusal::LogSplit),
];

const COMPACTED: u8 = 32;
const IN_FUTURE: u8 = 33;
const TOO_LARGE: u8 = 34;
const LOCKED: u8 = 35;
const ABORTED: u8 = 36;
const MOVED: u8 = 37;
const TOO_MANY_SHARDS: u8 = 38;
const MOMENT_AHEAD: u8 = 39;
const MOMENT_FORGOTTEN: u8 = 40;
const RESERVATION_LOST: u8 = 41;
const TOO_MANY_RESERVED: u8 = 42;
const TRIMMED: u8 = 43;
const BEYOND_END: u8 = 44;
const TOO_MANY_RECORDS: u8 = 45;

/// In place of the flag of a part's result, where the part has lost a key; the key and the flag come behind it.
const LOST: u8 = 8;

/// The same, where a log is appended to: where it ends.
const ENDS: u8 = 9;

impl Applied {
    /// About how many bytes it takes, in memory and encoded.
    #[must_use]
    pub fn size_estimate(&self) -> usize {
        64 + match &self.outcome {
            Outcome::Transacted(result) => txn_size(result),
            Outcome::Returned(bytes) => bytes.len(),
            Outcome::Stepped(TxAnswer::Repeated(_, ends)) => 20 * ends.len(),
            Outcome::Stepped(TxAnswer::Prepared(part) | TxAnswer::Decided { result: Some(part), .. }) => {
                part.size_estimate()
            }
            Outcome::Reserved(reserved) => {
                reserved.keys.iter().map(|held| 16 + kvs_size(held.kv.as_slice())).sum::<usize>()
            }
            _ => 0,
        }
    }
}

impl PartResult {
    /// About how many bytes it takes, in memory and encoded.
    #[must_use]
    pub fn size_estimate(&self) -> usize {
        let lost = self.lost.as_ref().map_or(0, |key| key.len() + 8);
        32 + lost + self.reads.iter().map(|read| kvs_size(&read.kvs)).sum::<usize>()
    }
}

fn txn_size(result: &TxnResult) -> usize {
    let size = |result: &OpResult| match result {
        OpResult::Range(range) => kvs_size(&range.kvs),
        OpResult::Put(put) => kvs_size(put.prev.as_slice()),
        OpResult::Delete(delete) => kvs_size(&delete.prev),
        OpResult::Txn(nested) => txn_size(nested),
    };
    result.results.iter().map(|result| 32 + size(result)).sum()
}

fn kvs_size(kvs: &[KeyValue]) -> usize {
    32 + kvs.iter().map(|kv| kv.key.len() + kv.value.len() + 64).sum::<usize>()
}

/// Appends an answer (docs/design/wire-format.md).
///
/// # Panics
/// If it is a refusal to change the members or to move a leader: no command is refused for that.
pub fn encode_answer(answer: &Result<Applied, Refusal>, w: &mut Writer) {
    match answer {
        Ok(Applied { header, outcome }) => {
            w.u8(0);
            w.varint(header.revision.0);
            w.varint(header.term.0);
            encode_outcome(outcome, w);
        }
        Err(refusal) => encode_refusal(refusal, w),
    }
}

/// Reads one.
pub fn decode_answer(r: &mut Reader) -> Result<Result<Applied, Refusal>, DecodeError> {
    Ok(match r.u8("answer")? {
        0 => {
            let header = Header { revision: Revision(r.varint("revision")?), term: Term(r.varint("term")?) };
            Ok(Applied { header, outcome: decode_outcome(r)? })
        }
        tag => Err(decode_refusal(tag, r)?),
    })
}

/// Appends what one shard says to a read that is no transaction.
///
/// # Panics
/// As [`encode_answer`].
pub fn encode_sight(sight: &Result<PartResult, Refusal>, w: &mut Writer) {
    match sight {
        Ok(sight) => {
            w.u8(0);
            encode_part(sight, w);
        }
        Err(refusal) => encode_refusal(refusal, w),
    }
}

/// Reads one.
pub fn decode_sight(r: &mut Reader) -> Result<Result<PartResult, Refusal>, DecodeError> {
    Ok(match r.u8("sight")? {
        0 => Ok(decode_part(r)?),
        tag => Err(decode_refusal(tag, r)?),
    })
}

fn encode_refusal(refusal: &Refusal, w: &mut Writer) {
    match refusal {
        Refusal::RevisionCompacted { compacted } => {
            w.u8(COMPACTED);
            w.varint(compacted.0);
        }
        Refusal::RevisionInFuture { current } => {
            w.u8(IN_FUTURE);
            w.varint(current.0);
        }
        Refusal::TooLarge { bytes, max } => {
            w.u8(TOO_LARGE);
            w.varint(*bytes as u64);
            w.varint(*max as u64);
        }
        Refusal::Locked { key, by } => {
            w.u8(LOCKED);
            w.bytes(key);
            by.encode(w);
        }
        Refusal::Aborted { tx } => {
            w.u8(ABORTED);
            tx.encode(w);
        }
        Refusal::Moved { key } => {
            w.u8(MOVED);
            w.bytes(key);
        }
        Refusal::ReservationLost { key } => {
            w.u8(RESERVATION_LOST);
            w.bytes(key);
        }
        Refusal::TooManyReserved { max } => {
            w.u8(TOO_MANY_RESERVED);
            w.varint(*max as u64);
        }
        Refusal::Trimmed { first } => {
            w.u8(TRIMMED);
            w.varint(*first);
        }
        Refusal::TooManyRecords { max } => {
            w.u8(TOO_MANY_RECORDS);
            w.varint(*max as u64);
        }
        Refusal::BeyondEnd { end } => {
            w.u8(BEYOND_END);
            w.varint(*end);
        }
        Refusal::TooManyShards { shards } => {
            w.u8(TOO_MANY_SHARDS);
            w.varint(*shards as u64);
        }
        Refusal::MomentAhead { at, now } => {
            w.u8(MOMENT_AHEAD);
            w.u64(at.0);
            w.u64(now.0);
        }
        Refusal::MomentForgotten { at } => {
            w.u8(MOMENT_FORGOTTEN);
            w.u64(at.0);
        }
        plain => {
            let number = PLAIN.iter().find(|(_, known)| known == plain).map(|(number, _)| *number);
            w.u8(number.expect("no command is refused for that"));
        }
    }
}

fn decode_refusal(tag: u8, r: &mut Reader) -> Result<Refusal, DecodeError> {
    Ok(match tag {
        COMPACTED => Refusal::RevisionCompacted { compacted: Revision(r.varint("compacted")?) },
        IN_FUTURE => Refusal::RevisionInFuture { current: Revision(r.varint("current")?) },
        TOO_LARGE => Refusal::TooLarge { bytes: r.varint("bytes")? as usize, max: r.varint("limit")? as usize },
        LOCKED => Refusal::Locked { key: r.bytes("key")?, by: TxId::decode(r)? },
        ABORTED => Refusal::Aborted { tx: TxId::decode(r)? },
        MOVED => Refusal::Moved { key: r.bytes("key")? },
        RESERVATION_LOST => Refusal::ReservationLost { key: r.bytes("key")? },
        TOO_MANY_RESERVED => Refusal::TooManyReserved { max: r.varint("limit")? as usize },
        TRIMMED => Refusal::Trimmed { first: r.varint("first offset kept")? },
        TOO_MANY_RECORDS => Refusal::TooManyRecords { max: r.varint("limit")? as usize },
        BEYOND_END => Refusal::BeyondEnd { end: r.varint("end of the log")? },
        TOO_MANY_SHARDS => Refusal::TooManyShards { shards: r.varint("shards")? as usize },
        MOMENT_AHEAD => Refusal::MomentAhead { at: Timestamp(r.u64("moment")?), now: Timestamp(r.u64("now")?) },
        MOMENT_FORGOTTEN => Refusal::MomentForgotten { at: Timestamp(r.u64("moment")?) },
        plain => {
            let known = PLAIN.iter().find(|(number, _)| *number == plain);
            known.map(|(_, refusal)| refusal.clone()).ok_or_else(|| r.error("refusal"))?
        }
    })
}

fn encode_outcome(outcome: &Outcome, w: &mut Writer) {
    match outcome {
        Outcome::Transacted(result) => {
            w.u8(1);
            encode_txn(result, w);
        }
        Outcome::LeaseGranted => w.u8(2),
        Outcome::LeaseRevoked => w.u8(3),
        Outcome::Compacted => w.u8(4),
        Outcome::Returned(bytes) => {
            w.u8(5);
            w.bytes(bytes);
        }
        Outcome::Stepped(answer) => {
            w.u8(6);
            encode_step(answer, w);
        }
        Outcome::Split => w.u8(7),
        Outcome::Weaned => w.u8(8),
        Outcome::Reserved(reserved) => {
            w.u8(9);
            encode_reserved(reserved, w);
        }
        Outcome::Released => w.u8(10),
        Outcome::Trimmed(first) => {
            w.u8(11);
            w.varint(*first);
        }
        Outcome::Yielded(done) => {
            w.u8(12);
            w.bool(*done);
        }
        Outcome::Absorbed(at) => {
            w.u8(13);
            w.bool(at.is_some());
            at.iter().for_each(|row| w.bytes(row));
        }
    }
}

fn decode_outcome(r: &mut Reader) -> Result<Outcome, DecodeError> {
    Ok(match r.u8("outcome")? {
        1 => Outcome::Transacted(decode_txn(r, 0)?),
        2 => Outcome::LeaseGranted,
        3 => Outcome::LeaseRevoked,
        4 => Outcome::Compacted,
        5 => Outcome::Returned(r.bytes("returned")?),
        6 => Outcome::Stepped(decode_step(r)?),
        7 => Outcome::Split,
        8 => Outcome::Weaned,
        9 => Outcome::Reserved(decode_reserved(r)?),
        10 => Outcome::Released,
        11 => Outcome::Trimmed(r.varint("first offset kept")?),
        12 => Outcome::Yielded(r.bool("yielded")?),
        13 => Outcome::Absorbed(if r.bool("absorbed in part")? { Some(r.bytes("last row")?) } else { None }),
        _ => return Err(r.error("outcome")),
    })
}

fn encode_reserved(reserved: &Reserved, w: &mut Writer) {
    w.u64(reserved.at.0);
    w.varint(reserved.keys.len() as u64);
    for held in &reserved.keys {
        w.varint(held.since.0);
        encode_kvs(held.kv.as_slice(), w);
    }
}

fn decode_reserved(r: &mut Reader) -> Result<Reserved, DecodeError> {
    let mut reserved = Reserved { at: Timestamp(r.u64("reserved at")?), keys: Vec::new() };
    for _ in 0..r.count("reserved keys")? {
        let since = LogIndex(r.varint("reserved since")?);
        reserved.keys.push(Held { since, kv: decode_kvs(r)?.pop() });
    }
    Ok(reserved)
}

fn encode_txn(result: &TxnResult, w: &mut Writer) {
    w.bool(result.succeeded);
    w.varint(result.results.len() as u64);
    for result in &result.results {
        match result {
            OpResult::Range(range) => {
                w.u8(0);
                encode_range(range, w);
            }
            OpResult::Put(PutResult { prev }) => {
                w.u8(1);
                encode_kvs(prev.as_slice(), w);
            }
            OpResult::Delete(DeleteResult { deleted, prev }) => {
                w.u8(2);
                w.varint(*deleted);
                encode_kvs(prev, w);
            }
            OpResult::Txn(nested) => {
                w.u8(3);
                encode_txn(nested, w);
            }
        }
    }
}

fn decode_txn(r: &mut Reader, depth: usize) -> Result<TxnResult, DecodeError> {
    if depth > limits::TXN_DEPTH_MAX {
        return Err(r.error("answer nested too deep"));
    }
    let mut result = TxnResult { succeeded: r.bool("succeeded")?, results: Vec::new() };
    for _ in 0..r.count("results")? {
        result.results.push(match r.u8("result")? {
            0 => OpResult::Range(decode_range(r)?),
            1 => OpResult::Put(PutResult { prev: decode_kvs(r)?.pop() }),
            2 => OpResult::Delete(DeleteResult { deleted: r.varint("deleted")?, prev: decode_kvs(r)? }),
            3 => OpResult::Txn(decode_txn(r, depth + 1)?),
            _ => return Err(r.error("result")),
        });
    }
    Ok(result)
}

fn encode_range(range: &RangeResult, w: &mut Writer) {
    w.bool(range.more);
    w.varint(range.count);
    encode_kvs(&range.kvs, w);
}

fn decode_range(r: &mut Reader) -> Result<RangeResult, DecodeError> {
    let (more, count) = (r.bool("more")?, r.varint("count")?);
    Ok(RangeResult { kvs: decode_kvs(r)?, more, count })
}

fn encode_kvs(kvs: &[KeyValue], w: &mut Writer) {
    w.varint(kvs.len() as u64);
    for kv in kvs {
        w.bytes(&kv.key);
        w.bytes(&kv.value);
        [kv.create_revision.0, kv.mod_revision.0, kv.version].into_iter().for_each(|number| w.varint(number));
        w.zigzag(kv.lease.0);
    }
}

fn decode_kvs(r: &mut Reader) -> Result<Vec<KeyValue>, DecodeError> {
    let mut kvs = Vec::new();
    for _ in 0..r.count("keys")? {
        kvs.push(KeyValue {
            key: r.bytes("key")?,
            value: r.bytes("value")?,
            create_revision: Revision(r.varint("create revision")?),
            mod_revision: Revision(r.varint("mod revision")?),
            version: r.varint("version")?,
            lease: LeaseId(r.zigzag("lease")?),
        });
    }
    Ok(kvs)
}

fn encode_step(answer: &TxAnswer, w: &mut Writer) {
    match answer {
        TxAnswer::Prepared(result) => {
            w.u8(0);
            encode_part(result, w);
        }
        TxAnswer::Decided { decision, result } => {
            w.u8(1);
            decision.encode(w);
            w.bool(result.is_some());
            result.iter().for_each(|result| encode_part(result, w));
        }
        TxAnswer::Repeated(decision, ends) => {
            w.u8(if ends.is_empty() { 2 } else { 5 });
            decision.encode(w);
            if !ends.is_empty() {
                encode_ends(ends, w);
            }
        }
        TxAnswer::Settled(decision) => {
            w.u8(3);
            w.bool(decision.is_some());
            decision.iter().for_each(|decision| decision.encode(w));
        }
        TxAnswer::Done => w.u8(4),
    }
}

fn decode_step(r: &mut Reader) -> Result<TxAnswer, DecodeError> {
    Ok(match r.u8("step's answer")? {
        0 => TxAnswer::Prepared(decode_part(r)?),
        1 => TxAnswer::Decided {
            decision: Decision::decode(r)?,
            result: if r.bool("part")? { Some(decode_part(r)?) } else { None },
        },
        2 => TxAnswer::Repeated(Decision::decode(r)?, Vec::new()),
        5 => TxAnswer::Repeated(Decision::decode(r)?, decode_ends(r)?),
        3 => TxAnswer::Settled(if r.bool("decision")? { Some(Decision::decode(r)?) } else { None }),
        4 => TxAnswer::Done,
        _ => return Err(r.error("step's answer")),
    })
}

fn encode_part(part: &PartResult, w: &mut Writer) {
    if let Some(key) = &part.lost {
        w.u8(LOST);
        w.bytes(key);
    }
    if let Some(end) = part.end {
        w.u8(ENDS);
        w.varint(end);
    }
    encode_flag(part.holds, part.at, w);
    w.varint(part.reads.len() as u64);
    part.reads.iter().for_each(|read| encode_range(read, w));
}

fn decode_part(r: &mut Reader) -> Result<PartResult, DecodeError> {
    let (mut lost, mut end) = (None, None);
    let mut flag = r.u8("holds")?;
    if flag == LOST {
        lost = Some(r.bytes("lost key")?);
        flag = r.u8("holds")?;
    }
    if flag == ENDS {
        end = Some(r.varint("end of a log")?);
        flag = r.u8("holds")?;
    }
    let (holds, at) = decode_flagged(flag, "holds", r)?;
    let mut part = PartResult { holds, reads: Vec::new(), at, lost, end };
    for _ in 0..r.count("reads")? {
        part.reads.push(decode_range(r)?);
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_env::ShardId;

    fn kv() -> KeyValue {
        KeyValue {
            key: "k".into(),
            value: "v".into(),
            create_revision: Revision(2),
            mod_revision: Revision(300),
            version: 4,
            lease: LeaseId(-7),
        }
    }

    fn round_trip(answer: &Result<Applied, Refusal>) {
        let mut w = Writer::new();
        encode_answer(answer, &mut w);
        let bytes = Bytes::from(w.finish());
        let mut r = Reader::new(bytes.clone());
        assert_eq!(decode_answer(&mut r).as_ref(), Ok(answer));
        r.end("answer").expect("nothing is left");
        assert!(
            answer.as_ref().is_err() || answer.as_ref().is_ok_and(|applied| bytes.len() <= applied.size_estimate())
        );
        for len in 0..bytes.len() {
            assert!(decode_answer(&mut Reader::new(bytes.slice(..len))).is_err(), "{answer:?} cut at {len}");
        }
    }

    #[test]
    fn every_outcome_survives_and_cuts_do_not() {
        let range = RangeResult { kvs: vec![kv(), kv()], more: true, count: 9 };
        let reads = vec![range.clone(), RangeResult::default()];
        let part = PartResult { holds: true, reads, at: Timestamp(9), lost: None, end: None };
        let results = vec![
            OpResult::Range(range),
            OpResult::Put(PutResult { prev: Some(kv()) }),
            OpResult::Put(PutResult { prev: None }),
            OpResult::Delete(DeleteResult { deleted: 3, prev: vec![kv()] }),
            OpResult::Txn(TxnResult { succeeded: true, results: vec![OpResult::Delete(DeleteResult::default())] }),
        ];
        let committed = Decision::Committed { succeeded: true, at: Timestamp(300) };
        let untimed = Decision::Committed { succeeded: false, at: Timestamp::ZERO };
        let steps = [
            TxAnswer::Prepared(part.clone()),
            TxAnswer::Prepared(PartResult { holds: false, lost: Some("k".into()), ..part.clone() }),
            TxAnswer::Decided { decision: committed, result: Some(part.clone()) },
            TxAnswer::Decided { decision: Decision::Aborted, result: None },
            TxAnswer::Repeated(committed, Vec::new()),
            TxAnswer::Repeated(untimed, vec![(ShardId(7), 300), (ShardId(8), 0)]),
            TxAnswer::Prepared(PartResult { end: Some(1 << 40), lost: Some("k".into()), ..part.clone() }),
            TxAnswer::Prepared(PartResult { end: Some(0), ..part }),
            TxAnswer::Prepared(PartResult { holds: true, ..PartResult::default() }),
            TxAnswer::Settled(Some(committed)),
            TxAnswer::Settled(None),
            TxAnswer::Done,
        ];
        let plain = [
            Outcome::LeaseGranted,
            Outcome::LeaseRevoked,
            Outcome::Compacted,
            Outcome::Split,
            Outcome::Weaned,
            Outcome::Released,
            Outcome::Yielded(true),
            Outcome::Absorbed(None),
            Outcome::Absorbed(Some("row".into())),
        ];
        let held = |kv| Held { since: LogIndex(1 << 40), kv };
        let reserved = Reserved { keys: vec![held(Some(kv())), held(None)], at: Timestamp(9) };
        let others = [
            Outcome::Transacted(TxnResult { succeeded: false, results }),
            Outcome::Returned(Bytes::from_static(b"what it says")),
            Outcome::Reserved(reserved),
        ];
        let header = Header { revision: Revision(8), term: Term(3) };
        for outcome in steps.map(Outcome::Stepped).into_iter().chain(plain).chain(others) {
            round_trip(&Ok(Applied { header, outcome }));
        }
    }

    #[test]
    fn every_refusal_of_a_command_survives() {
        let tx = TxId(1 << 70);
        let others = [
            Refusal::RevisionCompacted { compacted: Revision(7) },
            Refusal::RevisionInFuture { current: Revision(7) },
            Refusal::TooLarge { bytes: 300, max: 200 },
            Refusal::Locked { key: "k".into(), by: tx },
            Refusal::Aborted { tx },
            Refusal::Moved { key: "k".into() },
            Refusal::TooManyShards { shards: 70 },
            Refusal::ReservationLost { key: "k".into() },
            Refusal::TooManyReserved { max: 128 },
            Refusal::MomentAhead { at: Timestamp(9), now: Timestamp(8) },
            Refusal::MomentForgotten { at: Timestamp(9) },
        ];
        PLAIN.into_iter().map(|(_, refusal)| refusal).chain(others).for_each(|refusal| round_trip(&Err(refusal)));
    }

    #[test]
    fn what_one_shard_says_to_a_read_survives_and_cuts_do_not() {
        let seen = RangeResult { kvs: vec![kv(), kv()], more: true, count: 9 };
        let part = PartResult { holds: true, reads: vec![seen], at: Timestamp(9), ..PartResult::default() };
        for sight in [Ok(part), Ok(PartResult::default()), Err(Refusal::Moved { key: "k".into() })] {
            let mut w = Writer::new();
            encode_sight(&sight, &mut w);
            let bytes = Bytes::from(w.finish());
            let mut r = Reader::new(bytes.clone());
            assert_eq!(decode_sight(&mut r).as_ref(), Ok(&sight));
            r.end("sight").expect("nothing is left");
            for len in 0..bytes.len() {
                assert!(decode_sight(&mut Reader::new(bytes.slice(..len))).is_err(), "{sight:?} cut at {len}");
            }
        }
    }

    #[test]
    fn what_nobody_says_is_no_answer() {
        for tag in [99, 200, 255] {
            assert!(decode_answer(&mut Reader::new(Bytes::copy_from_slice(&[tag]))).is_err());
        }
    }
}
