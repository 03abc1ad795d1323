//! What a watch says, and when.

use crate::support::{Cluster, Here, Watching, kv, put, serves};
use quorate_etcd::Options;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::request_op::Request;
use quorate_etcd::proto::etcdserverpb::watch_create_request::FilterType;
use quorate_etcd::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchResponse,
};
use quorate_etcd::proto::mvccpb::event::EventType;
use std::time::Duration;
use tonic::transport::Channel;

async fn begin() -> (Cluster, KvClient<Channel>, Watching) {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let (client, watching) = (kv(&endpoint).await.expect("a connection"), Watching::on(&endpoint).await);
    (cluster, client, watching)
}

fn on(key: &'static str, end: &'static str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into(), range_end: end.into(), ..Default::default() }
}

fn delete(key: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), ..Default::default() }
}

/// Events as `key=value@revision`, a removal without a value, and what was there before in brackets.
fn events(response: &WatchResponse) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let one = response.events.iter().map(|event| {
        let kv = event.kv.as_ref().expect("an event has a key");
        let value = if event.r#type() == EventType::Put { format!("={}", text(&kv.value)) } else { String::new() };
        let before = event.prev_kv.as_ref().map_or_else(String::new, |kv| format!("[{}]", text(&kv.value)));
        format!("{}{value}@{}{before}", text(&kv.key), kv.mod_revision)
    });
    one.collect::<Vec<_>>().join(" ")
}

/// The refusal of a watch that never stood.
fn refused(response: &WatchResponse) -> &str {
    assert!(response.created && response.canceled && response.watch_id == -1, "{response:?}");
    &response.cancel_reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_told_what_it_asked_for() {
    let (_cluster, mut client, mut watching) = begin().await;
    let filters = |filter: FilterType| vec![filter as i32];
    watching.created(WatchCreateRequest { watch_id: 1, ..on("a", "c") }).await;
    watching
        .created(WatchCreateRequest { watch_id: 2, filters: filters(FilterType::Noput), prev_kv: true, ..on("a", "") })
        .await;
    watching.created(WatchCreateRequest { watch_id: 3, filters: filters(FilterType::Nodelete), ..on("b", "") }).await;
    // From a revision that is still to come.
    watching.created(WatchCreateRequest { watch_id: 4, start_revision: 4, ..on("\0", "\0") }).await;
    client.put(put("a", "1")).await.expect("written");
    client.put(put("b", "1")).await.expect("written");
    client.delete_range(delete("a")).await.expect("removed");
    client.delete_range(delete("b")).await.expect("removed");
    client.put(put("c", "1")).await.expect("written");
    let mut seen = vec![Vec::new(); 5];
    for _ in 0..9 {
        let response = watching.next().await;
        let id = usize::try_from(response.watch_id).expect("one of them");
        seen[id].push(events(&response));
    }
    assert_eq!(seen[1], ["a=1@2", "b=1@3", "a@4", "b@5"]);
    assert_eq!(seen[2], ["a@4[1]"]);
    assert_eq!(seen[3], ["b=1@3"]);
    assert_eq!(seen[4], ["a@4", "b@5", "c=1@6"]);
    watching.is_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_cannot_be_are_refused_as_etcd_does() {
    let (_cluster, mut client, mut watching) = begin().await;
    watching.created(WatchCreateRequest { watch_id: 7, ..on("a", "") }).await;
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    for (request, reason) in [
        (on("b", "a"), "mvcc: watcher range is empty"),
        (on("b", "b"), "mvcc: watcher range is empty"),
        (WatchCreateRequest { watch_id: 7, ..on("z", "") }, "mvcc: duplicate watch ID provided on the WatchStream"),
        (WatchCreateRequest { start_revision: -5, ..on("a", "") }, compacted),
        // Of several reasons etcd names the revision first, then the range.
        (WatchCreateRequest { start_revision: -5, watch_id: 7, ..on("b", "a") }, compacted),
        (WatchCreateRequest { watch_id: 7, ..on("b", "a") }, "mvcc: watcher range is empty"),
    ] {
        watching.create(request.clone()).await;
        assert_eq!(refused(&watching.next().await), reason, "{request:?}");
    }
    // The empty key is the first one.
    let id = watching.created(on("", "")).await.watch_id;
    client.put(put("\0", "first")).await.expect("written");
    let first = watching.next().await;
    assert_eq!((first.watch_id, events(&first).as_str()), (id, "\0=first@2"));
    // Negative ids are ids.
    assert_eq!(watching.created(WatchCreateRequest { watch_id: -9, ..on("n", "") }).await.watch_id, -9);
    client.put(put("n", "1")).await.expect("written");
    assert_eq!(watching.next().await.watch_id, -9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_watch_is_silent_and_its_neighbour_is_not() {
    let (_cluster, mut client, mut watching) = begin().await;
    for watch_id in [1, 2] {
        watching.created(WatchCreateRequest { watch_id, ..on("a", "") }).await;
    }
    watching.cancel(99).await;
    watching.cancel(1).await;
    let cancelled = watching.next().await;
    assert!(cancelled.canceled && !cancelled.created && cancelled.watch_id == 1, "{cancelled:?}");
    assert_eq!((cancelled.cancel_reason.as_str(), cancelled.compact_revision), ("", 0));
    client.put(put("a", "1")).await.expect("written");
    assert_eq!(watching.next().await.watch_id, 2);
    watching.is_quiet().await;
    // The id is free again.
    watching.created(WatchCreateRequest { watch_id: 1, start_revision: 2, ..on("a", "") }).await;
    assert_eq!(events(&watching.next().await), "a=1@2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_what_was_compacted_says_from_where_it_could_go_on() {
    let (_cluster, mut client, mut watching) = begin().await;
    for n in 0..5 {
        client.put(put("a", n.to_string())).await.expect("written");
    }
    client.compact(CompactionRequest { revision: 4, physical: true }).await.expect("compacted");
    watching.created(WatchCreateRequest { watch_id: 5, start_revision: 3, ..on("a", "") }).await;
    let ended = watching.next().await;
    assert!(ended.canceled && !ended.created && ended.watch_id == 5, "{ended:?}");
    assert_eq!(ended.compact_revision, 4);
    watching.created(WatchCreateRequest { watch_id: 6, start_revision: ended.compact_revision, ..on("a", "") }).await;
    // In one response or in several.
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(events(&watching.next().await).split(' ').map(str::to_owned));
    }
    assert_eq!(seen, ["a=2@4", "a=3@5", "a=4@6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_when_it_is_asked_for() {
    let (_cluster, mut client, mut watching) = begin().await;
    // Without a watch there is no progress, and etcd does not answer.
    watching.ask_progress().await;
    watching.is_quiet().await;
    for watch_id in [1, 2] {
        watching.created(WatchCreateRequest { watch_id, ..on("a", "") }).await;
    }
    client.put(put("elsewhere", "1")).await.expect("written");
    watching.ask_progress().await;
    let progress = watching.next().await;
    assert!(progress.events.is_empty() && !progress.created && !progress.canceled, "{progress:?}");
    assert_eq!((progress.watch_id, progress.header.expect("a header").revision), (-1, 2));
    watching.is_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_too_large_comes_in_fragments_if_that_was_asked_for() {
    const PUTS: usize = 100;
    const VALUE_BYTES: usize = 50_000;
    let (_cluster, mut client, mut watching) = begin().await;
    watching.created(WatchCreateRequest { watch_id: 1, fragment: true, ..on("k", "l") }).await;
    watching.created(WatchCreateRequest { watch_id: 2, ..on("k", "l") }).await;
    let op = |n| RequestOp { request: Some(Request::RequestPut(put(format!("k{n:03}"), vec![7; VALUE_BYTES]))) };
    let txn = TxnRequest { success: (0..PUTS).map(op).collect(), ..Default::default() };
    client.txn(txn).await.expect("written");
    let (mut fragments, mut keys, mut whole) = (0, Vec::new(), 0);
    // One revision, 5 MB: in one piece for the one, in five or six for the other.
    loop {
        let response = watching.next().await;
        if response.watch_id == 2 {
            assert!(!response.fragment);
            assert_eq!(response.events.len(), PUTS);
            whole += 1;
        } else {
            fragments += 1;
            let bytes: usize = response.events.iter().map(|event| event.kv.as_ref().expect("a key").value.len()).sum();
            assert!(bytes <= 1 << 20, "{bytes} in a fragment");
            keys.extend(response.events.into_iter().map(|event| event.kv.expect("a key").key));
            assert_eq!(response.fragment, keys.len() < PUTS, "the last, and only it, says that it is the last");
        }
        if keys.len() == PUTS && whole == 1 {
            break;
        }
    }
    assert!((5..=6).contains(&fragments), "{fragments}");
    assert!(keys.is_sorted());
    watching.is_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_watch_is_told_its_progress_if_that_was_asked_for() {
    let period = Duration::from_millis(500);
    let here = Here::start(Options { progress_interval: period, ..Default::default() }).await;
    let mut watching = Watching::on(&here.endpoint).await;
    watching.created(WatchCreateRequest { watch_id: 1, progress_notify: true, ..on("k", "") }).await;
    watching.created(WatchCreateRequest { watch_id: 2, ..on("k", "") }).await;
    let revision = serves(&here.endpoint).await;
    // Only the watch that asked for it, again and again, with the revision up to which it has seen everything.
    let mut told = 0;
    for _ in 0..3 {
        let progress = watching.next().await;
        assert!(progress.events.is_empty() && !progress.created && !progress.canceled, "{progress:?}");
        assert_eq!(progress.watch_id, 1);
        told = progress.header.expect("a header").revision;
    }
    assert_eq!(told, revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_a_compaction_ended_keeps_its_id_until_it_is_cancelled() {
    let (_cluster, mut client, mut watching) = begin().await;
    for value in ["1", "2", "3"] {
        client.put(put("k", value)).await.expect("written");
    }
    client.compact(CompactionRequest { revision: 3, physical: false }).await.expect("compacted");
    let from = |start_revision| WatchCreateRequest { start_revision, watch_id: 7, ..on("k", "") };
    // No revision is below 0, so etcd calls it compacted before it looks at anything else.
    watching.create(from(-1)).await;
    assert_eq!(refused(&watching.next().await), "etcdserver: mvcc: required revision has been compacted");
    watching.created(from(2)).await;
    let ended = watching.next().await;
    assert_eq!((ended.watch_id, ended.canceled, ended.compact_revision), (7, true, 3));
    watching.create(from(0)).await;
    assert_eq!(refused(&watching.next().await), "mvcc: duplicate watch ID provided on the WatchStream");
    watching.cancel(7).await;
    let cancelled = watching.next().await;
    assert_eq!((cancelled.watch_id, cancelled.canceled, cancelled.compact_revision), (7, true, 0));
    assert_eq!(watching.created(from(0)).await.watch_id, 7);
}
