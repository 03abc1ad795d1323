//! The watch contract: every event of the range, in order, once, whole revisions at a time, and never a progress mark ahead of an event.

use crate::history::{Violation, demand};
use crate::model::{Change, Model};
use quorate_kv::{Event, EventKind, KeyRange};

/// One watch, followed across nodes and crashes.
#[derive(Clone, Debug)]
pub(crate) struct WatchCheck {
    pub range: KeyRange,
    /// The next event must be the first change of the range at or after this revision.
    pub next: u64,
}

impl WatchCheck {
    fn pending<'a>(&self, model: &'a Model) -> impl Iterator<Item = &'a Change> + use<'a> {
        let range = self.range.clone();
        let from = model.changes.partition_point(|change| change.revision < self.next);
        model.changes[from..].iter().filter(move |change| range.contains(&change.key))
    }

    pub fn events(&mut self, model: &Model, events: &[Event]) -> Result<(), Violation> {
        let from = self.next;
        let mut pending = self.pending(model);
        let mut last = 0;
        for event in events {
            let value = if event.kind == EventKind::Put { event.kv.value.clone() } else { bytes::Bytes::new() };
            let (revision, kind, key) = (event.kv.mod_revision.0, event.kind, event.kv.key.clone());
            let got = Change { revision, kind, key, value };
            let expected = pending.next();
            demand(expected == Some(&got), "watch events are complete, ordered and unique", || {
                format!("a watch from {from} got {got:?}, the next change is {expected:?}")
            })?;
            last = got.revision;
        }
        let following = pending.next().map(|change| change.revision);
        drop(pending);
        demand(following != Some(last), "watch notices are atomic per revision", || {
            format!("a notice ends within revision {last}")
        })?;
        self.next = self.next.max(last + 1);
        Ok(())
    }

    /// Everything up to `revision` is said to have been delivered.
    pub fn progress(&mut self, model: &Model, revision: u64) -> Result<(), Violation> {
        let missing = self.pending(model).next().filter(|change| change.revision <= revision);
        demand(missing.is_none(), "progress is not ahead of events", || {
            format!("progress to revision {revision}, but {missing:?} is missing")
        })?;
        demand(revision <= model.revision, "progress is not ahead of events", || {
            format!("progress to revision {revision}, but the keyspace is at revision {}", model.revision)
        })?;
        self.next = self.next.max(revision + 1);
        Ok(())
    }

    /// The run is over: nothing up to `revision` may be missing.
    pub fn finished(&self, model: &Model, revision: u64) -> Result<(), Violation> {
        let missing = self.pending(model).next().filter(|change| change.revision <= revision);
        demand(missing.is_none(), "watch events are complete, ordered and unique", || {
            format!("a watch of {:?} never saw {missing:?}", self.range)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::LogIndex;
    use quorate_kv::{Command, CommandId, Envelope, KeyValue, LeaseId, Op, PutOp, Revision, SessionId, Txn};

    fn model() -> Model {
        let mut model = Model::new();
        for seq in 1..=3 {
            let id = CommandId { session: SessionId(1), seq };
            let txn = Txn {
                success: vec![Op::Put(PutOp::of("a", seq.to_string())), Op::Put(PutOp::of("b", seq.to_string()))],
                ..Txn::default()
            };
            model.apply(LogIndex(seq), &Envelope { id, answered_below: 0, command: Command::Transact(txn) });
        }
        model
    }

    fn event(key: &'static str, revision: u64) -> Event {
        let kv = KeyValue {
            key: key.into(),
            value: (revision - 1).to_string().into(),
            create_revision: Revision(2),
            mod_revision: Revision(revision),
            version: revision - 1,
            lease: LeaseId::NONE,
        };
        Event { kind: EventKind::Put, kv, prev: None }
    }

    fn rule(result: Result<(), Violation>) -> &'static str {
        result.expect_err("an objection").rule
    }

    #[test]
    fn gaps_repeats_and_split_revisions_are_noticed() {
        let model = model();
        let fresh = WatchCheck { range: KeyRange::all(), next: 2 };
        let complete = "watch events are complete, ordered and unique";
        assert_eq!(rule(fresh.clone().events(&model, &[event("b", 2)])), complete);
        assert_eq!(rule(fresh.clone().events(&model, &[event("a", 3), event("b", 3)])), complete);
        assert_eq!(rule(fresh.clone().events(&model, &[event("a", 2)])), "watch notices are atomic per revision");
        let mut watch = fresh.clone();
        watch.events(&model, &[event("a", 2), event("b", 2)]).expect("right");
        assert_eq!(rule(watch.clone().events(&model, &[event("a", 2), event("b", 2)])), complete);
        assert_eq!(rule(watch.clone().progress(&model, 3)), "progress is not ahead of events");
        watch.progress(&model, 2).expect("right");
        assert_eq!(rule(watch.finished(&model, 4)), complete);
    }
}
