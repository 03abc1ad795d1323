//! What a shard's leader does about transactions whose coordinator is silent.

use crate::bounds::{ACROSS_STEP_TIMEOUT, ORPHAN_AFTER};
use quorate_env::{Instant, LogIndex, ShardId};
use quorate_kv::across::{Decision, TxId};
use std::collections::BTreeMap;

/// What a shard's leader finds in its ledger.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orphans {
    pub shard: ShardId,
    /// Prepared here, decided at that home, before that fence.
    pub prepared: Vec<(TxId, ShardId, LogIndex)>,
    /// Decided here, not carried out in those shards.
    pub unresolved: Vec<(TxId, Decision, Vec<ShardId>)>,
    /// Reserved here, by that entry.
    pub reserved: Vec<(TxId, LogIndex)>,
}

/// What has waited for too long.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub unsettled: Vec<(ShardId, TxId, ShardId, LogIndex)>,
    pub unresolved: Vec<(ShardId, TxId, Decision, Vec<ShardId>)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// When something is due, by the shard in whose ledger it is.
    due: BTreeMap<(ShardId, TxId), Instant>,
    /// How many shards have yet to carry out a decision.
    jobs: BTreeMap<u64, usize>,
    next_job: u64,
}

impl Recovery {
    /// So many shards are asked to carry out a decision.
    pub fn begin(&mut self, shards: usize) -> u64 {
        self.next_job += 1;
        self.jobs.insert(self.next_job, shards);
        self.next_job
    }

    /// One of them has, or could not; returns whether now all of them have. If one could not, the decision's home will ask again.
    pub fn resolved(&mut self, job: u64, done: bool) -> bool {
        let Some(left) = self.jobs.get_mut(&job) else { return false };
        *left -= 1;
        let all = done && *left == 0;
        if all || !done {
            self.jobs.remove(&job);
        }
        all
    }

    /// Takes note of what was found, and returns what has been there for too long. It is due again, later, if that does not help.
    pub fn take_due(&mut self, found: Vec<Orphans>, now: Instant) -> Due {
        let mut still = BTreeMap::new();
        let mut due = Due::default();
        let mut is_due = |key: (ShardId, TxId)| {
            let when = self.due.get(&key).copied().unwrap_or(now + ORPHAN_AFTER);
            let over = when <= now;
            still.insert(key, if over { now + ACROSS_STEP_TIMEOUT } else { when });
            over
        };
        for Orphans { shard, prepared, unresolved, .. } in found {
            for (tx, home, fence) in prepared {
                if is_due((shard, tx)) {
                    due.unsettled.push((shard, tx, home, fence));
                }
            }
            for (tx, decision, shards) in unresolved {
                if is_due((shard, tx)) {
                    due.unresolved.push((shard, tx, decision, shards));
                }
            }
        }
        self.due = still;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_for_long_is_due_and_then_due_again() {
        let mut recovery = Recovery::default();
        let (tx, home, fence) = (TxId(7), ShardId(2), LogIndex(9));
        let found = || vec![Orphans { shard: ShardId(1), prepared: vec![(tx, home, fence)], ..Orphans::default() }];
        let at = |since: std::time::Duration| Instant(0) + since;
        assert_eq!(recovery.take_due(found(), at(ORPHAN_AFTER / 2)), Due::default());
        let first = at(ORPHAN_AFTER * 3 / 2);
        let due = Due { unsettled: vec![(ShardId(1), tx, home, fence)], unresolved: Vec::new() };
        assert_eq!(recovery.take_due(found(), first), due);
        assert_eq!(recovery.take_due(found(), first), Due::default(), "the question is under way");
        assert_eq!(recovery.take_due(found(), first + ACROSS_STEP_TIMEOUT), due);
        recovery.take_due(Vec::new(), first);
        assert_eq!(recovery.take_due(found(), first + ACROSS_STEP_TIMEOUT), Due::default(), "it is another's now");
    }

    #[test]
    fn a_decision_is_forgotten_when_every_shard_has_carried_it_out() {
        let mut recovery = Recovery::default();
        let (first, second) = (recovery.begin(2), recovery.begin(2));
        assert!(!recovery.resolved(first, true));
        assert!(!recovery.resolved(second, false));
        assert!(recovery.resolved(first, true));
        assert!(!recovery.resolved(second, true), "one could not");
    }
}
