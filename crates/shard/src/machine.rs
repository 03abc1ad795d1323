//! Applying entries.
//!
//! For each command, in log order: recognise a retry; check everything that can be refused, on the branch that will run and
//! before anything is written; then write. Compares of nested transactions are judged before the outermost one writes, as
//! etcd does. All writes of an entry, with the new meta row and session rows, become visible together when it is published.

mod ending;
mod txn;
mod writing;

use crate::across::ledger::{Decided, Ledger, Prepared};
use crate::entry::EntryPayload;
use crate::eval::RowError;
use crate::flaw::{Flaw, SKIPPED};
use crate::leases::Leases;
use crate::meta::{Meta, OpenError};
use crate::rows::Slot;
use crate::sessions::{Seen, Sessions};
use crate::source::Source;
use crate::split::birth::Birth;
use crate::view::View;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, ShardId, Term, Timestamp};
use quorate_kv::across::TxId;
use quorate_kv::{
    Applied, Command, CommandId, Envelope, Event, Header, KeyRange, LeaseId, Level, ProcedureId, Refusal, Revision,
};
use quorate_storage::store::{Store, StoreError, WriteBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use thiserror::Error;
pub use writing::Transaction;

/// Why a replica must stop. None of these is a client's fault.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row or a log entry does not make sense although its checksum held.
    #[error("corrupt state: {0}")]
    Corrupt(#[from] DecodeError),
    /// The log holds what this release does not know.
    #[error(
        "the log holds a command of feature level {needs}, and this node knows only {knows}: start a newer release, or one that is not held down"
    )]
    TooNew {
        /// The command's level.
        needs: Level,
        /// The node's.
        knows: Level,
    },
}

impl MachineError {
    /// Whether the store's disk has changed what was written there.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Store(StoreError::Damaged(_)))
    }
}

impl From<RowError> for MachineError {
    fn from(e: RowError) -> Self {
        match e {
            RowError::Store(e) => Self::Store(e),
            RowError::Malformed(e) => Self::Corrupt(e),
        }
    }
}

/// Server-side logic of a layer: a deterministic function that runs at apply. It may read and write keys through the
/// transaction, and must check all that it may refuse before its first write.
pub type Procedure = fn(&mut Transaction<'_>, &Bytes) -> Result<Result<Bytes, Refusal>, MachineError>;

/// What a release's state machine knows.
#[derive(Debug)]
pub struct Procedures {
    level: Level,
    /// By id and version.
    known: BTreeMap<(ProcedureId, u32), Procedure>,
}

impl Procedures {
    /// Commands up to this level, and no procedures.
    #[must_use]
    pub const fn of(level: Level) -> Self {
        Self { level, known: BTreeMap::new() }
    }
}

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lease.
    pub id: LeaseId,
    /// Its time to live, in seconds.
    pub ttl_s: u64,
    /// The entry that granted it.
    pub granted_at: LogIndex,
}

/// What came of applying one entry.
#[derive(Debug, Default)]
pub struct Output {
    /// Answers to the commands of sessions that were asked about; a command recognised as a retry has none.
    pub results: Vec<(CommandId, Result<Applied, Refusal>)>,
    /// Every change, by ascending revision.
    pub events: Vec<Event>,
    /// Leases granted.
    pub granted: Vec<Grant>,
    /// Leases gone.
    pub revoked: Vec<LeaseId>,
    /// Whether history was compacted.
    pub compacted: bool,
    /// Leases that could not end, because a key of theirs is locked.
    pub postponed: Vec<LeaseId>,
    /// Whether locks of a transaction over several shards were released.
    pub unlocked: bool,
    /// Whether rows that were kept for a child may go.
    pub weaned: bool,
    /// Splits that were asked for, whatever came of them.
    pub splits: u32,
}

impl Output {
    /// A command met a lock: it was not carried out.
    fn postpone(&mut self, command: &Command) {
        if let Command::LeaseExpire { id, .. } = command {
            self.postponed.push(*id);
        }
    }
}

/// One replica's state machine.
pub struct Machine {
    store: Arc<dyn Store>,
    source: Source,
    slot: Slot,
    meta: Meta,
    leases: Leases,
    sessions: Sessions,
    ledger: Ledger,
    births: BTreeMap<ShardId, Birth>,
    procedures: Arc<Procedures>,
    flaw: Option<Flaw>,
}

impl Machine {
    /// Writes the first rows of a fresh replica.
    pub fn create(
        store: Arc<dyn Store>,
        slot: Slot,
        membership: Bytes,
        procedures: Arc<Procedures>,
    ) -> Result<Self, MachineError> {
        let meta = Meta::fresh(membership);
        let mut batch = WriteBatch::new();
        batch.put(slot.meta(), meta.encode());
        store.write(&mut batch)?;
        store.publish();
        let source = Source::Live(store.clone());
        let (leases, sessions, ledger) = (Leases::default(), Sessions::default(), Ledger::default());
        let births = BTreeMap::new();
        Ok(Self { store, source, slot, meta, leases, sessions, ledger, births, procedures, flaw: None })
    }

    /// Opens a replica whose rows are in the store.
    pub fn open(store: Arc<dyn Store>, slot: Slot, procedures: Arc<Procedures>) -> Result<Self, OpenError> {
        let source = Source::Live(store.clone());
        let meta = Meta::read(&source, slot)?;
        let leases = Leases::load(&source, slot)?;
        let sessions = Sessions::load(&source, slot)?;
        let ledger = Ledger::load(&source, slot)?;
        let births = Birth::load(&source, slot)?;
        Ok(Self { store, source, slot, meta, leases, sessions, ledger, births, procedures, flaw: None })
    }

    /// A machine that stands where this one does, on other rows that are the same.
    pub(crate) fn reopened(&self, store: Arc<dyn Store>) -> Result<Self, OpenError> {
        let reopened = Self::open(store, self.slot, self.procedures.clone())?;
        Ok(Self { flaw: self.flaw, ..reopened })
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Where it stands.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Where its rows are.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Every lease, ascending.
    pub fn leases(&self) -> impl Iterator<Item = Grant> + '_ {
        self.leases.iter().map(|(id, lease)| Grant { id, ttl_s: lease.ttl_s, granted_at: lease.granted_at })
    }

    /// A lease.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<Grant> {
        self.leases.get(id).map(|lease| Grant { id, ttl_s: lease.ttl_s, granted_at: lease.granted_at })
    }

    /// The keys attached to a lease, ascending; none if there is no such lease.
    #[must_use]
    pub fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.leases.get(id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// The revision after a command, if the session table knows that it was applied.
    #[must_use]
    pub fn outcome_of(&self, id: CommandId) -> Option<Revision> {
        match self.sessions.seen(id) {
            Seen::Applied(revision) => Some(revision),
            Seen::New | Seen::Forgotten => None,
        }
    }

    /// What is prepared here and waits for its transaction's decision.
    pub fn prepared(&self) -> impl Iterator<Item = (TxId, &Prepared)> + '_ {
        self.ledger.all_prepared()
    }

    /// Who has reserved something here, and by which entries.
    pub fn reserved(&self) -> BTreeSet<(TxId, LogIndex)> {
        self.ledger.reservations().all()
    }

    /// Decisions of this shard that other shards have yet to carry out.
    pub fn unresolved(&self) -> impl Iterator<Item = (TxId, &Decided)> + '_ {
        self.ledger.unresolved()
    }

    /// The shards that were split off and are not weaned yet.
    pub fn births(&self) -> impl Iterator<Item = &Birth> + '_ {
        self.births.values()
    }

    /// One of them.
    #[must_use]
    pub fn birth(&self, child: ShardId) -> Option<&Birth> {
        self.births.get(&child)
    }

    /// Whether rows are kept for children.
    #[must_use]
    pub fn nurses(&self) -> bool {
        !self.births.is_empty()
    }

    /// Whether nothing that it holds asks for anything to be done by itself: no lease and no reservation may run out, no transaction waits to be settled, no shard that was split
    /// off to be weaned, and none is being merged.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let merging = self.meta.yielded || self.meta.absorbing.is_some();
        self.leases.is_empty() && self.births.is_empty() && self.ledger.is_settled() && !merging
    }

    /// Whether something of a range is prepared for a transaction.
    #[must_use]
    pub fn has_prepared_in(&self, range: &KeyRange) -> bool {
        self.ledger.prepared_in(range).is_some()
    }

    /// Forgets all sessions, as no correct replica does.
    pub fn forget_sessions(&mut self) {
        self.sessions.forget_all();
    }

    /// Plants a flaw, as nobody does outside the simulator.
    pub fn plant(&mut self, flaw: Flaw) {
        self.flaw = Some(flaw);
    }

    /// Up to this moment, everything that ever will have happened is here: what comes happens later.
    #[must_use]
    pub fn closed(&self) -> Timestamp {
        if self.has(Flaw::CloseOverPrepared) { self.meta.clock } else { closed(&self.meta, &self.ledger) }
    }

    /// A consistent picture of what has been applied.
    #[must_use]
    pub fn view(&self) -> View {
        let locks = self.ledger.locks();
        let locks = (!locks.is_empty()).then(|| locks.clone());
        let closed = self.closed();
        View::new(
            Source::Frozen(self.store.snapshot()),
            self.slot,
            Arc::new(self.meta.clone()),
            locks,
            closed,
            self.flaw,
        )
    }

    /// Applies the entry at `index`. Results are collected for commands that are `awaited`.
    ///
    /// # Panics
    /// If `index` does not follow the last one applied: the caller has lost an entry.
    pub fn apply(
        &mut self,
        index: LogIndex,
        term: Term,
        data: &Bytes,
        awaited: &dyn Fn(&Envelope) -> bool,
    ) -> Result<Output, MachineError> {
        assert_eq!(index, self.meta.applied.next(), "entry out of order");
        let mut output = Output::default();
        let mut tx = Transaction::new(self, term);
        let skipped = tx.flaw == Some(Flaw::SkipEntry) && index.0.is_multiple_of(SKIPPED);
        if !data.is_empty() && !skipped {
            let payload = EntryPayload::decode(data.clone())?;
            tx.meta.wall = tx.meta.wall.max(payload.wall);
            tx.tell_time(&payload);
            let mut touched = BTreeSet::new();
            for envelope in &payload.commands {
                let (id, wanted) = (envelope.id, awaited(envelope));
                output.splits += u32::from(matches!(envelope.command, Command::Split { .. }));
                match tx.sessions.seen(id) {
                    Seen::New => {}
                    Seen::Forgotten if tx.flaw == Some(Flaw::ForgetFloor) => {}
                    Seen::Applied(_) | Seen::Forgotten => continue,
                }
                let (needs, knows) = (envelope.command.level(), tx.procedures.level);
                if needs > knows {
                    return Err(MachineError::TooNew { needs, knows });
                }
                let hindrance = tx.moved(&envelope.command);
                let result = match hindrance.or_else(|| tx.blocker(&envelope.command).map(Refusal::from)) {
                    Some(refusal) => Err(refusal),
                    None => tx.command(&envelope.command, wanted, &mut output)?,
                };
                // A lock that is met in preparing is an answer. Other commands come again, under the same id.
                if matches!(result, Err(Refusal::Locked { .. })) && !matches!(envelope.command, Command::Across { .. })
                {
                    output.postpone(&envelope.command);
                } else {
                    tx.remember(envelope, &mut touched);
                }
                if wanted {
                    let header = Header { revision: tx.meta.revision, term };
                    output.results.push((id, result.map(|outcome| Applied { header, outcome })));
                }
            }
            tx.forget_decisions();
            for session in tx.sessions.evict() {
                touched.remove(&session);
                tx.delete_row(tx.slot.session(session));
            }
            for session in touched {
                let row = tx.sessions.encode(session);
                tx.put_row(tx.slot.session(session), row.into());
            }
        }
        tx.meta.applied = index;
        tx.meta.applied_term = term;
        output.unlocked = tx.unlocked;
        output.events = tx.finish()?;
        Ok(output)
    }
}

impl Machine {
    /// Applies an entry that changes the group's membership, in one write with the applied index.
    ///
    /// # Panics
    /// If the entry at `index` does not follow the last one applied.
    pub fn apply_membership(&mut self, index: LogIndex, term: Term, membership: Bytes) -> Result<(), MachineError> {
        assert_eq!(index, self.meta.applied.next(), "entry out of order");
        (self.meta.applied, self.meta.applied_term, self.meta.membership) = (index, term, membership);
        let mut batch = WriteBatch::new();
        batch.put(self.slot.meta(), self.meta.encode());
        self.store.write(&mut batch)?;
        self.store.publish();
        Ok(())
    }
}

fn closed(meta: &Meta, ledger: &Ledger) -> Timestamp {
    ledger.oldest_prepared().map_or(meta.clock, |oldest| meta.clock.min(oldest))
}

impl Machine {
    pub(crate) fn parts(&self) -> (&Arc<dyn Store>, &Source, Slot, &Meta) {
        (&self.store, &self.source, self.slot, &self.meta)
    }

    pub(crate) fn leases_and_ledger(&self) -> (&Leases, &Ledger) {
        (&self.leases, &self.ledger)
    }

    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}
