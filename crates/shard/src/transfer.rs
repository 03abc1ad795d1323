//! Sending a shard's rows to a replica that lacks them: in chunks that can be fetched again, each verified, installed by one
//! switch.
//!
//! The sender holds a [`View`]; the receiver asks for the rows behind a cursor. Rows travel without their slot; the receiver
//! writes them into a slot of its own that nobody reads yet. The last chunk carries the hash over all rows, and only when
//! it agrees may the owner switch the replica to the new slot.

use crate::flaw::Flaw;
use crate::machine::MachineError;
use crate::rows::{CURRENT, HISTORY, LEASE, LEASE_KEY, PREPARED, SESSION, SLOT_BYTES, Slot};
use crate::view::View;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, Writer, checksum};
use quorate_kv::log;
use quorate_storage::store::{Store, WriteBatch, prefix_end};
use std::ops::Bound;
use std::sync::Arc;
use thiserror::Error;

/// The last chunks that can be sent again: more than are ever under way at one time.
const MARKS_KEPT: usize = 12;

/// Some of a shard's rows, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The rows' keys (without their slot) and values.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Where the next chunk begins; `None` if this was the last.
    pub next: Option<Bytes>,
    /// The chain over all rows up to the end of this chunk.
    pub hash: u64,
}

/// The sending side: a view with the chain hash at each chunk boundary that was handed out last.
pub struct Export {
    view: View,
    /// The cursor of the next chunk and the hash before it; and of those before, so that lost chunks can be sent again.
    marks: Vec<(Bytes, u64)>,
}

/// Why a chunk was not accepted. The transfer is given up and starts anew.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A chunk does not follow the last one or does not match its hash.
    #[error("a chunk of the snapshot is damaged")]
    Damaged,
    /// The store failed.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl Export {
    /// Begins a transfer of everything in `view`.
    #[must_use]
    pub fn new(view: View) -> Self {
        Self { view, marks: vec![(Bytes::new(), 0)] }
    }

    /// The last entry that the rows reflect.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.view.applied()
    }

    /// About `bytes_max` bytes of rows from `cursor` on. `None` if the cursor is not one that was handed out lately.
    pub fn chunk(&mut self, cursor: &Bytes, bytes_max: usize) -> Result<Option<Chunk>, MachineError> {
        let Some(at) = self.marks.iter().position(|(mark, _)| mark == cursor) else { return Ok(None) };
        let left_behind: &[u8] = match self.view.flaw {
            Some(Flaw::SessionsLeftBehind) => &[SESSION],
            Some(Flaw::LeasesLeftBehind) => &[LEASE, LEASE_KEY],
            Some(Flaw::HistoryLeftBehind) => &[HISTORY],
            Some(Flaw::PreparedLeftBehind) => &[PREPARED],
            _ => &[],
        };
        let prefix = self.view.slot.prefix();
        let mut chunk = Chunk { hash: self.marks[at].1, ..Chunk::default() };
        let mut from = prefix.clone();
        from.extend_from_slice(cursor);
        let mut bytes = 0;
        for row in self.view.source.scan(Bound::Included(from.into()), prefix_end(&prefix)) {
            let (key, value) = row.map_err(MachineError::from)?;
            let key = key.slice(SLOT_BYTES..);
            let bounds = key[0] == CURRENT && key[1..] == *log::BOUNDS;
            if left_behind.contains(&key[0]) || (bounds && self.view.flaw == Some(Flaw::BoundsLeftBehind)) {
                continue;
            }
            if bytes >= bytes_max {
                chunk.next = Some(key);
                break;
            }
            bytes += key.len() + value.len() + 16;
            chunk.hash = checksum::chain(checksum::chain(chunk.hash, &key), &value);
            chunk.rows.push((key, value));
        }
        if let Some(next) = &chunk.next {
            self.marks.truncate(at + 1);
            self.marks.push((next.clone(), chunk.hash));
            let surplus = self.marks.len().saturating_sub(MARKS_KEPT);
            self.marks.drain(..surplus);
        }
        Ok(Some(chunk))
    }
}

/// The receiving side: rows into a slot that nobody reads yet.
pub struct Import {
    store: Arc<dyn Store>,
    slot: Slot,
    cursor: Bytes,
    hash: u64,
    done: bool,
}

impl Import {
    /// Begins to receive into `slot`, which must be empty.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, slot: Slot) -> Self {
        Self { store, slot, cursor: Bytes::new(), hash: 0, done: false }
    }

    /// The slot.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// What to ask for next.
    #[must_use]
    pub fn cursor(&self) -> &Bytes {
        &self.cursor
    }

    /// Whether everything has arrived.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What the chain comes to with these rows.
    #[must_use]
    pub fn chain(&self, chunk: &Chunk) -> u64 {
        chunk.rows.iter().fold(self.hash, |hash, (key, value)| checksum::chain(checksum::chain(hash, key), value))
    }

    /// Takes the chunk that begins at `cursor`. A chunk that arrives twice is ignored.
    pub fn accept(&mut self, cursor: &Bytes, chunk: &Chunk) -> Result<(), ImportError> {
        if self.done || *cursor != self.cursor {
            return Ok(());
        }
        let hash = self.chain(chunk);
        let mut batch = WriteBatch::new();
        for (key, value) in &chunk.rows {
            let mut row = self.slot.prefix();
            row.extend_from_slice(key);
            batch.put(row, value.clone());
        }
        let ordered = chunk.rows.windows(2).all(|w| w[0].0 < w[1].0);
        if hash != chunk.hash || !ordered || chunk.rows.first().is_some_and(|(key, _)| *key < *cursor) {
            return Err(ImportError::Damaged);
        }
        self.store.write(&mut batch).map_err(MachineError::from)?;
        self.store.publish();
        self.hash = hash;
        match &chunk.next {
            Some(next) => self.cursor = next.clone(),
            None => self.done = true,
        }
        Ok(())
    }
}

/// What is left of a shard's rows in a store that is damaged. Nothing of it is believed: rows are offered, and taken only if they hash to
/// what another replica's rows hash to.
pub struct Remains {
    store: Arc<dyn Store>,
    slot: Slot,
}

impl Remains {
    /// The rows in `slot` of a damaged store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, slot: Slot) -> Self {
        Self { store, slot }
    }

    /// The chunk that begins at `cursor` and ends before `next`, as far as it is here; `hash` is what it should come to. `None` if it cannot
    /// be read, or is so large that it cannot be right.
    #[must_use]
    pub fn chunk(&self, cursor: &Bytes, next: Option<&Bytes>, hash: u64, bytes_max: usize) -> Option<Chunk> {
        let place = |key: &Bytes| -> Bytes { [self.slot.prefix().as_slice(), key].concat().into() };
        let to = next.map_or_else(|| prefix_end(&self.slot.prefix()), |next| Bound::Excluded(place(next)));
        let mut chunk = Chunk { next: next.cloned(), hash, ..Chunk::default() };
        let mut bytes = 0;
        for row in self.store.scan(Bound::Included(place(cursor)), to, false) {
            let (key, value) = row.ok()?;
            bytes += key.len() + value.len();
            if bytes > bytes_max {
                return None;
            }
            chunk.rows.push((key.slice(SLOT_BYTES..), value));
        }
        Some(chunk)
    }
}

impl Chunk {
    /// Bytes of its rows.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64
    }

    /// Appends the encoding (docs/design/wire-format.md).
    pub fn encode(&self, w: &mut Writer) {
        w.varint(self.rows.len() as u64);
        for (key, value) in &self.rows {
            w.bytes(key);
            w.bytes(value);
        }
        w.bool(self.next.is_some());
        if let Some(next) = &self.next {
            w.bytes(next);
        }
        w.u64(self.hash);
    }

    /// Reads one back.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let mut chunk = Self::default();
        for _ in 0..r.count("rows")? {
            chunk.rows.push((r.bytes("row key")?, r.bytes("row value")?));
        }
        if r.bool("more chunks")? {
            chunk.next = Some(r.bytes("next cursor")?);
        }
        chunk.hash = r.u64("chunk hash")?;
        Ok(chunk)
    }
}
