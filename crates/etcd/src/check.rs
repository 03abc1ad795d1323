//! What is refused before it reaches the core, in etcd's order.

use crate::error::{EMPTY_KEY, EtcdError, KEY_NOT_FOUND, LEASE_PROVIDED, TOO_MANY_OPS, VALUE_PROVIDED};
use crate::intervals::Writes;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};
use bytes::Bytes;
use quorate_kv::{KeyRange, RangeEnd};

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

/// Recurses into nested transactions: how deep they are and how many was judged in [`crate::shape`], before they were decoded.
pub(crate) fn txn(r: &TxnRequest, max_ops: usize) -> Check {
    txn_ops(r, max_ops)?;
    Writes::of(&r.success)?;
    Writes::of(&r.failure)?;
    Ok(())
}

fn txn_ops(r: &TxnRequest, max_ops: usize) -> Check {
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
            Some(Request::RequestTxn(r)) => txn_ops(r, max_ops - ops)?,
            None => return Err(KEY_NOT_FOUND),
        }
    }
    Ok(())
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
    use crate::proto::etcdserverpb::RequestOp;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put_op(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() }))
    }

    fn check(success: Vec<RequestOp>) -> Check {
        txn(&TxnRequest { success, ..Default::default() }, 128)
    }

    fn nested(success: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { success, ..Default::default() }))
    }

    #[test]
    fn operations_are_counted_along_each_path() {
        let keys: Vec<String> = (0..129).map(|n| n.to_string()).collect();
        let put = |key: &String| op(Request::RequestPut(PutRequest { key: key.clone().into(), ..Default::default() }));
        assert_eq!(check(keys.iter().take(128).map(put).collect()), Ok(()));
        assert_eq!(check(keys.iter().map(put).collect()), Err(TOO_MANY_OPS));
        // Each level takes its operations from what is left of the bound.
        let under = |levels: usize| (0..levels).fold(vec![put_op("a")], |ops, _| vec![nested(ops)]);
        assert_eq!(txn(&TxnRequest { success: under(3), ..Default::default() }, 4), Ok(()));
        assert_eq!(txn(&TxnRequest { success: under(4), ..Default::default() }, 4), Err(TOO_MANY_OPS));
        assert_eq!(check((0..127).map(|_| nested(vec![])).collect()), Ok(()));
        assert_eq!(check(vec![RequestOp { request: None }]), Err(KEY_NOT_FOUND));
        assert_eq!(check(vec![put_op("")]), Err(EMPTY_KEY));
    }
}
