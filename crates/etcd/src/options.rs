//! What can be set, and every bound of the layer with its reason.

use quorate_kv::limits;
use std::time::Duration;

/// How the layer behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Operations in one branch of a transaction, and compares; etcd's default.
    pub max_txn_ops: usize,
    /// Bytes of a request. etcd's default is 1.5 MiB; the core takes 8 MiB.
    pub max_request_bytes: usize,
    /// The version that clients are told. Kubernetes wants at least 3.5.13.
    pub version: &'static str,
    /// The shortest lease, in seconds: shorter ones are granted this long, as etcd does with its default election timeout.
    pub min_lease_ttl_s: i64,
    /// Between two progress notices of an idle watch that asked for them.
    pub progress_interval: Duration,
    /// Bytes of events in one response of a watch that asked for fragments.
    pub fragment_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_txn_ops: 128,
            max_request_bytes: limits::REQUEST_BYTES_MAX,
            version: "3.5.21",
            min_lease_ttl_s: 2,
            progress_interval: Duration::from_secs(600),
            fragment_bytes: 1 << 20,
        }
    }
}

/// Client connections. Each costs tens of KiB; ten thousand fit a small machine.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;

/// Streams that one connection may have open at once: clients multiplex hundreds of calls and watches.
pub(crate) const STREAMS_PER_CONNECTION_MAX: u32 = 8_192;

/// A client that has not said enough to be told from a stray connection after this long is closed, and so is one of HTTP/1 whose
/// request headers take longer.
pub(crate) const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// A message that has begun must have come after this long: 8 MiB at a modem's pace, 140 KB/s.
pub(crate) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Lines about what clients do wrong are logged this often at most, each kind by itself.
pub(crate) const LOG_PERIOD: Duration = Duration::from_secs(10);

/// A connection without a sign of life is probed this often, and closed when a probe is not answered in time.
pub(crate) const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// Bytes of request headers.
pub(crate) const HEADER_BYTES_MAX: u32 = 64 << 10;

/// Watches on one stream.
pub(crate) const WATCHES_PER_STREAM_MAX: usize = 100_000;

/// Responses that wait for a slow client of one stream; the rest stays in history until it has taken them.
pub(crate) const RESPONSES_QUEUED_MAX: usize = 64;

/// Bytes of the responses that wait for a slow client of one stream. A single larger response waits alone.
pub(crate) const RESPONSE_BYTES_QUEUED_MAX: usize = 2 << 20;

/// Bytes around a request that count towards the message but not towards the request.
pub(crate) const OVERHEAD_BYTES: usize = 512 << 10;

/// Operations and compares in a transaction with all that are nested in it. etcd bounds them along each path only, so that two branches
/// per level double them with every level; 65,536 are more than any client sends, and decoded they take some 10 MB.
pub(crate) const TXN_PARTS_MAX: usize = 1 << 16;

/// Levels of nested transactions that etcd accepts with its default bound on operations, which each level takes one from. Deeper ones
/// are refused in its words; from [`limits::TXN_DEPTH_MAX`] on in ours.
pub(crate) const TXN_DEPTH_ETCD: usize = 127;

const _: () = assert!(limits::TXN_DEPTH_MAX < TXN_DEPTH_ETCD);
