//! Leases at their edges.

use crate::support::{Cluster, connect, kv, put};
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_times_are_taken_as_etcd_takes_them() {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let (mut kv, channel) =
        (kv(&endpoint).await.expect("a connection"), connect(&endpoint).await.expect("a connection"));
    let mut leases = LeaseClient::new(channel);
    // Id 0 asks for one; the shortest time is two seconds.
    let drawn = leases.lease_grant(LeaseGrantRequest { ttl: -10, id: 0 }).await.expect("granted").into_inner();
    assert!(drawn.id > 0 && drawn.ttl == 2, "{drawn:?}");
    let chosen = leases.lease_grant(LeaseGrantRequest { ttl: 100, id: -3 }).await.expect("granted").into_inner();
    assert_eq!((chosen.id, chosen.ttl), (-3, 100));
    let again = leases.lease_grant(LeaseGrantRequest { ttl: 100, id: -3 }).await.expect_err("it exists");
    assert_eq!((again.code(), again.message()), (Code::FailedPrecondition, "etcdserver: lease already exists"));
    let long = leases.lease_grant(LeaseGrantRequest { ttl: 9_000_000_001, id: 0 }).await.expect_err("too long");
    assert_eq!((long.code(), long.message()), (Code::OutOfRange, "etcdserver: too large lease TTL"));

    for key in ["l2", "l1"] {
        kv.put(PutRequest { lease: -3, ..put(key, "v") }).await.expect("written");
    }
    let asked = LeaseTimeToLiveRequest { id: -3, keys: true };
    let left = leases.lease_time_to_live(asked).await.expect("answered").into_inner();
    assert_eq!((left.id, left.granted_ttl, left.keys), (-3, 100, vec!["l1".into(), "l2".into()]));
    assert!((90..=100).contains(&left.ttl), "{}", left.ttl);
    let asked = LeaseTimeToLiveRequest { id: -3, keys: false };
    assert!(leases.lease_time_to_live(asked).await.expect("answered").into_inner().keys.is_empty());

    // Nobody has lease 0. To ask about it is no mistake, to end it is.
    let nobody = leases.lease_time_to_live(LeaseTimeToLiveRequest { id: 0, keys: true }).await.expect("answered");
    assert_eq!((nobody.get_ref().id, nobody.get_ref().ttl, nobody.get_ref().granted_ttl), (0, -1, 0));
    let requests = tokio_stream::iter([0, -9, -3].map(|id| LeaseKeepAliveRequest { id }));
    let mut renewals = leases.lease_keep_alive(requests).await.expect("a stream").into_inner();
    for (id, ttl) in [(0, 0), (-9, 0), (-3, 100)] {
        let renewed = renewals.message().await.expect("no error").expect("an answer");
        assert_eq!((renewed.id, renewed.ttl), (id, ttl));
    }
    assert!(renewals.message().await.expect("no error").is_none(), "the client closed its half");
    let nobody = leases.lease_revoke(LeaseRevokeRequest { id: 0 }).await.expect_err("no such lease");
    assert_eq!((nobody.code(), nobody.message()), (Code::NotFound, "etcdserver: requested lease not found"));
    leases.lease_revoke(LeaseRevokeRequest { id: -3 }).await.expect("revoked");
    let all = RangeRequest { key: "l".into(), range_end: "m".into(), ..Default::default() };
    assert_eq!(kv.range(all).await.expect("read").into_inner().count, 0);
}
