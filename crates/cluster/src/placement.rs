//! Where shards live, as rows of the system keyspace.
//!
//! ```text
//!   placements/<shard>   the nodes that are to have a replica of it, and with whom its group began
//!   groups/<shard>       whom its group has: its leader says so whenever that changes
//!   replicas/<keyspace>  how many replicas each of its shards is to have
//!   zones/<node>         what fails together with it; each node says its own
//!   drained/<node>       it is to have no replica of a placed shard, as far as there are others that can
//!   replaced/<node>      the node that is to have what this one has; when it has, this one goes (`replacing.rs`)
//! ```
//!
//! A shard without a placement has a replica on every member, as the system keyspace and the default one do. A placement is a wish, as a member's row is
//! one: the leader of the shard's group carries it out (`reshape`), and says so in `groups/`. What is said there was true once, behind the entry that it
//! names; whoever goes by it must live with that.

use crate::keyspaces::KeyspaceRow;
use crate::members::{MemberState, Roster, Wanted};
use crate::rows::{key_of, member_of, number_of, numbered, unchanged};
use crate::wire::node_of;
use bytes::Bytes;
use quorate_consensus::Membership;
use quorate_env::{DecodeError, LogIndex, NodeId, Reader, ReplicaId, ShardId, Writer};
use quorate_kv::{Compare, DeleteOp, KeyRange, KeyValue, KeyspaceId, Level, Op, PutOp, Revision, Txn, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PLACEMENTS: &str = "placements/";
const GROUPS: &str = "groups/";
const REPLICAS: &str = "replicas/";
const ZONES: &str = "zones/";
const DRAINED: &str = "drained/";
const REPLACED: &str = "replaced/";

/// Where all rows of this file are, by what they say.
const ALL: [&str; 6] = [PLACEMENTS, GROUPS, REPLICAS, ZONES, DRAINED, REPLACED];

/// Of all rows of this file.
const VERSION: u8 = 1;

/// The lowest level at which an operation on the system keyspace may be done.
pub(crate) fn level_of(op: &Op) -> Level {
    match op {
        Op::Put(put) if ALL.iter().any(|it| put.key.starts_with(it.as_bytes())) => Level::PLACED,
        _ => Level::FIRST,
    }
}

/// Where one shard is to live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The first members of its group; none if it was split off another.
    pub founders: BTreeSet<NodeId>,
    /// The nodes that are to have a replica.
    pub wanted: BTreeSet<NodeId>,
}

/// Whom a shard's group had, as of one entry of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRow {
    /// The entry.
    pub index: LogIndex,
    /// Those with a vote.
    pub voters: BTreeSet<NodeId>,
    /// Those who only listen.
    pub learners: BTreeSet<NodeId>,
}

impl GroupRow {
    /// What a leader says that has applied its log up to an entry.
    #[must_use]
    pub fn of(index: LogIndex, membership: &Membership) -> Self {
        let voters: BTreeSet<NodeId> = membership.all_voters().into_iter().map(node_of).collect();
        let learners = membership.all().into_iter().map(node_of).filter(|node| !voters.contains(node)).collect();
        Self { index, voters, learners }
    }

    /// Whether a node was in it.
    #[must_use]
    pub fn has(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.voters, &self.learners) == (&other.voters, &other.learners)
    }
}

fn nodes(w: &mut Writer, nodes: &BTreeSet<NodeId>) {
    w.varint(nodes.len() as u64);
    nodes.iter().for_each(|node| w.u64(node.0));
}

fn read_nodes(r: &mut Reader) -> Result<BTreeSet<NodeId>, DecodeError> {
    let mut nodes = BTreeSet::new();
    for _ in 0..r.count("nodes")? {
        nodes.insert(NodeId(r.u64("node")?));
    }
    Ok(nodes)
}

fn read_row<T>(row: Bytes, f: impl FnOnce(&mut Reader) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    let mut r = Reader::new(row);
    if r.u8("placement row version")? != VERSION {
        return Err(r.error("placement row version"));
    }
    let read = f(&mut r)?;
    r.end("placement row")?;
    Ok(read)
}

fn write_row(f: impl FnOnce(&mut Writer)) -> Bytes {
    let mut w = Writer::new();
    w.u8(VERSION);
    f(&mut w);
    w.finish().into()
}

impl Placement {
    fn encode(&self) -> Bytes {
        write_row(|w| [&self.founders, &self.wanted].into_iter().for_each(|list| nodes(w, list)))
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        read_row(row, |r| Ok(Self { founders: read_nodes(r)?, wanted: read_nodes(r)? }))
    }
}

impl GroupRow {
    fn encode(&self) -> Bytes {
        write_row(|w| {
            w.varint(self.index.0);
            nodes(w, &self.voters);
            nodes(w, &self.learners);
        })
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        read_row(row, |r| {
            Ok(Self { index: LogIndex(r.varint("index")?), voters: read_nodes(r)?, learners: read_nodes(r)? })
        })
    }
}

/// All rows about where shards live, as of one revision of the system keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placements {
    placed: BTreeMap<ShardId, (Arc<Placement>, Revision)>,
    groups: BTreeMap<ShardId, (Arc<GroupRow>, Revision)>,
    replicas: BTreeMap<KeyspaceId, usize>,
    zones: BTreeMap<NodeId, String>,
    drained: BTreeSet<NodeId>,
    replaced: BTreeMap<NodeId, (NodeId, Revision)>,
}

impl Placements {
    /// The keys that make it up.
    #[must_use]
    pub fn ranges() -> [KeyRange; 6] {
        ALL.map(KeyRange::prefix)
    }

    /// From what is under [`Placements::ranges`].
    pub fn read(kvs: impl IntoIterator<Item = KeyValue>) -> Result<Self, DecodeError> {
        let mut placements = Self::default();
        kvs.into_iter().try_for_each(|kv| placements.write(kv))?;
        Ok(placements)
    }

    /// The shard that a row is about, if it is about one.
    pub(crate) fn shard_of(key: &Bytes) -> Option<ShardId> {
        [PLACEMENTS, GROUPS].into_iter().find_map(|prefix| number_of(prefix, key).ok()).map(ShardId)
    }

    /// A row is written.
    pub(crate) fn write(&mut self, kv: KeyValue) -> Result<(), DecodeError> {
        let (key, revision) = (kv.key, kv.mod_revision);
        if key.starts_with(PLACEMENTS.as_bytes()) {
            let shard = ShardId(number_of(PLACEMENTS, &key)?);
            self.placed.insert(shard, (Arc::new(Placement::decode(kv.value)?), revision));
        } else if key.starts_with(GROUPS.as_bytes()) {
            let shard = ShardId(number_of(GROUPS, &key)?);
            self.groups.insert(shard, (Arc::new(GroupRow::decode(kv.value)?), revision));
        } else if key.starts_with(REPLICAS.as_bytes()) {
            let replicas = read_row(kv.value, |r| r.varint("replicas"))?;
            self.replicas.insert(KeyspaceId(number_of(REPLICAS, &key)?), replicas as usize);
        } else if key.starts_with(DRAINED.as_bytes()) {
            self.drained.insert(member_of(DRAINED, &key)?);
        } else if key.starts_with(REPLACED.as_bytes()) {
            let by = NodeId(read_row(kv.value, |r| r.u64("node"))?);
            self.replaced.insert(member_of(REPLACED, &key)?, (by, revision));
        } else {
            let zone = read_row(kv.value, |r| Ok(String::from_utf8_lossy(&r.bytes("zone")?).into_owned()))?;
            self.zones.insert(member_of(ZONES, &key)?, zone);
        }
        Ok(())
    }

    /// A row is removed.
    pub(crate) fn remove(&mut self, key: &Bytes) -> Result<(), DecodeError> {
        if key.starts_with(PLACEMENTS.as_bytes()) {
            self.placed.remove(&ShardId(number_of(PLACEMENTS, key)?));
        } else if key.starts_with(GROUPS.as_bytes()) {
            self.groups.remove(&ShardId(number_of(GROUPS, key)?));
        } else if key.starts_with(REPLICAS.as_bytes()) {
            self.replicas.remove(&KeyspaceId(number_of(REPLICAS, key)?));
        } else if key.starts_with(DRAINED.as_bytes()) {
            self.drained.remove(&member_of(DRAINED, key)?);
        } else if key.starts_with(REPLACED.as_bytes()) {
            self.replaced.remove(&member_of(REPLACED, key)?);
        } else {
            self.zones.remove(&member_of(ZONES, key)?);
        }
        Ok(())
    }

    /// Every placed shard, ascending.
    pub fn placed(&self) -> impl Iterator<Item = (ShardId, &Placement)> {
        self.placed.iter().map(|(shard, (placement, _))| (*shard, &**placement))
    }

    /// Where a shard is to live; `None` if everywhere.
    #[must_use]
    pub fn of(&self, shard: ShardId) -> Option<&Placement> {
        self.placed.get(&shard).map(|(placement, _)| &**placement)
    }

    /// With whom the group of a shard that somebody made began.
    pub fn founders(&self, shard: ShardId, row: &KeyspaceRow) -> Vec<ReplicaId> {
        let placed = self.of(shard).map(|placement| placement.founders.iter().map(|node| ReplicaId(node.0)).collect());
        placed.unwrap_or_else(|| row.founders.clone())
    }

    /// What the leader of a shard's group last said.
    #[must_use]
    pub fn group(&self, shard: ShardId) -> Option<&GroupRow> {
        self.groups.get(&shard).map(|(group, _)| &**group)
    }

    /// How many replicas a keyspace's shards are to have.
    #[must_use]
    pub fn replicas_of(&self, keyspace: KeyspaceId) -> usize {
        self.replicas.get(&keyspace).copied().unwrap_or(limits::REPLICAS_DEFAULT)
    }

    /// A node's zone; empty if it has said none.
    #[must_use]
    pub fn zone(&self, node: NodeId) -> &str {
        self.zones.get(&node).map_or("", String::as_str)
    }

    /// Nodes that are to have no replica of a placed shard, as far as there are others that can.
    #[must_use]
    pub fn drained(&self) -> &BTreeSet<NodeId> {
        &self.drained
    }

    /// Adds to what is written that a shard lives nowhere any more.
    pub(crate) fn forget(shard: ShardId, txn: &mut Txn) {
        let rows = [PLACEMENTS, GROUPS].map(|prefix| KeyRange::single(numbered(prefix, shard.0)));
        txn.success.extend(rows.map(|range| Op::Delete(DeleteOp { range, prev_kv: false })));
    }

    /// What to submit to the system keyspace so that a node is drained, or is not any more.
    #[must_use]
    pub fn drain(node: NodeId, drained: bool) -> Txn {
        let key = key_of(DRAINED, node);
        Txn::just(match drained {
            true => Op::Put(PutOp::of(key, write_row(|_| {}))),
            false => Op::Delete(DeleteOp { range: KeyRange::single(key), prev_kv: false }),
        })
    }

    /// Nodes that are to be replaced, each with the one that is to have what it has, and the revision of the row that says so.
    pub fn replaced(&self) -> impl Iterator<Item = (NodeId, NodeId, Revision)> {
        self.replaced.iter().map(|(node, (by, revision))| (*node, *by, *revision))
    }

    /// The node that is to have what a node has, if that is to be replaced.
    #[must_use]
    pub fn replaced_by(&self, node: NodeId) -> Option<NodeId> {
        self.replaced.get(&node).map(|(by, _)| *by)
    }

    /// What to write so that a node is replaced by another.
    #[must_use]
    pub fn replace(node: NodeId, by: NodeId) -> Op {
        Op::Put(PutOp::of(key_of(REPLACED, node), write_row(|w| w.u64(by.0))))
    }

    /// Holds as long as it is to be replaced as it was to be at a revision.
    pub(crate) fn still_replaced(node: NodeId, at: Revision) -> Compare {
        unchanged(key_of(REPLACED, node), Some(at))
    }

    /// Whoever was to be replaced is not any more.
    pub(crate) fn replace_no_more(node: NodeId) -> Op {
        Op::Delete(DeleteOp { range: KeyRange::single(key_of(REPLACED, node)), prev_kv: false })
    }

    /// The keys that say where shards are to live.
    pub(crate) fn wishes_range() -> KeyRange {
        KeyRange::prefix(PLACEMENTS)
    }

    /// Whether a shard has the replicas that it is to have, and they all vote.
    #[must_use]
    pub fn is_settled(&self, shard: ShardId) -> bool {
        match (self.of(shard), self.group(shard)) {
            (Some(placement), Some(group)) => placement.wanted == group.voters && group.learners.is_empty(),
            (placement, _) => placement.is_none(),
        }
    }

    /// Whether a node is to open a replica of a shard that is not there yet.
    #[must_use]
    pub fn opens(&self, shard: ShardId, node: NodeId) -> bool {
        let Some(placement) = self.of(shard) else { return true };
        // Its group may not be able to begin without this founder, wherever it is to live by now.
        let founds = || placement.founders.contains(&node) && self.group(shard).is_none_or(|group| group.has(node));
        placement.wanted.contains(&node) || founds()
    }

    /// Whether some placed shard may have a replica on a node, as far as these rows can tell.
    #[must_use]
    pub fn may_use(&self, node: NodeId) -> bool {
        self.placed.iter().any(|(shard, (placement, _))| {
            placement.wanted.contains(&node) || self.group(*shard).is_none_or(|group| group.has(node))
        })
    }

    /// All nodes that placed shards have replicas on.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.groups.values().flat_map(|(group, _)| group.voters.iter().chain(&group.learners).copied())
    }

    /// Who may have a replica of a shard that this node has none of: those who lead it or did are more likely among the first.
    #[must_use]
    pub(crate) fn hosts(&self, shard: ShardId) -> Vec<NodeId> {
        let said = self.group(shard).into_iter().flat_map(|group| group.voters.iter());
        let asked = self.of(shard).into_iter().flat_map(|placement| placement.wanted.iter().chain(&placement.founders));
        let mut hosts: Vec<NodeId> = Vec::new();
        for node in said.chain(asked) {
            if !hosts.contains(node) {
                hosts.push(*node);
            }
        }
        hosts
    }

    /// What is wanted of a shard's replicas.
    #[must_use]
    pub fn wishes<'a>(&'a self, shard: ShardId, roster: &'a Roster) -> Wishes<'a> {
        Wishes { roster, placed: self.of(shard).map(|placement| &placement.wanted) }
    }

    /// What to write for the shards of a new keyspace, of which each begins where it is to live.
    pub fn found(keyspace: KeyspaceId, replicas: usize, places: Vec<(ShardId, BTreeSet<NodeId>)>) -> Vec<Op> {
        let count = PutOp::of(numbered(REPLICAS, keyspace.0), write_row(|w| w.varint(replicas as u64)));
        let place = |(shard, wanted): (ShardId, BTreeSet<NodeId>)| {
            let placement = Placement { founders: wanted.clone(), wanted };
            Op::Put(PutOp::of(numbered(PLACEMENTS, shard.0), placement.encode()))
        };
        std::iter::once(Op::Put(count)).chain(places.into_iter().map(place)).collect()
    }

    /// What a transaction must do besides that splits a shard: the child is to live where its parent is to.
    pub fn inherit(&self, parent: ShardId, child: ShardId, txn: &mut Txn) {
        if let Some((placement, revision)) = self.placed.get(&parent) {
            let place = Placement { founders: BTreeSet::new(), wanted: placement.wanted.clone() };
            txn.compares.push(unchanged(numbered(PLACEMENTS, parent.0), Some(*revision)));
            txn.success.push(Op::Put(PutOp::of(numbered(PLACEMENTS, child.0), place.encode())));
        }
    }

    /// What to submit to the system keyspace so that a shard comes to live elsewhere. It fails if somebody else was faster. `None` if the shard is not
    /// placed.
    #[must_use]
    pub fn place(&self, shard: ShardId, wanted: BTreeSet<NodeId>) -> Option<Txn> {
        let (placement, revision) = self.placed.get(&shard)?;
        let placement = Placement { wanted, ..Placement::clone(placement) };
        let key = numbered(PLACEMENTS, shard.0);
        Some(Txn {
            compares: vec![unchanged(key.clone(), Some(*revision))],
            success: vec![Op::Put(PutOp::of(key, placement.encode()))],
            failure: Vec::new(),
        })
    }

    /// What a leader writes whose group is not the one that was last said. Nothing, if it lags behind who said that.
    #[must_use]
    pub(crate) fn say(&self, shard: ShardId, group: &GroupRow) -> Option<Txn> {
        let said = self.groups.get(&shard);
        if said.is_some_and(|(said, _)| said.is_of(group) || group.index <= said.index) {
            return None;
        }
        let key = numbered(GROUPS, shard.0);
        Some(Txn {
            compares: vec![unchanged(key.clone(), said.map(|(_, revision)| *revision))],
            success: vec![Op::Put(PutOp::of(key, group.encode()))],
            failure: Vec::new(),
        })
    }

    /// What a node writes that has not said yet what its zone is.
    #[must_use]
    pub(crate) fn tell_zone(&self, node: NodeId, zone: &str) -> Option<Txn> {
        let value = write_row(|w| w.bytes(zone.as_bytes()));
        (self.zone(node) != zone).then(|| Txn::just(Op::Put(PutOp::of(key_of(ZONES, node), value))))
    }

    /// The keys of what is said of a node; they go when the member goes.
    #[must_use]
    pub(crate) fn keys_of(node: NodeId) -> [Bytes; 3] {
        [ZONES, DRAINED, REPLACED].map(|rows| key_of(rows, node))
    }
}

/// What is wanted of one shard's replicas.
#[derive(Clone, Copy, Debug)]
pub struct Wishes<'a> {
    roster: &'a Roster,
    /// `None` is everywhere.
    placed: Option<&'a BTreeSet<NodeId>>,
}

impl Wishes<'_> {
    /// Of one of them; `None` if nobody has said anything of its node.
    #[must_use]
    pub fn wanted(&self, replica: ReplicaId) -> Option<Wanted> {
        let Some(placed) = self.placed else { return self.roster.wanted(replica) };
        let node = node_of(replica);
        if self.roster.removed.contains_key(&node) || !placed.contains(&node) {
            return Some(Wanted::Gone);
        }
        let learns = self.roster.rows.get(&node).is_some_and(|(row, _)| row.state == MemberState::Learner);
        Some(if learns { Wanted::Learner } else { Wanted::Voter })
    }

    /// Whether the shard lives on some nodes and not on all.
    #[must_use]
    pub fn is_placed(&self) -> bool {
        self.placed.is_some()
    }

    /// Those that are to be in the group, if they have started and stay. Of a node of the first configuration nobody may have said anything.
    #[must_use]
    pub fn come(&self) -> Vec<ReplicaId> {
        let Some(placed) = self.placed else {
            return self.roster.started().map(|row| ReplicaId(row.id.0)).collect();
        };
        let stays = |node: &&NodeId| match self.roster.rows.get(node) {
            Some((row, _)) => row.incarnation.is_some() && row.state != MemberState::Leaving,
            None => !self.roster.removed.contains_key(node),
        };
        placed.iter().filter(stays).map(|node| ReplicaId(node.0)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use quorate_kv::LeaseId;

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    /// The system keyspace's rows about places, as transactions make them.
    #[derive(Default)]
    pub(crate) struct Rows {
        rows: BTreeMap<Bytes, (Bytes, Revision)>,
        revision: u64,
    }

    impl Rows {
        fn write(&mut self, ops: &[Op]) {
            self.revision += 1;
            for op in ops {
                let Op::Put(put) = op else { panic!("only puts: {op:?}") };
                assert_eq!(level_of(op), Level::PLACED);
                self.rows.insert(put.key.clone(), (put.value.clone(), Revision(self.revision)));
            }
        }

        pub(crate) fn read(&self) -> Placements {
            let kv = |(key, (value, mod_revision)): (&Bytes, &(Bytes, Revision))| KeyValue {
                key: key.clone(),
                value: value.clone(),
                create_revision: Revision(2),
                mod_revision: *mod_revision,
                version: 1,
                lease: LeaseId::NONE,
            };
            Placements::read(self.rows.iter().map(kv)).expect("readable")
        }

        /// Shards are made, and their groups have begun.
        pub(crate) fn found(&mut self, places: Vec<(ShardId, BTreeSet<NodeId>)>) {
            self.write(&Placements::found(KeyspaceId(16), 3, places.clone()));
            places.iter().for_each(|(shard, wanted)| self.settled(*shard, wanted));
        }

        pub(crate) fn place(&mut self, shard: ShardId, wanted: &BTreeSet<NodeId>) {
            let txn = self.read().place(shard, wanted.clone()).expect("placed");
            self.write(&txn.success);
        }

        /// A shard's leader says that it lives there.
        pub(crate) fn settled(&mut self, shard: ShardId, nodes: &BTreeSet<NodeId>) {
            let index = LogIndex(self.revision);
            let group = GroupRow { index, voters: nodes.clone(), learners: BTreeSet::new() };
            if let Some(txn) = self.read().say(shard, &group) {
                self.write(&txn.success);
            }
        }

        pub(crate) fn drain(&mut self, node: NodeId) {
            self.write(&Placements::drain(node, true).success);
        }

        pub(crate) fn replace(&mut self, node: NodeId, by: NodeId) {
            self.write(&[Placements::replace(node, by)]);
        }

        pub(crate) fn zone(&mut self, node: NodeId, zone: &str) {
            let txn = self.read().tell_zone(node, zone).expect("it has said nothing");
            self.write(&txn.success);
        }
    }

    const SHARD: ShardId = ShardId(17);

    fn founded() -> Rows {
        let mut rows = Rows::default();
        let places = vec![(SHARD, set(&[1, 2])), (ShardId(18), set(&[2, 3]))];
        rows.write(&Placements::found(KeyspaceId(16), 2, places));
        rows
    }

    fn group(index: u64, voters: &[u64]) -> GroupRow {
        GroupRow { index: LogIndex(index), voters: set(voters), learners: BTreeSet::new() }
    }

    #[test]
    fn rows_survive_and_what_is_nowhere_is_everywhere() {
        let rows = founded().read();
        assert_eq!(rows.of(SHARD).expect("placed").wanted, set(&[1, 2]));
        assert_eq!((rows.replicas_of(KeyspaceId(16)), rows.replicas_of(KeyspaceId(20))), (2, limits::REPLICAS_DEFAULT));
        assert!(rows.opens(SHARD, NodeId(1)) && !rows.opens(SHARD, NodeId(3)));
        assert!(rows.opens(ShardId(2), NodeId(3)), "it is not placed");
        assert!(rows.is_settled(ShardId(2)) && !rows.is_settled(SHARD));
        let placement = Placement { founders: set(&[1]), wanted: set(&[2, 3]) }.encode();
        for len in 0..placement.len() {
            assert!(Placement::decode(placement.slice(..len)).is_err());
        }
    }

    #[test]
    fn a_leader_says_whom_its_group_has_and_an_older_one_does_not() {
        let mut rows = founded();
        rows.write(&rows.read().say(SHARD, &group(5, &[1, 2])).expect("nobody has said anything").success);
        let rows = rows.read();
        assert!(rows.is_settled(SHARD));
        assert_eq!(rows.say(SHARD, &group(9, &[1, 2])), None, "that is known");
        assert_eq!(rows.say(SHARD, &group(5, &[1])), None, "it was so before");
        let txn = rows.say(SHARD, &group(6, &[1])).expect("news");
        assert_eq!(txn.compares, [unchanged(numbered(GROUPS, 17), Some(Revision(2)))]);
    }

    #[test]
    fn a_founder_opens_its_replica_until_the_group_goes_on_without_it() {
        let mut rows = founded();
        rows.place(SHARD, &set(&[2, 3]));
        assert!(rows.read().opens(SHARD, NodeId(1)), "the group may not have begun");
        rows.settled(SHARD, &set(&[2, 3]));
        assert!(!rows.read().opens(SHARD, NodeId(1)));
        assert!(rows.read().may_use(NodeId(1)), "who knows where the other shard is");
    }

    #[test]
    fn a_child_is_to_live_where_its_parent_is() {
        let mut rows = founded();
        let mut txn = Txn::default();
        rows.read().inherit(SHARD, ShardId(30), &mut txn);
        assert_eq!(txn.compares, [unchanged(numbered(PLACEMENTS, 17), Some(Revision(1)))]);
        rows.write(&txn.success);
        assert_eq!(rows.read().of(ShardId(30)), Some(&Placement { founders: set(&[]), wanted: set(&[1, 2]) }));
        rows.read().inherit(ShardId(2), ShardId(31), &mut txn);
        assert_eq!(txn.success.len(), 1, "what is everywhere, is so without a row");
    }
}
