//! Which records are still needed, and in which segment each lies.
//!
//! The ledger is the log's meaning without its bytes: recovery replays records into it, appending records them in it, and upkeep asks
//! it what pins the oldest segment.

use super::{HardState, LogEntry, LogRecord, PromisesLost, RecoveredLog, Rotted, WalError, format};
use bytes::Bytes;
use quorate_env::{LogIndex, ShardId, Term};
use std::collections::BTreeMap;

/// What is live in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Live {
    records: u64,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct KeptEntry {
    term: Term,
    kind: u8,
    payload: Bytes,
    segment: u64,
    /// The payload rotted, and this is known of it.
    rotted: Option<Rotted>,
}

impl KeptEntry {
    fn disk_bytes(&self) -> usize {
        format::record_bytes(self.rotted.as_ref().map_or(self.payload.len(), |rotted| rotted.bytes as usize))
    }
}

#[derive(Clone, Debug, Default)]
struct ShardLog {
    hard_state: Option<(HardState, u64)>,
    promises_lost: Option<PromisesLost>,
    start: (LogIndex, Term),
    /// Where the record of `start` lies, once there is one.
    start_segment: Option<u64>,
    entries: BTreeMap<LogIndex, KeptEntry>,
}

/// See the top of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    shards: BTreeMap<ShardId, ShardLog>,
    live: BTreeMap<u64, Live>,
    live_bytes: u64,
}

impl Ledger {
    /// Takes note of a record that lies in `segment`. A rewritten entry stands where it stood and removes nothing.
    pub fn apply(&mut self, record: &LogRecord, rewritten: bool, segment: u64) {
        match record {
            LogRecord::Entry(entry) => self.apply_entry(entry, rewritten, segment),
            LogRecord::Repair(entry) => self.apply_entry(entry, true, segment),
            LogRecord::HardState(hard_state) => {
                self.add(segment, format::record_bytes(16));
                self.forget_promises(hard_state.shard);
                self.shards.entry(hard_state.shard).or_default().hard_state = Some((*hard_state, segment));
            }
            LogRecord::Start { shard, index, term, discard_after } => {
                self.add(segment, format::record_bytes(0));
                let log = self.shards.entry(*shard).or_default();
                let old = log.start_segment.replace(segment);
                log.start = (*index, *term);
                let gone = if *discard_after {
                    std::mem::take(&mut log.entries)
                } else {
                    let kept = log.entries.split_off(&index.next());
                    std::mem::replace(&mut log.entries, kept)
                };
                if let Some(old) = old {
                    self.remove(old, format::record_bytes(0));
                }
                self.remove_entries(&gone);
            }
        }
    }

    fn apply_entry(&mut self, entry: &LogEntry, rewritten: bool, segment: u64) {
        let (term, kind, payload) = (entry.term, entry.kind, entry.payload.clone());
        self.keep(entry.shard, entry.index, KeptEntry { term, kind, payload, segment, rotted: None }, rewritten);
    }

    fn keep(&mut self, shard: ShardId, index: LogIndex, kept: KeptEntry, rewritten: bool) {
        let log = self.shards.entry(shard).or_default();
        if index <= log.start.0 {
            return;
        }
        let (segment, bytes) = (kept.segment, kept.disk_bytes());
        let mut gone = if rewritten { BTreeMap::new() } else { log.entries.split_off(&index) };
        if let Some(old) = log.entries.insert(index, kept) {
            gone.insert(index, old);
        }
        self.add(segment, bytes);
        self.remove_entries(&gone);
    }

    /// Takes note of an entry that is there and cannot be read. It stands like any other, and keeps its segment, which names it.
    pub fn apply_rotted(&mut self, shard: ShardId, rotted: Rotted) {
        let (index, rewritten) = (rotted.index, rotted.name.is_rewritten());
        let (term, kind, segment) = (rotted.term, rotted.name.entry_kind, rotted.place.0.0);
        self.keep(
            shard,
            index,
            KeptEntry { term, kind, payload: Bytes::new(), segment, rotted: Some(rotted) },
            rewritten,
        );
    }

    /// Takes note of promises that were made and cannot be read. Earlier ones are not what they were.
    pub fn lose_promises(&mut self, shard: ShardId, lost: PromisesLost) {
        self.forget_promises(shard);
        self.add(lost.place.0.0, format::record_bytes(16));
        self.shards.entry(shard).or_default().promises_lost = Some(lost);
    }

    fn forget_promises(&mut self, shard: ShardId) {
        let log = self.shards.entry(shard).or_default();
        let known = log.hard_state.take().map(|(_, segment)| segment);
        let lost = log.promises_lost.take().map(|lost| lost.place.0.0);
        for segment in known.into_iter().chain(lost) {
            self.remove(segment, format::record_bytes(16));
        }
    }

    /// What is known of an entry that rotted.
    pub fn rotted(&self, shard: ShardId, index: LogIndex) -> Option<&Rotted> {
        self.shards.get(&shard)?.entries.get(&index)?.rotted.as_ref()
    }

    fn add(&mut self, segment: u64, bytes: usize) {
        let live = self.live.entry(segment).or_default();
        live.records += 1;
        live.bytes += bytes as u64;
        self.live_bytes += bytes as u64;
    }

    fn remove(&mut self, segment: u64, bytes: usize) {
        let live = self.live.get_mut(&segment);
        assert!(live.is_some(), "segment {segment} holds a live record that was never counted");
        if let Some(live) = live {
            live.records -= 1;
            live.bytes -= bytes as u64;
            if live.records == 0 {
                self.live.remove(&segment);
            }
        }
        self.live_bytes -= bytes as u64;
    }

    fn remove_entries(&mut self, gone: &BTreeMap<LogIndex, KeptEntry>) {
        for entry in gone.values() {
            self.remove(entry.segment, entry.disk_bytes());
        }
    }

    /// The first index that a shard's log does not hold yet.
    pub fn next_index(&self, shard: ShardId) -> LogIndex {
        let Some(log) = self.shards.get(&shard) else { return LogIndex(1) };
        log.entries.last_key_value().map_or(log.start.0, |(last, _)| *last).next()
    }

    /// The lowest segment with a live record.
    pub fn oldest(&self) -> Option<u64> {
        self.live.keys().next().copied()
    }

    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Live records of a segment that can be read, up to about `bytes_max` bytes, at least one if there is any.
    pub fn live_in(&self, segment: u64, bytes_max: usize) -> Vec<LogRecord> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for (&shard, log) in &self.shards {
            let start = log.start_segment.filter(|at| *at == segment).map(|_| LogRecord::Start {
                shard,
                index: log.start.0,
                term: log.start.1,
                discard_after: false,
            });
            let hard_state = log.hard_state.filter(|(_, at)| *at == segment).map(|(h, _)| LogRecord::HardState(h));
            let here = |entry: &KeptEntry| entry.segment == segment && entry.rotted.is_none();
            let entries = log.entries.iter().filter(|(_, entry)| here(entry)).map(|(&index, entry)| {
                let (term, kind, payload) = (entry.term, entry.kind, entry.payload.clone());
                LogRecord::Entry(LogEntry { shard, index, term, kind, payload })
            });
            for record in start.into_iter().chain(hard_state).chain(entries) {
                bytes += format::record_bytes(record.payload_len());
                if bytes > bytes_max && !found.is_empty() {
                    return found;
                }
                found.push(record);
            }
        }
        found
    }

    /// Copies live payloads out of the buffers that they were read in, so that a few of them do not keep whole segments in memory.
    pub fn detach_payloads(&mut self) {
        for entry in self.shards.values_mut().flat_map(|log| log.entries.values_mut()) {
            entry.payload = Bytes::copy_from_slice(&entry.payload);
        }
    }

    /// Each shard's log, for those who start from it. Fails if a log has a hole.
    pub fn logs(&self) -> Result<BTreeMap<ShardId, RecoveredLog>, WalError> {
        let mut logs = BTreeMap::new();
        for (&shard, log) in &self.shards {
            let mut next = log.start.0.next();
            let (mut entries, mut rotted) = (Vec::with_capacity(log.entries.len()), Vec::new());
            for (&index, entry) in &log.entries {
                if index != next {
                    return Err(WalError::Gap { shard, index: next });
                }
                next = index.next();
                if let Some(lost) = &entry.rotted {
                    rotted.push(lost.clone());
                    continue;
                }
                let (term, kind, payload) = (entry.term, entry.kind, entry.payload.clone());
                entries.push(LogEntry { shard, index, term, kind, payload });
            }
            let hard_state = log.hard_state.map(|(hard_state, _)| hard_state);
            let (start, promises_lost) = (log.start, log.promises_lost);
            logs.insert(shard, RecoveredLog { hard_state, start, entries, rotted, promises_lost });
        }
        Ok(logs)
    }
}
