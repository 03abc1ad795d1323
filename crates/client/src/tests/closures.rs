//! Transactions as closures: when they run again, and when they do not.

use crate::fake::{Does, Fake};
use crate::{Client, Error, Options, Tx};
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::Duration;

fn kv(value: u64, revision: u64) -> Does {
    let value = value.to_string();
    Does::Answer(
        200,
        json!({ "key": "k", "value": value, "version": 1, "create_revision": 2, "mod_revision": revision }),
    )
}

fn committed(succeeded: bool) -> Does {
    Does::Answer(200, json!({ "outcome": "done", "succeeded": succeeded, "repeated": false, "reads": [] }))
}

fn in_the_way() -> Does {
    Does::Answer(409, json!({ "outcome": "refused", "reason": "conflict", "message": "the key b\"k\" is locked" }))
}

/// Each try asks once.
fn client(server: &Fake, tries: u32) -> Client {
    let options = Options { rounds: 1, transaction_tries: tries, ..Options::default() };
    Client::with([&server.endpoint], options).expect("an address")
}

fn number(value: Option<bytes::Bytes>) -> u64 {
    value.map_or(0, |value| String::from_utf8_lossy(&value).parse().expect("a number"))
}

async fn increment(tx: Tx) -> Result<u64, Error> {
    let n = number(tx.get("bank", "k").await?);
    tx.put("bank", "k", (n + 1).to_string());
    Ok(n + 1)
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split("\r\n\r\n").nth(1).expect("a body")).expect("json")
}

#[tokio::test]
async fn it_runs_again_until_nobody_has_changed_what_it_read() {
    let script = [kv(1, 7), committed(false), kv(2, 8), in_the_way(), kv(3, 9), committed(true)];
    let server = Fake::new(script).await;
    assert_eq!(client(&server, 9).transaction(increment).await, Ok(4));
    let heard = server.heard();
    for (at, revision, value) in [(1, 7, "2"), (3, 8, "3"), (5, 9, "4")] {
        let commit = body(&heard[at]);
        assert_eq!(commit["compare"], json!([{ "keyspace": "bank", "key": "k", "mod_revision": revision }]));
        assert_eq!(commit["write"], json!([{ "keyspace": "bank", "put": "k", "value": value }]));
    }
    let mut names: Vec<String> = server.headers("idempotency-key").into_iter().flatten().collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3, "each run has a name of its own");
}

#[tokio::test]
async fn it_gives_up_after_so_many_tries_and_says_who_was_in_the_way() {
    let server = Fake::new([kv(1, 7), committed(false), kv(1, 7), in_the_way()]).await;
    let Err(Error::Conflict { tries, message }) = client(&server, 2).transaction(increment).await else {
        panic!("others were in the way");
    };
    assert!(tries == 2 && message.contains("b\"k\" is locked"), "{tries}: {message}");
    // Or when there is no time left.
    let server = Fake::new([kv(1, 7), committed(false)]).await;
    let options = Options { transaction_deadline: Duration::ZERO, ..Options::default() };
    let hasty = Client::with([&server.endpoint], options).expect("an address");
    assert!(matches!(hasty.transaction(increment).await, Err(Error::Conflict { tries: 1, .. })));
    let server = Fake::new([kv(1, 7), committed(false)]).await;
    let gave_up = client(&server, 1).transaction(increment).await.expect_err("somebody changed it");
    assert!(gave_up.to_string().contains("bank/k"), "{gave_up}");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_does_not_run_the_closure_again() {
    let server = Fake::new([kv(1, 7), Does::HangUp, Does::HangUp, committed(true)]).await;
    let client = Client::new([&server.endpoint]).expect("an address");
    let runs = Cell::new(0);
    let counted = |tx: Tx| {
        runs.set(runs.get() + 1);
        increment(tx)
    };
    assert_eq!(client.transaction(counted).await, Ok(2));
    assert_eq!(runs.get(), 1);
    let names: Vec<String> = server.headers("idempotency-key").into_iter().flatten().collect();
    assert!(names.len() == 3 && names.iter().all(|name| *name == names[0]), "{names:?}");
}

#[tokio::test]
async fn what_it_has_written_it_sees_and_reads_are_asked_for_once() {
    let server = Fake::new([kv(1, 7), committed(true)]).await;
    let seen = client(&server, 1)
        .transaction(|tx| async move {
            let first = number(tx.get("bank", "k").await?);
            let again = number(tx.get("bank", "k").await?);
            tx.put("bank", "k", "5");
            let own = number(tx.get("bank", "k").await?);
            tx.delete("bank", "k");
            Ok::<_, Error>((first, again, own, tx.get("bank", "k").await?))
        })
        .await;
    assert_eq!(seen, Ok((1, 1, 5, None)));
    assert_eq!(server.heard().len(), 2);
}

#[derive(Debug, PartialEq)]
enum Mine {
    TooPoor,
    Theirs(Error),
}

impl From<Error> for Mine {
    fn from(error: Error) -> Self {
        Self::Theirs(error)
    }
}

#[tokio::test]
async fn an_error_of_its_own_counts_if_what_it_saw_was_so() {
    let poor = |tx: Tx| async move {
        let both = number(tx.get("bank", "a").await?) + number(tx.get("bank", "b").await?);
        tx.put("bank", "a", "0");
        if both < 5 { Err(Mine::TooPoor) } else { Ok(both) }
    };
    // What it saw first was never so.
    let server = Fake::new([kv(1, 7), kv(1, 3), committed(false), kv(1, 7), kv(1, 4), committed(true)]).await;
    assert_eq!(client(&server, 9).transaction(poor).await, Err(Mine::TooPoor));
    assert_eq!(body(&server.heard()[5])["write"], json!([]), "and nothing is written");
    let server = Fake::new([kv(1, 7), kv(1, 3), committed(false), kv(4, 8), kv(1, 3), committed(true)]).await;
    assert_eq!(client(&server, 9).transaction(poor).await, Ok(5));
    // That nobody is there is said at once.
    let server = Fake::new([kv(1, 7)]).await;
    let away = client(&server, 9).transaction(poor).await;
    assert!(matches!(away, Err(Mine::Theirs(Error::Unavailable { .. }))), "{away:?}");
}
