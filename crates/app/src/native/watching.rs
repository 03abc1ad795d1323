//! Prints what happens, until nobody can tell any more.

use super::{print, print_json};
use crate::failure::Failure;
use quorate_client::{Change, Watch, WatchEvent};
use serde_json::json;

pub async fn follow(mut watch: Watch, as_json: bool) -> Result<(), Failure> {
    loop {
        let WatchEvent::Changed { revision, changes } = watch.next().await? else { continue };
        if as_json {
            print_json(&json!({ "revision": revision, "changes": changes }))?;
            continue;
        }
        let revision = revision.to_string();
        for change in changes {
            match change {
                Change::Put { kv, .. } => print(&[revision.as_bytes(), b"put", &kv.key.0, &kv.value.0])?,
                Change::Delete { key, .. } => print(&[revision.as_bytes(), b"delete", &key.0])?,
            }
        }
    }
}
