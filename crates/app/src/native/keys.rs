//! `quorate kv`: keys of any keyspace.

use super::client::client;
use super::{print, print_json, watching};
use crate::cli::{CarefulArgs, KvArgs, KvVerb, RangeArgs};
use crate::failure::Failure;
use quorate_client::{Client, Condition, Freshness, Range, Request, Text, Transacted};
use serde::Serialize;
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Keys in a page of a scan: a round trip for so many.
const PAGE: usize = 500;

pub async fn run(args: KvArgs) -> Result<(), Failure> {
    let kv = Kv { client: client(&args.servers)?, keyspace: args.keyspace, json: args.servers.json };
    match args.verb {
        KvVerb::Get { key, fresh } => kv.get(&key, fresh.freshness.as_ref()).await,
        KvVerb::Put { key, value, careful } => kv.put(&key, value, careful).await,
        KvVerb::Delete { key, careful } => kv.delete(&key, careful).await,
        KvVerb::Scan { range, limit, fresh } => {
            kv.scan(&range, limit.unwrap_or(usize::MAX), fresh.freshness.as_ref()).await
        }
        KvVerb::Watch { key, range, revision, prev } => {
            let range = key.map_or_else(|| named(&range), |key| Range::key(key.as_bytes()));
            let mut watch = kv.client.watch(&kv.keyspace, &range);
            if let Some(revision) = revision {
                watch = watch.from_revision(revision);
            }
            watching::follow(if prev { watch.with_prev() } else { watch }, kv.json).await
        }
        KvVerb::Tx { file, idempotency_key } => kv.transact(&file, idempotency_key).await,
    }
}

fn text(bytes: &OsStr) -> Text {
    Text::from(bytes.as_bytes())
}

/// The range that the flags name.
fn named(range: &RangeArgs) -> Range {
    let end = |key: &Option<OsString>| key.as_deref().map(text);
    match (end(&range.prefix), end(&range.from), end(&range.to)) {
        (Some(prefix), _, _) => Range::Prefix(prefix),
        (None, None, None) => Range::All,
        (None, from, to) => Range::Between(from, to),
    }
}

/// All of standard input, or of a file.
pub(super) fn input(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_end(&mut all).map(|_| ()),
        false => std::fs::read(path).map(|read| all = read),
    };
    read.map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))?;
    Ok(all)
}

fn condition(careful: &CarefulArgs) -> Option<Condition> {
    let condition = Condition {
        exists: careful.if_exists,
        value: careful.if_value.as_deref().map(text),
        version: careful.if_version,
        mod_revision: careful.if_mod_revision,
        create_revision: None,
    };
    (condition != Condition::default()).then_some(condition)
}

/// What the verbs have in common.
struct Kv {
    client: Client,
    keyspace: String,
    json: bool,
}

impl Kv {
    /// Prints an answer: all of it for programs, as the server says it, and else what matters.
    fn say(&self, answer: &impl Serialize, plain: &[&[u8]]) -> Result<(), Failure> {
        let mut answer = json!(answer);
        answer["outcome"] = json!("done");
        let printed = if self.json { print_json(&answer) } else { print(plain) };
        Ok(printed?)
    }

    async fn get(&self, key: &OsStr, freshness: Option<&Freshness>) -> Result<(), Failure> {
        let found = self.client.look(&self.keyspace, key.as_bytes(), freshness).await?;
        let found = found.ok_or_else(|| Failure::Violation("there is no such key".into()))?;
        self.say(&found, &[&found.kv.value.0])
    }

    async fn put(&self, key: &OsStr, value: OsString, careful: CarefulArgs) -> Result<(), Failure> {
        let value = if value == "-" { input(Path::new("-"))? } else { value.into_vec() };
        let (condition, name) = (condition(&careful), careful.idempotency_key);
        let done = self.client.put_if(&self.keyspace, key.as_bytes(), value, condition.as_ref(), name).await?;
        self.say(&done, &[b"done"])
    }

    async fn delete(&self, key: &OsStr, careful: CarefulArgs) -> Result<(), Failure> {
        let (condition, name) = (condition(&careful), careful.idempotency_key);
        let done = self.client.delete_if(&self.keyspace, key.as_bytes(), condition.as_ref(), name).await?;
        self.say(&done, &[if done.deleted == Some(false) { b"it was not there" } else { b"deleted" }])
    }

    async fn scan(&self, range: &RangeArgs, limit: usize, freshness: Option<&Freshness>) -> Result<(), Failure> {
        let mut pages = self.client.scan(&self.keyspace, &named(range), PAGE.min(limit));
        if let Some(freshness) = freshness {
            pages = pages.as_fresh_as(freshness);
        }
        let mut left = limit;
        while left > 0 {
            let Some(page) = pages.page().await? else { break };
            for kv in page.iter().take(left) {
                if self.json { print_json(kv)? } else { print(&[&kv.key.0, &kv.value.0])? }
            }
            left = left.saturating_sub(page.len());
        }
        Ok(())
    }

    async fn transact(&self, file: &Path, name: Option<String>) -> Result<(), Failure> {
        let said = input(file)?;
        let body: Value = serde_json::from_slice(&said).map_err(|e| {
            Failure::Usage(format!("{} is not JSON: {e}; docs/native-api.md has an example", file.display()))
        })?;
        let said = self.client.ask(&Request::transaction(body, name)).await?;
        if self.json {
            print_json(&said)?;
        }
        let done: Transacted =
            serde_json::from_value(said).map_err(|e| Failure::Server(format!("the answer makes no sense: {e}")))?;
        for kv in done.reads.iter().flat_map(|read| &read.kvs).filter(|_| !self.json) {
            print(&[&kv.key.0, &kv.value.0])?;
        }
        match done.succeeded {
            true => Ok(()),
            false => Err(Failure::Violation("a compare does not hold: \"else\" was written, if there is one".into())),
        }
    }
}
