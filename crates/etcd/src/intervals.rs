//! Whether a transaction writes a key twice: by two puts, or by a put and a delete. The two branches of a nested transaction may put
//! the same key, since only one of them runs.
//!
//! The order in which operations are looked at is etcd's: deletes, then nested transactions one after the other, then puts. A delete
//! in a nested transaction is seen by what comes after it, and not by the nested transactions before.

use crate::error::{DUPLICATE_KEY, EtcdError};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{DeleteRangeRequest, RequestOp};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// What a list of operations writes.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Deletes,
}

/// A union of ranges.
#[derive(Debug, Default)]
struct Deletes {
    keys: BTreeSet<Bytes>,
    /// From the start to before the end; no two touch.
    spans: BTreeMap<Bytes, Bytes>,
}

impl Deletes {
    fn insert(&mut self, r: &DeleteRangeRequest) {
        if r.range_end.is_empty() {
            self.keys.insert(r.key.clone());
        } else {
            // Here, unlike anywhere else, etcd takes an end of one zero byte literally: such a range holds no key.
            self.insert_span(r.key.clone(), r.range_end.clone());
        }
    }

    fn insert_span(&mut self, mut start: Bytes, mut end: Bytes) {
        if start >= end {
            return;
        }
        // Every span that begins at or before the new end and reaches the new start becomes part of it.
        while let Some((near, far)) = self.spans.range::<Bytes, _>(..=&end).next_back()
            && *far >= start
        {
            let (near, far) = (near.clone(), far.clone());
            self.spans.remove(&near);
            start = start.min(near);
            end = end.max(far);
        }
        self.spans.insert(start, end);
    }

    fn contains(&self, key: &Bytes) -> bool {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.keys.contains(key) || self.spans.range::<Bytes, _>(upto).next_back().is_some_and(|(_, end)| key < end)
    }

    fn extend(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
        for (start, end) in other.spans {
            self.insert_span(start, end);
        }
    }
}

impl Writes {
    /// Refuses lists in which a key is written twice.
    pub fn of(ops: &[RequestOp]) -> Result<Self, EtcdError> {
        let mut writes = Self::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(r)) = &op.request {
                writes.deletes.insert(r);
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(r)) = &op.request {
                writes.nested(Self::of(&r.success)?, Self::of(&r.failure)?)?;
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(r)) = &op.request {
                writes.put(r.key.clone())?;
            }
        }
        Ok(writes)
    }

    fn put(&mut self, key: Bytes) -> Result<(), EtcdError> {
        if self.deletes.contains(&key) || !self.puts.insert(key) { Err(DUPLICATE_KEY) } else { Ok(()) }
    }

    /// Takes over what the branches of a nested transaction write.
    fn nested(&mut self, then: Self, otherwise: Self) -> Result<(), EtcdError> {
        let either: BTreeSet<Bytes> = then.puts.into_iter().chain(otherwise.puts).collect();
        for key in either {
            self.put(key)?;
        }
        self.deletes.extend(then.deletes);
        self.deletes.extend(otherwise.deletes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::etcdserverpb::{PutRequest, TxnRequest};
    use std::time::{Duration, Instant};

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put(key: impl Into<Bytes>) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() }))
    }

    fn delete(key: impl Into<Bytes>, end: impl Into<Bytes>) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { compare: vec![], success, failure }))
    }

    fn check(ops: Vec<RequestOp>) -> Result<(), EtcdError> {
        Writes::of(&ops).map(|_| ())
    }

    #[test]
    fn a_key_is_written_once_in_a_transaction() {
        assert_eq!(check(vec![put("a"), put("b")]), Ok(()));
        assert_eq!(check(vec![put("a"), put("a")]), Err(DUPLICATE_KEY));
        assert_eq!(check(vec![put("b"), delete("a", "c")]), Err(DUPLICATE_KEY));
        assert_eq!(check(vec![put("c"), delete("a", "c")]), Ok(()));
        assert_eq!(check(vec![delete("a", "c"), delete("b", "d")]), Ok(()));
        assert_eq!(check(vec![nested(vec![put("a")], vec![put("a")])]), Ok(()));
        assert_eq!(check(vec![put("a"), nested(vec![], vec![put("a")])]), Err(DUPLICATE_KEY));
        assert_eq!(check(vec![nested(vec![delete("a", "")], vec![]), put("a")]), Err(DUPLICATE_KEY));
    }

    #[test]
    fn what_a_nested_transaction_deletes_is_seen_by_what_comes_after() {
        let (deletes, puts) = (|| nested(vec![delete("a", "z")], vec![]), || nested(vec![], vec![put("m")]));
        assert_eq!(check(vec![deletes(), puts()]), Err(DUPLICATE_KEY));
        assert_eq!(check(vec![puts(), deletes()]), Ok(()));
        assert_eq!(check(vec![nested(vec![delete("m", "")], vec![put("m")])]), Ok(()));
        assert_eq!(check(vec![puts(), puts()]), Err(DUPLICATE_KEY));
    }

    #[test]
    fn ranges_that_hold_no_key_delete_none() {
        assert_eq!(check(vec![delete("b", "a"), put("a"), put("b")]), Ok(()));
        assert_eq!(check(vec![delete("a", "\0"), put("a"), put("b")]), Ok(()));
    }

    #[test]
    fn a_union_of_ranges_holds_what_its_ranges_hold() {
        // Against the definition, on every pair of small ranges after a third.
        let names: Vec<Bytes> = (0..6).map(|n| Bytes::from(vec![b'a' + n])).collect();
        let ranges: Vec<(Bytes, Bytes)> =
            names.iter().flat_map(|start| names.iter().map(move |end| (start.clone(), end.clone()))).collect();
        for first in &ranges {
            for second in &ranges {
                for third in &ranges[8..12] {
                    let three = [first, second, third];
                    let mut deletes = Deletes::default();
                    three.iter().for_each(|(start, end)| deletes.insert_span(start.clone(), end.clone()));
                    for key in &names {
                        let held = three.iter().any(|(start, end)| start <= key && key < end);
                        assert_eq!(deletes.contains(key), held, "{key:?} in {three:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_transaction_is_judged_at_once() {
        // Half puts, half deletes of other keys, under as many levels as there may be: quadratic work would take minutes.
        let half = crate::options::TXN_PARTS_MAX as u32 / 2;
        let name = |n: u32| Bytes::copy_from_slice(&n.to_be_bytes());
        let puts = (0..half).map(|n| put(name(2 * n)));
        let deletes = (0..half).map(|n| delete(name(2 * n + 1), name(2 * n + 2)));
        let inner: Vec<RequestOp> = puts.chain(deletes).collect();
        let deep = (0..quorate_kv::limits::TXN_DEPTH_MAX).fold(inner, |ops, _| vec![nested(ops, vec![])]);
        let began = Instant::now();
        assert_eq!(check(deep), Ok(()));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
