//! Answers, made comparable: what must differ between two servers is blanked, and what has no order is sorted.

use super::request::SHORT_LEASES;
use quorate_etcd::proto::etcdserverpb::response_op::Response as OpResponse;
use quorate_etcd::proto::etcdserverpb::{
    CompactionResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseTimeToLiveResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse,
};
use tonic::{Code, Response, Status};

/// What a server answered.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Range(RangeResponse),
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    Grant(LeaseGrantResponse),
    Revoke(LeaseRevokeResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    Leases(LeaseLeasesResponse),
    /// An error's code and text.
    Refused(Code, String),
}

impl Answer {
    /// The comparable form of what a call returned.
    pub fn of<R>(result: Result<Response<R>, Status>, wrap: impl FnOnce(R) -> Self) -> Self {
        let mut answer = match result {
            Ok(response) => wrap(response.into_inner()),
            Err(status) => Self::Refused(status.code(), status.message().to_owned()),
        };
        answer.normalize();
        answer
    }

    fn normalize(&mut self) {
        match self {
            Self::Range(r) => blank(&mut r.header),
            Self::Put(r) => blank(&mut r.header),
            Self::Delete(r) => blank(&mut r.header),
            Self::Txn(r) => blank_nested(r),
            Self::Compact(r) => blank(&mut r.header),
            Self::Grant(r) => blank(&mut r.header),
            Self::Revoke(r) => blank(&mut r.header),
            Self::TimeToLive(r) => {
                blank(&mut r.header);
                r.keys.sort();
                // What remains depends on the moment; that something does, not.
                r.ttl = r.ttl.signum();
            }
            Self::Leases(r) => {
                blank(&mut r.header);
                r.leases.retain(|lease| lease.id < SHORT_LEASES);
                r.leases.sort_by_key(|lease| lease.id);
            }
            Self::Refused(..) => {}
        }
    }

    /// The revision in its header.
    pub fn revision(&self) -> Option<i64> {
        let header = match self {
            Self::Range(r) => &r.header,
            Self::Put(r) => &r.header,
            Self::Delete(r) => &r.header,
            Self::Txn(r) => &r.header,
            Self::Compact(r) => &r.header,
            Self::Grant(r) => &r.header,
            Self::Revoke(r) => &r.header,
            Self::TimeToLive(r) => &r.header,
            Self::Leases(r) => &r.header,
            Self::Refused(..) => &None,
        };
        header.as_ref().map(|header| header.revision)
    }
}

/// Leaves of a header what two servers must agree on.
pub fn blank(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        *header = ResponseHeader { revision: header.revision, ..Default::default() };
    }
}

fn blank_nested(txn: &mut TxnResponse) {
    blank(&mut txn.header);
    for response in txn.responses.iter_mut().filter_map(|response| response.response.as_mut()) {
        match response {
            OpResponse::ResponseRange(r) => blank(&mut r.header),
            OpResponse::ResponsePut(r) => blank(&mut r.header),
            OpResponse::ResponseDeleteRange(r) => blank(&mut r.header),
            OpResponse::ResponseTxn(r) => blank_nested(r),
        }
    }
}
