//! A replica whose shard moves away from this node, and what a leader says of where its group is.
//!
//! A replica goes when everybody who votes in its group knows for good that it is no member. That it has applied its own removal is not enough: another may have
//! forgotten that in a crash, and need a vote of the members before (`group`'s commit index may be lost, seed 17 of the ground `moves`).
//!
//! A replica that goes leaves its promises behind: its term, its vote, and the entries of its log that it had not applied. If the shard ever comes back to this node, its
//! replica goes on from them, as one that has lost its rows does (`mending`). So no id is ever used by a replica that has forgotten what the one
//! before it promised, and what one has acknowledged and not applied stays acknowledged. (Reusing the id of a replica that was wiped is the bug known from raft-rs's
//! and etcd's issue lists: a candidate that was cut off since before the changes may collect votes that were never to be given again.)

use super::{Asker, Context, LostAnswers, Replica, Waiting};
use crate::boot;
use crate::bounds::PLACE_LOOK;
use crate::config::Sabotage;
use crate::input::RequestId;
use crate::placement::{GroupRow, Placements};
use crate::proposals::Proposals;
use crate::wire::{PeerBody, node_of};
use quorate_consensus::Role;
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId};
use quorate_kv::{Command, Revision, SessionId, Txn};
use quorate_shard::WatcherKey;
use quorate_storage::wal::{LogRecord, RecoveredLog};
use std::collections::BTreeSet;

/// What a replica knows for good of who the members are.
pub(super) struct Moving {
    /// Behind the last change of the members, and how far commits are durable.
    changed: LogIndex,
    durable: LogIndex,
}

impl Moving {
    /// Of a replica that begins with what is durable up to `applied`.
    pub fn new(applied: LogIndex) -> Self {
        Self { changed: applied, durable: applied }
    }

    /// Everything up to here is durable as committed.
    pub fn learn(&mut self, durable: LogIndex) {
        self.durable = self.durable.max(durable);
    }

    /// The members are others.
    pub fn changed(&mut self, index: LogIndex) {
        self.changed = index;
    }
}

/// What a replica was asked for and has not answered.
pub(crate) struct Commands {
    pub proposals: Proposals,
    /// What it had applied.
    pub applied: LogIndex,
    /// Who leads its group, as far as it knows; never itself.
    pub leader: Option<NodeId>,
}

/// What is left of a replica that is gone.
pub(crate) struct Left {
    /// Its promises.
    pub log: RecoveredLog,
    /// What it was asked for and has not answered, if it was one that can be asked.
    pub commands: Option<Commands>,
    /// Those who watched.
    pub watchers: Vec<WatcherKey>,
    /// Those who waited for something that only a replica can answer.
    pub unanswered: Vec<RequestId>,
    /// So many answers that it gave, or may have given, were lost, as far as can be known without it.
    pub lost: LostAnswers,
}

impl Replica {
    /// Says that the group goes on without another replica, if a crash cannot make this one forget that.
    pub(super) fn answer_goodbye(&mut self, from: ReplicaId, index: LogIndex, cx: &mut Context<'_>) {
        let membership = self.group.membership();
        let outside = !membership.is_joint() && !membership.contains(from) && membership.is_voter(self.id);
        if outside && self.remembers_members() {
            self.send(from, PeerBody::LeaveAnswer { index }, cx);
        }
    }

    /// Whether this replica has a vote.
    pub fn votes(&self) -> bool {
        self.group.votes()
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
        self.stop_looking(cx);
        let unanswered = self.unanswered();
        let (promises, start, entries) = (self.group.promises(), self.group.log_start(), self.group.entries());
        let log = match cx.sabotaged(Sabotage::ForgetMoved) {
            true => RecoveredLog::default(),
            false => boot::log_of(self.shard, self.id, promises, start, entries, Vec::new()),
        };
        self.proposals.drop_queue();
        let leader = self.leader_elsewhere();
        let watchers = self.hub.reset(self.machine.meta().revision);
        let lost = self.early.give_up();
        let commands = Some(Commands { proposals: self.proposals, applied, leader });
        Left { log, commands, watchers, unanswered, lost }
    }

    /// Whether it was asked for something that it has not answered.
    pub fn has_commands(&self) -> bool {
        self.proposals.outstanding_count() > 0
    }

    /// Gives away what it was asked for. What it will be asked for belongs to another `session`.
    pub fn give_commands_away(&mut self, session: SessionId) -> Commands {
        self.proposals.drop_queue();
        let proposals = std::mem::replace(&mut self.proposals, Proposals::new(session));
        Commands { proposals, applied: self.machine.meta().applied, leader: self.leader_elsewhere() }
    }

    fn leader_elsewhere(&self) -> Option<NodeId> {
        self.group.leader().filter(|leader| *leader != self.id).map(node_of)
    }

    /// Requests that wait for what this replica cannot say any more.
    fn unanswered(&mut self) -> Vec<RequestId> {
        let parked = std::mem::take(&mut self.parked);
        parked.into_iter().for_each(|waiting| self.reads.push(waiting));
        let reads = self.reads.take_all().into_iter().filter_map(|waiting| match waiting {
            Waiting::View { request, .. } | Waiting::Lease { asker: Asker::Client(request), .. } => Some(request),
            Waiting::Lease { asker: Asker::Peer { .. }, .. } | Waiting::Expire(_) | Waiting::Look(_) => None,
        });
        let asks = std::mem::take(&mut self.asks).into_values().map(|ask| ask.request);
        let collected = self.collected_waiters.drain(..).map(|(request, _)| request);
        reads.chain(asks).chain(collected).collect()
    }

    /// What to write if this leader's group is not what the rows say that it is.
    pub fn news_of_group(&self, placements: &Placements) -> Option<Txn> {
        let said = placements.group(self.shard).is_some_and(|group| group.index >= self.moving.changed);
        if said || !self.leads_informed() || placements.of(self.shard).is_none() {
            return None;
        }
        let membership = self.group.membership();
        if membership.is_joint() {
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
