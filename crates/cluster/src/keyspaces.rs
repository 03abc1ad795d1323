//! The keyspaces as rows of the system keyspace, and the shards that they are made of: the shard map.
//!
//! ```text
//!   keyspaces/<id>        a keyspace: name, kind, shards, and who the first members of its groups are
//!   keyspace-names/<name> its id: a name is given once
//!   next-id               the next number for a keyspace or a shard
//! ```
//!
//! The system keyspace and the default one have no rows: every cluster begins with them, each one shard of the same number. Clients do not
//! see the system keyspace as one of theirs.

use crate::rows::unchanged_since;
use bytes::Bytes;
use quorate_env::{DecodeError, Reader, ReplicaId, ShardId, Writer};
use quorate_kv::{KeyRange, KeyValue, Keyspace, KeyspaceId, KeyspaceKind, Op, PutOp, Refusal, Revision, Txn, limits};
use std::collections::{BTreeMap, BTreeSet};

/// Where the keyspaces' rows begin.
const KEYSPACES: &str = "keyspaces/";
const NAMES: &str = "keyspace-names/";
const NEXT_ID: &str = "next-id";

const VERSION: u8 = 1;

/// Whether a key of the system keyspace is that of a keyspace's row.
pub(crate) fn is_row(key: &[u8]) -> bool {
    key.starts_with(KEYSPACES.as_bytes())
}

/// A keyspace and its groups' beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceRow {
    /// The keyspace.
    pub keyspace: Keyspace,
    /// The first members of its groups. Who joins a group later learns that from its leader.
    pub founders: Vec<ReplicaId>,
}

impl KeyspaceRow {
    fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION);
        w.u64(self.keyspace.id.0);
        w.bytes(self.keyspace.name.as_bytes());
        w.u8(match self.keyspace.kind {
            KeyspaceKind::Ordered => 1,
            KeyspaceKind::Ranged => 2,
        });
        w.varint(self.keyspace.shards.len() as u64);
        for (start, shard) in &self.keyspace.shards {
            w.bytes(start);
            w.u64(shard.0);
        }
        w.varint(self.founders.len() as u64);
        self.founders.iter().for_each(|founder| w.u64(founder.0));
        w.finish().into()
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        if r.u8("keyspace row version")? != VERSION {
            return Err(r.error("keyspace row version"));
        }
        let id = KeyspaceId(r.u64("keyspace")?);
        let name = String::from_utf8_lossy(&r.bytes("name")?).into_owned();
        let kind = match r.u8("kind")? {
            1 => KeyspaceKind::Ordered,
            2 => KeyspaceKind::Ranged,
            _ => return Err(r.error("kind")),
        };
        let (mut shards, mut founders) = (Vec::new(), Vec::new());
        for _ in 0..r.count("shards")? {
            shards.push((r.bytes("start")?, ShardId(r.u64("shard")?)));
        }
        for _ in 0..r.count("founders")? {
            founders.push(ReplicaId(r.u64("founder")?));
        }
        r.end("keyspace row")?;
        if shards.is_empty() || !shards[0].0.is_empty() || !shards.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(r.error("shards"));
        }
        Ok(Self { keyspace: Keyspace { id, name, kind, shards }, founders })
    }
}

/// All keyspaces, as of one revision of the system keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspaces {
    default: Keyspace,
    made: BTreeMap<KeyspaceId, KeyspaceRow>,
    next_id: u64,
    /// When it was read.
    revision: Revision,
}

impl Default for Keyspaces {
    fn default() -> Self {
        let (id, kind) = (KeyspaceId::DEFAULT, KeyspaceKind::Ordered);
        let default = Keyspace { id, name: "default".into(), kind, shards: vec![(Bytes::new(), ShardId(id.0))] };
        Self { default, made: BTreeMap::new(), next_id: KeyspaceId::FIRST_MADE.0, revision: Revision::default() }
    }
}

impl Keyspaces {
    /// The keys that make it up.
    #[must_use]
    pub fn ranges() -> [KeyRange; 2] {
        [KeyRange::prefix(KEYSPACES), KeyRange::single(NEXT_ID)]
    }

    /// From what is under [`Keyspaces::ranges`].
    pub fn read(kvs: impl IntoIterator<Item = KeyValue>, revision: Revision) -> Result<Self, DecodeError> {
        let mut keyspaces = Self { revision, ..Self::default() };
        for kv in kvs {
            if kv.key == NEXT_ID {
                keyspaces.next_id = Reader::new(kv.value).u64("next id")?;
            } else {
                let row = KeyspaceRow::decode(kv.value)?;
                keyspaces.made.insert(row.keyspace.id, row);
            }
        }
        Ok(keyspaces)
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
    ) -> Result<(KeyspaceId, Txn), Refusal> {
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
        if name.is_empty() || name.len() > limits::KEYSPACE_NAME_BYTES_MAX || !name.chars().all(allowed) {
            return Err(Refusal::KeyspaceName);
        }
        if self.named(name).is_some() {
            return Err(Refusal::KeyspaceExists);
        }
        let starts: BTreeSet<Bytes> = starts.iter().cloned().chain([Bytes::new()]).collect();
        let max = if kind == KeyspaceKind::Ordered { 1 } else { limits::KEYSPACE_SHARDS_MAX };
        let long = starts.last().is_some_and(|start| start.len() > limits::KEY_BYTES_MAX);
        if starts.len() > max || long {
            return Err(Refusal::KeyspaceShards);
        }
        let id = KeyspaceId(self.next_id);
        let shards: Vec<(Bytes, ShardId)> =
            starts.into_iter().zip(self.next_id + 1..).map(|(s, n)| (s, ShardId(n))).collect();
        let mut next = Writer::new();
        next.u64(self.next_id + 1 + shards.len() as u64);
        let row = KeyspaceRow { keyspace: Keyspace { id, name: name.into(), kind, shards }, founders };
        let name_key = format!("{NAMES}{name}");
        let txn = Txn {
            compares: unchanged_since(self.revision, Self::ranges()),
            success: vec![
                Op::Put(PutOp::of(NEXT_ID, next.finish())),
                Op::Put(PutOp::of(name_key, id.0.to_string())),
                Op::Put(PutOp::of(format!("{KEYSPACES}{:016x}", id.0), row.encode())),
            ],
            failure: Vec::new(),
        };
        Ok((id, txn))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use quorate_kv::LeaseId;

    /// A cluster with one keyspace of its own.
    pub(crate) fn made(name: &str, starts: &[&str]) -> (Keyspaces, KeyspaceId) {
        let starts: Vec<Bytes> = starts.iter().map(|start| Bytes::copy_from_slice(start.as_bytes())).collect();
        let none = Keyspaces::default();
        let (id, txn) = none.create(name, KeyspaceKind::Ranged, &starts, vec![ReplicaId(1)]).expect("allowed");
        (Keyspaces::read(kvs_of(&txn), Revision(2)).expect("readable"), id)
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
        let (id, txn) = none.create("orders", KeyspaceKind::Ranged, &starts, founders.clone()).expect("allowed");
        let one = Keyspaces::read(kvs_of(&txn), Revision(2)).expect("readable");
        let made = one.named("orders").expect("made");
        assert_eq!(made.shards, [("".into(), ShardId(17)), ("c".into(), ShardId(18)), ("m".into(), ShardId(19))]);
        assert_eq!((made.id, one.get(id)), (id, Some(made)));
        assert_eq!(one.made().next().expect("made").founders, founders);
        let refused = one.create("orders", KeyspaceKind::Ordered, &[], founders.clone());
        assert_eq!(refused.err(), Some(Refusal::KeyspaceExists));
        let (second, _) = one.create("stock", KeyspaceKind::Ordered, &[], founders).expect("allowed");
        assert_eq!(second, KeyspaceId(20));
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
