//! Bytes of a node's log change while it is down: the others give back what was there.

use crate::support::{Cluster, PATIENCE, fill, kv, put};
use quorate_etcd::proto::etcdserverpb::RangeRequest;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Written before the node is stopped.
const KEYS: usize = 3_000;

/// Places of the log that change.
const PLACES: usize = 12;

/// Bytes that change at each: far more than the log can turn back by itself.
const GARBLED: usize = 64;

fn key(n: usize) -> String {
    format!("rot/{n:05}")
}

/// A value that is easily found again in the log.
fn value(n: usize) -> String {
    format!("<{n:05}>{}", "x".repeat(200))
}

/// Garbles values in the log's files; returns at how many places.
fn garble(log: &Path) -> usize {
    let mut garbled = 0;
    for file in fs::read_dir(log).expect("a log").map(|file| file.expect("a file").path()) {
        let mut bytes = fs::read(&file).expect("readable");
        for place in 1..=PLACES {
            let needle = format!("<{:05}>", place * KEYS / (PLACES + 1));
            let found = bytes.windows(needle.len()).position(|window| window == needle.as_bytes());
            if let Some(at) = found {
                bytes[at..at + GARBLED].iter_mut().for_each(|byte| *byte ^= 0x5A);
                garbled += 1;
            }
        }
        fs::write(&file, bytes).expect("writable");
    }
    garbled
}

async fn count(endpoint: &str) -> i64 {
    let range = RangeRequest { key: "rot/".into(), range_end: "rot0".into(), count_only: true, ..Default::default() };
    let mut client = kv(endpoint).await.expect("a connection");
    client.range(range).await.expect("answered").into_inner().count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_rotted_is_mended_from_the_other_nodes() {
    let mut cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    fill(&endpoints, KEYS, key, value).await;
    cluster.kill(2);
    let garbled = garble(&cluster.data_dir(2).join("wal"));
    assert_eq!(garbled, PLACES, "values that are in the log once");
    cluster.restart(2);
    // The others never stopped.
    let mut client = kv(&endpoints[0]).await.expect("a connection");
    client.put(put(key(KEYS), value(KEYS))).await.expect("written meanwhile");
    let began = Instant::now();
    cluster.ready().await;
    assert!(began.elapsed() < PATIENCE);
    println!("{garbled} places garbled; serves again {:.1} s later", began.elapsed().as_secs_f64());

    // It is whole: with one of the others gone it is needed for every answer.
    cluster.kill(0);
    assert_eq!(count(&endpoints[2]).await, KEYS as i64 + 1);
    for n in (0..=KEYS).step_by(97) {
        let range = RangeRequest { key: key(n).into(), serializable: true, ..Default::default() };
        let found = kv(&endpoints[2]).await.expect("a connection").range(range).await.expect("answered").into_inner();
        assert_eq!(found.kvs.first().map(|kv| kv.value.clone()), Some(value(n).into()), "{}", key(n));
    }
    // And what was mended is on its disk.
    cluster.kill(2);
    cluster.restart(0);
    cluster.restart(2);
    cluster.ready().await;
    assert_eq!(count(&endpoints[2]).await, KEYS as i64 + 1);
}
