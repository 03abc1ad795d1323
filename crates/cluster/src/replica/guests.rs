//! Commands of nodes that have no replica of this shard: this one has them proposed, and answers when it has applied them.

use super::{Context, Replica, needs_space};
use crate::bounds::{GUEST_IDLE, GUESTS_MAX};
use crate::wire::{Answer, PeerBody};
use quorate_consensus::Role;
use quorate_env::{Instant, ReplicaId};
use quorate_kv::{Applied, CommandId, Envelope, Refusal, SessionId};
use std::collections::BTreeMap;

/// A node's session.
struct Guest {
    /// Where answers go.
    from: ReplicaId,
    /// Answers that may not have arrived.
    given: BTreeMap<u64, Answer>,
    heard: Instant,
}

/// Those who were heard from lately.
#[derive(Default)]
pub(super) struct Guests {
    sessions: BTreeMap<SessionId, Guest>,
    /// Answers since they were last sent.
    fresh: BTreeMap<ReplicaId, Vec<(CommandId, Answer)>>,
}

impl Guests {
    pub fn knows(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// A guest's command was applied. What met a lock comes again, and may be answered otherwise then.
    pub fn answer(&mut self, id: CommandId, result: Result<Applied, Refusal>) {
        let Some(guest) = self.sessions.get_mut(&id.session) else { return };
        let answer = Answer::Given(result);
        if !matches!(answer, Answer::Given(Err(Refusal::Locked { .. }))) {
            guest.given.insert(id.seq, answer.clone());
        }
        self.fresh.entry(guest.from).or_default().push((id, answer));
    }

    /// Whoever has been silent for long is forgotten.
    pub fn tick(&mut self, now: Instant) {
        self.sessions.retain(|_, guest| now.since(guest.heard) < GUEST_IDLE);
    }

    fn welcome(&mut self, from: ReplicaId, id: CommandId, answered_below: u64, now: Instant) -> Option<&mut Guest> {
        if self.sessions.len() >= GUESTS_MAX && !self.knows(id.session) {
            return None;
        }
        let new = || Guest { from, given: BTreeMap::new(), heard: now };
        let guest = self.sessions.entry(id.session).or_insert_with(new);
        (guest.from, guest.heard) = (from, now);
        guest.given = guest.given.split_off(&answered_below);
        Some(guest)
    }
}

impl Replica {
    /// Has what a guest asks for proposed, or answers at once what is known already.
    pub(super) fn receive_petition(&mut self, from: ReplicaId, envelopes: Vec<Envelope>, cx: &mut Context<'_>) {
        let leads = self.group.role() == Role::Leader;
        if envelopes.is_empty() {
            return self.answer_guest(from, Vec::new(), cx);
        }
        let (mut unknown, mut known) = (Vec::new(), Vec::new());
        for envelope in envelopes {
            let id = envelope.id;
            let Some(guest) = self.guests.welcome(from, id, envelope.answered_below, cx.now) else { continue };
            match guest.given.get(&id.seq) {
                Some(answer) => known.push((id, answer.clone())),
                None if self.machine.outcome_of(id).is_some() => known.push((id, Answer::Forgotten)),
                None => unknown.push(envelope),
            }
        }
        if !known.is_empty() {
            self.answer_guest(from, known, cx);
        }
        // Who lets its own clients wait does not let others by.
        if cx.no_space {
            unknown.retain(|envelope: &Envelope| !needs_space(&envelope.command));
        }
        match self.group.leader() {
            _ if leads => self.proposals.enqueue(unknown),
            Some(leader) if leader != self.id && !unknown.is_empty() => {
                self.send(leader, PeerBody::Forward(unknown), cx);
            }
            _ => {}
        }
    }

    /// Sends the answers that came with what was just applied.
    pub(super) fn answer_guests(&mut self, cx: &mut Context<'_>) {
        for (to, answers) in std::mem::take(&mut self.guests.fresh) {
            self.answer_guest(to, answers, cx);
        }
    }

    fn answer_guest(&self, to: ReplicaId, answers: Vec<(CommandId, Answer)>, cx: &mut Context<'_>) {
        let (leader, applied) = (self.group.leader(), self.machine.meta().applied);
        self.send(to, PeerBody::Answers { leader, applied, answers }, cx);
    }
}
