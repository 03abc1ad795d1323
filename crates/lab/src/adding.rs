//! What those who write notice of a node that is added and gets its share of the shards: figures for docs/performance.md.

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

/// How long the load lasts before it is counted.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long the newcomer may take to get its share, and how long nothing must move any more until it counts as having it.
const SHARED_WITHIN: Duration = Duration::from_secs(300);
const SETTLED_AFTER: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(200);

/// Writes in one transaction while the keyspace is filled.
const FILL_BATCH: usize = 500;

const VALUE_BYTES: usize = 256;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shards of three replicas each.
    #[arg(long, default_value_t = 32)]
    shards: usize,
    /// MiB in all shards together, each copy counted once.
    #[arg(long, default_value_t = 128)]
    mib: usize,
    /// Clients at one time, each with a connection of its own.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Writes a second, of all clients together, as far as they are answered so quickly.
    #[arg(long, default_value_t = 400)]
    rate: u64,
    /// Seconds between filling and the load, in which the stores compact what they were given.
    #[arg(long, default_value_t = 30)]
    rest: u64,
    /// Seconds of load before the node is added.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// The binary; built with optimisation if none is named.
    #[arg(long)]
    binary: Option<PathBuf>,
}

pub async fn run(args: &Args) -> Result<(), Failure> {
    let binary = programs::quorate(args.binary.as_deref(), Profile::Release)?;
    let (first, peer) = Server::node(&binary, "n1", None).await?;
    let mut servers = vec![first];
    for name in ["n2", "n3"] {
        servers.push(Server::node(&binary, name, Some(&peer)).await?.0);
    }
    let endpoints: Vec<String> = servers.iter().map(|server| server.endpoints[0].clone()).collect();
    let mut client = Client::to(&endpoints[0]).await?;
    replicas(&mut client, |nodes| nodes.len() == 3).await?;
    let keys = (args.mib << 20) / VALUE_BYTES;
    let split_at: Vec<String> = (1..args.shards).map(|shard| key(keys * shard / args.shards)).collect();
    client.done("POST", "/v1/keyspaces", &json!({ "name": "grows", "kind": "ranged", "split_at": split_at })).await?;
    for first in (0..keys).step_by(FILL_BATCH) {
        let batch: Vec<Value> = (first..keys.min(first + FILL_BATCH)).map(put).collect();
        client.done("POST", "/v1/tx", &json!({ "write": batch })).await?;
    }
    println!("three nodes, {} shards, {} MiB of values; {} writes a second", args.shards, args.mib, args.rate);

    tokio::time::sleep(Duration::from_secs(args.rest)).await;
    let load = Load::begin(args, &endpoints, keys).await?;
    tokio::time::sleep(WARM_UP + Duration::from_secs(args.seconds)).await;
    println!("  before       {}", load.end().await?);
    let load = Load::begin(args, &endpoints, keys).await?;
    tokio::time::sleep(WARM_UP).await;
    let began = Instant::now();
    servers.push(Server::node(&binary, "n4", Some(&peer)).await?.0);
    // The connection from before has been idle for longer than a server keeps one.
    let mut client = Client::to(&endpoints[0]).await?;
    let share = 3 * args.shards as u64 / 4;
    let had = replicas(&mut client, |nodes| nodes.len() == 4 && nodes.iter().all(|had| *had + 1 >= share)).await?;
    let took = began.elapsed() - SETTLED_AFTER;
    let while_added = load.end().await?;
    println!("  while added  {while_added}");
    let load = Load::begin(args, &endpoints, keys).await?;
    tokio::time::sleep(WARM_UP + Duration::from_secs(args.seconds)).await;
    println!("  after        {}", load.end().await?);
    println!("a fourth node has its share after {:.1} s: replicas {had:?}", took.as_secs_f64());
    Ok(())
}

fn key(n: usize) -> String {
    format!("k{n:08}")
}

fn put(n: usize) -> Value {
    json!({ "keyspace": "grows", "put": key(n), "value": "v".repeat(VALUE_BYTES) })
}

/// Waits until the numbers of replicas are `enough` and have stayed so for a while.
async fn replicas(client: &mut Client, enough: impl Fn(&[u64]) -> bool) -> Result<Vec<u64>, Failure> {
    let deadline = Instant::now() + SHARED_WITHIN;
    let (mut since, mut before) = (Instant::now(), Vec::new());
    loop {
        let told = client.done("GET", "/v1/nodes", &Value::Null).await?;
        let nodes = told["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let now: Vec<u64> = nodes.iter().map(|node| node["replicas"].as_u64().unwrap_or(0)).collect();
        if now != before || !enough(&now) {
            (since, before) = (Instant::now(), now);
        } else if since.elapsed() >= SETTLED_AFTER {
            return Ok(before);
        }
        if Instant::now() > deadline {
            return Err(Failure::Http(format!("the nodes have {before:?} replicas")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    /// Answers that do not say what became of a write.
    unknown: u64,
}

/// Clients that write at a pace.
struct Load {
    stop: Arc<AtomicBool>,
    began: Instant,
    clients: Vec<tokio::task::JoinHandle<Result<Seen, Failure>>>,
}

impl Load {
    async fn begin(args: &Args, endpoints: &[String], keys: usize) -> Result<Self, Failure> {
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now() + WARM_UP);
        let every = Duration::from_secs(1) * args.clients as u32 / args.rate.max(1) as u32;
        let mut clients = Vec::new();
        for number in 0..args.clients {
            let mut client = Client::to(&endpoints[number % endpoints.len()]).await?;
            let stop = stop.clone();
            // By the golden ratio: all shards in turns, and keys that are far from each other; each client from its own.
            let (stride, mut n) = ((keys * 618 / 1_000) | 1, number * keys / args.clients);
            clients.push(tokio::spawn(async move {
                let (mut seen, mut due) = (Seen::default(), Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    match client.done("POST", "/v1/tx", &json!({ "write": [put(n)] })).await {
                        Ok(_) => {}
                        // Whoever gives what it wants a name asks again.
                        Err(Failure::Http(why)) if why.contains("\"outcome\":\"unknown\"") => seen.unknown += 1,
                        Err(failure) => return Err(failure),
                    }
                    if asked >= began {
                        seen.times.push(asked.elapsed());
                    }
                    n = (n + stride) % keys;
                    due = (due + every).max(Instant::now() - every);
                    tokio::time::sleep_until(due.into()).await;
                }
                Ok(seen)
            }));
        }
        Ok(Self { stop, began, clients })
    }

    async fn end(self) -> Result<String, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let seconds = self.began.elapsed().as_secs_f64();
        let (mut times, mut unknown) = (Vec::new(), 0);
        for client in self.clients {
            let seen = client.await.expect("a client does not panic")?;
            times.extend(seen.times);
            unknown += seen.unknown;
        }
        Ok(format!("{}, {unknown} unknown outcomes", Times::of(times, seconds)?))
    }
}
