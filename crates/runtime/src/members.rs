//! Who the members are: the first configuration, and what each has published of itself in the system keyspace.
//!
//! A node writes its row once its cluster has a leader: name, addresses, and the incarnation of its disk. The row is how others know a
//! node that lost its disk from one that did not.

use crate::db::RuntimeDb;
use crate::driver::{Options, stop_process};
use bytes::Bytes;
use quorate_cluster::BootMember;
use quorate_env::checksum::checksum;
use quorate_env::{DecodeError, Incarnation, NodeId, Reader, Writer};
use quorate_kv::{
    Command, Compare, CompareOp, Consistency, Db, Expected, KeyRange, KeyspaceId, Member, Op, PutOp, RangeOp, Txn,
    WatchId, WatchNotice, WatchSpec,
};
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

const PREFIX: &str = "members/";
const VERSION: u8 = 1;

/// A member's id: the hash of its name, so that every node of a first configuration computes the same. Never 0.
#[must_use]
pub fn member_id(name: &str) -> NodeId {
    NodeId(checksum(0x006D_656D_6265_7231, name.as_bytes()).max(1))
}

struct Known {
    member: Member,
    incarnation: Option<Incarnation>,
}

/// The members as this node knows them.
pub(crate) struct MemberTable {
    known: RwLock<BTreeMap<NodeId, Known>>,
}

impl MemberTable {
    pub fn new(members: &[BootMember]) -> Arc<Self> {
        let known = members.iter().map(|m| {
            let member = Member {
                id: m.id,
                name: m.name.clone(),
                peer_addresses: vec![m.peer_address.clone()],
                client_urls: Vec::new(),
                learner: false,
            };
            (m.id, Known { member, incarnation: None })
        });
        Arc::new(Self { known: RwLock::new(known.collect()) })
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.read(|known| known.contains_key(&node))
    }

    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.read(|known| known.get(&node).and_then(|known| known.incarnation))
    }

    pub fn all(&self) -> Vec<Member> {
        self.read(|known| known.values().map(|known| known.member.clone()).collect())
    }

    fn read<T>(&self, f: impl FnOnce(&BTreeMap<NodeId, Known>) -> T) -> T {
        f(&self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn learn(&self, row: &Row) {
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let member = Member {
            id: row.id,
            name: row.name.clone(),
            peer_addresses: row.peer_addresses.clone(),
            client_urls: row.client_urls.clone(),
            learner: false,
        };
        known.insert(row.id, Known { member, incarnation: Some(row.incarnation) });
    }
}

/// What a member publishes of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    id: NodeId,
    incarnation: Incarnation,
    name: String,
    peer_addresses: Vec<String>,
    client_urls: Vec<String>,
}

impl Row {
    fn key(id: NodeId) -> Bytes {
        format!("{PREFIX}{:016x}", id.0).into()
    }

    fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION);
        w.u64(self.id.0);
        w.u64(self.incarnation.0);
        w.bytes(self.name.as_bytes());
        for list in [&self.peer_addresses, &self.client_urls] {
            w.varint(list.len() as u64);
            list.iter().for_each(|item| w.bytes(item.as_bytes()));
        }
        w.finish().into()
    }

    fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        if r.u8("member row version")? != VERSION {
            return Err(r.error("member row version"));
        }
        let (id, incarnation) = (NodeId(r.u64("member")?), Incarnation(r.u64("incarnation")?));
        let name = text(&mut r)?;
        let mut lists = [Vec::new(), Vec::new()];
        for list in &mut lists {
            for _ in 0..r.count("addresses")? {
                list.push(text(&mut r)?);
            }
        }
        let [peer_addresses, client_urls] = lists;
        Ok(Self { id, incarnation, name, peer_addresses, client_urls })
    }
}

fn text(r: &mut Reader) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&r.bytes("text")?).into_owned())
}

/// Writes this node's row, as soon as the cluster can take it.
pub(crate) async fn register(db: Arc<RuntimeDb>, options: Options, incarnation: Incarnation) {
    let own = options.members.iter().find(|member| member.id == options.node);
    let row = Row {
        id: options.node,
        incarnation,
        name: options.name.clone(),
        peer_addresses: own.map(|member| vec![member.peer_address.clone()]).unwrap_or_default(),
        client_urls: options.client_urls.clone(),
    };
    let key = Row::key(options.node);
    loop {
        let op = RangeOp::of(KeyRange::single(key.clone()));
        if let Ok(read) = db.read(KeyspaceId::SYSTEM, op, Consistency::Linearizable).await {
            let present = read.result.kvs.first();
            let known = present.and_then(|kv| Row::decode(kv.value.clone()).ok());
            match &known {
                Some(known) if *known == row => return,
                Some(known) if known.incarnation != incarnation => stop_process(&format!(
                    "the cluster knows {} with another disk ({}, this one is {incarnation}): a node that lost its data must come \
                     back as a new member, since it no longer knows what it promised",
                    options.name, known.incarnation
                )),
                _ => {}
            }
            let unchanged = Compare {
                range: KeyRange::single(key.clone()),
                op: CompareOp::Equal,
                expected: Expected::Mod(present.map_or(0, |kv| kv.mod_revision.0 as i64)),
            };
            let put = Op::Put(PutOp::of(key.clone(), row.encode()));
            let txn = Txn { compares: vec![unchanged], success: vec![put], failure: Vec::new() };
            // Whatever came of it shows in the next read.
            let _ = db.submit(KeyspaceId::SYSTEM, Command::Transact(txn)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Keeps the member table up to date.
pub(crate) async fn follow(db: Arc<RuntimeDb>, table: Arc<MemberTable>) {
    let learn = |value: Bytes| match Row::decode(value) {
        Ok(row) => table.learn(&row),
        Err(e) => tracing::warn!("a member's row cannot be read: {e}"),
    };
    loop {
        let op = RangeOp::of(KeyRange::prefix(PREFIX));
        if let Ok(read) = db.read(KeyspaceId::SYSTEM, op, Consistency::Serializable).await {
            read.result.kvs.into_iter().for_each(|kv| learn(kv.value));
            let (control, mut events) = db.watch(KeyspaceId::SYSTEM);
            let start = Some(quorate_kv::Revision(read.header.revision.0 + 1));
            let range = KeyRange::prefix(PREFIX);
            control.open(WatchId(1), WatchSpec { range, start, no_put: false, no_delete: true, prev_kv: false });
            loop {
                match events.next().await {
                    WatchNotice::Events { events, .. } => events.iter().for_each(|event| learn(event.kv.value.clone())),
                    WatchNotice::Compacted { .. } | WatchNotice::Closed => break,
                    WatchNotice::Created { .. } | WatchNotice::Progress { .. } => {}
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_and_ids_depend_on_the_name_alone() {
        let row = Row {
            id: member_id("n1"),
            incarnation: Incarnation(9),
            name: "n1".into(),
            peer_addresses: vec!["127.0.0.1:1".into()],
            client_urls: vec!["http://127.0.0.1:2".into(), "http://[::1]:2".into()],
        };
        assert_eq!(Row::decode(row.encode()), Ok(row));
        assert_ne!(member_id("n1"), member_id("n2"));
    }
}
