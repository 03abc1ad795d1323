//! One replica: a consensus group and a state machine, and the promises between them.
//!
//! The order that everything hangs on: an entry is *persisted* before it is acknowledged to the leader, *committed* before it is
//! applied, *applied* before its client is answered. A snapshot's rows are durable in the store before the log forgets what they
//! replace.

mod catching;
mod clients;
mod comparing;
mod context;
mod early;
mod everywhere;
mod flushing;
mod guests;
mod handing;
mod installing;
mod leasing;
mod looking;
mod messages;
mod moving;
mod preferring;
mod reshaping;
mod sabotage;
mod sleeping;
mod splitting;
mod standings;
mod system;
mod telling;

use crate::ack_wait::Everywhere;
use crate::bounds::GARBAGE_EVENTS_PER_TICK;
use crate::config::Sabotage;
use crate::input::{Lost, Reply, RequestId, WatchOutput};
use crate::lease_clock::LeaseClock;
use crate::load::Load;
use crate::proposals::Proposals;
use crate::reads::Reads;
use crate::transfer::{Incoming, OutgoingSet};
use crate::wire::PeerBody;
use catching::Catching;
pub(crate) use context::{Context, heard_lately};
pub use early::AtRisk;
use early::Early;
pub(crate) use early::LostAnswers;
use everywhere::Spread;
use flushing::Hold;
use guests::Guests;
use handing::Handing;
use looking::Closing;
pub(crate) use looking::Glance;
use moving::Moving;
pub(crate) use moving::{Commands, Left};
use quorate_consensus::{Entry, EntryKind, Group, Message, Ready, Role, Snapshot, SnapshotPoint};
use quorate_env::{Instant, LogIndex, ReplicaId, Rng, ShardId, Term, Timestamp};
use quorate_kv::{CommandId, Envelope, Error, Event, LeaseId, Refusal, SessionId};
use quorate_shard::{Grant, Machine, MachineError, WatchHub};
use quorate_storage::wal::{self, LogRecord};
use reshaping::Reshaping;
use sleeping::Sleeping;
use splitting::Splitting;
use standings::StandingAsks;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use system::News;
pub(crate) use system::SystemRows;
pub use telling::membership_hash;

/// Who wants to know about a lease.
enum Asker {
    Client(RequestId),
    Peer { replica: ReplicaId, ask: u64 },
}

/// What needs a confirmed leader.
enum Waiting {
    View { request: RequestId, deadline: Instant },
    Look(Glance),
    Lease { asker: Asker, lease: LeaseId, renew: bool, with_keys: bool, deadline: Instant },
    Expire(Vec<Grant>),
}

/// A question about a lease that a leader elsewhere must answer.
struct Ask {
    request: RequestId,
    lease: LeaseId,
    renew: bool,
    with_keys: bool,
    deadline: Instant,
    sent: Option<Instant>,
}

/// A ready whose records are on their way to the disk.
struct Awaiting {
    /// `None` while the records are held back.
    ticket: Option<u64>,
    number: u64,
    /// The term that is durable with it, and the commit index.
    term: Term,
    commit: LogIndex,
    /// Where the log ends that is.
    last: LogIndex,
    messages: Vec<Message>,
}

pub(crate) struct Replica {
    shard: ShardId,
    id: ReplicaId,
    group: Group,
    /// What a crash cannot take back.
    durable_term: Term,
    machine: Machine,
    hub: WatchHub,
    proposals: Proposals,
    everywhere: Everywhere,
    spread: Spread,
    early: Early,
    guests: Guests,
    reads: Reads<Waiting>,
    closing: Closing,
    /// Renewals that met an expiry on its way; looked at again when something was applied.
    parked: Vec<Waiting>,
    clock: LeaseClock,
    /// The leader's own commands have their own session: they are never sent twice.
    own: CommandId,
    asks: BTreeMap<u64, Ask>,
    next_ask: u64,
    standing_asks: StandingAsks,
    moving: Moving,
    reshaping: Reshaping,
    splitting: Splitting,
    load: Load,
    handing: Handing,
    sleeping: Sleeping,
    news: News,
    catching: Catching,
    awaiting: VecDeque<Awaiting>,
    hold: Option<Hold>,
    outgoing: OutgoingSet,
    incoming: Option<Incoming>,
    garbage: bool,
    collected_waiters: Vec<(RequestId, Instant)>,
    hashes: BTreeMap<LogIndex, u64>,
    expected_hashes: BTreeMap<LogIndex, u64>,
    hash_sent: Instant,
    seen: (Role, Term, Option<ReplicaId>),
    leader_changes: u64,
    /// Writes wait until the store has been flushed.
    held_back: bool,
    /// It had more to apply than is applied at one time.
    unfinished: bool,
    /// Writes wait for a replica that is being brought up.
    waits_for_newcomer: bool,
    fatal: Option<String>,
    lost: Option<Lost>,
}

impl Replica {
    pub fn new(
        shard: ShardId,
        id: ReplicaId,
        group: Group,
        durable_term: Term,
        machine: Machine,
        now: Instant,
        mut rng: Rng,
    ) -> Self {
        let session = SessionId(rng.next_u64());
        let (hub, moving) = (WatchHub::new(machine.meta().revision), Moving::new(machine.meta().applied));
        let seen = (group.role(), group.term(), group.leader());
        let own = CommandId { session: SessionId(rng.next_u64()), seq: 0 };
        let next_ask = rng.next_u64() >> 16;
        let early = Early::new(&group, now);
        Self {
            shard,
            id,
            durable_term,
            group,
            machine,
            hub,
            proposals: Proposals::new(session),
            everywhere: Everywhere::default(),
            spread: Spread::default(),
            early,
            guests: Guests::default(),
            reads: Reads::new(session),
            closing: Closing::default(),
            parked: Vec::new(),
            clock: LeaseClock::default(),
            own,
            asks: BTreeMap::new(),
            next_ask,
            standing_asks: StandingAsks::new(next_ask),
            moving,
            reshaping: Reshaping::default(),
            splitting: Splitting::default(),
            load: Load::new(rng.split(92)),
            handing: Handing::default(),
            sleeping: Sleeping::new(now),
            news: News::default(),
            catching: Catching::default(),
            awaiting: VecDeque::new(),
            hold: None,
            outgoing: OutgoingSet::new(rng.next_u64() >> 16),
            incoming: None,
            garbage: true,
            collected_waiters: Vec::new(),
            hashes: BTreeMap::new(),
            expected_hashes: BTreeMap::new(),
            hash_sent: now,
            seen,
            leader_changes: u64::from(seen.2.is_some()),
            held_back: false,
            unfinished: false,
            waits_for_newcomer: false,
            fatal: None,
            lost: None,
        }
    }

    pub fn tick(&mut self, cx: &mut Context<'_>) {
        self.group.tick();
        for (request, error) in self.proposals.tick(cx.now, cx.config.sabotage) {
            cx.out.replies.push((request, Err(error)));
        }
        self.guests.tick(cx.now);
        self.tick_reads(cx);
        self.tick_leases(cx);
        self.tick_transfers(cx);
        self.tick_garbage(cx);
        self.tick_hashes(cx);
        self.move_standing_asks(cx);
        self.tick_handing(cx);
        if cx.sabotaged(Sabotage::CompactUnflushed) && self.group.log_start().index < self.machine.meta().applied {
            self.compact_log(self.machine.meta().applied, cx);
        }
    }

    /// The node stops.
    pub fn stop(&mut self, cx: &mut Context<'_>) {
        let given_up = self.proposals.stop().into_iter();
        cx.out.replies.extend(given_up.map(|(request, error)| (request, Err(error))));
    }

    fn tick_transfers(&mut self, cx: &mut Context<'_>) {
        self.catching.forget_idle(cx.now);
        for replica in self.outgoing.expire(cx.now) {
            self.group.snapshot_sent(replica, false);
        }
        let Some(incoming) = &mut self.incoming else { return };
        if incoming.is_idle(cx.now) {
            self.abandon_incoming(cx);
        } else if incoming.must_ask_again(cx.now) {
            incoming.asked = cx.now;
            self.ask_chunk(cx);
        }
    }

    fn tick_garbage(&mut self, cx: &mut Context<'_>) {
        if !self.garbage {
            return;
        }
        let more = match self.machine.collect_garbage(GARBAGE_EVENTS_PER_TICK) {
            Ok(false) => self.machine.clear_outside(GARBAGE_EVENTS_PER_TICK),
            more => more,
        };
        match more {
            Ok(more) => self.garbage = more,
            Err(e) => self.fail(&e),
        }
        if !self.garbage {
            cx.out.replies.extend(self.collected_waiters.drain(..).map(|(request, _)| (request, Ok(Reply::Collected))));
        }
    }

    /// Everything up to `ticket` is durable.
    pub fn persisted(&mut self, ticket: u64, cx: &mut Context<'_>) {
        let mut number = None;
        while self.awaiting.front().is_some_and(|a| a.ticket.is_some_and(|t| t <= ticket)) {
            let awaiting = self.awaiting.pop_front().expect("checked");
            number = Some(awaiting.number);
            self.durable_term = awaiting.term;
            self.moving.learn(awaiting.commit);
            self.early.persisted(awaiting.last);
            self.send_raft(awaiting.messages, cx);
        }
        if let Some(number) = number {
            self.group.persisted(number);
        }
    }

    /// Carries out everything that has become possible, or as much of it as is done at one time.
    pub fn pump(&mut self, cx: &mut Context<'_>) {
        if let Some(Sabotage::Machine(flaw)) = cx.config.sabotage {
            self.machine.plant(flaw);
        }
        self.held_back = cx.store.memory_bytes() >= cx.config.unflushed_bytes_max;
        let mut applied = 0;
        loop {
            self.notice_leadership(cx);
            self.waits_for_newcomer = self.must_wait_for_newcomer(cx);
            self.tend_moments(cx);
            self.move_commands(cx);
            self.move_asks(cx);
            self.confirm_blindly(cx.config.sabotage);
            self.reads.start(cx.now, &mut self.group);
            let mut progressed = false;
            while applied < cx.config.apply_bytes
                && let Some(ready) = self.group.ready()
            {
                progressed = true;
                applied += ready.committed.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
                self.handle_ready(ready, cx);
            }
            if self.incoming.as_ref().is_some_and(|incoming| incoming.import.is_done()) {
                // Consensus found it stale.
                self.abandon_incoming(cx);
            }
            self.look_ahead(cx);
            self.release_reads(cx);
            self.tend_answers(cx);
            self.watch_pace(cx);
            if !progressed {
                break;
            }
        }
        self.unfinished = applied >= cx.config.apply_bytes && self.group.has_ready();
        self.wake_if_busy(cx);
        if let Some(why) = self.fatal.take() {
            cx.out.lost = cx.out.lost.or(self.lost);
            cx.out.fatal.get_or_insert(format!("{} of {}: {why}", self.id, self.shard));
        }
    }

    /// Whether it had more to apply than is applied at one time: it is to be pumped again when others had their turn.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    fn notice_leadership(&mut self, cx: &mut Context<'_>) {
        let now = (self.group.role(), self.group.term(), self.group.leader());
        if now != self.seen {
            let was_leader = self.seen.0 == Role::Leader;
            let (_, term, leader) = std::mem::replace(&mut self.seen, now);
            if was_leader || now.0 != Role::Leader {
                self.proposals.drop_queue();
                self.clock.stop();
                self.outgoing.clear();
                self.catching.clear();
                self.forget_standings();
                self.forget_pace();
            }
            if was_leader || now.0 == Role::Leader {
                self.spread = Spread::anew(self.group.last_index());
                self.early.restart();
            }
            self.leader_changes += u64::from(now.2.is_some() && now.2 != leader);
            self.answer_moves(cx);
            if (term, leader) != (now.1, now.2) {
                self.proposals.resend_all();
                self.reads.restart();
                self.closing.restart();
                self.everywhere.restart();
                self.asks.values_mut().for_each(|ask| ask.sent = None);
                if cx.sabotaged(Sabotage::DropSessions) {
                    self.machine.forget_sessions();
                }
            }
        }
        let meta = self.machine.meta();
        if now.0 == Role::Leader && !self.clock.is_running() && meta.applied_term == now.1 {
            self.clock.start(cx.lease_now(), self.machine.leases());
        }
    }

    fn move_commands(&mut self, cx: &mut Context<'_>) {
        match self.group.leader() {
            Some(leader) if leader != self.id => {
                while self.proposals.has_unsent() {
                    let envelopes = self.proposals.forward(cx.now);
                    if !envelopes.is_empty() {
                        self.send(leader, PeerBody::Forward(envelopes), cx);
                    }
                }
            }
            _ if self.held_back || self.waits_for_newcomer => {}
            _ => {
                let (last, term, clock) = (self.group.last_index(), self.group.term(), self.machine.meta().clock);
                let stamp = match cx.timed {
                    true => self.closing.stamp(Timestamp::of(cx.wall), clock, term),
                    false => (Timestamp::ZERO, false),
                };
                let end = self.end_of_proposals(cx);
                if self.proposals.propose(cx, stamp, end, &mut self.group, &mut self.load) {
                    self.closing.proposed(term, stamp.0);
                }
                if self.group.last_index() > last {
                    self.catching.proposed();
                }
            }
        }
    }

    fn handle_ready(&mut self, ready: Ready, cx: &mut Context<'_>) {
        let must_persist = ready.must_persist();
        self.send_raft(ready.messages, cx);
        if let Some(snapshot) = &ready.snapshot {
            self.install(snapshot, cx);
        }
        self.change_early(&ready.entries, cx);
        let hard_state = ready.hard_state.map(|hs| sabotage::what_is_written(hs, cx.config.sabotage));
        let records = self.records(ready.snapshot.as_ref(), hard_state, &ready.entries);
        if cx.sabotaged(Sabotage::AckBeforePersist) {
            cx.records.extend(records);
            self.send_raft(ready.messages_after_persist, cx);
            self.group.persisted(ready.number);
        } else if !must_persist && self.awaiting.is_empty() {
            self.send_raft(ready.messages_after_persist, cx);
            self.group.persisted(ready.number);
        } else {
            let ticket = match &mut self.hold {
                Some(hold) => {
                    hold.records.extend(records);
                    None
                }
                None if must_persist => {
                    cx.records.extend(records);
                    Some(cx.ticket)
                }
                None => self.awaiting.back().and_then(|last| last.ticket),
            };
            let messages = ready.messages_after_persist;
            let (term, commit) = (self.group.term(), self.group.written_commit());
            let before = || self.awaiting.back().map_or(self.early.durable(), |last| last.last);
            let last = ready.entries.last().map_or_else(before, |entry| entry.index);
            self.awaiting.push_back(Awaiting { ticket, number: ready.number, term, commit, last, messages });
        }
        self.apply(ready.committed, cx);
        let told = self.told_up_to(cx);
        for (context, index) in ready.reads {
            self.reads.confirm(&context, index.max(told));
        }
    }

    fn records(
        &self,
        snapshot: Option<&Snapshot>,
        hard_state: Option<quorate_consensus::HardState>,
        entries: &[Entry],
    ) -> Vec<LogRecord> {
        let shard = self.shard;
        let start = snapshot.map(|s| LogRecord::Start { shard, index: s.index, term: s.term, discard_after: true });
        let hard_state = hard_state.map(|hs| {
            let (term, vote, commit) = (hs.term, hs.vote, hs.commit);
            LogRecord::HardState(wal::HardState { shard, replica: self.id, term, vote, commit })
        });
        let entries = entries.iter().map(|entry| {
            let (index, term, kind, payload) = (entry.index, entry.term, entry.kind as u8, entry.data.clone());
            LogRecord::Entry(wal::LogEntry { shard, index, term, kind, payload })
        });
        start.into_iter().chain(hard_state).chain(entries).collect()
    }

    fn apply(&mut self, entries: Vec<Entry>, cx: &mut Context<'_>) {
        let Some(last) = entries.last().map(|entry| SnapshotPoint { index: entry.index, term: entry.term }) else {
            return;
        };
        self.stir(cx.now);
        for entry in entries {
            if entry.index <= self.machine.meta().applied {
                continue;
            }
            if entry.kind == EntryKind::Membership {
                self.apply_change(&entry, cx);
                if self.fatal.is_some() {
                    return;
                }
                continue;
            }
            let (own, guests) = (self.proposals.session(), &self.guests);
            let awaited = |asked: &Envelope| asked.id.session == own || guests.knows(asked.id.session);
            let output = match self.machine.apply(entry.index, entry.term, &entry.data, &awaited) {
                Ok(output) => output,
                Err(e) => return self.fail(&e),
            };
            for (id, result) in output.results {
                if id.session != own {
                    self.guests.answer(id, result);
                    continue;
                }
                if let Err(refusal @ Refusal::Locked { .. }) = &result
                    && self.proposals.postpone(id, refusal)
                {
                    continue;
                }
                let done = (entry.index, self.machine.meta().clock);
                if let Some((request, result)) = self.proposals.outcome(id, result, done) {
                    cx.out.replies.push((request, result.map(Reply::Applied).map_err(Error::Refused)));
                }
            }
            self.judge_told(entry.index, entry.term, cx);
            self.splitting.judged(output.splits);
            if output.unlocked {
                self.proposals.resend_postponed();
                self.split_again();
            }
            output.revoked.iter().for_each(|lease| self.clock.revoked(*lease));
            output.postponed.iter().for_each(|lease| self.clock.postpone(*lease));
            output.granted.iter().for_each(|grant| self.clock.granted(cx.lease_now(), *grant));
            self.garbage |= output.compacted || output.weaned;
            let revision = self.machine.meta().revision;
            if self.is_system() {
                self.news.add(&output.events);
            }
            for (key, events) in self.hub.publish(output.events) {
                if cx.sabotaged(Sabotage::SplitRevisions) {
                    let one = |event: &Event| WatchOutput::Events { revision, events: Arc::new([event.clone()]) };
                    cx.out.watch.extend(events.iter().map(|event| (key, one(event))));
                    continue;
                }
                cx.out.watch.push((key, WatchOutput::Events { revision, events }));
            }
            self.remember_hash(entry.index);
        }
        self.answer_guests(cx);
        self.group.applied(last);
        let parked = std::mem::take(&mut self.parked);
        parked.into_iter().for_each(|waiting| self.reads.push(waiting));
    }

    fn fail(&mut self, error: &MachineError) {
        if error.is_damage() {
            self.lost = Some(Lost::Rows);
        }
        self.fatal.get_or_insert(error.to_string());
    }
}
