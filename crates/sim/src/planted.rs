//! Planted bugs: each switches one safety mechanism off, and some check must notice.

use quorate_cluster::Sabotage;

/// What the driver does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverBug {
    /// The disk reports what it has not synced.
    SkipSync,
    /// Hard states are not written.
    ForgetVote,
    /// A batch of watch events is dropped.
    LoseWatchEvents,
}

/// A planted bug.
#[derive(Debug)]
pub struct Planted {
    /// Its name for `--break`.
    pub name: &'static str,
    /// What it breaks.
    pub what: &'static str,
    pub(crate) sabotage: Sabotage,
    pub(crate) driver: Option<DriverBug>,
}

const NONE: Sabotage = Sabotage {
    read_without_quorum: false,
    ack_before_persist: false,
    drop_sessions: false,
    expire_early: false,
    skip_history: false,
    progress_ahead: false,
    compact_unflushed: false,
};

/// Every planted bug.
pub const PLANTED: &[Planted] = &[
    Planted {
        name: "read-without-quorum",
        what: "linearizable reads are served from local state",
        sabotage: Sabotage { read_without_quorum: true, ..NONE },
        driver: None,
    },
    Planted {
        name: "ack-before-persist",
        what: "entries are acknowledged before they are durable",
        sabotage: Sabotage { ack_before_persist: true, ..NONE },
        driver: None,
    },
    Planted {
        name: "drop-sessions",
        what: "the session table is lost when the leader changes, so retries apply twice",
        sabotage: Sabotage { drop_sessions: true, ..NONE },
        driver: None,
    },
    Planted {
        name: "expire-early",
        what: "leases expire a second before their time",
        sabotage: Sabotage { expire_early: true, ..NONE },
        driver: None,
    },
    Planted {
        name: "skip-history",
        what: "a watch that starts in the past misses what is no longer in memory",
        sabotage: Sabotage { skip_history: true, ..NONE },
        driver: None,
    },
    Planted {
        name: "progress-ahead",
        what: "a progress mark is ahead of its events",
        sabotage: Sabotage { progress_ahead: true, ..NONE },
        driver: None,
    },
    Planted {
        name: "compact-unflushed",
        what: "the log forgets entries that the store has not made durable",
        sabotage: Sabotage { compact_unflushed: true, ..NONE },
        driver: None,
    },
    Planted {
        name: "skip-sync",
        what: "the disk says durable and is not",
        sabotage: NONE,
        driver: Some(DriverBug::SkipSync),
    },
    Planted {
        name: "forget-vote",
        what: "term and vote are not written down",
        sabotage: NONE,
        driver: Some(DriverBug::ForgetVote),
    },
    Planted {
        name: "lose-watch-events",
        what: "a batch of events is lost on its way to a watch",
        sabotage: NONE,
        driver: Some(DriverBug::LoseWatchEvents),
    },
];

/// The planted bug of a name.
#[must_use]
pub fn planted(name: &str) -> Option<&'static Planted> {
    PLANTED.iter().find(|planted| planted.name == name)
}
