//! Connections that are opened and not used.

use crate::support::{Cluster, Watching, kv, put, serves};
use quorate_etcd::proto::etcdserverpb::WatchCreateRequest;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The server's bound is 10 s.
const CLOSED_AFTER: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(20));

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The head of an empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Says `first` and then nothing; returns how long the server kept the connection, if it closed it in time.
async fn kept(endpoint: &str, first: &[u8]) -> Option<Duration> {
    let mut stream = TcpStream::connect(endpoint).await.expect("connected");
    let began = Instant::now();
    stream.write_all(first).await.expect("written");
    let mut rest = Vec::new();
    // A reset is an end as well.
    timeout(CLOSED_AFTER.1, stream.read_to_end(&mut rest)).await.ok().map(|_| began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_and_says_too_little_is_closed_and_who_is_a_client_is_not() {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let mut idle = kv(&endpoint).await.expect("a connection");
    idle.put(put("k", "v")).await.expect("written");
    let mut watching = Watching::on(&endpoint).await;
    watching.created(WatchCreateRequest { key: "k".into(), ..Default::default() }).await;

    let open = [PREFACE, SETTINGS].concat();
    let (nothing, one_byte, part, preface, page, half_page, client) = tokio::join!(
        kept(&endpoint, b""),
        kept(&endpoint, b"P"),
        kept(&endpoint, &PREFACE[..10]),
        kept(&endpoint, PREFACE),
        kept(&endpoint, b"GET /version HTTP/1.1\r\nHost: q\r\n\r\n"),
        kept(&endpoint, b"GET /version HTTP/1.1\r\nHo"),
        kept(&endpoint, &open),
    );
    for (what, kept) in [
        ("nothing", nothing),
        ("one byte", one_byte),
        ("a part of the preface", part),
        ("the preface alone", preface),
        ("half a header", half_page),
    ] {
        let kept = kept.unwrap_or_else(|| panic!("{what}: still open"));
        assert!(kept > CLOSED_AFTER.0, "{what}: closed after {kept:?}");
    }
    assert!(page.is_some(), "a page was fetched and no other asked for");
    assert_eq!(client, None, "a client may wait for its first call as long as it answers pings");
    // Twenty seconds have passed, and both are as they were.
    let revision = idle.put(put("k", "w")).await.expect("written").into_inner().header.expect("a header").revision;
    assert_eq!(watching.next().await.events[0].kv.as_ref().expect("a key").mod_revision, revision);
    serves(&endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_connection_and_disturbs_nobody() {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let garbage = [vec![0xFF; 4096], [PREFACE, &[0xFF; 4096][..]].concat(), b"GET\0/ HTTP/9.9\r\n\r\n".to_vec()];
    for first in &garbage {
        let kept = kept(&endpoint, first).await.expect("closed");
        assert!(kept < CLOSED_AFTER.0, "at once, not after {kept:?}");
    }
    serves(&endpoint).await;
}
