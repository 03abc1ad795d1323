//! A large cluster on a quiet day: what many shards on many nodes cost, how long it takes until a lost node is made up for and what is moved for it, and how much more
//! nine nodes do than three.
//!
//! The nodes are the real core. Unlike in the world of the seeds nothing is checked here, messages are neither lost nor late, and nothing fails but the node that is lost. What is counted
//! is what the core says and how long it takes on this machine's processor to say it. docs/scale.md has figures.

mod load;
mod world;

use quorate_cluster::FIRST_SHARDS;
use quorate_cluster::keyspaces::Keyspaces;
use quorate_cluster::placement::Placements;
use quorate_cluster::placing::Landscape;
use quorate_consensus::Role;
use quorate_env::{NodeId, ShardId};
use quorate_kv::{KeyspaceKind, Op, PutOp, Txn};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use world::{Spent, World};

pub use load::throughput;

/// Shards of one keyspace, so that the limit is kept.
const SHARDS_EACH: usize = 250;

/// Replicas of each.
const REPLICAS: usize = 3;

/// Bytes written to each shard before a node is lost.
const SHARD_BYTES: usize = 2_048;

/// How long a node is waited for before it is made up for, in simulated time.
const EVICT_AFTER: Duration = Duration::from_secs(5);

const SECOND: u64 = 1_000_000;

/// Simulated time that anything here may take.
const PATIENCE_US: u64 = 3_600 * SECOND;

/// How large.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Shards, rounded up to whole keyspaces of 250.
    pub shards: usize,
}

/// What a part of the run came to.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// What happened.
    pub what: &'static str,
    /// Simulated time.
    pub lasted: Duration,
    /// Messages between nodes.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of rows that replicas were brought up with.
    pub copied: u64,
    /// Processor time of all nodes.
    pub busy: Duration,
}

impl Phase {
    fn of(what: &'static str, from_us: u64, to_us: u64, Spent { messages, bytes, copied, busy }: Spent) -> Self {
        Self { what, lasted: Duration::from_micros(to_us - from_us), messages, bytes, copied, busy }
    }
}

/// Runs a cluster through a day: it is founded, given shards, left alone, filled, and loses a node. Says what each part came to as soon as it is over.
///
/// # Errors
/// If something does not come to an end, or a node ends.
pub fn day(size: Size, mut tell: impl FnMut(Phase)) -> Result<(), String> {
    let mut world = World::new(size.nodes, EVICT_AFTER);
    let mut part = |world: &mut World, what, f: &mut dyn FnMut(&mut World) -> Result<(), String>| {
        let (from, _) = (world.now(), world.take_spent());
        f(world)?;
        tell(Phase::of(what, from, world.now(), world.take_spent()));
        Ok::<(), String>(())
    };
    part(&mut world, "founded", &mut |world| world.until(PATIENCE_US, |world| world.core(0).levels().begun()))?;
    let keyspaces = size.shards.div_ceil(SHARDS_EACH);
    part(&mut world, "shards made", &mut |world| {
        (0..keyspaces).try_for_each(|n| make(world, &format!("k{n:03}"), SHARDS_EACH, size.nodes))?;
        world.until(PATIENCE_US, all_sleep)
    })?;
    part(&mut world, "left alone", &mut |world| world.pass(20 * SECOND))?;
    part(&mut world, "written to", &mut |world| fill(world))?;
    part(&mut world, "asleep again", &mut |world| world.until(PATIENCE_US, all_sleep))?;
    let lost = size.nodes - 1;
    world.lose(lost);
    part(&mut world, "a lost node noticed", &mut |world| {
        world.until(PATIENCE_US, |world| shards(world).into_iter().all(|shard| is_led(world, shard)))
    })?;
    part(&mut world, "a lost node made up for", &mut |world| {
        world.until(PATIENCE_US, |world| {
            let placements = world.core(0).placements();
            let elsewhere = |shard: &ShardId| {
                let group = placements.group(*shard);
                group.is_some_and(|group| group.voters.len() == REPLICAS && !group.has(node_id(lost)))
            };
            shards(world).iter().all(elsewhere)
        })
    })
}

/// Whether every shard sleeps that ever does: all but the two that are everywhere.
fn all_sleep(world: &World) -> bool {
    let counts = |node| world.core(node).counts();
    world.nodes().all(|node| counts(node).asleep + FIRST_SHARDS.len() as u64 == counts(node).here)
}

fn node_id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

/// Makes a keyspace and waits until every node knows of it.
fn make(world: &mut World, name: &str, shards: usize, nodes: usize) -> Result<(), String> {
    let core = world.core(0);
    let (keyspaces, placements): (&Keyspaces, &Placements) = (core.keyspaces(), core.placements());
    let starts: Vec<_> = (1..shards).map(|shard| format!("{shard:04}").into()).collect();
    let nodes: BTreeSet<NodeId> = (0..nodes).map(node_id).collect();
    let founders = core.roster().founders(nodes.iter().copied());
    let (keyspace, mut txn) =
        keyspaces.create(name, KeyspaceKind::Ranged, &starts, founders).map_err(|e| e.to_string())?;
    let landscape = Landscape { nodes: &nodes, dead: &BTreeSet::new(), placements };
    let places = landscape.begin(keyspace.shards.iter().map(|(_, shard)| *shard), REPLICAS);
    txn.success.extend(Placements::found(keyspace.id, REPLICAS, places));
    world.submit(0, world::SYSTEM, txn);
    world.until(PATIENCE_US, |world| world.nodes().all(|node| world.core(node).keyspaces().named(name).is_some()))
}

fn shards(world: &World) -> Vec<ShardId> {
    let made = world.core(0).keyspaces().made();
    made.flat_map(|row| row.keyspace.shards.iter().map(|(_, shard)| *shard)).collect()
}

fn is_led(world: &World, shard: ShardId) -> bool {
    let placed = world.core(0).placements().of(shard);
    let nodes = placed.into_iter().flat_map(|at| at.wanted.iter().map(|node| node.0 as usize - 1));
    let mut looks = nodes.filter(|node| world.is_up(*node)).filter_map(|node| world.core(node).inspect(shard));
    looks.any(|look| look.role == Role::Leader)
}

/// Writes some bytes to each shard, at a node that has it, and waits until that is done.
fn fill(world: &mut World) -> Result<(), String> {
    let all = shards(world);
    for shard in all {
        let node = world.core(0).placements().of(shard).and_then(|at| at.wanted.first().copied()).unwrap_or(NodeId(1));
        world.submit(
            node.0 as usize - 1,
            shard,
            Txn::just(Op::Put(PutOp::of("0000/filling", vec![b'v'; SHARD_BYTES]))),
        );
    }
    world.until(PATIENCE_US, |world| world.waiting() == 0)
}

/// How long the machine took for something.
fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = f();
    (done, began.elapsed())
}
