//! The contract's words in etcd's messages, and the answers back: the way round that a client needs.

use quorate_env::Term;
use quorate_etcd::proto::etcdserverpb as pb;
use quorate_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_etcd::proto::etcdserverpb::request_op::Request;
use quorate_etcd::proto::etcdserverpb::response_op::Response;
use quorate_etcd::proto::mvccpb;
use quorate_kv::{
    Applied, Compare, CompareOp, DeleteOp, DeleteResult, Event, EventKind, Expected, Header, KeyRange, KeyValue,
    LeaseId, Op, OpResult, Outcome, PutOp, PutResult, RangeEnd, RangeOp, RangeResult, Revision, Txn, TxnResult,
};
use std::iter::zip;

/// etcd's way to say where a range ends.
fn range_end(range: &KeyRange) -> bytes::Bytes {
    match &range.end {
        RangeEnd::Single => bytes::Bytes::new(),
        RangeEnd::Before(end) => end.clone(),
        RangeEnd::Unbounded => bytes::Bytes::from_static(&[0]),
    }
}

pub fn range_request(op: &RangeOp, serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest {
        key: op.range.start.clone(),
        range_end: range_end(&op.range),
        limit: op.limit as i64,
        revision: op.revision.map_or(0, |revision| revision.0 as i64),
        serializable,
        ..Default::default()
    }
}

pub fn put_request(op: &PutOp) -> pb::PutRequest {
    pb::PutRequest {
        key: op.key.clone(),
        value: op.value.clone(),
        lease: op.lease.0,
        prev_kv: op.prev_kv,
        ..Default::default()
    }
}

fn delete_request(op: &DeleteOp) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: op.range.start.clone(), range_end: range_end(&op.range), prev_kv: op.prev_kv }
}

fn request_op(op: &Op) -> pb::RequestOp {
    let request = match op {
        Op::Range(op) => Request::RequestRange(range_request(op, false)),
        Op::Put(op) => Request::RequestPut(put_request(op)),
        Op::Delete(op) => Request::RequestDeleteRange(delete_request(op)),
        Op::Txn(txn) => Request::RequestTxn(txn_request(txn)),
    };
    pb::RequestOp { request: Some(request) }
}

fn compare(compare: &Compare) -> pb::Compare {
    let result = match compare.op {
        CompareOp::Equal => CompareResult::Equal,
        CompareOp::Greater => CompareResult::Greater,
        CompareOp::Less => CompareResult::Less,
        CompareOp::NotEqual => CompareResult::NotEqual,
    };
    let (target, union) = match &compare.expected {
        Expected::Version(v) => (CompareTarget::Version, TargetUnion::Version(*v)),
        Expected::Create(v) => (CompareTarget::Create, TargetUnion::CreateRevision(*v)),
        Expected::Mod(v) => (CompareTarget::Mod, TargetUnion::ModRevision(*v)),
        Expected::Value(v) => (CompareTarget::Value, TargetUnion::Value(v.clone())),
        Expected::Lease(v) => (CompareTarget::Lease, TargetUnion::Lease(*v)),
    };
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: compare.range.start.clone(),
        target_union: Some(union),
        range_end: range_end(&compare.range),
    }
}

pub fn txn_request(txn: &Txn) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: txn.compares.iter().map(compare).collect(),
        success: txn.success.iter().map(request_op).collect(),
        failure: txn.failure.iter().map(request_op).collect(),
    }
}

pub fn header(header: Option<pb::ResponseHeader>) -> Header {
    let header = header.unwrap_or_default();
    Header { revision: Revision(header.revision as u64), term: Term(header.raft_term) }
}

pub fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: Revision(kv.create_revision as u64),
        mod_revision: Revision(kv.mod_revision as u64),
        version: kv.version as u64,
        lease: LeaseId(kv.lease),
    }
}

pub fn event(event: mvccpb::Event) -> Event {
    let kind = if event.r#type == 0 { EventKind::Put } else { EventKind::Delete };
    let kv = key_value(event.kv.unwrap_or_default());
    Event { kind, kv, prev: event.prev_kv.map(key_value) }
}

pub fn range_result(range: pb::RangeResponse) -> RangeResult {
    let kvs = range.kvs.into_iter().map(key_value).collect();
    RangeResult { kvs, more: range.more, count: range.count as u64 }
}

fn put_result(put: pb::PutResponse) -> PutResult {
    PutResult { prev: put.prev_kv.map(key_value) }
}

pub fn put_applied(mut put: pb::PutResponse) -> Applied {
    let header = header(put.header.take());
    let results = vec![OpResult::Put(put_result(put))];
    Applied { header, outcome: Outcome::Transacted(TxnResult { succeeded: true, results }) }
}

/// `None` if the answer does not have a result of the right kind for each operation.
pub fn txn_applied(txn: &Txn, response: pb::TxnResponse) -> Option<Applied> {
    let ops = if response.succeeded { &txn.success } else { &txn.failure };
    if ops.len() != response.responses.len() {
        return None;
    }
    let results = zip(ops, response.responses).map(|(op, response)| match (op, response.response?) {
        (Op::Range(_), Response::ResponseRange(range)) => Some(OpResult::Range(range_result(range))),
        (Op::Put(_), Response::ResponsePut(put)) => Some(OpResult::Put(put_result(put))),
        (Op::Delete(_), Response::ResponseDeleteRange(delete)) => {
            let prev = delete.prev_kvs.into_iter().map(key_value).collect();
            Some(OpResult::Delete(DeleteResult { deleted: delete.deleted as u64, prev }))
        }
        _ => None,
    });
    let results = results.collect::<Option<Vec<OpResult>>>()?;
    let outcome = Outcome::Transacted(TxnResult { succeeded: response.succeeded, results });
    Some(Applied { header: header(response.header), outcome })
}
