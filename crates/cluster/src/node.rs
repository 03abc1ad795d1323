//! The node: takes inputs, hands them to the replicas that they concern, and gathers what comes out.

#[cfg(test)]
mod tests;

use crate::boot::{self, BootError};
use crate::bounds::DEAD_ROWS_PER_TICK;
use crate::config::{NodeConfig, Sabotage};
use crate::input::{FlushTask, Input, Inspection, Mended, Outputs, Persist};
use crate::members::Roster;
use crate::mending::Mending;
use crate::replica::{self, Context, Replica};
use crate::slots::Slots;
use crate::wire::node_of;
use quorate_consensus::{Config, Group, Membership, Restored};
use quorate_env::{Instant, LogIndex, ReplicaId, Rng, ShardId, WallMs};
use quorate_kv::{Error, KeyspaceId, Refusal, Unavailable};
use quorate_shard::{Machine, Procedures, Remains};
use quorate_storage::store::Store;
use quorate_storage::wal::{LogRecord, Recovered};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The shards that every cluster begins with: the system keyspace and the default one.
pub const FIRST_SHARDS: [ShardId; 2] = [ShardId(KeyspaceId::SYSTEM.0), ShardId(KeyspaceId::DEFAULT.0)];

/// Bytes of entries in one append message.
const APPEND_BYTES_MAX: u64 = 2 << 20;

/// Append messages in flight to one follower.
const APPENDS_IN_FLIGHT_MAX: usize = 64;

/// One node. See the crate's documentation for how it is driven.
pub struct Node {
    config: NodeConfig,
    store: Arc<dyn Store>,
    slots: Slots,
    procedures: Arc<Procedures>,
    replicas: BTreeMap<ShardId, Replica>,
    /// Shards whose replica here cannot start yet: its log has rotted.
    mending: BTreeMap<ShardId, Mending>,
    rng: Rng,
    dirty: BTreeSet<ShardId>,
    wall: WallMs,
    no_space: bool,
    ticket: u64,
    records: Vec<LogRecord>,
    out: Outputs,
    flushing: Option<(u64, BTreeMap<ShardId, LogIndex>)>,
    /// The members' rows, as this node's replica of the system keyspace has them.
    roster: Arc<Roster>,
    misrouted: u64,
}

impl Node {
    /// Builds the node from what its disk holds. `remains` is the store that was here before, if that was damaged and `store` is in its place.
    /// `seed` must differ from one life of the node to the next.
    pub fn boot(
        config: NodeConfig,
        store: Arc<dyn Store>,
        remains: Option<&Arc<dyn Store>>,
        recovered: &Recovered,
        now: Instant,
        seed: u64,
    ) -> Result<Self, BootError> {
        recovered.require_promises()?;
        let mut slots = Slots::load(store.clone(), &FIRST_SHARDS)?;
        let procedures = Arc::new(Procedures::new());
        let rng = Rng::new(seed);
        let membership = Membership::of_voters(config.members.iter().map(|member| ReplicaId(member.id.0)));
        let mut roster = Roster::default();
        let mut replicas = BTreeMap::new();
        let mut mending = BTreeMap::new();
        let mut records = Vec::new();
        let mut out = Outputs::default();
        for shard in FIRST_SHARDS {
            let log = recovered.shards.get(&shard);
            let found = boot::open_replica(shard, &store, &mut slots, log, &membership, &procedures)?;
            if shard == FIRST_SHARDS[0] {
                roster = replica::read_roster(&found.machine).map_err(BootError::Roster)?;
            }
            let covered = log.map_or(0, |log| log.rotted.len()) - found.rotted.len();
            if covered > 0 {
                let covered = covered as u64;
                out.mended.push(Mended { shard, covered, ..Mended::default() });
            }
            records.extend(found.repair.clone());
            let found = if config.sabotage == Some(Sabotage::LeadWithRot) { found.cut_off() } else { found };
            if found.rotted.is_empty() && found.hole.is_none() {
                replicas.insert(shard, start_replica(&config, shard, &found.restored, found.machine, now, &rng));
            } else {
                let remains = remains.and_then(|store| remains_of(shard, store));
                mending.insert(shard, Mending::new(shard, ReplicaId(config.node.0), found, &config.known, remains)?);
            }
        }
        let roster = Arc::new(roster);
        out.roster = Some(roster.clone());
        Ok(Self {
            config,
            store,
            slots,
            procedures,
            dirty: replicas.keys().copied().collect(),
            replicas,
            mending,
            rng,
            wall: WallMs(0),
            no_space: false,
            ticket: 1,
            records,
            out,
            flushing: None,
            roster,
            misrouted: 0,
        })
    }

    /// Takes one input. Nothing leaves the node before [`Node::drain`].
    pub fn step(&mut self, now: Instant, input: Input) {
        match input {
            Input::Tick { wall } => {
                self.wall = self.wall.max(wall);
                self.each(now, Replica::tick);
                self.reshape(now);
                self.mend_each(now, |_, _| {});
                if let Err(e) = self.slots.clear_some(DEAD_ROWS_PER_TICK) {
                    self.out.fatal.get_or_insert(e.to_string());
                }
            }
            Input::Peer { from, message } => {
                let known = node_of(message.from) == from && message.to == ReplicaId(self.config.node.0);
                if known && self.mending.contains_key(&message.shard) {
                    self.mend(now, message.shard, |mending, cx| mending.receive(message.from, message.body, cx));
                    return;
                }
                if !known || !self.replicas.contains_key(&message.shard) {
                    self.misrouted += 1;
                    return;
                }
                self.one(now, message.shard, |replica, cx| replica.receive(message.from, message.body, cx));
            }
            Input::PeerUp(_) => {}
            Input::PeerDown(node) => self.each(now, |replica, _| replica.peer_down(node)),
            Input::Persisted { ticket } => {
                self.each(now, |replica, cx| replica.persisted(ticket, cx));
                self.mend_each(now, |mending, _| mending.persisted(ticket));
            }
            Input::Flushed { ticket } => {
                if let Some((_, durable)) = self.flushing.take_if(|(flushing, _)| *flushing == ticket) {
                    for (shard, durable) in durable {
                        self.one(now, shard, |replica, cx| replica.flushed(ticket, durable, cx));
                    }
                    self.mend_each(now, |mending, cx| mending.flushed(ticket, cx));
                }
            }
            Input::Leave => self.each(now, |replica, cx| replica.leave(cx)),
            Input::Stop => self.each(now, Replica::stop),
            Input::Space { exhausted } => self.no_space = exhausted,
            Input::Request { id, timeout, request } => {
                let shard = request.shard();
                if self.replicas.contains_key(&shard) {
                    self.one(now, shard, |replica, cx| replica.request(id, request, now + timeout, cx));
                } else if self.mending.contains_key(&shard) {
                    self.out.replies.push((id, Err(Unavailable::NoLeader.into())));
                } else {
                    self.out.replies.push((id, Err(Error::Refused(Refusal::KeyspaceNotFound))));
                }
            }
            Input::Watch { key, shard, request } => {
                if self.replicas.contains_key(&shard) {
                    self.one(now, shard, |replica, cx| replica.watch(key, request, cx));
                } else if let Some(mending) = self.mending.get_mut(&shard) {
                    mending.watch(key, request);
                }
            }
        }
    }

    /// Carries out everything that has become possible, and hands out what must happen outside.
    pub fn drain(&mut self, now: Instant) -> Outputs {
        for shard in std::mem::take(&mut self.dirty) {
            self.one(now, shard, Replica::pump);
        }
        self.dirty.clear();
        self.read_roster();
        self.start_flush();
        let mut out = std::mem::take(&mut self.out);
        if !self.records.is_empty() {
            out.persist = Some(Persist { ticket: self.ticket, records: std::mem::take(&mut self.records) });
            self.ticket += 1;
        }
        out
    }

    /// Lets the groups that this node leads take a step towards what the members' rows ask for.
    fn reshape(&mut self, now: Instant) {
        let roster = self.roster.clone();
        // A node learns from the system keyspace that it is to go. So that is the last group that it leaves: a leader elsewhere that missed its own
        // removal would lead there for ever.
        let elsewhere: Vec<Membership> =
            self.replicas.iter().filter(|(shard, _)| **shard != FIRST_SHARDS[0]).map(|(_, r)| r.membership()).collect();
        let whole = self.mending.is_empty();
        let needed = |id: ReplicaId| !whole || elsewhere.iter().any(|group| group.contains(id));
        for shard in self.replicas.keys().copied().collect::<Vec<_>>() {
            let last = shard == FIRST_SHARDS[0] && self.config.sabotage != Some(Sabotage::LeaveSystemFirst);
            let stays = |id: ReplicaId| last && needed(id);
            self.one(now, shard, |replica, cx| replica.reshape(&roster, &stays, cx));
        }
        let groups: Vec<Membership> = self.replicas.values().map(Replica::membership).collect();
        if self.mending.is_empty() {
            self.one(now, FIRST_SHARDS[0], |replica, cx| replica.move_rows(&roster, &groups, cx));
        }
    }

    fn read_roster(&mut self) {
        let system = self.replicas.get(&FIRST_SHARDS[0]);
        match system.and_then(|replica| replica.roster(self.roster.revision)) {
            Some(Ok(roster)) => {
                self.roster = Arc::new(roster);
                self.out.roster = Some(self.roster.clone());
            }
            Some(Err(e)) => {
                self.out.fatal.get_or_insert(format!("the members' rows cannot be read: {e}"));
            }
            None => {}
        }
    }

    fn start_flush(&mut self) {
        let wanted =
            self.replicas.values().any(Replica::wants_flush) || self.mending.values().any(Mending::wants_flush);
        if self.flushing.is_some() || !(wanted || self.store.memory_bytes() >= self.config.flush_bytes) {
            return;
        }
        if let Some(job) = self.store.seal() {
            let ticket = self.ticket;
            self.ticket += 1;
            self.replicas.values_mut().for_each(|replica| replica.flush_started(ticket));
            self.mending.values_mut().for_each(|mending| mending.flush_started(ticket));
            let durable = self.replicas.iter().map(|(shard, replica)| (*shard, replica.applied())).collect();
            self.flushing = Some((ticket, durable));
            self.out.flush = Some(FlushTask { ticket, job });
        }
    }

    fn one(&mut self, now: Instant, shard: ShardId, f: impl FnOnce(&mut Replica, &mut Context<'_>)) {
        let Some(replica) = self.replicas.get_mut(&shard) else { return };
        let mut cx = Context {
            now,
            wall: self.wall,
            config: &self.config,
            store: &self.store,
            slots: &mut self.slots,
            procedures: &self.procedures,
            out: &mut self.out,
            records: &mut self.records,
            ticket: self.ticket,
            no_space: self.no_space,
        };
        f(replica, &mut cx);
        self.dirty.insert(shard);
    }

    /// Lets a replica whose log has rotted go on, and starts it when its log is whole.
    fn mend(&mut self, now: Instant, shard: ShardId, f: impl FnOnce(&mut Mending, &mut Context<'_>)) {
        let Some(mut mending) = self.mending.remove(&shard) else { return };
        mending.know(&self.roster);
        let mut cx = Context {
            now,
            wall: self.wall,
            config: &self.config,
            store: &self.store,
            slots: &mut self.slots,
            procedures: &self.procedures,
            out: &mut self.out,
            records: &mut self.records,
            ticket: self.ticket,
            no_space: self.no_space,
        };
        f(&mut mending, &mut cx);
        mending.go_on(&mut cx);
        if !mending.is_whole() {
            self.mending.insert(shard, mending);
            return;
        }
        self.out.mended.push(mending.mended());
        let (restored, machine, watches) = mending.finish();
        let replica = start_replica(&self.config, shard, &restored, machine, now, &self.rng);
        self.replicas.insert(shard, replica);
        self.dirty.insert(shard);
        for (key, request) in watches {
            self.one(now, shard, |replica, cx| replica.watch(key, request, cx));
        }
    }

    fn mend_each(&mut self, now: Instant, mut f: impl FnMut(&mut Mending, &mut Context<'_>)) {
        for shard in self.mending.keys().copied().collect::<Vec<_>>() {
            self.mend(now, shard, &mut f);
        }
    }

    fn each(&mut self, now: Instant, mut f: impl FnMut(&mut Replica, &mut Context<'_>)) {
        let shards: Vec<ShardId> = self.replicas.keys().copied().collect();
        for shard in shards {
            self.one(now, shard, &mut f);
        }
    }

    /// How it was set up.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// After [`Input::Leave`]: whether nobody needs this node any more, as far as it knows.
    #[must_use]
    pub fn may_stop(&self, now: Instant) -> bool {
        let heard = replica::heard_lately(&self.config, now);
        self.replicas.values().all(|replica| replica.may_stop(heard))
    }

    /// Whether every replica here has all that it should have.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.mending.is_empty()
    }

    /// The members' rows as this node knows them.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Messages that reached the wrong node or replica.
    #[must_use]
    pub fn misrouted(&self) -> u64 {
        self.misrouted
    }

    /// A replica, for status pages and checkers.
    #[must_use]
    pub fn inspect(&self, shard: ShardId) -> Option<Inspection> {
        self.replicas.get(&shard).map(Replica::inspect).or_else(|| self.mending.get(&shard).map(Mending::inspect))
    }
}

/// What is left of a shard's rows in a damaged store, if it says where they were.
fn remains_of(shard: ShardId, store: &Arc<dyn Store>) -> Option<Remains> {
    let slots = Slots::load(store.clone(), &[shard]).ok()?;
    slots.of(shard).map(|slot| Remains::new(store.clone(), slot))
}

fn start_replica(
    config: &NodeConfig,
    shard: ShardId,
    restored: &Restored,
    machine: Machine,
    now: Instant,
    rng: &Rng,
) -> Replica {
    let id = ReplicaId(config.node.0);
    let group_config = Config {
        replica: id,
        election_ticks: config.timing.election_ticks,
        heartbeat_ticks: config.timing.heartbeat_ticks,
        append_bytes_max: APPEND_BYTES_MAX,
        inflight_max: APPENDS_IN_FLIGHT_MAX,
        uncommitted_bytes_max: u64::MAX,
    };
    let mut group = Group::new(&group_config, restored);
    if restored.membership.all_voters() == [id] {
        // Nobody to wait for.
        group.campaign();
    }
    Replica::new(shard, id, group, machine, now, rng.split(shard.0 * 2 + 1))
}
