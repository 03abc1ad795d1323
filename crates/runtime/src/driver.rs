//! One lane: a thread that owns a [`Node`] and carries its outputs out into the world and the world's inputs in.
//!
//! The lane never waits for a disk or a socket. It takes everything that has arrived, lets the node work once, and hands out what came
//! of it; under load batches grow by themselves.

use crate::clock::Clock;
use crate::damage::OnDamage;
use crate::db::{Map, OwnDisk, RuntimeDb, SharedMap};
use crate::disk::{
    DataDir, DiskError, DiskOptions, LogWriter, Owner, Rot, ScrubPace, Scrubbed, Scrubber, Space, SpaceGauge,
    StoreThread, rebuild,
};
use crate::joining::Gate;
use crate::members::{self, MemberTable};
use crate::net::{self, Peers};
use crate::recording::{self, Eyes, Recorded, Recorder, TraceOptions};
use crate::watch::Sink;
use quorate_cluster::{
    BootError, BootMember, Input, Lost, Mended, Merges, Node, NodeConfig, Outputs, Reply, Request, RequestId,
    SplitLoad, Timing, WatchRequest, bounds,
};
use quorate_env::{ClusterId, Incarnation, NodeId, Rng, ShardId};
use quorate_kv::{Db, Error, Identity, Level, ShardCounts, Unavailable, limits};
use quorate_shard::WatcherKey;
use quorate_storage::wal::WalIdentity;
use quorate_trace::TraceEvent;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use thiserror::Error as ThisError;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Inputs taken in one go before the outputs are carried out.
const INPUTS_PER_TURN: usize = 4096;

/// What a node needs to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// All members of the first configuration, this node among them or not.
    pub members: Vec<BootMember>,
    /// The members that it knows, to begin with.
    pub known: Vec<BootMember>,
    /// Of a directory that is still to be made.
    pub incarnation: Option<Incarnation>,
    /// Where peers reach it, if that goes over what the cluster knows of it.
    pub announce_peer: Option<String>,
    /// The cluster's token, hashed.
    pub token: u64,
    /// The URLs at which clients reach this node, for the member list.
    pub client_urls: Vec<String>,
    /// Patience.
    pub timing: Timing,
    /// What this node offers the cluster; see [`NodeConfig::level`].
    pub level: Level,
    /// What fails together with this node; see [`NodeConfig::zone`].
    pub zone: String,
    /// How long a silent node is waited for; see [`NodeConfig::evict_after`].
    pub evict_after: Duration,
    /// How far clocks may be from true time; see [`NodeConfig::clock_bound`].
    pub clock_bound: Option<Duration>,
    /// What a shard may hold before it is split; see [`NodeConfig::split_bytes`].
    pub split_bytes: u64,
    /// Operations a second beyond which a shard is split; see [`NodeConfig::split_load`].
    pub split_ops: u64,
    /// Bytes up to which a shard may be merged; see [`NodeConfig::merges`].
    pub merge_bytes: u64,
    /// Time after which a client's request is given up.
    pub request_timeout: Duration,
    /// Sizes of log and store.
    pub disk: DiskOptions,
    /// What it does is recorded, if anybody wants to see it.
    pub trace: Option<TraceOptions>,
}

/// Why a node cannot start.
#[derive(Debug, ThisError)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What it holds.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// What it does cannot be recorded.
    #[error("cannot record a trace in {}: {source}; choose another --trace, or none", .file.display())]
    Trace {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The operating system.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// What a lane has been doing, readable from anywhere.
#[derive(Debug, Default)]
pub struct LaneStats {
    /// Commands answered as applied or refused.
    pub answered: AtomicU64,
    /// Requests answered as unavailable or unknown.
    pub failed: AtomicU64,
    /// Persists handed to the log.
    pub persists: AtomicU64,
    /// Messages sent to peers.
    pub messages: AtomicU64,
    /// Flushes of the store started.
    pub flushes: AtomicU64,
    /// Entries of the log that had rotted, and were mended.
    pub mended: AtomicU64,
    /// Bytes of rows that were fetched from other nodes because they were lost here.
    pub mended_bytes: AtomicU64,
    /// The cluster's feature level.
    pub level: AtomicU64,
    /// Replicas here.
    pub shards: AtomicU64,
    /// Those of them that lead.
    pub led: AtomicU64,
    /// Those of them that sleep.
    pub asleep: AtomicU64,
}

/// What reaches the lane.
pub(crate) enum LaneInput {
    Core(Input, Option<OwnedSemaphorePermit>),
    Request(Request, Duration, oneshot::Sender<Result<Reply, Error>>),
    Watch { key: WatcherKey, shard: ShardId, request: WatchRequest, sink: Option<Arc<Sink>> },
    Stop,
}

/// A running node.
pub struct Runtime {
    db: Arc<RuntimeDb>,
    lane: Sender<LaneInput>,
    thread: Option<JoinHandle<DataDir>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    stats: Arc<LaneStats>,
    recorder: Option<Recorder>,
}

impl Runtime {
    /// Opens the data directory and starts the node's threads and peer connections. `peer_listener` accepts peers.
    pub async fn start(options: Options, peer_listener: Option<Arc<TcpListener>>) -> Result<Self, StartError> {
        let (cluster, node, name) = (options.cluster, options.node, options.name.clone());
        let only_copy = options.known.len() <= 1;
        let owner = Owner { cluster, node, name, only_copy, incarnation: options.incarnation };
        let (path, disk) = (options.data_dir.clone(), options.disk);
        let opened = tokio::task::spawn_blocking(move || DataDir::open_or_create(&path, &owner, &disk))
            .await
            .map_err(std::io::Error::other)??;
        let incarnation = opened.dir.identity().incarnation;
        let clock = Clock::start();
        let seed = clock.wall().0.wrapping_mul(0x9E37_79B9) ^ incarnation.0 ^ u64::from(std::process::id()) << 32;
        let config = NodeConfig {
            cluster: options.cluster,
            node: options.node,
            members: options.members.clone(),
            level: options.level,
            timing: options.timing,
            zone: options.zone.clone(),
            evict_after: options.evict_after,
            balance_pause: bounds::BALANCE_PAUSE,
            clock_bound: options.clock_bound,
            flush_bytes: bounds::FLUSH_BYTES,
            split_bytes: options.split_bytes,
            split_load: SplitLoad::beyond(options.split_ops),
            merges: Merges::below(options.merge_bytes),
            early_entries: bounds::EARLY_ENTRIES_MAX,
            unflushed_bytes_max: bounds::UNFLUSHED_BYTES_MAX,
            log_keep_bytes: bounds::LOG_KEEP_BYTES,
            log_hold_bytes: bounds::LOG_HOLD_BYTES,
            batch_bytes: limits::BATCH_BYTES_MAX,
            apply_bytes: bounds::APPLY_BYTES,
            chunk_bytes: bounds::CHUNK_BYTES,
            known: options.known.iter().map(|member| member.id).collect(),
            sabotage: None,
        };
        let node = Node::boot(
            config,
            opened.store.clone(),
            opened.remains.as_ref(),
            &opened.recovered,
            clock.now(),
            Rng::new(seed).next_u64(),
        )?;
        let known = opened.recovered.damage;
        let remains = opened.remains.is_some() && !node.is_whole();
        if opened.remains.is_some() && !remains {
            // The log had all that was lost, or an earlier life fetched it and ended before it had tidied up.
            rebuild::finish(opened.dir.path());
        }

        let members = MemberTable::new(&options.known);
        let damage = OnDamage::new(&options.data_dir, members.clone());
        let (merge_damage, scrub_damage) = (damage.clone(), damage.clone());
        let identity = opened.dir.identity();
        let scrubbed = Scrubbed {
            store: opened.store.clone(),
            files: opened.files.clone(),
            identity: WalIdentity { cluster: identity.cluster, node: identity.node, incarnation },
            limits: options.disk.wal,
            known,
            dir_identity: opened.dir.kept_identity(),
        };
        let scrubber = match options.disk.scrub {
            ScrubPace { bytes_per_s: 0, .. } => None,
            pace => Some(Scrubber::spawn(scrubbed, pace, move |rot| match rot {
                Rot::Store(why) => scrub_damage.store(&why),
                Rot::Log(why) => scrub_damage.log(&why),
            })?),
        };

        let (lane, inputs) = channel();
        let recorder = record(&options)?;
        let [syncing, synced, flushing, stored] = [(); 4].map(|()| recorder.clone());
        let (durable, flushed, space) = (lane.clone(), lane.clone(), lane.clone());
        // A send fails only when the lane has stopped; then nobody waits for the answer.
        let space = Arc::new(SpaceGauge::new(move |found| drop(space.send(space_input(found)))));
        let (log_space, store_space) = (space.clone(), space);
        let log = LogWriter::spawn(
            opened.wal,
            opened.files,
            move |ticket, records| {
                let records = records as u64;
                recording::tell(&syncing, |node| TraceEvent::SyncBegin { node, ticket, records });
            },
            move |ticket| {
                recording::tell(&synced, |node| TraceEvent::SyncEnd { node, ticket });
                drop(durable.send(LaneInput::Core(Input::Persisted { ticket }, None)));
            },
            move |found| log_space.report(found),
        )?;
        let store = StoreThread::spawn(
            move |ticket| recording::tell(&flushing, |node| TraceEvent::FlushBegin { node, ticket }),
            move |ticket| {
                recording::tell(&stored, |node| TraceEvent::FlushEnd { node, ticket });
                drop(flushed.send(LaneInput::Core(Input::Flushed { ticket }, None)));
            },
            move |found| store_space.report(found),
            move |why| merge_damage.store(why),
        )?;

        let stats = Arc::new(LaneStats::default());
        let identity = Identity { cluster: options.cluster, node: options.node };
        let mut tasks = Vec::new();
        let hello = net::Hello { cluster: options.cluster, node: options.node, incarnation };
        let (dir, name) = (options.data_dir.clone(), options.name.clone());
        let peers = Peers::connect(hello, members.clone(), lane.clone(), dir, name, recorder.clone());
        let first = options.members.clone();
        let map = SharedMap::default();
        let db = RuntimeDb::new(
            identity,
            lane.clone(),
            members.clone(),
            map.clone(),
            first.clone(),
            options.request_timeout,
            OwnDisk { damage: damage.clone(), store: opened.store.clone(), stats: stats.clone() },
        );
        let db = Arc::new(db.recorded_by(recorder.clone()).bounded(options.clock_bound.is_some()));
        if let Some(listener) = peer_listener {
            let gate = Gate { hello, table: members.clone(), db: db.clone(), token: options.token, first };
            tasks.push(tokio::spawn(net::accept(listener, Arc::new(gate), lane.clone(), recorder.clone())));
        }
        let worker = Lane {
            node,
            clock,
            inputs,
            log,
            store,
            peers,
            members: members.clone(),
            waiting: HashMap::new(),
            next_request: 1,
            sinks: HashMap::new(),
            tick: options.timing.tick,
            readers: tokio::runtime::Handle::current(),
            lane: lane.clone(),
            stats: stats.clone(),
            damage: damage.clone(),
            map,
            remains,
            eyes: recorder.clone().map(Eyes::of),
            _scrubber: scrubber,
            dir: opened.dir,
        };
        let lane_thread = std::thread::Builder::new().name("lane-0".into());
        // What asserts inside the node has found it in a state that must not serve.
        let thread = lane_thread.spawn(move || {
            panic::catch_unwind(AssertUnwindSafe(|| worker.run()))
                .unwrap_or_else(|_| stop_process("an assertion failed inside the node; the log above says which"))
        })?;
        let (dir, token, first) = (options.data_dir.clone(), options.token, options.members.clone());
        tasks.push(tokio::spawn(members::remember(dir, token, first, members)));
        tasks.push(tokio::spawn(members::register(db.clone(), options, incarnation)));
        Ok(Self { db, lane, thread: Some(thread), tasks, stats, recorder })
    }

    /// The handle for layers.
    #[must_use]
    pub fn db(&self) -> Arc<dyn Db> {
        self.db.clone()
    }

    /// What the lane has been doing.
    #[must_use]
    pub fn stats(&self) -> Arc<LaneStats> {
        self.stats.clone()
    }

    /// Stops cleanly: what was accepted reaches the log, and the data directory is free when this returns.
    pub async fn stop(mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // The lane may have stopped by itself; joining it is what matters.
        let _ = self.lane.send(LaneInput::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || drop(thread.join())).await;
        }
        if let Some(recorder) = self.recorder {
            let _ = tokio::task::spawn_blocking(move || recorder.stop("told to stop")).await;
        }
    }
}

/// Begins the record of a process, if there is to be one.
fn record(options: &Options) -> Result<Option<Recorder>, StartError> {
    let Some(trace) = &options.trace else { return Ok(None) };
    let of = Recorded {
        cluster: options.cluster.0,
        node: options.node,
        name: options.name.clone(),
        members: options.known.iter().map(|member| (member.id.0, member.name.clone())).collect(),
    };
    let failed = |source| StartError::Trace { file: trace.file.clone(), source };
    Recorder::open(trace, of).map(Some).map_err(failed)
}

fn space_input(space: Space) -> LaneInput {
    LaneInput::Core(Input::Space { exhausted: space == Space::Full }, None)
}

/// The state of a lane's thread.
struct Lane {
    node: Node,
    clock: Clock,
    inputs: Receiver<LaneInput>,
    log: LogWriter,
    store: StoreThread,
    peers: Peers,
    members: Arc<MemberTable>,
    waiting: HashMap<RequestId, oneshot::Sender<Result<Reply, Error>>>,
    next_request: RequestId,
    sinks: HashMap<WatcherKey, (ShardId, Arc<Sink>)>,
    tick: Duration,
    /// Where reads run that touch nothing else.
    readers: tokio::runtime::Handle,
    /// What they tell.
    lane: Sender<LaneInput>,
    stats: Arc<LaneStats>,
    damage: OnDamage,
    map: SharedMap,
    /// Whether a damaged store lies aside.
    remains: bool,
    eyes: Option<Eyes>,
    _scrubber: Option<Scrubber>,
    dir: DataDir,
}

impl Lane {
    fn run(mut self) -> DataDir {
        let mut next_tick = self.clock.now();
        // Set when the node is told to stop: when it does so at the latest.
        let mut leaves: Option<quorate_env::Instant> = None;
        let mut unfinished = false;
        loop {
            let now = self.clock.now();
            if now >= next_tick {
                self.abandon(now);
                self.node.step(now, Input::Tick { wall: self.clock.wall() });
                let ShardCounts { here, led, asleep } = self.node.counts();
                let LaneStats { shards: all, led: leaders, asleep: sleepers, .. } = &*self.stats;
                [(all, here), (leaders, led), (sleepers, asleep)]
                    .into_iter()
                    .for_each(|(stat, count)| stat.store(count, Ordering::Relaxed));
                // Woken late, it ticks sooner the next time, so that waits of many ticks last what they should; but what a process that stood still has
                // missed is not made up for: nobody must be taken for silent who was not listened to.
                next_tick = (next_tick + self.tick).max(now + self.tick / 2);
            }
            let patience = if unfinished { Duration::ZERO } else { next_tick.since(now) };
            let first = match self.inputs.recv_timeout(patience) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let now = self.clock.now();
            let mut told = false;
            if let Some(input) = first {
                told |= self.take(now, input);
            }
            for _ in 1..INPUTS_PER_TURN {
                let Ok(input) = self.inputs.try_recv() else { break };
                told |= self.take(now, input);
            }
            if told && leaves.is_none() {
                leaves = Some(now + bounds::LEAVE_PATIENCE);
                self.node.step(now, Input::Leave);
            }
            let outputs = self.node.drain(self.clock.now());
            unfinished = outputs.unfinished;
            self.look();
            self.carry_out(outputs);
            if leaves.is_some_and(|latest| now >= latest || self.node.may_stop(now)) {
                self.node.step(self.clock.now(), Input::Stop);
                let outputs = self.node.drain(self.clock.now());
                self.look();
                self.carry_out(outputs);
                break;
            }
        }
        for (_, reply) in self.waiting.drain() {
            let _ = reply.send(Err(Unavailable::Stopping.into()));
        }
        // Dropping the log writer flushes what it accepted; the directory is unlocked after that.
        drop(self.log);
        drop(self.store);
        self.dir
    }

    /// What nobody waits for any more, because its client is gone, need not be gone on with.
    fn abandon(&mut self, now: quorate_env::Instant) {
        let gone = self.waiting.extract_if(|_, reply| reply.is_closed());
        for (id, _) in gone.collect::<Vec<_>>() {
            self.node.step(now, Input::Abandon { id });
        }
    }

    /// What a step has changed is recorded before anybody is told.
    fn look(&mut self) {
        if let Some(eyes) = &mut self.eyes {
            eyes.look(&self.node);
        }
    }

    /// Returns whether the node is told to stop.
    fn take(&mut self, now: quorate_env::Instant, input: LaneInput) -> bool {
        match input {
            LaneInput::Core(input, _permit) => self.node.step(now, input),
            LaneInput::Request(request, timeout, reply) => {
                let id = self.next_request;
                self.next_request += 1;
                self.waiting.insert(id, reply);
                self.node.step(now, Input::Request { id, timeout, request });
            }
            LaneInput::Watch { key, shard, request, sink } => {
                if let Some(sink) = sink {
                    self.sinks.insert(key, (shard, sink));
                }
                if matches!(request, WatchRequest::Detach) {
                    self.sinks.remove(&key);
                }
                self.node.step(now, Input::Watch { key, shard, request });
            }
            LaneInput::Stop => return true,
        }
        false
    }

    fn tell_mended(&mut self, mended: &Mended) {
        let Mended { shard, came_back, fetched, covered, by_rows, cut, fetched_bytes, kept_bytes } = *mended;
        self.stats.mended.fetch_add(fetched + covered + by_rows + cut, Ordering::Relaxed);
        self.stats.mended_bytes.fetch_add(fetched_bytes, Ordering::Relaxed);
        if fetched + covered + by_rows + cut > 0 {
            tracing::warn!(%shard, fetched, covered, by_rows, cut, "entries of the log had rotted, and are mended");
        }
        if came_back && fetched_bytes > 0 {
            tracing::info!(%shard, fetched_bytes, "a shard has come back to this node");
        } else if fetched_bytes + kept_bytes > 0 {
            tracing::warn!(%shard, fetched_bytes, kept_bytes, "rows were lost, and are here again");
        }
        if self.remains && self.node.is_whole() {
            self.remains = false;
            rebuild::finish(self.dir.path());
        }
    }

    fn carry_out(&mut self, outputs: Outputs) {
        if let Some(why) = outputs.fatal {
            match outputs.lost {
                Some(Lost::Rows) => self.damage.store(&why),
                Some(Lost::Acknowledged) => self.damage.promises(&why),
                None => stop_process(&why),
            }
        }
        for (shard, heir) in outputs.too_slow {
            tracing::warn!(%shard, %heir, "this node's disk is far slower than others': another is to lead");
        }
        for mended in outputs.mended {
            self.tell_mended(&mended);
        }
        if let Some(persist) = outputs.persist {
            self.stats.persists.fetch_add(1, Ordering::Relaxed);
            if self.log.append(persist.records, persist.ticket).is_err() {
                stop_process("the log writer has stopped");
            }
        }
        // Whoever is in a row is known before anything is said to it.
        if let (Some(keyspaces), Some(placements), Some(losses)) =
            (outputs.keyspaces, outputs.placements, outputs.losses)
        {
            *self.map.write().unwrap_or_else(PoisonError::into_inner) = Map { keyspaces, placements, losses };
        }
        if let Some(levels) = outputs.levels {
            self.stats.level.store(levels.cluster().0.into(), Ordering::Relaxed);
        }
        if let Some(roster) = outputs.roster {
            self.members.learn(roster);
            self.peers.adjust();
        }
        if !outputs.messages.is_empty() {
            self.stats.messages.fetch_add(outputs.messages.len() as u64, Ordering::Relaxed);
            self.peers.send(outputs.messages);
        }
        for (id, answer) in outputs.replies {
            let counter = match &answer {
                Ok(_) | Err(Error::Refused(_)) => &self.stats.answered,
                Err(_) => &self.stats.failed,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = self.waiting.remove(&id) {
                // The client may have gone away; its answer goes with it.
                let _ = reply.send(answer);
            }
        }
        let now = self.clock.now();
        for (key, output) in outputs.watch {
            if let Some((shard, sink)) = self.sinks.get(&key)
                && !sink.deliver(key, output)
            {
                // The watcher is too slow: it reads the rest from history, at its own pace.
                let shard = *shard;
                self.sinks.remove(&key);
                self.node.step(now, Input::Watch { key, shard, request: WatchRequest::Detach });
            }
        }
        for observation in outputs.observations {
            let lane = self.lane.clone();
            // A send fails only when the lane has stopped; then nobody waits for the answer.
            self.readers
                .spawn_blocking(move || drop(lane.send(LaneInput::Core(Input::Observed(observation.run()), None))));
        }
        if let Some(task) = outputs.flush {
            self.stats.flushes.fetch_add(1, Ordering::Relaxed);
            if self.store.flush(task.job, task.ticket).is_err() {
                stop_process("the store thread has stopped");
            }
        }
    }
}

/// The node's state can no longer be trusted, or its disk cannot: going on would risk what clients were promised.
pub(crate) fn stop_process(why: &str) -> ! {
    tracing::error!("{why}");
    eprintln!("quorate: fatal: {why}");
    std::process::exit(70);
}

/// A peer told this node that it must not take part.
pub(crate) fn refused_by_peer(peer: NodeId, address: &str, why: &str, incarnation: Incarnation) -> ! {
    stop_process(&format!("{peer} at {address} refuses this node ({incarnation}): {why}"))
}

/// The cluster has let this node go: it remembers that, and ends.
pub(crate) fn removed_from_cluster(dir: &std::path::Path, name: &str, node: NodeId) -> ! {
    let why = format!("{name} ({node}) was removed from its cluster, and this data directory is of no more use to it");
    members::let_go(dir, &why);
    stop_process(&format!(
        "{why}: to bring the machine back as a new member, start it with --join and an empty --data-dir"
    ))
}

/// The address that a listener got.
#[must_use]
pub(crate) fn describe(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "an unknown address".into(), |address| address.to_string())
}
