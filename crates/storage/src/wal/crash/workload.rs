//! What shards ask of a log, and what the log should then hold, by the plainest code there is.

use crate::wal::{HardState, LogEntry, LogRecord, RecoveredLog};
use quorate_env::checksum::checksum;
use quorate_env::{LogIndex, ReplicaId, Rng, ShardId, Term, Writer};
use std::collections::BTreeMap;

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub shards: BTreeMap<ShardId, RecoveredLog>,
}

impl Model {
    pub fn apply(&mut self, record: &LogRecord) {
        match record {
            LogRecord::Entry(entry) | LogRecord::Repair(entry) => {
                let log = self.shards.entry(entry.shard).or_default();
                log.entries.retain(|old| old.index < entry.index);
                if entry.index > log.start.0 {
                    log.entries.push(entry.clone());
                }
            }
            LogRecord::HardState(hard_state) => {
                self.shards.entry(hard_state.shard).or_default().hard_state = Some(*hard_state);
            }
            LogRecord::Start { shard, index, term, discard_after } => {
                let log = self.shards.entry(*shard).or_default();
                log.start = (*index, *term);
                log.entries.retain(|old| old.index > *index && !discard_after);
            }
        }
    }

    /// This model, and what it is after each of the records.
    pub fn with_each(&self, records: &[LogRecord]) -> Vec<Self> {
        let mut models = vec![self.clone()];
        for record in records {
            let mut next = models[models.len() - 1].clone();
            next.apply(record);
            models.push(next);
        }
        models
    }

    pub fn last_index(&self, shard: ShardId) -> LogIndex {
        let last = |log: &RecoveredLog| log.entries.last().map_or(log.start.0, |entry| entry.index);
        self.shards.get(&shard).map_or(LogIndex(0), last)
    }

    /// A number for telling models apart.
    pub fn digest(&self) -> u64 {
        let mut w = Writer::new();
        for (shard, log) in &self.shards {
            let h = log.hard_state.map_or([0; 4], |h| [h.replica.0, h.term.0, h.vote.0, h.commit.0]);
            for number in [shard.0, log.start.0.0, log.start.1.0].into_iter().chain(h) {
                w.u64(number);
            }
            for entry in &log.entries {
                for number in [entry.index.0, entry.term.0, u64::from(entry.kind), checksum(0, &entry.payload)] {
                    w.u64(number);
                }
            }
        }
        checksum(0, w.as_slice())
    }
}

/// Entries that a shard keeps before it compacts its log.
const ENTRIES_MAX: usize = 30;

/// Draws records that make sense one after the other.
pub(crate) struct Workload {
    pub rng: Rng,
    /// Records so far; also the source of terms and payloads, so that no two records are alike.
    pub written: u64,
    pub shards: u64,
    pub payload_bytes_max: u64,
}

impl Workload {
    /// A few records that make sense after `model`. Shard 0 is quiet: it gets a few records at the start and then nothing more.
    pub fn batch(&mut self, model: &Model, quiet_too: bool) -> Vec<LogRecord> {
        let mut model = model.clone();
        let mut batch = Vec::new();
        for _ in 0..self.rng.between(1, 5) {
            let shard = ShardId(if quiet_too { 0 } else { self.rng.between(1, self.shards) });
            let record = self.record(&model, shard, quiet_too);
            model.apply(&record);
            batch.push(record);
        }
        // Groups compact their logs in time, as snapshots do in a real node.
        for (&shard, log) in &model.shards {
            if log.entries.len() > ENTRIES_MAX && shard != ShardId(0) {
                let index = log.entries[log.entries.len() - 10].index;
                batch.push(LogRecord::Start { shard, index, term: Term(1), discard_after: false });
            }
        }
        batch
    }

    fn record(&mut self, model: &Model, shard: ShardId, quiet: bool) -> LogRecord {
        let log = model.shards.get(&shard).cloned().unwrap_or_default();
        let last = model.last_index(shard);
        self.written += 1;
        let term = Term(self.written);
        match self.rng.below(10) {
            0 => LogRecord::HardState(HardState {
                shard,
                replica: ReplicaId(3),
                term,
                vote: ReplicaId(self.rng.below(3)),
                commit: last,
            }),
            1 if !quiet && log.entries.len() > 4 => {
                let index = LogIndex(self.rng.between(log.start.0.0 + 1, last.0));
                LogRecord::Start { shard, index, term, discard_after: false }
            }
            2 if self.rng.chance(100) => {
                let index = LogIndex(last.0 + self.rng.below(4));
                LogRecord::Start { shard, index, term, discard_after: true }
            }
            _ => {
                // A new leader overwrites the end of the log.
                let conflict = !log.entries.is_empty() && self.rng.chance(100);
                let index = if conflict { self.rng.between(log.start.0.0 + 1, last.0) } else { last.0 + 1 };
                let large = self.rng.chance(100);
                let bytes = self.rng.below(if large { self.payload_bytes_max } else { 600 });
                LogRecord::Entry(self.entry(shard, LogIndex(index), bytes as usize))
            }
        }
    }

    /// An entry that is like no other.
    pub fn entry(&self, shard: ShardId, index: LogIndex, bytes: usize) -> LogEntry {
        let mut payload = format!("payload {} of {shard}.", self.written).into_bytes();
        payload.resize(payload.len().max(bytes), self.written as u8);
        LogEntry { shard, index, term: Term(self.written), kind: self.written as u8, payload: payload.into() }
    }
}
