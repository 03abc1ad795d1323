//! A replica whose log has rotted, or whose rows are lost: what stands in for it until it is whole again.
//!
//! The log knows which entries it has lost: their index, term and checksum are kept twice. They were acknowledged, and perhaps it is this
//! copy that made them committed. So until they are back, the replica does not exist for consensus: it neither votes nor campaigns nor
//! acknowledges, and nothing is written over what rotted. It asks the other replicas for each entry by index and term, which name one
//! entry, and checks what it gets against the checksum. (Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage",
//! FAST'18.)
//!
//! ```text
//!                   ┌── it is at or below what the store has applied ──> the log begins after it; nobody is asked
//!   rotted entry ───┼── a peer holds it ──────────────────────────────> checked, and put back
//!                   ├── the peers' logs begin after it ───────────────> rows are fetched as with a snapshot, until the first case
//!                   └── another is committed in its place, or a
//!                       majority can never have it (below) ────────────> it was never committed; the log ends before it
//! ```
//!
//! **When an entry may go.** If one peer knows that another entry is committed at its index, this one never was: at once. That also ends the search of
//! a replica whose members are those of long ago, of whom no majority is left. Otherwise, let `h` be the term of this replica's hard state. It has acknowledged the lost entry to leaders of terms up to
//! `h`, and to no other. Such a leader may still count that, and commit the entry if enough others store it. A peer that lacks the entry
//! and is durably in a later term takes nothing from such a leader any more; if it had stored the entry before and the entry had been
//! committed, it would still have it. So if a majority of all voters, this one not among them, lack the entry and are beyond `h`, then no
//! majority ever acknowledged it to one of those leaders, nor will. Leaders of later terms count only what this replica acknowledges from now
//! on. It is enough that they are in `h` and one of them leads in `h`: there is no other leader of `h`, this one's log lacks the
//! entry, and a leader's log only grows; what is left are the leaders of earlier terms. Being asked twice at different times harms nothing, since
//! each answer holds for ever.
//!
//! **Rows.** A store that was damaged is replaced by an empty one, and the log does not reach back to the beginning. Then the rows come from
//! another replica as those of a snapshot do; what is left in the damaged store is offered to that (`fetch.rs`).
//!
//! Entries behind one that goes, go too: they were never committed either. What is rotted at several replicas at different places is mended
//! by each with the others' help, since one that is being mended answers too.

use crate::boot::{self, BootError, Found};
use crate::bounds::{MENDING_ASKS_MAX, RETRY, TRANSFER_IDLE};
use crate::config::Sabotage;
use crate::fetch::Fetch;
use crate::input::{Inspection, Mended, WatchRequest};
use crate::members::Roster;
use crate::replica::{Context, Left, LostAnswers, membership_hash};
use crate::wire::{EntryCopy, PeerBody, PeerMessage, node_of};
use quorate_consensus::{Entry, EntryKind, Membership, Restored, Role, SnapshotPoint};
use quorate_env::{Instant, LogIndex, NodeId, ReplicaId, ShardId, Term};
use quorate_shard::{Import, ImportError, Machine, Remains, WatcherKey};
use quorate_storage::wal::{LogEntry, LogRecord, Rotted};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Why a peer could not give an entry back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Absent { in_term: Term, leads: bool },
    Compacted,
    Replaced,
}

/// What is known about one rotted entry's copies.
#[derive(Debug, Default)]
struct Search {
    asked: Option<Instant>,
    attempts: usize,
    lacks: BTreeMap<ReplicaId, Lack>,
}

/// Rows that are fetched because no log reaches back far enough.
enum Rows {
    Asked {
        from: ReplicaId,
        at: Instant,
    },
    Coming {
        from: ReplicaId,
        fetch: Fetch,
        progressed: Instant,
        asked: Instant,
    },
    /// They are here, and not yet durable.
    Here {
        machine: Box<Machine>,
        flush: Option<u64>,
    },
}

/// See the top of this file.
pub(crate) struct Mending {
    shard: ShardId,
    id: ReplicaId,
    machine: Machine,
    /// The log, without what rotted.
    restored: Restored,
    rotted: Vec<Rotted>,
    searches: BTreeMap<LogIndex, Search>,
    /// Rows must come that reach at least this far.
    hole: Option<LogIndex>,
    /// Nodes that may be asked besides the members, and those that are none any more.
    known: BTreeSet<ReplicaId>,
    removed: BTreeSet<ReplicaId>,
    /// What is left of the rows in a store that is damaged.
    remains: Option<Arc<Remains>>,
    rows: Option<Rows>,
    rows_tried: usize,
    /// The ticket of the last records that must be durable before the replica starts.
    unsynced: Option<u64>,
    /// Asked for meanwhile.
    watches: Vec<(WatcherKey, WatchRequest)>,
    mended: Mended,
}

impl Mending {
    /// # Errors
    /// If there is no other replica.
    pub fn new(
        shard: ShardId,
        id: ReplicaId,
        found: Found,
        known: &[NodeId],
        remains: Option<Remains>,
    ) -> Result<Self, BootError> {
        let Found { machine, restored, rotted, hole, without_rows, .. } = found;
        let alone = |known: &[NodeId]| known.iter().all(|node| node.0 == id.0);
        if restored.membership.all_voters().iter().all(|voter| *voter == id) && alone(known) {
            return Err(match (rotted.first(), hole) {
                (Some(first), _) => first.lost(shard).into(),
                (None, start) => BootError::Hole {
                    shard,
                    applied: restored.applied.index,
                    start: start.unwrap_or(restored.start.index),
                },
            });
        }
        let mended = Mended { shard, came_back: without_rows && remains.is_none(), ..Mended::default() };
        Ok(Self {
            shard,
            id,
            machine,
            restored,
            rotted,
            searches: BTreeMap::new(),
            hole,
            known: known.iter().map(|node| ReplicaId(node.0)).collect(),
            removed: BTreeSet::new(),
            remains: remains.map(Arc::new),
            rows: None,
            rows_tried: 0,
            unsynced: None,
            watches: Vec::new(),
            mended,
        })
    }

    /// Whether the replica can start.
    pub fn is_whole(&self) -> bool {
        // Rows that are here are the shard's: those from before are being cleared away, even if every entry has come back meanwhile.
        let rows_wait = matches!(self.rows, Some(Rows::Here { .. }));
        self.rotted.is_empty() && self.hole.is_none() && self.unsynced.is_none() && !rows_wait
    }

    /// What became of the entries.
    pub fn mended(&self) -> Mended {
        self.mended
    }

    /// The whole log, the rows, and the watches that waited.
    pub fn finish(mut self, cx: &mut Context<'_>) -> (Restored, Machine, Vec<(WatcherKey, WatchRequest)>) {
        assert!(self.is_whole(), "a replica starts from a whole log");
        self.abandon_rows(cx);
        let indexes = (self.restored.start.index.0 + 1..).map(LogIndex);
        assert!(self.restored.entries.iter().map(|entry| entry.index).zip(indexes).all(|(is, should)| is == should));
        (self.restored, self.machine, self.watches)
    }

    /// It goes, as it is: it has promised no less for being mended.
    pub fn leave_for_good(mut self, cx: &mut Context<'_>) -> Left {
        self.abandon_rows(cx);
        let Self { shard, id, restored, rotted, watches, .. } = self;
        let log = boot::log_of(shard, id, restored.hard_state, restored.start, restored.entries, rotted);
        let watchers = watches.into_iter().map(|(key, _)| key).collect();
        Left { log, commands: None, watchers, unanswered: Vec::new(), lost: LostAnswers::default() }
    }

    /// A watch is attached when there is something to attach it to.
    pub fn watch(&mut self, key: WatcherKey, request: WatchRequest) {
        match request {
            WatchRequest::Attach { .. } => self.watches.push((key, request)),
            WatchRequest::Detach => self.watches.retain(|(waiting, _)| *waiting != key),
            WatchRequest::Progress => {}
        }
    }

    pub fn receive(&mut self, from: ReplicaId, body: PeerBody, cx: &mut Context<'_>) {
        match body {
            PeerBody::EntryAnswer { index, term, copy } => self.hear(from, index, term, copy, cx),
            PeerBody::EntryAsk { index, term } => {
                if let Some(copy) = self.copy_of(index, term) {
                    self.send(from, PeerBody::EntryAnswer { index, term, copy }, cx);
                }
            }
            PeerBody::RowsOffer { transfer } => self.begin_rows(from, transfer, cx),
            PeerBody::Chunk { transfer, cursor, chunk } => {
                self.take_rows(from, transfer, cx, |fetch, _| fetch.chunk(&cursor, &chunk));
            }
            PeerBody::Digest { transfer, cursor, next, hash } => self.take_rows(from, transfer, cx, |fetch, cx| {
                let blindly = cx.sabotaged(Sabotage::TrustRemains);
                fetch.digest(&cursor, next.as_ref(), hash, cx.config.chunk_bytes, blindly)
            }),
            PeerBody::TransferGone { transfer } => {
                if matches!(&self.rows, Some(Rows::Coming { fetch, .. }) if fetch.is(transfer)) {
                    self.abandon_rows(cx);
                }
            }
            // For consensus this replica is down. Nobody leads here, and nothing is handed out.
            PeerBody::Raft(_)
            | PeerBody::Forward(_)
            | PeerBody::LeaseAsk { .. }
            | PeerBody::LeaseAnswer { .. }
            | PeerBody::ChunkAsk { .. }
            | PeerBody::DigestAsk { .. }
            | PeerBody::StateHash { .. }
            | PeerBody::StandingAsk { .. }
            | PeerBody::StandingAnswer { .. }
            | PeerBody::RowsAsk { .. }
            | PeerBody::RecallAsk { .. }
            | PeerBody::RecallAnswer { .. }
            | PeerBody::Petition(_)
            | PeerBody::LeaveAsk { .. }
            | PeerBody::LeaveAnswer { .. }
            | PeerBody::LookAsk { .. }
            | PeerBody::LookAnswer { .. }
            | PeerBody::CloseAsk { .. }
            | PeerBody::EverywhereAsk { .. }
            | PeerBody::Everywhere { .. }
            | PeerBody::Early { .. }
            | PeerBody::Sleep { .. }
            | PeerBody::Rouse
            | PeerBody::Beat
            | PeerBody::Answers { .. }
            | PeerBody::NotHere => {}
        }
    }

    /// What became of an entry here; none if it rotted here too.
    fn copy_of(&self, index: LogIndex, term: Term) -> Option<EntryCopy> {
        if index <= self.restored.start.index {
            return Some(EntryCopy::Compacted);
        }
        if self.rotted.iter().any(|rotted| rotted.index == index) {
            return None;
        }
        let at = self.restored.entries.binary_search_by_key(&index, |entry| entry.index).ok();
        let entry = at.map(|at| &self.restored.entries[at]).filter(|entry| entry.term == term);
        Some(match entry {
            Some(entry) => EntryCopy::Held { kind: entry.kind as u8, payload: entry.data.clone() },
            None if at.is_some() && index <= self.restored.hard_state.commit => EntryCopy::Replaced,
            // It takes nothing from any leader for now, and comes back in this term.
            None => EntryCopy::Absent { in_term: self.restored.hard_state.term, leads: false },
        })
    }

    fn hear(&mut self, from: ReplicaId, index: LogIndex, term: Term, copy: EntryCopy, cx: &mut Context<'_>) {
        let Some(at) = self.rotted.iter().position(|rotted| (rotted.index, rotted.term) == (index, term)) else {
            return;
        };
        let lack = match copy {
            EntryCopy::Held { kind, payload } => {
                let entry = LogEntry { shard: self.shard, index, term, kind, payload };
                let is_it = self.rotted[at].was(&entry) || cx.sabotaged(Sabotage::MendUnverified);
                if let Some(readable) = boot::to_consensus(&entry)
                    && is_it
                {
                    self.put_back(at, readable, entry, cx);
                }
                return;
            }
            EntryCopy::Absent { in_term, leads } => Lack::Absent { in_term, leads },
            EntryCopy::Compacted => Lack::Compacted,
            EntryCopy::Replaced => Lack::Replaced,
        };
        if self.peers().contains(&from) {
            let search = self.searches.entry(index).or_default();
            // After somebody's first answer the next one is asked at once. After another that would never end: answers come twice, too.
            if search.lacks.insert(from, lack).is_none() {
                search.asked = None;
            }
        }
    }

    fn put_back(&mut self, at: usize, readable: Entry, entry: LogEntry, cx: &mut Context<'_>) {
        self.rotted.remove(at);
        self.searches.remove(&entry.index);
        let entries = &mut self.restored.entries;
        let place = entries.partition_point(|other| other.index < entry.index);
        entries.insert(place, readable);
        self.mended.fetched += 1;
        self.write(LogRecord::Repair(entry), cx);
    }

    fn write(&mut self, record: LogRecord, cx: &mut Context<'_>) {
        cx.records.push(record);
        self.unsynced = Some(cx.ticket);
    }

    /// Everything up to `ticket` is durable.
    pub fn persisted(&mut self, ticket: u64) {
        self.unsynced.take_if(|unsynced| *unsynced <= ticket);
    }

    /// Does what has become possible, and asks for what is missing.
    pub fn go_on(&mut self, cx: &mut Context<'_>) {
        self.cut_what_never_was(cx);
        self.go_on_with_rows(cx);
        let peers: Vec<ReplicaId> = self.peers().into_iter().collect();
        if peers.is_empty() {
            return;
        }
        let mut asks = Vec::new();
        for rotted in self.rotted.iter().take(MENDING_ASKS_MAX) {
            let search = self.searches.entry(rotted.index).or_default();
            if search.asked.is_some_and(|asked| cx.now.since(asked) < RETRY) {
                continue;
            }
            let unheard: Vec<ReplicaId> =
                peers.iter().copied().filter(|peer| !search.lacks.contains_key(peer)).collect();
            // When all have answered and it was not enough, terms must change first: everybody is asked again, after a while.
            let to = if unheard.is_empty() { &peers } else { &unheard };
            let to = to[search.attempts % to.len()];
            search.asked = Some(cx.now);
            search.attempts += 1;
            asks.push((to, PeerBody::EntryAsk { index: rotted.index, term: rotted.term }));
        }
        for (to, body) in asks {
            self.send(to, body, cx);
        }
    }

    /// Cuts the log before the first rotted entry if that was never committed, nor will be. See the top of this file.
    fn cut_what_never_was(&mut self, cx: &mut Context<'_>) {
        let Some(first) = self.rotted.first().map(|rotted| rotted.index) else { return };
        let Some(search) = self.searches.get(&first) else { return };
        let own = self.restored.hard_state;
        let replaced = search.lacks.values().any(|lack| *lack == Lack::Replaced);
        let never_was = || !self.changes_membership() && may_go(own.term, &self.restored.membership, &search.lacks);
        if self.hole.is_some() || first <= own.commit || !(replaced || never_was()) {
            return;
        }
        let led = search.lacks.values().any(|lack| *lack == Lack::Absent { in_term: own.term, leads: true });
        let entries = &mut self.restored.entries;
        entries.retain(|entry| entry.index < first);
        let shard = self.shard;
        // An entry that is written again replaces everything behind it.
        let record = match entries.last() {
            Some(Entry { index, term, kind, data }) => LogRecord::Entry(LogEntry {
                shard,
                index: *index,
                term: *term,
                kind: *kind as u8,
                payload: data.clone(),
            }),
            None => {
                let SnapshotPoint { index, term } = self.restored.start;
                LogRecord::Start { shard, index, term, discard_after: true }
            }
        };
        self.mended.cut += self.rotted.len() as u64;
        self.rotted.clear();
        self.searches.clear();
        self.write(record, cx);
        if !led {
            // A majority is beyond this term. What was acknowledged in it to a former leader is not all here any more.
            let record = boot::next_term(self.shard, self.id, &mut self.restored);
            self.write(record, cx);
        }
    }

    /// Whether the log may hold a change of membership that is not applied: then who decides about an entry is not known here.
    fn changes_membership(&self) -> bool {
        let kind = EntryKind::Membership;
        let applied = self.restored.applied.index;
        self.restored.entries.iter().any(|entry| entry.index > applied && entry.kind == kind)
            || self.rotted.iter().any(|rotted| rotted.index > applied && rotted.entry_kind() == kind as u8)
    }

    /// The members that this node knows of may be other than those of when the rows were last written: anybody who has the log will do.
    pub fn know(&mut self, roster: &Roster) {
        self.known.extend(roster.rows.keys().map(|node| ReplicaId(node.0)));
        self.removed = roster.removed.keys().map(|node| ReplicaId(node.0)).collect();
    }

    /// Who may be asked, in an order that does not depend on when each became known.
    fn peers(&self) -> BTreeSet<ReplicaId> {
        let Membership { voters, outgoing, .. } = &self.restored.membership;
        let members = voters.iter().chain(outgoing).chain(&self.known).copied();
        members.filter(|peer| *peer != self.id && !self.removed.contains(peer)).collect()
    }

    // ---- rows

    fn go_on_with_rows(&mut self, cx: &mut Context<'_>) {
        match &mut self.rows {
            None => self.ask_for_rows(cx),
            Some(Rows::Asked { at, .. }) if cx.now.since(*at) >= 4 * RETRY => self.rows = None,
            Some(Rows::Coming { progressed, .. }) if cx.now.since(*progressed) >= TRANSFER_IDLE => {
                self.abandon_rows(cx);
            }
            Some(Rows::Coming { asked, .. }) if cx.now.since(*asked) >= RETRY => {
                *asked = cx.now;
                self.ask_chunk(cx);
            }
            Some(_) => {}
        }
    }

    /// If some log begins after a rotted entry, and no other gave it back.
    fn ask_for_rows(&mut self, cx: &mut Context<'_>) {
        if let Some(index) = self.hole {
            let peers: Vec<ReplicaId> = self.peers().into_iter().collect();
            if let Some(from) = peers.get(self.rows_tried % peers.len().max(1)).copied() {
                self.ask_rows_of(from, index, cx);
            }
            return;
        }
        let peers = self.peers().len();
        let given_up = |search: &Search| search.lacks.len() == peers || search.attempts >= 2 * peers;
        let compacted = self.rotted.iter().rev().find_map(|rotted| {
            let search = self.searches.get(&rotted.index).filter(|search| given_up(search))?;
            let at: Vec<_> = search.lacks.iter().filter(|(_, lack)| **lack == Lack::Compacted).collect();
            (!at.is_empty()).then(|| (rotted.index, *at[self.rows_tried % at.len()].0))
        });
        if let Some((index, from)) = compacted {
            self.ask_rows_of(from, index, cx);
        }
    }

    fn ask_rows_of(&mut self, from: ReplicaId, index: LogIndex, cx: &mut Context<'_>) {
        self.rows_tried += 1;
        self.rows = Some(Rows::Asked { from, at: cx.now });
        self.send(from, PeerBody::RowsAsk { index }, cx);
    }

    fn begin_rows(&mut self, from: ReplicaId, transfer: u64, cx: &mut Context<'_>) {
        if !matches!(&self.rows, Some(Rows::Asked { from: asked, .. }) if *asked == from) {
            return;
        }
        match cx.slots.allocate() {
            Ok(slot) => {
                let import = Import::new(cx.store.clone(), slot);
                let fetch = Fetch::new(transfer, import, self.remains.clone());
                self.rows = Some(Rows::Coming { from, fetch, progressed: cx.now, asked: cx.now });
                self.ask_chunk(cx);
            }
            Err(e) => self.fail(&e, cx),
        }
    }

    fn ask_chunk(&mut self, cx: &mut Context<'_>) {
        if cx.store.memory_bytes() >= 2 * cx.config.unflushed_bytes_max {
            // The disk is behind. Asked again at a later tick.
            return;
        }
        if let Some(Rows::Coming { from, fetch, .. }) = &self.rows {
            let (to, body) = (*from, fetch.ask());
            self.send(to, body, cx);
        }
    }

    /// Takes what a peer sent of the rows that are fetched from it.
    fn take_rows(
        &mut self,
        from: ReplicaId,
        transfer: u64,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Fetch, &Context<'_>) -> Result<bool, ImportError>,
    ) {
        let Some(Rows::Coming { from: sender, fetch, progressed, asked }) = &mut self.rows else { return };
        if *sender != from || !fetch.is(transfer) {
            return;
        }
        match take(fetch, cx) {
            Ok(false) => return,
            Ok(true) => (*progressed, *asked) = (cx.now, cx.now),
            Err(ImportError::Damaged) => return self.abandon_rows(cx),
            Err(ImportError::Machine(e)) => return self.fail(&e, cx),
        }
        if !fetch.is_done() {
            return self.ask_chunk(cx);
        }
        self.mended.fetched_bytes += fetch.fetched_bytes;
        self.mended.kept_bytes += fetch.kept_bytes;
        let slot = fetch.slot();
        let machine = match Machine::open(cx.store.clone(), slot, cx.procedures.clone()) {
            Ok(machine) => machine,
            Err(e) => return self.fail(&e, cx),
        };
        if machine.meta().applied <= self.machine.meta().applied
            || self.hole.is_some_and(|hole| machine.meta().applied < hole)
        {
            return self.abandon_rows(cx);
        }
        match cx.slots.switch(self.shard, slot) {
            Ok(()) => self.rows = Some(Rows::Here { machine: Box::new(machine), flush: None }),
            Err(e) => self.fail(&e, cx),
        }
    }

    fn abandon_rows(&mut self, cx: &mut Context<'_>) {
        if let Some(Rows::Coming { fetch, .. }) = self.rows.take() {
            cx.slots.abandon(fetch.slot());
        }
    }

    /// Whether rows wait for the store to be flushed, with no flush covering them yet.
    pub fn wants_flush(&self) -> bool {
        matches!(self.rows, Some(Rows::Here { flush: None, .. }))
    }

    /// A flush was started that covers everything written so far.
    pub fn flush_started(&mut self, ticket: u64) {
        if let Some(Rows::Here { flush, .. }) = &mut self.rows {
            flush.get_or_insert(ticket);
        }
    }

    /// That flush is durable. If it covers rows that came, the log need not reach back behind them any more.
    pub fn flushed(&mut self, ticket: u64, cx: &mut Context<'_>) {
        let here = self.rows.take_if(|rows| matches!(rows, Rows::Here { flush: Some(flush), .. } if *flush == ticket));
        let Some(Rows::Here { machine, .. }) = here else { return };
        self.machine = *machine;
        match boot::point_and_membership(self.shard, &self.machine) {
            Ok((applied, membership)) => (self.restored.applied, self.restored.membership) = (applied, membership),
            Err(e) => return self.fail(&e, cx),
        }
        self.hole = None;
        let before = self.rotted.len();
        for record in boot::lay(self.shard, self.id, &mut self.restored, &mut self.rotted) {
            self.write(record, cx);
        }
        self.mended.by_rows += (before - self.rotted.len()) as u64;
        let left = |index: &LogIndex| self.rotted.iter().any(|rotted| rotted.index == *index);
        self.searches.retain(|index, _| left(index));
    }

    // ---- what it looks like

    fn send(&self, to: ReplicaId, body: PeerBody, cx: &mut Context<'_>) {
        cx.out.messages.push((node_of(to), PeerMessage { shard: self.shard, from: self.id, to, body }));
    }

    fn fail(&self, why: &dyn std::error::Error, cx: &mut Context<'_>) {
        cx.out.fatal.get_or_insert(format!("{} of {}: {why}", self.id, self.shard));
    }

    pub fn inspect(&self) -> Inspection {
        let meta = self.machine.meta();
        let readable = self.restored.entries.last().map_or(self.restored.start.index, |entry| entry.index);
        let last = self.rotted.last().map_or(readable, |rotted| rotted.index.max(readable));
        Inspection {
            asleep: false,
            replica: self.id,
            role: Role::Follower,
            term: self.restored.hard_state.term,
            leader: None,
            committed: self.restored.hard_state.commit.max(meta.applied),
            applied: meta.applied,
            state_hash: meta.state_hash,
            revision: meta.revision,
            log_start: self.restored.start.index,
            last,
            held_back: false,
            waits_for_newcomer: false,
            voter: self.restored.membership.is_voter(self.id),
            membership: membership_hash(&self.restored.membership),
            // What was put back is there when it is durable.
            rotted: self.rotted.len().max(1),
        }
    }
}

/// Whether an entry that rotted at one of these voters, whose hard state is of term `own`, was never committed and never will be. Of a joint
/// configuration both majorities must lack it: it may have been committed before the configuration was joint.
fn may_go(own: Term, membership: &Membership, lacks: &BTreeMap<ReplicaId, Lack>) -> bool {
    let absent = |at_least: Term| {
        let lacks = |id| matches!(lacks.get(&id), Some(Lack::Absent { in_term, .. }) if *in_term >= at_least);
        membership.is_quorum(lacks)
    };
    let led = lacks.values().any(|lack| *lack == Lack::Absent { in_term: own, leads: true });
    absent(Term(own.0 + 1)) || (led && absent(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_env::Writer;
    use quorate_kv::Level;
    use quorate_shard::{Procedures, Slot};
    use quorate_storage::store::ModelStore;

    #[test]
    fn a_replica_waits_for_rows_that_have_taken_the_place_of_its_own() {
        let machine = || {
            let procedures = Arc::new(Procedures::of(Level::LATEST));
            let (mut w, members) = (Writer::new(), Membership::of_voters((1..=3).map(ReplicaId)));
            members.encode(&mut w);
            Machine::create(Arc::new(ModelStore::new()), Slot(1), w.finish().into(), procedures).expect("fresh rows")
        };
        let membership = Membership::of_voters((1..=3).map(ReplicaId));
        let restored = Restored { membership, ..Restored::default() };
        let found = Found {
            machine: machine(),
            restored,
            rotted: Vec::new(),
            hole: None,
            without_rows: false,
            repair: Vec::new(),
        };
        let known = [2, 3].map(NodeId);
        let mut mending = Mending::new(ShardId(2), ReplicaId(1), found, &known, None).expect("there are others");
        assert!(mending.is_whole(), "every entry is back");
        mending.rows = Some(Rows::Here { machine: Box::new(machine()), flush: None });
        assert!(!mending.is_whole(), "its own rows are being cleared away");
    }

    fn absent(in_term: u64, leads: bool) -> Lack {
        Lack::Absent { in_term: Term(in_term), leads }
    }

    #[test]
    fn an_entry_goes_only_if_a_majority_of_others_can_never_have_it() {
        let judge = |voters, lacks: &[Lack]| {
            let membership = Membership::of_voters((1..=voters).map(ReplicaId));
            may_go(Term(5), &membership, &(2..).map(ReplicaId).zip(lacks.iter().copied()).collect())
        };
        assert!(judge(3, &[absent(6, false), absent(7, true)]));
        // The third may be what made it committed, or still become so.
        assert!(!judge(3, &[absent(6, false)]));
        assert!(!judge(3, &[absent(6, false), Lack::Compacted]));
        // A leader of this replica's own term may be counting it.
        assert!(!judge(3, &[absent(5, false), absent(6, true)]));
        assert!(judge(3, &[absent(5, false), absent(5, true)]));
        assert!(!judge(3, &[absent(4, true), absent(4, false)]));
        assert!(!judge(5, &[absent(6, false), absent(6, true)]));
        assert!(judge(5, &[absent(6, false), absent(6, false), absent(6, false)]));
        assert!(!judge(1, &[]));
        // On the way from (1 2 3) to (1 4 5).
        let ids = |list: [u64; 3]| list.map(ReplicaId).to_vec();
        let joint = Membership { voters: ids([1, 4, 5]), outgoing: ids([1, 2, 3]), ..Membership::default() };
        let judge =
            |who: &[u64]| may_go(Term(5), &joint, &who.iter().map(|id| (ReplicaId(*id), absent(6, false))).collect());
        assert!(judge(&[2, 3, 4, 5]));
        assert!(!judge(&[4, 5]) && !judge(&[2, 3]) && !judge(&[2, 3, 4]));
    }
}
