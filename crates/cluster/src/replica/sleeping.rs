//! A group that nobody asks for anything sleeps: no ticks, no heartbeats, nothing but memory (what CockroachDB calls quiescence).
//!
//! ```text
//!   the leader is idle for a while ──Sleep──> followers that have all of its log sleep too; who is not idle says Rouse
//!   a request, a message, a leader whose node is silent ──> awake ──Rouse──> the leader's next heartbeat wakes the others
//! ```
//!
//! It changes nothing that safety rests on: to consensus, who sleeps has a clock that stands still. What must not be lost is that somebody notices when a
//! leader is gone; that is the nodes' part (`node::sleeping`), once for all groups that they share.

use super::{Context, Replica};
use crate::bounds::GUEST_BYTES_ASLEEP_MAX;
use crate::config::Sabotage;
use crate::input::Request;
use crate::keyspaces::Keyspaces;
use crate::placement::Wishes;
use crate::reshape::{Decision, Standing, decide};
use crate::wire::{PeerBody, node_of};
use quorate_consensus::{Message, MessageKind};
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId, Term};
use quorate_kv::Consistency;

/// What a replica keeps in mind for sleeping.
pub(super) struct Sleeping {
    asleep: bool,
    /// When something was last asked of it, here or by another.
    stirred: Instant,
}

impl Sleeping {
    /// Of a replica that starts.
    pub fn new(now: Instant) -> Self {
        Self { asleep: false, stirred: now }
    }
}

impl Replica {
    pub fn is_asleep(&self) -> bool {
        self.sleeping.asleep
    }

    /// The nodes with which it shares its group.
    pub fn company(&self) -> Vec<NodeId> {
        let all = self.group.membership().all().into_iter();
        all.filter(|id| *id != self.id).map(node_of).collect()
    }

    /// Whether its leader lives on a node.
    pub fn follows(&self, node: NodeId) -> bool {
        self.group.leader().is_some_and(|leader| leader != self.id && node_of(leader) == node)
    }

    /// Whether it leads and nobody has asked for anything for a while.
    pub fn is_drowsy(&self, cx: &Context<'_>) -> bool {
        let timing = &cx.config.timing;
        let rested = cx.now.since(self.sleeping.stirred) >= timing.tick * timing.sleep_ticks;
        rested && self.leads() && ((self.is_idle() && self.misses_nobody(cx)) || cx.sabotaged(Sabotage::SleepBehind))
    }

    /// Whether every member is there, or its node is not: then that is greeted when it comes back.
    fn misses_nobody(&self, cx: &Context<'_>) -> bool {
        let mut members = self.group.membership().all().into_iter();
        members.all(|id| self.standing(id, cx).alive || cx.silent.contains(&node_of(id)))
    }

    /// Whether what is written of this leader's shard in the system keyspace has come true, if everybody were well.
    pub fn is_as_wished(&self, wishes: &Wishes<'_>, keyspaces: &Keyspaces) -> bool {
        let well = |_| Standing { alive: true, in_sync: true };
        let shaped = decide(self.id, &self.group.membership(), wishes, &|_| false, well) == Decision::Nothing;
        shaped && self.next_split(keyspaces).is_none()
    }

    /// Whether nothing is under way here, and nothing would happen by itself.
    fn is_idle(&self) -> bool {
        let still = self.awaiting.is_empty() && self.hold.is_none() && self.incoming.is_none();
        let moments = self.closing.is_wanted(self.leads(), self.clock());
        let asked = self.reads.len() > 0 || !self.parked.is_empty() || !self.asks.is_empty() || moments;
        let waited = self.standing_asks.is_waiting()
            || self.is_asked_to_move()
            || self.is_asked_for_all()
            || !self.collected_waiters.is_empty();
        still
            && !(asked || waited || self.garbage || self.is_leaving())
            && self.proposals.is_empty()
            && self.outgoing.is_empty()
            && self.expected_hashes.is_empty()
            && self.guests.bytes() <= GUEST_BYTES_ASLEEP_MAX
            && self.machine.is_at_rest()
            && self.group.is_idle()
    }

    /// As a leader: the whole group is to sleep.
    pub fn fall_asleep(&mut self, cx: &mut Context<'_>) {
        let (term, end) = (self.group.term(), self.group.last_index());
        for member in self.group.membership().all().into_iter().filter(|id| *id != self.id) {
            self.send(member, PeerBody::Sleep { term, end }, cx);
        }
        self.sleeping.asleep = true;
    }

    /// The leader says that the group is to sleep.
    pub(super) fn hear_sleep(&mut self, from: ReplicaId, term: Term, end: LogIndex, cx: &mut Context<'_>) {
        if term < self.group.term() || self.leads() {
            return;
        }
        let same = (self.group.leader(), self.group.term(), self.group.last_index()) == (Some(from), term, end);
        if (same && self.is_idle()) || cx.sabotaged(Sabotage::SleepBehind) {
            self.sleeping.asleep = true;
        } else {
            self.send(from, PeerBody::Rouse, cx);
        }
    }

    /// Something is asked of it.
    pub(super) fn stir(&mut self, now: Instant) {
        self.sleeping.stirred = now;
    }

    /// A leader is not told to wake by answers to what it said before it fell asleep.
    pub(super) fn stir_by(&mut self, message: &Message, cx: &mut Context<'_>) {
        let answer = match message.kind {
            MessageKind::HeartbeatResponse => true,
            MessageKind::AppendResponse => !message.reject,
            _ => false,
        };
        if !answer {
            self.wake(Some(message.from), cx);
        }
    }

    /// Something is asked: time goes on. Its leader wakes too, if that is not `by` whom it was woken.
    pub fn wake(&mut self, by: Option<ReplicaId>, cx: &mut Context<'_>) {
        self.stir(cx.now);
        if !std::mem::take(&mut self.sleeping.asleep) {
            return;
        }
        if self.leads() {
            // Their replicas say nothing while they sleep; their nodes do.
            let there = self.group.membership().all().into_iter().filter(|id| !cx.silent.contains(&node_of(*id)));
            there.for_each(|id| self.heard_now(id, cx.now));
        } else if let Some(leader) = self.group.leader().filter(|leader| by != Some(*leader)) {
            self.send(leader, PeerBody::Rouse, cx);
        }
        self.group.go_on();
    }

    /// The leader's node is silent.
    pub fn lose_leader(&mut self, cx: &Context<'_>) {
        self.stir(cx.now);
        self.sleeping.asleep = false;
        self.group.go_on();
        self.group.leader_lost();
    }

    /// Whoever has something to do does not sleep.
    pub(super) fn wake_if_busy(&mut self, cx: &mut Context<'_>) {
        if self.sleeping.asleep && !self.is_idle() && !cx.sabotaged(Sabotage::SleepBehind) {
            self.wake(None, cx);
        }
    }
}

/// Whether a request is answered with what is here, whoever leads.
pub(super) fn is_quiet(request: &Request) -> bool {
    matches!(
        request,
        Request::View { consistency: Consistency::Serializable, .. }
            | Request::OutcomeOf { .. }
            | Request::Leases { .. }
            | Request::Status { .. }
            | Request::Collected { .. }
    )
}
