//! What each way of asking costs now, at each node.

use quorate_client::{Client, Error, Freshness, Node, Options, Request, Token};
use serde::Serialize;
use serde_json::json;
use std::time::{Duration, Instant};

/// How often each way is tried at each node.
const TRIES: usize = 20;

/// Who has no answer by then is said to refuse. It is more than servers take to say so themselves.
const PATIENCE: Duration = Duration::from_secs(8);

/// What is asked to be fresh is asked to be as fresh as this.
pub const AGE: Duration = Duration::from_millis(500);

/// The key that is looked at. It need not be there, and nothing is written to it.
const KEY: &str = "quorate/explain";

/// What came of some tries.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub node: String,
    /// As [`super::promises::Promise::way`].
    pub way: &'static str,
    /// Whether it answers.
    pub answers: bool,
    /// Half of the answers took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<u64>,
    /// None took longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_us: Option<u64>,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Tries all ways at one node. Nothing is changed.
pub async fn measure(keyspace: &str, node: &Node) -> Vec<Measured> {
    let mut options = Options::default();
    (options.rounds, options.deadline, options.answer) = (1, PATIENCE, PATIENCE);
    let Ok(client) = Client::with(&node.client_urls, options) else { return Vec::new() };
    let token = token(&client, keyspace).await;
    let named = |token: &Option<Token>, of: fn(Token) -> Freshness| token.clone().map(of);
    let ways = [
        ("write", None),
        ("strict", Some(Freshness::Strict)),
        ("at", named(&token, Freshness::At)),
        ("within", Some(Freshness::Within(AGE))),
        ("after", named(&token, Freshness::After)),
        ("any", Some(Freshness::Any)),
    ];
    let mut measured = Vec::new();
    for (way, freshness) in ways {
        if freshness.is_none() && way != "write" {
            let why = Some("no token is known: the node answers nothing, or keeps no timestamps yet".into());
            let (answers, p50_us, max_us) = (false, None, None);
            measured.push(Measured { node: node.name.clone(), way, answers, p50_us, max_us, why });
            continue;
        }
        let (mut took, mut why) = (Vec::new(), None);
        for _ in 0..TRIES {
            let began = Instant::now();
            match try_once(&client, keyspace, freshness.as_ref()).await {
                Ok(()) => took.push(began.elapsed().as_micros() as u64),
                Err(error) => {
                    why = Some(error.to_string());
                    break;
                }
            }
        }
        took.sort_unstable();
        measured.push(Measured {
            node: node.name.clone(),
            way,
            answers: why.is_none(),
            p50_us: took.get(took.len() / 2).copied(),
            max_us: took.last().copied(),
            why,
        });
    }
    measured
}

/// A moment that the node has seen.
async fn token(client: &Client, keyspace: &str) -> Option<Token> {
    let body = json!({ "read": [{ "keyspace": keyspace, "key": KEY }], "freshness": "any" });
    let said = client.ask(&Request::post("/v1/tx", body)).await.ok()?;
    let said = match said["token"].is_string() {
        true => said,
        // Nothing has ever happened in that shard.
        false => client.ask(&probe(keyspace)).await.ok()?,
    };
    Some(Token(said["token"].as_str()?.into()))
}

async fn try_once(client: &Client, keyspace: &str, freshness: Option<&Freshness>) -> Result<(), Error> {
    match freshness {
        Some(freshness) => client.look(keyspace, KEY, freshness).await.map(drop),
        None => client.ask(&probe(keyspace)).await.map(drop),
    }
}

/// What takes the way of a write, and writes nothing: its condition never holds.
fn probe(keyspace: &str) -> Request {
    let never = json!({ "keyspace": keyspace, "key": KEY, "version": -1 });
    let write = json!({ "keyspace": keyspace, "put": KEY, "value": "" });
    Request::transaction(json!({ "compare": [never], "write": [write] }), None)
}
