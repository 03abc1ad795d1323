//! The node: takes inputs, hands them to the replicas that they concern, and gathers what comes out.

mod forgetting;
mod heating;
mod looking;
mod losing;
mod merging;
mod outposts;
mod placing;
mod retaining;
mod sleeping;
mod splitting;
#[cfg(test)]
mod tests;
mod weighing;

use crate::ack_wait::{AckWait, over_before};
use crate::across::{Across, Ask, OWN_REQUESTS, Surroundings};
use crate::boot::{self, BootError};
use crate::bounds::{
    DEAD_ROWS_PER_TICK, PENDING_READS_MAX, RETRY, SHARDS_LOOK, SHARDS_PER_LOOK, UNCOMMITTED_BYTES_MAX,
};
use crate::config::{NodeConfig, Sabotage};
use crate::input::{
    FlushTask, Input, Inspection, Lost, Mended, Outputs, Persist, Request, RequestId, WatchOutput, WatchRequest,
};
use crate::keyspaces::Keyspaces;
use crate::levels::{self, Levels};
use crate::looking::Looking;
use crate::losses::Losses;
use crate::members::{Roster, Wanted};
use crate::mending::Mending;
use crate::placement::Placements;
use crate::placing::Rest;
use crate::recall::{Opened, Recall, Witness};
use crate::replica::{self, AtRisk, Context, Replica, SystemRows};
use crate::slots::Slots;
use crate::wire::{PeerBody, PeerMessage, node_of};
use forgetting::Forgetting;
use heating::Heat;
use losing::Losing;
use merging::Merging;
use outposts::Outposts;
use placing::{Goodbye, Landmarks, Sayings};
use quorate_consensus::{Config, Group, Membership, Restored};
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId, Rng, ShardId, Timestamp, WallMs};
use quorate_kv::{Command, Error, KeyspaceId, Level, Refusal, ShardCounts, Unavailable};
use quorate_shard::{Birth, Machine, Procedures, Remains, View};
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

/// Bytes of entries in one append message.
const APPEND_BYTES_MAX: u64 = 2 << 20;

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

/// Append messages in flight to one follower.
const APPENDS_IN_FLIGHT_MAX: usize = 64;

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

    /// Opens or creates this node's replica of a shard. Those who are its members at the beginning are the same for all.
    fn open(&mut self, now: Instant, shard: ShardId, membership: &Membership) -> Result<(), BootError> {
        let log = self.logs.remove(&shard);
        let Shared { config, store, slots, procedures, out, .. } = &mut self.shared;
        let found = boot::open_replica(shard, store, slots, log.as_ref(), membership, procedures)?;
        if shard == FIRST_SHARDS[0] {
            self.system = SystemRows::read(&found.machine).map_err(BootError::Roster)?;
        }
        let covered = log.map_or(0, |log| log.rotted.len()) - found.rotted.len();
        if covered > 0 {
            let covered = covered as u64;
            out.mended.push(Mended { shard, covered, ..Mended::default() });
        }
        let found = if config.sabotage == Some(Sabotage::LeadWithRot) { found.cut_off() } else { found };
        let remains = self.remains.as_ref().and_then(|store| remains_of(shard, store));
        let opened = Opened { found, remains, watches: Vec::new() };
        match &mut self.recalling {
            Some(recall) => recall.hold(shard, opened),
            // A shard that is new here has promised nothing, and one whose log waited was asked about.
            None => self.admit(now, shard, opened)?,
        }
        Ok(())
    }

    /// Nobody knows of a promise that the disk has forgotten: the replicas take part.
    fn admit_all(&mut self, now: Instant) -> Result<(), BootError> {
        for (shard, opened) in self.recalling.take().map(Recall::finish).unwrap_or_default() {
            self.admit(now, shard, opened)?;
        }
        self.let_merged_go(now)?;
        self.ask_early(now);
        Ok(())
    }

    /// What came too early is asked now.
    fn ask_early(&mut self, now: Instant) {
        for (id, request, wait, deadline) in std::mem::take(&mut self.early) {
            self.ask(now, id, (request, wait), deadline);
        }
    }

    /// Nobody waits for longer than it wanted to.
    fn expire_early(&mut self, now: Instant) {
        let late = self.early.extract_if(.., |(.., deadline)| *deadline <= now);
        self.shared.out.replies.extend(late.map(|(id, ..)| (id, Err(Unavailable::NoLeader.into()))));
    }

    /// What a replica that starts draws from.
    fn rng_of(&mut self, shard: ShardId) -> Rng {
        self.started += u64::from(self.shared.config.sabotage != Some(Sabotage::SessionAgain));
        self.rng.split(shard.0 * 2 + 1).split(self.started)
    }

    /// A replica's disk is believed: it starts, or is mended first.
    fn admit(&mut self, now: Instant, shard: ShardId, opened: Opened) -> Result<(), BootError> {
        let Opened { found, remains, watches } = opened;
        let rng = self.rng_of(shard);
        let Shared { config, records, .. } = &mut self.shared;
        records.extend(found.repair.clone());
        if found.rotted.is_empty() && found.hole.is_none() {
            let replica = start_replica(config, shard, &found.restored, found.machine, now, rng);
            self.let_begin(shard, replica);
            for (key, request) in watches {
                self.one(now, shard, |replica, cx| replica.watch(key, request, cx));
            }
        } else {
            let mut mending = Mending::new(shard, ReplicaId(config.node.0), found, &config.known, remains)?;
            watches.into_iter().for_each(|(key, request)| mending.watch(key, request));
            self.mending.insert(shard, mending);
        }
        Ok(())
    }

    fn let_begin(&mut self, shard: ShardId, replica: Replica) {
        self.led += u64::from(replica.leads());
        self.replicas.insert(shard, replica);
        self.dirty.insert(shard);
        self.sleepers.wakes(shard);
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
            Input::Peer { from, message } => {
                let known = node_of(message.from) == from && message.to == ReplicaId(self.shared.config.node.0);
                self.hear_of(now, from);
                if known && self.is_here(message.shard) {
                    self.witness.see(message.shard, message.from, &message.body);
                    match &message.body {
                        PeerBody::RecallAsk { ask } => return self.recount(&message, *ask),
                        PeerBody::RecallAnswer { ask, seen } => {
                            return self
                                .recall(now, |recall, cx| recall.hear(message.from, *ask, seen, cx.config.sabotage));
                        }
                        _ => {}
                    }
                }
                if known && self.hears_of_elsewhere(now, &message) {
                    return;
                }
                if known && self.recalls(message.shard) {
                    return;
                }
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

    fn request(&mut self, now: Instant, id: RequestId, request: Request, deadline: Instant) {
        self.ask(now, id, (request, AckWait::default()), deadline);
    }

    /// Asks for something, and waits for this before it is taken to be done; for a client's command also for what its keyspace wants.
    fn ask(&mut self, now: Instant, id: RequestId, (request, wait): (Request, AckWait), deadline: Instant) {
        let (needs, is) = (levels::needed(&request), self.system.levels.cluster());
        if needs > is && self.shared.config.sabotage != Some(Sabotage::IgnoreLevel) {
            if !self.system.levels.begun() && self.early.len() < PENDING_READS_MAX {
                // A new cluster's first leader is about to say it.
                return self.early.push((id, request, wait, deadline));
            }
            return self.shared.out.replies.push((id, Err(Unavailable::FeatureLevel { needs, is }.into())));
        }
        if let Request::Submit { shard, command } = &request
            && let Err(refusal) = self.system.keyspaces.suits(*shard, command)
        {
            return self.shared.out.replies.push((id, Err(refusal.into())));
        }
        match (request.shard(), request) {
            (None, Request::Transact(transaction)) => {
                if let Some(refusal) = self.lies_ahead(transaction.after) {
                    return self.shared.out.replies.push((id, Err(refusal.into())));
                }
                self.with_across(now, |across, at| across.begin(id, transaction, deadline, at));
            }
            (None, Request::Look { looks, freshness }) => self.look(now, id, (looks, freshness), deadline),
            (None, Request::Settle { home, tx }) => {
                self.with_across(now, |across, at| across.settle(id, home, tx, deadline, at));
            }
            (None, Request::Reserve(wish)) => {
                self.with_across(now, |across, at| across.reserve(id, wish, deadline, at));
            }
            (None, Request::Release { by, keys }) => {
                self.with_across(now, |across, at| across.release(id, (by, keys), deadline, at));
            }
            // Who asks for it looks at the map again.
            (Some(shard), _) if self.system.keyspaces.is_merged(shard) => {
                self.shared.out.replies.push((id, Err(Unavailable::NoLeader.into())));
            }
            (Some(shard), Request::Submit { .. }) if id < OWN_REQUESTS && self.lacks_bound(shard) => {
                self.shared.out.replies.push((id, Err(Unavailable::NoClockBound.into())));
            }
            (Some(shard), Request::Submit { command, .. }) if !self.is_served_here(shard) => {
                let wait = self.wait_of(id, shard, wait);
                self.submit_elsewhere(now, id, (shard, (command, wait)), deadline);
            }
            (Some(shard), Request::Submit { command, .. }) if self.replicas.contains_key(&shard) => {
                let wait = self.wait_of(id, shard, wait);
                self.one(now, shard, |replica, cx| replica.submit(id, (command, wait), deadline, cx));
            }
            (Some(shard), request) if self.replicas.contains_key(&shard) => {
                self.one(now, shard, |replica, cx| replica.request(id, request, deadline, cx));
            }
            (Some(shard), request) if self.recalls(shard) && self.early.len() < PENDING_READS_MAX => {
                self.early.push((id, request, wait, deadline));
            }
            (Some(shard), _) if !self.is_here(shard) && self.system.placements.of(shard).is_some() => self.refer(id),
            (Some(shard), _) if !self.is_here(shard) && !self.nursery.expects(shard) => {
                self.shared.out.replies.push((id, Err(Error::Refused(Refusal::KeyspaceNotFound))));
            }
            _ => self.shared.out.replies.push((id, Err(Unavailable::NoLeader.into()))),
        }
    }

    /// What a command waits for before it is taken to be done.
    fn wait_of(&self, id: RequestId, shard: ShardId, wait: AckWait) -> AckWait {
        if id < OWN_REQUESTS { wait.and(self.system.keyspaces.ack_wait(shard)) } else { wait }
    }

    /// Whether writers of a shard wait for clocks, and nobody has told this node how far those may be from true time.
    fn lacks_bound(&self, shard: ShardId) -> bool {
        self.shared.config.clock_bound.is_none() && self.system.keyspaces.ack_wait(shard).over
    }

    /// Takes answers to the steps of transactions, and asks for the next steps.
    fn move_across(&mut self, now: Instant) {
        let asked = self.scales.asked || self.forgetting.asked > 0 || self.retaining.asked > 0;
        let asked = asked || self.merging.is_asking() || self.losing.is_asking();
        let said = self.tell_again.is_some() || asked || self.sayings.are_under_way();
        if self.across.is_asking() || said {
            let answers = self.shared.out.replies.extract_if(.., |(id, _)| *id >= OWN_REQUESTS);
            for (id, answer) in answers.collect::<Vec<_>>() {
                self.scales.asked &= id != WEIGHED;
                self.forgetting.asked = self.forgetting.asked.saturating_sub(u64::from(id == FORGOTTEN));
                self.retaining.asked = self.retaining.asked.saturating_sub(u64::from(id == RETAINED));
                match id {
                    MERGED => self.merge_hears(now, answer),
                    LOST => self.losses_told(answer),
                    _ => self.with_across(now, |across, at| across.answered(id, answer, at)),
                }
            }
        }
        for Ask { id, shard, command, wait, deadline } in self.across.take_asks() {
            self.ask(now, id, (Request::Submit { shard, command }, wait), deadline);
        }
        self.shared.out.replies.extend(self.across.take_replies());
        let unknown = self.across.take_unknown();
        if !unknown.is_empty() {
            self.ask_how_far(now, unknown);
        }
    }

    fn with_across(&mut self, now: Instant, f: impl FnOnce(&mut Across, &Surroundings<'_>)) {
        let elsewhere = |shard| self.outposts.applied(shard);
        let applied = |shard: ShardId| self.replicas.get(&shard).map(Replica::applied).or_else(|| elsewhere(shard));
        let (keyspaces, sabotage) = (&*self.system.keyspaces, self.shared.config.sabotage);
        let wall = WallMs(self.shared.wall.0 + now.since(self.shared.ticked).as_millis() as u64);
        let (moment, bounded) = (Timestamp::of(wall), self.shared.config.clock_bound.is_some());
        f(&mut self.across, &Surroundings { now, moment, keyspaces, applied: &applied, bounded, sabotage });
    }

    /// Lets the groups that this node leads take a step towards what the members' rows ask for.
    fn reshape(&mut self, now: Instant) {
        let (roster, placements) = (self.system.roster.clone(), self.system.placements.clone());
        let keyspaces = self.system.keyspaces.clone();
        let whole = self.is_whole();
        let elsewhere = self.groups_of_leavers(&roster);
        let needed = |id: ReplicaId| {
            !whole || elsewhere.iter().any(|group| group.contains(id)) || placements.may_use(node_of(id))
        };
        for shard in self.sleepers.awake().collect::<Vec<_>>() {
            let last = shard == FIRST_SHARDS[0] && self.shared.config.sabotage != Some(Sabotage::LeaveSystemFirst);
            let stays = |id: ReplicaId| last && needed(id);
            let wishes = placements.wishes(shard, &roster);
            let wait = keyspaces.ack_wait(shard);
            self.one(now, shard, |replica, cx| {
                replica.want_early(wait.is_for_less());
                replica.reshape((&wishes, wait.everywhere), &stays, cx);
            });
        }
        self.move_on(now);
    }

    /// A node learns from the system keyspace that it is to go. So that is the last group that it leaves: a leader elsewhere that missed its own
    /// removal would lead there for ever. These are all others, if anybody is to go.
    fn groups_of_leavers(&self, roster: &Roster) -> Vec<Membership> {
        let system = self.replicas.get(&FIRST_SHARDS[0]).map(Replica::membership).unwrap_or_default();
        if !system.all().into_iter().any(|id| roster.wanted(id) == Some(Wanted::Gone)) {
            return Vec::new();
        }
        let others = self.replicas.iter().filter(|(shard, _)| **shard != FIRST_SHARDS[0]);
        others.map(|(_, replica)| replica.membership()).collect()
    }

    /// As the one who leads the system keyspace: moves on the rows of members, and the level, when what they say has come true everywhere.
    fn move_on(&mut self, now: Instant) {
        let system = &self.system;
        let replaces = system.placements.replaced().next().is_some();
        let due = replaces || system.roster.is_moving() || system.levels.may_rise();
        let leads = self.replicas.get(&FIRST_SHARDS[0]).is_some_and(Replica::leads);
        if !due || !leads || !self.is_whole() || !self.replicas.values().all(Replica::remembers_members) {
            return;
        }
        let (roster, placements, levels) = (system.roster.clone(), system.placements.clone(), system.levels.clone());
        let everywhere = self.replicas.iter().filter(|(shard, _)| placements.of(**shard).is_none());
        let groups: Vec<Membership> = everywhere.map(|(_, replica)| replica.membership()).collect();
        let members = groups.iter().flat_map(Membership::all).map(node_of).chain(placements.nodes()).collect();
        self.one(now, FIRST_SHARDS[0], |replica, cx| {
            replica.move_rows(&roster, &groups, &placements, cx);
            replica.raise_level(&levels, members, cx);
        });
    }

    /// What fails here ends the process.
    fn try_to(&mut self, now: Instant, f: impl FnOnce(&mut Self, Instant) -> Result<(), BootError>) {
        if let Err(e) = f(self, now) {
            self.shared.out.fatal.get_or_insert(e.to_string());
        }
    }

    /// Looks whether the system keyspace's rows have changed.
    fn read_system(&mut self, now: Instant) {
        let known = self.system.revision();
        let system = self.replicas.get_mut(&FIRST_SHARDS[0]);
        let Some(system) = system.filter(|system| system.machine().meta().revision != known) else { return };
        // What it knew is given away, so that what nobody else holds need not be copied.
        match system.system_rows(std::mem::take(&mut self.system)) {
            Ok(rows) => {
                self.system = rows;
                self.wake_for_news(now);
            }
            Err(e) => {
                self.shared.out.fatal.get_or_insert(format!("the system keyspace's rows cannot be read: {e}"));
                return;
            }
        }
        self.try_to(now, Self::let_merged_go);
        self.try_to(now, Self::open_made);
        self.hand_out_system();
        self.ask_early(now);
    }

    /// Says outside what the system keyspace's rows say, and stops if they say that this node's release is too old.
    fn hand_out_system(&mut self) {
        let (rows, shared) = (&self.system, &mut self.shared);
        let (is, knows) = (rows.levels.cluster(), shared.config.level);
        shared.timed = is >= Level::TIMED;
        // Who is to go, the others do not wait for: it is about to hear that it is gone, which is the better reason to stop.
        let goes = rows.roster.wanted(ReplicaId(shared.config.node.0)) == Some(Wanted::Gone);
        if is > knows && !goes {
            let why = format!("the cluster is at feature level {is}, and this node knows only {knows}");
            shared.out.fatal.get_or_insert(format!("{why}: start a newer release, or one that is not held down"));
        }
        shared.out.roster = Some(rows.roster.clone());
        shared.out.keyspaces = Some(rows.keyspaces.clone());
        shared.out.placements = Some(rows.placements.clone());
        shared.out.losses = Some(rows.losses.clone());
        shared.out.levels = Some(rows.levels.clone());
    }

    /// Says in the system keyspace what this node's release knows, and its zone.
    fn tell_level(&mut self, now: Instant) {
        let (node, level) = (self.shared.config.node, self.shared.config.level);
        let system = self.replicas.get(&FIRST_SHARDS[0]);
        if !system.is_some_and(|replica| replica.membership().contains(ReplicaId(node.0))) {
            return;
        }
        let placed = self.system.levels.cluster() >= Level::PLACED;
        let zone = || self.system.placements.tell_zone(node, &self.shared.config.zone).filter(|_| placed);
        let Some(txn) = self.system.levels.tell(node, level).or_else(zone) else {
            self.tell_again = None;
            return;
        };
        if self.tell_again.is_none_or(|when| when <= now) {
            self.tell_again = Some(now + RETRY);
            let request = Request::Submit { shard: FIRST_SHARDS[0], command: Command::Transact(txn) };
            self.request(now, TELLING, request, now + RETRY);
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

    /// Lets a replica whose log has rotted go on, and starts it when its log is whole.
    fn mend(&mut self, now: Instant, shard: ShardId, f: impl FnOnce(&mut Mending, &mut Context<'_>)) {
        let Some(mut mending) = self.mending.remove(&shard) else { return };
        mending.know(&self.system.roster);
        let mut cx = self.shared.context(now);
        f(&mut mending, &mut cx);
        mending.go_on(&mut cx);
        if !mending.is_whole() {
            self.mending.insert(shard, mending);
            return;
        }
        cx.out.mended.push(mending.mended());
        let (restored, machine, watches) = mending.finish(&mut cx);
        let rng = self.rng_of(shard);
        let replica = start_replica(&self.shared.config, shard, &restored, machine, now, rng);
        self.let_begin(shard, replica);
        if self.is_whole() {
            self.remains = None;
        }
        for (key, request) in watches {
            self.one(now, shard, |replica, cx| replica.watch(key, request, cx));
        }
    }

    /// Whether a message is about a shard that one of its two nodes has no replica of.
    fn hears_of_elsewhere(&mut self, now: Instant, message: &PeerMessage) -> bool {
        let (shard, from, to) = (message.shard, message.from, message.to);
        match &message.body {
            PeerBody::Answers { leader, applied, answers } => {
                self.hear_answers(now, (shard, from), (*leader, *applied), answers.clone());
            }
            PeerBody::NotHere => self.hear_not_here(now, shard, from),
            PeerBody::LeaveAnswer { index } => self.released(shard, *index, from),
            PeerBody::LookAnswer { ask, sight } => self.hear_sight(now, (*ask, shard), sight.clone()),
            PeerBody::ChunkAsk { transfer, .. } | PeerBody::DigestAsk { transfer, .. } if !self.is_here(shard) => {
                let gone = PeerBody::TransferGone { transfer: *transfer };
                let answer = PeerMessage { shard, from: to, to: from, body: gone };
                self.shared.out.messages.push((node_of(from), answer));
            }
            PeerBody::Everywhere { index } => {
                self.hear_everywhere(now, shard, *index);
                return !self.is_here(shard);
            }
            PeerBody::Early { answers } if !self.is_served_here(shard) => self.hear_early(shard, answers.clone()),
            PeerBody::Petition(_) | PeerBody::LookAsk { .. } | PeerBody::EverywhereAsk { .. }
                if !self.replicas.contains_key(&shard) =>
            {
                let answer = PeerMessage { shard, from: to, to: from, body: PeerBody::NotHere };
                self.shared.out.messages.push((node_of(from), answer));
            }
            _ => return false,
        }
        true
    }

    /// Says what was seen of a node that starts.
    fn recount(&mut self, question: &PeerMessage, ask: u64) {
        let to = question.from;
        let blind = self.shared.config.sabotage == Some(Sabotage::ForgetSightings);
        let seen = if blind { Vec::new() } else { self.witness.of(to) };
        let body = PeerBody::RecallAnswer { ask, seen };
        let answer = PeerMessage { shard: question.shard, from: question.to, to, body };
        self.shared.out.messages.push((node_of(to), answer));
    }

    fn is_here(&self, shard: ShardId) -> bool {
        self.replicas.contains_key(&shard) || self.mending.contains_key(&shard) || self.recalls(shard)
    }

    /// Whether a replica here waits until its disk is believed.
    fn recalls(&self, shard: ShardId) -> bool {
        self.recalling.as_ref().is_some_and(|recall| recall.holds(shard))
    }

    /// If this node asks what was seen of it: lets that go on, and admits its replicas when it knows.
    fn recall(&mut self, now: Instant, f: impl FnOnce(&mut Recall, &mut Context<'_>)) {
        let Some(recall) = &mut self.recalling else { return };
        f(recall, &mut self.shared.context(now));
        let (over, shared) = (recall.is_over(), &mut self.shared);
        if let Some(what) = recall.contradiction() {
            shared.out.lost = shared.out.lost.or(Some(Lost::Acknowledged));
            shared.out.fatal.get_or_insert(format!("{} has lost promises: {what}", shared.config.node));
        } else if over && let Err(e) = self.admit_all(now) {
            self.shared.out.fatal.get_or_insert(e.to_string());
        }
    }

    fn mend_each(&mut self, now: Instant, mut f: impl FnMut(&mut Mending, &mut Context<'_>)) {
        for shard in self.mending.keys().copied().collect::<Vec<_>>() {
            self.mend(now, shard, &mut f);
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

    /// How it was set up.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.shared.config
    }

    /// After [`Input::Leave`]: whether nobody needs this node any more, as far as it knows.
    #[must_use]
    pub fn may_stop(&self, now: Instant) -> bool {
        let heard = replica::heard_lately(&self.shared.config, now);
        self.replicas.values().all(|replica| replica.may_stop(heard)) && !self.outposts.is_needed()
    }

    /// Between two looks at all shards that are here, so that many cost no more than few.
    fn pause_between_looks(&self) -> Duration {
        SHARDS_LOOK * (1 + self.replicas.len() / SHARDS_PER_LOOK) as u32
    }

    /// Whether every replica here has all that it should have.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.mending.is_empty() && self.recalling.is_none() && self.nursery.is_empty()
    }

    /// The members' rows as this node knows them.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.system.roster
    }

    /// The keyspaces as this node knows them.
    #[must_use]
    pub fn keyspaces(&self) -> &Keyspaces {
        &self.system.keyspaces
    }

    /// Where shards live, as this node knows it.
    #[must_use]
    pub fn placements(&self) -> &Placements {
        &self.system.placements
    }

    /// The levels as this node knows them.
    #[must_use]
    pub fn levels(&self) -> &Levels {
        &self.system.levels
    }

    /// The shards that this node has replicas of, ascending.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardId> {
        self.replicas
            .keys()
            .chain(self.mending.keys())
            .copied()
            .chain(self.recalling.iter().flat_map(Recall::shards))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// How many shards are here.
    #[must_use]
    pub fn counts(&self) -> ShardCounts {
        let (here, asleep) = (self.replicas.len() as u64, self.sleepers.count() as u64);
        ShardCounts { here, led: self.led, asleep }
    }

    /// Messages that reached the wrong node or replica.
    #[must_use]
    pub fn misrouted(&self) -> u64 {
        self.misrouted
    }

    /// The shards that were split off replicas here and are not weaned yet, each with its parent, for checkers.
    pub fn births(&self) -> impl Iterator<Item = (ShardId, &Birth)> {
        self.replicas.iter().flat_map(|(shard, replica)| replica.machine().births().map(|birth| (*shard, birth)))
    }

    /// What a replica holds, for checkers.
    #[must_use]
    pub fn view(&self, shard: ShardId) -> Option<View> {
        self.replicas.get(&shard).map(Replica::view)
    }

    /// How many reservations a replica knows of, for checkers.
    #[must_use]
    pub fn reserved(&self, shard: ShardId) -> usize {
        self.replicas.get(&shard).map_or(0, |replica| replica.reserved().len())
    }

    /// What would be lost of a shard with this node, if it leads that.
    #[must_use]
    pub fn at_risk(&self, shard: ShardId) -> Option<AtRisk> {
        self.replicas.get(&shard)?.at_risk()
    }

    /// What was lost, as this node knows it.
    #[must_use]
    pub fn losses(&self) -> &Losses {
        &self.system.losses
    }

    /// How many decisions a replica knows of that some shard has yet to carry out, for checkers.
    #[must_use]
    pub fn unresolved(&self, shard: ShardId) -> usize {
        self.replicas.get(&shard).map_or(0, |replica| replica.machine().unresolved().count())
    }

    /// A replica, for status pages and checkers.
    #[must_use]
    pub fn inspect(&self, shard: ShardId) -> Option<Inspection> {
        let mending = || self.mending.get(&shard).map(Mending::inspect);
        let recalling = || self.recalling.as_ref().and_then(|recall| recall.inspect(shard));
        self.replicas.get(&shard).map(Replica::inspect).or_else(mending).or_else(recalling)
    }
}

/// What is left of a shard's rows in a damaged store, if it says where they were.
fn remains_of(shard: ShardId, store: &Arc<dyn Store>) -> Option<Remains> {
    let slots = Slots::load(store.clone()).ok()?;
    slots.of(shard).map(|slot| Remains::new(store.clone(), slot))
}

fn start_replica(
    config: &NodeConfig,
    shard: ShardId,
    restored: &Restored,
    machine: Machine,
    now: Instant,
    rng: Rng,
) -> Replica {
    let id = ReplicaId(config.node.0);
    let group_config = Config {
        replica: id,
        turn: shard.0,
        election_ticks: config.timing.election_ticks,
        heartbeat_ticks: config.timing.heartbeat_ticks,
        append_bytes_max: APPEND_BYTES_MAX,
        committed_bytes_max: config.apply_bytes,
        inflight_max: APPENDS_IN_FLIGHT_MAX,
        uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
    };
    let mut group = Group::new(&group_config, restored);
    if restored.membership.all_voters() == [id] {
        // Nobody to wait for.
        group.campaign();
    }
    Replica::new(shard, id, group, restored.hard_state.term, machine, now, rng)
}
