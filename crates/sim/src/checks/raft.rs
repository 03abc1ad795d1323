//! Raft's five properties, and what the disk owes them, judged at every step from outside: from what each node wrote, not from what it says.

use super::members::MemberCheck;
use crate::driver::id_of;
use crate::history::{Violation, demand};
use bytes::Bytes;
use quorate_cluster::{FIRST_SHARDS, Inspection};
use quorate_consensus::{EntryKind, Role};
use quorate_env::{LogIndex, ReplicaId, ShardId, Term};
use quorate_storage::wal::{LogRecord, RecoveredLog};
use std::collections::{BTreeMap, BTreeSet};

/// What an entry is: its term, its kind in the words of consensus, its payload.
type Held = (Term, u8, Bytes);

/// One node's log of one shard, as its writes say.
#[derive(Clone, Debug, Default)]
struct Shadow {
    start: LogIndex,
    entries: BTreeMap<LogIndex, Held>,
    term: Term,
}

impl Shadow {
    fn write(&mut self, record: &LogRecord) {
        match record {
            LogRecord::Entry(entry) => {
                self.entries.split_off(&entry.index);
                self.entries.insert(entry.index, (entry.term, entry.kind, entry.payload.clone()));
            }
            LogRecord::Repair(entry) => {
                self.entries.insert(entry.index, (entry.term, entry.kind, entry.payload.clone()));
            }
            LogRecord::HardState(hard_state) => self.term = hard_state.term,
            LogRecord::Start { index, discard_after, .. } => {
                self.entries = if *discard_after { BTreeMap::new() } else { self.entries.split_off(&index.next()) };
                self.start = *index;
            }
        }
    }

    fn holds(&self, index: LogIndex, term: Term) -> bool {
        index <= self.start || self.entries.get(&index).is_some_and(|(t, ..)| *t == term)
    }
}

fn shard_of(record: &LogRecord) -> ShardId {
    match record {
        LogRecord::Entry(entry) | LogRecord::Repair(entry) => entry.shard,
        LogRecord::HardState(hard_state) => hard_state.shard,
        LogRecord::Start { shard, .. } => *shard,
    }
}

#[derive(Debug, Default)]
struct Watched {
    written: Shadow,
    durable: Shadow,
    /// The highest term in which it gave a vote or acknowledged an entry.
    promised: Term,
    /// The candidate that its last vote was for, and the term.
    vote: Option<(Term, ReplicaId)>,
    applied: LogIndex,
    term: Term,
}

/// An entry that became committed, in order.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub index: LogIndex,
    pub payload: Bytes,
}

#[derive(Debug)]
pub(crate) struct RaftCheck {
    members: MemberCheck,
    watched: BTreeMap<(usize, ShardId), Watched>,
    leaders: BTreeMap<(ShardId, Term), usize>,
    committed: BTreeMap<ShardId, Vec<Held>>,
    /// The term of who first applied each of them: by then it was committed. Its own term may be far below.
    by_term: BTreeMap<ShardId, Vec<Term>>,
    hashes: BTreeMap<(ShardId, LogIndex), u64>,
    /// Nodes whose disks have forgotten what they had said they held. It counts until they come back as others: leaders counted it.
    forgiven: BTreeSet<usize>,
}

impl RaftCheck {
    pub fn new(nodes: usize) -> Self {
        Self {
            members: MemberCheck::new(nodes),
            watched: BTreeMap::new(),
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            by_term: BTreeMap::new(),
            hashes: BTreeMap::new(),
            forgiven: BTreeSet::new(),
        }
    }

    /// See [`MemberCheck::made`].
    pub fn made(&mut self, shard: ShardId, founders: &[ReplicaId]) -> Result<(), Violation> {
        self.members.made(shard, founders)
    }

    /// See [`MemberCheck::expect`].
    pub fn expect(&mut self, child: ShardId) {
        self.members.expect(child);
    }

    /// A shard was split off: its log goes on behind an entry, and begins with what its parent had then.
    pub fn born(&mut self, child: ShardId, index: LogIndex, term: Term, membership: &Bytes) -> Result<(), Violation> {
        let before = index.0 as usize;
        self.committed.entry(child).or_default().resize(before, (Term(0), 0, Bytes::new()));
        self.by_term.entry(child).or_default().resize(before, term);
        self.members.born(child, index, membership)
    }

    /// Whether something is committed in a shard that was split off.
    pub fn goes_on(&self, child: ShardId) -> bool {
        self.committed(child) as u64 > self.members.birth(child).0
    }

    /// A node's disk forgets, by a fault that its peers must find out.
    pub fn forgive(&mut self, node: usize) {
        self.forgiven.insert(node);
    }

    /// A node handed records to its disk.
    pub fn wrote(&mut self, node: usize, records: &[LogRecord]) -> Result<(), Violation> {
        for record in records {
            if let LogRecord::Entry(entry) = record {
                let committed = self.committed(entry.shard) as u64;
                let last = |id: ReplicaId| {
                    let watched = self.watched.get(&(id.0 as usize - 1, entry.shard));
                    watched.map_or(0, |w| w.durable.entries.last_key_value().map_or(w.durable.start, |(i, _)| *i).0)
                };
                self.members.proposed(entry, committed, last)?;
            }
            self.watched.entry((node, shard_of(record))).or_default().written.write(record);
        }
        Ok(())
    }

    /// A node that leads the system keyspace's group in `term` handed records to its disk, and looks as it was last observed.
    pub fn proposes(&self, node: usize, term: Term, records: &[LogRecord]) -> Result<(), Violation> {
        for record in records {
            if let LogRecord::Entry(entry) = record
                && entry.kind == EntryKind::Membership as u8
                && (entry.shard, entry.term) == (FIRST_SHARDS[0], term)
            {
                let applied = |shard| self.watched.get(&(node, shard)).map_or(LogIndex(0), |watched| watched.applied);
                self.members.leaves_last(entry, applied)?;
            }
        }
        Ok(())
    }

    /// Whether the members as of an entry were on their way from one set of voters to another.
    pub fn was_joint_at(&self, shard: ShardId, index: LogIndex) -> bool {
        self.members.at(shard, index).is_joint()
    }

    /// Its disk said that they are durable.
    pub fn synced(&mut self, node: usize, records: &[LogRecord]) {
        if self.forgiven.contains(&node) {
            return;
        }
        for record in records {
            self.watched.entry((node, shard_of(record))).or_default().durable.write(record);
        }
    }

    /// Whether a node's disk holds an entry, or what it did.
    pub fn holds_durably(&self, node: usize, shard: ShardId, index: LogIndex, term: Term) -> bool {
        self.watched.get(&(node, shard)).is_some_and(|watched| watched.durable.holds(index, term))
    }

    /// Who votes in a shard, as far as its log is committed.
    pub fn voters(&self, shard: ShardId) -> BTreeSet<ReplicaId> {
        let last = LogIndex(self.committed(shard) as u64);
        self.members.at(shard, last).all_voters().into_iter().collect()
    }

    /// The term of an entry that is committed.
    pub fn term_of(&self, shard: ShardId, index: LogIndex) -> Option<Term> {
        self.committed.get(&shard).and_then(|all| all.get(index.0 as usize - 1)).map(|(term, ..)| *term)
    }

    /// Those of them whose disks do not have an entry that is committed.
    pub fn lacking(&self, shard: ShardId, index: LogIndex) -> BTreeSet<ReplicaId> {
        let held = self.committed.get(&shard).and_then(|all| all.get(index.0 as usize - 1));
        let term = held.map_or(Term(0), |(term, ..)| *term);
        let lacks = |id: &ReplicaId| !self.holds_durably(id.0 as usize - 1, shard, index, term);
        self.voters(shard).into_iter().filter(lacks).collect()
    }

    /// It gave a vote or acknowledged entries in `term`.
    pub fn promised(&mut self, node: usize, shard: ShardId, term: Term) {
        let watched = self.watched.entry((node, shard)).or_default();
        watched.promised = watched.promised.max(term);
    }

    /// It gave its vote in `term`.
    pub fn voted(&mut self, node: usize, shard: ShardId, term: Term, candidate: ReplicaId) -> Result<(), Violation> {
        let watched = self.watched.entry((node, shard)).or_default();
        let before = watched.vote.filter(|(voted, _)| *voted == term).map_or(candidate, |(_, candidate)| candidate);
        watched.vote = Some((term, candidate));
        self.members.voted(shard, term, ReplicaId(id_of(node).0), candidate);
        demand(before == candidate, "one vote in a term", || {
            format!("node {node} {shard} voted for {before} and for {candidate} in {term}")
        })
    }

    /// Whether a log has everything that the node's disk had said it held, and knows what it promised.
    pub fn remembers(&self, node: usize, shard: ShardId, log: &RecoveredLog) -> Result<(), Violation> {
        let Some(watched) = self.watched.get(&(node, shard)) else { return Ok(()) };
        let name = id_of(node);
        let held = log.hard_state.map(|held| (held.term, held.vote));
        let forgot =
            |(term, candidate)| held.is_none_or(|(now, vote)| now < term || (now == term && vote != candidate));
        demand(!watched.vote.is_some_and(forgot), "promises are remembered", || {
            format!("node {node} {shard} voted {:?} and came back with {held:?}", watched.vote)
        })?;
        demand(held.map_or(Term(0), |(term, _)| term) >= watched.promised, "promises are remembered", || {
            format!("{name} {shard} promised in {} and came back with {held:?}", watched.promised)
        })?;
        // What rotted and is known by name is not lost, but is held only when it was mended.
        let found: BTreeMap<LogIndex, Term> = log.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        let rotted: BTreeMap<LogIndex, Term> = log.rotted.iter().map(|rotted| (rotted.index, rotted.term)).collect();
        for (index, (term, ..)) in &watched.durable.entries {
            match found.get(index).or(rotted.get(index)) {
                Some(t) if t == term => {}
                // A later write replaced the tail from here on, and happened to survive.
                Some(t) if t > term => break,
                _ if *index <= log.start.0 => {}
                now => {
                    return Err(Violation {
                        rule: "durable entries survive",
                        detail: format!(
                            "{name} {shard}: entry {index} of {term} was durable, after the crash it is {now:?}"
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// It starts again with what its disk holds.
    pub fn recovered(&mut self, node: usize, shard: ShardId, log: &RecoveredLog) -> Result<(), Violation> {
        let forgiven = self.forgiven.contains(&node);
        if !forgiven {
            self.remembers(node, shard, log)?;
        }
        let mut found =
            Shadow { start: log.start.0, term: log.hard_state.map_or(Term(0), |h| h.term), ..Shadow::default() };
        found.entries = log.entries.iter().map(|e| (e.index, (e.term, e.kind, e.payload.clone()))).collect();
        let watched = self.watched.entry((node, shard)).or_default();
        watched.written = found.clone();
        if !forgiven {
            watched.durable = found;
        }
        watched.applied = LogIndex(0);
        Ok(())
    }

    /// What a node looks like after its start.
    pub fn booted(&mut self, node: usize, shard: ShardId, now: &Inspection) -> Result<(), Violation> {
        let name = id_of(node);
        let watched = self.watched.entry((node, shard)).or_default();
        watched.applied = now.applied;
        watched.term = now.term;
        let forgiven = self.forgiven.contains(&node);
        demand(forgiven || now.term >= watched.promised, "promises are remembered", || {
            format!("{name} {shard} promised in {} and came back in {}", watched.promised, now.term)
        })
    }

    /// What a node looks like after a step. Returns entries that nobody had applied before.
    pub fn observe(&mut self, node: usize, shard: ShardId, now: &Inspection) -> Result<Vec<Committed>, Violation> {
        let name = id_of(node);
        let watched = self.watched.entry((node, shard)).or_default();
        demand(now.term >= watched.term, "terms do not go back", || {
            format!("{name} {shard}: {} after {}", now.term, watched.term)
        })?;
        watched.term = now.term;
        let from = watched.applied;
        demand(now.applied >= from, "applied does not go back", || {
            format!("{name} {shard}: {} after {from}", now.applied)
        })?;
        watched.applied = now.applied;
        if now.role == Role::Leader {
            let elected = !self.leaders.contains_key(&(shard, now.term));
            let leader = *self.leaders.entry((shard, now.term)).or_insert(node);
            if elected {
                self.members.elected(shard, now)?;
            }
            demand(leader == node, "election safety", || {
                format!("{shard} {}: {} and {name} both lead", now.term, id_of(leader))
            })?;
            // What was committed in a later term says nothing about this leader: it may be deposed and not know it.
            let earlier = |term: &Term| *term < now.term;
            let by_term = self.by_term.get(&shard).filter(|_| elected);
            let known = by_term.and_then(|terms| terms.iter().rposition(earlier)).map_or(0, |at| at as u64 + 1);
            demand(now.last.0 >= known, "leader completeness", || {
                format!(
                    "{name} leads {shard} in {} with a log up to {}, {known} entries are committed",
                    now.term, now.last
                )
            })?;
        }
        // What a snapshot brought was not applied from this node's log, which may still hold what the snapshot replaced.
        let from_log = from.max(now.log_start.min(now.applied));
        let known = self.committed(shard) as u64;
        demand(from_log == from || from_log.0 <= known, "snapshots hold what is committed", || {
            format!("{name} {shard} installed {from_log}, {known} entries are committed")
        })?;
        let fresh = self.applied(node, shard, from_log, now.applied)?;
        self.members.observe(node, shard, now)?;
        if now.applied > from {
            let hash = *self.hashes.entry((shard, now.applied)).or_insert(now.state_hash);
            demand(hash == now.state_hash, "equal state at equal index", || {
                format!("{name} {shard} at {}: {:016x}, another had {hash:016x}", now.applied, now.state_hash)
            })?;
        }
        Ok(fresh)
    }

    fn applied(
        &mut self,
        node: usize,
        shard: ShardId,
        from: LogIndex,
        to: LogIndex,
    ) -> Result<Vec<Committed>, Violation> {
        let name = id_of(node);
        let mut fresh = Vec::new();
        for index in (from.0 + 1..=to.0).map(LogIndex) {
            let known = self.committed.entry(shard).or_default();
            let written = self.watched[&(node, shard)].written.entries.get(&index);
            match (known.get(index.0 as usize - 1), written) {
                (Some(known), Some(written)) => demand(known == written, "state machine safety", || {
                    format!("{shard} {index}: {name} applies another entry than one before it")
                })?,
                // It came with a snapshot.
                (Some(_), None) => {}
                (None, None) => {
                    let detail = format!("{name} {shard} applied {index}, which nobody has");
                    return Err(Violation { rule: "state machine safety", detail });
                }
                (None, Some((term, kind, payload))) => {
                    let (term, kind, payload) = (*term, *kind, payload.clone());
                    let holds = |id: ReplicaId| {
                        let watched = self.watched.get(&(id.0 as usize - 1, shard));
                        watched.is_some_and(|w| w.durable.holds(index, term))
                    };
                    self.members.demand_quorum(shard, index, holds).map_err(|members| Violation {
                        rule: "committed is durable on a quorum",
                        detail: format!(
                            "{shard} {index} of {term} is applied by {name} and durable on no quorum of {members:?}"
                        ),
                    })?;
                    known.push((term, kind, payload.clone()));
                    self.by_term.entry(shard).or_default().push(self.watched[&(node, shard)].term);
                    let payload = self.members.committed(shard, index, kind, payload)?;
                    fresh.push(Committed { index, payload });
                }
            }
        }
        Ok(fresh)
    }

    /// The commands that are committed, in number.
    pub fn committed(&self, shard: ShardId) -> usize {
        self.committed.get(&shard).map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::ReplicaId;
    use quorate_storage::wal::LogEntry;

    const S: ShardId = ShardId(2);

    fn first_of_three() -> u64 {
        quorate_cluster::membership_hash(&quorate_consensus::Membership::of_voters((1..=3).map(ReplicaId)))
    }

    fn entry(index: u64, term: u64) -> LogRecord {
        let (index, term) = (LogIndex(index), Term(term));
        LogRecord::Entry(LogEntry { shard: S, index, term, kind: 0, payload: Bytes::new() })
    }

    fn look(role: Role, term: u64, applied: u64, hash: u64) -> Inspection {
        Inspection {
            replica: ReplicaId(1),
            role,
            term: Term(term),
            leader: None,
            committed: LogIndex(applied),
            applied: LogIndex(applied),
            state_hash: hash,
            revision: quorate_kv::Revision(1),
            log_start: LogIndex(0),
            last: LogIndex(9),
            held_back: false,
            waits_for_newcomer: false,
            voter: true,
            membership: first_of_three(),
            rotted: 0,
            asleep: false,
        }
    }

    fn rule(result: Result<impl std::fmt::Debug, Violation>) -> &'static str {
        result.expect_err("an objection").rule
    }

    #[test]
    fn two_leaders_in_one_term_are_noticed() {
        let mut check = RaftCheck::new(3);
        for voter in 0..2 {
            check.voted(voter, S, Term(4), ReplicaId(1)).expect("a vote");
        }
        check.observe(0, S, &look(Role::Leader, 4, 0, 0)).expect("one leader");
        assert_eq!(rule(check.observe(1, S, &look(Role::Leader, 4, 0, 0))), "election safety");
    }

    #[test]
    fn a_leader_that_lacks_what_was_committed_before_its_term_is_noticed() {
        let lead = |committed_in: u64, term: u64| {
            let mut check = RaftCheck::new(3);
            for node in 0..2 {
                check.wrote(node, &[entry(1, 1)]).expect("written");
                check.synced(node, &[entry(1, 1)]);
                check.voted(node + 1, S, Term(term), ReplicaId(3)).expect("a vote");
            }
            check.observe(0, S, &look(Role::Follower, committed_in, 1, 7)).expect("committed");
            let look = look(Role::Leader, term, 0, 0);
            check.observe(2, S, &Inspection { replica: ReplicaId(3), last: LogIndex(0), ..look })
        };
        assert_eq!(rule(lead(2, 3)), "leader completeness");
        lead(4, 3).expect("it was elected before that, and learns of it late");
    }

    #[test]
    fn an_entry_that_is_not_durable_on_a_quorum_is_noticed() {
        let mut check = RaftCheck::new(3);
        check.wrote(0, &[entry(1, 1)]).expect("written");
        check.synced(0, &[entry(1, 1)]);
        assert_eq!(rule(check.observe(0, S, &look(Role::Follower, 1, 1, 0))), "committed is durable on a quorum");
    }

    #[test]
    fn a_voter_whose_disk_lacks_an_entry_is_known() {
        let mut check = RaftCheck::new(3);
        for node in 0..3 {
            check.wrote(node, &[entry(1, 1)]).expect("written");
        }
        (0..2).for_each(|node| check.synced(node, &[entry(1, 1)]));
        check.observe(0, S, &look(Role::Follower, 1, 1, 7)).expect("committed");
        assert_eq!(check.lacking(S, LogIndex(1)), BTreeSet::from([ReplicaId(3)]));
        check.synced(2, &[entry(1, 1)]);
        assert_eq!(check.lacking(S, LogIndex(1)), BTreeSet::new());
    }

    #[test]
    fn diverging_logs_and_states_are_noticed() {
        let mut check = RaftCheck::new(3);
        for node in 0..2 {
            check.wrote(node, &[entry(1, 1)]).expect("written");
            check.synced(node, &[entry(1, 1)]);
        }
        check.observe(0, S, &look(Role::Follower, 1, 1, 7)).expect("committed");
        assert_eq!(rule(check.observe(1, S, &look(Role::Follower, 1, 1, 8))), "equal state at equal index");
        check.wrote(2, &[entry(1, 2)]).expect("written");
        assert_eq!(rule(check.observe(2, S, &look(Role::Follower, 2, 1, 7))), "state machine safety");
    }

    #[test]
    fn lost_entries_and_forgotten_promises_are_noticed() {
        let mut check = RaftCheck::new(3);
        check.wrote(0, &[entry(1, 1)]).expect("written");
        check.synced(0, &[entry(1, 1)]);
        assert_eq!(rule(check.recovered(0, S, &RecoveredLog::default())), "durable entries survive");
        check.promised(0, S, Term(3));
        assert_eq!(rule(check.recovered(0, S, &RecoveredLog::default())), "promises are remembered");
        assert_eq!(rule(check.booted(0, S, &look(Role::Follower, 2, 0, 0))), "promises are remembered");
        check.voted(1, S, Term(3), ReplicaId(1)).expect("its first vote");
        check.voted(1, S, Term(3), ReplicaId(1)).expect("told twice");
        assert_eq!(rule(check.voted(1, S, Term(3), ReplicaId(2))), "one vote in a term");
        let (term, vote, commit) = (Term(3), ReplicaId(0), LogIndex(0));
        let hard_state = Some(quorate_storage::wal::HardState { shard: S, replica: ReplicaId(2), term, vote, commit });
        let log = RecoveredLog { hard_state, ..RecoveredLog::default() };
        assert_eq!(rule(check.recovered(1, S, &log)), "promises are remembered");
    }
}
