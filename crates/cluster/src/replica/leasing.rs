//! A replica's part in leases: whose time is up, and who asks about them. The leader knows; others ask it.

use super::{Ask, Asker, Context, Replica, Waiting};
use crate::bounds::RETRY;
use crate::config::Sabotage;
use crate::input::{LeaseAnswer, Reply};
use crate::wire::PeerBody;
use quorate_env::Instant;
use quorate_kv::{Command, Envelope, Error, LeaseId, LeaseInfo, Read, Refusal, Unavailable};
use quorate_shard::Grant;
use std::time::Duration;

impl Replica {
    pub(super) fn tick_leases(&mut self, cx: &mut Context<'_>) {
        let early = if cx.sabotaged(Sabotage::ExpireEarly) { Duration::from_secs(1) } else { Duration::ZERO };
        let due = self.clock.take_due(cx.lease_now() + early);
        if due.is_empty() {
            return;
        }
        self.reads.push(Waiting::Expire(due));
    }

    pub(super) fn move_asks(&mut self, cx: &mut Context<'_>) {
        let Some(leader) = self.group.leader() else { return };
        if leader == self.id {
            for ask in std::mem::take(&mut self.asks).into_values() {
                let Ask { request, lease, renew, with_keys, deadline, .. } = ask;
                let asker = Asker::Client(request);
                self.reads.push(Waiting::Lease { asker, lease, renew, with_keys, deadline });
            }
            return;
        }
        let mut bodies = Vec::new();
        for (id, ask) in &mut self.asks {
            if ask.sent.is_none_or(|sent| cx.now.since(sent) >= RETRY) {
                ask.sent = Some(cx.now);
                let Ask { lease, renew, with_keys, .. } = *ask;
                bodies.push(PeerBody::LeaseAsk { ask: *id, lease, renew, with_keys });
            }
        }
        for body in bodies {
            self.send(leader, body, cx);
        }
    }

    /// `None` if it cannot be answered yet: an expiry is on its way.
    pub(super) fn answer_lease(
        &mut self,
        id: LeaseId,
        renew: bool,
        with_keys: bool,
        now: Instant,
    ) -> Option<LeaseAnswer> {
        if !self.clock.is_running() {
            return Some(Err(Unavailable::NoLeader.into()));
        }
        let Some(grant) = self.machine.lease(id) else { return Some(Err(Refusal::LeaseNotFound.into())) };
        if renew {
            self.clock.renew(now, id)?;
        }
        let remaining = self.clock.remaining(now, id)?;
        let keys = if with_keys { self.machine.lease_keys(id) } else { Vec::new() };
        let result = LeaseInfo { id, granted_s: grant.ttl_s, remaining_s: remaining.as_secs(), keys };
        Some(Ok(Read { header: self.header(), result }))
    }

    pub(super) fn tell(&mut self, asker: Asker, answer: LeaseAnswer, cx: &mut Context<'_>) {
        match asker {
            Asker::Client(request) => cx.out.replies.push((request, answer.map(Reply::Lease))),
            // No answer is better than a wrong one: the peer asks the next leader.
            Asker::Peer { .. } if matches!(answer, Err(Error::Unavailable(_))) => {}
            Asker::Peer { replica, ask } => self.send(replica, PeerBody::LeaseAnswer { ask, answer }, cx),
        }
    }

    /// Leadership was confirmed after these leases ran out. If it was lost and won again in between, their time began anew.
    pub(super) fn expire(&mut self, grants: &[Grant]) {
        for grant in grants.iter().filter(|grant| self.clock.is_expiring(grant)) {
            self.own.seq += 1;
            let command = Command::LeaseExpire { id: grant.id, granted_at: grant.granted_at };
            self.proposals.enqueue(vec![Envelope { id: self.own, answered_below: self.own.seq, command }]);
        }
    }
}
