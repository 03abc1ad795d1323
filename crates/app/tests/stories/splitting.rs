//! Shards split while money moves over them, while processes are killed, and while all of them are killed at once.

use super::bank::{ACCOUNTS, Tellers, account, is_all_there, open};
use crate::support::native::request;
use crate::support::{Cluster, PATIENCE, kv, put};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn split(endpoint: &str, keyspace: &str, at: &str) -> (u16, Value) {
    let path = format!("/v1/keyspaces/{keyspace}/split");
    request(endpoint, "POST", &path, None, &json!({ "at": at })).expect("an answer")
}

/// Where the bank's shards begin, as a node knows.
fn starts(endpoint: &str) -> Vec<String> {
    let (code, known) = request(endpoint, "GET", "/v1/keyspaces", None, &Value::Null).expect("an answer");
    assert_eq!(code, 200, "{known}");
    let keyspaces = known["keyspaces"].as_array().expect("a list");
    let bank = keyspaces.iter().find(|keyspace| keyspace["name"] == json!("bank")).expect("it was made");
    let starts = bank["shards"].as_array().expect("a list").iter().map(|shard| shard["from"].as_str());
    starts.map(|start| start.expect("text").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_neither_made_nor_lost_while_shards_split_and_processes_are_killed() {
    let mut cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    open(&endpoints[0], &[]);
    let tellers = Tellers::begin(&endpoints);
    // Etcd's keyspace goes on beside that.
    let mut etcd = kv(&endpoints[1]).await.expect("a connection");
    let mut cuts = Vec::new();
    for (round, at) in [20, 30, 10, 15, 25, 5].into_iter().enumerate() {
        let began = Instant::now();
        // Whoever is asked may be the one that was just killed, or lose its leader meanwhile.
        loop {
            let (code, answer) = split(&endpoints[round % 2], "bank", &account(at));
            match code {
                200 => break,
                409 => {
                    assert_eq!(answer["reason"], json!("already_split"), "{answer}");
                    break;
                }
                _ => assert!(began.elapsed() < PATIENCE, "{answer}"),
            }
        }
        cuts.push(account(at));
        etcd.put(put("beside", round.to_string())).await.expect("written");
        if round % 2 == 1 {
            cluster.kill(2);
            tokio::time::sleep(Duration::from_millis(300)).await;
            cluster.restart(2);
        }
        tellers.go_on(4).await;
    }
    tellers.end();
    cluster.ready().await;
    is_all_there(&endpoints);
    cuts.push(String::new());
    cuts.sort();
    assert!(endpoints.iter().all(|endpoint| starts(endpoint) == cuts), "{cuts:?}");

    // All at once, a moment after a split: what was split off is nowhere but in logs and in rows that were not flushed.
    assert_eq!(split(&endpoints[0], "bank", &account(ACCOUNTS - 3)).0, 200);
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.restart(node));
    cluster.ready().await;
    is_all_there(&endpoints);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_grows_too_large_is_split_in_its_middle() {
    let cluster = Cluster::start_with(3, &["--split-bytes", "10000"]).await;
    let endpoints = cluster.endpoints();
    open(&endpoints[0], &[]);
    // The last ten accounts hold most of it.
    let put = |n: usize| json!({ "keyspace": "bank", "put": format!("a/3{n}x"), "value": "x".repeat(2_000) });
    let writes: Vec<Value> = (0..10).map(put).collect();
    let (code, done) = request(&endpoints[1], "POST", "/v1/tx", None, &json!({ "write": writes })).expect("an answer");
    assert_eq!(code, 200, "{done}");
    let deadline = Instant::now() + 3 * PATIENCE;
    let cuts = loop {
        let cuts = starts(&endpoints[2]);
        if cuts.len() >= 2 {
            break cuts;
        }
        assert!(Instant::now() < deadline, "nothing was split");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(cuts[0].is_empty() && cuts[1..].iter().all(|cut| cut.starts_with("a/3")), "{cuts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_split_is_refused_with_the_reason() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    open(endpoint, &[20]);
    let wish = json!({ "name": "ledger", "kind": "ordered" });
    assert_eq!(request(endpoint, "POST", "/v1/keyspaces", None, &wish).expect("an answer").0, 201);
    for (keyspace, at, code, reason) in [
        ("nowhere", "k", 404, "no_such_keyspace"),
        ("ledger", "k", 400, "bad_request"),
        ("default", "k", 400, "bad_request"),
        ("bank", "a/20", 409, "already_split"),
        ("bank", "", 409, "already_split"),
    ] {
        let (got, answer) = split(endpoint, keyspace, at);
        assert_eq!((got, &answer["reason"]), (code, &json!(reason)), "{answer}");
    }
    let (code, answer) =
        request(endpoint, "POST", "/v1/keyspaces/bank/split", None, &json!({ "key": "k" })).expect("an answer");
    assert_eq!((code, &answer["reason"]), (400, &json!("bad_request")), "{answer}");
    // Asked by two at once, one of them splits.
    let at_once: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| split(endpoint, "bank", "a/30").0)).collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    assert!(at_once.contains(&200) && at_once.iter().all(|code| [200, 409].contains(code)), "{at_once:?}");
}
