//! The native API's second door: what comes in over gRPC means the same as over HTTP, and is refused for the same reasons, which are typed.

use crate::support::native::request;
use crate::support::{Cluster, PATIENCE, call, connect, serves};
use bytes::Bytes;
use quorate_native::grpc::problem_of;
use quorate_native::grpc::proto::quorate_client::QuorateClient;
use quorate_native::grpc::proto::watch_response::Event;
use quorate_native::grpc::proto::{
    AppendRequest, Compare, Condition, CreateKeyspaceRequest, DeleteRequest, Entry, FetchRequest, GetRequest, Kind,
    ListKeyspacesRequest, Outcome, Problem, PutRequest, Read, Record, Records, ScanRequest, SplitKeyspaceRequest,
    StatusRequest, TransactRequest, TrimRequest, WatchRequest, WatchResponse, Write, change, compare, fetch_request,
    write,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

type Client = QuorateClient<Channel>;

async fn client(endpoint: &str) -> Client {
    QuorateClient::new(connect(endpoint).await.expect("a connection"))
}

/// What a call is refused with.
fn problem<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, Problem) {
    let status = answer.expect_err("no good answer");
    let problem = problem_of(&status).unwrap_or_else(|| panic!("no problem in {status:?}"));
    assert_eq!(problem.message, status.message());
    (status.code(), problem)
}

/// The code and the reason alone.
fn told<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let (code, problem) = problem(answer);
    (code, problem.reason)
}

fn why(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

async fn create(client: &mut Client, name: &str, kind: Kind, split_at: &[&'static str], replicas: Option<u32>) {
    let split_at = split_at.iter().map(|at| Bytes::from(*at)).collect();
    let wish = CreateKeyspaceRequest { name: name.into(), kind: kind.into(), split_at, replicas };
    let made = client.create_keyspace(wish).await.expect("made").into_inner().keyspace.expect("a keyspace");
    assert_eq!((made.name.as_str(), made.kind()), (name, kind));
}

fn put(keyspace: &str, key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutRequest {
    PutRequest { keyspace: keyspace.into(), key: key.into(), value: value.into(), ..PutRequest::default() }
}

fn get(keyspace: &str, key: impl Into<Bytes>) -> GetRequest {
    GetRequest { keyspace: keyspace.into(), key: key.into(), freshness: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_appended_fetched_and_cut_off_by_this_door_too() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    let mut client = client(endpoint).await;
    create(&mut client, "feed", Kind::Log, &[], None).await;
    let record = |value: &'static str| Record { key: "k".into(), value: value.into() };
    for repeated in [false, true] {
        let (records, idempotency_key) = (vec![record("a"), record("b")], Some("order-17".into()));
        let append = AppendRequest { log: "feed".into(), records, idempotency_key, ..AppendRequest::default() };
        let done = client.append(append).await.expect("appended").into_inner();
        assert_eq!((done.offset, done.count, done.repeated), (0, 2, repeated));
    }
    let append =
        Write { keyspace: "feed".into(), what: Some(write::What::Append(Records { records: vec![record("c")] })) };
    let tx = TransactRequest { write: vec![append], ..TransactRequest::default() };
    assert_eq!(client.transact(tx).await.expect("done").into_inner().appended, [2]);
    let fetch = |offset, wait_ms| FetchRequest {
        log: "feed".into(),
        start: Some(fetch_request::Start::Offset(offset)),
        wait_ms: Some(wait_ms),
        ..FetchRequest::default()
    };
    let fetched = client.fetch(fetch(1, 0)).await.expect("fetched").into_inner();
    let values: Vec<(u64, Bytes)> = fetched.entries.iter().map(|entry| (entry.offset, entry.value.clone())).collect();
    assert_eq!(values, [(1, "b".into()), (2, "c".into())]);
    assert_eq!((fetched.next, fetched.first, fetched.end), (3, 0, 3));
    assert!(client.fetch(fetch(3, 100)).await.expect("nothing yet").into_inner().entries.is_empty());
    let trim = TrimRequest { log: "feed".into(), before: 2 };
    assert_eq!(client.trim(trim).await.expect("cut off").into_inner().first, 2);
    let (code, gone) = problem(client.fetch(fetch(0, 0)).await);
    assert_eq!((code, gone.reason.as_str(), gone.first), (Code::OutOfRange, "trimmed", Some(2)));
    let (code, beyond) = problem(client.fetch(fetch(9, 0)).await);
    assert_eq!((code, beyond.reason.as_str(), beyond.end), (Code::OutOfRange, "beyond_end", Some(3)));
    assert_eq!(told(client.get(get("feed", "k")).await), why(Code::InvalidArgument, "keys_in_log"));
    let elsewhere = FetchRequest { log: "default".into(), ..FetchRequest::default() };
    assert_eq!(told(client.fetch(elsewhere).await), why(Code::InvalidArgument, "not_log"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_written_under_conditions_and_by_whichever_door() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    let (mut one, mut other) = (client(&endpoints[0]).await, client(&endpoints[1]).await);
    create(&mut one, "stock", Kind::Ranged, &["m"], None).await;
    // A keyspace that another node has just made is known, and any bytes are a key.
    let key: &[u8] = &[0xFF, 0, b'/'];
    assert!(!other.put(put("stock", key, "4")).await.expect("written").into_inner().repeated);
    let kv = one.get(get("stock", key)).await.expect("it is there").into_inner().kv.expect("a key");
    assert_eq!((&kv.key[..], &kv.value[..], kv.version), (key, &b"4"[..], 1));
    let http = request(&endpoints[2], "GET", "/v1/kv/stock/%FF%00/", None, &Value::Null).expect("an answer");
    assert_eq!((http.0, &http.1["value"], &http.1["mod_revision"]), (200, &json!("4"), &json!(kv.mod_revision)));

    let expecting = |value: &'static str| Some(Condition { value: Some(value.into()), ..Condition::default() });
    let (code, refused) = problem(one.put(PutRequest { condition: expecting("5"), ..put("stock", key, "3") }).await);
    assert_eq!(
        (code, refused.outcome(), refused.reason.as_str()),
        (Code::FailedPrecondition, Outcome::Refused, "condition_failed")
    );
    assert_eq!(refused.now.expect("somebody looked").kv, Some(kv));
    let empty = PutRequest { condition: Some(Condition::default()), ..put("stock", key, "3") };
    assert_eq!(told(one.put(empty).await), why(Code::InvalidArgument, "bad_request"));

    // One name for both doors: what one of them did, the other does not do again.
    let named =
        PutRequest { condition: expecting("4"), idempotency_key: Some("order-16".into()), ..put("stock", key, "3") };
    assert!(!one.put(named.clone()).await.expect("written").into_inner().repeated);
    assert!(other.put(named).await.expect("written").into_inner().repeated);
    let body = json!({ "value": "3", "if": { "value": "4" } });
    let again = request(&endpoints[2], "PUT", "/v1/kv/stock/%FF%00/", Some("order-16"), &body).expect("an answer");
    assert_eq!(again, (200, json!({ "outcome": "done", "repeated": true, "token": again.1["token"] })));

    let delete = |condition| DeleteRequest {
        keyspace: "stock".into(),
        key: key.into(),
        condition,
        idempotency_key: None,
        after: None,
    };
    assert_eq!(told(one.delete(delete(expecting("4"))).await), why(Code::FailedPrecondition, "condition_failed"));
    assert_eq!(one.delete(delete(None)).await.expect("removed").into_inner().deleted, Some(true));
    assert_eq!(other.delete(delete(None)).await.expect("nothing to remove").into_inner().deleted, Some(false));
    let (code, refused) = problem(one.get(get("stock", key)).await);
    assert_eq!((code, refused.reason.as_str(), &refused.key[..]), (Code::NotFound, "no_such_key", key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_is_followed_page_by_page_while_its_keyspace_splits() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    let mut client = client(&endpoints[0]).await;
    create(&mut client, "stock", Kind::Ranged, &["k/010"], None).await;
    let write = |n: usize| Write {
        keyspace: "stock".into(),
        what: Some(write::What::Put(Entry { key: format!("k/{n:03}").into(), value: n.to_string().into() })),
    };
    let all = TransactRequest { write: (0..50).map(write).collect(), ..TransactRequest::default() };
    assert!(client.transact(all).await.expect("written").into_inner().succeeded);
    let (mut found, mut pages) = (Vec::new(), 0);
    let mut next = Some(ScanRequest {
        keyspace: "stock".into(),
        prefix: Some("k/".into()),
        after: Some("k/001".into()),
        limit: Some(7),
        ..ScanRequest::default()
    });
    while let Some(request) = next {
        let page = client.scan(request).await.expect("a page").into_inner();
        assert!(page.kvs.len() <= 7);
        found.extend(page.kvs.into_iter().map(|kv| (kv.key, kv.value)));
        (next, pages) = (page.next, pages + 1);
        if pages == 3 {
            let at = "k/030".into();
            let split = SplitKeyspaceRequest { name: "stock".into(), at };
            let split = client.split_keyspace(split.clone()).await.expect("split").into_inner();
            assert_eq!(split.keyspace.expect("a keyspace").shards.len(), 3);
        }
    }
    let expected = (2..50).map(|n: usize| (Bytes::from(format!("k/{n:03}")), Bytes::from(n.to_string())));
    assert_eq!(found, expected.collect::<Vec<_>>());
    let again = SplitKeyspaceRequest { name: "stock".into(), at: "k/030".into() };
    assert_eq!(told(client.split_keyspace(again).await), why(Code::AlreadyExists, "already_split"));
    let crowded = ScanRequest { keyspace: "stock".into(), limit: Some(1001), ..ScanRequest::default() };
    assert_eq!(told(client.scan(crowded).await), why(Code::InvalidArgument, "bad_request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_two_keyspaces_is_one_step_and_done_once() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    let (mut one, mut other) = (client(&endpoints[0]).await, client(&endpoints[1]).await);
    create(&mut one, "stock", Kind::Ranged, &["m"], None).await;
    create(&mut one, "orders", Kind::Ordered, &[], None).await;
    one.put(put("stock", "apples", "1")).await.expect("written");
    let write = |keyspace: &str, key: &'static str, value: &'static str| Write {
        keyspace: keyspace.into(),
        what: Some(write::What::Put(Entry { key: key.into(), value: value.into() })),
    };
    let reserve = |name: &'static str| TransactRequest {
        compare: vec![Compare {
            keyspace: "stock".into(),
            key: "apples".into(),
            op: 0,
            expected: Some(compare::Expected::Value("1".into())),
        }],
        read: vec![Read { keyspace: "orders".into(), prefix: Some("17/".into()), ..Read::default() }],
        write: vec![
            write("stock", "apples", "0"),
            write("orders", "17/state", "reserved"),
            write("default", "last", "17"),
        ],
        otherwise: vec![write("orders", "17/state", "sold out")],
        idempotency_key: Some(name.into()),
        ..TransactRequest::default()
    };
    let done = one.transact(reserve("order-17")).await.expect("done").into_inner();
    assert_eq!((done.succeeded, done.repeated, done.reads.len(), done.reads[0].count), (true, false, 1, 0));
    let again = other.transact(reserve("order-17")).await.expect("done").into_inner();
    assert_eq!((again.succeeded, again.repeated, again.reads.len()), (true, true, 0));
    let late = other.transact(reserve("order-18")).await.expect("done").into_inner();
    assert_eq!((late.succeeded, late.repeated, late.reads[0].kvs[0].value.as_ref()), (false, false, &b"reserved"[..]));
    let state = one.get(get("orders", "17/state")).await.expect("it is there").into_inner().kv.expect("a key");
    assert_eq!((&state.value[..], state.version), (&b"sold out"[..], 2));
    assert!(one.get(get("default", "last")).await.is_ok(), "etcd's keys, too");

    // Asked about what nobody began, it is settled that nobody ever will.
    let keyspaces =
        one.list_keyspaces(ListKeyspacesRequest { stale: false }).await.expect("listed").into_inner().keyspaces;
    let stock = keyspaces.iter().find(|keyspace| keyspace.name == "stock").expect("it was made");
    let id = format!("{:x}-{:032x}", stock.shards[0].shard, 77);
    let settled = other.status(StatusRequest { id }).await.expect("settled").into_inner();
    assert_eq!((settled.outcome(), settled.reason.as_str()), (Outcome::Refused, "aborted"));
    let broken = StatusRequest { id: "17".into() };
    assert_eq!(told(one.status(broken).await), why(Code::InvalidArgument, "bad_request"));
}

/// The next message of a watch that is no mark of progress.
async fn next(watch: &mut Streaming<WatchResponse>) -> Result<Option<WatchResponse>, Status> {
    loop {
        let message = tokio::time::timeout(PATIENCE, watch.message()).await.expect("in time")?;
        match message {
            Some(WatchResponse { event: Some(Event::Progress(_)), .. }) => {}
            message => return Ok(message),
        }
    }
}

async fn watch(client: &mut Client, seen: Option<i64>) -> Result<Streaming<WatchResponse>, Status> {
    let (keyspace, prefix) = ("ledger".into(), Some("e/".into()));
    let request = WatchRequest { keyspace, prefix, seen, prev: true, ..WatchRequest::default() };
    client.watch(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_node_and_says_where_if_it_cannot_be_here() {
    let mut cluster = Cluster::start(3).await;
    cluster.registered().await;
    let endpoints = cluster.endpoints();
    let mut clients = Vec::new();
    for endpoint in &endpoints {
        clients.push(client(endpoint).await);
    }
    create(&mut clients[0], "ledger", Kind::Ordered, &[], None).await;
    create(&mut clients[0], "narrow", Kind::Ordered, &[], Some(1)).await;
    create(&mut clients[0], "stock", Kind::Ranged, &[], None).await;

    // Watched at one node after the other, with the last that was told.
    let mut seen = None;
    for n in 0..6_usize {
        let mut watch = watch(&mut clients[n % 3], seen).await.expect("a watch");
        let created = next(&mut watch).await.expect("it goes on").expect("it stands");
        assert!(matches!(created.event, Some(Event::Created(_))), "{created:?}");
        seen = seen.or(Some(created.told));
        for value in [2 * n, 2 * n + 1] {
            clients[(n + 1) % 3].put(put("ledger", "e/1", value.to_string())).await.expect("written");
            clients[(n + 1) % 3].put(put("ledger", "beside", "x")).await.expect("written");
        }
        // Of two, one is read here and the other at the next node.
        for value in (2 * n).saturating_sub(1)..=2 * n {
            let message = next(&mut watch).await.expect("it goes on").expect("what was written is told");
            assert!(Some(message.told) > seen, "{message:?} after {seen:?}");
            let Some(Event::Changed(changed)) = message.event else { panic!("{message:?}") };
            let [change] = &changed.changes[..] else { panic!("one key each: {changed:?}") };
            assert_eq!((change.r#type(), changed.revision), (change::Type::Put, message.told));
            assert_eq!(change.kv.as_ref().expect("a key").value, value.to_string());
            let prev = change.prev.as_ref().map(|prev| prev.value.clone());
            assert_eq!(prev, value.checked_sub(1).map(|before| before.to_string().into()));
            seen = Some(message.told);
        }
    }
    assert_eq!(
        told(clients[0].watch(WatchRequest { keyspace: "stock".into(), ..Default::default() }).await),
        why(Code::InvalidArgument, "not_ordered")
    );

    // One node has it; the others say which.
    let narrow = || WatchRequest { keyspace: "narrow".into(), ..WatchRequest::default() };
    let began = Instant::now();
    let mut asked = 0;
    while asked < 2 {
        asked = 0;
        for client in &mut clients {
            let Err(status) = client.watch(narrow()).await else { continue };
            let problem = problem_of(&status).expect("a problem");
            if problem.reason != "not_here" {
                // It may just have been made.
                continue;
            }
            assert_eq!((status.code(), problem.outcome()), (Code::Unavailable, Outcome::Unavailable));
            let home = problem.ask[0].trim_start_matches("http://").to_owned();
            assert!(endpoints.contains(&home), "{home} is a node");
            let mut there = self::client(&home).await.watch(narrow()).await.expect("a watch").into_inner();
            assert!(next(&mut there).await.expect("it goes on").is_some());
            asked += 1;
        }
        assert!(began.elapsed() < PATIENCE, "two of three have no replica");
    }

    // A node that stops ends its watches with a reason.
    let mut ending = watch(&mut clients[1], seen).await.expect("a watch");
    assert!(next(&mut ending).await.expect("it goes on").is_some());
    cluster.terminate(1);
    let ended = loop {
        match next(&mut ending).await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert_eq!(told(ended), why(Code::Unavailable, "stopping"));
    cluster.stopped(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_a_reason_and_disturbs_nobody() {
    const MESSAGE_MAX: usize = 16 << 20;
    const PUT: &str = "/quorate.v1.Quorate/Put";
    let cluster = Cluster::start(3).await;
    let endpoint = cluster.endpoints()[0].clone();
    let channel = connect(&endpoint).await.expect("a connection");
    let mut other = client(&endpoint).await;
    create(&mut other, "stock", Kind::Ranged, &[], None).await;

    assert_eq!(told(other.get(get("nope", "k")).await), why(Code::NotFound, "no_such_keyspace"));
    assert_eq!(told(other.get(get("stock", "")).await), why(Code::InvalidArgument, "bad_request"));
    let wish =
        |name: &str, kind: Kind| CreateKeyspaceRequest { name: name.into(), kind: kind.into(), ..Default::default() };
    assert_eq!(
        told(other.create_keyspace(wish("stock", Kind::Ranged)).await),
        why(Code::AlreadyExists, "keyspace_exists")
    );
    assert_eq!(
        told(other.create_keyspace(wish("more", Kind::Unspecified)).await),
        why(Code::InvalidArgument, "bad_request")
    );
    assert_eq!(
        told(other.create_keyspace(wish("No Name", Kind::Ranged)).await),
        why(Code::InvalidArgument, "bad_request")
    );

    // Bytes that no client of ours would send: no message, text that is none, and a field that nobody knows.
    let refused = why(Code::InvalidArgument, "bad_request");
    for bytes in [&[0xFF, 0xFF, 0xFF][..], &[0x0A, 1, 0xFF], &[0x78, 1], &[0x22, 2, 0x78, 1], &[0x0A, 200], &[0x0B]] {
        assert_eq!(told(call(&channel, PUT, bytes).await), refused, "{bytes:?}");
    }
    let crowd = call(&channel, "/quorate.v1.Quorate/Transact", [0x1A, 0].repeat(4 << 20)).await;
    assert_eq!(told(crowd), why(Code::ResourceExhausted, "too_large"));
    assert_eq!(
        told(call(&channel, "/quorate.v1.Quorate/Nope", Bytes::new()).await),
        why(Code::Unimplemented, "no_such_method")
    );

    // Of every size: taken, refused by the core, refused before it has come.
    for (bytes, refusal) in [
        (7 << 20, None),
        (9 << 20, Some(Code::ResourceExhausted)),
        (MESSAGE_MAX, Some(Code::ResourceExhausted)),
        (64 << 20, Some(Code::ResourceExhausted)),
    ] {
        let mut client = QuorateClient::new(channel.clone());
        let answer = client.put(put("stock", "large", vec![b'x'; bytes])).await;
        match refusal {
            None => assert!(!answer.expect("written").into_inner().repeated),
            Some(code) => assert_eq!(told(answer), why(code, "too_large"), "{bytes} bytes"),
        }
        other.put(put("stock", "other", bytes.to_string())).await.expect("others go on");
    }

    // A deadline that makes no sense is refused.
    let mut late = Request::new(put("stock", "late", "v"));
    late.metadata_mut().insert("grpc-timeout", "soon".parse().expect("text"));
    assert_eq!(told(other.put(late).await), refused);
    let mut patient = Request::new(get("stock", "other"));
    patient.set_timeout(Duration::from_secs(20));
    assert!(other.get(patient).await.is_ok());

    // Who does not speak gRPC is told so in words that it knows.
    let page = request(&endpoint, "POST", PUT, None, &json!({})).expect("an answer");
    assert_eq!((page.0, &page.1["reason"]), (400, &json!("bad_request")));
    // The connection that sent all this works, and so does etcd's door.
    assert!(QuorateClient::new(channel).get(get("stock", "other")).await.is_ok());
    serves(&endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_its_watch_delays_only_itself_and_misses_nothing() {
    let cluster = Cluster::start(1).await;
    let endpoint = &cluster.endpoints()[0];
    let (mut stalled, mut writer) = (client(endpoint).await, client(endpoint).await);
    create(&mut writer, "ledger", Kind::Ordered, &[], None).await;
    let mut watch = watch(&mut stalled, None).await.expect("a watch");
    let first = next(&mut watch).await.expect("it goes on").expect("it stands").told;
    // More than windows and queues hold.
    for _ in 0..48 {
        writer.put(put("ledger", "e/1", vec![b'x'; 1 << 20])).await.expect("written");
    }
    for n in 1..=48 {
        // What was there before is told, too.
        assert_eq!(next(&mut watch).await.expect("it goes on").expect("what was written is told").told, first + n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_majority_leaves_open_is_typed_and_settled_later() {
    let mut cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    let mut client = client(&endpoints[0]).await;
    create(&mut client, "stock", Kind::Ranged, &[], None).await;
    client.put(put("stock", "apples", "4")).await.expect("written");
    (1..3).for_each(|node| cluster.kill(node));
    let named = PutRequest { idempotency_key: Some("order-16".into()), ..put("stock", "apples", "3") };
    let (code, open) = problem(client.put(named.clone()).await);
    (1..3).for_each(|node| cluster.restart(node));
    cluster.ready().await;
    let began = Instant::now();
    match open.outcome() {
        Outcome::Unknown => {
            assert_eq!(code, Code::DeadlineExceeded);
            let settled = loop {
                match client.status(StatusRequest { id: open.unknown_id.clone() }).await {
                    Ok(settled) => break settled.into_inner(),
                    Err(_) => assert!(began.elapsed() < PATIENCE, "nobody settles it"),
                }
            };
            assert!([Outcome::Done, Outcome::Refused].contains(&settled.outcome()), "{settled:?}");
        }
        outcome => assert_eq!((outcome, code), (Outcome::Unavailable, Code::Unavailable), "{open:?}"),
    }
    // Under the same name it is done once, whatever became of it.
    while let Err(status) = client.put(named.clone()).await {
        assert!(began.elapsed() < PATIENCE, "{status:?}");
    }
    let kv = client.get(get("stock", "apples")).await.expect("it is there").into_inner().kv.expect("a key");
    assert_eq!((&kv.value[..], kv.version), (&b"3"[..], 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_the_definition_is_answered() {
    let cluster = Cluster::start(1).await;
    let channel = connect(&cluster.endpoints()[0]).await.expect("a connection");
    let definition = include_str!("../../../native/proto/quorate.proto");
    let calls = definition.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    let calls: Vec<&str> = calls.map(|call| call.split('(').next().expect("a name")).collect();
    assert_eq!(calls.len(), 16, "{calls:?}");
    for name in calls {
        // Nothing is said, which makes sense to two of them; the others say what is missing. A stream is none to who asks for one answer.
        let path: &'static str = String::leak(format!("/quorate.v1.Quorate/{name}"));
        match call(&channel, path, Bytes::new()).await {
            Ok(_) => assert!(["Transact", "ListKeyspaces"].contains(&name), "{name} says what is missing"),
            Err(status) => {
                let reason = problem_of(&status).unwrap_or_else(|| panic!("{name}: {status:?}")).reason;
                assert!(["bad_request", "no_such_keyspace"].contains(&reason.as_str()), "{name}: {reason}");
            }
        }
    }
}
