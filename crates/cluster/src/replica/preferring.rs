//! Leadership spread over the nodes: each placed shard has a voter that is to lead it, so that every node leads about as many shards as any other.
//!
//! Who that is (`placing::turn_of`) follows from the shard's number and its voters alone, so nobody has to agree on it or write it down. It is a preference and no more: a leader that has led for
//! a while offers its place if the other is as good; who has just lost leadership, for a slow disk or a restart, is left alone for as long.

use super::{Context, Replica};
use crate::config::Sabotage;
use crate::members::Wanted;
use crate::placement::Wishes;
use crate::placing::turn_of;
use crate::reshape::Standing;
use quorate_env::{Instant, ReplicaId};

impl Replica {
    /// As a leader: who should lead in its place, and is as good.
    pub fn rightful(&self, wishes: &Wishes<'_>, cx: &Context<'_>) -> Option<ReplicaId> {
        let membership = self.group.membership();
        let first = turn_of(self.shard, &membership.voters).filter(|first| *first != self.id && wishes.is_placed())?;
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
