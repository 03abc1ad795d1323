//! History that nobody wants any more goes: leaders compact their shards as far as their keyspaces' policies allow.
//!
//! What is old is told by the shard's own timestamps. Where nothing is written time stands still, so an idle shard is compacted once and then left alone.

use super::{FORGOTTEN, Node};
use crate::bounds::{HISTORIES_PER_TICK, HISTORY_PARTS, HISTORY_REST, RETRY};
use crate::config::Sabotage;
use crate::input::{Lost, Request};
use quorate_env::{Instant, LogIndex, ShardId, Timestamp, WallMs};
use quorate_kv::Command;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Forgetting {
    /// Shards that are to be looked at.
    due: VecDeque<(ShardId, Duration)>,
    /// When each was looked at, and what it had applied.
    looked: BTreeMap<ShardId, (Instant, LogIndex)>,
    look_again: Option<Instant>,
    /// Answers that are to come.
    pub asked: u64,
}

impl Node {
    /// Looks at some histories, and asks for them to be compacted.
    pub(super) fn forget_history(&mut self, now: Instant) {
        if self.forgetting.due.is_empty() && self.forgetting.look_again.is_none_or(|when| when <= now) {
            self.forgetting.look_again = Some(now + self.pause_between_looks());
            let due =
                self.system.keyspaces.histories().filter(|(shard, kept)| self.is_due(now, *shard, *kept)).collect();
            self.forgetting.due = due;
            self.forgetting.looked.retain(|shard, _| self.replicas.contains_key(shard));
        }
        let due = self.forgetting.due.len().min(HISTORIES_PER_TICK);
        for (shard, kept) in self.forgetting.due.drain(..due).collect::<Vec<_>>() {
            self.forget_of(now, shard, kept);
        }
    }

    /// Whether a shard that this node leads was not looked at for some time, and has changed since.
    fn is_due(&self, now: Instant, shard: ShardId, kept: Duration) -> bool {
        let Some(replica) = self.replicas.get(&shard).filter(|replica| replica.leads()) else { return false };
        let rest = HISTORY_REST.min(kept / HISTORY_PARTS);
        let looked = self.forgetting.looked.get(&shard);
        looked.is_none_or(|(when, applied)| now.since(*when) >= rest && *applied != replica.applied())
    }

    fn forget_of(&mut self, now: Instant, shard: ShardId, kept: Duration) {
        let Some(replica) = self.replicas.get(&shard).filter(|replica| replica.leads()) else { return };
        let at_once = self.shared.config.sabotage == Some(Sabotage::ForgetAtOnce);
        let kept = if at_once { 0 } else { u64::try_from(kept.as_millis()).unwrap_or(u64::MAX) };
        let view = replica.view();
        self.forgetting.looked.insert(shard, (now, replica.applied()));
        let oldest = Timestamp::of(WallMs(view.clock().wall().0.saturating_sub(kept)));
        match view.history_before(oldest) {
            Ok(None) => {}
            Ok(Some(revision)) => {
                self.forgetting.asked += 1;
                let request = Request::Submit { shard, command: Command::Compact { revision } };
                self.request(now, FORGOTTEN, request, now + 2 * RETRY);
            }
            Err(e) => {
                let lost = self.shared.out.lost.or_else(|| e.is_damage().then_some(Lost::Rows));
                self.shared.out.lost = lost;
                self.shared.out.fatal.get_or_insert(e.to_string());
            }
        }
    }
}
