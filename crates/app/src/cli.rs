//! The command line. Flags win over `QUORATE_*` variables, which win over the configuration file.

mod native;

pub use native::{
    CarefulArgs, ExplainArgs, KeyspaceArgs, KeyspaceVerb, Kind, KvArgs, KvVerb, LogArgs, LogVerb, RangeArgs,
    Replication, ServerArgs, Switch,
};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use quorate_sim::Numbers;
use std::path::PathBuf;

/// A distributed coordinator that etcd's clients can talk to.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, about, propagate_version = true)]
pub struct Cli {
    /// What to log to standard error: error, warn, info, debug, or per module.
    #[arg(long, global = true, env = "QUORATE_LOG", default_value = "warn")]
    pub log: String,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a node, or several, on this machine: no configuration, loopback only.
    Up(UpArgs),
    /// Run one node of a cluster.
    Start(Box<StartArgs>),
    /// Show how the members are.
    Status(StatusArgs),
    /// Prove or refute that any one node, and any one zone, may fail, and say what to do. Ends with 1 if the next failure may be one too many, with
    /// 69 if something is unavailable.
    Doctor(ServerArgs),
    /// Say what a keyspace keeps and gives up, in a partition and otherwise, and what each way of asking costs now.
    Explain(ExplainArgs),
    /// List, add, promote and remove the cluster's nodes.
    Node(NodeArgs),
    /// Read, write and watch keys, in any keyspace.
    Kv(KvArgs),
    /// List, make and split keyspaces.
    Keyspace(KeyspaceArgs),
    /// Append records to logs, read them, and cut logs off.
    Log(LogArgs),
    /// Measure any server that speaks etcd's API.
    Bench(BenchArgs),
    /// Run the cluster in the simulator, from a seed.
    Sim(SimArgs),
    /// Draw a trace: one HTML file, for any browser, that needs nothing else.
    Diagram(DiagramArgs),
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// How many nodes, each a process of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Where the data goes.
    #[arg(long, env = "QUORATE_DATA_DIR", default_value = "quorate-data")]
    pub data_dir: PathBuf,
    /// The first client port; another free one is taken, and printed, if it is in use.
    #[arg(long, default_value_t = 2379)]
    pub port: u16,
    /// Record what each process does in this folder, for "quorate diagram": n1.trace, n2.trace, ...
    #[arg(long, value_name = "DIR", env = "QUORATE_TRACE")]
    pub trace: Option<PathBuf>,
    /// MiB that each trace may have at most (256 if nothing is said).
    #[arg(long, value_name = "MIB", env = "QUORATE_TRACE_LIMIT")]
    pub trace_limit: Option<u64>,
}

/// What an empty data directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    /// The other members know.
    Auto,
    /// The cluster starts for the first time.
    New,
}

#[derive(Debug, Args)]
pub struct StartArgs {
    /// The node's name, as in --initial-cluster.
    #[arg(long, env = "QUORATE_NAME")]
    pub name: Option<String>,
    /// Where the data goes.
    #[arg(long, env = "QUORATE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to listen for clients, host:port.
    #[arg(long, env = "QUORATE_LISTEN_CLIENT")]
    pub listen_client: Option<String>,
    /// Where clients reach this node, if not where it listens; several with commas.
    #[arg(long, env = "QUORATE_ADVERTISE_CLIENT")]
    pub advertise_client: Option<String>,
    /// Where to listen for peers, host:port.
    #[arg(long, env = "QUORATE_LISTEN_PEER")]
    pub listen_peer: Option<String>,
    /// Where peers reach this node, if not where it listens; with --initial-cluster, its address there.
    #[arg(long, env = "QUORATE_ADVERTISE_PEER")]
    pub advertise_peer: Option<String>,
    /// All members of the cluster at its first start: n1=host:port,n2=host:port,...
    #[arg(long, env = "QUORATE_INITIAL_CLUSTER")]
    pub initial_cluster: Option<String>,
    /// Join the cluster that the node at one of these peer addresses is a member of: host:port,... Only an empty data directory looks
    /// at this; a node that is a member goes on as one.
    #[arg(long, env = "QUORATE_JOIN", value_delimiter = ',', conflicts_with = "initial_cluster")]
    pub join: Vec<String>,
    /// Names the cluster: nodes with different tokens never mix.
    #[arg(long, env = "QUORATE_INITIAL_CLUSTER_TOKEN", visible_alias = "token")]
    pub initial_cluster_token: Option<String>,
    /// With an empty data directory: auto asks the other members whether the cluster exists, new takes your word that it does not.
    #[arg(long, env = "QUORATE_INITIAL_CLUSTER_STATE", value_enum, default_value = "auto")]
    pub initial_cluster_state: ClusterState,
    /// The most operations in one transaction.
    #[arg(long, env = "QUORATE_MAX_TXN_OPS")]
    pub max_txn_ops: Option<usize>,
    /// MiB read from the disk each second to look for rot (8 if nothing is said); 0 looks for none.
    #[arg(long, env = "QUORATE_SCRUB_RATE")]
    pub scrub_rate: Option<u64>,
    /// Seconds from one look at everything to the next (20 if nothing is said).
    #[arg(long, env = "QUORATE_SCRUB_REST")]
    pub scrub_rest: Option<u64>,
    /// Milliseconds between a leader's heartbeats.
    #[arg(long, env = "QUORATE_HEARTBEAT_INTERVAL")]
    pub heartbeat_interval: Option<u64>,
    /// Milliseconds of silence before an election.
    #[arg(long, env = "QUORATE_ELECTION_TIMEOUT")]
    pub election_timeout: Option<u64>,
    /// Offer the cluster no more than this feature level (what this release knows if nothing is said). As long as a member holds it down, all
    /// can go back to the release that knew no more.
    #[arg(long, env = "QUORATE_FEATURE_LEVEL")]
    pub feature_level: Option<u16>,
    /// What fails together with this node, a rack or a data centre: replicas of a shard are kept in different zones where that is possible (no zone if
    /// nothing is said).
    #[arg(long, env = "QUORATE_ZONE")]
    pub zone: Option<String>,
    /// Seconds of silence after which what a node has of placed shards is copied to others (300 if nothing is said).
    #[arg(long, env = "QUORATE_EVICT_AFTER")]
    pub evict_after: Option<u64>,
    /// How far any node's wall clock may be from true time, as you vouch for: 500us, 10ms. The same at all nodes. Writers of keyspaces that want commit-wait
    /// wait for twice as long (if nothing is said, they are refused here).
    #[arg(long, env = "QUORATE_CLOCK_BOUND", value_name = "TIME")]
    pub clock_bound: Option<String>,
    /// Bytes of keys and values that a shard of a ranged keyspace may hold before it is split in its middle (64 MiB if nothing is said); 0 never
    /// splits one.
    #[arg(long, env = "QUORATE_SPLIT_BYTES")]
    pub split_bytes: Option<u64>,
    /// Operations a second (writes, and reads that its leader answers), five seconds long, beyond which a shard of a ranged keyspace is split where its load is halved
    /// (2500 if nothing is said); 0 never splits one. What is all about one key is not split.
    #[arg(long, env = "QUORATE_SPLIT_OPS")]
    pub split_ops: Option<u64>,
    /// Bytes of keys and values up to which a shard that was split off is merged with the one before it, when nothing was written to it for as long as its history reaches back
    /// (4 MiB if nothing is said); 0 never merges one.
    #[arg(long, env = "QUORATE_MERGE_BYTES")]
    pub merge_bytes: Option<u64>,
    /// Listen beyond loopback without encryption or authentication: anyone who reaches the port may read and write.
    #[arg(long, env = "QUORATE_INSECURE")]
    pub insecure: bool,
    /// Record what this process does in this file, for "quorate diagram" (off if nothing is said); what is in it stays.
    #[arg(long, value_name = "FILE", env = "QUORATE_TRACE")]
    pub trace: Option<PathBuf>,
    /// MiB that the trace may have at most (256 if nothing is said); the node goes on without it.
    #[arg(long, value_name = "MIB", env = "QUORATE_TRACE_LIMIT")]
    pub trace_limit: Option<u64>,
    /// A TOML file with the same names, dashes or underscores.
    #[arg(long, env = "QUORATE_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct NodeArgs {
    #[command(subcommand)]
    pub verb: NodeVerb,
    /// The servers, host:port or URL, with commas.
    #[arg(long, global = true, env = "QUORATE_ENDPOINTS", default_value = "127.0.0.1:2379", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// For programs.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// All members.
    List,
    /// Expect a node at a peer address; it then starts with --join. Without this, --join alone is enough.
    Add {
        /// Where it will listen for peers, host:port.
        peer_address: String,
        /// Without a vote, until it is promoted.
        #[arg(long)]
        learner: bool,
    },
    /// Have shards that live on some nodes leave a node, so that it can be stopped for long; ends when they have left.
    Drain {
        /// Its id or name.
        node: String,
        /// Let them come back.
        #[arg(long)]
        undo: bool,
    },
    /// Give a learner its vote.
    Promote {
        /// Its id or name.
        node: String,
    },
    /// Let a node go; its process ends, and its data directory is of no more use.
    Remove {
        /// Its id or name.
        node: String,
    },
    /// Let a node go for which another has come: that one first gets whatever it has. It may be dead. Ends when it is removed; what takes longer goes on.
    Replace {
        /// The id or name of the one that goes.
        node: String,
        /// The id or name of the one that takes its place: a member already, or joining (start --join).
        #[arg(long)]
        with: String,
    },
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The servers, host:port or URL, with commas.
    #[arg(long, env = "QUORATE_ENDPOINTS", default_value = "127.0.0.1:2379", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

/// What a benchmark does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Writes of random keys.
    Put,
    /// Linearizable reads of one key.
    Range,
    /// Reads of one key as the server has it.
    SerializableRange,
    /// Compare and swap.
    Txn,
    /// Writes, watched by --watchers.
    Watch,
    /// Grants and keep-alives of leases.
    Lease,
}

#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to do.
    #[arg(value_enum)]
    pub workload: Workload,
    /// The servers, host:port or URL, with commas; any server that speaks etcd's API.
    #[arg(long, env = "QUORATE_ENDPOINTS", default_value = "127.0.0.1:2379", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// Requests in flight at once.
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// Connections that they share.
    #[arg(long, default_value_t = 8)]
    pub connections: usize,
    /// Seconds.
    #[arg(long, default_value_t = 10)]
    pub duration: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    pub value_size: usize,
    /// Different keys.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    /// Stop after so many operations instead; each key is then written once, in order.
    #[arg(long)]
    pub total: Option<u64>,
    /// Watchers, for the watch workload.
    #[arg(long, default_value_t = 100)]
    pub watchers: usize,
    /// Process ids of the servers: adds operations per second of their CPU time.
    #[arg(long, value_delimiter = ',')]
    pub server_pids: Vec<u32>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("one_run").args(["seed", "scenario"]).multiple(true))]
pub struct SimArgs {
    /// Run so many seeds.
    #[arg(long, default_value_t = 20)]
    pub seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    pub first: u64,
    /// Replay this one seed, a line per event.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    pub seed: Option<u64>,
    /// Hunt every planted bug with as many seeds as it takes, from --first on.
    #[arg(long, conflicts_with_all = ["seeds", "seed", "sabotage"])]
    pub mutants: bool,
    /// Draw more of something into every plan: anywhere, stale-leaders, rot, forgetfulness, transactions, upgrades, splits, moves, merges, reservations, replication, early, logs; or play another plan: bank.
    #[arg(long, value_name = "NAME", default_value = "anywhere", conflicts_with_all = ["mutants", "scenario"], value_parser = ground)]
    pub ground: quorate_sim::Ground,
    /// Let faults come for so many simulated seconds, rather than for as long as the seed draws.
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["mutants", "scenario"], value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub storm: Option<u64>,
    /// Run each seed once, not twice.
    #[arg(long, conflicts_with_all = ["seed", "mutants", "scenario"])]
    pub once: bool,
    /// Switch one safety mechanism off; "list" names them.
    #[arg(long = "break", value_name = "NAME")]
    pub sabotage: Option<String>,
    /// Play a textbook situation and say whether it ends as its text claims; "list" names them.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["seeds", "first", "mutants", "sabotage", "minimise", "faults", "operations", "json"])]
    pub scenario: Option<String>,
    /// Leave out faults and operations of the seed's run as long as the same rule breaks, and print the shorter command.
    #[arg(long, requires = "seed", conflicts_with_all = ["faults", "operations"])]
    pub minimise: bool,
    /// Of the seed's faults, let only these happen: 3,7,12-40, or none.
    #[arg(long, value_name = "NUMBERS", requires = "seed")]
    pub faults: Option<Numbers>,
    /// Of the clients' operations, ask only these.
    #[arg(long, value_name = "NUMBERS", requires = "seed")]
    pub operations: Option<Numbers>,
    /// Run a large cluster of so many nodes through a quiet day, with --shards, and then three and nine nodes under load; say what it costs.
    #[arg(long, value_name = "NODES", conflicts_with_all = ["seeds", "first", "seed", "mutants", "sabotage", "scenario", "once", "storm", "json"], value_parser = clap::value_parser!(u16).range(3..=200))]
    pub scale: Option<u16>,
    /// Shards of the large cluster.
    #[arg(long, value_name = "SHARDS", requires = "scale", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub shards: u32,
    /// Instead of lines, draw the run of the seed or scenario into this HTML file.
    #[arg(long, value_name = "FILE", requires = "one_run")]
    pub diagram: Option<PathBuf>,
    /// Instead of lines, write the trace of the seed or scenario into this file.
    #[arg(long, value_name = "FILE", requires = "one_run")]
    pub trace: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DiagramArgs {
    /// One trace, as "sim --trace" writes it; or the files of all processes of a cluster, as "start --trace" writes them. Without --out, the last
    /// is the HTML file to write.
    #[arg(required = true, value_name = "FILE")]
    pub traces: Vec<PathBuf>,
    /// The HTML file to write.
    #[arg(long, value_name = "HTML")]
    pub out: Option<PathBuf>,
    /// Draw only what happened from this second on.
    #[arg(long, value_name = "SECONDS")]
    pub from: Option<f64>,
    /// Draw only what happened up to this second.
    #[arg(long, value_name = "SECONDS")]
    pub to: Option<f64>,
    /// Write the one trace that was made of the files of several processes, too.
    #[arg(long, value_name = "FILE")]
    pub merged: Option<PathBuf>,
}

fn ground(name: &str) -> Result<quorate_sim::Ground, String> {
    let all = quorate_sim::Ground::ALL;
    let names: Vec<&str> = all.iter().map(|ground| ground.name()).collect();
    let found = all.into_iter().find(|ground| ground.name() == name);
    found.ok_or_else(|| format!("there are: {}", names.join(", ")))
}
