//! The node: takes inputs, hands them to the replicas that they concern, and gathers what comes out.

mod admitting;
mod asking;
mod following;
mod forgetting;
mod hearing;
mod heating;
mod looking;
mod losing;
mod merging;
mod outposts;
mod placing;
mod retaining;
mod sleeping;
mod splitting;
mod telling;
#[cfg(test)]
mod tests;
mod weighing;

use crate::ack_wait::{AckWait, over_before};
use crate::across::Across;
use crate::boot::BootError;
use crate::bounds::{DEAD_ROWS_PER_TICK, SHARDS_LOOK, SHARDS_PER_LOOK};
use crate::config::{NodeConfig, Sabotage};
use crate::input::{FlushTask, Input, Outputs, Persist, Request, RequestId, WatchOutput, WatchRequest};
use crate::looking::Looking;
use crate::mending::Mending;
use crate::placing::Rest;
use crate::recall::{Recall, Witness};
use crate::replica::{Context, Replica, SystemRows};
use crate::slots::Slots;
use forgetting::Forgetting;
use heating::Heat;
use losing::Losing;
use merging::Merging;
use outposts::Outposts;
use placing::{Goodbye, Landmarks, Sayings};
use quorate_consensus::Membership;
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId, Rng, ShardId, WallMs};
use quorate_kv::{KeyspaceId, Unavailable};
use quorate_shard::Procedures;
use quorate_storage::store::Store;
use quorate_storage::wal::{LogRecord, Recovered, RecoveredLog};
use retaining::Retaining;
use sleeping::Sleepers;
use splitting::Nursery;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use weighing::Scales;

/// The shards that every cluster begins with: the system keyspace and the default one.
pub const FIRST_SHARDS: [ShardId; 2] = [ShardId(KeyspaceId::SYSTEM.0), ShardId(KeyspaceId::DEFAULT.0)];

/// What the randomness of transactions over several shards is split off by: no shard's number, doubled, is odd.
const ACROSS_RNG: u64 = u64::MAX;

/// The request in which a node says what its release knows. Nobody waits for the answer: it shows in the rows.
const TELLING: RequestId = RequestId::MAX;

/// The request in which a node asks for a split. What came of it shows in the shard map.
const WEIGHED: RequestId = RequestId::MAX - 1;

/// The request in which a node says whom a group has. It shows in the rows.
const PLACED: RequestId = RequestId::MAX - 2;

/// The request in which a node has a shard's history compacted. It shows in the shard.
const FORGOTTEN: RequestId = RequestId::MAX - 3;

/// The request in which a node has a log cut off. It shows in the shard.
const RETAINED: RequestId = RequestId::MAX - 4;

/// The request that takes the next step towards merging a shard.
const MERGED: RequestId = RequestId::MAX - 5;

/// The request that writes down what was lost.
const LOST: RequestId = RequestId::MAX - 6;

/// Splits a node's randomness for the names of its questions; shards use the numbers below.
const RECALL_PURPOSE: u64 = 1 << 32;

/// And for those of its clients' reads.
const LOOKING_PURPOSE: u64 = (1 << 32) + 2;

/// One node. See the crate's documentation for how it is driven.
pub struct Node {
    shared: Shared,
    replicas: BTreeMap<ShardId, Replica>,
    /// How many of them lead.
    led: u64,
    sleepers: Sleepers,
    /// Shards whose replica here cannot start yet: its log has rotted.
    mending: BTreeMap<ShardId, Mending>,
    /// While this node asks what others have seen of it: its replicas wait.
    recalling: Option<Recall>,
    witness: Witness,
    /// What clients asked of shards that are about to take part, or before it was known at which level the cluster begins.
    early: Vec<(RequestId, Request, AckWait, Instant)>,
    /// Logs of shards that have no replica here: the system keyspace's rows may not be here yet, or the shard has moved away. What was promised stays promised.
    logs: BTreeMap<ShardId, RecoveredLog>,
    /// A damaged store in whose place another was put, until every replica is whole.
    remains: Option<Arc<dyn Store>>,
    /// Shards that were split off and have no replica here yet.
    nursery: Nursery,
    scales: Scales,
    heat: Heat,
    forgetting: Forgetting,
    losing: Losing,
    merging: Merging,
    retaining: Retaining,
    outposts: Outposts,
    sayings: Sayings,
    /// Replicas that had more to apply than is applied at one time.
    unfinished: BTreeSet<ShardId>,
    /// Where nothing is to live elsewhere, or nothing before then.
    placed_well: Option<(Landmarks, Option<Instant>)>,
    /// After it had a replica moved for no other reason than that nodes should have as many.
    rest: Rest,
    /// Replicas that are to go.
    goodbyes: BTreeMap<ShardId, Goodbye>,
    across: Across,
    looking: Looking,
    rng: Rng,
    /// Replicas that were started in this life. One may be started twice, and its sessions must not have the same names.
    started: u64,
    dirty: BTreeSet<ShardId>,
    flushing: Option<(u64, BTreeMap<ShardId, LogIndex>)>,
    /// The system keyspace's rows, as this node's replica of it has them.
    system: SystemRows,
    /// When this node says again what its release knows, if that is not written by then; set while it is being said.
    tell_again: Option<Instant>,
    misrouted: u64,
}

/// What all replicas of a node work with.
struct Shared {
    config: NodeConfig,
    store: Arc<dyn Store>,
    slots: Slots,
    procedures: Arc<Procedures>,
    wall: WallMs,
    /// What the clock said at the last tick. It is behind the other if the clock was set back.
    clock: WallMs,
    /// When that was said.
    ticked: Instant,
    no_space: bool,
    timed: bool,
    /// Nodes that share sleeping groups with this one and were not heard from for long.
    silent: BTreeSet<NodeId>,
    ticket: u64,
    records: Vec<LogRecord>,
    out: Outputs,
}

impl Shared {
    fn context(&mut self, now: Instant) -> Context<'_> {
        let since_ms = now.since(self.ticked).as_millis() as u64;
        let is = WallMs(self.clock.0 + since_ms);
        Context {
            now,
            wall: WallMs(self.wall.0 + since_ms),
            over_before: self.config.clock_bound.map(|bound| match self.config.sabotage {
                Some(Sabotage::NoCommitWait) => WallMs(u64::MAX),
                Some(Sabotage::WaitTheWrongWay) => over_before(WallMs(is.0 + 4 * bound.as_millis() as u64), bound),
                _ => over_before(is, bound),
            }),
            config: &self.config,
            store: &self.store,
            slots: &mut self.slots,
            procedures: &self.procedures,
            out: &mut self.out,
            records: &mut self.records,
            ticket: self.ticket,
            no_space: self.no_space,
            timed: self.timed,
            silent: &self.silent,
        }
    }
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
        let (level, slots) = (config.level, Slots::load(store.clone())?);
        let rng = Rng::new(seed);
        let membership = Membership::of_voters(config.members.iter().map(|member| ReplicaId(member.id.0)));
        let shared = Shared {
            config,
            store,
            slots,
            procedures: Arc::new(Procedures::of(level)),
            wall: WallMs(0),
            clock: WallMs(0),
            ticked: now,
            no_space: false,
            timed: false,
            silent: BTreeSet::new(),
            ticket: 1,
            records: Vec::new(),
            out: Outputs::default(),
        };
        let ticks =
            if shared.config.sabotage == Some(Sabotage::SkipRecall) { 0 } else { shared.config.timing.recall_ticks };
        let ask = rng.split(RECALL_PURPOSE).next_u64();
        let own = ReplicaId(shared.config.node.0);
        let recall = Recall::new(own, &shared.config.known, &recovered.shards, ask, ticks);
        let mut node = Self {
            shared,
            replicas: BTreeMap::new(),
            led: 0,
            sleepers: Sleepers::default(),
            mending: BTreeMap::new(),
            recalling: Some(recall),
            witness: Witness::default(),
            early: Vec::new(),
            logs: recovered.shards.clone(),
            remains: remains.cloned(),
            nursery: Nursery::default(),
            scales: Scales::default(),
            heat: Heat::default(),
            forgetting: Forgetting::default(),
            losing: Losing::default(),
            merging: Merging::default(),
            retaining: Retaining::default(),
            outposts: Outposts::default(),
            sayings: Sayings::default(),
            unfinished: BTreeSet::new(),
            placed_well: None,
            rest: Rest::default(),
            goodbyes: BTreeMap::new(),
            across: Across::new(rng.split(ACROSS_RNG)),
            looking: Looking::new(rng.split(LOOKING_PURPOSE).next_u64()),
            rng,
            started: 0,
            dirty: BTreeSet::new(),
            flushing: None,
            system: SystemRows::default(),
            tell_again: None,
            misrouted: 0,
        };
        for shard in FIRST_SHARDS {
            node.open(now, shard, &membership)?;
        }
        node.open_made(now)?;
        if node.recalling.as_ref().is_some_and(Recall::is_over) {
            node.admit_all(now)?;
        }
        node.hand_out_system();
        match node.shared.out.fatal.take() {
            Some(why) => Err(BootError::Level(why)),
            None => Ok(node),
        }
    }

    /// Takes one input. Nothing leaves the node before [`Node::drain`].
    pub fn step(&mut self, now: Instant, input: Input) {
        match input {
            Input::Tick { wall } => {
                let shared = &mut self.shared;
                (shared.wall, shared.clock, shared.ticked) = (shared.wall.max(wall), wall, now);
                self.tick_sleepers(now);
                self.each_awake(now, Replica::tick);
                self.reshape(now);
                self.tend_children(now);
                self.try_to(now, |node, _| node.build_children());
                self.weigh(now);
                self.heat(now);
                self.forget_history(now);
                self.merge(now);
                self.tell_losses(now);
                self.cut_logs(now);
                self.try_to(now, Self::let_go);
                self.say_groups(now);
                self.place(now);
                self.tick_outposts(now);
                self.tell_level(now);
                self.recall(now, Recall::tick);
                self.expire_early(now);
                self.mend_each(now, |_, _| {});
                let orphans = self.awake().filter_map(|(_, replica)| replica.orphans()).collect();
                self.with_across(now, |across, at| across.tick(orphans, at));
                self.looking.tick(now);
                if let Err(e) = self.shared.slots.clear_some(DEAD_ROWS_PER_TICK) {
                    self.shared.out.fatal.get_or_insert(e.to_string());
                }
                self.settle_down(now);
            }
            Input::Peer { from, message } => self.hear(now, from, message),
            Input::PeerUp(node) => {
                self.recall(now, |recall, cx| recall.peer_up(node, cx));
                self.greet(now, node);
            }
            Input::PeerDown(node) => {
                self.each(now, |replica, cx| replica.peer_down(node, cx));
                self.outposts_lose(now, node);
            }
            Input::Persisted { ticket } => {
                self.each_awake(now, |replica, cx| replica.persisted(ticket, cx));
                self.mend_each(now, |mending, _| mending.persisted(ticket));
            }
            Input::Flushed { ticket } => {
                if let Some((_, durable)) = self.flushing.take_if(|(flushing, _)| *flushing == ticket) {
                    for (shard, durable) in durable {
                        self.one(now, shard, |replica, cx| replica.flushed(ticket, durable, cx));
                    }
                    self.mend_each(now, |mending, cx| mending.flushed(ticket, cx));
                    self.nursery.flushed(ticket);
                }
            }
            Input::GoOn => {}
            Input::Leave => self.each(now, Replica::leave),
            Input::Observed(observed) => self.observed(now, observed),
            Input::Stop => {
                self.looking.stop();
                self.across.stop();
                self.stop_outposts();
                let early = std::mem::take(&mut self.early).into_iter();
                self.shared.out.replies.extend(early.map(|(id, ..)| (id, Err(Unavailable::Stopping.into()))));
                self.each(now, Replica::stop);
            }
            Input::Space { exhausted } => {
                self.shared.no_space = exhausted;
                self.each(now, |replica, cx| replica.wake(None, cx));
            }
            Input::Request { id, timeout, request } => self.request(now, id, request, now + timeout),
            Input::Abandon { id } => {
                self.looking.abandon(id);
                self.with_across(now, |across, at| across.abandon(id, at));
            }
            Input::Watch { key, shard, request } => {
                if self.replicas.contains_key(&shard) {
                    self.one(now, shard, |replica, cx| replica.watch(key, request, cx));
                } else if let Some(mending) = self.mending.get_mut(&shard) {
                    mending.watch(key, request);
                } else if let Some(recall) = self.recalling.as_mut().filter(|recall| recall.holds(shard)) {
                    recall.watch(shard, key, request);
                } else if matches!(request, WatchRequest::Attach { .. }) {
                    self.shared.out.watch.push((key, WatchOutput::Gone));
                }
            }
        }
    }

    /// Carries out everything that has become possible, and hands out what must happen outside.
    pub fn drain(&mut self, now: Instant) -> Outputs {
        self.dirty.append(&mut self.unfinished);
        loop {
            for shard in std::mem::take(&mut self.dirty) {
                self.one(now, shard, Replica::pump);
                if self.replicas.get(&shard).is_some_and(Replica::is_unfinished) {
                    self.unfinished.insert(shard);
                }
            }
            self.dirty.clear();
            self.read_system(now);
            self.try_to(now, Self::open_children);
            self.move_across(now);
            self.move_looking(now);
            if self.dirty.is_empty() {
                break;
            }
        }
        self.start_flush();
        let shared = &mut self.shared;
        let mut out = std::mem::take(&mut shared.out);
        out.unfinished = !self.unfinished.is_empty();
        if !shared.records.is_empty() {
            out.persist = Some(Persist { ticket: shared.ticket, records: std::mem::take(&mut shared.records) });
            shared.ticket += 1;
        }
        out
    }

    /// What fails here ends the process.
    fn try_to(&mut self, now: Instant, f: impl FnOnce(&mut Self, Instant) -> Result<(), BootError>) {
        if let Err(e) = f(self, now) {
            self.shared.out.fatal.get_or_insert(e.to_string());
        }
    }

    fn start_flush(&mut self) {
        let wanted = self.awake().any(|(_, replica)| replica.wants_flush())
            || self.mending.values().any(Mending::wants_flush)
            || self.nursery.wants_flush();
        if self.flushing.is_some() || !(wanted || self.shared.store.memory_bytes() >= self.shared.config.flush_bytes) {
            return;
        }
        if let Some(job) = self.shared.store.seal() {
            let ticket = self.shared.ticket;
            self.shared.ticket += 1;
            self.replicas.values_mut().for_each(|replica| replica.flush_started(ticket));
            self.mending.values_mut().for_each(|mending| mending.flush_started(ticket));
            self.nursery.flush_started(ticket);
            let durable = self.replicas.iter().map(|(shard, replica)| (*shard, replica.applied())).collect();
            self.flushing = Some((ticket, durable));
            self.shared.out.flush = Some(FlushTask { ticket, job });
        }
    }

    fn one(&mut self, now: Instant, shard: ShardId, f: impl FnOnce(&mut Replica, &mut Context<'_>)) {
        let Some(replica) = self.replicas.get_mut(&shard) else { return };
        let led = replica.leads();
        f(replica, &mut self.shared.context(now));
        self.dirty.insert(shard);
        self.led = self.led + u64::from(replica.leads()) - u64::from(led);
        match replica.is_asleep() {
            true => self.sleepers.sleeps(shard, replica),
            false => self.sleepers.wakes(shard),
        }
    }

    /// Those that do not sleep: only they have anything to do by themselves.
    fn awake(&self) -> impl Iterator<Item = (ShardId, &Replica)> {
        self.sleepers.awake().filter_map(|shard| Some((shard, self.replicas.get(&shard)?)))
    }

    fn each_awake(&mut self, now: Instant, mut f: impl FnMut(&mut Replica, &mut Context<'_>)) {
        for shard in self.sleepers.awake().collect::<Vec<_>>() {
            self.one(now, shard, &mut f);
        }
    }

    fn each(&mut self, now: Instant, mut f: impl FnMut(&mut Replica, &mut Context<'_>)) {
        let shards: Vec<ShardId> = self.replicas.keys().copied().collect();
        for shard in shards {
            self.one(now, shard, &mut f);
        }
    }

    /// Between two looks at all shards that are here, so that many cost no more than few.
    fn pause_between_looks(&self) -> Duration {
        SHARDS_LOOK * (1 + self.replicas.len() / SHARDS_PER_LOOK) as u32
    }
}
