//! Between etcd's messages and the core's words.

use crate::check::key_range;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{
    Compare as EtcdCompare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::proto::mvccpb;
use quorate_kv::{
    Compare, CompareOp, DeleteOp, DeleteResult, Event, EventKind, Expected, Header, Identity, KeyValue, LeaseId, Op,
    OpResult, PutOp, PutResult, RangeOp, RangeResult, Revision, Sort, SortBy, Txn, TxnResult,
};

pub(crate) fn header(identity: Identity, header: Header) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: identity.cluster.0,
        member_id: identity.node.0,
        revision: header.revision.0 as i64,
        raft_term: header.term.0,
    })
}

/// A number that means "no bound" when it is not positive.
fn bound(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(crate) fn range(r: RangeRequest) -> RangeOp {
    // An unknown order or target leaves the result as it is: ascending by key.
    let known = SortOrder::try_from(r.sort_order).is_ok() && SortTarget::try_from(r.sort_target).is_ok();
    let unordered = r.sort_order() == SortOrder::None;
    let by = match r.sort_target() {
        SortTarget::Key => SortBy::Key,
        SortTarget::Version => SortBy::Version,
        SortTarget::Create => SortBy::Create,
        SortTarget::Mod => SortBy::Mod,
        SortTarget::Value => SortBy::Value,
    };
    // Without an order, anything but the key is sorted ascending, though only what the limit left; by key it is ascending anyway.
    let sort = match (r.sort_order(), by) {
        (SortOrder::None | SortOrder::Ascend, SortBy::Key) => None,
        _ if !known => None,
        (order, by) => Some(Sort { by, descending: order == SortOrder::Descend, after_limit: unordered }),
    };
    RangeOp {
        range: key_range(&r.key, &r.range_end),
        limit: bound(r.limit),
        revision: Some(Revision(bound(r.revision))).filter(|revision| revision.0 > 0),
        sort,
        keys_only: r.keys_only,
        count_only: r.count_only,
        min_mod: bound(r.min_mod_revision),
        max_mod: bound(r.max_mod_revision),
        min_create: bound(r.min_create_revision),
        max_create: bound(r.max_create_revision),
        bytes_max: 0,
    }
}

/// A read within a transaction. There, unlike alone, etcd refuses a negative revision as compacted; until something was, it is the present.
fn range_in_txn(r: RangeRequest) -> RangeOp {
    let negative = r.revision < 0;
    let op = range(r);
    if negative { RangeOp { revision: Some(Revision(0)), ..op } } else { op }
}

pub(crate) fn put(r: PutRequest) -> PutOp {
    PutOp {
        key: r.key,
        value: r.value,
        lease: LeaseId(r.lease),
        prev_kv: r.prev_kv,
        ignore_value: r.ignore_value,
        ignore_lease: r.ignore_lease,
    }
}

pub(crate) fn delete(r: &DeleteRangeRequest) -> DeleteOp {
    DeleteOp { range: key_range(&r.key, &r.range_end), prev_kv: r.prev_kv }
}

pub(crate) fn txn(r: TxnRequest) -> Txn {
    Txn {
        compares: r.compare.into_iter().filter_map(compare).collect(),
        success: r.success.into_iter().filter_map(op).collect(),
        failure: r.failure.into_iter().filter_map(op).collect(),
    }
}

fn op(op: RequestOp) -> Option<Op> {
    Some(match op.request? {
        Request::RequestRange(r) => Op::Range(range_in_txn(r)),
        Request::RequestPut(r) => Op::Put(put(r)),
        Request::RequestDeleteRange(r) => Op::Delete(delete(&r)),
        Request::RequestTxn(r) => Op::Txn(txn(r)),
    })
}

/// `None` is a condition that always holds. What is expected of another attribute than the target's counts as not given, which is 0 or no
/// bytes. An unknown target is equal to anything; an unknown result holds, if only the attribute is there to be compared.
fn compare(c: EtcdCompare) -> Option<Compare> {
    let (result, target) = (CompareResult::try_from(c.result), CompareTarget::try_from(c.target));
    let range = key_range(&c.key, &c.range_end);
    let never = (CompareOp::Less, Expected::Version(0));
    let exists = (CompareOp::Greater, Expected::Version(0));
    let (op, expected) = match (result, target) {
        (Ok(CompareResult::Equal) | Err(_), Err(_)) => return None,
        (Ok(_), Err(_)) => never,
        (Err(_), Ok(CompareTarget::Value)) => exists,
        (Err(_), Ok(_)) => return None,
        (Ok(result), Ok(target)) => (compare_op(result), expected(target, c.target_union)),
    };
    Some(Compare { range, op, expected })
}

fn compare_op(result: CompareResult) -> CompareOp {
    match result {
        CompareResult::Equal => CompareOp::Equal,
        CompareResult::Greater => CompareOp::Greater,
        CompareResult::Less => CompareOp::Less,
        CompareResult::NotEqual => CompareOp::NotEqual,
    }
}

fn expected(target: CompareTarget, given: Option<TargetUnion>) -> Expected {
    match (target, given) {
        (CompareTarget::Version, Some(TargetUnion::Version(n))) => Expected::Version(n),
        (CompareTarget::Version, _) => Expected::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(n))) => Expected::Create(n),
        (CompareTarget::Create, _) => Expected::Create(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(n))) => Expected::Mod(n),
        (CompareTarget::Mod, _) => Expected::Mod(0),
        (CompareTarget::Lease, Some(TargetUnion::Lease(n))) => Expected::Lease(n),
        (CompareTarget::Lease, _) => Expected::Lease(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Expected::Value(value),
        (CompareTarget::Value, _) => Expected::Value(bytes::Bytes::new()),
    }
}

pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0 as i64,
        mod_revision: kv.mod_revision.0 as i64,
        version: kv.version as i64,
        value: kv.value,
        lease: kv.lease.0,
    }
}

pub(crate) fn event(event: &Event, with_prev: bool) -> mvccpb::Event {
    let r#type = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: r#type as i32,
        kv: Some(key_value(event.kv.clone())),
        prev_kv: event.prev.clone().filter(|_| with_prev).map(key_value),
    }
}

pub(crate) fn range_response(header: Option<ResponseHeader>, result: RangeResult) -> RangeResponse {
    RangeResponse {
        header,
        kvs: result.kvs.into_iter().map(key_value).collect(),
        more: result.more,
        count: result.count as i64,
    }
}

pub(crate) fn put_response(header: Option<ResponseHeader>, result: PutResult) -> PutResponse {
    PutResponse { header, prev_kv: result.prev.map(key_value) }
}

pub(crate) fn delete_response(header: Option<ResponseHeader>, result: DeleteResult) -> DeleteRangeResponse {
    DeleteRangeResponse {
        header,
        deleted: result.deleted as i64,
        prev_kvs: result.prev.into_iter().map(key_value).collect(),
    }
}

pub(crate) fn txn_response(header: Option<ResponseHeader>, result: TxnResult) -> TxnResponse {
    let last = header.as_ref().map_or(0, |h| h.revision);
    let mut seen = if writes(&result) { Seen { revision: last - 1, last } } else { Seen { revision: last, last } };
    let (succeeded, responses) = (result.succeeded, op_responses(result, &mut seen));
    TxnResponse { header, succeeded, responses }
}

fn writes(result: &TxnResult) -> bool {
    result.results.iter().any(|result| match result {
        OpResult::Range(_) => false,
        OpResult::Put(_) => true,
        OpResult::Delete(result) => result.deleted > 0,
        OpResult::Txn(result) => writes(result),
    })
}

/// The revision that operations of a transaction see: the one before it, until it has written.
struct Seen {
    revision: i64,
    last: i64,
}

impl Seen {
    fn header(&mut self, wrote: bool) -> Option<ResponseHeader> {
        if wrote {
            self.revision = self.last;
        }
        Some(ResponseHeader { revision: self.revision, ..Default::default() })
    }
}

fn op_responses(result: TxnResult, seen: &mut Seen) -> Vec<ResponseOp> {
    let response = |result| match result {
        OpResult::Range(result) => Response::ResponseRange(range_response(seen.header(false), result)),
        OpResult::Put(result) => Response::ResponsePut(put_response(seen.header(true), result)),
        OpResult::Delete(result) => {
            Response::ResponseDeleteRange(delete_response(seen.header(result.deleted > 0), result))
        }
        OpResult::Txn(result) => {
            let succeeded = result.succeeded;
            let responses = op_responses(result, seen);
            Response::ResponseTxn(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
        }
    };
    result.results.into_iter().map(response).map(|response| ResponseOp { response: Some(response) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn of(result: i32, target: CompareTarget, target_union: Option<TargetUnion>) -> Option<(CompareOp, Expected)> {
        let target = target as i32;
        let compare = compare(EtcdCompare { result, target, key: "k".into(), range_end: Bytes::new(), target_union });
        compare.map(|compare| (compare.op, compare.expected))
    }

    #[test]
    fn what_is_expected_of_another_attribute_is_not_given() {
        let version = || Some(TargetUnion::Version(3));
        assert_eq!(of(0, CompareTarget::Version, version()), Some((CompareOp::Equal, Expected::Version(3))));
        assert_eq!(of(1, CompareTarget::Mod, version()), Some((CompareOp::Greater, Expected::Mod(0))));
        assert_eq!(of(2, CompareTarget::Value, version()), Some((CompareOp::Less, Expected::Value(Bytes::new()))));
        assert_eq!(of(3, CompareTarget::Lease, None), Some((CompareOp::NotEqual, Expected::Lease(0))));
    }

    #[test]
    fn unknown_compares_are_judged_as_etcd_judges_them() {
        let exists = Some((CompareOp::Greater, Expected::Version(0)));
        let never = Some((CompareOp::Less, Expected::Version(0)));
        assert_eq!(of(9, CompareTarget::Version, None), None, "always holds");
        assert_eq!(of(9, CompareTarget::Value, None), exists);
        let unknown = |result| compare(EtcdCompare { result, target: 9, key: "k".into(), ..Default::default() });
        assert_eq!(unknown(CompareResult::Equal as i32), None, "always holds");
        assert_eq!(unknown(9), None, "always holds");
        for result in [CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual] {
            assert_eq!(unknown(result as i32).map(|compare| (compare.op, compare.expected)), never);
        }
    }

    #[test]
    fn an_order_that_was_not_asked_for_comes_after_the_limit() {
        let sort = |sort_order: SortOrder, sort_target: SortTarget| {
            let (sort_order, sort_target) = (sort_order as i32, sort_target as i32);
            range(RangeRequest { sort_order, sort_target, ..Default::default() }).sort
        };
        assert_eq!(sort(SortOrder::None, SortTarget::Key), None);
        let by_mod = Sort { by: SortBy::Mod, descending: false, after_limit: true };
        assert_eq!(sort(SortOrder::None, SortTarget::Mod), Some(by_mod));
        assert_eq!(sort(SortOrder::Ascend, SortTarget::Mod), Some(Sort { after_limit: false, ..by_mod }));
    }

    #[test]
    fn a_negative_revision_is_the_present_alone_and_the_oldest_in_a_transaction() {
        let negative = || RangeRequest { revision: -1, ..Default::default() };
        assert_eq!(range(negative()).revision, None);
        let txn = txn(TxnRequest {
            success: vec![RequestOp { request: Some(Request::RequestRange(negative())) }],
            ..Default::default()
        });
        assert!(matches!(&txn.success[..], [Op::Range(op)] if op.revision == Some(Revision(0))));
    }
}
