//! Real processes over real sockets and files: what a user does, and what happens to machines.

mod support;

use quorate_etcd::proto::etcdserverpb::watch_request::RequestUnion;
use quorate_etcd::proto::etcdserverpb::{
    CompactionRequest, PutRequest, RangeRequest, WatchCancelRequest, WatchCreateRequest,
};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Cluster, etcdctl, kv, python};

/// How long the killing goes on.
const KILLING: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_while_nodes_are_killed() {
    let mut cluster = Cluster::start(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8usize)
        .map(|writer| {
            let (endpoints, stop) = (cluster.endpoints(), stop.clone());
            tokio::spawn(async move {
                // The last acknowledged and the last tried value of this writer's key, and every revision it saw.
                let (mut acknowledged, mut tried, mut revision) = (0u64, 0u64, 0i64);
                let (mut client, mut at) = (kv(&endpoints[writer % 3]).await, writer);
                while !stop.load(Ordering::Relaxed) {
                    tried += 1;
                    let put = PutRequest {
                        key: format!("writer/{writer}").into(),
                        value: tried.to_string().into(),
                        ..Default::default()
                    };
                    let answer = match &mut client {
                        Some(client) => tokio::time::timeout(Duration::from_secs(10), client.put(put)).await,
                        None => Ok(Err(tonic::Status::unavailable("not connected"))),
                    };
                    match answer.expect("no proposal hangs") {
                        Ok(answer) => {
                            let now = answer.into_inner().header.expect("a header").revision;
                            assert!(now > revision, "revision {now} after {revision}");
                            (acknowledged, revision) = (tried, now);
                        }
                        Err(_) => {
                            at += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            client = kv(&endpoints[at % 3]).await;
                        }
                    }
                }
                (format!("writer/{writer}"), acknowledged, tried)
            })
        })
        .collect();
    let began = Instant::now();
    let mut victim = 0;
    while began.elapsed() < KILLING {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.kill(victim % 3);
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.restart(victim % 3);
        victim += 1 + usize::from(victim % 2 == 0);
    }
    stop.store(true, Ordering::Relaxed);
    let mut writes = BTreeMap::new();
    for writer in writers {
        let (key, acknowledged, tried) = writer.await.expect("a writer ends");
        assert!(acknowledged > 10, "{key} got only {acknowledged} writes through");
        writes.insert(key, (acknowledged, tried));
    }
    // All at once, then look.
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.restart(node));
    cluster.ready().await;
    for endpoint in cluster.endpoints() {
        let mut client = kv(&endpoint).await.expect("a connection");
        for (key, (acknowledged, tried)) in &writes {
            let range = RangeRequest { key: key.clone().into(), ..Default::default() };
            let found = client.range(range).await.expect("readable").into_inner();
            let value: u64 = String::from_utf8_lossy(&found.kvs[0].value).parse().expect("a number");
            assert!(
                value >= *acknowledged && value <= *tried,
                "{key}: {value}, acknowledged {acknowledged}, tried {tried}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_serves_etcdctl() {
    let cluster = Cluster::start(1).await;
    let Some(etcdctl) = etcdctl() else {
        eprintln!("SKIPPED: etcdctl is not installed (Debian: etcd-client)");
        return;
    };
    let endpoint = &cluster.endpoints()[0];
    let run = |args: &[&str], input: &str| {
        support::run(Command::new(&etcdctl).args(["--endpoints", endpoint]).args(args), input)
    };
    assert_eq!(run(&["put", "a", "1"], ""), "OK\n");
    assert_eq!(run(&["put", "a", "2", "--prev-kv"], ""), "OK\na\n1\n");
    assert_eq!(run(&["get", "a"], ""), "a\n2\n");
    assert_eq!(run(&["get", "a", "--rev", "2"], ""), "a\n1\n");
    assert_eq!(run(&["txn"], "value(\"a\") = \"2\"\n\nput b yes\n\nput b no\n\n"), "SUCCESS\n\nOK\n");
    assert_eq!(run(&["get", "", "--prefix", "--keys-only"], ""), "a\n\nb\n\n");
    assert_eq!(run(&["del", "a", "b"], ""), "1\n");
    assert_eq!(run(&["compaction", "3"], ""), "compacted revision 3\n");
    assert!(run(&["lease", "grant", "100"], "").contains("granted with TTL(100s)"));
    assert!(run(&["lease", "list"], "").starts_with("found 1 leases"));
    assert!(run(&["endpoint", "status"], "").contains("true"));
    assert!(run(&["member", "list"], "").contains("started, n1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_is_content() {
    let cluster = Cluster::start(1).await;
    let Some(python) = python() else {
        eprintln!("SKIPPED: no python3 with the aetcd package (pip install aetcd)");
        return;
    };
    let port = cluster.endpoints()[0].rsplit_once(':').expect("host:port").1.to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/aetcd/content.py");
    assert_eq!(support::run(Command::new(python).args([script, &port]), ""), "content\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_a_compaction_ended_keeps_its_id_until_it_is_cancelled() {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let mut client = kv(&endpoint).await.expect("a connection");
    for value in ["1", "2", "3"] {
        let put = PutRequest { key: "k".into(), value: value.into(), ..Default::default() };
        client.put(put).await.expect("put");
    }
    client.compact(CompactionRequest { revision: 3, physical: false }).await.expect("compacted");
    let mut watches = support::Watches::open(&endpoint).await;
    let create = |start_revision, watch_id| {
        let create = WatchCreateRequest { key: "k".into(), start_revision, watch_id, ..Default::default() };
        RequestUnion::CreateRequest(create)
    };
    let cancel = || RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 7 });
    // No revision is below 0, so etcd calls it compacted before it looks at anything else.
    let refused = watches.ask(create(-1, 7)).await;
    assert_eq!(refused.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
    let opened = watches.ask(create(2, 7)).await;
    assert_eq!((opened.watch_id, opened.created, opened.canceled), (7, true, false));
    let ended = watches.next().await;
    assert_eq!((ended.watch_id, ended.canceled, ended.compact_revision), (7, true, 3));
    let taken = watches.ask(create(0, 7)).await;
    assert_eq!(taken.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let cancelled = watches.ask(cancel()).await;
    assert_eq!((cancelled.watch_id, cancelled.canceled, cancelled.compact_revision), (7, true, 0));
    assert_eq!(watches.ask(create(0, 7)).await.watch_id, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_disturbs_nobody() {
    use std::io::{Read, Write};
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    // Garbage and a half-open connection on the client port.
    let mut garbage = std::net::TcpStream::connect(&endpoint).expect("connected");
    garbage.write_all(&[0xFF; 4096]).expect("written");
    let _half_open = std::net::TcpStream::connect(&endpoint).expect("connected");
    let mut client = kv(&endpoint).await.expect("a connection");
    let refused = client.put(PutRequest::default()).await.expect_err("an empty key");
    assert_eq!(refused.message(), "etcdserver: key is not provided");
    let unknown = PutRequest { key: "k".into(), lease: 77, ..Default::default() };
    assert_eq!(
        client.put(unknown).await.expect_err("no such lease").message(),
        "etcdserver: requested lease not found"
    );
    let huge = PutRequest { key: "k".into(), value: vec![0; (8 << 20) + 1].into(), ..Default::default() };
    assert_eq!(client.put(huge).await.expect_err("too large").message(), "etcdserver: request is too large");
    let future = RangeRequest { key: "k".into(), revision: 99, ..Default::default() };
    let refused = client.range(future).await.expect_err("a future revision");
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision is a future revision");
    // A second process on the same data is turned away, the first goes on.
    let second = cluster.second_process();
    assert!(second.contains("in use by another process"), "{second}");
    let fine = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    assert_eq!(client.put(fine).await.expect("fine").into_inner().header.expect("a header").revision, 2);
    let mut rest = Vec::new();
    garbage.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    assert!(garbage.read_to_end(&mut rest).is_ok() || rest.len() < 4096, "the garbage connection is closed");
}
