//! How much clients get done on clusters of different sizes, where each node takes its time for what it is told.

use super::world::{Service, World};
use super::{EVICT_AFTER, PATIENCE_US, SECOND, is_led, make, shards};
use quorate_cluster::RequestId;
use quorate_env::{Rng, ShardId};
use quorate_kv::{Op, PutOp, Txn};
use std::collections::BTreeSet;

/// Per node.
const SHARDS: usize = 16;
const CLIENTS: usize = 100;

/// What a node with one core takes: a wake-up and its system calls, and each message or request.
const SERVICE: Service = Service { turn_us: 20, input_us: 10 };

const VALUE_BYTES: usize = 256;

/// Writes per simulated second on a cluster of so many nodes, each of which its clients ask as much as any other.
///
/// # Errors
/// If a write fails, or a node ends.
pub fn throughput(nodes: usize) -> Result<f64, String> {
    let mut world = World::new(nodes, EVICT_AFTER);
    world.until(PATIENCE_US, |world| world.core(0).levels().begun())?;
    make(&mut world, "load", SHARDS * nodes, nodes)?;
    world.until(PATIENCE_US, |world| shards(world).into_iter().all(|shard| is_led(world, shard)))?;
    world.set_service(SERVICE);
    let (all, mut rng) = (shards(&world), Rng::new(1));
    let mut under_way: BTreeSet<RequestId> = BTreeSet::new();
    let mut ask = |world: &mut World, under_way: &mut BTreeSet<RequestId>| {
        under_way.insert(world.submit(rng.below(nodes as u64) as usize, pick(&all, &mut rng), put()));
    };
    (0..CLIENTS * nodes).for_each(|_| ask(&mut world, &mut under_way));
    let mut done = 0;
    let (warm, end) = (world.now() + 2 * SECOND, world.now() + 6 * SECOND);
    while world.now() < end {
        world.pass(100)?;
        for request in world.take_answered() {
            if under_way.remove(&request) {
                done += u64::from(world.now() >= warm);
                ask(&mut world, &mut under_way);
            }
        }
    }
    Ok(done as f64 * SECOND as f64 / (end - warm) as f64)
}

fn pick(shards: &[ShardId], rng: &mut Rng) -> ShardId {
    shards[rng.below(shards.len() as u64) as usize]
}

fn put() -> Txn {
    Txn::just(Op::Put(PutOp::of("0000/key", vec![b'v'; VALUE_BYTES])))
}
