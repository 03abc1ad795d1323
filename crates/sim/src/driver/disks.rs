//! What the nodes' disks are asked to do, and when they have done it.

use super::{Event, Step, Syncing, World};
use crate::history::Violation;
use crate::planted::DriverBug;
use crate::trace::TraceEvent;
use crate::trace::recorder::node_lane;
use quorate_cluster::{Input, Persist};
use quorate_env::ReplicaId;
use quorate_storage::wal::{DiskOp, LogRecord};

/// How often a full disk is tried again, in microseconds.
const FULL_RETRY_US: u64 = 20_000;

/// However slow a disk is, it is done after this long, in microseconds.
const SLOWEST_US: u64 = 2_000_000;

/// What is wrong with a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiskTrouble {
    /// Everything takes so many times as long.
    pub slow: u64,
    /// The store finds no room; the log has some in reserve, or has not.
    pub full: bool,
    pub log_full: bool,
    /// The next operation fails.
    pub fails: bool,
    /// The next write goes elsewhere.
    pub misdirects: bool,
}

impl Default for DiskTrouble {
    fn default() -> Self {
        Self { slow: 1, full: false, log_full: false, fails: false, misdirects: false }
    }
}

impl DiskTrouble {
    /// How long takes what would take `wait` on a disk that is well.
    pub fn takes(self, wait: u64) -> u64 {
        (wait * self.slow).min(wait.max(SLOWEST_US))
    }
}

impl World<'_> {
    /// The store's flush is done, if the disk lets it be.
    pub(super) fn flushed(&mut self, node: usize, life: u64) -> Step {
        if self.nodes[node].life == life && self.disk_refuses(node, Event::Flushed { node, life }) {
            return Ok(());
        }
        if self.nodes[node].life == life
            && let Some((ticket, job)) = self.nodes[node].flushing.take()
        {
            if self.driver_bug() == Some(DriverBug::FlushEarly) {
                self.nodes[node].flushing_late = Some(job);
                self.after(300_000, Event::FlushedLate { node, life });
                return self.feed(node, Input::Flushed { ticket });
            }
            if self.driver_bug() == Some(DriverBug::AppliedTooOld) {
                self.nodes[node].remember_meta();
            }
            job.run().map_err(|e| Violation { rule: "the store flushes", detail: e.to_string() })?;
            self.mark("store flushed");
            self.trace(|| TraceEvent::FlushEnd { node: node_lane(node), ticket });
            self.feed(node, Input::Flushed { ticket })?;
            job.compact().map_err(|e| Violation { rule: "the store flushes", detail: e.to_string() })?;
        }
        Ok(())
    }

    /// Whether an operation that would be done now is not: its node's process ends with the disk error, or it is tried again.
    pub(super) fn disk_refuses(&mut self, node: usize, again: Event) -> bool {
        let DiskTrouble { full, log_full, fails, .. } = self.nodes[node].trouble;
        if fails && self.wounds.forgetful.is_none() {
            self.crash(node, "disk error");
            return true;
        }
        let waits = if matches!(again, Event::Synced { .. }) { log_full } else { full };
        if waits {
            self.after(FULL_RETRY_US, again);
        }
        waits
    }

    pub(super) fn persist(&mut self, node: usize, mut persist: Persist) {
        match self.driver_bug() {
            Some(DriverBug::ForgetTermAndVote) => {
                persist.records.retain(|record| !matches!(record, LogRecord::HardState(_)));
            }
            Some(DriverBug::ForgetVote) => persist.records.iter_mut().for_each(|record| {
                if let LogRecord::HardState(hard_state) = record {
                    hard_state.vote = ReplicaId(0);
                }
            }),
            _ => {}
        }
        self.hash(format!("{persist:?}").as_bytes());
        self.nodes[node].queue.push(persist);
        if self.nodes[node].syncing.is_none() {
            self.start_sync(node);
        }
    }

    /// Everything queued goes into one flush: group commit.
    pub(super) fn start_sync(&mut self, node: usize) {
        let (low, high) = self.plan.sync_us;
        let wait = self.disk_rng.between(low, high);
        let wait = self.nodes[node].trouble.takes(wait);
        let this = &mut self.nodes[node];
        let Some(ticket) = this.queue.last().map(|persist| persist.ticket) else { return };
        let records: Vec<LogRecord> = this.queue.drain(..).flat_map(|persist| persist.records).collect();
        let wal = this.wal.as_mut().expect("a running node has a log");
        let mut ops = Vec::new();
        wal.append(&records, &mut ops);
        wal.upkeep(&mut ops);
        let (count, life) = (records.len() as u64, this.life);
        this.syncing = Some(Syncing { ops, ticket, records });
        self.trace(|| TraceEvent::SyncBegin { node: node_lane(node), ticket, records: count });
        self.after(wait, Event::Synced { node, life });
    }

    pub(super) fn synced(&mut self, node: usize, life: u64) -> Step {
        let bug = self.driver_bug();
        let skipped = |op: &DiskOp| match bug {
            Some(DriverBug::SkipSync) => matches!(op, DiskOp::Sync { .. }),
            Some(DriverBug::SkipDirSync) => matches!(op, DiskOp::SyncDir),
            _ => false,
        };
        if self.nodes[node].life != life || self.disk_refuses(node, Event::Synced { node, life }) {
            return Ok(());
        }
        let this = &mut self.nodes[node];
        let Some(syncing) = this.syncing.take() else { return Ok(()) };
        let ops: Vec<DiskOp> = syncing.ops.iter().filter(|op| !skipped(op)).cloned().collect();
        self.run_on_disk(node, &ops);
        self.raft.synced(node, &syncing.records);
        self.trace(|| TraceEvent::SyncEnd { node: node_lane(node), ticket: syncing.ticket });
        self.start_sync(node);
        self.feed(node, Input::Persisted { ticket: syncing.ticket })
    }
}
