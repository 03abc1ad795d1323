//! Answers that leaders here gave and that were lost: it is written down, for everybody to see. A node that fails before it could do that takes what it knew with it.

use super::{LOST, Node};
use crate::bounds::RETRY;
use crate::input::{Reply, Request};
use crate::replica::{LostAnswers, Replica};
use quorate_env::{Instant, ShardId, WallMs};
use quorate_kv::{Command, KeyspaceId, Outcome};
use std::collections::BTreeMap;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Losing {
    /// What is not written down yet.
    lost: BTreeMap<KeyspaceId, u64>,
    /// What is being written down.
    asked: Option<(KeyspaceId, u64)>,
    /// When that was last begun.
    tried: Option<Instant>,
}

impl Losing {
    /// Whether an answer is to come.
    pub fn is_asking(&self) -> bool {
        self.asked.is_some()
    }
}

impl Node {
    /// Writes down what was lost since the last time.
    pub(super) fn tell_losses(&mut self, now: Instant) {
        let found: Vec<(ShardId, LostAnswers)> =
            self.replicas.iter_mut().map(|(shard, replica)| (*shard, replica.take_lost())).collect();
        found.into_iter().for_each(|(shard, lost)| self.lose(shard, lost));
        let patience = if self.losing.is_asking() { 2 * RETRY } else { RETRY };
        let waits = self.losing.tried.is_some_and(|tried| now.since(tried) < patience);
        let lost = self.losing.lost.first_key_value().map(|(keyspace, answers)| (*keyspace, *answers));
        let Some((keyspace, answers)) = lost.filter(|_| !waits) else { return };
        (self.losing.asked, self.losing.tried) = (Some((keyspace, answers)), Some(now));
        let wall = WallMs(self.shared.wall.0 + now.since(self.shared.ticked).as_millis() as u64);
        let txn = self.system.losses.add(keyspace, answers, wall);
        let request = Request::Submit { shard: super::FIRST_SHARDS[0], command: Command::Transact(txn) };
        self.request(now, LOST, request, now + RETRY);
    }

    /// Answers were lost.
    pub(super) fn lose(&mut self, shard: ShardId, lost: LostAnswers) {
        if lost == LostAnswers::default() {
            return;
        }
        let keyspaces = &self.system.keyspaces;
        let perhaps = if keyspaces.ack_wait(shard).is_for_less() { lost.perhaps } else { 0 };
        let answers = lost.certainly + perhaps;
        if answers > 0 {
            let keyspace = keyspaces.of_shard(shard).map_or(KeyspaceId::DEFAULT, |keyspace| keyspace.id);
            *self.losing.lost.entry(keyspace).or_default() += answers;
        }
    }

    /// Answers that are lost, or soon will be, and of which only this node knows; for checkers.
    #[must_use]
    pub fn unsaid_losses(&self) -> u64 {
        self.losing.lost.values().sum::<u64>() + self.replicas.values().map(Replica::unsaid_losses).sum::<u64>()
    }

    /// Whether it was written down.
    pub(super) fn losses_told(&mut self, answer: Result<Reply, quorate_kv::Error>) {
        let Some((keyspace, answers)) = self.losing.asked.take() else { return };
        let written = |reply: &Reply| matches!(reply, Reply::Applied(applied) if matches!(&applied.outcome, Outcome::Transacted(done) if done.succeeded));
        if answer.as_ref().is_ok_and(written)
            && let Some(left) = self.losing.lost.get_mut(&keyspace)
        {
            *left -= answers;
            if *left == 0 {
                self.losing.lost.remove(&keyspace);
            }
        }
    }
}
