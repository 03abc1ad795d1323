//! Questions about how the group stands: only its leader knows, so other replicas ask it for their clients.

use super::{Context, Replica};
use crate::bounds::{PENDING_READS_MAX, RETRY};
use crate::input::{Reply, RequestId, Standings};
use crate::wire::PeerBody;
use quorate_env::{Instant, ReplicaId};
use quorate_kv::Unavailable;
use std::collections::BTreeMap;

struct Ask {
    request: RequestId,
    deadline: Instant,
    sent: Option<Instant>,
}

/// Questions that wait for the leader's answer.
#[derive(Default)]
pub(super) struct StandingAsks {
    next: u64,
    waiting: BTreeMap<u64, Ask>,
}

impl StandingAsks {
    /// Numbers start at `first`, different in each life of the node.
    pub fn new(first: u64) -> Self {
        Self { next: first, waiting: BTreeMap::new() }
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Replica {
    /// A client asks.
    pub(super) fn ask_standings(&mut self, request: RequestId, deadline: Instant, cx: &mut Context<'_>) {
        if self.standing_asks.waiting.len() >= PENDING_READS_MAX {
            cx.out.replies.push((request, Err(Unavailable::Overloaded.into())));
            return;
        }
        self.standing_asks.next += 1;
        let ask = Ask { request, deadline, sent: None };
        self.standing_asks.waiting.insert(self.standing_asks.next, ask);
        self.move_standing_asks(cx);
    }

    /// Answers what this replica knows as a leader, and asks the leader for the rest.
    pub(super) fn move_standing_asks(&mut self, cx: &mut Context<'_>) {
        if self.standing_asks.waiting.is_empty() {
            return;
        }
        let late = self.standing_asks.waiting.iter().filter(|(_, ask)| ask.deadline <= cx.now);
        for number in late.map(|(number, _)| *number).collect::<Vec<_>>() {
            if let Some(ask) = self.standing_asks.waiting.remove(&number) {
                cx.out.replies.push((ask.request, Err(Unavailable::NoLeader.into())));
            }
        }
        if let Some(standings) = self.standings(cx) {
            for ask in std::mem::take(&mut self.standing_asks.waiting).into_values() {
                cx.out.replies.push((ask.request, Ok(Reply::Standings(standings.clone()))));
            }
            return;
        }
        let Some(leader) = self.group.leader().filter(|leader| *leader != self.id) else { return };
        let mut asks = Vec::new();
        for (number, ask) in &mut self.standing_asks.waiting {
            if ask.sent.is_none_or(|sent| cx.now.since(sent) >= RETRY) {
                ask.sent = Some(cx.now);
                asks.push(*number);
            }
        }
        for ask in asks {
            self.send(leader, PeerBody::StandingAsk { ask }, cx);
        }
    }

    /// A peer asks for its client. Whoever does not lead says nothing: the peer asks again.
    pub(super) fn answer_standings(&mut self, from: ReplicaId, ask: u64, cx: &mut Context<'_>) {
        if let Some(standings) = self.standings(cx) {
            self.send(from, PeerBody::StandingAnswer { ask, standings }, cx);
        }
    }

    /// The leader's answer.
    pub(super) fn accept_standings(&mut self, ask: u64, standings: Vec<Standings>, cx: &mut Context<'_>) {
        if let Some(ask) = self.standing_asks.waiting.remove(&ask) {
            cx.out.replies.push((ask.request, Ok(Reply::Standings(standings))));
        }
    }
}
