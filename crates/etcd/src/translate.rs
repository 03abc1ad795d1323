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
    let by = match r.sort_target() {
        SortTarget::Key => SortBy::Key,
        SortTarget::Version => SortBy::Version,
        SortTarget::Create => SortBy::Create,
        SortTarget::Mod => SortBy::Mod,
        SortTarget::Value => SortBy::Value,
    };
    // Without an order, anything but the key is sorted ascending; by key it is ascending anyway.
    let sort = match (r.sort_order(), by) {
        (SortOrder::None | SortOrder::Ascend, SortBy::Key) => None,
        _ if !known => None,
        (order, by) => Some(Sort { by, descending: order == SortOrder::Descend }),
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
    }
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
        compares: r.compare.into_iter().map(compare).collect(),
        success: r.success.into_iter().filter_map(op).collect(),
        failure: r.failure.into_iter().filter_map(op).collect(),
    }
}

fn op(op: RequestOp) -> Option<Op> {
    Some(match op.request? {
        Request::RequestRange(r) => Op::Range(range(r)),
        Request::RequestPut(r) => Op::Put(put(r)),
        Request::RequestDeleteRange(r) => Op::Delete(delete(&r)),
        Request::RequestTxn(r) => Op::Txn(txn(r)),
    })
}

fn compare(c: EtcdCompare) -> Compare {
    let op = match c.result() {
        CompareResult::Equal => CompareOp::Equal,
        CompareResult::Greater => CompareOp::Greater,
        CompareResult::Less => CompareOp::Less,
        CompareResult::NotEqual => CompareOp::NotEqual,
    };
    let target = c.target();
    let number = match c.target_union {
        Some(
            TargetUnion::Version(n)
            | TargetUnion::CreateRevision(n)
            | TargetUnion::ModRevision(n)
            | TargetUnion::Lease(n),
        ) => n,
        Some(TargetUnion::Value(_)) | None => 0,
    };
    let expected = match target {
        CompareTarget::Version => Expected::Version(number),
        CompareTarget::Create => Expected::Create(number),
        CompareTarget::Mod => Expected::Mod(number),
        CompareTarget::Lease => Expected::Lease(number),
        CompareTarget::Value => Expected::Value(match c.target_union {
            Some(TargetUnion::Value(value)) => value,
            _ => bytes::Bytes::new(),
        }),
    };
    Compare { range: key_range(&c.key, &c.range_end), op, expected }
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
