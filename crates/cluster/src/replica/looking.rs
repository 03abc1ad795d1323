//! Reads that need a replica to be fresh enough, and moments that must be closed for it (docs/design/consistency.md).
//!
//! A moment is closed where an entry with a later timestamp was applied and nothing is prepared from before it. Where nobody writes, nobody says so either: who needs it asks
//! the leader, whose next entry, an empty one if it must be, has such a timestamp. Only entries close moments. So what is closed stays closed, whoever leads next.

use super::{Context, Replica, Waiting};
use crate::bounds::{PENDING_READS_MAX, RETRY};
use crate::config::Sabotage;
use crate::looking::{Asker, Observation};
use crate::wire::PeerBody;
use quorate_consensus::Role;
use quorate_env::{Instant, ReplicaId, Term, Timestamp};
use quorate_kv::{Error, Freshness, RangeOp, Unavailable};

/// Somebody wants to know what this replica sees.
pub(crate) struct Glance {
    pub asker: Asker,
    pub freshness: Freshness,
    pub reads: Vec<RangeOp>,
    pub deadline: Instant,
}

/// What waits for moments to be closed.
#[derive(Default)]
pub(super) struct Closing {
    waiting: Vec<(Timestamp, Glance)>,
    /// As leader: an entry is wanted with at least this timestamp.
    wanted: Timestamp,
    /// The largest timestamp that was proposed, in this term.
    stamped: (Term, Timestamp),
    /// What the leader was asked for, and when.
    asked: Option<(Timestamp, Instant)>,
}

impl Closing {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether somebody waits for a moment to be closed, here or, where this leads, elsewhere.
    pub(super) fn is_wanted(&self, leads: bool, clock: Timestamp) -> bool {
        !self.waiting.is_empty() || (leads && self.wanted > clock)
    }

    /// What the next entry is stamped with, and whether there must be one even if nobody wants anything else done.
    pub(super) fn stamp(&self, now: Timestamp, clock: Timestamp, term: Term) -> (Timestamp, bool) {
        let stamped = if self.stamped.0 == term { self.stamped.1 } else { Timestamp::ZERO };
        (now.max(self.wanted), self.wanted > clock.max(stamped))
    }

    pub(super) fn proposed(&mut self, term: Term, at: Timestamp) {
        self.stamped = (term, at);
    }

    /// The leader changed: it is asked anew.
    pub(super) fn restart(&mut self) {
        self.asked = None;
    }
}

impl Replica {
    /// Answers as soon as it is fresh enough here.
    pub fn look(&mut self, glance: Glance, cx: &mut Context<'_>) {
        let full = self.reads.len() + self.closing.len() >= PENDING_READS_MAX;
        self.stir(cx.now);
        match glance.freshness {
            _ if full => self.turn_down(&glance, Unavailable::Overloaded, cx),
            Freshness::Any => self.sight(glance, cx),
            Freshness::Within(age) => {
                let since = self.reads.fresh_since(self.machine.meta().applied);
                let forever = cx.sabotaged(Sabotage::FreshForEver);
                if since.is_some_and(|since| cx.now.since(since) <= age || forever) {
                    self.sight(glance, cx);
                } else {
                    self.reads.push(Waiting::Look(glance));
                }
            }
            Freshness::Strict => self.reads.push(Waiting::Look(glance)),
            Freshness::At(at) | Freshness::After(at) => {
                if self.has_closed(at, glance.freshness, cx) {
                    self.sight(glance, cx);
                } else {
                    self.closing.waiting.push((at, glance));
                }
            }
        }
    }

    /// The latest timestamp of what was applied.
    pub fn clock(&self) -> Timestamp {
        self.machine.meta().clock
    }

    fn has_closed(&self, at: Timestamp, freshness: Freshness, cx: &Context<'_>) -> bool {
        let forgetful = matches!(freshness, Freshness::After(_)) && cx.sabotaged(Sabotage::IgnoreTokens);
        at <= self.machine.closed() || forgetful
    }

    /// Another node's replica is to look.
    pub(super) fn look_for(
        &mut self,
        from: ReplicaId,
        (ask, freshness, reads): (u64, Freshness, Vec<RangeOp>),
        cx: &mut Context<'_>,
    ) {
        let (asker, deadline) = (Asker::Peer { replica: from, ask }, cx.now + RETRY * 2);
        self.look(Glance { asker, freshness, reads, deadline }, cx);
    }

    /// It is fresh enough.
    pub(super) fn sight(&mut self, glance: Glance, cx: &mut Context<'_>) {
        let Glance { asker, freshness, reads, .. } = glance;
        if self.leads() {
            self.load.read(&reads);
        }
        let (shard, view) = (self.shard, self.machine.view());
        cx.out.observations.push(Observation { shard, asker, view, freshness, reads });
    }

    /// It is not, and does not become so.
    pub(super) fn turn_down(&self, glance: &Glance, why: Unavailable, cx: &mut Context<'_>) {
        // A peer asks again by itself.
        if let Asker::Here(ask) = glance.asker {
            cx.out.unseen.push((ask, self.shard, Error::from(why)));
        }
    }

    /// Somebody else waits for a moment.
    pub fn want_closed(&mut self, at: Timestamp) {
        self.closing.wanted = self.closing.wanted.max(at);
    }

    /// Serves what waited for moments that are closed now, and has closed what others wait for.
    pub(super) fn tend_moments(&mut self, cx: &mut Context<'_>) {
        if self.closing.waiting.is_empty() {
            return;
        }
        let closed = self.machine.closed();
        let (served, waiting) =
            std::mem::take(&mut self.closing.waiting).into_iter().partition(|(at, _)| *at <= closed);
        self.closing.waiting = waiting;
        let served: Vec<(Timestamp, Glance)> = served;
        served.into_iter().for_each(|(_, glance)| self.sight(glance, cx));
        let furthest = self.closing.waiting.iter().map(|(at, _)| *at).max().unwrap_or_default();
        if furthest <= self.machine.meta().clock {
            // What is prepared is about to be decided.
            return;
        }
        match self.group.leader() {
            Some(leader) if leader == self.id && self.group.role() == Role::Leader => self.want_closed(furthest),
            Some(leader) if leader != self.id => {
                let due = |(at, when): (Timestamp, Instant)| at < furthest || cx.now.since(when) >= RETRY;
                if self.closing.asked.is_none_or(due) {
                    self.closing.asked = Some((furthest, cx.now));
                    self.send(leader, PeerBody::CloseAsk { at: furthest }, cx);
                }
            }
            _ => {}
        }
    }

    /// Nobody waits for longer than it wanted to.
    pub(super) fn expire_moments(&mut self, cx: &mut Context<'_>) {
        let late: Vec<(Timestamp, Glance)> =
            self.closing.waiting.extract_if(.., |(_, glance)| glance.deadline <= cx.now).collect();
        for (_, glance) in late {
            self.turn_down(&glance, Unavailable::NoLeader, cx);
        }
    }

    /// What waits here, when there is no replica any more.
    pub(super) fn stop_looking(&mut self, cx: &mut Context<'_>) {
        let closing = std::mem::take(&mut self.closing.waiting).into_iter().map(|(_, glance)| glance);
        let mut glances: Vec<Glance> = closing.collect();
        for waiting in self.reads.take_all() {
            match waiting {
                Waiting::Look(glance) => glances.push(glance),
                other => self.reads.push(other),
            }
        }
        glances.iter().for_each(|glance| self.turn_down(glance, Unavailable::NotHere, cx));
    }
}
