//! The world of one run: a heap of events, the nodes, and what connects them. Nothing here depends on anything but the seed.

mod acks;
mod chronicle;
mod churn;
mod clients;
mod disks;
mod faults;
mod handing;
mod lockers;
mod logs;
mod lookers;
mod moves;
mod network;
mod releases;
pub(crate) mod script;
mod sleep;
mod splits;
pub(crate) mod stage;
mod tellers;
mod twins;
mod watches;
mod wounds;

use crate::Options;
use crate::checks::leases::LeaseCheck;
use crate::checks::order::OrderCheck;
use crate::checks::raft::RaftCheck;
use crate::checks::recall::Seen;
use crate::checks::watch::WatchCheck;
use crate::client::{Client, SHARD};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::fault::Fault;
use crate::history::{Violation, demand};
use crate::lies::{MetaRows, meta_rows};
use crate::net::Net;
use crate::plan::Plan;
use crate::planted::{Bug, DriverBug};
use crate::report::Report;
use crate::rot;
use crate::trace::recorder::{Recorder, node_lane};
use crate::trace::{Loss, MessageId, TraceEvent};
use bytes::Bytes;
use disks::DiskTrouble;
use quorate_cluster::{
    BootError, BootMember, Input, Inspection, Lost, Node, NodeConfig, Observation, Outputs, PeerBody, Persist, Request,
    RequestId, Sabotage, Timing, WatchRequest, wire,
};
use quorate_env::checksum::chain;
use quorate_env::{ClusterId, Incarnation, NodeId, Rng, ShardId};
use quorate_kv::{KeyRange, Level};
use quorate_shard::{View, WatcherKey};
use quorate_storage::store::{FlushJob, LsmOptions, LsmStore, ModelStore, Store};
use quorate_storage::wal::{DiskOp, LogRecord, Wal, WalIdentity, WalLimits};
use script::{Played, Script};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;
use twins::{Taken, Twin};
use watches::REWATCH_US;
use wounds::Wounds;

const SHARDS: [ShardId; 2] = [ShardId(1), SHARD];
const CLUSTER: ClusterId = ClusterId(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a read on the side takes, at most, in microseconds.
const LOOK_US_MAX: u64 = 3_000;

/// How long a node is busy with others until it goes on with what was left undone, at most, in microseconds.
const TURN_US_MAX: u64 = 2_000;

/// A client gives up by itself after this long: its node may be paused.
const CLIENT_PATIENCE_US: u64 = 6_000_000;

/// Events under way at one time: a healthy run has some thousands, one whose answers breed questions has no end.
const UNDER_WAY_MAX: usize = 50_000;

const LIMITS: WalLimits =
    WalLimits { segment_bytes: 256 << 10, record_bytes: 96 << 10, segments_target: 4, rewrite_bytes: 64 << 10 };

/// Bytes of commands in one entry: with what is around them they fit a record.
const BATCH_BYTES: usize = LIMITS.record_bytes as usize * 2 / 3;

/// What the world does next. The messages of a frame have trace ids from `first` on.
#[derive(Clone)]
enum Event {
    Tick {
        node: usize,
        life: u64,
    },
    Deliver {
        from: usize,
        to: usize,
        frame: Bytes,
        first: u64,
    },
    Synced {
        node: usize,
        life: u64,
    },
    Flushed {
        node: usize,
        life: u64,
    },
    Observed {
        node: usize,
        life: u64,
        observation: Box<Observation>,
    },
    FlushedLate {
        node: usize,
        life: u64,
    },
    GoOn {
        node: usize,
        life: u64,
    },
    PeerDown {
        node: usize,
        peer: usize,
    },
    Restart {
        node: usize,
    },
    Upgrade {
        node: usize,
    },
    Resume {
        node: usize,
    },
    Client {
        client: usize,
    },
    Looker {
        looker: usize,
    },
    LookerPatience {
        looker: usize,
        request: RequestId,
    },
    Patience {
        client: usize,
        operation: u64,
    },
    Watch {
        watcher: usize,
    },
    Rewatch {
        watcher: usize,
    },
    Progress {
        key: WatcherKey,
    },
    Fault(Fault),
    /// Every cut and clog ends.
    Heal,
    Churn,
    /// Somebody asks for a split.
    Split,
    Move,
    Operator,
    /// Somebody makes the bank's keyspace.
    Found,
    Teller {
        teller: usize,
    },
    TellerPatience {
        teller: usize,
        operation: u64,
        asked: u32,
    },
    /// Somebody makes the logs.
    FoundLogs,
    Producer {
        producer: usize,
    },
    ProducerPatience {
        producer: usize,
        operation: u64,
        asked: u32,
    },
    Follower {
        follower: usize,
    },
    FollowerPatience {
        follower: usize,
        request: RequestId,
    },
    /// Somebody cuts a log off.
    CutLog,
    /// A teller that reserves has thought.
    Locker {
        teller: usize,
        operation: u64,
        asked: u32,
    },
    /// A request that waited.
    Ask {
        node: usize,
        id: RequestId,
        request: Request,
    },
    /// A node stands still.
    Still {
        node: usize,
        life: u64,
    },
    /// A node is told whether its disk is full.
    Space {
        node: usize,
    },
    /// A node's disk and clock are well again.
    Ease {
        node: usize,
    },
    /// A node was told to stop, and does so at the latest then. It led when it was told, or did not.
    Leaving {
        node: usize,
        life: u64,
        latest: u64,
        led: bool,
    },
    Calm,
    /// A fault of a script.
    Again {
        fault: Fault,
        rng: Rng,
    },
}

enum StoreKind {
    Model(Arc<ModelStore>),
    Real { dir: tempfile::TempDir, store: Option<Arc<LsmStore>> },
}

impl StoreKind {
    /// An empty one.
    fn new(plan: &Plan) -> Self {
        match plan.real_store {
            true => Self::Real { dir: memory_folder(), store: None },
            false => Self::Model(Arc::new(ModelStore::new())),
        }
    }
}

struct Syncing {
    ops: Vec<DiskOp>,
    ticket: u64,
    records: Vec<LogRecord>,
}

struct SimNode {
    node: Option<Node>,
    /// What the release knows that it starts with.
    level: Level,
    life: u64,
    paused: bool,
    parked: Vec<Input>,
    clock: Clock,
    disk: Disk,
    wal: Option<Wal>,
    store: StoreKind,
    queue: Vec<Persist>,
    syncing: Option<Syncing>,
    flushing: Option<(u64, Box<dyn FlushJob>)>,
    /// Of planted bugs: a flush that was reported and has not run; applied indexes before the last flush.
    flushing_late: Option<Box<dyn FlushJob>>,
    older_meta: MetaRows,
    /// Outputs after which it crashes.
    doomed: Option<u64>,
    trouble: DiskTrouble,
    /// The shards whose replicas have come up in this life; and those of which its disk had a log. A node learns which shards there are from
    /// the system keyspace's rows, which may have to be read from its log first.
    opened: BTreeSet<ShardId>,
    logs: BTreeSet<ShardId>,
    twin: Option<Twin>,
}

impl SimNode {
    /// A machine that was never started.
    fn new(plan: &Plan, clock_rng: &mut Rng) -> Self {
        let mut clock = Clock::draw(clock_rng);
        if let Some(bound_ms) = plan.clock_bound_ms() {
            clock.keep_within(bound_ms);
        }
        Self {
            node: None,
            level: Level::LATEST,
            life: 0,
            paused: false,
            parked: Vec::new(),
            clock,
            disk: Disk::default(),
            wal: None,
            store: StoreKind::new(plan),
            queue: Vec::new(),
            syncing: None,
            flushing: None,
            flushing_late: None,
            older_meta: MetaRows::new(),
            doomed: None,
            trouble: DiskTrouble::default(),
            opened: BTreeSet::new(),
            logs: BTreeSet::new(),
            twin: None,
        }
    }

    fn remember_meta(&mut self) {
        if let StoreKind::Model(store) = &self.store {
            self.older_meta = meta_rows(&store.crash());
        }
    }
}

struct Watcher {
    key: WatcherKey,
    node: usize,
    check: WatchCheck,
    catching_up: Option<View>,
}

struct World<'a> {
    script: Option<&'a Script<'a>>,
    played: Played,
    plan: Plan,
    options: Options,
    now: u64,
    sequence: u64,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<(u64, u64), Event>,
    rng: Rng,
    disk_rng: Rng,
    watch_rng: Rng,
    /// How long reads on the side take.
    look_rng: Rng,
    turn_rng: Rng,
    rot_rng: Rng,
    releases: releases::Releases,
    wounds: Wounds,
    nodes: Vec<SimNode>,
    net: Net,
    /// Deliveries that a clogged link holds.
    held: Vec<Event>,
    /// The latest message that has come over each link.
    latest: BTreeMap<(usize, usize), u64>,
    clients: Vec<Client>,
    requests: BTreeMap<RequestId, usize>,
    /// Of those who asked a leader to hand over.
    moves: BTreeSet<RequestId>,
    next_request: RequestId,
    next_operation: u64,
    watchers: Vec<Watcher>,
    next_key: WatcherKey,
    churn: churn::Churn,
    bank: tellers::Bank,
    chronicle: chronicle::Chronicle,
    splits: splits::Splits,
    lockers: lockers::Lockers,
    logs: logs::Logs,
    lookers: lookers::Lookers,
    acks: acks::Acks,
    places: moves::Moves,
    sleep: sleep::Sleep,
    raft: RaftCheck,
    seen: Seen,
    order: OrderCheck,
    leases: LeaseCheck,
    leaders_busy: BTreeMap<usize, bool>,
    calm: bool,
    /// Nodes through which each client must still write before the run may end well.
    to_prove: BTreeSet<usize>,
    next_message: u64,
    recorder: Option<Recorder>,
    report: Report,
}

type Step = Result<(), Violation>;

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, options: &Options) -> Report {
    play(seed, options, Plan::of(seed, options), None).0
}

/// Runs a plan, or those parts of it that a script names.
pub(crate) fn play(seed: u64, options: &Options, plan: Plan, script: Option<&Script<'_>>) -> (Report, Played) {
    let mut world = World::new(seed, *options, plan);
    world.script = script;
    // What asserts inside a node ends that node's process; here it ends the run.
    let run = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let outcome = run.unwrap_or_else(|why| {
        let said = why.downcast_ref::<String>().cloned();
        let detail = said.or_else(|| why.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Err(Violation { rule: "nothing panics", detail })
    });
    if let Err(violation) = outcome {
        let at = world.now;
        world.trace(|| TraceEvent::Violation { rule: violation.rule.into(), detail: violation.detail.clone() });
        world.report.violation = Some((at, violation));
    }
    world.report.simulated = Duration::from_micros(world.now);
    world.report.trace = world.recorder.take().map(|recorder| recorder.finish(world.now));
    (world.report, world.played)
}

impl World<'_> {
    fn new(seed: u64, options: Options, plan: Plan) -> Self {
        let root = Rng::new(seed);
        let mut clock_rng = root.split(2);
        let nodes = (0..plan.nodes).map(|_| SimNode::new(&plan, &mut clock_rng));
        let first = plan.old_release.unwrap_or(Level::LATEST);
        let nodes: Vec<SimNode> = nodes.map(|node| SimNode { level: first, ..node }).collect();
        let watchers = (0..plan.watchers).map(|n| Watcher {
            key: 0,
            node: 0,
            check: WatchCheck {
                range: if n % 2 == 0 { KeyRange::prefix("k/") } else { KeyRange::single("k/3") },
                next: 1,
            },
            catching_up: None,
        });
        Self {
            net: Net::new(plan.weather, root.split(3)),
            rng: root.split(4),
            disk_rng: root.split(5),
            watch_rng: root.split(6),
            look_rng: root.split(67),
            turn_rng: root.split(131),
            rot_rng: root.split(9),
            releases: releases::Releases::new(root.split(63)),
            wounds: Wounds::new(root.split(15)),
            clients: (0..plan.clients as u64)
                .map(|n| Client::new(n, root.split(100 + n), plan.lease_per_mille))
                .collect(),
            watchers: watchers.collect(),
            churn: churn::Churn::new(root.split(21), root.split(91)),
            bank: tellers::Bank::new(plan.bank, &root),
            chronicle: chronicle::Chronicle::default(),
            splits: splits::Splits::new(root.split(54)),
            lockers: lockers::Lockers::default(),
            logs: logs::Logs::new(root.split(101).split(1)),
            lookers: lookers::Lookers::new(root.split(68)),
            acks: acks::Acks::new(root.split(112)),
            places: moves::Moves::new(root.split(55)),
            sleep: sleep::Sleep::default(),
            raft: RaftCheck::new(plan.nodes),
            seen: Seen::default(),
            order: OrderCheck::new(),
            leases: LeaseCheck::default(),
            next_message: 1,
            held: Vec::new(),
            latest: BTreeMap::new(),
            recorder: options.trace.then(|| Recorder::new(seed, options.planted, &plan)),
            report: Report { seed, ..Report::default() },
            script: None,
            played: Played::default(),
            options,
            now: 0,
            sequence: 0,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            nodes,
            requests: BTreeMap::new(),
            moves: BTreeSet::new(),
            next_request: 1,
            next_operation: 1,
            next_key: 1,
            leaders_busy: BTreeMap::new(),
            calm: false,
            to_prove: BTreeSet::new(),
            plan,
        }
    }

    fn run(&mut self) -> Step {
        if self.plan.real_store {
            self.mark("real store");
        }
        for node in 0..self.nodes.len() {
            self.start(node)?;
        }
        for client in 0..self.clients.len() {
            self.after(10_000, Event::Client { client });
        }
        for watcher in 0..self.watchers.len() {
            self.after(300_000, Event::Watch { watcher });
            self.after(REWATCH_US.1, Event::Rewatch { watcher });
        }
        for fault in Fault::ALL {
            self.schedule_fault(fault);
        }
        self.begin_churn();
        self.open_bank();
        self.open_logs();
        self.begin_splits();
        self.begin_moves();
        if let Some(script) = self.script {
            for (at, fault, rng) in script.faults.iter().filter_map(|n| script.played.faults.get(n as usize - 1)) {
                self.after(*at, Event::Again { fault: *fault, rng: rng.clone() });
            }
        }
        self.after(self.plan.storm_us, Event::Calm);
        let mut end = self.plan.storm_us + self.plan.calm_us;
        let until = self.script.map_or(u64::MAX, |script| script.until_us);
        while let Some(Reverse(at)) = self.heap.pop() {
            if at.0 > until {
                return Ok(());
            }
            if at.0 > end
                && (self.is_splitting() || self.is_moving() || self.churn.is_under_way())
                && end < self.plan.storm_us + 4 * self.plan.calm_us
            {
                // A shard has just turned out to be too large, or to live elsewhere; or whoever was to go could not before its shards had moved. And whoever leads since then
                // has counted from then on how long keys are reserved.
                end = at.0 + self.plan.settled_us();
            }
            if at.0 > end {
                break;
            }
            self.now = at.0;
            demand(self.heap.len() < UNDER_WAY_MAX, "messages do not multiply", || {
                format!("{} events are under way", self.heap.len())
            })?;
            let event = self.events.remove(&at).expect("every heap entry has its event");
            self.happen(event)?;
        }
        self.finish()
    }

    // ---- time

    fn after(&mut self, us: u64, event: Event) {
        self.sequence += 1;
        let at = (self.now + us.max(1), self.sequence);
        self.heap.push(Reverse(at));
        self.events.insert(at, event);
    }

    fn mark(&mut self, what: &'static str) {
        *self.report.marks.entry(what).or_default() += 1;
    }

    fn trace(&mut self, event: impl FnOnce() -> TraceEvent) {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(self.now, event());
        }
    }

    fn driver_bug(&self) -> Option<DriverBug> {
        match self.options.planted?.bug {
            Bug::Driver(bug) => Some(bug),
            Bug::Node(_) | Bug::SecondNode(_) => None,
        }
    }

    fn sabotage(&self, node: usize) -> Option<Sabotage> {
        match self.options.planted?.bug {
            Bug::Node(sabotage) => Some(sabotage),
            Bug::SecondNode(sabotage) => (node == 1).then_some(sabotage),
            Bug::Driver(_) => None,
        }
    }

    // ---- events

    fn happen(&mut self, event: Event) -> Step {
        match event {
            Event::Tick { node, life } => {
                if self.nodes[node].life == life {
                    let wall = self.nodes[node].clock.wall(self.now);
                    let tick = self.nodes[node].clock.lasts(Timing::default().tick.as_micros() as u64);
                    self.after(tick, Event::Tick { node, life });
                    self.note_history(node)?;
                    self.feed(node, Input::Tick { wall })?;
                }
            }
            Event::Deliver { from, to, frame, first } => {
                let latest = self.latest.entry((from, to)).or_default();
                let overtaken = first < std::mem::replace(latest, first.max(*latest));
                if overtaken {
                    self.mark("message overtaken");
                }
                let messages = wire::decode_batch(frame)
                    .map_err(|e| Violation { rule: "frames can be read", detail: e.to_string() })?;
                for (message, id) in messages.into_iter().zip(first..) {
                    let (id, up) = (MessageId(id), self.nodes[to].node.is_some());
                    self.trace(|| match up {
                        true => TraceEvent::Deliver { message: id },
                        false => TraceEvent::Lose { message: id, why: Loss::Down },
                    });
                    let delicate = matches!(&message.body, PeerBody::Chunk { chunk, .. } if chunk.next.is_none());
                    if up
                        && !self.nodes[to].paused
                        && let PeerBody::Raft(raft) = &message.body
                    {
                        self.seen.hear(to, from, message.shard, raft);
                    }
                    self.feed(to, Input::Peer { from: id_of(from), message })?;
                    if delicate {
                        self.strike(to);
                    }
                }
            }
            Event::Synced { node, life } => self.synced(node, life)?,
            Event::Flushed { node, life } => {
                if self.nodes[node].life == life && self.disk_refuses(node, Event::Flushed { node, life }) {
                    return Ok(());
                }
                if self.nodes[node].life == life
                    && let Some((ticket, job)) = self.nodes[node].flushing.take()
                {
                    if self.driver_bug() == Some(DriverBug::FlushEarly) {
                        self.nodes[node].flushing_late = Some(job);
                        self.after(300_000, Event::FlushedLate { node, life });
                        return self.feed(node, Input::Flushed { ticket });
                    }
                    if self.driver_bug() == Some(DriverBug::AppliedTooOld) {
                        self.nodes[node].remember_meta();
                    }
                    job.run().map_err(|e| Violation { rule: "the store flushes", detail: e.to_string() })?;
                    self.mark("store flushed");
                    self.trace(|| TraceEvent::FlushEnd { node: node_lane(node), ticket });
                    self.feed(node, Input::Flushed { ticket })?;
                    job.compact().map_err(|e| Violation { rule: "the store flushes", detail: e.to_string() })?;
                }
            }
            Event::GoOn { node, life } => {
                if self.nodes[node].life == life {
                    self.feed(node, Input::GoOn)?;
                }
            }
            Event::FlushedLate { node, life } => {
                if self.nodes[node].life == life
                    && let Some(job) = self.nodes[node].flushing_late.take()
                {
                    job.run().map_err(|e| Violation { rule: "the store flushes", detail: e.to_string() })?;
                }
            }
            Event::PeerDown { node, peer } => {
                if !self.net.is_cut(peer, node) {
                    self.feed(node, Input::PeerDown(id_of(peer)))?;
                }
            }
            Event::Restart { node } => {
                if self.nodes[node].node.is_none() && !self.churn.is_retired(node) {
                    self.start(node)?;
                }
            }
            Event::Resume { node } => {
                self.nodes[node].paused = false;
                self.trace(|| TraceEvent::Resume { node: node_lane(node) });
                for input in std::mem::take(&mut self.nodes[node].parked) {
                    self.feed(node, input)?;
                }
            }
            Event::Client { client } => self.client_turn(client)?,
            Event::Patience { client, operation } => {
                let waits = self.clients[client].in_flight.as_ref().is_some_and(|(_, f)| f.operation == operation);
                if waits {
                    self.give_up(client);
                }
            }
            Event::Watch { watcher } => self.watch_turn(watcher)?,
            Event::Rewatch { watcher } => self.rewatch(watcher)?,
            Event::Progress { key } => {
                if let Some(watcher) = self.watchers.iter().find(|watcher| watcher.key == key) {
                    let node = watcher.node;
                    self.feed(node, Input::Watch { key, shard: SHARD, request: WatchRequest::Progress })?;
                }
            }
            Event::Calm => self.become_calm()?,
            Event::Churn => self.churn()?,
            Event::Split => self.split()?,
            Event::Move => self.move_shard()?,
            Event::Operator => self.operator()?,
            Event::Found => self.found_bank()?,
            Event::Looker { looker } => self.looker_turn(looker)?,
            Event::LookerPatience { looker, request } => self.looker_patience(looker, request),
            Event::Observed { node, life, observation } => {
                if self.nodes[node].life == life {
                    self.feed(node, Input::Observed(observation.run()))?;
                }
            }
            Event::Teller { teller } => self.teller_turn(teller)?,
            Event::TellerPatience { teller, operation, asked } => self.teller_patience(teller, operation, asked)?,
            Event::Locker { teller, operation, asked } => self.locker_turn(teller, operation, asked)?,
            Event::FoundLogs => self.found_logs()?,
            Event::Producer { producer } => self.producer_turn(producer)?,
            Event::ProducerPatience { producer, operation, asked } => {
                self.producer_patience(producer, operation, asked)?;
            }
            Event::Follower { follower } => self.follower_turn(follower)?,
            Event::FollowerPatience { follower, request } => self.follower_patience(follower, request),
            Event::CutLog => self.cut_log()?,
            Event::Ask { node, id, request } => {
                self.feed(node, Input::Request { id, timeout: REQUEST_TIMEOUT, request })?;
            }
            Event::Again { fault, rng } => {
                self.rng = rng;
                self.fault(fault)?;
            }
            Event::Fault(fault) => self.fault(fault)?,
            Event::Upgrade { node } => self.upgrade(node),
            Event::Leaving { node, life, latest, led } => self.go_on_leaving(node, life, latest, led)?,
            Event::Heal => self.heal(),
            Event::Still { node, life } => {
                if self.nodes[node].life == life && self.wounds.forgetful.is_none() {
                    self.still(node);
                }
            }
            Event::Ease { node } => self.ease(node)?,
            Event::Space { node } => {
                let exhausted = self.nodes[node].trouble.full;
                self.feed(node, Input::Space { exhausted })?;
            }
        }
        Ok(())
    }

    // ---- nodes

    fn config(&self, node: usize) -> NodeConfig {
        let members = (0..self.plan.nodes).map(|n| BootMember {
            id: id_of(n),
            name: format!("n{}", n + 1),
            peer_address: String::new(),
        });
        NodeConfig {
            cluster: CLUSTER,
            node: id_of(node),
            members: members.collect(),
            level: self.nodes[node].level,
            zone: self
                .plan
                .bank
                .and_then(|bank| bank.zones)
                .map_or_else(String::new, |zones| format!("z{}", node as u64 % zones)),
            evict_after: quorate_cluster::bounds::EVICT_AFTER,
            balance_pause: Duration::from_millis(self.plan.balance_pause_ms),
            clock_bound: self.plan.clock_bound_ms().map(Duration::from_millis),
            timing: Timing {
                prefer_ticks: self.plan.prefer_ticks,
                sleep_ticks: self.plan.sleep_ticks,
                ..Timing::default()
            },
            flush_bytes: self.plan.flush_bytes,
            unflushed_bytes_max: self.plan.unflushed_bytes_max,
            log_keep_bytes: self.plan.log_keep_bytes,
            log_hold_bytes: self.plan.log_hold_bytes,
            batch_bytes: BATCH_BYTES,
            apply_bytes: self.plan.apply_bytes,
            chunk_bytes: self.plan.chunk_bytes,
            split_bytes: self.plan.split_bytes,
            split_load: self.plan.split_load,
            merges: self.plan.merges,
            early_entries: self
                .plan
                .bank
                .and_then(|bank| bank.early_entries)
                .unwrap_or(quorate_cluster::bounds::EARLY_ENTRIES_MAX),
            known: (0..self.nodes.len()).map(id_of).collect(),
            sabotage: self.sabotage(node),
        }
    }

    fn start(&mut self, node: usize) -> Step {
        self.choose_release(node);
        let config = self.config(node);
        let identity = WalIdentity { cluster: CLUSTER, node: id_of(node), incarnation: Incarnation(node as u64) };
        let failed = |what: &dyn std::fmt::Display| Violation {
            rule: "a node starts again",
            detail: format!("{}: {what}", id_of(node)),
        };
        let life = self.nodes[node].life + 1;
        self.trace(|| TraceEvent::Start { node: node_lane(node), life });
        let this = &mut self.nodes[node];
        this.life = life;
        let taken = self.take_twin(node, &identity);
        let promises_lost = taken == Taken::PromisesLost
            || (taken == Taken::No && !self.wounds.lacks(node) && self.rot_promises(node, &identity));
        let mut remains = None;
        if taken == Taken::No && !promises_lost {
            self.rot(node, &identity);
            remains = self.damage(node);
        }
        let this = &mut self.nodes[node];
        let files = this.disk.files();
        let (wal, recovered, ops) = if files.is_empty() {
            let (wal, ops) = Wal::create(identity, LIMITS);
            (wal, Default::default(), ops)
        } else {
            match Wal::recover(identity, LIMITS, files) {
                Ok(found) => found,
                Err(why) if promises_lost && self.cut_refused(node, &why) => return self.start(node),
                Err(_) if promises_lost => {
                    self.come_back_as_another(node);
                    return Ok(());
                }
                Err(e) => return Err(failed(&e)),
            }
        };
        ops.iter().for_each(|op| this.disk.run(op));
        this.wal = Some(wal);
        let store: Arc<dyn Store> = match &mut this.store {
            StoreKind::Model(store) => store.clone(),
            StoreKind::Real { dir, store } => {
                let opened = LsmStore::open(dir.path(), LsmOptions { cache_bytes: 1 << 20, ..LsmOptions::default() });
                let opened = Arc::new(opened.map_err(|e| failed(&e))?);
                *store = Some(opened.clone());
                opened
            }
        };
        let this = &mut self.nodes[node];
        let seed = self.rng.next_u64();
        let now = this.clock.monotonic(self.now);
        let booted = match Node::boot(config, store, remains.as_ref(), &recovered, now, seed) {
            Ok(booted) => booted,
            Err(BootError::Log(_)) if promises_lost => {
                self.come_back_as_another(node);
                return Ok(());
            }
            Err(e) => return Err(failed(&e)),
        };
        for (shard, log) in &recovered.shards {
            self.raft.recovered(node, *shard, log)?;
        }
        let this = &mut self.nodes[node];
        let looks = looks(&booted);
        this.node = Some(booted);
        this.opened.clear();
        this.logs = recovered.shards.keys().copied().collect();
        for (shard, look) in looks {
            self.came_up(node, shard, &look)?;
        }
        self.after(1, Event::Tick { node, life });
        Ok(())
    }

    /// A replica is there for the first time in its node's life.
    fn came_up(&mut self, node: usize, shard: ShardId, look: &Inspection) -> Step {
        self.nodes[node].opened.insert(shard);
        if self.splits.mapped.contains(&shard) && look.applied.0 == 0 {
            self.mark("split-off shard began empty");
        }
        if self.places.has_left(node, shard) {
            self.mark("replica came back");
        }
        self.raft.booted(node, shard, look)?;
        if self.nodes[node].life > 1 && self.raft.was_joint_at(shard, look.applied) {
            self.mark("crash in a joint configuration");
        }
        let lacks = self.wounds.lacks(node) || self.places.has_left(node, shard);
        demand(look.rotted == 0 || lacks, "nothing is lost without a fault", || {
            format!("{} of {shard} lacks entries or rows that its disk should hold", id_of(node))
        })
    }

    /// What a node has read in the system keyspace.
    fn look_at_system(&mut self, outputs: &Outputs) -> Step {
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

    fn feed(&mut self, node: usize, input: Input) -> Step {
        let this = &mut self.nodes[node];
        if this.paused {
            // Who stands still reads no clock, and a process reads it when it ticks.
            let stale = matches!(input, Input::Tick { .. }) && self.plan.clock_bound_ms().is_some();
            if this.parked.len() < 10_000 && !stale {
                this.parked.push(input);
            }
            return Ok(());
        }
        let now = this.clock.monotonic(self.now);
        let Some(core) = &mut this.node else { return Ok(()) };
        let ticked = matches!(input, Input::Tick { .. });
        let heard = if let Input::Peer { from, .. } = &input { Some(*from) } else { None };
        core.step(now, input);
        let outputs = core.drain(now);
        let (lost, forgotten) = (outputs.lost == Some(Lost::Acknowledged), self.wounds.has_forgotten(node));
        if lost && forgotten {
            self.found_out(node);
            return Ok(());
        }
        demand(!lost, "nothing is lost without a fault", || format!("{:?}", outputs.fatal))?;
        let looks = looks(core);
        self.look_at_system(&outputs)?;
        if let Some(why) = outputs.fatal {
            return Err(Violation { rule: "replicas agree with themselves and each other", detail: why });
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
        for (shard, look) in &looks {
            if !self.nodes[node].opened.contains(shard) {
                self.came_up(node, *shard, look)?;
            }
        }
        self.look_for_mended(node);
        self.look_at_sleepers(node, &looks, (ticked, heard))?;
        let system = looks[0].1;
        for (shard, look) in looks {
            if let Some(recorder) = &mut self.recorder {
                recorder.look(self.now, node, shard, &look);
            }
            let committed = self.raft.observe(node, shard, &look)?;
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
        self.carry_out(node, outputs)
    }

    fn carry_out(&mut self, node: usize, outputs: Outputs) -> Step {
        let doomed = self.nodes[node].doomed.filter(|_| self.wounds.forgetful.is_none());
        let mut left = doomed.unwrap_or(u64::MAX);
        let mut spend = || {
            let some = left > 0;
            left = left.saturating_sub(1);
            some
        };
        let anything = outputs.persist.is_some()
            || !outputs.messages.is_empty()
            || !outputs.replies.is_empty()
            || !outputs.watch.is_empty();
        if let Some(persist) = outputs.persist
            && spend()
        {
            self.persist(node, persist);
        }
        let mut by_peer: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
        for (to, message) in outputs.messages {
            by_peer.entry(to).or_default().push(message);
        }
        for (to, messages) in by_peer {
            if spend() {
                self.send(node, to, &messages)?;
            }
        }
        for (request, answer) in outputs.replies {
            if spend() {
                self.answer(request, answer)?;
            }
        }
        for (key, output) in outputs.watch {
            if spend() {
                self.watch_output(key, output)?;
            }
        }
        for observation in outputs.observations {
            let (life, wait) = (self.nodes[node].life, self.look_rng.between(1, LOOK_US_MAX));
            self.after(wait, Event::Observed { node, life, observation: Box::new(observation) });
        }
        if outputs.unfinished {
            self.mark("applied bit by bit");
            let (life, wait) = (self.nodes[node].life, self.turn_rng.between(1, TURN_US_MAX));
            self.after(wait, Event::GoOn { node, life });
        }
        if let Some(task) = outputs.flush {
            let (low, high) = self.plan.flush_us;
            let wait = self.disk_rng.between(low, high);
            let wait = self.nodes[node].trouble.takes(wait);
            let life = self.nodes[node].life;
            let ticket = task.ticket;
            self.nodes[node].flushing = Some((ticket, task.job));
            self.trace(|| TraceEvent::FlushBegin { node: node_lane(node), ticket });
            self.after(wait, Event::Flushed { node, life });
        }
        if doomed.is_some() && anything {
            self.mark("crash between outputs");
            self.crash(node, "crash");
        }
        Ok(())
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.report.output_hash = chain(self.report.output_hash ^ self.now, bytes);
    }

    // ---- the end

    /// Every shard that some node has a replica of.
    fn all_shards(&self) -> BTreeSet<ShardId> {
        self.nodes.iter().filter_map(|node| node.node.as_ref()).flat_map(Node::shards).collect()
    }

    fn finish(&mut self) -> Step {
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
fn looks(node: &Node) -> Vec<(ShardId, Inspection)> {
    let look = |shard| Some((shard, node.inspect(shard)?));
    node.shards().into_iter().filter_map(look).collect()
}

/// The id of the node that the driver counts as `node`.
pub(crate) fn id_of(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

/// A folder in memory, where there is one.
fn memory_folder() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    let made = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a folder can be made")
}
