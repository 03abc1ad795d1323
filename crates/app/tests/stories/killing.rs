//! Machines die at any moment.

use crate::support::{Cluster, kv};
use quorate_etcd::proto::etcdserverpb::{PutRequest, RangeRequest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the killing goes on.
const KILLING: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_while_nodes_are_killed() {
    let mut cluster = Cluster::start(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8usize)
        .map(|writer| {
            let (endpoints, stop) = (cluster.endpoints(), stop.clone());
            tokio::spawn(async move {
                // The last acknowledged and the last tried value of this writer's key, and every revision it saw.
                let (mut acknowledged, mut tried, mut revision) = (0u64, 0u64, 0i64);
                let (mut client, mut at) = (kv(&endpoints[writer % 3]).await, writer);
                while !stop.load(Ordering::Relaxed) {
                    tried += 1;
                    let put = PutRequest {
                        key: format!("writer/{writer}").into(),
                        value: tried.to_string().into(),
                        ..Default::default()
                    };
                    let answer = match &mut client {
                        Some(client) => tokio::time::timeout(Duration::from_secs(10), client.put(put)).await,
                        None => Ok(Err(tonic::Status::unavailable("not connected"))),
                    };
                    match answer.expect("no proposal hangs") {
                        Ok(answer) => {
                            let now = answer.into_inner().header.expect("a header").revision;
                            assert!(now > revision, "revision {now} after {revision}");
                            (acknowledged, revision) = (tried, now);
                        }
                        Err(_) => {
                            at += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            client = kv(&endpoints[at % 3]).await;
                        }
                    }
                }
                (format!("writer/{writer}"), acknowledged, tried)
            })
        })
        .collect();
    let began = Instant::now();
    let mut victim = 0;
    while began.elapsed() < KILLING {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.kill(victim % 3);
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.restart(victim % 3);
        victim += 1 + usize::from(victim % 2 == 0);
    }
    stop.store(true, Ordering::Relaxed);
    let mut writes = BTreeMap::new();
    for writer in writers {
        let (key, acknowledged, tried) = writer.await.expect("a writer ends");
        assert!(acknowledged > 10, "{key} got only {acknowledged} writes through");
        writes.insert(key, (acknowledged, tried));
    }
    // All at once, then look.
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.restart(node));
    cluster.ready().await;
    for endpoint in cluster.endpoints() {
        let mut client = kv(&endpoint).await.expect("a connection");
        for (key, (acknowledged, tried)) in &writes {
            let range = RangeRequest { key: key.clone().into(), ..Default::default() };
            let found = client.range(range).await.expect("readable").into_inner();
            let value: u64 = String::from_utf8_lossy(&found.kvs[0].value).parse().expect("a number");
            assert!(
                value >= *acknowledged && value <= *tried,
                "{key}: {value}, acknowledged {acknowledged}, tried {tried}"
            );
        }
    }
}
