//! Groups that sleep, and who leads them: who follows a leader that is gone does not sleep on, and in the end each placed shard is led by the one whose turn it is.

use super::{Step, World, id_of};
use crate::history::demand;
use quorate_cluster::{Inspection, Timing, turn_of};
use quorate_consensus::{Role, ticks_until_missed};
use quorate_env::{NodeId, ReplicaId, ShardId};
use std::collections::BTreeMap;

/// Ticks of a node's own clock in which it may not notice a silence, beside those that it waits for.
const GRACE_TICKS: u32 = 2;

/// What is known of replicas that sleep.
#[derive(Default)]
pub(super) struct Sleep {
    /// Those that did when they were last looked at; of each, for how many ticks nothing has come from its leader's node.
    asleep: BTreeMap<(usize, ShardId), u32>,
    /// Who leads each shard, of which members, and since when.
    led: BTreeMap<ShardId, (usize, u64, u64)>,
}

/// Microseconds within which a leader has given its place to who is to have it: as long as it waits at most, and some failures to.
const GIVEN_WAY_US: u64 = 10_000_000;

impl World<'_> {
    /// A node's replicas, as they look after a step; `ticked` if that was a tick, `heard` if something came from another node.
    pub(super) fn look_at_sleepers(
        &mut self,
        node: usize,
        looks: &[(ShardId, Inspection)],
        (ticked, heard): (bool, Option<NodeId>),
    ) -> Step {
        let noticed = ticks_until_missed(Timing::default().election_ticks) + GRACE_TICKS;
        for (shard, look) in looks {
            let before = self.sleep.asleep.remove(&(node, *shard));
            let leads = look.role == Role::Leader;
            if leads && self.sleep.led.get(shard).is_none_or(|led| (led.0, led.1) != (node, look.membership)) {
                self.sleep.led.insert(*shard, (node, look.membership, self.now));
            }
            if !look.asleep {
                if before.is_some() && ticked && look.leader.is_none() {
                    self.mark("sleeper missed its leader");
                }
                continue;
            }
            if before.is_none() && leads {
                self.mark("group fell asleep");
            }
            let silent = !leads && heard != look.leader;
            let ticks = if silent { before.unwrap_or(0) + u32::from(ticked) } else { 0 };
            demand(ticks <= noticed, "who sleeps misses its leader", || {
                let leader = look.leader;
                format!("{} sleeps in {shard}, and has heard nothing from {leader:?} for {ticks} ticks", id_of(node))
            })?;
            self.sleep.asleep.insert((node, *shard), ticks);
        }
        Ok(())
    }

    /// A node's life is over.
    pub(super) fn forget_sleepers(&mut self, node: usize) {
        self.sleep.asleep.retain(|(of, _), _| *of != node);
    }

    /// In the end the voters of placed shards take turns at leading them.
    pub(super) fn judge_leaders(&self) -> Step {
        let Some(placements) = self.latest_placements() else { return Ok(()) };
        for (shard, at) in placements.placed() {
            let voters: Vec<ReplicaId> = at.wanted.iter().map(|node| ReplicaId(node.0)).collect();
            let first = turn_of(shard, &voters).map(|voter| NodeId(voter.0));
            let Some((leader, _, since)) = self.sleep.led.get(&shard).copied() else { continue };
            let right = first == Some(id_of(leader)) || since + GIVEN_WAY_US > self.now;
            demand(right, "voters take turns at leading", || {
                format!("{shard} has been led by {} since {since}, and {first:?} should lead it", id_of(leader))
            })?;
        }
        Ok(())
    }
}
