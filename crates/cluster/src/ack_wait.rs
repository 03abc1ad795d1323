//! What must be true of a write before its client is told that it was done, besides that a majority has it, or instead (docs/design/consistency.md).
//!
//! ```text
//!   applied ──> on the disks of all voters? ──> its timestamp over on every clock? ──> the client is told
//!                  the leader knows                 this node knows, within the bound on clocks
//! ```
//!
//! Nothing is undone where that does not come true: the write is committed, and its client hears that its outcome is unknown.

use crate::bounds::RETRY;
use quorate_env::{Instant, LogIndex, Timestamp, WallMs};
use quorate_kv::across::{Decision, TxAnswer};
use quorate_kv::{Applied, Outcome, Policy, Replication};
use std::time::Duration;

/// By so much a stamp may be behind the clock that made it: it is rounded down to a millisecond, and so is the time since the clock was read.
const ROUNDING_MS: u64 = 2;

/// See the top of this file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AckWait {
    /// All voters of the shard's group have it on their disks.
    pub everywhere: bool,
    /// Its timestamp is over on every clock that keeps the bound.
    pub over: bool,
    /// It is enough that the leader has it on its disk, where nothing more is wanted.
    pub early: bool,
}

impl AckWait {
    /// What a keyspace wants.
    pub fn of(policy: &Policy) -> Self {
        let is = |replication| policy.replication == replication;
        Self { everywhere: is(Replication::All), over: policy.commit_wait, early: is(Replication::Leader) }
    }

    /// What either wants.
    pub fn and(self, other: Self) -> Self {
        let everywhere = self.everywhere || other.everywhere;
        Self { everywhere, over: self.over || other.over, early: self.early || other.early }
    }

    /// Whether a majority is not just what is asked for.
    pub fn is_for_anything(self) -> bool {
        self != Self::default()
    }

    /// Whether a majority is more than is asked for.
    pub fn is_for_less(self) -> bool {
        self.early && !self.is_for_more()
    }

    /// Whether a majority is not enough.
    pub fn is_for_more(self) -> bool {
        self.everywhere || self.over
    }
}

/// Whether who hears this takes it that something was done.
pub(crate) fn claims_done(applied: &Applied) -> bool {
    !matches!(
        &applied.outcome,
        Outcome::Stepped(
            TxAnswer::Settled(None | Some(Decision::Aborted))
                | TxAnswer::Decided { decision: Decision::Aborted, .. }
                | TxAnswer::Repeated(Decision::Aborted, _)
        )
    )
}

/// Whether it may be said before a majority has it. That something was *not* done may not: should this leader be deposed and the same command be on its way to the
/// next one, it may be done yet.
pub(crate) fn may_be_early(applied: &Applied) -> bool {
    match &applied.outcome {
        Outcome::Transacted(result) => result.succeeded,
        Outcome::Stepped(TxAnswer::Decided { decision: Decision::Committed { succeeded, .. }, .. }) => *succeeded,
        _ => false,
    }
}

/// When a transaction happened, as the answer says that decided it. Of what does not say so, nobody knows that it is over.
pub(crate) fn moment_of(applied: &Applied) -> Timestamp {
    match &applied.outcome {
        Outcome::Stepped(
            TxAnswer::Settled(Some(Decision::Committed { at, .. }))
            | TxAnswer::Decided { decision: Decision::Committed { at, .. }, .. }
            | TxAnswer::Repeated(Decision::Committed { at, .. }, _),
        ) => *at,
        _ => Timestamp(u64::MAX),
    }
}

/// Before which millisecond every timestamp is over, when the clock here says `wall`: whatever begins from now on is stamped with that one or a later one, by
/// whichever node. This clock may be `bound` ahead of true time, and the one that stamps next `bound` behind it.
pub(crate) fn over_before(wall: WallMs, bound: Duration) -> WallMs {
    let bound_ms = u64::try_from(bound.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
    WallMs(wall.0.saturating_sub(bound_ms.saturating_mul(2).saturating_add(ROUNDING_MS)))
}

/// How far all voters have a shard's log, as a node that waits for that knows it, and what it has asked. What was once so stays so: nobody gets a
/// vote who lacks any of it (`replica::everywhere`).
#[derive(Debug, Default)]
pub(crate) struct Everywhere {
    known: LogIndex,
    asked: Option<(LogIndex, Instant)>,
}

impl Everywhere {
    pub fn known(&self) -> LogIndex {
        self.known
    }

    /// All voters have everything up to here.
    pub fn hear(&mut self, index: LogIndex) {
        self.known = self.known.max(index);
    }

    /// Another leads, who was not asked.
    pub fn restart(&mut self) {
        self.asked = None;
    }

    /// Whether the leader is to be asked now.
    pub fn must_ask(&mut self, index: LogIndex, now: Instant) -> bool {
        let due = |(asked, when): (LogIndex, Instant)| asked < index || now.since(when) >= RETRY;
        let asks = index > self.known && self.asked.is_none_or(due);
        if asks {
            self.asked = Some((index, now));
        }
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::Term;
    use quorate_kv::{Header, Revision};

    #[test]
    fn the_leader_is_asked_once_for_each_entry_and_again_when_it_is_silent() {
        let mut everywhere = Everywhere::default();
        assert!(everywhere.must_ask(LogIndex(5), Instant(0)));
        assert!(!everywhere.must_ask(LogIndex(4), Instant(1)) && !everywhere.must_ask(LogIndex(5), Instant(1)));
        assert!(everywhere.must_ask(LogIndex(6), Instant(1)), "a later one");
        assert!(everywhere.must_ask(LogIndex(6), Instant(1) + RETRY));
        everywhere.restart();
        assert!(everywhere.must_ask(LogIndex(6), Instant(2) + RETRY), "another leader");
        everywhere.hear(LogIndex(6));
        everywhere.hear(LogIndex(3));
        everywhere.restart();
        assert!(!everywhere.must_ask(LogIndex(6), Instant(3) + RETRY));
    }

    #[test]
    fn a_timestamp_is_over_when_no_clock_within_the_bound_can_make_one_before_it() {
        let bound = Duration::from_millis(10);
        // True time is `t`; the clock here is as far ahead as it may be, the one that stamps next as far behind, and rounded down twice.
        for t in 1_000..1_100_u64 {
            let over = over_before(WallMs(t + 10), bound);
            let next_stamp = WallMs(t - 10 - ROUNDING_MS);
            assert!(over <= next_stamp, "{over:?} {next_stamp:?}");
        }
        assert_eq!(over_before(WallMs(1_000), Duration::from_micros(1)), WallMs(1_000 - 2 - ROUNDING_MS));
        assert_eq!(over_before(WallMs(5), bound), WallMs(0));
    }

    #[test]
    fn who_hears_that_nothing_was_done_need_not_wait() {
        let header = Header { revision: Revision(2), term: Term(1) };
        let told = |answer| Applied { header, outcome: Outcome::Stepped(answer) };
        let at = Timestamp(7);
        let committed = Decision::Committed { succeeded: true, at };
        for (answer, done) in [
            (TxAnswer::Settled(Some(Decision::Aborted)), false),
            (TxAnswer::Settled(None), false),
            (TxAnswer::Settled(Some(committed)), true),
            (TxAnswer::Repeated(committed, Vec::new()), true),
            (TxAnswer::Decided { decision: Decision::Aborted, result: None }, false),
            (TxAnswer::Decided { decision: committed, result: None }, true),
        ] {
            let applied = told(answer);
            assert_eq!(claims_done(&applied), done);
            assert_eq!(moment_of(&applied) == at, done);
        }
    }
}
