//! Leadership handed over on purpose: because the node is about to stop, because a client asks for it, because the disk is full or slow.
//!
//! The heir is a voter that answers and lacks little of the log, of those the one that has most of it: it is told to campaign at once, and wins with
//! what it has. Meanwhile nothing is proposed, so that no write is lost on the way; clients' commands wait, and go to the heir.

use super::{Context, Replica};
use crate::bounds::{HAND_OVER_PAUSE, PENDING_READS_MAX};
use crate::input::{Reply, RequestId};
use crate::pace::Pace;
use crate::wire::node_of;
use quorate_consensus::Role;
use quorate_env::{Instant, NodeId, ReplicaId};
use quorate_kv::{MoveRefusal, Refusal, Unavailable};

/// A client that waits until another leads.
struct Ask {
    request: RequestId,
    to: ReplicaId,
    deadline: Instant,
}

/// What a replica keeps in mind for handing over.
#[derive(Default)]
pub(super) struct Handing {
    /// The node is about to stop.
    leaving: bool,
    /// When leadership was last offered to another for this node's own good.
    offered: Option<Instant>,
    asks: Vec<Ask>,
    pace: Pace,
}

impl Replica {
    /// The node is about to stop: another is to lead before that.
    pub fn leave(&mut self, cx: &mut Context<'_>) {
        self.wake(None, cx);
        self.handing.leaving = true;
        self.hand_over(cx);
    }

    /// Whether the node is about to stop.
    pub(super) fn is_leaving(&self) -> bool {
        self.handing.leaving
    }

    /// Whether somebody waits until another leads.
    pub(super) fn is_asked_to_move(&self) -> bool {
        !self.handing.asks.is_empty()
    }

    /// Whether nobody waits for this replica: it leads nobody that could lead instead, and owes no client the outcome of a command.
    pub fn may_stop(&self, heard: Instant) -> bool {
        let heirless = self.group.role() != Role::Leader || self.heir(heard).is_none();
        heirless && self.proposals.outstanding_count() == 0
    }

    /// Who should lead in this replica's place: of those who were heard from since `heard`, the voter with most of the log.
    pub(super) fn heir(&self, heard: Instant) -> Option<ReplicaId> {
        let voters = self.group.membership().voters;
        let others = voters.into_iter().filter(|voter| *voter != self.id);
        let fit = others.filter(|voter| self.heard_since(*voter, heard) && self.is_in_sync(*voter));
        fit.max_by_key(|voter| (self.group.matched(*voter), self.last_heard(*voter)))
    }

    /// Begins to hand leadership over, if this replica has it and anybody can take it.
    pub(super) fn hand_over(&mut self, cx: &Context<'_>) {
        if self.group.role() == Role::Leader
            && let Some(heir) = self.heir(cx.heard_lately())
        {
            self.group.transfer_leader(heir);
        }
    }

    /// Hands over because another is better placed, though not again and again: they may be no better off.
    pub(super) fn hand_over_for_good(&mut self, cx: &Context<'_>) {
        if self.may_offer(cx.now) {
            self.hand_over(cx);
        }
    }

    fn may_offer(&mut self, now: Instant) -> bool {
        let may = self.handing.offered.is_none_or(|offered| now.since(offered) >= HAND_OVER_PAUSE);
        self.handing.offered = if may { Some(now) } else { self.handing.offered };
        may
    }

    /// Leadership was won or lost: what was measured is of no more use.
    pub(super) fn forget_pace(&mut self) {
        self.handing.pace = Pace::default();
    }

    pub(super) fn tick_handing(&mut self, cx: &mut Context<'_>) {
        if self.handing.leaving {
            self.hand_over(cx);
        }
        if cx.no_space && self.group.role() == Role::Leader {
            self.hand_over_for_good(cx);
        }
        let late = self.handing.asks.extract_if(.., |ask| ask.deadline <= cx.now);
        cx.out.replies.extend(late.map(|ask| (ask.request, Err(Unavailable::Timeout.into()))));
    }

    /// Looks whether another's disk is so much faster that it should lead.
    pub(super) fn watch_pace(&mut self, cx: &mut Context<'_>) {
        if self.group.role() != Role::Leader {
            return;
        }
        let voters = self.group.membership().voters;
        let mut pace = std::mem::take(&mut self.handing.pace);
        let (last, heard) = (self.group.last_index(), cx.heard_lately());
        let fit = |id| self.heard_since(id, heard) && self.is_in_sync(id);
        let heir = pace.look(cx.now, self.id, &voters, last, |id| self.group.matched(id), fit);
        self.handing.pace = pace;
        let Some(heir) = heir.filter(|_| !self.group.is_changing()) else { return };
        if self.may_offer(cx.now) {
            cx.out.too_slow.push((self.shard, node_of(heir)));
            self.group.transfer_leader(heir);
        }
    }

    /// A client wants another to lead.
    pub(super) fn ask_to_move(&mut self, request: RequestId, to: NodeId, deadline: Instant, cx: &mut Context<'_>) {
        let to = ReplicaId(to.0);
        let refusal = if self.group.role() != Role::Leader {
            Some(Refusal::Move(MoveRefusal::NotLeader).into())
        } else if !self.group.membership().voters.contains(&to) {
            Some(Refusal::Move(MoveRefusal::BadTarget).into())
        } else if self.handing.asks.len() >= PENDING_READS_MAX {
            Some(Unavailable::Overloaded.into())
        } else {
            None
        };
        if let Some(why) = refusal {
            cx.out.replies.push((request, Err(why)));
            return;
        }
        self.handing.asks.push(Ask { request, to, deadline });
        if to != self.id {
            self.group.transfer_leader(to);
        }
        self.answer_moves(cx);
    }

    /// Another may lead by now.
    pub(super) fn answer_moves(&mut self, cx: &mut Context<'_>) {
        let leader = self.group.leader();
        let done = self.handing.asks.extract_if(.., |ask| Some(ask.to) == leader);
        cx.out.replies.extend(done.map(|ask| (ask.request, Ok(Reply::Moved))));
    }
}
