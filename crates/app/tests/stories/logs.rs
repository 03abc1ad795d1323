//! Logs: records are appended, alone and with keys in one transaction, fetched by whoever waits for them, and cut off; also while processes are killed.

use crate::support::native::{create, request};
use crate::support::{Cluster, PATIENCE};
use quorate_client::{Client, Error, Fetched, Record, Start};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn append(endpoint: &str, log: &str, key: Option<&str>, values: &[&str]) -> (u16, Value) {
    let records: Vec<Value> = values.iter().map(|value| json!({ "key": "k", "value": value })).collect();
    request(endpoint, "POST", &format!("/v1/logs/{log}"), key, &json!({ "records": records })).expect("an answer")
}

fn fetch(endpoint: &str, path: &str) -> (u16, Value) {
    request(endpoint, "GET", &format!("/v1/logs/{path}"), None, &Value::Null).expect("an answer")
}

fn values(fetched: &Value) -> Vec<&str> {
    let records = fetched["records"].as_array().expect("records");
    records.iter().map(|record| record["value"].as_str().expect("text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_appended_fetched_and_cut_off() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    create(endpoint, "feed", "log", &[]);
    create(endpoint, "audit", "log", &[]);
    create(endpoint, "stock", "ranged", &[]);
    let (code, done) = append(endpoint, "feed", None, &["a", "b"]);
    assert_eq!((code, &done["offset"], &done["count"]), (200, &json!(0), &json!(2)), "{done}");
    // Under a name it is done once, and told the same.
    for repeated in [false, true] {
        let (code, done) = append(endpoint, "feed", Some("order-17"), &["c"]);
        assert_eq!((code, &done["offset"], &done["repeated"]), (200, &json!(2), &json!(repeated)), "{done}");
    }
    let tx = json!({
        "compare": [{ "keyspace": "stock", "key": "apples", "exists": false }],
        "write": [
            { "keyspace": "stock", "put": "apples", "value": "4" },
            { "keyspace": "feed", "append": [{ "value": "d" }, { "key": "k", "value": { "base64": "/w==" } }] },
            { "keyspace": "audit", "append": [{ "value": "apples" }] },
            { "keyspace": "feed", "append": [{ "value": "f" }] },
        ],
    });
    for repeated in [false, true] {
        let (code, done) = request(endpoint, "POST", "/v1/tx", Some("tx-1"), &tx).expect("an answer");
        let appended = json!([3, 0, 5]);
        assert_eq!((code, &done["appended"], &done["repeated"]), (200, &appended, &json!(repeated)), "{done}");
    }
    // What finds a change appends nothing, and leaves no gap.
    let (code, done) = request(endpoint, "POST", "/v1/tx", None, &tx).expect("an answer");
    assert_eq!((code, &done["succeeded"], done.get("appended")), (200, &json!(false), None), "{done}");
    let (_, fetched) = fetch(endpoint, "feed?from=1&max=3");
    assert_eq!(values(&fetched), ["b", "c", "d"]);
    assert_eq!((&fetched["next"], &fetched["first"], &fetched["end"]), (&json!(4), &json!(0), &json!(6)), "{fetched}");
    let (_, rest) = fetch(endpoint, "feed?from=4");
    assert_eq!((rest["records"][0]["value"].clone(), &rest["next"]), (json!({ "base64": "/w==" }), &json!(6)));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    let at = u128::from(rest["records"][0]["timestamp"].as_u64().expect("a time"));
    assert!(at <= now && now - at < 60_000, "{at} is not about {now}");

    let cut = |before: &str| {
        let path = format!("/v1/logs/feed?before={before}");
        request(endpoint, "DELETE", &path, None, &Value::Null).expect("an answer")
    };
    assert_eq!(cut("2"), (200, json!({ "outcome": "done", "first": 2 })));
    assert_eq!(cut("1"), (200, json!({ "outcome": "done", "first": 2 })), "what is gone is gone");
    let (code, gone) = fetch(endpoint, "feed?from=1");
    assert_eq!((code, &gone["reason"], &gone["first"]), (410, &json!("trimmed"), &json!(2)), "{gone}");
    let (code, beyond) = fetch(endpoint, "feed?from=7");
    assert_eq!((code, &beyond["reason"], &beyond["end"]), (416, &json!("beyond_end"), &json!(6)), "{beyond}");
    assert_eq!(values(&fetch(endpoint, "feed?from=first&max=1").1), ["c"]);
    assert_eq!(cut("end").1["first"], json!(6));
    let (_, done) = append(endpoint, "feed", None, &["g"]);
    assert_eq!(done["offset"], json!(6), "no offset is given again");

    let refused = |method: &str, path: &str, body: Value| {
        let (code, said) = request(endpoint, method, path, None, &body).expect("an answer");
        (code, said["reason"].as_str().unwrap_or_default().to_owned())
    };
    for (method, path, body, reason) in [
        ("PUT", "/v1/kv/feed/k", json!({ "value": "v" }), "keys_in_log"),
        ("GET", "/v1/kv/feed/k", Value::Null, "keys_in_log"),
        ("GET", "/v1/kv/feed", Value::Null, "keys_in_log"),
        ("GET", "/v1/watch/feed", Value::Null, "keys_in_log"),
        ("POST", "/v1/tx", json!({ "write": [{ "keyspace": "feed", "delete": "k" }] }), "keys_in_log"),
        ("POST", "/v1/tx", json!({ "compare": [{ "keyspace": "feed", "key": "k", "exists": false }] }), "keys_in_log"),
        ("POST", "/v1/logs/stock", json!({ "records": [{ "value": "v" }] }), "not_log"),
        ("POST", "/v1/tx", json!({ "write": [{ "keyspace": "stock", "append": [{ "value": "v" }] }] }), "not_log"),
        ("DELETE", "/v1/logs/default?before=3", Value::Null, "not_log"),
        ("POST", "/v1/keyspaces/feed/split", json!({ "at": "m" }), "bad_request"),
        ("PATCH", "/v1/keyspaces/stock", json!({ "retain": "7d" }), "not_log"),
        ("POST", "/v1/logs/feed", json!({ "records": [] }), "bad_request"),
    ] {
        assert_eq!(refused(method, path, body), (400, reason.into()), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_record_is_told_when_it_comes() {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    create(&endpoint, "feed", "log", &[]);
    let began = Instant::now();
    assert_eq!(values(&fetch(&endpoint, "feed?wait_ms=200").1), [""; 0]);
    assert!(began.elapsed() >= Duration::from_millis(200));
    let waiting = {
        let endpoint = endpoint.clone();
        tokio::task::spawn_blocking(move || fetch(&endpoint, "feed?from=end&wait_ms=8000"))
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (began, _) = (Instant::now(), append(&endpoint, "feed", None, &["now"]));
    let (code, fetched) = waiting.await.expect("no panic");
    assert_eq!((code, values(&fetched)), (200, vec!["now"]));
    assert!(began.elapsed() < Duration::from_secs(4), "it was told {:?} after it came", began.elapsed());
    // What it keeps no longer goes by itself.
    let (code, set) =
        request(&endpoint, "PATCH", "/v1/keyspaces/feed", None, &json!({ "retain_bytes": "8B" })).expect("an answer");
    assert_eq!((code, &set["retain_bytes"]), (200, &json!("8B")), "{set}");
    append(&endpoint, "feed", None, &["1", "2", "3", "4", "5", "6", "7"]);
    let deadline = Instant::now() + PATIENCE;
    while fetch(&endpoint, "feed").1["first"] != json!(4) {
        assert!(Instant::now() < deadline, "{}", fetch(&endpoint, "feed").1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_appends_what_it_did_or_nothing() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    create(endpoint, "feed", "log", &[]);
    create(endpoint, "stock", "ranged", &[]);
    let client = Client::new([endpoint]).expect("an address");
    for n in 0..3 {
        let moved: Result<(), Error> = client
            .transaction(|tx| async move {
                let before = tx.get("stock", "apples").await?;
                tx.append("feed", "apples", format!("{n}"));
                tx.put("stock", "apples", n.to_string());
                match (before, n) {
                    (Some(_), 1) => Err(Error::Misuse("given up".into())),
                    _ => Ok(()),
                }
            })
            .await;
        assert_eq!(moved.is_ok(), n != 1);
    }
    let fetched = client.fetch("feed", Start::First, 10, Duration::ZERO).await.expect("fetched");
    let values: Vec<&[u8]> = fetched.records.iter().map(|record| &record.value.0[..]).collect();
    assert_eq!((values, fetched.end), (vec![&b"0"[..], b"2"], 2));
    assert_eq!(client.trim("feed", 1).await, Ok(1));
    let gone = client.fetch("feed", Start::Offset(0), 10, Duration::ZERO).await;
    assert_eq!(gone, Err(Error::Trimmed { first: 1 }));
}

/// Appends numbers under names, each until somebody says that it is there; returns the last offset of each.
async fn produce(client: Client, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Vec<u64> {
    let mut offsets = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let n = offsets.len();
        let records = [Record::of("first", n.to_string()), Record::of("second", n.to_string())];
        let done = loop {
            match client.append("feed", &records, Some(format!("append-{n}"))).await {
                Ok(done) => break done,
                Err(Error::Unavailable { .. } | Error::Unknown { .. } | Error::Conflict { .. }) => {}
                Err(error) => panic!("append {n}: {error}"),
            }
        };
        assert_eq!(done.count, 2);
        offsets.push(done.offset);
        count.fetch_add(1, Ordering::Relaxed);
    }
    offsets
}

/// Follows the log until it has seen so many records; returns them.
async fn follow(client: Client, stop: Arc<AtomicBool>, total: Arc<AtomicU64>) -> Vec<String> {
    let (mut next, mut seen) = (0, Vec::new());
    loop {
        let done = stop.load(Ordering::Relaxed) && seen.len() as u64 >= total.load(Ordering::Relaxed);
        if done {
            return seen;
        }
        match client.fetch("feed", Start::Offset(next), 50, Duration::from_millis(500)).await {
            Ok(Fetched { records, next: then, .. }) => {
                for (record, offset) in records.iter().zip(next..) {
                    assert_eq!(record.offset, offset, "a record was left out, or told twice");
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    seen.push(format!("{} {}", text(&record.key.0), text(&record.value.0)));
                }
                next = then;
            }
            Err(Error::Unavailable { .. }) => {}
            Err(error) => panic!("fetch from {next}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_keeps_each_record_once_and_in_order_while_leaders_are_killed() {
    let mut cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    create(&endpoints[0], "feed", "log", &[]);
    let client = Client::new(&endpoints).expect("addresses");
    let (stop, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (count, total) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let producer = tokio::spawn(produce(client.clone(), stop.clone(), count.clone()));
    let consumer = tokio::spawn(follow(client.clone(), ended.clone(), total.clone()));
    let began = Instant::now();
    let mut kills = 0;
    while began.elapsed() < Duration::from_secs(8) {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        // In turn, so that whoever leads is among them.
        cluster.kill(kills % 3);
        tokio::time::sleep(Duration::from_millis(400)).await;
        cluster.restart(kills % 3);
        kills += 1;
    }
    cluster.ready().await;
    let (before, deadline) = (count.load(Ordering::Relaxed), Instant::now() + PATIENCE);
    while count.load(Ordering::Relaxed) < before + 5 {
        assert!(Instant::now() < deadline, "nothing is appended any more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let offsets = producer.await.expect("the producer ends");
    total.store(2 * offsets.len() as u64, Ordering::Relaxed);
    ended.store(true, Ordering::Relaxed);
    let seen = tokio::time::timeout(PATIENCE, consumer).await.expect("it sees all").expect("nothing is out of order");
    assert!(offsets.len() > 20, "{} appends in {kills} kills are too few", offsets.len());
    let expected: Vec<u64> = (0..offsets.len() as u64).map(|n| 2 * n).collect();
    assert_eq!(offsets, expected, "each has the offset that follows the one before");
    let expected: Vec<String> =
        (0..offsets.len()).flat_map(|n| [format!("first {n}"), format!("second {n}")]).collect();
    assert_eq!(seen, expected, "nothing is lost, twice, or out of order");
}
