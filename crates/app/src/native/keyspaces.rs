//! `quorate keyspace`: which there are, new ones, and splits.

use super::client::{Ask, Servers};
use super::{bytes, list, print_json, text};
use crate::cli::{KeyspaceArgs, KeyspaceVerb, Kind};
use crate::failure::Failure;
use quorate_native::percent;
use serde_json::{Value, json};

pub async fn run(args: KeyspaceArgs) -> Result<(), Failure> {
    let servers = Servers::new(args.servers.endpoints)?;
    let answer = match args.verb {
        KeyspaceVerb::List => servers.ask(&Ask::get("/v1/keyspaces".into())).await?,
        KeyspaceVerb::Create { name, kind, split_at } => {
            let kind = match kind {
                Kind::Ordered => "ordered",
                Kind::Ranged => "ranged",
            };
            let split_at: Vec<Value> = split_at.iter().map(|at| text(at)).collect();
            let wish = json!({ "name": name, "kind": kind, "split_at": split_at });
            servers.ask(&Ask::change("/v1/keyspaces".into(), wish)).await?
        }
        KeyspaceVerb::Split { name, at } => {
            let path = format!("/v1/keyspaces/{}/split", percent::encode(name.as_bytes()));
            servers.ask(&Ask::change(path, json!({ "at": text(&at) }))).await?
        }
    };
    if args.servers.json {
        return Ok(print_json(&answer)?);
    }
    let all = answer["keyspaces"].as_array().cloned().unwrap_or_else(|| vec![answer]);
    println!("{:<24} {:<8} {:>6}  FROM", "NAME", "KIND", "SHARDS");
    for keyspace in &all {
        let word = |name: &str| keyspace[name].as_str().unwrap_or_default().to_owned();
        let shards = list(&keyspace["shards"]);
        let from = shards.iter().skip(1).map(|shard| String::from_utf8_lossy(&bytes(&shard["from"])).into_owned());
        let from = from.collect::<Vec<_>>().join(" ");
        println!("{}", format!("{:<24} {:<8} {:>6}  {from}", word("name"), word("kind"), shards.len()).trim_end());
    }
    Ok(())
}
