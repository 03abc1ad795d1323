//! Messages of other nodes, handed to those whom they concern: a replica, one that is being mended, a question about what was promised, or what
//! goes on with a shard that lives elsewhere.

use super::Node;
use crate::config::Sabotage;
use crate::wire::{PeerBody, PeerMessage, node_of};
use quorate_env::{Instant, NodeId, ReplicaId, ShardId};

impl Node {
    /// Takes a message that came over a connection with `from`.
    pub(super) fn hear(&mut self, now: Instant, from: NodeId, message: PeerMessage) {
        let known = node_of(message.from) == from && message.to == ReplicaId(self.shared.config.node.0);
        self.hear_of(now, from);
        if known && self.is_here(message.shard) {
            self.witness.see(message.shard, message.from, &message.body);
            match &message.body {
                PeerBody::RecallAsk { ask } => return self.recount(&message, *ask),
                PeerBody::RecallAnswer { ask, seen } => {
                    return self.recall(now, |recall, cx| recall.hear(message.from, *ask, seen, cx.config.sabotage));
                }
                _ => {}
            }
        }
        if known && self.hears_of_elsewhere(now, &message) {
            return;
        }
        if known && self.recalls(message.shard) {
            return;
        }
        if known && self.mending.contains_key(&message.shard) {
            self.mend(now, message.shard, |mending, cx| mending.receive(message.from, message.body, cx));
            return;
        }
        if !known || !self.replicas.contains_key(&message.shard) {
            self.misrouted += 1;
            return;
        }
        self.one(now, message.shard, |replica, cx| replica.receive(message.from, message.body, cx));
    }

    /// Whether a message is about a shard that one of its two nodes has no replica of.
    pub(super) fn hears_of_elsewhere(&mut self, now: Instant, message: &PeerMessage) -> bool {
        let (shard, from, to) = (message.shard, message.from, message.to);
        match &message.body {
            PeerBody::Answers { leader, applied, answers } => {
                self.hear_answers(now, (shard, from), (*leader, *applied), answers.clone());
            }
            PeerBody::NotHere => self.hear_not_here(now, shard, from),
            PeerBody::LeaveAnswer { index } => self.released(shard, *index, from),
            PeerBody::LookAnswer { ask, sight } => self.hear_sight(now, (*ask, shard), sight.clone()),
            PeerBody::ChunkAsk { transfer, .. } | PeerBody::DigestAsk { transfer, .. } if !self.is_here(shard) => {
                let gone = PeerBody::TransferGone { transfer: *transfer };
                let answer = PeerMessage { shard, from: to, to: from, body: gone };
                self.shared.out.messages.push((node_of(from), answer));
            }
            PeerBody::Everywhere { index } => {
                self.hear_everywhere(now, shard, *index);
                return !self.is_here(shard);
            }
            PeerBody::Early { answers } if !self.is_served_here(shard) => self.hear_early(shard, answers.clone()),
            PeerBody::Petition(_) | PeerBody::LookAsk { .. } | PeerBody::EverywhereAsk { .. }
                if !self.replicas.contains_key(&shard) =>
            {
                let answer = PeerMessage { shard, from: to, to: from, body: PeerBody::NotHere };
                self.shared.out.messages.push((node_of(from), answer));
            }
            _ => return false,
        }
        true
    }

    pub(super) fn is_here(&self, shard: ShardId) -> bool {
        self.replicas.contains_key(&shard) || self.mending.contains_key(&shard) || self.recalls(shard)
    }

    /// Says what was seen of a node that starts.
    pub(super) fn recount(&mut self, question: &PeerMessage, ask: u64) {
        let to = question.from;
        let blind = self.shared.config.sabotage == Some(Sabotage::ForgetSightings);
        let seen = if blind { Vec::new() } else { self.witness.of(to) };
        let body = PeerBody::RecallAnswer { ask, seen };
        let answer = PeerMessage { shard: question.shard, from: question.to, to, body };
        self.shared.out.messages.push((node_of(to), answer));
    }
}
