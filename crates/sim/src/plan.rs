//! What a seed does: every seed draws its own mix of faults, rates and sizes (swarm testing, Groce et al., ISSTA 2012).

mod bank;

use crate::Options;
use crate::fault::Fault;
use crate::ground::Ground;
use crate::net::{CALM, Weather};
use crate::teller::Accounts;
use quorate_cluster::{Merges, SplitLoad, Timing, bounds};
use quorate_env::Rng;
use quorate_kv::Level;
use std::collections::BTreeMap;
use std::time::Duration;

/// The plan of one run. Times are microseconds of true time.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub nodes: usize,
    pub clients: usize,
    pub watchers: usize,
    /// The part with faults.
    pub storm_us: u64,
    /// The part in which everything must recover.
    pub calm_us: u64,
    pub weather: Weather,
    /// Mean time between faults of each kind; `None` is never.
    /// What fails, each about every so many microseconds.
    pub faults: BTreeMap<Fault, u64>,
    /// What the release knows that the nodes begin with, if it is an older one.
    pub old_release: Option<Level>,
    /// Mean time between changes of the members.
    pub churn_every_us: Option<u64>,
    /// Whether members are replaced, too, by others that take their places while they go on.
    pub relieves: bool,
    /// Nodes that may come in one run.
    pub comers_max: usize,
    /// Of a thousand restarts, those at which the log has rotted, and those at which the store is damaged.
    pub rot_per_mille: u64,
    pub damage_per_mille: u64,
    /// Whether logs may rot at several nodes at once, at different places.
    pub rot_several: bool,
    /// Of a thousand restarts, those at which promises have rotted.
    pub promise_rot_per_mille: u64,
    pub sync_us: (u64, u64),
    pub flush_us: (u64, u64),
    pub think_us: (u64, u64),
    /// Of a thousand operations of clients, those about leases that come beside the usual mix.
    pub lease_per_mille: u64,
    pub flush_bytes: u64,
    pub unflushed_bytes_max: u64,
    /// Bytes of entries that a replica applies at one time.
    pub apply_bytes: u64,
    pub log_keep_bytes: u64,
    pub log_hold_bytes: u64,
    pub chunk_bytes: usize,
    /// What a shard may hold.
    pub split_bytes: u64,
    /// After how many ticks leaders offer their places to those who are to have them.
    pub prefer_ticks: u32,
    /// Between two moves that only balance.
    pub balance_pause_ms: u64,
    /// After how many idle ticks groups sleep.
    pub sleep_ticks: u32,
    /// What a shard's leader may have to do.
    pub split_load: SplitLoad,
    /// Which shards are merged with those before them.
    pub merges: Merges,
    /// The real engine, or the model of a store.
    pub real_store: bool,
    /// A keyspace of many shards, and clients whose transactions go over all of them.
    pub bank: Option<BankPlan>,
    /// Logs, and those who append to them and follow them.
    pub logs: Option<LogPlan>,
}

/// See [`Plan::logs`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogPlan {
    pub logs: usize,
    pub producers: usize,
    /// Mean time between cuts.
    pub cut_every_us: Option<u64>,
    /// Of the first log, how many bytes it keeps.
    pub retain_bytes: Option<u64>,
    /// Of a thousand answers about what has a name of the client's own, those that are lost on their way to it.
    pub answers_lost_per_mille: u64,
}

/// See [`Plan::bank`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct BankPlan {
    pub accounts: Accounts,
    pub shards: u64,
    pub tellers: u64,
    /// Of a hundred operations of a teller, those that look at all accounts.
    pub audits_percent: u64,
    /// Mean time between splits.
    pub split_every_us: Option<u64>,
    /// Splits in one run.
    pub splits_max: usize,
    /// How many replicas each shard has; `None` if one on every node.
    pub replicas: Option<usize>,
    /// Mean time between moves.
    pub move_every_us: Option<u64>,
    /// How many zones the nodes are in.
    pub zones: Option<u64>,
    /// For how long its history is kept; the usual time if nothing is said.
    pub history_ms: Option<u64>,
    /// Of a thousand answers about what has a name of the client's own, those that are lost on their way to it.
    pub answers_lost_per_mille: u64,
    /// How long somebody waits who has asked what became of a transaction, before asking again.
    pub wonders_again_us: u64,
    /// How long an onlooker waits between two operations.
    pub look_us: (u64, u64),
    /// Of a thousand operations of a teller, those that reserve accounts before they read them.
    pub locks_per_mille: u64,
    /// Whether who writes is told only when all voters have it.
    pub everywhere: bool,
    /// If who writes is told only when its timestamp is over: how far clocks may be from true time.
    pub clock_bound_ms: Option<u64>,
    /// If who writes is told when the leader has it: of how many entries that no majority has.
    pub early_entries: Option<u64>,
}

/// See [`Plan::comers_max`] and [`BankPlan`], where nothing else is said.
const COMERS_MAX: usize = 6;
const SPLITS_MAX: usize = 6;
pub(crate) const AUDITS_PERCENT: u64 = 20;
pub(crate) const WONDERS_AGAIN_US: u64 = 300_000;
const LOOK_US: (u64, u64) = (1_000, 60_000);

/// By so much the calm is longer where some tellers reserve, in microseconds.
const LOCKS_CALM_US: u64 = 5_000_000;

impl BankPlan {
    fn draw(seed: u64) -> Self {
        let (mut rng, mut splits) = (Rng::new(seed).split(50), Rng::new(seed).split(53));
        let mut histories = Rng::new(seed).split(69);
        let split_every_us = splits.chance(600).then(|| splits.between(1_000_000, 5_000_000));
        Self {
            accounts: Accounts::default(),
            shards: rng.between(2, 6),
            tellers: rng.between(2, 5),
            audits_percent: AUDITS_PERCENT,
            split_every_us,
            splits_max: SPLITS_MAX,
            replicas: None,
            move_every_us: None,
            zones: None,
            history_ms: histories.chance(400).then(|| histories.between(1_000, 5_000)),
            answers_lost_per_mille: 0,
            wonders_again_us: WONDERS_AGAIN_US,
            look_us: LOOK_US,
            locks_per_mille: Self::draw_locks(seed),
            everywhere: false,
            clock_bound_ms: None,
            early_entries: None,
        }
    }

    /// In one of three runs some tellers reserve.
    fn draw_locks(seed: u64) -> u64 {
        let mut locks = Rng::new(seed).split(80);
        if locks.chance(333) { locks.between(100, 700) } else { 0 }
    }
}

/// One of those before the latest.
fn old_release(seed: u64) -> Level {
    if Rng::new(seed).split(64).chance(500) { Level::FIRST } else { Level::ACROSS }
}

impl Plan {
    /// A cluster on a quiet day: nothing fails, and nobody asks anything unless `clients` does.
    pub fn quiet(nodes: usize, clients: usize) -> Self {
        let second = 1_000_000;
        Self {
            nodes,
            clients,
            watchers: 0,
            storm_us: 5 * second,
            calm_us: 20 * second,
            weather: CALM,
            faults: BTreeMap::new(),
            old_release: None,
            churn_every_us: None,
            relieves: false,
            comers_max: COMERS_MAX,
            rot_per_mille: 0,
            damage_per_mille: 0,
            rot_several: false,
            promise_rot_per_mille: 0,
            sync_us: (100, 1_000),
            flush_us: (1_000, 10_000),
            think_us: (1_000, 20_000),
            lease_per_mille: 0,
            flush_bytes: 64 << 10,
            unflushed_bytes_max: 256 << 10,
            apply_bytes: bounds::APPLY_BYTES,
            log_keep_bytes: 16 << 10,
            log_hold_bytes: bounds::LOG_HOLD_BYTES,
            chunk_bytes: 16 << 10,
            split_bytes: u64::MAX,
            prefer_ticks: Timing::default().prefer_ticks,
            balance_pause_ms: 0,
            sleep_ticks: Timing::default().sleep_ticks,
            split_load: SplitLoad::NEVER,
            merges: Merges::NEVER,
            real_store: false,
            bank: None,
            logs: None,
        }
    }

    /// Whether more nodes come and go than in most runs, so that most that ever were are gone in the end.
    pub fn is_long(&self) -> bool {
        self.comers_max > COMERS_MAX
    }

    /// How long a run goes on when everything has found its place: then what is reserved has lapsed, too.
    pub fn settled_us(&self) -> u64 {
        let reserves = self.bank.is_some_and(|bank| bank.locks_per_mille > 0);
        if reserves { LOCKS_CALM_US } else { 500_000 }
    }

    /// How far clocks may be from true time, if anybody relies on it.
    pub fn clock_bound_ms(&self) -> Option<u64> {
        self.bank.and_then(|bank| bank.clock_bound_ms)
    }

    /// Whether nodes may have to come back as others.
    pub fn replaces(&self) -> bool {
        let forgets = self.faults.keys().any(|fault| fault.needs_twin());
        self.churn_every_us.is_some() || self.promise_rot_per_mille > 0 || forgets
    }

    /// The plan of a run.
    pub fn of(seed: u64, options: &Options) -> Self {
        let ground = match options {
            Options { planted: Some(planted), ground: Ground::Anywhere, .. } => planted.ground,
            Options { ground, .. } => *ground,
        };
        let storm_us = options.storm.map(|storm| storm.as_micros() as u64);
        if ground == Ground::Bank {
            return bank::plan(seed, storm_us);
        }
        let plan = Self::on(ground, seed);
        Self { storm_us: storm_us.unwrap_or(plan.storm_us), ..plan }
    }

    /// What a seed draws, and more of what there is on this ground.
    fn on(ground: Ground, seed: u64) -> Self {
        let mut plan = Self::draw(seed);
        let second = 1_000_000;
        let mut rng = Rng::new(seed).split(61);
        let mut often = |faults: &[Fault]| {
            faults.iter().for_each(|fault| {
                plan.faults.insert(*fault, rng.between(2 * second, 4 * second));
            });
        };
        match ground {
            Ground::Anywhere | Ground::Bank => {}
            Ground::StaleLeaders => {
                for fault in [Fault::Freeze, Fault::Cut] {
                    plan.faults.insert(fault, rng.between(second, 2 * second));
                }
                plan.lease_per_mille = rng.between(500, 900);
                plan.think_us = (1_000, 10_000);
            }
            Ground::Rot => {
                often(&[Fault::Cut]);
                plan.faults.insert(Fault::Crash, rng.between(second, 2 * second));
                plan.rot_per_mille = rng.between(600, 950);
                plan.damage_per_mille = rng.between(100, 600);
                plan.chunk_bytes = plan.chunk_bytes.min(1_024);
                let mut rows = Rng::new(seed).split(121);
                if rows.chance(400) {
                    // What a store lacks is more often no longer in any log, and has to come as rows.
                    plan.log_keep_bytes = plan.log_keep_bytes.min(1 << 10);
                    plan.rot_per_mille /= 4;
                    plan.damage_per_mille = rows.between(500, 900);
                }
            }
            Ground::Forgetfulness if plan.real_store => {}
            Ground::Forgetfulness => often(&[Fault::OldImage, Fault::LyingDisk]),
            Ground::Transactions => {
                often(&[Fault::Pause, Fault::Clog]);
                plan.bank = Some(BankPlan::draw(seed));
            }
            Ground::Splits => {
                plan.faults.insert(Fault::Crash, rng.between(second, 3 * second));
                plan.faults.insert(Fault::Cut, rng.between(2 * second, 4 * second));
                plan.think_us = (1_000, 10_000);
                // Some replicas are brought up by snapshots, and go before those are durable.
                plan.log_keep_bytes = plan.log_keep_bytes.min(2 << 10);
                plan.flush_us.1 = plan.flush_us.1.max(300_000);
                let mut bank = BankPlan { shards: rng.between(1, 2), ..BankPlan::draw(seed) };
                bank.split_every_us = Some(rng.between(second / 2, 2 * second));
                // A shard may be split between what was done and the question whether it was.
                bank.answers_lost_per_mille = Rng::new(seed).split(65).between(200, 700);
                if rng.chance(400) {
                    bank.split_every_us = None;
                    plan.split_bytes = rng.between(60, 200);
                }
                // Every eighth seed; those that once found a bug are none of them. Nobody asks there, and nothing is too large: all splits are by load.
                if seed % 8 == 3 {
                    let mut loads = Rng::new(seed).split(93);
                    (bank.split_every_us, plan.split_bytes, plan.old_release) = (None, u64::MAX, None);
                    plan.split_load = SplitLoad {
                        ops_per_s: loads.between(5, 30),
                        sustained: Duration::from_millis(loads.between(200, 2_000)),
                        rest: Duration::from_millis(loads.between(6_000, 10_000)),
                    };
                    bank.tellers = loads.between(5, 8);
                }
                plan.bank = Some(bank);
            }
            Ground::Moves => {
                let mut moves = Rng::new(seed).split(66);
                plan.faults.insert(Fault::Crash, rng.between(second, 3 * second));
                plan.faults.insert(Fault::Cut, rng.between(2 * second, 4 * second));
                plan.think_us = (1_000, 10_000);
                plan.log_keep_bytes = plan.log_keep_bytes.min(2 << 10);
                plan.nodes = plan.nodes.max(moves.between(4, 6) as usize);
                let mut bank = BankPlan { shards: moves.between(1, 4), ..BankPlan::draw(seed) };
                bank.replicas = Some(3);
                if moves.chance(500) {
                    // Of what is on one or two nodes, none may be lost.
                    bank.replicas = Some(moves.between(1, 2) as usize);
                    plan.faults.retain(|fault, _| !fault.needs_twin());
                    (plan.rot_per_mille, plan.damage_per_mille, plan.promise_rot_per_mille) = (0, 0, 0);
                    plan.churn_every_us = None;
                    // Who goes may be needed again when another forgets in a crash that it went.
                    plan.faults.insert(Fault::Crash, Rng::new(seed).split(134).between(second / 2, second));
                } else if moves.chance(500) {
                    plan.churn_every_us = Some(moves.between(second, 4 * second));
                }
                bank.move_every_us = Some(moves.between(second / 4, 2 * second));
                if moves.chance(800) {
                    plan.old_release = None;
                }
                // Only where all nodes know how, from the start.
                plan.relieves = plan.old_release.is_none() && Rng::new(seed).split(90).chance(500);
                bank.answers_lost_per_mille = moves.between(0, 300);
                bank.zones = moves.chance(500).then(|| moves.between(2, 3));
                plan.bank = Some(bank);
            }
            Ground::Merges => {
                let mut merges = Rng::new(seed).split(120);
                plan.faults.insert(Fault::Crash, merges.between(second, 3 * second));
                plan.faults.insert(Fault::Cut, merges.between(2 * second, 4 * second));
                plan.faults.insert(Fault::Jump, merges.between(second, 3 * second));
                plan.think_us = (20_000, merges.between(100_000, 600_000));
                plan.log_keep_bytes = plan.log_keep_bytes.min(2 << 10);
                if merges.chance(800) {
                    plan.old_release = None;
                }
                let mut bank = BankPlan { shards: merges.between(1, 2), splits_max: 20, ..BankPlan::draw(seed) };
                bank.split_every_us = Some(merges.between(second / 2, 2 * second));
                bank.history_ms = Some(merges.between(200, 1_500));
                bank.answers_lost_per_mille = merges.between(200, 700);
                // Whoever asks what was decided asks again when the shard that decided it may be no more.
                bank.wonders_again_us = merges.between(second, 4 * second);
                if merges.chance(400) {
                    plan.nodes = plan.nodes.max(merges.between(4, 6) as usize);
                    bank.replicas = Some(3);
                    bank.move_every_us = Some(merges.between(second, 4 * second));
                }
                plan.merges = Merges {
                    bytes: u64::MAX,
                    rest: Duration::from_millis(merges.between(300, 2_000)),
                    page_bytes: merges.between(30, 400) as usize,
                };
                plan.bank = Some(bank);
            }
            Ground::Reservations => {
                let mut locks = Rng::new(seed).split(82);
                plan.faults.insert(Fault::Crash, locks.between(second, 3 * second));
                plan.faults.insert(Fault::Pause, locks.between(second, 3 * second));
                plan.think_us = (1_000, 20_000);
                let bank = BankPlan { tellers: locks.between(4, 6), accounts: Accounts(8), ..BankPlan::draw(seed) };
                let split_every_us = locks.chance(700).then(|| locks.between(second / 2, 2 * second));
                if locks.chance(800) {
                    plan.old_release = None;
                }
                let locks_per_mille = locks.between(300, 800);
                let answers_lost_per_mille = locks.between(0, 300);
                plan.bank = Some(BankPlan { split_every_us, locks_per_mille, answers_lost_per_mille, ..bank });
            }
            Ground::Logs => {
                // One of the clients draws from the same number.
                let mut logs = Rng::new(seed).split(100).split(1);
                plan.faults.insert(Fault::Crash, logs.between(second, 3 * second));
                plan.faults.insert(Fault::Cut, logs.between(2 * second, 4 * second));
                plan.think_us = (1_000, 20_000);
                // Some replicas are brought up by snapshots.
                plan.log_keep_bytes = plan.log_keep_bytes.min(2 << 10);
                plan.nodes = plan.nodes.max(logs.between(3, 5) as usize);
                if logs.chance(800) {
                    plan.old_release = None;
                }
                let mut bank = BankPlan { shards: logs.between(1, 3), ..BankPlan::draw(seed) };
                bank.split_every_us = None;
                bank.locks_per_mille = 0;
                bank.replicas = Some(3);
                bank.move_every_us = logs.chance(700).then(|| logs.between(second / 2, 3 * second));
                plan.bank = Some(bank);
                plan.logs = Some(LogPlan {
                    logs: logs.between(1, 3) as usize,
                    producers: logs.between(2, 4) as usize,
                    cut_every_us: logs.chance(700).then(|| logs.between(second / 2, 4 * second)),
                    retain_bytes: logs.chance(400).then(|| logs.between(100, 1_000)),
                    answers_lost_per_mille: logs.between(0, 400),
                });
            }
            Ground::Early => {
                let mut early = Rng::new(seed).split(130);
                plan.faults.insert(Fault::Crash, early.between(2 * second, 6 * second));
                plan.faults.insert(Fault::Cut, early.between(second / 2, 3 * second));
                // What a disk had it has still: what is lost with one nobody can count.
                plan.faults.retain(|fault, _| !fault.needs_twin());
                (plan.rot_per_mille, plan.damage_per_mille, plan.promise_rot_per_mille) = (0, 0, 0);
                plan.think_us = (1_000, 10_000);
                plan.old_release = None;
                plan.churn_every_us = None;
                // Disks are near and nodes are far from each other: there is something to be told early.
                plan.nodes = plan.nodes.min(5);
                plan.sync_us = (100, early.between(500, 3_000));
                plan.weather.delay_us = (early.between(1_000, 10_000), early.between(10_000, 40_000));
                plan.weather.drop_per_mille = plan.weather.drop_per_mille.min(50);
                plan.weather.straggler_per_mille = plan.weather.straggler_per_mille.min(20);
                // So much is written that who lacks it must get it in larger pieces.
                plan.chunk_bytes = plan.chunk_bytes.max(4 << 10);
                plan.unflushed_bytes_max = plan.unflushed_bytes_max.max(128 << 10);
                let mut bank = BankPlan { early_entries: Some(early.between(1, 12)), ..BankPlan::draw(seed) };
                // What is written in one shard alone is told early.
                (bank.shards, bank.tellers) = (early.between(1, 2), early.between(6, 12));
                bank.locks_per_mille = 0;
                bank.split_every_us = bank.split_every_us.filter(|_| early.chance(300));
                bank.answers_lost_per_mille = early.between(0, 300);
                if early.chance(400) {
                    plan.nodes = plan.nodes.max(4);
                    bank.replicas = Some(3);
                    bank.move_every_us = Some(early.between(second, 4 * second));
                }
                plan.bank = Some(bank);
            }
            Ground::Replication => {
                let mut acks = Rng::new(seed).split(110);
                plan.faults.insert(Fault::Crash, acks.between(second, 3 * second));
                plan.faults.insert(Fault::Cut, acks.between(2 * second, 4 * second));
                // What all disks had they have still.
                plan.faults.retain(|fault, _| !fault.needs_twin());
                (plan.rot_per_mille, plan.damage_per_mille, plan.promise_rot_per_mille) = (0, 0, 0);
                plan.think_us = (1_000, 10_000);
                plan.old_release = None;
                plan.churn_every_us = acks.chance(500).then(|| acks.between(second, 4 * second));
                let clock_bound_ms = acks.chance(500).then(|| acks.between(1, 60));
                let everywhere = clock_bound_ms.is_none() || acks.chance(400);
                let mut bank = BankPlan { everywhere, clock_bound_ms, ..BankPlan::draw(seed) };
                bank.answers_lost_per_mille = acks.between(0, 300);
                if clock_bound_ms.is_some() {
                    // The promise holds as long as clocks keep the bound.
                    plan.faults.retain(|fault, _| !fault.is_of_clocks());
                } else if acks.chance(500) {
                    plan.nodes = plan.nodes.max(4);
                    bank.replicas = Some(3);
                    bank.move_every_us = Some(acks.between(second / 2, 2 * second));
                }
                plan.bank = Some(bank);
            }
            Ground::Upgrades => {
                plan.bank = Some(BankPlan::draw(seed));
                plan.old_release = Some(old_release(seed));
            }
        }
        if plan.bank.is_some_and(|bank| bank.locks_per_mille > 0) {
            // Tellers that reserve rest for longer in the end.
            plan.calm_us += LOCKS_CALM_US;
        }
        plan
    }

    fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed).split(1);
        let second = 1_000_000;
        let mut faults = BTreeMap::new();
        let mut sometimes = |rng: &mut Rng, per_mille: u64, fault: Fault, low: u64, high: u64| {
            let every = rng.between(low, high);
            if rng.chance(per_mille) {
                faults.insert(fault, every);
            }
        };
        sometimes(&mut rng, 800, Fault::Crash, second, 8 * second);
        sometimes(&mut rng, 600, Fault::Cut, 2 * second, 8 * second);
        sometimes(&mut rng, 400, Fault::Pause, 2 * second, 8 * second);
        sometimes(&mut rng, 300, Fault::Jump, second, 5 * second);
        sometimes(&mut rng, 300, Fault::PowerCut, 8 * second, 20 * second);
        // Drawn apart, so that what else older seeds draw stays what it was.
        let mut apart = Rng::new(seed).split(11);
        sometimes(&mut apart, 400, Fault::Clog, 2 * second, 8 * second);
        sometimes(&mut apart, 200, Fault::Stutter, 3 * second, 10 * second);
        sometimes(&mut apart, 400, Fault::Freeze, 2 * second, 10 * second);
        sometimes(&mut apart, 300, Fault::SlowDisk, 3 * second, 10 * second);
        sometimes(&mut apart, 300, Fault::FullDisk, 3 * second, 10 * second);
        sometimes(&mut apart, 300, Fault::DiskError, 2 * second, 10 * second);
        let mut clocks = Rng::new(seed).split(12);
        sometimes(&mut clocks, 400, Fault::Speed, 3 * second, 10 * second);
        sometimes(&mut clocks, 400, Fault::WallSpeed, 3 * second, 10 * second);
        let mut twins = Rng::new(seed).split(14);
        sometimes(&mut twins, 400, Fault::OldImage, 2 * second, 8 * second);
        sometimes(&mut twins, 500, Fault::LyingDisk, 2 * second, 8 * second);
        sometimes(&mut twins, 400, Fault::Misdirect, 2 * second, 8 * second);
        let mut planned = Rng::new(seed).split(40);
        sometimes(&mut planned, 300, Fault::PlannedStop, 2 * second, 8 * second);
        sometimes(&mut planned, 400, Fault::MoveLeader, 2 * second, 8 * second);
        let stormy = rng.chance(600);
        let rate = |rng: &mut Rng, max: u64| if stormy { rng.between(0, max) } else { 0 };
        let mut plan = Self {
            nodes: if rng.chance(700) { 3 } else { apart.between(4, 7) as usize },
            clients: rng.between(3, 8) as usize,
            watchers: rng.between(1, 4) as usize,
            storm_us: rng.between(15, 30) * second,
            calm_us: 20 * second,
            weather: Weather {
                delay_us: (rng.between(50, 500), rng.between(1_000, 20_000)),
                drop_per_mille: rate(&mut rng, 300),
                duplicate_per_mille: rate(&mut rng, 500),
                straggler_per_mille: rate(&mut rng, 100),
                bytes_per_ms: None,
                uneven: false,
            },
            faults,
            old_release: Rng::new(seed).split(62).chance(350).then(|| old_release(seed)),
            churn_every_us: None,
            relieves: false,
            comers_max: COMERS_MAX,
            rot_per_mille: 0,
            damage_per_mille: 0,
            rot_several: false,
            promise_rot_per_mille: 0,
            sync_us: (rng.between(50, 300), rng.between(500, 15_000)),
            flush_us: (1_000, rng.between(5_000, 500_000)),
            think_us: (1_000, rng.between(10_000, 100_000)),
            lease_per_mille: 0,
            flush_bytes: rng.between(4 << 10, 128 << 10),
            unflushed_bytes_max: 0,
            apply_bytes: bounds::APPLY_BYTES,
            log_keep_bytes: rng.between(0, 16 << 10),
            log_hold_bytes: bounds::LOG_HOLD_BYTES,
            chunk_bytes: rng.between(256, 16 << 10) as usize,
            split_bytes: u64::MAX,
            prefer_ticks: Rng::new(seed).split(86).between(20, 200) as u32,
            balance_pause_ms: 0,
            sleep_ticks: Rng::new(seed).split(85).between(2, 40) as u32,
            split_load: SplitLoad::NEVER,
            merges: Merges::NEVER,
            real_store: seed.is_multiple_of(8),
            bank: None,
            logs: None,
        };
        // Drawn apart, so that older seeds stay what they were.
        let mut apply_rng = Rng::new(seed).split(132);
        if apply_rng.chance(500) {
            plan.apply_bytes = apply_rng.between(1, 4 << 10);
        }
        let mut balance_rng = Rng::new(seed).split(133);
        if balance_rng.chance(250) {
            plan.balance_pause_ms = balance_rng.between(1, bounds::BALANCE_PAUSE.as_millis() as u64);
        }
        plan.unflushed_bytes_max = plan.flush_bytes * Rng::new(seed).split(7).between(1, 4);
        let mut hold_rng = Rng::new(seed).split(41);
        if hold_rng.chance(500) {
            plan.log_hold_bytes = plan.log_keep_bytes + plan.flush_bytes * hold_rng.between(500, 3_000) / 1_000;
        }
        let mut rot_rng = Rng::new(seed).split(8);
        plan.rot_per_mille = if rot_rng.chance(500) { rot_rng.between(100, 600) } else { 0 };
        if rot_rng.chance(500) {
            plan.damage_per_mille = rot_rng.between(300, 800);
            // Many chunks, so that some are the same on both sides.
            plan.chunk_bytes = plan.chunk_bytes.min(rot_rng.between(256, 1_024) as usize);
        }
        let mut promises = Rng::new(seed).split(13);
        plan.rot_several = promises.chance(600);
        plan.promise_rot_per_mille = if promises.chance(500) { promises.between(100, 500) } else { 0 };
        if plan.real_store {
            plan.faults.retain(|fault, _| !fault.needs_twin());
        }
        // Every fifth seed; those that once found a bug are none of them.
        if seed.is_multiple_of(5) {
            plan.bank = Some(BankPlan::draw(seed));
        }
        let mut mix = Rng::new(seed).split(60);
        if mix.chance(400) {
            plan.lease_per_mille = mix.between(200, 600);
        }
        let mut churn_rng = Rng::new(seed).split(20);
        plan.churn_every_us = seed.is_multiple_of(3).then(|| churn_rng.between(second, 4 * second));
        plan
    }
}
