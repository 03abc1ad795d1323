//! A replica whose shard moves away from this node, and what a leader says of where its group is.
//!
//! A replica goes when everybody who votes in its group knows for good that it is no member. That it has applied its own removal is not enough: another may have
//! forgotten that in a crash, and need a vote of the members before (`group`'s commit index may be lost, seed 17 of the ground `moves`).
//!
//! A replica that goes leaves its promises behind: its term, its vote, and the entries of its log that it had not applied. If the shard ever comes back to this node, its
//! replica goes on from them, as one that has lost its rows does (`mending`). So no id is ever used by a replica that has forgotten what the one
//! before it promised, and what one has acknowledged and not applied stays acknowledged. (Reusing the id of a replica that was wiped is the bug known from raft-rs's
//! and etcd's issue lists: a candidate that was cut off since before the changes may collect votes that were never to be given again.)

use super::{Asker, Context, Replica, Waiting};
use crate::bounds::{PLACE_LOOK, RETRY};
use crate::config::Sabotage;
use crate::input::RequestId;
use crate::placement::{GroupRow, Placements};
use crate::proposals::Proposals;
use crate::wire::PeerBody;
use quorate_consensus::Role;
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId};
use quorate_kv::{Command, Revision, Txn};
use quorate_shard::WatcherKey;
use quorate_storage::wal::{self, LogEntry, LogRecord, RecoveredLog};
use std::collections::BTreeSet;

/// What a replica keeps in mind for its going, and for that of others.
#[derive(Default)]
pub(super) struct Moving {
    /// The last change of the members that was applied in this life, and how far commits are durable.
    changed: LogIndex,
    durable: LogIndex,
    /// Who has said that the group goes on without this replica.
    released: BTreeSet<ReplicaId>,
    asked: Option<Instant>,
}

impl Moving {
    /// Everything up to here is durable as committed.
    pub fn learn(&mut self, durable: LogIndex) {
        self.durable = self.durable.max(durable);
    }

    /// The members are others.
    pub fn changed(&mut self, index: LogIndex) {
        self.changed = index;
    }

    pub fn hear(&mut self, from: ReplicaId) {
        self.released.insert(from);
    }
}

/// What is left of a replica that is gone.
pub(crate) struct Left {
    /// Its promises.
    pub log: RecoveredLog,
    /// What it was asked for and has not answered.
    pub proposals: Proposals,
    pub applied: LogIndex,
    /// Those who watched.
    pub watchers: Vec<WatcherKey>,
    /// Those who waited for something that only a replica can answer.
    pub unanswered: Vec<RequestId>,
}

impl Replica {
    /// Asks those who have a vote whether the group goes on without this replica, whatever they may forget in a crash. Returns whether all have said so.
    pub fn say_goodbye(&mut self, voters: &BTreeSet<NodeId>, cx: &mut Context<'_>) -> bool {
        let unheard = voters.iter().map(|node| ReplicaId(node.0)).filter(|voter| !self.moving.released.contains(voter));
        let unheard: Vec<ReplicaId> = unheard.collect();
        if self.moving.asked.is_none_or(|asked| cx.now.since(asked) >= RETRY) {
            self.moving.asked = Some(cx.now);
            unheard.iter().for_each(|voter| self.send(*voter, PeerBody::LeaveAsk, cx));
        }
        unheard.is_empty() || cx.sabotaged(Sabotage::LeaveAtOnce)
    }

    /// It is to stay after all.
    pub fn stay(&mut self) {
        (self.moving.released, self.moving.asked) = (BTreeSet::new(), None);
    }

    pub(super) fn answer_goodbye(&mut self, from: ReplicaId, cx: &mut Context<'_>) {
        let membership = self.group.membership();
        let outside = !membership.is_joint() && !membership.contains(from) && membership.is_voter(self.id);
        if outside && self.remembers_members() {
            self.send(from, PeerBody::LeaveAnswer, cx);
        }
    }

    /// Whether a crash cannot take back who the members are.
    pub fn remembers_members(&self) -> bool {
        self.moving.changed <= self.moving.durable
    }

    /// Whether nothing of it is on its way to the disk, and nobody follows it.
    pub fn is_at_rest(&self) -> bool {
        let still = self.awaiting.is_empty() && self.hold.is_none() && self.incoming.is_none();
        let asked = self.standing_asks.is_waiting() || self.is_asked_to_move();
        still && !asked && self.group.role() != Role::Leader
    }

    /// It goes. Its rows are to be removed.
    pub fn leave_for_good(mut self, cx: &mut Context<'_>) -> Left {
        let applied = self.machine.meta().applied;
        if cx.sabotaged(Sabotage::ForgetMoved) {
            let (shard, index, term) = (self.shard, applied, self.machine.meta().applied_term);
            cx.records.push(LogRecord::Start { shard, index, term, discard_after: true });
        } else {
            self.compact_log(applied, cx);
        }
        let unanswered = self.unanswered();
        let log = if cx.sabotaged(Sabotage::ForgetMoved) { RecoveredLog::default() } else { self.log() };
        self.proposals.drop_queue();
        let watchers = self.hub.reset(self.machine.meta().revision);
        Left { log, proposals: self.proposals, applied, watchers, unanswered }
    }

    /// The log as it is on the disk.
    fn log(&self) -> RecoveredLog {
        let (shard, promises, start) = (self.shard, self.group.promises(), self.group.log_start());
        let (term, vote, commit) = (promises.term, promises.vote, promises.commit);
        let entry = |entry: quorate_consensus::Entry| LogEntry {
            shard,
            index: entry.index,
            term: entry.term,
            kind: entry.kind as u8,
            payload: entry.data,
        };
        RecoveredLog {
            hard_state: Some(wal::HardState { shard, replica: self.id, term, vote, commit }),
            start: (start.index, start.term),
            entries: self.group.entries().into_iter().map(entry).collect(),
            ..RecoveredLog::default()
        }
    }

    /// Requests that wait for what this replica cannot say any more.
    fn unanswered(&mut self) -> Vec<RequestId> {
        let parked = std::mem::take(&mut self.parked);
        parked.into_iter().for_each(|waiting| self.reads.push(waiting));
        let reads = self.reads.take_all().into_iter().filter_map(|waiting| match waiting {
            Waiting::View { request, .. } | Waiting::Lease { asker: Asker::Client(request), .. } => Some(request),
            Waiting::Lease { asker: Asker::Peer { .. }, .. } | Waiting::Expire(_) => None,
        });
        let asks = std::mem::take(&mut self.asks).into_values().map(|ask| ask.request);
        let collected = self.collected_waiters.drain(..).map(|(request, _)| request);
        reads.chain(asks).chain(collected).collect()
    }

    /// What to write if this leader's group is not what the rows say that it is.
    pub fn news_of_group(&self, placements: &Placements) -> Option<Txn> {
        let membership = self.group.membership();
        if !self.leads_informed() || membership.is_joint() || placements.of(self.shard).is_none() {
            return None;
        }
        placements.say(self.shard, &GroupRow::of(self.machine.meta().applied, &membership))
    }

    /// As the system keyspace's leader: nodes that it has not heard from for as long as they are waited for.
    pub fn silent(&self, nodes: &BTreeSet<NodeId>, cx: &Context<'_>) -> BTreeSet<NodeId> {
        let since = cx.now - cx.config.evict_after;
        let led_long = self.reshaping.led_since.is_some_and(|when| when <= since);
        let silent = |node: &&NodeId| {
            let id = ReplicaId(node.0);
            id != self.id && self.group.membership().contains(id) && !self.heard_since(id, since)
        };
        if led_long { nodes.iter().filter(silent).copied().collect() } else { BTreeSet::new() }
    }

    /// As the system keyspace's leader, that knows all its rows: proposes where a shard is to live, and not again too soon.
    pub fn place(&mut self, txn: Txn, cx: &Context<'_>) {
        self.reshaping.placed = Some(cx.now);
        self.propose_own(Command::Transact(txn));
    }

    /// Whether this is the system keyspace's leader, and it is time to look where shards live.
    pub fn may_place(&self, known: Revision, now: Instant) -> bool {
        let due = self.reshaping.placed.is_none_or(|when| now.since(when) >= PLACE_LOOK);
        due && self.leads_informed() && known == self.machine.meta().revision
    }
}
