//! Everything that can happen next.

use crate::fault::Fault;
use bytes::Bytes;
use quorate_cluster::{Observation, Request, RequestId};
use quorate_env::Rng;
use quorate_shard::WatcherKey;

/// What the world does next. The messages of a frame have trace ids from `first` on.
#[derive(Clone)]
pub(super) enum Event {
    Tick {
        node: usize,
        life: u64,
    },
    Deliver {
        from: usize,
        to: usize,
        frame: Bytes,
        first: u64,
    },
    Synced {
        node: usize,
        life: u64,
    },
    Flushed {
        node: usize,
        life: u64,
    },
    Observed {
        node: usize,
        life: u64,
        observation: Box<Observation>,
    },
    FlushedLate {
        node: usize,
        life: u64,
    },
    GoOn {
        node: usize,
        life: u64,
    },
    PeerDown {
        node: usize,
        peer: usize,
    },
    Restart {
        node: usize,
    },
    Upgrade {
        node: usize,
    },
    Resume {
        node: usize,
    },
    Client {
        client: usize,
    },
    Looker {
        looker: usize,
    },
    LookerPatience {
        looker: usize,
        request: RequestId,
    },
    Patience {
        client: usize,
        operation: u64,
    },
    Watch {
        watcher: usize,
    },
    Rewatch {
        watcher: usize,
    },
    Progress {
        key: WatcherKey,
    },
    Fault(Fault),
    /// Every cut and clog ends.
    Heal,
    Churn,
    /// Somebody asks for a split.
    Split,
    Move,
    Operator,
    /// Somebody makes the bank's keyspace.
    Found,
    Teller {
        teller: usize,
    },
    TellerPatience {
        teller: usize,
        operation: u64,
        asked: u32,
    },
    /// Somebody makes the logs.
    FoundLogs,
    Producer {
        producer: usize,
    },
    ProducerPatience {
        producer: usize,
        operation: u64,
        asked: u32,
    },
    Follower {
        follower: usize,
    },
    FollowerPatience {
        follower: usize,
        request: RequestId,
    },
    /// Somebody cuts a log off.
    CutLog,
    /// A teller that reserves has thought.
    Locker {
        teller: usize,
        operation: u64,
        asked: u32,
    },
    /// A request that waited.
    Ask {
        node: usize,
        id: RequestId,
        request: Request,
    },
    /// A node stands still.
    Still {
        node: usize,
        life: u64,
    },
    /// A node is told whether its disk is full.
    Space {
        node: usize,
    },
    /// A node's disk and clock are well again.
    Ease {
        node: usize,
    },
    /// A node was told to stop, and does so at the latest then. It led when it was told, or did not.
    Leaving {
        node: usize,
        life: u64,
        latest: u64,
        led: bool,
    },
    Calm,
    /// A fault of a script.
    Again {
        fault: Fault,
        rng: Rng,
    },
}
