//! Groups that sleep: who follows a leader that is gone does not sleep on.

use super::{Step, World, id_of};
use crate::history::demand;
use quorate_cluster::Inspection;
use quorate_consensus::Role;
use quorate_env::ShardId;
use std::collections::BTreeMap;

/// Ticks of a node's own clock in which it must have noticed: what a silence is waited for, and what the last messages may take that were under way.
const NOTICED_TICKS: u32 = 100;

/// What is known of replicas that sleep.
#[derive(Default)]
pub(super) struct Sleep {
    /// Those that did when they were last looked at; of each, for how many ticks its leader has been gone.
    asleep: BTreeMap<(usize, ShardId), u32>,
}

impl World<'_> {
    /// A node's replicas, as they look after a step; `ticked` if that was a tick.
    pub(super) fn look_at_sleepers(&mut self, node: usize, looks: &[(ShardId, Inspection)], ticked: bool) -> Step {
        for (shard, look) in looks {
            let before = self.sleep.asleep.remove(&(node, *shard));
            let leads = look.role == Role::Leader;
            if !look.asleep {
                if before.is_some() && ticked && look.leader.is_none() {
                    self.mark("sleeper missed its leader");
                }
                continue;
            }
            if before.is_none() && leads {
                self.mark("group fell asleep");
            }
            let gone = !leads && look.leader.is_some_and(|leader| self.is_out_of_reach(leader.0 as usize - 1, node));
            let ticks = if gone { before.unwrap_or(0) + u32::from(ticked) } else { 0 };
            demand(ticks < NOTICED_TICKS, "who sleeps misses its leader", || {
                format!(
                    "{} sleeps in {shard}, and its leader {:?} has been gone for {ticks} ticks",
                    id_of(node),
                    look.leader
                )
            })?;
            self.sleep.asleep.insert((node, *shard), ticks);
        }
        Ok(())
    }

    /// A node's life is over.
    pub(super) fn forget_sleepers(&mut self, node: usize) {
        self.sleep.asleep.retain(|(of, _), _| *of != node);
    }

    /// Whether nothing can come from a node.
    fn is_out_of_reach(&self, from: usize, to: usize) -> bool {
        let there = &self.nodes[from];
        there.node.is_none() || there.paused || self.net.is_cut(from, to)
    }
}
