//! Real nodes in one process: sockets, files and threads, no protocol on top.

use crate::disk::DiskOptions;
use crate::{Options, Runtime, member_id};
use quorate_cluster::{BootMember, Timing};
use quorate_env::ClusterId;
use quorate_kv::across::{Transaction, Write};
use quorate_kv::{
    Command, Consistency, Db, Error, KeyRange, KeyspaceId, KeyspaceKind, LeaseId, Level, Op, Outcome, PutOp, RangeOp,
    Refusal, Revision, Txn, WatchId, WatchNotice, WatchSpec,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

const KS: KeyspaceId = KeyspaceId::DEFAULT;

fn put(key: &str, value: &str) -> Command {
    Command::Transact(Txn::just(Op::Put(PutOp::of(key.to_owned(), value.to_owned()))))
}

async fn start(dir: &Path, names: &[(&str, u16)], name: &str, listener: Option<TcpListener>) -> Runtime {
    let members: Vec<BootMember> = names
        .iter()
        .map(|(name, port)| BootMember {
            id: member_id(name),
            name: (*name).to_owned(),
            peer_address: format!("127.0.0.1:{port}"),
        })
        .collect();
    let options = Options {
        cluster: ClusterId(77),
        node: member_id(name),
        name: name.to_owned(),
        data_dir: dir.join(name),
        known: members.clone(),
        members,
        incarnation: None,
        announce_peer: None,
        token: 0,
        client_urls: vec![format!("http://{name}")],
        level: Level::LATEST,
        zone: String::new(),
        evict_after: quorate_cluster::bounds::EVICT_AFTER,
        clock_bound: None,
        split_bytes: u64::MAX,
        split_ops: u64::MAX,
        merge_bytes: 0,
        timing: Timing::default(),
        request_timeout: Duration::from_secs(5),
        disk: DiskOptions::default(),
        trace: None,
    };
    Runtime::start(options, listener.map(Arc::new)).await.expect("the node starts")
}

async fn submit(db: &Arc<dyn Db>, command: Command) -> Revision {
    db.submit(KS, command).await.expect("applied").header.revision
}

async fn get(db: &Arc<dyn Db>, key: &str) -> Option<String> {
    let op = RangeOp::of(KeyRange::single(key.to_owned()));
    let read = db.read(KS, op, Consistency::Linearizable).await.expect("readable");
    read.result.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_keeps_what_it_acknowledged_across_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let names = [("n1", 0)];
    let node = start(dir.path(), &names, "n1", None).await;
    let db = node.db();
    assert_eq!(submit(&db, put("a", "1")).await, Revision(2));
    assert_eq!(submit(&db, put("a", "2")).await, Revision(3));
    let grant = Command::LeaseGrant { id: LeaseId(5), ttl_s: 60 };
    assert_eq!(db.submit(KS, grant).await.expect("granted").outcome, Outcome::LeaseGranted);
    assert_eq!(db.lease_keep_alive(KS, LeaseId(5)).await.expect("renewed").result.remaining_s, 60);
    assert_eq!(db.lease_keep_alive(KS, LeaseId(6)).await, Err(Error::Refused(Refusal::LeaseNotFound)));
    drop(db);
    node.stop().await;

    let node = start(dir.path(), &names, "n1", None).await;
    let db = node.db();
    assert_eq!(get(&db, "a").await.as_deref(), Some("2"));
    assert_eq!(submit(&db, put("b", "3")).await, Revision(4));
    let member = db.members(Consistency::Linearizable).await.expect("members");
    assert_eq!(member.len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_wants_one_order_is_asked_of_the_shard_that_has_it_or_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = start(dir.path(), &[("n1", 0)], "n1", None).await;
    let db = node.db();
    let ranged = db.create_keyspace("stock".into(), KeyspaceKind::Ranged, Vec::new(), 3).await.expect("made").id;
    let ordered = db.create_keyspace("ledger".into(), KeyspaceKind::Ordered, Vec::new(), 3).await.expect("made").id;
    let write = |keyspace| (keyspace, Write::Put { key: "k".into(), value: "v".into() });
    let both = Transaction { success: vec![write(ordered), write(ranged)], ..Transaction::default() };
    assert!(db.transact(both).await.expect("done").succeeded);
    let op = RangeOp::of(KeyRange::all());
    let found = db.read(ordered, op.clone(), Consistency::Linearizable).await.expect("readable");
    assert_eq!(found.result.kvs[0].value, "v");
    assert!(db.watch(ordered).is_ok());
    for (keyspace, refusal) in [(ranged, Refusal::NotOrdered), (KeyspaceId(99), Refusal::KeyspaceNotFound)] {
        assert_eq!(db.read(keyspace, op.clone(), Consistency::Linearizable).await, Err(refusal.clone().into()));
        assert_eq!(db.submit(keyspace, put("k", "v")).await, Err(refusal.clone().into()));
        assert_eq!(db.watch(keyspace).err(), Some(refusal.into()));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_reads_history_then_goes_live() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = start(dir.path(), &[("n1", 0)], "n1", None).await;
    let db = node.db();
    for n in 0..20 {
        submit(&db, put(&format!("k{}", n % 3), &n.to_string())).await;
    }
    drop(db);
    node.stop().await;
    // After a restart the events are on disk or in the log, not in memory.
    let node = start(dir.path(), &[("n1", 0)], "n1", None).await;
    let db = node.db();
    submit(&db, put("k0", "last but one")).await;
    let (control, mut events) = db.watch(KS).expect("an ordered keyspace");
    let range = KeyRange::prefix("k");
    let start = Some(Revision(2));
    control.open(WatchId(1), WatchSpec { range, start, no_put: false, no_delete: false, prev_kv: true });
    let mut seen = Vec::new();
    let mut created = false;
    submit(&db, put("k1", "last")).await;
    while seen.len() < 22 {
        let notice = tokio::time::timeout(Duration::from_secs(5), events.next()).await.expect("a notice in time");
        match notice {
            WatchNotice::Created { .. } => created = true,
            WatchNotice::Events { events, .. } => seen.extend(events.iter().cloned()),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(created);
    let revisions: Vec<u64> = seen.iter().map(|event| event.kv.mod_revision.0).collect();
    assert_eq!(revisions, (2..=23).collect::<Vec<_>>());
    assert_eq!(seen[3].prev.as_ref().map(|kv| kv.mod_revision), Some(Revision(2)));
    control.progress(WatchId(1));
    let notice = tokio::time::timeout(Duration::from_secs(5), events.next()).await.expect("a notice in time");
    assert_eq!(notice, WatchNotice::Progress { id: WatchId(1), revision: Revision(23) });
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_go_on_without_any_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    }
    let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect();
    let names = [("n1", ports[0]), ("n2", ports[1]), ("n3", ports[2])];
    let mut nodes = Vec::new();
    for (listener, (name, _)) in listeners.into_iter().zip(names) {
        nodes.push((name, start(dir.path(), &names, name, Some(listener)).await));
    }
    let mut written = 0;
    for down in 0..3 {
        for (at, (_, node)) in nodes.iter().enumerate() {
            written += 1;
            submit(&node.db(), put("count", &written.to_string())).await;
            assert_eq!(get(&nodes[(at + 1) % 3].1.db(), "count").await, Some(written.to_string()));
        }
        let (name, node) = nodes.remove(down);
        node.stop().await;
        written += 1;
        submit(&nodes[0].1.db(), put("count", &written.to_string())).await;
        assert_eq!(get(&nodes[1].1.db(), "count").await, Some(written.to_string()));
        let listener = TcpListener::bind(("127.0.0.1", names[down].1)).await.expect("the port again");
        nodes.insert(down, (name, start(dir.path(), &names, name, Some(listener)).await));
        assert_eq!(get(&nodes[down].1.db(), "count").await, Some(written.to_string()));
    }
    for (_, node) in nodes {
        node.stop().await;
    }
}
