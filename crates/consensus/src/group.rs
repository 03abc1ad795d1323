//! The group itself: the engine, its log, and the order in which its wishes are handed out.

use crate::log::{Log, Restored, SnapshotPoint};
use crate::{
    Config, Entry, EntryKind, HardState, Membership, MembershipChange, Message, MessageKind, Snapshot, patience,
};
use quorate_env::{DecodeError, LogIndex, ReplicaId, Term};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};
use std::fmt;

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows, or waits for a leader to follow.
    Follower,
    /// It asks whether an election would succeed.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// Why a proposal did not enter the log. Nothing happened; it may be proposed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// This replica does not lead.
    NotLeader,
    /// It leads, but hands leadership over or has too many bytes uncommitted.
    Busy,
}

/// A message that the engine refused; it was dropped.
#[derive(Debug)]
pub struct StepError(String);

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StepError {}

fn changes_in(entries: &[Entry]) -> impl Iterator<Item = LogIndex> {
    entries.iter().filter(|entry| entry.kind == EntryKind::Membership).map(|entry| entry.index)
}

/// What the group asks of its owner. Obligations, in order: persist `snapshot`, `entries` and `hard_state`; send `messages`
/// at any time, `messages_after_persist` only when all of this `Ready` is durable; then call [`Group::persisted`].
/// `committed` may be applied at once: the engine hands out only what is durable here.
#[derive(Debug, Default)]
pub struct Ready {
    /// Names this ready to [`Group::persisted`].
    pub number: u64,
    /// Term or vote changed.
    pub hard_state: Option<HardState>,
    /// A snapshot was accepted; the log begins anew after it.
    pub snapshot: Option<Snapshot>,
    /// New entries. The first may replace a present one and all after it.
    pub entries: Vec<Entry>,
    /// To send at once.
    pub messages: Vec<Message>,
    /// To send when durable.
    pub messages_after_persist: Vec<Message>,
    /// To apply, in order.
    pub committed: Vec<Entry>,
    /// Confirmed reads: each may be served once everything up to its index is applied.
    pub reads: Vec<(Vec<u8>, LogIndex)>,
}

impl Ready {
    /// Whether anything of it must be durable before `persisted` is called.
    #[must_use]
    pub fn must_persist(&self) -> bool {
        self.hard_state.is_some() || self.snapshot.is_some() || !self.entries.is_empty()
    }
}

/// One replica's part in one consensus group.
pub struct Group {
    node: RawNode<Log>,
    election_ticks: u32,
    turn: u64,
    /// As the log has it. What only the rows say is written before anything is promised on it.
    persisted_hard_state: HardState,
    /// As of the last ready.
    hard_state: HardState,
    /// Where the log holds changes of membership, ascending; those whose commit is durable may be left out.
    changes: Vec<LogIndex>,
    /// A snapshot that was accepted and is not yet durable: the ready that must be persisted, and the snapshot's index. Until then
    /// the engine holds neither the snapshot nor the entries below it, and would panic if it tried to campaign.
    installing: Option<(u64, LogIndex)>,
}

impl Group {
    /// A group as it was restored, or a fresh one.
    ///
    /// # Panics
    /// If the configuration contradicts itself or the restored parts contradict each other.
    #[must_use]
    pub fn new(config: &Config, restored: &Restored) -> Self {
        let engine = raft::Config {
            id: config.replica.0,
            election_tick: config.election_ticks as usize,
            max_election_tick: patience::ticks_max(config.election_ticks) as usize,
            heartbeat_tick: config.heartbeat_ticks as usize,
            applied: restored.applied.index.0,
            max_size_per_msg: config.append_bytes_max,
            max_inflight_msgs: config.inflight_max,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: config.committed_bytes_max,
            max_uncommitted_size: config.uncommitted_bytes_max,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&engine, Log::new(restored), &logger).expect("a consistent configuration");
        let mut group = Self {
            node,
            election_ticks: config.election_ticks,
            turn: config.turn,
            persisted_hard_state: restored.hard_state,
            hard_state: restored.promises(),
            changes: changes_in(&restored.entries).collect(),
            installing: None,
        };
        group.set_timeout();
        group
    }

    /// The engine draws its timeout from the thread's randomness, at moments that cannot all be seen from outside. Ours is no draw
    /// (`patience`), and is put in place after every step.
    fn set_timeout(&mut self) {
        let wait = self.wait().max(self.election_ticks as usize);
        self.node.raft.set_randomized_election_timeout(wait);
    }

    fn wait(&self) -> usize {
        patience::ticks(self.role(), self.place(), self.election_ticks) as usize
    }

    fn place(&self) -> u32 {
        let own = ReplicaId(self.node.raft.id);
        patience::place(own, &self.membership().all_voters(), self.leader(), self.term(), self.turn)
    }

    /// One tick of time passed.
    pub fn tick(&mut self) {
        if self.installing.is_some() || self.waits_for_disk() {
            return;
        }
        if self.role() != Role::Leader && self.node.raft.election_elapsed + 1 >= self.wait() {
            // The engine knows no wait as short as that of one who only asks.
            self.node.raft.election_elapsed = self.node.raft.randomized_election_timeout();
        }
        self.node.tick();
        self.set_timeout();
    }

    /// Alone in its group, a candidate has its majority at once; and whatever is in its log when it leads must be durable (the engine asserts it). So it
    /// does not stand before it is.
    fn waits_for_disk(&self) -> bool {
        let log = &self.node.raft.raft_log;
        let alone = || self.membership().all_voters() == [ReplicaId(self.node.raft.id)];
        self.role() != Role::Leader && log.last_index() > log.persisted && alone()
    }

    /// A message arrived.
    pub fn step(&mut self, message: &Message) -> Result<(), StepError> {
        if !message.is_plausible() {
            return Err(StepError(format!("implausible {:?}", message.kind)));
        }
        if message.kind == MessageKind::TimeoutNow && (self.installing.is_some() || self.waits_for_disk()) {
            return Err(StepError("what it has is not durable yet".into()));
        }
        let result = self.node.step(message.to_engine()).map_err(|e| StepError(e.to_string()));
        self.set_timeout();
        result
    }

    /// Appends an entry to the leader's log. Returns its index.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<LogIndex, ProposeError> {
        if self.role() != Role::Leader {
            return Err(ProposeError::NotLeader);
        }
        self.node.propose(Vec::new(), data).map_err(|_| ProposeError::Busy)?;
        Ok(self.last_index())
    }

    /// Asks for a linearizable read under `context`, unique in the cluster. It is confirmed by [`Ready::reads`], or silently
    /// dropped when no leader can confirm it: ask again after a while.
    pub fn read_index(&mut self, context: Vec<u8>) {
        self.node.read_index(context);
    }

    /// The process of the leader is gone (its connection closed): do not wait out the timeout. Soon, and one after the other, the
    /// followers ask for pre-votes, unless a leader shows up first.
    pub fn leader_lost(&mut self) {
        if matches!(self.role(), Role::Leader | Role::Candidate) {
            return;
        }
        let ticks = patience::ticks_after_loss(self.place()) as usize;
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, raft::INVALID_ID);
        self.set_timeout();
        self.node.raft.election_elapsed = self.wait().saturating_sub(ticks);
    }

    /// Starts an election now. Who has no vote, or waits for a snapshot, does not; the engine would let a learner.
    pub fn campaign(&mut self) {
        let votes = self.membership().is_voter(ReplicaId(self.node.raft.id));
        if self.installing.is_some() || self.waits_for_disk() || !votes {
            return;
        }
        let _ = self.node.campaign();
        self.set_timeout();
    }

    /// Hands leadership to `to`, once it has caught up.
    pub fn transfer_leader(&mut self, to: ReplicaId) {
        self.node.transfer_leader(to.0);
    }

    /// A message to `to` could not be sent; stop streaming to it until it answers again.
    pub fn unreachable(&mut self, to: ReplicaId) {
        self.node.report_unreachable(to.0);
    }

    /// The transfer of a snapshot to `to` has ended.
    pub fn snapshot_sent(&mut self, to: ReplicaId, installed: bool) {
        let status = if installed { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to.0, status);
    }

    /// Whether this leader sends `to` nothing until it hears that a snapshot was installed or given up.
    #[must_use]
    pub fn awaits_snapshot(&self, to: ReplicaId) -> bool {
        self.node.raft.prs().get(to.0).is_some_and(|progress| progress.state == ProgressState::Snapshot)
    }

    /// Whether there are obligations.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.node.has_ready()
    }

    /// The next obligations, or `None`. See [`Ready`].
    pub fn ready(&mut self) -> Option<Ready> {
        if !self.has_ready() {
            return None;
        }
        let mut rd = self.node.ready();
        let mut ready = Ready { number: rd.number(), ..Default::default() };
        let fresh = rd.hs().is_some();
        if let Some(hs) = rd.hs() {
            self.hard_state = HardState { term: Term(hs.term), vote: ReplicaId(hs.vote), commit: LogIndex(hs.commit) };
            let hs = hs.clone();
            self.node.mut_store().set_hard_state(hs);
        }
        let (now, last) = (self.hard_state, self.persisted_hard_state);
        let promised = (now.term, now.vote) != (last.term, last.vote);
        if promised || (fresh && !rd.entries().is_empty() && now != last) || self.must_know_commit() {
            ready.hard_state = Some(now);
            self.persisted_hard_state = now;
            self.changes.retain(|change| *change > now.commit);
        }
        if !rd.snapshot().is_empty() {
            let snapshot = Snapshot::from_engine(rd.snapshot());
            let point = SnapshotPoint { index: snapshot.index, term: snapshot.term };
            self.node.mut_store().restart_at(point, &snapshot.membership);
            self.installing = Some((ready.number, snapshot.index));
            ready.snapshot = Some(snapshot);
        }
        self.node.mut_store().append(rd.entries());
        ready.entries = rd.take_entries().into_iter().map(Entry::from_engine).collect();
        if let Some(first) = ready.entries.first() {
            self.changes.retain(|change| *change < first.index);
            self.changes.extend(changes_in(&ready.entries));
        }
        ready.messages = rd.take_messages().into_iter().filter_map(Message::from_engine).collect();
        ready.messages_after_persist =
            rd.take_persisted_messages().into_iter().filter_map(Message::from_engine).collect();
        ready.committed = rd.take_committed_entries().into_iter().map(Entry::from_engine).collect();
        ready.reads = rd.take_read_states().into_iter().map(|r| (r.request_ctx, LogIndex(r.index))).collect();
        self.node.advance_append_async(rd);
        Some(ready)
    }

    /// Whether the commit index must become durable. Otherwise it need not: it is found again from the leader. But who holds a change of
    /// membership must not forget that the change *before* it was committed: it would come back with members that others have left
    /// behind two changes ago, and two majorities might not meet (docs/design/membership.md).
    fn must_know_commit(&self) -> bool {
        let forgotten = self.persisted_hard_state.commit;
        self.changes.iter().any(|change| *change > forgotten && *change <= self.hard_state.commit)
    }

    /// Everything up to and including ready `number` is durable.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        if let Some((_, index)) = self.installing.take_if(|(installing, _)| *installing <= number) {
            self.node.advance_apply_to(index.0);
        }
        self.set_timeout();
    }

    /// The state machine has applied up to `point`.
    pub fn applied(&mut self, point: SnapshotPoint) {
        self.node.mut_store().set_applied(point);
        self.node.advance_apply_to(point.index.0);
    }

    /// Appends a change of membership to the leader's log. One at a time, and only when this leader has applied an entry of its own
    /// term, so that it knows the configuration that it changes (the bug in Raft's single-server changes, 2015).
    pub fn propose_membership(&mut self, change: &MembershipChange) -> Result<LogIndex, ProposeError> {
        if self.role() != Role::Leader {
            return Err(ProposeError::NotLeader);
        }
        let settled = self.leads_settled() && self.node.store().applied().term == self.term();
        let busy = self.node.raft.has_pending_conf() || self.node.raft.lead_transferee.is_some();
        if !settled || busy || change.after(&self.membership()).is_none() {
            return Err(ProposeError::Busy);
        }
        // The engine's own way in would decode the payload as protobuf 2.
        let entry =
            Entry { index: LogIndex(0), term: Term(0), kind: EntryKind::Membership, data: change.encode().into() };
        if !self.node.raft.append_entry(&mut [entry.to_engine()]) {
            return Err(ProposeError::Busy);
        }
        self.node.raft.pending_conf_index = self.node.raft.raft_log.last_index();
        self.node.raft.bcast_append();
        Ok(self.last_index())
    }

    /// A membership entry is applied: from here on the group is this. A change that does not fit changes nothing. Returns the membership,
    /// to be written with the applied index.
    ///
    /// # Errors
    /// If the entry cannot be read.
    pub fn apply_membership(&mut self, data: &bytes::Bytes) -> Result<Membership, DecodeError> {
        let change = MembershipChange::decode(data.clone())?;
        let before = self.membership();
        let Some(after) = change.after(&before) else { return Ok(before) };
        let state = self.node.apply_conf_change(&change.to_engine());
        let state = state.unwrap_or_else(|e| panic!("{change:?} fits {before:?}, the engine says {e}"));
        assert_eq!(Membership::from_engine(&state), after, "{change:?} of {before:?}");
        self.node.mut_store().set_membership(&after);
        if self.role() == Role::Leader && !after.is_voter(ReplicaId(self.node.raft.id)) {
            // Whoever has no vote must not lead: the engine would go on, and count itself.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        self.set_timeout();
        Ok(after)
    }

    /// Whether a change of membership is in the log and not yet applied, or may be.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Whether nothing is under way: the log ends with what is committed and applied, who follows knows its leader, and who leads knows that every member
    /// has all of it. Ticks would change nothing then, and heartbeats would say nothing new.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let raft = &self.node.raft;
        let log = &raft.raft_log;
        let ends = log.last_index();
        let whole = log.committed == ends && log.applied == ends && log.persisted == ends;
        let settled = match self.role() {
            Role::Leader => {
                let free = !self.is_changing() && raft.lead_transferee.is_none() && raft.pending_read_count() == 0;
                free && self.leads_settled() && raft.prs().iter().all(|(_, progress)| progress.matched == ends)
            }
            Role::Follower => self.leader().is_some(),
            Role::PreCandidate | Role::Candidate => false,
        };
        whole && settled && self.installing.is_none() && !self.has_ready()
    }

    /// Time goes on after a while in which there were no ticks: who follows begins to wait anew, and who leads says so.
    pub fn go_on(&mut self) {
        self.node.raft.election_elapsed = 0;
        self.node.ping();
    }

    /// As a leader: how far `id` is known to have the log.
    #[must_use]
    pub fn matched(&self, id: ReplicaId) -> LogIndex {
        LogIndex(self.node.raft.prs().get(id.0).map_or(0, |progress| progress.matched))
    }

    /// Forgets the log at and below `index`; it must be applied and durable in the store.
    pub fn compact(&mut self, index: LogIndex) {
        self.node.mut_store().compact(index);
    }

    /// Where the log in memory begins.
    #[must_use]
    pub fn log_start(&self) -> SnapshotPoint {
        self.node.store().start()
    }

    /// Bytes of entries in memory.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.node.store().bytes()
    }

    /// The lowest compaction index that leaves at most `keep` bytes of entries.
    #[must_use]
    pub fn log_cut_for(&self, keep: u64) -> LogIndex {
        self.node.store().cut_for(keep)
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// Its term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// The leader it knows of.
    #[must_use]
    pub fn leader(&self) -> Option<ReplicaId> {
        Some(ReplicaId(self.node.raft.leader_id)).filter(|r| r.0 != raft::INVALID_ID)
    }

    /// Whether this leader has committed an entry of its own term, before which it must serve no linearizable read.
    #[must_use]
    pub fn leads_settled(&self) -> bool {
        self.role() == Role::Leader && self.node.raft.commit_to_current_term()
    }

    /// The highest index known to be committed.
    #[must_use]
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// The last index in the log, durable or not.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.last_index())
    }

    /// The term of the entry at `index`, while the log still knows it.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.node.raft.raft_log.term(index.0).ok().map(Term)
    }

    /// The entry at `index`, while the log has it.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Option<Entry> {
        if index <= self.log_start().index || index > self.last_index() {
            return None;
        }
        let log = &self.node.raft.raft_log;
        let found = log.slice(index.0, index.0 + 1, None, raft::GetEntriesContext::empty(false)).ok()?;
        found.into_iter().next().map(Entry::from_engine)
    }

    /// Whether this replica has a vote, as of what is applied.
    #[must_use]
    pub fn votes(&self) -> bool {
        self.node.raft.promotable()
    }

    /// The promises as of the last [`Ready`].
    #[must_use]
    pub fn promises(&self) -> HardState {
        self.hard_state
    }

    /// The commit index that was last handed out to be made durable.
    #[must_use]
    pub fn written_commit(&self) -> LogIndex {
        self.persisted_hard_state.commit
    }

    /// The entries still in memory.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let store = self.node.store();
        let (first, last) = (store.start().index.0 + 1, self.last_index().0);
        let log = &self.node.raft.raft_log;
        let found = log.slice(first, last + 1, None, raft::GetEntriesContext::empty(false)).unwrap_or_default();
        found.into_iter().map(Entry::from_engine).collect()
    }

    /// The present members.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership::from_engine(self.node.store().conf_state())
    }

    /// As a leader: the lowest index that every member is known to have, among those heard from lately.
    #[must_use]
    pub fn matched_by_active(&self) -> LogIndex {
        let own = self.node.raft.id;
        let matched =
            self.node.raft.prs().iter().filter(|(id, p)| **id != own && p.recent_active).map(|(_, p)| p.matched);
        LogIndex(matched.min().unwrap_or(u64::MAX))
    }
}
