//! What writers wait for: all voters, or clocks; and what `quorate explain` says of that beforehand.

use super::freshness::promises::{Promise, Writers};
use crate::support::{Cluster, PATIENCE};
use quorate_client::{Client, Error, Kind, Options, Request};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A client of one node, that waits a little longer than the node does.
fn client(endpoint: &str) -> Client {
    let mut options = Options::default();
    (options.rounds, options.deadline, options.answer) = (1, PATIENCE, Duration::from_secs(9));
    Client::with([endpoint], options).expect("an address")
}

fn quorate(endpoint: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(args).args(["--endpoints", endpoint]).output().expect("it ran")
}

fn explained(endpoint: &str) -> String {
    let output = quorate(endpoint, &["explain", "ledger"]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn status(client: &Client, id: &str) -> Result<Value, Error> {
    client.ask(&Request::get(format!("/v1/status/{id}"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_a_write_is_unknown_while_a_node_is_away_and_done_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    cluster.registered().await;
    let endpoints = cluster.endpoints();
    let client = client(&endpoints[0]);
    client.create_keyspace("ledger", Kind::Ranged, &[], Some(3)).await.expect("made");
    assert!(explained(&endpoints[0]).contains("acknowledged when it is on the disks of a majority of the voters."));

    let set = quorate(&endpoints[0], &["keyspace", "set", "ledger", "--replication", "all"]);
    assert!(set.status.success(), "{set:?}");
    let said = explained(&endpoints[0]);
    assert!(
        said.contains("acknowledged when it is on the disks of all voters; while a voter is away, none is."),
        "{said}"
    );
    let promise = Promise::of_writers(Writers { all: true, clocks: false });
    assert!(said.contains(promise.keeps) && said.contains(promise.gives_up), "{said}");
    assert!(promise.gives_up.contains("its client hears unknown"));
    client.put("ledger", "entry/1", "4").await.expect("all are there");

    cluster.kill(2);
    let away = client.put("ledger", "entry/2", "5").await;
    let Err(Error::Unknown { id: Some(id), .. }) = away else { panic!("nobody may say that it is done: {away:?}") };
    let said = status(&client, &id).await;
    assert!(!said.as_ref().is_ok_and(|said| said["outcome"] == "done"), "it is not on all disks: {said:?}");

    cluster.restart(2);
    let deadline = Instant::now() + PATIENCE;
    while !status(&client, &id).await.is_ok_and(|said| said["outcome"] == "done") {
        assert!(Instant::now() < deadline, "all have it again, and nobody says so");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.put("ledger", "entry/3", "6").await.expect("all are there");
    let found = client.get("ledger", "entry/2").await.expect("answered").expect("it is there");
    assert_eq!(found.text(), Some("5"));

    // Nobody has told these nodes how good their clocks are.
    let set = quorate(&endpoints[0], &["keyspace", "set", "ledger", "--commit-wait", "on"]);
    assert!(!set.status.success(), "{set:?}");
    assert!(String::from_utf8_lossy(&set.stderr).contains("--clock-bound"), "{set:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_commit_wait_a_write_takes_twice_the_bound_and_the_next_one_is_later_in_any_shard() {
    let cluster = Cluster::start_with(1, &["--clock-bound", "40ms"]).await;
    cluster.registered().await;
    let endpoints = cluster.endpoints();
    let client = client(&endpoints[0]);
    client.create_keyspace("ledger", Kind::Ranged, &["m".into()], None).await.expect("made");
    let set = quorate(&endpoints[0], &["keyspace", "set", "ledger", "--commit-wait", "on"]);
    assert!(set.status.success(), "{set:?}");
    let said = explained(&endpoints[0]);
    assert!(said.contains("and its timestamp is over on every clock"), "{said}");
    assert!(said.contains(Promise::of_writers(Writers { all: false, clocks: true }).gives_up), "{said}");
    let mut last = None;
    for key in ["apples", "pears", "bananas", "quinces"] {
        let began = Instant::now();
        let token = client.put("ledger", key, "1").await.expect("written").token.expect("a token").0;
        assert!(began.elapsed() >= Duration::from_millis(80), "it waits for clocks: {:?}", began.elapsed());
        let moment = token.split('.').map(|part| part.parse::<u64>().expect("a number")).collect::<Vec<_>>();
        assert!(last.as_ref() < Some(&moment), "{last:?} was acknowledged before {moment:?} began");
        last = Some(moment);
    }
}
