//! What clients ask, in words.

use quorate_kv::across::{Look, Transaction};
use quorate_kv::reserve::Wish;
use quorate_kv::{Command, Consistency, Freshness, KeyspaceId, RangeOp};
use quorate_trace::words;

pub(crate) fn read(op: &RangeOp, consistency: Consistency) -> String {
    let how = match consistency {
        Consistency::Linearizable => "linearizable",
        Consistency::Serializable => "serializable",
    };
    words::short(format!("{how} read of {}", words::read(op)))
}

pub(crate) fn submit(command: &Command) -> String {
    words::short(words::command(command))
}

pub(crate) fn transact(transaction: &Transaction) -> String {
    let Transaction { checks, looks, success, failure, .. } = transaction;
    let writes = success.len().max(failure.len());
    format!("in one: {} checks, {} reads, {writes} writes", checks.len(), looks.len())
}

pub(crate) fn reserve(wish: &Wish) -> String {
    let keys = wish.keys.iter().map(|(keyspace, key)| format!("{} in keyspace {}", words::show(key), keyspace.0));
    words::short(format!("reserve {}", words::list(keys)))
}

pub(crate) fn look(looks: &[Look], freshness: Freshness) -> String {
    words::short(words::looks(looks, freshness))
}

pub(crate) fn split(keyspace: KeyspaceId, at: &[u8]) -> String {
    words::short(format!("split keyspace {} at {}", keyspace.0, words::show(at)))
}
