//! Where the shards live, as this node has to do with it: replicas here that are not wanted any more go, the groups that it leads say whom they have, and who
//! leads the system keyspace decides what is to live elsewhere (`placing.rs` says what).

use super::{FIRST_SHARDS, Node, PLACED};
use crate::boot::BootError;
use crate::bounds::RETRY;
use crate::config::Sabotage;
use crate::input::{Request, WatchOutput};
use crate::placement::GroupRow;
use crate::placing::{Landscape, Rest};
use crate::replica::Replica;
use crate::wire::{PeerBody, PeerMessage, node_of};
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId, ShardId};
use quorate_kv::{Command, Level, Revision, Txn};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// What this node has said of where shards live, and when.
#[derive(Default)]
pub(super) struct Sayings {
    said: BTreeMap<ShardId, Instant>,
}

impl Sayings {
    /// Whether answers may come.
    pub fn are_under_way(&self) -> bool {
        !self.said.is_empty()
    }
}

/// A replica that is to go: who has said that it may.
#[derive(Default)]
pub(super) struct Goodbye {
    /// The entry behind which the group's leader said that it is out. An answer that was on its way since the shard was to go for another time names another.
    index: LogIndex,
    released: BTreeSet<ReplicaId>,
    asked: Option<Instant>,
}

/// What decides where shards are to live. As long as it is the same, so is the decision.
#[derive(PartialEq, Eq)]
pub(super) struct Landmarks {
    rows: Revision,
    nodes: BTreeSet<NodeId>,
    dead: BTreeSet<NodeId>,
}

impl Node {
    fn own(&self) -> NodeId {
        self.shared.config.node
    }

    /// Whether a shard that is not here is to be opened here. One of which a log is here is, wherever it is to live by now, unless it was let go: its rows may
    /// have been lost in a crash, and its log be all that is left of a vote that the others need.
    pub(super) fn may_open(&self, shard: ShardId) -> bool {
        let (placements, own) = (&self.system.placements, self.own());
        let slots = &self.shared.slots;
        let owes = || self.logs.contains_key(&shard) && !slots.is_gone(shard);
        let counts = || placements.group(shard).is_some_and(|group| group.has(own));
        slots.of(shard).is_some() || placements.opens(shard, own) || owes() || counts()
    }

    /// Lets go of replicas that are not wanted here, and whose groups go on without them.
    pub(super) fn let_go(&mut self, now: Instant) -> Result<(), BootError> {
        let (placements, own) = (self.system.placements.clone(), self.own());
        let goes = self.goodbyes.keys().chain(self.mending.keys()).copied();
        let here: BTreeSet<ShardId> = self.sleepers.awake().chain(goes).collect();
        for shard in here {
            let outside = placements.group(shard).filter(|group| !group.has(own));
            let unwanted = placements.of(shard).is_some_and(|placement| !placement.wanted.contains(&own));
            let Some(group) = outside.filter(|_| unwanted) else {
                self.goodbyes.remove(&shard);
                continue;
            };
            let at_rest = self.replicas.get(&shard).is_none_or(Replica::is_at_rest) && !self.owes_children(shard);
            if self.is_released(now, shard, group) && at_rest {
                self.let_one_go(now, shard)?;
            }
        }
        Ok(())
    }

    /// Asks those who have a vote whether the group goes on without the replica here, whatever they may forget in a crash. Returns whether all have said
    /// so.
    fn is_released(&mut self, now: Instant, shard: ShardId, GroupRow { index, voters, .. }: &GroupRow) -> bool {
        let (own, index) = (ReplicaId(self.own().0), *index);
        let goodbye = self.goodbyes.entry(shard).or_default();
        if goodbye.index != index {
            *goodbye = Goodbye { index, ..Goodbye::default() };
        }
        let unheard: Vec<ReplicaId> =
            voters.iter().map(|node| ReplicaId(node.0)).filter(|voter| !goodbye.released.contains(voter)).collect();
        if goodbye.asked.is_none_or(|asked| now.since(asked) >= RETRY) {
            goodbye.asked = Some(now);
            let ask = |to: &ReplicaId| PeerMessage { shard, from: own, to: *to, body: PeerBody::LeaveAsk { index } };
            self.shared.out.messages.extend(unheard.iter().map(|to| (node_of(*to), ask(to))));
        }
        unheard.is_empty() || self.shared.config.sabotage == Some(Sabotage::LeaveAtOnce)
    }

    /// Somebody knows for good that a group goes on without the replica here.
    pub(super) fn released(&mut self, shard: ShardId, index: LogIndex, by: ReplicaId) {
        if let Some(goodbye) = self.goodbyes.get_mut(&shard).filter(|goodbye| goodbye.index == index) {
            goodbye.released.insert(by);
        }
    }

    pub(super) fn let_one_go(&mut self, now: Instant, shard: ShardId) -> Result<(), BootError> {
        let mut cx = self.shared.context(now);
        let left = match (self.replicas.remove(&shard), self.mending.remove(&shard)) {
            (Some(replica), _) => replica.leave_for_good(&mut cx),
            (None, Some(mending)) => mending.leave_for_good(&mut cx),
            (None, None) => return Ok(()),
        };
        self.lose(shard, left.lost);
        self.goodbyes.remove(&shard);
        self.sleepers.forget(shard);
        self.logs.insert(shard, left.log);
        self.shared.slots.let_go(shard)?;
        self.dirty.remove(&shard);
        self.shared.out.watch.extend(left.watchers.into_iter().map(|key| (key, WatchOutput::Gone)));
        left.unanswered.into_iter().for_each(|id| self.refer(id));
        if let Some(commands) = left.commands {
            self.outposts.take_over(shard, commands, now);
        }
        self.send_petitions(now);
        Ok(())
    }

    /// Says whom the groups have that this node leads, where the rows say otherwise.
    pub(super) fn say_groups(&mut self, now: Instant) {
        if self.system.levels.cluster() < Level::PLACED {
            return;
        }
        let placements = self.system.placements.clone();
        let news: Vec<(ShardId, Txn)> =
            self.awake().filter_map(|(shard, replica)| Some((shard, replica.news_of_group(&placements)?))).collect();
        self.sayings.said.retain(|shard, when| now.since(*when) < RETRY && news.iter().any(|(it, _)| it == shard));
        for (shard, txn) in news {
            if let Entry::Vacant(place) = self.sayings.said.entry(shard) {
                place.insert(now);
                let request = Request::Submit { shard: FIRST_SHARDS[0], command: Command::Transact(txn) };
                self.request(now, PLACED, request, now + RETRY);
            }
        }
    }

    /// As the one who leads the system keyspace: has the next shard live where it should.
    pub(super) fn place(&mut self, now: Instant) {
        let Some(system) = self.replicas.get(&FIRST_SHARDS[0]) else { return };
        if self.system.levels.cluster() < Level::PLACED || !system.may_place(self.system.revision(), now) {
            return;
        }
        let (roster, placements) = (self.system.roster.clone(), self.system.placements.clone());
        let first = self.shared.config.members.iter().map(|member| member.id);
        let nodes: BTreeSet<NodeId> = roster.founders(first).into_iter().map(node_of).collect();
        let mut dead = system.silent(&nodes, &self.shared.context(now));
        dead.extend(placements.drained());
        let landmarks = Landmarks { rows: self.system.revision(), nodes, dead };
        if let Some((seen, again)) = &self.placed_well
            && *seen == landmarks
            && again.is_none_or(|again| now < again)
        {
            return;
        }
        let keyspaces = self.system.keyspaces.made();
        let replicas: BTreeMap<ShardId, usize> = keyspaces
            .flat_map(|row| {
                let replicas = placements.replicas_of(row.keyspace.id);
                row.keyspace.shards.iter().map(move |(_, shard)| (*shard, replicas))
            })
            .collect();
        let landscape = Landscape { nodes: &landmarks.nodes, dead: &landmarks.dead, placements: &placements };
        let needed = landscape.needed(&|shard| replicas.get(&shard).copied().unwrap_or(1));
        let balances = needed.is_none();
        let rests = self.rest.until(self.shared.config.balance_pause, landmarks.nodes.len(), now);
        let next = needed.or_else(|| if rests.is_none() { landscape.balanced() } else { None });
        let Some(txn) = next.and_then(|(shard, wanted)| placements.place(shard, wanted)) else {
            self.placed_well = Some((landmarks, rests));
            return;
        };
        if balances {
            self.rest = Rest::since(now);
        }
        self.one(now, FIRST_SHARDS[0], |system, cx| system.place(txn, cx));
    }
}
