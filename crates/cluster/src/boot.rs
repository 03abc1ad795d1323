//! From what the disk holds to replicas that agree with themselves.
//!
//! The store may be behind the log (it is flushed rarely) or, after a snapshot was installed, ahead of it. Ahead, the log's remains
//! are superseded: everything up to the store's applied entry is committed, and what follows in the log and contradicts it never was.

use crate::slots::Slots;
use quorate_consensus::{Entry, EntryKind, HardState, Membership, Restored, SnapshotPoint};
use quorate_env::{LogIndex, Reader, ReplicaId, ShardId, Term, Writer};
use quorate_shard::{Machine, MachineError, OpenError, Procedures};
use quorate_storage::store::{Store, StoreError};
use quorate_storage::wal::{self, LogEntry, LogRecord, RecoveredLog, Rotted, WalError};
use std::sync::Arc;
use thiserror::Error;

/// Why a node cannot start on this disk.
#[derive(Debug, Error)]
pub enum BootError {
    /// The store failed or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A replica's rows cannot be opened.
    #[error("shard {0}: {1}")]
    Open(ShardId, OpenError),
    /// A replica's first rows cannot be written.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The log has lost what no other replica has.
    #[error(transparent)]
    Log(#[from] WalError),
    /// Entries are missing between what the store has applied and what the log still holds.
    #[error(
        "shard {shard}: entries {applied} to {start} are neither in the store nor in the log; restore this replica from another"
    )]
    Hole {
        /// The shard.
        shard: ShardId,
        /// The last one applied.
        applied: LogIndex,
        /// The last one before the log.
        start: LogIndex,
    },
    /// The cluster does what this release does not know.
    #[error("{0}")]
    Level(String),
    /// The members' rows cannot be read.
    #[error("the members' rows cannot be read: {0}")]
    Roster(String),
    /// The log holds an entry of a kind that this release does not know.
    #[error("shard {0}: the log holds an entry of an unknown kind; start the newer release")]
    UnknownEntry(ShardId),
}

/// A replica as found.
pub(crate) struct Found {
    pub machine: Machine,
    pub restored: Restored,
    /// Entries that are missing from it, in the order of their indexes: it must not be used before they are there.
    pub rotted: Vec<Rotted>,
    /// Rows that reach at least this far must come from another replica: the store has lost what was applied before the log begins.
    pub hole: Option<LogIndex>,
    /// There were no rows at all: it is new, or comes back to where it was.
    pub without_rows: bool,
    /// To be made durable before anything else.
    pub repair: Vec<LogRecord>,
}

impl Found {
    /// What a planted bug makes of it.
    pub fn cut_off(mut self) -> Self {
        if let Some(first) = self.rotted.first().map(|rotted| rotted.index) {
            self.restored.entries.retain(|entry| entry.index < first);
            self.rotted.clear();
        }
        self
    }
}

/// An entry of the log in the words of consensus; none if this release does not know its kind.
pub(crate) fn to_consensus(entry: &LogEntry) -> Option<Entry> {
    let kind = EntryKind::from_number(entry.kind)?;
    Some(Entry { index: entry.index, term: entry.term, kind, data: entry.payload.clone() })
}

/// A log as it is on the disk, of a replica that goes: what it would be found to be.
pub(crate) fn log_of(
    shard: ShardId,
    replica: ReplicaId,
    HardState { term, vote, commit }: HardState,
    start: SnapshotPoint,
    entries: Vec<Entry>,
    rotted: Vec<Rotted>,
) -> RecoveredLog {
    let entry = |Entry { index, term, kind, data }| LogEntry { shard, index, term, kind: kind as u8, payload: data };
    RecoveredLog {
        hard_state: Some(wal::HardState { shard, replica, term, vote, commit }),
        start: (start.index, start.term),
        entries: entries.into_iter().map(entry).collect(),
        rotted,
        ..RecoveredLog::default()
    }
}

/// Opens or creates a shard's replica and lays its log beside it.
pub(crate) fn open_replica(
    shard: ShardId,
    store: &Arc<dyn Store>,
    slots: &mut Slots,
    log: Option<&RecoveredLog>,
    membership: &Membership,
    procedures: &Arc<Procedures>,
) -> Result<Found, BootError> {
    let without_rows = slots.of(shard).is_none();
    let machine = match slots.of(shard) {
        Some(slot) => Machine::open(store.clone(), slot, procedures.clone()).map_err(|e| BootError::Open(shard, e))?,
        None => {
            let slot = slots.allocate()?;
            let mut w = Writer::new();
            membership.encode(&mut w);
            let machine = Machine::create(store.clone(), slot, w.finish().into(), procedures.clone())?;
            slots.switch(shard, slot)?;
            machine
        }
    };
    let (applied, membership) = point_and_membership(shard, &machine)?;
    let empty = RecoveredLog::default();
    let log = log.unwrap_or(&empty);
    let start = SnapshotPoint { index: log.start.0, term: log.start.1 };
    let hole = (start.index > applied.index).then_some(start.index);
    let hard_state = log.hard_state.map_or_else(HardState::default, |hs| HardState {
        term: hs.term,
        vote: hs.vote,
        commit: hs.commit,
    });
    let mut entries = Vec::with_capacity(log.entries.len());
    for entry in &log.entries {
        entries.push(to_consensus(entry).ok_or(BootError::UnknownEntry(shard))?);
    }
    let mut restored = Restored { hard_state, start, entries, applied, membership, at_least: Term(0) };
    let mut rotted = log.rotted.clone();
    let replica = log.hard_state.map_or(ReplicaId(0), |hard_state| hard_state.replica);
    let repair = if hole.is_none() { lay(shard, replica, &mut restored, &mut rotted) } else { Vec::new() };
    Ok(Found { machine, restored, rotted, hole, without_rows, repair })
}

/// Where the rows stand, and the members then.
pub(crate) fn point_and_membership(
    shard: ShardId,
    machine: &Machine,
) -> Result<(SnapshotPoint, Membership), BootError> {
    let meta = machine.meta();
    let membership = Membership::decode(&mut Reader::new(meta.membership.clone()));
    let applied = SnapshotPoint { index: meta.applied, term: meta.applied_term };
    Ok((applied, membership.map_err(|e| BootError::Open(shard, e.into()))?))
}

/// Cuts off the log what the state machine's rows stand for: all of it, if they contradict each other; otherwise what rotted, and what is
/// before that. Returns what must be written to make that last.
pub(crate) fn lay(
    shard: ShardId,
    replica: ReplicaId,
    restored: &mut Restored,
    rotted: &mut Vec<Rotted>,
) -> Vec<LogRecord> {
    let applied = restored.applied;
    let agrees = term_in(restored, rotted, applied.index) == Some(applied.term);
    let covered = rotted.iter().rfind(|rotted| rotted.index <= applied.index);
    let (start, discard_after) = match (agrees, covered) {
        (false, _) => (applied, true),
        // Applied entries are kept for followers that lag. As few of them go as can.
        (true, Some(last)) => (SnapshotPoint { index: last.index, term: last.term }, false),
        (true, None) => return Vec::new(),
    };
    let ends_later = |index: LogIndex| discard_after && index > applied.index;
    let cuts = restored.entries.last().is_some_and(|entry| ends_later(entry.index))
        || rotted.last().is_some_and(|rotted| ends_later(rotted.index));
    restored.start = start;
    restored.entries.retain(|entry| !discard_after && entry.index > start.index);
    rotted.retain(|rotted| !discard_after && rotted.index > start.index);
    let mut records = vec![LogRecord::Start { shard, index: start.index, term: start.term, discard_after }];
    if cuts {
        records.push(next_term(shard, replica, restored));
    }
    records
}

/// Goes to the next term, in which nothing was promised: what was acknowledged in this one is not all in the log any more (`recall`).
pub(crate) fn next_term(shard: ShardId, replica: ReplicaId, restored: &mut Restored) -> LogRecord {
    let term = Term(restored.hard_state.term.0 + 1);
    restored.at_least = term;
    let (vote, commit) = (ReplicaId(0), restored.hard_state.commit);
    LogRecord::HardState(wal::HardState { shard, replica, term, vote, commit })
}

/// The term of the entry at `index`, if the log reaches it; a rotted entry's term is known.
fn term_in(restored: &Restored, rotted: &[Rotted], index: LogIndex) -> Option<Term> {
    if index == restored.start.index {
        return Some(restored.start.term);
    }
    let readable = restored.entries.binary_search_by_key(&index, |entry| entry.index);
    let readable = readable.ok().map(|at| restored.entries[at].term);
    readable.or_else(|| rotted.iter().find(|rotted| rotted.index == index).map(|rotted| rotted.term))
}
