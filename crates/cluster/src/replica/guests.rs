//! Commands of nodes that have no replica of this shard: this one has them proposed, and answers when it has applied them.
//!
//! Answers are kept until the guest's next petition says that they have arrived, and no more of them than there is room for: of what had to go, the guest
//! hears that it was done, and not what came of it.

use super::{Context, Replica};
use crate::bounds::{GUEST_ANSWER_BYTES_MAX, GUEST_BYTES_MAX, GUEST_IDLE, GUESTS_MAX};
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
    /// Bytes of them.
    bytes: usize,
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

    /// Where answers to a session go.
    pub fn home_of(&self, session: SessionId) -> Option<ReplicaId> {
        self.sessions.get(&session).map(|guest| guest.from)
    }

    /// A guest's command was applied. What met a lock comes again, and may be answered otherwise then.
    pub fn answer(&mut self, id: CommandId, result: Result<Applied, Refusal>) {
        let Some(guest) = self.sessions.get_mut(&id.session) else { return };
        let answer = match Answer::Given(result) {
            large if large.size_estimate() > GUEST_ANSWER_BYTES_MAX => Answer::Forgotten,
            answer => answer,
        };
        if !matches!(answer, Answer::Given(Err(Refusal::Locked { .. }))) {
            guest.keep(id.seq, answer.clone());
        }
        self.fresh.entry(guest.from).or_default().push((id, answer));
    }

    /// Bytes of answers that are kept.
    pub fn bytes(&self) -> usize {
        self.sessions.values().map(|guest| guest.bytes).sum()
    }

    /// Whoever has been silent for long is forgotten.
    pub fn tick(&mut self, now: Instant) {
        self.sessions.retain(|_, guest| now.since(guest.heard) < GUEST_IDLE);
    }

    fn welcome(&mut self, from: ReplicaId, id: CommandId, answered_below: u64, now: Instant) -> Option<&mut Guest> {
        if self.sessions.len() >= GUESTS_MAX && !self.knows(id.session) {
            return None;
        }
        let new = || Guest { from, given: BTreeMap::new(), bytes: 0, heard: now };
        let guest = self.sessions.entry(id.session).or_insert_with(new);
        (guest.from, guest.heard) = (from, now);
        guest.forget(answered_below);
        Some(guest)
    }
}

impl Guest {
    fn keep(&mut self, seq: u64, answer: Answer) {
        self.bytes += answer.size_estimate();
        if let Some(before) = self.given.insert(seq, answer) {
            self.bytes -= before.size_estimate();
        }
        while self.bytes > GUEST_BYTES_MAX
            && let Some((_, oldest)) = self.given.pop_first()
        {
            self.bytes -= oldest.size_estimate();
        }
    }

    /// Everything below has arrived.
    fn forget(&mut self, answered_below: u64) {
        let left = self.given.split_off(&answered_below);
        let arrived = std::mem::replace(&mut self.given, left);
        self.bytes -= arrived.values().map(Answer::size_estimate).sum::<usize>();
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
        match self.group.leader() {
            _ if leads => {
                self.proposals.enqueue(unknown);
            }
            Some(leader) if leader != self.id && !unknown.is_empty() => {
                self.send(leader, PeerBody::Forward(unknown), cx);
            }
            _ => {}
        }
    }

    /// Has what another replica was asked for proposed. One that is to go may be gone before it has applied it, and asks as a guest then.
    pub(super) fn receive_forward(&mut self, from: ReplicaId, envelopes: Vec<Envelope>, cx: &Context<'_>) {
        if self.group.role() != Role::Leader {
            return;
        }
        if !self.group.membership().voters.contains(&from) {
            for Envelope { id, answered_below, .. } in &envelopes {
                self.guests.welcome(from, *id, *answered_below, cx.now);
            }
        }
        self.early.asked(from, &envelopes);
        self.proposals.enqueue(envelopes);
    }

    /// Sends the answers that came with what was just applied.
    pub(super) fn answer_guests(&mut self, cx: &mut Context<'_>) {
        for (to, answers) in std::mem::take(&mut self.guests.fresh) {
            self.answer_guest(to, answers, cx);
        }
    }

    pub(super) fn answer_guest(&self, to: ReplicaId, answers: Vec<(CommandId, Answer)>, cx: &mut Context<'_>) {
        let (leader, applied) = (self.group.leader(), self.machine.meta().applied);
        for answers in in_messages(answers) {
            self.send(to, PeerBody::Answers { leader, applied, answers }, cx);
        }
    }
}

/// As many together as one message may hold; at least one message, which says how far the log is.
pub(super) fn in_messages(answers: Vec<(CommandId, Answer)>) -> Vec<Vec<(CommandId, Answer)>> {
    let (mut messages, mut bytes) = (vec![Vec::new()], 0);
    for (id, answer) in answers {
        let size = answer.size_estimate();
        if bytes > 0 && bytes + size > GUEST_ANSWER_BYTES_MAX {
            messages.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        messages.last_mut().expect("there is one").push((id, answer));
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::Term;
    use quorate_kv::{Header, Outcome, Revision};

    const SESSION: SessionId = SessionId(7);

    fn answer(guests: &mut Guests, seq: u64, bytes: usize) {
        let header = Header { revision: Revision(2), term: Term(1) };
        let outcome = Outcome::Returned(vec![0; bytes].into());
        guests.answer(CommandId { session: SESSION, seq }, Ok(Applied { header, outcome }));
    }

    fn kept(guests: &mut Guests, answered_below: u64) -> Vec<u64> {
        let id = CommandId { session: SESSION, seq: 0 };
        let guest = guests.welcome(ReplicaId(2), id, answered_below, Instant(0)).expect("room");
        guest.given.keys().copied().collect()
    }

    #[test]
    fn answers_are_kept_until_they_have_arrived_and_no_more_than_there_is_room_for() {
        let mut guests = Guests::default();
        answer(&mut guests, 1, 10);
        assert!(!guests.knows(SESSION), "who never asked gets no answer");
        assert!(kept(&mut guests, 0).is_empty());
        (1..=3).for_each(|seq| answer(&mut guests, seq, 10));
        answer(&mut guests, 3, 20);
        assert_eq!(kept(&mut guests, 2), [2, 3]);
        (4..=6).for_each(|seq| answer(&mut guests, seq, GUEST_BYTES_MAX / 3 + 1));
        assert_eq!(kept(&mut guests, 2), [5, 6], "the oldest go first");
        assert!(kept(&mut guests, 7).is_empty());
        assert_eq!(guests.sessions[&SESSION].bytes, 0);
    }

    #[test]
    fn what_is_too_large_for_a_frame_is_not_sent_and_what_is_large_goes_alone() {
        let mut guests = Guests::default();
        kept(&mut guests, 0);
        answer(&mut guests, 1, GUEST_ANSWER_BYTES_MAX);
        (2..=4).for_each(|seq| answer(&mut guests, seq, GUEST_ANSWER_BYTES_MAX / 2));
        let fresh = guests.fresh.remove(&ReplicaId(2)).expect("answers");
        assert_eq!(fresh[0].1, Answer::Forgotten);
        let messages = in_messages(fresh);
        let seqs = |message: &Vec<(CommandId, Answer)>| message.iter().map(|(id, _)| id.seq).collect::<Vec<_>>();
        assert_eq!(messages.iter().map(seqs).collect::<Vec<_>>(), [vec![1, 2], vec![3], vec![4]]);
        assert_eq!(in_messages(Vec::new()).len(), 1);
    }

    #[test]
    fn what_met_a_lock_is_told_and_not_kept() {
        let mut guests = Guests::default();
        kept(&mut guests, 0);
        let locked = Refusal::Locked { key: "k".into(), by: quorate_kv::across::TxId(4) };
        guests.answer(CommandId { session: SESSION, seq: 1 }, Err(locked));
        assert_eq!(guests.fresh[&ReplicaId(2)].len(), 1);
        assert!(kept(&mut guests, 0).is_empty());
        guests.tick(Instant(0) + GUEST_IDLE);
        assert!(!guests.knows(SESSION));
    }
}
