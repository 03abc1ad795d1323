//! Replicas that this leader brings up by a snapshot: the log from the snapshot on is kept for them, and if they are slow, writers wait a little.
//!
//! ```text
//!   offered ──> fetches rows ──> installs them ──> gets the log from there on ──> has caught up
//!      └───────────── as long as it makes a step now and then ────────────────┘
//! ```
//!
//! Without this the log would be cut past the snapshot while its rows travel, and the replica, once it has them, would need the next one: as long as the load
//! lasts. From half of the bound on, an entry is proposed when such a replica has made a step, so that it gains on the writers; one that makes
//! none holds up nobody, and beyond the bound the log is cut as ever.

use super::{Context, Replica};
use crate::bounds::{LOG_LAG_PART, STEP_PATIENCE, TRANSFER_IDLE};
use quorate_consensus::Role;
use quorate_env::{Instant, LogIndex, ReplicaId};
use std::collections::BTreeMap;

struct Newcomer {
    /// The log from behind here on is what it needs.
    has: LogIndex,
    /// When it made its last step: fetched rows, or acknowledged entries.
    stepped: Instant,
}

/// See the module.
#[derive(Default)]
pub(super) struct Catching {
    newcomers: BTreeMap<ReplicaId, Newcomer>,
    /// Whether anybody has made a step since the last entry was proposed.
    stepped: bool,
}

impl Catching {
    /// A snapshot that reflects everything up to `applied` is offered to `to`.
    pub fn offered(&mut self, to: ReplicaId, applied: LogIndex, now: Instant) {
        self.newcomers.insert(to, Newcomer { has: applied, stepped: now });
    }

    /// `who` asks for rows that it had not asked for.
    pub fn fetches(&mut self, who: ReplicaId, now: Instant) {
        if let Some(newcomer) = self.newcomers.get_mut(&who) {
            newcomer.stepped = now;
            self.stepped = true;
        }
    }

    /// `who` has everything up to `matched`, of a log that is committed up to `committed`.
    pub fn acknowledges(&mut self, who: ReplicaId, matched: LogIndex, committed: LogIndex, now: Instant) {
        let Some(newcomer) = self.newcomers.get_mut(&who).filter(|newcomer| matched > newcomer.has) else { return };
        (newcomer.has, newcomer.stepped) = (matched, now);
        self.stepped = true;
        if matched >= committed {
            self.newcomers.remove(&who);
        }
    }

    /// Forgets those who make no step any more.
    pub fn forget_idle(&mut self, now: Instant) {
        self.newcomers.retain(|_, newcomer| now.since(newcomer.stepped) < TRANSFER_IDLE);
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The log behind here is needed.
    pub fn needs(&self) -> Option<LogIndex> {
        self.newcomers.values().map(|newcomer| newcomer.has).min()
    }

    /// Whether writers wait for a newcomer's next step, with so much in a log that may hold so much.
    pub fn holds_up(&self, log_bytes: u64, hold_bytes: u64, now: Instant) -> bool {
        let steps = |newcomer: &Newcomer| now.since(newcomer.stepped) < STEP_PATIENCE;
        log_bytes >= hold_bytes / 2 && log_bytes < hold_bytes && !self.stepped && self.newcomers.values().any(steps)
    }

    /// An entry may have been proposed.
    pub fn proposed(&mut self) {
        self.stepped = false;
    }
}

impl Replica {
    /// How far the log may be cut when everything up to `durable` is in the store for good.
    pub(super) fn log_cut(&self, durable: LogIndex, cx: &Context<'_>) -> LogIndex {
        let mut target = durable.min(self.group.log_cut_for(cx.config.log_keep_bytes));
        let bytes = self.group.log_bytes();
        if self.group.role() == Role::Leader && bytes < cx.config.log_hold_bytes / LOG_LAG_PART {
            target = target.min(self.group.matched_by_active());
        }
        if bytes < cx.config.log_hold_bytes {
            target = target.min(self.catching.needs().unwrap_or(target));
        }
        target
    }

    /// Whether writers wait for a replica that is being brought up.
    pub(super) fn must_wait_for_newcomer(&self, cx: &Context<'_>) -> bool {
        self.group.role() == Role::Leader
            && self.catching.holds_up(self.group.log_bytes(), cx.config.log_hold_bytes, cx.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NEW: ReplicaId = ReplicaId(3);

    #[test]
    fn the_log_is_kept_from_the_snapshot_on_until_it_has_caught_up() {
        let mut catching = Catching::default();
        assert_eq!(catching.needs(), None);
        catching.offered(NEW, LogIndex(100), Instant(0));
        assert_eq!(catching.needs(), Some(LogIndex(100)));
        catching.acknowledges(NEW, LogIndex(90), LogIndex(200), Instant(1));
        assert_eq!(catching.needs(), Some(LogIndex(100)), "an answer to what was sent before the snapshot");
        catching.acknowledges(NEW, LogIndex(150), LogIndex(200), Instant(1));
        assert_eq!(catching.needs(), Some(LogIndex(150)));
        catching.acknowledges(NEW, LogIndex(200), LogIndex(200), Instant(1));
        assert_eq!(catching.needs(), None);
        catching.offered(NEW, LogIndex(300), Instant(2));
        catching.forget_idle(Instant(2) + TRANSFER_IDLE);
        assert_eq!(catching.needs(), None, "it is gone");
    }

    #[test]
    fn writers_wait_for_the_next_step_and_not_for_one_who_makes_none() {
        let mut catching = Catching::default();
        catching.offered(NEW, LogIndex(100), Instant(0));
        catching.proposed();
        let now = Instant(0) + Duration::from_millis(10);
        assert!(!catching.holds_up(49, 100, now), "there is room");
        assert!(catching.holds_up(50, 100, now));
        assert!(!catching.holds_up(100, 100, now), "it is given up");
        catching.fetches(NEW, now);
        assert!(!catching.holds_up(50, 100, now), "an entry for a step");
        catching.proposed();
        assert!(catching.holds_up(50, 100, now));
        assert!(!catching.holds_up(50, 100, now + STEP_PATIENCE), "it stands still");
    }
}
