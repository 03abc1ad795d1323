//! What the core's types are called in a trace.

use crate::{Lane, Outcome, Part, Said, TraceEvent};
use quorate_cluster::{Answer, EntryCopy, PeerBody, Reply, Sighting, Standings, WatchOutput};
use quorate_consensus::Role;
use quorate_env::ShardId;
use quorate_kv::across::{Decision, Look, TxId, TxStep};
use quorate_kv::reserve::ReserveStep;
use quorate_kv::{
    Command, CommandId, Compare, CompareOp, Error, Expected, Freshness, KeyRange, LeaseId, Op, RangeEnd, RangeOp, Txn,
};

/// Beyond this many characters, words are cut.
const TEXT_CHARS_MAX: usize = 200;

/// A message between nodes.
#[must_use]
pub fn said(body: &PeerBody) -> Said {
    let other = |kind: &str, text: String| Said { kind: kind.into(), text: short(text), ..Said::default() };
    match body {
        PeerBody::Raft(m) => Said {
            kind: format!("{:?}", m.kind),
            term: m.term.0,
            index: m.index.0,
            entries: m.entries.len() as u64,
            commit: m.commit.0,
            reject: m.reject,
            text: String::new(),
        },
        PeerBody::Petition(envelopes) => {
            other("Petition", list(envelopes.iter().map(|envelope| command(&envelope.command))))
        }
        PeerBody::Answers { applied, answers, .. } => {
            let one = |(id, answer): &(CommandId, Answer)| match answer {
                Answer::Given(Ok(_)) => format!("{id} done"),
                Answer::Given(Err(refusal)) => format!("{id} refused: {refusal}"),
                Answer::Forgotten => format!("{id} applied before"),
            };
            other("Answers", format!("{applied} applied; {}", list(answers.iter().map(one))))
        }
        PeerBody::NotHere => other("NotHere", String::new()),
        PeerBody::LeaveAsk { index } => other("LeaveAsk", format!("behind {index}")),
        PeerBody::LookAsk { ask, freshness, .. } => other("LookAsk", format!("{ask}: {}", self::freshness(*freshness))),
        PeerBody::LookAnswer { ask, sight } => other(
            "LookAnswer",
            match sight {
                Ok(sight) => format!("{ask}: seen up to {}", sight.at),
                Err(refusal) => format!("{ask}: {refusal}"),
            },
        ),
        PeerBody::CloseAsk { at } => other("CloseAsk", format!("{at}")),
        PeerBody::EverywhereAsk { index } => other("EverywhereAsk", format!("{index}")),
        PeerBody::Early { answers } => other("Early", format!("{} answers", answers.len())),
        PeerBody::Everywhere { index } => other("Everywhere", format!("{index}")),
        PeerBody::Sleep { term, end } => other("Sleep", format!("behind {end} of {term}")),
        PeerBody::Rouse => other("Rouse", String::new()),
        PeerBody::Beat => other("Beat", String::new()),
        PeerBody::LeaveAnswer { index } => other("LeaveAnswer", format!("behind {index}")),
        PeerBody::Forward(envelopes) => {
            other("Forward", list(envelopes.iter().map(|envelope| command(&envelope.command))))
        }
        PeerBody::LeaseAsk { ask, lease, renew, .. } => {
            other("LeaseAsk", format!("{ask}: {} lease {}", if *renew { "renew" } else { "read" }, lease.0))
        }
        PeerBody::LeaseAnswer { ask, answer: Ok(read) } => {
            let seconds = read.result.remaining_s;
            other("LeaseAnswer", format!("{ask}: lease {} has {seconds} s left", read.result.id.0))
        }
        PeerBody::LeaseAnswer { ask, answer: Err(error) } => other("LeaseAnswer", format!("{ask}: {error}")),
        PeerBody::ChunkAsk { transfer, .. } => other("ChunkAsk", format!("of transfer {transfer}")),
        PeerBody::Chunk { transfer, chunk, .. } => {
            let last = if chunk.next.is_none() { ", the last" } else { "" };
            other("Chunk", format!("of transfer {transfer}, {} rows{last}", chunk.rows.len()))
        }
        PeerBody::TransferGone { transfer } => other("TransferGone", format!("transfer {transfer}")),
        PeerBody::EntryAsk { index, term } => other("EntryAsk", format!("{index} of {term}")),
        PeerBody::EntryAnswer { index, term, copy } => {
            let copy = match copy {
                EntryCopy::Held { payload, .. } => format!("here, {} bytes", payload.len()),
                EntryCopy::Absent { in_term, .. } => format!("not here in {in_term}"),
                EntryCopy::Compacted => "compacted".into(),
                EntryCopy::Replaced => "not here: another is committed in its place".into(),
            };
            other("EntryAnswer", format!("{index} of {term} is {copy}"))
        }
        PeerBody::RowsAsk { index } => other("RowsAsk", format!("up to {index}")),
        PeerBody::DigestAsk { cursor, .. } => other("DigestAsk", format!("from {}", cursor.escape_ascii())),
        PeerBody::Digest { hash, .. } => other("Digest", format!("{hash:016x}")),
        PeerBody::RowsOffer { transfer } => other("RowsOffer", format!("transfer {transfer}")),
        PeerBody::StandingAsk { ask } => other("StandingAsk", format!("{ask}")),
        PeerBody::StandingAnswer { ask, standings } => {
            let one = |s: &Standings| {
                format!("{}{}{}", s.node, if s.voter { " votes" } else { "" }, if s.alive { "" } else { ", silent" })
            };
            other("StandingAnswer", format!("{ask}: {}", list(standings.iter().map(one))))
        }
        PeerBody::RecallAsk { ask } => other("RecallAsk", format!("{ask}")),
        PeerBody::RecallAnswer { ask, seen } => {
            let one = |(shard, seen): &(ShardId, Sighting)| {
                let (in_term, index) = seen.acknowledged;
                format!("{shard} {}, voted in {}, {index} acknowledged in {in_term}", seen.term, seen.voted)
            };
            other("RecallAnswer", format!("{ask}: {}", list(seen.iter().map(one))))
        }
        PeerBody::StateHash { applied, hash } => other("StateHash", format!("at {applied} is {hash:016x}")),
    }
}

/// What a replica is.
#[must_use]
pub fn part(role: Role) -> Part {
    match role {
        Role::Follower => Part::Follower,
        Role::PreCandidate => Part::PreCandidate,
        Role::Candidate => Part::Candidate,
        Role::Leader => Part::Leader,
    }
}

/// The answer to a request: what became of it, at which revision, and why.
#[must_use]
pub fn answered(answer: &Result<Reply, Error>) -> (Outcome, u64, String) {
    match answer {
        Ok(Reply::Applied(applied)) => (Outcome::Done, applied.header.revision.0, String::new()),
        Ok(Reply::View { view, .. }) => (Outcome::Done, view.revision().0, String::new()),
        Ok(Reply::Lease(read)) => (Outcome::Done, 0, format!("{} s", read.result.granted_s)),
        Ok(_) => (Outcome::Done, 0, String::new()),
        Err(error) => outcome(Err(error)),
    }
}

/// What became of an operation: done at a revision (0: at none), or not.
#[must_use]
pub fn outcome(answer: Result<u64, &Error>) -> (Outcome, u64, String) {
    match answer {
        Ok(revision) => (Outcome::Done, revision, String::new()),
        Err(Error::Refused(refusal)) => (Outcome::Refused, 0, refusal.to_string()),
        Err(Error::Unavailable(why)) => (Outcome::Unavailable, 0, why.to_string()),
        Err(Error::UnknownOutcome(_) | Error::UnknownTransaction { .. }) => (Outcome::Unknown, 0, String::new()),
    }
}

/// What a watch is told.
#[must_use]
pub fn told(watch: Lane, node: Lane, output: &WatchOutput) -> TraceEvent {
    let span = |events: &[quorate_kv::Event]| {
        let revision = |event: Option<&quorate_kv::Event>| event.map_or(0, |event| event.kv.mod_revision.0);
        (revision(events.first()), revision(events.last()))
    };
    let ((from, to), text) = match output {
        WatchOutput::Attached { backlog, revision } => {
            let spans: Vec<_> = backlog.iter().map(|events| span(events)).collect();
            let ends = spans.first().zip(spans.last()).map_or((0, 0), |(first, last)| (first.0, last.1));
            let shown = spans.iter().map(|(from, to)| format!(", events {from}..={to}")).collect::<String>();
            (ends, format!("attached at revision {}{shown}", revision.0))
        }
        WatchOutput::Events { events, revision } => {
            let (from, to) = span(events);
            ((from, to), format!("events {from}..={to} at revision {}", revision.0))
        }
        WatchOutput::Behind { from, .. } => ((0, 0), format!("behind: read history from {}", from.0)),
        WatchOutput::Compacted { compacted, .. } => ((0, 0), format!("compacted at {}", compacted.0)),
        WatchOutput::Progress { revision } => ((0, 0), format!("progress: all up to revision {}", revision.0)),
        WatchOutput::Detached => ((0, 0), "detached".into()),
        WatchOutput::Gone => ((0, 0), "the replica is gone".into()),
    };
    TraceEvent::Tell { watch, node, from, to, text: short(text) }
}

/// A command.
#[must_use]
pub fn command(command: &Command) -> String {
    match command {
        Command::Transact(txn) => transaction(txn),
        Command::LeaseGrant { id, ttl_s } => format!("grant lease {} for {ttl_s} s", id.0),
        Command::LeaseRevoke { id } => format!("revoke lease {}", id.0),
        Command::LeaseExpire { id, .. } => format!("expire lease {}", id.0),
        Command::Compact { revision } => format!("compact at revision {}", revision.0),
        Command::Across { tx, step } => step_of(*tx, step),
        Command::Reserve { by, step } => reservation(*by, step),
        Command::Trim { before } => format!("cut off what is before offset {before}"),
        other => format!("{other:?}"),
    }
}

fn step_of(tx: TxId, step: &TxStep) -> String {
    let tx = format!("transaction {:08x}", (tx.0 >> 96) as u32);
    match step {
        TxStep::Prepare { home, part, .. } => format!("prepare {tx} of {home}, {} writes", part.success.len()),
        TxStep::Decide(verdict) => format!("decide {tx}, {} others are prepared", verdict.prepared.len()),
        TxStep::Settle { .. } => format!("settle {tx}"),
        TxStep::Resolve(Decision::Aborted) => format!("{tx} is aborted"),
        TxStep::Resolve(Decision::Committed { .. }) => format!("{tx} is committed"),
        TxStep::Forget => format!("forget {tx}"),
    }
}

fn reservation(by: TxId, step: &ReserveStep) -> String {
    let by = format!("transaction {:08x}", (by.0 >> 96) as u32);
    match step {
        ReserveStep::Reserve { age, keys, .. } => {
            format!("reserve {} for {by} of {age}", list(keys.iter().map(|key| show(key))))
        }
        ReserveStep::Release => format!("release what {by} has"),
        ReserveStep::Lapse { until } => format!("what {by} reserved up to {until} lapses"),
    }
}

fn transaction(txn: &Txn) -> String {
    let ops = |ops: &[Op]| list(ops.iter().map(op));
    if txn.compares.is_empty() {
        return ops(&txn.success);
    }
    let compares = list(txn.compares.iter().map(compare));
    format!("if {compares} then {} else {}", ops(&txn.success), ops(&txn.failure))
}

fn op(op: &Op) -> String {
    match op {
        Op::Range(op) => format!("read {}", read(op)),
        Op::Put(put) if put.lease == LeaseId::NONE => format!("put {}", show(&put.key)),
        Op::Put(put) => format!("put {} with lease {}", show(&put.key), put.lease.0),
        Op::Delete(delete) => format!("delete {}", range(&delete.range)),
        Op::Txn(txn) => format!("({})", transaction(txn)),
    }
}

/// What is read, and of when.
#[must_use]
pub fn read(op: &RangeOp) -> String {
    let limit = if op.limit > 0 { format!(", at most {}", op.limit) } else { String::new() };
    let at = op.revision.map_or_else(String::new, |revision| format!(" at revision {}", revision.0));
    format!("{}{at}{limit}", range(&op.range))
}

/// How fresh a read is to be.
#[must_use]
pub fn freshness(freshness: Freshness) -> String {
    match freshness {
        Freshness::Strict => "strict".into(),
        Freshness::At(at) => format!("at {at}"),
        Freshness::Within(age) => format!("within {} ms", age.as_millis()),
        Freshness::After(at) => format!("after {at}"),
        Freshness::Any => "any".into(),
    }
}

/// Reads that are no transaction.
#[must_use]
pub fn looks(looks: &[Look], fresh: Freshness) -> String {
    let all = looks.iter().map(|look| format!("{} in keyspace {}", range(&look.range), look.keyspace.0));
    format!("look at {}, {}", list(all), freshness(fresh))
}

/// Keys.
#[must_use]
pub fn range(range: &KeyRange) -> String {
    match &range.end {
        RangeEnd::Single => show(&range.start),
        RangeEnd::Before(end) => format!("{}..{}", show(&range.start), show(end)),
        RangeEnd::Unbounded => format!("{}..", show(&range.start)),
    }
}

fn compare(compare: &Compare) -> String {
    let sign = match compare.op {
        CompareOp::Equal => "=",
        CompareOp::Greater => ">",
        CompareOp::Less => "<",
        CompareOp::NotEqual => "!=",
    };
    let (what, value) = match &compare.expected {
        Expected::Version(n) => ("version", n.to_string()),
        Expected::Create(n) => ("creation", n.to_string()),
        Expected::Mod(n) => ("modification", n.to_string()),
        Expected::Value(value) => ("value", show(value)),
        Expected::Lease(n) => ("lease", n.to_string()),
    };
    format!("{what} of {} {sign} {value}", range(&compare.range))
}

/// A key or a value, as text.
#[must_use]
pub fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Several things.
#[must_use]
pub fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// A text that fits on a line: what is longer is cut.
#[must_use]
pub fn short(text: String) -> String {
    if text.chars().count() <= TEXT_CHARS_MAX {
        return text;
    }
    text.chars().take(TEXT_CHARS_MAX).chain(std::iter::once('…')).collect()
}
