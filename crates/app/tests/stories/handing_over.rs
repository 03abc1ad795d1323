//! Leadership moves when somebody asks for it, and before a leader stops; nobody's write fails for it.

use crate::support::{Cluster, PATIENCE, connect, kv, put};
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::{MoveLeaderRequest, StatusRequest, StatusResponse};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tonic::Code;

async fn status(endpoint: &str) -> StatusResponse {
    let mut client = MaintenanceClient::new(connect(endpoint).await.expect("a connection"));
    client.status(StatusRequest {}).await.expect("a status").into_inner()
}

async fn id_of(endpoint: &str) -> u64 {
    status(endpoint).await.header.expect("a header").member_id
}

/// Who leads, once somebody says so of itself.
pub(super) async fn leader(cluster: &Cluster, nodes: &[usize]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for node in nodes {
            let status = status(&cluster.endpoints()[*node]).await;
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return *node;
            }
        }
    }
    panic!("nobody leads")
}

async fn move_leader(endpoint: &str, target_id: u64) -> Result<(), (Code, String)> {
    let mut client = MaintenanceClient::new(connect(endpoint).await.expect("a connection"));
    let answer = client.move_leader(MoveLeaderRequest { target_id }).await;
    answer.map(|_| ()).map_err(|status| (status.code(), status.message().to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_hands_over_when_it_is_asked_to() {
    let cluster = Cluster::start(3).await;
    let endpoints = cluster.endpoints();
    let from = leader(&cluster, &[0, 1, 2]).await;
    let (heir, other) = ((from + 1) % 3, (from + 2) % 3);
    let refused = |text: &str| Err((Code::FailedPrecondition, text.to_owned()));
    let to = id_of(&endpoints[heir]).await;
    assert_eq!(move_leader(&endpoints[other], to).await, refused("etcdserver: not leader"));
    assert_eq!(move_leader(&endpoints[from], 12_345).await, refused("etcdserver: bad leader transferee"));
    assert_eq!(move_leader(&endpoints[from], to).await, Ok(()));
    assert_eq!(status(&endpoints[from]).await.leader, to, "it is answered when the other leads");
    assert_eq!(move_leader(&endpoints[from], to).await, refused("etcdserver: not leader"));
    let leads = leader(&cluster, &[heir]).await;
    assert_eq!(move_leader(&endpoints[leads], to).await, Ok(()), "it leads already");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_fails_when_leaders_are_told_to_stop() {
    let mut cluster = Cluster::start(3).await;
    for _ in 0..3 {
        let leads = leader(&cluster, &[0, 1, 2]).await;
        let others = [(leads + 1) % 3, (leads + 2) % 3];
        let before = status(&cluster.endpoints()[others[0]]).await.raft_term;
        let stop = Arc::new(AtomicBool::new(false));
        let writers = others.map(|node| {
            let (endpoint, stop) = (cluster.endpoints()[node].clone(), stop.clone());
            tokio::spawn(async move {
                let mut client = kv(&endpoint).await.expect("a connection");
                let mut writes = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    client.put(put(format!("{node}"), format!("{writes}"))).await.expect("written");
                    writes += 1;
                }
                writes
            })
        });
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        cluster.terminate(leads);
        assert!(cluster.stopped(leads).success());
        // It led until another was elected: in the next term or, if a vote was lost, in one soon after.
        let next = status(&cluster.endpoints()[others[0]]).await;
        assert!(next.raft_term > before, "{next:?} after term {before}");
        leader(&cluster, &others).await;
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            assert!(writer.await.expect("every write succeeds") > 0);
        }
        cluster.restart(leads);
        cluster.ready().await;
    }
}
