//! The group's view of its log: what the engine reads, kept in memory from the last compaction on.
//!
//! ```text
//!   start            applied        last
//!     |  in memory     |              |
//! ----+================+==============+
//!   (index, term)                      entries above `start` are here; at and below it only a snapshot has them
//! ```

use crate::{Entry, HardState, Membership};
use quorate_env::{LogIndex, ReplicaId, Term};
use raft::{GetEntriesContext, RaftState, Storage, StorageError, eraftpb};
use std::collections::VecDeque;

/// An entry's position and term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPoint {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// A group as it was found on disk.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The last hard state written.
    pub hard_state: HardState,
    /// The log begins after this.
    pub start: SnapshotPoint,
    /// The entries after `start`, consecutive.
    pub entries: Vec<Entry>,
    /// The last entry that the state machine has applied; at or above `start`.
    pub applied: SnapshotPoint,
    /// The members as of `applied`.
    pub membership: Membership,
    /// The group goes on in this term, if the hard state's is lower.
    pub at_least: Term,
}

impl Restored {
    /// What the group goes on from. If a snapshot was installed and the crash came before its hard state, no vote was given in the snapshot's
    /// term; but as long as only the rows say that this term was reached, nothing may be promised in it.
    pub(crate) fn promises(&self) -> HardState {
        let term = self.applied.term.max(self.at_least);
        if self.hard_state.term < term {
            HardState { term, vote: ReplicaId(0), commit: self.hard_state.commit.max(self.applied.index) }
        } else {
            self.hard_state
        }
    }
}

pub(crate) struct Log {
    hard_state: eraftpb::HardState,
    conf_state: eraftpb::ConfState,
    start: SnapshotPoint,
    entries: VecDeque<eraftpb::Entry>,
    bytes: u64,
    applied: SnapshotPoint,
}

impl Log {
    pub(crate) fn new(restored: &Restored) -> Self {
        let promises = restored.promises();
        let hard_state = eraftpb::HardState {
            term: promises.term.0,
            vote: promises.vote.0,
            commit: promises.commit.0.max(restored.applied.index.0),
            ..Default::default()
        };
        let mut log = Self {
            hard_state,
            conf_state: restored.membership.to_engine(),
            start: restored.start,
            entries: VecDeque::new(),
            bytes: 0,
            applied: restored.applied,
        };
        for entry in &restored.entries {
            log.append_one(entry.to_engine());
        }
        // A commit index beyond the log can only come from a tail that was cut; the leader will tell it again.
        log.hard_state.commit = log.hard_state.commit.min(log.last());
        log
    }

    fn last(&self) -> u64 {
        self.start.index.0 + self.entries.len() as u64
    }

    fn append_one(&mut self, entry: eraftpb::Entry) {
        assert!(
            entry.index > self.start.index.0 && entry.index <= self.last() + 1,
            "a gap before entry {}",
            entry.index
        );
        while self.last() >= entry.index {
            let old = self.entries.pop_back().expect("last() is above start");
            self.bytes -= size(&old);
        }
        self.bytes += size(&entry);
        self.entries.push_back(entry);
    }

    pub(crate) fn append(&mut self, entries: &[eraftpb::Entry]) {
        for entry in entries {
            self.append_one(entry.clone());
        }
    }

    pub(crate) fn set_hard_state(&mut self, hs: eraftpb::HardState) {
        self.hard_state = hs;
    }

    pub(crate) fn set_applied(&mut self, applied: SnapshotPoint) {
        assert!(
            applied.index >= self.applied.index,
            "applied went back from {} to {}",
            self.applied.index,
            applied.index
        );
        self.applied = applied;
    }

    pub(crate) fn set_membership(&mut self, membership: &Membership) {
        self.conf_state = membership.to_engine();
    }

    /// Forgets everything and begins after `point`: an installed snapshot.
    pub(crate) fn restart_at(&mut self, point: SnapshotPoint, membership: &Membership) {
        self.entries.clear();
        self.bytes = 0;
        self.start = point;
        self.applied = point;
        self.hard_state.commit = self.hard_state.commit.max(point.index.0);
        self.conf_state = membership.to_engine();
    }

    /// Forgets entries at and below `index`, which must be applied.
    pub(crate) fn compact(&mut self, index: LogIndex) {
        assert!(index <= self.applied.index, "compacting {index} above applied {}", self.applied.index);
        while self.start.index < index {
            let entry = self.entries.pop_front().expect("applied entries are in the log");
            self.bytes -= size(&entry);
            self.start = SnapshotPoint { index: LogIndex(entry.index), term: Term(entry.term) };
        }
    }

    pub(crate) fn conf_state(&self) -> &eraftpb::ConfState {
        &self.conf_state
    }

    pub(crate) fn applied(&self) -> SnapshotPoint {
        self.applied
    }

    pub(crate) fn start(&self) -> SnapshotPoint {
        self.start
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The lowest index to which the log may be cut so that at most `keep` bytes of entries remain above it.
    pub(crate) fn cut_for(&self, keep: u64) -> LogIndex {
        let mut over = self.bytes.saturating_sub(keep);
        let mut index = self.start.index;
        for entry in &self.entries {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(size(entry));
            index = LogIndex(entry.index);
        }
        index
    }
}

fn size(entry: &eraftpb::Entry) -> u64 {
    entry.data.len() as u64 + 64
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.start.index.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "entries up to {high} asked of a log that ends at {}", self.last());
        let max = max_size.into().unwrap_or(u64::MAX);
        let from = (low - self.start.index.0 - 1) as usize;
        let mut total = 0;
        let mut out = Vec::new();
        for entry in self.entries.iter().skip(from).take((high - low) as usize) {
            total += size(entry);
            if total > max && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.start.index.0 {
            return Ok(self.start.term.0);
        }
        if index < self.start.index.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        match self.entries.get((index - self.start.index.0 - 1) as usize) {
            Some(entry) => Ok(entry.term),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<eraftpb::Snapshot> {
        if self.applied.index.0 < request_index {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = eraftpb::Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.applied.index.0;
        meta.term = self.applied.term.0;
        meta.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}
