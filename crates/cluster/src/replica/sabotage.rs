//! What a sabotaged replica does to messages and reads. Nothing here does anything unless the simulator asks for it.

use super::{Context, Replica, Waiting};
use crate::config::Sabotage;
use crate::reshape::Decision;
use crate::wire::{EntryCopy, PeerBody};
use quorate_consensus::{Entry, EntryKind, HardState, Membership, MembershipChange, Message, MessageKind, Role, Step};
use quorate_env::{DecodeError, LogIndex};

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

    /// A leader that does not hand over before it goes.
    pub(super) fn tamper_with_decision(&self, decision: Decision, cx: &Context<'_>) -> Decision {
        match decision {
            Decision::HandOver(_) if cx.sabotaged(Sabotage::RemovedLeaderStays) => {
                Decision::Propose(match self.group.membership().is_joint() {
                    true => MembershipChange::Leave,
                    false => MembershipChange::Enter(vec![Step::Remove(self.id)]),
                })
            }
            decision => decision,
        }
    }

    /// Applies a change of membership wrongly; returns what is to be written of it.
    pub(super) fn misapply_membership(&mut self, entry: &Entry, how: Sabotage) -> Result<Membership, DecodeError> {
        let before = self.group.membership();
        let change = MembershipChange::decode(entry.data.clone())?;
        let after = change.after(&before);
        if how == Sabotage::RemovedLeaderStays
            && self.group.role() == Role::Leader
            && after.as_ref().is_some_and(|after| !after.is_voter(self.id))
        {
            return Ok(before);
        }
        let applied = self.group.apply_membership(&entry.data)?;
        match how {
            Sabotage::SingleMajority if applied.is_joint() => {
                self.group.apply_membership(&MembershipChange::Leave.encode().into())
            }
            Sabotage::ForgetMembership => Ok(before),
            _ => Ok(applied),
        }
    }

    /// Changes over when an entry is appended, as if nothing could take it back.
    pub(super) fn change_early(&mut self, entries: &[Entry], cx: &Context<'_>) {
        if cx.sabotaged(Sabotage::MembershipWhenAppended) {
            for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Membership) {
                // What cannot be read stops the replica when it is applied.
                let _ = self.group.apply_membership(&entry.data);
            }
        }
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

/// The hard state that a sabotaged replica writes.
pub(super) fn what_is_written(hard_state: HardState, sabotage: Option<Sabotage>) -> HardState {
    match sabotage {
        Some(Sabotage::ForgetCommit) => HardState { commit: LogIndex(0), ..hard_state },
        _ => hard_state,
    }
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
