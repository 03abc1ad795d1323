//! Keys that are reserved before they are read: who gets through on a hot key, who is told that it has lost it, and that nobody is in the way for long.

use crate::support::native::request;
use crate::support::{Cluster, PATIENCE, connect};
use quorate_client::{Client, Error, Kind, Tx};
use quorate_native::grpc::problem_of;
use quorate_native::grpc::proto::quorate_client::QuorateClient;
use quorate_native::grpc::proto::{HeldKey, Lock, LockKey, ReleaseRequest, ReserveRequest, TransactRequest};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::Code;

const CLIENTS: u64 = 8;
const EACH: u64 = 12;

/// Reads a counter in one of two ways, and writes it.
async fn increment(tx: Tx, reserve: bool) -> Result<(), Error> {
    let value = match reserve {
        true => tx.get_for_update("bank", "hot").await?,
        false => tx.get("bank", "hot").await?,
    };
    let n: u64 = value.map_or(0, |value| String::from_utf8_lossy(&value).parse().expect("a number"));
    tx.put("bank", "hot", (n + 1).to_string());
    Ok(())
}

/// All clients increment one key; returns how often the closure ran at most, and in all.
async fn count_up(endpoints: &[String], reserve: bool) -> (u64, u64) {
    let clients = (0..CLIENTS).map(|n| {
        let mut endpoints = endpoints.to_vec();
        endpoints.rotate_left(n as usize % 3);
        let client = Client::new(endpoints).expect("addresses");
        tokio::spawn(async move {
            let (mut most, mut all) = (0, 0);
            for _ in 0..EACH {
                let runs = Arc::new(AtomicU64::new(0));
                let counted = client.transaction(|tx| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    increment(tx, reserve)
                });
                counted.await.expect("in the end it gets through");
                let runs = runs.load(Ordering::Relaxed);
                (most, all) = (u64::max(most, runs), all + runs);
            }
            (most, all)
        })
    });
    let (mut most, mut all) = (0, 0);
    for client in clients.collect::<Vec<_>>() {
        let (its_most, its_all) = client.await.expect("no client objects");
        (most, all) = (most.max(its_most), all + its_all);
    }
    (most, all)
}

async fn bank(cluster: &Cluster) -> Client {
    let client = Client::new(cluster.endpoints()).expect("addresses");
    client.create_keyspace("bank", Kind::Ranged, &["m".into()], None).await.expect("made");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_clients_count_up_one_key_and_none_tries_often() {
    let cluster = Cluster::start(3).await;
    let client = bank(&cluster).await;
    for reserve in [false, true] {
        let began = Instant::now();
        let (most, all) = count_up(&cluster.endpoints(), reserve).await;
        let how = if reserve { "reserved" } else { "compared" };
        println!("{how}: {all} runs for {} increments, at most {most}, {:?}", CLIENTS * EACH, began.elapsed());
        let kv = client.get("bank", "hot").await.expect("read").expect("it is there");
        assert_eq!(kv.text(), Some((CLIENTS * EACH).to_string().as_str()), "{how}: each counts once");
        if reserve {
            // Whoever is older than all others is not wounded, and each wound makes one older than those that come later.
            assert!(most <= CLIENTS, "somebody tried {most} times");
            assert!(all <= 3 * CLIENTS * EACH, "{all} runs are too many");
        }
        client.delete("bank", "hot").await.expect("removed");
    }
}

fn reserve(endpoint: &str, name: &str, key: &str, age: Option<&Value>, held: &[Value]) -> (u16, Value) {
    let mut body = json!({ "keys": [{ "keyspace": "bank", "key": key }], "held": held });
    if let Some(age) = age {
        body["age"] = age.clone();
    }
    request(endpoint, "POST", &format!("/v1/locks/{name}"), None, &body).expect("an answer")
}

fn held(key: &str, reserved: &Value) -> Value {
    json!({ "keyspace": "bank", "key": key, "since": reserved["keys"][0]["since"] })
}

fn commit(endpoint: &str, name: &str, age: &Value, held: &[Value]) -> (u16, Value) {
    let body = json!({
        "lock": { "name": name, "age": age, "held": held },
        "write": [{ "keyspace": "bank", "put": "hot", "value": name }],
    });
    request(endpoint, "POST", "/v1/tx", None, &body).expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_one_has_its_way_and_the_younger_is_told() {
    let cluster = Cluster::start(3).await;
    let client = bank(&cluster).await;
    client.put("bank", "hot", "0").await.expect("written");
    let endpoints = cluster.endpoints();
    // The elder begins first, elsewhere, in another shard.
    let (code, first) = reserve(&endpoints[0], "elder", "z", None, &[]);
    assert_eq!((code, &first["keys"][0]["kv"]), (200, &Value::Null), "{first}");
    let (_, younger) = reserve(&endpoints[1], "younger", "hot", None, &[]);
    assert_eq!(younger["keys"][0]["kv"]["value"], "0");
    // Reads take no notice.
    assert_eq!(client.get("bank", "hot").await.expect("read").expect("there").text(), Some("0"));
    let began = Instant::now();
    let (code, hot) = reserve(&endpoints[2], "elder", "hot", Some(&first["age"]), &[held("z", &first)]);
    assert_eq!((code, &hot["keys"][0]["kv"]["value"]), (200, &json!("0")), "{hot}");
    assert!(began.elapsed() < Duration::from_secs(2), "it does not wait for the younger: {:?}", began.elapsed());
    // The younger one hears of it with its next key, and when it commits, by either door.
    for said in [
        reserve(&endpoints[1], "younger", "b", Some(&younger["age"]), &[held("hot", &younger)]),
        commit(&endpoints[1], "younger", &younger["age"], &[held("hot", &younger)]),
    ] {
        assert_eq!((said.0, &said.1["outcome"], &said.1["reason"]), (409, &json!("refused"), &json!("lock_lost")));
        let message = said.1["message"].as_str().expect("a message");
        assert!(message.contains("b\"hot\"") && message.contains("begin anew"), "{message}");
    }
    let mut grpc = QuorateClient::new(connect(&endpoints[1]).await.expect("a connection"));
    let age = younger["age"].as_str().expect("an age").to_owned();
    let since = younger["keys"][0]["since"].as_u64().expect("an entry");
    let its = vec![HeldKey { keyspace: "bank".into(), key: "hot".into(), since }];
    let lock = Some(Lock { name: "younger".into(), age: age.clone(), held: its.clone() });
    let status = grpc.transact(TransactRequest { lock, ..TransactRequest::default() }).await.expect_err("it is lost");
    let problem = problem_of(&status).expect("a problem");
    assert_eq!((status.code(), problem.reason.as_str(), &problem.key[..]), (Code::Aborted, "lock_lost", &b"hot"[..]));
    // It begins anew, as old as it was, and waits for the elder.
    let waits = tokio::spawn(async move {
        let keys = vec![LockKey { keyspace: "bank".into(), key: "hot".into() }];
        grpc.reserve(ReserveRequest { name: "younger".into(), age: Some(age), keys: keys.clone(), held: Vec::new() })
            .await
            .map(|reserved| (reserved.into_inner(), grpc, keys))
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waits.is_finished());
    let (code, done) = commit(&endpoints[0], "elder", &first["age"], &[held("z", &first), held("hot", &hot)]);
    assert_eq!((code, &done["succeeded"]), (200, &json!(true)), "{done}");
    let (reserved, mut grpc, keys) =
        tokio::time::timeout(PATIENCE, waits).await.expect("in time").expect("it ends").expect("reserved");
    assert_eq!(&reserved.keys[0].kv.as_ref().expect("it is there").value[..], b"elder");
    grpc.release(ReleaseRequest { name: "younger".into(), keys }).await.expect("released");
    let began = Instant::now();
    client.put("bank", "hot", "3").await.expect("nobody is in the way");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_who_is_gone_had_reserved_ends_within_5_s() {
    let cluster = Cluster::start(3).await;
    let client = bank(&cluster).await;
    let endpoints = cluster.endpoints();
    let began = Instant::now();
    let (_, gone) = reserve(&endpoints[0], "gone", "hot", None, &[]);
    client.put("bank", "hot", "1").await.expect("written in the end");
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(3) && waited < Duration::from_secs(5), "it waited for {waited:?}");
    let (code, late) = commit(&endpoints[0], "gone", &gone["age"], &[held("hot", &gone)]);
    assert_eq!((code, &late["reason"]), (409, &json!("lock_lost")));
    // A closure that is dropped releases what it has.
    let dropped = tokio::time::timeout(
        Duration::from_millis(500),
        client.transaction(|tx| async move {
            tx.get_for_update("bank", "hot").await?;
            std::future::pending::<Result<(), Error>>().await
        }),
    );
    assert!(dropped.await.is_err());
    let began = Instant::now();
    client.put("bank", "hot", "2").await.expect("written");
    assert!(began.elapsed() < Duration::from_secs(2), "it waited for {:?}", began.elapsed());
    // What makes no sense is said to.
    for body in [json!({ "keys": [] }), json!({ "keys": [{ "keyspace": "bank", "key": "" }] }), json!({})] {
        let (code, said) = request(&endpoints[0], "POST", "/v1/locks/x", None, &body).expect("an answer");
        assert_eq!((code, &said["reason"]), (400, &json!("bad_request")), "{said}");
    }
    let many: Vec<Value> = (0..129).map(|n| json!({ "keyspace": "bank", "key": format!("k{n}") })).collect();
    let (code, said) =
        request(&endpoints[0], "POST", "/v1/locks/x", None, &json!({ "keys": many })).expect("an answer");
    assert_eq!((code, &said["reason"]), (413, &json!("too_large")), "{said}");
}
