//! One replica: a consensus group and a state machine, and the promises between them.
//!
//! The order that everything hangs on: an entry is *persisted* before it is acknowledged to the leader, *committed* before it is
//! applied, *applied* before its client is answered. A snapshot's rows are durable in the store before the log forgets what they
//! replace.

mod catching;
mod early;
mod everywhere;
mod guests;
mod handing;
mod installing;
mod leasing;
mod looking;
mod moving;
mod preferring;
mod reshaping;
mod sabotage;
mod sleeping;
mod splitting;
mod standings;
mod system;

use crate::ack_wait::{AckWait, Everywhere};
use crate::across::Orphans;
use crate::bounds::{
    CHUNKS_UNDER_WAY, GARBAGE_EVENTS_PER_TICK, HASH_EXCHANGE, HASHES_KEPT, HEARD_LATELY_ELECTIONS, PENDING_READS_MAX,
    RETRY,
};
use crate::config::{NodeConfig, Sabotage};
use crate::input::{Inspection, Lost, Outputs, Reply, Request, RequestId, WatchOutput, WatchRequest};
use crate::lease_clock::LeaseClock;
use crate::load::Load;
use crate::proposals::{Proposals, needs_space};
use crate::reads::{self, Reads};
use crate::slots::Slots;
use crate::transfer::{self, Incoming, OutgoingSet};
use crate::wire::{EntryCopy, PeerBody, PeerMessage, node_of};
use catching::Catching;
pub use early::AtRisk;
use early::Early;
pub(crate) use early::LostAnswers;
use everywhere::Spread;
use guests::Guests;
use handing::Handing;
use looking::Closing;
pub(crate) use looking::Glance;
use moving::Moving;
pub(crate) use moving::{Commands, Left};
use quorate_consensus::{
    Entry, EntryKind, Group, Membership, Message, MessageKind, Ready, Role, Snapshot, SnapshotPoint,
};
use quorate_env::checksum::checksum;
use quorate_env::{Instant, LogIndex, NodeId, Reader, ReplicaId, Rng, ShardId, Term, Timestamp, WallMs, Writer};
use quorate_kv::across::TxId;
use quorate_kv::{
    Command, CommandId, Consistency, Envelope, Error, Event, Header, LeaseId, Read, Refusal, Revision, SessionId,
    Status, Unavailable,
};
use quorate_shard::{Attach, Grant, Machine, MachineError, Procedures, View, WatchHub, WatcherKey};
use quorate_storage::store::Store;
use quorate_storage::wal::{self, LogRecord};
use reshaping::Reshaping;
use sleeping::Sleeping;
use splitting::Splitting;
use standings::StandingAsks;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use system::News;
pub(crate) use system::SystemRows;

/// What a replica works with during one step.
pub(crate) struct Context<'a> {
    pub now: Instant,
    pub wall: WallMs,
    pub config: &'a NodeConfig,
    pub store: &'a Arc<dyn Store>,
    pub slots: &'a mut Slots,
    pub procedures: &'a Arc<Procedures>,
    pub out: &'a mut Outputs,
    /// Records of the persist in the making.
    pub records: &'a mut Vec<LogRecord>,
    /// Its ticket.
    pub ticket: u64,
    pub no_space: bool,
    /// Whether entries have timestamps: every member knows what they are.
    pub timed: bool,
    /// Nodes that share sleeping groups with this one and were not heard from for long.
    pub silent: &'a BTreeSet<NodeId>,
    /// Every timestamp before this millisecond is over on all clocks, if it is known how far those may be from true time.
    pub over_before: Option<WallMs>,
}

impl Context<'_> {
    /// Whether the simulator has switched this safety mechanism off.
    pub fn sabotaged(&self, what: Sabotage) -> bool {
        self.config.sabotage == Some(what)
    }

    /// Whether no clock stamps anything with an earlier timestamp any more.
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.over_before.is_some_and(|before| at.wall() < before)
    }

    /// Whoever was heard from since then counts as alive.
    pub fn heard_lately(&self) -> Instant {
        heard_lately(self.config, self.now)
    }

    /// The clock that leases are measured on.
    pub fn lease_now(&self) -> Instant {
        if self.sabotaged(Sabotage::LeaseByWallClock) { Instant(self.wall.0 * 1_000_000) } else { self.now }
    }
}

/// Whoever was heard from since then counts as alive.
pub(crate) fn heard_lately(config: &NodeConfig, now: Instant) -> Instant {
    now - config.timing.tick * config.timing.election_ticks * HEARD_LATELY_ELECTIONS
}

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

/// Records that must not reach the log before the store is durable: the log is about to forget what a snapshot replaced.
#[derive(Default)]
struct Hold {
    records: Vec<LogRecord>,
    /// The flush that covers the snapshot's rows, once one was started.
    flush: Option<u64>,
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

    // ---- what happens to it

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

    fn tick_reads(&mut self, cx: &mut Context<'_>) {
        let parked = std::mem::take(&mut self.parked);
        parked.into_iter().for_each(|waiting| self.reads.push(waiting));
        let now = cx.now;
        let expired = self.reads.tick(now, |waiting| match waiting {
            Waiting::View { deadline, .. } | Waiting::Lease { deadline, .. } => *deadline <= now,
            Waiting::Look(glance) => glance.deadline <= now,
            Waiting::Expire(_) => false,
        });
        for waiting in expired {
            self.refuse(waiting, cx);
        }
        self.expire_moments(cx);
        let late: Vec<u64> = self.asks.iter().filter(|(_, ask)| ask.deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(ask) = self.asks.remove(&id) {
                cx.out.replies.push((ask.request, Err(Unavailable::NoLeader.into())));
            }
        }
        let overdue = self.collected_waiters.extract_if(.., |(_, deadline)| *deadline <= now);
        cx.out.replies.extend(overdue.map(|(request, _)| (request, Err(Unavailable::Timeout.into()))));
    }

    fn refuse(&mut self, waiting: Waiting, cx: &mut Context<'_>) {
        match waiting {
            Waiting::View { request, .. } | Waiting::Lease { asker: Asker::Client(request), .. } => {
                cx.out.replies.push((request, Err(Unavailable::NoLeader.into())));
            }
            Waiting::Look(glance) => self.turn_down(&glance, Unavailable::NoLeader, cx),
            // A peer asks again by itself; an expiry is due again under the next leader.
            Waiting::Lease { asker: Asker::Peer { .. }, .. } | Waiting::Expire(_) => {}
        }
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

    fn tick_hashes(&mut self, cx: &mut Context<'_>) {
        if self.group.role() != Role::Leader || cx.now.since(self.hash_sent) < HASH_EXCHANGE {
            return;
        }
        self.hash_sent = cx.now;
        let meta = self.machine.meta();
        let (applied, hash) = (meta.applied, meta.state_hash);
        for replica in self.group.membership().all() {
            if replica != self.id {
                self.send(replica, PeerBody::StateHash { applied, hash }, cx);
            }
        }
    }

    /// The connection to a peer closed.
    pub fn peer_down(&mut self, node: NodeId, cx: &Context<'_>) {
        match self.group.leader() {
            Some(leader) if node_of(leader) == node => self.lose_leader(cx),
            _ if self.group.role() == Role::Leader => self.group.unreachable(ReplicaId(node.0)),
            _ => {}
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

    /// A message of a peer's replica arrived; it was addressed to this one.
    pub fn receive(&mut self, from: ReplicaId, body: PeerBody, cx: &mut Context<'_>) {
        match body {
            PeerBody::Raft(message) => self.receive_raft(message, from, cx),
            PeerBody::Forward(envelopes) => self.receive_forward(from, envelopes, cx),
            PeerBody::LeaseAsk { ask, lease, renew, with_keys } => {
                if self.group.role() == Role::Leader && self.reads.len() < PENDING_READS_MAX {
                    let deadline = cx.now + RETRY * 2;
                    let asker = Asker::Peer { replica: from, ask };
                    self.reads.push(Waiting::Lease { asker, lease, renew, with_keys, deadline });
                }
            }
            PeerBody::LeaseAnswer { ask, answer } => {
                if let Some(ask) = self.asks.remove(&ask) {
                    cx.out.replies.push((ask.request, answer.map(Reply::Lease)));
                }
            }
            PeerBody::ChunkAsk { transfer, cursor } => self.send_chunk(from, transfer, &cursor, false, cx),
            PeerBody::DigestAsk { transfer, cursor } => self.send_chunk(from, transfer, &cursor, true, cx),
            PeerBody::Chunk { transfer, cursor, chunk } => self.accept_chunk(from, transfer, &cursor, &chunk, cx),
            PeerBody::TransferGone { transfer } => {
                if self.incoming.as_ref().is_some_and(|i| i.transfer == transfer && i.from == node_of(from)) {
                    self.abandon_incoming(cx);
                }
            }
            PeerBody::StateHash { applied, hash } => self.compare_hash(applied, hash),
            PeerBody::EntryAsk { index, term } => {
                let copy = self.copy_of(index, term, cx);
                self.send(from, PeerBody::EntryAnswer { index, term, copy }, cx);
            }
            PeerBody::RowsAsk { index } => {
                if self.machine.meta().applied >= index {
                    let transfer = self.outgoing.offer(cx.now, from, self.machine.view(), 1);
                    self.send(from, PeerBody::RowsOffer { transfer }, cx);
                }
            }
            PeerBody::Petition(envelopes) => self.receive_petition(from, envelopes, cx),
            PeerBody::LookAsk { ask, freshness, reads } => self.look_for(from, (ask, freshness, reads), cx),
            PeerBody::CloseAsk { at } => self.want_closed(at),
            PeerBody::LeaveAsk { index } => self.answer_goodbye(from, index, cx),
            PeerBody::StandingAsk { ask } => self.answer_standings(from, ask, cx),
            PeerBody::StandingAnswer { ask, standings } => self.accept_standings(ask, standings, cx),
            PeerBody::Sleep { term, end } => self.hear_sleep(from, term, end, cx),
            PeerBody::Rouse => self.wake(Some(from), cx),
            PeerBody::EverywhereAsk { index } => {
                self.wake(Some(from), cx);
                self.want_everywhere(from, index, cx);
            }
            PeerBody::Everywhere { index } => self.everywhere.hear(index),
            PeerBody::Early { answers } => self.hear_early(answers, cx),
            // To a former life, whose log had rotted, or to this one before it took part; the node itself says what it saw, and hears what it is told
            // of shards that it has no replicas of.
            PeerBody::EntryAnswer { .. }
            | PeerBody::RowsOffer { .. }
            | PeerBody::Digest { .. }
            | PeerBody::RecallAsk { .. }
            | PeerBody::RecallAnswer { .. }
            | PeerBody::Answers { .. }
            | PeerBody::LeaveAnswer { .. }
            | PeerBody::LookAnswer { .. }
            | PeerBody::Beat
            | PeerBody::NotHere => {}
        }
    }

    /// What became of an entry here, for a replica whose copy of it rotted.
    fn copy_of(&self, index: LogIndex, term: Term, cx: &Context<'_>) -> EntryCopy {
        if index <= self.group.log_start().index {
            return EntryCopy::Compacted;
        }
        match self.group.entry(index).filter(|entry| entry.term == term) {
            Some(entry) if cx.sabotaged(Sabotage::MendUnverified) => sabotage::garbled(&entry),
            Some(entry) => EntryCopy::Held { kind: entry.kind as u8, payload: entry.data },
            None if index <= self.group.committed() || cx.sabotaged(Sabotage::LackIsReplaced) => EntryCopy::Replaced,
            None => {
                let in_term = self.durable_term;
                let leads = self.group.role() == Role::Leader && self.group.term() == in_term;
                EntryCopy::Absent { in_term, leads }
            }
        }
    }

    fn receive_raft(&mut self, message: Message, from: ReplicaId, cx: &mut Context<'_>) {
        if message.from != from || message.to != self.id {
            return;
        }
        if message.kind == MessageKind::Snapshot
            && message.snapshot.as_ref().is_some_and(|s| s.index > self.machine.meta().applied)
        {
            self.begin_incoming(message, cx);
            return;
        }
        if message.kind == MessageKind::Append && !message.entries.is_empty() && self.overwhelmed(cx) {
            // The leader sends it again with a later heartbeat.
            return;
        }
        let message = self.tamper(message, cx);
        // A leader tells nobody of more than was acknowledged to it.
        if message.kind == MessageKind::Heartbeat
            && message.term >= self.group.term()
            && message.commit > self.group.last_index()
        {
            self.lost = Some(Lost::Acknowledged);
            let (told, last) = (message.commit, self.group.last_index());
            self.fatal
                .get_or_insert(format!("this replica acknowledged entries up to {told}, and its disk has only {last}"));
            return;
        }
        self.stir_by(&message, cx);
        self.hear(&message, cx.now);
        // What the engine refuses (a stale or strange message) is dropped, as the network might have done.
        let _ = self.group.step(&message);
        // An answer to what was sent before the snapshot does not end the wait for it; the transfer must stay, so that it can time out.
        if self.outgoing.contains(from) && !self.group.awaits_snapshot(from) {
            self.outgoing.done(from);
        }
        self.catching.acknowledges(from, self.group.matched(from), self.group.committed(), cx.now);
    }

    // ---- what clients ask

    pub fn request(&mut self, id: RequestId, request: Request, deadline: Instant, cx: &mut Context<'_>) {
        if !sleeping::is_quiet(&request) {
            self.wake(None, cx);
        }
        let header = self.header();
        let answer = match request {
            Request::View { consistency: Consistency::Serializable, .. } => {
                Ok(Reply::View { view: self.machine.view(), header })
            }
            Request::View { .. } => {
                if self.reads.len() >= PENDING_READS_MAX {
                    Err(Unavailable::Overloaded.into())
                } else {
                    self.reads.push(Waiting::View { request: id, deadline });
                    return;
                }
            }
            Request::Submit { command, .. } => return self.submit(id, (command, AckWait::default()), deadline, cx),
            Request::OutcomeOf { id, .. } => Ok(Reply::Outcome(self.machine.outcome_of(id))),
            Request::Lease { lease, renew, with_keys, .. } => {
                if self.asks.len() + self.reads.len() >= PENDING_READS_MAX {
                    Err(Unavailable::Overloaded.into())
                } else {
                    self.next_ask += 1;
                    self.asks.insert(self.next_ask, Ask { request: id, lease, renew, with_keys, deadline, sent: None });
                    return;
                }
            }
            Request::Leases { .. } => {
                Ok(Reply::Leases(Read { header, result: self.machine.leases().map(|grant| grant.id).collect() }))
            }
            Request::Status { .. } => Ok(Reply::Status(self.status(cx))),
            Request::Standings { .. } => return self.ask_standings(id, deadline, cx),
            Request::Transact(_)
            | Request::Settle { .. }
            | Request::Look { .. }
            | Request::Reserve(_)
            | Request::Release { .. } => {
                unreachable!("the node carries these through")
            }
            Request::MoveLeader { to, .. } => return self.ask_to_move(id, to, deadline, cx),
            Request::Collected { .. } => {
                if self.garbage {
                    self.collected_waiters.push((id, deadline));
                    return;
                }
                Ok(Reply::Collected)
            }
        };
        cx.out.replies.push((id, answer));
    }

    /// Has a command proposed. Its client is told what came of it when that is true which it waits for.
    pub fn submit(
        &mut self,
        id: RequestId,
        (command, wait): (Command, AckWait),
        deadline: Instant,
        cx: &mut Context<'_>,
    ) {
        self.wake(None, cx);
        let taken = match cx.no_space && needs_space(&command) {
            true => Err(Unavailable::NoSpace),
            false => self.proposals.submit(id, command, wait, deadline),
        };
        if let Err(why) = taken {
            cx.out.replies.push((id, Err(why.into())));
        }
    }

    pub fn watch(&mut self, key: WatcherKey, request: WatchRequest, cx: &mut Context<'_>) {
        let meta = self.machine.meta();
        let revision = meta.revision;
        let output = match request {
            WatchRequest::Detach => {
                self.hub.detach(key);
                return;
            }
            WatchRequest::Progress => {
                if !self.hub.is_attached(key) {
                    return;
                }
                let ahead = u64::from(cx.sabotaged(Sabotage::ProgressAhead));
                WatchOutput::Progress { revision: Revision(revision.0 + ahead) }
            }
            WatchRequest::Attach { spec, from } => {
                let from = from.unwrap_or(Revision(revision.0 + 1));
                let early = u64::from(cx.sabotaged(Sabotage::WatchTwice) && from.0 > 2);
                let from = Revision(from.0 - early);
                match meta.compacted {
                    Some(compacted) if from < compacted => WatchOutput::Compacted { revision, compacted },
                    _ => match self.hub.attach(key, spec.clone(), from) {
                        Attach::Attached { backlog } => WatchOutput::Attached { revision, backlog },
                        Attach::Behind if cx.sabotaged(Sabotage::SkipHistory) => {
                            self.hub.attach(key, spec, Revision(revision.0 + 1));
                            WatchOutput::Attached { revision, backlog: Vec::new() }
                        }
                        Attach::Behind => WatchOutput::Behind { view: self.machine.view(), from },
                    },
                }
            }
        };
        cx.out.watch.push((key, output));
    }

    // ---- the pump: carries out everything that has become possible, or as much of it as is done at one time

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

    /// Whether a replica that only follows must refuse more: its own disk is far behind the leader's.
    fn overwhelmed(&self, cx: &Context<'_>) -> bool {
        cx.store.memory_bytes() >= 2 * cx.config.unflushed_bytes_max
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

    fn release_reads(&mut self, cx: &mut Context<'_>) {
        let early = cx.sabotaged(Sabotage::ReadBeforeApplied);
        let released = self.reads.release(if early { LogIndex(u64::MAX) } else { self.machine.meta().applied });
        let mut view = None;
        let header = self.header();
        for waiting in released {
            match waiting {
                Waiting::View { request, .. } => {
                    let view = view.get_or_insert_with(|| self.machine.view()).clone();
                    cx.out.replies.push((request, Ok(Reply::View { view, header })));
                }
                Waiting::Look(glance) => self.sight(glance, cx),
                Waiting::Lease { asker, lease, renew, with_keys, deadline } => {
                    match self.answer_lease(lease, renew, with_keys, cx.lease_now()) {
                        Some(answer) => self.tell(asker, answer, cx),
                        None => self.parked.push(Waiting::Lease { asker, lease, renew, with_keys, deadline }),
                    }
                }
                Waiting::Expire(grants) => self.expire(&grants),
            }
        }
    }

    /// Whether a snapshot waits for the store to be flushed, with no flush covering it yet.
    pub fn wants_flush(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.flush.is_none())
    }

    /// A flush was started that covers everything written so far.
    pub fn flush_started(&mut self, ticket: u64) {
        if let Some(hold) = &mut self.hold {
            hold.flush.get_or_insert(ticket);
        }
    }

    /// That flush is durable, and with it what was applied up to `durable`.
    pub fn flushed(&mut self, ticket: u64, durable: LogIndex, cx: &mut Context<'_>) {
        self.moving.learn(durable);
        if self.hold.as_ref().is_some_and(|hold| hold.flush == Some(ticket)) {
            let hold = self.hold.take().expect("checked");
            cx.records.extend(hold.records);
            self.awaiting.iter_mut().for_each(|awaiting| {
                awaiting.ticket.get_or_insert(cx.ticket);
            });
        }
        if self.hold.is_none() {
            let target = self.log_cut(durable, cx);
            if target > self.group.log_start().index {
                self.compact_log(target, cx);
            }
        }
    }

    fn compact_log(&mut self, index: LogIndex, cx: &mut Context<'_>) {
        self.group.compact(index);
        let start = self.group.log_start();
        let (shard, index, term) = (self.shard, start.index, start.term);
        cx.records.push(LogRecord::Start { shard, index, term, discard_after: false });
    }

    // ---- hashes

    fn remember_hash(&mut self, index: LogIndex) {
        let hash = self.machine.meta().state_hash;
        self.hashes.insert(index, hash);
        if self.hashes.len() > HASHES_KEPT {
            self.hashes.pop_first();
        }
        if self.expected_hashes.first_key_value().is_some_and(|(expected, _)| *expected <= index) {
            let later = self.expected_hashes.split_off(&index.next());
            let reached = std::mem::replace(&mut self.expected_hashes, later);
            if let Some(expected) = reached.get(&index) {
                self.judge_hash(index, *expected, hash);
            }
        }
    }

    fn compare_hash(&mut self, index: LogIndex, hash: u64) {
        match self.hashes.get(&index).copied() {
            Some(own) => self.judge_hash(index, hash, own),
            None if index > self.machine.meta().applied && self.expected_hashes.len() < 16 => {
                self.expected_hashes.insert(index, hash);
            }
            None => {}
        }
    }

    fn judge_hash(&mut self, index: LogIndex, theirs: u64, ours: u64) {
        if theirs != ours {
            self.fatal.get_or_insert(format!(
                "the state at {index} differs from the leader's ({ours:016x}, not {theirs:016x}): this copy is wrong, or the leader's"
            ));
        }
    }

    // ---- messages

    fn send(&self, to: ReplicaId, body: PeerBody, cx: &mut Context<'_>) {
        cx.out.messages.push((node_of(to), PeerMessage { shard: self.shard, from: self.id, to, body }));
    }

    fn send_raft(&mut self, messages: Vec<Message>, cx: &mut Context<'_>) {
        let told = self.told_up_to(cx);
        for mut message in messages {
            if message.kind == MessageKind::ReadIndexResponse && cx.sabotaged(Sabotage::TellAsCommitted) {
                message.index = message.index.max(told);
            }
            if message.kind == MessageKind::ReadIndexResponse && told > message.index {
                message.entries.iter_mut().for_each(|asked| asked.data = reads::not_before(&asked.data, told).into());
            }
            if let Some(snapshot) = &mut message.snapshot {
                // The rows are those of now, which is at or after what the engine had in mind.
                let meta = self.machine.meta();
                (snapshot.index, snapshot.term) = (meta.applied, meta.applied_term);
                match Membership::decode(&mut Reader::new(meta.membership.clone())) {
                    Ok(membership) => snapshot.membership = membership,
                    Err(e) => {
                        self.fatal.get_or_insert(format!("the membership cannot be read: {e}"));
                        continue;
                    }
                }
                self.catching.offered(message.to, snapshot.index, cx.now);
                let offered = self.outgoing.offer(cx.now, message.to, self.machine.view(), CHUNKS_UNDER_WAY);
                snapshot.data = transfer::descriptor(offered);
            }
            let counted = sabotage::counted_as_stored(&message, cx.config.sabotage);
            self.send(message.to, PeerBody::Raft(message), cx);
            if let Some(answer) = counted {
                let _ = self.group.step(&answer);
            }
        }
    }

    // ---- what it looks like

    fn header(&self) -> Header {
        Header { revision: self.machine.meta().revision, term: self.group.term() }
    }

    fn status(&self, cx: &Context<'_>) -> Status {
        let disk_bytes = cx.store.disk_bytes() + cx.store.memory_bytes();
        Status {
            header: self.header(),
            leader: self.group.leader().map(node_of),
            committed: self.group.committed(),
            applied: self.machine.meta().applied,
            disk_bytes,
            disk_bytes_in_use: disk_bytes,
            learner: !self.group.membership().is_voter(self.id),
            no_space: cx.no_space,
            pending: self.proposals.outstanding_count(),
            leader_changes: self.leader_changes,
        }
    }

    /// What this replica's ledger has of transactions over several shards, if it leads.
    pub fn orphans(&self) -> Option<Orphans> {
        if self.group.role() != Role::Leader {
            return None;
        }
        let prepared = self.machine.prepared().map(|(tx, prepared)| (tx, prepared.home, prepared.fence)).collect();
        let unresolved = self.machine.unresolved().map(|(tx, d)| (tx, d.decision, d.unresolved.clone())).collect();
        let reserved = self.reserved().into_iter().collect();
        let orphans = Orphans { shard: self.shard, prepared, unresolved, reserved };
        let none = orphans.prepared.is_empty() && orphans.unresolved.is_empty() && orphans.reserved.is_empty();
        (!none).then_some(orphans)
    }

    /// Who has reserved something, and by which entries.
    pub fn reserved(&self) -> BTreeSet<(TxId, LogIndex)> {
        self.machine.reserved()
    }

    pub fn view(&self) -> View {
        self.machine.view()
    }

    pub fn applied(&self) -> LogIndex {
        self.machine.meta().applied
    }

    pub fn inspect(&self) -> Inspection {
        let meta = self.machine.meta();
        let membership = self.group.membership();
        Inspection {
            replica: self.id,
            role: self.group.role(),
            term: self.group.term(),
            leader: self.group.leader().map(node_of),
            committed: self.group.committed(),
            applied: meta.applied,
            state_hash: meta.state_hash,
            revision: meta.revision,
            log_start: self.group.log_start().index,
            last: self.group.last_index(),
            held_back: self.held_back,
            waits_for_newcomer: self.waits_for_newcomer,
            voter: membership.is_voter(self.id),
            membership: membership_hash(&membership),
            rotted: 0,
            asleep: self.is_asleep(),
        }
    }

    fn fail(&mut self, error: &MachineError) {
        if error.is_damage() {
            self.lost = Some(Lost::Rows);
        }
        self.fatal.get_or_insert(error.to_string());
    }
}

/// Equal for equal memberships.
#[must_use]
pub fn membership_hash(membership: &Membership) -> u64 {
    let mut w = Writer::new();
    membership.encode(&mut w);
    checksum(0, w.as_slice())
}
