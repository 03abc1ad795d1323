//! The members as rows of the system keyspace: what the cluster wants to be.
//!
//! ```text
//!   members/<id>   a member: name, addresses, the disk it has, and its state
//!   removed/<id>   nobody will ever have this id again; written in the transaction that removes the member's row
//!
//!   Learner ── promoted by hand ──> Joining ── every group has its vote ──> Voter
//!      └──────────────┬────────────────┴───────────────────────────────────────┘
//!                     └──> Leaving ── no group has it ──> removed
//! ```
//!
//! States only go forward, so a group's leader that acts on old rows does what is undone later, and never what must not be. What a group
//! is made of is the group's own (docs/design/membership.md).

use crate::config::BootMember;
use crate::rows::{key_of, member_of, unchanged_since};
use bytes::Bytes;
use quorate_env::{DecodeError, Incarnation, NodeId, Reader, ReplicaId, Writer};
use quorate_kv::{Compare, KeyRange, KeyValue, Revision};
use std::collections::{BTreeMap, BTreeSet};

/// Where the members' rows begin.
pub const MEMBERS: &str = "members/";
/// Where the names of former members begin.
pub const REMOVED: &str = "removed/";

const VERSION: u8 = 2;

/// What the cluster wants of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// To listen, until somebody promotes it.
    Learner = 1,
    /// To vote, as soon as it has caught up.
    Joining = 2,
    /// To vote; it does.
    Voter = 3,
    /// To go.
    Leaving = 4,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// Its id; that of its replicas too.
    pub id: NodeId,
    /// Its disk. `None` until it has first started: it is expected.
    pub incarnation: Option<Incarnation>,
    /// Its name; empty until then.
    pub name: String,
    /// Where its peers reach it, `host:port`.
    pub peer_addresses: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// What is wanted of it.
    pub state: MemberState,
}

impl MemberRow {
    /// The row that a member of the first configuration will write of itself, as far as others can know it.
    #[must_use]
    pub fn of_founder(member: &BootMember) -> Self {
        Self {
            id: member.id,
            incarnation: None,
            name: member.name.clone(),
            peer_addresses: vec![member.peer_address.clone()],
            client_urls: Vec::new(),
            state: MemberState::Voter,
        }
    }

    /// The key of a member's row.
    #[must_use]
    pub fn key(id: NodeId) -> Bytes {
        key_of(MEMBERS, id)
    }

    /// The key that says that a member was removed.
    #[must_use]
    pub fn removed_key(id: NodeId) -> Bytes {
        key_of(REMOVED, id)
    }

    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION);
        w.u64(self.id.0);
        w.u64(self.incarnation.map_or(0, |incarnation| incarnation.0));
        w.bytes(self.name.as_bytes());
        for list in [&self.peer_addresses, &self.client_urls] {
            w.varint(list.len() as u64);
            list.iter().for_each(|item| w.bytes(item.as_bytes()));
        }
        w.u8(self.state as u8);
        w.finish().into()
    }

    /// Reads a row; those of version 1 are voters.
    pub fn decode(row: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(row);
        let version = r.u8("member row version")?;
        if version == 0 || version > VERSION {
            return Err(r.error("member row version"));
        }
        let (id, incarnation) = (NodeId(r.u64("member")?), r.u64("incarnation")?);
        let name = text(&mut r)?;
        let mut lists = [Vec::new(), Vec::new()];
        for list in &mut lists {
            for _ in 0..r.count("addresses")? {
                list.push(text(&mut r)?);
            }
        }
        let state = match (version, version > 1) {
            (_, false) => MemberState::Voter,
            _ => match r.u8("member state")? {
                1 => MemberState::Learner,
                2 => MemberState::Joining,
                3 => MemberState::Voter,
                4 => MemberState::Leaving,
                _ => return Err(r.error("member state")),
            },
        };
        r.end("member row")?;
        let [peer_addresses, client_urls] = lists;
        let incarnation = (incarnation != 0).then_some(Incarnation(incarnation));
        Ok(Self { id, incarnation, name, peer_addresses, client_urls, state })
    }
}

fn text(r: &mut Reader) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&r.bytes("text")?).into_owned())
}

/// What is wanted of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To listen.
    Learner,
    /// To vote.
    Voter,
    /// To go.
    Gone,
}

/// All rows about members, as of one revision of the system keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The members, each with the revision of its row.
    pub rows: BTreeMap<NodeId, (MemberRow, Revision)>,
    /// Former members, with their names.
    pub removed: BTreeMap<NodeId, String>,
    /// When it was read.
    pub revision: Revision,
}

impl Roster {
    /// The keys that make it up.
    #[must_use]
    pub fn ranges() -> [KeyRange; 2] {
        [KeyRange::prefix(MEMBERS), KeyRange::prefix(REMOVED)]
    }

    /// From what is under [`Roster::ranges`].
    pub fn read(kvs: impl IntoIterator<Item = KeyValue>, revision: Revision) -> Result<Self, DecodeError> {
        let mut roster = Self { revision, ..Self::default() };
        for kv in kvs {
            if kv.key.starts_with(MEMBERS.as_bytes()) {
                let row = MemberRow::decode(kv.value)?;
                roster.rows.insert(row.id, (row, kv.mod_revision));
            } else {
                roster.removed.insert(member_of(REMOVED, &kv.key)?, String::from_utf8_lossy(&kv.value).into_owned());
            }
        }
        Ok(roster)
    }

    /// What is wanted of a replica; `None` if no row speaks of it: it is of the first configuration and has not registered yet.
    #[must_use]
    pub fn wanted(&self, replica: ReplicaId) -> Option<Wanted> {
        let node = crate::wire::node_of(replica);
        if self.removed.contains_key(&node) {
            return Some(Wanted::Gone);
        }
        self.rows.get(&node).map(|(row, _)| match row.state {
            MemberState::Learner => Wanted::Learner,
            MemberState::Joining | MemberState::Voter => Wanted::Voter,
            MemberState::Leaving => Wanted::Gone,
        })
    }

    /// Whether somebody is on its way in or out.
    pub(crate) fn is_moving(&self) -> bool {
        self.rows.values().any(|(row, _)| matches!(row.state, MemberState::Joining | MemberState::Leaving))
    }

    /// Holds as long as nobody has written a row about members after these were read.
    #[must_use]
    pub fn unchanged(&self) -> Vec<Compare> {
        unchanged_since(self.revision, Self::ranges())
    }

    /// Who begins a new group: those whose rows say that they vote, and those of the first configuration who have not registered yet.
    #[must_use]
    pub fn founders(&self, first: impl IntoIterator<Item = NodeId>) -> Vec<ReplicaId> {
        let voters = self.rows.values().map(|(row, _)| row).filter(|row| row.state == MemberState::Voter);
        let silent = first.into_iter().filter(|id| !self.rows.contains_key(id) && !self.removed.contains_key(id));
        let all: BTreeSet<ReplicaId> = voters.map(|row| row.id).chain(silent).map(|id| ReplicaId(id.0)).collect();
        all.into_iter().collect()
    }

    /// The members that have started and are to stay.
    pub fn started(&self) -> impl Iterator<Item = &MemberRow> {
        let rows = self.rows.values().map(|(row, _)| row);
        rows.filter(|row| row.incarnation.is_some() && row.state != MemberState::Leaving)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Members that have started, with what is wanted of each.
    pub(crate) fn roster(rows: &[(u64, MemberState)]) -> Roster {
        let row = |(id, state): &(u64, MemberState)| {
            let row = MemberRow {
                id: NodeId(*id),
                incarnation: Some(Incarnation(1)),
                name: format!("n{id}"),
                peer_addresses: Vec::new(),
                client_urls: Vec::new(),
                state: *state,
            };
            (row.id, (row, Revision(1)))
        };
        Roster { rows: rows.iter().map(row).collect(), ..Roster::default() }
    }

    #[test]
    fn rows_survive_and_those_of_version_1_are_voters() {
        let row = MemberRow {
            id: NodeId(7),
            incarnation: Some(Incarnation(9)),
            name: "n1".into(),
            peer_addresses: vec!["127.0.0.1:1".into()],
            client_urls: vec!["http://127.0.0.1:2".into(), "http://[::1]:2".into()],
            state: MemberState::Voter,
        };
        let bytes = row.encode();
        for len in 0..bytes.len() {
            assert!(MemberRow::decode(bytes.slice(..len)).is_err());
        }
        let mut old = bytes.to_vec();
        old[0] = 1;
        old.pop();
        assert_eq!(MemberRow::decode(old.into()), Ok(row.clone()));
        let pending = MemberRow { incarnation: None, state: MemberState::Learner, ..row };
        assert_eq!(MemberRow::decode(pending.encode()), Ok(pending));
    }

    #[test]
    fn who_was_removed_is_gone_whatever_its_row_says() {
        let kv = |key: Bytes, value: Bytes| KeyValue {
            key,
            value,
            create_revision: Revision(2),
            mod_revision: Revision(3),
            version: 1,
            lease: quorate_kv::LeaseId::NONE,
        };
        let row = MemberRow {
            id: NodeId(1),
            incarnation: None,
            name: String::new(),
            peer_addresses: Vec::new(),
            client_urls: Vec::new(),
            state: MemberState::Joining,
        };
        let rows = [kv(MemberRow::key(NodeId(1)), row.encode()), kv(MemberRow::removed_key(NodeId(2)), "n2".into())];
        let mut roster = Roster::read(rows, Revision(3)).expect("readable");
        assert_eq!(roster.wanted(ReplicaId(1)), Some(Wanted::Voter));
        assert_eq!(roster.wanted(ReplicaId(2)), Some(Wanted::Gone));
        assert_eq!(roster.wanted(ReplicaId(3)), None);
        assert_eq!(roster.started().count(), 0);
        roster.removed.insert(NodeId(1), String::new());
        assert_eq!(roster.wanted(ReplicaId(1)), Some(Wanted::Gone));
    }
}
