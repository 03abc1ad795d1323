//! What shards cost that nobody asks for anything: figures for docs/performance.md.

use crate::failure::Failure;
use crate::native::Client;
use crate::programs::{self, Profile};
use crate::server::Server;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Shards of one keyspace: few enough for the limit.
const SHARDS_EACH: usize = 250;

/// How long all shards may take to fall asleep once they are made.
const ASLEEP_WITHIN: Duration = Duration::from_secs(300);

const POLL: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shards, rounded up to whole keyspaces.
    #[arg(long, default_value_t = 10_000)]
    shards: usize,
    /// Nodes that have them.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Seconds of idleness that are measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The binary; built with optimisation if none is named.
    #[arg(long)]
    binary: Option<PathBuf>,
}

pub async fn run(args: &Args) -> Result<(), Failure> {
    let binary = programs::quorate(args.binary.as_deref(), Profile::Release)?;
    let server = Server::quorate(&binary, args.nodes).await?;
    println!("{} nodes and no shards:  {}", args.nodes, cost(&server, args).await?);
    let mut client = Client::to(&server.endpoints[0]).await?;
    let began = Instant::now();
    for keyspace in 0..args.shards.div_ceil(SHARDS_EACH) {
        let split_at: Vec<String> = (1..SHARDS_EACH).map(|shard| format!("{shard:04}")).collect();
        let ask = json!({ "name": format!("idle-{keyspace}"), "kind": "ranged", "split_at": split_at });
        client.done("POST", "/v1/keyspaces", &ask).await?;
    }
    println!("made in {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let (here, awake) = loop {
        let (here, asleep) =
            (gauge(&mut client, "quorate_shards ").await?, gauge(&mut client, "quorate_shards_asleep ").await?);
        // The system keyspace's shard and the default keyspace's never sleep.
        if here == asleep + 2 && here > args.shards as u64 {
            break (here, here - asleep);
        }
        if began.elapsed() > ASLEEP_WITHIN {
            break (here, here - asleep);
        }
        tokio::time::sleep(POLL).await;
    };
    println!("{here} shards on the first node, {awake} awake after {:.1} s", began.elapsed().as_secs_f64());
    println!("{} nodes and {here} idle: {}", args.nodes, cost(&server, args).await?);
    Ok(())
}

/// What the processes use while nobody asks for anything.
async fn cost(server: &Server, args: &Args) -> Result<String, Failure> {
    let before = server.cpu_seconds()?;
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let used = server.cpu_seconds()? - before;
    let (share, mib) = (100.0 * used / args.seconds as f64, server.resident_bytes()? >> 20);
    Ok(format!("{share:.2} % of a core, {mib} MiB resident, all processes together"))
}

async fn gauge(client: &mut Client, name: &str) -> Result<u64, Failure> {
    let page = client.page("/metrics").await?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or_else(|| Failure::Http(format!("there is no {name}in the metrics")))
}
