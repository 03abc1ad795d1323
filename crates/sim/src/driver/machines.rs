//! The simulated machines: what each has, and how its node starts from what its disk holds.

use super::disks::DiskTrouble;
use super::twins::{Taken, Twin};
use super::{BATCH_BYTES, CLUSTER, Event, LIMITS, Step, World, id_of, looks};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::history::{Violation, demand};
use crate::lies::{MetaRows, meta_rows};
use crate::plan::Plan;
use crate::trace::TraceEvent;
use crate::trace::recorder::node_lane;
use quorate_cluster::{BootError, BootMember, Input, Inspection, Node, NodeConfig, Persist, Timing};
use quorate_env::{Incarnation, Rng, ShardId};
use quorate_kv::Level;
use quorate_storage::store::{FlushJob, LsmOptions, LsmStore, ModelStore, Store};
use quorate_storage::wal::{DiskOp, LogRecord, Wal, WalIdentity};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) enum StoreKind {
    Model(Arc<ModelStore>),
    Real { dir: tempfile::TempDir, store: Option<Arc<LsmStore>> },
}

impl StoreKind {
    /// An empty one.
    pub(super) fn new(plan: &Plan) -> Self {
        match plan.real_store {
            true => Self::Real { dir: memory_folder(), store: None },
            false => Self::Model(Arc::new(ModelStore::new())),
        }
    }
}

pub(super) struct Syncing {
    pub(super) ops: Vec<DiskOp>,
    pub(super) ticket: u64,
    pub(super) records: Vec<LogRecord>,
}

pub(super) struct SimNode {
    pub(super) node: Option<Node>,
    /// What the release knows that it starts with.
    pub(super) level: Level,
    pub(super) life: u64,
    pub(super) paused: bool,
    pub(super) parked: Vec<Input>,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) wal: Option<Wal>,
    pub(super) store: StoreKind,
    pub(super) queue: Vec<Persist>,
    pub(super) syncing: Option<Syncing>,
    pub(super) flushing: Option<(u64, Box<dyn FlushJob>)>,
    /// Of planted bugs: a flush that was reported and has not run; applied indexes before the last flush.
    pub(super) flushing_late: Option<Box<dyn FlushJob>>,
    pub(super) older_meta: MetaRows,
    /// Outputs after which it crashes.
    pub(super) doomed: Option<u64>,
    pub(super) trouble: DiskTrouble,
    /// The shards whose replicas have come up in this life; and those of which its disk had a log. A node learns which shards there are from
    /// the system keyspace's rows, which may have to be read from its log first.
    pub(super) opened: BTreeSet<ShardId>,
    pub(super) logs: BTreeSet<ShardId>,
    pub(super) twin: Option<Twin>,
}

impl SimNode {
    /// A machine that was never started.
    pub(super) fn new(plan: &Plan, clock_rng: &mut Rng) -> Self {
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

    pub(super) fn remember_meta(&mut self) {
        if let StoreKind::Model(store) = &self.store {
            self.older_meta = meta_rows(&store.crash());
        }
    }
}

impl World<'_> {
    pub(super) fn config(&self, node: usize) -> NodeConfig {
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

    pub(super) fn start(&mut self, node: usize) -> Step {
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
    pub(super) fn came_up(&mut self, node: usize, shard: ShardId, look: &Inspection) -> Step {
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
}

/// A folder in memory, where there is one.
pub(super) fn memory_folder() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    let made = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a folder can be made")
}
