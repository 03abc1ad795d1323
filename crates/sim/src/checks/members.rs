//! Who the members are, judged from the committed log alone: what each replica goes by, who may lead, whose disks count.
//!
//! A replica changes over when it applies an entry, so the leader that commits an entry may not have applied the last change before it yet. It
//! has applied the one before that: only one change is under way at a time. So an entry is judged by one of two configurations, and any
//! two that follow each other have majorities that meet.

use crate::history::{Violation, demand};
use bytes::Bytes;
use quorate_cluster::bounds::PROMOTION_LAG_ENTRIES;
use quorate_cluster::{FIRST_SHARDS, Inspection, membership_hash};
use quorate_consensus::{EntryKind, Membership, MembershipChange, Step};
use quorate_env::{LogIndex, Reader, ReplicaId, ShardId, Term};
use quorate_storage::wal::LogEntry;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(super) struct MemberCheck {
    /// With whom the shards begin that every cluster has.
    first: Membership,
    /// With whom those begin that somebody made.
    made: BTreeMap<ShardId, Membership>,
    /// Behind which entry those begin that were split off. Who has nothing of them goes by no members.
    born: BTreeMap<ShardId, LogIndex>,
    nobody: Membership,
    /// Each configuration, from the entry on that made it.
    changes: BTreeMap<ShardId, BTreeMap<LogIndex, Membership>>,
    votes: BTreeMap<(ShardId, Term, ReplicaId), BTreeSet<ReplicaId>>,
    /// Changes that were seen as they were proposed.
    proposed: BTreeSet<(ShardId, LogIndex, Term)>,
}

impl MemberCheck {
    pub fn new(nodes: usize) -> Self {
        let first = Membership::of_voters((1..=nodes as u64).map(ReplicaId));
        Self {
            first,
            made: BTreeMap::new(),
            born: BTreeMap::new(),
            nobody: Membership::default(),
            changes: BTreeMap::new(),
            votes: BTreeMap::new(),
            proposed: BTreeSet::new(),
        }
    }

    /// A node has read that a shard was made, and with whom it begins: all must read the same.
    pub fn made(&mut self, shard: ShardId, founders: &[ReplicaId]) -> Result<(), Violation> {
        let members = Membership::of_voters(founders.iter().copied());
        let known = self.made.entry(shard).or_insert_with(|| members.clone());
        demand(*known == members, "members are what the log says", || {
            format!("{shard} begins with {members:?} for one node, with {known:?} for another")
        })
    }

    /// A shard is to be split off: until it is, nobody has anything of it.
    pub fn expect(&mut self, child: ShardId) {
        self.born.entry(child).or_insert(LogIndex(u64::MAX));
    }

    /// A shard was split off.
    pub fn born(&mut self, child: ShardId, index: LogIndex, membership: &Bytes) -> Result<(), Violation> {
        let members = Membership::decode(&mut Reader::new(membership.clone()));
        let members =
            members.map_err(|e| Violation { rule: "entries can be read", detail: format!("{child}: {e}") })?;
        self.made.insert(child, members);
        self.born.insert(child, index);
        Ok(())
    }

    /// Behind which entry a shard begins.
    pub fn birth(&self, child: ShardId) -> LogIndex {
        self.born.get(&child).copied().unwrap_or_default()
    }

    fn first(&self, shard: ShardId) -> &Membership {
        self.made.get(&shard).unwrap_or(&self.first)
    }

    /// The configuration as of an entry.
    pub fn at(&self, shard: ShardId, index: LogIndex) -> &Membership {
        if index < self.birth(shard) {
            return &self.nobody;
        }
        let change = self.changes.get(&shard).and_then(|changes| changes.range(..=index).next_back());
        change.map_or_else(|| self.first(shard), |(_, membership)| membership)
    }

    /// The configurations by which an entry after `index` may be judged, the latest first.
    fn judges(&self, shard: ShardId, index: LogIndex) -> Vec<&Membership> {
        let changes = self.changes.get(&shard).into_iter().flat_map(|changes| changes.range(..=index).rev());
        changes.map(|(_, membership)| membership).chain([self.first(shard)]).take(2).collect()
    }

    /// Somebody applies an entry that nobody had applied: those that `hold` it durably must decide. Else returns who should.
    pub fn demand_quorum(
        &self,
        shard: ShardId,
        index: LogIndex,
        holds: impl Fn(ReplicaId) -> bool,
    ) -> Result<(), Membership> {
        let judges = self.judges(shard, LogIndex(index.0 - 1));
        match judges.iter().any(|members| members.is_quorum(&holds)) {
            true => Ok(()),
            false => Err(judges[0].clone()),
        }
    }

    /// An entry is committed. Returns the commands in it.
    pub fn committed(&mut self, shard: ShardId, index: LogIndex, kind: u8, payload: Bytes) -> Result<Bytes, Violation> {
        if kind != EntryKind::Membership as u8 {
            return Ok(payload);
        }
        let change = MembershipChange::decode(payload)
            .map_err(|e| Violation { rule: "entries can be read", detail: format!("{shard} {index}: {e}") })?;
        if let Some(after) = change.after(self.at(shard, index)) {
            self.changes.entry(shard).or_default().insert(index, after);
        }
        Ok(Bytes::new())
    }

    /// A leader of the system keyspace's group proposes an entry, and has applied this much elsewhere. A node learns from the system keyspace that it
    /// is to go: that is the last group that it leaves, as far as who lets it go can know.
    pub fn leaves_last(&self, entry: &LogEntry, applied: impl Fn(ShardId) -> LogIndex) -> Result<(), Violation> {
        let change = MembershipChange::decode(entry.payload.clone());
        let Ok(MembershipChange::Enter(steps) | MembershipChange::Simple(steps)) = change else { return Ok(()) };
        let gone = |step: &Step| if let Step::Remove(id) = step { Some(*id) } else { None };
        for id in steps.iter().filter_map(gone) {
            for other in FIRST_SHARDS.into_iter().skip(1) {
                let members = self.at(other, applied(other));
                demand(!members.contains(id), "who goes leaves the system keyspace last", || {
                    format!("{id} is let go from {} and is still in {other}: {members:?}", entry.shard)
                })?;
            }
        }
        Ok(())
    }

    /// A replica handed a change to its disk, which the first one to do so proposed. `last` is the last entry that a replica's disk holds.
    pub fn proposed(
        &mut self,
        entry: &LogEntry,
        committed: u64,
        last: impl Fn(ReplicaId) -> u64,
    ) -> Result<(), Violation> {
        if entry.kind != EntryKind::Membership as u8 || !self.proposed.insert((entry.shard, entry.index, entry.term)) {
            return Ok(());
        }
        let Ok(MembershipChange::Enter(steps)) = MembershipChange::decode(entry.payload.clone()) else { return Ok(()) };
        for step in steps {
            if let Step::Voter(id) = step {
                demand(last(id) + PROMOTION_LAG_ENTRIES >= committed, "who is promoted has the log", || {
                    format!(
                        "{} {}: {id} has the log up to {}, {committed} entries are committed",
                        entry.shard,
                        entry.index,
                        last(id)
                    )
                })?;
            }
        }
        Ok(())
    }

    /// A replica gave its vote.
    pub fn voted(&mut self, shard: ShardId, term: Term, voter: ReplicaId, candidate: ReplicaId) {
        self.votes.entry((shard, term, candidate)).or_default().insert(voter);
    }

    /// A replica leads, for the first time in its term.
    pub fn elected(&self, shard: ShardId, now: &Inspection) -> Result<(), Violation> {
        let nobody = BTreeSet::new();
        let votes = self.votes.get(&(shard, now.term, now.replica)).unwrap_or(&nobody);
        let judges = self.judges(shard, now.applied);
        let elects = |members: &&Membership| {
            members.is_voter(now.replica) && members.is_quorum(|id| id == now.replica || votes.contains(&id))
        };
        demand(judges.iter().any(elects), "a leader has the votes of a quorum", || {
            format!("{shard} {}: {} leads by the votes of {votes:?} among {judges:?}", now.term, now.replica)
        })
    }

    /// What a replica looks like.
    pub fn observe(&self, node: usize, shard: ShardId, now: &Inspection) -> Result<(), Violation> {
        let members = self.at(shard, now.applied);
        demand(now.membership == membership_hash(members), "members are what the log says", || {
            format!("node {node} {shard} goes by others than {members:?} at {}", now.applied)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_consensus::Role;

    const S: ShardId = ShardId(2);

    fn joint() -> MemberCheck {
        let mut check = MemberCheck::new(3);
        let change = MembershipChange::Enter(vec![Step::Voter(ReplicaId(4)), Step::Remove(ReplicaId(3))]);
        let left = check.committed(S, LogIndex(5), EntryKind::Membership as u8, change.encode().into());
        assert_eq!(left.map(|commands| commands.len()).ok(), Some(0));
        check
    }

    fn look(replica: u64, applied: u64, membership: u64) -> Inspection {
        Inspection {
            replica: ReplicaId(replica),
            role: Role::Leader,
            term: Term(4),
            leader: None,
            committed: LogIndex(applied),
            applied: LogIndex(applied),
            state_hash: 0,
            revision: quorate_kv::Revision(1),
            log_start: LogIndex(0),
            last: LogIndex(9),
            held_back: false,
            waits_for_newcomer: false,
            voter: true,
            membership,
            rotted: 0,
            asleep: false,
        }
    }

    fn quorum(check: &MemberCheck, index: u64, who: &[u64]) -> bool {
        check.demand_quorum(S, LogIndex(index), |id| who.contains(&id.0)).is_ok()
    }

    #[test]
    fn both_majorities_of_a_joint_configuration_count_and_nobody_else() {
        let mut check = joint();
        assert!(quorum(&check, 6, &[1, 2]), "of both");
        assert!(quorum(&check, 6, &[1, 3]), "the leader may not have applied the change");
        assert!(!quorum(&check, 6, &[1, 4]), "of the new ones only");
        let leave = MembershipChange::Leave.encode().into();
        check.committed(S, LogIndex(6), EntryKind::Membership as u8, leave).expect("readable");
        assert!(quorum(&check, 7, &[1, 4]));
        assert!(!quorum(&check, 7, &[2, 3]), "who was removed is not counted");
    }

    #[test]
    fn a_replica_that_goes_by_other_members_is_noticed() {
        let check = joint();
        let (old, new) = (membership_hash(&check.first), membership_hash(check.at(S, LogIndex(5))));
        assert!(check.observe(0, S, &look(1, 4, old)).is_ok() && check.observe(0, S, &look(1, 5, new)).is_ok());
        for (applied, membership) in [(4, new), (5, old)] {
            let broken = check.observe(0, S, &look(1, applied, membership)).expect_err("an objection");
            assert_eq!(broken.rule, "members are what the log says");
        }
    }

    #[test]
    fn a_leader_without_votes_or_without_a_vote_is_noticed() {
        let mut check = joint();
        check.voted(S, Term(4), ReplicaId(4), ReplicaId(1));
        let broken = check.elected(S, &look(1, 5, 0)).expect_err("the new majority only");
        assert_eq!(broken.rule, "a leader has the votes of a quorum");
        check.voted(S, Term(4), ReplicaId(2), ReplicaId(1));
        check.elected(S, &look(1, 5, 0)).expect("both");
        (1..=4).for_each(|voter| check.voted(S, Term(4), ReplicaId(voter), ReplicaId(9)));
        assert!(check.elected(S, &look(9, 5, 0)).is_err(), "it is no voter");
    }

    #[test]
    fn a_vote_for_who_lacks_the_log_is_noticed() {
        let mut check = MemberCheck::new(3);
        let entry = |index| LogEntry {
            shard: S,
            index: LogIndex(index),
            term: Term(1),
            kind: EntryKind::Membership as u8,
            payload: MembershipChange::Enter(vec![Step::Voter(ReplicaId(4))]).encode().into(),
        };
        check.proposed(&entry(1_001), 1_000, |_| 1_000).expect("it has all");
        let broken = check.proposed(&entry(1_002), 1_000, |_| 3).expect_err("it has little");
        assert_eq!(broken.rule, "who is promoted has the log");
        check.proposed(&entry(1_002), 1_000, |_| 3).expect("another replica writes what was judged");
    }
}
