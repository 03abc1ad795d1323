//! Watches over HTTP: whoever comes back with the last id, to whichever node, has missed nothing and sees nothing twice.

use crate::support::native::{Event, Events, create, request};
use crate::support::{Cluster, PATIENCE, kv, put};
use quorate_etcd::proto::etcdserverpb::CompactionRequest;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LEDGER: &str = "/v1/watch/ledger?prefix=e/&prev=true";

/// Writes one entry after the other, through whichever node answers, until it is told to stop; returns how many there are.
fn write(endpoints: &[String], stop: &AtomicBool) -> u64 {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let (path, body) = (format!("/v1/kv/ledger/e/{}", n % 5), json!({ "value": n.to_string() }));
        let began = Instant::now();
        let mut servers = endpoints.iter().cycle();
        while !matches!(
            request(servers.next().expect("one"), "PUT", &path, Some(&format!("entry-{n}")), &body),
            Some((200, _))
        ) {
            assert!(began.elapsed() < PATIENCE, "entry {n} found nobody");
        }
        n += 1;
        thread::sleep(Duration::from_millis(5));
    }
    n
}

/// The values that an event tells of, with those that they replaced.
fn values(event: &Event) -> Vec<(u64, Option<u64>)> {
    let number = |value: &Value| value.as_str().and_then(|value| value.parse().ok());
    let changes = event.data["changes"].as_array().expect("a list").iter();
    changes.map(|change| (number(&change["value"]).expect("a number"), number(&change["prev"]["value"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_node_after_the_first_was_killed() {
    let mut cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    create(&endpoints[0], "ledger", "ordered", &[]);
    let stop = AtomicBool::new(false);
    let (mut told, mut seen) = (Vec::new(), None);
    thread::scope(|scope| {
        let (writers, stop) = (&endpoints[..], &stop);
        let mut watch = Events::open(&endpoints[0], LEDGER, None).expect("a watch");
        let created = watch.next().expect("it stands");
        assert_eq!(created.name, "created");
        let first = created.id.expect("from where to go on");
        seen = Some(first);
        let writer = scope.spawn(move || write(writers, stop));
        for round in 0..4 {
            let enough = Instant::now() + Duration::from_millis(700);
            while let Some(event) = watch.next() {
                if event.name == "change" {
                    assert!(event.id > seen, "{event:?} after {seen:?}");
                    told.push((event.id.expect("an id"), values(&event)));
                }
                seen = event.id.or(seen);
                if Instant::now() > enough {
                    break;
                }
            }
            // What was sent and not read is lost with the connection.
            let (gone, next) = (round % 3, (round + 1) % 3);
            cluster.kill(gone);
            let began = Instant::now();
            watch = loop {
                match Events::open(&endpoints[next], LEDGER, seen) {
                    Some(watch) => break watch,
                    None => assert!(began.elapsed() < PATIENCE, "nobody serves the watch"),
                }
            };
            cluster.restart(gone);
        }
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().expect("the writer ends");
        while told.len() < written as usize {
            let event = watch.next().expect("what was written is told");
            if event.name == "change" {
                told.push((event.id.expect("an id"), values(&event)));
            }
        }
        // Each entry was one revision, and each revision came once.
        for (n, (revision, changes)) in (0..written).zip(&told) {
            assert_eq!(*revision, first + 1 + n);
            assert_eq!(*changes, [(n, n.checked_sub(5))]);
        }
        assert!(written > 40, "{written} entries are too few");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_is_told_where_it_stands_and_is_not_cut() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    create(&endpoints[0], "ledger", "ordered", &[]);
    let mut watch = Events::open(&endpoints[1], LEDGER, None).expect("a watch");
    let began = Instant::now();
    let standing = watch.next().expect("it stands").id;
    // Longer than a request may take to come to its end.
    while began.elapsed() < Duration::from_secs(31) {
        let mark = watch.next().expect("a mark");
        assert_eq!((mark.name.as_str(), mark.id), ("progress", standing));
    }
    let tx = json!({ "write": [
        { "keyspace": "ledger", "put": "e/1", "value": "1" },
        { "keyspace": "ledger", "put": "beside", "value": "x" },
        { "keyspace": "ledger", "put": "e/2", "value": "2" },
    ] });
    assert_eq!(request(&endpoints[0], "POST", "/v1/tx", None, &tx).expect("an answer").0, 200);
    let change = watch.next().expect("a change");
    assert_eq!((change.id, values(&change)), (standing.map(|id| id + 1), vec![(1, None), (2, None)]), "one revision");
    let removed = request(&endpoints[2], "DELETE", "/v1/kv/ledger/e/1", None, &Value::Null).expect("an answer");
    assert_eq!(removed.0, 200, "{}", removed.1);
    let change = watch.next().expect("a change").data["changes"][0].clone();
    assert_eq!((&change["type"], &change["prev"]["value"]), (&json!("delete"), &json!("1")), "{change}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_wants_what_is_compacted_is_told_what_is_left() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    let mut etcd = kv(endpoint).await.expect("a connection");
    let mut revision = 0;
    for n in 0..9 {
        let written = etcd.put(put("k", n.to_string())).await.expect("written").into_inner();
        revision = written.header.expect("a header").revision;
    }
    etcd.compact(CompactionRequest { revision, physical: true }).await.expect("compacted");
    let mut watch = Events::open(endpoint, "/v1/watch/default?key=k&revision=2", None).expect("a watch");
    let events: Vec<Event> = std::iter::from_fn(|| watch.next()).collect();
    let last = events.last().expect("it says why");
    assert_eq!((last.name.as_str(), last.id, &last.data["reason"]), ("compacted", None, &json!("compacted")));
    let oldest = last.data["compacted"].as_i64().expect("a revision");
    assert!(oldest <= revision && oldest > 2, "{oldest}");
    let mut watch =
        Events::open(endpoint, &format!("/v1/watch/default?key=k&revision={oldest}"), None).expect("a watch");
    assert_eq!(watch.next().expect("it stands").name, "created");
    assert_eq!(watch.next().expect("what is left").id, Some(revision as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_delays_only_itself_and_misses_nothing() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    create(endpoint, "ledger", "ordered", &[]);
    let mut stalled = Events::open(endpoint, LEDGER, None).expect("a watch");
    let first = stalled.next().expect("it stands").id.expect("from where to go on");
    // More than sockets and queues hold.
    let body = json!({ "value": "x".repeat(1 << 20) });
    for _ in 0..48 {
        assert_eq!(request(endpoint, "PUT", "/v1/kv/ledger/e/1", None, &body).expect("an answer").0, 200);
    }
    let mut changes = std::iter::from_fn(|| stalled.next()).filter(|event| event.name == "change");
    for n in 1..=48 {
        assert_eq!(changes.next().expect("what was written is told").id, Some(first + n));
    }
}
