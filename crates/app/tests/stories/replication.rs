//! What writers wait for: all voters, the leader alone, or clocks; and what `quorate explain` says of that beforehand.

use super::freshness::promises::{Promise, Writers};
use super::handing_over::leader;
use crate::support::{Cluster, PATIENCE};
use quorate_client::{Client, Error, Kind, Options, Replication, Request};
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

fn explained(endpoint: &str, keyspace: &str) -> String {
    let output = quorate(endpoint, &["explain", keyspace]);
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
    assert!(
        explained(&endpoints[0], "ledger")
            .contains("acknowledged when it is on the disks of a majority of the voters.")
    );

    let set = quorate(&endpoints[0], &["keyspace", "set", "ledger", "--replication", "all"]);
    assert!(set.status.success(), "{set:?}");
    let said = explained(&endpoints[0], "ledger");
    assert!(
        said.contains("acknowledged when it is on the disks of all voters; while a voter is away, none is."),
        "{said}"
    );
    let promise = Promise::of_writers(Writers { whose: Replication::All, clocks: false });
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
async fn with_leader_what_is_lost_with_a_leader_is_bounded_and_reported() {
    let mut cluster = Cluster::start(3).await;
    cluster.registered().await;
    let endpoints = cluster.endpoints();
    let set = quorate(&endpoints[0], &["keyspace", "set", "default", "--replication", "leader"]);
    assert!(set.status.success(), "{set:?}");
    let leads = leader(&cluster, &[0, 1, 2]).await;
    let others = [(leads + 1) % 3, (leads + 2) % 3];
    let alone = client(&endpoints[leads]);
    alone.put("default", "kept", "1").await.expect("all are there");
    let said = explained(&endpoints[leads], "default");
    assert!(said.contains("acknowledged when it is on the disks of the leader; if that fails"), "{said}");
    assert!(said.contains("PC/EL for writes") && !said.contains("acknowledged and lost"), "{said}");

    // Nobody follows any more, and for a moment the leader goes on.
    others.iter().for_each(|other| cluster.kill(*other));
    let (cut_off, mut acknowledged) = (Instant::now(), 0);
    while alone.put("default", format!("lost/{acknowledged}"), "1").await.is_ok() {
        acknowledged += 1;
        assert!(cut_off.elapsed() < PATIENCE / 2, "{acknowledged} writes were acknowledged without a majority");
    }
    assert!(acknowledged > 0, "writers waited for a majority");
    cluster.kill(leads);

    others.iter().for_each(|other| cluster.restart(*other));
    let (rest, deadline) = (client(&endpoints[others[0]]), Instant::now() + PATIENCE);
    let kept = loop {
        match rest.get("default", "kept").await {
            Ok(found) => break found,
            Err(e) => assert!(Instant::now() < deadline, "a majority is there: {e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(kept.is_some());
    assert!(rest.get("default", "lost/0").await.expect("a majority is there").is_none());
    rest.put("default", "after", "1").await.expect("a majority is there");
    cluster.restart(leads);
    let deadline = Instant::now() + PATIENCE;
    let lost = loop {
        let keyspaces = rest.keyspaces().await.expect("a majority is there");
        let default = keyspaces.into_iter().find(|keyspace| keyspace.name == "default").expect("it is there");
        if let Some(lost) = default.lost {
            break lost;
        }
        assert!(Instant::now() < deadline, "{acknowledged} writes were lost, and nobody says so");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // The last one was not acknowledged, but may be in the log that was lost.
    assert!((acknowledged..=acknowledged + 1).contains(&lost.answers), "{lost:?}, of {acknowledged}");
    let said = explained(&endpoints[others[0]], "default");
    assert!(said.contains(&format!("At most {} writes were acknowledged and lost", lost.answers)), "{said}");
    assert!(alone.get("default", "lost/0").await.expect("it is back").is_none());
    assert!(alone.get("default", "after").await.expect("it is back").is_some());
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
    let said = explained(&endpoints[0], "ledger");
    assert!(said.contains("and its timestamp is over on every clock"), "{said}");
    assert!(
        said.contains(Promise::of_writers(Writers { whose: Replication::Majority, clocks: true }).gives_up),
        "{said}"
    );
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
