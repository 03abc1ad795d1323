//! Feature levels as rows of the system keyspace: what each member's release knows, and at which level the cluster is.
//!
//! ```text
//!   level          the cluster's; written once by its first leader, and only ever raised
//!   levels/<id>    what a member knows: each writes its own, when it starts as another release than before
//! ```
//!
//! The system keyspace's leader raises the cluster's level to what all members of all groups have said that they know. Everybody refuses to propose
//! what belongs to a higher one. So whatever is in a log, every member can apply: two releases run side by side while nodes are upgraded one
//! after the other. A node that finds the cluster beyond what it knows stops: it may not go back to a release that old.
//!
//! The level is a fact of the log (nobody proposes by it before having applied it), so it needs no agreement of its own.

use crate::input::Request;
use crate::keyspaces;
use crate::placement;
use crate::rows::{key_of, member_of, unchanged_since};
use bytes::Bytes;
use quorate_env::{DecodeError, NodeId, Reader, ShardId, Timestamp, Writer};
use quorate_kv::{
    Command, Compare, CompareOp, Expected, KeyRange, KeyValue, KeyspaceId, Level, Op, PutOp, Revision, Txn,
};
use std::collections::BTreeMap;

const CLUSTER: &str = "level";
const MEMBERS: &str = "levels/";

const VERSION: u8 = 1;

/// All levels, as of one revision of the system keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// `None` until the first leader has said it.
    cluster: Option<Level>,
    told: BTreeMap<NodeId, Level>,
    revision: Revision,
}

fn encode(level: Level) -> Bytes {
    let mut w = Writer::new();
    w.u8(VERSION);
    w.u16(level.0);
    w.finish().into()
}

fn decode(row: Bytes) -> Result<Level, DecodeError> {
    let mut r = Reader::new(row);
    if r.u8("level row version")? != VERSION {
        return Err(r.error("level row version"));
    }
    let level = Level(r.u16("level")?);
    r.end("level row")?;
    Ok(level)
}

impl Levels {
    /// The keys that make it up.
    #[must_use]
    pub fn ranges() -> [KeyRange; 2] {
        [KeyRange::single(CLUSTER), KeyRange::prefix(MEMBERS)]
    }

    /// The key of what a member knows; it goes when the member goes.
    #[must_use]
    pub fn key(id: NodeId) -> Bytes {
        key_of(MEMBERS, id)
    }

    /// From what is under [`Levels::ranges`].
    pub fn read(kvs: impl IntoIterator<Item = KeyValue>, revision: Revision) -> Result<Self, DecodeError> {
        let mut levels = Self { revision, ..Self::default() };
        for kv in kvs {
            let level = decode(kv.value)?;
            if kv.key == CLUSTER {
                levels.cluster = Some(level);
            } else {
                levels.told.insert(member_of(MEMBERS, &kv.key)?, level);
            }
        }
        Ok(levels)
    }

    /// The cluster's: what may be proposed.
    #[must_use]
    pub fn cluster(&self) -> Level {
        self.cluster.unwrap_or(Level::FIRST)
    }

    /// Whether the first leader has said at which level the cluster begins.
    #[must_use]
    pub const fn begun(&self) -> bool {
        self.cluster.is_some()
    }

    /// What a member has said that it knows.
    #[must_use]
    pub fn of(&self, id: NodeId) -> Option<Level> {
        self.told.get(&id).copied()
    }

    /// What a node writes that has not said yet what it knows.
    #[must_use]
    pub fn tell(&self, id: NodeId, own: Level) -> Option<Txn> {
        let news = self.cluster.is_some() && self.of(id) != Some(own);
        news.then(|| Txn::just(Op::Put(PutOp::of(Self::key(id), encode(own)))))
    }

    /// Whether somebody knows more than the cluster is at: then all might.
    pub(crate) fn may_rise(&self) -> bool {
        self.cluster.is_none_or(|cluster| self.told.values().any(|told| *told > cluster))
    }

    /// What the leader writes, if the cluster is new, or if all of its members know more than it has been at.
    pub(crate) fn raise(&self, members: impl IntoIterator<Item = NodeId>, own: Level) -> Option<Txn> {
        let put = |level| vec![Op::Put(PutOp::of(CLUSTER, encode(level)))];
        let Some(cluster) = self.cluster else {
            let (range, expected) = (KeyRange::single(CLUSTER), Expected::Create(1));
            let fresh = Compare { range, op: CompareOp::Less, expected };
            return Some(Txn { compares: vec![fresh], success: put(own), failure: Vec::new() });
        };
        let lowest = members.into_iter().map(|id| self.of(id).unwrap_or(Level::FIRST)).min()?;
        let compares = unchanged_since(self.revision, Self::ranges());
        (lowest > cluster).then(|| Txn { compares, success: put(lowest), failure: Vec::new() })
    }
}

/// The lowest level at which something may be asked of the cluster.
pub(crate) fn needed(request: &Request) -> Level {
    match request {
        // What it must come after goes into the log with it.
        Request::Reserve(_) | Request::Release { .. } => Level::RESERVED,
        Request::Transact(transaction) if transaction.appends() => Level::LOGS,
        Request::Transact(transaction) if transaction.claims.is_some() => Level::RESERVED,
        Request::Transact(transaction) if transaction.after != Timestamp::ZERO => Level::TIMED,
        Request::Transact(_) | Request::Settle { .. } => Level::ACROSS,
        Request::Look { .. } => Level::TIMED,
        Request::Submit { shard: ShardId(shard), command: Command::Transact(txn) }
            if *shard == KeyspaceId::SYSTEM.0 =>
        {
            txn.success
                .iter()
                .map(|op| keyspaces::level_of(op).max(placement::level_of(op)))
                .max()
                .unwrap_or(Level::FIRST)
        }
        Request::Submit { command, .. } => command.level(),
        _ => Level::FIRST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::LeaseId;
    use quorate_kv::across::Transaction;

    fn levels(cluster: u16, told: &[(u64, u16)]) -> Levels {
        let kv = |key: Bytes, level| KeyValue {
            key,
            value: encode(Level(level)),
            create_revision: Revision(2),
            mod_revision: Revision(3),
            version: 1,
            lease: LeaseId::NONE,
        };
        let members = told.iter().map(|(id, level)| kv(Levels::key(NodeId(*id)), *level));
        Levels::read(std::iter::once(kv(CLUSTER.into(), cluster)).chain(members), Revision(7)).expect("readable")
    }

    #[test]
    fn what_only_a_newer_release_can_read_is_not_asked_for_below_its_level() {
        let transact = |after| Request::Transact(Transaction { after: Timestamp(after), ..Transaction::default() });
        assert_eq!((needed(&transact(0)), needed(&transact(7))), (Level::ACROSS, Level::TIMED));
        let look = Request::Look { looks: Vec::new(), freshness: quorate_kv::Freshness::Any };
        assert_eq!(needed(&look), Level::TIMED);
    }

    fn raised(levels: &Levels, members: &[u64]) -> Option<Bytes> {
        let txn = levels.raise(members.iter().copied().map(NodeId), Level(9))?;
        let [Op::Put(put)] = &txn.success[..] else { panic!("one row is written: {txn:?}") };
        Some(put.value.clone())
    }

    #[test]
    fn a_level_is_what_all_members_know_and_never_falls() {
        assert_eq!(raised(&levels(1, &[(1, 2), (2, 2), (3, 3)]), &[1, 2, 3]), Some(encode(Level(2))));
        assert_eq!(raised(&levels(1, &[(1, 2), (2, 2)]), &[1, 2, 3]), None, "who says nothing knows the first only");
        assert_eq!(raised(&levels(1, &[(1, 2), (2, 1)]), &[1, 2]), None);
        assert_eq!(raised(&levels(3, &[(1, 2), (2, 2)]), &[1, 2]), None, "it never falls");
        assert_eq!(raised(&levels(1, &[(1, 2), (2, 1)]), &[1]), Some(encode(Level(2))), "who is no member any more");
        assert_eq!(raised(&Levels::default(), &[1, 2, 3]), Some(encode(Level(9))), "a new cluster's is its leader's");
    }

    #[test]
    fn a_member_says_once_what_it_knows() {
        let found = levels(1, &[(1, 2)]);
        assert_eq!(found.tell(NodeId(1), Level(2)), None);
        assert!(found.tell(NodeId(1), Level(1)).is_some(), "it went back");
        assert!(found.tell(NodeId(2), Level(2)).is_some());
        assert_eq!(Levels::default().tell(NodeId(2), Level(2)), None, "first the cluster's");
    }
}
