//! A disk is full: nothing is lost, what needs no room goes on, and when there is room again nobody has to do anything.

use crate::support::{Cluster, PATIENCE, SmallDisk, connect, kv, put};
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::{AlarmRequest, AlarmType, DeleteRangeRequest, RangeRequest};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Three segments of the log and some tables: enough to start with.
const DISK_MIB: u32 = 96;

/// Of one value: a segment of the log is full after thirty.
const VALUE_BYTES: usize = 512 << 10;

/// The most that the log and the store take in before they need room: the segments that are ready, and a memtable.
const WRITES_MAX: usize = 300;

async fn write(endpoint: &str, n: usize) -> Result<(), Status> {
    let mut client = kv(endpoint).await.expect("a connection");
    client.put(put(format!("big/{:03}", n % 8), vec![n as u8; VALUE_BYTES])).await.map(drop)
}

async fn value(endpoint: &str, key: &str) -> Option<Vec<u8>> {
    let range = RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let mut client = kv(endpoint).await.expect("a connection");
    let found = client.range(range).await.expect("reads go on").into_inner();
    found.kvs.into_iter().next().map(|kv| kv.value.to_vec())
}

async fn alarms(endpoint: &str) -> Vec<i32> {
    let mut client = MaintenanceClient::new(connect(endpoint).await.expect("a connection"));
    let answer = client.alarm(AlarmRequest::default()).await.expect("answered").into_inner();
    answer.alarms.into_iter().map(|alarm| alarm.alarm).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_a_full_disk_refuses_writes_and_heals_without_a_restart() {
    let Some(disk) = SmallDisk::mount(DISK_MIB) else { return };
    let mut cluster = Cluster::start_in(disk.path(), 1).await;
    let endpoint = cluster.endpoints().remove(0);
    write(&endpoint, 0).await.expect("there is room");
    kv(&endpoint).await.expect("a connection").put(put("small", "before")).await.expect("there is room");
    disk.fill();

    let mut acknowledged = 0;
    let refusal = loop {
        match write(&endpoint, acknowledged + 1).await {
            Ok(()) => acknowledged += 1,
            Err(refusal) => break refusal,
        }
        assert!(acknowledged < WRITES_MAX, "the disk is full, and everything is acknowledged");
    };
    // The typed refusal of etcd, and its alarm; not a time-out, and not the end of the process.
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert_eq!(refusal.message(), "etcdserver: mvcc: database space exceeded");
    assert_eq!(alarms(&endpoint).await, [AlarmType::Nospace as i32]);

    let last = value(&endpoint, &format!("big/{:03}", acknowledged % 8)).await.expect("it was acknowledged");
    assert!(last.iter().all(|byte| *byte == acknowledged as u8), "reads see what was acknowledged last");
    let removal = DeleteRangeRequest { key: "small".into(), ..Default::default() };
    let removed = kv(&endpoint).await.expect("a connection").delete_range(removal).await.expect("deletes go on");
    assert_eq!(removed.into_inner().deleted, 1);

    disk.free();
    let freed = Instant::now();
    while let Err(refusal) = write(&endpoint, acknowledged + 1).await {
        assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
        assert!(freed.elapsed() < PATIENCE, "it does not heal");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("refused after {acknowledged} writes; healed {:.1} s after room was made", freed.elapsed().as_secs_f64());
    assert_eq!(alarms(&endpoint).await, [0; 0]);

    // And nothing of it was only in memory.
    cluster.kill(0);
    cluster.restart(0);
    cluster.ready().await;
    let last = value(&endpoint, &format!("big/{:03}", (acknowledged + 1) % 8)).await.expect("it was acknowledged");
    assert!(last.iter().all(|byte| *byte == (acknowledged + 1) as u8));
    assert_eq!(value(&endpoint, "small").await, None);
}

/// Values for more segments than the full node has: it cannot follow to the end.
const WRITES: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn one_full_disk_of_three_stops_nobody_and_the_node_catches_up() {
    let Some(disk) = SmallDisk::mount(DISK_MIB) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(disk.path(), folder.path().join("n1")).expect("linked");
    let cluster = Cluster::start_in(folder.path(), 3).await;
    let endpoints = cluster.endpoints();
    disk.fill();
    let mut refused = 0;
    for n in 1..=WRITES {
        let tried = Instant::now();
        // Through the nodes that have room; while the full one still leads it may refuse, and hands over.
        while let Err(refusal) = write(&endpoints[1 + n % 2], n).await {
            assert!(tried.elapsed() < PATIENCE, "write {n}: {refusal}");
            refused += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(alarms(&endpoints[0]).await, [AlarmType::Nospace as i32], "the disk was not full");
    disk.free();
    let freed = Instant::now();
    cluster.ready().await;
    let last = value(&endpoints[0], &format!("big/{:03}", WRITES % 8)).await.expect("it is there");
    assert!(last.iter().all(|byte| *byte == WRITES as u8), "a linearizable read through the node that was full");
    println!(
        "{refused} writes were refused first; caught up {:.1} s after room was made",
        freed.elapsed().as_secs_f64()
    );
}
