//! Requests that no honest client sends: each is refused with a reason, and the server does not mind.

use crate::support::{Cluster, call, connect, kv, put, serves};
use bytes::Bytes;
use quorate_etcd::proto::etcdserverpb::request_op::Request;
use quorate_etcd::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";

fn told<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("refused");
    (status.code(), status.message().to_owned())
}

fn invalid(text: &str) -> (Code, String) {
    (Code::InvalidArgument, text.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_in_etcds_words() {
    let cluster = Cluster::start(1).await;
    let mut client = kv(&cluster.endpoints()[0]).await.expect("a connection");
    assert_eq!(told(client.put(PutRequest::default()).await), invalid("etcdserver: key is not provided"));
    assert_eq!(told(client.range(RangeRequest::default()).await), invalid("etcdserver: key is not provided"));
    assert_eq!(
        told(client.delete_range(DeleteRangeRequest::default()).await),
        invalid("etcdserver: key is not provided")
    );
    let leased = PutRequest { lease: 77, ..put("k", "v") };
    let missing = (Code::NotFound, "etcdserver: requested lease not found".to_owned());
    assert_eq!(told(client.put(leased).await), missing);
    let future = (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision".to_owned());
    assert_eq!(told(client.range(RangeRequest { key: "k".into(), revision: 99, ..Default::default() }).await), future);
    assert_eq!(told(client.compact(CompactionRequest { revision: 99, physical: false }).await), future);
    // An end below the key is a range without keys, not a mistake.
    let backwards = RangeRequest { key: "k".into(), range_end: "a".into(), ..Default::default() };
    assert_eq!(client.range(backwards).await.expect("answered").into_inner().count, 0);
    let backwards = DeleteRangeRequest { key: "k".into(), range_end: "a".into(), ..Default::default() };
    assert_eq!(client.delete_range(backwards).await.expect("answered").into_inner().deleted, 0);
    let op = |n: usize| RequestOp { request: Some(Request::RequestPut(put(format!("k{n}"), "v"))) };
    let txn = |ops: usize| TxnRequest { success: (0..ops).map(op).collect(), ..Default::default() };
    assert_eq!(told(client.txn(txn(129)).await), invalid("etcdserver: too many operations in txn request"));
    assert_eq!(client.txn(txn(128)).await.expect("written").into_inner().header.expect("a header").revision, 2);
    assert_eq!(serves(&cluster.endpoints()[0]).await, 3, "nothing else was written");
}

/// A `PutRequest` of exactly so many bytes.
fn put_of(bytes: usize) -> Bytes {
    let mut message = vec![0x0A, 1, b'k', 0x12];
    let varint_bytes = 4;
    let value = bytes - message.len() - varint_bytes;
    for shift in 0..varint_bytes {
        let more = if shift + 1 < varint_bytes { 0x80 } else { 0 };
        message.push((value >> (7 * shift) & 0x7F) as u8 | more);
    }
    message.resize(bytes, b'x');
    message.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_any_size_is_taken_or_refused_and_disturbs_nobody() {
    const REQUEST_MAX: usize = 8 << 20;
    const MESSAGE_MAX: usize = REQUEST_MAX + (512 << 10);
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let (sender, mut other) =
        (connect(&endpoint).await.expect("a connection"), kv(&endpoint).await.expect("a connection"));
    let mut revision = 1;
    for (bytes, refusal) in [
        (REQUEST_MAX - 1024, None),
        (REQUEST_MAX + 1, Some(invalid("etcdserver: request is too large"))),
        (MESSAGE_MAX, Some(invalid("etcdserver: request is too large"))),
        (MESSAGE_MAX + 1, Some((Code::ResourceExhausted, larger(MESSAGE_MAX + 1, MESSAGE_MAX)))),
        (64 << 20, Some((Code::ResourceExhausted, larger(64 << 20, MESSAGE_MAX)))),
    ] {
        let answer = call(&sender, PUT, put_of(bytes)).await;
        revision += i64::from(refusal.is_none());
        assert_eq!(answer.map(|_| ()).map_err(|e| (e.code(), e.message().to_owned())).err(), refusal, "{bytes} bytes");
        let written = other.put(put("other", "v")).await.expect("others go on").into_inner();
        revision += 1;
        assert_eq!(written.header.expect("a header").revision, revision, "{bytes} bytes: nothing else was written");
    }
    // The connection that sent all this still works, and so does every other call of it.
    assert!(call(&sender, PUT, put_of(1024)).await.is_ok());
}

fn larger(bytes: usize, max: usize) -> String {
    format!("grpc: received message larger than max ({bytes} vs. {max})")
}

/// A put under so many levels of transactions, built from the inside as bytes: no encoder would survive the deepest.
fn nested(levels: usize) -> Bytes {
    // Heads are written backwards behind one another and the whole is turned around at the end.
    let mut reversed: Vec<u8> = [0x0A, 1, b'k'].into_iter().rev().collect();
    for key in [0x12, 0x12].into_iter().chain((0..levels).flat_map(|_| [0x22, 0x12])) {
        let mut head = vec![key];
        let mut rest = reversed.len();
        while rest >= 0x80 {
            head.push((rest & 0x7F) as u8 | 0x80);
            rest >>= 7;
        }
        head.push(rest as u8);
        reversed.extend(head.into_iter().rev());
    }
    reversed.reverse();
    reversed.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_nested_at_any_depth_is_taken_or_refused() {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let channel = connect(&endpoint).await.expect("a connection");
    for levels in [0, 1, 31, 32] {
        assert!(call(&channel, TXN, nested(levels)).await.is_ok(), "{levels} levels");
    }
    for levels in [33, 49, 50, 51, 100, 127] {
        let answer = call(&channel, TXN, nested(levels)).await;
        assert_eq!(told(answer), invalid("etcdserver: txn nested too deep"), "{levels} levels");
    }
    // From here on etcd refuses as well, in these words.
    for levels in [128, 1_000, 10_000, 100_000, 800_000] {
        let began = Instant::now();
        let answer = call(&channel, TXN, nested(levels)).await;
        assert_eq!(told(answer), invalid("etcdserver: too many operations in txn request"), "{levels} levels");
        assert!(began.elapsed() < Duration::from_secs(10), "{levels} levels: {:?}", began.elapsed());
    }
    assert_eq!(serves(&endpoint).await, 6, "four were written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_millions_of_operations_costs_the_server_little() {
    let cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let channel = connect(&endpoint).await.expect("a connection");
    serves(&endpoint).await;
    let before = cluster.resident_bytes(0);
    // Two bytes each, in one transaction under another: the bound per level does not see them before they are in memory.
    let empty: Vec<u8> = [0x12, 0].repeat(4 << 20);
    for _ in 0..3 {
        let answer = call(&channel, TXN, empty.clone()).await;
        assert_eq!(told(answer), invalid("etcdserver: too many operations in txn request"));
    }
    let grown = cluster.resident_bytes(0).saturating_sub(before);
    assert!(grown < 128 << 20, "the server grew by {} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_served_are_refused_by_name() {
    let cluster = Cluster::start(1).await;
    let channel = connect(&cluster.endpoints()[0]).await.expect("a connection");
    for (path, text) in [
        ("/etcdserverpb.Auth/UserAdd", "quorate: etcdserverpb.Auth/UserAdd is not served yet"),
        ("/etcdserverpb.Auth/RoleGrantPermission", "quorate: etcdserverpb.Auth/RoleGrantPermission is not served yet"),
        ("/etcdserverpb.Maintenance/Downgrade", "quorate: etcdserverpb.Maintenance/Downgrade is not served yet"),
        ("/etcdserverpb.Maintenance/Snapshot", "quorate: etcdserverpb.Maintenance/Snapshot is not served yet"),
        ("/v3lockpb.Lock/Lock", "quorate: v3lockpb.Lock/Lock is not served yet"),
        ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
        ("/nope.Nope/Nope", "unknown service nope.Nope"),
    ] {
        assert_eq!(told(call(&channel, path, Bytes::new()).await), (Code::Unimplemented, text.to_owned()));
    }
    let garbage = told(call(&channel, TXN, vec![0xFF; 3]).await);
    assert_eq!(garbage.0, Code::Internal);
    assert!(garbage.1.starts_with("grpc: error unmarshalling request: "), "{}", garbage.1);
    assert!(call(&channel, TXN, Bytes::new()).await.is_ok(), "an empty transaction is one");
}
