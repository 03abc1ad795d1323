//! What transactions over shards cost, what it gains where the leader's disk is enough, and what a split does to those who work meanwhile: figures for docs/performance.md.

use crate::failure::Failure;
use crate::native::Client;
use crate::programs::{self, Profile};
use crate::server::Server;
use crate::times::Times;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long each kind of load lasts before what it does is counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// Clients in each half of the keyspace while it is split.
const SPLITTERS: usize = 4;

/// Writes in one transaction while the keyspace is filled.
const FILL_BATCH: usize = 500;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Clients at one time, each with a connection of its own.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Seconds of each kind of load in each round.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How often the kinds of load take turns.
    #[arg(long, default_value_t = 6)]
    rounds: u64,
    /// MiB in the shard that is split, half of which go to the other.
    #[arg(long, default_value_t = 32)]
    mib: usize,
    /// The binary; built with optimisation if none is named.
    #[arg(long)]
    binary: Option<PathBuf>,
}

pub async fn run(args: &Args) -> Result<(), Failure> {
    let binary = programs::quorate(args.binary.as_deref(), Profile::Release)?;
    let server = Server::quorate(&binary, 3).await?;
    println!("three nodes, {} clients, {} times {} s of each", args.clients, args.rounds, args.seconds);
    let mut client = Client::to(&server.endpoints[0]).await?;
    for name in ["two", "early"] {
        client.done("POST", "/v1/keyspaces", &json!({ "name": name, "kind": "ranged", "split_at": ["m"] })).await?;
    }
    client.done("PATCH", "/v1/keyspaces/early", &json!({ "replication": "leader" })).await?;
    let mut times = [const { Vec::new() }; LOADS.len()];
    // In turns, so that what else the machine does meets all of them.
    for _ in 0..args.rounds {
        for ((_, tx), times) in LOADS.iter().zip(&mut times) {
            times.extend(load(args, &server, *tx).await?);
        }
    }
    let seconds = (args.seconds * args.rounds) as f64;
    let [one, two, early] = times.map(|times| Times::of(times, seconds));
    let (one, two, early) = (one?, two?, early?);
    for ((name, _), times) in LOADS.iter().zip([&one, &two, &early]) {
        println!("  {name:<34} {times}");
    }
    println!("  two to one: {:.2} in the median", two.median.as_secs_f64() / one.median.as_secs_f64());
    split(args, &server).await
}

fn put(keyspace: &str, key: &str) -> Value {
    json!({ "keyspace": keyspace, "put": key, "value": "v".repeat(256) })
}

/// What is compared: a name, and the `n`th transaction.
type Kind = (&'static str, fn(usize) -> Value);

const LOADS: [Kind; 3] = [
    ("one shard", |n| json!({ "write": [put("two", &format!("a{n:07}"))] })),
    ("two shards", |n| json!({ "write": [put("two", &format!("a{n:07}")), put("two", &format!("z{n:07}"))] })),
    ("one, the leader's disk is enough", |n| json!({ "write": [put("early", &format!("a{n:07}"))] })),
];

/// How long each operation took that began after the load had warmed up.
async fn load(args: &Args, server: &Server, tx: fn(usize) -> Value) -> Result<Vec<Duration>, Failure> {
    let (began, seconds) = (Instant::now() + WARM_UP, Duration::from_secs(args.seconds));
    let mut workers = Vec::new();
    for worker in 0..args.clients {
        let mut client = Client::to(&server.endpoints[worker % server.endpoints.len()]).await?;
        let clients = args.clients;
        workers.push(tokio::spawn(async move {
            let (mut times, mut n) = (Vec::new(), worker);
            while Instant::now() < began + seconds {
                let asked = Instant::now();
                client.done("POST", "/v1/tx", &tx(n)).await?;
                n += clients;
                if asked >= began {
                    times.push(asked.elapsed());
                }
            }
            Ok::<_, Failure>(times)
        }));
    }
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await.expect("a worker does not panic")?);
    }
    Ok(times)
}

/// Fills a shard, and splits it in the middle while both halves are written to.
async fn split(args: &Args, server: &Server) -> Result<(), Failure> {
    let mut client = Client::to(&server.endpoints[0]).await?;
    client.done("POST", "/v1/keyspaces", &json!({ "name": "grows", "kind": "ranged" })).await?;
    let keys = (args.mib << 20) / 264;
    for first in (0..keys).step_by(FILL_BATCH) {
        let batch: Vec<Value> =
            (first..keys.min(first + FILL_BATCH)).map(|n| put("grows", &format!("k{n:07}"))).collect();
        client.done("POST", "/v1/tx", &json!({ "write": batch })).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut halves = Vec::new();
    for half in 0..2 {
        let writers = (0..SPLITTERS).map(|worker| {
            let (endpoint, stop) = (server.endpoints[worker % server.endpoints.len()].clone(), stop.clone());
            tokio::spawn(write_until(endpoint, stop, half * keys / 2 + worker, keys / 2 - SPLITTERS))
        });
        halves.push(writers.collect::<Vec<_>>());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = Instant::now();
    client.done("POST", "/v1/keyspaces/grows/split", &json!({ "at": format!("k{:07}", keys / 2) })).await?;
    let took = asked.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    println!("a shard of {} MiB is split in its middle: answered after {} ms", args.mib, took.as_millis());
    for (half, name) in halves.into_iter().zip(["what stays", "what goes"]) {
        let mut longest = Duration::ZERO;
        for writer in half {
            longest = longest.max(writer.await.expect("a writer does not panic")?);
        }
        println!("  {name:<12} no write waited longer than {} ms", longest.as_millis());
    }
    Ok(())
}

/// Writes keys, one after the other; returns the longest that one took.
async fn write_until(endpoint: String, stop: Arc<AtomicBool>, first: usize, keys: usize) -> Result<Duration, Failure> {
    let (mut client, mut longest, mut n) = (Client::to(&endpoint).await?, Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let write = put("grows", &format!("k{:07}", first + n % keys));
        client.done("POST", "/v1/tx", &json!({ "write": [write] })).await?;
        longest = longest.max(asked.elapsed());
        n += SPLITTERS;
    }
    Ok(longest)
}
