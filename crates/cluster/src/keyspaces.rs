//! The keyspaces as rows of the system keyspace, and the shards that they are made of: the shard map.
//!
//! ```text
//!   keyspaces/<id>        a keyspace: name, kind, shards, which of them was split off which, and who the first members of its groups are
//!   keyspace-names/<name> its id: a name is given once
//!   next-id               the next number for a keyspace or a shard
//!   policies/<id>         what is wanted of a keyspace, if somebody has said
//! ```
//!
//! The system keyspace and the default one have no rows: every cluster begins with them, each one shard of the same number. Clients do not
//! see the system keyspace as one of theirs.

use crate::ack_wait::AckWait;
use crate::placement::Placements;
use crate::rows::{number_of, numbered, unchanged_since};
use bytes::Bytes;
use quorate_env::{DecodeError, Reader, ReplicaId, ShardId, Writer};
use quorate_kv::{
    Command, KeyRange, KeyValue, Keyspace, KeyspaceId, KeyspaceKind, Level, Op, Policy, PolicyChange, PutOp, Refusal,
    Revision, Txn, limits,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where the keyspaces' rows begin.
const KEYSPACES: &str = "keyspaces/";
const NAMES: &str = "keyspace-names/";
const NEXT_ID: &str = "next-id";
const POLICIES: &str = "policies/";

/// Of a keyspace none of whose shards was split, so that the release before this one can read it.
const UNSPLIT: u8 = 1;
/// Of one that has such shards, and none was merged.
const SPLIT: u8 = 2;
/// Of a log, which has one shard for ever.
const LOG: u8 = 3;
/// Of one of which shards were merged.
const VERSION: u8 = 4;

/// The lowest level at which an operation of a transaction on the system keyspace may be done.
pub(crate) fn level_of(op: &Op) -> Level {
    match op {
        Op::Put(put) if put.key.starts_with(KEYSPACES.as_bytes()) => match put.value.first() {
            Some(&UNSPLIT) => Level::ACROSS,
            Some(&SPLIT) => Level::SPLIT,
            Some(&LOG) => Level::LOGS,
            _ => Level::MERGED,
        },
        Op::Put(put) if put.key.starts_with(POLICIES.as_bytes()) => Policy::level_of(&put.value),
        _ => Level::FIRST,
    }
}

/// A keyspace and its groups' beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceRow {
    /// The keyspace.
    pub keyspace: Keyspace,
    /// The first members of its groups. Who joins a group later learns that from its leader.
    pub founders: Vec<ReplicaId>,
    /// The shards that were split off, each with the one that it was split off.
    pub parents: BTreeMap<ShardId, ShardId>,
    /// The shards that were merged last, each with the one that has what it decided.
    pub heirs: BTreeMap<ShardId, ShardId>,
}

impl KeyspaceRow {
    fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        let (split, merged) = (!self.parents.is_empty(), !self.heirs.is_empty());
        w.u8(match (self.keyspace.kind, split, merged) {
            (KeyspaceKind::Log, ..) => LOG,
            (_, _, true) => VERSION,
            (_, true, false) => SPLIT,
            (_, false, false) => UNSPLIT,
        });
        w.u64(self.keyspace.id.0);
        w.bytes(self.keyspace.name.as_bytes());
        w.u8(match self.keyspace.kind {
            KeyspaceKind::Ordered => 1,
            KeyspaceKind::Ranged => 2,
            KeyspaceKind::Log => 3,
        });
        w.varint(self.keyspace.shards.len() as u64);
        for (start, shard) in &self.keyspace.shards {
            w.bytes(start);
            w.u64(shard.0);
        }
        w.varint(self.founders.len() as u64);
        self.founders.iter().for_each(|founder| w.u64(founder.0));
        let relations = [(split || merged, &self.parents), (merged, &self.heirs)];
        for (_, relation) in relations.into_iter().filter(|(known, _)| *known) {
            w.varint(relation.len() as u64);
            for (shard, other) in relation {
                w.u64(shard.0);
                w.u64(other.0);
            }
        }
        w.finish().into()
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        let version = r.u8("keyspace row version")?;
        if version == 0 || version > VERSION {
            return Err(r.error("keyspace row version"));
        }
        let id = KeyspaceId(r.u64("keyspace")?);
        let name = String::from_utf8_lossy(&r.bytes("name")?).into_owned();
        let kind = match r.u8("kind")? {
            1 => KeyspaceKind::Ordered,
            2 => KeyspaceKind::Ranged,
            3 if version == LOG => KeyspaceKind::Log,
            _ => return Err(r.error("kind")),
        };
        let (mut shards, mut founders) = (Vec::new(), Vec::new());
        for _ in 0..r.count("shards")? {
            shards.push((r.bytes("start")?, ShardId(r.u64("shard")?)));
        }
        for _ in 0..r.count("founders")? {
            founders.push(ReplicaId(r.u64("founder")?));
        }
        let (mut parents, mut heirs) = (BTreeMap::new(), BTreeMap::new());
        for (relation, told) in [(&mut parents, matches!(version, SPLIT | VERSION)), (&mut heirs, version == VERSION)] {
            if told {
                for _ in 0..r.count("relations")? {
                    relation.insert(ShardId(r.u64("shard")?), ShardId(r.u64("other")?));
                }
            }
        }
        r.end("keyspace row")?;
        if shards.is_empty() || !shards[0].0.is_empty() || !shards.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(r.error("shards"));
        }
        let keyspace = Keyspace { id, name, kind, shards, policy: Policy::OF_MADE };
        Ok(Self { keyspace, founders, parents, heirs })
    }

    fn key(&self) -> String {
        format!("{KEYSPACES}{:016x}", self.keyspace.id.0)
    }
}

/// All keyspaces, as of one revision of the system keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspaces {
    default: Keyspace,
    made: BTreeMap<KeyspaceId, KeyspaceRow>,
    /// What was split off each shard, by first keys: leaders look at it all the time.
    children: BTreeMap<ShardId, BTreeMap<Bytes, ShardId>>,
    /// The keyspace of each shard that somebody made.
    owners: BTreeMap<ShardId, KeyspaceId>,
    /// What writers wait for in any of them.
    wait: AckWait,
    next_id: u64,
    /// When it was read.
    revision: Revision,
}

impl Default for Keyspaces {
    fn default() -> Self {
        let (id, kind) = (KeyspaceId::DEFAULT, KeyspaceKind::Ordered);
        let (shards, policy) = (vec![(Bytes::new(), ShardId(id.0))], Policy::OF_DEFAULT);
        let default = Keyspace { id, name: "default".into(), kind, shards, policy };
        let (made, children, owners) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (wait, next_id) = (AckWait::default(), KeyspaceId::FIRST_MADE.0);
        Self { default, made, children, owners, wait, next_id, revision: Revision::default() }
    }
}

impl Keyspaces {
    /// The keys that make it up.
    #[must_use]
    pub fn ranges() -> [KeyRange; 3] {
        [KeyRange::prefix(KEYSPACES), KeyRange::single(NEXT_ID), KeyRange::prefix(POLICIES)]
    }

    /// Whether a key is among them.
    #[must_use]
    pub fn has(key: &[u8]) -> bool {
        Self::ranges().iter().any(|range| range.contains(key))
    }

    /// From what is under [`Keyspaces::ranges`].
    pub fn read(kvs: impl IntoIterator<Item = KeyValue>, revision: Revision) -> Result<Self, DecodeError> {
        let mut keyspaces = Self { revision, ..Self::default() };
        let mut policies = BTreeMap::new();
        for kv in kvs {
            if kv.key == NEXT_ID {
                keyspaces.next_id = Reader::new(kv.value).u64("next id")?;
            } else if kv.key.starts_with(POLICIES.as_bytes()) {
                policies.insert(KeyspaceId(number_of(POLICIES, &kv.key)?), Policy::decode(kv.value)?);
            } else {
                let row = KeyspaceRow::decode(kv.value)?;
                for (start, shard) in &row.keyspace.shards {
                    keyspaces.owners.insert(*shard, row.keyspace.id);
                    if let Some(parent) = row.parents.get(shard) {
                        keyspaces.children.entry(*parent).or_default().insert(start.clone(), *shard);
                    }
                }
                keyspaces.made.insert(row.keyspace.id, row);
            }
        }
        let made = keyspaces.made.values_mut().map(|row| &mut row.keyspace);
        for keyspace in made.chain([&mut keyspaces.default]) {
            keyspace.policy = policies.get(&keyspace.id).copied().unwrap_or(keyspace.policy);
            keyspaces.wait = keyspaces.wait.and(AckWait::of(&keyspace.policy));
        }
        Ok(keyspaces)
    }

    /// How many shards were split off others.
    #[must_use]
    pub fn splits(&self) -> usize {
        self.made().map(|row| row.parents.len()).sum()
    }

    /// Those that somebody made, ascending by id.
    pub fn made(&self) -> impl Iterator<Item = &KeyspaceRow> {
        self.made.values()
    }

    /// All that clients see.
    pub fn all(&self) -> impl Iterator<Item = &Keyspace> {
        std::iter::once(&self.default).chain(self.made.values().map(|row| &row.keyspace))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: KeyspaceId) -> Option<&Keyspace> {
        if id == self.default.id { Some(&self.default) } else { self.made.get(&id).map(|row| &row.keyspace) }
    }

    /// The one that somebody made of which this is a shard.
    #[must_use]
    pub fn of_shard(&self, shard: ShardId) -> Option<&Keyspace> {
        self.owners.get(&shard).and_then(|id| self.get(*id))
    }

    /// What must be true, besides that a majority has it, before who has written in a shard is told.
    pub(crate) fn ack_wait(&self, shard: ShardId) -> AckWait {
        let default = (shard.0 == KeyspaceId::DEFAULT.0).then_some(&self.default);
        let wanted = || self.of_shard(shard).or(default).map(|keyspace| AckWait::of(&keyspace.policy));
        self.wait.is_for_anything().then(wanted).flatten().unwrap_or_default()
    }

    /// The same, of whoever has written anywhere.
    pub(crate) fn ack_wait_anywhere(&self) -> AckWait {
        self.wait
    }

    /// One of them, by name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Keyspace> {
        self.all().find(|keyspace| keyspace.name == name)
    }

    /// What to submit to the system keyspace for a new one. It fails, and must be made again, if somebody else made one in the meantime.
    ///
    /// # Errors
    /// If the name or the shards are not allowed, or the name is taken.
    pub fn create(
        &self,
        name: &str,
        kind: KeyspaceKind,
        starts: &[Bytes],
        founders: Vec<ReplicaId>,
    ) -> Result<(Keyspace, Txn), Refusal> {
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
        if name.is_empty() || name.len() > limits::KEYSPACE_NAME_BYTES_MAX || !name.chars().all(allowed) {
            return Err(Refusal::KeyspaceName);
        }
        if self.named(name).is_some() {
            return Err(Refusal::KeyspaceExists);
        }
        let starts: BTreeSet<Bytes> = starts.iter().cloned().chain([Bytes::new()]).collect();
        let max = if kind == KeyspaceKind::Ranged { limits::KEYSPACE_SHARDS_MAX } else { 1 };
        let long = starts.last().is_some_and(|start| start.len() > limits::KEY_BYTES_MAX);
        if starts.len() > max || long {
            return Err(Refusal::KeyspaceShards);
        }
        let id = KeyspaceId(self.next_id);
        let shards: Vec<(Bytes, ShardId)> =
            starts.into_iter().zip(self.next_id + 1..).map(|(s, n)| (s, ShardId(n))).collect();
        let mut next = Writer::new();
        next.u64(self.next_id + 1 + shards.len() as u64);
        let keyspace = Keyspace { id, name: name.into(), kind, shards, policy: Policy::OF_MADE };
        let (parents, heirs) = (BTreeMap::new(), BTreeMap::new());
        let row = KeyspaceRow { keyspace: keyspace.clone(), founders, parents, heirs };
        let name_key = format!("{NAMES}{name}");
        let txn = Txn {
            compares: unchanged_since(self.revision, Self::ranges()),
            success: vec![
                Op::Put(PutOp::of(NEXT_ID, next.finish())),
                Op::Put(PutOp::of(name_key, id.0.to_string())),
                Op::Put(PutOp::of(row.key(), row.encode())),
            ],
            failure: Vec::new(),
        };
        Ok((keyspace, txn))
    }

    /// What to submit to the system keyspace so that the keys of a keyspace from `at` on, up to where the next shard begins, get a shard of their
    /// own, which lives where the one lived that had them; and that shard's number. It fails, and must be made again, if somebody else changed a keyspace
    /// in the meantime, or where that shard lives.
    ///
    /// # Errors
    /// If there is no such keyspace, it is ordered or a log, has too many shards or one that begins there, or the key is too long.
    pub fn split(&self, placements: &Placements, id: KeyspaceId, at: &Bytes) -> Result<(ShardId, Txn), Refusal> {
        let keyspace = self.get(id).ok_or(Refusal::KeyspaceNotFound)?;
        if keyspace.kind == KeyspaceKind::Log {
            return Err(Refusal::LogSplit);
        }
        let row = self.made.get(&id).filter(|row| row.keyspace.kind == KeyspaceKind::Ranged);
        let mut row = row.ok_or(Refusal::OrderedSplit)?.clone();
        if keyspace.shards.iter().any(|(start, _)| start == at) {
            return Err(Refusal::AlreadySplit);
        }
        if keyspace.shards.len() >= limits::KEYSPACE_SHARDS_MAX {
            return Err(Refusal::KeyspaceShards);
        }
        if at.len() > limits::KEY_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes: at.len(), max: limits::KEY_BYTES_MAX });
        }
        let (parent, child) = (keyspace.shard_of(at), ShardId(self.next_id));
        row.parents.insert(child, parent);
        row.keyspace.shards.push((at.clone(), child));
        row.keyspace.shards.sort();
        let mut next = Writer::new();
        next.u64(self.next_id + 1);
        let mut txn = Txn {
            compares: unchanged_since(self.revision, Self::ranges()),
            success: vec![Op::Put(PutOp::of(NEXT_ID, next.finish())), Op::Put(PutOp::of(row.key(), row.encode()))],
            failure: Vec::new(),
        };
        placements.inherit(parent, child, &mut txn);
        Ok((child, txn))
    }

    /// The shard before one that was split off: the one that it can be merged into.
    #[must_use]
    pub fn before(&self, shard: ShardId) -> Option<ShardId> {
        let row = self.row_of(shard).filter(|row| row.parents.contains_key(&shard))?;
        let place = row.keyspace.shards.iter().position(|(_, it)| *it == shard)?;
        row.keyspace.shards.get(place.checked_sub(1)?).map(|(_, before)| *before)
    }

    /// What to submit to the system keyspace when the shard before one has all that it had: it is no more. It fails, and must be made again, if somebody else
    /// changed a keyspace in the meantime.
    #[must_use]
    pub fn merge(&self, shard: ShardId) -> Option<Txn> {
        let (heir, mut row) = (self.before(shard)?, self.row_of(shard)?.clone());
        row.keyspace.shards.retain(|(_, it)| *it != shard);
        row.parents.remove(&shard);
        row.parents.values_mut().chain(row.heirs.values_mut()).filter(|it| **it == shard).for_each(|it| *it = heir);
        row.heirs.insert(shard, heir);
        while row.heirs.len() > limits::HEIRS_MAX {
            row.heirs.pop_first();
        }
        let mut txn = Txn {
            compares: unchanged_since(self.revision, Self::ranges()),
            success: vec![Op::Put(PutOp::of(row.key(), row.encode()))],
            failure: Vec::new(),
        };
        Placements::forget(shard, &mut txn);
        Some(txn)
    }

    fn row_of(&self, shard: ShardId) -> Option<&KeyspaceRow> {
        self.made.get(self.owners.get(&shard)?)
    }

    /// Whether there was a shard of that number once, and it was merged with another.
    #[must_use]
    pub fn is_merged(&self, shard: ShardId) -> bool {
        let was_made = (KeyspaceId::FIRST_MADE.0..self.next_id).contains(&shard.0);
        was_made && !self.owners.contains_key(&shard)
    }

    /// The shard that knows what one has decided that was merged; `None` if that was long ago, or is not so.
    #[must_use]
    pub fn heir(&self, merged: ShardId) -> Option<ShardId> {
        self.made().find_map(|row| row.heirs.get(&merged).copied())
    }

    /// The row that says what is wanted of a keyspace.
    #[must_use]
    pub fn wanted(id: KeyspaceId, policy: Policy) -> Op {
        Op::Put(PutOp::of(numbered(POLICIES, id.0), policy.encode()))
    }

    /// What to submit to the system keyspace so that something else is wanted of a keyspace. It fails, and must be made again, if somebody else changed
    /// a keyspace in the meantime.
    ///
    /// # Errors
    /// If there is no such keyspace, or it is no log and is to keep no more than some records.
    pub fn want(&self, id: KeyspaceId, change: PolicyChange) -> Result<Txn, Refusal> {
        let keyspace = self.get(id).ok_or(Refusal::KeyspaceNotFound)?;
        let policy = keyspace.policy.with(change);
        if policy.retains() && keyspace.kind != KeyspaceKind::Log {
            return Err(Refusal::NotLog);
        }
        Ok(Txn {
            compares: unchanged_since(self.revision, Self::ranges()),
            success: vec![Self::wanted(id, policy)],
            failure: Vec::new(),
        })
    }

    /// How far back the history of each shard is to reach, where that is not for ever.
    pub fn histories(&self) -> impl Iterator<Item = (ShardId, Duration)> + '_ {
        let system = (ShardId(KeyspaceId::SYSTEM.0), Policy::OF_MADE.history);
        let shards = self.all().flat_map(|it| it.shards.iter().map(|(_, shard)| (*shard, it.policy.history)));
        std::iter::once(system).chain(shards).filter_map(|(shard, history)| Some((shard, history?)))
    }

    /// The shard of each log, and what is wanted of it.
    pub fn logs(&self) -> impl Iterator<Item = (ShardId, Policy)> + '_ {
        let logs = self.made().map(|row| &row.keyspace).filter(|keyspace| keyspace.kind == KeyspaceKind::Log);
        logs.map(|keyspace| (keyspace.shards[0].1, keyspace.policy))
    }

    /// Why a command is nothing for a shard, whatever it holds: keys are not for logs, and cuts for nothing else. Steps of transactions were judged when they were planned.
    ///
    /// # Errors
    /// [`Refusal::KeysInLog`] or [`Refusal::NotLog`].
    pub fn suits(&self, shard: ShardId, command: &Command) -> Result<(), Refusal> {
        let log = self.of_shard(shard).is_some_and(|keyspace| keyspace.kind == KeyspaceKind::Log);
        match command {
            Command::Trim { .. } if !log => Err(Refusal::NotLog),
            Command::Trim { .. } | Command::Across { .. } | Command::Compact { .. } => Ok(()),
            _ if log => Err(Refusal::KeysInLog),
            _ => Ok(()),
        }
    }

    /// How many shards were split off a shard.
    #[must_use]
    pub fn children_of(&self, parent: ShardId) -> usize {
        self.children.get(&parent).map_or(0, BTreeMap::len)
    }

    /// The child that a shard with these keys is to split off next, with its first key. Of several the last one in the order of keys: a shard is split
    /// where it still has keys, so that one was split off first, and those before it are within what it left. None that has come `back`: the map does not know yet that it was
    /// merged.
    #[must_use]
    pub fn next_split(
        &self,
        parent: ShardId,
        range: &KeyRange,
        back: &dyn Fn(ShardId) -> bool,
    ) -> Option<(&Bytes, ShardId)> {
        let mut children = self.children.get(&parent)?.iter().rev();
        children.find(|(start, child)| range.contains(start) && !back(**child)).map(|(start, child)| (start, *child))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use quorate_kv::{LeaseId, RangeEnd};

    /// A cluster with one keyspace of its own.
    pub(crate) fn made(name: &str, starts: &[&str]) -> (Keyspaces, KeyspaceId) {
        let starts: Vec<Bytes> = starts.iter().map(|start| Bytes::copy_from_slice(start.as_bytes())).collect();
        let none = Keyspaces::default();
        let (made, txn) = none.create(name, KeyspaceKind::Ranged, &starts, vec![ReplicaId(1)]).expect("allowed");
        (Keyspaces::read(kvs_of(&txn), Revision(2)).expect("readable"), made.id)
    }

    fn kvs_of(txn: &Txn) -> Vec<KeyValue> {
        let kv = |op: &Op| match op {
            Op::Put(put) if !put.key.starts_with(NAMES.as_bytes()) => Some(KeyValue {
                key: put.key.clone(),
                value: put.value.clone(),
                create_revision: Revision(2),
                mod_revision: Revision(2),
                version: 1,
                lease: LeaseId::NONE,
            }),
            _ => None,
        };
        txn.success.iter().filter_map(kv).collect()
    }

    #[test]
    fn a_keyspace_is_made_once_and_its_shards_have_numbers_of_their_own() {
        let none = Keyspaces::read([], Revision(1)).expect("readable");
        let founders = vec![ReplicaId(1), ReplicaId(2)];
        let starts = [Bytes::from("m"), Bytes::from("c")];
        let (told, txn) = none.create("orders", KeyspaceKind::Ranged, &starts, founders.clone()).expect("allowed");
        let one = Keyspaces::read(kvs_of(&txn), Revision(2)).expect("readable");
        let made = one.named("orders").expect("made");
        assert_eq!(made.shards, [("".into(), ShardId(17)), ("c".into(), ShardId(18)), ("m".into(), ShardId(19))]);
        assert_eq!((made, one.get(told.id)), (&told, Some(made)));
        assert_eq!(one.made().next().expect("made").founders, founders);
        let refused = one.create("orders", KeyspaceKind::Ordered, &[], founders.clone());
        assert_eq!(refused.err(), Some(Refusal::KeyspaceExists));
        let (second, _) = one.create("stock", KeyspaceKind::Ordered, &[], founders).expect("allowed");
        assert_eq!(second.id, KeyspaceId(20));
    }

    #[test]
    fn what_is_wanted_of_a_keyspace_is_its_own_row() {
        let (keyspaces, id) = made("orders", &["c"]);
        let system = (ShardId(1), Duration::from_secs(3_600));
        let made: Vec<_> = [17, 18].map(|shard| (ShardId(shard), Duration::from_secs(3_600))).into();
        assert_eq!(keyspaces.histories().collect::<Vec<_>>(), [vec![system], made].concat());
        let change = PolicyChange { history: Some(Some(Duration::from_secs(9))), ..PolicyChange::default() };
        let keyspaces = with(&keyspaces, &keyspaces.want(id, change).expect("there"));
        let made: Vec<_> = [17, 18].map(|shard| (ShardId(shard), Duration::from_secs(9))).into();
        assert_eq!(keyspaces.histories().collect::<Vec<_>>(), [vec![system], made].concat());
        let forever = PolicyChange { history: Some(None), ..PolicyChange::default() };
        let keyspaces = with(&keyspaces, &keyspaces.want(id, forever).expect("there"));
        assert_eq!(keyspaces.histories().collect::<Vec<_>>(), [system]);
        assert_eq!(keyspaces.want(KeyspaceId(99), change), Err(Refusal::KeyspaceNotFound));
    }

    fn with(before: &Keyspaces, txn: &Txn) -> Keyspaces {
        let rows = before.made().map(|row| (Bytes::from(row.key()), row.encode()));
        let mut next = Writer::new();
        next.u64(before.next_id);
        let mut kvs: BTreeMap<Bytes, Bytes> = rows.chain([(NEXT_ID.into(), next.finish().into())]).collect();
        kvs.extend(kvs_of(txn).into_iter().map(|kv| (kv.key, kv.value)));
        let kv = |(key, value)| KeyValue {
            key,
            value,
            create_revision: Revision(2),
            mod_revision: Revision(2),
            version: 1,
            lease: LeaseId::NONE,
        };
        Keyspaces::read(kvs.into_iter().map(kv), Revision(3)).expect("readable")
    }

    #[test]
    fn a_shard_is_split_where_it_has_keys_and_in_the_order_in_which_it_was_asked_for() {
        let (mut keyspaces, id) = made("orders", &["c"]);
        let parent = keyspaces.get(id).expect("made").shard_of(b"d");
        let mut children = Vec::new();
        for at in ["t", "h"] {
            let (child, txn) = keyspaces.split(&Placements::default(), id, &at.into()).expect("allowed");
            assert!(matches!(txn.success.last(), Some(op) if level_of(op) == Level::SPLIT));
            keyspaces = with(&keyspaces, &txn);
            children.push(child);
        }
        let shards: Vec<_> = keyspaces.get(id).expect("made").shards.iter().map(|(start, _)| start.clone()).collect();
        assert_eq!(shards, ["", "c", "h", "t"]);
        let mut range = KeyRange::all();
        for (at, child) in [("t", children[0]), ("h", children[1])] {
            assert_eq!(keyspaces.next_split(parent, &range, &|_| false), Some((&at.into(), child)));
            range.end = RangeEnd::Before(at.into());
        }
        assert_eq!(keyspaces.next_split(parent, &range, &|_| false), None);
        // What is between belongs to the one that was split off there.
        let (last, txn) = keyspaces.split(&Placements::default(), id, &"j".into()).expect("allowed");
        let keyspaces = with(&keyspaces, &txn);
        assert_eq!(keyspaces.next_split(children[1], &KeyRange::all(), &|_| false), Some((&"j".into(), last)));
        assert_eq!(keyspaces.next_split(children[0], &KeyRange::all(), &|_| false), None);
    }

    #[test]
    fn a_log_survives_its_row() {
        let none = Keyspaces::default();
        let (log, txn) = none.create("feed", KeyspaceKind::Log, &[], vec![ReplicaId(1)]).expect("allowed");
        let read = Keyspaces::read(kvs_of(&txn), Revision(2)).expect("readable");
        assert_eq!(read.named("feed"), Some(&log));
    }

    #[test]
    fn a_shard_that_is_merged_leaves_what_it_had_to_the_one_before_it() {
        let (mut keyspaces, id) = made("orders", &["c"]);
        let split = |keyspaces: &mut Keyspaces, at: &'static str| {
            let (child, txn) = keyspaces.split(&Placements::default(), id, &at.into()).expect("allowed");
            *keyspaces = with(keyspaces, &txn);
            child
        };
        let (h, m, t) = (split(&mut keyspaces, "h"), split(&mut keyspaces, "m"), split(&mut keyspaces, "t"));
        let (first, c) = (ShardId(17), ShardId(18));
        assert_eq!([first, c, h, m].map(|shard| keyspaces.before(shard)), [None, None, Some(c), Some(h)]);
        assert_eq!(keyspaces.merge(c), None, "it was made with the keyspace");
        for (merged, heir) in [(m, h), (h, c)] {
            assert!(!keyspaces.is_merged(merged));
            let txn = keyspaces.merge(merged).expect("it was split off");
            assert!(matches!(txn.success.first(), Some(op) if level_of(op) == Level::MERGED));
            keyspaces = with(&keyspaces, &txn);
            assert!(keyspaces.is_merged(merged));
            assert_eq!(keyspaces.heir(merged), Some(heir));
        }
        assert_eq!(keyspaces.heir(m), Some(c), "who has what its heir had");
        assert_eq!(keyspaces.before(t), Some(c));
        let row = keyspaces.made().next().expect("made");
        assert_eq!(row.parents, BTreeMap::from([(t, c)]));
        assert!(![first, c, t, ShardId(99)].into_iter().any(|shard| keyspaces.is_merged(shard)));
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let (keyspaces, id) = made("orders", &["c"]);
        let refused =
            |id: KeyspaceId, at: &[u8]| keyspaces.split(&Placements::default(), id, &Bytes::copy_from_slice(at)).err();
        assert_eq!(refused(KeyspaceId(99), b"m"), Some(Refusal::KeyspaceNotFound));
        assert_eq!(refused(KeyspaceId::DEFAULT, b"m"), Some(Refusal::OrderedSplit));
        assert_eq!(refused(id, b"c"), Some(Refusal::AlreadySplit));
        assert_eq!(refused(id, b""), Some(Refusal::AlreadySplit));
        let max = limits::KEY_BYTES_MAX;
        assert_eq!(refused(id, &vec![b'x'; max + 1]), Some(Refusal::TooLarge { bytes: max + 1, max }));
    }

    #[test]
    fn names_and_shards_have_their_limits() {
        let none = Keyspaces::read([], Revision(1)).expect("readable");
        for name in ["", "Orders", "a b", "ä", &"x".repeat(65)] {
            let refused = none.create(name, KeyspaceKind::Ordered, &[], Vec::new());
            assert_eq!(refused.err(), Some(Refusal::KeyspaceName), "{name}");
        }
        let split = none.create("orders", KeyspaceKind::Ordered, &["m".into()], Vec::new());
        assert_eq!(split.err(), Some(Refusal::KeyspaceShards));
        let many: Vec<Bytes> = (0..limits::KEYSPACE_SHARDS_MAX).map(|n| format!("{n:04}").into()).collect();
        assert_eq!(none.create("a", KeyspaceKind::Ranged, &many, Vec::new()).err(), Some(Refusal::KeyspaceShards));
        assert!(none.create("a", KeyspaceKind::Ranged, &many[1..], Vec::new()).is_ok());
    }
}
