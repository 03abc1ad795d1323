//! What is asked of the node, by its clients and by itself, and who in it answers.

use super::{FORGOTTEN, LOST, MERGED, Node, RETAINED, WEIGHED};
use crate::ack_wait::AckWait;
use crate::across::{Across, Ask, OWN_REQUESTS, Surroundings};
use crate::bounds::PENDING_READS_MAX;
use crate::config::Sabotage;
use crate::input::{Request, RequestId};
use crate::levels;
use crate::replica::Replica;
use quorate_env::{Instant, ShardId, Timestamp, WallMs};
use quorate_kv::{Error, Refusal, Unavailable};

impl Node {
    pub(super) fn request(&mut self, now: Instant, id: RequestId, request: Request, deadline: Instant) {
        self.ask(now, id, (request, AckWait::default()), deadline);
    }

    /// Asks for something, and waits for this before it is taken to be done; for a client's command also for what its keyspace wants.
    pub(super) fn ask(&mut self, now: Instant, id: RequestId, (request, wait): (Request, AckWait), deadline: Instant) {
        let (needs, is) = (levels::needed(&request), self.system.levels.cluster());
        if needs > is && self.shared.config.sabotage != Some(Sabotage::IgnoreLevel) {
            if !self.system.levels.begun() && self.early.len() < PENDING_READS_MAX {
                // A new cluster's first leader is about to say it.
                return self.early.push((id, request, wait, deadline));
            }
            return self.shared.out.replies.push((id, Err(Unavailable::FeatureLevel { needs, is }.into())));
        }
        if let Request::Submit { shard, command } = &request
            && let Err(refusal) = self.system.keyspaces.suits(*shard, command)
        {
            return self.shared.out.replies.push((id, Err(refusal.into())));
        }
        match (request.shard(), request) {
            (None, Request::Transact(transaction)) => {
                if let Some(refusal) = self.lies_ahead(transaction.after) {
                    return self.shared.out.replies.push((id, Err(refusal.into())));
                }
                self.with_across(now, |across, at| across.begin(id, transaction, deadline, at));
            }
            (None, Request::Look { looks, freshness }) => self.look(now, id, (looks, freshness), deadline),
            (None, Request::Settle { home, tx }) => {
                self.with_across(now, |across, at| across.settle(id, home, tx, deadline, at));
            }
            (None, Request::Reserve(wish)) => {
                self.with_across(now, |across, at| across.reserve(id, wish, deadline, at));
            }
            (None, Request::Release { by, keys }) => {
                self.with_across(now, |across, at| across.release(id, (by, keys), deadline, at));
            }
            // Who asks for it looks at the map again.
            (Some(shard), _) if self.system.keyspaces.is_merged(shard) => {
                self.shared.out.replies.push((id, Err(Unavailable::NoLeader.into())));
            }
            (Some(shard), Request::Submit { .. }) if id < OWN_REQUESTS && self.lacks_bound(shard) => {
                self.shared.out.replies.push((id, Err(Unavailable::NoClockBound.into())));
            }
            (Some(shard), Request::Submit { command, .. }) if !self.is_served_here(shard) => {
                let wait = self.wait_of(id, shard, wait);
                self.submit_elsewhere(now, id, (shard, (command, wait)), deadline);
            }
            (Some(shard), Request::Submit { command, .. }) if self.replicas.contains_key(&shard) => {
                let wait = self.wait_of(id, shard, wait);
                self.one(now, shard, |replica, cx| replica.submit(id, (command, wait), deadline, cx));
            }
            (Some(shard), request) if self.replicas.contains_key(&shard) => {
                self.one(now, shard, |replica, cx| replica.request(id, request, deadline, cx));
            }
            (Some(shard), request) if self.recalls(shard) && self.early.len() < PENDING_READS_MAX => {
                self.early.push((id, request, wait, deadline));
            }
            (Some(shard), _) if !self.is_here(shard) && self.system.placements.of(shard).is_some() => self.refer(id),
            (Some(shard), _) if !self.is_here(shard) && !self.nursery.expects(shard) => {
                self.shared.out.replies.push((id, Err(Error::Refused(Refusal::KeyspaceNotFound))));
            }
            _ => self.shared.out.replies.push((id, Err(Unavailable::NoLeader.into()))),
        }
    }

    /// What a command waits for before it is taken to be done.
    pub(super) fn wait_of(&self, id: RequestId, shard: ShardId, wait: AckWait) -> AckWait {
        if id < OWN_REQUESTS { wait.and(self.system.keyspaces.ack_wait(shard)) } else { wait }
    }

    /// Whether writers of a shard wait for clocks, and nobody has told this node how far those may be from true time.
    pub(super) fn lacks_bound(&self, shard: ShardId) -> bool {
        self.shared.config.clock_bound.is_none() && self.system.keyspaces.ack_wait(shard).over
    }

    /// Takes answers to the steps of transactions, and asks for the next steps.
    pub(super) fn move_across(&mut self, now: Instant) {
        let asked = self.scales.asked || self.forgetting.asked > 0 || self.retaining.asked > 0;
        let asked = asked || self.merging.is_asking() || self.losing.is_asking();
        let said = self.tell_again.is_some() || asked || self.sayings.are_under_way();
        if self.across.is_asking() || said {
            let answers = self.shared.out.replies.extract_if(.., |(id, _)| *id >= OWN_REQUESTS);
            for (id, answer) in answers.collect::<Vec<_>>() {
                self.scales.asked &= id != WEIGHED;
                self.forgetting.asked = self.forgetting.asked.saturating_sub(u64::from(id == FORGOTTEN));
                self.retaining.asked = self.retaining.asked.saturating_sub(u64::from(id == RETAINED));
                match id {
                    MERGED => self.merge_hears(now, answer),
                    LOST => self.losses_told(answer),
                    _ => self.with_across(now, |across, at| across.answered(id, answer, at)),
                }
            }
        }
        for Ask { id, shard, command, wait, deadline } in self.across.take_asks() {
            self.ask(now, id, (Request::Submit { shard, command }, wait), deadline);
        }
        self.shared.out.replies.extend(self.across.take_replies());
        let unknown = self.across.take_unknown();
        if !unknown.is_empty() {
            self.ask_how_far(now, unknown);
        }
    }

    pub(super) fn with_across(&mut self, now: Instant, f: impl FnOnce(&mut Across, &Surroundings<'_>)) {
        let elsewhere = |shard| self.outposts.applied(shard);
        let applied = |shard: ShardId| self.replicas.get(&shard).map(Replica::applied).or_else(|| elsewhere(shard));
        let (keyspaces, sabotage) = (&*self.system.keyspaces, self.shared.config.sabotage);
        let wall = WallMs(self.shared.wall.0 + now.since(self.shared.ticked).as_millis() as u64);
        let (moment, bounded) = (Timestamp::of(wall), self.shared.config.clock_bound.is_some());
        f(&mut self.across, &Surroundings { now, moment, keyspaces, applied: &applied, bounded, sabotage });
    }
}
