//! What goes on around the keyspace that the clients use: another one, whose shards are written to and split all the while.

use crate::failure::Failure;
use crate::native::Client;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;

/// Keys that are written between two splits.
const KEYS: usize = 40;

/// Shards that there come to be: below what a keyspace may have.
const SPLITS_MAX: usize = 100;

/// See the top of this file.
pub struct Neighbours {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<usize, Failure>>,
}

impl Neighbours {
    /// They begin to write and to split.
    pub fn move_in(host: &str) -> Self {
        let (host, stop) = (host.to_owned(), Arc::new(AtomicBool::new(false)));
        Self { task: tokio::spawn(live(host, stop.clone())), stop }
    }

    /// They stop. Returns how often something was split.
    pub async fn move_out(self) -> Result<usize, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.map_err(|e| Failure::Http(e.to_string()))?
    }
}

async fn live(host: String, stop: Arc<AtomicBool>) -> Result<usize, Failure> {
    let mut client = Client::to(&host).await?;
    client.done("POST", "/v1/keyspaces", &json!({ "name": "around", "kind": "ranged" })).await?;
    let mut splits = 0;
    while !stop.load(Ordering::Relaxed) && splits < SPLITS_MAX {
        for key in 0..KEYS {
            let path = format!("/v1/kv/around/{splits:03}.{key:02}");
            client.done("PUT", &path, &json!({ "value": "somebody else's" })).await?;
        }
        let at = format!("{splits:03}.{:02}", KEYS / 2);
        client.done("POST", "/v1/keyspaces/around/split", &json!({ "at": at })).await?;
        splits += 1;
    }
    Ok(splits)
}
