//! Counters, in Prometheus' text form, under etcd's names where the meaning is the same.

use crate::compat::CALLS;
use quorate_kv::{Consistency, Db, KeyspaceId, Repairs, ShardCounts};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tonic::{Code, Response, Status};

/// Everything that is counted by method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
    Compact,
    LeaseGrant,
    LeaseRevoke,
    LeaseTimeToLive,
    LeaseLeases,
    MemberList,
    MemberAdd,
    MemberRemove,
    MemberUpdate,
    MemberPromote,
    Status,
    Hash,
    HashKv,
    MoveLeader,
    Alarm,
    Defragment,
    AuthStatus,
    Authenticate,
    Watch,
    LeaseKeepAlive,
}

const METHODS: [(Method, &str, &str); 24] = [
    (Method::Range, "etcdserverpb.KV", "Range"),
    (Method::Put, "etcdserverpb.KV", "Put"),
    (Method::DeleteRange, "etcdserverpb.KV", "DeleteRange"),
    (Method::Txn, "etcdserverpb.KV", "Txn"),
    (Method::Compact, "etcdserverpb.KV", "Compact"),
    (Method::LeaseGrant, "etcdserverpb.Lease", "LeaseGrant"),
    (Method::LeaseRevoke, "etcdserverpb.Lease", "LeaseRevoke"),
    (Method::LeaseTimeToLive, "etcdserverpb.Lease", "LeaseTimeToLive"),
    (Method::LeaseLeases, "etcdserverpb.Lease", "LeaseLeases"),
    (Method::MemberList, "etcdserverpb.Cluster", "MemberList"),
    (Method::MemberAdd, "etcdserverpb.Cluster", "MemberAdd"),
    (Method::MemberRemove, "etcdserverpb.Cluster", "MemberRemove"),
    (Method::MemberUpdate, "etcdserverpb.Cluster", "MemberUpdate"),
    (Method::MemberPromote, "etcdserverpb.Cluster", "MemberPromote"),
    (Method::Status, "etcdserverpb.Maintenance", "Status"),
    (Method::Hash, "etcdserverpb.Maintenance", "Hash"),
    (Method::HashKv, "etcdserverpb.Maintenance", "HashKV"),
    (Method::MoveLeader, "etcdserverpb.Maintenance", "MoveLeader"),
    (Method::Alarm, "etcdserverpb.Maintenance", "Alarm"),
    (Method::Defragment, "etcdserverpb.Maintenance", "Defragment"),
    (Method::AuthStatus, "etcdserverpb.Auth", "AuthStatus"),
    (Method::Authenticate, "etcdserverpb.Auth", "Authenticate"),
    (Method::Watch, "etcdserverpb.Watch", "Watch"),
    (Method::LeaseKeepAlive, "etcdserverpb.Lease", "LeaseKeepAlive"),
];

const CODES: usize = 17;

/// The layer's counters.
pub(crate) struct Metrics {
    handled: [[AtomicU64; CODES]; METHODS.len()],
    pub watch_streams: AtomicU64,
    pub watchers: AtomicU64,
    pub events: AtomicU64,
    pub connections: AtomicU64,
    /// Closed at once, because there were too many.
    pub connections_refused: AtomicU64,
    /// Lost before they were accepted.
    pub connections_failed: AtomicU64,
    /// By row of [`CALLS`].
    unserved: [AtomicU64; CALLS.len()],
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            handled: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            watch_streams: AtomicU64::new(0),
            watchers: AtomicU64::new(0),
            events: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            connections_failed: AtomicU64::new(0),
            unserved: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// Counts an answer on its way out.
    pub fn count<T>(&self, method: Method, answer: Result<T, Status>) -> Result<Response<T>, Status> {
        self.ended(method, answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
        answer.map(Response::new)
    }

    /// Counts a call that has ended.
    pub fn ended(&self, method: Method, code: Code) {
        self.handled[method as usize][code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call that is not served, by its row of [`CALLS`].
    pub fn count_unserved(&self, row: usize) {
        self.unserved[row].fetch_add(1, Ordering::Relaxed);
    }

    fn total(&self, methods: &[Method], code: impl Fn(usize) -> bool) -> u64 {
        let of = |method: &Method| &self.handled[*method as usize];
        let counts = methods.iter().flat_map(|method| of(method).iter().enumerate());
        counts.filter(|(n, _)| code(*n)).map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }
}

/// The page.
pub(crate) async fn page(db: &Arc<dyn Db>, metrics: &Metrics) -> String {
    let mut page = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a string cannot fail.
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    if let Ok(status) = db.status(KeyspaceId::DEFAULT).await {
        let leads = status.leader == Some(db.identity().node);
        line("etcd_server_has_leader", "gauge", "Whether a leader exists.", u64::from(status.leader.is_some()));
        line("etcd_server_is_leader", "gauge", "Whether this node leads.", u64::from(leads));
        line("etcd_server_is_learner", "gauge", "Whether this node has no vote.", u64::from(status.learner));
        line("etcd_server_proposals_committed_total", "gauge", "Last committed log index.", status.committed.0);
        line("etcd_server_proposals_applied_total", "gauge", "Last applied log index.", status.applied.0);
        line("etcd_server_proposals_pending", "gauge", "Proposals waiting for their outcome.", status.pending);
        line("etcd_server_leader_changes_seen_total", "counter", "Leader changes seen.", status.leader_changes);
        line("etcd_mvcc_db_total_size_in_bytes", "gauge", "Bytes of the store.", status.disk_bytes);
        line("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "Bytes in use.", status.disk_bytes_in_use);
        line("etcd_debugging_mvcc_current_revision", "gauge", "The keyspace's revision.", status.header.revision.0);
        line("quorate_disk_full", "gauge", "Whether writes are refused for lack of space.", u64::from(status.no_space));
    }
    if let Ok(members) = db.members(Consistency::Serializable).await {
        line("quorate_members", "gauge", "Members of the cluster.", members.len() as u64);
    }
    let level = u64::from(db.feature_level().0);
    line("quorate_feature_level", "gauge", "What all members of the cluster know how to do.", level);
    let ShardCounts { here, led, asleep } = db.shard_counts();
    line("quorate_shards", "gauge", "Shards with a replica on this node.", here);
    line("quorate_shards_led", "gauge", "Those of them that it leads.", led);
    line("quorate_shards_asleep", "gauge", "Those of them that nobody asks for anything: they cost no time.", asleep);
    let Repairs { bits, pages, files, failures, entries, fetched_bytes } = db.repairs();
    for (what, help, count) in [
        ("pages_by_bit", "Pages of the store in which a bit was flipped back.", bits),
        ("pages", "Pages of the store that were made again from their group.", pages),
        ("files", "Files about the store that were restored or made again.", files),
        ("failures", "Times that something in the store could not be healed in its place.", failures),
        ("log_entries", "Entries of the log that had rotted and are mended.", entries),
        ("fetched_bytes", "Bytes of rows that were lost here and fetched from other nodes.", fetched_bytes),
    ] {
        line(&format!("quorate_repair_{what}_total"), "counter", help, count);
    }
    let writes =
        [Method::Put, Method::DeleteRange, Method::Txn, Method::Compact, Method::LeaseGrant, Method::LeaseRevoke];
    let failed = |code: usize| code == Code::Unavailable as usize;
    line(
        "etcd_server_proposals_failed_total",
        "counter",
        "Proposals without a known outcome.",
        metrics.total(&writes, failed),
    );
    line(
        "etcd_debugging_mvcc_watch_stream_total",
        "gauge",
        "Watch streams.",
        metrics.watch_streams.load(Ordering::Relaxed),
    );
    line("etcd_debugging_mvcc_watcher_total", "gauge", "Watches.", metrics.watchers.load(Ordering::Relaxed));
    line("etcd_debugging_mvcc_events_total", "counter", "Events sent.", metrics.events.load(Ordering::Relaxed));
    line("quorate_client_connections", "gauge", "Client connections.", metrics.connections.load(Ordering::Relaxed));
    line(
        "quorate_client_connections_refused_total",
        "counter",
        "Client connections closed because there were too many.",
        metrics.connections_refused.load(Ordering::Relaxed),
    );
    line(
        "quorate_client_connections_failed_total",
        "counter",
        "Client connections that could not be accepted.",
        metrics.connections_failed.load(Ordering::Relaxed),
    );
    if let Some(bytes) = resident_bytes() {
        line("process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
    }
    page.push_str("# HELP grpc_server_handled_total Calls answered.\n# TYPE grpc_server_handled_total counter\n");
    let mut handled = |service: &str, name: &str, code: Code, count: u64| {
        if count > 0 {
            let labels = format!("grpc_code=\"{code:?}\",grpc_method=\"{name}\",grpc_service=\"{service}\"");
            let _ = writeln!(page, "grpc_server_handled_total{{{labels}}} {count}");
        }
    };
    for (method, service, name) in METHODS {
        for (code, count) in metrics.handled[method as usize].iter().enumerate() {
            handled(service, name, Code::from(code as i32), count.load(Ordering::Relaxed));
        }
    }
    for ((service, name, ..), count) in CALLS.iter().zip(&metrics.unserved) {
        handled(service, name, Code::Unimplemented, count.load(Ordering::Relaxed));
    }
    page
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
