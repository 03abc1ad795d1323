//! Shards whose leaders have too much to do are split where their load is halved: the leaders look how much it was, each second or so.
//!
//! Who was just split, or split off, rests: its load is another than before, and rows are still copied and removed. A node knows that from the shard map, and what
//! it has known only since it started counts as new. Splits are asked for in the shard map, as anybody else would.

use super::Node;
use crate::bounds::HEAT_LOOK;
use crate::config::Sabotage;
use crate::keyspaces::Keyspaces;
use bytes::Bytes;
use quorate_env::{Instant, ShardId};
use quorate_kv::{KeyspaceKind, Level};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Heat {
    looked: Option<Instant>,
    /// The map that `rests` was read from.
    map: Option<Arc<Keyspaces>>,
    /// The shards of ranged keyspaces: how many were split off each, and since when it is so; `None` if it has the keys that it was made with.
    rests: BTreeMap<ShardId, (usize, Option<Instant>)>,
}

impl Heat {
    /// Notes which shards have other keys than before.
    pub(super) fn learn(&mut self, map: &Arc<Keyspaces>, now: Instant) {
        if self.map.as_ref().is_some_and(|known| Arc::ptr_eq(known, map)) {
            return;
        }
        self.map = Some(map.clone());
        let before = std::mem::take(&mut self.rests);
        for row in map.made().filter(|row| row.keyspace.kind == KeyspaceKind::Ranged) {
            for (_, shard) in &row.keyspace.shards {
                let children = map.children_of(*shard);
                let is_as_made = children == 0 && !row.parents.contains_key(shard);
                let known = before.get(shard).filter(|(had, _)| *had == children);
                let since = known.map_or(Some(now).filter(|_| !is_as_made), |(_, since)| *since);
                self.rests.insert(*shard, (children, since));
            }
        }
    }
}

impl Heat {
    /// Since when a shard has the keys that it has, as far as this node knows; `None` if it was made with them.
    pub(super) fn rests_since(&self, shard: ShardId) -> Option<Instant> {
        self.rests.get(&shard).and_then(|(_, since)| *since)
    }
}

impl Node {
    /// Looks how much the shards have to do that this node leads, and asks for splits.
    pub(super) fn heat(&mut self, now: Instant) {
        let bound = self.shared.config.split_load;
        if bound.ops_per_s == u64::MAX || self.system.levels.cluster() < Level::SPLIT {
            return;
        }
        // What is noted late, rests too long.
        if self.heat.looked.is_some_and(|when| now.since(when) < HEAT_LOOK) {
            return;
        }
        self.heat.looked = Some(now);
        self.heat.learn(&self.system.keyspaces, now);
        let restless = self.shared.config.sabotage == Some(Sabotage::SplitRestlessly);
        let mut hot: Vec<(ShardId, Bytes)> = Vec::new();
        // Who sleeps has nothing to do.
        for shard in self.sleepers.awake() {
            let Some(replica) = self.replicas.get_mut(&shard) else { continue };
            let ranged = self.heat.rests.get(&shard);
            let rested = |since: Option<Instant>| since.is_none_or(|since| now.since(since) >= bound.rest) || restless;
            let rested = ranged.is_some_and(|(_, since)| rested(*since));
            hot.extend(replica.heat(now, rested, &bound).map(|middle| (shard, middle)));
        }
        for (shard, middle) in hot {
            self.ask_for_split(now, shard, &middle);
        }
    }
}
