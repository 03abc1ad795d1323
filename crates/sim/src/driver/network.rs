//! Messages on their way between nodes.

use super::{Event, Step, World, id_of};
use crate::history::{Violation, demand};
use crate::net::Fate;
use crate::trace::{Loss, MessageId, TraceEvent};
use bytes::Bytes;
use quorate_cluster::{Input, PeerBody, wire};
use quorate_consensus::MessageKind;
use quorate_env::NodeId;

impl World<'_> {
    /// A frame arrives: its messages have trace ids from `first` on.
    pub(super) fn deliver(&mut self, (from, to): (usize, usize), frame: Bytes, first: u64) -> Step {
        let latest = self.latest.entry((from, to)).or_default();
        let overtaken = first < std::mem::replace(latest, first.max(*latest));
        if overtaken {
            self.mark("message overtaken");
        }
        let messages =
            wire::decode_batch(frame).map_err(|e| Violation { rule: "frames can be read", detail: e.to_string() })?;
        for (message, id) in messages.into_iter().zip(first..) {
            let (id, up) = (MessageId(id), self.nodes[to].node.is_some());
            self.trace(|| match up {
                true => TraceEvent::Deliver { message: id },
                false => TraceEvent::Lose { message: id, why: Loss::Down },
            });
            let delicate = matches!(&message.body, PeerBody::Chunk { chunk, .. } if chunk.next.is_none());
            if up
                && !self.nodes[to].paused
                && let PeerBody::Raft(raft) = &message.body
            {
                self.seen.hear(to, from, message.shard, raft);
            }
            self.feed(to, Input::Peer { from: id_of(from), message })?;
            if delicate {
                self.strike(to);
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, from: usize, to: NodeId, messages: &[quorate_cluster::PeerMessage]) -> Step {
        let to_node = to.0 as usize - 1;
        for message in messages {
            if let PeerBody::Raft(raft) = &message.body {
                let promise = match raft.kind {
                    MessageKind::AppendResponse | MessageKind::RequestVoteResponse => !raft.reject,
                    _ => false,
                };
                let asks = raft.kind == MessageKind::RequestVote;
                let forgot = self.wounds.forgetful.as_ref().filter(|forgetful| forgetful.node == from);
                let forgot = forgot.is_some_and(|forgetful| forgetful.shards.contains(&message.shard));
                demand(!(forgot && (promise || asks)), "promises are remembered", || {
                    format!("{} of {} has forgotten promises and makes new ones", id_of(from), message.shard)
                })?;
                if promise {
                    self.raft.promised(from, message.shard, raft.term);
                }
                let vote = match raft.kind {
                    MessageKind::RequestVote => Some(raft.from),
                    MessageKind::RequestVoteResponse if !raft.reject => Some(raft.to),
                    _ => None,
                };
                if let Some(candidate) = vote {
                    self.raft.voted(from, message.shard, raft.term, candidate)?;
                }
                if raft.kind == MessageKind::Snapshot {
                    self.mark("snapshot offered");
                }
            }
            if let PeerBody::Chunk { chunk, .. } = &message.body
                && chunk.next.is_none()
            {
                self.mark("snapshot installed");
            }
        }
        let frame = Bytes::from(wire::encode_batch(messages.iter()));
        self.hash(&frame);
        let first = self.next_message;
        self.next_message += messages.len() as u64;
        let deaf = self.wounds.forgetful.as_ref().is_some_and(|forgetful| forgetful.deaf && forgetful.node == to_node);
        let answers = messages.iter().any(|message| matches!(message.body, PeerBody::RecallAnswer { .. }));
        let fate = match self.net.send(from, to_node, frame.len()) {
            Fate::Arrives(_) if deaf && answers => Fate::Arrives(Vec::new()),
            fate => fate,
        };
        match &fate {
            Fate::Arrives(when) if when.is_empty() && !self.net.is_cut(from, to_node) => self.mark("message dropped"),
            Fate::Arrives(when) if when.len() > 1 => self.mark("message doubled"),
            Fate::Arrives(_) | Fate::Held => {}
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.sent(self.now, from, to_node, first, messages);
            if matches!(&fate, Fate::Arrives(when) if when.is_empty()) {
                let why = if self.net.is_cut(from, to_node) { Loss::Cut } else { Loss::Dropped };
                recorder.lost(self.now, first, messages.len(), why);
            }
        }
        let deliver = Event::Deliver { from, to: to_node, frame, first };
        match fate {
            Fate::Arrives(when) => when.into_iter().for_each(|wait| self.after(wait, deliver.clone())),
            Fate::Held => self.held.push(deliver),
        }
        Ok(())
    }

    /// Every cut and clog ends. What a clogged link held arrives now, whoever its ends are meanwhile.
    pub(super) fn heal(&mut self) {
        self.net.heal();
        self.trace(|| TraceEvent::Heal);
        for deliver in std::mem::take(&mut self.held) {
            if let Event::Deliver { from, to, frame, .. } = &deliver {
                let when = self.net.arrivals(*from, *to, frame.len());
                when.into_iter().for_each(|wait| self.after(wait, deliver.clone()));
            }
        }
    }
}
