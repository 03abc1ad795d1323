//! Snapshots of a replica's rows: fetched chunk by chunk, handed out, and put in the place of what was here.

use super::{Context, Replica};
use crate::config::Sabotage;
use crate::input::WatchOutput;
use crate::transfer::{self, Incoming};
use crate::wire::{PeerBody, node_of};
use quorate_consensus::{Message, Snapshot};
use quorate_env::ReplicaId;
use quorate_kv::Error;
use quorate_shard::{Chunk, Import, Machine};

impl Replica {
    pub(super) fn begin_incoming(&mut self, message: Message, cx: &mut Context<'_>) {
        let (Some(transfer), from) = (transfer::transfer_of(&message), node_of(message.from)) else { return };
        match &self.incoming {
            Some(i) if i.from == from && i.transfer == transfer => return,
            Some(i) if i.message.term > message.term => return,
            Some(_) => self.abandon_incoming(cx),
            None => {}
        }
        let slot = match cx.slots.allocate() {
            Ok(slot) => slot,
            Err(e) => return self.fail(&e.into()),
        };
        let import = Import::new(cx.store.clone(), slot);
        self.incoming = Some(Incoming { message, from, transfer, import, progressed: cx.now, asked: cx.now });
        self.ask_chunk(cx);
    }

    pub(super) fn ask_chunk(&mut self, cx: &mut Context<'_>) {
        if self.overwhelmed(cx) {
            // Asked again at a later tick.
            return;
        }
        if let Some(incoming) = &self.incoming {
            let body = PeerBody::ChunkAsk { transfer: incoming.transfer, cursor: incoming.import.cursor().clone() };
            let to = incoming.message.from;
            self.send(to, body, cx);
        }
    }

    pub(super) fn accept_chunk(
        &mut self,
        from: ReplicaId,
        transfer: u64,
        cursor: &bytes::Bytes,
        chunk: &Chunk,
        cx: &mut Context<'_>,
    ) {
        let Some(incoming) = &mut self.incoming else { return };
        if incoming.transfer != transfer || incoming.message.from != from || cursor != incoming.import.cursor() {
            return;
        }
        match incoming.import.accept(cursor, chunk) {
            Ok(()) => {
                (incoming.progressed, incoming.asked) = (cx.now, cx.now);
                if incoming.import.is_done() {
                    let message = incoming.message.clone();
                    let _ = self.group.step(&message);
                } else {
                    self.ask_chunk(cx);
                }
            }
            Err(quorate_shard::ImportError::Damaged) => self.abandon_incoming(cx),
            Err(quorate_shard::ImportError::Machine(e)) => self.fail(&e),
        }
    }

    pub(super) fn abandon_incoming(&mut self, cx: &mut Context<'_>) {
        if let Some(incoming) = self.incoming.take() {
            cx.slots.abandon(incoming.import.slot());
        }
    }

    /// Sends the rows from `cursor` on, or only what they hash to.
    pub(super) fn send_chunk(
        &mut self,
        to: ReplicaId,
        transfer: u64,
        cursor: &bytes::Bytes,
        digest: bool,
        cx: &mut Context<'_>,
    ) {
        let Some(outgoing) = self.outgoing.find(to, transfer) else {
            return self.send(to, PeerBody::TransferGone { transfer }, cx);
        };
        outgoing.used = cx.now;
        let bytes_max = cx.config.chunk_bytes;
        let bodies = if digest {
            outgoing.export.chunk(cursor, bytes_max).map(|chunk| {
                let Chunk { next, hash, .. } = chunk?;
                Some(vec![PeerBody::Digest { transfer, cursor: cursor.clone(), next, hash }])
            })
        } else {
            let body = |(cursor, chunk)| PeerBody::Chunk { transfer, cursor, chunk };
            outgoing.asked(cx.now, cursor, bytes_max).map(|chunks| Some(chunks?.into_iter().map(body).collect()))
        };
        match bodies {
            Ok(Some(bodies)) => {
                self.catching.fetches(to, cx.now);
                bodies.into_iter().for_each(|body| self.send(to, body, cx));
            }
            Ok(None) => self.send(to, PeerBody::TransferGone { transfer }, cx),
            Err(e) => self.fail(&e),
        }
    }

    /// Consensus has accepted the snapshot whose rows are here: from now on this replica is what they say.
    pub(super) fn install(&mut self, snapshot: &Snapshot, cx: &mut Context<'_>) {
        let Some(incoming) = self.incoming.take().filter(|i| i.import.is_done()) else {
            self.fatal.get_or_insert(format!("a snapshot at {} without its rows", snapshot.index));
            return;
        };
        let slot = incoming.import.slot();
        let machine = match Machine::open(cx.store.clone(), slot, cx.procedures.clone()) {
            Ok(machine) if machine.meta().applied == snapshot.index => machine,
            Ok(machine) => {
                let applied = machine.meta().applied;
                self.fatal.get_or_insert(format!("a snapshot at {} holds rows of {applied}", snapshot.index));
                return;
            }
            Err(e) => {
                self.fatal.get_or_insert(format!("an installed snapshot cannot be opened: {e}"));
                return;
            }
        };
        if let Err(e) = cx.slots.switch(self.shard, slot) {
            return self.fail(&e.into());
        }
        self.machine = machine;
        self.news.forget();
        self.moving.changed(snapshot.index);
        self.early.overtaken(snapshot.index, snapshot.term);
        self.garbage = true;
        if !cx.sabotaged(Sabotage::InstallUnflushed) {
            self.hold.get_or_insert_default().flush = None;
        }
        self.hashes.clear();
        self.remember_hash(snapshot.index);
        for key in self.hub.reset(self.machine.meta().revision) {
            cx.out.watch.push((key, WatchOutput::Detached));
        }
        // Commands that the snapshot covers were applied, but their results are not in it.
        for id in self.proposals.outstanding() {
            if self.machine.outcome_of(id).is_some()
                && let Some(request) = self.proposals.complete(id)
            {
                cx.out.replies.push((request, Err(Error::UnknownOutcome(id))));
            }
        }
    }
}
