//! What peers' replicas say to this one, and what it says to them.

use super::{Asker, Context, Replica, Waiting, sabotage};
use crate::bounds::{CHUNKS_UNDER_WAY, PENDING_READS_MAX, RETRY};
use crate::config::Sabotage;
use crate::input::{Lost, Reply};
use crate::wire::{EntryCopy, PeerBody, PeerMessage, node_of};
use crate::{reads, transfer};
use quorate_consensus::{Membership, Message, MessageKind, Role};
use quorate_env::{LogIndex, NodeId, Reader, ReplicaId, Term};

impl Replica {
    /// The connection to a peer closed.
    pub fn peer_down(&mut self, node: NodeId, cx: &Context<'_>) {
        match self.group.leader() {
            Some(leader) if node_of(leader) == node => self.lose_leader(cx),
            _ if self.group.role() == Role::Leader => self.group.unreachable(ReplicaId(node.0)),
            _ => {}
        }
    }

    /// A message of a peer's replica arrived; it was addressed to this one.
    pub fn receive(&mut self, from: ReplicaId, body: PeerBody, cx: &mut Context<'_>) {
        match body {
            PeerBody::Raft(message) => self.receive_raft(message, from, cx),
            PeerBody::Forward(envelopes) => self.receive_forward(from, envelopes, cx),
            PeerBody::LeaseAsk { ask, lease, renew, with_keys } => {
                if self.group.role() == Role::Leader && self.reads.len() < PENDING_READS_MAX {
                    let deadline = cx.now + RETRY * 2;
                    let asker = Asker::Peer { replica: from, ask };
                    self.reads.push(Waiting::Lease { asker, lease, renew, with_keys, deadline });
                }
            }
            PeerBody::LeaseAnswer { ask, answer } => {
                if let Some(ask) = self.asks.remove(&ask) {
                    cx.out.replies.push((ask.request, answer.map(Reply::Lease)));
                }
            }
            PeerBody::ChunkAsk { transfer, cursor } => self.send_chunk(from, transfer, &cursor, false, cx),
            PeerBody::DigestAsk { transfer, cursor } => self.send_chunk(from, transfer, &cursor, true, cx),
            PeerBody::Chunk { transfer, cursor, chunk } => self.accept_chunk(from, transfer, &cursor, &chunk, cx),
            PeerBody::TransferGone { transfer } => {
                if self.incoming.as_ref().is_some_and(|i| i.transfer == transfer && i.from == node_of(from)) {
                    self.abandon_incoming(cx);
                }
            }
            PeerBody::StateHash { applied, hash } => self.compare_hash(applied, hash),
            PeerBody::EntryAsk { index, term } => {
                let copy = self.copy_of(index, term, cx);
                self.send(from, PeerBody::EntryAnswer { index, term, copy }, cx);
            }
            PeerBody::RowsAsk { index } => {
                if self.machine.meta().applied >= index {
                    let transfer = self.outgoing.offer(cx.now, from, self.machine.view(), 1);
                    self.send(from, PeerBody::RowsOffer { transfer }, cx);
                }
            }
            PeerBody::Petition(envelopes) => self.receive_petition(from, envelopes, cx),
            PeerBody::LookAsk { ask, freshness, reads } => self.look_for(from, (ask, freshness, reads), cx),
            PeerBody::CloseAsk { at } => self.want_closed(at),
            PeerBody::LeaveAsk { index } => self.answer_goodbye(from, index, cx),
            PeerBody::StandingAsk { ask } => self.answer_standings(from, ask, cx),
            PeerBody::StandingAnswer { ask, standings } => self.accept_standings(ask, standings, cx),
            PeerBody::Sleep { term, end } => self.hear_sleep(from, term, end, cx),
            PeerBody::Rouse => self.wake(Some(from), cx),
            PeerBody::EverywhereAsk { index } => {
                self.wake(Some(from), cx);
                self.want_everywhere(from, index, cx);
            }
            PeerBody::Everywhere { index } => self.everywhere.hear(index),
            PeerBody::Early { answers } => self.hear_early(answers, cx),
            // To a former life, whose log had rotted, or to this one before it took part; the node itself says what it saw, and hears what it is told
            // of shards that it has no replicas of.
            PeerBody::EntryAnswer { .. }
            | PeerBody::RowsOffer { .. }
            | PeerBody::Digest { .. }
            | PeerBody::RecallAsk { .. }
            | PeerBody::RecallAnswer { .. }
            | PeerBody::Answers { .. }
            | PeerBody::LeaveAnswer { .. }
            | PeerBody::LookAnswer { .. }
            | PeerBody::Beat
            | PeerBody::NotHere => {}
        }
    }

    /// What became of an entry here, for a replica whose copy of it rotted.
    pub(super) fn copy_of(&self, index: LogIndex, term: Term, cx: &Context<'_>) -> EntryCopy {
        if index <= self.group.log_start().index {
            return EntryCopy::Compacted;
        }
        match self.group.entry(index).filter(|entry| entry.term == term) {
            Some(entry) if cx.sabotaged(Sabotage::MendUnverified) => sabotage::garbled(&entry),
            Some(entry) => EntryCopy::Held { kind: entry.kind as u8, payload: entry.data },
            None if index <= self.group.committed() || cx.sabotaged(Sabotage::LackIsReplaced) => EntryCopy::Replaced,
            None => {
                let in_term = self.durable_term;
                let leads = self.group.role() == Role::Leader && self.group.term() == in_term;
                EntryCopy::Absent { in_term, leads }
            }
        }
    }

    pub(super) fn receive_raft(&mut self, message: Message, from: ReplicaId, cx: &mut Context<'_>) {
        if message.from != from || message.to != self.id {
            return;
        }
        if message.kind == MessageKind::Snapshot
            && message.snapshot.as_ref().is_some_and(|s| s.index > self.machine.meta().applied)
        {
            self.begin_incoming(message, cx);
            return;
        }
        if message.kind == MessageKind::Append && !message.entries.is_empty() && self.overwhelmed(cx) {
            // The leader sends it again with a later heartbeat.
            return;
        }
        let message = self.tamper(message, cx);
        // A leader tells nobody of more than was acknowledged to it.
        if message.kind == MessageKind::Heartbeat
            && message.term >= self.group.term()
            && message.commit > self.group.last_index()
        {
            self.lost = Some(Lost::Acknowledged);
            let (told, last) = (message.commit, self.group.last_index());
            self.fatal
                .get_or_insert(format!("this replica acknowledged entries up to {told}, and its disk has only {last}"));
            return;
        }
        self.stir_by(&message, cx);
        self.hear(&message, cx.now);
        // What the engine refuses (a stale or strange message) is dropped, as the network might have done.
        let _ = self.group.step(&message);
        // An answer to what was sent before the snapshot does not end the wait for it; the transfer must stay, so that it can time out.
        if self.outgoing.contains(from) && !self.group.awaits_snapshot(from) {
            self.outgoing.done(from);
        }
        self.catching.acknowledges(from, self.group.matched(from), self.group.committed(), cx.now);
    }

    /// Whether a replica that only follows must refuse more: its own disk is far behind the leader's.
    pub(super) fn overwhelmed(&self, cx: &Context<'_>) -> bool {
        cx.store.memory_bytes() >= 2 * cx.config.unflushed_bytes_max
    }

    pub(super) fn send(&self, to: ReplicaId, body: PeerBody, cx: &mut Context<'_>) {
        cx.out.messages.push((node_of(to), PeerMessage { shard: self.shard, from: self.id, to, body }));
    }

    pub(super) fn send_raft(&mut self, messages: Vec<Message>, cx: &mut Context<'_>) {
        let told = self.told_up_to(cx);
        for mut message in messages {
            if message.kind == MessageKind::ReadIndexResponse && cx.sabotaged(Sabotage::TellAsCommitted) {
                message.index = message.index.max(told);
            }
            if message.kind == MessageKind::ReadIndexResponse && told > message.index {
                message.entries.iter_mut().for_each(|asked| asked.data = reads::not_before(&asked.data, told).into());
            }
            if let Some(snapshot) = &mut message.snapshot {
                // The rows are those of now, which is at or after what the engine had in mind.
                let meta = self.machine.meta();
                (snapshot.index, snapshot.term) = (meta.applied, meta.applied_term);
                match Membership::decode(&mut Reader::new(meta.membership.clone())) {
                    Ok(membership) => snapshot.membership = membership,
                    Err(e) => {
                        self.fatal.get_or_insert(format!("the membership cannot be read: {e}"));
                        continue;
                    }
                }
                self.catching.offered(message.to, snapshot.index, cx.now);
                let offered = self.outgoing.offer(cx.now, message.to, self.machine.view(), CHUNKS_UNDER_WAY);
                snapshot.data = transfer::descriptor(offered);
            }
            let counted = sabotage::counted_as_stored(&message, cx.config.sabotage);
            self.send(message.to, PeerBody::Raft(message), cx);
            if let Some(answer) = counted {
                let _ = self.group.step(&answer);
            }
        }
    }
}
