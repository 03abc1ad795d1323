//! Leases as replicated state: which exist, for how long they were granted, and which keys go with them.
//!
//! *When* a lease expires is not in here: that is the leader's clock's business (`cluster`), and reaches the machine as a command.

use crate::OpenError;
use crate::rows::{LEASE, LEASE_KEY, SLOT_BYTES, Slot};
use crate::source::Source;
use bytes::Bytes;
use quorate_env::{DecodeError, LogIndex, Reader, Writer};
use quorate_kv::LeaseId;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    pub ttl_s: u64,
    /// The entry that granted it: the same id granted again is another lease.
    pub granted_at: LogIndex,
    pub keys: BTreeSet<Bytes>,
}

#[derive(Debug, Default)]
pub(crate) struct Leases {
    table: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    pub fn load(source: &Source, slot: Slot) -> Result<Self, OpenError> {
        let malformed = || DecodeError { what: "lease row", at: 0 };
        let mut table: BTreeMap<LeaseId, Lease> = BTreeMap::new();
        let (from, to) = slot.kind(LEASE);
        for row in source.scan(from, to) {
            let (key, value) = row?;
            let id = key.get(SLOT_BYTES + 1..).and_then(|id| id.try_into().ok()).ok_or_else(malformed)?;
            let mut r = Reader::new(value);
            let (ttl_s, granted_at) = (r.varint("ttl")?, LogIndex(r.varint("granting entry")?));
            table.insert(LeaseId(i64::from_be_bytes(id)), Lease { ttl_s, granted_at, keys: BTreeSet::new() });
        }
        let (from, to) = slot.kind(LEASE_KEY);
        for row in source.scan(from, to) {
            let key = row?.0;
            let body = key.slice(SLOT_BYTES + 1..);
            let id = body.get(..8).and_then(|id| id.try_into().ok()).ok_or_else(malformed)?;
            let lease = table.get_mut(&LeaseId(i64::from_be_bytes(id))).ok_or_else(malformed)?;
            lease.keys.insert(body.slice(8..));
        }
        Ok(Self { table })
    }

    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.table.get(&id)
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn contains(&self, id: LeaseId) -> bool {
        self.table.contains_key(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> + '_ {
        self.table.iter().map(|(id, lease)| (*id, lease))
    }

    pub fn grant(&mut self, id: LeaseId, ttl_s: u64, granted_at: LogIndex) {
        self.table.insert(id, Lease { ttl_s, granted_at, keys: BTreeSet::new() });
    }

    pub fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        self.table.remove(&id)
    }

    pub fn attach(&mut self, id: LeaseId, key: Bytes) {
        if let Some(lease) = self.table.get_mut(&id) {
            lease.keys.insert(key);
        }
    }

    pub fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.table.get_mut(&id) {
            lease.keys.remove(key);
        }
    }
}

pub(crate) fn encode(ttl_s: u64, granted_at: LogIndex) -> Vec<u8> {
    let mut w = Writer::new();
    w.varint(ttl_s);
    w.varint(granted_at.0);
    w.finish()
}
