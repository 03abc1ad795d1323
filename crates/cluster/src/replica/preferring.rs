//! Leadership spread over the nodes: each placed shard has a voter that is to lead it, so that every node leads about as many shards as any other.
//!
//! Who that is follows from the shard's number and its voters alone, so nobody has to agree on it or write it down. It is a preference and no more: a leader that has led for
//! a while offers its place if the other is as good; who has just lost leadership, for a slow disk or a restart, is left alone for as long.

use super::{Context, Replica};
use crate::config::Sabotage;
use crate::members::Wanted;
use crate::placement::Wishes;
use crate::reshape::Standing;
use quorate_env::{Instant, ReplicaId, Rng, ShardId};

/// Whose turn it is to lead a shard: modulo its voters, ascending. Mixed, because shards that are made together are placed on nodes in turn, too.
#[must_use]
pub fn turn_of(shard: ShardId) -> u64 {
    Rng::new(shard.0).next_u64()
}

fn first_of(shard: ShardId, voters: &[ReplicaId]) -> Option<ReplicaId> {
    let turn = turn_of(shard) % voters.len().max(1) as u64;
    voters.get(turn as usize).copied()
}

impl Replica {
    /// As a leader: who should lead in its place, and is as good.
    pub fn rightful(&self, wishes: &Wishes<'_>, cx: &Context<'_>) -> Option<ReplicaId> {
        let membership = self.group.membership();
        let first = first_of(self.shard, &membership.voters).filter(|first| *first != self.id && wishes.is_placed())?;
        let fit = self.standing(first, cx) == Standing { alive: true, in_sync: true };
        let stays = wishes.wanted(first) == Some(Wanted::Voter) && !membership.is_joint();
        (fit && stays && !cx.sabotaged(Sabotage::KeepLeading)).then_some(first)
    }

    /// As a leader of a group that is as it should be: offers its place to who should have it.
    pub(super) fn prefer(&mut self, wishes: &Wishes<'_>, cx: &Context<'_>) {
        let timing = &cx.config.timing;
        let long = |since: Instant| cx.now.since(since) >= timing.tick * timing.prefer_ticks;
        if self.reshaping.led_since.is_some_and(long)
            && let Some(first) = self.rightful(wishes, cx)
        {
            self.offer(first, cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_voter_leads_about_as_many_as_any_other() {
        let voters = [2, 5, 7].map(ReplicaId);
        // All of them, and every third, as those are that are placed on the same nodes.
        for (step, least) in [(1, 85), (3, 25)] {
            let mut led: BTreeMap<ReplicaId, u32> = BTreeMap::new();
            for shard in (100..400).step_by(step) {
                *led.entry(first_of(ShardId(shard), &voters).expect("a voter")).or_default() += 1;
            }
            assert!(led.len() == 3 && led.values().all(|count| *count >= least), "{led:?}");
        }
        assert_eq!(first_of(ShardId(7), &[]), None);
    }
}
