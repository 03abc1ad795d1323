//! The flags of the verbs that speak the native API.

use clap::{Args, Subcommand, ValueEnum};
use quorate_client::{Freshness, Start};
use std::ffi::OsString;
use std::path::PathBuf;

/// Whom to ask, and for whom the answer is.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The servers, host:port or URL, with commas: the next is asked when one is not available.
    #[arg(long, global = true, env = "QUORATE_ENDPOINTS", default_value = "127.0.0.1:2379", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// For programs.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The keyspace.
    #[arg(default_value = "default")]
    pub keyspace: String,
    #[command(flatten)]
    pub servers: ServerArgs,
}

#[derive(Debug, Args)]
pub struct KvArgs {
    #[command(subcommand)]
    pub verb: KvVerb,
    /// Where the keys are; "default" is what etcd's clients see.
    #[arg(long, global = true, default_value = "default")]
    pub keyspace: String,
    #[command(flatten)]
    pub servers: ServerArgs,
}

#[derive(Debug, Args)]
pub struct FreshArgs {
    /// How fresh: strict, at:TOKEN, within:500ms, after:TOKEN or any; as the keyspace says (strict, if nobody changed it) if nothing is said. Answers with
    /// --json say their token.
    #[arg(long)]
    pub freshness: Option<Freshness>,
}

#[derive(Debug, Subcommand)]
pub enum KvVerb {
    /// Print a key's value.
    Get {
        /// The key.
        key: OsString,
        #[command(flatten)]
        fresh: FreshArgs,
    },
    /// Write a key.
    Put {
        /// The key.
        key: OsString,
        /// The value; - reads it from standard input.
        value: OsString,
        #[command(flatten)]
        careful: CarefulArgs,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: OsString,
        #[command(flatten)]
        careful: CarefulArgs,
    },
    /// Print keys and values, ascending.
    Scan {
        #[command(flatten)]
        range: RangeArgs,
        /// At most so many.
        #[arg(long)]
        limit: Option<usize>,
        #[command(flatten)]
        fresh: FreshArgs,
    },
    /// Print what happens to keys of an ordered keyspace: revision, put or delete, key, value. Goes on at another server when one goes away.
    Watch {
        /// One key; without it, and without a range, all.
        #[arg(conflicts_with_all = ["prefix", "from", "to"])]
        key: Option<OsString>,
        #[command(flatten)]
        range: RangeArgs,
        /// Begin with this revision instead of what happens next.
        #[arg(long)]
        revision: Option<u64>,
        /// With --json: tell what was there before, too.
        #[arg(long, requires = "json")]
        prev: bool,
    },
    /// Carry out a transaction over any keyspaces.
    Tx {
        /// Its JSON, as for POST /v1/tx; - reads it from standard input.
        file: PathBuf,
        /// Name what you want: what was done under a name is not done again. Drawn at random if nothing is said.
        #[arg(long, value_name = "NAME")]
        idempotency_key: Option<String>,
    },
}

/// Which keys.
#[derive(Debug, Args)]
pub struct RangeArgs {
    /// Keys that begin so.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub prefix: Option<OsString>,
    /// Keys from this one on.
    #[arg(long)]
    pub from: Option<OsString>,
    /// Keys before this one.
    #[arg(long)]
    pub to: Option<OsString>,
}

/// What must be so before a key is written, and under which name it is.
#[derive(Debug, Args)]
pub struct CarefulArgs {
    /// Only if the key is there, or is not.
    #[arg(long, value_name = "true|false")]
    pub if_exists: Option<bool>,
    /// Only if this is its value.
    #[arg(long, value_name = "VALUE")]
    pub if_value: Option<OsString>,
    /// Only if it was written so often since it was made; 0 if it is not there.
    #[arg(long, value_name = "NUMBER")]
    pub if_version: Option<i64>,
    /// Only if this is the revision of its last write; 0 if it is not there.
    #[arg(long, value_name = "REVISION")]
    pub if_mod_revision: Option<i64>,
    /// Name what you want: what was done under a name is not done again. Drawn at random if nothing is said.
    #[arg(long, value_name = "NAME")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct KeyspaceArgs {
    #[command(subcommand)]
    pub verb: KeyspaceVerb,
    #[command(flatten)]
    pub servers: ServerArgs,
}

/// What a keyspace promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One shard, one order: can be watched.
    Ordered,
    /// As many shards as it takes.
    Ranged,
    /// One shard, with records in it instead of keys.
    Log,
}

#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    pub verb: LogVerb,
    #[command(flatten)]
    pub servers: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub enum LogVerb {
    /// Append a record, and print its offset.
    Append {
        /// A keyspace of the kind log.
        log: String,
        /// What it says; - reads it from standard input.
        value: OsString,
        /// What it is about.
        #[arg(long)]
        key: Option<OsString>,
        /// Name what you want: what was done under a name is not done again. Drawn at random if nothing is said.
        #[arg(long, value_name = "NAME")]
        idempotency_key: Option<String>,
    },
    /// Print records: offset, key, value.
    Fetch {
        /// The log.
        log: String,
        /// Begin with this offset; first is the first that is kept, end the next that is appended.
        #[arg(long, value_name = "OFFSET", default_value = "first")]
        from: Start,
        /// At most so many.
        #[arg(long)]
        max: Option<u64>,
        /// Wait for more when all are printed.
        #[arg(long)]
        follow: bool,
    },
    /// Cut off what comes before an offset, for good, and print the first offset that is kept.
    Trim {
        /// The log.
        log: String,
        /// The first offset that is kept.
        #[arg(long, value_name = "OFFSET")]
        before: u64,
    },
}

/// Whose disks a write is on before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Replication {
    /// Those of a majority.
    Majority,
    /// Those of all voters.
    All,
    /// That of the leader, which the others follow: what it acknowledged last is lost if it fails.
    Leader,
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

#[derive(Debug, Subcommand)]
pub enum KeyspaceVerb {
    /// All keyspaces and their shards.
    List,
    /// Make one.
    Create {
        /// 1 to 64 of a-z 0-9 - _ .
        name: String,
        /// What it promises.
        #[arg(long, value_enum, default_value = "ranged")]
        kind: Kind,
        /// Where shards begin, besides the first; several with commas.
        #[arg(long, value_delimiter = ',')]
        split_at: Vec<OsString>,
        /// Of each shard, 1 to 7 (3 if nothing is said); as many as there are nodes, if those are fewer.
        #[arg(long)]
        replicas: Option<u32>,
    },
    /// Where the shards of one live.
    Shards {
        /// The keyspace.
        name: String,
    },
    /// Want something else of one; what is not named stays.
    Set {
        /// The keyspace.
        name: String,
        /// For so long what was overwritten can still be read, and watches can begin there: 90s, 10m, 1h, 7d or forever.
        #[arg(long, value_name = "TIME")]
        history: Option<String>,
        /// Of reads and scans that do not say: strict, within:500ms or any.
        #[arg(long)]
        freshness: Option<Freshness>,
        /// Of a log: records older than this are cut off. 90s, 10m, 1h, 7d or forever.
        #[arg(long, value_name = "TIME")]
        retain: Option<String>,
        /// Of a log: the oldest records are cut off while their keys and values are more than this. 500MiB, 10GiB or forever.
        #[arg(long, value_name = "SIZE")]
        retain_bytes: Option<String>,
        /// Whose disks a write is on before it is acknowledged. With all, while one is away, the outcome of a write is unknown.
        #[arg(long)]
        replication: Option<Replication>,
        /// Acknowledge a write only when its timestamp is over on every clock within the nodes' --clock-bound, so that timestamps are in the order of what was
        /// done, whoever did it.
        #[arg(long, value_name = "ON|OFF")]
        commit_wait: Option<Switch>,
    },
    /// Give the keys from one on, up to where the next shard begins, a shard of their own.
    Split {
        /// The keyspace.
        name: String,
        /// The first key of the new shard.
        #[arg(long)]
        at: OsString,
    },
}
