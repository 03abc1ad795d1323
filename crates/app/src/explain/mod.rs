//! `quorate explain`: what a keyspace keeps and gives up, in a partition and otherwise (Abadi, "Consistency Tradeoffs in Modern Distributed Database System
//! Design", IEEE Computer 2012: PACELC), with what that costs now.

pub mod measure;
pub mod promises;
mod show;

use crate::cli::ExplainArgs;
use crate::failure::Failure;
use crate::native::client::client;
use measure::{Measured, measure};
use promises::{PROMISES, Promise, Writers};
use quorate_client::{Client, Error, Keyspace, Node};
use serde_json::{Value, json};
use tokio::task::JoinSet;

pub async fn run(args: ExplainArgs) -> Result<(), Failure> {
    let client = client(&args.servers)?;
    let keyspace = find(&client, &args.keyspace).await?;
    let nodes: Vec<Node> = client.nodes().await?.into_iter().filter(|node| !node.client_urls.is_empty()).collect();
    let mut asked = JoinSet::new();
    for node in nodes.clone() {
        let name = keyspace.name.clone();
        asked.spawn(async move { measure(&name, &node).await });
    }
    let mut measured: Vec<Measured> = asked.join_all().await.into_iter().flatten().collect();
    measured.sort_by(|a, b| a.node.cmp(&b.node));
    if args.servers.json {
        let told = told(&keyspace, &measured);
        println!("{}", serde_json::to_string_pretty(&told).map_err(std::io::Error::other)?);
    } else {
        show::lines(&keyspace, nodes.len(), &measured).iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

/// The keyspace, as a majority knows it, or else as some node does.
async fn find(client: &Client, name: &str) -> Result<Keyspace, Failure> {
    let all = match client.keyspaces().await {
        Err(Error::Unavailable { .. }) => client.known_keyspaces().await?,
        all => all?,
    };
    let found = all.into_iter().find(|keyspace| keyspace.name == name);
    found.ok_or_else(|| Failure::Usage(format!("there is no keyspace {name:?}: see quorate keyspace list")))
}

/// What each way of asking keeps and gives up in a keyspace.
fn promises_of(keyspace: &Keyspace) -> Vec<Promise> {
    let writers = Writers { whose: keyspace.replication, clocks: keyspace.commit_wait };
    std::iter::once(Promise::of_writers(writers)).chain(PROMISES.into_iter().skip(1)).collect()
}

fn told(keyspace: &Keyspace, measured: &[Measured]) -> Value {
    let promises: Vec<Value> = promises_of(keyspace)
        .iter()
        .map(|promise| {
            let measured: Vec<&Measured> = measured.iter().filter(|measured| measured.way == promise.way).collect();
            json!({
                "way": promise.way,
                "keeps": promise.keeps,
                "gives_up": promise.gives_up,
                "cut_off": promise.cut_off.words(),
                "measured": measured,
            })
        })
        .collect();
    json!({ "keyspace": keyspace, "pacelc": show::pacelc(keyspace), "promises": promises })
}
