//! Shards live on some nodes: they move when nodes die, come and go, and every node answers for all of them.

use super::closures::{ACCOUNTS, START, TELLERS, open, total, work};
use crate::support::native::request;
use crate::support::{Cluster, PATIENCE, connect};
use quorate_client::{Change, Client, Keyspace, Kind, Range, WatchEvent};
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::{MemberListRequest, MemberRemoveRequest};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

async fn named(client: &Client, name: &str) -> Keyspace {
    let all = client.keyspaces().await.expect("listed");
    all.into_iter().find(|keyspace| keyspace.name == name).expect("made")
}

/// How many replicas each node has, once every shard lives where it is to.
async fn settled(
    client: &Client,
    fits: impl Fn(&BTreeMap<String, usize>) -> bool,
    what: &str,
) -> BTreeMap<String, usize> {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let bank = named(client, "bank").await;
        let mut loads: BTreeMap<String, usize> = BTreeMap::new();
        bank.shards.iter().flat_map(|shard| &shard.nodes).for_each(|node| *loads.entry(node.clone()).or_default() += 1);
        if bank.shards.iter().all(|shard| shard.nodes == shard.voters) && fits(&loads) {
            return loads;
        }
        assert!(Instant::now() < deadline, "not {what} in time: {:?}", bank.shards);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn of(loads: &BTreeMap<String, usize>, node: &str) -> usize {
    loads.get(node).copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_move_while_money_moves_and_nodes_die_come_and_go() {
    let mut cluster = Cluster::start_with(5, &["--evict-after", "2"]).await;
    cluster.registered().await;
    let bank = Client::new(cluster.endpoints()).expect("addresses");
    let split_at = ["a/2".into(), "a/4".into(), "a/6".into(), "t".into()];
    bank.create_keyspace("bank", Kind::Ranged, &split_at, None).await.expect("made");
    let loads = settled(&bank, |loads| loads.len() == 5, "on all nodes").await;
    assert!(loads.values().all(|replicas| *replicas == 3), "five shards of three replicas on five nodes: {loads:?}");
    open(&bank).await;
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let tellers: Vec<_> = (0..TELLERS)
        .map(|teller| {
            let mut endpoints = cluster.endpoints();
            endpoints.rotate_left(teller as usize % 5);
            let bank = Client::new(endpoints).expect("addresses");
            tokio::spawn(work(bank, teller, stop.clone(), done.clone()))
        })
        .collect();

    // One dies, and what it had is made up for.
    cluster.kill(0);
    settled(&bank, |loads| of(loads, "n1") == 0, "without the dead").await;
    // It comes back, as the node that it was, and gets its share.
    cluster.restart(0);
    settled(&bank, |loads| of(loads, "n1") >= 2, "with the one that came back").await;
    // Another comes.
    let node = cluster.grow();
    cluster.restart(node);
    settled(&bank, |loads| of(loads, "n6") >= 2, "with the new one").await;
    // One is drained, and gets its share again.
    bank.drain("n3", true).await.expect("drained");
    settled(&bank, |loads| of(loads, "n3") == 0, "without the one that is drained").await;
    bank.drain("n3", false).await.expect("back");
    settled(&bank, |loads| of(loads, "n3") >= 2, "with the one that was drained").await;
    // One goes for good.
    let mut admin = ClusterClient::new(connect(&cluster.endpoints()[2]).await.expect("a connection"));
    let listed = admin.member_list(MemberListRequest { linearizable: true }).await.expect("listed").into_inner();
    let id = listed.members.iter().find(|member| member.name == "n2").expect("a member").id;
    // It is waited for as long as an answer may take; the wish is written.
    let _ = admin.member_remove(MemberRemoveRequest { id }).await;
    assert_eq!(cluster.stopped(1).code(), Some(70), "a removed node ends");
    settled(&bank, |loads| of(loads, "n2") == 0, "without who has gone").await;
    // Nobody waits for balance, so it takes its time.
    let alike = |loads: &BTreeMap<String, usize>| loads.len() == 5 && loads.values().all(|replicas| *replicas == 3);
    settled(&bank, alike, "shared alike by the others").await;

    let (before, deadline) = (done.load(Ordering::Relaxed), Instant::now() + PATIENCE);
    while done.load(Ordering::Relaxed) < before + 20 {
        assert!(Instant::now() < deadline, "tellers stand still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for teller in tellers {
        assert!(teller.await.expect("no teller objects") > 0, "each has moved some");
    }
    assert_eq!(total(&bank).await, Ok(ACCOUNTS * START));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_large_to_travel_is_unknown_and_disturbs_nobody() {
    let cluster = Cluster::start(2).await;
    cluster.registered().await;
    let client = Client::new(cluster.endpoints()).expect("addresses");
    let made = client.create_keyspace("big", Kind::Ranged, &[], Some(1)).await.expect("made");
    let home = made.shards[0].nodes[0].clone();
    let away = &cluster.endpoints()[usize::from(home == "n1")];
    for n in 0..20 {
        client.put("big", format!("k/{n:02}"), "x".repeat(1 << 20)).await.expect("written");
    }
    let all = json!({ "read": [{ "keyspace": "big", "prefix": "k/" }] });
    let (code, said) = request(away, "POST", "/v1/tx", None, &all).expect("an answer");
    assert_eq!((code, &said["outcome"]), (504, &json!("unknown")), "{said}");
    let (code, _) = request(away, "GET", "/v1/kv/big/k%2F07", None, &json!(null)).expect("an answer");
    assert_eq!(code, 200, "what fits comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_answers_for_a_shard_that_one_has_and_sends_watches_there() {
    let cluster = Cluster::start(3).await;
    cluster.registered().await;
    let client = Client::new(cluster.endpoints()).expect("addresses");
    client.create_keyspace("ledger", Kind::Ordered, &[], Some(1)).await.expect("made");
    client.drain("n1", true).await.expect("two others are enough for one replica");
    client.drain("n1", false).await.expect("back");
    client.create_keyspace("wide", Kind::Ranged, &[], Some(3)).await.expect("made");
    let refused = client.drain("n1", true).await.expect_err("it asks for three replicas, and two nodes would be left");
    assert!(refused.to_string().contains("add a node first"), "{refused}");
    let made = client.keyspaces().await.expect("listed").into_iter().find(|it| it.name == "ledger").expect("made");
    let [home] = &made.shards[0].nodes[..] else { panic!("one replica: {made:?}") };
    for (n, endpoint) in cluster.endpoints().iter().enumerate() {
        let one = Client::new([endpoint]).expect("an address");
        let key = format!("k{n}");
        one.put("ledger", &key, "v").await.expect("written");
        assert!(one.get("ledger", &key).await.expect("read").is_some());
        let mut watch = one.watch("ledger", &Range::prefix("k")).from_revision(2);
        let seen = loop {
            match watch.next().await.expect("told") {
                WatchEvent::Changed { changes, .. } => break changes,
                _ => continue,
            }
        };
        assert!(matches!(&seen[..], [Change::Put { kv, .. }] if kv.text() == Some("v")), "{seen:?}");
        // In words of HTTP: whoever has no replica says where there is one.
        let mut raw = TcpStream::connect(endpoint).expect("a connection");
        raw.set_read_timeout(Some(PATIENCE)).expect("set");
        write!(raw, "GET /v1/watch/ledger?prefix=k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut head = [0; 15];
        raw.read_exact(&mut head).expect("an answer");
        let here = *home == format!("n{}", n + 1);
        assert_eq!(&head[..], if here { b"HTTP/1.1 200 OK" } else { b"HTTP/1.1 307 Te" });
    }
}
