//! Which slot of the store holds which replica's rows. Slots are numbered upwards and never reused, so a row of an abandoned transfer
//! can never be taken for a live one.
//!
//! ```text
//!   0000 R shard   the shard's slot
//!   0000 N         the next free slot; written before any row of the slot it gives out
//! ```

use bytes::Bytes;
use quorate_env::{Reader, ShardId, Writer};
use quorate_shard::Slot;
use quorate_storage::store::{Store, StoreError, WriteBatch, prefix_end};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

pub(crate) struct Slots {
    store: Arc<dyn Store>,
    next: u32,
    live: BTreeMap<ShardId, Slot>,
    /// Slots with rows that nobody will read again.
    dead: BTreeSet<Slot>,
}

/// Bytes of a row's key before the shard.
const SHARD_PREFIX: usize = 5;

fn shard_key(shard: ShardId) -> Vec<u8> {
    let mut key = vec![0, 0, 0, 0, b'R'];
    key.extend_from_slice(&shard.0.to_be_bytes());
    key
}

const NEXT_KEY: &[u8] = &[0, 0, 0, 0, b'N'];

impl Slots {
    /// Reads the table. Slots that were given out and belong to nobody are dead.
    pub fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let damaged = |e: quorate_env::DecodeError| StoreError::Damaged(e.to_string());
        let number = |row: Bytes| Reader::new(row).u32("slot").map_err(damaged);
        let next = store.get(NEXT_KEY)?.map(number).transpose()?.unwrap_or(1);
        let mut live = BTreeMap::new();
        let from = shard_key(ShardId(0));
        let to = prefix_end(&from[..SHARD_PREFIX]);
        for row in store.scan(Bound::Included(from.into()), to, false) {
            let (key, slot) = row?;
            let shard = key[SHARD_PREFIX..].try_into().map_err(|_| damaged(Reader::new(key.clone()).error("shard")))?;
            live.insert(ShardId(u64::from_be_bytes(shard)), Slot(number(slot)?));
        }
        let dead = (1..next).map(Slot).filter(|slot| !live.values().any(|l| l == slot)).collect();
        Ok(Self { store, next, live, dead })
    }

    pub fn of(&self, shard: ShardId) -> Option<Slot> {
        self.live.get(&shard).copied()
    }

    /// A slot that nobody used before.
    pub fn allocate(&mut self) -> Result<Slot, StoreError> {
        let slot = Slot(self.next);
        self.next += 1;
        self.put(NEXT_KEY.to_vec(), self.next)?;
        Ok(slot)
    }

    /// From now on `shard` lives in `slot`; where it lived before is dead.
    pub fn switch(&mut self, shard: ShardId, slot: Slot) -> Result<(), StoreError> {
        if let Some(old) = self.live.insert(shard, slot) {
            self.dead.insert(old);
        }
        self.put(shard_key(shard), slot.0)
    }

    /// Nobody will read `slot` again.
    pub fn abandon(&mut self, slot: Slot) {
        self.dead.insert(slot);
    }

    /// Removes some rows of dead slots.
    pub fn clear_some(&mut self, rows_max: usize) -> Result<(), StoreError> {
        if let Some(slot) = self.dead.first().copied()
            && self.store.clear_prefix(&slot.prefix(), rows_max)? < rows_max
        {
            self.dead.remove(&slot);
        }
        Ok(())
    }

    fn put(&self, key: Vec<u8>, number: u32) -> Result<(), StoreError> {
        let mut w = Writer::new();
        w.u32(number);
        let mut batch = WriteBatch::new();
        batch.put(key, w.finish());
        self.store.write(&mut batch)?;
        self.store.publish();
        Ok(())
    }
}
