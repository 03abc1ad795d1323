//! Applying entries.
//!
//! For each command, in log order: recognise a retry; check everything that can be refused, on the branch that will run and
//! before anything is written; then write. Compares of nested transactions are judged before the outermost one writes, as
//! etcd does. All writes of an entry, with the new meta row and session rows, become visible together when it is published.

use crate::across::ledger::{Decided, Ledger, Prepared};
use crate::entry::EntryPayload;
use crate::eval::{self, RowError};
use crate::flaw::{Flaw, SKIPPED};
use crate::leases::{self, Leases};
use crate::meta::{Meta, OpenError};
use crate::rows::{self, EventRow, Slot, When};
use crate::sessions::{Seen, Sessions};
use crate::source::Source;
use crate::split::birth::Birth;
use crate::view::View;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, ShardId, Term, Timestamp, checksum};
use quorate_kv::across::{Decision, TxId, TxStep};
use quorate_kv::{
    Applied, Command, CommandId, DeleteOp, DeleteResult, Envelope, Event, EventKind, Header, KeyRange, KeyValue,
    LeaseId, Level, Op, OpResult, Outcome, ProcedureId, PutOp, PutResult, Refusal, Revision, SessionId, Txn, TxnResult,
    limits,
};
use quorate_storage::store::{Store, StoreError, WriteBatch};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use thiserror::Error;

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

/// Whether an operation may be done.
type Verdict = Result<(), Refusal>;

/// The writes of one entry, in the making.
pub struct Transaction<'a> {
    store: &'a Arc<dyn Store>,
    pub(crate) source: &'a Source,
    pub(crate) slot: Slot,
    pub(crate) meta: &'a mut Meta,
    pub(crate) leases: &'a mut Leases,
    sessions: &'a mut Sessions,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) births: &'a mut BTreeMap<ShardId, Birth>,
    procedures: &'a Procedures,
    /// Of the entry.
    pub(crate) term: Term,
    pub(crate) flaw: Option<Flaw>,
    /// Whether locks were released.
    pub(crate) unlocked: bool,
    batch: WriteBatch,
    /// Present rows written by this entry and not yet in the store, so that a batch of puts is written once.
    fresh: HashMap<Bytes, Option<Bytes>>,
    /// The revision that the running command writes at, once it has written.
    writing: Option<Revision>,
    /// Keys that the running command removed.
    removed: HashSet<Bytes>,
    events: Vec<Event>,
    rows: Vec<EventRow>,
    /// Revisions of this entry that happened earlier than it.
    late: Vec<(Revision, Timestamp)>,
}

impl<'a> Transaction<'a> {
    fn new(machine: &'a mut Machine, term: Term) -> Self {
        Self {
            store: &machine.store,
            source: &machine.source,
            slot: machine.slot,
            meta: &mut machine.meta,
            leases: &mut machine.leases,
            sessions: &mut machine.sessions,
            ledger: &mut machine.ledger,
            births: &mut machine.births,
            term,
            unlocked: false,
            procedures: &machine.procedures,
            flaw: machine.flaw,
            batch: WriteBatch::new(),
            fresh: HashMap::new(),
            writing: None,
            removed: HashSet::new(),
            events: Vec::new(),
            rows: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Sets the clock to the entry's timestamp: behind that of the entry before, and behind all that its decisions must come after; no earlier than what was decided
    /// elsewhere and is carried out with it, since whatever is written over that comes later.
    fn tell_time(&mut self, payload: &EntryPayload) {
        let clock = self.meta.clock;
        let follows = |envelope: &Envelope| match &envelope.command {
            Command::Across { step: TxStep::Decide(verdict), .. } => {
                (verdict.after != Timestamp::ZERO).then(|| verdict.after.next())
            }
            Command::Across { step: TxStep::Resolve(Decision::Committed { at, .. }), .. } => Some(*at),
            _ => None,
        };
        let caused = payload.commands.iter().filter_map(follows).max().unwrap_or_default();
        if payload.at.max(clock).max(caused) == Timestamp::ZERO {
            // The cluster keeps no timestamps yet.
            return;
        }
        self.meta.clock = payload.at.max(clock.next()).max(caused);
        if clock == Timestamp::ZERO {
            self.meta.since = self.meta.clock;
        }
    }

    /// What the running command has written happened earlier than its entry: when its transaction was decided elsewhere.
    pub(crate) fn happened_at(&mut self, at: Timestamp) {
        if at == Timestamp::ZERO {
            // It was decided when nobody kept timestamps yet: what comes before this entry cannot be told apart here.
            self.meta.since = self.meta.clock;
        }
        if let Some(revision) = self.writing {
            self.late.push((revision, at));
        }
    }

    fn command(
        &mut self,
        command: &Command,
        wanted: bool,
        output: &mut Output,
    ) -> Result<Result<Outcome, Refusal>, MachineError> {
        let result = match command {
            Command::Transact(txn) => self.transact(txn, wanted)?.map(Outcome::Transacted),
            Command::LeaseGrant { id, ttl_s } => self.lease_grant(*id, *ttl_s, output),
            Command::LeaseRevoke { id } => self.lease_revoke(*id, output)?,
            Command::LeaseExpire { id, granted_at } => match self.leases.get(*id) {
                Some(lease) if lease.granted_at == *granted_at => self.lease_revoke(*id, output)?,
                _ => Err(Refusal::LeaseNotFound),
            },
            Command::Compact { revision } => self.compact(*revision, output),
            Command::Call { procedure, version, args } => match self.procedures.known.get(&(*procedure, *version)) {
                Some(procedure) => procedure(self, args)?.map(Outcome::Returned),
                None => Err(Refusal::UnknownProcedure),
            },
            Command::Across { tx, step } => self.step_across(*tx, step)?.map(Outcome::Stepped),
            Command::Split { at, child } => self.split(at, *child)?,
            Command::Wean { child } => {
                self.wean(*child, output);
                Ok(Outcome::Weaned)
            }
            Command::Reserve { by, step } => self.step_of_reservation(*by, step)?,
            Command::Yield { range } => Ok(self.give_up(range)?),
            Command::Absorb(page) => self.absorb(page)?,
            Command::Trim { before } => Ok(Outcome::Trimmed(self.trim(*before)?)),
        };
        if let Some(revision) = self.writing.take() {
            self.meta.revision = revision;
        }
        self.removed.clear();
        Ok(result)
    }

    /// A command has its answer, and is never applied again.
    fn remember(&mut self, envelope: &Envelope, touched: &mut BTreeSet<SessionId>) {
        self.sessions.record(envelope.id, envelope.answered_below, self.meta.applied.0 + 1, self.meta.revision);
        touched.insert(envelope.id.session);
    }

    fn finish(mut self) -> Result<Vec<Event>, MachineError> {
        if let Some(last) = self.rows.last().map(|row| row.revision) {
            let closed = closed(self.meta, self.ledger);
            let when = When { at: self.meta.clock, closed, late: std::mem::take(&mut self.late) };
            let row = rows::encode_events(&when, &self.rows);
            self.put_row(self.slot.events(last), row.into());
        }
        self.batch.put(self.slot.meta(), self.meta.encode());
        self.flush()?;
        self.store.publish();
        Ok(self.events)
    }

    // Rows: every change joins the batch and the state hash. The slot is left out of the hash: it is local.

    pub(crate) fn put_row(&mut self, key: Bytes, value: Bytes) {
        let hash = checksum::chain(self.meta.state_hash, &key[rows::SLOT_BYTES..]);
        self.meta.state_hash = checksum::chain(hash, &value);
        self.batch.put(key, value);
    }

    pub(crate) fn delete_row(&mut self, key: Bytes) {
        self.meta.state_hash = checksum::chain(!self.meta.state_hash, &key[rows::SLOT_BYTES..]);
        self.batch.delete(key);
    }

    /// Removes a row that is not replicated state any more: each replica has it, or has it not.
    pub(crate) fn discard(&mut self, key: Bytes) {
        self.batch.delete(key);
    }

    pub(crate) fn flush(&mut self) -> Result<(), MachineError> {
        self.fresh.clear();
        Ok(self.store.write(&mut self.batch)?)
    }

    fn current_row(&self, row_key: &Bytes) -> Result<Option<Bytes>, MachineError> {
        match self.fresh.get(row_key) {
            Some(row) => Ok(row.clone()),
            None => Ok(self.store.get(row_key)?),
        }
    }

    // Keys: what procedures and operations are made of.

    /// The present value of a key.
    pub fn get(&self, key: &Bytes) -> Result<Option<KeyValue>, MachineError> {
        let row = self.current_row(&self.slot.current(key))?;
        Ok(row.map(|row| rows::decode_value(key.clone(), row)).transpose()?)
    }

    /// Writes a key; returns what was there.
    pub fn put(&mut self, key: &Bytes, value: Bytes, lease: LeaseId) -> Result<Option<KeyValue>, MachineError> {
        let revision = self.write_revision();
        let row_key = self.slot.current(key);
        let old_row = self.current_row(&row_key)?;
        let prev = old_row.clone().map(|row| rows::decode_value(key.clone(), row)).transpose()?;
        let kv = KeyValue {
            key: key.clone(),
            value,
            create_revision: prev.as_ref().map_or(revision, |p| p.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |p| p.version + 1),
            lease,
        };
        if let (Some(old), Some(row)) = (&prev, &old_row) {
            self.make_former(old, row, revision);
        } else if self.removed.remove(key) {
            // At this revision the key was not gone after all.
            self.delete_row(self.slot.history(key, revision));
        }
        let row = Bytes::from(rows::encode_value(&kv));
        self.put_row(row_key.clone(), row.clone());
        self.fresh.insert(row_key, Some(row));
        let old_lease = prev.as_ref().map_or(LeaseId::NONE, |p| p.lease);
        if old_lease != lease {
            self.detach(old_lease, key);
            if lease != LeaseId::NONE {
                self.leases.attach(lease, key.clone());
                self.put_row(self.slot.lease_key(lease, key), Bytes::new());
            }
        }
        self.event(EventKind::Put, kv, prev.clone());
        Ok(prev)
    }

    /// Removes a key; returns what was there.
    pub fn delete(&mut self, key: &Bytes) -> Result<Option<KeyValue>, MachineError> {
        let row_key = self.slot.current(key);
        let Some(row) = self.current_row(&row_key)? else { return Ok(None) };
        let prev = rows::decode_value(key.clone(), row.clone())?;
        let revision = self.write_revision();
        self.make_former(&prev, &row, revision);
        self.put_row(self.slot.history(key, revision), rows::encode_former(None).into());
        self.delete_row(row_key.clone());
        self.fresh.insert(row_key, None);
        self.removed.insert(key.clone());
        self.detach(prev.lease, key);
        let gone = KeyValue {
            key: key.clone(),
            value: Bytes::new(),
            create_revision: Revision(0),
            mod_revision: revision,
            version: 0,
            lease: LeaseId::NONE,
        };
        self.event(EventKind::Delete, gone, Some(prev.clone()));
        Ok(Some(prev))
    }

    fn write_revision(&mut self) -> Revision {
        if self.flaw == Some(Flaw::RevisionPerWrite) {
            self.meta.revision = self.writing.take().unwrap_or(self.meta.revision);
        }
        *self.writing.get_or_insert(Revision(self.meta.revision.0 + 1))
    }

    fn detach(&mut self, lease: LeaseId, key: &Bytes) {
        if lease != LeaseId::NONE && self.flaw != Some(Flaw::KeepAttached) {
            self.leases.detach(lease, key);
            self.delete_row(self.slot.lease_key(lease, key));
        }
    }

    /// Keeps a value that `revision` replaces or removes.
    fn make_former(&mut self, old: &KeyValue, row: &Bytes, revision: Revision) {
        if old.mod_revision < revision {
            self.put_row(self.slot.history(&old.key, old.mod_revision), rows::encode_former(Some(row)).into());
        } else if let Some(put) = self.rows.iter_mut().rev().find(|put| put.key == old.key) {
            // The same revision wrote it: no reader ever sees it, only the event tells of it.
            put.overtaken = Some(row.clone());
        }
    }

    fn event(&mut self, kind: EventKind, kv: KeyValue, prev: Option<KeyValue>) {
        let prev = match prev {
            // What an event compares with is the revision before, not a step within its own.
            Some(step) if step.mod_revision == kv.mod_revision => {
                let same = |event: &&Event| event.kv.key == kv.key;
                self.events.iter().rev().find(same).and_then(|put| put.prev.clone())
            }
            prev => prev,
        };
        let prev_revision = prev.as_ref().map_or(Revision(0), |p| p.mod_revision);
        let (revision, key) = (kv.mod_revision, kv.key.clone());
        self.rows.push(EventRow { revision, kind, prev: prev_revision, key, overtaken: None });
        self.events.push(Event { kind, kv, prev });
    }

    pub(crate) fn keys_in(&mut self, range: &KeyRange) -> Result<Vec<Bytes>, MachineError> {
        if range.is_single() {
            return Ok(vec![range.start.clone()]);
        }
        self.flush()?;
        let rows = eval::current_rows(self.source, self.slot, range);
        rows.map(|row| Ok(rows::parse_current(&row?.0))).collect()
    }

    // Transactions.

    fn transact(&mut self, txn: &Txn, wanted: bool) -> Result<Result<TxnResult, Refusal>, MachineError> {
        let mut path = Vec::new();
        self.decide(txn, &mut path)?;
        // All writes are judged before all reads, as etcd does: of two reasons to refuse, clients get the same one.
        for check in [Self::check_write, Self::check_read] {
            if let Err(refusal) = self.check(txn, &mut path.iter().copied(), check)? {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(self.run(txn, &mut path.iter().copied(), wanted)?))
    }

    /// Judges the compares of a transaction and of those nested in the branch it takes, in the order in which they run.
    fn decide(&mut self, txn: &Txn, path: &mut Vec<bool>) -> Result<(), MachineError> {
        let mut holds = true;
        for compare in &txn.compares {
            if !compare.range.is_single() || self.fresh.contains_key(&self.slot.current(&compare.range.start)) {
                self.flush()?;
            }
            if !eval::holds(self.source, self.slot, compare)? && self.flaw != Some(Flaw::IgnoreCompares) {
                holds = false;
                break;
            }
        }
        path.push(holds);
        for op in branch(txn, holds) {
            if let Op::Txn(nested) = op {
                self.decide(nested, path)?;
            }
        }
        Ok(())
    }

    /// Refuses what cannot be done, before anything is.
    fn check(
        &self,
        txn: &Txn,
        path: &mut impl Iterator<Item = bool>,
        check: fn(&Self, &Op) -> Result<Verdict, MachineError>,
    ) -> Result<Verdict, MachineError> {
        let holds = path.next().expect("one decision for each transaction");
        for op in branch(txn, holds) {
            let checked = match op {
                Op::Txn(nested) => self.check(nested, path, check)?,
                op => check(self, op)?,
            };
            if checked.is_err() {
                return Ok(checked);
            }
        }
        Ok(Ok(()))
    }

    fn check_read(&self, op: &Op) -> Result<Verdict, MachineError> {
        let Op::Range(op) = op else { return Ok(Ok(())) };
        Ok(eval::check_revision(op, self.meta.revision, self.meta.compacted))
    }

    fn check_write(&self, op: &Op) -> Result<Verdict, MachineError> {
        let Op::Put(op) = op else { return Ok(Ok(())) };
        if (op.ignore_value || op.ignore_lease) && self.get(&op.key)?.is_none() {
            return Ok(Err(Refusal::KeyNotFound));
        }
        if op.lease != LeaseId::NONE && !self.leases.contains(op.lease) {
            return Ok(Err(Refusal::LeaseNotFound));
        }
        Ok(Ok(()))
    }

    fn run(
        &mut self,
        txn: &Txn,
        path: &mut impl Iterator<Item = bool>,
        wanted: bool,
    ) -> Result<TxnResult, MachineError> {
        let succeeded = path.next().expect("one decision for each transaction");
        let mut results = Vec::new();
        for op in branch(txn, succeeded) {
            let result = match op {
                Op::Range(_) if !wanted => continue,
                Op::Range(op) => {
                    self.flush()?;
                    let now = self.writing.unwrap_or(self.meta.revision);
                    OpResult::Range(eval::range(self.source, self.slot, op, now)?)
                }
                Op::Put(op) => OpResult::Put(self.run_put(op)?),
                Op::Delete(op) => OpResult::Delete(self.run_delete(op)?),
                Op::Txn(nested) => OpResult::Txn(self.run(nested, path, wanted)?),
            };
            results.push(result);
        }
        Ok(TxnResult { succeeded, results })
    }

    fn run_put(&mut self, op: &PutOp) -> Result<PutResult, MachineError> {
        let kept = if op.ignore_value || op.ignore_lease { self.get(&op.key)? } else { None };
        let value = kept.as_ref().filter(|_| op.ignore_value).map_or(&op.value, |kv| &kv.value).clone();
        let lease = kept.as_ref().filter(|_| op.ignore_lease).map_or(op.lease, |kv| kv.lease);
        let prev = self.put(&op.key, value, lease)?;
        Ok(PutResult { prev: prev.filter(|_| op.prev_kv) })
    }

    fn run_delete(&mut self, op: &DeleteOp) -> Result<DeleteResult, MachineError> {
        let mut result = DeleteResult::default();
        for key in self.keys_in(&op.range)? {
            if let Some(prev) = self.delete(&key)? {
                result.deleted += 1;
                if op.prev_kv {
                    result.prev.push(prev);
                }
            }
        }
        Ok(result)
    }

    // Leases and compaction.

    fn lease_grant(&mut self, id: LeaseId, ttl_s: u64, output: &mut Output) -> Result<Outcome, Refusal> {
        if ttl_s > limits::LEASE_TTL_S_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if id == LeaseId::NONE || self.leases.contains(id) {
            return Err(Refusal::LeaseExists);
        }
        let granted_at = self.meta.applied.next();
        self.leases.grant(id, ttl_s, granted_at);
        self.put_row(self.slot.lease(id), leases::encode(ttl_s, granted_at).into());
        output.granted.push(Grant { id, ttl_s, granted_at });
        Ok(Outcome::LeaseGranted)
    }

    fn lease_revoke(&mut self, id: LeaseId, output: &mut Output) -> Result<Result<Outcome, Refusal>, MachineError> {
        let Some(lease) = self.leases.get(id) else { return Ok(Err(Refusal::LeaseNotFound)) };
        let keys: Vec<Bytes> = lease.keys.iter().cloned().collect();
        for key in keys {
            self.delete(&key)?;
        }
        self.leases.remove(id);
        self.delete_row(self.slot.lease(id));
        output.revoked.push(id);
        Ok(Ok(Outcome::LeaseRevoked))
    }

    fn compact(&mut self, revision: Revision, output: &mut Output) -> Result<Outcome, Refusal> {
        if revision > self.meta.revision {
            return Err(Refusal::RevisionInFuture { current: self.meta.revision });
        }
        if let Some(compacted) = self.meta.compacted
            && revision <= compacted
        {
            return Err(Refusal::RevisionCompacted { compacted });
        }
        self.meta.compacted = Some(revision);
        // History does not reach back any more to when another shard had these keys.
        self.meta.annexes.retain(|annex| annex.revision > revision);
        output.compacted = true;
        Ok(Outcome::Compacted)
    }
}

fn closed(meta: &Meta, ledger: &Ledger) -> Timestamp {
    ledger.oldest_prepared().map_or(meta.clock, |oldest| meta.clock.min(oldest))
}

fn branch(txn: &Txn, holds: bool) -> &[Op] {
    if holds { &txn.success } else { &txn.failure }
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
