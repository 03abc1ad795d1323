//! Keys over HTTP: read, written under conditions and listed in pages, in keyspaces of every kind, while a shard splits.

use crate::support::native::{create, request};
use crate::support::{Cluster, PATIENCE, kv};
use quorate_etcd::proto::etcdserverpb::RangeRequest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

fn ask(endpoint: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    request(endpoint, method, path, None, body).expect("an answer")
}

fn get(endpoint: &str, path: &str) -> (u16, Value) {
    ask(endpoint, "GET", path, &Value::Null)
}

/// Writes a key; what is unavailable while a child gets its leader is asked for again under the same name.
fn put(endpoint: &str, path: &str, value: &str) {
    let began = Instant::now();
    loop {
        let name = format!("{path}={value}");
        let answer = request(endpoint, "PUT", path, Some(&name), &json!({ "value": value }));
        match answer.expect("an answer") {
            (200, _) => return,
            (503 | 504, _) if began.elapsed() < PATIENCE => {}
            (code, answer) => panic!("{code}: {answer}"),
        }
    }
}

/// Splits a shard, whoever leads it meanwhile.
fn split(endpoint: &str, at: &str) {
    let began = Instant::now();
    loop {
        match ask(endpoint, "POST", "/v1/keyspaces/stock/split", &json!({ "at": at })) {
            (200, _) => return,
            // An answer was lost.
            (409, answer) if answer["reason"] == json!("already_split") => return,
            (503 | 504, _) if began.elapsed() < PATIENCE => {}
            (code, answer) => panic!("{code}: {answer}"),
        }
    }
}

/// Follows the pages of a scan from its first address on; returns what was found, and how many pages there were.
fn scan(endpoint: &str, first: &str) -> (BTreeMap<String, String>, usize) {
    let (mut found, mut pages, mut next) = (BTreeMap::new(), 0, Some(first.to_owned()));
    while let Some(path) = next {
        let (code, page) = get(endpoint, &path);
        assert_eq!(code, 200, "{page}");
        for kv in page["kvs"].as_array().expect("a list") {
            let word = |name: &str| kv[name].as_str().expect("text").to_owned();
            assert!(found.last_key_value().is_none_or(|(last, _)| *last < word("key")), "{kv} is not behind the last");
            found.insert(word("key"), word("value"));
        }
        pages += 1;
        next = page["next"].as_str().map(str::to_owned);
    }
    (found, pages)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_and_listed_while_their_shard_splits() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    create(&endpoints[0], "stock", "ranged", &["m"]);
    let key = |n: usize| format!("k/{n:03}");
    let mut expected = BTreeMap::new();
    std::thread::scope(|scope| {
        let write = |writer: usize| {
            for n in (writer..90).step_by(3) {
                put(&endpoints[writer], &format!("/v1/kv/stock/{}", key(n)), &n.to_string());
            }
        };
        let writers: Vec<_> = (0..3).map(|writer| scope.spawn(move || write(writer))).collect();
        [60, 20, 40].into_iter().for_each(|at| split(&endpoints[1], &key(at)));
        writers.into_iter().for_each(|writer| writer.join().expect("a writer ends"));
    });
    expected.extend((0..90).map(|n| (key(n), n.to_string())));
    for endpoint in &endpoints {
        let (found, pages) = scan(endpoint, "/v1/kv/stock?limit=7");
        assert_eq!(found, expected);
        assert!(pages > 90 / 7, "{pages} pages");
        let (found, _) = scan(endpoint, "/v1/kv/stock?prefix=k/05&limit=1000");
        assert_eq!(found.len(), 10);
        let (found, _) = scan(endpoint, "/v1/kv/stock?from=k/019&to=k/061&after=k/020");
        assert_eq!(found.keys().next_back(), Some(&key(60)));
        assert_eq!(found.len(), 40);
    }
    // Split again between two pages.
    let (_, page) = get(&endpoints[0], "/v1/kv/stock?limit=3");
    split(&endpoints[2], &key(2));
    let (rest, _) = scan(&endpoints[1], page["next"].as_str().expect("more follow"));
    assert_eq!(rest.len(), 87);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_keyspace_are_written_as_conditions_allow() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    create(&endpoints[0], "stock", "ranged", &["m"]);
    create(&endpoints[0], "ledger", "ordered", &[]);
    for keyspace in ["stock", "ledger", "default"] {
        // A slash stands for itself, and any byte can be said.
        let path = format!("/v1/kv/{keyspace}/a/b%2Fc%20%FF");
        assert_eq!(get(&endpoints[0], &path).1["reason"], json!("no_such_key"));
        let body = json!({ "value": { "base64": "/w==" }, "if": { "exists": false } });
        let (code, done) = ask(&endpoints[1], "PUT", &path, &body);
        let expected = json!({ "outcome": "done", "repeated": false, "token": done["token"] });
        assert_eq!((code, &done), (200, &expected), "{keyspace}");
        assert!(done["token"].is_string(), "{done}");
        let (code, found) = get(&endpoints[2], &path);
        assert_eq!((code, &found["value"], &found["version"]), (200, &json!({ "base64": "/w==" }), &json!(1)));
        assert_eq!(found["key"], json!({ "base64": "YS9iL2Mg/w==" }), "a/b/c, a space, and a byte that is no text");

        let (code, refused) = ask(&endpoints[0], "PUT", &path, &body);
        assert_eq!((code, &refused["reason"]), (409, &json!("condition_failed")), "{refused}");
        assert_eq!(refused["now"]["mod_revision"], found["mod_revision"], "it says what is there");
        let revision = json!({ "mod_revision": found["mod_revision"], "value": { "base64": "/w==" } });
        assert_eq!(ask(&endpoints[1], "PUT", &path, &json!({ "value": "2", "if": revision })).0, 200);
        assert_eq!(ask(&endpoints[2], "PUT", &path, &json!({ "value": "3", "if": revision })).0, 409);

        // Under its name it is done once.
        for repeated in [false, true] {
            let named = request(&endpoints[0], "PUT", &path, Some("third"), &json!({ "value": "3" }));
            assert_eq!(named.expect("an answer").1["repeated"], json!(repeated));
        }
        assert_eq!(get(&endpoints[1], &path).1["version"], json!(3));

        let (code, refused) = ask(&endpoints[2], "DELETE", &path, &json!({ "if": { "version": 2 } }));
        assert_eq!((code, &refused["now"]["value"]), (409, &json!("3")), "{refused}");
        for deleted in [true, false] {
            let (code, done) = ask(&endpoints[0], "DELETE", &path, &Value::Null);
            assert_eq!((code, &done["deleted"]), (200, &json!(deleted)), "{done}");
        }
        let (code, refused) = ask(&endpoints[2], "PUT", &path, &json!({ "value": "4", "if": { "exists": true } }));
        assert_eq!((code, &refused["now"]), (409, &Value::Null), "{refused}");
    }
    // What is in the default keyspace is etcd's.
    put(&endpoints[0], "/v1/kv/default/order/1", "new");
    let mut etcd = kv(&endpoints[1]).await.expect("a connection");
    let range = RangeRequest { key: "order/1".into(), ..Default::default() };
    assert_eq!(etcd.range(range).await.expect("read").into_inner().kvs[0].value, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_the_reason() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    create(endpoint, "stock", "ranged", &[]);
    let value = json!({ "value": "v" });
    let long_key = format!("/v1/kv/stock/{}", "k".repeat(32_001));
    for (method, path, body, code, reason) in [
        ("GET", "/v1/kv/nowhere/k", &Value::Null, 404, "no_such_keyspace"),
        ("PUT", "/v1/kv/nowhere/k", &value, 404, "no_such_keyspace"),
        ("GET", "/v1/kv/nowhere", &Value::Null, 404, "no_such_keyspace"),
        ("GET", "/v1/watch/nowhere", &Value::Null, 404, "no_such_keyspace"),
        ("GET", "/v1/kv/system/k", &Value::Null, 404, "no_such_keyspace"),
        ("GET", "/v1/kv/stock/", &Value::Null, 400, "bad_request"),
        ("PUT", "/v1/kv/stock/", &value, 400, "bad_request"),
        ("GET", "/v1/kv/stock/%F", &Value::Null, 400, "bad_request"),
        ("GET", "/v1/kv/stock?prefx=a", &Value::Null, 400, "bad_request"),
        ("GET", "/v1/kv/stock?limit=1001", &Value::Null, 400, "bad_request"),
        ("GET", "/v1/kv/stock/k?prefix=a", &Value::Null, 400, "bad_request"),
        ("GET", "/v1/watch/stock?limit=7", &Value::Null, 400, "bad_request"),
        ("GET", "/v1/watch/default?revision=0", &Value::Null, 400, "bad_request"),
        ("GET", "/v1/watch/stock", &Value::Null, 400, "not_ordered"),
        ("PUT", "/v1/kv/stock/k", &json!({ "value": { "base64": "!" } }), 400, "bad_request"),
        ("PUT", "/v1/kv/stock/k", &json!({ "value": 7 }), 400, "bad_request"),
        ("PUT", "/v1/kv/stock/k", &json!({ "value": "v", "lease": 7 }), 400, "bad_request"),
        ("PUT", "/v1/kv/stock/k", &json!({ "value": "v", "if": {} }), 400, "bad_request"),
        ("PUT", "/v1/kv/stock/k", &Value::Null, 400, "bad_request"),
        ("PUT", "/v1/kv/stock/k", &json!({ "value": "v".repeat(9 << 20) }), 413, "too_large"),
        ("PUT", &long_key, &value, 413, "too_large"),
        ("POST", "/v1/kv/stock/k", &value, 405, "no_such_method"),
        ("DELETE", "/v1/kv/stock", &Value::Null, 405, "no_such_method"),
        ("PUT", "/v1/watch/stock", &value, 405, "no_such_method"),
        ("GET", "/v1/keys/stock", &Value::Null, 404, "no_such_page"),
    ] {
        let (got, answer) = ask(endpoint, method, path, body);
        let shown = &path[..path.len().min(40)];
        assert_eq!((got, &answer["reason"]), (code, &json!(reason)), "{method} {shown}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|message| message.len() > 10), "{answer}");
    }
    let (_, openapi) = get(endpoint, "/v1/openapi.json");
    assert_eq!(openapi["openapi"], json!("3.1.0"));
    assert_eq!(scan(endpoint, "/v1/kv/stock").0.len(), 0, "nothing was written");
}
