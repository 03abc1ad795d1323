//! The dial: reads as fresh as is asked for, and what `quorate explain` says of them, compared with what happens when a node is cut off.

#[path = "../../src/explain/promises.rs"]
pub mod promises;

use crate::support::{Cluster, PATIENCE};
use promises::{CutOff, PROMISES};
use quorate_client::{Client, Error, Freshness, Kind, Options, Range, Token};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// A client of one node, that waits a little longer than the node does.
fn client(endpoint: &str) -> Client {
    let mut options = Options::default();
    (options.rounds, options.deadline, options.answer) = (1, PATIENCE, Duration::from_secs(9));
    Client::with([endpoint], options).expect("an address")
}

fn explain(endpoint: &str, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    let output = command.args(["explain", "stock", "--endpoints", endpoint]).args(more).output().expect("it ran");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a node makes of a way of asking, by what is said of it.
fn measured<'a>(said: &'a Value, way: &str, node: &str) -> &'a Value {
    let promise = said["promises"].as_array().expect("promises").iter().find(|promise| promise["way"] == way);
    let measured = promise.expect("a promise")["measured"].as_array().expect("what was measured");
    measured.iter().find(|measured| measured["node"] == node).unwrap_or(&Value::Null)
}

/// A cluster of three, a keyspace of two shards, a key in each, written one after the other.
async fn stocked() -> (Cluster, Vec<Client>, Token) {
    let cluster = Cluster::start(3).await;
    cluster.registered().await;
    let clients: Vec<Client> = cluster.endpoints().iter().map(|endpoint| client(endpoint)).collect();
    clients[0].create_keyspace("stock", Kind::Ranged, &["m".into()], Some(3)).await.expect("made");
    clients[0].put("stock", "apples", "4").await.expect("written");
    let written = clients[1].put("stock", "pears", "7").await.expect("written");
    (cluster, clients, written.token.expect("a token"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_finds_again_what_was_seen_and_a_moment_stays_what_it_was() {
    let (cluster, clients, token) = stocked().await;
    for client in &clients {
        let found = client.look("stock", "pears", &Freshness::After(token.clone())).await.expect("answered");
        assert_eq!(found.expect("one's own write").kv.text(), Some("7"));
    }
    let later = clients[2].put("stock", "apples", "3").await.expect("written").token.expect("a token");
    // Nobody told the other shard of that moment; where it matters, "after" does. Here it is enough that clocks have gone on.
    tokio::time::sleep(Duration::from_millis(20)).await;
    clients[0].delete("stock", "pears").await.expect("removed");
    for client in &clients {
        for (moment, apples) in [(&token, "4"), (&later, "3")] {
            let at = Freshness::At(moment.clone());
            let found = client.look("stock", "apples", &at).await.expect("answered").expect("it was there");
            assert_eq!((found.kv.text(), found.token.as_ref()), (Some(apples), Some(moment)));
            // All pages are of one moment, in both shards.
            let pages = client.scan("stock", &Range::All, 1).as_fresh_as(&at).all().await.expect("all pages");
            let keys: Vec<Option<&str>> = pages.iter().map(|kv| kv.text()).collect();
            assert_eq!(keys, [Some(apples), Some("7")]);
        }
        let strict = client.scan("stock", &Range::All, 10).all().await.expect("all pages");
        assert_eq!(strict.len(), 1, "the pears are gone by now");
        let young = Freshness::Within(Duration::from_secs(5));
        assert!(client.look("stock", "apples", &young).await.expect("answered").is_some());
    }
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_from_node_to_node_and_hands_on_what_it_has_seen() {
    let (cluster, clients, _) = stocked().await;
    let sessions: Vec<_> = clients.iter().map(Client::session).collect();
    for round in 0..30_u32 {
        // Whoever is told the token finds what was written, at another node, and writes over it.
        let (writer, reader) = (&sessions[round as usize % 3], &sessions[(round as usize + 1) % 3]);
        writer.put("stock", "apples", round.to_string()).await.expect("written");
        reader.saw(writer.token().expect("a token"));
        let found = reader.get("stock", "apples").await.expect("answered").expect("it is there");
        assert_eq!(found.text(), Some(round.to_string().as_str()));
    }
    sessions[0].delete("stock", "pears").await.expect("removed");
    assert_eq!(sessions[0].get("stock", "pears").await, Ok(None));
    let token = sessions[0].token().expect("a token");
    for session in &sessions[1..] {
        session.saw(token.clone());
        assert_eq!(session.get("stock", "pears").await, Ok(None), "what is gone is not seen again");
    }
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_nobody_knows_of_is_refused_with_what_to_do() {
    let (cluster, clients, token) = stocked().await;
    let (ms, _) = token.0.split_once('.').expect("a token");
    let ms: u64 = ms.parse().expect("milliseconds");
    let look = async |freshness: Freshness| clients[0].look("stock", "apples", &freshness).await;
    let ahead = look(Freshness::At(Token((ms + 3_600_000).to_string()))).await.expect_err("an hour ahead");
    assert!(ahead.to_string().contains("lies ahead"), "{ahead}");
    let ahead = look(Freshness::After(Token((ms + 3_600_000).to_string()))).await.expect_err("an hour ahead");
    assert!(matches!(ahead, Error::Refused { .. }), "{ahead}");
    let before = look(Freshness::At(Token((ms - 3_600_000).to_string()))).await.expect_err("an hour ago");
    assert!(before.to_string().contains("not known any more"), "{before}");
    // Who asks for what nobody can know disturbs nobody.
    assert!(look(Freshness::Strict).await.expect("answered").is_some());
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_explained_is_what_happens_to_a_node_that_is_cut_off() {
    let (mut cluster, clients, token) = stocked().await;
    let endpoints = cluster.endpoints();
    let said: Value = serde_json::from_str(&explain(&endpoints[0], &["--json"])).expect("json");
    for promise in PROMISES {
        for node in ["n1", "n2", "n3"] {
            let measured = measured(&said, promise.way, node);
            assert_eq!(measured["answers"], true, "{} at {node}: {measured}", promise.way);
            assert!(measured["p50_us"].as_u64().expect("a time") > 0);
        }
    }
    let said = explain(&endpoints[0], &[]);
    assert!(said.starts_with("stock: 2 shards, replicas: 3, 3 nodes. PC/EC"), "{said}");
    assert!(said.contains("goes on where 2 of its 3 replicas reach each other"), "{said}");
    for promise in PROMISES {
        let lines = [promise.keeps, promise.gives_up, promise.cut_off.words()];
        assert!(lines.iter().all(|line| said.contains(line)), "{}: {said}", promise.way);
    }

    // Who asks it first learns how fresh it is; then the others are gone.
    let young = Freshness::Within(Duration::from_secs(3));
    assert!(clients[0].look("stock", "apples", &young).await.expect("answered").is_some());
    cluster.kill(1);
    cluster.kill(2);
    let cut = Instant::now();
    let found = clients[0].look("stock", "apples", &young).await;
    assert!(found.is_ok() || cut.elapsed() > Duration::from_secs(2), "for a while it is young enough: {found:?}");
    tokio::time::sleep(Duration::from_secs(4).saturating_sub(cut.elapsed())).await;
    for promise in PROMISES {
        let answers = match promise.way {
            "write" => clients[0].put("stock", "apples", "9").await.is_ok(),
            way => {
                let freshness = match way {
                    "strict" => Freshness::Strict,
                    "at" => Freshness::At(token.clone()),
                    "within" => young.clone(),
                    "after" => Freshness::After(token.clone()),
                    _ => Freshness::Any,
                };
                clients[0].look("stock", "pears", &freshness).await.is_ok_and(|found| found.is_some())
            }
        };
        assert_eq!(answers, promise.cut_off == CutOff::Answers, "{}", promise.way);
    }
    let said: Value = serde_json::from_str(&explain(&endpoints[0], &["--json"])).expect("json");
    for promise in PROMISES {
        let measured = measured(&said, promise.way, "n1");
        assert_eq!(measured["answers"], promise.cut_off == CutOff::Answers, "{} now: {measured}", promise.way);
    }
}
