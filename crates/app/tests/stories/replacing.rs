//! A node takes another's place, of one that works and of one that is dead, while money moves: nothing is lost, and nobody notices.

use super::closures::{ACCOUNTS, START, TELLERS, open, total, work};
use crate::support::{Cluster, PATIENCE};
use quorate_client::{Client, Keyspace, Kind};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

async fn bank_of(client: &Client) -> Keyspace {
    let all = client.keyspaces().await.expect("listed");
    all.into_iter().find(|keyspace| keyspace.name == "bank").expect("made")
}

/// Waits until a node is a member with a vote.
async fn votes(client: &Client, name: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !client.nodes().await.expect("listed").iter().any(|node| node.name == name && !node.learner) {
        assert!(Instant::now() < deadline, "{name} does not vote in time");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Runs `quorate node ...` against some nodes; returns the exit code and what it said.
fn node(endpoints: &[String], args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    let output = command.arg("node").args(args).args(["--endpoints", &endpoints.join(",")]).output().expect("ran");
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Waits until the bank's shards are all on these nodes alone. In no shard did fewer than three replicas ever vote meanwhile.
async fn lives_on(client: &Client, nodes: &[&str]) {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let shards = bank_of(client).await.shards;
        for shard in &shards {
            // Of a new one nobody has said anything yet.
            let votes = shard.voters.len();
            assert!(votes == 0 || votes >= 3, "a shard has fewer replicas than it is to have: {shard:?}");
        }
        let mut loads: BTreeMap<&str, usize> = BTreeMap::new();
        let homes = shards.iter().flat_map(|shard| shard.nodes.iter().chain(&shard.voters));
        homes.for_each(|node| *loads.entry(node).or_default() += 1);
        // Each is named twice: as who is to have a replica, and as who has.
        if loads.len() == nodes.len() && nodes.iter().all(|node| loads.get(node) == Some(&(2 * shards.len()))) {
            return;
        }
        assert!(Instant::now() < deadline, "not on {nodes:?} in time: {loads:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_the_place_of_one_that_works_and_of_one_that_is_dead() {
    let mut cluster = Cluster::start(3).await;
    cluster.registered().await;
    let endpoints = cluster.endpoints();
    let bank = Client::new(&endpoints).expect("addresses");
    let split_at = ["a/2".into(), "a/4".into(), "a/6".into(), "t".into()];
    bank.create_keyspace("bank", Kind::Ranged, &split_at, None).await.expect("made");
    lives_on(&bank, &["n1", "n2", "n3"]).await;
    open(&bank).await;
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let tellers: Vec<_> = (0..TELLERS)
        .map(|teller| {
            let mut endpoints = cluster.endpoints();
            endpoints.rotate_left(teller as usize % 3);
            let bank = Client::new(endpoints).expect("addresses");
            tokio::spawn(work(bank, teller, stop.clone(), done.clone()))
        })
        .collect();

    // One works.
    let fourth = cluster.grow();
    cluster.restart(fourth);
    votes(&bank, "n4").await;
    let (code, said) = node(&cluster.endpoints(), &["replace", "n2", "--with", "n4"]);
    assert_eq!(code, Some(0), "{said}");
    lives_on(&bank, &["n1", "n3", "n4"]).await;
    assert_eq!(cluster.stopped(1).code(), Some(70), "who was replaced ends");

    // One is dead.
    let fifth = cluster.grow();
    cluster.restart(fifth);
    votes(&bank, "n5").await;
    cluster.kill(2);
    let alive: Vec<String> = [0, fourth, fifth].map(|node| cluster.endpoints()[node].clone()).into();
    let (code, said) = node(&alive, &["replace", "n3", "--with", "n5"]);
    assert_eq!(code, Some(0), "{said}");
    lives_on(&bank, &["n1", "n4", "n5"]).await;
    let deadline = Instant::now() + PATIENCE;
    while bank.nodes().await.expect("listed").iter().any(|node| node.name == "n3") {
        assert!(Instant::now() < deadline, "the dead is still a member");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    cluster.restart(2);
    assert_eq!(cluster.stopped(2).code(), Some(70), "it is told when it comes back");

    let before = done.load(Ordering::Relaxed);
    while done.load(Ordering::Relaxed) < before + 20 {
        assert!(Instant::now() < deadline + PATIENCE, "tellers stand still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for teller in tellers {
        assert!(teller.await.expect("no teller objects") > 0, "each has moved some");
    }
    assert_eq!(total(&Client::new(&alive).expect("addresses")).await, Ok(ACCOUNTS * START));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_take_a_place_is_told_why() {
    let mut cluster = Cluster::start_with(3, &["--zone", "{node}"]).await;
    cluster.registered().await;
    let endpoints = cluster.endpoints();
    let client = Client::new(&endpoints).expect("addresses");
    client.create_keyspace("bank", Kind::Ranged, &[], Some(3)).await.expect("made");
    lives_on(&client, &["n1", "n2", "n3"]).await;
    let refused = |old: &str, new: &str, why: &str| {
        let (code, said) = node(&endpoints, &["replace", old, "--with", new]);
        assert!(code == Some(64) && said.contains(why), "{old} by {new}: {code:?} {said}");
    };
    refused("n1", "n1", "its own place");
    refused("n1", "nobody", "there is no node");
    refused("nobody", "n1", "there is no node");
    refused("n1", "n2", "add a node first");
    // Another in a zone of one that stays.
    cluster.tell(&["--zone", "n3"]);
    let fourth = cluster.grow();
    cluster.restart(fourth);
    votes(&client, "n4").await;
    let deadline = Instant::now() + PATIENCE;
    while !client.nodes().await.expect("listed").iter().any(|node| node.name == "n4" && node.zone == "n3") {
        assert!(Instant::now() < deadline, "n4 does not say its zone");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    refused("n1", "n4", "fewer zones");
    client.drain("n4", true).await.expect("drained");
    refused("n3", "n4", "drained");
    client.drain("n4", false).await.expect("back");
    let (code, said) = node(&endpoints, &["replace", "n3", "--with", "n4"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(cluster.stopped(2).code(), Some(70));
    lives_on(&client, &["n1", "n2", "n4"]).await;
}
