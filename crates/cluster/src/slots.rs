//! Which slot of the store holds which replica's rows. Slots are numbered upwards and never reused, so a row of an abandoned transfer
//! can never be taken for a live one.
//!
//! ```text
//!   0000 R shard   the shard's slot
//!   0000 N         the next free slot; written before any row of the slot it gives out
//!   0000 G shard   the shard was let go: whatever its log here has promised, nobody waits for it
//! ```

use bytes::Bytes;
use quorate_env::{DecodeError, Reader, ShardId, Writer};
use quorate_shard::Slot;
use quorate_storage::store::{Store, StoreError, WriteBatch, prefix_end};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

pub(crate) struct Slots {
    store: Arc<dyn Store>,
    next: u32,
    live: BTreeMap<ShardId, Slot>,
    gone: BTreeSet<ShardId>,
    /// Slots with rows that nobody will read again, and up to where these were removed since the node started.
    dead: BTreeMap<Slot, Option<Bytes>>,
}

/// Bytes of a row's key before the shard.
const SHARD_PREFIX: usize = 5;

const LIVE: u8 = b'R';
const GONE: u8 = b'G';

fn shard_key(kind: u8, shard: ShardId) -> Vec<u8> {
    let mut key = vec![0, 0, 0, 0, kind];
    key.extend_from_slice(&shard.0.to_be_bytes());
    key
}

/// The rows of one kind, by their shards.
fn rows_of(store: &Arc<dyn Store>, kind: u8) -> Result<Vec<(ShardId, Bytes)>, StoreError> {
    let from = shard_key(kind, ShardId(0));
    let to = prefix_end(&from[..SHARD_PREFIX]);
    let mut rows = Vec::new();
    for row in store.scan(Bound::Included(from.into()), to, false) {
        let (key, value) = row?;
        let shard = key[SHARD_PREFIX..].try_into().map_err(|_| damaged(Reader::new(key.clone()).error("shard")))?;
        rows.push((ShardId(u64::from_be_bytes(shard)), value));
    }
    Ok(rows)
}

fn damaged(e: DecodeError) -> StoreError {
    StoreError::Damaged(e.to_string())
}

const NEXT_KEY: &[u8] = &[0, 0, 0, 0, b'N'];

impl Slots {
    /// Reads the table. Slots that were given out and belong to nobody are dead.
    pub fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let number = |row: Bytes| Reader::new(row).u32("slot").map_err(damaged);
        let next = store.get(NEXT_KEY)?.map(number).transpose()?.unwrap_or(1);
        let mut live = BTreeMap::new();
        for (shard, slot) in rows_of(&store, LIVE)? {
            live.insert(shard, Slot(number(slot)?));
        }
        let gone = rows_of(&store, GONE)?.into_iter().map(|(shard, _)| shard).collect();
        let dead = (1..next).map(Slot).filter(|slot| !live.values().any(|l| l == slot));
        let dead = dead.map(|slot| (slot, None)).collect();
        Ok(Self { store, next, live, gone, dead })
    }

    pub fn of(&self, shard: ShardId) -> Option<Slot> {
        self.live.get(&shard).copied()
    }

    /// A slot that nobody used before.
    pub fn allocate(&mut self) -> Result<Slot, StoreError> {
        let slot = Slot(self.next);
        self.next += 1;
        let mut w = Writer::new();
        w.u32(self.next);
        let mut batch = WriteBatch::new();
        batch.put(NEXT_KEY, w.finish());
        self.write(batch)?;
        Ok(slot)
    }

    /// From now on `shard` lives in `slot`; where it lived before is dead.
    pub fn switch(&mut self, shard: ShardId, slot: Slot) -> Result<(), StoreError> {
        if let Some(old) = self.live.insert(shard, slot) {
            self.abandon(old);
        }
        let mut w = Writer::new();
        w.u32(slot.0);
        let mut batch = WriteBatch::new();
        batch.put(shard_key(LIVE, shard), w.finish());
        if self.gone.remove(&shard) {
            batch.delete(shard_key(GONE, shard));
        }
        self.write(batch)
    }

    /// `shard` lives here no more.
    pub fn let_go(&mut self, shard: ShardId) -> Result<(), StoreError> {
        if let Some(old) = self.live.remove(&shard) {
            self.abandon(old);
        }
        self.gone.insert(shard);
        let mut batch = WriteBatch::new();
        batch.delete(shard_key(LIVE, shard));
        batch.put(shard_key(GONE, shard), Vec::new());
        self.write(batch)
    }

    /// Whether it was let go, and has not come back.
    pub fn is_gone(&self, shard: ShardId) -> bool {
        self.gone.contains(&shard)
    }

    /// Nobody will read `slot` again.
    pub fn abandon(&mut self, slot: Slot) {
        self.dead.insert(slot, None);
    }

    /// Removes some rows of dead slots.
    pub fn clear_some(&mut self, rows_max: usize) -> Result<(), StoreError> {
        if let Some(mut dead) = self.dead.first_entry() {
            let after = dead.get_mut().take();
            match self.store.clear_prefix(&dead.key().prefix(), after, rows_max)? {
                Some(last) => *dead.get_mut() = Some(last),
                None => drop(dead.remove()),
            }
        }
        Ok(())
    }

    fn write(&self, mut batch: WriteBatch) -> Result<(), StoreError> {
        self.store.write(&mut batch)?;
        self.store.publish();
        Ok(())
    }
}
