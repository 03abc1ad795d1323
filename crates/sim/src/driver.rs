//! The world of one run: a heap of events, the nodes, and what connects them. Nothing here depends on anything but the seed.

mod acks;
mod chronicle;
mod churn;
mod clients;
mod disks;
mod event;
mod faults;
mod handing;
mod judging;
mod lockers;
mod logs;
mod lookers;
mod machines;
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
use crate::fault::Fault;
use crate::history::{Violation, demand};
use crate::net::Net;
use crate::plan::Plan;
use crate::planted::{Bug, DriverBug};
use crate::report::Report;
use crate::trace::TraceEvent;
use crate::trace::recorder::{Recorder, node_lane};
use event::Event;
use judging::looks;
use machines::{SimNode, StoreKind, Syncing, memory_folder};
use quorate_cluster::{Input, Lost, Outputs, RequestId, Sabotage, Timing, WatchRequest};
use quorate_env::checksum::chain;
use quorate_env::{ClusterId, NodeId, Rng, ShardId};
use quorate_kv::{KeyRange, Level};
use quorate_shard::{View, WatcherKey};
use quorate_storage::wal::WalLimits;
use script::{Played, Script};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;
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
            Event::Deliver { from, to, frame, first } => self.deliver((from, to), frame, first)?,
            Event::Synced { node, life } => self.synced(node, life)?,
            Event::Flushed { node, life } => self.flushed(node, life)?,
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
        self.judge_step(node, (&looks, &outputs), (ticked, heard))?;
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
}

/// The id of the node that the driver counts as `node`.
pub(crate) fn id_of(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}
