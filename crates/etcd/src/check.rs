//! What is refused before it reaches the core, in etcd's order.

use crate::error::{
    DUPLICATE_KEY, EMPTY_KEY, EtcdError, KEY_NOT_FOUND, LEASE_PROVIDED, TOO_MANY_OPS, TXN_TOO_DEEP, VALUE_PROVIDED,
};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;
use quorate_kv::{KeyRange, RangeEnd, limits};
use std::collections::BTreeSet;

type Check = Result<(), EtcdError>;

pub(crate) fn range(r: &RangeRequest) -> Check {
    // Unknown orders and targets are not refused: 3.5 leaves the result unsorted.
    if r.key.is_empty() { Err(EMPTY_KEY) } else { Ok(()) }
}

pub(crate) fn put(r: &PutRequest) -> Check {
    if r.key.is_empty() {
        Err(EMPTY_KEY)
    } else if r.ignore_value && !r.value.is_empty() {
        Err(VALUE_PROVIDED)
    } else if r.ignore_lease && r.lease != 0 {
        Err(LEASE_PROVIDED)
    } else {
        Ok(())
    }
}

pub(crate) fn delete(r: &DeleteRangeRequest) -> Check {
    if r.key.is_empty() { Err(EMPTY_KEY) } else { Ok(()) }
}

pub(crate) fn txn(r: &TxnRequest, max_ops: usize) -> Check {
    // Nesting is judged first: everything after recurses.
    if too_deep(r, 0) {
        return Err(TXN_TOO_DEEP);
    }
    txn_shape(r, max_ops)?;
    intervals(&r.success)?;
    intervals(&r.failure)?;
    Ok(())
}

fn too_deep(r: &TxnRequest, depth: usize) -> bool {
    depth > limits::TXN_DEPTH_MAX
        || r.success.iter().chain(&r.failure).any(|op| match &op.request {
            Some(Request::RequestTxn(nested)) => too_deep(nested, depth + 1),
            _ => false,
        })
}

fn txn_shape(r: &TxnRequest, max_ops: usize) -> Check {
    let ops = r.compare.len().max(r.success.len()).max(r.failure.len());
    if ops > max_ops {
        return Err(TOO_MANY_OPS);
    }
    if r.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EMPTY_KEY);
    }
    for op in r.success.iter().chain(&r.failure) {
        match &op.request {
            Some(Request::RequestRange(r)) => range(r)?,
            Some(Request::RequestPut(r)) => put(r)?,
            Some(Request::RequestDeleteRange(r)) => delete(r)?,
            Some(Request::RequestTxn(r)) => txn_shape(r, max_ops - ops)?,
            None => return Err(KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// What a list of operations writes.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn put(&mut self, key: &Bytes) -> Check {
        if self.deletes.iter().any(|range| range.contains(key)) || !self.puts.insert(key.clone()) {
            Err(DUPLICATE_KEY)
        } else {
            Ok(())
        }
    }
}

/// Refuses lists in which a key is written twice: by two puts, or by a put and a delete. The two branches of a nested transaction
/// may write the same key, since only one of them runs.
fn intervals(ops: &[RequestOp]) -> Result<Writes, EtcdError> {
    let mut writes = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(r)) = &op.request {
            // Here, unlike anywhere else, etcd takes an end of one zero byte literally: such a range holds no key.
            let end = if r.range_end.is_empty() { RangeEnd::Single } else { RangeEnd::Before(r.range_end.clone()) };
            writes.deletes.push(KeyRange { start: r.key.clone(), end });
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(nested)) = &op.request else { continue };
        let (then, otherwise) = (intervals(&nested.success)?, intervals(&nested.failure)?);
        for key in &then.puts {
            writes.put(key)?;
        }
        for key in &otherwise.puts {
            if then.puts.contains(key) {
                continue;
            }
            writes.put(key)?;
        }
        writes.deletes.extend(then.deletes);
        writes.deletes.extend(otherwise.deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(r)) = &op.request {
            writes.put(&r.key)?;
        }
    }
    Ok(writes)
}

/// A key and a range end as etcd means them: no end is one key, a zero byte is "to the end".
pub(crate) fn key_range(key: &Bytes, range_end: &Bytes) -> KeyRange {
    let end = match &range_end[..] {
        [] => RangeEnd::Single,
        [0] => RangeEnd::Unbounded,
        _ => RangeEnd::Before(range_end.clone()),
    };
    KeyRange { start: key.clone(), end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put_op(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() }))
    }

    fn delete_op(key: &'static str, end: &'static str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { compare: vec![], success, failure }))
    }

    fn check(success: Vec<RequestOp>) -> Check {
        txn(&TxnRequest { success, ..Default::default() }, 128)
    }

    #[test]
    fn a_key_is_written_once_in_a_transaction() {
        assert_eq!(check(vec![put_op("a"), put_op("b")]), Ok(()));
        assert_eq!(check(vec![put_op("a"), put_op("a")]), Err(DUPLICATE_KEY));
        assert_eq!(check(vec![put_op("b"), delete_op("a", "c")]), Err(DUPLICATE_KEY));
        assert_eq!(check(vec![put_op("c"), delete_op("a", "c")]), Ok(()));
        assert_eq!(check(vec![delete_op("a", "c"), delete_op("b", "d")]), Ok(()));
        assert_eq!(check(vec![nested(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
        assert_eq!(check(vec![put_op("a"), nested(vec![], vec![put_op("a")])]), Err(DUPLICATE_KEY));
        assert_eq!(check(vec![nested(vec![delete_op("a", "")], vec![]), put_op("a")]), Err(DUPLICATE_KEY));
    }

    #[test]
    fn bounds_are_kept_without_recursing_first() {
        let keys: Vec<String> = (0..129).map(|n| n.to_string()).collect();
        let put = |key: &String| op(Request::RequestPut(PutRequest { key: key.clone().into(), ..Default::default() }));
        assert_eq!(check(keys.iter().take(128).map(put).collect()), Ok(()));
        assert_eq!(check(keys.iter().map(put).collect()), Err(TOO_MANY_OPS));
        let deep = (0..1000).fold(vec![put_op("a")], |ops, _| vec![nested(ops, vec![])]);
        assert_eq!(check(deep), Err(TXN_TOO_DEEP));
        assert_eq!(check(vec![RequestOp { request: None }]), Err(KEY_NOT_FOUND));
        assert_eq!(check(vec![put_op("")]), Err(EMPTY_KEY));
    }
}
