//! What every step is judged by, and the run at its end.

use super::{SHARDS, Step, World, id_of};
use crate::client::SHARD;
use crate::history::{Violation, demand};
use crate::rot;
use quorate_cluster::{Inspection, Node, Outputs};
use quorate_env::{NodeId, ShardId};
use std::collections::BTreeSet;

impl World<'_> {
    /// What came of one input, and how the node looks after it. `how` says whether it was a tick, and from whom a message.
    pub(super) fn judge_step(
        &mut self,
        node: usize,
        (looks, outputs): (&[(ShardId, Inspection)], &Outputs),
        how: (bool, Option<NodeId>),
    ) -> Step {
        self.look_at_system(outputs)?;
        if let Some(why) = &outputs.fatal {
            return Err(Violation { rule: "replicas agree with themselves and each other", detail: why.clone() });
        }
        if !outputs.too_slow.is_empty() {
            self.mark("slow leader handed over");
        }
        outputs.mended.iter().flat_map(rot::marks).for_each(|mark| self.mark(mark));
        if let Some(persist) = &outputs.persist {
            self.raft.wrote(node, &persist.records)?;
        }
        self.look_at_births(node)?;
        self.look_at_the_gone(node)?;
        self.look_at_the_relieved(node)?;
        self.look_at_risks(node)?;
        for (shard, look) in looks {
            if !self.nodes[node].opened.contains(shard) {
                self.came_up(node, *shard, look)?;
            }
        }
        self.look_for_mended(node);
        self.look_at_sleepers(node, looks, how)?;
        let system = looks[0].1;
        for &(shard, ref look) in looks {
            if let Some(recorder) = &mut self.recorder {
                recorder.look(self.now, node, shard, look);
            }
            let committed = self.raft.observe(node, shard, look)?;
            if !committed.is_empty() && self.raft.was_joint_at(shard, look.applied) {
                self.strike(node);
            }
            for committed in committed {
                match shard {
                    SHARD => self.order.commit(committed.index, &committed.payload)?,
                    shard if !SHARDS.contains(&shard) => {
                        self.bank_commits((shard, committed.index), &committed.payload)?;
                    }
                    _ => {}
                }
            }
            if look.held_back {
                self.mark("writes wait for the disk");
            }
            if look.waits_for_newcomer {
                self.mark("writes wait for a newcomer");
            }
            if shard == SHARD {
                let busy = look.role == quorate_consensus::Role::Leader && look.last > look.committed;
                self.leaders_busy.insert(node, busy);
            }
        }
        if let Some(persist) = &outputs.persist
            && system.role == quorate_consensus::Role::Leader
        {
            self.raft.proposes(node, system.term, &persist.records)?;
        }
        for lease in std::mem::take(&mut self.order.model.expired) {
            self.report.marks.entry("lease expired").and_modify(|n| *n += 1).or_insert(1);
            self.leases.expired(lease, self.now)?;
            self.clients.iter_mut().for_each(|client| client.lost(lease));
        }
        Ok(())
    }

    /// What a node has read in the system keyspace.
    pub(super) fn look_at_system(&mut self, outputs: &Outputs) -> Step {
        let (Some(roster), Some(levels)) = (&outputs.roster, &outputs.levels) else { return Ok(()) };
        let (Some(keyspaces), Some(placements)) = (&outputs.keyspaces, &outputs.placements) else { return Ok(()) };
        for row in keyspaces.made() {
            let made = row.keyspace.shards.iter().filter(|(_, shard)| !row.parents.contains_key(shard));
            made.clone().try_for_each(|(_, shard)| self.raft.made(*shard, &placements.founders(*shard, row)))?;
            row.parents.keys().for_each(|child| self.raft.expect(*child));
            self.splits.mapped.extend(row.parents.keys());
            self.look_at_rests(row)?;
            self.look_at_merges(row);
        }
        self.look_at_levels(levels, roster)
    }

    /// Every shard that some node has a replica of.
    pub(super) fn all_shards(&self) -> BTreeSet<ShardId> {
        self.nodes.iter().filter_map(|node| node.node.as_ref()).flat_map(Node::shards).collect()
    }

    pub(super) fn finish(&mut self) -> Step {
        if self.order.retries > 0 {
            self.mark("retry recognised");
        }
        demand(self.wounds.forgetful.is_none(), "promises are remembered", || {
            format!("nobody has found out what was forgotten: {:?}", self.wounds.forgetful)
        })?;
        demand(self.to_prove.is_empty(), "every node serves again", || {
            let silent: Vec<String> = self.to_prove.iter().map(|node| id_of(*node).to_string()).collect();
            format!("not {}", silent.join(", "))
        })?;
        let waiting = self
            .clients
            .iter()
            .filter(|c| c.in_flight.as_ref().is_some_and(|(_, f)| self.now > f.began_us + 5_000_000));
        demand(waiting.count() == 0, "no request hangs", || "a client waits for seconds in the calm".into())?;
        for client in &self.clients {
            demand(client.completed > 0, "every client gets served", || format!("{client:?}"))?;
        }
        self.churn_ended()?;
        self.levels_rose()?;
        self.judge_places()?;
        self.judge_leaders()?;
        for shard in self.all_shards() {
            let homes = self.homes(shard);
            let nodes = homes.iter().map(|node| &self.nodes[*node]);
            let looks: Vec<_> = nodes.filter_map(|n| n.node.as_ref()?.inspect(shard)).collect();
            let most = self.raft.committed(shard) as u64;
            // The last entries may just be on their way.
            let behind = looks.iter().any(|look| look.applied.0 + 50 < most);
            demand(looks.len() == homes.len() && !behind, "replicas catch up", || format!("{shard}: {looks:?}"))?;
        }
        self.bank_closes()?;
        for watcher in &self.watchers {
            // The last events may just be on their way.
            watcher.check.finished(&self.order.model, self.order.model.revision.saturating_sub(100))?;
        }
        let leases = self.order.model.lease_count();
        demand(leases == 0, "leases end", || {
            format!("{leases} leases are left, {} s after the last was renewed", self.plan.calm_us / 1_000_000)
        })
    }
}

/// How all of a node's replicas look.
pub(super) fn looks(node: &Node) -> Vec<(ShardId, Inspection)> {
    let look = |shard| Some((shard, node.inspect(shard)?));
    node.shards().into_iter().filter_map(look).collect()
}
