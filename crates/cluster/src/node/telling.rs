//! What a node says of itself, to its process and to checkers.

use super::Node;
use crate::config::NodeConfig;
use crate::input::Inspection;
use crate::keyspaces::Keyspaces;
use crate::levels::Levels;
use crate::losses::Losses;
use crate::members::Roster;
use crate::mending::Mending;
use crate::placement::Placements;
use crate::recall::Recall;
use crate::replica::{self, AtRisk, Replica};
use quorate_env::{Instant, ShardId};
use quorate_kv::ShardCounts;
use quorate_shard::{Birth, View};
use std::collections::BTreeSet;

impl Node {
    /// How it was set up.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.shared.config
    }

    /// After [`Input::Leave`]: whether nobody needs this node any more, as far as it knows.
    #[must_use]
    pub fn may_stop(&self, now: Instant) -> bool {
        let heard = replica::heard_lately(&self.shared.config, now);
        self.replicas.values().all(|replica| replica.may_stop(heard)) && !self.outposts.is_needed()
    }

    /// Whether every replica here has all that it should have.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.mending.is_empty() && self.recalling.is_none() && self.nursery.is_empty()
    }

    /// The members' rows as this node knows them.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.system.roster
    }

    /// The keyspaces as this node knows them.
    #[must_use]
    pub fn keyspaces(&self) -> &Keyspaces {
        &self.system.keyspaces
    }

    /// Where shards live, as this node knows it.
    #[must_use]
    pub fn placements(&self) -> &Placements {
        &self.system.placements
    }

    /// The levels as this node knows them.
    #[must_use]
    pub fn levels(&self) -> &Levels {
        &self.system.levels
    }

    /// The shards that this node has replicas of, ascending.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardId> {
        self.replicas
            .keys()
            .chain(self.mending.keys())
            .copied()
            .chain(self.recalling.iter().flat_map(Recall::shards))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// How many shards are here.
    #[must_use]
    pub fn counts(&self) -> ShardCounts {
        let (here, asleep) = (self.replicas.len() as u64, self.sleepers.count() as u64);
        ShardCounts { here, led: self.led, asleep }
    }

    /// Messages that reached the wrong node or replica.
    #[must_use]
    pub fn misrouted(&self) -> u64 {
        self.misrouted
    }

    /// The shards that were split off replicas here and are not weaned yet, each with its parent, for checkers.
    pub fn births(&self) -> impl Iterator<Item = (ShardId, &Birth)> {
        self.replicas.iter().flat_map(|(shard, replica)| replica.machine().births().map(|birth| (*shard, birth)))
    }

    /// What a replica holds, for checkers.
    #[must_use]
    pub fn view(&self, shard: ShardId) -> Option<View> {
        self.replicas.get(&shard).map(Replica::view)
    }

    /// How many reservations a replica knows of, for checkers.
    #[must_use]
    pub fn reserved(&self, shard: ShardId) -> usize {
        self.replicas.get(&shard).map_or(0, |replica| replica.reserved().len())
    }

    /// What would be lost of a shard with this node, if it leads that.
    #[must_use]
    pub fn at_risk(&self, shard: ShardId) -> Option<AtRisk> {
        self.replicas.get(&shard)?.at_risk()
    }

    /// What was lost, as this node knows it.
    #[must_use]
    pub fn losses(&self) -> &Losses {
        &self.system.losses
    }

    /// How many decisions a replica knows of that some shard has yet to carry out, for checkers.
    #[must_use]
    pub fn unresolved(&self, shard: ShardId) -> usize {
        self.replicas.get(&shard).map_or(0, |replica| replica.machine().unresolved().count())
    }

    /// A replica, for status pages and checkers.
    #[must_use]
    pub fn inspect(&self, shard: ShardId) -> Option<Inspection> {
        let mending = || self.mending.get(&shard).map(Mending::inspect);
        let recalling = || self.recalling.as_ref().and_then(|recall| recall.inspect(shard));
        self.replicas.get(&shard).map(Replica::inspect).or_else(mending).or_else(recalling)
    }
}
