//! One attempt at a transaction over several shards, as its coordinator sees it: which answers it waits for, and what it may do next.
//!
//! The coordinator promises nothing: it may vanish at any point. What was prepared is then settled by the shards themselves.

use quorate_env::{LogIndex, ShardId, Timestamp};
use quorate_kv::across::{Decision, OWN, PartResult, TxAnswer, TxId};
use quorate_kv::{Error, Refusal, Unavailable};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub tx: TxId,
    pub home: ShardId,
    pub fence: LogIndex,
    /// The shards that prepare: all but the home.
    pub others: BTreeSet<ShardId>,
    waiting: BTreeSet<ShardId>,
    others_hold: bool,
    prepared_by: Timestamp,
}

/// What an answer leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More answers must come.
    Wait,
    /// Every other shard has prepared: the home decides, knowing whether the compares hold in the others.
    Decide { others_hold: bool },
    /// It is over.
    Over(End),
}

/// How an attempt ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The other shards must carry it out.
    Committed { succeeded: bool, at: Timestamp },
    /// Under the client's key, something was decided before: this attempt is not to happen. And where logs ended to which it appended.
    Repeated(Decision, Vec<(ShardId, u64)>),
    /// Nothing of it happens, and another attempt may succeed.
    Again(Error),
    /// Nothing of it happens, and trying again is of no use.
    Failed(Error),
    /// Nobody here knows.
    Unknown,
}

/// Whether another attempt may find things otherwise: a lock is released, and a shard that was split is found in the map.
fn may_pass(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused(Refusal::Locked { .. } | Refusal::Moved { .. }) | Error::Unavailable(Unavailable::NoLeader)
    )
}

impl Attempt {
    /// Begins. The caller asks each of the others to prepare, or the home to decide if there are none.
    pub fn new(tx: TxId, home: ShardId, fence: LogIndex, others: BTreeSet<ShardId>) -> Self {
        Self { tx, home, fence, waiting: others.clone(), others, others_hold: true, prepared_by: Timestamp::ZERO }
    }

    /// When all that have answered had prepared.
    pub fn prepared_by(&self) -> Timestamp {
        self.prepared_by
    }

    /// Whether the home was asked to decide.
    pub fn is_deciding(&self) -> bool {
        self.waiting.is_empty()
    }

    /// An answer to a prepare, with what it says of the reads.
    pub fn prepared(
        &mut self,
        shard: ShardId,
        answer: Result<TxAnswer, Error>,
        results: &mut BTreeMap<ShardId, PartResult>,
    ) -> Next {
        match answer {
            Ok(TxAnswer::Prepared(result)) => {
                self.waiting.remove(&shard);
                self.others_hold &= result.holds;
                self.prepared_by = self.prepared_by.max(result.at);
                results.insert(shard, result);
                let others_hold = self.others_hold;
                if self.waiting.is_empty() { Next::Decide { others_hold } } else { Next::Wait }
            }
            Err(error) if may_pass(&error) => Next::Over(End::Again(error)),
            // Whatever became of it: as long as nobody decides, nothing happens, and nobody but this coordinator decides.
            Err(Error::UnknownOutcome(_)) => Next::Over(End::Failed(Unavailable::Timeout.into())),
            Err(error) => Next::Over(End::Failed(error)),
            Ok(other) => unreachable!("a prepare was answered with {other:?}"),
        }
    }

    /// The answer to the decision.
    pub fn decided(&self, answer: Result<TxAnswer, Error>, results: &mut BTreeMap<ShardId, PartResult>) -> End {
        match answer {
            Ok(TxAnswer::Decided { decision: Decision::Committed { succeeded, at }, result }) => {
                results.extend(result.map(|result| (self.home, result)));
                End::Committed { succeeded, at }
            }
            // A shard that waited for long has asked, and so it was aborted.
            Ok(TxAnswer::Decided { decision: Decision::Aborted, .. }) => {
                End::Again(Error::Refused(Refusal::Aborted { tx: self.tx }))
            }
            Ok(TxAnswer::Repeated(decision, ends)) => {
                let named = |(shard, end)| (if shard == OWN { self.home } else { shard }, end);
                End::Repeated(decision, ends.into_iter().map(named).collect())
            }
            Err(error @ Error::Refused(Refusal::Aborted { .. })) => End::Again(error),
            Err(error) if may_pass(&error) => End::Again(error),
            Err(Error::UnknownOutcome(_)) => End::Unknown,
            Err(error) => End::Failed(error),
            Ok(other) => unreachable!("a decision was answered with {other:?}"),
        }
    }
}
