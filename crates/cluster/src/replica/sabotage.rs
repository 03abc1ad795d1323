//! What a sabotaged replica does to messages and reads. Nothing here does anything unless the simulator asks for it.

use super::{Context, Replica, Waiting};
use crate::config::Sabotage;
use crate::wire::{EntryCopy, PeerBody};
use quorate_consensus::{Entry, Message, MessageKind, Role};
use quorate_env::LogIndex;

impl Replica {
    /// A message as a sabotaged replica understands it.
    pub(super) fn tamper(&mut self, mut message: Message, cx: &mut Context<'_>) -> Message {
        match (cx.config.sabotage, message.kind) {
            (Some(Sabotage::TrustAnyPrefix), MessageKind::Append) => {
                message.log_term = self.group.term_at(message.index).unwrap_or(message.log_term);
            }
            (Some(Sabotage::FollowOldLeaders), _) if self.group.role() == Role::Leader => {
                message.term = message.term.min(self.group.term());
            }
            (Some(Sabotage::FollowOldLeaders), MessageKind::Append | MessageKind::Heartbeat) => {
                message.term = message.term.max(self.group.term());
            }
            (Some(Sabotage::GrantEveryVote), MessageKind::RequestVote) => {
                let grant = consent(&message, MessageKind::RequestVoteResponse, LogIndex(0));
                self.send(grant.to, PeerBody::Raft(grant), cx);
            }
            _ => {}
        }
        message
    }

    /// Confirms what should wait for a round of heartbeats.
    pub(super) fn confirm_blindly(&mut self, sabotage: Option<Sabotage>) {
        let applied = self.machine.meta().applied;
        match sabotage {
            Some(Sabotage::ReadWithoutQuorum) => self.reads.confirm_blindly(applied, |_| true),
            Some(Sabotage::RenewUnconfirmed) => {
                self.reads.confirm_blindly(applied, |waiting| matches!(waiting, Waiting::Lease { .. }));
            }
            _ => {}
        }
    }
}

/// The answer that a leader imagines when it counts what it sends as stored.
pub(super) fn counted_as_stored(message: &Message, sabotage: Option<Sabotage>) -> Option<Message> {
    let last = message.entries.last()?.index;
    let counts = sabotage == Some(Sabotage::CountSendsAsAcks) && message.kind == MessageKind::Append;
    counts.then(|| consent(message, MessageKind::AppendResponse, last))
}

/// An answer that agrees.
fn consent(to: &Message, kind: MessageKind, index: LogIndex) -> Message {
    let (from, to_replica, entries, snapshot) = (to.to, to.from, Vec::new(), None);
    Message { kind, from, to: to_replica, index, entries, snapshot, reject: false, ..to.clone() }
}

/// An entry whose payload has changed since it was written.
pub(super) fn garbled(entry: &Entry) -> EntryCopy {
    let mut payload = entry.data.to_vec();
    if let Some(last) = payload.last_mut() {
        *last ^= 0xFF;
    }
    EntryCopy::Held { kind: entry.kind as u8, payload: payload.into() }
}
