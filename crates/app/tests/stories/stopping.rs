//! A server that is told to stop says so.

use crate::support::native::Events;
use crate::support::{Cluster, PATIENCE, Watching, connect};
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, WatchCreateRequest};
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_a_status_and_the_process_with_success() {
    let mut cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let mut watching = Watching::on(&endpoint).await;
    watching.created(WatchCreateRequest { key: "k".into(), ..Default::default() }).await;
    let mut leases = LeaseClient::new(connect(&endpoint).await.expect("a connection"));
    let lease = leases.lease_grant(LeaseGrantRequest { ttl: 100, id: 0 }).await.expect("granted").into_inner().id;
    let requests = tokio_stream::iter([LeaseKeepAliveRequest { id: lease }]).chain(tokio_stream::pending());
    let mut renewals = leases.lease_keep_alive(requests).await.expect("a stream").into_inner();
    assert_eq!(renewals.message().await.expect("an answer").expect("the stream goes on").ttl, 100);
    let mut native = Events::open(&endpoint, "/v1/watch/default", None).expect("a watch");
    assert_eq!(native.next().expect("it stands").name, "created");

    cluster.terminate(0);
    let began = Instant::now();
    let watch_end = watching.end().await;
    let renewal_end = tokio::time::timeout(PATIENCE, renewals.message()).await.expect("an end").expect_err("a status");
    for end in [watch_end, renewal_end] {
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: server stopped"));
    }
    assert_eq!(native.next().expect("it says why").name, "stopping");
    assert!(native.next().is_none(), "nothing comes after the end");
    assert!(cluster.stopped(0).success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
