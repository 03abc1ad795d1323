//! Commands: what enters the replicated log. Everything nondeterministic (ids, time) was put in by the proposer.

use crate::across::{TxAnswer, TxId, TxStep};
use crate::merge::Page;
use crate::reserve::{ReserveStep, Reserved};
use crate::{KeyRange, Revision, Txn, TxnResult};
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, ShardId, Writer};
use std::fmt;

/// A lease's name, chosen by the client or drawn by the proposer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// No lease.
    pub const NONE: Self = Self(0);
}

/// A client session: commands of one session are applied at most once each, however often they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Names one command for ever: a retry carries the same id and never applies twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId {
    /// Who sent it.
    pub session: SessionId,
    /// Which of the session's commands it is; the first is 1.
    pub seq: u64,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.session.0, self.seq)
    }
}

/// Names a deterministic, versioned function that a layer registered and that runs at apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcedureId(pub u32);

/// What can be asked of a keyspace's state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A minitransaction.
    Transact(Txn),
    /// Make a lease. The id is not 0; the TTL is in seconds.
    LeaseGrant {
        /// The lease.
        id: LeaseId,
        /// Seconds without a keep-alive after which it may expire.
        ttl_s: u64,
    },
    /// End a lease and remove its keys, in one revision.
    LeaseRevoke {
        /// The lease.
        id: LeaseId,
    },
    /// End a lease because its time is up: proposed only by a leader that has just confirmed its leadership, and void if the
    /// lease was revoked or granted anew in the meantime.
    LeaseExpire {
        /// The lease.
        id: LeaseId,
        /// The entry that granted it.
        granted_at: LogIndex,
    },
    /// Forget history below a revision.
    Compact {
        /// Reads below it are refused afterwards.
        revision: Revision,
    },
    /// Run a registered procedure. Unknown ids are refused deterministically.
    Call {
        /// Which.
        procedure: ProcedureId,
        /// Its version, so that two releases of the binary never run different code for one entry.
        version: u32,
        /// Its arguments in its own encoding.
        args: Bytes,
    },
    /// Take a step of a transaction over several shards.
    Across {
        /// The transaction.
        tx: TxId,
        /// The step.
        step: TxStep,
    },
    /// Give the keys from one on to a shard of their own. Done once nothing of them is prepared for a transaction; until then nothing more of them
    /// is prepared.
    Split {
        /// The first key that goes.
        at: Bytes,
        /// The shard that they go to.
        child: ShardId,
    },
    /// A majority of a split-off shard's replicas have its rows: those that were kept for them may go.
    Wean {
        /// The shard.
        child: ShardId,
    },
    /// Reserve keys for an interactive transaction, or let go of them. Reserving waits for what is locked, and for older ones.
    Reserve {
        /// The transaction.
        by: TxId,
        /// The step.
        step: ReserveStep,
    },
    /// Cut off what a log has before an offset. The records go a few at a time: who leads the shard sends it again for the rest.
    Trim {
        /// The first offset that is kept; no further than the end.
        before: u64,
    },
    /// Give everything up to the shard before this one. Done if nothing is under way here, and history says no more than what is here now; from
    /// then on nothing changes here.
    Yield {
        /// All keys of the shard: if it has others, it does not yield.
        range: KeyRange,
    },
    /// Take over some rows of the shard behind this one, which has yielded; with the last of them, its keys.
    Absorb(Box<Page>),
}

/// A successful command's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of [`Command::Transact`].
    Transacted(TxnResult),
    /// Of [`Command::LeaseGrant`].
    LeaseGranted,
    /// Of [`Command::LeaseRevoke`] and [`Command::LeaseExpire`].
    LeaseRevoked,
    /// Of [`Command::Compact`].
    Compacted,
    /// Of [`Command::Call`], in the procedure's own encoding.
    Returned(Bytes),
    /// Of [`Command::Across`].
    Stepped(TxAnswer),
    /// Of [`Command::Split`].
    Split,
    /// Of [`Command::Wean`].
    Weaned,
    /// Of [`ReserveStep::Reserve`].
    Reserved(Reserved),
    /// Of the other steps of a [`Command::Reserve`].
    Released,
    /// Of [`Command::Trim`]: the first offset that is kept.
    Trimmed(u64),
    /// Of [`Command::Yield`]: whether it has.
    Yielded(bool),
    /// Of [`Command::Absorb`]: the last row that is here; `None` if all that the other one had is, and its keys are this one's.
    Absorbed(Option<Bytes>),
}

/// A command on its way to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Its name.
    pub id: CommandId,
    /// All commands of this session below this sequence number have been answered; what is kept about them may be dropped.
    pub answered_below: u64,
    /// What to do.
    pub command: Command,
}

const TRANSACT: u8 = 1;
const LEASE_GRANT: u8 = 2;
const LEASE_REVOKE: u8 = 3;
const COMPACT: u8 = 4;
const CALL: u8 = 5;
const LEASE_EXPIRE: u8 = 6;
const ACROSS: u8 = 7;
const SPLIT: u8 = 8;
const WEAN: u8 = 9;
const RESERVE: u8 = 10;
const TRIM: u8 = 11;
const YIELD: u8 = 12;
const ABSORB: u8 = 13;

impl Command {
    /// Whether all that a client wants is in it, and no other shard has a part of it.
    #[must_use]
    pub fn is_whole_wish(&self) -> bool {
        match self {
            Self::Transact(_) => true,
            Self::Across { step: TxStep::Decide(verdict), .. } => verdict.prepared.is_empty(),
            _ => false,
        }
    }
}

impl Envelope {
    /// Appends the encoding (docs/design/wire-format.md).
    pub fn encode(&self, w: &mut Writer) {
        w.u64(self.id.session.0);
        w.varint(self.id.seq);
        w.varint(self.answered_below);
        match &self.command {
            Command::Transact(txn) => {
                w.u8(TRANSACT);
                txn.encode(w);
            }
            Command::LeaseGrant { id, ttl_s } => {
                w.u8(LEASE_GRANT);
                w.zigzag(id.0);
                w.varint(*ttl_s);
            }
            Command::LeaseRevoke { id } => {
                w.u8(LEASE_REVOKE);
                w.zigzag(id.0);
            }
            Command::LeaseExpire { id, granted_at } => {
                w.u8(LEASE_EXPIRE);
                w.zigzag(id.0);
                w.varint(granted_at.0);
            }
            Command::Compact { revision } => {
                w.u8(COMPACT);
                w.varint(revision.0);
            }
            Command::Call { procedure, version, args } => {
                w.u8(CALL);
                w.u32(procedure.0);
                w.u32(*version);
                w.bytes(args);
            }
            Command::Across { tx, step } => {
                w.u8(ACROSS);
                tx.encode(w);
                step.encode(w);
            }
            Command::Split { at, child } => {
                w.u8(SPLIT);
                w.bytes(at);
                w.u64(child.0);
            }
            Command::Wean { child } => {
                w.u8(WEAN);
                w.u64(child.0);
            }
            Command::Reserve { by, step } => {
                w.u8(RESERVE);
                by.encode(w);
                step.encode(w);
            }
            Command::Trim { before } => {
                w.u8(TRIM);
                w.varint(*before);
            }
            Command::Yield { range } => {
                w.u8(YIELD);
                range.encode(w);
            }
            Command::Absorb(page) => {
                w.u8(ABSORB);
                page.encode(w);
            }
        }
    }

    /// Reads one envelope. Keys and values are slices of the reader's buffer.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let id = CommandId { session: SessionId(r.u64("session")?), seq: r.varint("sequence")? };
        let answered_below = r.varint("answered below")?;
        let command = match r.u8("command")? {
            TRANSACT => Command::Transact(Txn::decode(r, 0)?),
            LEASE_GRANT => Command::LeaseGrant { id: LeaseId(r.zigzag("lease")?), ttl_s: r.varint("ttl")? },
            LEASE_REVOKE => Command::LeaseRevoke { id: LeaseId(r.zigzag("lease")?) },
            LEASE_EXPIRE => Command::LeaseExpire {
                id: LeaseId(r.zigzag("lease")?),
                granted_at: LogIndex(r.varint("granting entry")?),
            },
            COMPACT => Command::Compact { revision: Revision(r.varint("revision")?) },
            CALL => Command::Call {
                procedure: ProcedureId(r.u32("procedure")?),
                version: r.u32("procedure version")?,
                args: r.bytes("arguments")?,
            },
            ACROSS => Command::Across { tx: TxId::decode(r)?, step: TxStep::decode(r)? },
            SPLIT => Command::Split { at: r.bytes("first key")?, child: ShardId(r.u64("child")?) },
            WEAN => Command::Wean { child: ShardId(r.u64("child")?) },
            RESERVE => Command::Reserve { by: TxId::decode(r)?, step: ReserveStep::decode(r)? },
            TRIM => Command::Trim { before: r.varint("first offset kept")? },
            YIELD => Command::Yield { range: KeyRange::decode(r)? },
            ABSORB => Command::Absorb(Box::new(Page::decode(r)?)),
            _ => return Err(r.error("command")),
        };
        Ok(Self { id, answered_below, command })
    }

    /// A cheap upper estimate of the encoded size, in bytes, for batching and admission.
    #[must_use]
    pub fn size_estimate(&self) -> usize {
        32 + match &self.command {
            Command::Transact(txn) => txn_size(txn),
            Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseExpire { .. }
            | Command::Compact { .. }
            | Command::Trim { .. }
            | Command::Wean { .. } => 24,
            Command::Split { at, .. } => at.len() + 24,
            Command::Call { args, .. } => args.len() + 16,
            Command::Across { step, .. } => step.size_estimate(),
            Command::Reserve { step, .. } => step.size_estimate(),
            Command::Yield { range } => range.size_estimate(),
            Command::Absorb(page) => page.size_estimate(),
        }
    }
}

fn txn_size(txn: &Txn) -> usize {
    use crate::Op;
    let compares: usize = txn.compares.iter().map(crate::Compare::size_estimate).sum();
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Range(op) => op.range.size_estimate() + 64,
        Op::Put(op) => op.key.len() + op.value.len() + 24,
        Op::Delete(op) => op.range.size_estimate() + 8,
        Op::Txn(txn) => txn_size(txn),
    });
    compares + ops.sum::<usize>() + 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::across::{Decision, Part, Verdict, Write};
    use crate::log::Record;
    use crate::merge::Given;
    use crate::reserve::{Claim, Hold, Holder};
    use crate::{Compare, CompareOp, DeleteOp, Expected, Level, Op, PutOp, RangeEnd, RangeOp, Sort, SortBy};
    use quorate_env::{Timestamp, WallMs};

    fn sample() -> Envelope {
        let inner = Txn::just(Op::Delete(DeleteOp { range: KeyRange::prefix("a/"), prev_kv: true }));
        let txn = Txn {
            compares: vec![
                Compare { range: KeyRange::single("k"), op: CompareOp::Less, expected: Expected::Mod(-4) },
                Compare { range: KeyRange::all(), op: CompareOp::NotEqual, expected: Expected::Value("v".into()) },
            ],
            success: vec![Op::Put(PutOp { prev_kv: true, ignore_lease: true, ..PutOp::of("k", "v") }), Op::Txn(inner)],
            failure: vec![Op::Range(RangeOp {
                limit: 3,
                revision: Some(Revision(9)),
                sort: Some(Sort { by: SortBy::Mod, descending: true, after_limit: true }),
                keys_only: true,
                max_create: 77,
                bytes_max: 300,
                ..RangeOp::of(KeyRange::prefix("b"))
            })],
        };
        Envelope {
            id: CommandId { session: SessionId(5), seq: 300 },
            answered_below: 290,
            command: Command::Transact(txn),
        }
    }

    fn steps() -> [TxStep; 11] {
        let part = Part {
            compares: vec![Compare {
                range: KeyRange::single("k"),
                op: CompareOp::Equal,
                expected: Expected::Version(1),
            }],
            reads: vec![RangeOp::of(KeyRange::all())],
            success: vec![Write::Put { key: "k".into(), value: "v".into() }],
            failure: vec![Write::Delete(KeyRange::prefix("a"))],
            claim: None,
        };
        let (home, fence, after) = (ShardId(7), LogIndex(9), Timestamp(300));
        let verdict = Verdict {
            part: part.clone(),
            others_hold: true,
            after,
            prepared: vec![home],
            fence,
            key: Some(1 << 90),
            ends: Vec::new(),
        };
        let held = vec![Hold { key: "k".into(), since: LogIndex(1 << 40) }];
        let claim = Some(Claim { holder: Holder { age: Timestamp(300), by: TxId(1 << 70) }, held });
        let claiming = Part { claim, ..part.clone() };
        let records = vec![Record::of("k", "v"), Record::of("", "w")];
        let appending = Part { success: vec![Write::Append(records)], ..claiming.clone() };
        let ends = vec![(home, 1 << 40), (ShardId(8), 0)];
        [
            TxStep::Prepare { home, fence, part: Box::new(appending.clone()) },
            TxStep::Decide(Box::new(Verdict { part: appending, ends, ..verdict.clone() })),
            TxStep::Prepare { home, fence, part: Box::new(claiming.clone()) },
            TxStep::Decide(Box::new(Verdict { part: claiming, ..verdict.clone() })),
            TxStep::Prepare { home, fence, part: Box::new(part) },
            TxStep::Decide(Box::new(verdict)),
            TxStep::Settle { fence },
            TxStep::Resolve(Decision::Aborted),
            TxStep::Resolve(Decision::Committed { succeeded: true, at: after }),
            TxStep::Resolve(Decision::Committed { succeeded: false, at: Timestamp::ZERO }),
            TxStep::Forget,
        ]
    }

    #[test]
    fn envelopes_survive_the_wire() {
        let reserve = |step| Command::Reserve { by: TxId(1 << 100), step };
        let of_revision_0 = RangeOp { revision: Some(Revision(0)), ..RangeOp::of(KeyRange::single("k")) };
        let commands = [
            sample().command,
            Command::Transact(Txn::just(Op::Range(of_revision_0))),
            Command::LeaseGrant { id: LeaseId(-9), ttl_s: 60 },
            Command::LeaseRevoke { id: LeaseId(i64::MAX) },
            Command::LeaseExpire { id: LeaseId(8), granted_at: LogIndex(99) },
            Command::Compact { revision: Revision(1 << 40) },
            Command::Call { procedure: ProcedureId(7), version: 2, args: "x".into() },
            Command::Split { at: "m".into(), child: ShardId(21) },
            Command::Wean { child: ShardId(21) },
            Command::Trim { before: 1 << 40 },
            reserve(ReserveStep::Reserve {
                age: Timestamp(300),
                patient: true,
                keys: vec!["k".into(), "l".into()],
                held: vec![Hold { key: "j".into(), since: LogIndex(1 << 40) }],
            }),
            reserve(ReserveStep::Release),
            reserve(ReserveStep::Lapse { until: LogIndex(1 << 40) }),
            Command::Yield { range: KeyRange { start: "m".into(), end: RangeEnd::Before("x".into()) } },
            Command::Absorb(Box::new(Page {
                from: ShardId(21),
                range: KeyRange::all(),
                after: Page::NOWHERE,
                rows: vec![("k".into(), "v".into()), ("l".into(), Bytes::new())],
                last: true,
                given: Given {
                    index: LogIndex(1 << 40),
                    revision: Revision(7),
                    clock: Timestamp(9),
                    since: Timestamp(8),
                    wall: WallMs(7),
                },
            })),
        ];
        let steps = steps().map(|step| Command::Across { tx: TxId(u128::MAX - 5), step });
        for command in commands.into_iter().chain(steps) {
            let envelope = Envelope { command, ..sample() };
            let mut w = Writer::new();
            envelope.encode(&mut w);
            assert!(w.len() <= envelope.size_estimate());
            let mut r = Reader::new(w.finish().into());
            assert_eq!(Envelope::decode(&mut r), Ok(envelope));
            assert!(r.is_empty());
        }
    }

    #[test]
    fn a_step_is_as_young_as_what_it_says() {
        let levels = steps().map(|step| Command::Across { tx: TxId(1), step }.level());
        let (appending, claiming, others) = (&levels[..2], &levels[2..4], &levels[4..]);
        assert!(appending.iter().all(|level| *level == Level::LOGS), "{levels:?}");
        assert!(claiming.iter().all(|level| *level == Level::RESERVED), "{levels:?}");
        assert!(others.iter().all(|level| *level == Level::ACROSS), "{levels:?}");
    }

    #[test]
    fn a_transaction_of_one_shard_is_wholly_in_its_decision() {
        let whole = |step| Command::Across { tx: TxId(1), step }.is_whole_wish();
        for step in steps() {
            if let TxStep::Decide(verdict) = &step {
                let alone = TxStep::Decide(Box::new(Verdict { prepared: Vec::new(), ..Verdict::clone(verdict) }));
                assert!(whole(alone));
            }
            assert!(!whole(step), "other shards are prepared for it, or it is a step of many");
        }
        assert!(sample().command.is_whole_wish());
        assert!(!Command::Compact { revision: Revision(1) }.is_whole_wish());
    }

    #[test]
    fn every_cut_of_an_envelope_is_refused() {
        let mut w = Writer::new();
        sample().encode(&mut w);
        let whole = Bytes::from(w.finish());
        for len in 0..whole.len() {
            assert!(Envelope::decode(&mut Reader::new(whole.slice(..len))).is_err(), "a cut at {len} was accepted");
        }
    }

    #[test]
    fn nesting_is_bounded_before_the_stack_is() {
        let mut txn = Txn::default();
        for _ in 0..1000 {
            txn = Txn::just(Op::Txn(txn));
        }
        let mut w = Writer::new();
        Envelope { command: Command::Transact(txn), ..sample() }.encode(&mut w);
        assert!(Envelope::decode(&mut Reader::new(w.finish().into())).is_err());
    }
}
