//! Who the members are, as this node knows them: those it was started with, until the rows of the system keyspace say more.
//!
//! The node's own replica of the system keyspace tells ([`MemberTable::learn`]), so that whoever is in a row is known here before any group
//! that this node leads talks to it. A node writes its own row once its cluster has a leader: name, addresses, and the incarnation of its
//! disk. The row is how others know a node that lost its disk from one that did not.

use crate::db::RuntimeDb;
use crate::disk::KnownMembers;
use crate::driver::{Options, removed_from_cluster, stop_process};
use crate::{admin, disk};
use quorate_cluster::BootMember;
use quorate_cluster::members::{MemberRow, MemberState, Roster};
use quorate_env::checksum::checksum;
use quorate_env::{Incarnation, NodeId};
use quorate_kv::{Command, Db, KeyspaceId, Member, Op, PutOp, Txn};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The id of a member of a first configuration: the hash of its name, so that every node computes the same. Never 0. Whoever comes later
/// gets a random one.
#[must_use]
pub fn member_id(name: &str) -> NodeId {
    NodeId(checksum(0x006D_656D_6265_7231, name.as_bytes()).max(1))
}

struct State {
    /// Those that this node was started with.
    base: BTreeMap<NodeId, BootMember>,
    roster: Arc<Roster>,
    /// The disks of those that have connected, for the time before they have registered.
    seen: BTreeMap<NodeId, Incarnation>,
}

/// The members as this node knows them.
pub(crate) struct MemberTable {
    state: RwLock<State>,
    changed: watch::Sender<()>,
    /// Somebody has connected.
    arrived: Notify,
}

impl MemberTable {
    pub fn new(known: &[BootMember]) -> Arc<Self> {
        let base = known.iter().map(|member| (member.id, member.clone())).collect();
        let state = State { base, roster: Arc::default(), seen: BTreeMap::new() };
        Arc::new(Self { state: RwLock::new(state), changed: watch::channel(()).0, arrived: Notify::new() })
    }

    /// The rows have changed.
    pub fn learn(&self, roster: Arc<Roster>) {
        self.write(|state| state.roster = roster);
        self.changed.send_replace(());
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.read(|state| !state.roster.removed.contains_key(&node) && (state.knows(node)))
    }

    /// Whether the cluster has let a node go.
    pub fn was_removed(&self, node: NodeId) -> bool {
        self.read(|state| state.roster.removed.contains_key(&node))
    }

    /// Returns when the cluster has let a node go.
    pub async fn removal_of(&self, node: NodeId) {
        let mut changed = self.changed.subscribe();
        while !self.was_removed(node) {
            // The table lives as long as its sender.
            let _ = changed.changed().await;
        }
    }

    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.read(|state| {
            let row = state.roster.rows.get(&node).and_then(|(row, _)| row.incarnation);
            row.or_else(|| state.seen.get(&node).copied())
        })
    }

    /// A node has connected with this disk.
    pub fn saw(&self, node: NodeId, incarnation: Incarnation) {
        self.write(|state| state.seen.insert(node, incarnation));
        self.arrived.notify_waiters();
    }

    /// Returns when some node connects: whoever could not be reached may be there again, and waits for answers.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Whether a member of a first configuration has connected with another disk than this.
    pub fn saw_another_disk(&self, name: &str, incarnation: Incarnation) -> bool {
        let id = member_id(name);
        self.read(|state| {
            let removed = state.roster.removed.contains_key(&id);
            !removed && state.seen.get(&id).is_some_and(|seen| *seen != incarnation)
        })
    }

    /// Where each member that has started, or may have, can be reached.
    pub fn addresses(&self) -> BTreeMap<NodeId, Vec<String>> {
        self.read(|state| {
            let base = state.base.values().filter(|member| !state.roster.removed.contains_key(&member.id));
            let mut addresses: BTreeMap<_, _> =
                base.map(|member| (member.id, vec![member.peer_address.clone()])).collect();
            let rows = state.roster.rows.values().map(|(row, _)| row);
            for row in rows.filter(|row| row.incarnation.is_some() && !row.peer_addresses.is_empty()) {
                let told = addresses.insert(row.id, row.peer_addresses.clone()).unwrap_or_default();
                // Where the flags say that it is, comes second: the whole cluster may have moved.
                let more = told.into_iter().filter(|address| !row.peer_addresses.contains(address));
                addresses.entry(row.id).or_default().extend(more);
            }
            addresses
        })
    }

    /// What a member is called; its id, if nobody has said.
    pub fn name_of(&self, node: NodeId) -> String {
        let named = self.all().into_iter().find(|member| member.id == node).map(|member| member.name);
        named.filter(|name| !name.is_empty()).unwrap_or_else(|| node.to_string())
    }

    /// For the member list.
    pub fn all(&self) -> Vec<Member> {
        self.read(|state| {
            let silent = state
                .base
                .values()
                .filter(|m| !state.roster.rows.contains_key(&m.id) && !state.roster.removed.contains_key(&m.id));
            let mut all: BTreeMap<NodeId, Member> = silent
                .map(|m| {
                    let peer_addresses = vec![m.peer_address.clone()];
                    let (client_urls, learner) = (Vec::new(), false);
                    (m.id, Member { id: m.id, name: m.name.clone(), peer_addresses, client_urls, learner })
                })
                .collect();
            for (row, _) in state.roster.rows.values() {
                let waits = row.state == MemberState::Joining && row.incarnation.is_some();
                let member = Member {
                    id: row.id,
                    name: row.name.clone(),
                    peer_addresses: row.peer_addresses.clone(),
                    client_urls: row.client_urls.clone(),
                    learner: row.state == MemberState::Learner || waits,
                };
                all.insert(row.id, member);
            }
            all.into_values().collect()
        })
    }

    fn known(&self) -> Vec<BootMember> {
        self.read(|state| {
            let base = state.base.values().filter(|member| !state.roster.removed.contains_key(&member.id));
            let mut known: BTreeMap<_, _> = base.map(|member| (member.id, member.clone())).collect();
            for row in state.roster.started() {
                if let Some(peer_address) = row.peer_addresses.first().cloned() {
                    known.insert(row.id, BootMember { id: row.id, name: row.name.clone(), peer_address });
                }
            }
            known.into_values().collect()
        })
    }

    fn read<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn write<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl State {
    fn knows(&self, node: NodeId) -> bool {
        self.base.contains_key(&node) || self.roster.rows.get(&node).is_some_and(|(row, _)| row.incarnation.is_some())
    }
}

/// Writes this node's row, as soon as the cluster can take it.
pub(crate) async fn register(db: Arc<RuntimeDb>, options: Options, incarnation: Incarnation) {
    let founder = options.members.iter().find(|member| member.id == options.node);
    loop {
        if let Ok(roster) = admin::roster(&db).await {
            if roster.removed.contains_key(&options.node) {
                removed_from_cluster(&options.data_dir, &options.name, options.node);
            }
            let present = roster.rows.get(&options.node).map(|(row, _)| row);
            let row = match (present, founder) {
                (Some(known), _) if known.incarnation.is_some_and(|known| known != incarnation) => {
                    stop_process(&format!(
                        "the cluster knows {} with another disk than this one ({incarnation}): a node that lost its data must come \
                         back as a new member, since it no longer knows what it promised",
                        options.name
                    ))
                }
                (Some(known), _) => MemberRow {
                    incarnation: Some(incarnation),
                    name: options.name.clone(),
                    client_urls: options.client_urls.clone(),
                    // Where it is reached may have been changed by others: only what it was told for certain goes over that.
                    peer_addresses: match &options.announce_peer {
                        Some(address) => vec![address.clone()],
                        None => known.peer_addresses.clone(),
                    },
                    ..known.clone()
                },
                (None, Some(member)) => MemberRow {
                    id: options.node,
                    incarnation: Some(incarnation),
                    name: options.name.clone(),
                    peer_addresses: vec![member.peer_address.clone()],
                    client_urls: options.client_urls.clone(),
                    state: MemberState::Voter,
                },
                // It joined, so there is a row; this node will know it soon.
                (None, None) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if present == Some(&row) {
                return;
            }
            let put = Op::Put(PutOp::of(MemberRow::key(row.id), row.encode()));
            let txn = Txn { compares: roster.unchanged(), success: vec![put], failure: Vec::new() };
            // Whatever came of it shows in the next read.
            let _ = db.submit(KeyspaceId::SYSTEM, Command::Transact(txn)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Keeps the file of known members up to date.
pub(crate) async fn remember(dir: PathBuf, token: u64, first: Vec<BootMember>, table: Arc<MemberTable>) {
    let mut changed = table.changed.subscribe();
    let mut written = None;
    loop {
        let members = KnownMembers { token, first: first.clone(), known: table.known() };
        if written.as_ref() != Some(&members) {
            let (dir, copy) = (dir.clone(), members.clone());
            match tokio::task::spawn_blocking(move || copy.write(&dir)).await {
                Ok(Ok(())) => written = Some(members),
                // A full disk, perhaps: the next change tries again.
                Ok(Err(e)) => tracing::warn!("{e}"),
                Err(_) => return,
            }
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Remembers that this node was let go, where it will find it again.
pub(crate) fn let_go(dir: &std::path::Path, why: &str) {
    disk::remember_removal(dir, why);
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_kv::Revision;

    #[test]
    fn ids_depend_on_the_name_alone() {
        assert_eq!(member_id("n1"), member_id("n1"));
        assert_ne!(member_id("n1"), member_id("n2"));
    }

    #[test]
    fn rows_go_over_what_the_node_was_started_with() {
        let base = BootMember { id: NodeId(1), name: "n1".into(), peer_address: "h:1".into() };
        let table = MemberTable::new(&[base]);
        let row = |id, address: &str, incarnation| MemberRow {
            id: NodeId(id),
            incarnation,
            name: format!("n{id}"),
            peer_addresses: vec![address.into()],
            client_urls: Vec::new(),
            state: MemberState::Joining,
        };
        let mut roster = Roster::default();
        roster.rows.insert(NodeId(1), (row(1, "h:9", Some(Incarnation(1))), Revision(1)));
        roster.rows.insert(NodeId(2), (row(2, "h:2", None), Revision(1)));
        table.learn(Arc::new(roster.clone()));
        let both = vec!["h:9".to_owned(), "h:1".to_owned()];
        assert_eq!(table.addresses(), BTreeMap::from([(NodeId(1), both)]), "2 has not started");
        assert_eq!(table.all().len(), 2, "and is listed");
        assert!(table.contains(NodeId(1)) && !table.contains(NodeId(2)));
        roster.rows.remove(&NodeId(1));
        roster.removed.insert(NodeId(1), "n1".into());
        table.learn(Arc::new(roster));
        assert!(table.was_removed(NodeId(1)) && !table.contains(NodeId(1)) && table.addresses().is_empty());
    }

    #[test]
    fn a_disk_that_was_seen_is_remembered_before_it_registers() {
        let table = MemberTable::new(&[]);
        assert!(!table.saw_another_disk("n1", Incarnation(1)));
        table.saw(member_id("n1"), Incarnation(1));
        assert!(!table.saw_another_disk("n1", Incarnation(1)));
        assert!(table.saw_another_disk("n1", Incarnation(2)));
    }
}
