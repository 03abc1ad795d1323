//! Grounds: kinds of plans that have more of something than others, and what is counted in a run on one.

use std::collections::BTreeMap;

/// Where a bug is hunted: what the plans drawn for it have more of than others. All of it is drawn for some seeds without a bug too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ground {
    /// Whatever the seed draws.
    #[default]
    Anywhere,
    /// Leaders that do not notice that they are none, and leases.
    StaleLeaders,
    /// Logs that rot and stores that are damaged, while some replicas lag behind.
    Rot,
    /// Disks that forget.
    Forgetfulness,
    /// Transactions over shards.
    Transactions,
    /// Two releases side by side, and transactions.
    Upgrades,
    /// Shards that split under transactions.
    Splits,
    /// Shards that live on some nodes, and move.
    Moves,
    /// Shards that split, and are merged again when nobody has written to them for a moment.
    Merges,
    /// Keys that are reserved by many at once, while shards split and nodes crash.
    Reservations,
    /// Logs that are appended to, in transactions too, fetched and cut off, while shards move and nodes crash.
    Logs,
    /// Writers who wait for all voters, or for clocks.
    Replication,
    /// Writers who are told when the leader has it, and leaders that fail.
    Early,
    /// A bank of a thousand accounts over many shards, with some of everything, for as long as is asked for.
    Bank,
}

/// A line of a ground's report.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// What is counted.
    pub name: &'static str,
    marks: &'static [&'static str],
    required: bool,
}

impl Count {
    const fn any(name: &'static str, marks: &'static [&'static str]) -> Self {
        Self { name, marks, required: false }
    }

    const fn at_least_one(name: &'static str, marks: &'static [&'static str]) -> Self {
        Self { name, marks, required: true }
    }

    /// How often it happened.
    #[must_use]
    pub fn of(&self, marks: &BTreeMap<&'static str, u64>) -> u64 {
        self.marks.iter().filter_map(|mark| marks.get(mark)).sum()
    }

    /// Whether a run without it shows nothing.
    #[must_use]
    pub fn lacks(&self, marks: &BTreeMap<&'static str, u64>) -> bool {
        self.required && self.of(marks) == 0
    }
}

impl Ground {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Anywhere,
        Self::StaleLeaders,
        Self::Rot,
        Self::Forgetfulness,
        Self::Transactions,
        Self::Upgrades,
        Self::Splits,
        Self::Moves,
        Self::Merges,
        Self::Reservations,
        Self::Logs,
        Self::Replication,
        Self::Early,
        Self::Bank,
    ];

    /// Its name for `--ground`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anywhere => "anywhere",
            Self::StaleLeaders => "stale-leaders",
            Self::Rot => "rot",
            Self::Forgetfulness => "forgetfulness",
            Self::Transactions => "transactions",
            Self::Upgrades => "upgrades",
            Self::Splits => "splits",
            Self::Moves => "moves",
            Self::Merges => "merges",
            Self::Reservations => "reservations",
            Self::Logs => "logs",
            Self::Replication => "replication",
            Self::Early => "early",
            Self::Bank => "bank",
        }
    }

    /// What is counted in a run on it, for its report.
    #[must_use]
    pub const fn counts(self) -> &'static [Count] {
        match self {
            Self::Bank => &BANK,
            _ => &[],
        }
    }
}

/// See [`Ground::counts`].
const BANK: [Count; 8] = [
    Count::at_least_one("splits", &["shard split"]),
    Count::at_least_one("replicas moved away", &["replica moved away"]),
    Count::at_least_one("member changes", &["learner promoted", "member removed", "wiped node returned"]),
    Count::at_least_one("audits", &["audit"]),
    Count::at_least_one("transactions done", &["transaction over shards"]),
    Count::any("transactions that found a change", &["transaction found a change"]),
    Count::any("transactions refused", &["transaction given up"]),
    Count::any("unknown outcomes", &["unknown outcome"]),
];
