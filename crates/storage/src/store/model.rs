//! The store in memory, for the simulator and as the judge of the real one.
//!
//! It keeps several versions per key, and *pins*: sequence numbers at which somebody (a snapshot, a scan, a seal, the last completed
//! flush) still reads. A version that no pin and no newest read can see is dropped when its key is next written. A crash
//! keeps what was visible at the pin of the last completed flush.

use super::{FlushJob, Rows, Snapshot, Store, StoreError, WriteBatch, bounds_are_empty};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Rows that a scan takes out per visit of the lock.
const SCAN_CHUNK: usize = 64;

/// A version of a row: the sequence number it was written under, and its value unless that was a delete.
type Version = (u64, Option<Bytes>);

#[derive(Default)]
struct State {
    rows: BTreeMap<Bytes, Vec<Version>>,
    /// Sequence number of the newest write. 0: none.
    written: u64,
    published: u64,
    /// What survives a crash.
    durable: u64,
    /// What the job under way will make durable, with the bytes that it will write.
    sealed: Option<(u64, u64)>,
    flushing: bool,
    pins: BTreeMap<u64, usize>,
    memory_bytes: u64,
    disk_bytes: u64,
}

impl State {
    fn pin(&mut self, at: u64) {
        *self.pins.entry(at).or_default() += 1;
    }

    fn unpin(&mut self, at: u64) {
        if let Some(count) = self.pins.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&at);
            }
        }
    }

    fn pinned_between(&self, from: u64, before: u64) -> bool {
        let inside = |at: u64| from <= at && at < before;
        inside(self.durable)
            || inside(self.published)
            || self.sealed.is_some_and(|(at, _)| inside(at))
            || self.pins.range(from..before).next().is_some()
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        self.written += 1;
        self.memory_bytes += (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64;
        let mut versions = self.rows.remove(&key).unwrap_or_default();
        versions.push((self.written, value));
        let next_seq: Vec<u64> = versions.iter().skip(1).map(|(seq, _)| *seq).collect();
        let mut next_seq = next_seq.into_iter();
        versions.retain(|(seq, _)| next_seq.next().is_none_or(|next| self.pinned_between(*seq, next)));
        self.rows.insert(key, versions);
    }

    /// Forgets keys of which nothing is left but a delete that everybody sees.
    fn sweep(&mut self) {
        let oldest = self.pins.keys().next().copied().unwrap_or(u64::MAX).min(self.durable);
        self.rows.retain(|_, versions| !matches!(&versions[..], [(seq, None)] if *seq <= oldest));
    }
}

fn visible(versions: &[Version], at: u64) -> Option<&Bytes> {
    versions.iter().rev().find(|(seq, _)| *seq <= at).and_then(|(_, value)| value.as_ref())
}

/// A store in memory whose flushes are instantaneous and whose crashes are exact.
#[derive(Clone, Default)]
pub struct ModelStore {
    state: Arc<Mutex<State>>,
}

impl ModelStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The store after a crash: everything written before the seal of the last completed flush, nothing else. The crashed store is left
    /// as it was; jobs and snapshots of it have no effect on the new one.
    #[must_use]
    pub fn crash(&self) -> Self {
        let state = self.lock();
        let survivors = state.rows.iter().filter_map(|(key, versions)| {
            visible(versions, state.durable).map(|value| (key.clone(), vec![(1, Some(value.clone()))]))
        });
        let rows: BTreeMap<_, _> = survivors.collect();
        let disk_bytes = state.disk_bytes;
        let fresh = State { rows, written: 1, published: 1, durable: 1, disk_bytes, ..State::default() };
        Self { state: Arc::new(Mutex::new(fresh)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin(&self, which: impl FnOnce(&State) -> u64) -> Pin {
        let mut state = self.lock();
        let at = which(&state);
        state.pin(at);
        Pin { store: self.clone(), at }
    }
}

impl Store for ModelStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let state = self.lock();
        Ok(state.rows.get(key).and_then(|versions| visible(versions, state.written)).cloned())
    }

    fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool) -> Rows {
        Scan::rows(Arc::new(self.pin(|state| state.written)), from, to, reverse)
    }

    fn write(&self, batch: &mut WriteBatch) -> Result<(), StoreError> {
        batch.check()?;
        let mut state = self.lock();
        for (key, value) in batch.drain() {
            state.write(key, value);
        }
        Ok(())
    }

    fn publish(&self) {
        let mut state = self.lock();
        state.published = state.written;
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(ModelSnapshot { pin: Arc::new(self.pin(|state| state.published)) })
    }

    fn memory_bytes(&self) -> u64 {
        self.lock().memory_bytes
    }

    fn seal(&self) -> Option<Box<dyn FlushJob>> {
        let mut state = self.lock();
        state.published = state.written;
        if state.flushing || (state.sealed.is_none() && state.written == state.durable) {
            return None;
        }
        state.flushing = true;
        let sealed = (state.written, state.memory_bytes);
        let sealed = *state.sealed.get_or_insert(sealed);
        Some(Box::new(ModelFlush { store: self.clone(), sealed }))
    }

    fn disk_bytes(&self) -> u64 {
        self.lock().disk_bytes
    }
}

/// Keeps what is visible at a sequence number.
struct Pin {
    store: ModelStore,
    at: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.store.lock().unpin(self.at);
    }
}

struct ModelSnapshot {
    pin: Arc<Pin>,
}

impl Snapshot for ModelSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let state = self.pin.store.lock();
        Ok(state.rows.get(key).and_then(|versions| visible(versions, self.pin.at)).cloned())
    }

    fn scan(&self, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool) -> Rows {
        Scan::rows(Arc::clone(&self.pin), from, to, reverse)
    }
}

struct Scan {
    pin: Arc<Pin>,
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    reverse: bool,
    ready: VecDeque<(Bytes, Bytes)>,
    done: bool,
}

impl Scan {
    fn rows(pin: Arc<Pin>, from: Bound<Bytes>, to: Bound<Bytes>, reverse: bool) -> Rows {
        Box::new(Self { pin, from, to, reverse, ready: VecDeque::new(), done: false })
    }

    fn fill(&mut self) {
        if bounds_are_empty(&self.from, &self.to) {
            self.done = true;
            return;
        }
        let state = self.pin.store.lock();
        let range = state.rows.range::<Bytes, _>((self.from.as_ref(), self.to.as_ref()));
        let take = |(key, versions): (&Bytes, &Vec<Version>)| {
            visible(versions, self.pin.at).map(|value| (key.clone(), value.clone()))
        };
        if self.reverse {
            self.ready.extend(range.rev().filter_map(take).take(SCAN_CHUNK));
        } else {
            self.ready.extend(range.filter_map(take).take(SCAN_CHUNK));
        }
        self.done = self.ready.len() < SCAN_CHUNK;
        if let Some((last, _)) = self.ready.back() {
            let next = Bound::Excluded(last.clone());
            if self.reverse {
                self.to = next;
            } else {
                self.from = next;
            }
        }
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() && !self.done {
            self.fill();
        }
        self.ready.pop_front().map(Ok)
    }
}

struct ModelFlush {
    store: ModelStore,
    sealed: (u64, u64),
}

impl FlushJob for ModelFlush {
    fn run(&self) -> Result<(), StoreError> {
        let mut state = self.store.lock();
        let (at, bytes) = self.sealed;
        if state.sealed.is_some_and(|(sealed, _)| sealed == at) {
            state.sealed = None;
            state.flushing = false;
            state.durable = at;
            state.memory_bytes -= bytes;
            state.sweep();
            let live =
                state.rows.iter().filter_map(|(key, versions)| visible(versions, at).map(|v| key.len() + v.len()));
            state.disk_bytes = live.map(|bytes| bytes as u64).sum();
        }
        Ok(())
    }
}

impl Drop for ModelFlush {
    fn drop(&mut self) {
        let mut state = self.store.lock();
        if state.sealed.is_some_and(|(sealed, _)| sealed == self.sealed.0) {
            state.flushing = false;
        }
    }
}
