//! Identifiers. Each is its own type, so that a term never stands where an index was meant.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// One cluster, from its bootstrap to its end. Two clusters never share a cluster id.
    ClusterId, "cluster-"
);
id!(
    /// One process with its data directory.
    NodeId, "n"
);
id!(
    /// One key range with its own consensus group.
    ShardId, "s"
);
id!(
    /// One copy of a shard on a node. Never reused: a replica that lost its disk comes back under a new id.
    ReplicaId, "r"
);
id!(
    /// Drawn once when a data directory is made. The same node id with another incarnation is another disk.
    Incarnation, "i"
);
id!(
    /// A term of the Raft paper: at most one leader per term and shard.
    Term, "t"
);
id!(
    /// A position in a shard's replicated log. The first entry has index 1; 0 means "before the log".
    LogIndex, "@"
);

impl LogIndex {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; the position before the log is its own predecessor.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}
