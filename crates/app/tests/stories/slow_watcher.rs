//! A client that watches and does not read. That what is held for it is bounded is tested where the bounds are, in `etcd::outbox` and
//! `runtime::watch`: the memory of a whole process says too little.

use crate::support::{Cluster, Watching, kv, put};
use quorate_etcd::proto::etcdserverpb::WatchCreateRequest;

const VALUE_BYTES: usize = 1 << 20;
const PUTS: i64 = 128;

fn watch_all() -> WatchCreateRequest {
    WatchCreateRequest { key: "k".into(), ..Default::default() }
}

/// Takes events until that of `last`; they must be all, in order, from `first` on.
async fn takes_all(mut watching: Watching, first: i64, last: i64) -> Watching {
    let mut expected = first;
    while expected <= last {
        for event in watching.next().await.events {
            assert_eq!(event.kv.expect("a key").mod_revision, expected);
            expected += 1;
        }
    }
    watching
}

/// Writes the same key over and over; returns the last revision.
async fn write(endpoint: &str) -> i64 {
    let mut client = kv(endpoint).await.expect("a connection");
    let mut revision = 0;
    for n in 0..PUTS {
        let value = vec![n as u8; VALUE_BYTES];
        revision = client.put(put("k", value)).await.expect("written").into_inner().header.expect("a header").revision;
    }
    revision
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_delays_only_itself_and_misses_nothing() {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let (mut reader, mut stalled) = (Watching::on(&endpoint).await, Watching::on(&endpoint).await);
    reader.created(watch_all()).await;
    stalled.created(watch_all()).await;
    let (last, _reader) = tokio::join!(write(&endpoint), takes_all(reader, 2, PUTS + 1));
    assert_eq!(last, PUTS + 1);
    // When it reads again it has missed nothing: what did not fit its queues was kept for it in history.
    takes_all(stalled, 2, last).await;
}
