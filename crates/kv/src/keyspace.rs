//! Keyspaces: the units of naming, policy and order, and the shards that they are made of.

use crate::{KeyRange, Policy, RangeEnd};
use bytes::Bytes;
use quorate_env::ShardId;

/// Names a keyspace for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u64);

impl KeyspaceId {
    /// Cluster state as data: members, keyspaces, policies.
    pub const SYSTEM: Self = Self(1);
    /// The `ordered` keyspace that the etcd API serves unless told otherwise.
    pub const DEFAULT: Self = Self(2);
    /// The first that is given to a keyspace that somebody makes.
    pub const FIRST_MADE: Self = Self(16);
}

/// What a keyspace promises about the order of what happens in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyspaceKind {
    /// One shard for ever: one total order, with revisions, watches and compaction.
    Ordered,
    /// As many shards as it takes, each a range of keys. Revisions count within a shard.
    Ranged,
    /// One shard for ever, and records in it instead of keys: appended at the end, with offsets in that order, and cut off at the beginning ([`crate::log`]).
    Log,
}

/// A keyspace, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    /// Its id.
    pub id: KeyspaceId,
    /// Its name, of the cluster's only one at a time: up to [`crate::limits::KEYSPACE_NAME_BYTES_MAX`] of `a-z 0-9 - _ .`.
    pub name: String,
    /// Its kind.
    pub kind: KeyspaceKind,
    /// Its shards with the first key of each, ascending; the first one's is empty.
    pub shards: Vec<(Bytes, ShardId)>,
    /// What is wanted of it.
    pub policy: Policy,
}

impl Keyspace {
    /// The shard that holds a key.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        let behind = self.shards.partition_point(|(start, _)| **start <= *key);
        self.shards[behind.max(1) - 1].1
    }

    /// What of a range each shard holds, ascending.
    pub fn pieces<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = (ShardId, KeyRange)> + 'a {
        self.shards.iter().enumerate().filter_map(move |(at, (start, shard))| {
            let next = self.shards.get(at + 1).map(|(next, _)| next);
            if range.is_single() {
                return (self.shard_of(&range.start) == *shard).then(|| (*shard, range.clone()));
            }
            let end = match (&range.end, next) {
                (RangeEnd::Before(end), Some(next)) => RangeEnd::Before(end.min(next).clone()),
                (end, None) => end.clone(),
                (_, Some(next)) => RangeEnd::Before(next.clone()),
            };
            let piece = KeyRange { start: start.max(&range.start).clone(), end };
            (!piece.is_empty()).then_some((*shard, piece))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_one_shard_and_ranges_are_cut_where_shards_are() {
        let starts = ["", "g", "p"];
        let shards = starts.iter().zip(1..).map(|(start, n)| (Bytes::from(*start), ShardId(n))).collect();
        let (id, kind, policy) = (KeyspaceId(9), KeyspaceKind::Ranged, Policy::OF_MADE);
        let keyspace = Keyspace { id, name: "orders".into(), kind, shards, policy };
        for (key, shard) in [("", 1), ("a", 1), ("fz", 1), ("g", 2), ("oz", 2), ("p", 3), ("z", 3)] {
            assert_eq!(keyspace.shard_of(key.as_bytes()), ShardId(shard), "{key}");
        }
        let cut = |range: &KeyRange| -> Vec<(u64, String, String)> {
            let end = |range: &KeyRange| match &range.end {
                RangeEnd::Single => String::from("single"),
                RangeEnd::Before(end) => String::from_utf8_lossy(end).into_owned(),
                RangeEnd::Unbounded => String::from("on"),
            };
            let start = |range: &KeyRange| String::from_utf8_lossy(&range.start).into_owned();
            keyspace.pieces(range).map(|(shard, piece)| (shard.0, start(&piece), end(&piece))).collect()
        };
        let piece = |shard, start: &str, end: &str| (shard, start.to_owned(), end.to_owned());
        assert_eq!(cut(&KeyRange::single("g")), [piece(2, "g", "single")]);
        assert_eq!(cut(&KeyRange::all()), [piece(1, "", "g"), piece(2, "g", "p"), piece(3, "p", "on")]);
        let range = KeyRange { start: "c".into(), end: RangeEnd::Before("h".into()) };
        assert_eq!(cut(&range), [piece(1, "c", "g"), piece(2, "g", "h")]);
        let range = KeyRange { start: "c".into(), end: RangeEnd::Before("g".into()) };
        assert_eq!(cut(&range), [piece(1, "c", "g")]);
        let empty = KeyRange { start: "h".into(), end: RangeEnd::Before("c".into()) };
        assert_eq!(cut(&empty), []);
    }
}
