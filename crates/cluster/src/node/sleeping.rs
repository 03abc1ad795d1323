//! Which shards sleep here, and who watches over them: one beat between two nodes stands for all the groups that sleep on both.
//!
//! `replica::sleeping` says when a group falls asleep and wakes. Here is what it cannot see by itself: that its leader's node has fallen silent, that a node has
//! come back, and that the system keyspace's rows ask something of it. Only shards that are awake cost anything as time passes.

use super::{FIRST_SHARDS, Node};
use crate::config::Sabotage;
use crate::replica::Replica;
use crate::wire::{PeerBody, PeerMessage};
use quorate_consensus::ticks_until_missed;
use quorate_env::{Instant, NodeId, ReplicaId, ShardId};
use quorate_kv::Level;
use std::collections::{BTreeMap, BTreeSet};

/// See the top of this file.
#[derive(Default)]
pub(super) struct Sleepers {
    awake: BTreeSet<ShardId>,
    /// The others, each with the nodes that it is shared with.
    asleep: BTreeMap<ShardId, Vec<NodeId>>,
    /// Every node that was heard of.
    neighbours: BTreeMap<NodeId, Neighbour>,
    /// Ticks until the next beat.
    until_beat: u32,
}

/// Another node.
#[derive(Default)]
struct Neighbour {
    /// How many sleeping shards are shared with it.
    shards: usize,
    /// Ticks since something came from it.
    silent: u32,
}

impl Sleepers {
    pub fn awake(&self) -> impl Iterator<Item = ShardId> {
        self.awake.iter().copied()
    }

    pub fn count(&self) -> usize {
        self.asleep.len()
    }

    fn asleep(&self) -> Vec<ShardId> {
        self.asleep.keys().copied().collect()
    }

    pub fn wakes(&mut self, shard: ShardId) {
        if self.awake.insert(shard) {
            self.leaves_company(shard);
        }
    }

    pub fn sleeps(&mut self, shard: ShardId, replica: &Replica) {
        if self.asleep.contains_key(&shard) {
            return;
        }
        self.awake.remove(&shard);
        let company = replica.company();
        company.iter().for_each(|node| self.neighbours.entry(*node).or_default().shards += 1);
        self.asleep.insert(shard, company);
    }

    /// There is no replica of it here any more.
    pub fn forget(&mut self, shard: ShardId) {
        self.awake.remove(&shard);
        self.leaves_company(shard);
    }

    fn leaves_company(&mut self, shard: ShardId) {
        for node in self.asleep.remove(&shard).into_iter().flatten() {
            if let Some(neighbour) = self.neighbours.get_mut(&node) {
                neighbour.shards -= 1;
            }
        }
    }

    /// Something came from a node. Returns for how many ticks nothing had.
    fn hear(&mut self, node: NodeId) -> u32 {
        std::mem::take(&mut self.neighbours.entry(node).or_default().silent)
    }

    /// Those that sleep and are shared with a node: none, without a look at them, if there are none.
    fn shared_with(&self, node: NodeId) -> Vec<ShardId> {
        if self.neighbours.get(&node).is_none_or(|neighbour| neighbour.shards == 0) {
            return Vec::new();
        }
        self.asleep.iter().filter(|(_, company)| company.contains(&node)).map(|(shard, _)| *shard).collect()
    }

    /// A tick passed. Returns who has just been silent for `limit` ticks.
    fn miss(&mut self, limit: u32) -> Vec<NodeId> {
        self.neighbours.values_mut().for_each(|neighbour| neighbour.silent = neighbour.silent.saturating_add(1));
        let missed = self.neighbours.iter().filter(|(_, neighbour)| neighbour.silent == limit);
        missed.map(|(node, _)| *node).collect()
    }

    fn silent(&self, limit: u32) -> BTreeSet<NodeId> {
        let silent = self.neighbours.iter().filter(|(_, neighbour)| neighbour.silent >= limit);
        silent.map(|(node, _)| *node).collect()
    }

    /// Whom to tell that this node is there, if it is time to.
    fn beat(&mut self, every: u32) -> Vec<NodeId> {
        self.until_beat = self.until_beat.saturating_sub(1);
        if self.until_beat > 0 {
            return Vec::new();
        }
        self.until_beat = every;
        let shared = self.neighbours.iter().filter(|(_, neighbour)| neighbour.shards > 0);
        shared.map(|(node, _)| *node).collect()
    }
}

impl Node {
    /// Tells the neighbours that this node is there, and wakes those whose leaders' nodes are not.
    pub(super) fn tick_sleepers(&mut self, now: Instant) {
        let timing = self.shared.config.timing;
        let own = ReplicaId(self.shared.config.node.0);
        for to in self.sleepers.beat(timing.heartbeat_ticks) {
            let beat = PeerMessage { shard: FIRST_SHARDS[0], from: own, to: ReplicaId(to.0), body: PeerBody::Beat };
            self.shared.out.messages.push((to, beat));
        }
        let limit = ticks_until_missed(timing.election_ticks);
        let missed = self.sleepers.miss(limit);
        self.shared.silent = self.sleepers.silent(limit);
        if missed.is_empty() || self.shared.config.sabotage == Some(Sabotage::SleepThrough) {
            return;
        }
        for shard in self.sleepers.asleep() {
            if missed.iter().any(|node| self.replicas[&shard].follows(*node)) {
                self.one(now, shard, |replica, cx| replica.lose_leader(cx));
            }
        }
    }

    /// Something came from a node.
    pub(super) fn hear_of(&mut self, now: Instant, node: NodeId) {
        if self.sleepers.hear(node) >= ticks_until_missed(self.shared.config.timing.election_ticks) {
            self.greet(now, node);
        }
    }

    /// A node is there again: replicas on it may have begun anew and not know who leads, or be those that are to lead.
    pub(super) fn greet(&mut self, now: Instant, node: NodeId) {
        for shard in self.sleepers.shared_with(node) {
            if self.replicas[&shard].leads() {
                self.one(now, shard, |replica, cx| replica.wake(None, cx));
            }
        }
    }

    /// Lets those groups sleep that this node leads and nobody asks for anything.
    pub(super) fn settle_down(&mut self, now: Instant) {
        if self.system.levels.cluster() < Level::ASLEEP {
            return;
        }
        let (roster, placements) = (self.system.roster.clone(), self.system.placements.clone());
        for shard in self.sleepers.awake().collect::<Vec<_>>() {
            let cx = self.shared.context(now);
            let Some(replica) = self.replicas.get(&shard).filter(|replica| replica.is_drowsy(&cx)) else { continue };
            // Before it sleeps, it is led by who is to lead it: now nobody waits for that.
            match replica.rightful(&placements.wishes(shard, &roster), &cx) {
                Some(first) => self.one(now, shard, |replica, cx| replica.offer(first, cx)),
                None if self.is_settled(shard) => self.one(now, shard, Replica::fall_asleep),
                None => {}
            }
        }
    }

    /// The system keyspace's rows have changed.
    pub(super) fn wake_for_news(&mut self, now: Instant) {
        for shard in self.sleepers.asleep() {
            if self.system.touches(shard) && !self.is_settled(shard) {
                self.one(now, shard, |replica, cx| replica.wake(None, cx));
            }
        }
    }

    /// Whether the system keyspace's rows ask nothing of a shard's replica here.
    fn is_settled(&self, shard: ShardId) -> bool {
        let (roster, keyspaces, placements) = (&self.system.roster, &self.system.keyspaces, &self.system.placements);
        let Some(replica) = self.replicas.get(&shard).filter(|_| !FIRST_SHARDS.contains(&shard)) else { return false };
        let wanted = placements.of(shard).is_none_or(|place| place.wanted.contains(&self.shared.config.node));
        let said = || replica.news_of_group(placements).is_none();
        wanted && (!replica.leads() || (said() && replica.is_as_wished(&placements.wishes(shard, roster), keyspaces)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_and_ends_with_the_next_message() {
        let (mut sleepers, node) = (Sleepers::default(), NodeId(2));
        assert_eq!(sleepers.hear(node), 0);
        assert_eq!([(); 4].map(|()| sleepers.miss(3)), [vec![], vec![], vec![node], vec![]]);
        assert_eq!(sleepers.silent(3), [node].into());
        assert_eq!(sleepers.hear(node), 4);
        assert!(sleepers.silent(3).is_empty());
        assert_eq!([(); 3].map(|()| sleepers.miss(3)), [vec![], vec![], vec![node]]);
    }

    #[test]
    fn beats_go_to_those_with_whom_something_that_sleeps_is_shared() {
        let (mut sleepers, shard) = (Sleepers::default(), ShardId(9));
        sleepers.wakes(shard);
        assert!((0..4).all(|_| sleepers.beat(2).is_empty()), "nobody sleeps");
        assert!(sleepers.shared_with(NodeId(2)).is_empty());
        sleepers.awake.remove(&shard);
        sleepers.asleep.insert(shard, vec![NodeId(2), NodeId(3)]);
        [2, 3, 3].iter().for_each(|node| sleepers.neighbours.entry(NodeId(*node)).or_default().shards += 1);
        let beats: Vec<usize> = (0..4).map(|_| sleepers.beat(2).len()).collect();
        assert_eq!(beats, [2, 0, 2, 0], "the first at once");
        assert_eq!([2, 3, 4].map(|node| sleepers.shared_with(NodeId(node)).len()), [1, 1, 0]);
        sleepers.wakes(shard);
        assert_eq!(sleepers.beat(1), [NodeId(3)], "another sleeps there still");
    }
}
