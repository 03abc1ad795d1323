//! The writes of one entry: rows that become visible together, revisions, and what watchers are told.

use super::{Machine, MachineError, Output, Procedures, closed};
use crate::across::ledger::Ledger;
use crate::entry::EntryPayload;
use crate::eval;
use crate::flaw::Flaw;
use crate::leases::Leases;
use crate::meta::Meta;
use crate::rows::{self, EventRow, Slot, When};
use crate::sessions::Sessions;
use crate::source::Source;
use crate::split::birth::Birth;
use bytes::Bytes;
use quorate_env::{ShardId, Term, Timestamp, checksum};
use quorate_kv::across::{Decision, TxStep};
use quorate_kv::{
    Command, Envelope, Event, EventKind, KeyRange, KeyValue, LeaseId, Outcome, Refusal, Revision, SessionId,
};
use quorate_storage::store::{Store, WriteBatch};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The writes of one entry, in the making.
pub struct Transaction<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(crate) source: &'a Source,
    pub(crate) slot: Slot,
    pub(crate) meta: &'a mut Meta,
    pub(crate) leases: &'a mut Leases,
    pub(super) sessions: &'a mut Sessions,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) births: &'a mut BTreeMap<ShardId, Birth>,
    pub(super) procedures: &'a Procedures,
    /// Of the entry.
    pub(crate) term: Term,
    pub(crate) flaw: Option<Flaw>,
    /// Whether locks were released.
    pub(crate) unlocked: bool,
    pub(super) batch: WriteBatch,
    /// Present rows written by this entry and not yet in the store, so that a batch of puts is written once.
    pub(super) fresh: HashMap<Bytes, Option<Bytes>>,
    /// The revision that the running command writes at, once it has written.
    pub(super) writing: Option<Revision>,
    /// Keys that the running command removed.
    pub(super) removed: HashSet<Bytes>,
    pub(super) events: Vec<Event>,
    pub(super) rows: Vec<EventRow>,
    /// Revisions of this entry that happened earlier than it.
    pub(super) late: Vec<(Revision, Timestamp)>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(machine: &'a mut Machine, term: Term) -> Self {
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
    pub(super) fn tell_time(&mut self, payload: &EntryPayload) {
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

    pub(super) fn command(
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
    pub(super) fn remember(&mut self, envelope: &Envelope, touched: &mut BTreeSet<SessionId>) {
        self.sessions.record(envelope.id, envelope.answered_below, self.meta.applied.0 + 1, self.meta.revision);
        touched.insert(envelope.id.session);
    }

    pub(super) fn finish(mut self) -> Result<Vec<Event>, MachineError> {
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

    pub(super) fn current_row(&self, row_key: &Bytes) -> Result<Option<Bytes>, MachineError> {
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

    pub(super) fn write_revision(&mut self) -> Revision {
        if self.flaw == Some(Flaw::RevisionPerWrite) {
            self.meta.revision = self.writing.take().unwrap_or(self.meta.revision);
        }
        *self.writing.get_or_insert(Revision(self.meta.revision.0 + 1))
    }

    pub(super) fn detach(&mut self, lease: LeaseId, key: &Bytes) {
        if lease != LeaseId::NONE && self.flaw != Some(Flaw::KeepAttached) {
            self.leases.detach(lease, key);
            self.delete_row(self.slot.lease_key(lease, key));
        }
    }

    /// Keeps a value that `revision` replaces or removes.
    pub(super) fn make_former(&mut self, old: &KeyValue, row: &Bytes, revision: Revision) {
        if old.mod_revision < revision {
            self.put_row(self.slot.history(&old.key, old.mod_revision), rows::encode_former(Some(row)).into());
        } else if let Some(put) = self.rows.iter_mut().rev().find(|put| put.key == old.key) {
            // The same revision wrote it: no reader ever sees it, only the event tells of it.
            put.overtaken = Some(row.clone());
        }
    }

    pub(super) fn event(&mut self, kind: EventKind, kv: KeyValue, prev: Option<KeyValue>) {
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
}
