//! `quorate doctor`: what the cluster survives, proved or refuted, and what to do about it (docs/doctor.md).
//!
//! Whom it can reach is what the doctor can reach: it runs where the clients are.

mod examine;
mod group;
mod show;

use crate::cli::ServerArgs;
use crate::failure::Failure;
use crate::native::client::client;
use examine::{Weight, examine};
use quorate_client::{Client, Error, Keyspace, Node, Options};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;

/// A node that does not answer within this is silent.
const PATIENCE: Duration = Duration::from_secs(2);

pub async fn run(args: ServerArgs) -> Result<(), Failure> {
    let client = client(&args)?;
    let (keyspaces, unsure) = keyspaces(&client).await?;
    let nodes = client.nodes().await?;
    let mut report = examine(&nodes, &keyspaces, &answering(&nodes).await);
    if let Some(why) = unsure {
        report.is_unsure(&why);
    }
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report).map_err(std::io::Error::other)?),
        false => show::lines(&report).iter().for_each(|line| println!("{line}")),
    }
    match report.weight() {
        Weight::Hint => Ok(()),
        Weight::Risk => {
            Err(Failure::Violation("one failure more may be one too many: what to do is said above".into()))
        }
        Weight::Down => Err(Failure::Server("something is unavailable: what to do is said above".into())),
    }
}

/// The keyspaces, as a majority knows them, or else as some node does, and why no majority could say.
async fn keyspaces(client: &Client) -> Result<(Vec<Keyspace>, Option<String>), Failure> {
    match client.keyspaces().await {
        Ok(keyspaces) => Ok((keyspaces, None)),
        Err(why @ Error::Unavailable { .. }) => Ok((client.known_keyspaces().await?, Some(why.to_string()))),
        Err(other) => Err(other.into()),
    }
}

/// The ids of the nodes that answer, and are who they are said to be. All are asked at once.
async fn answering(nodes: &[Node]) -> BTreeSet<String> {
    let mut asked = JoinSet::new();
    for node in nodes.iter().filter(|node| !node.client_urls.is_empty()).cloned() {
        asked.spawn(async move { answers(&node).await.then_some(node.id) });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

async fn answers(node: &Node) -> bool {
    let mut options = Options::default();
    (options.rounds, options.deadline, options.connect, options.answer) = (1, PATIENCE, PATIENCE, PATIENCE);
    let Ok(client) = Client::with(&node.client_urls, options) else { return false };
    client.nodes().await.is_ok_and(|nodes| nodes.iter().any(|other| other.here && other.id == node.id))
}
