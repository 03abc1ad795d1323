//! A copy of a state machine that is ahead of it: entries that are not committed yet are applied to it, in memory only, so that it is known what will come of
//! them if they are.
//!
//! It is the same code on the same rows, so it comes to the same results, which [`Ahead::state_hash`] lets its owner check when the entries are committed. If others
//! are committed instead, it is thrown away.

use crate::machine::{Machine, MachineError, Output};
use crate::meta::OpenError;
use bytes::Bytes;
use quorate_env::{LogIndex, Term};
use quorate_kv::Envelope;
use quorate_storage::store::Overlay;
use std::sync::Arc;

/// Rows of the copy beyond which it is looked whether the original has caught up.
const ROWS_KEPT: usize = 1_024;

/// See the top of this file.
pub struct Ahead {
    machine: Machine,
    rows: Arc<Overlay>,
}

impl Ahead {
    /// A copy that stands where a machine stands now.
    ///
    /// # Errors
    /// If the machine's rows cannot be read.
    pub fn of(machine: &Machine) -> Result<Self, OpenError> {
        let rows = Arc::new(Overlay::over(machine.store().snapshot()));
        Ok(Self { machine: machine.reopened(rows.clone())?, rows })
    }

    /// Up to where entries were applied to it.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.machine.meta().applied
    }

    /// The chain over everything that was applied to it.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.machine.meta().state_hash
    }

    /// As [`Machine::apply`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn apply(
        &mut self,
        index: LogIndex,
        term: Term,
        data: &Bytes,
        awaited: &dyn Fn(&Envelope) -> bool,
    ) -> Result<Output, MachineError> {
        self.rows.mark(index.0);
        self.machine.apply(index, term, data, awaited)
    }

    /// As [`Machine::apply_membership`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn apply_membership(&mut self, index: LogIndex, term: Term, membership: Bytes) -> Result<(), MachineError> {
        self.rows.mark(index.0);
        self.machine.apply_membership(index, term, membership)
    }

    /// Forgets rows that the machine has by now of which this is a copy, if there are many.
    pub fn let_go(&self, of: &Machine) {
        if self.rows.len() > ROWS_KEPT {
            self.rows.rebase(of.store().snapshot(), of.meta().applied.0);
        }
    }
}
