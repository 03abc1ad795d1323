//! From what the disk holds to replicas that agree with themselves.
//!
//! The store may be behind the log (it is flushed rarely) or, after a snapshot was installed, ahead of it. Ahead, the log's remains
//! are superseded: everything up to the store's applied entry is committed, and what follows in the log and contradicts it never was.

use crate::slots::Slots;
use quorate_consensus::{EntryKind, HardState, Membership, Restored, SnapshotPoint};
use quorate_env::{LogIndex, Reader, ReplicaId, ShardId, Term, Writer};
use quorate_shard::{Machine, MachineError, OpenError, Procedures};
use quorate_storage::store::{Store, StoreError};
use quorate_storage::wal::{LogRecord, RecoveredLog};
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
    /// The log holds an entry of a kind that this release does not know.
    #[error("shard {0}: the log holds an entry of an unknown kind; start the newer release")]
    UnknownEntry(ShardId),
}

/// A replica as found.
pub(crate) struct Found {
    pub machine: Machine,
    pub restored: Restored,
    /// To be made durable before anything else.
    pub repair: Option<LogRecord>,
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
    let applied = SnapshotPoint { index: machine.meta().applied, term: machine.meta().applied_term };
    let membership = Membership::decode(&mut Reader::new(machine.meta().membership.clone()))
        .map_err(|e| BootError::Open(shard, e.into()))?;
    let empty = RecoveredLog::default();
    let log = log.unwrap_or(&empty);
    let start = SnapshotPoint { index: log.start.0, term: log.start.1 };
    if start.index > applied.index {
        return Err(BootError::Hole { shard, applied: applied.index, start: start.index });
    }
    let mut hard_state = log.hard_state.map_or_else(HardState::default, |hs| HardState {
        term: hs.term,
        vote: hs.vote,
        commit: hs.commit,
    });
    if hard_state.term < applied.term {
        // A snapshot was installed and the crash came before its hard state: no vote was given in that term.
        hard_state = HardState { term: applied.term, vote: ReplicaId(0), commit: applied.index };
    }
    let mut entries = Vec::with_capacity(log.entries.len());
    for entry in &log.entries {
        entries.push(quorate_consensus::Entry {
            index: entry.index,
            term: entry.term,
            kind: EntryKind::from_number(entry.kind).ok_or(BootError::UnknownEntry(shard))?,
            data: entry.payload.clone(),
        });
    }
    let agrees = term_in(start, &entries, applied.index) == Some(applied.term);
    let mut restored = Restored { hard_state, start, entries, applied, membership };
    let repair = (!agrees).then(|| {
        restored.start = applied;
        restored.entries.clear();
        LogRecord::Start { shard, index: applied.index, term: applied.term, discard_after: true }
    });
    Ok(Found { machine, restored, repair })
}

/// The term of the entry at `index`, if the log reaches it.
fn term_in(start: SnapshotPoint, entries: &[quorate_consensus::Entry], index: LogIndex) -> Option<Term> {
    if index == start.index {
        return Some(start.term);
    }
    entries.get(usize::try_from(index.0.checked_sub(start.index.0 + 1)?).ok()?).map(|entry| entry.term)
}
