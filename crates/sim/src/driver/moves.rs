//! Shards that move while tellers work: somebody says now and then that one is to live elsewhere, the cluster itself puts right what is out of balance, and what
//! comes of it is judged.

use super::{Event, REQUEST_TIMEOUT, SHARDS, Step, World, id_of};
use crate::history::{Violation, demand};
use quorate_cluster::placement::Placements;
use quorate_cluster::placing::Landscape;
use quorate_cluster::{Input, Request, RequestId};
use quorate_env::{NodeId, Rng, ShardId};
use quorate_kv::{Command, Keyspace, Op};
use std::collections::BTreeSet;

/// Of a thousand shards that are to move, those that come back to a node that they have left.
const BACK_PER_MILLE: u64 = 600;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Moves {
    rng: Option<Rng>,
    asked: BTreeSet<RequestId>,
    /// Replicas that have left a node. If the shard comes back there, its rows must come from others.
    left: BTreeSet<(usize, ShardId)>,
}

impl Moves {
    pub fn new(rng: Rng) -> Self {
        Self { rng: Some(rng), ..Self::default() }
    }

    /// Whether a node had a replica of a shard that it gave up.
    pub fn has_left(&self, node: usize, shard: ShardId) -> bool {
        self.left.contains(&(node, shard))
    }
}

/// Where the shards of a new keyspace begin.
pub(super) fn places(
    placements: &Placements,
    keyspace: &Keyspace,
    nodes: &BTreeSet<NodeId>,
    replicas: usize,
) -> Vec<Op> {
    let none = BTreeSet::new();
    let landscape = Landscape { nodes, dead: &none, placements };
    let shards = keyspace.shards.iter().map(|(_, shard)| *shard);
    Placements::found(keyspace.id, replicas, landscape.begin(shards, replicas))
}

impl World<'_> {
    pub(super) fn begin_moves(&mut self) {
        if let Some(every) = self.plan.bank.and_then(|bank| bank.move_every_us) {
            self.after(every, Event::Move);
        }
    }

    /// Somebody asks some node to have some shard live on other nodes, all of them or some.
    pub(super) fn move_shard(&mut self) -> Step {
        let Some(every) = self.plan.bank.and_then(|bank| bank.move_every_us).filter(|_| !self.calm) else {
            return Ok(());
        };
        let (there, mut stay) = (self.not_retired(), self.lasting().into_iter().collect::<Vec<_>>());
        let Some(rng) = &mut self.places.rng else { return Ok(()) };
        let (wait, node) = (rng.between(1, 2 * every), rng.pick(&there).copied());
        self.after(wait, Event::Move);
        let Some(core) = node.and_then(|node| self.nodes[node].node.as_ref()) else { return Ok(()) };
        let placed: Vec<(ShardId, usize)> =
            core.placements().placed().map(|(shard, placement)| (shard, placement.wanted.len())).collect();
        let Some(rng) = &mut self.places.rng else { return Ok(()) };
        let Some((shard, replicas)) = rng.pick(&placed).copied() else { return Ok(()) };
        let left: Vec<usize> = stay.iter().copied().filter(|node| self.places.left.contains(&(*node, shard))).collect();
        let back = if rng.chance(BACK_PER_MILLE) { rng.pick(&left).copied() } else { None };
        while stay.len() > replicas {
            let at = rng.below(stay.len() as u64) as usize;
            if Some(stay[at]) != back {
                stay.swap_remove(at);
            }
        }
        let Some(txn) = core.placements().place(shard, stay.into_iter().map(id_of).collect()) else { return Ok(()) };
        let id = self.next_request;
        self.next_request += 1;
        self.places.asked.insert(id);
        let request = Request::Submit { shard: SHARDS[0], command: Command::Transact(txn) };
        self.feed(node.expect("it is there"), Input::Request { id, timeout: REQUEST_TIMEOUT, request })
    }

    /// Whether an answer was to somebody who asked for a move. What came of it shows in the rows.
    pub(super) fn move_hears(&mut self, request: RequestId) -> bool {
        self.places.asked.remove(&request)
    }

    /// Replicas that are not there any more have gone because they were to.
    pub(super) fn look_at_the_gone(&mut self, node: usize) -> Step {
        let Some(core) = &self.nodes[node].node else { return Ok(()) };
        let here = core.shards();
        let gone: Vec<ShardId> = self.nodes[node].opened.iter().filter(|it| !here.contains(it)).copied().collect();
        for shard in &gone {
            let placed = core.placements().of(*shard);
            let is_there = !core.keyspaces().is_merged(*shard);
            let wanted = is_there && placed.is_none_or(|at| at.wanted.contains(&id_of(node)));
            demand(!wanted, "replicas go when nobody wants them", || format!("{} of {shard}", id_of(node)))?;
        }
        for shard in gone {
            self.nodes[node].opened.remove(&shard);
            self.places.left.insert((node, shard));
            self.mark("replica moved away");
        }
        Ok(())
    }

    /// Whether a shard has left a node, which does not know that it is to come back.
    pub(super) fn has_moved_away(&self, node: usize, shard: ShardId) -> bool {
        let core = self.nodes[node].node.as_ref();
        let at = core.and_then(|core| core.placements().of(shard));
        self.places.has_left(node, shard) && at.is_some_and(|at| !at.wanted.contains(&id_of(node)))
    }

    /// The nodes on which a shard is to live in the end.
    pub(super) fn homes(&self, shard: ShardId) -> BTreeSet<usize> {
        let lasting = self.lasting();
        let placements = self.latest_placements();
        let placed = placements.and_then(|placements| placements.of(shard));
        lasting.into_iter().filter(|node| placed.is_none_or(|at| at.wanted.contains(&id_of(*node)))).collect()
    }

    /// As the node knows them that has read most of the system keyspace.
    pub(super) fn latest_placements(&self) -> Option<&Placements> {
        let nodes = self.nodes.iter().filter_map(|node| node.node.as_ref());
        nodes.max_by_key(|node| node.roster().revision).map(quorate_cluster::Node::placements)
    }

    /// Whether a shard is on its way.
    pub(super) fn is_moving(&self) -> bool {
        let unsettled = |placements: &Placements| placements.placed().any(|(shard, _)| !placements.is_settled(shard));
        self.latest_placements().is_some_and(unsettled)
    }

    /// In the end each shard lives where it is to, and nowhere else.
    pub(super) fn judge_places(&self) -> Result<(), Violation> {
        let Some(placements) = self.latest_placements() else { return Ok(()) };
        for (shard, at) in placements.placed() {
            demand(placements.is_settled(shard), "shards live where they are to", || {
                format!("{shard} is to live at {at:?} and does at {:?}", placements.group(shard))
            })?;
            for node in self.lasting() {
                let core = self.nodes[node].node.as_ref();
                let (is, should) =
                    (core.is_some_and(|core| core.shards().contains(&shard)), at.wanted.contains(&id_of(node)));
                demand(is == should, "shards live where they are to", || {
                    format!("{} has a replica of {shard}: {is}, and should: {should}", id_of(node))
                })?;
            }
        }
        Ok(())
    }
}
