//! What a cluster survives, as `quorate doctor` says: proved while all are there, and refuted when somebody dies or a zone has too many.

#[path = "../../src/doctor/examine.rs"]
mod examine;
#[path = "../../src/doctor/group.rs"]
mod group;

use crate::support::{Cluster, PATIENCE};
use quorate_client::{Client, Keyspace, Kind};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the doctor said, for people or programs, and its exit code.
fn doctor(cluster: &Cluster, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.arg("doctor").args(["--endpoints", &cluster.endpoints().join(",")]).args(more);
    let output = command.output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().expect("an exit code"), said)
}

/// Asks until the doctor says this, and returns all that it says then.
async fn says(cluster: &Cluster, code: i32, what: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (ended, said) = doctor(cluster, &[]);
        if ended == code && said.contains(what) {
            return said;
        }
        assert!(Instant::now() < deadline, "it ends with {ended} instead of {code}, or does not say {what:?}:\n{said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn made(cluster: &Cluster) -> Keyspace {
    let client = Client::new(cluster.endpoints()).expect("addresses");
    client.create_keyspace("bank", Kind::Ranged, &["m".into()], None).await.expect("made")
}

#[tokio::test(flavor = "multi_thread")]
async fn three_zones_may_lose_any_one_and_then_no_further_node() {
    let mut cluster = Cluster::start_with(3, &["--zone", "z-{node}"]).await;
    cluster.registered().await;
    assert_eq!(made(&cluster).await.replicas, Some(3));
    let said = says(&cluster, 0, "zones: z-n1, z-n2, z-n3, any one may fail").await;
    assert!(said.starts_with("3 nodes answer of 3. Any one node may fail;"), "{said}");
    assert!(said.contains("bank (2 shards, replicas: 3) survives the loss of any one node: yes"), "{said}");
    let (_, json) = doctor(&cluster, &["--json"]);
    let report: Value = serde_json::from_str(&json).expect("json");
    assert_eq!(report["any_one_zone"]["survives"], "yes", "{json}");

    cluster.kill(1);
    let said = says(&cluster, 1, "2 nodes answer of 3. No further node may fail").await;
    assert!(said.contains("n2 does not answer at http://") && said.contains("--evict-after"), "{said}");
    assert!(said.contains("bank, shard ") && said.contains("start n2 again"), "{said}");
    cluster.kill(0);
    let said = says(&cluster, 69, "1 node answers of 3. Too many have failed").await;
    assert!(said.contains("DOWN: bank, shard ") && said.contains("start 1 of n1 and n2 again"), "{said}");
    cluster.restart(0);
    cluster.restart(1);
    says(&cluster, 0, "Any one node may fail").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_in_one_zone_take_three_replicas_with_them() {
    let mut cluster = Cluster::start_with(2, &["--zone", "a"]).await;
    cluster.registered().await;
    let keyspace = made(&cluster).await;
    let said = says(&cluster, 0, "bank: it asks for 3 replicas of each shard, and there are 2 nodes").await;
    assert!(said.contains("2 members vote: none more of them may fail"), "{said}");
    cluster.tell(&["--zone", "b"]);
    let third = cluster.grow();
    cluster.restart(third);
    let said =
        says(&cluster, 0, "3 nodes answer of 3. Any one node may fail; zones: a, b, not every one may fail").await;
    let shard = keyspace.shards[0].shard;
    assert!(said.contains(&format!("shard {shard}: n1 and n2, 2 of 3 voters, are both in zone a")), "{said}");
    assert!(
        said.contains("start nodes in other zones (--join and --zone): of 3 that are needed there are 2"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_survives_nothing_and_is_well() {
    let cluster = Cluster::start(1).await;
    cluster.registered().await;
    let (code, said) = doctor(&cluster, &[]);
    assert_eq!((code, said.lines().next()), (0, Some("1 node: survives 0 failures.")), "{said}");
}
