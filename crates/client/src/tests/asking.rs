//! Who is asked, how often, and under which name.

use crate::fake::{Does, Fake, nobody};
use crate::options::REDIRECTS_MAX;
use crate::{Client, Error, Kind, Options, Transacted, Transaction, Write};
use serde_json::json;
use std::time::{Duration, Instant};

fn kv(value: &str) -> Does {
    let kv =
        json!({ "outcome": "done", "key": "k", "value": value, "version": 1, "create_revision": 2, "mod_revision": 2 });
    Does::Answer(200, kv)
}

fn done(repeated: bool) -> Does {
    Does::Answer(200, json!({ "outcome": "done", "succeeded": true, "repeated": repeated, "reads": [] }))
}

fn write() -> Transaction {
    Transaction::new().write("stock", &Write::put("apples", "4"))
}

fn hasty() -> Options {
    Options { deadline: Duration::from_millis(400), answer: Duration::from_millis(100), ..Options::default() }
}

#[tokio::test]
async fn the_next_server_is_asked_and_who_answered_is_asked_first() {
    let (nobody, leaderless, good) = (nobody().await, Fake::new([]).await, Fake::new([kv("1"), kv("2")]).await);
    let client = Client::new([&nobody, &leaderless.endpoint, &good.endpoint]).expect("addresses");
    for value in ["1", "2"] {
        let found = client.get("stock", "k").await.expect("an answer").expect("it is there");
        assert_eq!(found.text(), Some(value));
    }
    assert_eq!((leaderless.heard().len(), good.heard().len()), (1, 2));
    assert!(good.heard()[0].starts_with("GET /v1/kv/stock/k HTTP/1.1\r\n"), "{:?}", good.heard());
}

#[tokio::test]
async fn a_key_that_is_not_there_is_no_error() {
    let absent = Does::Answer(404, json!({ "reason": "no_such_key", "message": "there is no key" }));
    let server = Fake::new([absent]).await;
    let client = Client::new([&server.endpoint]).expect("an address");
    assert_eq!(client.get("stock", "k").await, Ok(None));
    assert!(matches!(client.get("stock", "").await, Err(Error::Misuse(_))));
}

#[tokio::test]
async fn what_is_lost_is_sent_again_as_it_was_under_the_same_name() {
    let unknown = Does::Answer(504, json!({ "outcome": "unknown", "id": "2-7", "message": "nobody knows" }));
    let (first, second) = (Fake::new([Does::HangUp, done(true), done(false)]).await, Fake::new([unknown]).await);
    let client = Client::new([&first.endpoint, &second.endpoint]).expect("addresses");
    let transacted = client.transact(&write(), None).await.expect("done");
    assert_eq!(
        transacted,
        Transacted { succeeded: true, repeated: true, reads: Vec::new(), appended: Vec::new(), token: None }
    );
    let names = [first.headers("idempotency-key"), second.headers("idempotency-key")].concat();
    assert_eq!(names.len(), 3);
    assert!(names[0].is_some() && names.iter().all(|name| *name == names[0]), "{names:?}");
    let body = |request: &String| request.split("\r\n\r\n").nth(1).map(str::to_owned);
    assert_eq!(body(&first.heard()[0]), body(&second.heard()[0]));
    let next = client.transact(&write(), None).await.expect("done");
    assert!(!next.repeated && first.headers("idempotency-key")[2] != names[0], "the next has a name of its own");
}

#[tokio::test]
async fn when_nobody_knows_in_time_the_name_and_the_id_are_told() {
    let unknown = Does::Answer(504, json!({ "outcome": "unknown", "id": "2-7", "message": "nobody knows" }));
    let server = Fake::new([Does::Nothing, unknown]).await;
    let client = Client::with([&server.endpoint], hasty()).expect("an address");
    let began = Instant::now();
    let Err(Error::Unknown { name, id, .. }) = client.transact(&write(), Some("order-17".into())).await else {
        panic!("nobody knows");
    };
    assert_eq!((name.as_deref(), id.as_deref()), (Some("order-17"), Some("2-7")));
    assert!(began.elapsed() >= Duration::from_millis(100), "the first was waited for");
    assert!(began.elapsed() < Duration::from_secs(5), "and not longer than it may take");
    assert!(server.heard().len() > 2, "it was asked for as long as there was time");
}

#[tokio::test]
async fn what_has_no_name_is_sent_once_if_it_may_have_been_done() {
    let (first, second) = (Fake::new([Does::HangUp]).await, Fake::new([]).await);
    let client = Client::new([&first.endpoint, &second.endpoint]).expect("addresses");
    let made = client.create_keyspace("bank", Kind::Ranged, &[], None).await;
    assert!(matches!(made, Err(Error::Unknown { name: None, .. })), "{made:?}");
    assert_eq!((first.heard().len(), second.heard().len()), (1, 0));
}

#[tokio::test]
async fn a_redirect_is_followed_to_another_server() {
    let there = Fake::new([kv("1")]).await;
    let here = Fake::new([Does::SendOn(format!("http://{}/v1/kv/stock/k", there.endpoint))]).await;
    let client = Client::new([&here.endpoint]).expect("an address");
    assert_eq!(client.get("stock", "k").await.expect("an answer").expect("it is there").text(), Some("1"));
    assert_eq!((here.heard().len(), there.heard().len()), (1, 1));
}

#[tokio::test]
async fn servers_that_send_each_other_readers_are_passed_over() {
    let circle = Fake::new(vec![Does::SendOn("/v1/kv/stock/k".into()); 100]).await;
    let good = Fake::new([kv("1")]).await;
    let client = Client::new([&circle.endpoint, &good.endpoint]).expect("addresses");
    assert_eq!(client.get("stock", "k").await.expect("an answer").expect("it is there").text(), Some("1"));
    assert_eq!(circle.heard().len(), REDIRECTS_MAX as usize + 1);
}

#[tokio::test]
async fn endpoints_that_make_no_sense_are_refused() {
    assert!(matches!(Client::new(["https://n1:2379"]), Err(Error::Misuse(_))));
    assert!(matches!(Client::new::<&str>([]), Err(Error::Misuse(_))));
}

#[tokio::test]
async fn nodes_say_who_they_are_and_keyspaces_how_many_replicas_they_want() {
    let node = json!({
        "name": "n1", "id": "fffffffffffffffe", "zone": "a", "learner": false, "client_urls": ["http://n1:2379"],
        "replicas": 2, "votes": 1, "here": true,
    });
    let keyspace = json!({ "name": "bank", "id": 16, "kind": "ranged", "replicas": 5, "shards": [] });
    let everywhere = json!({ "name": "default", "id": 2, "kind": "ordered", "shards": [] });
    let keyspaces = json!({ "keyspaces": [everywhere, keyspace] });
    let server = Fake::new([Does::Answer(200, json!({ "nodes": [node] })), Does::Answer(200, keyspaces)]).await;
    let client = Client::new([&server.endpoint]).expect("an address");
    let nodes = client.nodes().await.expect("answered");
    assert_eq!((nodes[0].id.as_str(), nodes[0].here, nodes[0].votes), ("fffffffffffffffe", true, 1));
    let known = client.known_keyspaces().await.expect("answered");
    assert_eq!(known.iter().map(|keyspace| keyspace.replicas).collect::<Vec<_>>(), [None, Some(5)]);
    assert!(server.heard()[0].starts_with("GET /v1/nodes HTTP/1.1\r\n"), "{:?}", server.heard());
    assert!(server.heard()[1].starts_with("GET /v1/keyspaces?stale=true HTTP/1.1\r\n"), "{:?}", server.heard());
}
