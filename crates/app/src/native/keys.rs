//! `quorate kv`: keys, read, written, listed and watched; and transactions.

use super::client::{Ask, Servers};
use super::{bytes, list, print, print_json, text, watching};
use crate::cli::{CarefulArgs, KvArgs, KvVerb, RangeArgs};
use crate::failure::Failure;
use hyper::Method;
use quorate_native::percent;
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Keys in a page of a scan: a round trip for so many.
const PAGE: usize = 500;

pub async fn run(args: KvArgs) -> Result<(), Failure> {
    let servers = Servers::new(args.servers.endpoints)?;
    let kv = Kv { servers, keyspace: percent::encode(args.keyspace.as_bytes()), json: args.servers.json };
    match args.verb {
        KvVerb::Get { key } => kv.get(&key).await,
        KvVerb::Put { key, value, careful } => kv.put(&key, value, &careful).await,
        KvVerb::Delete { key, careful } => kv.delete(&key, &careful).await,
        KvVerb::Scan { range, limit } => kv.scan(&range, limit.unwrap_or(usize::MAX)).await,
        KvVerb::Watch { key, range, revision, prev } => {
            let mut words = words(&range);
            words.extend(key.map(|key| ("key", percent::encode(key.as_bytes()))));
            words.extend(revision.map(|revision| ("revision", revision.to_string())));
            words.extend(prev.then(|| ("prev", "true".into())));
            let path = address(format!("/v1/watch/{}", kv.keyspace), &words);
            watching::follow(&kv.servers, path, kv.json).await
        }
        KvVerb::Tx { file, idempotency_key } => kv.transact(&file, idempotency_key.as_ref()).await,
    }
}

/// The words that name a range.
fn words(range: &RangeArgs) -> Vec<(&'static str, String)> {
    let named = [("prefix", &range.prefix), ("from", &range.from), ("to", &range.to)];
    named.into_iter().filter_map(|(word, key)| Some((word, percent::encode(key.as_ref()?.as_bytes())))).collect()
}

fn address(path: String, words: &[(&str, String)]) -> String {
    let words: Vec<String> = words.iter().map(|(word, value)| format!("{word}={value}")).collect();
    if words.is_empty() { path } else { format!("{path}?{}", words.join("&")) }
}

/// All of standard input, or of a file.
fn input(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_end(&mut all).map(|_| ()),
        false => std::fs::read(path).map(|read| all = read),
    };
    read.map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))?;
    Ok(all)
}

fn condition(careful: &CarefulArgs) -> Option<Value> {
    let mut said = Map::new();
    let mut say = |word: &str, value: Option<Value>| said.extend(value.map(|value| (word.to_owned(), value)));
    say("exists", careful.if_exists.map(Value::from));
    say("value", careful.if_value.as_deref().map(text));
    say("version", careful.if_version.map(Value::from));
    say("mod_revision", careful.if_mod_revision.map(Value::from));
    (!said.is_empty()).then_some(Value::Object(said))
}

fn body(careful: &CarefulArgs, value: Option<Value>) -> Value {
    let mut body = json!({});
    if let Some(value) = value {
        body["value"] = value;
    }
    if let Some(condition) = condition(careful) {
        body["if"] = condition;
    }
    body
}

/// What the verbs have in common.
struct Kv {
    servers: Servers,
    keyspace: String,
    json: bool,
}

impl Kv {
    fn address(&self, key: &OsStr) -> Result<String, Failure> {
        if key.is_empty() {
            return Err(Failure::Usage("a key is not empty; quorate kv scan lists what there is".into()));
        }
        Ok(format!("/v1/kv/{}/{}", self.keyspace, percent::encode(key.as_bytes())))
    }

    /// Prints an answer: all of it for programs, and else what matters.
    fn say(&self, answer: &Value, plain: &[&[u8]]) -> Result<(), Failure> {
        let printed = if self.json { print_json(answer) } else { print(plain) };
        Ok(printed?)
    }

    async fn get(&self, key: &OsStr) -> Result<(), Failure> {
        let found = self.servers.ask(&Ask::get(self.address(key)?)).await?;
        self.say(&found, &[&bytes(&found["value"])])
    }

    async fn put(&self, key: &OsStr, value: OsString, careful: &CarefulArgs) -> Result<(), Failure> {
        let value = if value == "-" { OsString::from_vec(input(Path::new("-"))?) } else { value };
        let body = body(careful, Some(text(&value)));
        let ask = Ask::write(Method::PUT, self.address(key)?, body, careful.idempotency_key.as_ref());
        self.say(&self.servers.ask(&ask).await?, &[b"done"])
    }

    async fn delete(&self, key: &OsStr, careful: &CarefulArgs) -> Result<(), Failure> {
        let body = body(careful, None);
        let ask = Ask::write(Method::DELETE, self.address(key)?, body, careful.idempotency_key.as_ref());
        let done = self.servers.ask(&ask).await?;
        self.say(&done, &[if done["deleted"] == json!(false) { b"it was not there" } else { b"deleted" }])
    }

    async fn scan(&self, range: &RangeArgs, limit: usize) -> Result<(), Failure> {
        let mut words = words(range);
        words.push(("limit", PAGE.min(limit).to_string()));
        let mut next = (limit > 0).then(|| address(format!("/v1/kv/{}", self.keyspace), &words));
        let mut left = limit;
        while let Some(path) = next {
            let page = self.servers.ask(&Ask::get(path)).await?;
            let kvs = list(&page["kvs"]);
            for kv in kvs.iter().take(left) {
                self.say(kv, &[&bytes(&kv["key"]), &bytes(&kv["value"])])?;
            }
            left = left.saturating_sub(kvs.len());
            next = page["next"].as_str().filter(|_| left > 0).map(str::to_owned);
        }
        Ok(())
    }

    async fn transact(&self, file: &Path, name: Option<&String>) -> Result<(), Failure> {
        let said = input(file)?;
        let body: Value = serde_json::from_slice(&said).map_err(|e| {
            Failure::Usage(format!("{} is not JSON: {e}; docs/native-api.md has an example", file.display()))
        })?;
        let done = self.servers.ask(&Ask::write(Method::POST, "/v1/tx".into(), body, name)).await?;
        if self.json {
            print_json(&done)?;
        } else {
            for kv in list(&done["reads"]).iter().flat_map(|read| list(&read["kvs"])) {
                print(&[&bytes(&kv["key"]), &bytes(&kv["value"])])?;
            }
        }
        match done["succeeded"] == json!(true) {
            true => Ok(()),
            false => Err(Failure::Violation("a compare does not hold: \"else\" was written, if there is one".into())),
        }
    }
}
