//! What one transaction has reserved, over all runs of its closure.
//!
//! It has one name and one age however often it runs. So it grows older than all that begin after it, and in the end
//! nobody takes anything from it. What is left when it is dropped, whoever drops it, is released; and what nobody
//! releases ends by itself, seconds after it was reserved.

use crate::buffer::At;
use crate::keys::read;
use crate::request::{Kind, Request, random_name};
use crate::{Client, Error, KeyValue, Text};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A key that is reserved, and since which entry of its shard's log.
#[derive(Debug, Deserialize)]
struct Held {
    since: u64,
    kv: Option<KeyValue>,
}

#[derive(Debug, Deserialize)]
struct Reserved {
    age: String,
    keys: Vec<Held>,
}

#[derive(Debug, Default)]
struct State {
    age: Option<String>,
    /// What may be reserved, by this run or one before it.
    keys: BTreeSet<At>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Locks {
    client: Client,
    name: String,
    /// Keys are asked for one after the other: the first answer tells the age that goes with all of them.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

fn said((keyspace, key): &At) -> Value {
    json!({ "keyspace": keyspace, "key": Text::from(key) })
}

fn held(held: &BTreeMap<At, u64>) -> Vec<Value> {
    let one =
        |((keyspace, key), since): (&At, &u64)| json!({ "keyspace": keyspace, "key": Text::from(key), "since": since });
    held.iter().map(one).collect()
}

impl Locks {
    pub fn new(client: Client) -> Self {
        Self { client, name: random_name(), turn: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each of its steps leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> String {
        format!("/v1/locks/{}", self.name)
    }

    /// Whether anything was reserved.
    pub fn are_used(&self) -> bool {
        !self.state().keys.is_empty()
    }

    /// Reserves a key, and reads it; `others` is what this run has reserved before.
    pub async fn reserve(&self, at: &At, others: &BTreeMap<At, u64>) -> Result<(Option<KeyValue>, u64), Error> {
        let _turn = self.turn.lock().await;
        let mut body = json!({ "keys": [said(at)], "held": held(others) });
        {
            let mut state = self.state();
            state.keys.insert(at.clone());
            if let Some(age) = &state.age {
                body["age"] = json!(age);
            }
        }
        let reserved: Reserved = read(self.client.ask(&Request::post(self.path(), body)).await?)?;
        self.state().age.get_or_insert(reserved.age);
        let one = reserved.keys.into_iter().next().ok_or_else(|| Error::strange("no key was reserved"))?;
        Ok((one.kv, one.since))
    }

    /// What a commit rests on.
    pub fn claim(&self, reserved: &BTreeMap<At, u64>) -> Option<Value> {
        let age = self.state().age.clone().filter(|_| !reserved.is_empty())?;
        Some(json!({ "name": self.name, "age": age, "held": held(reserved) }))
    }

    /// The commit has ended what it rested on. If an earlier run had reserved more than that, it is released.
    pub fn committed(&self, reserved: &BTreeMap<At, u64>) {
        self.state().keys.retain(|at| !reserved.contains_key(at));
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        let keys: Vec<Value> = self.state().keys.iter().map(said).collect();
        // Outside of a runtime nothing can be sent: it ends by itself.
        let (false, Ok(runtime)) = (keys.is_empty(), tokio::runtime::Handle::try_current()) else { return };
        let (client, path) = (self.client.clone(), self.path());
        runtime.spawn(async move {
            let body = Some(json!({ "keys": keys }));
            let _ = client.ask(&Request { method: Method::DELETE, path, body, kind: Kind::Read }).await;
        });
    }
}
