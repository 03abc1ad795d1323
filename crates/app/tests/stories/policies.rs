//! What is wanted of a keyspace: how far back its history reaches, and how fresh reads are that do not say.

use crate::support::{Cluster, PATIENCE};
use quorate_client::{Client, Error, Freshness, Kind, Options, Range, Token};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A client of one node, that waits a little longer than the node does.
fn client(endpoint: &str) -> Client {
    let mut options = Options::default();
    (options.rounds, options.deadline, options.answer) = (1, PATIENCE, Duration::from_secs(9));
    Client::with([endpoint], options).expect("an address")
}

fn keyspace(endpoint: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.arg("keyspace").args(args).args(["--endpoints", endpoint]).output().expect("it ran")
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_forgotten_when_it_is_older_than_it_is_to_be() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    let client = client(&endpoints[1]);
    for (name, kind) in [("stock", Kind::Ranged), ("ledger", Kind::Ordered)] {
        let made = client.create_keyspace(name, kind, &[], Some(3)).await.expect("made");
        assert_eq!((made.history.as_str(), made.freshness.as_str()), ("1h", "strict"));
        let short = client.change_keyspace(name, Some("1s"), None).await.expect("changed");
        assert_eq!((short.history.as_str(), short.freshness.as_str()), ("1s", "strict"));
        let first = client.put(name, "apples", "0").await.expect("written").token.expect("a token");
        let look = async |token: &Token| client.look(name, "apples", &Freshness::At(token.clone())).await;
        assert_eq!(look(&first).await.expect("answered").expect("it is there").kv.text(), Some("0"));

        // Time goes on where something is written; then the first moment is forgotten, and the latest is not.
        let began = Instant::now();
        let mut latest = first.clone();
        let why = loop {
            latest = client.put(name, "apples", "1").await.expect("written").token.unwrap_or(latest);
            match look(&first).await {
                Err(why) => break why,
                Ok(_) => assert!(began.elapsed() < PATIENCE, "the first moment is never forgotten"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(began.elapsed() >= Duration::from_millis(900), "it was forgotten after {:?}", began.elapsed());
        assert!(why.to_string().contains("not known any more"), "{why}");
        assert_eq!(look(&latest).await.expect("answered").expect("it is there").kv.text(), Some("1"));
        assert!(client.get(name, "apples").await.expect("answered").is_some());
    }

    // A watch cannot begin where history has ended, and says where it can.
    let mut watch = client.watch("ledger", &Range::All).from_revision(1);
    let begun = watch.next().await.expect("it begins");
    let refused = watch.next().await.expect_err("what it wants is compacted");
    assert!(matches!(refused, Error::Compacted { oldest } if oldest > 1), "{begun:?}, {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_do_not_say_are_as_fresh_as_their_keyspace_wants() {
    let mut cluster = Cluster::start(3).await;
    cluster.registered().await;
    let endpoints = cluster.endpoints();
    let client = client(&endpoints[0]);
    client.create_keyspace("stock", Kind::Ranged, &[], Some(3)).await.expect("made");
    client.put("stock", "apples", "4").await.expect("written");
    let set = keyspace(&endpoints[0], &["set", "stock", "--freshness", "any", "--history", "forever"]);
    assert!(set.status.success(), "{set:?}");
    let listed = String::from_utf8_lossy(&keyspace(&endpoints[0], &["list"]).stdout).into_owned();
    let line = listed.lines().find(|line| line.starts_with("stock")).expect("it is listed");
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["stock", "ranged", "forever", "any", "1"]);

    // Alone, a node still answers what nobody asked to be strict.
    (1..3).for_each(|node| cluster.kill(node));
    assert_eq!(client.get("stock", "apples").await.expect("answered").expect("there").text(), Some("4"));
    assert_eq!(client.scan("stock", &Range::All, 10).all().await.expect("answered").len(), 1);
    let strict = client.look("stock", "apples", &Freshness::Strict).await;
    assert!(matches!(strict, Err(Error::Unavailable { .. })), "{strict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    let client = client(endpoint);
    let made = client.create_keyspace("stock", Kind::Ranged, &[], None).await.expect("made");
    for (history, freshness) in
        [(Some("soon"), None), (Some("0s"), None), (None, Some(Freshness::At(Token("1.0".into()))))]
    {
        let refused = client.change_keyspace("stock", history, freshness.as_ref()).await;
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    }
    let nobody = client.change_keyspace("stick", Some("1h"), None).await.expect_err("there is none");
    assert!(nobody.to_string().contains("keyspace"), "{nobody}");
    assert_eq!(keyspace(endpoint, &["set", "stock"]).status.code(), Some(64));
    let all = client.keyspaces().await.expect("listed");
    let is = all.into_iter().find(|keyspace| keyspace.name == "stock").expect("it is there");
    assert_eq!((is.history, is.freshness), (made.history, made.freshness));
}
