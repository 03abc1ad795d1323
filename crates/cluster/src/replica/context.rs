//! What a replica works with during one step, lent by its node.

use crate::bounds::HEARD_LATELY_ELECTIONS;
use crate::config::{NodeConfig, Sabotage};
use crate::input::Outputs;
use crate::slots::Slots;
use quorate_env::{Instant, NodeId, Timestamp, WallMs};
use quorate_shard::Procedures;
use quorate_storage::store::Store;
use quorate_storage::wal::LogRecord;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a replica works with during one step.
pub(crate) struct Context<'a> {
    pub now: Instant,
    pub wall: WallMs,
    pub config: &'a NodeConfig,
    pub store: &'a Arc<dyn Store>,
    pub slots: &'a mut Slots,
    pub procedures: &'a Arc<Procedures>,
    pub out: &'a mut Outputs,
    /// Records of the persist in the making.
    pub records: &'a mut Vec<LogRecord>,
    /// Its ticket.
    pub ticket: u64,
    pub no_space: bool,
    /// Whether entries have timestamps: every member knows what they are.
    pub timed: bool,
    /// Nodes that share sleeping groups with this one and were not heard from for long.
    pub silent: &'a BTreeSet<NodeId>,
    /// Every timestamp before this millisecond is over on all clocks, if it is known how far those may be from true time.
    pub over_before: Option<WallMs>,
}

impl Context<'_> {
    /// Whether the simulator has switched this safety mechanism off.
    pub fn sabotaged(&self, what: Sabotage) -> bool {
        self.config.sabotage == Some(what)
    }

    /// Whether no clock stamps anything with an earlier timestamp any more.
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.over_before.is_some_and(|before| at.wall() < before)
    }

    /// Whoever was heard from since then counts as alive.
    pub fn heard_lately(&self) -> Instant {
        heard_lately(self.config, self.now)
    }

    /// The clock that leases are measured on.
    pub fn lease_now(&self) -> Instant {
        if self.sabotaged(Sabotage::LeaseByWallClock) { Instant(self.wall.0 * 1_000_000) } else { self.now }
    }
}

/// Whoever was heard from since then counts as alive.
pub(crate) fn heard_lately(config: &NodeConfig, now: Instant) -> Instant {
    now - config.timing.tick * config.timing.election_ticks * HEARD_LATELY_ELECTIONS
}
