//! Answers against the committed order: every acknowledged command is in the log once and was answered as the model says; the order
//! respects real time; reads see everything that was complete before they began. With the commit order as witness this decides
//! linearizability in linear time.

use crate::history::{Violation, demand};
use crate::model::{Expectation, Model};
use bytes::Bytes;
use quorate_env::LogIndex;
use quorate_kv::{Applied, Command, Op, RangeOp, RangeResult, Refusal};
use quorate_shard::EntryPayload;
use std::collections::{BTreeMap, BTreeSet};

/// What had been complete when an operation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floor {
    pub index: LogIndex,
    pub revision: u64,
}

#[derive(Default)]
pub(crate) struct OrderCheck {
    pub model: Model,
    expected: BTreeMap<u64, Expectation>,
    floor: Floor,
    /// Operations answered as if nothing had happened.
    refused: BTreeSet<u64>,
    /// Retries that the model recognised, for coverage.
    pub retries: u64,
}

/// The operation that a command belongs to: clients write their operation's number with every transaction, and name leases by it.
pub(crate) fn operation_of(command: &Command) -> Option<u64> {
    match command {
        Command::Transact(txn) => match txn.success.first() {
            Some(Op::Put(put)) if put.key.starts_with(b"m/") => std::str::from_utf8(&put.value).ok()?.parse().ok(),
            _ => None,
        },
        Command::LeaseGrant { id, .. } => u64::try_from(id.0).ok(),
        _ => None,
    }
}

impl OrderCheck {
    pub fn new() -> Self {
        Self { model: Model::new(), ..Self::default() }
    }

    /// The next entry of the committed log.
    pub fn commit(&mut self, index: LogIndex, payload: &Bytes) -> Result<(), Violation> {
        if payload.is_empty() {
            return Ok(());
        }
        let entry = EntryPayload::decode(payload.clone());
        let entry = entry.map_err(|e| Violation { rule: "entries can be read", detail: format!("{index}: {e}") })?;
        for envelope in entry.commands {
            match self.model.apply(index, &envelope) {
                None => self.retries += 1,
                Some(expectation) => {
                    if let Some(operation) = operation_of(&envelope.command) {
                        demand(
                            !self.refused.contains(&operation),
                            "what is answered as not done has no effect",
                            || format!("operation {operation} is in the log at {index}"),
                        )?;
                        let twice = self.expected.insert(operation, expectation);
                        demand(twice.is_none(), "applied at most once", || {
                            format!("operation {operation} is in the log under two command ids")
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether an operation is in the log.
    pub fn knows(&self, operation: u64) -> bool {
        self.expected.contains_key(&operation)
    }

    /// What is complete now.
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// A command, or anything else, was answered as not done.
    pub fn refused(&mut self, operation: u64) -> Result<(), Violation> {
        self.refused.insert(operation);
        demand(!self.expected.contains_key(&operation), "what is answered as not done has no effect", || {
            format!("operation {operation} is in the log")
        })
    }

    /// A command was answered.
    pub fn answered(
        &mut self,
        operation: u64,
        began: Floor,
        answer: &Result<Applied, Refusal>,
    ) -> Result<(), Violation> {
        let Some(expected) = self.expected.get(&operation) else {
            let detail = format!("operation {operation} was answered and is not in the committed log");
            return Err(Violation { rule: "acknowledged is committed", detail });
        };
        demand(expected.index > began.index, "commit order respects real time", || {
            format!("operation {operation} at {} began after {} was complete", expected.index, began.index)
        })?;
        let got = answer.as_ref().map(|applied| applied.outcome.clone()).map_err(Clone::clone);
        demand(got == expected.answer, "answers are the model's", || {
            format!("operation {operation} at {}: got {got:?}, expected {:?}", expected.index, expected.answer)
        })?;
        if let Ok(applied) = answer {
            let revision = applied.header.revision.0;
            demand(revision == expected.revision, "revisions are the model's", || {
                format!("operation {operation}: revision {revision}, expected {}", expected.revision)
            })?;
        }
        self.floor.index = self.floor.index.max(expected.index);
        self.floor.revision = self.floor.revision.max(expected.revision);
        Ok(())
    }

    /// A read was answered at `revision`.
    pub fn read(
        &mut self,
        op: &RangeOp,
        linearizable: bool,
        began: Floor,
        revision: u64,
        got: &RangeResult,
    ) -> Result<(), Violation> {
        demand(revision <= self.model.revision, "reads do not see the future", || {
            format!("a read at revision {revision}, the log is at revision {}", self.model.revision)
        })?;
        demand(!linearizable || revision >= began.revision, "linearizable reads are not stale", || {
            format!("a read saw revision {revision}, revision {} was complete before it began", began.revision)
        })?;
        let at = op.revision.map_or(revision, |at| at.0);
        let expected = self.model.range_at(op, at);
        demand(*got == expected, "reads are the model's", || {
            format!("a read of {:?} at {at}: got {got:?}, expected {expected:?}", op.range)
        })?;
        if linearizable {
            self.floor.revision = self.floor.revision.max(revision);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::{Term, Timestamp, WallMs};
    use quorate_kv::{
        CommandId, Envelope, Header, KeyRange, OpResult, Outcome, PutOp, PutResult, Revision, SessionId, Txn, TxnResult,
    };

    fn put(operation: u64) -> Command {
        Command::Transact(Txn::just(Op::Put(PutOp::of("m/0", operation.to_string()))))
    }

    fn entry(seq: u64, operation: u64) -> Bytes {
        let id = CommandId { session: SessionId(1), seq };
        quorate_shard::encode_entry(
            WallMs(0),
            Timestamp::ZERO,
            [Envelope { id, answered_below: 0, command: put(operation) }].iter(),
        )
        .into()
    }

    fn ok(revision: u64) -> Result<Applied, Refusal> {
        let results = vec![OpResult::Put(PutResult::default())];
        let outcome = Outcome::Transacted(TxnResult { succeeded: true, results });
        Ok(Applied { header: Header { revision: Revision(revision), term: Term(1) }, outcome })
    }

    fn rule(result: Result<(), Violation>) -> &'static str {
        result.expect_err("an objection").rule
    }

    #[test]
    fn a_lost_a_repeated_and_a_misnumbered_write_are_noticed() {
        let mut check = OrderCheck::new();
        assert_eq!(rule(check.answered(7, Floor::default(), &ok(2))), "acknowledged is committed");
        check.commit(LogIndex(1), &entry(1, 7)).expect("committed");
        assert_eq!(rule(check.answered(7, Floor::default(), &ok(3))), "revisions are the model's");
        check.answered(7, Floor::default(), &ok(2)).expect("right");
        check.commit(LogIndex(2), &entry(1, 7)).expect("a retry under the same id is harmless");
        assert_eq!((check.retries, check.model.revision), (1, 2));
        assert_eq!(rule(check.commit(LogIndex(3), &entry(2, 7))), "applied at most once");
    }

    #[test]
    fn an_effect_of_what_was_refused_is_noticed() {
        let mut check = OrderCheck::new();
        check.refused(7).expect("not in the log");
        assert_eq!(rule(check.commit(LogIndex(1), &entry(1, 7))), "what is answered as not done has no effect");
        check.commit(LogIndex(2), &entry(2, 8)).expect("committed");
        assert_eq!(rule(check.refused(8)), "what is answered as not done has no effect");
    }

    #[test]
    fn a_command_that_its_proposer_gave_up_has_no_effect_later() {
        let mut check = OrderCheck::new();
        let late = Envelope { id: CommandId { session: SessionId(1), seq: 1 }, answered_below: 1, command: put(7) };
        let next = Envelope { id: CommandId { session: SessionId(1), seq: 2 }, answered_below: 2, command: put(8) };
        let entry = quorate_shard::encode_entry(WallMs(0), Timestamp::ZERO, [next, late].iter()).into();
        check.commit(LogIndex(1), &entry).expect("committed");
        assert_eq!(check.model.revision, 2);
        assert_eq!(rule(check.answered(7, Floor::default(), &ok(3))), "acknowledged is committed");
    }

    #[test]
    fn stale_reads_and_orders_against_time_are_noticed() {
        let mut check = OrderCheck::new();
        check.commit(LogIndex(1), &entry(1, 7)).expect("committed");
        check.commit(LogIndex(2), &entry(2, 8)).expect("committed");
        check.answered(8, Floor::default(), &ok(3)).expect("right");
        let began = check.floor();
        assert_eq!(rule(check.answered(7, began, &ok(2))), "commit order respects real time");
        let op = RangeOp::of(KeyRange::single("m/0"));
        let old = check.model.range_at(&op, 2);
        check.read(&op, false, began, 2, &old).expect("a serializable read may be stale");
        assert_eq!(rule(check.read(&op, true, began, 2, &old)), "linearizable reads are not stale");
        assert_eq!(rule(check.read(&op, true, began, 3, &old)), "reads are the model's");
    }
}
