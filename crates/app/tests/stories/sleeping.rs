//! Shards that nobody asks for anything sleep; whoever asks finds them, also when the node that led them stands still.

use crate::support::native::{create, request};
use crate::support::{Cluster, PATIENCE, page};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

const SHARDS: usize = 40;

/// The system keyspace's shard and the default keyspace's never sleep.
const NEVER_ASLEEP: usize = 2;

fn key(shard: usize) -> String {
    format!("{shard:02}")
}

fn gauge(endpoint: &str, name: &str) -> usize {
    let page = page(endpoint, "/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.unwrap_or_else(|| panic!("no {name} in\n{page}"))
}

fn asleep(endpoint: &str) -> usize {
    gauge(endpoint, "quorate_shards_asleep ")
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not {what} in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn all_sleep(cluster: &Cluster) {
    for endpoint in cluster.endpoints() {
        until("asleep", || gauge(&endpoint, "quorate_shards ") == SHARDS + NEVER_ASLEEP && asleep(&endpoint) == SHARDS)
            .await;
    }
}

/// Writes into every shard; what is unavailable while a leader is found is asked for again.
fn write(endpoint: &str, value: &str) {
    for shard in 0..SHARDS {
        let (began, path) = (Instant::now(), format!("/v1/kv/many/{}", key(shard)));
        loop {
            match request(endpoint, "PUT", &path, None, &json!({ "value": value })).expect("an answer") {
                (200, _) => break,
                (503 | 504, _) if began.elapsed() < PATIENCE => {}
                (code, answer) => panic!("{code}: {answer}"),
            }
        }
    }
}

fn signal(cluster: &mut Cluster, node: usize, signal: &str) {
    let pid = cluster.process_id(node).to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().expect("ran").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sleeps_is_woken_by_whoever_asks_and_misses_a_leader_that_is_gone() {
    let mut cluster = Cluster::start(3).await;
    cluster.registered().await;
    let endpoints = cluster.endpoints();
    let split_at: Vec<String> = (1..SHARDS).map(key).collect();
    create(&endpoints[0], "many", "ranged", &split_at.iter().map(String::as_str).collect::<Vec<_>>());
    write(&endpoints[1], "first");
    all_sleep(&cluster).await;

    // One that leads some of them stands still: the others notice, though nobody asks.
    signal(&mut cluster, 0, "-STOP");
    until("noticed", || endpoints[1..].iter().all(|endpoint| asleep(endpoint) < SHARDS)).await;
    write(&endpoints[1], "second");
    signal(&mut cluster, 0, "-CONT");
    all_sleep(&cluster).await;
    for shard in 0..SHARDS {
        let path = format!("/v1/kv/many/{}", key(shard));
        let (code, answer) = request(&endpoints[0], "GET", &path, None, &json!(null)).expect("an answer");
        assert_eq!((code, &answer["value"]), (200, &json!("second")), "{answer}");
    }
}
