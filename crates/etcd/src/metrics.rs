//! Counters, in Prometheus' text form, under etcd's names where the meaning is the same.

use quorate_kv::{Consistency, Db, KeyspaceId};
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
    Status,
    Hash,
    HashKv,
    Alarm,
    Defragment,
}

const METHODS: [(Method, &str, &str); 15] = [
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
    (Method::Status, "etcdserverpb.Maintenance", "Status"),
    (Method::Hash, "etcdserverpb.Maintenance", "Hash"),
    (Method::HashKv, "etcdserverpb.Maintenance", "HashKV"),
    (Method::Alarm, "etcdserverpb.Maintenance", "Alarm"),
    (Method::Defragment, "etcdserverpb.Maintenance", "Defragment"),
];

const CODES: usize = 17;

/// The layer's counters.
pub(crate) struct Metrics {
    handled: [[AtomicU64; CODES]; METHODS.len()],
    pub watch_streams: AtomicU64,
    pub watchers: AtomicU64,
    pub events: AtomicU64,
    pub connections: AtomicU64,
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            handled: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            watch_streams: AtomicU64::new(0),
            watchers: AtomicU64::new(0),
            events: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        })
    }

    /// Counts an answer on its way out.
    pub fn count<T>(&self, method: Method, answer: Result<T, Status>) -> Result<Response<T>, Status> {
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.handled[method as usize][code as usize].fetch_add(1, Ordering::Relaxed);
        answer.map(Response::new)
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
        line("etcd_mvcc_db_total_size_in_bytes", "gauge", "Bytes of the store.", status.disk_bytes);
        line("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "Bytes in use.", status.disk_bytes_in_use);
        line("etcd_debugging_mvcc_current_revision", "gauge", "The keyspace's revision.", status.header.revision.0);
        line("quorate_disk_full", "gauge", "Whether writes are refused for lack of space.", u64::from(status.no_space));
    }
    if let Ok(members) = db.members(Consistency::Serializable).await {
        line("quorate_members", "gauge", "Members of the cluster.", members.len() as u64);
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
    if let Some(bytes) = resident_bytes() {
        line("process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
    }
    page.push_str("# HELP grpc_server_handled_total Calls answered.\n# TYPE grpc_server_handled_total counter\n");
    for (method, service, name) in METHODS {
        for (code, count) in metrics.handled[method as usize].iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let code = format!("{:?}", Code::from(code as i32));
                let labels = format!("grpc_code=\"{code}\",grpc_method=\"{name}\",grpc_service=\"{service}\"");
                let _ = writeln!(page, "grpc_server_handled_total{{{labels}}} {count}");
            }
        }
    }
    page
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
