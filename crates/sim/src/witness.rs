//! Histories of real processes, judged by the simulator's checks.
//!
//! From outside nobody sees a cluster's log. But a watch from the first revision on is told of every change in the order of the log, and every
//! operation of a client writes its own number ([`mark`]) along with what it does. So the log is rebuilt: at each revision stands the operation whose
//! number was written there, as its client sent it. From there on everything is as in the simulator: the model replays the log,
//! and answers, reads, watches and leases are held against it.

use crate::checks::leases::LeaseCheck;
use crate::checks::order::{Floor, OrderCheck, operation_of};
use crate::checks::watch::WatchCheck;
use crate::history::{Violation, demand};
use quorate_env::{LogIndex, Timestamp, WallMs};
use quorate_kv::{
    Applied, Command, CommandId, Envelope, Event, EventKind, KeyRange, LeaseId, Op, PutOp, RangeOp, RangeResult,
    SessionId,
};
use std::collections::{BTreeMap, BTreeSet};

/// How much early a lease may end, of its time: what clocks of healthy machines differ by.
const LEASE_EARLY_PER_MILLE: u64 = 10;

/// Keys that live and die with a lease begin so; the lease's id follows.
pub const LEASED: &str = "leased/";

/// What a client asked for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A transaction that begins, in both branches, with a [`mark`]; or a lease whose id is the operation's number.
    Write(Command),
    /// A read.
    Read {
        /// Of what.
        op: RangeOp,
        /// Whether it must see everything that was complete before it.
        linearizable: bool,
    },
}

/// What it was told.
#[derive(Clone, Debug)]
pub enum Told {
    /// A write was done.
    Done(Applied),
    /// A read's answer, at a revision.
    Read(u64, RangeResult),
    /// Nothing has happened and nothing will.
    NotDone,
    /// Anything but the others.
    Unknown,
}

/// One operation of one client. Times are the observer's, in microseconds.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its own.
    pub number: u64,
    /// When it was sent.
    pub began_us: u64,
    /// When the answer came.
    pub ended_us: u64,
    /// What was asked.
    pub asked: Asked,
    /// What was answered.
    pub told: Told,
}

/// What a watch delivered at once.
#[derive(Clone, Debug)]
pub struct Notice {
    /// When it arrived.
    pub at_us: u64,
    /// What it said.
    pub events: Vec<Event>,
}

/// A grant or a renewal that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// The lease.
    pub lease: LeaseId,
    /// Its time.
    pub ttl_s: u64,
    /// When it was asked for.
    pub asked_us: u64,
}

/// Everything that was seen of a cluster.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In any order.
    pub operations: Vec<Operation>,
    /// Every event from the first revision on, read at the end from one node.
    pub committed: Vec<Event>,
    /// What other watches of everything were told while it happened, each from the first revision on.
    pub watches: Vec<Vec<Notice>>,
    /// Of leases.
    pub renewals: Vec<Renewal>,
}

/// What was found right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes whose outcome nobody was told.
    pub unknown: u64,
    /// Of these, how many took effect.
    pub unknown_done: u64,
    /// Operations that were answered as not done.
    pub refused: u64,
    /// Reads.
    pub reads: u64,
    /// Of these, how many were linearizable.
    pub linearizable: u64,
    /// Where the keyspace ended.
    pub revision: u64,
    /// Events that live watches were told.
    pub watched: u64,
    /// Leases that ended.
    pub leases_ended: u64,
}

/// The write that names the operation; `client` has one operation at a time.
#[must_use]
pub fn mark(client: u64, operation: u64) -> Op {
    Op::Put(PutOp::of(format!("m/{client}"), operation.to_string()))
}

/// Holds a history against the model.
///
/// # Errors
/// The first rule that was broken.
pub fn judge(history: &History) -> Result<Judged, Violation> {
    let mut replay = Replay::new(history);
    // Who ends in the microsecond in which another begins is not before it.
    let begins = history.operations.iter().map(|op| (op.began_us, false, op));
    let ends = history.operations.iter().map(|op| (op.ended_us, true, op));
    let mut moments: Vec<(u64, bool, &Operation)> = begins.chain(ends).collect();
    moments.sort_by_key(|(at, ends, op)| (*at, *ends, op.number));
    let mut began: BTreeMap<u64, Floor> = BTreeMap::new();
    for (_, ends, op) in moments {
        if ends {
            let floor = began.remove(&op.number).unwrap_or_default();
            replay.ended(op, floor)?;
        } else {
            began.insert(op.number, replay.order.floor());
        }
    }
    while replay.commit_next()? {}
    replay.watches()?;
    replay.leases()?;
    for op in &history.operations {
        let done = matches!((&op.asked, &op.told), (Asked::Write(_), Told::Unknown)) && replay.order.knows(op.number);
        replay.judged.unknown_done += u64::from(done);
    }
    replay.judged.revision = replay.order.model.revision;
    Ok(replay.judged)
}

struct Replay<'a> {
    history: &'a History,
    by_number: BTreeMap<u64, &'a Operation>,
    order: OrderCheck,
    /// Of the witness itself: its events must be the model's.
    witness: WatchCheck,
    /// Events of the witness that were taken.
    taken: usize,
    granted: BTreeMap<LeaseId, LogIndex>,
    ended: BTreeSet<LeaseId>,
    judged: Judged,
}

impl<'a> Replay<'a> {
    fn new(history: &'a History) -> Self {
        Self {
            history,
            by_number: history.operations.iter().map(|op| (op.number, op)).collect(),
            order: OrderCheck::new(),
            witness: WatchCheck { range: KeyRange::all(), next: 1 },
            taken: 0,
            granted: BTreeMap::new(),
            ended: BTreeSet::new(),
            judged: Judged::default(),
        }
    }

    fn ended(&mut self, op: &Operation, began: Floor) -> Result<(), Violation> {
        match (&op.asked, &op.told) {
            (Asked::Write(Command::LeaseGrant { .. }), Told::Done(_)) => self.judged.acknowledged += 1,
            (Asked::Write(_), Told::Done(applied)) => {
                self.commit_up_to(applied.header.revision.0)?;
                while !self.order.knows(op.number) && self.commit_next()? {}
                self.order.answered(op.number, began, &Ok(applied.clone()))?;
                self.judged.acknowledged += 1;
            }
            (Asked::Read { op, linearizable }, Told::Read(revision, result)) => {
                self.commit_up_to(*revision)?;
                self.order.read(op, *linearizable, began, *revision, result)?;
                self.judged.reads += 1;
                self.judged.linearizable += u64::from(*linearizable);
            }
            (Asked::Write(_), Told::NotDone) => {
                self.order.refused(op.number)?;
                self.judged.refused += 1;
            }
            (Asked::Write(_), _) => self.judged.unknown += 1,
            (Asked::Read { .. }, _) => {}
        }
        Ok(())
    }

    fn commit_up_to(&mut self, revision: u64) -> Result<(), Violation> {
        while self.order.model.revision < revision && self.commit_next()? {}
        Ok(())
    }

    /// Puts the next revision of the witness into the log; false at its end.
    fn commit_next(&mut self) -> Result<bool, Violation> {
        let rest = &self.history.committed[self.taken..];
        let Some(first) = rest.first() else { return Ok(false) };
        let revision = first.kv.mod_revision;
        let count = rest.iter().take_while(|event| event.kv.mod_revision == revision).count();
        let (events, next) = (&rest[..count], self.order.model.revision + 1);
        demand(revision.0 == next, "watch events are complete, ordered and unique", || {
            format!("revision {} stands where {next} should", revision.0)
        })?;
        let command = self.command_at(events)?;
        self.commit(LogIndex(revision.0), command)?;
        self.witness.events(&self.order.model, events)?;
        self.taken += count;
        Ok(true)
    }

    /// Whose work a revision is.
    fn command_at(&mut self, events: &[Event]) -> Result<Command, Violation> {
        let at = LogIndex(events[0].kv.mod_revision.0);
        let number = events.iter().find_map(|event| {
            let is_mark = event.kind == EventKind::Put && event.kv.key.starts_with(b"m/");
            is_mark.then(|| std::str::from_utf8(&event.kv.value).ok()?.parse::<u64>().ok())?
        });
        if let Some(number) = number {
            let Some(Operation { asked: Asked::Write(command), .. }) = self.by_number.get(&number) else {
                return Err(unasked(format!("revision {} is of operation {number}, which nobody sent", at.0)));
            };
            let command = (*command).clone();
            for lease in leases_of(&command) {
                self.grant(at, lease)?;
            }
            return Ok(command);
        }
        let lease = events.iter().find_map(|event| {
            let id = event.kv.key.strip_prefix(LEASED.as_bytes())?;
            (event.kind == EventKind::Delete).then(|| std::str::from_utf8(id).ok()?.parse().ok().map(LeaseId))?
        });
        let Some((lease, granted_at)) = lease.and_then(|id| Some((id, *self.granted.get(&id)?))) else {
            return Err(unasked(format!("nobody asked for what happened at revision {}: {events:?}", at.0)));
        };
        self.ended.insert(lease);
        Ok(Command::LeaseExpire { id: lease, granted_at })
    }

    /// A lease must have been there when a key was attached to it; where in the log it was granted cannot be seen.
    fn grant(&mut self, before: LogIndex, lease: LeaseId) -> Result<(), Violation> {
        if self.granted.contains_key(&lease) {
            return Ok(());
        }
        let asked = u64::try_from(lease.0).ok().and_then(|number| self.by_number.get(&number));
        let Some(Operation { asked: Asked::Write(command @ Command::LeaseGrant { .. }), .. }) = asked else {
            return Err(unasked(format!("lease {} is in use and nobody asked for it", lease.0)));
        };
        self.granted.insert(lease, before);
        self.commit(before, command.clone())
    }

    /// Each place in the log has a command id of its own: what stands there twice was applied twice.
    fn commit(&mut self, index: LogIndex, command: Command) -> Result<(), Violation> {
        let seq = operation_of(&command).unwrap_or(0);
        let id = CommandId { session: SessionId(index.0), seq };
        let envelope = Envelope { id, answered_below: 0, command };
        self.order.commit(index, &quorate_shard::encode_entry(WallMs(0), Timestamp::ZERO, [envelope].iter()).into())
    }

    fn watches(&mut self) -> Result<(), Violation> {
        let model = &self.order.model;
        for notices in &self.history.watches {
            let mut check = WatchCheck { range: KeyRange::all(), next: 1 };
            for notice in notices {
                check.events(model, &notice.events)?;
                self.judged.watched += notice.events.len() as u64;
            }
            check.finished(model, model.revision)?;
        }
        Ok(())
    }

    /// A lease's end is as early as the first watch that heard of it.
    fn leases(&mut self) -> Result<(), Violation> {
        let mut check = LeaseCheck::within(LEASE_EARLY_PER_MILLE);
        for renewal in &self.history.renewals {
            check.renewed(renewal.lease, renewal.ttl_s, renewal.asked_us);
        }
        for lease in &self.ended {
            let key = format!("{LEASED}{}", lease.0);
            let is_end = |event: &Event| event.kind == EventKind::Delete && event.kv.key == key;
            let told = self.history.watches.iter().flatten().filter(|notice| notice.events.iter().any(is_end));
            if let Some(at) = told.map(|notice| notice.at_us).min() {
                check.expired(*lease, at)?;
                self.judged.leases_ended += 1;
            }
        }
        Ok(())
    }
}

fn leases_of(command: &Command) -> Vec<LeaseId> {
    let Command::Transact(txn) = command else { return Vec::new() };
    let lease = |op: &Op| match op {
        Op::Put(put) if put.lease != LeaseId::NONE => Some(put.lease),
        _ => None,
    };
    txn.success.iter().chain(&txn.failure).filter_map(lease).collect()
}

fn unasked(detail: String) -> Violation {
    Violation { rule: "only what was asked for is committed", detail }
}

#[cfg(test)]
mod tests;
