//! Snapshots on their way: what this node sends to replicas that lag, and what it receives.
//!
//! The leader's snapshot message only says that a snapshot exists; the receiver then *pulls* the rows, chunk by chunk, so that a lost
//! message costs a retry and a slow receiver is never flooded. Each ask says what has arrived, and a few chunks beyond it are under way, so
//! that neither side waits for the other's answer. Consensus learns of the snapshot when all rows are here and verified.

use crate::bounds::{RETRY, TRANSFER_IDLE};
use bytes::Bytes;
use quorate_consensus::Message;
use quorate_env::{Instant, NodeId, Reader, ReplicaId, Writer};
use quorate_shard::{Chunk, Export, Import, MachineError, View};
use std::collections::{BTreeMap, VecDeque};

/// A snapshot that a replica may fetch from here.
pub(crate) struct Outgoing {
    pub transfer: u64,
    pub export: Export,
    pub used: Instant,
    /// Where the chunks begin that are under way, the first of which was asked for; and the one to be sent after them.
    under_way: VecDeque<Bytes>,
    next: Option<Bytes>,
    /// When chunks were last sent.
    sent: Instant,
    /// How many may be under way.
    window: usize,
}

impl Outgoing {
    /// The chunks to send now that everything before `cursor` has arrived, each with where it begins. `None` if the cursor is not one that was
    /// handed out lately.
    pub fn asked(
        &mut self,
        now: Instant,
        cursor: &Bytes,
        bytes_max: usize,
    ) -> Result<Option<Vec<(Bytes, Chunk)>>, MachineError> {
        if self.under_way.front().is_some_and(|first| cursor < first) {
            // Overtaken by a later question: what it asks for has arrived.
            return Ok(Some(Vec::new()));
        }
        match self.under_way.iter().position(|begun| begun == cursor) {
            Some(arrived) if arrived > 0 => drop(self.under_way.drain(..arrived)),
            None if self.next.as_ref() == Some(cursor) => self.under_way.clear(),
            // The network has doubled the question.
            Some(_) if now.since(self.sent) < RETRY / 2 => return Ok(Some(Vec::new())),
            // Asked for again: it was lost, and who knows what came of the others.
            _ => {
                self.under_way.clear();
                self.next = Some(cursor.clone());
            }
        }
        let mut chunks = Vec::new();
        while self.under_way.len() < self.window
            && let Some(next) = self.next.clone()
        {
            let Some(chunk) = self.export.chunk(&next, bytes_max)? else { return Ok(None) };
            self.next = chunk.next.clone();
            self.under_way.push_back(next.clone());
            self.sent = now;
            chunks.push((next, chunk));
        }
        Ok(Some(chunks))
    }
}

/// Snapshots that are being fetched from here, one per receiver.
#[derive(Default)]
pub(crate) struct OutgoingSet {
    next: u64,
    by_replica: BTreeMap<ReplicaId, Outgoing>,
}

impl OutgoingSet {
    /// Transfer numbers start at `first`, different in each life of the node.
    pub fn new(first: u64) -> Self {
        Self { next: first, by_replica: BTreeMap::new() }
    }

    /// Offers `view` to `to`, in place of what was offered before, with at most `window` chunks under way. Returns the transfer's number.
    pub fn offer(&mut self, now: Instant, to: ReplicaId, view: View, window: usize) -> u64 {
        self.next += 1;
        let (under_way, next, export) = (VecDeque::new(), None, Export::new(view));
        self.by_replica
            .insert(to, Outgoing { transfer: self.next, export, used: now, under_way, next, sent: now, window });
        self.next
    }

    pub fn find(&mut self, to: ReplicaId, transfer: u64) -> Option<&mut Outgoing> {
        self.by_replica.get_mut(&to).filter(|outgoing| outgoing.transfer == transfer)
    }

    /// Gives up offers that nobody fetches; their receivers may be offered a new one.
    pub fn expire(&mut self, now: Instant) -> Vec<ReplicaId> {
        let idle: Vec<_> =
            self.by_replica.iter().filter(|(_, o)| now.since(o.used) >= TRANSFER_IDLE).map(|(id, _)| *id).collect();
        for id in &idle {
            self.by_replica.remove(id);
        }
        idle
    }

    /// The receiver has it.
    pub fn done(&mut self, to: ReplicaId) {
        self.by_replica.remove(&to);
    }

    pub fn contains(&self, to: ReplicaId) -> bool {
        self.by_replica.contains_key(&to)
    }

    pub fn is_empty(&self) -> bool {
        self.by_replica.is_empty()
    }

    pub fn clear(&mut self) {
        self.by_replica.clear();
    }
}

/// A snapshot that is being fetched.
pub(crate) struct Incoming {
    /// What consensus will be told when it is complete.
    pub message: Message,
    pub from: NodeId,
    pub transfer: u64,
    pub import: Import,
    pub progressed: Instant,
    pub asked: Instant,
}

impl Incoming {
    /// Whether the next chunk should be asked for again.
    pub fn must_ask_again(&self, now: Instant) -> bool {
        !self.import.is_done() && now.since(self.asked) >= RETRY
    }

    /// Whether the sender seems to have given up.
    pub fn is_idle(&self, now: Instant) -> bool {
        now.since(self.progressed) >= TRANSFER_IDLE
    }
}

/// What travels in a snapshot message.
pub(crate) fn descriptor(transfer: u64) -> Bytes {
    let mut w = Writer::new();
    w.u64(transfer);
    w.finish().into()
}

/// The transfer that a snapshot message offers.
pub(crate) fn transfer_of(message: &Message) -> Option<u64> {
    Reader::new(message.snapshot.as_ref()?.data.clone()).u64("transfer").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::{LogIndex, Term, Timestamp, WallMs};
    use quorate_kv::{Command, CommandId, Envelope, Level, Op, PutOp, SessionId, Txn};
    use quorate_shard::{Machine, Procedures, Slot, encode_entry};
    use quorate_storage::store::ModelStore;
    use std::sync::Arc;

    /// A view of some rows.
    fn view() -> View {
        let store = Arc::new(ModelStore::new());
        let mut machine = Machine::create(store, Slot(1), Bytes::new(), Arc::new(Procedures::of(Level::LATEST)))
            .expect("a fresh machine");
        for n in 1..=60 {
            let command = Command::Transact(Txn::just(Op::Put(PutOp::of(format!("k/{n:02}"), "value"))));
            let envelope = Envelope { id: CommandId { session: SessionId(1), seq: n }, answered_below: n, command };
            let entry = encode_entry(WallMs(0), Timestamp::ZERO, [&envelope].into_iter()).into();
            machine.apply(LogIndex(n), Term(1), &entry, &|asked| asked.id.session == SessionId(1)).expect("applied");
        }
        machine.view()
    }

    #[test]
    fn a_question_that_was_overtaken_asks_for_nothing() {
        let mut set = OutgoingSet::new(0);
        let transfer = set.offer(Instant(0), ReplicaId(3), view(), 4);
        let outgoing = set.find(ReplicaId(3), transfer).expect("offered");
        let mut asked = |cursor: &Bytes| outgoing.asked(Instant(1), cursor, 64).expect("readable").expect("not gone");
        let mut cursors: Vec<Bytes> = asked(&Bytes::new()).into_iter().map(|(cursor, _)| cursor).collect();
        assert_eq!(cursors.len(), 4, "as many as may be under way");
        for at in 1..20 {
            cursors.extend(asked(&cursors[at].clone()).into_iter().map(|(cursor, _)| cursor));
        }
        assert_eq!(cursors.len(), 23, "one more for each that has arrived");
        for late in [0, 5, 18] {
            assert_eq!(asked(&cursors[late].clone()), [], "everything before {late} has long arrived");
        }
        assert_eq!(asked(&cursors[20].clone()).len(), 1, "and the transfer goes on");
    }
}
