//! An older release and a newer one side by side, and what the cluster can do meanwhile.

use crate::support::native::request;
use crate::support::{Cluster, PATIENCE, kv, put};
use quorate_kv::Level;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Asks for a keyspace: its status code and the reason, if it is refused.
fn make(endpoint: &str) -> (u16, Value) {
    let wish = json!({ "name": "bank", "kind": "ranged", "split_at": ["m"] });
    let (code, answer) = request(endpoint, "POST", "/v1/keyspaces", None, &wish).expect("an answer");
    (code, answer["reason"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_older_release_lacks_is_refused_until_the_last_node_is_upgraded() {
    let mut cluster = Cluster::start_with(3, &["--feature-level", "1"]).await;
    let endpoints = cluster.endpoints();
    let too_new = (503, json!("feature_level"));
    assert_eq!(make(&endpoints[0]), too_new);
    let write = json!({ "write": [{ "keyspace": "default", "put": "k", "value": "v" }] });
    let (code, answer) = request(&endpoints[1], "POST", "/v1/tx", None, &write).expect("an answer");
    assert_eq!((code, answer["reason"].clone()), too_new, "{answer}");

    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (endpoints, stop) = (endpoints.clone(), stop.clone());
        tokio::spawn(async move {
            let mut written = 0u64;
            for endpoint in endpoints.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    return written;
                }
                let Some(mut client) = kv(endpoint).await else { continue };
                written += u64::from(client.put(put("k", written.to_string())).await.is_ok());
            }
            written
        })
    };
    cluster.tell(&[]);
    for node in 0..3 {
        assert_eq!(make(&endpoints[2]), too_new, "{node} nodes are upgraded");
        cluster.terminate(node);
        assert!(cluster.stopped(node).success());
        cluster.restart(node);
        cluster.ready().await;
    }
    let deadline = Instant::now() + PATIENCE;
    while make(&endpoints[0]) == too_new {
        assert!(Instant::now() < deadline, "the level does not rise");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.expect("it goes on") > 0);
    assert_eq!(make(&endpoints[1]), (409, json!("keyspace_exists")));

    // There is no way back.
    cluster.terminate(0);
    assert!(cluster.stopped(0).success());
    let (status, said) = cluster.refused(0, &[("--feature-level", "1")]);
    assert!(
        !status.success() && said.contains(&format!("the cluster is at feature level {}", Level::LATEST)),
        "{said}"
    );
    let (status, said) = cluster.refused(0, &[("--feature-level", &(Level::LATEST.0 + 1).to_string())]);
    assert!(!status.success() && said.contains(&format!("this release knows 1 to {}", Level::LATEST)), "{said}");
}
