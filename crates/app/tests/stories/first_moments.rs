//! What is asked of a cluster in the moment in which it begins is what it gets.

use crate::support::native::request;
use crate::support::{Cluster, PATIENCE};
use serde_json::json;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_that_is_made_at_once_has_the_replicas_that_were_asked_for() {
    for round in 0..8 {
        let cluster = Cluster::start_at_once(3);
        let wish = json!({ "name": "ledger", "kind": "ordered", "replicas": 3 });
        let deadline = Instant::now() + PATIENCE;
        let made = loop {
            match request(&cluster.endpoints()[0], "POST", "/v1/keyspaces", None, &wish) {
                Some((201, made)) => break made,
                answer => assert!(Instant::now() < deadline, "round {round}: {answer:?}"),
            }
        };
        // Without a placement it would have one replica on every member, for good.
        assert_eq!(made["replicas"], json!(3), "round {round}: {made}");
    }
}
