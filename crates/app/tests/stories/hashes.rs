//! Three nodes, one history.

use crate::support::{Cluster, PATIENCE, connect, kv, put};
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, HashKvRequest, HashKvResponse};
use std::collections::BTreeSet;
use std::time::Instant;
use tonic::Status;

/// Asks a node until it has applied what it is asked about.
async fn hash(endpoint: &str, revision: i64) -> HashKvResponse {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match try_hash(endpoint, revision).await {
            Err(e) if e.message().contains("future revision") && Instant::now() < deadline => {}
            answer => return answer.expect("hashed"),
        }
    }
}

async fn try_hash(endpoint: &str, revision: i64) -> Result<HashKvResponse, Status> {
    let mut client = MaintenanceClient::new(connect(endpoint).await.expect("a connection"));
    client.hash_kv(HashKvRequest { revision }).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_has_the_same_hash_on_every_node() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    // Written through all of them, with removals and a compaction.
    let mut last = 0;
    for n in 0..60 {
        let mut client = kv(&endpoints[n % 3]).await.expect("a connection");
        let header = if n % 7 == 6 {
            let removal = DeleteRangeRequest { key: format!("k{}", n - 1).into(), ..Default::default() };
            client.delete_range(removal).await.expect("removed").into_inner().header
        } else {
            client.put(put(format!("k{}", n % 20), n.to_string())).await.expect("written").into_inner().header
        };
        last = header.expect("a header").revision;
    }
    let middle = last - 20;
    let hashes_at = async |revision| {
        let mut hashes = BTreeSet::new();
        for endpoint in &endpoints {
            hashes.insert(hash(endpoint, revision).await.hash);
        }
        hashes
    };
    let (of_middle, of_last) = (hashes_at(middle).await, hashes_at(last).await);
    assert_eq!((of_middle.len(), of_last.len()), (1, 1), "{of_middle:?} {of_last:?}");
    assert_ne!(of_middle, of_last);
    // A hash at a revision says nothing about what came later.
    kv(&endpoints[0]).await.expect("a connection").put(put("later", "v")).await.expect("written");
    assert_eq!((hashes_at(middle).await, hashes_at(last).await), (of_middle, of_last));

    let compact = CompactionRequest { revision: middle, physical: true };
    kv(&endpoints[1]).await.expect("a connection").compact(compact).await.expect("compacted");
    let deadline = Instant::now() + PATIENCE;
    for endpoint in &endpoints {
        while hash(endpoint, last).await.compact_revision != middle {
            assert!(Instant::now() < deadline, "{endpoint} does not compact");
        }
    }
    assert_eq!(hashes_at(last).await.len(), 1);
    for endpoint in &endpoints {
        let compacted = try_hash(endpoint, middle - 1).await.expect_err("compacted");
        assert_eq!(compacted.message(), "etcdserver: mvcc: required revision has been compacted");
        let future = try_hash(endpoint, last + 1000).await.expect_err("in the future");
        assert_eq!(future.message(), "etcdserver: mvcc: required revision is a future revision");
    }
}
