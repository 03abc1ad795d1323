//! Clients that others wrote.

use crate::support::{self, Cluster, etcdctl, python};
use std::process::Command;

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
