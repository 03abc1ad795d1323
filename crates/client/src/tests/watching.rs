//! Watches that go on at another server, behind what was handed out.

use crate::fake::{Does, Fake};
use crate::{Change, Client, Error, Options, Range, Watch, WatchEvent};
use serde_json::json;
use std::time::Duration;

const FIRST: &str = "id: 4\nevent: created\ndata: {\"revision\":4}\n\n\
    id: 5\nevent: change\ndata: {\"changes\":[{\"create_revision\":5,\"key\":\"a\",\
    \"mod_revision\":5,\"type\":\"put\",\"value\":\"1\",\"version\":1}],\"revision\":5}\n\n\
    event: stopping\ndata: {\"reason\":\"stopping\"}\n\n";

const SECOND: &str = "id: 5\nevent: created\ndata: {\"revision\":9}\n\n\
    id: 6\nevent: change\ndata: {\"changes\":[{\"key\":\"a\",\"mod_revision\":6,\
    \"prev\":{\"create_revision\":5,\"key\":\"a\",\"mod_revision\":5,\"value\":\"1\",\
    \"version\":1},\"type\":\"delete\"}],\"revision\":6}\n\n\
    id: 9\nevent: progress\ndata: {\"revision\":9}\n\nid: 10\nevent: cha";

async fn next(watch: &mut Watch) -> WatchEvent {
    let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    next.expect("in time").expect("an event")
}

#[tokio::test]
async fn it_goes_on_behind_the_last_event_at_another_server() {
    let (one, two) = (Fake::new([Does::Tell(FIRST)]).await, Fake::new([Does::Tell(SECOND), Does::HangUp]).await);
    let client = Client::new([&one.endpoint, &two.endpoint]).expect("addresses");
    let mut watch = client.watch("ledger", &Range::prefix("a")).with_prev();
    assert_eq!(next(&mut watch).await, WatchEvent::Created { revision: 4 });
    let WatchEvent::Changed { revision: 5, changes } = next(&mut watch).await else { panic!("a change") };
    assert!(matches!(&changes[..], [Change::Put { kv, prev: None }] if kv.text() == Some("1")), "{changes:?}");
    assert_eq!(watch.seen(), Some(5));
    let WatchEvent::Changed { revision: 6, changes } = next(&mut watch).await else { panic!("a change") };
    assert!(matches!(&changes[..], [Change::Delete { mod_revision: 6, prev: Some(_), .. }]), "{changes:?}");
    assert_eq!(next(&mut watch).await, WatchEvent::Progress { revision: 9 });
    // What came in pieces was not told.
    assert!(tokio::time::timeout(Duration::from_millis(300), watch.next()).await.is_err());
    assert_eq!(watch.seen(), Some(9));
    assert!(one.heard()[0].starts_with("GET /v1/watch/ledger?prefix=a&prev=true HTTP/1.1\r\n"));
    let seen = [one.headers("last-event-id"), two.headers("last-event-id")].map(|seen| seen.into_iter().flatten());
    let [one, two] = seen.map(|seen| seen.take(2).collect::<Vec<String>>());
    assert_eq!(two[0], "5");
    assert!(one.iter().chain(&two[1..]).all(|seen| seen == "9"), "{one:?} and {two:?}");
}

#[tokio::test]
async fn it_ends_when_it_is_refused_or_what_it_wants_is_gone() {
    let compacted = "event: compacted\ndata: {\"reason\":\"compacted\",\"message\":\"gone\",\"compacted\":7}\n\n";
    let ranged = Does::Answer(400, json!({ "reason": "not_ordered", "message": "not in an ordered keyspace" }));
    let server = Fake::new([Does::Tell(compacted), ranged]).await;
    let client = Client::new([&server.endpoint]).expect("an address");
    let mut watch = client.watch("ledger", &Range::All).from_revision(3);
    assert_eq!(watch.next().await, Err(Error::Compacted { oldest: 7 }));
    assert!(matches!(watch.next().await, Err(Error::Refused { .. })));
    assert!(server.heard()[0].starts_with("GET /v1/watch/ledger?revision=3 "));
}

#[tokio::test]
async fn it_gives_up_when_nobody_was_heard_for_too_long() {
    let server = Fake::new([]).await;
    let options = Options { watch_patience: Duration::from_millis(300), ..Options::default() };
    let client = Client::with([&server.endpoint], options).expect("an address");
    let gave_up = client.watch("ledger", &Range::All).next().await;
    assert!(matches!(gave_up, Err(Error::Unavailable { .. })), "{gave_up:?}");
    let asked = server.heard().len();
    assert!((2..=60).contains(&asked), "with pauses between: {asked}");
}
