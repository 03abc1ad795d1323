//! Feature levels: what a release can do, as a number that only grows.

use crate::Command;
use std::fmt;

/// What a release can do. A cluster is at the level that all of its members know: what belongs to a higher one is refused, so that a release
/// and the one before it run side by side while nodes are upgraded one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u16);

impl Level {
    /// One ordered keyspace: what etcd's API needs.
    pub const FIRST: Self = Self(1);
    /// Keyspaces that clients make, and transactions over several shards.
    pub const ACROSS: Self = Self(2);
    /// Shards that split.
    pub const SPLIT: Self = Self(3);
    /// Shards that have replicas on some nodes and not on all.
    pub const PLACED: Self = Self(4);
    /// Entries and transactions with timestamps, and reads of a moment.
    pub const TIMED: Self = Self(5);
    /// Groups that sleep while nobody asks for anything.
    pub const ASLEEP: Self = Self(6);
    /// Keys that interactive transactions reserve.
    pub const RESERVED: Self = Self(7);
    /// Keyspaces that are logs.
    pub const LOGS: Self = Self(8);
    /// Keyspaces whose writers wait for all voters, or for clocks.
    pub const REPLICATION: Self = Self(9);
    /// Shards that are merged.
    pub const MERGED: Self = Self(10);
    /// Keyspaces whose writers are told when the leader has it.
    pub const EARLY: Self = Self(11);
    /// What this release knows.
    pub const LATEST: Self = Self::EARLY;
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Command {
    /// The lowest level at which it may be in a log.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Transact(_)
            | Self::LeaseGrant { .. }
            | Self::LeaseRevoke { .. }
            | Self::LeaseExpire { .. }
            | Self::Compact { .. }
            | Self::Call { .. } => Level::FIRST,
            Self::Across { step, .. } if step.appends() => Level::LOGS,
            Self::Across { step, .. } if step.claim().is_some() => Level::RESERVED,
            Self::Across { .. } => Level::ACROSS,
            Self::Split { .. } | Self::Wean { .. } => Level::SPLIT,
            Self::Reserve { .. } => Level::RESERVED,
            Self::Trim { .. } => Level::LOGS,
            Self::Yield { .. } | Self::Absorb(_) => Level::MERGED,
        }
    }
}
