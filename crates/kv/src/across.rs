//! Transactions over several shards: minitransaction two-phase commit over consensus groups (docs/design/transactions.md).
//!
//! ```text
//!   Prepare ──> in each shard but one: judge the compares, read, lock, keep the writes
//!   Decide  ──> in the last one, the transaction's *home*: judge, read and write there. This entry is the decision
//!   Resolve ──> in each of the others: write or not, and unlock
//! ```
//!
//! Whoever finds a lock whose owner is silent asks the home to *settle*: what was decided stands, and what was not is aborted for ever. So a
//! prepare that comes late holds its locks only until somebody asks, and a decision that comes late finds that it was aborted.

use crate::log::Record;
use crate::reserve::{Claim, Claims};
use crate::{Compare, CompareOp, Expected, KeyRange, KeyspaceId, RangeOp, RangeResult, log};
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, ShardId, Timestamp, Writer};
use std::fmt;

/// Names one attempt at a transaction, for ever. Drawn at random by whoever coordinates it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub u128);

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A write of a transaction over several shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Write a key. A lease that it was attached to lets go of it.
    Put {
        /// The key; never empty.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Remove all keys of a range.
    Delete(KeyRange),
    /// Append records to a log, in this order. They get their offsets when it is written.
    Append(Vec<Record>),
}

impl Write {
    /// The keys that it may change. Whoever appends changes the end of the log, and nothing that is behind it is anybody else's.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        match self {
            Self::Put { key, .. } => KeyRange::single(key.clone()),
            Self::Delete(range) => range.clone(),
            Self::Append(_) => KeyRange::single(log::BOUNDS),
        }
    }

    /// How many records it appends; none if it does something else.
    #[must_use]
    pub fn appends(&self) -> Option<u64> {
        match self {
            Self::Append(records) => Some(records.len() as u64),
            Self::Put { .. } | Self::Delete(_) => None,
        }
    }
}

/// A condition on one key, absent or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Where the key is.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Bytes,
    /// The relation.
    pub op: CompareOp,
    /// The attribute and its expected value.
    pub expected: Expected,
}

/// A read of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Where the keys are.
    pub keyspace: KeyspaceId,
    /// The keys.
    pub range: KeyRange,
    /// At most this many, ascending; 0 means all.
    pub limit: u64,
}

/// What a client wants done in one step, wherever the keys are: strictly serializable, all of it or nothing. All reads see the state before its
/// writes, and are answered whichever branch is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All must hold for `success` to be written.
    pub checks: Vec<Check>,
    /// Answered in this order.
    pub looks: Vec<Look>,
    /// Written when all checks hold.
    pub success: Vec<(KeyspaceId, Write)>,
    /// Written when one does not.
    pub failure: Vec<(KeyspaceId, Write)>,
    /// The client's name for what it wants: within some time, the same name is done at most once.
    pub key: Option<u128>,
    /// What it writes has a later timestamp than this: the client has seen what happened then.
    pub after: Timestamp,
    /// What it has reserved. If some of that is not so any more, a check has failed; what is written ends them all.
    pub claims: Option<Claims>,
}

impl Transaction {
    /// Whether it may append to a log.
    #[must_use]
    pub fn appends(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|(_, write)| write.appends().is_some())
    }
}

/// What came of a [`Transaction`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionResult {
    /// Whether all checks held.
    pub succeeded: bool,
    /// One answer for each look; none if `repeated`.
    pub looks: Vec<RangeResult>,
    /// Whether it had been done before, under the same client's name.
    pub repeated: bool,
    /// When it was done. [`Timestamp::ZERO`] if the cluster keeps no timestamps yet.
    pub at: Timestamp,
    /// The offset of the first record of each append of the branch that was written, in order; also if `repeated`.
    pub appended: Vec<u64>,
}

/// What a transaction does in one shard. All reads see the state before its writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// All of them, in all parts, must hold for `success` to be written.
    pub compares: Vec<Compare>,
    /// Answered whichever branch is taken. Their revision is `None`.
    pub reads: Vec<RangeOp>,
    /// Written when the compares hold.
    pub success: Vec<Write>,
    /// Written when one does not.
    pub failure: Vec<Write>,
    /// What must be reserved still, as if it were compared.
    pub claim: Option<Claim>,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Nothing of it ever happens.
    Aborted,
    /// Its writes happen.
    Committed {
        /// Those of the branch that is taken when the compares hold.
        succeeded: bool,
        /// When, in every shard; [`Timestamp::ZERO`] where the cluster kept no timestamps yet.
        at: Timestamp,
    },
}

/// The answer of one shard to its part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartResult {
    /// Whether its compares hold.
    pub holds: bool,
    /// One answer for each read.
    pub reads: Vec<RangeResult>,
    /// When it was prepared, or done.
    pub at: Timestamp,
    /// A key that is not reserved any more, if that is why they do not hold.
    pub lost: Option<Bytes>,
    /// Where a log ends to which it may append: the next offset. Nobody else appends before this does, or turns out not to.
    pub end: Option<u64>,
}

/// The last step of a transaction: its home's part, and the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The home's part.
    pub part: Part,
    /// Whether the compares hold in all other parts.
    pub others_hold: bool,
    /// It happens later than this: when all others had prepared, and what the client had seen by then.
    pub after: Timestamp,
    /// The shards that have prepared.
    pub prepared: Vec<ShardId>,
    /// Entries behind this one come too late to decide: what says that the transaction was aborted is kept until then.
    pub fence: LogIndex,
    /// The client's name for what it wants, so that a retry of it does not happen twice.
    pub key: Option<u128>,
    /// Where the logs of the other shards end to which it may append, so that a retry can be told.
    pub ends: Vec<(ShardId, u64)>,
}

/// A shard does not know its own number: where it says something of itself among others, it is under this one, which no shard has.
pub const OWN: ShardId = ShardId(0);

/// What is asked of one shard on behalf of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxStep {
    /// Judge the compares, read, lock, keep the writes.
    Prepare {
        /// Where it is decided.
        home: ShardId,
        /// See [`Verdict::fence`].
        fence: LogIndex,
        /// What it does here.
        part: Box<Part>,
    },
    /// Decide.
    Decide(Box<Verdict>),
    /// Say what was decided; if nothing was, nothing ever will be.
    Settle {
        /// See [`Verdict::fence`].
        fence: LogIndex,
    },
    /// Carry out the decision, and unlock.
    Resolve(Decision),
    /// Every shard has carried it out: forget it.
    Forget,
}

/// The answer to a [`TxStep`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxAnswer {
    /// To [`TxStep::Prepare`]: locked.
    Prepared(PartResult),
    /// To [`TxStep::Decide`].
    Decided {
        /// What.
        decision: Decision,
        /// The home's part of the answer; `None` if it was decided before.
        result: Option<PartResult>,
    },
    /// To [`TxStep::Decide`], when the same client's wish was decided under another id; nothing of this one ever happens. And where logs ended to which
    /// the other one appended.
    Repeated(Decision, Vec<(ShardId, u64)>),
    /// To [`TxStep::Settle`]. `None` behind the fence, when nothing is known any more: whoever has prepared may take it as aborted, since of
    /// what was committed the record stays until all have carried it out.
    Settled(Option<Decision>),
    /// To [`TxStep::Resolve`] and [`TxStep::Forget`].
    Done,
}

const PREPARE: u8 = 1;
const DECIDE: u8 = 2;
const SETTLE: u8 = 3;
const RESOLVE: u8 = 4;
const FORGET: u8 = 5;
/// The first two, of a part with a claim, which comes last.
const PREPARE_CLAIMING: u8 = 6;
const DECIDE_CLAIMING: u8 = 7;
/// The second, where logs end elsewhere: that comes last.
const DECIDE_APPENDING: u8 = 8;

impl TxId {
    /// Appends the encoding.
    pub fn encode(self, w: &mut Writer) {
        number(w, self.0);
    }

    /// Reads one.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self(read_number(r)?))
    }
}

/// Whether something holds, and when that was, if there is a timestamp: without one it is what releases wrote that knew of none.
pub(crate) fn encode_flag(holds: bool, at: Timestamp, w: &mut Writer) {
    w.u8(u8::from(holds) | if at == Timestamp::ZERO { 0 } else { 2 });
    if at != Timestamp::ZERO {
        w.u64(at.0);
    }
}

pub(crate) fn decode_flag(what: &'static str, r: &mut Reader) -> Result<(bool, Timestamp), DecodeError> {
    let flag = r.u8(what)?;
    decode_flagged(flag, what, r)
}

/// What comes behind a flag.
pub(crate) fn decode_flagged(flag: u8, what: &'static str, r: &mut Reader) -> Result<(bool, Timestamp), DecodeError> {
    match flag {
        flag @ 0..=1 => Ok((flag == 1, Timestamp::ZERO)),
        flag @ 2..=3 => Ok((flag == 3, Timestamp(r.u64(what)?))),
        _ => Err(r.error(what)),
    }
}

/// Appends where logs end.
pub fn encode_ends(ends: &[(ShardId, u64)], w: &mut Writer) {
    w.varint(ends.len() as u64);
    for (shard, end) in ends {
        w.u64(shard.0);
        w.varint(*end);
    }
}

/// Reads where logs end.
pub fn decode_ends(r: &mut Reader) -> Result<Vec<(ShardId, u64)>, DecodeError> {
    let mut ends = Vec::new();
    for _ in 0..r.count("ends of logs")? {
        ends.push((ShardId(r.u64("shard")?), r.varint("end of a log")?));
    }
    Ok(ends)
}

fn number(w: &mut Writer, n: u128) {
    w.u64((n >> 64) as u64);
    w.u64(n as u64);
}

fn read_number(r: &mut Reader) -> Result<u128, DecodeError> {
    Ok(u128::from(r.u64("transaction")?) << 64 | u128::from(r.u64("transaction")?))
}

impl Decision {
    /// Appends the encoding.
    pub fn encode(self, w: &mut Writer) {
        match self {
            Self::Aborted => w.u8(0),
            Self::Committed { succeeded, at: Timestamp::ZERO } => w.u8(if succeeded { 2 } else { 1 }),
            Self::Committed { succeeded, at } => {
                w.u8(if succeeded { 4 } else { 3 });
                w.u64(at.0);
            }
        }
    }

    /// Reads one.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        match r.u8("decision")? {
            0 => Ok(Self::Aborted),
            tag @ (1 | 2) => Ok(Self::Committed { succeeded: tag == 2, at: Timestamp::ZERO }),
            tag @ (3 | 4) => Ok(Self::Committed { succeeded: tag == 4, at: Timestamp(r.u64("decided at")?) }),
            _ => Err(r.error("decision")),
        }
    }
}

impl Part {
    /// Whether it writes nothing, whatever is decided.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.success.is_empty() && self.failure.is_empty()
    }

    /// Whether it may append to a log.
    #[must_use]
    pub fn appends(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|write| write.appends().is_some())
    }

    /// The ranges that it reads or judges, or has read when it reserved them.
    pub fn ranges_read(&self) -> impl Iterator<Item = KeyRange> + '_ {
        let held = self.claim.iter().flat_map(|claim| &claim.held).map(|hold| KeyRange::single(hold.key.clone()));
        let judged = self.compares.iter().map(|compare| compare.range.clone());
        judged.chain(self.reads.iter().map(|read| read.range.clone())).chain(held)
    }

    /// The ranges that it may write, in either branch.
    pub fn ranges_written(&self) -> impl Iterator<Item = KeyRange> + '_ {
        self.success.iter().chain(&self.failure).map(Write::range)
    }

    /// Appends the encoding (docs/design/wire-format.md), without the claim.
    pub fn encode(&self, w: &mut Writer) {
        w.varint(self.compares.len() as u64);
        self.compares.iter().for_each(|compare| compare.encode(w));
        w.varint(self.reads.len() as u64);
        self.reads.iter().for_each(|read| read.encode(w));
        for branch in [&self.success, &self.failure] {
            w.varint(branch.len() as u64);
            branch.iter().for_each(|write| write.encode(w));
        }
    }

    /// Reads one without a claim. Keys and values are slices of the reader's buffer.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let mut part = Self::default();
        for _ in 0..r.count("compares")? {
            part.compares.push(Compare::decode(r)?);
        }
        for _ in 0..r.count("reads")? {
            part.reads.push(RangeOp::decode(r)?);
        }
        for branch in [&mut part.success, &mut part.failure] {
            for _ in 0..r.count("writes")? {
                branch.push(Write::decode(r)?);
            }
        }
        Ok(part)
    }

    /// A cheap upper estimate of the encoded size, in bytes.
    #[must_use]
    pub fn size_estimate(&self) -> usize {
        let compares: usize = self.compares.iter().map(Compare::size_estimate).sum();
        let reads: usize = self.reads.iter().map(|read| read.range.size_estimate() + 64).sum();
        let writes = self.success.iter().chain(&self.failure).map(|write| match write {
            Write::Put { key, value } => key.len() + value.len() + 16,
            Write::Delete(range) => range.size_estimate() + 8,
            Write::Append(records) => 8 + records.iter().map(Record::size_estimate).sum::<usize>(),
        });
        let claim = self.claim.as_ref().map_or(0, Claim::size_estimate);
        compares + reads + writes.sum::<usize>() + claim + 16
    }
}

impl Write {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Put { key, value } => {
                w.u8(0);
                w.bytes(key);
                w.bytes(value);
            }
            Self::Delete(range) => {
                w.u8(1);
                range.encode(w);
            }
            Self::Append(records) => {
                w.u8(2);
                w.varint(records.len() as u64);
                records.iter().for_each(|record| record.encode(w));
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        match r.u8("write")? {
            0 => Ok(Self::Put { key: r.bytes("key")?, value: r.bytes("value")? }),
            1 => Ok(Self::Delete(KeyRange::decode(r)?)),
            2 => {
                let mut records = Vec::new();
                for _ in 0..r.count("records")? {
                    records.push(Record::decode(r)?);
                }
                Ok(Self::Append(records))
            }
            _ => Err(r.error("write")),
        }
    }
}

impl TxStep {
    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Prepare { home, fence, part } => {
                w.u8(if part.claim.is_none() { PREPARE } else { PREPARE_CLAIMING });
                w.u64(home.0);
                w.varint(fence.0);
                part.encode(w);
                part.claim.iter().for_each(|claim| claim.encode(w));
            }
            Self::Decide(verdict) if !verdict.ends.is_empty() => {
                w.u8(DECIDE_APPENDING);
                verdict.encode(w);
                w.bool(verdict.part.claim.is_some());
                verdict.part.claim.iter().for_each(|claim| claim.encode(w));
                encode_ends(&verdict.ends, w);
            }
            Self::Decide(verdict) => {
                w.u8(if verdict.part.claim.is_none() { DECIDE } else { DECIDE_CLAIMING });
                verdict.encode(w);
                verdict.part.claim.iter().for_each(|claim| claim.encode(w));
            }
            Self::Settle { fence } => {
                w.u8(SETTLE);
                w.varint(fence.0);
            }
            Self::Resolve(decision) => {
                w.u8(RESOLVE);
                decision.encode(w);
            }
            Self::Forget => w.u8(FORGET),
        }
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match r.u8("step")? {
            tag @ (PREPARE | PREPARE_CLAIMING) => {
                let (home, fence) = (ShardId(r.u64("home")?), LogIndex(r.varint("fence")?));
                let part = Part::decode(r)?;
                let claim = if tag == PREPARE { None } else { Some(Claim::decode(r)?) };
                Self::Prepare { home, fence, part: Box::new(Part { claim, ..part }) }
            }
            tag @ (DECIDE | DECIDE_CLAIMING) => {
                let mut verdict = Verdict::decode(r)?;
                verdict.part.claim = if tag == DECIDE { None } else { Some(Claim::decode(r)?) };
                Self::Decide(Box::new(verdict))
            }
            DECIDE_APPENDING => {
                let mut verdict = Verdict::decode(r)?;
                verdict.part.claim = if r.bool("claim")? { Some(Claim::decode(r)?) } else { None };
                verdict.ends = decode_ends(r)?;
                Self::Decide(Box::new(verdict))
            }
            SETTLE => Self::Settle { fence: LogIndex(r.varint("fence")?) },
            RESOLVE => Self::Resolve(Decision::decode(r)?),
            FORGET => Self::Forget,
            _ => return Err(r.error("step")),
        })
    }

    /// What it rests on, if that is reserved.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Prepare { part, .. } => part.claim.as_ref(),
            Self::Decide(verdict) => verdict.part.claim.as_ref(),
            Self::Settle { .. } | Self::Resolve(_) | Self::Forget => None,
        }
    }

    /// Whether it is about appending to a log.
    #[must_use]
    pub fn appends(&self) -> bool {
        match self {
            Self::Prepare { part, .. } => part.appends(),
            Self::Decide(verdict) => verdict.part.appends() || !verdict.ends.is_empty(),
            Self::Settle { .. } | Self::Resolve(_) | Self::Forget => false,
        }
    }

    pub(crate) fn size_estimate(&self) -> usize {
        48 + match self {
            Self::Prepare { part, .. } => part.size_estimate(),
            Self::Decide(verdict) => {
                verdict.part.size_estimate() + 8 * verdict.prepared.len() + 20 * verdict.ends.len() + 64
            }
            Self::Settle { .. } | Self::Resolve(_) | Self::Forget => 0,
        }
    }
}

impl Verdict {
    fn encode(&self, w: &mut Writer) {
        encode_flag(self.others_hold, self.after, w);
        w.varint(self.fence.0);
        w.varint(self.prepared.len() as u64);
        self.prepared.iter().for_each(|shard| w.u64(shard.0));
        w.bool(self.key.is_some());
        if let Some(key) = self.key {
            number(w, key);
        }
        self.part.encode(w);
    }

    fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let ((others_hold, after), fence) = (decode_flag("others", r)?, LogIndex(r.varint("fence")?));
        let mut prepared = Vec::new();
        for _ in 0..r.count("shards")? {
            prepared.push(ShardId(r.u64("shard")?));
        }
        let key = if r.bool("key")? { Some(read_number(r)?) } else { None };
        Ok(Self { others_hold, after, fence, prepared, key, part: Part::decode(r)?, ends: Vec::new() })
    }
}
