//! The calls that are compared.

use super::answer::Answer;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, TxnRequest,
};
use tonic::transport::Channel;

/// Leases of this id and above may expire during a run, or were given a random id: lists of leases are compared without them.
pub const SHORT_LEASES: i64 = 1_000_000;

/// A call with one answer.
#[derive(Clone, Debug)]
pub enum Request {
    /// KV.Range
    Range(RangeRequest),
    /// KV.Put
    Put(PutRequest),
    /// KV.DeleteRange
    Delete(DeleteRangeRequest),
    /// KV.Txn
    Txn(TxnRequest),
    /// KV.Compact
    Compact(CompactionRequest),
    /// Lease.LeaseGrant
    Grant(LeaseGrantRequest),
    /// Lease.LeaseRevoke
    Revoke(LeaseRevokeRequest),
    /// Lease.LeaseTimeToLive
    TimeToLive(LeaseTimeToLiveRequest),
    /// Lease.LeaseLeases
    Leases,
}

impl Request {
    /// Asks a server.
    pub async fn send(&self, channel: Channel) -> Answer {
        let (mut kv, mut lease) = (KvClient::new(channel.clone()), LeaseClient::new(channel));
        match self.clone() {
            Self::Range(r) => Answer::of(kv.range(r).await, Answer::Range),
            Self::Put(r) => Answer::of(kv.put(r).await, Answer::Put),
            Self::Delete(r) => Answer::of(kv.delete_range(r).await, Answer::Delete),
            Self::Txn(r) => Answer::of(kv.txn(r).await, Answer::Txn),
            Self::Compact(r) => Answer::of(kv.compact(r).await, Answer::Compact),
            Self::Grant(r) => {
                let drawn = r.id == 0;
                Answer::of(lease.lease_grant(r).await, |mut answer| {
                    if drawn {
                        answer.id = SHORT_LEASES;
                    }
                    Answer::Grant(answer)
                })
            }
            Self::Revoke(r) => Answer::of(lease.lease_revoke(r).await, Answer::Revoke),
            Self::TimeToLive(r) => Answer::of(lease.lease_time_to_live(r).await, Answer::TimeToLive),
            Self::Leases => Answer::of(lease.lease_leases(LeaseLeasesRequest {}).await, Answer::Leases),
        }
    }
}
