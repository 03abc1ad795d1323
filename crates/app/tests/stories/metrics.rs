//! What the metrics page says about calls and leaders.

use crate::support::{Cluster, PATIENCE, Watching, call, connect, page, serves};
use bytes::Bytes;
use quorate_etcd::proto::etcdserverpb::LeaseKeepAliveRequest;
use quorate_etcd::proto::etcdserverpb::WatchCreateRequest;
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use std::time::{Duration, Instant};

/// The value of a line, if it is there.
fn value(page: &str, name: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn handled(service: &str, method: &str, code: &str) -> String {
    format!("grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"{service}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_and_every_leader_is_counted() {
    let mut cluster = Cluster::start(3).await;
    let endpoint = cluster.endpoints()[0].clone();
    serves(&endpoint).await;
    let channel = connect(&endpoint).await.expect("a connection");
    for path in ["/etcdserverpb.Auth/UserAdd", "/etcdserverpb.Maintenance/Snapshot"] {
        call(&channel, path, Bytes::new()).await.expect_err("not served");
    }
    call(&channel, "/etcdserverpb.Auth/AuthStatus", Bytes::new()).await.expect("answered");
    let mut leases = LeaseClient::new(channel);
    let requests = tokio_stream::iter([LeaseKeepAliveRequest { id: 5 }]);
    let mut renewals = leases.lease_keep_alive(requests).await.expect("a stream").into_inner();
    while renewals.message().await.expect("no error").is_some() {}
    let mut watching = Watching::on(&endpoint).await;
    watching.created(WatchCreateRequest { key: "k".into(), ..Default::default() }).await;
    watching.close().await;

    let deadline = Instant::now() + PATIENCE;
    let expected = [
        handled("etcdserverpb.KV", "Put", "Ok"),
        handled("etcdserverpb.Auth", "UserAdd", "Unimplemented"),
        handled("etcdserverpb.Maintenance", "Snapshot", "Unimplemented"),
        handled("etcdserverpb.Auth", "AuthStatus", "Ok"),
        handled("etcdserverpb.Lease", "LeaseKeepAlive", "Ok"),
        handled("etcdserverpb.Watch", "Watch", "Ok"),
    ];
    // A stream is counted when it has ended, which its client does not see.
    while let Some(missing) = expected.iter().find(|name| value(&page(&endpoint, "/metrics"), name) != Some(1)) {
        assert!(Instant::now() < deadline, "{missing} is not 1 in\n{}", page(&endpoint, "/metrics"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let metrics = page(&endpoint, "/metrics");
    assert_eq!(value(&metrics, "etcd_server_proposals_pending"), Some(0));
    let seen = |cluster: &Cluster, node: usize| {
        value(&page(&cluster.endpoints()[node], "/metrics"), "etcd_server_leader_changes_seen_total").expect("a line")
    };
    let leads = |cluster: &Cluster, node: usize| {
        value(&page(&cluster.endpoints()[node], "/metrics"), "etcd_server_is_leader") == Some(1)
    };
    let leader = (0..3).find(|node| leads(&cluster, *node)).expect("a leader");
    let witness = (leader + 1) % 3;
    let before = seen(&cluster, witness);
    assert!(before >= 1);
    cluster.kill(leader);
    while seen(&cluster, witness) == before {
        assert!(Instant::now() < deadline, "no change of leader was seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
