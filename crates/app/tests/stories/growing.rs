//! The cluster grows, shrinks and mends itself, under load.

use crate::support::{Cluster, PATIENCE, connect, etcdctl, kv, run, serves};
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, PutRequest, RangeRequest,
};
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

async fn members(endpoint: &str) -> Vec<Member> {
    let mut client = ClusterClient::new(connect(endpoint).await.expect("a connection"));
    client.member_list(MemberListRequest { linearizable: true }).await.expect("listed").into_inner().members
}

/// Waits until so many members have started and vote, and nobody else is listed.
async fn settled(endpoint: &str, voters: usize) -> Vec<Member> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = members(endpoint).await;
        if now.len() == voters && now.iter().all(|member| !member.is_learner && !member.client_ur_ls.is_empty()) {
            return now;
        }
        assert!(Instant::now() < deadline, "not {voters} voters in time: {now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn remove(endpoint: &str, id: u64) -> Result<Vec<Member>, tonic::Status> {
    let mut client = ClusterClient::new(connect(endpoint).await.expect("a connection"));
    client.member_remove(MemberRemoveRequest { id }).await.map(|answer| answer.into_inner().members)
}

/// A client that tries elsewhere until it is answered.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Duration>,
}

impl Writer {
    fn start(endpoints: Vec<String>) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, done) = (stop.clone(), acknowledged.clone());
        let task = tokio::spawn(async move {
            let (mut at, mut longest) = (0, Duration::ZERO);
            let mut client = None;
            let mut n = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                n += 1;
                let began = Instant::now();
                loop {
                    if client.is_none() {
                        at += 1;
                        client = kv(&endpoints[at % endpoints.len()]).await;
                    }
                    if let Some(connected) = &mut client {
                        let put = PutRequest { key: format!("w/{n}").into(), value: "x".into(), ..Default::default() };
                        let answer = tokio::time::timeout(Duration::from_secs(3), connected.put(put)).await;
                        if matches!(answer, Ok(Ok(_))) {
                            break;
                        }
                        client = None;
                    }
                    assert!(began.elapsed() < PATIENCE, "a client that tries again and again gets nowhere");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                longest = longest.max(began.elapsed());
                done.store(n, Ordering::Relaxed);
            }
            longest
        });
        Self { stop, acknowledged, task }
    }

    /// Returns how many writes were acknowledged.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.task.await.expect("the writer ends well");
        eprintln!("{} writes, the longest took {longest:?}", self.acknowledged.load(Ordering::Relaxed));
        self.acknowledged.load(Ordering::Relaxed)
    }
}

async fn holds(endpoint: &str, writes: u64) {
    let mut client = kv(endpoint).await.expect("a connection");
    let range = RangeRequest { key: "w/".into(), range_end: "w0".into(), count_only: true, ..Default::default() };
    let found = client.range(range).await.expect("readable").into_inner().count as u64;
    assert!(found >= writes, "{endpoint} holds {found} of {writes} acknowledged writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_becomes_three_then_five_then_three_under_load() {
    let mut cluster = Cluster::start(1).await;
    let writer = Writer::start(cluster.endpoints());
    let endpoints = |cluster: &Cluster| cluster.endpoints();
    for size in 2..=5 {
        let node = cluster.grow();
        cluster.restart(node);
        settled(&endpoints(&cluster)[0], size).await;
    }
    let grown = writer.stop().await;
    cluster.ready().await;
    for endpoint in cluster.endpoints() {
        holds(&endpoint, grown).await;
    }
    // The first two go, one of which is the leader most likely.
    let all = members(&cluster.endpoints()[2]).await;
    let writer = Writer::start(cluster.endpoints()[2..].to_vec());
    let through = cluster.endpoints()[2].clone();
    for (at, size) in [(0, 4), (1, 3)] {
        let name = format!("n{}", at + 1);
        let id = all.iter().find(|member| member.name == name).expect("a member").id;
        let left = remove(&through, id).await.expect("removed");
        assert_eq!(left.len(), size, "{left:?}");
        assert_eq!(cluster.stopped(at).code(), Some(70), "a removed node ends");
        let (status, said) = cluster.refused(at, &[]);
        assert_eq!(status.code(), Some(70));
        assert!(said.contains("was removed from its cluster"), "{said}");
    }
    let shrunk = writer.stop().await;
    for endpoint in &cluster.endpoints()[2..] {
        holds(endpoint, shrunk).await;
        serves(endpoint).await;
    }
    // A majority of the three that are left is two.
    cluster.kill(4);
    let writer = Writer::start(cluster.endpoints()[2..4].to_vec());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(writer.stop().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_comes_back_by_itself_as_another() {
    let mut cluster = Cluster::start(3).await;
    cluster.registered().await;
    for round in 0..2 {
        let before = members(&cluster.endpoints()[0]).await;
        cluster.kill(2);
        fs::remove_dir_all(cluster.data_dir(2)).expect("removed");
        cluster.restart(2);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = settled(&cluster.endpoints()[round], 3).await;
            let id = |members: &[Member]| members.iter().find(|member| member.name == "n3").expect("a member").id;
            if id(&now) != id(&before) {
                break;
            }
            assert!(Instant::now() < deadline, "n3 is still who it was");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster.ready().await;
    }
    // It counts: with another one gone the cluster serves.
    cluster.kill(0);
    let writer = Writer::start(cluster.endpoints()[1..].to_vec());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(writer.stop().await > 0);
    // And it is what it became after a restart.
    cluster.restart(0);
    cluster.kill(2);
    cluster.restart(2);
    cluster.ready().await;
    serves(&cluster.endpoints()[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_read_what_it_promised_comes_back_as_another() {
    let mut cluster = Cluster::start(3).await;
    cluster.registered().await;
    for (round, damaged) in ["IDENTITY", "wal"].into_iter().enumerate() {
        let before = members(&cluster.endpoints()[0]).await;
        cluster.kill(2);
        let path = cluster.data_dir(2).join(damaged);
        if path.is_dir() {
            // The first flushes, names and all; later ones show that this is no torn write.
            let first = path.join("0000000000000001.wal");
            let mut bytes = fs::read(&first).expect("readable");
            bytes[4096..12288].iter_mut().for_each(|byte| *byte ^= 0x5A);
            fs::write(&first, bytes).expect("written");
        } else {
            let mut bytes = fs::read(&path).expect("readable");
            bytes.iter_mut().for_each(|byte| *byte ^= 0x5A);
            fs::write(&path, bytes).expect("written");
        }
        cluster.restart(2);
        let id = |members: &[Member]| members.iter().find(|member| member.name == "n3").expect("a member").id;
        let deadline = Instant::now() + PATIENCE;
        while id(&settled(&cluster.endpoints()[0], 3).await) == id(&before) {
            assert!(Instant::now() < deadline, "n3 is still who it was");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster.ready().await;
        let aside = cluster.data_dir(2).join(format!("lost-{}", round + 1));
        assert!(aside.join(damaged).exists(), "nothing is deleted");
    }
    // Alone there is nobody who has what was here.
    let mut alone = Cluster::start(1).await;
    alone.kill(0);
    fs::write(alone.data_dir(0).join("IDENTITY"), [0; 4096]).expect("written");
    let (status, said) = alone.refused(0, &[]);
    assert_eq!(status.code(), Some(74));
    assert!(said.contains("every copy of the data directory's identity is damaged"), "{said}");
    assert!(!alone.data_dir(0).join("lost-1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_that_lost_its_disks_does_not_found_a_second_cluster() {
    let mut cluster = Cluster::start(3).await;
    cluster.registered().await;
    for node in [1, 2] {
        cluster.kill(node);
        fs::remove_dir_all(cluster.data_dir(node)).expect("removed");
    }
    // With the one that is left, and without it.
    for alone in [false, true] {
        if alone {
            cluster.kill(0);
        }
        [1, 2].into_iter().for_each(|node| cluster.restart(node));
        tokio::time::sleep(Duration::from_secs(3)).await;
        for node in [1, 2] {
            let answer = async {
                let mut client = kv(&cluster.endpoints()[node]).await?;
                client.put(PutRequest { key: "a".into(), ..Default::default() }).await.ok()
            };
            let answer = tokio::time::timeout(Duration::from_secs(1), answer).await;
            assert!(!matches!(answer, Ok(Some(_))), "n{} serves somebody", node + 1);
            assert!(!cluster.data_dir(node).join("IDENTITY").exists());
            cluster.kill(node);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_join_is_told_why() {
    let mut cluster = Cluster::start(1).await;
    let node = cluster.grow();
    let (status, said) = cluster.refused(node, &[("--token", "another")]);
    assert_eq!(status.code(), Some(70));
    assert!(said.contains("this cluster has another token"), "{said}");
    // A name that is alive, an address that is taken or that leads elsewhere.
    let (status, said) = cluster.refused(node, &[("--name", "n1")]);
    assert_eq!(status.code(), Some(70));
    assert!(said.contains("is a member and alive"), "{said}");
    let taken = cluster.peer_address(0);
    for (address, why) in
        [(taken.as_str(), "has the peer address"), ("127.0.0.1:1", "cannot be reached at 127.0.0.1:1")]
    {
        let (status, said) = cluster.refused(node, &[("--advertise-peer", address)]);
        assert_eq!(status.code(), Some(70));
        assert!(said.contains(why), "{said}");
    }
    cluster.restart(node);
    settled(&cluster.endpoints()[0], 2).await;
    // Once a member it goes on as one, whatever --join says; and its directory is no other cluster's.
    cluster.kill(node);
    cluster.restart(node);
    cluster.ready().await;
    cluster.kill(node);
    let (status, said) = cluster.refused(node, &[("--name", "n9")]);
    assert_eq!(status.code(), Some(74));
    assert!(said.contains("the data directory belongs to node n2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_it_joins_joins_in_the_end() {
    let mut cluster = Cluster::start(1).await;
    let node = cluster.grow();
    for ms in [5, 20, 40, 60, 80, 120, 200, 400, 800] {
        cluster.restart(node);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        cluster.kill(node);
    }
    cluster.restart(node);
    // Whoever it was in the meantime, one of them stays.
    settled(&cluster.endpoints()[0], 2).await;
    cluster.ready().await;
    serves(&cluster.endpoints()[node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_moves_is_found_again() {
    let mut cluster = Cluster::start(1).await;
    for size in 2..=3 {
        let node = cluster.grow();
        cluster.restart(node);
        settled(&cluster.endpoints()[0], size).await;
    }
    cluster.kill(2);
    cluster.move_peer(2);
    cluster.restart(2);
    let deadline = Instant::now() + PATIENCE;
    let moved = format!("http://{}", cluster.peer_address(2));
    while !members(&cluster.endpoints()[0]).await.iter().any(|member| member.peer_ur_ls == [moved.clone()]) {
        assert!(Instant::now() < deadline, "nobody knows where it is");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It is needed, and so the others must have found it.
    cluster.kill(1);
    let writer = Writer::start(vec![cluster.endpoints()[0].clone(), cluster.endpoints()[2].clone()]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(writer.stop().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn etcds_calls_change_the_members() {
    let mut cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let mut client = ClusterClient::new(connect(&endpoint).await.expect("a connection"));
    let node = cluster.grow();
    let peer_ur_ls = vec![format!("http://{}", cluster.peer_address(node))];
    let add = MemberAddRequest { peer_ur_ls, is_learner: true };
    let added = client.member_add(add.clone()).await.expect("added").into_inner();
    let id = added.member.expect("a member").id;
    let unstarted = added.members.iter().find(|member| member.id == id).expect("listed");
    assert!(unstarted.name.is_empty() && unstarted.is_learner && unstarted.client_ur_ls.is_empty());
    let told = |answer: Result<_, tonic::Status>| answer.err().map(|status| status.message().to_owned());
    let again = client.member_add(add).await.map(|_| ());
    assert_eq!(told(again).as_deref(), Some("etcdserver: Peer URLs already exists"));
    let other = MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:9".into()], is_learner: true };
    let second = client.member_add(other).await.map(|_| ());
    assert_eq!(told(second).as_deref(), Some("etcdserver: too many learner members in cluster"));
    let promote = MemberPromoteRequest { id };
    let early = client.member_promote(promote).await.map(|_| ());
    let not_ready = "etcdserver: can only promote a learner member which is in sync with leader";
    assert_eq!(told(early).as_deref(), Some(not_ready));
    let last = remove(&endpoint, added.members.iter().find(|member| member.id != id).expect("the first").id).await;
    let not_enough = "etcdserver: re-configuration failed due to not enough started members";
    assert_eq!(told(last.map(|_| ())).as_deref(), Some(not_enough));
    assert_eq!(told(remove(&endpoint, 12345).await.map(|_| ())).as_deref(), Some("etcdserver: member not found"));
    cluster.restart(node);
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = client.member_promote(promote).await {
        assert_eq!(status.message(), not_ready);
        assert!(Instant::now() < deadline, "it does not catch up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let now = settled(&endpoint, 2).await;
    assert!(now.iter().any(|member| member.id == id && member.name == "n2"));
    let again = client.member_promote(promote).await.map(|_| ());
    assert_eq!(told(again).as_deref(), Some("etcdserver: can only promote a learner member"));
    // Without the other no majority would be left.
    cluster.kill(node);
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.restart(node);
    cluster.ready().await;
    remove(&endpoint, id).await.expect("removed");
    assert_eq!(told(remove(&endpoint, id).await.map(|_| ())).as_deref(), Some("etcdserver: member not found"));
    serves(&endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_lists_adds_and_removes() {
    let Some(etcdctl) = etcdctl() else {
        eprintln!("skipped: no etcdctl");
        return;
    };
    let mut cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let ctl = |args: &[&str]| run(Command::new(&etcdctl).arg(format!("--endpoints={endpoint}")).args(args), "");
    let node = cluster.grow();
    let added = ctl(&["member", "add", "n2", &format!("--peer-urls=http://{}", cluster.peer_address(node))]);
    assert!(added.contains("added to cluster"), "{added}");
    assert!(ctl(&["member", "list"]).contains("unstarted"));
    cluster.restart(node);
    let now = settled(&endpoint, 2).await;
    let id = now.iter().find(|member| member.name == "n2").expect("a member").id;
    let removed = ctl(&["member", "remove", &format!("{id:x}")]);
    assert!(removed.contains("removed from cluster"), "{removed}");
    assert_eq!(cluster.stopped(node).code(), Some(70));
}

#[tokio::test(flavor = "multi_thread")]
async fn node_list_and_remove_work_by_name() {
    let mut cluster = Cluster::start(1).await;
    let endpoint = cluster.endpoints()[0].clone();
    let node = cluster.grow();
    cluster.restart(node);
    settled(&endpoint, 2).await;
    let quorate = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).args(["--endpoints", &endpoint]).output();
        let output = output.expect("ran");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, listed, _) = quorate(&["node", "list"]);
    assert!(code == Some(0) && listed.contains("n2") && listed.contains("voter"), "{listed}");
    let (code, json, _) = quorate(&["node", "list", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, rows.as_array().map(Vec::len)), (Some(0), Some(2)));
    let (code, _, said) = quorate(&["node", "remove", "nobody"]);
    assert!(code == Some(64) && said.contains("see quorate node list"), "{said}");
    let (code, listed, said) = quorate(&["node", "remove", "n2"]);
    assert!(code == Some(0) && !listed.contains("n2"), "{listed}{said}");
    let (code, _, said) = quorate(&["node", "remove", "n1"]);
    assert!(code == Some(64) && said.contains("the last voting member cannot go"), "{said}");
    assert!(cluster.runs(0));
}
