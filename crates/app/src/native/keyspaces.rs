//! `quorate keyspace`: which there are, where their shards live, new ones, what is wanted of them, and splits.

use super::client::client;
use super::print_json;
use crate::cli::{KeyspaceArgs, KeyspaceVerb, Kind, Replication, Switch};
use crate::failure::Failure;
use quorate_client::{Keyspace, KeyspaceChange, Shard, Text};
use serde_json::json;
use std::os::unix::ffi::OsStrExt;

pub async fn run(args: KeyspaceArgs) -> Result<(), Failure> {
    let (client, as_json) = (client(&args.servers)?, args.servers.json);
    let one = match args.verb {
        KeyspaceVerb::List => {
            let all = client.keyspaces().await?;
            return show(&all, as_json, &json!({ "keyspaces": all }));
        }
        KeyspaceVerb::Create { name, kind, split_at, replicas } => {
            let kind = match kind {
                Kind::Ordered => quorate_client::Kind::Ordered,
                Kind::Ranged => quorate_client::Kind::Ranged,
                Kind::Log => quorate_client::Kind::Log,
            };
            let split_at: Vec<Text> = split_at.iter().map(|at| Text::from(at.as_bytes())).collect();
            client.create_keyspace(&name, kind, &split_at, replicas).await?
        }
        KeyspaceVerb::Shards { name } => {
            let all = client.keyspaces().await?;
            let found = all.into_iter().find(|keyspace| keyspace.name == name);
            let found = found.ok_or_else(|| {
                Failure::Server(format!(
                    "there is no keyspace {name:?}: \"quorate keyspace list\" says which there are"
                ))
            })?;
            return show_shards(&found, as_json);
        }
        KeyspaceVerb::Set { name, history, freshness, retain, retain_bytes, replication, commit_wait } => {
            let replication = replication.map(|replication| match replication {
                Replication::Majority => quorate_client::Replication::Majority,
                Replication::All => quorate_client::Replication::All,
                Replication::Leader => quorate_client::Replication::Leader,
            });
            let freshness = freshness.map(|freshness| freshness.to_string());
            let commit_wait = commit_wait.map(|switch| switch == Switch::On);
            let change = KeyspaceChange { history, freshness, retain, retain_bytes, replication, commit_wait };
            client.set_keyspace(&name, &change).await?
        }
        KeyspaceVerb::Split { name, at } => client.split_keyspace(&name, at.as_bytes()).await?,
    };
    show(std::slice::from_ref(&one), as_json, &json!(one))
}

fn show_shards(keyspace: &Keyspace, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return Ok(print_json(&json!({ "shards": keyspace.shards }))?);
    }
    println!("{:>6}  {:<24} {:<24} FROM", "SHARD", "NODES", "VOTERS");
    for Shard { shard, from, nodes, voters } in &keyspace.shards {
        let line = format!(
            "{shard:>6}  {:<24} {:<24} {}",
            nodes.join(" "),
            voters.join(" "),
            String::from_utf8_lossy(&from.0)
        );
        println!("{}", line.trim_end());
    }
    Ok(())
}

fn show(all: &[Keyspace], as_json: bool, json: &serde_json::Value) -> Result<(), Failure> {
    if as_json {
        return Ok(print_json(json)?);
    }
    println!("{:<24} {:<8} {:>7} {:<12} {:>6}  FROM", "NAME", "KIND", "HISTORY", "FRESHNESS", "SHARDS");
    for Keyspace { name, kind, shards, history, freshness, .. } in all {
        let kind = match kind {
            quorate_client::Kind::Ordered => "ordered",
            quorate_client::Kind::Ranged => "ranged",
            quorate_client::Kind::Log => "log",
        };
        let from = shards.iter().skip(1).map(|shard| String::from_utf8_lossy(&shard.from.0));
        let from = from.collect::<Vec<_>>().join(" ");
        let count = shards.len();
        let line = format!("{name:<24} {kind:<8} {history:>7} {freshness:<12} {count:>6}  {from}");
        println!("{}", line.trim_end());
    }
    Ok(())
}
