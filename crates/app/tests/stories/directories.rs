//! Data directories that are not what the operator takes them for. Each error says what to do, and nobody else is disturbed.

use crate::support::{Cluster, serves};
use quorate_env::checksum::checksum;
use std::fs;

/// A client address that is surely free; a peer address is given with it.
const ELSEWHERE: (&str, &str) = ("--listen-client", "127.0.0.1:0");

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_process() {
    let cluster = Cluster::start(1).await;
    let (status, said) = cluster.refused(0, &[ELSEWHERE, ("--listen-peer", "127.0.0.1:0")]);
    assert_eq!(status.code(), Some(74));
    assert!(said.contains("is in use by another process: stop that one, or choose another --data-dir"), "{said}");
    serves(&cluster.endpoints()[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_belongs_to_one_node_of_one_cluster() {
    let mut cluster = Cluster::start(3).await;
    cluster.kill(1);
    cluster.kill(2);
    let others = cluster.data_dir(2).display().to_string();
    for changes in [&[("--data-dir", others.as_str())][..], &[("--initial-cluster-token", "another")]] {
        let (status, said) = cluster.refused(1, changes);
        assert_eq!(status.code(), Some(74));
        assert!(said.contains("the data directory belongs to node n"), "{said}");
        assert!(said.contains("choose another --data-dir, or start the node with the --name"), "{said}");
    }
    // Neither attempt left anything behind.
    cluster.restart(1);
    cluster.restart(2);
    cluster.ready().await;
    for endpoint in cluster.endpoints() {
        serves(&endpoint).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_newer_release_is_left_alone() {
    let mut cluster = Cluster::start(3).await;
    cluster.kill(2);
    let path = cluster.data_dir(2).join("IDENTITY");
    let known = fs::read(&path).expect("readable");
    // Every copy, as a later release would write it: docs/design/store-format.md.
    let mut newer = known.clone();
    for (n, copy) in newer.chunks_mut(4096).enumerate() {
        copy[8..12].copy_from_slice(&99u32.to_le_bytes());
        let end = 16 + u32::from_le_bytes(copy[12..16].try_into().expect("four bytes")) as usize;
        let sum = checksum(n as u64, &copy[..end]);
        copy[end..end + 8].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(&path, &newer).expect("written");
    let (status, said) = cluster.refused(2, &[]);
    assert_eq!(status.code(), Some(74));
    assert!(said.contains("has format version 99, and this release knows only 1: use a newer release"), "{said}");
    assert_eq!(fs::read(&path).expect("readable"), newer, "nothing was written");
    for endpoint in &cluster.endpoints()[..2] {
        serves(endpoint).await;
    }
    // The newer release has it back.
    fs::write(&path, known).expect("written");
    cluster.restart(2);
    cluster.ready().await;
}
