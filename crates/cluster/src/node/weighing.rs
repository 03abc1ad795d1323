//! Shards that grow too large are split in their middle, by themselves: their leaders weigh them.
//!
//! A node weighs one shard at a time, a few rows with each tick, and none that has not changed since it was weighed. Splits are asked for in the
//! shard map, as anybody else would.

use super::{Node, WEIGHED};
use crate::bounds::{ROWS_WEIGHED_PER_TICK, WEIGH_REST};
use crate::input::Request;
use crate::node::FIRST_SHARDS;
use crate::replica::Replica;
use bytes::Bytes;
use quorate_env::{Instant, ShardId};
use quorate_kv::{Command, KeyspaceKind, Level, Revision};
use quorate_shard::{MachineError, Weighing, Weight};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// See the top of this file.
#[derive(Default)]
pub(super) struct Scales {
    on: Option<(ShardId, Weighing)>,
    /// The last that was.
    last: ShardId,
    /// When each shard was weighed, at which revision, and its bytes.
    weighed: BTreeMap<ShardId, (Instant, Revision, u64)>,
    /// When the next one is looked for, if there was none.
    look_again: Option<Instant>,
    /// Whether an answer is to come.
    pub asked: bool,
}

impl Scales {
    /// What a shard holds at a revision, in bytes of keys and values, if it was weighed then.
    pub fn weight_of(&self, shard: ShardId, at: Revision) -> Option<u64> {
        self.weighed.get(&shard).filter(|(_, revision, _)| *revision == at).map(|(.., bytes)| *bytes)
    }
}

impl Node {
    /// Weighs a little, and asks for a split if a shard turns out to be too large.
    pub(super) fn weigh(&mut self, now: Instant) {
        let idle = self.shared.config.split_bytes == u64::MAX && self.shared.config.merges.bytes == 0;
        if idle || self.system.levels.cluster() < Level::SPLIT {
            return;
        }
        if self.scales.on.is_none() && self.scales.look_again.is_none_or(|when| when <= now) {
            let due = self.due(now).and_then(|shard| Some((shard, Weighing::new(&self.replicas.get(&shard)?.view()))));
            self.scales.look_again = due.is_none().then(|| now + self.pause_between_looks());
            self.scales.on = due;
        }
        let Some((shard, weighing)) = &mut self.scales.on else { return };
        let shard = *shard;
        match weighing.step(ROWS_WEIGHED_PER_TICK) {
            Ok(None) => {}
            Ok(Some(weight)) => {
                self.scales.on = None;
                self.scales.weighed.insert(shard, (now, weight.revision, weight.bytes));
                self.scales.last = shard;
                self.split_if_heavy(now, shard, weight);
            }
            Err(e) => self.weighed_in_vain(&e),
        }
    }

    /// The next shard, in turn, that this node leads and that has changed since it was last weighed, some time ago.
    fn due(&self, now: Instant) -> Option<ShardId> {
        let is_due = |(shard, replica): &(&ShardId, &Replica)| {
            let revision = replica.machine().meta().revision;
            let kind = || self.system.keyspaces.of_shard(**shard).map(|keyspace| keyspace.kind);
            let weighed = self.scales.weighed.get(shard);
            let changed = match weighed {
                Some((when, at, _)) => *at != revision && now.since(*when) >= WEIGH_REST,
                None => revision > Revision::FIRST,
            };
            changed && replica.leads() && kind() == Some(KeyspaceKind::Ranged)
        };
        let last = self.scales.last;
        let (behind, before) = (self.replicas.range((Excluded(last), Unbounded)), self.replicas.range(..=last));
        behind.chain(before).find(is_due).map(|(shard, _)| *shard)
    }

    fn split_if_heavy(&mut self, now: Instant, shard: ShardId, weight: Weight) {
        let leads = self.replicas.get(&shard).is_some_and(Replica::leads);
        let Some(middle) = weight.middle.filter(|_| leads && weight.bytes > self.shared.config.split_bytes) else {
            return;
        };
        self.ask_for_split(now, shard, &middle);
    }

    /// Asks for a shard's keys from one on to get a shard of their own.
    pub(super) fn ask_for_split(&mut self, now: Instant, shard: ShardId, middle: &Bytes) {
        let Some(keyspace) = self.system.keyspaces.of_shard(shard).map(|keyspace| keyspace.id) else { return };
        // What is refused now, because it has too many shards or somebody was faster, is looked at again when it is next weighed, or has been too busy for as long again.
        if let Ok((_, txn)) = self.system.keyspaces.split(&self.system.placements, keyspace, middle) {
            let request = Request::Submit { shard: FIRST_SHARDS[0], command: Command::Transact(txn) };
            self.scales.asked = true;
            self.request(now, WEIGHED, request, now + WEIGH_REST);
        }
    }

    pub(super) fn weighed_in_vain(&mut self, e: &MachineError) {
        self.shared.out.fatal.get_or_insert(e.to_string());
        if e.is_damage() {
            self.shared.out.lost = self.shared.out.lost.or(Some(crate::input::Lost::Rows));
        }
    }
}
